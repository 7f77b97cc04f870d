"""Outputs that outlive a stop: a visible partial file or store, and the journal beside it."""

import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import DTypeLike, NDArray

from detectorcal import _typing
from detectorcal._errors import InputError, OutputExistsError, WriteError
from detectorcal._files import check_target, is_zarr_store, put_in_place, sync_folder, writing
from detectorcal._temporary import remove
from detectorcal.io import hdf5, tiff, zarr
from detectorcal.io._journal import Journal
from detectorcal.io._names import locate_output
from detectorcal.io._open import Options, make_plan, refuse_inside
from detectorcal.io._stack import FrameStack
from detectorcal.io._writer import FrameWriter, LastingSink, Plan, runs

SYNC_SECONDS = 2.0
"""At least so long lies between two syncs with their lines in the journal: what a power cut can cost."""

FORMAT = 1
"""Raised when the journal changes, or when a release gives other numbers for the same maps.

It stands for the version of detectorcal in the comparison of two jobs: almost no release changes what
``(image - dark) * scale`` gives, and a correction should outlive an update. The version is noted beside it.
"""

_FORMATS: dict[str, Any] = {"hdf5": hdf5, "zarr": zarr}


def can_resume(path: _typing.Path, *, plain: bool = True) -> bool:
    """Tell whether `resume_frames` writes outputs of this name, `plain` ones or in chunks and compressed."""
    found = locate_output(path).format
    return found == "zarr" or (found in _FORMATS and plain)


@contextmanager
def resume_frames(
    path: _typing.Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    source: FrameStack,
    settings: Mapping[str, Any],
    resume: bool = False,
    overwrite: bool = False,
    **options: Unpack[Options],
) -> Iterator[FrameWriter]:
    """Write frames as `create_frames` does, to an output that a stopped run leaves for a later one.

    Until it is whole the output is called `<path>.partial`, and `<path>.partial.json` tells which of its
    frames are on the disk. Both stay whatever stops the run, once there are such frames.

    Parameters
    ----------
    path, shape, dtype
        As for `create_frames`; HDF5 and zarr only.
    source : FrameStack
        The input; an output is not resumed with another one.
    settings : mapping of str to JSON values
        What else decides the numbers, by the words for a message: `{"dark": digest(dark)}`.
    resume : bool, default: False
        Whether a partial output of the same job is gone on with; if there is none, it is started.
    overwrite : bool, default: False
        Whether an existing output is replaced, and a partial one (without `resume`) started again.
    **options
        `layout`, `angles`, `attributes`, `like`, and of zarr stores `chunks` and `compression`, as for
        `create_frames`.

    Yields
    ------
    FrameWriter
        Its `missing()` are the frames to be written.

    Raises
    ------
    OutputExistsError
        If the output exists without `overwrite`, or a partial one without `resume` or `overwrite`.
    InputError
        If the partial output is of another job, or the format cannot be resumed.
    AccessError
        If another process is writing the same output, or the folder may not be written to.
    WriteError
        If the disk is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import create_frames, open_frames, resume_frames
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with create_frames(folder / "raw.npy", (4, 2, 3), "float32") as out:
    ...     out[:] = np.ones((4, 2, 3), "float32")
    >>> def double(stop):
    ...     with (
    ...         open_frames(folder / "raw.npy") as raw,
    ...         resume_frames(
    ...             folder / "twice.h5", raw.shape, "float32", source=raw, settings={"factor": 2}, resume=True
    ...         ) as out,
    ...     ):
    ...         for run in out.missing():
    ...             print(run)
    ...             out[run.start : stop] = 2 * raw[run.start : stop]
    >>> try:
    ...     double(3)
    ... except ValueError as error:
    ...     print(error.__notes__[0].replace(str(folder), "..."))
    slice(0, 4, None)
    `.../twice.h5.partial` holds 3 of 4 frames, go on with --resume.
    >>> double(4)
    slice(3, 4, None)
    >>> sorted(path.name for path in folder.iterdir())
    ['raw.npy', 'twice.h5']
    """
    location = locate_output(path)
    if location.format not in _FORMATS:
        raise InputError(f"`{path}`: only HDF5 and zarr outputs can be resumed. Name it .h5 or .zarr.")
    refuse_inside(location)
    plan = make_plan(location, shape, dtype, **options)
    job = _job(plan, source, settings)
    work = _Unfinished(location.path, plan, _FORMATS[location.format])
    with writing(location.path):
        check_target(location.path, folder=location.format == "zarr", overwrite=overwrite)
        journal = Journal(work.journal, plan.shape[0])
    with journal:
        with writing(location.path):
            sink = _JournaledSink(work.begin(journal, job, resume, overwrite), journal, work)
        writer = FrameWriter(sink, str(work), plan.shape, plan.dtype, journal.done)
        try:
            with writing(work, only_full=True, kept=True):
                yield writer
                writer.check_complete()
            with writing(work, kept=True):
                sink.note()
                sink.close()
                put_in_place(work.partial, location.path, overwrite=overwrite)
                journal.remove()
        except BaseException as error:
            error.add_note(_stop(sink, journal, work))
            raise


