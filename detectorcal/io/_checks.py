"""What is looked at in an HDF5 dataset before it is read, for the library would not say it, or crash."""

import math
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    MissingDependencyError,
    MissingFileError,
)
from detectorcal._typing import Shape
from detectorcal.io._nodes import file_of, get, is_dataset

_MOST_NESTED = 8
"""Virtual datasets of virtual datasets that are followed."""
_SEAL_LENGTH = 4
"""Bytes of the Fletcher checksum at the end of a chunk."""


def damaged(name: object, error: Exception) -> DamagedFileError:
    """Give our error for any of the many that the library raises about a damaged file."""
    return DamagedFileError(f"`{name}` is truncated or corrupted ({error}). Copy it again from its source.")


def check_dataset(dataset: Any, name: str) -> None:
    """Make sure that a dataset can be read, and that it is read from what it is made of."""
    _check_filters(dataset, name)
    _check_seals(dataset, name)
    _check_sources(dataset, name)


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


def _check_sources(dataset: Any, name: str, depth: int = 0) -> None:
    """Refuse a virtual dataset whose parts are not as it has them.

    HDF5 reads zeros where parts are gone or too small, and crashes (2.0.0) where they have other axes or a
    dataset is made of itself.
    """
    if not dataset.is_virtual:
        return
    if depth > _MOST_NESTED:
        raise DamagedFileError(f"`{name}` is made of virtual datasets that are made of each other.")
    shapes: dict[tuple[str, str], Shape] = {}
    for source in dataset.virtual_sources():
        key = (source.file_name, source.dset_name)
        if "%" in source.file_name + source.dset_name:
            continue  # a pattern: as many files as there are
        if key not in shapes:
            shapes[key] = _source_shape(dataset, *key, name, depth)
        if not _fits(source, shapes[key]):
            raise DamagedFileError(
                f"`{name}` takes frames from `{key[1]}` in `{key[0]}` that its shape {shapes[key]} does not "
                f"have. Was the scan stopped? Open what there is by name: `{key[0]}:{key[1]}`."
            )


def files_of(dataset: Any) -> set[Path]:
    """Give the file that a dataset is in and, of a virtual one, those that its parts are in."""
    own = file_of(dataset)
    parts = dataset.virtual_sources() if dataset.is_virtual else []
    found = (_found(own, source.file_name) for source in parts)
    return {own, *(path for path in found if path is not None)}


def _found(own: Path, file_name: str) -> Path | None:
    candidates = [own] if file_name == "." else [own.parent / file_name, Path(file_name)]
    return next((path for path in candidates if path.exists()), None)


def _fits(source: Any, shape: Shape) -> bool:
    """Tell whether a dataset of this shape has what is taken from it."""
    space = source.src_space
    if space.get_simple_extent_ndims() == 0:  # all of it
        return bool(math.prod(shape) == source.vspace.get_select_npoints())
    if space.get_simple_extent_ndims() != len(shape):
        return False
    try:
        ends = space.get_select_bounds()[1]
    except (RuntimeError, ValueError):  # as much as there is
        return True
    return all(int(end) < size for end, size in zip(ends, shape, strict=True))


def _source_shape(dataset: Any, file_name: str, inside: str, name: str, depth: int) -> Shape:
    own = file_of(dataset)
    found = _found(own, file_name)
    if found is None:
        raise MissingFileError(
            f"`{name}` is made of other files, of which `{file_name}` is missing. Put it beside `{own.name}`."
        )
    if found == own:
        shape = _shape_in(dataset.file, inside, depth)
    else:
        shape = _shape_of(str(found.absolute()), inside, found.stat().st_mtime_ns, depth)
    if shape is None:
        raise DamagedFileError(
            f"`{name}` is made of other files, of which `{file_name}` holds no dataset `{inside}`."
        )
    return shape


@lru_cache(4096)
def _shape_of(path: str, inside: str, modified: int, depth: int) -> Shape | None:
    """Give the shape of a dataset of another file, which is asked for again for each part of a scan."""
    import h5py

    try:
        # forgotten, which closes it: to close a file h5py looks through all that is open, which is much
        return _shape_in(h5py.File(path, "r", locking="best-effort"), inside, depth)
    except (OSError, RuntimeError) as error:
        if isinstance(error, DetectorcalError):
            raise
        return None


def _shape_in(file: Any, inside: str, depth: int) -> Shape | None:
    node = get(file, inside)
    if not is_dataset(node):
        return None
    _check_sources(node, f"{file.filename}:{inside}", depth + 1)
    shape: Shape = node.shape
    return shape
