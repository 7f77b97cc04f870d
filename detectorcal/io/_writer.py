"""The writer that every output is shown through, and what formats need to make one."""

import math
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import InputError
from detectorcal._files import writing
from detectorcal._typing import Float64, Shape


@dataclass(frozen=True)
class Plan:
    """What is to be written, checked."""

    shape: Shape
    dtype: np.dtype[Any]
    dataset: str
    layout: str | None
    angles: Float64 | None
    attributes: dict[str, Any]
    chunks: Shape | None

    @property
    def nbytes(self) -> int:
        """Bytes of all frames together."""
        return math.prod(self.shape) * self.dtype.itemsize


class Sink(Protocol):
    """What a format provides: a place for consecutive frames."""

    def put(self, start: int, frames: NDArray[Any]) -> None:
        """Write frames from frame number `start` on."""

    def close(self) -> None:
        """Finish the file."""


class RawSink:
    """Frames one after the other from a byte offset: what uncompressed TIFF, HDF5 and NPY share.

    Plain writes, not a memory map: on a full disk a map kills the process, a write raises.
    """

    def __init__(self, path: Path, offset: int, plan: Plan) -> None:
        self._offset = offset
        self._stride = plan.nbytes // plan.shape[0]
        self._file = path.open("r+b")

    def put(self, start: int, frames: NDArray[Any]) -> None:
        self._file.seek(self._offset + start * self._stride)
        self._file.write(frames.data)

    def close(self) -> None:
        self._file.close()


class FrameWriter:
    """Frames on their way to a file, written by assignment. Made by `create_frames`.

    Parameters
    ----------
    sink : Sink
        Where the frames go.
    path : str
        The name, for messages.
    shape : tuple of int
        (n_frames, height, width) or (n_frames, width).
    dtype : numpy.dtype
        Type of the values in the file.
    """

    def __init__(self, sink: Sink, path: str, shape: Shape, dtype: np.dtype[Any]) -> None:
        self._sink = sink
        self._written = np.zeros(shape[0], bool)
        self.path = path
        self.shape = shape
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"FrameWriter({self.path!r}, shape={self.shape}, dtype={self.dtype})"

    def __setitem__(self, index: Any, frames: Any) -> None:
        start, wanted = self._span(index)
        block = np.asarray(frames)
        if block.shape != wanted:
            raise InputError(
                f"The frames for [{index}] must have the shape {wanted}, but have {block.shape}."
            )
        if not np.can_cast(block.dtype, self.dtype, "same_kind"):
            raise InputError(
                f"The frames are {block.dtype}, but `{self.path}` was created for {self.dtype}, which cannot "
                f"hold them. Convert them with astype, or create the file with their type."
            )
        block = np.ascontiguousarray(block, self.dtype).reshape(-1, *self.shape[1:])
        with writing(self.path):
            self._sink.put(start, block)
        self._written[start : start + len(block)] = True

    def _span(self, index: Any) -> tuple[int, Shape]:
        """Return the first frame and the shape that must come."""
        n_frames, *frame = self.shape
        if index is Ellipsis:
            index = slice(None)
        if isinstance(index, slice):
            chosen = range(n_frames)[index]
            if chosen.step != 1 or not chosen:
                raise InputError(f"Frames are written in runs with step 1, not [{index}] of {n_frames}.")
            return chosen.start, (len(chosen), *frame)
        try:
            return range(n_frames)[operator.index(index)], tuple(frame)
        except (TypeError, IndexError) as error:
            raise InputError(f"[{index}] is no frame number or slice of the {n_frames} frames.") from error

    def check_complete(self) -> None:
        """Raise unless every frame was written."""
        if not self._written.all():
            raise InputError(
                f"Only {self._written.sum()} of {self.shape[0]} frames were written to `{self.path}` "
                f"(the first missing one is {int(np.argmin(self._written))}), so it was not kept."
            )
