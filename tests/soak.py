"""A long scan through `fit` and `correct`, file to file: memory and open files stay flat.

    python -m tests.soak [--frames N] [--folder FOLDER]

The input is a file of 1000 frames of 256x256 pixels and a virtual HDF5 dataset that repeats it, so that only
the output takes space: 26 GB for 100,000 frames. The exit code is 1 if memory or the number of open files
grew, or if any block of the output is not what the same frames give in memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal.io import open_frames

SHAPE = (256, 256)
BLOCK = 1000
SECONDS_BETWEEN = 0.2
MOST_GROWTH = 1.05
"""Of the peak from the first third of the run to the last."""


class Sample(NamedTuple):
    """A look at a process."""

    memory: int
    files: int


def make_inputs(folder: Path, n_frames: int) -> None:
    """Write a block of a sweep and of a scan, and the datasets that repeat them."""
    rng = np.random.default_rng(17)
    response = rng.normal(1, 0.02, SHAPE)
    levels = {"sweep": np.linspace(200, 3000, BLOCK), "scan": rng.uniform(500, 2500, BLOCK)}
    for name, level in levels.items():
        with h5py.File(folder / f"{name}_block.h5", "w") as file:
            data = file.create_dataset("data", (BLOCK, *SHAPE), "u2", chunks=(1, *SHAPE))
            for number in range(BLOCK):
                data[number] = rng.poisson(level[number] * response) + 100
        layout = h5py.VirtualLayout((n_frames, *SHAPE), "u2")
        source = h5py.VirtualSource(f"{name}_block.h5", "data", (BLOCK, *SHAPE))
        for start in range(0, n_frames, BLOCK):
            layout[start : start + BLOCK] = source
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_virtual_dataset("data", layout)


def watch(folder: Path, *words: str) -> list[Sample]:
    """Run a command; give its resident memory without the page cache of its files, and its open files."""
    command = [sys.executable, "-m", "detectorcal", *words, "--quiet"]
    process = subprocess.Popen(command, cwd=folder)
    samples = []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            n_files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            samples.append(Sample(1024 * int(anonymous.split()[1]), n_files))
        except (OSError, StopIteration):  # it has just ended
            break
        time.sleep(SECONDS_BETWEEN)
    if process.wait():
        raise SystemExit(f"{words[0]} failed")
    return samples


def is_flat(name: str, samples: list[Sample]) -> bool:
    """Compare the peaks of the second and the last third of a run; the first has the imports."""
    third = len(samples) // 3
    early, late = samples[third : 2 * third], samples[2 * third :]
    memory = [max(sample.memory for sample in part) for part in (early, late)]
    files = [max(sample.files for sample in part) for part in (early, late)]
    print(
        f"{name}: {len(samples) * SECONDS_BETWEEN:.0f} s; memory {memory[0] / 2**20:.0f} MB, then "
        f"{memory[1] / 2**20:.0f} MB; open files {files[0]}, then {files[1]}",
        flush=True,
    )
    return memory[1] <= MOST_GROWTH * memory[0] and files[1] <= files[0]


def differing_blocks(folder: Path, n_frames: int) -> int:
    """Count the blocks of the output that are not what memory gives, to the bit."""
    cal = DetectorCalibrator.load(folder / "cal.h5")
    with open_frames(folder / "scan_block.h5") as scan, open_frames(folder / "out.h5") as out:
        expected = cal.transform(scan[:])
        return sum(
            not np.array_equal(out[start : start + BLOCK], expected) for start in range(0, n_frames, BLOCK)
        )


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000, metavar="N", help=f"a multiple of {BLOCK}")
    parser.add_argument("--folder", type=Path, help="where the files go; the system's place by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_inputs(folder, options.frames)
        flat = is_flat("fit", watch(folder, "fit", "sweep.h5", "--dark", "100", "-o", "cal.h5"))
        flat &= is_flat("correct", watch(folder, "correct", "scan.h5", "-c", "cal.h5", "-o", "out.h5"))
        with h5py.File(folder / "sweep_block.h5") as file:
            alone = DetectorCalibrator().fit(file["data"][:], dark=100)
        whole = DetectorCalibrator.load(folder / "cal.h5")
        off = float(np.abs(whole.coef_ / alone.coef_ - 1).max())
        different = differing_blocks(folder, options.frames)
    print(f"coefficients: within {off:.1e} of those of one block; {different} blocks of the output differ")
    return int(not flat or off > 1e-6 or different > 0)


if __name__ == "__main__":
    sys.exit(main())
