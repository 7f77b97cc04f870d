"""What is usual where a pixel is: medians over blocks of pixels, and levels between them.

The yardstick for single pixels. A median does not see the few that are strange, a block the rest of the
detector, and both together cost less than one smoothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.masking import MAD_TO_STD

__all__ = ["ROWS_AT_ONCE", "local_level", "local_medians", "local_spread", "rows_between"]

SIDES = {1: (16, 64), 2: (4, 16)}
"""Smallest and usual side of a block, pixels, by the detector's number of axes."""

BLOCKS_PER_AXIS = 4
"""Blocks that a small detector is cut into at least along an axis, as long as they are not too small."""

ROWS_AT_ONCE = 32
"""Rows worked on at once, so that what is made of them stays near the core."""

ODD_BLOCK = 0.5
"""A block whose median is this much, in parts, off that of the blocks around is taken for one of them: most
of it may be dead."""


def blocks_of(values: np.ndarray) -> np.ndarray:
    """Give the values of each block, of shape (..blocks, n_values), without what is left over at the ends."""
    shape = values.shape
    sides = [_side(n, values.ndim) for n in shape]
    counts = [n // side for n, side in zip(shape, sides, strict=True)]
    # a quarter of the pixels of a large block tells its median well enough
    step = 2 if len(shape) == 2 and min(sides) >= SIDES[2][1] else 1
    inner = values[tuple(slice(0, c * s, step) for c, s in zip(counts, sides, strict=True))]
    if len(shape) == 1:
        return inner.reshape(counts[0], -1)
    split = inner.reshape(counts[0], sides[0] // step, counts[1], sides[1] // step)
    return split.transpose(0, 2, 1, 3).reshape(*counts, -1)


def _side(n: int, n_axes: int) -> int:
    """Give the side of the blocks of an axis, so that little is left over at its end."""
    smallest, usual = SIDES[n_axes]
    wanted = min(n, usual, max(smallest, n // BLOCKS_PER_AXIS))
    return n // max(1, round(n / wanted))


def _medians(blocks: np.ndarray) -> np.ndarray:
    """Medians of the values that are not NaN; NaN where all are."""
    ordered = np.sort(blocks, axis=-1)  # NaN goes to the end
    n_known = np.count_nonzero(~np.isnan(ordered), axis=-1)
    middle = np.maximum(n_known - 1, 0) // 2
    return np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]


def local_medians(values: np.ndarray) -> np.ndarray:
    """Give the sound median of each block; see :func:`local_level`, which spreads them."""
    return _sound(_medians(blocks_of(values))).astype(values.dtype, copy=False)


def local_level(values: np.ndarray) -> np.ndarray:
    """Give what is usual around each pixel.

    Parameters
    ----------
    values : array of shape detector_shape, floating
        NaN where nothing is known.

    Returns
    -------
    array of the same shape and dtype
        Medians of blocks of 16x16 pixels (64 on a line), with straight lines between their centres. A block
        without a value, or half as large or small again as those around it, counts as these.
    """
    return rows_between(local_medians(values), values.shape, slice(None))


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


def rows_between(medians: np.ndarray, shape: Shape, rows: slice) -> np.ndarray:
    """Spread the values of blocks over some rows, with straight lines between and beyond their centres."""
    down, *across = (_lines(c, n, len(shape)) for c, n in zip(medians.shape, shape, strict=True))
    spread: np.ndarray = down[rows].astype(medians.dtype) @ medians
    return spread @ across[0].T.astype(medians.dtype) if across else spread


@lru_cache(maxsize=16)
def _lines(count: int, n: int, n_axes: int) -> Float64:
    """Give the matrix, of shape (n, count), that draws straight lines through the blocks of an axis."""
    if count == 1:
        return np.ones((n, 1))
    place = (np.arange(n) + 0.5) / _side(n, n_axes) - 0.5
    left = np.clip(np.floor(place).astype(int), 0, count - 2)
    share = place - left
    matrix = np.zeros((n, count))
    matrix[np.arange(n), left], matrix[np.arange(n), left + 1] = 1 - share, share
    return matrix


def local_spread(deviation: Array) -> np.ndarray:
    """Give the robust standard deviation around each pixel, nowhere less than over the whole detector.

    Parameters
    ----------
    deviation : array of shape detector_shape, floating
        From what is usual; NaN where nothing is known.
    """
    size = np.abs(deviation)
    blocks = blocks_of(size)
    medians = _medians(blocks)
    known = medians[np.isfinite(medians)]
    whole = float(np.median(known)) if known.size else 0.0
    medians = np.where(np.isfinite(medians), medians, whole).astype(deviation.dtype, copy=False)
    local = rows_between(medians, deviation.shape, slice(None))
    spread: np.ndarray = MAD_TO_STD * np.maximum(local, whole)
    return spread
