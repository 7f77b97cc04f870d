"""Each region of a detector treated as a detector of its own: filled, rid of spots, smoothed within itself.

So nothing leaks from one tile to the next. A rectangle is smoothed by the very smoother of a detector of that
shape, which modules of equal size share. Any other region is smoothed in its bounding box, in which what
is not of it is filled from it first, as masked pixels are. Without regions there is one piece: the detector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

from array_api_compat import device

from detectorcal._arrays import namespace, put_like
from detectorcal._typing import Array, Shape
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.regions import Piece, Regions
from detectorcal.kernels.smoothing import Smoother, Smoothing, smoother_for

__all__ = ["fill_within", "gaussian_within", "smoother_within", "without_spots"]

_MAX_CACHED_SMOOTHERS = 4
"""They hold a label image each; those of the pieces' shapes are cached where they are made."""


def smoother_within(shape: Shape, smoothing: Smoothing, like: Array) -> Smoother:
    """Give the smoother of frames, within their regions if there are any.

    Parameters
    ----------
    shape : tuple of int
        Shape of the detector, 1-D or 2-D.
    smoothing : Smoothing
        The Gaussian, with the regions.
    like : array
        An array of the library, device and floating dtype the frames will have.

    Returns
    -------
    Smoother
        In gaps its frames are 0.
    """
    if smoothing.regions is None:
        return smoother_for(shape, smoothing, like)
    return _cached_smoother(smoothing, namespace(like), like.dtype, device(like))


@lru_cache(maxsize=_MAX_CACHED_SMOOTHERS)
def _cached_smoother(smoothing: Smoothing, xp: ModuleType, dtype: Any, place: Any) -> Smoother:
    return _Pieces(smoothing, xp.empty(0, dtype=dtype, device=place))


def gaussian_within(frames: Array, smoothing: Smoothing) -> Array:
    """Smooth frames over all axes but the first, within their regions if there are any.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames, DN.
    smoothing : Smoothing
        The Gaussian, with the regions.

    Returns
    -------
    array of the same shape and dtype
        Smoothed frames, DN; 0 in gaps.
    """
    smoother = smoother_within(tuple(frames.shape[1:]), smoothing, frames)
    return smoother.expand(smoother.project(lambda *where: frames[:, *where, ...]), slice(None))


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
        Gaps, which have no neighbours, are 0.
    """
    if regions is None:
        return fill_masked(frames, masked)
    xp = namespace(frames)
    filled = xp.zeros_like(frames)
    for piece in regions.pieces:
        box = slice(None), *piece.box
        part, unknown = frames[box], masked[box]
        if piece.inside is not None:
            unknown = unknown | ~put_like(piece.inside, masked)
        if bool(xp.any(unknown)):
            part = fill_masked(part, unknown)
        _put(filled, box, part, piece.inside)
    return filled


def without_spots(frames: Array, n_spreads: float, regions: Regions | None) -> tuple[Array, Array]:
    """Replace what stands out of its region by the median around it.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames without NaN, DN.
    n_spreads : float
        As :func:`~detectorcal.kernels.masking.find_spots` takes it.
    regions : Regions or None

    Returns
    -------
    cleaned, spots : arrays of the shape of ``frames``
        The frames without spots, and where they were, bool.
    """
    xp = namespace(frames)
    if regions is None:
        medians = median_of_neighbours(frames)
        spots = find_spots(frames, medians, n_spreads)
        return xp.where(spots, medians, frames), spots
    cleaned, spots = xp.zeros_like(frames), xp.zeros_like(frames, dtype=xp.bool)
    for piece in regions.pieces:
        box = slice(None), *piece.box
        found = without_spots(_whole(frames[box], piece), n_spreads, None)
        for everywhere, here in zip((cleaned, spots), found, strict=True):
            _put(everywhere, box, here, piece.inside)
    return cleaned, spots


def _whole(part: Array, piece: Piece) -> Array:
    """Fill the rest of a region's bounding box from within it."""
    if piece.inside is None:
        return part
    return fill_masked(part, ~put_like(piece.inside, part)[None, ...])


def _put(everywhere: Array, where: tuple[slice, ...], part: Array, inside: Any) -> None:
    """Put a part where it belongs, the rest of a bounding box left as it is."""
    if inside is not None:
        part = namespace(part).where(put_like(inside, part), part, everywhere[where])
    everywhere[where] = part


class _Part(NamedTuple):
    """A piece and what smooths it."""

    piece: Piece
    smoother: Smoother
    condensed: slice
    """Where its condensed form, made flat, lies in that of all."""


class _Pieces:
    """The smoothers of all regions as one: their condensed forms, made flat, one beside another."""

    def __init__(self, smoothing: Smoothing, like: Array) -> None:
        assert smoothing.regions is not None
        self._shape = smoothing.regions.shape
        self._parts: list[_Part] = []
        alone, end = replace(smoothing, regions=None), 0
        for piece in smoothing.regions.pieces:
            inside = None if piece.inside is None else put_like(piece.inside, like)
            smoother = smoother_for(_lengths(piece.box), alone, like)
            start, end = end, end + prod(smoother.condensed_shape)
            self._parts.append(_Part(Piece(piece.box, inside), smoother, slice(start, end)))
        self.condensed_shape: Shape = (end,)

    def project(self, rows_of: Callable[..., Array]) -> Array:
        cores = [part.smoother.project(_rows_within(rows_of, part.piece)) for part in self._parts]
        if not cores:  # all is gap
            cores = [rows_of(slice(0, 0))]
        xp = namespace(cores[0])
        return xp.concat([xp.reshape(core, (core.shape[0], -1)) for core in cores], axis=1)

    def expand(self, condensed: Array, rows: slice) -> Array:
        xp = namespace(condensed)
        wanted = range(*rows.indices(self._shape[0]))
        shape = (condensed.shape[0], len(wanted), *self._shape[1:])
        smoothed = xp.zeros(shape, dtype=condensed.dtype, device=device(condensed))
        for (box, inside), smoother, where in self._parts:
            ours, theirs = _common_rows(wanted, box[0])
            if ours.start == ours.stop:
                continue
            core = xp.reshape(condensed[:, where], (-1, *smoother.condensed_shape))
            part = smoother.expand(core, theirs)
            _put(
                smoothed, (slice(None), ours, *box[1:]), part, None if inside is None else inside[theirs, ...]
            )
        return smoothed


def _common_rows(wanted: range, side: slice) -> tuple[slice, slice]:
    """Give the rows that some wanted ones and a box share: which of the wanted, and which of the box."""
    first, last = (
        len(range(wanted.start, min(edge, wanted.stop), wanted.step)) for edge in (side.start, side.stop)
    )
    top = wanted.start + first * wanted.step - side.start
    return slice(first, last), slice(top, top + (last - first) * wanted.step, wanted.step)


def _lengths(box: tuple[slice, ...]) -> Shape:
    return tuple(side.stop - side.start for side in box)


def _rows_within(rows_of: Callable[..., Array], piece: Piece) -> Callable[..., Array]:
    """Give the rows of a piece as if it were a detector."""
    if piece.inside is not None:
        frames = _whole(rows_of(*piece.box), piece)
        return lambda rows: frames[:, rows, ...]
    top, *columns = piece.box
    height = top.stop - top.start

    def rows_of_piece(rows: slice) -> Array:
        start, stop, _ = rows.indices(height)
        return rows_of(slice(top.start + start, top.start + stop), *columns)

    return rows_of_piece
