"""The sound files that are damaged: calibrations and stacks of every format and several layouts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import zarr

from detectorcal import DetectorCalibrator

SHAPE = (6, 8)
"""Of the detector: so small that most bytes of a file tell where the others are."""
LARGER = (20, 24)

Files = dict[str, bytes | None]
"""Content by the name inside a folder, "" for a lone file; None stands for a folder of that name."""


@dataclass(frozen=True)
class Sample:
    """A sound file or folder, in memory."""

    kind: str
    """"calibration" or "stack"."""
    name: str
    files: Files

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix


def read_files(path: Path) -> Files:
    """Read a file or a folder into memory."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def write_files(path: Path, files: Files) -> None:
    """Write what `read_files` gave."""
    if "" in files:
        path.write_bytes(files[""] or b"")
        return
    path.mkdir()
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(content)


def nbytes(files: Files) -> int:
    """Bytes of all files together."""
    return sum(len(content or b"") for content in files.values())


def calibrations(folder: Path) -> list[Sample]:
    """Write calibrations of an area and a line detector, in the three formats."""
    rng = np.random.default_rng(7)
    found = []
    for shape in (SHAPE, LARGER, (40,)):
        levels = np.linspace(200, 3000, 6).reshape(-1, *(1,) * len(shape))
        sweep = (100 + rng.normal(1, 0.03, shape) * levels).astype(np.uint16)
        calibrator = DetectorCalibrator(sigma=2).fit(sweep, dark=rng.normal(100, 1, shape))
        for suffix in (".h5", ".zarr", ".tif"):
            path = folder / f"cal_{'x'.join(map(str, shape))}{suffix}"
            calibrator.save(path)
            found.append(Sample("calibration", path.name, read_files(path)))
    return found


def stacks(folder: Path) -> list[Sample]:
    """Write stacks, as our own writers and as those of others would."""
    frames = np.random.default_rng(8).integers(0, 4000, (12, 16, 20)).astype(np.uint16)
    found = []
    for name, write in _STACKS.items():
        path = folder / name
        write(path, frames)
        found.append(Sample("stack", name, read_files(path)))
    return found


def _plain_hdf5(**options: Any) -> Callable[[Path, np.ndarray], None]:
    libver = options.pop("libver", "earliest")

    def write(path: Path, frames: np.ndarray) -> None:
        with h5py.File(path, "w", libver=libver) as file:
            file.create_dataset("entry/scan", data=frames, **options)

    return write


def _nxtomo(path: Path, frames: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = frames
        file["entry/data/data"] = h5py.SoftLink("/entry/instrument/detector/data")
        file["entry/instrument/detector/image_key"] = [2, 1, *[0] * 10]
        file["entry/sample/rotation_angle"] = np.linspace(0, 180, 12)


def _linked(path: Path, frames: np.ndarray) -> None:
    """Write a scan of links and lists, as facilities make them.

    Without a virtual dataset: HDF5 (2.0.0) hangs or crashes when it opens one whose description is damaged.
    """
    with h5py.File(path, "w") as file:
        file["raw"] = frames
        file["scan/instrument/detector/data"] = h5py.SoftLink("/raw")
        file["keys"] = [2, 1, *[0] * 10]
        file["scan/data/data"] = h5py.SoftLink("/scan/instrument/detector/data")
        file["scan/data/image_key"] = h5py.SoftLink("/keys")
        file["scan/sample/rotation_angle"] = np.linspace(0, np.pi, 12)
        file["scan/sample/rotation_angle"].attrs["units"] = "rad"
        file["scan/log"] = h5py.ExternalLink("gone.h5", "log")
        file["scan/again"] = file["scan"]
        file["scan/sample"].attrs["names"] = [f"frame {number}" for number in range(12)]
        file.create_dataset("scan/current", data=np.arange(12.0), chunks=(12,), compression="gzip")


def _dxchange(path: Path, frames: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["exchange/data"] = frames
        file["exchange/data_white"] = frames[:2]
        file["exchange/data_dark"] = frames[2:4]
        file["exchange/theta"] = np.linspace(0, 180, 12)


def _tiff(*, big: bool = False, **options: Any) -> Callable[[Path, np.ndarray], None]:
    header = {key: options.pop(key) for key in ("imagej", "ome", "byteorder") if key in options}

    def write(path: Path, frames: np.ndarray) -> None:
        with tifffile.TiffWriter(path, bigtiff=big, **header) as file:
            file.write(frames, photometric="minisblack", **options)

    return write


def _zarr(zarr_format: int, **options: Any) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, frames: np.ndarray) -> None:
        array = zarr.create_array(
            str(path), shape=frames.shape, dtype=frames.dtype, zarr_format=zarr_format, **options
        )
        array[...] = frames

    return write


def _zarr_group(path: Path, frames: np.ndarray) -> None:
    group = zarr.create_group(str(path))
    group.create_array("scan", shape=frames.shape, dtype=frames.dtype, chunks=(4, 16, 20))[...] = frames
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # format 3 does not specify it yet, but others write it
        zarr.consolidate_metadata(str(path))


_CHUNKS = {"chunks": (4, 16, 20)}
_STACKS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "contiguous.h5": _plain_hdf5(),
    "gzip.h5": _plain_hdf5(chunks=(2, 8, 20), compression="gzip", shuffle=True, fletcher32=True),
    "latest.h5": _plain_hdf5(chunks=(3, 16, 20), libver="latest"),
    "lzf.h5": _plain_hdf5(chunks=(4, 16, 20), compression="lzf"),
    "nxtomo.nxs": _nxtomo,
    "dxchange.h5": _dxchange,
    "linked.nxs": _linked,
    "plain.tif": _tiff(),
    "big.tif": _tiff(big=True, byteorder=">"),
    "zlib.tif": _tiff(compression="zlib", metadata=None),
    "lzw_tiles.tif": _tiff(compression="lzw", tile=(16, 16)),
    "imagej.tif": _tiff(imagej=True),
    "ome.tif": _tiff(ome=True, compression="zstd"),
    "three.zarr": _zarr(3, **_CHUNKS),
    "plain_three.zarr": _zarr(3, compressors=None, **_CHUNKS),
    "shards.zarr": _zarr(3, chunks=(1, 16, 20), shards=(4, 16, 20)),
    "two.zarr": _zarr(2, **_CHUNKS),
    "group.zarr": _zarr_group,
}
