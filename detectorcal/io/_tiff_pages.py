"""TIFF files that are written: plain ones at once and filled with frames, compressed ones page by page."""

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from detectorcal._errors import InputError
from detectorcal._typing import Shape
from detectorcal.io._compression import tiff_options
from detectorcal.io._writer import Plan, RawSink, Sink

_LARGEST_CLASSIC = 2**32 - 2**25
"""Bytes that a classic TIFF may hold: its offsets have 32 bits; the reserve is tifffile's own."""
_BYTES_PER_PAGE = 512
"""Upper estimate of what a page takes beside its pixels."""
RESERVED = {"shape", "axes", "truncate"}
"""Words that tifffile itself writes into, or reads from, the JSON ImageDescription."""


def create(path: Path, plan: Plan) -> Sink:
    """Write a greyscale TIFF without its pixels, frames to follow."""
    import tifffile

    if plan.dtype.kind == "b":
        raise InputError("`dtype` must not be bool for a TIFF, which packs booleans into bits. Use uint8.")
    if reserved := RESERVED.intersection(plan.attributes):
        raise InputError(
            f"`attributes` of a TIFF must not be named {', '.join(sorted(reserved))}: rename them."
        )
    if plan.compression is not None:
        return _PageSink(path, plan, plan.compression)
    with tifffile.TiffWriter(path, bigtiff=needs_bigtiff(plan)) as tif:
        offset, _ = tif.write(
            None,
            shape=_pages_shape(plan),
            dtype=plan.dtype,
            photometric="minisblack",
            metadata=plan.attributes,
            software="detectorcal",
            returnoffset=True,
        )
    return RawSink(path, offset, plan)


def _pages_shape(plan: Plan) -> Shape:
    """Give the shape for other programs, to which a lone frame is an image and not a stack of one."""
    return plan.shape[1:] if len(plan.shape) == 3 and plan.shape[0] == 1 else plan.shape


class _PageSink:
    """Frames as compressed pages, of which each begins where the one before it ended: in order."""

    def __init__(self, path: Path, plan: Plan, compression: str) -> None:
        import tifffile

        if len(plan.shape) < 3:
            raise InputError(
                "`compression` of a TIFF is for area frames. Leave it out, or name an .h5 output."
            )
        self._tif = tifffile.TiffWriter(path, bigtiff=needs_bigtiff(plan))
        self._next = 0
        # the pages belong together; without the word tifffile would look for it among the attributes
        self._description: str | None = json.dumps({"shape": _pages_shape(plan), **plan.attributes})
        self._how = tiff_options(compression)

    def put(self, start: int, frames: NDArray[Any]) -> None:
        if start != self._next:
            raise InputError(
                f"frames of a compressed TIFF are written in order: {self._next} is next, not {start}."
            )
        for frame in frames:
            self._tif.write(
                frame, photometric="minisblack", metadata=None, description=self._description,
                software="detectorcal", contiguous=False, **self._how,
            )  # fmt: skip
            self._description = None
        self._next += len(frames)

    def close(self) -> None:
        self._tif.close()


def needs_bigtiff(plan: Plan) -> bool:
    """Tell whether the file is too large for 32-bit offsets."""
    pages = plan.shape[0] if len(plan.shape) > 2 else 1
    return plan.nbytes + pages * _BYTES_PER_PAGE > _LARGEST_CLASSIC
