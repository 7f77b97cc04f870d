"""Outputs that are either whole or not there: written beside their name, synced, then renamed."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detectorcal import _typing
from detectorcal._errors import (
    AccessError,
    DetectorcalError,
    InputError,
    MissingFileError,
    OutputExistsError,
    WriteError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_STEM_LENGTH = 40
"""Characters of the final name kept in the temporary one, which must fit the file system's 255 bytes."""


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Name `path` in the errors of the operating system that reading it may raise."""
    try:
        yield
    except DetectorcalError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"`{path}` does not exist.") from error
    except (PermissionError, BlockingIOError) as error:
        raise AccessError(
            f"`{path}` may not be read ({error}). Check its permissions, and that no program is writing it."
        ) from error


@contextmanager
def writing(path: object, *, only_full: bool = False) -> Iterator[None]:
    """Name `path` in the errors of the operating system that writing it may raise.

    With `only_full` errors other than a full disk pass as they are: they may concern another file.
    """
    try:
        yield
    except DetectorcalError:
        raise
    except OSError as error:
        if only_full and error.errno not in _FULL:
            raise
        raise _write_error(path, error) from error


def _write_error(path: object, error: OSError) -> DetectorcalError:
    named: AccessError | WriteError
    if error.errno in _FORBIDDEN:
        named = AccessError(
            f"`{path}` may not be written ({error.strerror}). Choose a folder that you may write to."
        )
    else:
        cure = " Free some space or choose another disk." if error.errno in _FULL else ""
        named = WriteError(
            f"`{path}` could not be written ({error.strerror or error}).{cure} Nothing unfinished was kept."
        )
    named.errno = error.errno
    return named


@contextmanager
def atomic_file(path: _typing.Path, *, overwrite: bool) -> Iterator[Path]:
    """Write a file that appears under its name only when it is whole.

    Parameters
    ----------
    path : path-like
        The final name. Where it is a symbolic link, the file it points to is replaced.
    overwrite : bool
        Whether an existing file is replaced.

    Yields
    ------
    pathlib.Path
        An empty file in the same folder with the same suffix. It is synced and renamed when the
        block ends, and removed when the block raises; an earlier file is then untouched.

    Raises
    ------
    OutputExistsError
        If the file exists and `overwrite` is false.
    MissingFileError
        If the folder does not exist.
    InputError
        If `path` is a folder or a device.
    AccessError, WriteError
        If the folder may not be written to, or the disk is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from detectorcal._files import atomic_file
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_file(folder / "note.txt", overwrite=False) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['note.txt']
    """
    target = Path(path).resolve()
    with writing(path):
        _check_file(target, path, overwrite)
        temporary = _beside(target)
        temporary.open("xb").close()
    try:
        with writing(path, only_full=True):
            yield temporary
        with writing(path):
            _check_file(target, path, overwrite)
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            _sync(temporary)
            temporary.replace(target)
            _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: _typing.Path, *, overwrite: bool) -> Iterator[Path]:
    """Write a zarr store that appears under its name only when it is whole.

    Parameters
    ----------
    path : path-like
        The final name of the folder.
    overwrite : bool
        Whether an existing zarr store or an empty folder is replaced; no other folder ever is.

    Yields
    ------
    pathlib.Path
        An empty folder beside the final one. When the block ends it is synced, the old store is moved
        aside, the new one takes its place and the old one is removed. When the block raises it is removed.

    Raises
    ------
    OutputExistsError
        If the folder exists and `overwrite` is false, or is not a zarr store.
    MissingFileError, AccessError, WriteError
        As `atomic_file`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from detectorcal._files import atomic_folder
    >>> store = pathlib.Path(tempfile.mkdtemp()) / "store.zarr"
    >>> with atomic_folder(store, overwrite=False) as temporary:
    ...     _ = (temporary / "zarr.json").write_text("{}")
    >>> store.is_dir()
    True
    """
    target = Path(path).resolve()
    with writing(path):
        recover_folder(target)
        _check_folder(target, path, overwrite)
        temporary = _beside(target)
        temporary.mkdir()
    try:
        with writing(path, only_full=True):
            yield temporary
        with writing(path):
            _sync_tree(temporary)
            _check_folder(target, path, overwrite)
            _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: _typing.Path, *, overwrite: bool = False) -> None:
    """Raise if an output exists, or its folder does not: before long work, not after it."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise MissingFileError(
            f"`{path}` cannot be written: the folder `{target.parent}` does not exist. Create it first."
        )
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"`{path}` exists already. Pass overwrite=True (`--overwrite` in a shell) to replace it."
        )


def recover_folder(path: _typing.Path) -> None:
    """Put back the store that a run which died between its two renames left moved aside."""
    target = Path(path).resolve()
    aside = _aside(target)
    if not aside.is_dir():
        return
    if not target.exists():
        aside.rename(target)
    elif is_zarr_store(target):
        shutil.rmtree(aside, ignore_errors=True)


def is_zarr_store(path: Path) -> bool:
    """Tell whether a folder is the root of a zarr array or group, of either format."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _put_in_place(new: Path, target: Path) -> None:
    aside = _aside(target)
    existed = target.exists()
    if existed:
        target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        if existed:
            aside.rename(target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _check_file(target: Path, path: _typing.Path, overwrite: bool) -> None:
    if target.exists() and not target.is_file():
        raise InputError(f"`{path}` must name a file to write, but is a folder or a device.")
    refuse_existing(path, overwrite=overwrite)


def _check_folder(target: Path, path: _typing.Path, overwrite: bool) -> None:
    refuse_existing(path, overwrite=overwrite)
    replaceable = target.is_dir() and (is_zarr_store(target) or not any(target.iterdir()))
    if target.exists() and not replaceable:
        raise OutputExistsError(
            f"`{path}` exists and is not a zarr store, so it is not overwritten. Choose another name."
        )


def _beside(target: Path) -> Path:
    """Return a hidden name in the same folder; the suffix stays, for libraries that look at it."""
    return target.with_name(f".{target.stem[:_STEM_LENGTH]}.{secrets.token_hex(4)}.part{target.suffix}")


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Windows cannot open a folder, and some network file systems cannot sync one.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root, name))
        _sync_folder(Path(root))
