"""HDF5 files: a named dataset, the only one, or the conventions in `layouts.py`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DamagedFileError, DetectorcalError, FileFormatError, InputError
from detectorcal._files import reserve, sync
from detectorcal._hdf5 import Guarded, Image, create_unwritten
from detectorcal._typing import Shape
from detectorcal.io import layouts
from detectorcal.io._checks import check_dataset, damaged, files_of
from detectorcal.io._compression import hdf5_filters
from detectorcal.io._external import ExternalReader
from detectorcal.io._names import Location, is_numeric, kind_of, native, not_as_named, stack_shape
from detectorcal.io._nodes import broken, dangling, identity, join, members
from detectorcal.io._rest import Pending, Rest
from detectorcal.io._stack import FrameStack, Reader, Window
from detectorcal.io._writer import Plan, RawSink, Sink

_MOST_HELD = 2**28
"""Bytes of chunks that are held until they are whole."""


def open_stack(location: Location, line: bool) -> FrameStack:
    """Open a dataset, or the projections of a file that follows NXtomo or DXchange."""
    file = _open(location.path)
    try:
        with _naming(location):
            return _find_stack(file, location, line)
    except BaseException:
        file.close()
        raise


def read_attributes(location: Location) -> dict[str, Any]:
    """Read the attributes of a dataset."""
    with _open(location.path) as file, _naming(location):
        attributes = file[location.inside].attrs
        return {name: layouts.attribute_value(attributes[name]) for name in attributes}


def create(path: Path, plan: Plan) -> Sink:
    """Create a file with a place for the frames, and all that is copied into it."""
    import h5py

    image = Image()
    with ExitStack() as files:
        source = None if plan.like is None else files.enter_context(_open(_origin(plan).path))
        # in the layout of HDF5 1.8 (2008): with checksums of the metadata, and attributes of any size
        with h5py.File(image, "w", libver=("v108", "v108")) as file:
            dataset = _create_dataset(file, plan)
            with nullcontext() if source is None else _naming(_origin(plan)):
                pending = [] if source is None else _copy_rest(source, file, plan, path.parent)
                _lay_out(file, dataset, plan)
            offset = dataset.id.get_offset()
        image.write_to(path)
        for part in pending:
            part.write_to(path)
    return RawSink(path, offset, plan) if plan.is_plain else _ChunkSink(path, plan)


def create_lasting(path: Path, plan: Plan) -> RawSink:
    """Create a file that is valid from now on, with its space reserved, frames to follow."""
    if not plan.is_plain:
        raise InputError(
            "an HDF5 output with `chunks` or `compression` cannot be resumed, since the library writes it as "
            "a whole. Leave them out, or name a .zarr output, whose chunks are files of their own."
        )
    sink = create(path, plan)
    assert isinstance(sink, RawSink)
    reserve(path, sink.end)
    sync(path)
    return sink


def reopen(path: Path, plan: Plan) -> RawSink:
    """Find the place of the frames in a file that `create_lasting` made."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            dataset = file[plan.dataset]
            found, offset = (dataset.shape, dataset.dtype), dataset.id.get_offset()
    except (OSError, RuntimeError, KeyError) as error:
        raise DamagedFileError(f"`{path}` is damaged ({error}). Start again with `--overwrite`.") from error
    if found != (plan.shape, plan.dtype) or offset is None:
        raise DamagedFileError(f"`{path}` holds other data than asked for. Start again with `--overwrite`.")
    return RawSink(path, offset, plan)


def _create_dataset(file: Any, plan: Plan) -> Any:
    try:
        if plan.is_plain:
            return create_unwritten(file, plan.dataset, plan.shape, plan.dtype)
        filters = hdf5_filters(plan.compression)
        return file.create_dataset(plan.dataset, plan.shape, plan.dtype, chunks=plan.chunk, **filters)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"HDF5 cannot hold dataset `{plan.dataset}` of shape {plan.shape} as asked: {error}"
        ) from error


def _lay_out(file: Any, dataset: Any, plan: Plan) -> None:
    """Write what tells about the frames."""
    for key, value in plan.attributes.items():
        dataset.attrs[key] = layouts.attribute(value)
    if plan.layout == "nxtomo":
        layouts.write_nxtomo(file, plan)
    elif plan.layout == "dxchange":
        layouts.write_dxchange(file, plan)


def _origin(plan: Plan) -> Location:
    assert plan.like is not None
    assert plan.like.source is not None
    return plan.like.source.location


def _copy_rest(source: Any, file: Any, plan: Plan, folder: Path) -> list[Pending]:
    """Copy what the scan's file holds beside its frames; return what is to follow when the file is there."""
    origin = _origin(plan)
    scan = layouts.find(_node(source, origin), origin)
    if scan is None or plan.like is None or scan.name.strip("/") != plan.dataset.strip("/"):
        raise DamagedFileError(f"`{origin}` has changed since it was opened. Open it again.")
    rest = Rest(scan, plan.like, file, folder)
    rest.copy(source, join(origin.inside, ""))
    return rest.pending


@contextmanager
def _naming(location: Location) -> Iterator[None]:
    """Give our error for whatever the library raises about a damaged file."""
    try:
        yield
    except (DetectorcalError, MemoryError):
        raise
    except Exception as error:
        raise damaged(location, error) from error


