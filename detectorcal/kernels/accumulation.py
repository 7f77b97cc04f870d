"""From raw frames to sums: subtract dark, mask, fill, smooth, leave out, accumulate.

Split in two so that a frame can be walked in blocks that stay in cache: :meth:`Accumulation.condense`
needs whole frames, :meth:`Accumulation.sums` any rows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from detectorcal._arrays import namespace
from detectorcal._typing import Array
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.model import ResponseModel
from detectorcal.kernels.smoothing import Smoother

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
    return xp.astype(frames, dark.dtype) - dark


@dataclass(frozen=True)
class Accumulation:
    """All that decides which numbers enter the sums."""

    model: ResponseModel
    smoother: Smoother
    cutoff: float
    saturation: float | None
    reject: float | None

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
        measured = subtract_dark(frames, dark)
        masked = self._disbelieved(frames, measured)
        if masked is not None:
            measured = fill_masked(measured, masked)
        if self.reject is not None:
            medians = median_of_neighbours(measured)
            spots = find_spots(measured, medians, self.reject)
            measured = namespace(frames).where(spots, medians, measured)
            masked = spots if masked is None else masked | spots
        return Condensed(self.smoother.project(measured), masked)

    def _disbelieved(self, frames: Array, measured: Array) -> Array | None:
        """Find what is saturated or not finite; None if nothing is."""
        xp = namespace(frames)
        masked = None
        if not xp.isdtype(frames.dtype, "integral") or not xp.all(xp.isfinite(measured)):
            masked = ~xp.isfinite(measured)
        if self.saturation is not None:
            saturated = frames >= self.saturation
            masked = saturated if masked is None else masked | saturated
        return masked if masked is not None and bool(xp.any(masked)) else None

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
            The model's sums over these frames, and "frames", a number where all pixels took part.
        """
        xp = namespace(frames)
        dark_rows = dark[:, rows] if dark.ndim == frames.ndim else dark[rows]
        measured = subtract_dark(frames[:, rows], dark_rows)
        expected = self.smoother.expand(condensed.smoothed, rows)
        if condensed.masked is None and bool(xp.min(expected) > self.cutoff):
            count: Any = frames.shape[0]
        else:
            takes_part = expected > self.cutoff
            if condensed.masked is not None:
                takes_part = takes_part & ~condensed.masked[:, rows]
            nothing = xp.zeros_like(measured)
            measured = xp.where(takes_part, measured, nothing)
            expected = xp.where(takes_part, expected, nothing)
            count = xp.sum(xp.astype(takes_part, expected.dtype), axis=0)
        return {"frames": count, **self.model.accumulate(measured, expected)}
