"""What a path means: which file, which dataset inside it, which format; and what may be a stack."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal import _typing
from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingFileError,
)
from detectorcal._files import is_zarr_store

FORMATS = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".nxs": "hdf5",
    ".nx": "hdf5",
    ".zarr": "zarr",
    ".npy": "npy",
    ".npz": "npz",
}
"""Format by suffix."""

HDF5_SUFFIXES = tuple(suffix for suffix, kind in FORMATS.items() if kind == "hdf5")

_WITH_DATASETS = "|".join(re.escape(s) for s, kind in FORMATS.items() if kind in ("hdf5", "zarr", "npz"))
# Split behind the suffix and not at the first colon: `C:\scan.h5:/entry/data` has a drive.
_ADDRESS = re.compile(rf"(.*?(?:{_WITH_DATASETS}))(?::(.*))?", re.IGNORECASE | re.DOTALL)
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"II+\0": "a BigTIFF file",
    b"MM\0+": "a BigTIFF file",
    b"\x93NUMPY": "an .npy file",
    b"PK\x03\x04": "a zip or .npz file",
    b"\x89PNG": "a PNG file",
    b"\xff\xd8\xff": "a JPEG file",
    b"\x1f\x8b": "a gzip file",
    b"SIMPLE  =": "a FITS file",
}
_MOST_VALUES = 2**58
"""More than any file holds, and few enough for their bytes to be counted in 64 bits."""
_KINDS = {
    "c": "complex numbers",
    "O": "Python objects",
    "S": "text",
    "U": "text",
    "T": "text",
    "V": "records",
}


@dataclass(frozen=True)
class Location:
    """A file or folder, the dataset inside it ("" for none named), and its format."""

    path: Path
    inside: str
    format: str

    def __str__(self) -> str:
        return f"{self.path}:{self.inside}" if self.inside else str(self.path)


def locate(path: _typing.Path) -> Location:
    """Find what to open; raise if the suffix is unknown or nothing is there."""
    name, inside = split_address(path)
    if name.is_dir() and (is_zarr_store(name) or name.suffix.lower() == ".zarr"):
        return Location(name, inside, "zarr")
    if name.is_dir():
        return Location(name, inside, "tiff")
    found = FORMATS.get(name.suffix.lower())
    if found is None and (name.suffix or name.exists()):
        raise InputError(_unknown(name))
    if found != "zarr" and not name.exists() and not is_pattern(name):
        raise MissingFileError(f"`{name}` does not exist.")
    return Location(name, inside, found or "tiff")


def locate_output(path: _typing.Path) -> Location:
    """Find what to write, from the suffix alone."""
    name, inside = split_address(path)
    found = FORMATS.get(name.suffix.lower())
    if found is None or found == "npz":
        raise InputError(_unknown(name))
    if inside and found != "hdf5":
        raise InputError(
            f"`{path}` names a dataset; only HDF5 outputs have named ones. Leave out `:{inside}`."
        )
    return Location(name, inside, found)


def is_pattern(name: Path) -> bool:
    """Tell whether a path holds wildcards."""
    return any(letter in str(name) for letter in "*?[")


def split_address(path: _typing.Path) -> tuple[Path, str]:
    """Give the file or folder of a name, and the dataset inside it, "" where none is named."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"`path` must be text or a path, not {type(path).__name__}.")
    whole = Path(path)
    match = _ADDRESS.fullmatch(str(whole))
    if match is None or whole.exists():
        return whole, ""
    return Path(match[1]), (match[2] or "").replace("\\", "/").strip("/")


def _unknown(name: Path) -> str:
    return f"`{name}` has the suffix {name.suffix!r}; known are {', '.join(FORMATS)} (.npz for reading only)."


def kind_of(path: Path) -> str | None:
    """Say what a file is, from its first bytes; None where these are not known."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((text for magic, text in _MAGIC.items() if head.startswith(magic)), None)


def not_as_named(path: Path, wanted: str) -> DetectorcalError:
    """Give the error about a file that is not what its name says."""
    if not path.stat().st_size:
        return DamagedFileError(f"`{path}` is empty, although it is named like {wanted}.")
    kind = kind_of(path)
    if kind is None:
        return FileFormatError(
            f"`{path}` should be {wanted}, but begins like no file that is known here. Is it a whole copy, "
            "and of data?"
        )
    return FileFormatError(f"`{path}` should be {wanted}, but is {kind}. Correct its suffix.")


def is_numeric(dtype: Any) -> bool:
    """Tell whether values are real numbers or booleans."""
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def native(dtype: Any, name: object) -> np.dtype[Any]:
    """Return the dtype in this machine's byte order, or raise if it holds no real numbers."""
    if not is_numeric(dtype):
        kind = _KINDS.get(getattr(dtype, "kind", ""), "no numbers")
        raise FileFormatError(
            f"`{name}` must hold real numbers, but holds {kind} ({dtype}). Choose or convert the data."
        )
    found: np.dtype[Any] = dtype.newbyteorder("=")
    return found


def stack_shape(shape: _typing.Shape, line: bool, name: object) -> _typing.Shape:
    """Return the shape as (n_frames, height, width), or (n_frames, width) with `line`, or raise."""
    if any(size == 0 for size in shape):
        raise FileFormatError(f"`{name}` is empty: its shape is {shape}.")
    if math.prod(shape) > _MOST_VALUES:
        raise DamagedFileError(f"`{name}` is damaged: no file holds the shape {shape} that it declares.")
    wanted = 2 if line else 3
    if wanted - 1 <= len(shape) <= wanted:
        return (1,) * (wanted - len(shape)) + shape
    axes = (
        "(n_frames, width), as `line=True` asks" if line else "(n_frames, height, width) or (height, width)"
    )
    raise FileFormatError(f"`{name}` must have the shape {axes}, but has {shape}.")
