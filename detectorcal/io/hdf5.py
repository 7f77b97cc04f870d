"""HDF5 files: a named dataset, the only one, or the conventions in `layouts.py`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingDependencyError,
    MissingFileError,
)
from detectorcal._files import reserve, sync
from detectorcal._hdf5 import Image, create_unwritten
from detectorcal._typing import Shape
from detectorcal.io import layouts
from detectorcal.io._names import Location, describe, is_numeric, native, stack_shape
from detectorcal.io._stack import FrameStack, Reader, Window
from detectorcal.io._writer import Plan, RawSink, Sink

_SEAL_LENGTH = 4
"""Bytes of the Fletcher checksum at the end of a chunk."""


def open_stack(location: Location, line: bool) -> FrameStack:
    """Open a dataset, or the projections of a file that follows NXtomo or DXchange."""
    file = _open(location.path)
    try:
        return _find_stack(file, location, line)
    except BaseException as error:
        file.close()
        if isinstance(error, DetectorcalError | MemoryError) or not isinstance(error, Exception):
            raise
        raise _damaged(location, error) from error


def read_attributes(location: Location) -> dict[str, Any]:
    """Read the attributes of a dataset."""
    file = _open(location.path)
    try:
        attributes = file[location.inside].attrs
        return {name: layouts.attribute_value(attributes[name]) for name in attributes}
    except Exception as error:  # a damaged file makes the library raise nearly anything
        raise _damaged(location, error) from error
    finally:
        file.close()


def create(path: Path, plan: Plan) -> Sink:
    """Create a file with a place for the frames."""
    import h5py

    name = _dataset_name(plan)
    image = Image()
    file = h5py.File(path if plan.chunks else image, "w")
    try:
        dataset = _lay_out(file, name, plan)
    except BaseException as error:
        file.close()
        if isinstance(error, ValueError | TypeError | RuntimeError):
            raise InputError(
                f"HDF5 cannot hold dataset `{name}` of shape {plan.shape} as asked: {error}"
            ) from error
        raise
    if plan.chunks:
        return _ChunkSink(file, dataset)
    offset = dataset.id.get_offset()
    file.close()
    image.write_to(path)
    return RawSink(path, offset, plan)


def create_lasting(path: Path, plan: Plan) -> RawSink:
    """Create a file that is valid from now on, with its space reserved, frames to follow."""
    sink = create(path, plan)
    if not isinstance(sink, RawSink):  # pragma: no cover - the only caller asks for no chunks
        raise InputError("`chunks` are not for an output that can be resumed. Leave them out.")
    reserve(path, sink.end)
    sync(path)
    return sink


def reopen(path: Path, plan: Plan) -> RawSink:
    """Find the place of the frames in a file that `create_lasting` made."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            dataset = file[_dataset_name(plan)]
            found, offset = (dataset.shape, dataset.dtype), dataset.id.get_offset()
    except (OSError, RuntimeError, KeyError) as error:
        raise DamagedFileError(f"`{path}` is damaged ({error}). Start again with `--overwrite`.") from error
    if found != (plan.shape, plan.dtype) or offset is None:
        raise DamagedFileError(f"`{path}` holds other data than asked for. Start again with `--overwrite`.")
    return RawSink(path, offset, plan)


def _dataset_name(plan: Plan) -> str:
    named = {"nxtomo": layouts.NXTOMO_DATA, "dxchange": layouts.DXCHANGE_DATA}
    return named.get(plan.layout or "", plan.dataset or "data")


def _lay_out(file: Any, name: str, plan: Plan) -> Any:
    """Write everything but the frames, and return their dataset."""
    dataset = _create_dataset(file, name, plan)
    for key, value in plan.attributes.items():
        dataset.attrs[key] = layouts.attribute(value)
    if plan.layout == "nxtomo":
        layouts.write_nxtomo(file, plan)
    elif plan.layout == "dxchange":
        layouts.write_dxchange(file, plan)
    return dataset


def _create_dataset(file: Any, name: str, plan: Plan) -> Any:
    if plan.chunks:
        return file.create_dataset(name, plan.shape, plan.dtype, chunks=plan.chunks)
    return create_unwritten(file, name, plan.shape, plan.dtype)


class _ChunkSink:
    def __init__(self, file: Any, dataset: Any) -> None:
        self._file = file
        self._dataset = dataset

    def put(self, start: int, frames: NDArray[Any]) -> None:
        self._dataset[start : start + len(frames)] = frames

    def close(self) -> None:
        self._file.close()


