"""Zarr stores of formats 2 and 3 on disk. A chunk that was never written reads as the fill value."""

import math
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DamagedFileError, FileFormatError, InputError, MissingFileError
from detectorcal._files import identity_of, is_zarr_store, recover_folder, sync_folder, sync_tree
from detectorcal._typing import Shape
from detectorcal.io._compression import zarr_compressors
from detectorcal.io._names import Location, is_numeric, native, stack_shape
from detectorcal.io._stack import FrameStack, Window
from detectorcal.io._writer import Plan

_MOST_CHUNKS = 2**14
"""Of one frame; so many take zarr about two seconds."""


def open_stack(location: Location, line: bool) -> FrameStack:
    """Open an array of a store."""
    with suppress(OSError):
        recover_folder(location.path)
    if not location.path.exists():
        raise MissingFileError(f"`{location.path}` does not exist.")
    folder = location.path / location.inside
    if not is_zarr_store(folder):
        raise FileFormatError(
            f"`{location}` should be a zarr array or group, but has no zarr metadata "
            f"(zarr.json, .zarray or .zgroup). {_listed(location.path)}"
        )
    opened = identity_of(location.path)
    array, inside = _find(location, _open(folder, location), line)
    shape = stack_shape(array.shape, line, location)
    reader = _ZarrReader(array, shape, native(_dtype(array), location), location, opened)
    return FrameStack(reader, str(Location(location.path, inside, "zarr")))


def read_attributes(location: Location) -> dict[str, Any]:
    """Read the attributes of an array."""
    return dict(_open(location.path / location.inside, location).attrs)


def create(path: Path, plan: Plan) -> "ZarrSink":
    """Create an array of format 3 at the root of a store."""
    import zarr

    try:
        array = zarr.create_array(
            str(path),
            shape=plan.shape,
            dtype=plan.dtype,
            chunks=plan.chunk,
            compressors=zarr_compressors(plan.compression, plan.dtype),
            attributes=plan.attributes,
            zarr_format=3,
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"zarr cannot hold frames of shape {plan.shape} and {plan.dtype}: {error}"
        ) from error
    return ZarrSink(path, array.chunks[0], array)


def create_lasting(path: Path, plan: Plan) -> "ZarrSink":
    """Create a store whose metadata are on the disk, frames to follow."""
    sink = create(path, plan)
    sync_tree(path)
    return sink


def reopen(path: Path, plan: Plan) -> "ZarrSink":
    """Open a store that `create_lasting` made."""
    import zarr

    try:
        array = zarr.open_array(str(path), mode="r+", zarr_format=3)
    except Exception as error:  # zarr passes on whatever its parsers raise
        raise DamagedFileError(f"`{path}` is damaged ({error!r}). Start again with `--overwrite`.") from error
    if (array.shape, _dtype(array), array.chunks) != (plan.shape, plan.dtype, plan.chunk):
        raise DamagedFileError(f"`{path}` holds other data than asked for. Start again with `--overwrite`.")
    return ZarrSink(path, plan.chunk[0], array)


