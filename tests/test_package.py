"""The package as a whole: what importing it loads, and what is found in it."""

from __future__ import annotations

import os
import subprocess
import sys

import detectorcal


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