class _Hdf5Reader:
    """Frames of a dataset; h5py itself lets one thread at a time into the library.

    Closes `file` in the end; flats and darks are given none, since it is their projections'.
    """

    def __init__(self, dataset: Any, shape: Shape, name: str, file: Any) -> None:
        self.shape = shape
        self.dtype = native(dataset.dtype, name)
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

    kind = describe(path)
    if kind == "empty":
        raise DamagedFileError(f"`{path}` is empty, although it is named like an HDF5 file.")
    if not h5py.is_hdf5(path) and kind != "an HDF5 file":
        raise FileFormatError(f"`{path}` should be an HDF5 file, but is {kind}. Correct its suffix.")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except (PermissionError, BlockingIOError):
        raise
    except (OSError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(name: object, error: Exception) -> DamagedFileError:
    """Give our error for any of the many that the library raises about a damaged file."""
    return DamagedFileError(f"`{name}` is truncated or corrupted ({error}). Copy it again from its source.")


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
        return FrameStack(own, f"{location.path}:{source.name}", frames=frames, layout=tomography.layout)

    return FrameStack(
        reader,
        f"{location.path}:{tomography.data.name}",
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
        link = file.get(location.inside, getlink=True)
        if hasattr(link, "filename"):
            raise MissingFileError(
                f"`{location}` links to `{link.path}` in `{link.filename}`, which is not there."
            ) from error
        names = ", ".join(f"{d.name} {d.shape}" for d in datasets(file)) or "no dataset"
        raise FileFormatError(f"`{location}` names nothing in the file, which holds {names}.") from error
    except OSError as error:
        raise MissingFileError(f"`{location}` links to a file that cannot be opened: {error}.") from error


def _reader(dataset: Any, path: Path, line: bool, file: Any) -> Reader:
    name = f"{path}:{dataset.name}"
    native(dataset.dtype, name)
    shape = stack_shape(dataset.shape or (), line, name)
    _check_filters(dataset, name)
    _check_seals(dataset, name)
    _check_sources(dataset, path, name)
    return _Hdf5Reader(dataset, shape, name, file)


def _check_filters(dataset: Any, name: str) -> None:
    """Make sure that the compression can be undone; Eiger detectors' bitshuffle needs hdf5plugin."""
    import h5py

    def unknown() -> list[int]:
        settings = dataset.id.get_create_plist()
        codes = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        return [code for code in codes if not h5py.h5z.filter_avail(code)]

    if not unknown():
        return
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 importing it registers its filters
    if codes := unknown():
        raise MissingDependencyError(
            f"`{name}` is compressed with HDF5 filter {codes[0]}, which needs hdf5plugin: "
            f'pip install "detectorcal[codecs]"'
        )


def _check_seals(dataset: Any, name: str) -> None:
    """Refuse chunks too short for their checksum: libhdf5 (2.0.0) reads what lies before them and crashes.

    All of them, since in a damaged index the library's searches do not find the same chunk.
    """
    if not dataset.fletcher32:
        return
    short = dataset.id.chunk_iter(lambda chunk: chunk.size if chunk.size < _SEAL_LENGTH else None)
    if short is not None:
        raise DamagedFileError(
            f"`{name}` is damaged: a chunk of it has {short} bytes, its checksum included."
        )


def _check_sources(dataset: Any, path: Path, name: str) -> None:
    """Refuse a virtual dataset whose parts are gone: HDF5 would silently read zeros."""
    if not dataset.is_virtual:
        return
    for source in dataset.virtual_sources():
        candidates = (path.parent / source.file_name, Path(source.file_name))
        is_elsewhere = source.file_name != "." and "%" not in source.file_name
        if is_elsewhere and not any(candidate.exists() for candidate in candidates):
            raise MissingFileError(
                f"`{name}` is made of other files, of which `{source.file_name}` is missing."
            )


def datasets(group: Any) -> Iterator[Any]:
    """Yield every dataset below a group once, through links of all kinds; dangling ones are skipped."""
    import h5py

    seen: set[tuple[int, int]] = set()
    groups = [group]
    while groups:
        for node in layouts.children(groups.pop(0)):
            info = h5py.h5o.get_info(node.id)
            identity = (info.fileno, info.addr)
            if identity in seen:
                continue
            seen.add(identity)
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
