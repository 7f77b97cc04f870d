"""A detector with known truth: fixture of the tests, material of the demo and of the documentation.

Light goes one way. `beam_profile` and its kin give the mean intensity, a `Detector` records it, and
whatever a calibration makes of the frames can be held against the detector's own maps.

    intensity -> X-rays absorbed -> light spread -> gain, curvature -> electrons -> dark, read noise -> DN

An intensity is what a perfect pixel reads on average above its dark, in DN. All randomness comes from
`seed`, an integer or a `numpy.random.Generator`.
"""

from detectorcal.simulate.beam import beam_profile, drifting_beam, exposure_ladder, moved_beam
from detectorcal.simulate.detector import Detector, drifting_darks, true_coefficient
from detectorcal.simulate.tomography import (
    CYLINDERS,
    ELLIPSES,
    Ellipse,
    phantom_image,
    phantom_sinogram,
    projections,
    reconstruct,
)

__all__ = [
    "CYLINDERS",
    "ELLIPSES",
    "Detector",
    "Ellipse",
    "beam_profile",
    "drifting_beam",
    "drifting_darks",
    "exposure_ladder",
    "moved_beam",
    "phantom_image",
    "phantom_sinogram",
    "projections",
    "reconstruct",
    "true_coefficient",
]
