"""The package as a whole: what importing it loads, and whether the README's code runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

import detectorcal
from detectorcal import simulate

README = Path(__file__).parents[1] / "README.md"


def test_import_loads_nothing_heavy():
    heavy = ["matplotlib", "dask", "cupy", "click", "rich", "zarr", "h5py", "tifffile"]
    code = f"import sys, detectorcal; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_submodules_are_found_after_importing_the_package():
    assert callable(detectorcal.plot.plot_pixel_calibrations)
    assert callable(detectorcal.io.open_frames)
    assert set(detectorcal.__all__) <= set(dir(detectorcal))


def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    detector = simulate.Detector.random((32, 32), seed=rng)
    beam = simulate.beam_profile((32, 32), width=2)
    stacks = {
        "sweep": detector.record(simulate.exposure_ladder(beam, 20), rng),
        "darks": detector.darks(5, rng),
        "flats": detector.flats(2000 * beam, 5, rng),
        "scan": detector.flats(1000 * beam, 4, rng),
    }
    for name, frames in stacks.items():
        tifffile.imwrite(f"{name}.tif", frames, photometric="minisblack")
    labels = np.array([0, 1] * 6)
    images = detector.record((1000 + 500 * labels)[:, None, None] * beam, rng)
    names = {"images": images, "labels": labels}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(block, names)
    assert names["transmission"].shape == stacks["scan"].shape
    assert abs(names["transmission"].mean() - 0.5) < 0.01
    assert names["model"].score(images, labels) == 1.0
