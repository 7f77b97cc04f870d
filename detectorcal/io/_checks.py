"""What is looked at in an HDF5 dataset before it is read, for the library would not say it, or crash."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from detectorcal._errors import DamagedFileError, MissingDependencyError, MissingFileError
from detectorcal.io._nodes import file_of

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


def _check_sources(dataset: Any, name: str) -> None:
    """Refuse a virtual dataset whose parts are gone: HDF5 would silently read zeros."""
    if not dataset.is_virtual:
        return
    own = file_of(dataset)
    parts = {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}
    for file_name, inside in sorted(parts):
        if "%" in file_name or "%" in inside:
            continue  # a pattern: as many files as there are
        candidates = [own] if file_name == "." else [own.parent / file_name, Path(file_name)]
        found = next((path for path in candidates if path.exists()), None)
        if found is None:
            raise MissingFileError(
                f"`{name}` is made of other files, of which `{file_name}` is missing. Put it beside "
                f"`{own.name}`."
            )
        if not _holds(str(found.absolute()), inside, found.stat().st_mtime_ns):
            raise DamagedFileError(
                f"`{name}` is made of other files, of which `{file_name}` holds no dataset `{inside}`."
            )


@lru_cache(1024)
def _holds(path: str, inside: str, modified: int) -> bool:
    """Tell whether a file holds a dataset; asked again for each part of a scan, of the same files."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return isinstance(file.get(inside), h5py.Dataset)
    except (OSError, RuntimeError, KeyError):
        return False
