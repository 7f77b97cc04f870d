"""
Pixels not to believe
=====================

Dead pixels, hot ones, saturated ones and spots: what a calibration makes of each, and how to see it. Each
pixel that is not to be believed has the bits of its causes in `defects_`; none spreads to its neighbours.
"""

import warnings

import numpy as np

from detectorcal import DetectorCalibrator, DetectorcalWarning
from detectorcal.plot import plot_coefficients, plot_defects
from detectorcal.simulate import Detector, exposure_ladder, true_coefficient

SIGMA = 10
shape, rng = (96, 128), np.random.default_rng(0)
detector = Detector.random(shape, prnu=0.02, dead=0.002, hot=0.002, seed=rng)
sweep = detector.record(exposure_ladder(np.ones(shape), 40), rng)
darks = detector.darks(20, rng)
sweep[:, 40:44, 60:64] = 4095  # pixels that always read the most
for frame in sweep:  # cosmic rays
    frame[rng.integers(96, size=20), rng.integers(128, size=20)] += 900
np.minimum(sweep, 4095, out=sweep)  # a camera of 12 bits

# %%
# Before anything is summed, a look at 16 of the frames finds the pixels that do not follow the light, and the
# value at which readings are saturated. `reject` says what is not to be believed in a single frame. Warnings
# count the causes.


def fit(**params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DetectorcalWarning)
        cal = DetectorCalibrator(SIGMA, **params).fit(sweep, dark=darks)
    print(*(f"{params or ''} {warning.message}" for warning in caught), sep="\n")
    return cal


plain, rejecting = fit(), fit(reject=6)
print(f"saturated from {plain.saturation_:.0f} DN on")

# %%
# Without `reject` the pixels that a cosmic ray hit scatter more than their neighbours, and are "noisy"; with
# it, only that reading is left out. The true coefficients are known here, so all good pixels can be judged.

truth = true_coefficient(detector, SIGMA)
for name, cal in {"without reject": plain, "reject=6": rejecting}.items():
    good = (rejecting.defects_ == 0) & (detector.defects == 0)
    error = 100 * (cal.coef_ / truth - 1)[good].std()
    stated = 100 * np.median(cal.coef_std_[good])
    print(f"{name:15} error {error:.2f} %, standard error {stated:.2f} %")

# %%
# Images are corrected with `cal.transform(images, flat, defects="interpolate")`, which mends such pixels from
# the good ones around them.

plot_defects(rejecting)
plot_coefficients(rejecting)

image = sweep[20]
mended = rejecting.transform(image, defects="interpolate")
kept = rejecting.transform(image)
bad = rejecting.defects_ != 0
print(f"largest value of a bad pixel: kept {kept[bad].max():.0f} DN, mended {mended[bad].max():.0f} DN")
