"""The child that reads: one file after the other by name, and an answer in a line for each.

    python -m tests.fuzz.reader

A line in is ``{"kind": ..., "path": ...}``, a line out `Answer`'s fields: the digest of all that was
read, or the exception, and by how much the memory grew meanwhile.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal import DetectorCalibrator, _record
from detectorcal._errors import DetectorcalError
from detectorcal.io import FrameStack, hdf5, open_frames
from detectorcal.io._names import locate_output
from detectorcal.io._open import make_plan

ADDRESS_SPACE = 8 * 2**30
"""Bytes; so that a file that asks for everything takes down no machine."""
FRAMES = 16
"""So many frames of a stack are read, and the last one: all of a sound one."""


def read_calibration(path: Path) -> str:
    """Load a calibration, use it, and give the digest of all that is in it."""
    calibrator = DetectorCalibrator.load(path)
    header, arrays = _record.pack(calibrator)
    calibrator.transform(np.ones((1, *calibrator.detector_shape_), np.float32), dark=0)
    repr(calibrator)
    seen = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in arrays.items():
        seen.update(f"{name} {array.shape} {array.dtype}".encode())
        seen.update(np.ascontiguousarray(array).data)
    return seen.hexdigest()


def read_stack(path: Path) -> str:
    """Open a stack with its flats, darks and angles, and give the digest of their frames."""
    seen = hashlib.sha256()
    with open_frames(path) as stack:
        seen.update(repr((stack.layout, None if stack.angles is None else stack.angles.tolist())).encode())
        for part in (stack, stack.flats, stack.darks):
            for content in _content(part):
                seen.update(content)
        if stack.layout is not None:
            copy_rest(path, stack)
    return seen.hexdigest()


def copy_rest(path: Path, stack: FrameStack) -> None:
    """Copy what is beside the frames into the file of the corrected ones, without these."""
    plan = make_plan(locate_output(path), stack.shape, np.float32, like=stack)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        hdf5.create(Path(folder, "copy.nxs"), plan)


def _content(stack: FrameStack | None) -> Iterator[Any]:
    if stack is None:
        yield b"none"
        return
    yield f"{stack.shape} {stack.dtype}".encode()
    for number in range(min(len(stack), FRAMES)):
        yield np.ascontiguousarray(stack[number]).data
    yield np.ascontiguousarray(stack[-1]).data


_READ = {"calibration": read_calibration, "stack": read_stack}


def _answer(kind: str, path: Path) -> dict[str, Any]:
    before = _memory("VmRSS")
    try:
        _forget_peak()
        answer: dict[str, Any] = {"outcome": "read", "detail": _READ[kind](path)}
    except DetectorcalError as error:
        named = path.name in str(error)
        answer = {"outcome": "refused" if named else "unnamed", "detail": f"{type(error).__name__}: {error}"}
    except BaseException:
        answer = {"outcome": "leaked", "detail": traceback.format_exc()}
    return answer | {"grown": max(0, _memory("VmHWM") - before)}


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def main() -> None:
    """Answer until there are no more questions."""
    faulthandler.enable()
    logging.captureWarnings(True)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(json.dumps(_answer(question["kind"], Path(question["path"]))) + "\n")


if __name__ == "__main__":
    main()
