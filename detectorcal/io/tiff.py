"""TIFF: multi-page, BigTIFF, OME, ImageJ, tiled; and folders of single-frame files."""

import glob
import json
import logging
import math
import os
import re
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
from detectorcal._files import reading
from detectorcal._typing import Shape
from detectorcal.io._names import FORMATS, Location, is_pattern, kind_of, native, not_as_named, stack_shape
from detectorcal.io._stack import ArrayReader, FrameStack, Reader, Window
from detectorcal.io._tiff_pages import RESERVED, create

__all__ = ["create", "list_files", "open_stack", "read_attributes"]

_PALETTE = 3
_BIGTIFF = 43
# What tifffile says of a file that ends too early or refers to others that are gone.
_ALARM = re.compile(r"invalid (page )?offset|circular|corrupted|missing \d|is missing|failed to read")


def open_stack(location: Location, line: bool) -> FrameStack:
    """Open a TIFF file, or a folder or pattern of single-frame TIFF files."""
    path = location.path
    if path.is_file():
        return FrameStack(_open_file(path, line), str(path))
    if line:
        raise InputError(
            f"`{path}` is a series of area frames; line=True needs one file of shape (n, width)."
        )
    return FrameStack(_Series(list_files(path)), str(path))


def read_attributes(location: Location) -> dict[str, Any]:
    """Read the JSON object in the first page's ImageDescription."""
    import tifffile

    with _listening():
        try:
            with tifffile.TiffFile(location.path) as tif:
                found = json.loads(tif.pages[0].description)
        except ValueError:  # another program's text
            found = None
        except Exception as error:
            raise _damaged(location.path, str(error)) from error
    return {key: found[key] for key in found if key not in RESERVED} if isinstance(found, dict) else {}


class _Listener(logging.Filter):
    """Catches what tifffile logs in a thread that is listening, and keeps it off the console."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        heard: list[str] | None = getattr(self.local, "heard", None)
        if heard is None:
            return True
        heard.append(record.getMessage())
        return False


_LISTENER = _Listener()


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect tifffile's complaints: it logs, and goes on with fewer frames, where we must raise."""
    logging.getLogger("tifffile").addFilter(_LISTENER)
    before = getattr(_LISTENER.local, "heard", None)
    heard: list[str] = []
    _LISTENER.local.heard = heard
    try:
        yield heard
    finally:
        _LISTENER.local.heard = before


def _open_file(path: Path, line: bool) -> Reader:
    tif, pages, contiguous = _open_pages(path)
    try:
        return _make_reader(path, tif, pages, contiguous, line)
    except BaseException as error:
        tif.close()
        if _is_told(error):
            raise
        raise _damaged(path, str(error)) from error


def _open_pages(path: Path) -> tuple[Any, list[Any], Any]:
    """Return the open file, its pages of one shape, and the series if it is one contiguous block."""
    import tifffile

    if "TIFF" not in (kind_of(path) or ""):
        raise not_as_named(path, "a TIFF file")
    tif = None
    with _listening() as heard:
        try:
            _refuse_circles(path)
            tif = tifffile.TiffFile(path)
            pages = [page for series in tif.series for page in series.pages]
            alarms = [text for text in heard if _ALARM.search(text)]
            if alarms or not pages:
                raise _damaged(path, alarms[0] if alarms else "it holds no frame")
            contiguous = _contiguous(tif)
            _check_pages(path, tif.series)
        except BaseException as error:
            if tif is not None:
                tif.close()
            if _is_told(error):
                raise
            raise _damaged(path, str(error)) from error
    return tif, pages, contiguous


def _is_told(error: BaseException) -> bool:
    """Tell whether an error says what is wrong; a damaged file makes tifffile raise nearly anything else."""
    return isinstance(error, DetectorcalError | OSError | MemoryError) or not isinstance(error, Exception)