def _stop(sink: "_JournaledSink", journal: Journal, work: "_Unfinished") -> str:
    """Save what there is, or remove what is of no use, and say which."""
    with suppress(Exception):
        sink.note()
    with suppress(Exception):
        sink.close()
    if journal.done.any():
        return f"`{work}` holds {journal.done.sum()} of {len(journal.done)} frames, go on with --resume."
    with suppress(OSError):
        work.remove()
        journal.remove()
    return "Nothing unfinished was kept."


def digest(array: NDArray[Any]) -> str:
    """Give the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


@dataclass(frozen=True)
class _Unfinished:
    """An output on its way: where it is, and how it is begun and gone on with."""

    path: Path
    plan: Plan
    format: Any

    @property
    def partial(self) -> Path:
        target = self.path.resolve()
        return target.with_name(f"{target.name}.partial")

    @property
    def journal(self) -> Path:
        return self.partial.with_name(f"{self.partial.name}.json")

    def __str__(self) -> str:
        return str(self.partial if self.path.is_symlink() else f"{self.path}.partial")

    def begin(self, journal: Journal, job: dict[str, Any], resume: bool, overwrite: bool) -> LastingSink:
        """Go on with the partial output, or start one."""
        sink: LastingSink
        if self.partial.exists():
            self._check(journal, job, resume, overwrite)
            if resume and journal.done.any():
                sink = self.format.reopen(self.partial, self.plan)
                for run in runs(~journal.done):
                    sink.clear(run.start, run.stop)
                return sink
            self.remove()
        try:
            journal.start(job)
            sink = self.format.create_lasting(self.partial, self.plan)
        except BaseException:
            with suppress(OSError):
                self.remove()
                journal.remove()
            raise
        sync_folder(self.partial.parent)
        return sink

    def _check(self, journal: Journal, job: dict[str, Any], resume: bool, overwrite: bool) -> None:
        if not resume and not overwrite:
            raise OutputExistsError(
                f"`{self}` is left of a run that was stopped. Go on with it by `--resume`, or start again by "
                "`--overwrite`."
            )
        if resume and journal.job is None:
            raise InputError(
                f"`--resume`: `{self}` has no journal `{journal.path.name}` that can be read. Start again by "
                "`--overwrite` without `--resume`."
            )
        other = [name for name in job if journal.job is not None and journal.job.get(name) != job[name]]
        if resume and other:
            raise InputError(
                f"`--resume`: `{self}` was begun by another job; not the same: {', '.join(other)}. Give the "
                "same (files unchanged), or start again by `--overwrite` without `--resume`."
            )
        folder = self.partial.is_dir()
        if journal.job is None and folder and not is_zarr_store(self.partial) and any(self.partial.iterdir()):
            raise OutputExistsError(f"`{self}` is not a zarr store, so it is not removed. Move it away.")

    def remove(self) -> None:
        remove(self.partial)


class _JournaledSink:
    """A sink that syncs what it has written and notes it in the journal, every couple of seconds."""

    def __init__(self, sink: LastingSink, journal: Journal, work: _Unfinished) -> None:
        self._sink = sink
        self._journal = journal
        self._work = work
        self._written = journal.done.copy()
        self._noted_at = time.monotonic()
        self.step = sink.step

    def put(self, start: int, frames: NDArray[Any]) -> None:
        with writing(self._work, kept=True):
            self._sink.put(start, frames)
            self.carried(start, start + len(frames))

    def carried(self, start: int, stop: int) -> None:
        """Take note of frames that are written."""
        self._written[start:stop] = True
        if time.monotonic() - self._noted_at >= SYNC_SECONDS:
            self.note()

    def note(self) -> None:
        """Sync the frames that are new, and only then note them."""
        fresh = runs(_whole(self._written, self.step) & ~self._journal.done)
        for run in fresh:
            self._sink.sync(run.start, run.stop)
        for run in fresh:
            self._journal.note(run.start, run.stop)
        self._noted_at = time.monotonic()

    def close(self) -> None:
        self._sink.close()

    def carrier(self) -> "_Carrier":
        return _Carrier(self._sink, self._journal.path, self._journal.id, str(self._work))


class _Carrier:
    """Writes frames to a partial output from another process."""

    def __init__(self, sink: LastingSink, journal: Path, id: str, name: str) -> None:  # noqa: A002
        self._sink = sink
        self._journal = journal
        self._id = id
        self._name = name

    def __call__(self, start: int, frames: NDArray[Any]) -> None:
        """Write frames from frame number `start` on, and return when they are on the disk."""
        sink = copy.copy(self._sink)  # opens the file for itself: threads must not share a position in it
        with writing(self._name, kept=True):
            self._check_wanted()
            try:
                sink.put(start, np.ascontiguousarray(frames))
                sink.sync(start, start + len(frames))
            finally:
                sink.close()

    def _check_wanted(self) -> None:
        """Refuse to write where another job writes now: a worker may be late, or was thought dead."""
        try:
            with self._journal.open("rb") as file:
                wanted = json.loads(file.readline())["id"] == self._id
        except (OSError, ValueError):
            wanted = False
        if not wanted:
            raise WriteError(
                f"`{self._name}` is not, or no longer, being written under this path. Outputs must be on "
                "storage that all machines share."
            )


def _whole(written: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Leave out the frames of chunks that are not whole."""
    filled = np.append(written, np.ones(-len(written) % step, bool))
    whole: NDArray[np.bool_] = filled.reshape(-1, step).all(axis=1).repeat(step)[: len(written)]
    return whole


