"""The lazy stack that every reader is shown through."""

import hashlib
import itertools
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DamagedFileError, InputError, MissingFileError, TooLargeError
from detectorcal._files import reading
from detectorcal._typing import Float64, Shape
from detectorcal.io._indexing import choose, cut, expand
from detectorcal.io._names import Location

Window = tuple[slice, ...]
"""One slice with a positive step per detector axis."""


class Reader(Protocol):
    """What a format provides: a shape, a native dtype, and consecutive frames read into an array."""

    shape: Shape
    dtype: np.dtype[Any]

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        """Read frames start to stop, cut to the window, into `out`, which is not empty."""

    def close(self) -> None:
        """Let go of the file."""


class ArrayReader:
    """Frames of an array in memory or in a memory map."""

    def __init__(self, array: NDArray[Any], shape: Shape) -> None:
        self._array = array.reshape(shape)
        self.shape = shape
        self.dtype = array.dtype.newbyteorder("=")

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        out[...] = self._array[(slice(start, stop), *window)]

    def close(self) -> None:
        self._array = self._array[:0]


@dataclass(frozen=True)
class Source:
    """Where a stack can be opened again, by another process too."""

    opener: Callable[[Location, bool], "FrameStack"]
    location: Location
    line: bool
    part: str = ""
    """"flats" or "darks" for those of a scan."""


class _LateReader:
    """Frames of a file that is opened when the first of them is read: what a pickled stack becomes.

    So a Dask scheduler, which unpickles all it passes on, needs no access to the file.
    """

    def __init__(self, source: Source, shape: Shape, dtype: np.dtype[Any], step: int) -> None:
        self.shape = shape
        self.dtype = dtype
        self.step = step
        self._source = source
        self._whole: FrameStack | None = None
        self._lock = threading.Lock()

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        with self._lock:
            if self._whole is None:
                self._whole = self._open()
            reader = self._chosen(self._whole)
        reader.fill(out, start, stop, window)

    def _open(self) -> "FrameStack":
        source = self._source
        try:
            with reading(source.location.path):
                whole = source.opener(source.location, source.line)
        except MissingFileError as error:
            raise MissingFileError(
                f"{error} It is read on {socket.gethostname()}, but was opened elsewhere: it must be on "
                "storage that all machines share, under the same path."
            ) from error
        reader = self._chosen(whole)
        if reader is None or (reader.shape, reader.dtype) != (self.shape, self.dtype):
            whole.close()
            raise DamagedFileError(f"`{source.location}` has changed since it was opened. Open it again.")
        return whole

    def _chosen(self, whole: "FrameStack") -> Any:
        stack = getattr(whole, self._source.part) if self._source.part else whole
        return None if stack is None else stack._reader

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None


