"""HDF5: the header is a string in the root's attribute, every array a contiguous dataset."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import FileFormatError
from detectorcal._files import write_at
from detectorcal._hdf5 import Image, create_unwritten

from .header import FORMAT, MARK, PROTOCOL, Arrays, Load, Spec, check_layout


def recognises(path: Path) -> bool:
    """Tell whether the file has HDF5's signature."""
    import h5py

    return bool(h5py.is_hdf5(path))


def write(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """Write the file."""
    import h5py

    image = Image()
    offsets = {}
    # The layout of HDF5 1.8 (2008) is the oldest whose metadata carry checksums, without which a
    # flipped bit leads the library anywhere. They cover strings of fixed length only.
    with h5py.File(image, "w", libver=("v108", "v108")) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["protocol"] = PROTOCOL
        file.attrs[MARK] = np.bytes_(json.dumps(header))
        for name, array in arrays.items():
            dataset = create_unwritten(file, name, array.shape, array.dtype)
            offsets[name] = dataset.id.get_offset()
            if description := header["arrays"][name].get("description"):
                dataset.attrs["description"] = description
    image.write_to(path)
    with path.open("r+b", buffering=0) as written:
        for name, array in arrays.items():
            write_at(written, offsets[name], array)


@contextmanager
def open_file(path: Path) -> Iterator[tuple[Any, Load]]:
    """Yield the header as it is stored, and a loader of arrays."""
    import h5py

    held = path.stat().st_size

    def load(index: int, name: str, spec: Spec) -> NDArray[Any]:
        dataset = _follow(file, name, path)
        # Only a contiguous dataset in this very file has an offset: none with chunks (so no
        # filters), external storage or a virtual layout has.
        offset = dataset.id.get_offset()
        if offset is None or offset + dataset.id.get_storage_size() > held:
            raise ValueError(f"the bytes of array {name!r} do not lie in the file, plain and in one piece")
        check_layout(name, (dataset.shape, dataset.dtype.newbyteorder("=")), (spec.shape, spec.dtype))
        return np.asarray(dataset[...], dtype=spec.dtype)

    with h5py.File(path, "r") as file:
        yield _raw_header(file, held), load


def _raw_header(file: Any, held: int) -> bytes | None:
    if MARK not in file.attrs:
        return None
    attribute = file.attrs.get_id(MARK)
    if attribute.dtype.kind != "S" or attribute.shape != () or attribute.get_storage_size() > held:
        raise ValueError("its header is not a string of fixed length")
    return bytes(file.attrs[MARK])


def _follow(file: Any, name: str, path: Path) -> Any:
    """Go to a dataset by hard links alone, which cannot lead out of the file."""
    import h5py

    node = file
    for part in name.split("/"):
        if isinstance(node.get(part, getlink=True), h5py.SoftLink | h5py.ExternalLink):
            raise FileFormatError(
                f"{name!r} in {path} is a link, which detectorcal does not follow. "
                "Put what it leads to in its place."
            )
        if part not in node:
            raise ValueError(f"array {name!r} is missing")
        node = node[part]
    return node
