"""Frames of an HDF5 dataset whose values lie in raw files beside it ("external storage").

Read by ourselves: the library looks for these files in the working folder only, and reads zeros from
behind the end of one that is too short.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DamagedFileError, MissingFileError
from detectorcal._files import reading
from detectorcal._typing import Shape
from detectorcal.io._names import native
from detectorcal.io._nodes import file_of
from detectorcal.io._stack import Window


class ExternalReader:
    """Frames one after the other in the pieces of raw files that a dataset names."""

    step = 1

    def __init__(self, dataset: Any, shape: Shape, name: str, file: Any) -> None:
        import h5py

        self.shape = shape
        self.dtype = native(dataset.dtype, name)
        self._stored = dataset.dtype
        self._file = file
        self._name = name
        self._pieces: list[tuple[Path, int, int]] = []
        for file_name, offset, size in dataset.external:
            path = _found(file_name, file_of(dataset), name)
            held = path.stat().st_size - offset
            wanted = max(held, 0) if size == h5py.h5s.UNLIMITED else size
            if held < wanted:
                raise DamagedFileError(
                    f"`{path}`, which holds frames of `{name}`, is truncated: {offset + wanted} bytes "
                    f"wanted, {offset + held} there."
                )
            self._pieces.append((path, offset, wanted))
        self.files = {path for path, *_ in self._pieces}
        held, wanted = sum(size for *_, size in self._pieces), math.prod(shape) * self._stored.itemsize
        if held < wanted:
            raise DamagedFileError(
                f"`{name}` is kept in other files, which hold {held} bytes of its {wanted}. Copy them again "
                "from their source."
            )

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        """Read frames start to stop, cut to the window, into `out`."""
        n_bytes = math.prod(self.shape[1:]) * self._stored.itemsize
        for target, number in zip(out, range(start, stop), strict=True):
            content = self._bytes(number * n_bytes, (number + 1) * n_bytes)
            target[...] = np.frombuffer(content, self._stored).reshape(self.shape[1:])[window]

    def _bytes(self, start: int, stop: int) -> bytes:
        content, begin = b"", 0
        for path, offset, size in self._pieces:
            low, high = max(start - begin, 0), min(stop - begin, size)
            if low < high:
                with reading(path), path.open("rb") as file:
                    file.seek(offset + low)
                    content += file.read(high - low)
            begin += size
        if len(content) != stop - start:
            raise DamagedFileError(
                f"the files that hold the frames of `{self._name}` have changed. Open it again."
            )
        return content

    def close(self) -> None:
        """Let go of the HDF5 file."""
        if self._file is not None:
            self._file.close()


def _found(file_name: str, own: Path, name: str) -> Path:
    for path in (own.parent / file_name, Path(file_name)):
        if path.is_file():
            return path.absolute()
    raise MissingFileError(
        f"`{name}` is kept in `{file_name}`, which is not there. Put it beside `{own.name}`."
    )
