"""tiff"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#
# ImageJ opens a stack of 32-bit floats and refuses 64-bit ones and mixtures. So the pages show every
# array in float32, and each page carries a SubIFD, which viewers pass over, with the array as it is.


def _write_tiff(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    import tifffile

    total = sum(array.nbytes + 4 * array.size for array in arrays.values())
    big = total > 2**32 - 2**25  # classic TIFF has 32-bit offsets; the margin is for header and tags
    layout: dict[str, Any] = {"photometric": "minisblack", "metadata": None, "software": False}
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=big) as file:
        for i, (name, array) in enumerate(arrays.items()):
            exact = array.reshape(_image_shape(array.shape)).astype(_tiff_type(array.dtype), copy=False)
            with np.errstate(over="ignore", invalid="ignore"):
                shown = exact.astype(np.float32)
            label = (285, "s", 0, name, True)  # PageName
            text = json.dumps(header) if i == 0 else header["arrays"][name].get("description")
            file.write(shown, description=text, extratags=[label], subifds=1, **layout)
            file.write(exact, extratags=[label], **layout)


@contextmanager
def _open_tiff(path: Path) -> Iterator[tuple[Any, _Load]]:
    import tifffile

    def load(index: int, name: str, spec: _Spec) -> NDArray[Any]:
        exact = file.pages[index].pages[0]
        found = (exact.shape, exact.dtype, exact.compression)
        _check_layout(name, found, (_image_shape(spec.shape), _tiff_type(spec.dtype), 1))
        return np.asarray(exact.asarray().reshape(spec.shape), dtype=spec.dtype)

    with _muted("tifffile"), tifffile.TiffFile(path) as file:
        text = file.pages[0].description
        yield text if FORMAT in text else None, load


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape)[-2:]


def _tiff_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # TIFF has no booleans but bits.
    return np.dtype(np.uint8) if dtype == bool else dtype


@contextmanager
def _muted(name: str) -> Iterator[None]:
    """Keep a library's log quiet in this thread: its complaints come back as an exception."""
    thread = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger(name)
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)
