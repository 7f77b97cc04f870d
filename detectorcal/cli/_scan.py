"""Scans as they are: which part of them, and which light each frame had."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal._errors import InputError, warn
from detectorcal._typing import Shape
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.correction import Correction
from detectorcal.io import FrameStack
from detectorcal.io._names import HDF5_SUFFIXES, split_address
from detectorcal.scan import ScanCorrection

__all__ = [
    "LIGHT",
    "checked_roi",
    "numbers_in",
    "prepare",
    "size_of",
    "slice_of",
    "slices_of",
    "times_in",
    "windowed",
]

LIGHT = ("drift", "flat_average", "leave_out_flats", "exposure", "monitor")
"""Options that say which light each frame had."""


def slice_of(option: str, word: str, n: int | None = None) -> slice:
    """Read START:STOP[:STEP], of `n` frames."""
    if not re.fullmatch(r"(-?\d+)?:(-?\d+)?(:[1-9]\d*)?", word):
        raise InputError(f"`{option}` is START:STOP or START:STOP:STEP, as in 100:900, not {word!r}.")
    part = slice(*(int(number) if number else None for number in word.split(":")))
    if n is not None and not range(n)[part]:
        raise InputError(f"`{option} {word}` chooses none of {n} frames.")
    if n is not None and (part.stop or 0) > n:
        warn(f"`{option} {word}` goes beyond the {n} frames there are, and ends with the last.")
    return part


def slices_of(option: str, word: str) -> tuple[slice, ...]:
    """Read TOP:BOTTOM,LEFT:RIGHT, or LEFT:RIGHT of a line detector."""
    try:
        parts = tuple(slice_of(option, part.strip()) for part in word.split(","))
    except InputError:
        parts = ()
    if len(parts) not in (1, 2) or any(part.step is not None for part in parts):
        raise InputError(
            f"`{option}` is TOP:BOTTOM,LEFT:RIGHT in pixels, as in 100:900,0:2048 (LEFT:RIGHT with --line), "
            f"not {word!r}."
        )
    return parts


def checked_roi(roi: str, shape: Shape) -> tuple[slice, ...]:
    """Read TOP:BOTTOM,LEFT:RIGHT of a detector of that shape."""
    parts = slices_of("--roi", roi)
    if len(parts) != len(shape) or any(
        (part.stop or 0) > n or not range(n)[part] for part, n in zip(parts, shape, strict=True)
    ):
        whole = ",".join(f"0:{n}" for n in shape)
        raise InputError(f"`--roi {roi}` is no part of frames of shape {shape}, which are `--roi {whole}`.")
    return parts


def size_of(roi: str, shape: Shape) -> Shape:
    """Give the shape of a part of frames of some shape."""
    return tuple(len(range(n)[part]) for part, n in zip(slices_of("--roi", roi), shape, strict=False))


def numbers_in(option: str, word: str) -> list[int]:
    """Read whole numbers with commas between."""
    if not re.fullmatch(r"\s*-?\d+\s*(,\s*-?\d+\s*)*", word):
        raise InputError(f"`{option}` is a list of numbers, as in 0,3, not {word!r}.")
    return [int(number) for number in word.split(",")]


def times_in(option: str, word: str) -> tuple[float, ...]:
    """Read IMAGE/FLAT."""
    try:
        times = tuple(float(part) for part in word.split("/"))
    except ValueError:
        times = ()
    if len(times) != 2:
        raise InputError(f"`{option}` is IMAGE/FLAT, two times in s, as in 0.1/0.5, not {word!r}.")
    return times


def windowed(stack: Any, roi: str | None, shape: Shape) -> Any:
    """Give the part of frames of the whole detector; what has another size is taken to be that part.

    Parameters
    ----------
    stack : FrameStack, array of detector shape, float or None
        What an option named.
    roi : str or None
        As the user wrote it.
    shape : tuple of int
        Of the whole detector.

    Returns
    -------
    FrameStack, array, float or None
    """
    if roi is None or not isinstance(stack, FrameStack | np.ndarray):
        return stack
    if (stack.shape[1:] if isinstance(stack, FrameStack) else stack.shape) != shape:
        return stack
    parts = checked_roi(roi, shape)
    return stack.window(*parts) if isinstance(stack, FrameStack) else stack[parts]


def prepare(
    calibrator: DetectorCalibrator,
    frames: FrameStack,
    flats: Sequence[Any],
    darks: Any,
    how: Mapping[str, Any],
    light: Mapping[str, Any],
) -> Correction:
    """Prepare the correction of a scan.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    frames : FrameStack
        All frames of the scan.
    flats : sequence of FrameStack or float
        None, one, or those before and after.
    darks : FrameStack, float or None
        Of the scan.
    how : mapping of str to value
        Arguments of :meth:`DetectorCalibrator.correction`.
    light : mapping of str to value
        What the options :data:`LIGHT` say.

    Returns
    -------
    Correction
        Of all frames.
    """
    told = [f"`--{name.replace('_', '-')}`" for name in LIGHT if light[name] is not None]
    if len(flats) > 2:
        raise InputError(
            f"`--flat` names {len(flats)} files, but takes one, or two: before the scan and after it. Flats "
            "scattered through a scan are known by an NXtomo file, or `detectorcal.ScanCorrection` in Python."
        )
    if not told and len(flats) < 2:
        return calibrator.correction(flats[0] if flats else None, dark=darks, **how)
    if not flats or not all(isinstance(flat, FrameStack) for flat in flats):
        raise InputError(f"{told[0] if told else '`--flat`, twice,'} needs frames of flats: give `--flat`.")
    kept = _kept([len(flat) for flat in flats], light["leave_out_flats"])
    groups, positions = _groups(frames, flats, kept, light["drift"])
    scan = ScanCorrection(
        calibrator, groups, positions, dark=darks, drift=light["drift"] or "linear",
        average=light["flat_average"] or "mean", **_exposure(light["exposure"]),
        **_monitor(light["monitor"], frames, flats, kept), **how,
    )  # fmt: skip
    return scan.fit(frames).correction_


def _exposure(word: str | None) -> dict[str, Any]:
    return {} if word is None else {"exposure": times_in("--exposure", word)}


def _kept(lengths: list[int], word: str | None) -> list[np.ndarray]:
    """Give the numbers of the flats that take part, in each file."""
    out = [] if word is None else numbers_in("--leave-out-flats", word)
    n = sum(lengths)
    if wrong := [number for number in out if not -n <= number < n]:
        raise InputError(f"`--leave-out-flats` names flat {wrong[0]}, but there are {n} flats, 0 to {n - 1}.")
    ends = np.cumsum([0, *lengths])
    used = np.setdiff1d(np.arange(n), np.array(out, dtype=int) % n)
    kept = [used[(used >= a) & (used < b)] - a for a, b in itertools.pairwise(ends)]
    if not all(numbers.size for numbers in kept):
        raise InputError("`--leave-out-flats` names all flats of a file; at least one must take part.")
    return kept


def _groups(
    frames: FrameStack, flats: Sequence[FrameStack], kept: list[np.ndarray], drift: str | None
) -> tuple[Any, Any]:
    """Give the flats, and where in the scan they were taken."""
    chosen = [flat.part(numbers) for flat, numbers in zip(flats, kept, strict=True)]
    if len(chosen) == 2:
        return chosen, [-0.5, len(frames) - 0.5]
    if drift is None:
        return chosen[0], None
    if not _are_its_own(frames, flats[0]):
        raise InputError(
            "`--drift` needs to know when flats were taken: an NXtomo scan tells it of its own. Else give "
            "`--flat` twice, before the scan and after it."
        )
    taken_before = np.searchsorted(np.asarray(frames.frames), np.asarray(chosen[0].frames))
    return chosen[0], taken_before - 0.5


def _are_its_own(frames: FrameStack, flats: FrameStack) -> bool:
    """Whether flats were taken among the frames of a scan, and are numbered with them."""
    return frames.layout == "nxtomo" and flats.path == frames.path


def _monitor(
    name: str | None, frames: FrameStack, flats: Sequence[FrameStack], kept: list[np.ndarray]
) -> dict[str, Any]:
    """Give the readings of a monitor: one for each frame of an NXtomo file, else of images, then flats."""
    if name is None:
        return {}
    values = _read_numbers(name)
    if _are_its_own(frames, flats[0]):
        of_frames, of_flats = (np.asarray(numbers) for numbers in (frames.frames, flats[0].frames))
        wanted = "one for each frame of the file, flats and darks included"
        fits = len(values) > max(of_frames.max(), of_flats.max())
    else:
        n, n_flats = len(frames), sum(len(flat) for flat in flats)
        of_frames, of_flats = np.arange(n), np.arange(n, n + n_flats)
        wanted = f"{n + n_flats}: one for each of {n} images, then one for each of {n_flats} flats"
        fits = len(values) == n + n_flats
    if not fits:
        raise InputError(f"`--monitor {name}` has {len(values)} readings, but there must be {wanted}.")
    ends = np.cumsum([0, *(len(flat) for flat in flats)])
    used = np.concatenate([start + numbers for start, numbers in zip(ends[:-1], kept, strict=True)])
    return {"monitor": values[of_frames], "flat_monitor": values[of_flats[used]]}


def _read_numbers(name: str) -> np.ndarray:
    """Read a list of numbers: text, .npy, or a dataset of an HDF5 file."""
    try:
        path, dataset = split_address(name)
        if dataset and path.suffix.lower() in HDF5_SUFFIXES:
            import h5py

            with h5py.File(path) as file:
                values = np.asarray(file[dataset][()], dtype=np.float64)
        elif Path(name).suffix.lower() == ".npy":
            values = np.asarray(np.load(name, allow_pickle=False), dtype=np.float64)
        else:
            text = Path(name).read_text(encoding="utf-8")
            values = np.array([float(word) for word in text.replace(",", " ").split()])
    except FileNotFoundError as error:
        raise InputError(f"`--monitor`: there is no file `{error.filename or name}`.") from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"`--monitor {name}` must be numbers: a text file, a .npy, or file.h5:/dataset ({error})."
        ) from error
    return np.ravel(values)