def _refuse_circles(path: Path) -> None:
    """Raise if a page leads back to an earlier one: tifffile (2026.3.3) goes round for ever."""
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        is_big = struct.unpack(f"{order}H", head[2:4])[0] == _BIGTIFF
        size, counter, number = (20, f"{order}Q", f"{order}Q") if is_big else (12, f"{order}H", f"{order}I")
        seen: set[int] = set()
        at = struct.unpack_from(number, head, 8 if is_big else 4)[0]
        while at:
            if at in seen:
                raise _damaged(path, f"its page {len(seen)} leads back to an earlier one")
            seen.add(at)
            try:
                file.seek(at)
                n_tags = struct.unpack(counter, file.read(struct.calcsize(counter)))[0]
                file.seek(n_tags * size, os.SEEK_CUR)
                at = struct.unpack(number, file.read(struct.calcsize(number)))[0]
            except (struct.error, OSError):
                return  # behind the end of the file, which tifffile complains of


def _contiguous(tif: Any) -> Any:
    series = tif.series[0]
    alone = len(tif.series) == 1 and series.keyframe.parent is tif
    return series if alone and series.dataoffset is not None else None


def _check_pages(path: Path, series: list[Any]) -> None:
    """Refuse colour, volumes and mixtures."""
    for part in series:
        page = part.keyframe
        if page.samplesperpixel > 1 or page.photometric == _PALETTE:
            raise FileFormatError(
                f"`{path}` must hold greyscale frames, but is a colour image ({page.samplesperpixel} "
                f"samples per pixel). Export the detector's frames without colours."
            )
        if page.imagedepth > 1:
            raise FileFormatError(
                f"`{path}` stores volumes ({page.shape}) in a page; save one frame per page."
            )
    kinds = {(part.keyframe.shape, part.keyframe.dtype) for part in series}
    if len(kinds) > 1:
        listed = ", ".join(f"{part.shape} {part.dtype}" for part in series)
        raise FileFormatError(
            f"`{path}` must hold frames of one shape and type, but holds {listed}. "
            f"Save them to one file each."
        )


