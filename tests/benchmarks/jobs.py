"""Fit and correct: held against their floors, against other packages and against detectorcal 0.0.1."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal.io import open_frames
from tests.benchmarks import old as old_version
from tests.benchmarks.frames import flat_of, read_hdf5, stack_named, write_hdf5
from tests.benchmarks.old import Old
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Row, Table
from tests.benchmarks.timing import Job, add_ratios, milliseconds, timed_rows

CORES = {1: "1 core", -1: "all cores"}
FIT_FLOOR = "floor: numpy.subtract(frame, dark, out=float32)"
CORRECT_FLOOR = "floor: numpy.copyto(float32, uint16)"
TIMES_FLOOR = "times the floor"
OLD_OVER_THIS = "0.0.1 / this"
TIMES_PARTS = "times (in memory + bare read)"
READ_BYTES = 32 * 2**20
"""Size of a batch of a bare read: what the package reads at a time."""

OPTIONAL = {"numexpr": "numexpr", "algotom": "algotom.prep.correction", "tomopy": "tomopy"}
"""Packages that are compared where they are installed, and what is imported of them."""


def fit_in_memory(sweep: np.ndarray, dark: np.ndarray, sizes: Sizes, old: Old | None) -> Table:
    """Fit a sweep in memory: the floor is one pass over it, which no fit can do without."""
    n, dark32 = len(sweep), dark.astype(np.float32)
    frame = np.empty(sweep.shape[1:], np.float32)

    def floor() -> None:
        for raw in sweep:
            np.subtract(raw, dark32, out=frame)

    jobs = {FIT_FLOOR: Job(floor, n)}
    for method in ("croton", "photon"):
        for n_jobs, cores in CORES.items():
            calibrator = DetectorCalibrator(sizes.sigma, method=method, n_jobs=n_jobs)
            jobs[f"fit, {method}, {cores}"] = Job(
                partial(calibrator.fit, sweep, dark=dark), n, hold_blas=n_jobs == 1
            )
    if old is not None:
        jobs[old_version.NAME] = Job(old.fit, n, ready=True, most_turns=sizes.old_fits)
    rows = timed_rows(jobs, sizes.turns)
    _add_floor_and_old(rows, FIT_FLOOR)
    note = f"{stack_named(sweep)} in memory, sigma {sizes.sigma:g}; the floor runs on one core."
    if old is not None:
        ours = DetectorCalibrator(sizes.sigma, n_jobs=-1).fit(sweep, dark=dark).coef_
        apart = np.abs(old.coefficients() / ours - 1).max()
        note += f" The coefficients of 0.0.1 and of croton differ by at most {apart:.1e}."
    return Table("Fit, in memory", note, rows)


def fit_from_file(sweep: np.ndarray, dark: np.ndarray, sizes: Sizes, folder: Path) -> Table:
    """Fit a sweep from a file: at best the time in memory, or the time to read; at worst their sum."""
    path, n = folder / "sweep.h5", len(sweep)
    layouts = {"contiguous": False, "chunked by frame": True}
    for layout, chunked in layouts.items():
        write_hdf5(path, layout, sweep, n, chunked=chunked)

    def fit_file(calibrator: DetectorCalibrator, layout: str) -> None:
        with open_frames(f"{path}:/{layout}") as stack:
            calibrator.fit(stack, dark=dark)

    buffer = np.zeros_like(sweep[: max(1, READ_BYTES // sweep[0].nbytes)])
    jobs = {f"bare read, {layout}": Job(partial(read_hdf5, path, layout, buffer), n) for layout in layouts}
    parts: dict[str, tuple[str, str]] = {}
    for n_jobs, cores in CORES.items():
        calibrator = DetectorCalibrator(sizes.sigma, n_jobs=n_jobs)
        memory = f"fit in memory, {cores}"
        jobs[memory] = Job(partial(calibrator.fit, sweep, dark=dark), n, hold_blas=n_jobs == 1)
        for layout in layouts:
            name = f"fit from file, {layout}, {cores}"
            jobs[name] = Job(partial(fit_file, calibrator, layout), n, hold_blas=n_jobs == 1)
            parts[name] = (memory, f"bare read, {layout}")
    rows = timed_rows(jobs, sizes.turns)
    for row in rows:
        whole = [milliseconds(rows, part) or 0.0 for part in parts.get(row["job"], ())]
        row[TIMES_PARTS] = row["ms per frame"] / sum(whole) if whole else None
    path.unlink()
    note = (
        f"{stack_named(sweep)}, croton, HDF5 without compression, in the page cache. A bare read is "
        "`h5py.Dataset.read_direct`, in batches as large as fit reads."
    )
    return Table("Fit, from a file", note, rows)


def correct_in_memory(sweep: np.ndarray, dark: np.ndarray, sizes: Sizes, old: Old | None) -> Table:
    """Correct a stack into an array whose pages exist: the floor is one pass that changes nothing."""
    n, out = len(sweep), np.zeros(sweep.shape, np.float32)
    fitted = DetectorCalibrator(sizes.sigma, n_jobs=-1).fit(sweep, dark=dark)
    dark32, flat32 = dark.astype(np.float32), flat_of(sweep).astype(np.float32)
    jobs = {CORRECT_FLOOR: Job(lambda: np.copyto(out, sweep), n)}
    for n_jobs, cores in CORES.items():
        ours = fitted.correction(flat32).set_params(n_jobs=n_jobs)
        jobs[f"transform, {cores}"] = Job(partial(ours.transform, sweep, out=out), n, hold_blas=n_jobs == 1)
    whole = partial(fitted.transform, sweep, flat32, out=out)
    jobs["transform with its maps made anew, all cores"] = Job(whole, n)
    jobs["(x - dark) / (flat - dark), NumPy"] = Job(
        lambda: np.divide(sweep - dark32, flat32 - dark32, out=out), n
    )
    jobs |= {name: Job(run, n) for name, run in _other_packages(sweep, dark32, flat32, out).items()}
    if old is not None:
        jobs[old_version.NAME] = Job(old.correct, n)
    rows = timed_rows(jobs, sizes.turns)
    _add_floor_and_old(rows, CORRECT_FLOOR)
    note = (
        f"{stack_named(sweep)} to float32, with dark and flat, into `out=` (0.0.1 and algotom: into new "
        "arrays). Ours and 0.0.1 also multiply by coefficients; the others are a plain flat field. NumPy, "
        "algotom, 0.0.1 and the floor run on one core."
    )
    return Table("Correct, in memory", note, rows)


def find_optional() -> dict[str, Any]:
    """Import what others made for the same task; say what is not there."""
    found = {}
    for name, module in OPTIONAL.items():
        try:
            found[name] = importlib.import_module(module)
        except ImportError:
            print(f"{name} is not installed: left out")
    return found


def _other_packages(
    sweep: np.ndarray, dark: np.ndarray, flat: np.ndarray, out: np.ndarray
) -> dict[str, Callable[[], object]]:
    """Give each package the dtypes that are fastest for it."""
    found = find_optional()
    jobs: dict[str, Callable[[], object]] = {}
    cores = os.cpu_count() or 1
    if "numexpr" in found:
        numexpr = found["numexpr"]
        numexpr.set_num_threads(min(cores, numexpr.MAX_THREADS))

        def one_pass() -> None:
            numexpr.evaluate("(x - d) / (f - d)", {"x": sweep, "d": dark, "f": flat}, out=out)

        def two_passes() -> None:
            numexpr.evaluate("x - d", {"x": sweep.astype(np.float32), "d": dark}, out=out)
            numexpr.evaluate("x / f", {"x": out, "f": flat - dark}, out=out)

        jobs["numexpr, one expression, all cores"] = one_pass
        jobs["numexpr, tomopy's steps, all cores"] = two_passes
    if "algotom" in found:
        jobs["algotom flat_field_correction"] = lambda: found["algotom"].flat_field_correction(
            sweep, flat, dark
        )
    if "tomopy" in found:
        jobs["tomopy.normalize, all cores"] = lambda: found["tomopy"].normalize(
            sweep, flat[None], dark[None], ncore=cores, out=out
        )
    return jobs


def _add_floor_and_old(rows: list[Row], floor: str) -> None:
    floor_ms, old_ms = milliseconds(rows, floor), milliseconds(rows, old_version.NAME)
    add_ratios(rows, TIMES_FLOOR, lambda ms: ms / floor_ms if floor_ms else None)
    add_ratios(rows, OLD_OVER_THIS, lambda ms: old_ms / ms if old_ms else None)
