"""What made a file, written into it and told again: versions, parameters, inputs, checksums, time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np

from detectorcal import _typing
from detectorcal._errors import DetectorcalError
from detectorcal._persistence import read_checksum
from detectorcal._record import made_with, parameters_of
from detectorcal._streaming import RUN_LENGTH, cut
from detectorcal.io import FrameStack, read_attributes
from detectorcal.io._partial import identity

__all__ = ["KEY", "describe", "describe_call", "describe_correction", "describe_inputs", "read_history"]

KEY = "provenance"
"""The attribute of corrected frames, and the entry of a calibration's header, that holds the record."""

WHOLE_BYTES = 64 * 2**20
"""Frames of up to so many bytes are hashed, all of them; of larger stacks three are.

Hashing all of a scan would take as long as correcting it. Three frames, with the file's size and time,
tell whether a file is the one that was used, which is what the record is for.
"""

_VERSIONS = ("detectorcal", "numpy", "scipy", "python")
_DIGITS = 12
"""Of a checksum, where people read it."""

Input: TypeAlias = FrameStack | float | None


def describe_inputs(**inputs: Input) -> dict[str, Any]:
    """Tell which files, or numbers, something is made of.

    Parameters
    ----------
    **inputs : FrameStack or float or None
        As `open_frames` opened them; what is None is left out.

    Returns
    -------
    dict of str to dict or float
        Path, shape, number of files, bytes, time of change (UTC) and SHA-256 of frames of each stack.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    return {
        name: _fingerprint(value) if isinstance(value, FrameStack) else float(value)
        for name, value in given.items()
    }


def _fingerprint(stack: FrameStack) -> dict[str, Any]:
    found = identity(stack)
    modified = datetime.fromtimestamp(found["modified"] / 1e9, UTC)
    n_frames = len(stack)
    every = math.prod(stack.shape) * stack.dtype.itemsize <= WHOLE_BYTES
    chosen = range(n_frames) if every else sorted({0, n_frames // 2, n_frames - 1})
    seen = hashlib.sha256()
    for run in cut(n_frames, max(stack.step, RUN_LENGTH)) if every else chosen:
        seen.update(np.ascontiguousarray(stack[run], stack.dtype.newbyteorder("<")).data)
    return {
        **found,
        "shape": list(stack.shape),
        "modified": modified.isoformat(timespec="seconds"),
        "sha256": seen.hexdigest(),
        "sha256_of": "all frames" if every else f"frames {', '.join(map(str, chosen))}",
    }


def describe_correction(
    calibrator: Any, calibration: _typing.Path, parameters: Mapping[str, Any], **inputs: Input
) -> dict[str, Any]:
    """Tell what a correction is made with.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        As it was loaded.
    calibration : path
        Where from.
    parameters : mapping of str to JSON values
        What else decides the numbers.
    **inputs : FrameStack or float or None
        The images, flat and dark.

    Returns
    -------
    dict
        What JSON can hold, the calibration's own record within it.
    """
    return {
        **made_with(),
        "parameters": dict(parameters),
        "inputs": describe_inputs(**inputs),
        "calibration": {
            "path": str(calibration),
            "sha256": read_checksum(calibration),
            "method": calibrator.method,
            "sigma": calibrator.sigma,
            **{KEY: calibrator.provenance_},
        },
    }


def describe_call(function: str, calibrator: Any) -> dict[str, Any]:
    """Tell with what a function's result is made: arrays have no names or times to be told."""
    return {**made_with(), "parameters": {"function": function, **parameters_of(calibrator)}}


def read_history(path: _typing.Path) -> dict[str, Any] | None:
    """Read the record in a file of corrected frames; None if it has none."""
    found = read_attributes(path).get(KEY)
    return found if isinstance(found, dict) else None


def history_of(stack: Any) -> dict[str, Any] | None:
    """Read the record of a correction that frames bring; None of raw ones, as a demo's are, and of arrays."""
    if not isinstance(stack, FrameStack):
        return None
    try:
        history = read_history(stack.path)
    except (DetectorcalError, OSError):  # a pattern, or a format that keeps no attributes
        return None
    if history is None:
        return None
    corrected = (
        "calibration" in history or mapping_in(history, "parameters").get("function") == "correct_image"
    )
    return history if corrected else None


def describe(history: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give a record as rows for people: a name and a line of text each; what it lacks is left out.

    The record is a stranger's: nothing in it is taken for granted.
    """
    for name, value in mapping_in(history, "inputs").items():
        yield f"{name} {'file' if isinstance(value, dict) else 'given'}", _of_input(value)
    parameters = mapping_in(history, "parameters")
    if parameters:
        yield "parameters", ", ".join(f"{name} {value}" for name, value in parameters.items())
    calibration = mapping_in(history, "calibration")
    if calibration:
        words = [f"{name} {calibration[name]}" for name in ("method", "sigma") if name in calibration]
        yield "calibration", ", ".join((str(calibration.get("path")), *words, *_checksum(calibration)))
        for name, text in describe(mapping_in(calibration, KEY)):
            yield f"calibration's {name}", text
    readout = history.get("readout")
    if isinstance(readout, list):
        yield "readout", ", then ".join(map(_of_readout, readout))
    if "time" in history:
        yield "time", str(history["time"])
    versions = [f"{name} {history[name]}" for name in _VERSIONS if name in history]
    if versions:
        yield "versions", ", ".join(versions)


def mapping_in(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a part of a record that should be a mapping; an empty one where it is none."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _of_input(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value} DN"
    shape = value.get("shape")
    size = "x".join(map(str, shape)) if isinstance(shape, list) else "of unknown shape"
    return ", ".join((str(value.get("path")), size, f"changed {value.get('modified')}", *_checksum(value)))


def _of_readout(step: Any) -> str:
    """Tell of what part of a detector, or of which binned pixels, a calibration was made."""
    if isinstance(step, dict) and isinstance(step.get("crop"), list):
        return f"cropped to pixels {', '.join(map(str, step['crop']))}"
    if isinstance(step, dict) and isinstance(step.get("bin"), list):
        return f"binned {'x'.join(map(str, step['bin']))} ({step.get('readout')})"
    return str(step)


def _checksum(record: Mapping[str, Any]) -> list[str]:
    if "sha256" not in record:
        return []
    of = f" of {record['sha256_of']}" if "sha256_of" in record else ""
    return [f"SHA-256 {str(record['sha256'])[:_DIGITS]}...{of}"]
