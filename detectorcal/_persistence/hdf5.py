"""hdf5"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

def _write_hdf5(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    import h5py

    # The layout of HDF5 1.8 (2008) is the oldest one whose metadata carry checksums. They cover
    # strings of fixed length, but not those of variable length.
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["protocol"] = PROTOCOL
        file.attrs[_MARK] = np.bytes_(json.dumps(header))
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array)
            if description := header["arrays"][name].get("description"):
                dataset.attrs["description"] = description


@contextmanager
def _open_hdf5(path: Path) -> Iterator[tuple[Any, _Load]]:
    import h5py

    held = path.stat().st_size

    def load(index: int, name: str, spec: _Spec) -> NDArray[Any]:
        node = file
        for part in name.split("/"):
            link = node.get(part, getlink=True)
            if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
                raise FileFormatError(f"{part!r} in {path} is a link, which detectorcal does not follow. Save again.")
            node = node[part]
        # Only a contiguous dataset whose bytes are in this very file has an offset: no chunks (so no
        # filters), no external storage, no virtual dataset.
        offset = node.id.get_offset()
        if offset is None or offset + node.id.get_storage_size() > held:
            raise ValueError(f"the bytes of array {name!r} are not all in the file")
        _check_layout(name, (node.shape, node.dtype.newbyteorder("=")), spec[:2])
        return np.asarray(node[...], dtype=spec.dtype)

    with h5py.File(path, "r") as file:
        raw = None
        if _MARK in file.attrs:
            attribute = file.attrs.get_id(_MARK)
            if attribute.dtype.kind != "S" or attribute.shape != () or attribute.get_storage_size() > held:
                raise ValueError("its header is not a string of fixed length")
            raw = bytes(file.attrs[_MARK])
        yield raw, load
