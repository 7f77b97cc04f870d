"""A calibration file: a JSON header and named arrays, in HDF5, zarr or TIFF.

What the header and the arrays mean is not known here; :mod:`.header` says what is in every file,
and the module of each format how it lies there. Arrays are stored uncompressed, so a file can
never ask for more memory than its own size, and nothing in a file is ever executed, imported or
followed to another file: a stranger's file is safe to open.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from detectorcal import _typing
from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingFileError,
)
from detectorcal._files import atomic_file, atomic_folder, identity_of, reading, recover_folder

from . import hdf5, tiff, zarr
from .header import (
    OWN_KEYS,
    PROTOCOL,
    Arrays,
    Load,
    checked_header,
    checked_specs,
    sha256,
    storable_arrays,
    whole_header,
)

__all__ = ["PROTOCOL", "read_calibration", "read_checksum", "write_calibration"]


_TRIES = 10
"""A file is read at most so often, if it is replaced every time."""


class _Format(NamedTuple):
    """How one kind of file is recognised, written and read.

    ``open`` yields the header as stored, None if there is none, and a loader of arrays.
    """

    name: str
    is_folder: bool
    recognises: Callable[[Path], bool]
    write: Callable[[Path, dict[str, Any], Arrays], None]
    open: Callable[[Path], AbstractContextManager[tuple[Any, Load]]]


_HDF5 = _Format("an HDF5 file", False, hdf5.recognises, hdf5.write, hdf5.open_file)
_ZARR = _Format("a zarr store of format 3", True, zarr.recognises, zarr.write, zarr.open_folder)
_TIFF = _Format("a TIFF file", False, tiff.recognises, tiff.write, tiff.open_file)
_FORMATS = {".h5": _HDF5, ".hdf5": _HDF5, ".zarr": _ZARR, ".tif": _TIFF, ".tiff": _TIFF}


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
        A line about each array, for those who open the file with other software. Names that are
        not among the arrays are passed over.

    Raises
    ------
    InputError
        The suffix is unknown, or the header or an array cannot be stored.
    OutputExistsError
        The file exists already and `overwrite` is False.
    """
    path = Path(path)
    kind = _format_of(path)
    stored = storable_arrays(arrays)
    whole = whole_header(header, stored, descriptions or {})
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
        The header as it was given, and the file's protocol under "protocol".
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
    with reading(path):
        header, arrays = _read_settled(path, kind)
    return {key: header[key] for key in header if key not in OWN_KEYS - {"protocol"}}, arrays


def read_checksum(path: _typing.Path) -> str:
    """Read the SHA-256 that stands in a calibration's header: of the header, which has those of the arrays.

    It is the same in every format, and raises as `read_calibration` does.
    """
    path = Path(path)
    kind = _format_of(path)
    with reading(path):
        _check_kind(path, kind)
        with _telling_damage(path), kind.open(path) as (raw, _):
            return str(checked_header(f"{path} is {kind.name}", raw)["sha256"])


def _read_settled(path: Path, kind: _Format) -> tuple[dict[str, Any], Arrays]:
    """Read anew what was replaced meanwhile: a folder is read by names, and old and new may mix."""
    for _ in range(_TRIES - 1):
        before = identity_of(path)
        try:
            _check_kind(path, kind)
            return _read(path, kind)
        except (MissingFileError, FileFormatError, DamagedFileError):
            if identity_of(path) == before:
                raise
    _check_kind(path, kind)
    return _read(path, kind)


def _read(path: Path, kind: _Format) -> tuple[dict[str, Any], Arrays]:
    """Read header and arrays, and tell whatever goes wrong within the file as damage to it."""
    held = _held_bytes(path)
    with _telling_damage(path), kind.open(path) as (raw, load):
        header = checked_header(f"{path} is {kind.name}", raw)
        arrays = {}
        for index, (name, spec) in enumerate(checked_specs(header, held).items()):
            arrays[name] = load(index, name, spec)
            if sha256(arrays[name]) != spec.sha256:
                raise ValueError(f"array {name!r} does not match its checksum")
        return header, arrays


@contextmanager
def _telling_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (DetectorcalError, ImportError, MemoryError, PermissionError, BlockingIOError):
        raise
    except Exception as error:  # a damaged file makes the libraries raise nearly anything
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise DamagedFileError(
            f"{path} is damaged: {reason}. Restore it from a copy, or fit and save again."
        ) from error


def check_calibration_name(path: _typing.Path) -> None:
    """Raise unless the name's suffix is one of a calibration file: before long work, not after it."""
    _format_of(Path(path))


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"The name of a calibration file ends in one of {', '.join(_FORMATS)}, which decides its format; "
            f"{str(path)!r} ends in {path.suffix!r}."
        ) from None


def _check_kind(path: Path, kind: _Format) -> None:
    if kind.is_folder and not path.exists():
        with suppress(OSError):
            recover_folder(path)
    if not path.exists():
        raise MissingFileError(f"There is no calibration file {path}.")
    if path.is_dir() != kind.is_folder:
        found, wanted = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise FileFormatError(
            f"{path} is {found}, but a calibration whose name ends in {path.suffix} is {wanted}. "
            "Give what detectorcal saved, under the name it was saved by."
        )
    if not kind.recognises(path):
        raise FileFormatError(
            f"{path} is not {kind.name}, although its name ends in {path.suffix}. "
            "Give what detectorcal saved, under the name it was saved by."
        )


def _held_bytes(path: Path) -> int:
    """How much is on disk; a folder must hold all of it itself."""
    if not path.is_dir():
        return path.stat().st_size
    inside = list(path.rglob("*"))
    if links := [entry for entry in inside if entry.is_symlink()]:
        raise FileFormatError(
            f"{links[0]} is a link, which detectorcal does not follow. Put what it leads to in its place."
        )
    return sum(entry.stat().st_size for entry in inside if entry.is_file())
