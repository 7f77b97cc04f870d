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
from detectorcal.kernels.filling import Filling, filling_for
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
    saturated: Array | None
    """Pixels that take no part because they read the saturation, in frames that do; None where none do."""


def join(parts: Sequence[Condensed]) -> Condensed:
    """Put together what successive frames were condensed to."""
    if len(parts) == 1:
        return parts[0]
    xp = namespace(parts[0].smoothed)
    smoothed = xp.concat([part.smoothed for part in parts], axis=0)
    known = [part.masked for part in parts if part.masked is not None]
    if not known:
        return Condensed(smoothed, None, None)
    nothing = xp.zeros_like(known[0][:1, ...])

    def joined(masks: list[Array | None]) -> Array:
        whole = [
            xp.broadcast_to(nothing, (part.smoothed.shape[0], *nothing.shape[1:])) if mask is None else mask
            for part, mask in zip(parts, masks, strict=True)
        ]
        return xp.concat(whole, axis=0)

    return Condensed(smoothed, joined([p.masked for p in parts]), joined([p.saturated for p in parts]))


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


def _nothing_believed() -> np.errstate:
    """Let pixels that take no part hold inf and NaN: what is made of them is not used."""
    return np.errstate(invalid="ignore", over="ignore")


def _saturated(frames: Array, level: float) -> Array | None:
    """Find the pixels that read at least ``level``; None where none does.

    Integers are compared with integers: the standard promises no more, and it is fastest.
    """
    xp = namespace(frames)
    if not xp.isdtype(frames.dtype, "integral"):
        return frames >= level
    held = xp.iinfo(frames.dtype)
    if level > held.max:
        return None
    least = max(math.ceil(level), int(held.min))
    return frames >= least if bool(xp.max(frames) >= least) else None


