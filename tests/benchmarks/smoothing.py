"""The Gaussian: held against scipy.ndimage, and what making it ready costs."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from functools import partial

import joblib
import numpy as np
from scipy import ndimage

from detectorcal.kernels import smoothing as room
from detectorcal.kernels.smoothing import Smoothing, gaussian, smoother_for
from tests.benchmarks.frames import make_sweep
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Row, Table
from tests.benchmarks.timing import Job, milliseconds, take_turns, timed_rows

SCIPY = "scipy.ndimage.gaussian_filter, 1 core"
SCIPY_OVER_THIS = "scipy / this, same cores"
OUR_FRAMES = 8
"""Frames of a run: what the package hands to its threads."""


def smooth_frames(sizes: Sizes) -> Table:
    """Smooth frames as the package does, a frame a task, and scipy's filter alike."""
    rows: list[Row] = []
    for width in sizes.smoothed_widths:
        rows += _smooth_width(width, sizes)
    note = (
        f"float32 frames, sigma {sizes.sigma:g}. On all cores a frame goes to each thread, with BLAS "
        "at one thread in each; scipy's filter, which has no threads of its own, is handed out likewise."
    )
    return Table("Smoothing", note, rows)


def _smooth_width(width: int, sizes: Sizes) -> list[Row]:
    gaussian_of = Smoothing(sizes.sigma, "nearest", 0.0, 4.0)
    sweep, dark = make_sweep(OUR_FRAMES, (width, width))
    frames = (sweep - dark).astype(np.float32)
    few = frames[: min(os.cpu_count() or 1, OUR_FRAMES)]
    filtered = np.empty_like(frames)

    def scipy_one(i: int) -> None:
        ndimage.gaussian_filter(frames[i], sizes.sigma, output=filtered[i], mode="nearest", truncate=4.0)

    def ours_one(i: int) -> None:
        gaussian(frames[i : i + 1], gaussian_of)

    def ours_all() -> None:
        for i in range(OUR_FRAMES):
            ours_one(i)

    jobs = {
        SCIPY: Job(partial(scipy_one, 0), 1),
        SCIPY.replace("1 core", "all cores"): Job(_on_threads(scipy_one, len(few)), len(few)),
        "ours, 1 core": Job(ours_all, OUR_FRAMES, hold_blas=True),
        "ours, all cores": Job(_on_threads(ours_one, OUR_FRAMES), OUR_FRAMES, hold_blas=True),
    }
    rows = timed_rows(jobs, sizes.turns)
    scipy_ms = {
        cores: milliseconds(rows, SCIPY.replace("1 core", cores)) for cores in ("1 core", "all cores")
    }
    for row in rows:
        cores = row["job"].rpartition(", ")[2]
        row[SCIPY_OVER_THIS] = (scipy_ms[cores] or np.nan) / row["ms per frame"]
    return [{"pixels": f"{width}x{width}", **row} for row in rows]


def _on_threads(run: Callable[[int], None], n_frames: int) -> Callable[[], object]:
    """Hand frames to threads as :mod:`detectorcal._execution` does."""

    def job() -> None:
        with joblib.Parallel(-1, require="sharedmem") as parallel:
            parallel(joblib.delayed(run)(i) for i in range(n_frames))

    return job


def build_factors(sizes: Sizes) -> Table:
    """Make the smoothing ready: once in a process for each shape, then from the cache."""
    rows: list[Row] = []
    like = np.empty(0, np.float32)
    gaussian_of = Smoothing(sizes.sigma, "nearest", 0.0, 4.0)
    for width in sizes.factored_widths:
        ready = partial(smoother_for, (width, width), gaussian_of, like)
        jobs = {
            "cold": Job(partial(_make_anew, ready), 1, hold_blas=True),
            "cached": Job(ready, 1, hold_blas=True),
        }
        seconds = take_turns(jobs, sizes.turns)
        cold, cached = (1e3 * statistics.median(times) for times in seconds.values())
        rows.append({"pixels": f"{width}x{width}", "ms, first time": cold, "ms, cached": cached})
    note = f"Making the smoothing of frames ready, sigma {sizes.sigma:g}; the process keeps it."
    return Table("Smoothing: factors", note, rows)


def _make_anew(make: Callable[[], object]) -> None:
    """Empty every cache of the smoothing room, whatever they are called, and make."""
    for value in vars(room).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    make()
