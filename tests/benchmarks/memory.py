"""Memory, and time from file to file: each run is a process of its own, and so is its peak."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.frames import DISTINCT, make_sweep, write_hdf5
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.tables import Row, Table

MB = 1e6
SPARE_DISK = 2**30
"""Bytes that stay free beside the files."""

IMPORTS = "imports alone"

LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
status, usage = os.wait4(child.pid, 0)[1:]
print(json.dumps([os.waitstatus_to_exitcode(status), time.perf_counter() - start,
    usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""A small process between this one and the measured one: a process starts with the peak of the one that
started it, and this one holds gigabytes of frames."""

HOLD = """
import sys
import numpy as np
from detectorcal import Correction, DetectorCalibrator

what, n, height, width, sigma = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
# what is imported late is imported now, on a detector too small to leave a mark
small = np.full((8, 64, 64), 500, np.uint16)
DetectorCalibrator(sigma, n_jobs=-1).fit(small).transform(small)
dark = np.full((height, width), 100.0)
frames = np.empty((n, height, width), np.uint16)
for i in range(n):
    frames[i] = 500 + 10 * (i % 100)
out = np.ones(frames.shape, np.float32)
correction = Correction(1 / dark, dark, n_jobs=-1)
if what == "fit":
    DetectorCalibrator(sigma, n_jobs=-1).fit(frames, dark=dark)
elif what == "transform":
    correction.transform(frames, out=out)
"""


class Usage(NamedTuple):
    """What a process took."""

    seconds: float
    processor_seconds: float
    """Over all cores: what the process worked, also on a machine where it had to wait."""
    peak: int
    """Bytes of resident memory."""


def can_measure() -> bool:
    """Whether the system tells the peak of one child; says so if not."""
    if not hasattr(os, "wait4"):
        print("this system does not tell the peak memory of a process: left out")
        return False
    return True


def run_measured(*command: str | Path) -> Usage:
    """Run Python with these arguments and give what it took."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LAUNCHER, sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, seconds, processor_seconds, peak = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
    # kilobytes, but on macOS bytes
    return Usage(seconds, processor_seconds, peak * (1 if sys.platform == "darwin" else 1024))


def file_to_file(sizes: Sizes, folder: Path) -> Table:
    """Fit and correct files of few and of many frames with the command line."""
    rows: list[Row] = []
    frames, dark = make_sweep(min(max(sizes.file_frames), DISTINCT), sizes.shape)
    np.save(folder / "dark.npy", dark)
    np.save(folder / "flat.npy", frames[-1])
    for n in sizes.file_frames:
        if _disk_suffices(n, sizes.shape, folder):
            rows += _file_rows(frames, n, sizes, folder)
    for row in rows:
        first = next(other for other in rows if other["job"] == row["job"])
        row["time, times the fewest frames'"] = row["ms per frame"] / first["ms per frame"]
        row["peak, times the fewest frames'"] = row["peak, MB"] / first["peak, MB"]
    height, width = sizes.shape
    note = (
        f"`python -m detectorcal` on HDF5 files of {height}x{width} uint16 frames; correct writes float32. "
        "All cores. Seconds are those of the process; the time per frame leaves out those of the imports, "
        "but not what else is done once."
    )
    return Table("File to file: time and memory", note, rows)


def _file_rows(frames: np.ndarray, n_frames: int, sizes: Sizes, folder: Path) -> list[Row]:
    sweep, calibration, output = folder / "in.h5", folder / "calibration.h5", folder / "out.h5"
    write_hdf5(sweep, "data", frames, n_frames, chunked=False)
    dark = ["--dark", folder / "dark.npy"]
    cli = ["-m", "detectorcal"]
    commands: dict[str, list[Any]] = {
        IMPORTS: ["-c", "import detectorcal.cli, detectorcal.io, h5py"],
        "fit": [*cli, "fit", sweep, *dark, "-o", calibration, "--sigma", sizes.sigma, "--quiet"],
        "correct": [
            *cli,
            "correct",
            sweep,
            "-c",
            calibration,
            "--flat",
            folder / "flat.npy",
            "-o",
            output,
            "-q",
        ],
    }
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    # compiles what has changed, and brings the libraries into the page cache
    run_measured(*commands[IMPORTS])
    for _ in range(sizes.child_turns):
        for name, command in commands.items():
            made = {"fit": calibration, "correct": output}.get(name)
            if made is not None:
                made.unlink(missing_ok=True)
            usages[name].append(run_measured(*command))
    for path in (sweep, calibration, output):
        path.unlink()
    idle = statistics.median(usage.seconds for usage in usages[IMPORTS])
    base = max(usage.peak for usage in usages[IMPORTS])
    return [_file_row(name, n_frames, usages[name], idle, base) for name in ("fit", "correct")]


def _file_row(name: str, n_frames: int, usages: list[Usage], idle: float, base: int) -> Row:
    seconds, peak = statistics.median(usage.seconds for usage in usages), max(u.peak for u in usages)
    return {
        "job": name,
        "frames": n_frames,
        "seconds": seconds,
        "imports, s": idle,
        "processor, s": statistics.median(usage.processor_seconds for usage in usages),
        "ms per frame": 1e3 * (seconds - idle) / n_frames,
        "peak, MB": peak / MB,
        "imports, MB": base / MB,
        "turns": len(usages),
    }


def _disk_suffices(n_frames: int, shape: tuple[int, int], folder: Path) -> bool:
    """Whether the input and the output have room; says so if not."""
    frame_bytes = int(np.prod(shape)) * (np.dtype(np.uint16).itemsize + np.dtype(np.float32).itemsize)
    wanted, free = n_frames * frame_bytes + SPARE_DISK, shutil.disk_usage(folder).free
    if wanted > free:
        print(f"{n_frames} frames need {wanted / 1e9:.1f} GB of disk, {free / 1e9:.1f} are free: left out")
        return False
    return True


def in_memory(sizes: Sizes) -> Table:
    """Fit and correct arrays: what is needed beside the frames and the output, which are the caller's."""
    height, width = sizes.shape
    arguments = [str(size) for size in (sizes.held_frames, height, width, sizes.sigma)]
    code = textwrap.dedent(HOLD)
    whats = ("hold frames and output", "fit", "transform")
    peaks = {what: run_measured("-c", code, what, *arguments).peak / MB for what in whats}
    rows = [
        {"job": what, "peak, MB": peaks[what], "extra, MB": peaks[what] - peaks[whats[0]]} for what in whats
    ]
    callers = sizes.held_frames * height * width * (2 + 4) / MB
    note = (
        f"{sizes.held_frames} uint16 frames of {height}x{width} and a float32 array for the result, "
        f"{callers:.0f} MB that are the caller's, in a process of its own. The first row has made all "
        "imports too."
    )
    return Table("In memory: extra memory", note, rows)
