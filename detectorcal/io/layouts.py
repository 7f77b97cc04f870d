"""The two conventions of tomography files in HDF5: NXtomo and DXchange."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import FileFormatError
from detectorcal._typing import Float64
from detectorcal.io._names import Location, is_numeric
from detectorcal.io._writer import Plan

NXTOMO_DATA = "entry/instrument/detector/data"
DXCHANGE_DATA = "exchange/data"
_PROJECTION, _FLAT, _DARK = 0, 1, 2
"""Values of NXtomo's image_key; 3 is an invalid frame."""
_KEY_PLACES = ("instrument/detector/image_key", "data/image_key")
_ANGLE_PLACES = ("sample/rotation_angle", "data/rotation_angle")
_DEPTH = 4
"""Groups below an entry in which an image_key is looked for."""


@dataclass(frozen=True)
class Tomography:
    """Where the frames of a tomography file are; `None` frames are all of a dataset."""

    layout: str
    data: Any
    projections: NDArray[np.intp] | None
    flats: Any
    flat_frames: NDArray[np.intp] | None
    darks: Any
    dark_frames: NDArray[np.intp] | None
    angles: Float64 | None


def find(group: Any, location: Location) -> Tomography | None:
    """Return the one tomography scan in a group, if the group follows a convention."""
    import h5py

    entries: dict[tuple[int, int], Any] = {}
    for entry in _groups(group):
        data = _frames(entry)
        if data is not None and _image_key(entry) is not None:
            info = h5py.h5o.get_info(data.id)
            entries.setdefault((info.fileno, info.addr), entry)
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries.values())
        first = next(iter(entries.values())).name
        raise FileFormatError(
            f"`{location}` holds several NXtomo entries: {names}. "
            f"Name one, as in `{location.path.name}:{first}`."
        )
    if entries:
        return _nxtomo(next(iter(entries.values())), location)
    return _dxchange(group)


def children(group: Any) -> Iterator[Any]:
    """Yield what a group holds, through its links; what dangles is skipped."""
    for name in group:
        node = _get(group, name)
        if node is not None:
            yield node


def attribute(value: Any) -> Any:
    """Return a JSON value as HDF5 can keep it."""
    return value if isinstance(value, str | int | float) else json.dumps(value)


