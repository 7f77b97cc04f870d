"""TIFF: the header is the description of the first page, every array a page.

ImageJ opens a stack of 32-bit floats, but no 64-bit ones and no mixture. So the pages show every
array in float32, and have a SubIFD, which viewers pass over, with the array as it is. A float32
array is its page itself.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._files import write_at

from .header import FORMAT, Arrays, Load, Spec, check_layout

_PAGE_NAME = 285
_UNCOMPRESSED = 1
_SEPARATORS = (", ", " : ")  # tifffile takes any JSON with `"shape":` in it for its own
_CLASSIC_LIMIT = 2**32 - 2**25  # offsets have 32 bits; the margin is for the header and the tags


def recognises(path: Path) -> bool:
    """Tell whether the file has the signature of TIFF or BigTIFF, of either byte order."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def write(path: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """Write the file; a BigTIFF only where it must be one, for ImageJ does not open those."""
    import tifffile

    whole = json.dumps(header, separators=_SEPARATORS).encode()
    total = sum(array.nbytes + 4 * array.size for array in arrays.values())
    places: list[tuple[int, NDArray[Any]]] = []
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=total > _CLASSIC_LIMIT) as file:

        def write(values: NDArray[Any], **tags: Any) -> None:
            """Make a place for values that are written past tifffile, which says little of a full disk."""
            place = file.write(None, shape=values.shape, dtype=values.dtype, returnoffset=True, **tags)
            places.append((place[0], values))

        for i, (name, array) in enumerate(arrays.items()):
            exact = array.reshape(_image_shape(array.shape)).astype(_tiff_type(array.dtype), copy=False)
            text = whole if i == 0 else header["arrays"][name].get("description", name).encode()
            tags: dict[str, Any] = {
                "photometric": "minisblack",
                "metadata": None,
                "software": False,
                "extratags": [(_PAGE_NAME, "s", 0, name, True)],
            }
            if _shows_itself(exact.dtype):
                write(exact, description=text, **tags)
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                shown = exact.astype(np.float32)
            write(shown, description=text, subifds=1, **tags)
            write(exact, **tags)
    with path.open("r+b", buffering=0) as written:
        for offset, values in places:
            write_at(written, offset, values)


@contextmanager
def open_file(path: Path) -> Iterator[tuple[Any, Load]]:
    """Yield the header as it is stored, and a loader of arrays."""
    import tifffile

    def load(index: int, name: str, spec: Spec) -> NDArray[Any]:
        page = file.pages[index]
        if not _shows_itself(spec.dtype):
            page = page.pages[0]
        found = (page.shape, page.dtype, page.compression, bool(page.is_contiguous))
        wanted = (_image_shape(spec.shape), _tiff_type(spec.dtype), _UNCOMPRESSED, True)
        check_layout(name, found, wanted)
        return np.asarray(page.asarray().reshape(spec.shape), dtype=spec.dtype)

    with _muted("tifffile"), tifffile.TiffFile(path) as file:
        text = file.pages[0].description
        yield text if FORMAT in text else None, load


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape)[-2:]


def _shows_itself(dtype: np.dtype[Any]) -> bool:
    return dtype.name == "float32"


def _tiff_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    # TIFF knows no booleans, only single bits, which viewers invert or refuse.
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


@contextmanager
def _muted(name: str) -> Iterator[None]:
    """Keep a library's log quiet in this thread: what it complains of comes back as an exception."""
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger(name)
    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)
