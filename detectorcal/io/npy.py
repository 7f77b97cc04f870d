"""NumPy's own files: `.npy` memory-mapped, `.npz` read when first needed."""

import math
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DamagedFileError, FileFormatError
from detectorcal._typing import Shape
from detectorcal.io._names import Location, native, not_as_named, stack_shape
from detectorcal.io._stack import ArrayReader, FrameStack, Window
from detectorcal.io._writer import Plan, RawSink, Sink

_Header = tuple[Shape, bool, np.dtype[Any]]


def open_npy(location: Location, line: bool) -> FrameStack:
    """Open an `.npy` file as a memory map; pickled objects are never loaded."""
    path = location.path
    with path.open("rb") as file:
        _check_kind(path, b"\x93NUMPY", "an .npy file")
        stored, fortran, dtype = _header(file, location)
        offset = file.tell()
    native(dtype, location)
    shape = stack_shape(stored, line, location)
    needed = offset + math.prod(stored) * dtype.itemsize
    if path.stat().st_size < needed:
        raise DamagedFileError(f"`{path}` is truncated: {needed} bytes wanted, {path.stat().st_size} there.")
    array = np.memmap(path, dtype, "r", offset, stored, "F" if fortran else "C")
    return FrameStack(
        ArrayReader(array if len(stored) == len(shape) else array[np.newaxis], shape), str(path)
    )


def open_npz(location: Location, line: bool) -> FrameStack:
    """Open one array of an `.npz` file."""
    path = location.path
    _check_kind(path, b"PK", "an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            member = _choose(location, members)
            with archive.open(member) as file:
                stored, _, dtype = _header(file, location)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DamagedFileError(f"`{path}` is truncated or corrupted ({error}).") from error
    shape = stack_shape(stored, line, location)
    reader = _NpzReader(path, member, shape, native(dtype, location))
    return FrameStack(reader, str(Location(path, member.removesuffix(".npy"), "npz")))


def create(path: Path, plan: Plan) -> Sink:
    """Write the header of an `.npy` file, frames to follow."""
    header = {
        "descr": np.lib.format.dtype_to_descr(plan.dtype),
        "fortran_order": False,
        "shape": plan.shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
    return RawSink(path, offset, plan)


class _NpzReader:
    """An array of an archive, which cannot be read in parts: it is read whole, once."""

    def __init__(self, path: Path, member: str, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._path = path
        self._member = member
        self._array: NDArray[Any] | None = None
        self._lock = threading.Lock()

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        with self._lock:
            if self._array is None:
                self._array = self._load().reshape(self.shape)
            array = self._array
        out[...] = array[(slice(start, stop), *window)]

    def _load(self) -> NDArray[Any]:
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except (zipfile.BadZipFile, EOFError, zlib.error, ValueError) as error:
            raise DamagedFileError(f"`{self._path}` is truncated or corrupted ({error}).") from error
        return array

    def close(self) -> None:
        self._array = None


def _check_kind(path: Path, magic: bytes, wanted: str) -> None:
    with path.open("rb") as file:
        head = file.read(len(magic))
    if head != magic:
        raise not_as_named(path, wanted)


def _header(file: Any, location: Location) -> _Header:
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    source: BinaryIO = file
    try:
        version = np.lib.format.read_magic(source)
        if version in read_header:
            found: _Header = read_header[version](source)
            return found
    except ValueError as error:
        raise DamagedFileError(f"`{location}` has a damaged header ({error}).") from error
    raise FileFormatError(f"`{location}` holds records, not frames of real numbers.")


def _choose(location: Location, members: list[str]) -> str:
    keys = [name.removesuffix(".npy") for name in members]
    if not location.inside and len(keys) == 1:
        return members[0]
    if location.inside in keys:
        return members[keys.index(location.inside)]
    problem = f"has no array `{location.inside}`" if location.inside else "does not hold exactly one array"
    raise FileFormatError(
        f"`{location.path}` {problem}; it holds {', '.join(keys) or 'none'}. "
        f"Name one, as in `{location.path.name}:{keys[0] if keys else 'key'}`."
    )
