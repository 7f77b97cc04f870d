"""A look at some frames of a sweep before the fit: which pixels and readings are not to be believed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from detectorcal._arrays import is_dask, to_host
from detectorcal._defects import DEFECTS
from detectorcal._execution import some_frames
from detectorcal._streaming import Threads, read, single_threaded_blas
from detectorcal._typing import Float64, Shape, Stack
from detectorcal._validation import float_dtype
from detectorcal.kernels.accumulation import LARGEST_MASKED_SHARE
from detectorcal.kernels.looking import unlike_neighbours

__all__ = ["Look", "look_at"]

N_FRAMES, N_GROUPS = 16, 4
"""Frames looked at, spread evenly over the sweep, and the groups they are averaged in."""

FEWEST_AT_THE_TOP, SHARE_AT_THE_TOP = 10, 1e-4
"""Readings at one top value, in number and as a share of a frame, from which on they are a pile."""

SMALLEST_BITS = 8
"""No detector counts in less."""

WIDEST_COUNTER = 4
"""Bytes of the widest integers whose largest value a detector may reach."""


class Look(NamedTuple):
    """What a look tells."""

    causes: np.ndarray
    """Shape detector_shape, uint8: bits as of `defects_`; see `kept_out_` of the calibrator."""
    saturation: float | None
    """Readings from here on are not to be believed, DN; None if all are."""


def look_at(
    stack: Stack,
    darks: Float64 | Stack,
    user: np.ndarray | None,
    saturation: float | None,
    *,
    n_jobs: int | None,
) -> Look:
    """Look at up to 16 frames spread over a sweep.

    Parameters
    ----------
    stack : stack of shape (n_frames, *detector_shape)
        Raw frames, DN. One frame is read at a time, those of a Dask array together.
    darks : array of shape detector_shape, or stack of the shape of ``stack``
        DN.
    user : array of shape detector_shape, bool, or None
        Pixels that are not to be believed whatever they read.
    saturation : float or None
        As the user gives it, DN; None looks for it.
    n_jobs : int or None
        Threads, as joblib counts them.

    Returns
    -------
    Look
    """
    seen = _Seen(tuple(stack.shape[1:]), float_dtype(stack.dtype), saturation)
    n_frames = min(N_FRAMES, stack.shape[0])
    dark_per_frame = len(darks.shape) == len(stack.shape)
    their_darks = _one_by_one(darks, n_frames) if dark_per_frame else itertools.repeat(None, n_frames)
    for number, (frame, dark) in enumerate(zip(_one_by_one(stack, n_frames), their_darks, strict=True)):
        seen.add(frame, dark, number * N_GROUPS // n_frames)
    found = seen.saturation()
    dark_of_all = None if dark_per_frame else np.asarray(darks)
    with single_threaded_blas(), Threads(n_jobs) as threads:
        return Look(_causes(seen, dark_of_all, user, found, threads), found)


def _one_by_one(stack: Stack, n_frames: int) -> Iterator[np.ndarray]:
    """Give frames spread over a stack."""
    if is_dask(stack):
        yield from np.asarray(some_frames(stack, n_frames))  # one graph: what they are made of is made once
        return
    for number in np.unique(np.linspace(0, stack.shape[0] - 1, n_frames).round().astype(int)).tolist():
        yield to_host(read(stack, slice(number, number + 1)))[0]


class _Seen:
    """What is kept of the frames looked at: a few maps, however many there are."""

    def __init__(self, shape: Shape, dtype: np.dtype, saturation: float | None) -> None:
        self._given = saturation
        self._limit = np.inf
        self._top, self._n_at_top = 0.0, 0
        self._sums = np.zeros((N_GROUPS, *shape), dtype)
        self._counts = np.zeros(N_GROUPS)
        self.lowest = np.full(shape, np.inf)
        self.highest = np.full(shape, -np.inf)
        """Smallest and largest finite reading of each pixel, DN."""

    def add(self, frame: np.ndarray, dark: np.ndarray | None, group: int) -> None:
        """Look at one raw frame; of one that is saturated as a whole only its top is noted."""
        self._limit = self._limit_for(frame)
        top, n_at_top, n_below = self._top_of(frame)
        if top >= self._top:
            self._top, self._n_at_top = top, n_at_top
        if n_below < (1 - LARGEST_MASKED_SHARE) * frame.size:
            return
        if self._counts.any():
            np.fmin(self.lowest, frame, out=self.lowest)
            np.fmax(self.highest, frame, out=self.highest)
        else:
            self.lowest, self.highest = frame.copy(), frame.copy()  # in the frames' own dtype from now on
        self._sums[group] += frame
        self._counts[group] += 1
        if dark is not None:
            self._sums[group] -= dark

    def _top_of(self, frame: np.ndarray) -> tuple[float, int, int]:
        """Give the largest reading under the limit, how many pixels read it, and how many less.

        That it is the saturation need not be known yet.
        """
        top = frame.max()
        if top < self._limit:
            n_at_top = int(np.count_nonzero(frame == top))
            return float(top), n_at_top, frame.size - n_at_top
        below = np.isfinite(frame) & (frame < self._limit)  # NaN is a top too
        top = np.max(frame, where=below, initial=0)
        n_at_top = int(np.count_nonzero(below & (frame == top)))
        return float(top), n_at_top, int(np.count_nonzero(below)) - n_at_top

    def _limit_for(self, frame: np.ndarray) -> float:
        """Give the largest value that the frames can hold, or what the user gave."""
        if self._given is not None:
            return self._given
        narrow = frame.dtype.kind in "iu" and frame.dtype.itemsize <= WIDEST_COUNTER
        return float(np.iinfo(frame.dtype).max) if narrow else np.inf

    def saturation(self) -> float | None:
        """Give the value at which readings are saturated: the user's, else the top one if it is a pile."""
        if self._given is not None:
            return self._given
        bits = np.log2(self._top + 1)
        enough = max(FEWEST_AT_THE_TOP, SHARE_AT_THE_TOP * self.lowest.size)
        if bits >= SMALLEST_BITS and bits == int(bits) and self._n_at_top >= enough:
            return self._top
        return self._limit if np.isfinite(self._limit) else None

    def groups(self, dark: np.ndarray | None) -> np.ndarray:
        """Give the mean measured frame of each group that has any, DN, less one dark for all."""
        told = self._counts > 0
        groups: np.ndarray = self._sums if told.all() else self._sums[told]
        groups /= self._counts[told].astype(groups.dtype).reshape(-1, *[1] * (groups.ndim - 1))
        if dark is not None:
            groups -= dark
        return groups


def _causes(
    seen: _Seen,
    dark: np.ndarray | None,
    user: np.ndarray | None,
    saturation: float | None,
    threads: Threads,
) -> np.ndarray:
    """Put together what is not to be believed, and why."""
    groups = seen.groups(dark)
    causes = np.zeros(seen.lowest.shape, np.uint8)
    if len(groups):
        full = np.inf if saturation is None else saturation
        nowhere = ~np.isfinite(seen.lowest) | ~np.isfinite(groups[0])
        always, ever = seen.lowest >= full, seen.highest >= full
        lost = nowhere | always if user is None else nowhere | always | user
        if lost.any():
            groups[:, lost] = np.nan
        if dark is not None:
            dark = np.nan_to_num(dark.astype(groups.dtype), copy=False) if dark.any() else None
        causes = unlike_neighbours(groups, dark, threads.map)
        # one that is saturated at times only has been seen to follow the light
        causes[ever & (causes == DEFECTS["hot"])] = DEFECTS["nonlinear"]
        causes[always] = DEFECTS["hot"]
        causes[nowhere] = DEFECTS["unsolved"]
    if user is not None:
        causes[user] |= np.uint8(DEFECTS["user"])
    return causes
