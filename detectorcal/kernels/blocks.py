"""What is usual where a pixel is: medians and spreads over blocks of pixels, and straight lines between them.

The yardstick for single pixels. A median does not see the few that are strange, a block the rest of the
detector, and both together cost less than one smoothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import ndimage

from detectorcal._typing import Float64, Shape
from detectorcal.kernels.masking import MAD_TO_STD

__all__ = [
    "Band",
    "Index",
    "Spread",
    "Usual",
    "bands",
    "near",
    "only",
    "rows_between",
    "take_rows",
    "thin",
    "usual",
    "usual_at",
]

Index: TypeAlias = tuple[Any, ...]
"""Which pixels of a map: slices of its rows, or of rows and columns, or an array of numbers for each axis."""


class Band(NamedTuple):
    """Some rows of blocks."""

    numbers: slice
    """Which."""
    rows: Index
    """Of the detector."""

    def around(self, each: Usual) -> Usual:
        """Give what is usual in it, of shape (n_blocks, 1, width)."""
        return Usual(*(values[self.numbers, None] for values in each))

    def part(self, values: np.ndarray) -> np.ndarray:
        """See some rows in the shape of this, (n_blocks, n_rows, width)."""
        n_blocks = self.numbers.stop - self.numbers.start
        return values.reshape(n_blocks, -1, values.shape[-1])

    def pixels(self, chosen: np.ndarray, shape: Shape) -> Index:
        """Tell where on the detector those are that are chosen in that shape."""
        rows, columns = np.nonzero(chosen.reshape(-1, chosen.shape[-1]))
        start = self.rows[0].start
        return (columns + start,) if len(shape) == 1 else (rows + start, columns)

    def limits(self, blocks: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """Give the least and the most of :func:`rows_between` in each row of blocks, (n_blocks, 1, width)."""
        here = blocks[self.numbers]
        if len(shape) == 2:
            first = np.linspace(self.rows[0].start, self.rows[0].stop, len(here), endpoint=False, dtype=int)
            last = np.append(first[1:], self.rows[0].stop) - 1
            here = np.stack([here, *(rows_between(blocks, shape, (rows,)) for rows in (first, last))])
            return here.min(axis=0)[:, None], here.max(axis=0)[:, None]
        return here[:, None], here[:, None]


Spread: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""Gives what a function makes of each of some items, on threads or one by one."""

SIDES = {1: (16, 64), 2: (4, 16)}
"""Smallest and usual side of a block, pixels, by the detector's number of axes."""

THINNED_FROM = 8
"""Side of blocks of which every second pixel of every second row tells the median well enough."""

NEAR, NEAR_ON_A_LINE = 3, 12
"""Pixels either way that are next to one."""

BLOCKS_PER_BAND = 8
"""Rows of blocks worked on at once."""

BLOCKS_PER_AXIS = 4
"""Blocks that a small detector is cut into at least along an axis, as long as they are not too small."""

ODD_BLOCK = 0.5
"""A block whose median is this much, in parts, off that of the blocks around is taken for one of them: most
of it may be dead."""


class Usual(NamedTuple):
    """What is usual in each row of blocks of pixels, 16x16 of them, or 64 on a line.

    Arrays of shape (n_block_rows, width), or (1, width) of a line: a row is what is usual in all rows of a
    band of :func:`bands`.
    """

    level: np.ndarray
    """Median; where there is none, or one half as large or small again as those around, that of these."""
    spread: np.ndarray
    """Robust standard deviation about it, and nowhere less than that of most blocks."""


def thin(shape: Shape) -> Index:
    """Choose the pixels that medians are taken of."""
    return tuple(slice(None, None, _step(shape)) for _ in shape)


def _step(shape: Shape) -> int:
    return 2 if len(shape) == 2 and min(_side(n, 2) for n in shape) >= THINNED_FROM else 1


