"""What a scan's file holds beside its frames, on its way into the file of the corrected ones.

What there is one of per frame is cut to the frames that are written, what has the shape of the detector to
the pixels. Links to the raw frames become links to the corrected ones. Large datasets are linked, not copied.
"""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import DetectorcalError
from detectorcal._files import write_at
from detectorcal._hdf5 import create_unwritten
from detectorcal.io import layouts
from detectorcal.io._checks import check_dataset, damaged
from detectorcal.io._nodes import file_of, get, identity, is_group, join
from detectorcal.io._stack import FrameStack

LARGEST = 2**27
"""Bytes of a dataset that is copied. A larger one stays where it is and is linked to, unless it has one value
or one line per frame."""

IN_MEMORY = 2**16
"""Bytes of a dataset that is laid out in memory with the new file; larger ones are streamed into it."""

_BLOCK = 2**22
"""Bytes that are copied at a time."""

_NOT_OF_CORRECTED = {"units"}
"""Attributes of raw frames that are not true of corrected ones."""


@dataclass(frozen=True)
class Part:
    """What of a dataset is copied: some of the rows of the first axis, a range of every other one."""

    axes: tuple[range | NDArray[np.intp], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the copy."""
        return tuple(map(len, self.axes))

    def is_whole(self, dataset: Any) -> bool:
        """Tell whether all of the dataset is copied."""
        return all(np.array_equal(a, range(n)) for a, n in zip(self.axes, dataset.shape, strict=True))

    def blocks(self, dataset: Any) -> Iterator[NDArray[Any]]:
        """Read the part, a few rows at a time, in order."""
        if not self.axes:
            yield np.asarray(dataset[()])
            return
        first, *others = self.axes
        inner = tuple(slice(axis.start, axis.stop, axis.step) for axis in others if isinstance(axis, range))
        row_bytes = dataset.nbytes // max(1, dataset.shape[0])
        n_rows = max(1, _BLOCK // max(1, row_bytes))
        for start in range(0, len(first), n_rows):
            rows = np.asarray(first[start : start + n_rows])
            low, high = int(rows.min()), int(rows.max())
            yield np.asarray(dataset[(slice(low, high + 1), *inner)])[rows - low]


@dataclass(frozen=True)
class Pending:
    """A dataset that has its place in the new file, and whose values are still to be copied there."""

    dataset: Any
    part: Part
    offset: int

    def write_to(self, path: Path) -> None:
        """Copy the values."""
        at = self.offset
        with path.open("r+b", buffering=0) as file:
            for block in _told(self.dataset, self.part.blocks(self.dataset)):
                write_at(file, at, block)
                at += block.nbytes


class Rest:
    """Copies what a scan's file holds beside its frames.

    Parameters
    ----------
    scan : Tomography
        What is found in the file, which is open.
    stack : FrameStack
        The frames that are written.
    target : h5py.File
        The new file, which has the dataset of the corrected frames under the raw ones' path.
    folder : Path
        Of the new file: links to other files are told from there.

    Attributes
    ----------
    pending : list of Pending
        What is still to be copied when the new file is laid out.
    """

    def __init__(self, scan: layouts.Tomography, stack: FrameStack, target: Any, folder: Path) -> None:
        self.pending: list[Pending] = []
        self._scan = scan
        self._target = target
        self._folder = folder
        self._rows = _rows_of(scan, stack)
        self._frame = scan.data.shape[1:]
        self._pixels = stack.pixels
        self._copied: dict[tuple[str, int], str | None] = {}
        for dataset in (scan.flats, scan.darks):
            if dataset is not None:
                self._copied[identity(dataset)] = None
        self._copied[identity(scan.data)] = scan.name
        self._groups: deque[tuple[Any, str]] = deque()
        self._links: deque[tuple[Any, str, Any, str]] = deque()

    def copy(self, source: Any, top: str) -> None:
        """Copy what is below `top` in the open file; hard links first, so that others lead to these."""
        copy_attributes(self._scan.data, self._target[self._scan.name], _NOT_OF_CORRECTED)
        parts = self._scan.name.strip("/").split("/")[:-1]
        for length in range(len(parts) + 1):
            path = "/" + "/".join(parts[:length])
            self._begin(source[path], path, below=path.startswith(top))
        while self._groups or self._links:
            if self._groups:
                self._walk(*self._groups.popleft())
            else:
                self._follow(*self._links.popleft())

    def _begin(self, group: Any, path: str, *, below: bool = True) -> None:
        self._copied[identity(group)] = path
        copy_attributes(group, self._target.require_group(path))
        if below:
            self._groups.append((group, path))

    def _walk(self, group: Any, path: str) -> None:
        import h5py

        for name in group:
            link, place = group.get(name, getlink=True), join(path, name)
            if isinstance(link, h5py.HardLink):
                self._take(group[name], place)
            else:
                self._links.append((group, name, link, place))

    def _take(self, node: Any, place: str) -> None:
        """Copy a node, or link to where it is in the new file already."""
        found = identity(node)
        if found in self._copied:
            known = self._copied[found]
            if known is not None and self._target.get(place, getlink=True) is None:
                self._target[place] = self._target[known]
            return
        self._copied[found] = place
        if is_group(node):
            self._begin(node, place)
        elif hasattr(node, "shape"):
            self._copy_dataset(node, place)
        else:
            self._target.copy(node, self._target, name=place)  # a named type

    def _follow(self, group: Any, name: str, link: Any, place: str) -> None:
        """Keep a link whose end is in the new file too; else take what is there, or leave it dangling."""
        import h5py

        if self._target.get(place, getlink=True) is not None:
            return
        node = get(group, name)
        if node is None:
            self._target[place] = self._told_from_here(link, file_of(group))
            return
        known = self._copied.get(identity(node))
        if known is None or not isinstance(link, h5py.SoftLink):
            self._take(node, place)
            return
        here = self._target[place.rpartition("/")[0] or "/"]
        holds = get(here, link.path) == self._target[known]
        self._target[place] = h5py.SoftLink(link.path if holds else known)

    def _told_from_here(self, link: Any, file: Path) -> Any:
        import h5py

        if not isinstance(link, h5py.ExternalLink):
            return link
        return h5py.ExternalLink(_relative(file.parent / link.filename, self._folder), link.path)

    def _copy_dataset(self, dataset: Any, place: str) -> None:
        import h5py

        if not dataset.size:
            self._target.copy(dataset, self._target, name=place)
            return
        if _refers(dataset.dtype):
            return  # references to places in the old file
        part = self._part(dataset)
        n_bytes = int(np.prod(part.shape, dtype=object)) * dataset.dtype.itemsize
        per_frame = dataset.ndim in (1, 2) and len(dataset) in self._rows and dataset.shape != self._frame
        if dataset.external or (n_bytes > LARGEST and not per_frame):
            told = _relative(file_of(dataset), self._folder)
            self._target[place] = h5py.ExternalLink(told, dataset.name)
            return
        check_dataset(dataset, f"{file_of(dataset)}:{dataset.name}")
        if n_bytes > IN_MEMORY and not dataset.dtype.hasobject:
            copy = create_unwritten(self._target, place, part.shape, dataset.dtype)
            self.pending.append(Pending(dataset, part, copy.id.get_offset()))
        elif part.is_whole(dataset) and not dataset.is_virtual:
            self._target.copy(dataset, self._target, name=place, without_attrs=True)
        else:
            blocks = list(_told(dataset, part.blocks(dataset)))
            values = np.concatenate(blocks) if part.shape else blocks[0]
            self._target.create_dataset(place, data=values, dtype=dataset.dtype)
        copy_attributes(dataset, self._target[place])

    def _part(self, dataset: Any) -> Part:
        """Give what of a dataset belongs to the frames and pixels that are written."""
        axes: list[range | NDArray[np.intp]] = [*map(range, dataset.shape)]
        if dataset.shape[-2:] == self._frame:
            axes[-2:] = self._pixels
        if axes and len(dataset) in self._rows and dataset.shape != self._frame:
            axes[0] = self._rows[len(dataset)]
        return Part(tuple(axes))


def _rows_of(scan: layouts.Tomography, stack: FrameStack) -> dict[int, range | NDArray[np.intp]]:
    """Give which rows of a list belong to the frames that are written, by the length of the list.

    A list has a row for every frame of the file, or, as angles often, for every projection.
    """
    rows: dict[int, range | NDArray[np.intp]] = {}
    if scan.projections is not None:
        rows[len(scan.projections)] = np.searchsorted(scan.projections, np.asarray(stack.frames))
    return rows | {scan.data.shape[0]: stack.frames}


def copy_attributes(source: Any, target: Any, leave_out: set[str] | frozenset[str] = frozenset()) -> None:
    """Copy the attributes of a node, in their types; references lead nowhere in another file."""
    for name in source.attrs:
        dtype = source.attrs.get_id(name).dtype
        if name not in leave_out and not _refers(dtype):
            value = source.attrs[name]
            is_text = isinstance(value, str) and dtype.kind == "S"
            target.attrs.create(name, value.encode() if is_text else value, dtype=dtype)


def _refers(dtype: Any) -> bool:
    """Tell whether there are references in a type."""
    import h5py

    if dtype.names:
        return any(_refers(dtype[name]) for name in dtype.names)
    inner = h5py.check_vlen_dtype(dtype)
    if isinstance(inner, np.dtype):
        return _refers(inner)
    return h5py.check_ref_dtype(dtype.base) is not None


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # another drive of Windows
        return str(path.resolve())


def _told(dataset: Any, blocks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Name the dataset in the many errors that the library raises about a damaged one."""
    try:
        yield from blocks
    except (DetectorcalError, MemoryError):
        raise
    except Exception as error:
        raise damaged(f"{file_of(dataset)}:{dataset.name}", error) from error
