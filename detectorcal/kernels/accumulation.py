"""From raw frames to sums: subtract dark, mask, fill, smooth, leave out, accumulate.

Split in two so that a frame can be walked in blocks that stay in cache: :meth:`Accumulation.condense`
needs whole frames, :meth:`Accumulation.sums` any rows of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from detectorcal._arrays import namespace, put_like, sum_of_products
from detectorcal._typing import Array, Shape
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.model import ResponseModel
from detectorcal.kernels.smoothing import Smoother, Smoothing, smoother_for

__all__ = ["Accumulation", "Condensed", "join", "subtract_dark"]


class Condensed(NamedTuple):
    """What whole frames must tell before their rows can be summed."""

    smoothed: Any
    """The smoother's own condensed form."""
    masked: Array | None
    """Pixels that take no part; None if there are none."""


def join(parts: Sequence[Condensed]) -> Condensed:
    """Put together what successive frames were condensed to."""
    if len(parts) == 1:
        return parts[0]
    xp = namespace(parts[0].smoothed)
    smoothed = xp.concat([part.smoothed for part in parts], axis=0)
    known = [part.masked for part in parts if part.masked is not None]
    if not known:
        return Condensed(smoothed, None)
    nothing = xp.zeros_like(known[0][:1, ...])
    masks = [
        xp.broadcast_to(nothing, (part.smoothed.shape[0], *nothing.shape[1:]))
        if part.masked is None
        else part.masked
        for part in parts
    ]
    return Condensed(smoothed, xp.concat(masks, axis=0))


def subtract_dark(frames: Array, dark: Array) -> Array:
    """Turn raw frames into measured ones.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape)
        Raw frames, DN, of any real dtype.
    dark : array of shape (*detector_shape) or (n_frames, *detector_shape), floating
        Dark, DN, in the dtype of the result.

    Returns
    -------
    array in the dtype of ``dark``
        The frames become floating *before* the subtraction: unsigned integers would wrap round.
    """
    xp = namespace(frames, dark)
    measured = xp.astype(frames, dark.dtype)
    measured -= dark
    return measured


def _measured_rows(frames: Array, dark: Array, rows: slice) -> Array:
    dark_rows = dark[:, rows, ...] if dark.ndim == frames.ndim else dark[rows, ...]
    return subtract_dark(frames[:, rows, ...], dark_rows)


def _saturated(frames: Array, level: float) -> Array | None:
    """Find the pixels that read at least ``level``; None where the dtype cannot hold it.

    Integers are compared with integers: the standard promises no more, and it is fastest.
    """
    xp = namespace(frames)
    if not xp.isdtype(frames.dtype, "integral"):
        return frames >= level
    held = xp.iinfo(frames.dtype)
    return None if level > held.max else frames >= max(math.ceil(level), int(held.min))


@dataclass(frozen=True)
class Accumulation:
    """All that decides which numbers enter the sums."""

    model: ResponseModel
    smoothing: Smoothing
    cutoff: float
    saturation: float | None
    reject: float | None
    outside: np.ndarray | None = None
    """Pixels of the bounding box of a region that are not of it, and take no part."""

    def pieces(self, shape: Shape) -> list[tuple[tuple[slice, ...], Accumulation]]:
        """Give where each region lies, and what is done there, as if it were a detector of its own."""
        if self.smoothing.regions is None:
            return [(tuple(slice(0, n) for n in shape), self)]
        alone = replace(self, smoothing=replace(self.smoothing, regions=None))
        return [
            (box, alone if inside is None else replace(alone, outside=~inside))
            for box, inside in self.smoothing.regions.pieces
        ]

    def condense(self, frames: Array, dark: Array) -> Condensed:
        """Mask, fill and condense whole frames.

        Parameters
        ----------
        frames : array of shape (n_frames, *detector_shape)
            Raw frames, DN.
        dark : array of shape (*detector_shape) or that of ``frames``
            Dark, DN.

        Returns
        -------
        Condensed
        """
        xp = namespace(frames)
        smoother = self._smoother(frames, dark)
        masked = None if self.saturation is None else _saturated(frames, self.saturation)
        if self.outside is not None:
            outside = put_like(self.outside[None], frames)
            masked = outside if masked is None else masked | outside
        if self.reject is None and (masked is None or not bool(xp.any(masked))):
            with np.errstate(invalid="ignore", over="ignore"):  # where inf is in the frames
                smoothed = smoother.project(lambda rows: _measured_rows(frames, dark, rows))
            if bool(xp.all(xp.isfinite(smoothed))):
                return Condensed(smoothed, None)
        return self._condense_masked(subtract_dark(frames, dark), masked, smoother)

    def _smoother(self, frames: Array, dark: Array) -> Smoother:
        """Give the smoother for measured frames, which have the library, device and dtype of the dark."""
        return smoother_for(tuple(frames.shape[1:]), self.smoothing, dark)

    def _condense_masked(self, measured: Array, masked: Array | None, smoother: Smoother) -> Condensed:
        """Fill what is not to be believed, then condense."""
        xp = namespace(measured)
        not_finite = ~xp.isfinite(measured)
        masked = not_finite if masked is None else masked | not_finite
        if bool(xp.any(masked)):
            measured = fill_masked(measured, masked)
        if self.reject is not None:
            medians = median_of_neighbours(measured)
            spots = find_spots(measured, medians, self.reject)
            measured = xp.where(spots, medians, measured)
            masked = masked | spots
        return Condensed(smoother.project(lambda rows: measured[:, rows, ...]), masked)

    def sums(self, frames: Array, dark: Array, condensed: Condensed, rows: slice) -> dict[str, Array]:
        """Sum some rows of the same frames.

        Parameters
        ----------
        frames, dark : arrays
            As given to :meth:`condense`.
        condensed : Condensed
            What it returned.
        rows : slice
            Rows of an area detector, pixels of a line detector.

        Returns
        -------
        dict of str to array of shape (n_rows, ...)
            The model's sums over these frames, "expected", and "frames", a number where all pixels took
            part.
        """
        measured, expected, count = self._part_taken(frames, dark, condensed, rows)
        summed = sum_of_products(expected)
        return {"frames": count, "expected": summed, **self.model.accumulate(expected, measured)}

    def sampled_sums(self, frames: Array, dark: Array, condensed: Condensed, rows: slice) -> dict[str, Array]:
        """Sum what the model wants of sampled rows; arguments as of :meth:`sums`."""
        measured, expected, _ = self._part_taken(frames, dark, condensed, rows)
        return self.model.accumulate_sampled(expected, measured)

    def _part_taken(
        self, frames: Array, dark: Array, condensed: Condensed, rows: slice
    ) -> tuple[Array, Array, Any]:
        """Give measured and expected values, 0 where a pixel takes no part, and how often each takes part."""
        xp = namespace(frames)
        measured = _measured_rows(frames, dark, rows)
        expected = self._smoother(frames, dark).expand(condensed.smoothed, rows)
        if condensed.masked is None and bool(xp.min(expected) > self.cutoff):
            return measured, expected, frames.shape[0]
        takes_part = expected > self.cutoff
        if condensed.masked is not None:
            takes_part = takes_part & ~condensed.masked[:, rows, ...]
        nothing = xp.zeros_like(measured)
        count = xp.sum(xp.astype(takes_part, expected.dtype), axis=0)
        return xp.where(takes_part, measured, nothing), xp.where(takes_part, expected, nothing), count
