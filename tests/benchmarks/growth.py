"""How the time of a fit grows: with frames and with pixels it should grow in proportion."""

from __future__ import annotations

from functools import partial

import numpy as np

from detectorcal import DetectorCalibrator
from tests.benchmarks.frames import DISTINCT, make_sweep
from tests.benchmarks.machine import physical_memory
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Row, Table
from tests.benchmarks.timing import Job, timed_rows

MEMORY_SHARE = 0.25
"""Largest part of the machine's memory that a sweep may take."""


def grow_frames(sizes: Sizes) -> Table:
    """Fit more and more frames of one detector."""
    fitting = [n for n in sizes.growth_frames if _fits_memory(n, sizes.shape)]
    sweep, dark = make_sweep(max(fitting), sizes.shape, DISTINCT)
    calibrator = DetectorCalibrator(sizes.sigma, n_jobs=-1)
    jobs = {f"{n} frames": Job(partial(calibrator.fit, sweep[:n], dark=dark), n) for n in fitting}
    rows = timed_rows(jobs, sizes.turns)
    for row, n in zip(rows, fitting, strict=True):
        row["seconds"] = row["ms per frame"] * n / 1e3
    _against_first(rows, "ms per frame")
    return Table("Growth with frames", f"Fit, croton, all cores, {_pixels(sizes.shape)} in memory.", rows)


def grow_pixels(sizes: Sizes) -> Table:
    """Fit frames of larger and larger detectors; the sweeps take turns to be in memory, not to be timed."""
    n, rows = sizes.growth_width_frames, list[Row]()
    for width in sizes.growth_widths:
        shape = (width, width)
        if _fits_memory(n, shape):
            sweep, dark = make_sweep(n, shape, distinct=min(n, 4))
            calibrator = DetectorCalibrator(sizes.sigma, n_jobs=-1)
            job = Job(partial(calibrator.fit, sweep, dark=dark), n)
            rows += timed_rows({_pixels(shape): job}, sizes.turns)
            rows[-1]["ns per frame and pixel"] = 1e6 * rows[-1]["ms per frame"] / width**2
    _against_first(rows, "ns per frame and pixel")
    return Table("Growth with pixels", f"Fit, croton, all cores, {n} frames in memory.", rows)


def _against_first(rows: list[Row], column: str) -> None:
    for row in rows:
        row["times the first row"] = row[column] / rows[0][column]


def _fits_memory(n_frames: int, shape: tuple[int, int]) -> bool:
    """Whether a sweep may be made in memory; says so if not."""
    wanted, there = n_frames * np.prod(shape) * np.dtype(np.uint16).itemsize, physical_memory()
    if there is not None and wanted > MEMORY_SHARE * there:
        print(f"{n_frames} frames of {_pixels(shape)} are {wanted / 1e9:.1f} GB, too much here: left out")
        return False
    return True


def _pixels(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