def attribute_value(kept: Any) -> Any:
    """Return the JSON value that was kept, or as it is what is no JSON."""
    if isinstance(kept, np.generic | np.ndarray):
        return kept.tolist()
    text = kept.decode(errors="replace") if isinstance(kept, bytes) else kept
    if isinstance(text, str) and text[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(text)
    return text


def write_nxtomo(file: Any, plan: Plan) -> None:
    """Write what NXtomo asks for around the frames."""
    classes = {
        "entry": "NXentry",
        "entry/instrument": "NXinstrument",
        "entry/instrument/detector": "NXdetector",
        "entry/sample": "NXsample",
        "entry/data": "NXdata",
    }
    for name, nexus in classes.items():
        file.require_group(name).attrs["NX_class"] = nexus
    entry = file["entry"]
    entry["definition"] = "NXtomo"
    entry["instrument/detector/image_key"] = np.zeros(plan.shape[0], np.uint8)
    entry["data/data"] = entry["instrument/detector/data"]
    entry["data/image_key"] = entry["instrument/detector/image_key"]
    entry["data"].attrs["signal"] = "data"
    file.attrs["default"] = "entry"
    entry.attrs["default"] = "data"
    if plan.angles is not None:
        entry["sample/rotation_angle"] = plan.angles
        entry["sample/rotation_angle"].attrs["units"] = "degree"
        entry["data/rotation_angle"] = entry["sample/rotation_angle"]


def write_dxchange(file: Any, plan: Plan) -> None:
    """Write what DXchange asks for, with a flat of 1 and a dark of 0: the frames are corrected already."""
    file["implements"] = "exchange"
    exchange = file["exchange"]
    exchange["data_white"] = np.ones((1, *plan.shape[1:]), plan.dtype)
    exchange["data_dark"] = np.zeros((1, *plan.shape[1:]), plan.dtype)
    if plan.angles is not None:
        exchange["theta"] = plan.angles
        exchange["theta"].attrs["units"] = "degrees"


def _get(group: Any, name: str) -> Any:
    try:
        return group.get(name)
    except (KeyError, OSError, RuntimeError):  # a link to a file that is gone or is no HDF5
        return None


def _is_dataset(node: Any) -> bool:
    return node is not None and getattr(node, "shape", None) is not None


def _groups(group: Any) -> Iterator[Any]:
    """Yield a group and what could be an entry in it: `/entry`, `/entry1/tomo_entry`."""
    yield group
    for entry in children(group):
        if not hasattr(entry, "shape") and hasattr(entry, "keys"):
            yield entry
            yield from (sub for sub in children(entry) if not hasattr(sub, "shape") and hasattr(sub, "keys"))


def _frames(entry: Any) -> Any:
    for place in ("data/data", "instrument/detector/data"):
        node = _get(entry, place)
        if _is_dataset(node) and len(node.shape) == 3 and is_numeric(node.dtype):
            return node
    return None


def _image_key(entry: Any) -> Any:
    for place in _KEY_PLACES:
        node = _get(entry, place)
        if _is_dataset(node):
            return node
    return _search(entry, _DEPTH)


def _search(group: Any, depth: int) -> Any:
    node = _get(group, "image_key")
    if _is_dataset(node):
        return node
    if depth:
        for child in children(group):
            if not hasattr(child, "shape") and hasattr(child, "keys"):
                found = _search(child, depth - 1)
                if found is not None:
                    return found
    return None


def _nxtomo(entry: Any, location: Location) -> Tomography:
    data, image_key = _frames(entry), _image_key(entry)
    if image_key.size != data.shape[0] or not is_numeric(image_key.dtype):
        raise FileFormatError(
            f"`{location}:{entry.name}` has {data.shape[0]} frames, but an image_key of shape "
            f"{image_key.shape}. Open the frames by name, as in `{location.path.name}:{data.name}`."
        )
    key = np.asarray(image_key[()]).ravel()
    frames = {kind: np.flatnonzero(key == kind) for kind in (_PROJECTION, _FLAT, _DARK)}
    if not frames[_PROJECTION].size:
        raise FileFormatError(
            f"`{location}:{entry.name}` has no projection (image_key 0) but {frames[_FLAT].size} flats and "
            f"{frames[_DARK].size} darks. Open all frames by name, as in `{location.path.name}:{data.name}`."
        )
    angles = _angles(entry, _ANGLE_PLACES, {len(key), frames[_PROJECTION].size})
    if angles is not None and len(angles) == len(key):
        angles = angles[frames[_PROJECTION]]
    return Tomography("nxtomo", data, frames[_PROJECTION], data, frames[_FLAT], data, frames[_DARK], angles)


def _dxchange(group: Any) -> Tomography | None:
    exchange = _get(group, "exchange")
    if exchange is None or not hasattr(exchange, "keys"):
        return None
    data, flats, darks = (_get(exchange, name) for name in ("data", "data_white", "data_dark"))
    if not _is_dataset(data) or len(data.shape) != 3:
        return None
    flats, darks = (part if _is_dataset(part) else None for part in (flats, darks))
    angles = _angles(exchange, ("theta",), {data.shape[0]})
    return Tomography("dxchange", data, None, flats, None, darks, None, angles)


def _angles(group: Any, places: tuple[str, ...], numbers: set[int]) -> Float64 | None:
    """Return angles in degrees, whatever their unit, where there are as many as expected."""
    for place in places:
        node = _get(group, place)
        if _is_dataset(node) and is_numeric(node.dtype) and node.shape in {(n,) for n in numbers}:
            unit = node.attrs.get("units", "")
            values = np.asarray(node[()], np.float64)
            in_radians = (unit.decode() if isinstance(unit, bytes) else str(unit)).lower().startswith("rad")
            return np.degrees(values) if in_radians else values
    return None