class FrameStack:
    """Frames in a file, read when they are indexed.

    Made by `open_frames`. Indexing takes an integer, a slice, or an array of integers or booleans for
    the frames, and integers or slices for the detector axes; it returns NumPy arrays in native
    byte order.

    Parameters
    ----------
    reader : Reader
        Where the frames come from.
    path : str
        The name, for messages.
    frames : array of int or range, optional
        Which of the reader's frames make up the stack; all of them by default.
    pixels : tuple of range, optional
        Which of the reader's pixels, a range with a positive step per detector axis; all by default.
    layout : {"nxtomo", "dxchange"}, optional
        The convention that the file follows.
    flats, darks : FrameStack, optional
        The file's own frames without sample and without beam.
    angles : array of shape (n_frames,), float64, optional
        Rotation angles in degrees.
    source : Source, optional
        Where the stack can be opened again; with it the stack can be pickled.

    Attributes
    ----------
    shape : tuple of int
        (n_frames, height, width), or (n_frames, width) for a line detector.
    dtype : numpy.dtype
        Type of the values, in native byte order.
    path, layout, flats, darks, angles, source
        As given.
    frames : array of int or range
        Numbers in the dataset of the file: of a scan's flats those tell when in the scan they were taken.
    pixels : tuple of range
        Of the detector in the file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import open_frames
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sweep.npy"
    >>> np.save(path, np.arange(24, dtype=np.uint16).reshape(4, 2, 3))
    >>> with open_frames(path) as sweep:
    ...     sweep.shape, sweep[[0, 3], 0]
    ((4, 2, 3), array([[ 0,  1,  2], [18, 19, 20]], dtype=uint16))
    """

    def __init__(
        self,
        reader: Reader,
        path: str,
        *,
        frames: NDArray[np.intp] | range | None = None,
        pixels: tuple[range, ...] | None = None,
        layout: str | None = None,
        flats: "FrameStack | None" = None,
        darks: "FrameStack | None" = None,
        angles: Float64 | None = None,
        source: Source | None = None,
    ) -> None:
        self._reader: Reader | None = reader
        # not an array of all numbers: a damaged file may declare more frames than there is memory for those
        self.frames: range | NDArray[np.intp] = range(reader.shape[0]) if frames is None else frames
        self.pixels = tuple(map(range, reader.shape[1:])) if pixels is None else pixels
        self.shape: Shape = (len(self.frames), *map(len, self.pixels))
        self.dtype: np.dtype[Any] = reader.dtype
        self.path = path
        self._step = 1
        self.layout = layout
        self.flats = flats
        self.darks = darks
        self.angles = angles
        self.source = source

    @property
    def step(self) -> int:
        """Number of frames that are best read together: those of a chunk of the file."""
        return math.lcm(self._step, getattr(self._reader, "step", 1))

    @property
    def files(self) -> set[Path]:
        """The files that are read: of HDF5 also those that the one that was opened links to."""
        named = set() if self.source is None else {self.source.location.path}
        return {path.resolve() for path in named | getattr(self._reader, "files", set())}

    @property
    def selection(self) -> dict[str, Any]:
        """Which of the file's frames and pixels these are, as JSON holds it; empty if they are all."""
        if self._reader is None:
            raise InputError(_closed(self.path))
        n_frames, *frame = self._reader.shape
        told: dict[str, Any] = {}
        if not isinstance(self.frames, range) or self.frames != range(n_frames):
            told["frames"] = hashlib.sha256(np.asarray(self.frames, "<i8").tobytes()).hexdigest()
        if self.pixels != tuple(map(range, frame)):
            told["pixels"] = [[axis.start, axis.stop, axis.step] for axis in self.pixels]
        return told

    def part(self, run: slice | NDArray[Any], *, step: int = 1) -> "FrameStack":
        """Give some of the frames as a stack; it is closed with this one.

        Parameters
        ----------
        run : slice, array of int or array of bool
            Of the frames, as an index takes them.
        step : int, default: 1
            Frames that whoever takes them in would have together; the `step` of the part is a multiple.

        Returns
        -------
        FrameStack
            Without flats and darks. Nothing is read before it is indexed.
        """
        frames = self.frames[run] if isinstance(run, slice) else choose(self.frames, run)
        if not len(frames):
            raise InputError(f"`{self.path}` has {len(self)} frames, of which {run} chooses none.")
        angles = None if self.angles is None else self.angles[run]
        part = self._like(frames, self.pixels, angles=angles)
        part._step = step
        return part

    def window(self, *pixels: slice) -> "FrameStack":
        """Give a part of every frame as a stack; it is closed with this one.

        Parameters
        ----------
        *pixels : slice
            One per detector axis, with a positive step: rows and columns, or those of a line detector.

        Returns
        -------
        FrameStack
            With the same part of the flats and darks. Indexing reads no more than the part.

        Raises
        ------
        InputError
            If a slice is missing, or chooses no pixel.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import numpy as np
        >>> from detectorcal.io import open_frames
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "sweep.npy"
        >>> np.save(path, np.arange(24, dtype=np.uint16).reshape(4, 2, 3))
        >>> with open_frames(path) as sweep:
        ...     sweep.window(slice(1, 2), slice(None, None, 2))[:2]
        array([[[ 3,  5]],
               [[ 9, 11]]], dtype=uint16)
        """
        if len(pixels) != self.ndim - 1 or not all(isinstance(part, slice) for part in pixels):
            raise InputError(f"a window of frames of shape {self.shape[1:]} is {self.ndim - 1} slices.")
        chosen = tuple(old[part] for old, part in zip(self.pixels, pixels, strict=True))
        if not all(part and part.step > 0 for part in chosen):
            raise InputError(
                f"the window [{', '.join(map(_said, pixels))}] holds no pixel of `{self.path}`, "
                f"whose frames have the shape {self.shape[1:]}."
            )
        flats = None if self.flats is None else self.flats.window(*pixels)
        darks = None if self.darks is None else self.darks.window(*pixels)
        return self._like(self.frames, chosen, flats=flats, darks=darks, angles=self.angles)

    def _like(
        self, frames: range | NDArray[np.intp], pixels: tuple[range, ...], **parts: Any
    ) -> "FrameStack":
        if self._reader is None:
            raise InputError(_closed(self.path))
        return FrameStack(
            self._reader, self.path, frames=frames, pixels=pixels, layout=self.layout, source=self.source,
            **parts,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reader is None:
            raise InputError(_closed(self.path))
        if self.source is None:
            raise InputError(
                f"`{self.path}` cannot be sent to another process: only stacks that `open_frames` opened can."
            )
        reader = (self.source, self._reader.shape, self.dtype, self.step)
        chosen = {
            "frames": self.frames, "pixels": self.pixels, "layout": self.layout, "flats": self.flats,
            "darks": self.darks, "angles": self.angles, "source": self.source,
        }  # fmt: skip
        return _reopened, (reader, self.path, chosen)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        layout = f", layout={self.layout!r}" if self.layout else ""
        return f"FrameStack({self.path!r}, shape={self.shape}, dtype={self.dtype}{layout})"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("A FrameStack is read from a file and cannot become an array without a copy.")
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if self._reader is None:
            raise InputError(_closed(self.path))
        first, *rest = expand(index, self.ndim)
        cuts = [cut(key, axis) for key, axis in zip(rest, self.pixels, strict=True)]
        try:
            chosen = choose(self.frames, first)
            out = self._read(np.atleast_1d(chosen), tuple(cut[0] for cut in cuts))
        except MemoryError as error:
            raise TooLargeError(
                f"what was asked of `{self.path}`, frames of shape {self.shape[1:]} and {self.dtype}, does "
                f"not fit into memory ({error}). Read less at once; if it cannot be so large, it is damaged."
            ) from error
        result: NDArray[Any] = out[(slice(None) if chosen.ndim else 0, *(cut[1] for cut in cuts))]
        return result

    def _read(self, rows: NDArray[np.intp], window: Window) -> NDArray[Any]:
        if rows.ndim > 1:
            raise IndexError("Frames are chosen by an integer, a slice or a 1-D array.")
        sizes = [len(range(part.start, part.stop, part.step)) for part in window]
        out = np.empty((len(rows), *sizes), self.dtype)
        if out.size:
            assert self._reader is not None
            _fill_runs(self._reader, out, rows, window)
        return out

    def close(self) -> None:
        """Close the file; the flats and darks of the same file close with it."""
        for part in (self.flats, self.darks):
            if part is not None:
                part.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reopened(
    reader: tuple[Source, Shape, np.dtype[Any], int], path: str, chosen: dict[str, Any]
) -> FrameStack:
    return FrameStack(_LateReader(*reader), path, **chosen)


def _closed(path: str) -> str:
    return f"`{path}` is closed. Open it again to read from it."


def _said(part: slice) -> str:
    step = "" if part.step is None else f":{part.step}"
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}{step}"


def _fill_runs(reader: Reader, out: NDArray[Any], rows: NDArray[np.intp], window: Window) -> None:
    """Read each run of consecutive frames with one slice."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    for begin, end in itertools.pairwise(edges):
        start = int(rows[begin])
        reader.fill(out[begin:end], start, start + end - begin, window)
