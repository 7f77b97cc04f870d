"""Each region of a detector treated as a detector of its own: filled and smoothed within itself.

So nothing leaks from one tile to the next. A rectangle is treated as a detector of that shape is. Of any
other region it is the bounding box, in which what is not of the region is filled from it first, as masked
pixels are. Without regions there is one piece: the detector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detectorcal._arrays import namespace, put_like
from detectorcal._typing import Array
from detectorcal.kernels.masking import fill_masked
from detectorcal.kernels.regions import Regions
from detectorcal.kernels.smoothing import Smoothing, gaussian

__all__ = ["each_alone", "fill_within", "gaussian_within"]


def gaussian_within(frames: Array, smoothing: Smoothing) -> Array:
    """Smooth frames over all axes but the first, within the regions of ``smoothing`` if it has any.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames, DN.
    smoothing : Smoothing
        The Gaussian.

    Returns
    -------
    array of the same shape and dtype
        Smoothed frames, DN; 0 in gaps.
    """
    return each_alone(lambda piece: gaussian(piece, smoothing), frames, smoothing.regions)


def fill_within(frames: Array, masked: Array, regions: Regions | None) -> Array:
    """Replace masked pixels by the mean of their believable neighbours of the same region.

    Parameters
    ----------
    frames, masked : arrays of shape (n_frames, *detector_shape), floating and bool
        As :func:`~detectorcal.kernels.masking.fill_masked` takes them.
    regions : Regions or None

    Returns
    -------
    array of the shape and dtype of ``frames``
        0 in gaps, which have no neighbours.
    """
    if regions is None:
        return fill_masked(frames, masked)
    filled = namespace(frames).zeros_like(frames)
    for box, inside in regions.pieces:
        here = slice(None), *box
        unknown = masked[here] if inside is None else masked[here] | ~put_like(inside, masked)
        _put(filled, here, fill_masked(frames[here], unknown), inside)
    return filled


def each_alone(work: Callable[[Array], Array], frames: Array, regions: Regions | None) -> Array:
    """Do to each region what is done to the frames of a detector.

    Parameters
    ----------
    work : callable
        Takes frames and gives others of the same shape and dtype.
    frames : array of shape (n_frames, *detector_shape), floating
        Frames without NaN, DN.
    regions : Regions or None

    Returns
    -------
    array of the shape and dtype of ``frames``
        0 in gaps.
    """
    if regions is None:
        return work(frames)
    done = namespace(frames).zeros_like(frames)
    for box, inside in regions.pieces:
        here = slice(None), *box
        piece = frames[here]
        if inside is not None:
            piece = fill_masked(piece, ~put_like(inside, frames)[None, ...])
        _put(done, here, work(piece), inside)
    return done


def _put(done: Array, here: tuple[slice, ...], piece: Array, inside: np.ndarray | None) -> None:
    """Put a region where it belongs, and leave the rest of its bounding box as it is."""
    if inside is not None:
        piece = namespace(piece).where(put_like(inside, piece), piece, done[here])
    done[here] = piece