@dataclass(frozen=True)
class Accumulation:
    """All that decides which numbers enter the sums."""

    model: ResponseModel
    smoothing: Smoothing
    cutoff: float
    saturation: float | None
    reject: float | None
    kept_out: np.ndarray | None = None
    """Pixels that are not to be believed in any frame, and filled before smoothing."""
    hopeless: np.ndarray | None = None
    """Those of them that take no part in the sums either."""
    filling: Filling | None = None
    """How they are filled; made for each piece."""
    outside: Array | None = None
    """Pixels of the bounding box of a region that are not of it, and take no part."""

    def pieces(self, shape: Shape) -> list[tuple[tuple[slice, ...], Accumulation]]:
        """Give where each region lies, and what is done there, as if it were a detector of its own."""
        regions = self.smoothing.regions
        if regions is None:
            box = tuple(slice(0, n) for n in shape)
            return [(box, self._piece(box, None))]
        return [(box, self._piece(box, inside)) for box, inside in regions.pieces]

    def _piece(self, box: tuple[slice, ...], inside: np.ndarray | None) -> Accumulation:
        alone = replace(self, smoothing=replace(self.smoothing, regions=None), kept_out=None, hopeless=None)
        outside = None if inside is None else ~inside
        if self.kept_out is None or self.hopeless is None:
            return replace(alone, outside=outside)
        kept_out, hopeless = self.kept_out[box], self.hopeless[box]
        return replace(alone, outside=outside, filling=filling_for(kept_out, hopeless, outside))

    def placed(self, like: Array, dtype: np.dtype) -> Accumulation:
        """Give the same for frames of the library and device of ``like``, in the precision of the work."""
        filling = None if self.filling is None else self.filling.placed(like, dtype)
        return replace(
            self, filling=filling, outside=None if self.outside is None else put_like(self.outside, like)
        )

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
        full = self._where_hoped(None if self.saturation is None else _saturated(frames, self.saturation))
        if self.reject is None and self.outside is None and (full is None or not bool(xp.any(full))):
            with _nothing_believed():
                smoothed = self._project(frames, dark)
            if smoothed is not None and bool(xp.all(xp.isfinite(smoothed))):
                return Condensed(smoothed, None, None)
        return self._condense_masked(subtract_dark(frames, dark), full, self._smoother(frames, dark))

    def _smoother(self, frames: Array, dark: Array) -> Smoother:
        """Give the smoother for measured frames, which have the library, device and dtype of the dark."""
        return smoother_for(tuple(frames.shape[1:]), self.smoothing, dark)

    def _where_hoped(self, masked: Array | None) -> Array | None:
        """Leave out of a mask the pixels that take no part in any frame."""
        if masked is not None and self.filling is not None:
            masked = masked & ~self.filling.hopeless
        return masked if masked is None or self.outside is None else masked & ~self.outside

    def _project(self, frames: Array, dark: Array) -> Array | None:
        """Condense frames in which nothing but what the filling knows is wrong; None where more is."""
        smoother = self._smoother(frames, dark)
        if self.filling is None:
            return smoother.project(lambda rows: _measured_rows(frames, dark, rows))
        measured = subtract_dark(frames, dark)
        if not self.filling.are_finite(measured):
            return None
        measured = self.filling.fill(measured)
        return smoother.project(lambda rows: measured[:, rows, ...])

    def _condense_masked(self, measured: Array, full: Array | None, smoother: Smoother) -> Condensed:
        """Fill what is not to be believed, then condense; ``full`` are the saturated pixels."""
        xp = namespace(measured)
        not_finite = self._where_hoped(~xp.isfinite(measured))
        masked = not_finite if full is None else not_finite | full
        full = xp.zeros_like(masked) if full is None else full
        out = self._taken_out(masked)
        masked, full = masked | out, full & ~out
        unknown = masked & ~out if self.outside is None else (masked & ~out) | self.outside
        filled = self._filled(xp.where(out, xp.zeros_like(measured), measured), unknown)
        if self.reject is not None:
            medians = median_of_neighbours(filled)
            spots = find_spots(self._read(measured, filled, masked), medians, self.reject)
            filled = xp.where(spots, medians, filled)
            masked = masked | spots
        return Condensed(smoother.project(lambda rows: filled[:, rows, ...]), masked, full)

    def _read(self, measured: Array, filled: Array, masked: Array) -> Array:
        """Give filled frames with what those pixels read that were filled, but have sums of their own."""
        if self.filling is None:
            return filled
        hoped = self.filling.kept_out & ~self.filling.hopeless & ~masked
        return namespace(filled).where(hoped, measured, filled)

    def _taken_out(self, masked: Array) -> Array:
        """Find the frames that take no part, as an array that a mask of all can be joined with.

        They are those in which more than half of the pixels that usually are to be believed are not: from
        what is left no expected values can be made.
        """
        xp = namespace(masked)
        axes = tuple(range(1, masked.ndim))
        believed = xp.ones_like(masked[:1, ...])
        if self.filling is not None:
            believed = believed & ~self.filling.kept_out
        if self.outside is not None:
            believed = believed & ~self.outside
        count = xp.sum(xp.astype(masked & believed, xp.int64), axis=axes, keepdims=True)
        return 2 * count > xp.sum(xp.astype(believed, xp.int64), axis=axes, keepdims=True)

    def _filled(self, measured: Array, masked: Array) -> Array:
        """Fill what is known not to be believed in any frame, or with it what is not in these."""
        if self.filling is None:
            return fill_masked(measured, masked) if bool(namespace(masked).any(masked)) else measured
        if bool(namespace(masked).any(masked & ~self.filling.kept_out)):
            return fill_masked(measured, masked | self.filling.kept_out)
        return self.filling.fill(measured)

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
            The model's sums over these frames, "expected", and "frames" and "saturated", which are numbers
            where all pixels took part.
        """
        with _nothing_believed():
            return self._sums(frames, dark, condensed, rows)

    def _sums(self, frames: Array, dark: Array, condensed: Condensed, rows: slice) -> dict[str, Array]:
        measured, expected, count = self._part_taken(frames, dark, condensed, rows)
        full: Any = 0
        if condensed.saturated is not None:
            full = sum_of_products(
                namespace(expected).astype(condensed.saturated[:, rows, ...], expected.dtype)
            )
        common = {"frames": count, "saturated": full, "expected": sum_of_products(expected)}
        return common | self.model.accumulate(expected, measured)

    def sampled_sums(self, frames: Array, dark: Array, condensed: Condensed, rows: slice) -> dict[str, Array]:
        """Sum what the model wants of sampled rows; arguments as of :meth:`sums`."""
        with _nothing_believed():
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