class _ChunkSink:
    """Frames in chunks, which the library lays out and compresses as they come."""

    def __init__(self, path: Path, plan: Plan) -> None:
        import h5py

        self.step = plan.chunk[0]
        held = self.step * plan.nbytes // plan.shape[0]
        self._guard = Guarded(path)
        self._file = h5py.File(self._guard, "r+", rdcc_nbytes=min(max(held, 2**20), _MOST_HELD))
        self._dataset = self._file[plan.dataset]

    def put(self, start: int, frames: NDArray[Any]) -> None:
        with self._guard.watching():
            self._dataset[start : start + len(frames)] = frames

    def close(self) -> None:
        with self._guard.watching():
            self._file.close()
        self._guard.close()


class _Hdf5Reader:
    """Frames of a dataset; h5py itself lets one thread at a time into the library.

    Closes `file` in the end; flats and darks are given none, since it is their projections'.
    """

    def __init__(self, dataset: Any, shape: Shape, name: str, file: Any) -> None:
        self.shape = shape
        self.dtype = native(dataset.dtype, name)
        self.files = files_of(dataset)
        self.step = dataset.chunks[0] if dataset.chunks and dataset.ndim == len(shape) else 1
        self._dataset = dataset
        self._file = file
        self._name = name

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        try:
            if self._dataset.ndim < len(self.shape):
                self._dataset.read_direct(out[0], window)
            else:
                self._dataset.read_direct(out, (slice(start, stop), *window))
        except MemoryError:
            raise
        except Exception as error:  # every filter has errors of its own
            raise DamagedFileError(
                f"`{self._name}` is damaged in frames {start} to {stop - 1} ({error})."
            ) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> Any:
    import h5py

    if not h5py.is_hdf5(path) and kind_of(path) != "an HDF5 file":
        raise not_as_named(path, "an HDF5 file")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except (PermissionError, BlockingIOError):
        raise
    except (OSError, RuntimeError) as error:
        raise damaged(path, error) from error


def _find_stack(file: Any, location: Location, line: bool) -> FrameStack:
    node = _node(file, location)
    if hasattr(node, "shape"):
        return FrameStack(_reader(node, location.path, line, file), str(location))
    tomography = None if line else layouts.find(node, location)
    if tomography is None:
        dataset = _only_dataset(node, location, line)
        return FrameStack(_reader(dataset, location.path, line, file), f"{location.path}:{dataset.name}")
    reader = _reader(tomography.data, location.path, False, file)

    def part(source: Any, frames: NDArray[np.intp] | None) -> FrameStack | None:
        if source is None or source.size == 0 or (frames is not None and frames.size == 0):
            return None
        own = _reader(source, location.path, False, None)
        name = tomography.name if source is tomography.data else source.name
        return FrameStack(own, f"{location.path}:{name}", frames=frames, layout=tomography.layout)

    return FrameStack(
        reader,
        f"{location.path}:{tomography.name}",
        frames=tomography.projections,
        layout=tomography.layout,
        flats=part(tomography.flats, tomography.flat_frames),
        darks=part(tomography.darks, tomography.dark_frames),
        angles=tomography.angles,
    )


def _node(file: Any, location: Location) -> Any:
    """Return the group or dataset that was named."""
    if not location.inside:
        return file
    try:
        return file[location.inside]
    except KeyError as error:
        if (found := dangling(file, location.inside)) is not None:
            raise broken(str(location), location.path, found[1]) from error
        names = ", ".join(f"{d.name} {d.shape}" for d in datasets(file)) or "no dataset"
        raise FileFormatError(f"`{location}` names nothing in the file, which holds {names}.") from error
    except OSError as error:
        if (found := dangling(file, location.inside)) is not None:
            raise broken(str(location), location.path, found[1]) from error
        raise


def _reader(dataset: Any, path: Path, line: bool, file: Any) -> Reader:
    name = f"{path}:{dataset.name}"
    native(dataset.dtype, name)
    shape = stack_shape(dataset.shape or (), line, name)
    if dataset.external:
        return ExternalReader(dataset, shape, name, file)
    check_dataset(dataset, name)
    return _Hdf5Reader(dataset, shape, name, file)


def datasets(group: Any) -> Iterator[Any]:
    """Yield every dataset below a group once, through links of all kinds; dangling ones are skipped."""
    import h5py

    seen: set[tuple[str, int]] = set()
    groups = [group]
    while groups:
        for _, node in members(groups.pop(0)):
            found = identity(node)
            if found in seen:
                continue
            seen.add(found)
            if isinstance(node, h5py.Dataset):
                yield node
            elif isinstance(node, h5py.Group):
                groups.append(node)


def _only_dataset(group: Any, location: Location, line: bool) -> Any:
    found = [d for d in datasets(group) if d.shape is not None and is_numeric(d.dtype)]
    stacks = [] if line else [d for d in found if d.ndim == 3]
    chosen = stacks or [d for d in found if d.ndim == 2 and d.size != 1]
    chosen = [d for d in chosen if d.size] or chosen
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(f"{d.name} {d.shape}" for d in chosen or found) or "none"
    example = (chosen or found)[0].name if found else "/dataset"
    raise FileFormatError(
        f"`{location}` must hold exactly one stack of frames; numeric datasets in question: {listed}. "
        f"Name one, as in `{location.path.name}:{example}`."
    )
