"""Damaging, asking the child, and judging its answers."""

from __future__ import annotations

import json
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from tests.fuzz.damage import DAMAGES, Damage
from tests.fuzz.forgery import forgeries, is_forged
from tests.fuzz.samples import Files, Sample, nbytes, write_files

HANG_SECONDS = 5.0
START_SECONDS = 120.0
"""For the child to import everything and to answer about its first, sound file."""
BASELINE = 48 * 2**20
"""Bytes that reading any calibration may take beside ten times its file."""
TOLERATED = ("equal", "refused", "altered", "native")
"""Native are crashes inside a library on a stack forged for it, its checksums made right: they are listed."""
READER = [sys.executable, "-m", "tests.fuzz.reader"]
ROOT = Path(__file__).parents[2]


class Child:
    """A process that reads files; it is replaced when it crashes or hangs."""

    def __init__(self, log: IO[bytes], command: list[str] = READER) -> None:
        self._log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def running(self) -> bool:
        """Whether there is a process that has answered and not died since."""
        return self._process is not None

    def ask(self, kind: str, path: Path, seconds: float) -> dict[str, Any]:
        """Give the child's answer, or what became of it instead."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, cwd=ROOT
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        self._log.seek(0)
        self._log.truncate()
        process.stdin.write(json.dumps({"kind": kind, "path": str(path)}).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        outcome = "crashed" if ready else "hung"
        code = self._end(kill=not ready)
        self._log.seek(0)
        trace = self._log.read().decode(errors="replace").partition("\nExtension modules:")[0]
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"outcome": outcome, "detail": f"{cause}\n{trace}", "grown": 0}

    def _end(self, *, kill: bool = True) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if kill:
            process.kill()
        process.communicate()
        return process.returncode


@dataclass(frozen=True)
class Case:
    """One damaged file: which it was, what was done to it, and what reading it came to."""

    kind: str
    number: int
    sample: str
    damage: str
    outcome: str
    detail: str
    grown: int
    size: int

    @property
    def failed(self) -> bool:
        """Whether this may not happen."""
        return self.outcome not in TOLERATED


class Fuzzer:
    """Reads damaged files of some samples.

    Parameters
    ----------
    samples : list of Sample
        Of one kind.
    seed : int
        With the number of a case it decides everything about it.
    folder : pathlib.Path
        Where the damaged file of the moment is.
    child : Child
        What reads it.
    """

    def __init__(self, samples: list[Sample], seed: int, folder: Path, child: Child) -> None:
        self._samples = samples
        self._seed = seed
        self._folder = folder
        self._child = child
        self._sound: dict[str, str] = {}

    def case(self, number: int) -> Case:
        """Damage a file and have it read."""
        sample, damage, files = self.make(number)
        answer = self._read(sample, files)
        if answer["outcome"] == "hung":  # perhaps the machine was busy: once more
            answer = self._read(sample, files)
        outcome = self._judged(sample, damage, answer, nbytes(files))
        return Case(
            sample.kind, number, sample.name, damage.__name__, outcome, answer["detail"], answer["grown"],
            nbytes(files),
        )  # fmt: skip

    def make(self, number: int) -> tuple[Sample, Damage, Files]:
        """Damage a file; half of them by accident, half on purpose."""
        rng = random.Random(f"{self._seed} {number}")
        sample = self._samples[number % len(self._samples)]
        damage = rng.choice(DAMAGES if rng.random() < 0.5 else forgeries(sample.kind, sample.suffix))
        files = dict(sample.files)
        damage(files, rng)
        return sample, damage, files

    def _judged(self, sample: Sample, damage: Damage, answer: dict[str, Any], size: int) -> str:
        if sample.kind == "calibration" and answer["grown"] > 10 * size + BASELINE:
            return "memory"
        if answer["outcome"] == "crashed" and sample.kind == "stack" and is_forged(damage):
            return "native"
        if answer["outcome"] != "read":
            return str(answer["outcome"])
        if answer["detail"] == self._sound[sample.name]:
            return "equal"
        # A forged calibration is a sound one with other content; a stack has no checksums of its own.
        return "altered" if sample.kind == "stack" or is_forged(damage) else "wrong"

    def _read(self, sample: Sample, files: Files) -> dict[str, Any]:
        if not self._child.running:
            self._warm_up()
        return self._ask(sample, files, HANG_SECONDS)

    def _warm_up(self) -> None:
        """Have every sound file read, so that imports and pools count for no damaged one."""
        for sample in self._samples:
            answer = self._ask(sample, sample.files, START_SECONDS)
            if answer["outcome"] != "read":
                raise RuntimeError(f"the sound {sample.name} was not read: {answer['detail']}")
            self._sound[sample.name] = answer["detail"]

    def _ask(self, sample: Sample, files: Files, seconds: float) -> dict[str, Any]:
        path = self._folder / sample.name
        write_files(path, files)
        try:
            return self._child.ask(sample.kind, path, seconds)
        finally:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def fuzz(samples: list[Sample], seed: int, numbers: range) -> Iterator[Case]:
    """Read damaged files, numbered by `numbers`, one after the other."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as log,
        Child(log) as child,
    ):
        fuzzer = Fuzzer(samples, seed, Path(folder), child)
        yield from map(fuzzer.case, numbers)
