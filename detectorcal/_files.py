"""Outputs that are either whole or not there: written beside their name, synced, then renamed."""

import ctypes
import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal import _typing
from detectorcal._errors import (
    AccessError,
    DetectorcalError,
    InputError,
    MissingFileError,
    OutputExistsError,
    TooLargeError,
    WriteError,
)
from detectorcal._temporary import aside_of, beside, remove_stale

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_HERE, _RENAME_EXCHANGE = -100, 2
"""AT_FDCWD and the flag, from Linux's fcntl.h and fs.h."""


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Name `path` in the errors of the operating system, and of memory, that reading it may raise."""
    try:
        yield
    except DetectorcalError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"`{path}` does not exist.") from error
    except MemoryError as error:
        raise TooLargeError(
            f"`{path}` does not fit into memory ({error or 'MemoryError'}). If it cannot be so large, it is "
            "damaged: copy it again from its source."
        ) from error
    except (PermissionError, BlockingIOError) as error:
        raise AccessError(
            f"`{path}` may not be read ({error}). Check its permissions, and that no program is writing it."
        ) from error


@contextmanager
def writing(path: object, *, only_full: bool = False, kept: bool = False) -> Iterator[None]:
    """Name `path` in the errors of the operating system that writing it may raise.

    With `only_full` errors other than a full disk pass as they are: they may concern another file. `kept`
    says that what was written so far stays.
    """
    try:
        yield
    except DetectorcalError:
        raise
    except OSError as error:
        if only_full and error.errno not in _FULL:
            raise
        raise _write_error(path, error, kept) from error


def _write_error(path: object, error: OSError, kept: bool) -> DetectorcalError:
    named: AccessError | WriteError
    if error.errno in _FORBIDDEN:
        named = AccessError(
            f"`{path}` may not be written ({error.strerror}). Choose a folder that you may write to."
        )
    else:
        cure = " Free some space" + (" first." if kept else " or choose another disk.")
        named = WriteError(
            f"`{path}` could not be written ({error.strerror or error})."
            + (cure if error.errno in _FULL else "")
            + ("" if kept else " Nothing unfinished was kept.")
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
        check_target(path, folder=False, overwrite=overwrite)
        remove_stale(target)
        temporary = beside(target)
        temporary.open("xb").close()
    try:
        with writing(path, only_full=True):
            yield temporary
        with writing(path):
            put_in_place(temporary, path, overwrite=overwrite)
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
        An empty folder beside the final one. When the block ends it is synced and changes places with the
        old store, which is then removed. When the block raises it is removed itself.

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
        check_target(path, folder=True, overwrite=overwrite)
        remove_stale(target)
        temporary = beside(target)
        temporary.mkdir()
    try:
        with writing(path, only_full=True):
            yield temporary
        with writing(path):
            sync_tree(temporary)
            check_target(path, folder=True, overwrite=overwrite)
            if target.exists() and _exchange(temporary, target):
                sync_folder(target.parent)
            else:
                _swap_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, path: _typing.Path, *, overwrite: bool) -> None:
    """Sync a whole output, a file or a zarr store, and give it its final name.

    The temporary name never comes to hold the old output: it may be one that a later run goes on with.
    """
    target = Path(path).resolve()
    if temporary.is_dir():
        sync_tree(temporary)
        check_target(path, folder=True, overwrite=overwrite)
        _swap_folder(temporary, target)
        return
    check_target(path, folder=False, overwrite=overwrite)
    if target.exists():
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    sync(temporary)
    temporary.replace(target)
    sync_folder(target.parent)


def check_target(path: _typing.Path, *, folder: bool, overwrite: bool) -> None:
    """Raise unless an output, a file or a zarr store, may be put under this name."""
    target = Path(path).resolve()
    if folder:
        recover_folder(target)
        _check_folder(target, path, overwrite)
    else:
        _check_file(target, path, overwrite)


def refuse_existing(path: _typing.Path, *, overwrite: bool = False) -> None:
    """Raise if an output exists, or its folder does not: before long work, not after it."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        if any(parent.is_file() for parent in target.parents):
            raise AccessError(f"`{path}` cannot be written: `{target.parent}` is, or lies in, a file.")
        raise MissingFileError(
            f"`{path}` cannot be written: the folder `{target.parent}` does not exist. Create it first."
        )
    if target.exists() and not overwrite:
        raise OutputExistsError(f"`{path}` exists already. Pass `overwrite=True` to replace it.")


def recover_folder(path: _typing.Path) -> None:
    """Put back the store that a run which died between its two renames left moved aside."""
    target = Path(path).resolve()
    aside = aside_of(target)
    if not aside.is_dir():
        return
    if not target.exists():
        aside.rename(target)
    elif is_zarr_store(target):
        shutil.rmtree(aside, ignore_errors=True)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Give what stays the same until another file or folder is put in the place; None if there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def is_zarr_store(path: Path) -> bool:
    """Tell whether a folder is the root of a zarr array or group, of either format."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step, so that there is one under each at any moment.

    Linux can (renameat2 with RENAME_EXCHANGE), on most file systems; tell whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _swap_folder(new: Path, target: Path) -> None:
    aside = aside_of(target)
    existed = target.exists()
    if existed:
        target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        if existed:
            aside.rename(target)
        raise
    sync_folder(target.parent)
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


def write_at(file: io.FileIO, offset: int, values: NDArray[Any]) -> None:
    """Write an array's bytes, all of them: a plain write may take only some."""
    file.seek(offset)
    rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while len(rest):
        rest = rest[file.write(rest) :]


def sync(path: Path) -> None:
    """Have a file's data on the disk, and not only on the way to it."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_data(descriptor: int) -> None:
    """Have the data of an open file on the disk; where the system can, without its times."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    # Windows cannot open a folder, and some network file systems cannot sync one.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Have a folder and all that is in it on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root, name))
        sync_folder(Path(root))


def reserve(path: Path, nbytes: int) -> None:
    """Reserve the first `nbytes` of a file on the disk, so that a full disk is found before the work.

    Where the system or the file system cannot reserve, the free space is compared instead.
    """
    with path.open("r+b") as file:
        reserved = _fallocate(file.fileno(), nbytes)
    if reserved:
        return
    status = path.stat()
    # what libhdf5 lays out early is a hole: it has a size but takes no space yet
    taken = 512 * status.st_blocks if hasattr(status, "st_blocks") else status.st_size
    if shutil.disk_usage(path.parent).free < nbytes - taken:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fallocate(descriptor: int, nbytes: int) -> bool:
    """Call Linux's fallocate; tell whether the file system has it.

    Not `os.posix_fallocate`: where the file system (NFS 3, older Lustre) cannot reserve, glibc's writes into
    every block of the file, which for a terabyte takes hours and cannot be told from success.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return False
    size = ctypes.c_int64
    call.argtypes = (ctypes.c_int, ctypes.c_int, size, size)
    while call(descriptor, 0, 0, nbytes) != 0:
        code = ctypes.get_errno()
        if code in _FULL:
            raise OSError(code, os.strerror(code))
        if code != errno.EINTR:
            return False
    return True
