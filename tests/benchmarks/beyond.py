"""What goes beyond the paper: curves held against straight lines, the pass of the rings against reading."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from detectorcal import Correction, DetectorCalibrator, RingSuppressor
from detectorcal._scan import sum_scan
from detectorcal._typing import Stack
from detectorcal.io import create_frames, open_frames
from detectorcal.kernels.finishing import Steps
from tests.benchmarks.frames import flat_of, make_sweep, read_hdf5, stack_named, write_hdf5
from tests.benchmarks.jobs import CORES, READ_BYTES
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Row, Table
from tests.benchmarks.timing import Job, milliseconds, timed_rows

N_DARKS = 20
TIMES_CROTON = "times croton's"
TIMES_READ = "times the bare read"


def fit_curves(sizes: Sizes) -> Table:
    """Fit curves, also with the read noise in their weights, and straight lines."""
    sweep, dark = make_sweep(sizes.n_frames, sizes.shape, curved=True)
    darks = _darks(dark)
    kinds = {"croton": ("croton", dark), "curved": ("curved", dark), "curved, 20 darks": ("curved", darks)}
    jobs = {}
    for n_jobs, cores in CORES.items():
        for name, (method, given) in kinds.items():
            calibrator = DetectorCalibrator(sizes.sigma, method=method, n_jobs=n_jobs)
            fit = partial(calibrator.fit, sweep, dark=given)
            jobs[f"fit, {name}, {cores}"] = Job(fit, len(sweep), hold_blas=n_jobs == 1)
    rows = timed_rows(jobs, sizes.turns)
    _add_times_croton(rows, {job: f"fit, croton, {job.rpartition(', ')[2]}" for job in jobs})
    note = (
        f"{stack_named(sweep)} in memory, sigma {sizes.sigma:g}. Pixels lose 4 % at 4000 DN, +- 30 % of that "
        "from pixel to pixel. With a stack of darks, read noise weighs the frames."
    )
    return Table("Fit of curves", note, rows)


def correct_curves(sizes: Sizes, folder: Path) -> Table:
    """Correct by curves and by straight lines, in memory and from file to file."""
    sweep, dark = make_sweep(sizes.n_frames, sizes.shape, curved=True)
    raw, path, n = folder / "raw.h5", folder / "corrected.h5", len(sweep)
    write_hdf5(raw, "data", sweep, n, chunked=False)
    out = np.zeros(sweep.shape, np.float32)

    def file_to_file(correction: Correction) -> None:
        with open_frames(raw) as frames, create_frames(path, frames.shape, "float32", overwrite=True) as to:
            correction.transform(frames, out=to)

    jobs, lines = {}, {}
    for n_jobs, cores in CORES.items():
        for method in ("croton", "curved"):
            fitted = DetectorCalibrator(sizes.sigma, method=method, n_jobs=-1).fit(sweep, dark=dark)
            correction = fitted.correction(flat_of(sweep)).set_params(n_jobs=n_jobs)
            for how, run in (
                ("in memory", partial(correction.transform, sweep, out=out)),
                ("file to file", partial(file_to_file, correction)),
            ):
                name = f"transform, {method}, {how}, {cores}"
                jobs[name] = Job(run, n, hold_blas=n_jobs == 1)
                lines[name] = f"transform, croton, {how}, {cores}"
    rows = timed_rows(jobs, sizes.turns)
    _add_times_croton(rows, lines)
    raw.unlink()
    path.unlink()
    note = (
        f"{stack_named(sweep)} of such pixels to float32, with dark and flat. The files are HDF5, the input "
        "in the page cache, the output whole and synced at the end."
    )
    return Table("Correction by curves", note, rows)


def ring_pass(sizes: Sizes, folder: Path) -> Table:
    """Learn rings from transmissions and from raw frames: at best as fast as these are read."""
    sweep, dark = make_sweep(sizes.n_frames, sizes.shape)
    flat, n = flat_of(sweep), len(sweep)
    fitted = DetectorCalibrator(sizes.sigma, n_jobs=-1).fit(sweep, dark=dark)
    correction = fitted.correction(flat)
    corrected = correction.transform(sweep)
    path = folder / "scan.h5"
    write_hdf5(path, "raw", sweep, n, chunked=False)
    write_hdf5(path, "transmissions", corrected, n, chunked=False)

    def sums_of(stack: Stack, work: Steps | None = None) -> None:
        sum_scan(stack, np.dtype(np.float32), work=work, n_jobs=-1, batch_size=None)

    def from_file(name: str) -> None:
        with open_frames(f"{path}:/{name}") as frames:
            sums_of(frames, correction._steps(n, np.dtype(np.float32)) if name == "raw" else None)

    jobs, reads = {}, {}
    for name, frames in (("transmissions", corrected), ("raw", sweep)):
        buffer = np.zeros_like(frames[: max(1, READ_BYTES // frames[0].nbytes)])
        jobs[f"bare read, {name}"] = Job(partial(read_hdf5, path, name, buffer), n)
        jobs[f"first pass, {name}, from file"] = Job(partial(from_file, name), n)
        reads[f"first pass, {name}, from file"] = f"bare read, {name}"
    jobs["first pass, transmissions in memory"] = Job(partial(sums_of, corrected), n)
    suppressor = RingSuppressor(correction, n_jobs=-1)
    jobs["RingSuppressor.fit, transmissions in memory"] = Job(partial(suppressor.fit, corrected), n)
    rows = timed_rows(jobs, sizes.turns)
    for row in rows:
        read = milliseconds(rows, reads.get(row["job"], ""))
        row[TIMES_READ] = row["ms per frame"] / read if read else None
    path.unlink()
    note = (
        f"{stack_named(sweep)}, or float32 transmissions, all cores; HDF5 without compression, in the page "
        "cache. The first pass grows with the projections; `fit` ends with the estimate, once."
    )
    return Table("The first pass of the rings", note, rows)


def _darks(dark: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(len(dark))
    noise = 2.0 * rng.standard_normal((N_DARKS, *dark.shape))
    darks: np.ndarray = np.rint(np.clip(dark + noise, 0, None)).astype(np.uint16)
    return darks


def _add_times_croton(rows: list[Row], lines: Mapping[str, str]) -> None:
    """Hold each row against that of the straight line on as many cores."""
    for row in rows:
        line = milliseconds(rows, lines[row["job"]])
        row[TIMES_CROTON] = row["ms per frame"] / line if line else None
