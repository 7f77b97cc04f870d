"""
A live stream
=============

While a camera runs, frames come one by one. `DetectorCalibrator.correction` works out once what dark,
coefficients and flat amount to; each frame then costs one subtraction and one multiplication per pixel.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal.simulate import Detector, beam_profile, exposure_ladder

shape, rng = (512, 512), np.random.default_rng(0)
detector = Detector.random(shape, prnu=0.05, seed=rng)
beam = 2000 * beam_profile(shape, width=1.5)
sweep = detector.record(exposure_ladder(beam / 2000, 30), rng)
cal = DetectorCalibrator(sigma=20).fit(sweep, dark=detector.darks(10, rng))

# %%
# Before the stream: the correction of today's beam, and an array for the result, so that none is made per
# frame.

live = cal.correction(flat=detector.flats(beam, 10, rng))
transmission = np.empty(shape, np.float32)

# %%
# The stream: a drop falls through the beam.

row, column = np.mgrid[: shape[0], : shape[1]]


def frames_of_a_falling_drop():
    for height in range(60, 460, 50):
        distance = np.hypot(row - height, column - 256)
        yield detector.record(beam * np.exp(-0.5 * np.maximum(1 - distance / 40, 0)), rng)


camera = list(frames_of_a_falling_drop())
seconds = []
for frame in camera:
    start = time.perf_counter()
    live.transform(frame, out=transmission)
    seconds.append(time.perf_counter() - start)
print(f"{1000 * np.median(seconds):.2f} ms a frame of 512x512 pixels, one thread")

# %%
# `live` is a scikit-learn transformer as well: `make_pipeline(live, ...)`. It pickles, and holds nothing but
# two maps.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
images = {"raw, DN": frame, "transmission": transmission}
for ax, (name, image) in zip(axes, images.items(), strict=True):
    low, high = np.percentile(image, [1, 99])
    figure.colorbar(ax.imshow(image, cmap="gray", vmin=low, vmax=high), ax=ax, label=name)
    ax.set_xlabel("column, pixels")
axes[0].set_ylabel("row, pixels")
