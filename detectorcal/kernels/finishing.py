"""What is done to corrected values: defects and what means nothing replaced, the logarithm taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from detectorcal._arrays import is_floating, is_numpy, namespace
from detectorcal._typing import Array
from detectorcal.kernels.correction import Maps, Rejection, ScanMaps, correct
from detectorcal.kernels.interpolation import Neighbours

__all__ = ["Counts", "Finish", "Steps"]


class Counts(NamedTuple):
    """Values that mean nothing, by cause; numbers, or arrays of none dimensions on a device."""

    beyond: Any = 0
    """Readings that no intensity gives: beyond the top of a curve."""
    low: Any = 0
    """Transmissions too small for a logarithm."""

    def add(self, other: Counts) -> Counts:
        """Give the counts of both."""
        return Counts(self.beyond + other.beyond, self.low + other.low)


class Finish(NamedTuple):
    """What becomes of corrected values; arrays of detector shape, in the dtype of the result."""

    beyond: Array | None = None
    """Stands in for readings that no intensity gives; None leaves them NaN."""
    neighbours: Neighbours | None = None
    """The defects to be interpolated."""
    unlit: Array | None = None
    """Stands in where the flat is not positive; NaN at all other pixels, and None leaves those NaN."""
    least: Array | None = None
    """What is not above this has no logarithm; None takes none."""
    instead: Array | None = None
    """Stands in for it; NaN where nothing does."""

    def each(self, change: Callable[[Array], Array]) -> Finish:
        """Give the same with each array changed: moved to a device, say."""
        neighbours = None if self.neighbours is None else self.neighbours.each(change)
        maps = (None if m is None else change(m) for m in (self.beyond, *self[2:]))
        beyond, unlit, least, instead = maps
        return Finish(beyond, neighbours, unlit, least, instead)

    def __call__(self, values: Array) -> tuple[Array, Counts]:
        """Interpolate, put in what stands in, and take the logarithm; in place on NumPy.

        Parameters
        ----------
        values : array of shape (n_frames, *detector_shape), floating
            Corrected values.

        Returns
        -------
        values : array of the same shape and dtype
        counts : Counts
        """
        if self.neighbours is not None:
            values = self.neighbours.fill(values)
        if self.unlit is not None:
            values = _put(values, self.unlit == self.unlit, self.unlit)
        if self.least is None:
            return values, Counts()
        low = values <= self.least
        counts = Counts(low=_number(low))
        return _minus_log(_put(values, low, self.instead)), counts


class Steps(NamedTuple):
    """All that makes a corrected frame of a raw one."""

    maps: Maps | ScanMaps
    reject: Rejection | None
    finish: Finish

    @property
    def dtype(self) -> np.dtype:
        """Precision of the result."""
        dtype: np.dtype = self.maps.dark.dtype
        return dtype

    @property
    def needs_frames(self) -> bool:
        """Whether :meth:`run` must see whole frames."""
        return self.reject is not None

    def each(self, change: Callable[[Array], Array]) -> Steps:
        """Give the same with each array changed: moved to a device, say."""
        reject = None if self.reject is None else self.reject.each(change)
        return self._replace(maps=self.maps.each(change), reject=reject, finish=self.finish.each(change))

    def part(self, run: slice | np.ndarray) -> Steps:
        """Give the same for some frames of a scan."""
        return self._replace(maps=self.maps.part(run))

    def of_frames(self) -> Steps:
        """Give the same with the maps that each frame is corrected with, for :meth:`run`."""
        return self._replace(maps=self.maps.of_frames())

    def in_blocks(self, blocks: list[slice]) -> tuple[list[Steps], Finish | None]:
        """Give the same for each of some blocks of rows, and what is left to do with whole frames."""
        if len(blocks) == 1:
            return [self], None
        if self.finish.neighbours is None:
            return [self._rows(rows) for rows in blocks], None
        early = self._replace(finish=Finish(self.finish.beyond))
        return [early._rows(rows) for rows in blocks], self.finish._replace(beyond=None)

    def _rows(self, rows: slice) -> Steps:
        return self._replace(maps=self.maps.rows(rows), finish=self.finish.each(lambda m: m[rows]))

    def run(self, frames: Array, out: Array | None) -> tuple[Array, Counts]:
        """Correct frames, or rows of them; see :func:`~detectorcal.kernels.correction.correct`.

        What a curve cannot give is replaced and counted, where the reading itself is a number.
        """
        found: list[object] = []
        maps = self.maps.of_frames()
        straight = maps.scale is not None
        finite = None if straight else _finite(frames)  # before `out`, which may be where they are
        values = correct(
            frames, maps, self.reject, out, None if straight else lambda *flags: found.append(flags)
        )
        if not found:
            return values, Counts()
        xp = namespace(values)
        beyond = xp.isnan(values) & xp.isfinite(maps.half)
        beyond = beyond if finite is None else beyond & finite
        counts = Counts(beyond=_number(beyond))
        return values if self.finish.beyond is None else _put(values, beyond, self.finish.beyond), counts

    def complete(self, values: Array) -> tuple[Array, Counts]:
        """Finish what :meth:`run` gave."""
        return self.finish(values)


def _finite(frames: Array) -> Array | None:
    """Tell where raw frames are numbers; None where all are."""
    if not is_floating(frames):
        return None
    xp = namespace(frames)
    finite = xp.isfinite(frames)
    return None if bool(xp.all(finite)) else finite


def _number(found: Array) -> Any:
    """Count; on a device without waiting for it."""
    if is_numpy(found):
        return int(np.count_nonzero(found))
    xp = namespace(found)
    return xp.sum(xp.astype(found, xp.int64))  # `count_nonzero` is younger than some libraries


def _put(values: Array, where: Array, instead: Array) -> Array:
    if is_numpy(values):
        np.copyto(values, instead, where=where)
        return values
    return namespace(values).where(where, instead, values)


def _minus_log(values: Array) -> Array:
    """Give -log of what is positive or NaN; NaN, and not -inf, of what is infinite."""
    xp = namespace(values)
    if is_numpy(values):
        np.log(values, out=values)
        np.negative(values, out=values)
    else:
        values = -xp.log(values)
    return _put(values, xp.isinf(values), xp.full_like(values, xp.nan))
