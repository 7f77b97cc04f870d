"""One frame from many: flats and darks, by their mean or median."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._arrays import to_host
from detectorcal._errors import InputError
from detectorcal._execution import mean_frame
from detectorcal._streaming import cut, read
from detectorcal._typing import Float64, Stack

__all__ = ["AVERAGES", "Chosen", "InSameLight", "average", "weight_of"]

AVERAGES = ("mean", "median")

MEDIAN_BYTES = 256 * 2**20
"""Of the rows of all frames whose median is taken at once; a larger stack is read in several passes."""

MEDIAN_EFFICIENCY = 2 / math.pi
"""Variance of a mean over that of the median of as many frames, of normal noise; many frames."""


def average(stack: Stack, how: str = "mean", *, leave_out: Sequence[int] = ()) -> Float64:
    r"""Make one frame of a stack of flats or darks.

    Parameters
    ----------
    stack : array or stack of shape (n_frames, height, width) or (n_frames, width)
        Flats or darks, DN: an array, or anything read by slicing (h5py, zarr, memory map, Dask,
        :func:`detectorcal.io.open_frames`).
    how : {"mean", "median"}, default="mean"
        The median is not moved by single frames that are off, such as one hit by a cosmic ray or taken while
        the shutter moved, but is noisier: of many frames its variance is :math:`\pi / 2` that of their mean.
        It is taken in blocks of rows, so that memory does not grow with the number of frames.
    leave_out : sequence of int, default=()
        Numbers of the frames that take no part, counted from 0, or from the last as -1.

    Returns
    -------
    array of shape (height, width) or (width,), float64
        DN; NaN where a frame is NaN. As a flat for ``method="curved"`` say what it is made of:
        ``n_flats=n``, the number of frames averaged; for a median about ``round(2 / pi * n)``.

    Raises
    ------
    InputError
        If a frame to be left out is not there, or none is left.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import average
    >>> flats = np.array([[100, 200], [102, 202], [104, 204], [9999, 0]], dtype=np.uint16)
    >>> average(flats, leave_out=[3])
    array([102., 202.])
    >>> average(flats, "median")
    array([103., 201.])
    """
    validation.check_choice("how", how, AVERAGES)
    frames = validation.as_real("stack", stack)
    if len(frames.shape) not in (2, 3):
        raise InputError(
            "`stack` must have shape (n_frames, height, width), or (n_frames, width) of a line detector, but "
            f"has shape {tuple(frames.shape)}."
        )
    kept = _kept(frames.shape[0], leave_out)
    if len(kept) < frames.shape[0]:
        frames = Chosen(frames, kept)
    if how == "mean":
        return mean_frame(frames, batch_size=None)
    return _median(frames)


def weight_of(n_frames: int, how: str) -> int:
    """Give the number of frames whose mean is as precise as an average of so many."""
    return n_frames if how == "mean" or n_frames < 3 else round(MEDIAN_EFFICIENCY * n_frames)


def _kept(n_frames: int, leave_out: Sequence[int]) -> np.ndarray:
    """Give the numbers of the frames that take part."""
    out = np.asarray(leave_out)
    if out.size and (out.ndim != 1 or out.dtype.kind not in "iu"):
        raise InputError(f"`leave_out` must be numbers of frames, such as [0, 3], got {leave_out!r}.")
    wrong = [int(number) for number in out if not -n_frames <= number < n_frames]
    if wrong:
        raise InputError(
            f"`leave_out` names frame {wrong[0]}, but there are {n_frames} frames, 0 to {n_frames - 1}."
        )
    kept = np.setdiff1d(np.arange(n_frames), out % n_frames)
    if not kept.size:
        raise InputError(f"`leave_out` names all {n_frames} frames; at least one must take part.")
    return kept


class Chosen:
    """Some frames of a stack, read as runs of successive ones."""

    def __init__(self, stack: Stack, numbers: np.ndarray) -> None:
        self._stack = stack
        self._numbers = numbers
        self.shape = (len(numbers), *stack.shape[1:])
        self.dtype = stack.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        batch, *rows = key if isinstance(key, tuple) else (key, ...)
        numbers = self._numbers[batch]
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        parts = [to_host(self._stack[(slice(run[0], run[-1] + 1), *rows)]) for run in runs]
        return np.concatenate(parts)


class InSameLight:
    """Flats above dark, scaled as if each had been taken in the light that they had on average."""

    def __init__(self, stack: Stack, dark: Float64, light: Float64) -> None:
        self._stack = stack
        self._dark = dark
        self._factors = light.mean() / light
        self.shape = stack.shape
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: Any) -> Float64:
        batch, *rows = key if isinstance(key, tuple) else (key, ...)
        above = to_host(self._stack[key]) - self._dark.reshape(self.shape[1:])[tuple(rows)]
        scaled: Float64 = above * self._factors[batch].reshape(-1, *(1,) * (above.ndim - 1))
        return scaled


def _median(frames: Stack) -> Float64:
    n_frames, n_rows, *width = frames.shape
    row_bytes = n_frames * math.prod(width) * np.dtype(np.float64).itemsize
    result = np.empty(frames.shape[1:])
    for rows in cut(n_rows, max(1, MEDIAN_BYTES // row_bytes)):
        result[rows] = np.median(_rows(frames, rows), axis=0)
    return result


def _rows(frames: Stack, rows: slice) -> np.ndarray:
    if rows == slice(0, frames.shape[1]):
        return to_host(read(frames, slice(0, frames.shape[0]))).astype(np.float64, copy=False)
    return to_host(frames[:, rows, ...]).astype(np.float64, copy=False)
