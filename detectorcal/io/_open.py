"""The two doors: open frames, create frames."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from detectorcal import _typing
from detectorcal._errors import InputError, OutputExistsError
from detectorcal._files import atomic_file, atomic_folder, reading, writing
from detectorcal.io import hdf5, npy, tiff, zarr
from detectorcal.io._compression import check_compression
from detectorcal.io._names import Location, is_numeric, locate, locate_output
from detectorcal.io._stack import FrameStack, Source
from detectorcal.io._writer import FrameWriter, Plan
from detectorcal.io.layouts import NEW

_LARGEST_ITEM = 8
"""Bytes; the platform's long double cannot be read elsewhere."""

_OPENERS = {
    "tiff": tiff.open_stack,
    "hdf5": hdf5.open_stack,
    "zarr": zarr.open_stack,
    "npy": npy.open_npy,
    "npz": npy.open_npz,
}
_ATTRIBUTES = {"tiff": tiff.read_attributes, "hdf5": hdf5.read_attributes, "zarr": zarr.read_attributes}
_CREATORS = {"tiff": tiff.create, "hdf5": hdf5.create, "zarr": zarr.create, "npy": npy.create}


def open_frames(path: _typing.Path, *, line: bool = False) -> FrameStack:
    """Open the frames of a file, lazily.

    Parameters
    ----------
    path : path-like
        A TIFF file, a folder or pattern of single-frame TIFF files (`"scan/raw_*.tif"`, sorted so that
        `raw_2` comes before `raw_10`), an HDF5 file (`.h5`, `.hdf5`, `.hdf`, `.nxs`, `.nx`), a zarr
        store (formats 2 and 3), or a NumPy file (`.npy`, `.npz`). A dataset inside an HDF5, zarr or npz
        file is named after a colon: `"scan.h5:/entry/data/data"`. Without a name an HDF5 file may follow
        NXtomo or DXchange, or hold one 3-D dataset.
    line : bool, default: False
        Whether the frames are those of a line detector, so that a 2-D array is a stack (n_frames, width)
        and not one frame (height, width).

    Returns
    -------
    FrameStack
        Frames of shape (n_frames, height, width) or (n_frames, width); of an NXtomo or DXchange file
        the projections, with `flats`, `darks` and `angles` beside them.

    Raises
    ------
    MissingFileError
        If there is no such file, or a file that it refers to is gone.
    FileFormatError
        If the file is of another kind, or does not hold exactly one stack of real numbers.
    DamagedFileError
        If the file is truncated or corrupted.
    MissingDependencyError
        If the frames are compressed in a way that an optional package reads.
    InputError
        If the suffix is unknown.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import create_frames, open_frames
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sweep.h5"
    >>> with create_frames(path, (4, 2, 3), "uint16") as out:
    ...     out[:] = np.arange(24, dtype=np.uint16).reshape(4, 2, 3)
    >>> with open_frames(f"{path}:/data") as sweep:
    ...     sweep[1:3, :, 0]
    array([[ 6,  9],
           [12, 15]], dtype=uint16)
    """
    with reading(path):
        location = locate(path)
        opener = _OPENERS[location.format]
        stack = opener(location, line)
    absolute = replace(location, path=location.path.absolute())
    stack.source = Source(opener, absolute, line)
    for name in ("flats", "darks"):
        if (part := getattr(stack, name)) is not None:
            part.source = Source(opener, absolute, line, name)
    return stack


def read_attributes(path: _typing.Path, *, line: bool = False) -> dict[str, Any]:
    """Read the attributes that `create_frames` saved with the frames of a file.

    Parameters
    ----------
    path, line
        As for `open_frames`, which finds the frames and raises what this raises.

    Returns
    -------
    dict of str to JSON values
        Empty for formats that have no place for any: NumPy files and series of TIFFs.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import create_frames, read_attributes
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.tif"
    >>> with create_frames(path, (1, 2, 3), "uint16", attributes={"detector": {"gain": 3}}) as out:
    ...     out[0] = np.ones((2, 3), "uint16")
    >>> read_attributes(path)["detector"]
    {'gain': 3}
    """
    with open_frames(path, line=line) as stack:
        location = locate(stack.path)
    if location.format not in _ATTRIBUTES or (location.format == "tiff" and not location.path.is_file()):
        return {}
    with reading(path):
        return _ATTRIBUTES[location.format](location)


