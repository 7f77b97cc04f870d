"""Pixels that must not be believed in a frame: found, and filled from their neighbours.

A Gaussian spreads one NaN or one saturated pixel over everything within its reach, so such pixels are
filled *before* smoothing: from their nearest neighbours by a narrow normalised convolution [1]_.

References
----------
.. [1] H. Knutsson, C.-F. Westin, "Normalized and differential convolution", CVPR (1993) 515,
   https://doi.org/10.1109/CVPR.1993.341081
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from detectorcal._arrays import is_numpy, namespace
from detectorcal._typing import Array, Float64
from detectorcal.kernels.smoothing import Smoothing, gaussian

__all__ = ["fill_masked", "find_spots", "median_of_neighbours", "robust_std"]

FILL_SIGMA = 3.0
"""Width in pixels of the first filling: wide enough to average noise, narrow enough to follow a beam."""

TRUSTED_WEIGHT = 1e-3
"""A neighbourhood counts as filled from where it holds this share of believable pixels."""

NEIGHBOURHOOD = {1: 25, 2: 5}
"""Side in pixels, by the detector's number of axes, of the median filter that spots are judged against: 25
pixels either way. Of fewer, too many are the median themselves, and the distances' MAD falls short."""

MAD_TO_STD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def fill_masked(frames: Array, masked: Array) -> Array:
    """Replace masked pixels by the mean of their believable neighbours.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames, DN. Masked pixels may hold anything, NaN and inf included.
    masked : array of the same shape, bool
        Where the frames are not to be believed.

    Returns
    -------
    array of the same shape and dtype
        The frames with masked pixels filled. A frame with no believable pixel is 0 everywhere.
    """
    xp = namespace(frames)
    believable = xp.astype(~masked, frames.dtype)
    known = xp.where(masked, xp.zeros_like(frames), frames)
    filled, missing = known, masked
    sigma = FILL_SIGMA
    # beyond twice the detector's diagonal a wider Gaussian reaches nothing new
    widest = 2 * sum(n * n for n in frames.shape[1:]) ** 0.5
    while bool(xp.any(missing)) and sigma <= max(widest, FILL_SIGMA):
        narrow = Smoothing(sigma, "nearest", 0.0, 4.0)
        weight = gaussian(believable, narrow)
        reached = missing & (weight > TRUSTED_WEIGHT)
        guess = gaussian(known, narrow) / xp.where(reached, weight, xp.ones_like(weight))
        filled = xp.where(reached, guess, filled)
        missing = missing & ~reached
        sigma *= 2
    return xp.where(missing, _mean_of_believable(known, believable), filled)


def _mean_of_believable(known: Array, believable: Array) -> Array:
    """Mean of each frame's believable pixels, for what lies too far from any of them; 0 without one."""
    xp = namespace(known)
    axes = tuple(range(1, known.ndim))
    count = xp.sum(believable, axis=axes, keepdims=True)
    return xp.sum(known, axis=axes, keepdims=True) / xp.where(count > 0, count, xp.ones_like(count))


def median_of_neighbours(frames: Array) -> Array:
    """Median over the 5x5 pixels (25 on a line detector) around each pixel of each frame.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames without NaN, DN.

    Returns
    -------
    array of the same shape and dtype
        The medians; beyond an edge the frame is mirrored at its last pixel, which so has no second vote.
    """
    side = NEIGHBOURHOOD[frames.ndim - 1]
    if is_numpy(frames):
        size = (1,) + (side,) * (frames.ndim - 1)
        medians: np.ndarray = ndimage.median_filter(frames, size=size, mode="mirror")
        return medians
    xp = namespace(frames)
    shifted = [frames]
    for axis in range(1, frames.ndim):
        shifted = [s for f in shifted for s in _shifts(f, axis, side // 2)]
    ordered = xp.sort(xp.stack(shifted), axis=0)
    return ordered[len(shifted) // 2, ...]


def _shifts(frames: Array, axis: int, reach: int) -> list[Array]:
    """Give the frames shifted along one axis by up to ``reach`` pixels either way, mirrored at the edges."""
    xp = namespace(frames)
    last = frames.shape[axis] - 1
    positions = xp.arange(last + 1, dtype=xp.int64, device=frames.device)
    return [
        xp.take(frames, last - xp.abs(last - (positions + shift) % max(2 * last, 1)), axis=axis)
        for shift in range(-reach, reach + 1)
    ]


def robust_std(values: Float64) -> float:
    """Give the standard deviation that the median absolute deviation tells, of values that are all finite."""
    return MAD_TO_STD * float(np.median(np.abs(values - np.median(values))))


def find_spots(frames: Array, medians: Array, n_spreads: float) -> Array:
    """Find the pixels that stand out of their own frame: cosmic rays, gamma spots, zingers.

    Parameters
    ----------
    frames, medians : arrays of shape (n_frames, *detector_shape), floating
        Frames and the medians of their neighbourhoods, DN.
    n_spreads : float
        How many robust standard deviations of ``frames - medians``, over the frame, are allowed.

    Returns
    -------
    array of the same shape, bool
        True at spots. A frame more than half of which equals its medians has no spread to judge by,
        and no spots.
    """
    xp = namespace(frames)
    deviation = frames - medians
    flat = xp.reshape(deviation, (frames.shape[0], -1))
    centre = _median(flat)
    spread = MAD_TO_STD * _median(xp.abs(flat - centre))
    spread = xp.reshape(spread, (-1,) + (1,) * (frames.ndim - 1))
    return (xp.abs(deviation) > n_spreads * spread) & (spread > 0)


def _median(rows: Array) -> Array:
    """Median of each row, as a column."""
    if is_numpy(rows):
        return np.median(rows, axis=1, keepdims=True)
    xp = namespace(rows)
    ordered = xp.sort(rows, axis=1)
    middle = rows.shape[1] // 2
    upper = ordered[:, middle : middle + 1]
    return upper if rows.shape[1] % 2 else (ordered[:, middle - 1 : middle] + upper) / 2
