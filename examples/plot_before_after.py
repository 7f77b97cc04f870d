"""
What a calibration does to a reconstruction
===========================================

A simulated detector whose pixels differ by 2 % records a sweep and a scan. The slice reconstructed from the
scan shows rings where pixels differ from their neighbours; a flat field of 10 frames leaves its own noise in
rings; the calibration from 200 frames leaves less.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal.metrics import ring_strength
from detectorcal.simulate import (
    ELLIPSES,
    Detector,
    beam_profile,
    exposure_ladder,
    phantom_image,
    phantom_sinogram,
    projections,
    reconstruct,
)  # fmt: skip

shape, rng = (64, 320), np.random.default_rng(1)
detector = Detector.random(shape, prnu=0.02, seed=rng)
profile = beam_profile(shape, width=1.5)
angles = np.linspace(0, np.pi, 1200, endpoint=False)
sweep = detector.record(exposure_ladder(profile, 200), rng)
darks = detector.darks(20, rng)
flats = detector.flats(2500 * profile, 10, rng)
scan = projections(detector, 2500 * profile, ELLIPSES, angles, seed=rng)

# %%
# Fit once, correct, and compare with nothing and with a plain flat field.

cal = DetectorCalibrator(sigma=10).fit(sweep, dark=darks)
dark, flat = darks.mean(axis=0), flats.mean(axis=0)
transmissions = {
    "dark only": (scan - dark) / (2500 * profile),
    "flat field": (scan - dark) / (flat - dark),
    "detectorcal": cal.transform(scan, flats),
}

exact = reconstruct(phantom_sinogram(ELLIPSES, angles, shape[1]), angles)
density = exact[phantom_image(ELLIPSES, shape[1]) > 0].mean()
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
for ax, (name, transmission) in zip(axes, transmissions.items(), strict=True):
    slice_ = reconstruct(-np.log(np.maximum(transmission[:, 32], 1e-3)), angles)
    print(f"{name:12} rings of {100 * ring_strength(slice_, exact) / density:.2f} % of the mean density")
    ax.imshow(slice_[90:230, 90:230], cmap="gray", vmin=-0.002, vmax=0.014)
    ax.set_title(name)
    ax.axis("off")

# %%
# The README's picture is made by this file.

if (images := Path("docs/images")).is_dir():
    figure.savefig(images / "before_after.png", dpi=90)
