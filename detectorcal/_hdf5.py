"""HDF5 files that are laid out in memory by the library, and written to the disk by ourselves.

libhdf5 (up to 2.0.0 at least) cannot close a file whose disk is full, and takes the interpreter down when
this is tried again at its end. A plain write raises, and the file can be removed.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal._files import write_at

_PAGE = 4096


class _Seekable(io.RawIOBase):
    """A place in a file that is read and written anywhere."""

    def __init__(self) -> None:
        self._at = 0
        self._size = 0

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def writable(self) -> bool:
        """Tell that this can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that this can be read and written anywhere."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Tell at which byte this is."""
        return self._at


class Image(_Seekable):
    """A file in memory that takes only the pages that were written: what h5py takes for a file.

    Examples
    --------
    >>> import h5py
    >>> from detectorcal._hdf5 import Image, create_unwritten
    >>> with h5py.File(Image(), "w") as file:
    ...     dataset = create_unwritten(file, "data", (2**20, 1000, 1000), "uint16")
    ...     dataset.id.get_offset() > 0
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self._pages: dict[int, bytearray] = {}

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._at if size is None else size
        return self._size

    def readinto(self, buffer: Any) -> int:
        """Read; what was never written is zeros."""
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        for page, inside, chosen in self._parts(len(view)):
            view[chosen] = self._pages.get(page, bytes(_PAGE))[inside]
        self._at += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write."""
        view = memoryview(buffer).cast("B")
        for page, inside, chosen in self._parts(len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[inside] = view[chosen]
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def _parts(self, n_bytes: int) -> list[tuple[int, slice, slice]]:
        """Cut a run of bytes from here: which page, which bytes of it, which of the run."""
        edges = [
            self._at,
            *range((self._at // _PAGE + 1) * _PAGE, self._at + n_bytes, _PAGE),
            self._at + n_bytes,
        ]
        return [
            (
                start // _PAGE,
                slice(start % _PAGE, start % _PAGE + stop - start),
                slice(start - self._at, stop - self._at),
            )
            for start, stop in itertools.pairwise(edges)
            if stop > start
        ]

    def write_to(self, path: Path) -> None:
        """Write all this to a file; pages that were never written become holes."""
        with path.open("wb", buffering=0) as file:
            for page, content in sorted(self._pages.items()):
                write_at(file, page * _PAGE, np.frombuffer(content, np.uint8))
            file.truncate(self._size)


class Guarded(_Seekable):
    """A file on the disk that the library is told nothing of when the disk is full.

    The library can then close it, and what went wrong is raised by ourselves.

    Parameters
    ----------
    path : Path
        The file, which is there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("r+b", buffering=0)
        self._size = path.stat().st_size
        self._error: OSError | None = None

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._at if size is None else size
        self._try(lambda: self._file.truncate(self._size))
        return self._size

    def readinto(self, buffer: Any) -> int:
        """Read; what could not be written is zeros."""
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self._file.seek(self._at)
        filled = 0
        while filled < len(view) and (n_bytes := self._file.readinto(view[filled:])):
            filled += n_bytes
        view[filled:] = bytes(len(view) - filled)
        self._at += len(view)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write, or note why it cannot be done."""
        view = memoryview(buffer).cast("B")
        self._try(lambda: write_at(self._file, self._at, np.frombuffer(view, np.uint8)))
        self._at += len(view)
        self._size = max(self._size, self._at)
        return len(view)

    def _try(self, step: Callable[[], object]) -> None:
        if self._error is None:
            try:
                step()
            except OSError as error:
                self._error = error

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise what went wrong on the disk, whatever the library made of it."""
        try:
            yield
        except Exception as error:
            if self._error is None:
                raise
            raise self._error from error
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def create_unwritten(file: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a contiguous dataset that has its place in the file; its values are to be written there."""
    import h5py

    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset(name, shape, dtype, dcpl=early)