def usual(values: np.ndarray, shape: Shape, *, goes_on: bool = False) -> Usual:
    """Find what is usual around each pixel.

    Parameters
    ----------
    values : array, floating
        Of the pixels that :func:`thin` chooses; NaN has no say.
    shape : tuple of int
        Of the detector.
    goes_on : bool, default=False
        Whether the level goes on beyond the middles of the outermost blocks as it does before them, as a
        beam's does; anything else stays as it is there.

    Returns
    -------
    Usual
    """
    with np.errstate(all="ignore"):
        return _usual(_blocks_of(values, shape), shape, goes_on)


def _usual(blocks: np.ndarray, shape: Shape, goes_on: bool) -> Usual:
    medians = _medians(blocks)
    away = _medians(np.abs(blocks - medians[..., None]))
    known = away[np.isfinite(away)]
    most = float(np.median(known)) if known.size else 0.0
    spread = MAD_TO_STD * np.where(away > most, away, most)
    maps = _across(_sound(medians), shape, goes_on), _across(spread, shape, False)
    return Usual(*(np.atleast_2d(each).astype(blocks.dtype) for each in maps))


def rows_between(blocks: np.ndarray, shape: Shape, where: Index) -> np.ndarray:
    """Give the values of rows of blocks, as :class:`Usual` has them, at some pixels of a detector.

    Between and beyond the middles of the blocks they lie on straight lines.
    """
    if len(shape) == 1:
        line: np.ndarray = blocks[0][where]
        return line
    if len(blocks) == 1:
        return take_rows(blocks, np.zeros(shape[0], np.int64), where)
    above, share = _middles(len(blocks), shape[0], 2)
    share = share[where[0]].astype(blocks.dtype)
    between = take_rows(blocks, above, where)
    between += share.reshape(share.shape + (1,) * (between.ndim - share.ndim)) * (
        take_rows(blocks, above + 1, where) - between
    )
    return between


def take_rows(values: np.ndarray, rows: np.ndarray, where: Index) -> np.ndarray:
    """Give, for some pixels of an area, what ``values`` have in the row that ``rows`` names for theirs."""
    wanted = rows[where[0]]
    if len(where) > 1 and not isinstance(where[1], slice):
        taken: np.ndarray = values[..., wanted, where[1]]
        return taken
    return np.take(values[..., where[1]] if len(where) > 1 else values, wanted, axis=-2)


