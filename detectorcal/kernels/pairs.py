r"""Pairs of near pixels, whose differences tell the noise.

What two pixels a few apart in a row share drops out of their difference: the beam that smoothing bends,
flicker, drift. The sums over a pair stand at its left pixel; everywhere else is 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectorcal._arrays import namespace
from detectorcal._typing import Array, Float64
from detectorcal.kernels.model import sampled_rows

__all__ = [
    "CHI_SQUARED_DENSITY",
    "CHI_SQUARED_MEDIAN",
    "Pair",
    "at_left_pixel",
    "between_pixels",
    "comparable_pairs",
    "noise_scale",
    "nonzero",
    "pair_in",
    "same_region",
]

NEIGHBOUR_DISTANCE = 4
"""Pixels between the two whose difference tells the noise: near enough to share the error that smoothing
makes on a curved beam, further than light usually spreads."""

SMALLEST_SHARE_OF_PAIRS = 0.01
"""Below this share of pairs seen in equally many frames the noise is taken as not known."""

CHI_SQUARED_MEDIAN, CHI_SQUARED_DENSITY = 0.454936, 0.471137
"""Median of the chi-squared distribution with one degree of freedom, and its density there."""


class Pair(NamedTuple):
    """Columns of the left and of the right pixels of all pairs of a row."""

    left: slice
    right: slice


def pair_in(width: int) -> Pair | None:
    """Give the columns of pairs; None where a row is one pixel wide."""
    distance = min(NEIGHBOUR_DISTANCE, width - 1)
    return Pair(slice(None, width - distance), slice(distance, None)) if distance else None


def between_pixels(expected: Array, measured: Array, pair: Pair) -> tuple[Array, Array]:
    """Give the sum of the expected values of each pair, and the difference of their residuals.

    Parameters
    ----------
    expected, measured : arrays of shape (n_frames, *block_shape)
        As :meth:`~detectorcal.kernels.model.ResponseModel.accumulate` gets them, DN.
    pair : Pair
        What :func:`pair_in` gave for their width.

    Returns
    -------
    total, between : arrays of shape (n_frames, ..., n_pairs)
        S = s_right + s_left, and D = r_right - r_left with r = m - s; DN.
    """
    residual = measured - expected
    total = expected[..., pair.right] + expected[..., pair.left]
    return total, residual[..., pair.right] - residual[..., pair.left]


def at_left_pixel(values: Array, like: Array, pair: Pair) -> Array:
    """Put a value per pair where its left pixel is, in an array of the shape of ``like``."""
    placed = namespace(like).zeros_like(like)
    placed[..., pair.left] = values
    return placed


def comparable_pairs(
    frames: Float64, pair: Pair, fewest: int, labels: np.ndarray | None
) -> np.ndarray | None:
    """Find the pairs both pixels of which took part in equally many frames, ``fewest`` at least.

    Parameters
    ----------
    frames : array of shape (..., width), float64
        Number of frames in which each pixel took part, in the sampled rows.
    pair : Pair
        Columns.
    fewest : int
        Frames that are needed.
    labels : array of shape detector_shape, int, or None
        Label of each pixel's region, if there are any: pairs are of one region.

    Returns
    -------
    array of shape (..., n_pairs), bool, or None
        None if they are too few to tell anything.
    """
    comparable = (frames[..., pair.left] == frames[..., pair.right]) & (frames[..., pair.left] >= fewest)
    if labels is not None:
        comparable &= same_region(labels[sampled_rows(labels.ndim)], pair)
    return comparable if comparable.mean() >= SMALLEST_SHARE_OF_PAIRS else None


def same_region(labels: np.ndarray, pair: Pair) -> np.ndarray:
    """Tell which pairs are of one region: across a step or a gap, nothing is shared."""
    same: np.ndarray = labels[..., pair.left] == labels[..., pair.right]
    return same


def noise_scale(scatter: Float64, freedom: np.ndarray) -> float:
    """Estimate by what chi-squared variables are multiplied; robust against the few that are not.

    Parameters
    ----------
    scatter : array of shape (n,)
        Sums of squares.
    freedom : array of shape (n,), int
        Degrees of freedom of each.

    Returns
    -------
    float
        Median of ``scatter``, each over the median of its own distribution.
    """
    from scipy.special import gammaincinv

    medians: Float64 = 2 * gammaincinv(np.arange(int(freedom.max()) + 1) / 2, 0.5)
    return float(np.median(scatter / medians[freedom]))


def nonzero(total: Array) -> Array:
    """Replace 0 by 1 where a pair takes no part: there what is divided by it is 0 too."""
    return total + namespace(total).astype(total == 0, total.dtype)