@contextmanager
def create_frames(
    path: _typing.Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    overwrite: bool = False,
    layout: str | None = None,
    angles: ArrayLike | None = None,
    attributes: Mapping[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
    compression: str | None = None,
    like: FrameStack | None = None,
) -> Iterator[FrameWriter]:
    """Write frames as a stream to a file that appears only when it is whole.

    Parameters
    ----------
    path : path-like
        The output; its suffix decides the format: HDF5 (`.h5`, `.hdf5`, `.hdf`, `.nxs`; dataset `/data`,
        or the one named as in `"out.h5:/some/dataset"`), `.zarr` (format 3), `.tif`, `.npy`.
    shape : sequence of int
        (n_frames, height, width) or (n_frames, width).
    dtype : dtype-like
        Type of the values in the file.
    overwrite : bool, default: False
        Whether an existing file or zarr store is replaced, as a whole.
    layout : {"nxtomo", "dxchange"}, optional
        The convention that an HDF5 file follows. With "dxchange" the file gets a flat of 1 and a dark of
        0, so that normalising once more does no harm.
    angles : array of shape (n_frames,), optional
        Rotation angles in degrees, saved with a layout.
    attributes : mapping of str to JSON values, optional
        Saved as attributes of the dataset, or in the TIFF's ImageDescription.
    chunks : sequence of int, optional
        Shape of the chunks in HDF5 (contiguous without, unless compressed) or zarr; by default one frame, or
        a few small ones.
    compression : str, optional
        HDF5: "gzip", "lzf", with the extra `codecs` also "zstd", "blosc", "lz4", "bitshuffle"; all with the
        bytes shuffled. zarr: "gzip", "zstd" (the default), "blosc", "none". TIFF: "gzip", with the extra
        also "zstd", "lzw". Without it nothing but zarr is compressed, which is fastest.
    like : FrameStack, optional
        The NXtomo or DXchange scan, or a part of one, that the frames are made of. Its layout is kept, and
        everything in its file but the raw frames is copied: what there is one of per frame is cut to the
        frames of the stack, what has the shape of the detector to its pixels. A dataset over 128 MiB is
        linked to where it is, unless it has one value or one line per frame.

    Yields
    ------
    FrameWriter
        Takes frames by assignment: `writer[0:8] = frames`. Every frame must be written before the block
        ends; otherwise, and when the block raises, nothing is kept and an earlier output stays.

    Raises
    ------
    OutputExistsError
        If the output exists and `overwrite` is false.
    InputError
        If the request contradicts itself, or frames are missing at the end.
    AccessError, WriteError
        If the folder may not be written to, or the disk is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal.io import create_frames, open_frames
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "corrected.tif"
    >>> with create_frames(path, (3, 4, 5), "float32") as out:
    ...     for i in range(3):
    ...         out[i] = np.full((4, 5), i, "float32")
    >>> open_frames(path)[:, 0, 0]
    array([0., 1., 2.], dtype=float32)
    """
    location = locate_output(path)
    refuse_inside(location)
    plan = make_plan(
        location, shape, dtype, layout=layout, angles=angles, attributes=attributes, chunks=chunks,
        compression=compression, like=like,
    )  # fmt: skip
    place = atomic_folder if location.format == "zarr" else atomic_file
    with place(location.path, overwrite=overwrite) as temporary:
        with writing(location.path):
            sink = _CREATORS[location.format](temporary, plan)
        writer = FrameWriter(sink, str(location), plan.shape, plan.dtype)
        try:
            yield writer
            writer.check_complete()
        except BaseException:
            with suppress(Exception):
                sink.close()
            raise
        with writing(location.path):
            sink.close()


def refuse_inside(location: Location) -> None:
    """Refuse to write a dataset in a file that is there already."""
    if location.inside and location.path.exists():
        raise OutputExistsError(
            f"`{location.path}` exists already, and writing `{location}` would replace all that is in it. "
            "Name a new file, or remove it first."
        )


class Options(TypedDict, total=False):
    """What may be asked of an output beside its shape and type; see `create_frames`."""

    layout: str | None
    angles: ArrayLike | None
    attributes: Mapping[str, Any] | None
    chunks: Sequence[int] | None
    compression: str | None
    like: FrameStack | None


def make_plan(location: Location, shape: Sequence[int], dtype: DTypeLike, **options: Unpack[Options]) -> Plan:
    """Check what is to be written."""
    sizes = _sizes("shape", shape, (2, 3))
    kind = np.dtype(dtype).newbyteorder("=")
    if not is_numeric(kind) or kind.itemsize > _LARGEST_ITEM:
        raise InputError(f"`dtype` must be a boolean, integer or float of up to 64 bits, not {kind}.")
    chunks, like = options.get("chunks"), options.get("like")
    if chunks is not None and location.format not in ("hdf5", "zarr"):
        raise InputError(f"`chunks` are for HDF5 and zarr outputs, not `{location}`.")
    blocks = None if chunks is None else _sizes("chunks", chunks, (len(sizes),))
    check_compression(options.get("compression"), location.format)
    layout, name = _place(location, sizes, options.get("layout"), like)
    return Plan(
        sizes,
        kind,
        dataset=name,
        layout=layout,
        angles=_degrees(options.get("angles"), layout, sizes) if like is None else like.angles,
        attributes=_jsonable(options.get("attributes") or {}),
        chunks=blocks,
        compression=options.get("compression"),
        like=like,
    )


def _place(
    location: Location, sizes: _typing.Shape, layout: str | None, like: FrameStack | None
) -> tuple[str | None, str]:
    """Give the layout and the name of the dataset."""
    if like is not None:
        if like.layout is None or like.source is None or like.shape != sizes:
            raise InputError(
                f"`like` must be a scan in NXtomo or DXchange layout, opened by `open_frames`, of the shape "
                f"{sizes} that is written; it has layout {like.layout} and shape {like.shape}."
            )
        if layout not in (None, like.layout):
            raise InputError(f"`layout` is {layout!r}, but that of `like` is {like.layout!r}. Give one.")
        layout = like.layout
    if layout not in (None, *NEW):
        raise InputError(f"`layout` must be 'nxtomo', 'dxchange' or None, not {layout!r}.")
    if layout and (location.format != "hdf5" or location.inside or len(sizes) != 3):
        raise InputError(
            f"`layout` {layout!r} is for area frames in an HDF5 file without a dataset name, not "
            f"`{location}` of shape {sizes}. Name the output .h5 or .nxs, or leave out `layout`."
        )
    if like is not None:
        return layout, locate(like.path).inside
    return layout, NEW[layout] if layout else location.inside or "data"


def _degrees(angles: ArrayLike | None, layout: str | None, sizes: _typing.Shape) -> _typing.Float64 | None:
    if angles is None:
        return None
    if not layout:
        raise InputError("`angles` are saved only with layout='nxtomo' or layout='dxchange'.")
    degrees = np.asarray(angles, np.float64)
    if degrees.shape != sizes[:1]:
        raise InputError(
            f"`angles` must have the shape {sizes[:1]}, one per frame, but have {degrees.shape}."
        )
    return degrees


def _sizes(name: str, value: Sequence[int], lengths: tuple[int, ...]) -> _typing.Shape:
    try:
        sizes = tuple(operator.index(size) for size in value)
    except TypeError:
        sizes = ()
    if len(sizes) not in lengths or min(sizes) < 1:
        wanted = " or ".join(map(str, lengths))
        raise InputError(f"`{name}` must be {wanted} positive integers, not {value!r}.")
    return sizes


def _jsonable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} cannot be saved")

    try:
        saved: dict[str, Any] = json.loads(json.dumps(dict(attributes), default=plain))
    except (TypeError, ValueError) as error:
        raise InputError(f"`attributes` must be text, numbers, lists or dicts: {error}.") from error
    return saved
