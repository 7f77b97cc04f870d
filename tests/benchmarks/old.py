"""detectorcal 0.0.1 from the package index, in an environment and a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from tests.benchmarks.frames import flat_of

REQUIREMENT = "detectorcal==0.0.1"
NAME = "detectorcal 0.0.1"


def install_old(folder: Path) -> Path | None:
    """Make an environment with 0.0.1 and give its interpreter; None, and why, if that cannot be done."""
    print(f"installing {REQUIREMENT} into an environment of its own", flush=True)
    try:
        venv.create(folder, with_pip=True)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        command = [str(python), "-I", "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        last = ((error.stderr or "") + (error.stdout or "")).strip().splitlines()[-1:] or ["no message"]
        print(f"{NAME} could not be installed ({last[0]}): left out")
        return None
    return python


class Old:
    """0.0.1, with a sweep loaded, ready to fit and correct it."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self.versions: dict[str, str] = json.loads(self._answer())

    def fit(self) -> None:
        """Fit the sweep."""
        self._do("fit")

    def correct(self) -> None:
        """Correct the sweep with the coefficients of the last fit."""
        self._do("correct")

    def coefficients(self) -> np.ndarray:
        """Give the coefficients of the last fit."""
        found: np.ndarray = np.load(self._folder / "coefficients.npy")
        return found

    def _do(self, task: str) -> None:
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        stdin.write(task + "\n")
        stdin.flush()
        self._answer()

    def _answer(self) -> str:
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]
        line = stdout.readline()
        if not line:
            errors = (self._folder / "errors.txt").read_text().strip().splitlines()[-5:]
            raise RuntimeError(f"{NAME} ended:\n" + "\n".join(errors))
        return line


@contextmanager
def old_version(
    python: Path | None, folder: Path, sweep: np.ndarray, dark: np.ndarray, sigma: float
) -> Iterator[Old | None]:
    """Start 0.0.1 on a sweep; without its interpreter there is nothing to start, and None."""
    if python is None:
        yield None
        return
    for name, array in {"sweep": sweep, "dark": dark, "flat": flat_of(sweep)}.items():
        np.save(folder / f"{name}.npy", array)
    # -I: neither PYTHONPATH nor this folder may bring in the present version
    child = Path(__file__).with_name("old_child.py")
    command = [str(word) for word in (python, "-I", child, folder, sigma)]
    with (
        (folder / "errors.txt").open("w") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder
        ) as process,
    ):
        try:
            yield Old(process, folder)
        finally:
            # the end of its input ends it
            process.communicate()
