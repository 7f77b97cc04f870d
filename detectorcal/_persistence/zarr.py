"""zarr, format 3: the header is an object in the group's attributes, every array one plain chunk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .header import MARK, Arrays, Load, Spec, check_layout


def recognises(path: Path) -> bool:
    """Tell whether the folder is a zarr node of format 3."""
    return (path / "zarr.json").is_file()


def write(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """Write the folder."""
    import zarr

    store = zarr.storage.LocalStore(path)
    group = zarr.create_group(store, overwrite=True, zarr_format=3, attributes={MARK: header})
    for name, array in arrays.items():
        description = header["arrays"][name].get("description")
        stored = group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.shape,
            filters=None,
            compressors=None,
            attributes={"description": description} if description else None,
            # A chunk of nothing but zeros is written too, else the size on disk would say nothing.
            config={"write_empty_chunks": True},
        )
        stored[...] = array


@contextmanager
def open_folder(path: Path) -> Iterator[tuple[Any, Load]]:
    """Yield the header as it is stored, and a loader of arrays."""
    import zarr

    def load(index: int, name: str, spec: Spec) -> NDArray[Any]:
        if name not in group:
            raise ValueError(f"array {name!r} is missing")
        array = group[name]
        codecs = [codec["name"] for codec in array.metadata.to_dict()["codecs"]]
        found = (array.shape, array.dtype, array.chunks, codecs)
        check_layout(name, found, (spec.shape, spec.dtype, spec.shape, ["bytes"]))
        return np.asarray(array[...], dtype=spec.dtype)

    if not isinstance(zarr.open(zarr.storage.LocalStore(path, read_only=True), mode="r"), zarr.Group):
        yield None, load
        return
    group = zarr.open_group(zarr.storage.LocalStore(path, read_only=True), mode="r", zarr_format=3)
    yield group.attrs.get(MARK), load
