"""A look at some frames of a sweep before the fit: which pixels and readings are not to be believed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detectorcal._arrays import is_dask, to_host
from detectorcal._defects import DEFECTS
from detectorcal._execution import row_blocks, some_frames
from detectorcal._streaming import Threads, evenly, read, single_threaded_blas
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

ROWS_PIXELS = 2**18
"""Pixels of the rows that are averaged at once: threads hinder each other less than with fewer."""

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
    ends = [(number + 1) * n_frames // n_groups for number in range(n_groups)]
    dark_per_frame = len(darks.shape) == len(stack.shape)
    one = None if dark_per_frame else np.asarray(darks, float_dtype(stack.dtype))
    their_darks = _one_by_one(darks, n_frames) if one is None else itertools.repeat(one, n_frames)
    coming = zip(_one_by_one(stack, n_frames), their_darks, strict=True)
    seen = _Seen(tuple(stack.shape[1:]), stack.dtype, saturation, cutoff)
    with np.errstate(all="ignore"), single_threaded_blas(), Threads(n_jobs) as threads:
        for start, stop in itertools.pairwise([0, *ends]):
            seen.add(list(itertools.islice(coming, stop - start)), threads)
        found = seen.saturation()
        return Look(_causes(seen, one, user, regions, found, threads), found)


def _one_by_one(stack: Stack, n_frames: int) -> Iterator[np.ndarray]:
    """Give frames spread over a stack."""
    if is_dask(stack):
        yield from np.asarray(some_frames(stack, n_frames))  # one graph: what they are made of is made once
        return
    for number in evenly(stack.shape[0], n_frames).tolist():
        yield to_host(read(stack, slice(number, number + 1)))[0]


class _Glance(NamedTuple):
    """What a frame tells as a whole."""

    frame: np.ndarray
    """Raw, DN; NaN where it is not finite."""
    dark: np.ndarray
    level: float
    """Usual measured value, DN."""
    top: float
    """Largest raw reading under the limit, DN."""
    n_at_top: int
    n_below: int
    """Pixels that read it, and that read less."""


class _Seen:
    """What is kept of the frames looked at: a few maps, however many there are."""

    def __init__(self, shape: Shape, dtype: np.dtype, saturation: float | None, cutoff: float) -> None:
        self._given = saturation
        self._limit = np.inf if saturation is None else saturation
        self._top, self._n_at_top = 0.0, 0
        self.cutoff = cutoff
        self._groups = np.empty((N_GROUPS, *shape), float_dtype(dtype))
        self.n_groups = 0
        self.smallest = self.largest = np.empty(0)
        """Smallest and largest raw reading of each pixel, DN; empty before a frame was believed."""

    def add(self, frames: Sequence[tuple[np.ndarray, np.ndarray]], threads: Threads) -> None:
        """Look at a group of raw frames and their darks.

        Of a frame that is saturated as a whole only the top is noted.
        """
        if self._given is None:
            self._limit = _largest_held(frames[0][0].dtype)
        glances = threads.map(self._glance_at, frames)
        piles = ((glance.top, glance.n_at_top) for glance in glances)
        self._top, self._n_at_top = max((self._top, self._n_at_top), *piles)
        believed = [glance for glance in glances if 2 * self._n_believed(glance) >= glance.frame.size]
        if not believed:
            return
        if not self.smallest.size:
            self.smallest, self.largest = (believed[0].frame.copy() for _ in range(2))  # in their own dtype
        bright = [glance for glance in believed if glance.level > self.cutoff]

        def add_rows(rows: slice) -> None:
            for glance in believed:
                np.fmin(self.smallest[rows], glance.frame[rows], out=self.smallest[rows])
                np.fmax(self.largest[rows], glance.frame[rows], out=self.largest[rows])
            if bright:
                self._groups[self.n_groups, rows] = self._mean(bright, rows)

        threads.map(add_rows, row_blocks(self._groups, n_pixels=ROWS_PIXELS))
        self.n_groups += bool(bright)

    @property
    def groups(self) -> np.ndarray:
        """Mean measured frame of each group, without each pixel's smallest and largest reading, DN."""
        return self._groups[: self.n_groups]

    def _n_believed(self, glance: _Glance) -> int:
        """Count the pixels that are not saturated, or may not be: what that is need not be known yet."""
        sound = self._given is not None or not _may_be_full(glance.top)
        return glance.n_below + sound * glance.n_at_top

    def _glance_at(self, frame_and_dark: tuple[np.ndarray, np.ndarray]) -> _Glance:
        frame, dark = frame_and_dark
        top = frame.max()
        if not (np.isfinite(top) and np.isfinite(frame.min())):
            frame = np.where(np.isfinite(frame), frame, np.nan)
        few = (slice(None, None, FEW),) * frame.ndim
        some = np.subtract(frame[few], dark[few], dtype=self._groups.dtype)
        some = some[np.isfinite(some)]
        level = float(np.median(some)) if some.size else 0.0
        if top < self._limit:
            n_at_top = int(np.count_nonzero(frame == top))
            return _Glance(frame, dark, level, float(top), n_at_top, frame.size - n_at_top)
        below = frame < self._limit  # NaN is not
        top = np.max(frame, where=below, initial=0)
        n_at_top = int(np.count_nonzero(below & (frame == top)))
        return _Glance(frame, dark, level, float(top), n_at_top, int(np.count_nonzero(below)) - n_at_top)

    def _mean(self, glances: Sequence[_Glance], rows: slice) -> np.ndarray:
        """Average some rows of the frames of a group; a spot that one of them has is not among them."""
        measured = np.empty((len(glances), *glances[0].dark[rows].shape), self._groups.dtype)
        for glance, part in zip(glances, measured, strict=True):
            part[...] = glance.frame[rows]
            part -= glance.dark[rows]
            part *= 1 / glance.level  # so that in a ladder, too, it is a spot that is the largest
        total, count = measured.sum(axis=0), len(glances)
        if count >= FEWEST_IN_GROUP:
            total -= measured.max(axis=0)
            total -= measured.min(axis=0)
            count -= 2
        mean: np.ndarray = total * (sum(glance.level for glance in glances) / len(glances) / count)
        return mean

    def saturation(self) -> float | None:
        """Give the value at which readings are saturated: the user's, else the top one if it is a pile."""
        if self._given is not None:
            return self._given
        enough = max(FEWEST_AT_THE_TOP, SHARE_AT_THE_TOP * self._groups[0].size)
        if _may_be_full(self._top) and self._n_at_top >= enough:
            return self._top
        return self._limit if np.isfinite(self._limit) else None


