"""A look at some frames of a sweep before the fit: which pixels and readings are not to be believed."""

from __future__ import annotations

import functools
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
from detectorcal.kernels.looking import unlike_neighbours
from detectorcal.kernels.regions import Regions

__all__ = ["Look", "look_at"]

N_FRAMES, N_GROUPS, FEWEST_IN_GROUP = 16, 4, 3
"""Frames looked at, spread evenly over the sweep, the groups they are averaged in, and what a group needs for
one spot in it to be told."""

FEWEST_AT_THE_TOP, SHARE_AT_THE_TOP = 10, 1e-4
"""Readings at one top value, in number and as a share of a frame, from which on they are a pile."""

FEW = 8
"""The level of a frame is the median of every so many-th pixel of every so many-th row."""

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
    regions: Regions | None,
    saturation: float | None,
    cutoff: float,
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
    regions : Regions or None
        Pixels are held against those of the same region.
    saturation : float or None
        As the user gives it, DN; None looks for it.
    cutoff : float
        Of levels up to this, DN above dark, nothing is concluded.
    n_jobs : int or None
        Threads, as joblib counts them.

    Returns
    -------
    Look
    """
    n_frames = min(N_FRAMES, stack.shape[0])
    n_groups = max(1, min(N_GROUPS, n_frames // FEWEST_IN_GROUP))
    ends = {(number + 1) * n_frames // n_groups for number in range(n_groups)}
    seen = _Seen(tuple(stack.shape[1:]), float_dtype(stack.dtype), saturation, cutoff)
    dark_per_frame = len(darks.shape) == len(stack.shape)
    one = None if dark_per_frame else np.asarray(darks, float_dtype(stack.dtype))
    their_darks = _one_by_one(darks, n_frames) if one is None else itertools.repeat(one, n_frames)
    with np.errstate(all="ignore"), single_threaded_blas(), Threads(n_jobs) as threads:
        for number, (frame, dark) in enumerate(
            zip(_one_by_one(stack, n_frames), their_darks, strict=True), start=1
        ):
            seen.add(frame, dark)
            if number in ends:
                seen.end_group()
        found = seen.saturation()
        return Look(_causes(seen, one, user, regions, found, threads), found)


def _one_by_one(stack: Stack, n_frames: int) -> Iterator[np.ndarray]:
    """Give frames spread over a stack."""
    if is_dask(stack):
        yield from np.asarray(some_frames(stack, n_frames))  # one graph: what they are made of is made once
        return
    for number in np.unique(np.linspace(0, stack.shape[0] - 1, n_frames).round().astype(int)).tolist():
        yield to_host(read(stack, slice(number, number + 1)))[0]


class _Seen:
    """What is kept of the frames looked at: a few maps, however many there are."""

    def __init__(self, shape: Shape, dtype: np.dtype, saturation: float | None, cutoff: float) -> None:
        self._given = saturation
        self.cutoff = cutoff
        self._limit = np.inf
        self._top, self._n_at_top = 0.0, 0
        self._dtype = dtype
        self._group: list[np.ndarray] = []
        self._levels: list[float] = []
        self.groups: list[np.ndarray] = []
        """Mean measured frame of each group, without each pixel's smallest and largest reading, DN."""
        self.smallest = np.full(shape, np.inf)
        self.largest = np.full(shape, -np.inf)
        """Smallest and largest raw reading of each pixel, DN."""

    def add(self, frame: np.ndarray, dark: np.ndarray) -> None:
        """Look at one raw frame; of one that is saturated as a whole only its top is noted."""
        self._limit = self._limit_for(frame)
        if not (np.isfinite(frame.max()) and np.isfinite(frame.min())):
            frame = np.where(np.isfinite(frame), frame, np.nan)
        top, n_at_top, n_below = self._top_of(frame)
        if top >= self._top:
            self._top, self._n_at_top = top, n_at_top
        if 2 * n_below < frame.size:
            return
        if self._group or self.groups:
            np.fmin(self.smallest, frame, out=self.smallest)
            np.fmax(self.largest, frame, out=self.largest)
        else:
            self.smallest, self.largest = frame.copy(), frame.copy()  # in the frames' own dtype from now on
        measured = np.subtract(frame, dark, dtype=self._dtype)
        level = float(np.nanmedian(measured[(slice(None, None, FEW),) * measured.ndim]))
        if level > self.cutoff:
            measured /= level  # so that in a ladder, too, it is a spot that is the largest
            self._group.append(measured)
            self._levels.append(level)

    def end_group(self) -> None:
        """Average the frames of a group; a spot that one of them has is not among them."""
        if not self._group:
            return
        total = self._group[0].copy()
        for frame in self._group[1:]:
            total += frame
        count = len(self._group)
        if count >= FEWEST_IN_GROUP:
            total -= functools.reduce(np.maximum, self._group)
            total -= functools.reduce(np.minimum, self._group)
            count -= 2
        total *= sum(self._levels) / len(self._levels) / count
        self.groups.append(total)
        self._group.clear()
        self._levels.clear()

    def _top_of(self, frame: np.ndarray) -> tuple[float, int, int]:
        """Give the largest reading under the limit, how many pixels read it, and how many less.

        That it is the saturation need not be known yet.
        """
        top = frame.max()
        if top < self._limit:
            n_at_top = int(np.count_nonzero(frame == top))
            return float(top), n_at_top, frame.size - n_at_top
        below = frame < self._limit  # NaN is not
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
        enough = max(FEWEST_AT_THE_TOP, SHARE_AT_THE_TOP * self.smallest.size)
        if bits >= SMALLEST_BITS and bits == int(bits) and self._n_at_top >= enough:
            return self._top
        return self._limit if np.isfinite(self._limit) else None


def _causes(
    seen: _Seen,
    dark: np.ndarray | None,
    user: np.ndarray | None,
    regions: Regions | None,
    saturation: float | None,
    threads: Threads,
) -> np.ndarray:
    """Put together what is not to be believed, and why."""
    causes = np.zeros(seen.smallest.shape, np.uint8)
    if seen.groups:
        full = np.inf if saturation is None else saturation
        groups = np.stack(seen.groups)
        nowhere = ~np.isfinite(seen.smallest)
        nowhere |= False if dark is None else ~np.isfinite(dark)
        always, ever = seen.smallest >= full, seen.largest >= full
        groups[:, nowhere | always if user is None else nowhere | always | user] = np.nan
        dark = None if dark is None or not dark.any() else np.where(nowhere, 0, dark)
        for box, inside in [((slice(None),) * causes.ndim, None)] if regions is None else regions.pieces:
            here = groups[:, *box] if inside is None else np.where(inside, groups[:, *box], np.nan)
            there = None if dark is None else dark[box]
            found = unlike_neighbours(here, there, seen.cutoff, threads.map)
            np.copyto(causes[box], found, where=True if inside is None else inside)
        # one that is saturated at times only has been seen to follow the light
        causes[ever & (causes == DEFECTS["hot"])] = DEFECTS["nonlinear"]
        causes[always] = DEFECTS["hot"]
        causes[nowhere] = DEFECTS["unsolved"]
    if user is not None:
        causes[user] = DEFECTS["user"]
    return causes
