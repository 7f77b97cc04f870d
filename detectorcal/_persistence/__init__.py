"""A calibration file: a JSON header and named arrays, in HDF5, zarr or TIFF.

Whatever the format, the header is one JSON object, pure ASCII::

    {"format": "detectorcal calibration", "protocol": 1,
     "arrays": {"coef": {"shape": [2048, 2048], "dtype": "float64", "sha256": "..."}, ...},
     ... what the caller gave ...,
     "sha256": "..."}

The last entry is the checksum of all the others, those of the arrays are over their
little-endian bytes in C order. Arrays are stored uncompressed, so a file can never ask for
more memory than its own size. Nothing in a file is ever executed, imported or followed to
another file: this is safe with files of strangers. What the header and the arrays mean is
not known here.
"""

import hashlib
import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectorcal import _typing
from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingFileError,
    NewerProtocolError,
)
from detectorcal._files import atomic_file, atomic_folder

_Load: TypeAlias = Callable[[int, str, _Spec], NDArray[Any]]
"""Reads one array by its place, name and spec; raises anything if it is not there as specified."""


class _Format(NamedTuple):
    """How one kind of file is recognised, written and read.

    ``open`` yields the header as stored, None if there is none, and a loader of arrays.
    """

    name: str
    is_folder: bool
    recognises: Callable[[Path], bool]
    write: Callable[[Path, dict[str, Any], Arrays], None]
    open: Callable[[Path], AbstractContextManager[tuple[Any, _Load]]]


def write_calibration(
    path: _typing.Path,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    overwrite: bool = False,
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Write a header and arrays to one file, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.h5``, ``.hdf5``, ``.zarr``, ``.tif`` or ``.tiff``, which decides the format.
    header : mapping
        What JSON can hold: dicts with string keys, lists, strings, booleans, integers, finite
        floats, None. Tuples come back as lists. The keys "format", "protocol", "arrays" and
        "sha256" are taken.
    arrays : mapping of str to array of shape (width,) or (height, width)
        Booleans, integers or floats, all of one shape. The first one is what an image viewer
        shows. Names are words of ASCII letters, digits and ``_``, which ``/`` may group.
    overwrite : bool, default=False
        Whether an existing file may be replaced.
    descriptions : mapping of str to str, optional
        A line about some of the arrays, for those who open the file with other software.

    Raises
    ------
    InputError
        The suffix is unknown, or the header or an array cannot be stored.
    OutputExistsError
        The file exists already and `overwrite` is False.
    """
    path = Path(path)
    kind = _format_of(path)
    stored = _storable_arrays(arrays)
    whole = _whole_header(header, stored, descriptions or {})
    atomic = atomic_folder if kind.is_folder else atomic_file
    with atomic(path, overwrite=overwrite) as temporary:
        kind.write(Path(temporary), whole, stored)


def read_calibration(path: _typing.Path) -> tuple[dict[str, Any], Arrays]:
    """Read what `write_calibration` wrote, checked to the last byte.

    Parameters
    ----------
    path : str or path-like
        A calibration file, of any protocol up to `PROTOCOL`.

    Returns
    -------
    header : dict
        The header as it was given, and the file's number under "protocol".
    arrays : dict of str to array
        In the order, with the types and to the bit as they were given.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        It is something else than a calibration file.
    NewerProtocolError
        It was written by a later version of detectorcal.
    DamagedFileError
        It is truncated, altered or incomplete.
    """
    path = Path(path)
    kind = _format_of(path)
    _check_kind(path, kind)
    held = _held_bytes(path)
    try:
        with kind.open(path) as (raw, load):
            header = _checked_header(path, kind, raw)
            specs = _checked_specs(header, held)
            arrays = {name: _checked_array(i, name, spec, load) for i, (name, spec) in enumerate(specs.items())}
    except (DetectorcalError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes the libraries raise nearly anything
        reason = str(error) or type(error).__name__
        raise DamagedFileError(
            f"{path} is damaged: {reason.rstrip('.')}. Restore it from a copy, or fit and save again."
        ) from error
    return {key: value for key, value in header.items() if key not in _OWN_KEYS - {"protocol"}}, arrays


def _check_kind(path: Path, kind: _Format) -> None:
    if not path.exists():
        raise MissingFileError(f"There is no calibration file {path}.")
    if path.is_dir() != kind.is_folder:
        found, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise FileFormatError(f"{path} is {found}, but a calibration whose name ends in {path.suffix} is {wanted}.")
    if not kind.recognises(path):
        raise FileFormatError(
            f"{path} is not {kind.name}, although its name ends in {path.suffix}. "
            "Was it renamed, or its beginning overwritten? Give a file that detectorcal saved."
        )


def _held_bytes(path: Path) -> int:
    """How much is on disk; a folder must hold all of it itself."""
    if not path.is_dir():
        return path.stat().st_size
    inside = list(path.rglob("*"))
    if links := [entry for entry in inside if entry.is_symlink()]:
        raise FileFormatError(f"{links[0]} is a link, which detectorcal does not follow. Copy what it leads to in its place.")
    return sum(entry.stat().st_size for entry in inside)


_HDF5 = _Format("an HDF5 file", False, _starts_with(b"\x89HDF\r\n\x1a\n"), _write_hdf5, _open_hdf5)
_ZARR = _Format(
    "a zarr store of format 3", True, lambda path: (path / "zarr.json").is_file(), _write_zarr, _open_zarr
)
_TIFF = _Format(
    "a TIFF file", False, _starts_with(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _write_tiff, _open_tiff
)
_FORMATS = {".h5": _HDF5, ".hdf5": _HDF5, ".zarr": _ZARR, ".tif": _TIFF, ".tiff": _TIFF}
