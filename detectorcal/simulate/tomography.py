"""Phantoms of ellipses, their projections, and the slice reconstructed from them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detectorcal._typing import Float64
from detectorcal.simulate._common import Seed, require
from detectorcal.simulate.detector import Detector


class Ellipse(NamedTuple):
    """Part of a phantom: lengths in half widths of the field of view.

    Parameters
    ----------
    density : float
        Attenuation per half width; where ellipses overlap densities add up.
    x, y : float
        Middle, from the axis of rotation.
    a, b : float
        Semi-axes.
    tilt : float
        Angle of the semi-axis `a` against x, rad.

    Examples
    --------
    >>> drill_hole = Ellipse(-0.3, x=0.2, a=0.1, b=0.1)
    >>> drill_hole.y, drill_hole.tilt
    (0.0, 0.0)
    """

    density: float
    x: float = 0.0
    y: float = 0.0
    a: float = 0.5
    b: float = 0.5
    tilt: float = 0.0


ELLIPSES = (
    Ellipse(0.8, 0.0, 0.0, 0.85, 0.7),
    Ellipse(-0.5, 0.35, 0.1, 0.15, 0.3, 0.4),
    Ellipse(0.6, -0.3, 0.25, 0.2, 0.1, -0.6),
    Ellipse(1.0, -0.2, -0.35, 0.08, 0.08),
    Ellipse(0.3, 0.2, -0.35, 0.2, 0.12, 1.0),
)
"""A phantom without rotational symmetry; transmits about 20 % along its longest chord."""

CYLINDERS = (Ellipse(0.8, a=0.8, b=0.8), Ellipse(-0.3, a=0.6, b=0.6), Ellipse(0.5, a=0.4, b=0.4))
"""Centred cylinders: an object whose own rings a ring filter must leave alone."""


def phantom_sinogram(phantom: Sequence[Ellipse], angles: ArrayLike, width: int) -> Float64:
    r"""Exact line integrals of ellipses in a parallel beam [1]_, sampled at the pixels' middles.

    .. math:: p(\theta, t) = 2 \rho a b \sqrt{A^2 - \tau^2} / A^2, \quad
        A^2 = a^2 \cos^2(\theta - \phi) + b^2 \sin^2(\theta - \phi), \quad
        \tau = t - x \cos\theta - y \sin\theta

    Parameters
    ----------
    phantom : sequence of Ellipse
        Densities add up where ellipses overlap.
    angles : array of shape (n_angles,)
        Radians.
    width : int
        Pixels of a detector row; the axis of rotation is at ``(width - 1) / 2``.

    Returns
    -------
    array of shape (n_angles, width), float64
        -log(transmission), dimensionless.

    References
    ----------
    .. [1] A. C. Kak and M. Slaney, Principles of Computerized Tomographic Imaging (1988), section 3.1.

    Examples
    --------
    >>> chord = phantom_sinogram([Ellipse(1.0, a=0.5, b=0.5)], [0.0], 5)
    >>> chord.round(6)
    array([[0. , 0.6, 1. , 0.6, 0. ]])
    """
    theta = np.asarray(angles, dtype=np.float64)[:, None]
    t = _positions(width)
    total = np.zeros((theta.shape[0], width))
    for e in phantom:
        tau = t - e.x * np.cos(theta) - e.y * np.sin(theta)
        reach = (e.a * np.cos(theta - e.tilt)) ** 2 + (e.b * np.sin(theta - e.tilt)) ** 2
        total += 2 * e.density * e.a * e.b * np.sqrt(np.maximum(reach - tau**2, 0.0)) / reach
    return total


def phantom_image(phantom: Sequence[Ellipse], width: int) -> Float64:
    """Attenuation at the pixels' middles: the truth for `reconstruct`.

    Parameters
    ----------
    phantom : sequence of Ellipse
        Densities add up where ellipses overlap.
    width : int
        Pixels of a side.

    Returns
    -------
    array of shape (width, width), float64
        Attenuation per pixel.

    Examples
    --------
    >>> phantom_image([Ellipse(1.0, a=0.5, b=0.5)], 4)
    array([[0. , 0. , 0. , 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0. , 0. , 0. ]])
    """
    x = _positions(width)
    y = x[:, None]
    image = np.zeros((width, width))
    for e in phantom:
        along = (x - e.x) * np.cos(e.tilt) + (y - e.y) * np.sin(e.tilt)
        across = (y - e.y) * np.cos(e.tilt) - (x - e.x) * np.sin(e.tilt)
        image[(along / e.a) ** 2 + (across / e.b) ** 2 <= 1.0] += e.density * 2 / width
    return image


def projections(
    detector: Detector, beam: ArrayLike, phantom: Sequence[Ellipse], angles: ArrayLike, *, seed: Seed
) -> NDArray[Any]:
    """Record a scan of a phantom that is the same at every height.

    Parameters
    ----------
    detector : Detector
        The last axis is across the axis of rotation.
    beam : array of shape (*detector_shape) or (n_angles, *detector_shape)
        Intensity of the empty beam, DN; one per angle if it drifts.
    phantom : sequence of Ellipse
        `ELLIPSES`, `CYLINDERS`, or your own.
    angles : array of shape (n_angles,)
        Radians.
    seed : int or numpy.random.Generator
        Source of the noise.

    Returns
    -------
    array of shape (n_angles, *detector_shape)
        Raw readings, DN.

    Examples
    --------
    >>> from detectorcal.simulate import ELLIPSES, Detector, beam_profile, projections
    >>> detector = Detector.random((8, 64), seed=0)
    >>> angles = np.linspace(0, np.pi, 30, endpoint=False)
    >>> scan = projections(detector, 2000 * beam_profile((8, 64)), ELLIPSES, angles, seed=1)
    >>> scan.shape, scan.dtype
    ((30, 8, 64), dtype('uint16'))
    """
    rng = np.random.default_rng(seed)
    sinogram = phantom_sinogram(phantom, angles, detector.shape[-1])
    beams = np.broadcast_to(np.asarray(beam, dtype=np.float64), (len(sinogram), *detector.shape))
    return np.stack([detector.record(b * np.exp(-p), rng) for b, p in zip(beams, sinogram, strict=True)])


def reconstruct(sinogram: ArrayLike, angles: ArrayLike) -> Float64:
    """Reconstruct a slice by filtered back-projection with the ramp filter [1]_: small, not fast.

    Parameters
    ----------
    sinogram : array of shape (n_angles, width)
        -log(transmission); the axis of rotation is at ``(width - 1) / 2``.
    angles : array of shape (n_angles,)
        Radians, evenly spaced over a half turn or a whole one.

    Returns
    -------
    array of shape (width, width), float64
        Attenuation per pixel.

    References
    ----------
    .. [1] A. C. Kak and M. Slaney, Principles of Computerized Tomographic Imaging (1988), section 3.3.3.

    Examples
    --------
    >>> angles = np.linspace(0, np.pi, 180, endpoint=False)
    >>> disc = [Ellipse(1.0, a=0.5, b=0.5)]
    >>> slice_ = reconstruct(phantom_sinogram(disc, angles, 101), angles)
    >>> round(float(slice_[50, 50]), 4), round(2 / 101, 4)
    (0.0198, 0.0198)
    """
    rows, angles = np.asarray(sinogram, dtype=np.float64), np.asarray(angles, dtype=np.float64)
    fits = rows.ndim == 2 and angles.shape == rows.shape[:1]
    require(
        fits, "sinogram, angles", "of shapes (n_angles, width) and (n_angles,)", (rows.shape, angles.shape)
    )
    width = rows.shape[1]
    padded = 1 << (2 * width - 1).bit_length()
    lag = np.fft.fftfreq(padded, 1 / padded)
    odd = lag % 2 == 1
    ramp = np.where(odd, -1.0, 0.0) / (np.pi * np.where(odd, lag, 1.0)) ** 2
    ramp[0] = 0.25
    filtered = np.fft.irfft(np.fft.rfft(rows, padded) * np.fft.rfft(ramp), padded)[:, :width]
    t = np.arange(width) - (width - 1) / 2
    image = np.zeros((width, width))
    for row, angle in zip(filtered, angles, strict=True):
        image += np.interp(t * np.cos(angle) + t[:, None] * np.sin(angle), t, row)
    return image * (np.pi / len(angles))


def _positions(width: int) -> Float64:
    """Middles of the pixels, in half widths from the axis of rotation."""
    return (2.0 * np.arange(width) - (width - 1)) / width