def _may_be_full(reading: float) -> bool:
    """Whether it is the most that a converter of some number of bits gives."""
    bits = np.log2(reading + 1)
    return bool(bits >= SMALLEST_BITS and bits == int(bits))


def _largest_held(dtype: np.dtype) -> float:
    """Give the largest reading of frames of a type, if a detector may reach it."""
    narrow = dtype.kind in "iu" and dtype.itemsize <= WIDEST_COUNTER
    return float(np.iinfo(dtype).max) if narrow else np.inf


def _causes(
    seen: _Seen,
    dark: np.ndarray | None,
    user: np.ndarray | None,
    regions: Regions | None,
    saturation: float | None,
    threads: Threads,
) -> np.ndarray:
    """Put together what is not to be believed, and why."""
    causes = np.zeros(seen.groups.shape[1:], np.uint8)
    if seen.n_groups:
        full = np.inf if saturation is None else saturation
        groups = seen.groups
        nowhere = ~np.isfinite(seen.smallest)
        nowhere |= False if dark is None else ~np.isfinite(dark)
        always, ever = seen.smallest >= full, seen.largest >= full
        unknown = nowhere | always if user is None else nowhere | always | user
        if unknown.any():
            groups[:, unknown] = np.nan
        dark = (
            None if dark is None or not dark.any() else np.where(nowhere, 0, dark) if nowhere.any() else dark
        )
        for box, inside in [((slice(None),) * causes.ndim, None)] if regions is None else regions.pieces:
            here = groups[:, *box] if inside is None else np.where(inside, groups[:, *box], np.nan)
            there = None if dark is None else dark[box]
            if there is not None and inside is not None:
                there = np.where(inside, there, np.nan)
            found = unlike_neighbours(here, there, seen.cutoff, threads.map)
            np.copyto(causes[box], found, where=True if inside is None else inside)
        # one that is saturated at times only has been seen to follow the light
        causes[ever & (causes == DEFECTS["hot"])] = DEFECTS["nonlinear"]
        causes[always] = DEFECTS["hot"]
        causes[nowhere] = DEFECTS["unsolved"]
    if user is not None:
        causes[user] = DEFECTS["user"]
    return causes
