"""A detector's regions on their way through a stack, each as if it were a detector of its own.

What is done when is :mod:`detectorcal._execution`'s affair. Without regions there is one piece: the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectorcal._arrays import put_like, to_host
from detectorcal._streaming import RUN_LENGTH, Threads
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.accumulation import Accumulation, Condensed, join
from detectorcal.kernels.model import ROW_STEP, ResponseModel, Sums, add_rows, empty_sums, sum_names

__all__ = ["Batch", "Piece", "pieces_of", "put_together"]


@dataclass(frozen=True)
class Piece:
    """A region: where it lies, and what is kept of it from batch to batch."""

    box: tuple[slice, ...]
    accumulation: Accumulation
    dark: Array | None
    """Its part of the dark; None where each frame has its own."""
    totals: dict[str, Array]

    def batch(self, frames: Array, darks: Array | None) -> Batch:
        """Give its part of the detector's frames."""
        dark = self.dark if darks is None else darks[:, *self.box]
        return Batch(self, frames[:, *self.box], dark)

    @property
    def first_sampled(self) -> int:
        """Its first row that is sampled: such rows are counted from the detector's first."""
        return -int(self.box[0].start) % ROW_STEP


def pieces_of(
    accumulation: Accumulation, shape: Shape, dark: np.ndarray | None, dtype: np.dtype, like: Array
) -> list[Piece]:
    """Cut a detector into its regions.

    Parameters
    ----------
    accumulation : Accumulation
        What is summed, and in which regions.
    shape : tuple of int
        Shape of the detector.
    dark : array of shape ``shape``, or None
        Dark, DN, in the precision of the work.
    dtype : dtype
        That precision.
    like : array
        An array of the library and device that the work is done in.
    """
    pieces = []
    for box, alone in accumulation.pieces(shape):
        part = None if dark is None else put_like(np.ascontiguousarray(dark[box]), like)
        there = tuple(side.stop - side.start for side in box)
        placed = alone.placed(like, dtype)
        pieces.append(Piece(box, placed, part, empty_sums(accumulation.model, there, like)))
    return pieces


def put_together(pieces: list[Piece], model: ResponseModel, shape: Shape, threads: Threads) -> Sums:
    """Give the totals of a whole detector, and take them from its pieces; where no region is they are 0."""

    def put(name: str) -> Float64:
        parts = [to_host(piece.totals.pop(name)) for piece in pieces]
        if len(parts) == 1 and parts[0].shape == shape:
            return parts[0]
        total = np.zeros(shape)
        for piece, part in zip(pieces, parts, strict=True):
            outside = piece.accumulation.outside
            np.copyto(total[piece.box], part, where=True if outside is None else ~to_host(outside))
        return total

    names = sum_names(model)
    return dict(zip(names, threads.map(put, names), strict=True))


class Batch:
    """Some frames of a region: each part of them is condensed first, then blocks of rows are summed."""

    def __init__(self, piece: Piece, frames: Array, dark: Any) -> None:
        self.piece = piece
        self.frames = frames
        self._dark = dark
        self._condensed: list[Condensed] = []
        self._runs: list[tuple[slice, Condensed]] = []

    def condense(self, part: slice) -> Condensed:
        """Condense some whole frames."""
        return self.piece.accumulation.condense(self.frames[part, ...], self._darks(part))

    def take(self, condensed: Condensed, part: slice) -> None:
        """Take what successive parts were condensed to; those of a run are put together."""
        self._condensed.append(condensed)
        if part.stop % RUN_LENGTH == 0 or part.stop == self.frames.shape[0]:
            start = self._runs[-1][0].stop if self._runs else 0
            self._runs.append((slice(start, part.stop), join(self._condensed)))
            self._condensed = []

    def sum_rows(self, rows: slice) -> None:
        """Add some rows of all frames to the totals."""
        accumulation, totals = self.piece.accumulation, self.piece.totals
        counts: dict[str, Any] = {"frames": 0, "saturated": 0}  # numbers as long as all pixels take part
        for run, whole in self._runs:
            sums = accumulation.sums(self.frames[run, ...], self._darks(run), whole, rows)
            counts = {name: count + sums.pop(name) for name, count in counts.items()}
            add_rows(totals, sums, rows)
        add_rows(totals, counts, rows)

    def sum_sampled(self, rows: slice) -> None:
        """Add what is summed in some rows only."""
        for run, whole in self._runs:
            sums = self.piece.accumulation.sampled_sums(self.frames[run, ...], self._darks(run), whole, rows)
            add_rows(self.piece.totals, sums, rows)

    def _darks(self, part: slice) -> Any:
        return self._dark[part, ...] if self._dark.ndim == self.frames.ndim else self._dark
