"""
Larger than memory: zarr and Dask
=================================

A stack in a file is read a batch at a time, in `fit` and in `transform`, so memory does not grow with the
number of frames. A Dask array stays lazy: its correction becomes part of the graph.
"""

import tempfile
import tracemalloc
from pathlib import Path

import dask.array
import matplotlib.pyplot as plt
import numpy as np
import zarr

from detectorcal import DetectorCalibrator
from detectorcal.io import create_frames, open_frames
from detectorcal.simulate import Detector, beam_profile, exposure_ladder

folder = Path(tempfile.mkdtemp())
shape, rng = (256, 256), np.random.default_rng(0)
detector = Detector.random(shape, prnu=0.02, seed=rng)
profile = beam_profile(shape, width=1.5)
n_frames = 600

# %%
# Frames are written as they come, to a store that gets its name when it is whole.

with create_frames(folder / "sweep.zarr", (n_frames, *shape), "uint16") as out:
    levels = exposure_ladder(profile, n_frames)
    for start in range(0, n_frames, 100):
        out[start : start + 100] = detector.record(levels[start : start + 100], rng)
del levels
dark = detector.darks(20, rng).mean(axis=0)

# %%
# `fit` takes a stack that `open_frames` opened, a zarr array, an h5py dataset or a memory map.

tracemalloc.start()
with open_frames(folder / "sweep.zarr") as sweep:
    cal = DetectorCalibrator(sigma=20, batch_size="4 MB").fit(sweep, dark=dark)
    size = np.prod(sweep.shape) * sweep.dtype.itemsize
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
print(f"a sweep of {size / 2**20:.0f} MB fitted with {peak / 2**20:.0f} MB of memory")

# %%
# File to file: `out` takes the corrected frames as they are made.

with (
    open_frames(folder / "sweep.zarr") as images,
    create_frames(folder / "corrected.zarr", images.shape, "float32") as out,
):
    cal.transform(images, out=out)

# %%
# With Dask nothing is computed before it is asked for, and then only what is needed: here 10 frames of 600,
# as threads of this process; on a cluster in the same way.

images = dask.array.from_zarr(folder / "sweep.zarr")
lazy = cal.transform(images)
print(lazy)
brightest = lazy[-10:].mean(axis=0).compute()

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained", sharey=True)
raw = images[-10:].mean(axis=0).compute() - dark
for ax, title, image in zip(axes, ("raw", "corrected"), (raw, brightest), strict=True):
    shown = ax.imshow(image, cmap="gray", vmin=0.75 * raw.max(), vmax=0.95 * raw.max())
    ax.set(title=f"mean of 10 frames, {title}", xlabel="column, pixels")
axes[0].set_ylabel("row, pixels")
figure.colorbar(shown, ax=axes, label="DN above dark")

# %%
# Both give the same numbers, and both agree with arrays in memory.

written = zarr.open_array(folder / "corrected.zarr", mode="r")
print(np.array_equal(written[-10:], lazy[-10:].compute()))
print(np.array_equal(written[0], cal.transform(images[0].compute())))