def _make_reader(path: Path, tif: Any, pages: list[Any], contiguous: Any, line: bool) -> Reader:
    height, width = pages[0].shape
    dtype = native(np.dtype(pages[0].dtype), path)
    if contiguous is not None:
        if contiguous.kind == "shaped" and len(contiguous.shape) > 1:
            height, width = contiguous.shape[-2:]  # pages lose an axis of one pixel
        shape = (contiguous.size // (height * width), height, width)
        array = _map(path, contiguous.dataoffset, shape, dtype.newbyteorder(tif.byteorder))
        tif.close()
        return ArrayReader(array, _as_lines(shape, path) if line else shape)
    reader = _Pages(path, tif, pages, (len(pages), height, width), dtype)
    if not line:
        return reader
    # Rows in compressed pages: reading them again for every run of frames would be slow, and they are small.
    lines = np.empty(reader.shape, dtype)
    reader.fill(lines, 0, len(pages), (slice(None), slice(None)))
    tif.close()
    return ArrayReader(lines, _as_lines(reader.shape, path))


def _as_lines(shape: Shape, path: Path) -> Shape:
    n_pages, height, width = shape
    if n_pages > 1 and height > 1:
        return stack_shape(shape, True, path)  # which refuses it
    return (n_pages * height, width)


def _map(path: Path, offset: int, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    needed = offset + math.prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if size < needed:
        raise _damaged(path, f"{needed} bytes wanted, {size} there")
    return np.memmap(path, dtype, "r", offset, shape)


class _Pages:
    """Pages that are compressed or scattered: each is read and decoded when needed."""

    def __init__(self, path: Path, tif: Any, pages: list[Any], shape: Shape, dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._path = path
        self._tif = tif
        self._pages = pages
        self._lock = threading.Lock()
        weakref.finalize(self, tif.close)  # a forgotten stack closes silently, as memory maps and h5py do

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        with self._lock, _listening():
            for target, number in zip(out, range(start, stop), strict=True):
                target[...] = self._read(number)[window]

    def _read(self, number: int) -> NDArray[Any]:
        page = self._pages[number]
        if page is None:
            raise _damaged(self._path, f"frame {number} is missing")
        try:
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > page.parent.filehandle.size:
                raise _damaged(self._path, f"frame {number} ends behind the end of the file")
            frame: NDArray[Any] = page.asarray(maxworkers=1)
            if frame.shape != self.shape[1:]:
                raise _damaged(self._path, f"frame {number} has shape {frame.shape}")
        except (DetectorcalError, MemoryError):
            raise
        except Exception as error:
            if "imagecodecs" in str(error):
                raise MissingDependencyError(
                    f"`{self._path}` is compressed ({page.keyframe.compression!r}) and needs imagecodecs: "
                    f'pip install "detectorcal[codecs]"'
                ) from error
            raise _damaged(self._path, f"frame {number}: {error}") from error
        return frame

    def close(self) -> None:
        self._tif.close()


class _Series:
    """Single-frame files, opened one after the other, so that no number of them exhausts the file handles."""

    def __init__(self, paths: list[Path]) -> None:
        kinds = [_frame_kind(path) for path in paths]
        usual = Counter(kinds).most_common(1)[0][0]
        for path, kind in zip(paths, kinds, strict=True):
            if kind != usual:
                raise FileFormatError(
                    f"All frames of a series must have one shape and type; `{path}` has {kind[0]} {kind[1]}, "
                    f"most have {usual[0]} {usual[1]}. Choose the files by a pattern such as 'raw_*.tif'."
                )
        self.shape = (len(paths), *usual[0])
        self.dtype = usual[1]
        self.files = set(paths)
        self._paths = paths

    def fill(self, out: NDArray[Any], start: int, stop: int, window: Window) -> None:
        for number in range(start, stop):
            path = self._paths[number]
            with reading(path):
                reader = _open_file(path, False)
            if (reader.shape, reader.dtype) != ((1, *self.shape[1:]), self.dtype):
                raise DamagedFileError(f"`{path}` has changed since the series was opened. Open it again.")
            try:
                reader.fill(out[number - start : number - start + 1], 0, 1, window)
            finally:
                reader.close()

    def close(self) -> None:
        self._paths = []


def _frame_kind(path: Path) -> tuple[Shape, np.dtype[Any]]:
    reader = _open_file(path, False)
    reader.close()
    if reader.shape[0] != 1:
        raise FileFormatError(
            f"`{path}` of a series must hold one frame, but holds {reader.shape[0]}. Open it by itself."
        )
    return reader.shape[1:], reader.dtype


def list_files(path: Path) -> list[Path]:
    """Return the TIFF files of a folder or pattern in natural order: frame_2 before frame_10."""
    if path.is_dir():
        found = [item for item in path.iterdir() if _is_tiff(item)]
        problem = f"The folder `{path}` holds no .tif or .tiff file."
    else:
        # A folder that is there is meant literally, even with brackets in its name.
        literal = path.parent.is_dir()
        pattern = Path(glob.escape(str(path.parent)), path.name) if literal else path
        found = [Path(name) for name in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 absolute too
        found = [item for item in found if item.is_file()]
        problem = f"No file matches `{path}`."
        if other := next((item for item in found if not _is_tiff(item)), None):
            raise FileFormatError(f"`{path}` must match TIFF files only, but matches `{other}`.")
    if not found:
        raise (
            FileFormatError(problem) if path.is_dir() and not is_pattern(path) else MissingFileError(problem)
        )
    return sorted(found, key=_natural)


def _is_tiff(path: Path) -> bool:
    # Hidden ones are other systems' notes about the real files.
    return path.is_file() and FORMATS.get(path.suffix.lower()) == "tiff" and not path.name.startswith(".")


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts], str(path)


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"`{path}` is truncated or corrupted ({reason}). Copy it again from its source.")
