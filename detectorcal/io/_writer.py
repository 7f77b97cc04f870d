"""The writer that every output is shown through, and what formats need to make one."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import InputError
from detectorcal._files import sync_data, write_at, writing
from detectorcal._typing import Float64, Shape
from detectorcal.io._stack import FrameStack

CHUNK_BYTES = 2**20
"""Small frames share a chunk up to this size, so that a store does not become a myriad of files."""


@dataclass(frozen=True)
class Plan:
    """What is to be written, checked."""

    shape: Shape
    dtype: np.dtype[Any]
    dataset: str = "data"
    layout: str | None = None
    angles: Float64 | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    chunks: Shape | None = None
    compression: str | None = None
    like: FrameStack | None = None
    """The scan whose file holds what is copied beside the frames."""

    @property
    def chunk(self) -> Shape:
        """Shape of the chunks, where there are any: one frame, or a few small ones, unless told."""
        per_chunk = max(1, min(self.shape[0], CHUNK_BYTES // (self.nbytes // self.shape[0])))
        return self.chunks or (per_chunk, *self.shape[1:])

    @property
    def is_plain(self) -> bool:
        """Tell whether neither chunks nor compression are asked for."""
        return self.chunks is None and self.compression is None

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


class LastingSink(Sink, Protocol):
    """A sink whose frames can be made to last, so that they survive a stop.

    It pickles: the copy, perhaps in another process, opens the same file when it first writes.
    """

    step: int
    """Frames that come to last together: those of a chunk."""

    def sync(self, start: int, stop: int) -> None:
        """Have frames start to stop, which were written, on the disk."""

    def clear(self, start: int, stop: int) -> None:
        """Remove what a stop may have left half written of these frames."""


class RawSink:
    """Frames one after the other from a byte offset: what uncompressed TIFF, HDF5 and NPY share.

    Plain writes, not a memory map: on a full disk a map kills the process, a write raises.
    """

    step = 1

    def __init__(self, path: Path, offset: int, plan: Plan) -> None:
        self._path = path
        self._offset = offset
        self._stride = plan.nbytes // plan.shape[0]
        self.end = offset + plan.nbytes
        self._file: FileIO | None = None

    def put(self, start: int, frames: NDArray[Any]) -> None:
        if self._file is None:
            # unbuffered: after a full disk nothing is left that a later flush would fail on
            self._file = self._path.open("r+b", buffering=0)
        write_at(self._file, self._offset + start * self._stride, frames)

    def sync(self, start: int, stop: int) -> None:
        if self._file is not None:
            sync_data(self._file.fileno())

    def clear(self, start: int, stop: int) -> None:
        """Do nothing: what is half written is written over."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}


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
    written : array of shape (n_frames,), bool, optional
        Frames that are in the file already; none by default.

    Attributes
    ----------
    path, shape, dtype
        As given.
    progress : callable
        Is told the number of frames whenever some were written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import create_frames
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "frames.npy"
    >>> with create_frames(path, (3, 4, 5), "float32") as writer:
    ...     writer.progress = print
    ...     writer[0] = np.zeros((4, 5), "float32")
    ...     writer[1:] = np.ones((2, 4, 5), "float32")
    1
    2
    """

    def __init__(
        self,
        sink: Sink,
        path: str,
        shape: Shape,
        dtype: np.dtype[Any],
        written: NDArray[np.bool_] | None = None,
    ) -> None:
        self._sink = sink
        self._written = np.zeros(shape[0], bool) if written is None else written.copy()
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.progress: Callable[[int], object] = lambda n_frames: None

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
        self.progress(len(block))

    @property
    def n_written(self) -> int:
        """Number of frames that are in the file."""
        return int(self._written.sum())

    @property
    def step(self) -> int:
        """Number of frames that are best written together: those of a chunk."""
        return getattr(self._sink, "step", 1)

    def missing(self) -> list[slice]:
        """Give the runs of frames that are still to be written.

        Returns
        -------
        list of slice
        """
        return runs(~self._written)

    def part(self, run: slice) -> "WriterPart":
        """Give the place of a run of frames, numbered from 0.

        Parameters
        ----------
        run : slice
            Of the frames, with step 1.

        Returns
        -------
        WriterPart
            Takes frames by assignment as this does.
        """
        return WriterPart(self, run)

    def carrier(self) -> Any:
        """Give what writes frames from another process, or None where only this one can.

        It pickles, is called with the number of the first frame and the frames, and returns when they are
        on the disk; then `carried` must be told.

        Returns
        -------
        callable or None
        """
        return self._sink.carrier() if hasattr(self._sink, "carrier") else None

    def carried(self, start: int, stop: int) -> None:
        """Take note of frames that another process has written with the carrier.

        Parameters
        ----------
        start, stop : int
            The first of the frames, and the one after the last.
        """
        with writing(self.path):
            self._sink.carried(start, stop)  # type: ignore[attr-defined]
        self._written[start:stop] = True
        self.progress(stop - start)

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
                f"(the first missing one is {int(np.argmin(self._written))})."
            )


class WriterPart:
    """A run of a writer's frames, numbered from 0: what a correction of those frames is written to."""

    def __init__(self, writer: FrameWriter, run: slice) -> None:
        self.writer = writer
        self.start = run.start
        self.shape: Shape = (run.stop - run.start, *writer.shape[1:])
        self.dtype = writer.dtype

    def __setitem__(self, index: slice, frames: Any) -> None:
        chosen = range(self.shape[0])[index]
        self.writer[self.start + chosen.start : self.start + chosen.stop] = frames

    def carrier(self) -> Any:
        """Give the writer's carrier, for frames that are numbered as here."""
        carrier = self.writer.carrier()
        return None if carrier is None else partial(_carry_from, self.start, carrier)

    def carried(self, start: int, stop: int) -> None:
        """Tell the writer what its carrier has written."""
        self.writer.carried(self.start + start, self.start + stop)


def _carry_from(first: int, carrier: Callable[[int, Any], None], start: int, frames: Any) -> None:
    carrier(first + start, frames)


def runs(chosen: NDArray[np.bool_]) -> list[slice]:
    """Give the runs of true values."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
