"""The journal of an output that outlives a stop: which of its frames are on the disk."""

import errno
import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from detectorcal._errors import AccessError
from detectorcal._files import sync_data
from detectorcal._version import __version__

if sys.platform != "win32":
    import fcntl


class Journal:
    """Which frames of a partial output are on the disk: JSON lines, the job first, then runs of frames.

    It is locked while it is open, where the file system has locks. A last line that a stop has torn is
    dropped.

    Parameters
    ----------
    path : pathlib.Path
        The file; it is created if it is not there.
    n_frames : int
        Number of frames of the output.

    Attributes
    ----------
    path
        As given.
    id : str
        Of the run that started the output.
    job : dict or None
        The first line; None if there is none that can be read.
    done : array of shape (n_frames,), bool
        Frames that are on the disk.
    """

    def __init__(self, path: Path, n_frames: int) -> None:
        self.path = path
        self.id = ""
        self.job: dict[str, Any] | None = None
        self.done = np.zeros(n_frames, bool)
        self._end = 0
        self._file = _open_locked(path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        for line in self._file:
            try:
                self._take(json.loads(line) if line.endswith(b"\n") else None)
            except (ValueError, KeyError, TypeError):
                break
            self._end += len(line)

    def _take(self, entry: Any) -> None:
        if self.job is None:
            self.id, self.job = entry["id"], dict(entry["job"])
        else:
            start, stop = entry
            self.done[start:stop] = True

    def start(self, job: dict[str, Any]) -> None:
        """Begin anew, with the job in the first line."""
        self._end = 0
        self.done[:] = False
        self.id, self.job = secrets.token_hex(8), job
        self._write({"detectorcal": __version__, "id": self.id, "job": job})

    def note(self, start: int, stop: int) -> None:
        """Note frames that are on the disk."""
        self._write([start, stop])
        self.done[start:stop] = True

    def _write(self, entry: Any) -> None:
        self._file.truncate(self._end)  # what follows is a torn line
        line = json.dumps(entry).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync_data(self._file.fileno())
        self._end += len(line)

    def remove(self) -> None:
        """Remove the file; the lock stays until the end."""
        if sys.platform == "win32":  # which removes no open file
            self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self.job is None and not os.fstat(self._file.fileno()).st_size:
                self.remove()  # an attempt that was refused leaves no journal
        self._file.close()


def _open_locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("a+b", buffering=0)
        try:
            _lock(file, path)
            # removed by the run that held the lock: it is another file now, or none
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes], path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise AccessError(
            f"`{path.with_suffix('')}` is being written by another process. Wait for it, or end it first."
        ) from error
    except OSError:  # a network file system without locks
        return
