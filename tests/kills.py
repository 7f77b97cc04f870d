"""Kill `fit` and `correct` at random moments, look at what is left, and go on.

    python -m tests.kills [--kills N] [--seed S] [--start I] [--folder FOLDER]

After every kill the inputs must be as they were; under the final name there must be nothing, the old file to
the byte, or the new one to the byte; and the command, given again (with `--resume` where there is that), must
end in the bytes of a run that nobody killed. The exit code is 1 if anything is otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from detectorcal import DetectorCalibrator
from detectorcal._errors import DetectorcalError
from detectorcal.cli import main as run_command
from detectorcal.io import create_frames, open_frames

SHAPE = (96, 128)
N_FRAMES = 96
EPOCH = "1561593600"
"""So that two runs give the same bytes: the time in the files."""
LONGEST = 60.0
"""Seconds that a command may take before something is wrong with the test."""

CHILD = """
import os, signal, sys
from detectorcal import cli
from detectorcal.io import _partial
_partial.SYNC_SECONDS = 0.02  # so that the short run leaves something to go on with
folder, stop, count = sys.argv[1], int(sys.argv[2]), 0
WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}
def watch(event, arguments):
    global count
    if event in WATCHED and str(arguments[0]).startswith(folder):
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
print("go", flush=True)
try:
    cli.main(sys.argv[3:])
finally:
    print(count, flush=True)
"""
"""Runs a command; kills itself at its n-th operation on a file of the folder, if told to."""


@dataclass(frozen=True)
class Job:
    """A command whose output is looked at."""

    words: tuple[str, ...]
    output: str

    @property
    def resumes(self) -> bool:
        """Whether the command can go on with what a stopped run left."""
        in_parts = (".zarr",) if "--compression" in self.words else (".h5", ".nxs", ".zarr")
        return self.words[0] == "correct" and Path(self.output).suffix in in_parts


FIT = ("fit", "sweep.h5", "--dark", "100", "--sigma", "4")
CORRECT = ("correct", "scan.h5", "-c", "given.h5", "--batch-size", "8")
CORRECT_SCAN = ("correct", "scan.nxs", "-c", "given.h5", "--batch-size", "8")
SMALL = {"small.h5": "gzip", "small.zarr": "blosc"}
JOBS = [
    *(Job(FIT, f"cal{suffix}") for suffix in (".h5", ".tif", ".zarr")),
    *(Job(CORRECT, f"out{suffix}") for suffix in (".h5", ".zarr", ".tif", ".npy")),
    Job(CORRECT_SCAN, "out.nxs"),
    # not gzip, by which zarr writes the time into every chunk
    *(Job((*CORRECT, "--compression", word), name) for name, word in SMALL.items()),
]


@dataclass(frozen=True)
class Reference:
    """What a job gives if nobody kills it, how long it takes, and how many operations on files."""

    whole: str
    old: str
    seconds: float
    operations: int


class Scene:
    """Inputs, old outputs and references, in a folder that killed jobs write beside.

    Parameters
    ----------
    folder : pathlib.Path
        Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(11)
        sweep = (100 + rng.normal(1, 0.02, SHAPE) * np.linspace(200, 3000, 12)[:, None, None]).astype("u2")
        frames = rng.integers(150, 4000, (N_FRAMES, *SHAPE), dtype=np.uint16)
        for name, values, layout in (
            ("sweep.h5", sweep, None),
            ("scan.h5", frames, None),
            ("scan.nxs", frames, "nxtomo"),
        ):
            with create_frames(folder / name, values.shape, values.dtype, layout=layout) as out:
                out[:] = values
        with h5py.File(folder / "scan.nxs", "r+") as file:
            file["entry/spectra"] = rng.random((N_FRAMES, 2000))  # streamed into the output
        with self.entered():
            DetectorCalibrator(sigma=3).fit(sweep, dark=100).save("given.h5")
        self.inputs = self._digests()
        self._references: dict[Job, Reference] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work in the folder, at a time that stands still."""
        with _set(os.environ, "SOURCE_DATE_EPOCH", EPOCH):
            before = Path.cwd()
            os.chdir(self.folder)
            try:
                yield
            finally:
                os.chdir(before)

    def _digests(self) -> dict[str, str]:
        names = ("sweep.h5", "scan.h5", "scan.nxs", "given.h5")
        return {name: digest(self.folder / name) for name in names}

    def unharmed(self) -> bool:
        """Whether the inputs are as they were."""
        return self._digests() == self.inputs

    def reference(self, job: Job) -> Reference:
        """Run a job without killing it, once."""
        if job not in self._references:
            with self.fresh("reference") as folder:
                child = self.start(job, folder)
                started = time.monotonic()
                said, _ = child.communicate(timeout=LONGEST)
                seconds = time.monotonic() - started
                assert child.returncode == 0
                whole = digest(folder / job.output)
            with self.fresh("reference") as folder:
                self.write_old(job, folder)
                old = digest(folder / job.output)
            assert whole != old
            self._references[job] = Reference(whole, old, seconds, int(said.split()[-1]))
        return self._references[job]

    @contextmanager
    def fresh(self, name: str) -> Iterator[Path]:
        """Give an empty folder for outputs."""
        folder = self.folder / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def write_old(self, job: Job, folder: Path) -> None:
        """Write what an earlier day left under the output's name."""
        other = ("--sigma", "2") if job.words[0] == "fit" else ("--dark", "90")
        assert self.run(job, folder, *other) == 0

    def start(self, job: Job, folder: Path, stop: int = -1, *more: str) -> subprocess.Popen[str]:
        """Start a job in a child, and wait until it begins its work."""
        command = [sys.executable, "-c", CHILD, str(folder), str(stop), *self._words(job, folder), *more]
        with self.entered():
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        return child

    def run(self, job: Job, folder: Path, *more: str) -> int:
        """Run a job here."""
        with self.entered(), suppress(SystemExit):
            try:
                run_command([*self._words(job, folder), *more])
            except SystemExit as stop:
                return int(stop.code or 0)
        return 0

    def _words(self, job: Job, folder: Path) -> list[str]:
        return [*job.words, "--quiet", "--jobs", "1", "-o", str(folder / job.output)]


