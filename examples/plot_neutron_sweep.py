"""
A real sweep: a neutron camera
==============================

Open beams of 5 to 120 s and a dark of each, from the neutron imaging camera of PSI
(ImagingLectures/WaterInSand, CC0). The calibration is made from four exposures and judged on the fifth. Gamma
rays leave bright spots in about 1 % of the pixels of each frame: `reject` keeps them out.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from detectorcal import Correction, DetectorCalibrator, DetectorcalWarning
from detectorcal.metrics import column_profile, relative_spread
from detectorcal.simulate import Detector, beam_profile, drifting_darks, exposure_ladder

SIGMA = 50
EXPOSURES = 5, 10, 20, 60, 120  # s

data = "shared/data/neutron_wedge_left/*.npz"
found = [path for parent in Path.cwd().parents for path in parent.glob(data)]
if found:  # beside the checkout
    with np.load(found[0]) as file:
        beams = np.stack([file[f"ob_{t}s"] for t in EXPOSURES])
        darks = np.stack([file[f"dc_{t}s"] for t in EXPOSURES])
    print(f"measured frames of {beams.shape[1:]} pixels")
else:
    shape = (300, 375)
    detector = Detector.random(shape, prnu=0.04, dark=297.0, system_gain=4.0, bits=16)
    ladder = exposure_ladder(beam_profile(shape, width=1), len(EXPOSURES))
    ladder *= (np.array(EXPOSURES) * 300 / np.linspace(200, 3000, 5))[:, None, None]
    mean_darks = drifting_darks(detector, len(EXPOSURES), drift=20)
    beams = detector.record(ladder, 2, dark=mean_darks)
    darks = detector.record(np.zeros_like(ladder), 3, dark=mean_darks)
    print("The measured frames (shared/data, beside the checkout) are not here.")
    print("What follows is SIMULATED.")

# %%
# Each exposure has its own dark, which grows with the time: `dark_per_frame`.

cal = DetectorCalibrator(SIGMA, method="photon", reject=6)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DetectorcalWarning)  # of what the next line counts
    cal.fit(beams[:-1], dark=darks[:-1], dark_per_frame=True)
n_bad = np.count_nonzero(cal.defects_)
print(f"{n_bad} of {cal.n_features_in_} pixels could not be calibrated")

# %%
# The fifth exposure: its dark subtracted and its spots replaced, nothing more, and then calibrated. Both are
# held against the smoothed frame.

without = Correction(np.ones(cal.detector_shape_), darks[-1], reject=6)
judged = without.transform(beams[-1])
coefficients = {"dark and spots only": 1.0, "calibrated": cal.coef_}
for name, coef in coefficients.items():
    spread = relative_spread(judged, coef, SIGMA)
    profile = column_profile(judged, coef, SIGMA)
    print(f"{name:20}  pixels differ by {spread:.2f} %, columns by {profile:.2f} %")

# %%
# What differs from column to column makes rings in a reconstruction, and of that a calibration from only four
# frames leaves little. The rest of the pixels' spread is noise, of the judged frame and of the four.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
smooth = gaussian_filter(judged, SIGMA, mode="nearest")
for ax, (name, coef) in zip(axes, coefficients.items(), strict=True):
    shown = ax.imshow(100 * (judged * coef / smooth - 1), cmap="gray", vmin=-10, vmax=10)
    ax.set(title=f"{EXPOSURES[-1]} s, {name}", xlabel="column, pixels")
axes[0].set_ylabel("row, pixels")
figure.colorbar(shown, ax=axes, label="off the smoothed frame, %")