def usual_at(each: Usual, shape: Shape, at: Index) -> Usual:
    """Give what is usual in the row of blocks that each of some pixels is in."""
    if len(shape) == 1:
        return Usual(*(values[0][at] for values in each))
    row = np.minimum(np.arange(shape[0]) // _side(shape[0], 2), len(each.level) - 1)
    return Usual(*(take_rows(values, row, at) for values in each))


def _across(blocks: np.ndarray, shape: Shape, goes_on: bool) -> np.ndarray:
    """Spread the values of blocks along the last axis."""
    n, count = shape[-1], blocks.shape[-1]
    if count == 1:
        return np.repeat(blocks, n, axis=-1)
    left, share = _middles(count, n, len(shape))
    share = share if goes_on else np.clip(share, 0, 1)
    return blocks[..., left] * (1 - share) + blocks[..., left + 1] * share


def bands(shape: Shape) -> list[Band]:
    """Cut a detector into bands of a few rows of blocks, and what is left over.

    What is made of a band stays near the core, while whole maps would be new memory, which costs more than
    what is done with them; and a band is long enough for threads to work beside each other.
    """
    side = _side(shape[0], 2) if len(shape) == 2 else shape[0]
    count = shape[0] // side
    found = []
    for first in range(0, count, BLOCKS_PER_BAND):
        last = min(first + BLOCKS_PER_BAND, count)
        found.append(Band(slice(first, last), (slice(first * side, last * side),)))
    if count * side < shape[0]:
        found.append(Band(slice(count - 1, count), (slice(count * side, shape[0]),)))
    return found


def only(at: Index, chosen: np.ndarray) -> Index:
    """Give those of some pixels that are chosen among them."""
    return tuple(index[chosen] for index in at)


def near(values_of: Callable[[Index], np.ndarray], shape: Shape, at: Index) -> np.ndarray:
    """Give the median of the pixels next to each of some, 7x7 or 25 on a line; NaN has no say.

    Where what is usual changes within a block, as at an edge that smoothing bends, only they can tell.

    Parameters
    ----------
    values_of : callable
        Gives the values of some pixels.
    shape : tuple of int
        Of the detector.
    at : tuple of one array of shape (n,) for each axis, int
        Which pixels.

    Returns
    -------
    array of shape (n,)
    """
    if not at[0].size:
        return np.zeros(0)
    reach = NEAR if len(shape) == 2 else NEAR_ON_A_LINE
    axis = np.arange(-reach, reach + 1)
    shifts = np.stack(np.meshgrid(*[axis] * len(shape), indexing="ij")).reshape(len(shape), -1, 1)
    places = [index + shift for index, shift in zip(at, shifts, strict=True)]
    around = values_of(tuple(np.clip(place, 0, n - 1) for place, n in zip(places, shape, strict=True)))
    # beyond an edge there is none: were the last repeated, a dead column at the edge would be what is usual
    for place, n in zip(places, shape, strict=True):
        around[(place < 0) | (place >= n)] = np.nan
    return _medians(around.T)


def _side(n: int, n_axes: int) -> int:
    """Give the side of the blocks of an axis, so that little is left over at its end."""
    smallest, largest = SIDES[n_axes]
    wanted = min(n, largest, max(smallest, n // BLOCKS_PER_AXIS))
    side = n // max(1, round(n / wanted))
    return side - side % 2 if n_axes == 2 and side >= THINNED_FROM else side


def _blocks_of(values: np.ndarray, shape: Shape) -> np.ndarray:
    """Give the values of each block, of shape (..blocks, n_values), without what is left over at the ends."""
    counts = [n // _side(n, len(shape)) for n in shape]
    sides = [_side(n, len(shape)) // _step(shape) for n in shape]
    inner = values[tuple(slice(0, count * side) for count, side in zip(counts, sides, strict=True))]
    if len(shape) == 1:
        return inner.reshape(counts[0], -1)
    return inner.reshape(counts[0], sides[0], counts[1], sides[1]).swapaxes(1, 2).reshape(*counts, -1)


def _medians(blocks: np.ndarray) -> np.ndarray:
    """Medians of the values that are not NaN; NaN where all are."""
    ordered = np.sort(blocks, axis=-1)  # NaN goes to the end
    if not np.isnan(ordered[..., -1]).any():
        return ordered[..., (ordered.shape[-1] - 1) // 2]
    n_known = np.count_nonzero(~np.isnan(ordered), axis=-1)
    middle = np.maximum(n_known - 1, 0) // 2
    return np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]


def _sound(medians: np.ndarray) -> np.ndarray:
    """Replace the medians of blocks that tell nothing, or something else than the blocks around."""
    known = np.isfinite(medians)
    if not known.any():
        return np.zeros_like(medians)
    if not known.all():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        medians = medians[tuple(nearest)]
    around = ndimage.median_filter(medians, size=3, mode="nearest")
    odd = np.abs(medians - around) > ODD_BLOCK * np.abs(around)
    return np.where(odd, around, medians)


@lru_cache(maxsize=16)
def _middles(count: int, n: int, n_axes: int) -> tuple[np.ndarray, Float64]:
    """Tell of each pixel of an axis the block before it, and how far it is on the way to the next.

    What is left over beyond the last block is as its edge: further out a line would say little.
    """
    place = np.minimum((np.arange(n) + 0.5) / _side(n, n_axes) - 0.5, count - 0.5)
    before = np.clip(np.floor(place).astype(int), 0, count - 2)
    return before, place - before
