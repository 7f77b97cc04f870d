"""zarr"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

def _write_zarr(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    import zarr

    store = zarr.storage.LocalStore(path)
    group = zarr.create_group(store, overwrite=True, zarr_format=3, attributes={_MARK: header})
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
            # A chunk of nothing but zeros is written too, else the size on disk says nothing.
            config={"write_empty_chunks": True},
        )
        stored[...] = array


@contextmanager
def _open_zarr(path: Path) -> Iterator[tuple[Any, _Load]]:
    import zarr

    def load(index: int, name: str, spec: _Spec) -> NDArray[Any]:
        array = group[name]
        codecs = [codec["name"] for codec in array.metadata.to_dict()["codecs"]]
        found = (array.shape, array.dtype, array.chunks, codecs)
        _check_layout(name, found, (*spec[:2], spec.shape, ["bytes"]))
        return np.asarray(array[...], dtype=spec.dtype)

    group = zarr.open_group(zarr.storage.LocalStore(path, read_only=True), mode="r", zarr_format=3)
    yield group.attrs.get(_MARK), load
