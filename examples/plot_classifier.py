"""
A classifier that a bad detector fools, and a calibration that helps it
=======================================================================

A classifier is trained on radiographs of digits from a perfect detector and then used on one whose pixels
differ by 10 %. The light is scarce: 500 electrons a pixel, and the darkest stroke takes away 5 % of them. A
calibration, made once from a sweep, goes in front of the classifier, which stays as it is.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from detectorcal import DetectorCalibrator
from detectorcal.simulate import Detector, beam_profile, exposure_ladder

SHAPE = (64, 64)
LEVEL = 1000.0  # DN above dark; at 2 DN per electron
BEAM = LEVEL * beam_profile(SHAPE, width=1.5)
ATTENUATION = 0.05  # of the darkest stroke
DARK = 100.0  # what the data sheet says, DN


def radiographs(detector, digits, rng):
    """Enlarge 8x8 digits to 64x64, and record them."""
    strokes = np.kron(digits / 16, np.ones((8, 8)))
    return detector.record(BEAM * np.exp(-ATTENUATION * strokes), rng)


def flatten(images):
    return images.reshape(len(images), -1)


# %%
# An eight, seen by both detectors and put right.

rng = np.random.default_rng(0)
perfect = Detector.random(SHAPE, prnu=0, dsnu=0, dark=DARK, system_gain=2.0)
bad = Detector.random(SHAPE, prnu=0.10, dark=DARK, system_gain=2.0, seed=rng)
sweep = bad.record(exposure_ladder(BEAM / LEVEL, 100, lowest=100, highest=1900), rng)
cal = DetectorCalibrator(sigma=10, method="photon").fit(sweep, dark=bad.darks(20, rng))
eight = load_digits().images[8:9]
seen = radiographs(bad, eight, rng)
shown = {
    "perfect detector": (radiographs(perfect, eight, rng) - DARK) / BEAM,
    "pixels that differ by 10 %": (seen - DARK) / BEAM,
    "the same, calibrated": cal.transform(seen, bad.flats(BEAM, 10, rng)),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for ax, (title, image) in zip(axes, shown.items(), strict=True):
    ax.imshow(image[0], cmap="gray", vmin=0.8, vmax=1.15)
    ax.set_title(title)
    ax.axis("off")

# %%
# One round: a detector, its sweep, and a classifier that has never seen it.


def accuracies(seed):
    """Share of digits recognised: perfect detector, bad detector, flat field, calibrated."""
    rng = np.random.default_rng(seed)
    bad = Detector.random(SHAPE, prnu=0.10, dark=DARK, system_gain=2.0, seed=rng)
    digits, labels = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(
        digits.reshape(-1, 8, 8), labels, train_size=700, test_size=500, random_state=seed
    )
    pca = PCA(30, random_state=0)
    classifier = make_pipeline(FunctionTransformer(flatten), pca, SVC(C=10))
    classifier.fit((radiographs(perfect, train, rng) - DARK) / BEAM, y_train)

    sweep = bad.record(exposure_ladder(BEAM / LEVEL, 100, lowest=100, highest=1900), rng)
    darks, flats = bad.darks(20, rng), bad.flats(BEAM, 10, rng)
    cal = DetectorCalibrator(sigma=10, method="photon").fit(sweep, dark=darks)
    calibrated = make_pipeline(cal.correction(flats), FrozenEstimator(classifier))

    images, dark = radiographs(bad, test, rng), darks.mean(axis=0)
    return (
        classifier.score((radiographs(perfect, test, rng) - DARK) / BEAM, y_test),
        classifier.score((images - DARK) / BEAM, y_test),
        classifier.score((images - dark) / (flats.mean(axis=0) - dark), y_test),
        calibrated.score(images, y_test),
    )


# %%
# Medians over five detectors, with other noise and other digits each time.

rounds = 100 * np.array([accuracies(seed) for seed in range(5)])
clean, bad, flat_field, calibrated = np.median(rounds, axis=0)
lost, won_back = clean - bad, calibrated - bad

print(f"perfect detector        {clean:.1f} % of the digits are recognised")
print(f"pixels that differ      {bad:.1f} %: {lost:.1f} points are lost")
print(f"the same, calibrated    {calibrated:.1f} %: {won_back / lost:.0%} of that is won back")
print(f"the same, flat field    {flat_field:.1f} %")

# %%
# A plain flat field of the same 10 flats is in the last line: where an image's own noise is larger than that
# of the flats, the two do the same. Had the classifier been trained on this detector's images it would have
# learned around the pattern, and would have to be trained anew for the next detector.
#
# `FrozenEstimator(cal)` in place of `cal.correction(flats)` corrects without a flat: what differs over
# distances wider than `sigma` then stays in the images, and so does the beam.