@contextmanager
def _set(mapping: os._Environ[str], name: str, value: str) -> Iterator[None]:
    before = mapping.get(name)
    mapping[name] = value
    try:
        yield
    finally:
        if before is None:
            del mapping[name]
        else:
            mapping[name] = before


def digest(path: Path) -> str:
    """Give the SHA-256 of a file, or of all names and bytes in a folder; "" if there is none."""
    if not path.exists():
        return ""
    seen = hashlib.sha256()
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            seen.update(str(part.relative_to(path)).encode() + b"\0" + part.read_bytes())
    return seen.hexdigest()


def kill_once(scene: Scene, number: int, seed: int) -> str:
    """Kill a job that number and seed decide; return what was left, or raise AssertionError.

    Returns
    -------
    str
        "nothing", "old" or "new", and " to go on with" where there was a partial output.
    """
    rng = random.Random(f"{seed} {number}")
    job = JOBS[number % len(JOBS)]
    reference = scene.reference(job)
    has_old = rng.random() < 0.5
    with scene.fresh("killed") as folder:
        if has_old:
            scene.write_old(job, folder)
        _kill(scene, job, folder, reference, has_old, rng)
        assert scene.unharmed(), "an input was changed"
        output = folder / job.output
        if has_old and not output.exists():
            _open(output)  # which puts back a store that was moved aside
        found = {"": "nothing", reference.old: "old", reference.whole: "new"}.get(digest(output), "damage")
        assert found != "damage", f"{job.output} is neither the old one nor the new one"
        assert found != "nothing" or not has_old, f"the old {job.output} is gone"
        resumable = (folder / f"{job.output}.partial").exists()
        more = ["--resume"] * job.resumes + ["--overwrite"] * (found != "nothing")
        assert scene.run(job, folder, *more) == 0, f"{more} failed after {found}"
        assert digest(output) == reference.whole, f"{more} ended in other bytes"
        left = [item.name for item in folder.iterdir() if item != output]
        assert not left, f"{left} were left"
        assert scene.unharmed(), "an input was changed"
    return found + " to go on with" * resumable


def _kill(
    scene: Scene, job: Job, folder: Path, reference: Reference, has_old: bool, rng: random.Random
) -> None:
    """Kill by the clock, or at an operation on a file: most of these lie close together at the end."""
    overwrite = ["--overwrite"] * has_old
    if rng.random() < 0.5:
        child = scene.start(job, folder, rng.randint(1, reference.operations), *overwrite)
    else:
        child = scene.start(job, folder, -1, *overwrite)
        time.sleep(rng.uniform(0, reference.seconds))
        child.kill()
    _, said = child.communicate(timeout=LONGEST)
    assert child.returncode in (0, -9), said


def _open(path: Path) -> None:
    with suppress(DetectorcalError):
        if path.name.startswith("cal"):
            DetectorCalibrator.load(path)
        else:
            open_frames(path).close()


def main(arguments: list[str] | None = None) -> int:
    """Kill so many times, print what was left, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, metavar="I", help="number of the first kill")
    parser.add_argument("--folder", type=Path, help="where the files go; the system's place by default")
    options = parser.parse_args(arguments)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        scene = Scene(Path(name).resolve())
        for number in range(options.start, options.start + options.kills):
            job = JOBS[number % len(JOBS)]
            try:
                left = kill_once(scene, number, options.seed)
            except AssertionError as error:
                left = "FAILED"
                print(f"FAILED {number} {job.words[0]} {job.output}: {error}", flush=True)
            found[f"{job.words[0]} {job.output}: {left}"] += 1
    for text, count in sorted(found.items()):
        print(f"{count:4} {text}")
    return int(any("FAILED" in text for text in found))


if __name__ == "__main__":
    sys.exit(main())