class ZarrSink:
    """Frames of a store; every chunk is a file of its own, in a folder named after its first index."""

    def __init__(self, path: Path, step: int, array: Any) -> None:
        self._path = path
        self._array = array
        self.step = step

    def put(self, start: int, frames: NDArray[Any]) -> None:
        """Write frames from frame number `start` on."""
        if self._array is None:
            import zarr

            self._array = zarr.open_array(str(self._path), mode="r+", zarr_format=3)
        self._array[start : start + len(frames)] = frames

    def sync(self, start: int, stop: int) -> None:
        """Sync the chunks' files and the folders; a chunk of nothing but zeros has no file."""
        for chunk in self._chunks(start, stop):
            if chunk.is_dir():
                sync_tree(chunk)
        for folder in (self._path / "c", self._path):
            sync_folder(folder)

    def clear(self, start: int, stop: int) -> None:
        """Remove the chunks, which may be torn."""
        for chunk in self._chunks(start, stop):
            shutil.rmtree(chunk, ignore_errors=True)

    def _chunks(self, start: int, stop: int) -> list[Path]:
        numbers = range(start // self.step, -(-stop // self.step))
        return [self._path / "c" / str(number) for number in numbers]

    def close(self) -> None:
        """Do nothing: every chunk is in its file already."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_array": None}


class _ZarrReader:
    def __init__(
        self,
        array: Any,
        shape: Shape,
        dtype: np.dtype[Any],
        location: Location,
        opened: tuple[int, int] | None,
    ) -> None:
        name = str(location)
        self.shape = shape
        self.dtype = dtype
        chunks = getattr(array, "shards", None) or array.chunks
        _refuse_crumbs(array.chunks, shape[1:], name)
        self.step = chunks[0] if array.ndim == len(shape) else 1
        self._array = array
        self._name = name
        self._folder = location.path.absolute()
        self._opened = opened

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        try:
            if self._array.ndim < len(self.shape):
                out[0] = self._array[window]
            else:
                out[...] = self._array[(slice(start, stop), *window)]
        except MemoryError:
            raise
        except Exception as error:  # every codec has errors of its own
            self._refuse_another()
            raise DamagedFileError(
                f"`{self._name}` has a damaged chunk in frames {start} to {stop - 1} ({error!r})."
            ) from error

        self._refuse_another()

    def _refuse_another(self) -> None:
        """Raise if a writer has put another store in the place: chunks are found by their names."""
        if identity_of(self._folder) != self._opened:
            raise DamagedFileError(f"`{self._name}` has been replaced since it was opened. Open it again.")

    def close(self) -> None:
        self._array = None


def _refuse_crumbs(chunks: Shape, frame: Shape, name: str) -> None:
    """Raise if a frame is in so many chunks that reading one takes many seconds."""
    if min(chunks) < 1:
        raise DamagedFileError(f"`{name}` has damaged zarr metadata: its chunks are {chunks}.")
    n_chunks = math.prod(-(-size // step) for size, step in zip(frame, chunks[-len(frame) :], strict=True))
    if n_chunks > _MOST_CHUNKS:
        raise FileFormatError(
            f"`{name}` has frames of shape {frame} in {n_chunks} chunks of {chunks}, more than "
            f"the {_MOST_CHUNKS} that are read. Store it in larger chunks, or from a sound copy."
        )


def _open(folder: Path, location: Location) -> Any:
    import zarr

    # Where both kinds of metadata lie side by side, the newer one counts.
    newest = 3 if (folder / "zarr.json").is_file() else 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zarr.open(str(folder), mode="r", zarr_format=newest)
    except Exception as error:  # zarr passes on whatever its parsers raise
        raise DamagedFileError(f"`{location}` has damaged zarr metadata ({error!r}).") from error


def _find(location: Location, node: Any, line: bool) -> tuple[Any, str]:
    """Return the one array that can be meant and its path in the store."""
    if hasattr(node, "shape"):
        return node, location.inside
    arrays = _arrays(node, location)
    numeric = {name: a for name, a in arrays.items() if is_numeric(_dtype(a))}
    stacks, maps = ({name: a for name, a in numeric.items() if a.ndim == n} for n in (3, 2))
    chosen = ((not line and stacks) or maps) if len(arrays) > 1 else arrays
    if len(chosen) == 1:
        name, array = next(iter(chosen.items()))
        return array, f"{location.inside}/{name}".strip("/")
    listed = ", ".join(f"{name} {a.shape}" for name, a in sorted(arrays.items())) or "none"
    name = f"{location.inside}/{min(arrays, default='name')}".strip("/")
    raise FileFormatError(
        f"`{location}` must hold exactly one array of frames, but its arrays are: {listed}. "
        f"Name one, as in `{location.path.name}:/{name}`."
    )


def _arrays(group: Any, location: Location) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = dict(group.members(max_depth=None))
    except Exception as error:
        raise DamagedFileError(f"`{location}` has damaged zarr metadata ({error!r}).") from error
    return {name: member for name, member in members.items() if hasattr(member, "shape")}


def _dtype(array: Any) -> Any:
    return np.dtype(array.dtype)


def _listed(folder: Path) -> str:
    parts = sorted(p.name for p in folder.iterdir() if p.is_dir() and is_zarr_store(p))
    return f"The store holds: {', '.join(parts)}." if parts else "Choose another path."