def _job(plan: Plan, source: FrameStack, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Give what must be the same for a later run to go on with the output."""
    job = {
        "version of detectorcal": FORMAT,
        "input": identity(source),
        "output": [plan.shape, str(plan.dtype), plan.layout, plan.dataset, plan.chunk, plan.compression],
        **settings,
    }
    same: dict[str, Any] = json.loads(json.dumps(job))
    return same


def identity(stack: FrameStack) -> dict[str, Any]:
    """Give where a stack comes from, which part of it this is, and the size and time of its files."""
    if stack.source is None:
        raise InputError(f"`{stack.path}` was not opened by `open_frames`, so its file is not known.")
    location = stack.source.location
    path = location.path
    if location.format == "zarr":
        # not its chunks, which may be millions of files: its metadata, and folders that change with them
        node = path / location.inside
        names = ("", "c", "zarr.json", ".zarray", ".zgroup")
        files = [node / name for name in names if (node / name).exists()]
    elif path.is_file():
        files = sorted(stack.files)
    else:
        files = tiff.list_files(path)
    stats = [file.stat() for file in files]
    return {
        "path": str(location),
        "shape": stack.shape,
        "files": len(files),
        "bytes": sum(s.st_size for s in stats),
        "modified": max(s.st_mtime_ns for s in stats),
        **({"part": part} if (part := stack.selection) else {}),
    }
