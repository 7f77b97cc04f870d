"""
Pixels that cannot be calibrated
================================

Dead pixels, hot ones, saturated ones and spots: what a calibration makes of each, and how to see it. A pixel
that cannot be solved gets the harmless coefficient 1 and a bit in `defects_`, never a wild number, and does
not spread to its neighbours.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from detectorcal import DetectorCalibrator, DetectorcalWarning
from detectorcal.simulate import Detector, exposure_ladder, true_coefficient

SIGMA = 10
shape, rng = (96, 128), np.random.default_rng(0)
detector = Detector.random(shape, prnu=0.02, dead=0.002, hot=0.002, seed=rng)
sweep = detector.record(exposure_ladder(np.ones(shape), 40), rng)
darks = detector.darks(20, rng)
sweep[:, 40:44, 60:64] = 4095  # pixels that always saturate
for frame in sweep:  # cosmic rays
    frame[rng.integers(96, size=20), rng.integers(128, size=20)] += 900

# %%
# `saturation` and `reject` say what is not to be believed in a single frame. One warning counts the pixels
# that are left without an answer.


def fit(**params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DetectorcalWarning)
        cal = DetectorCalibrator(SIGMA, saturation=4095, **params).fit(sweep, dark=darks)
    print(*(f"{params or ''} {warning.message}" for warning in caught))
    return cal


plain, rejecting = fit(), fit(reject=6)

# %%
# A dead pixel is a spot in every frame: with `reject` none of its frames takes part, and it is "unsolved".
#
# A pixel can be solved and still be a bad one. The hot pixels of this detector are: noisy, with a high dark
# that is subtracted. The true coefficients are known here, so all the others can be judged, and those that
# were hit by a cosmic ray in one frame of forty.

truth = true_coefficient(detector, SIGMA)
good = (rejecting.defects_ == 0) & (detector.defects == 0)
for name, cal in {"without reject": plain, "reject=6": rejecting}.items():
    error = 100 * (cal.coef_ / truth - 1)[good].std()
    stated = 100 * np.median(cal.coef_std_[good])
    print(f"{name:15} error {error:.2f} %, standard error {stated:.2f} %")

# %%
# What goes on with the images uses a mask, `cal.defects_ == 0`.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
shown = axes[0].imshow(rejecting.coef_, cmap="gray", vmin=0.94, vmax=1.06)
figure.colorbar(shown, ax=axes[0], label="coefficient")
marked = np.where(rejecting.defects_ == 0, np.nan, rejecting.defects_)
axes[1].imshow(marked, cmap="cividis", interpolation="nearest")
for ax, title in zip(axes, ("coef_", "pixels marked in defects_"), strict=True):
    ax.set(title=title, xlabel="column, pixels")
axes[0].set_ylabel("row, pixels")
