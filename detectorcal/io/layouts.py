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
from detectorcal.io._nodes import (
    broken,
    dangling,
    get,
    identity,
    is_dataset,
    is_group,
    join,
    members,
)
from detectorcal.io._writer import Plan

NEW = {"nxtomo": "entry/instrument/detector/data", "dxchange": "exchange/data"}
"""Place of the frames in a new file, by layout."""
_PROJECTION, _FLAT, _DARK = 0, 1, 2
"""Values of NXtomo's image_key; 3 is an invalid frame."""
_ALIGNMENT = -1
"""In ESRF's image_key_control, a projection that was taken again."""
_DATA_PLACES = ("instrument/detector/data", "data/data")
_KEY_PLACES = ("instrument/detector/image_key", "data/image_key")
_ANGLE_PLACES = ("sample/rotation_angle", "data/rotation_angle")
_DEPTH = 4
"""Groups below an entry in which an image_key is looked for."""


@dataclass(frozen=True)
class Tomography:
    """Where the frames of a tomography file are; `None` frames are all of a dataset."""

    layout: str
    data: Any
    name: str
    """Path of the data; they may be in another file, under another path."""
    projections: NDArray[np.intp] | None
    flats: Any
    flat_frames: NDArray[np.intp] | None
    darks: Any
    dark_frames: NDArray[np.intp] | None
    angles: Float64 | None


def find(group: Any, location: Location) -> Tomography | None:
    """Return the one tomography scan in a group, if the group follows a convention."""
    entries: dict[tuple[str, int], tuple[str, Any]] = {}
    for path, entry in _groups(group, location.inside):
        place = _frames(entry)
        if place is not None and _image_key(entry) is not None:
            entries.setdefault(identity(entry[place]), (path, entry))
    if len(entries) > 1:
        names = [path for path, _ in entries.values()]
        raise FileFormatError(
            f"`{location}` holds several NXtomo entries: {', '.join(names)}. "
            f"Name one, as in `{location.path.name}:{names[0]}`."
        )
    if entries:
        return _nxtomo(*next(iter(entries.values())), location)
    found = _dxchange(group, location)
    if found is None:
        _refuse_dangling(group, location)
        _refuse_keyless(group, location)
    return found


def _refuse_dangling(group: Any, location: Location) -> None:
    """Raise if frames are linked to a file that is not there, rather than take what else there is."""
    for path, entry in _groups(group, location.inside):
        for place in (*_DATA_PLACES, "exchange/data"):
            if (found := dangling(entry, place)) is not None:
                raise broken(f"{location.path}:{join(path, found[0])}", location.path, found[1])


def _refuse_keyless(group: Any, location: Location) -> None:
    """Raise if a file says that it is NXtomo and nothing tells its projections from its flats and darks."""
    for path, entry in _groups(group, location.inside):
        place, definition = _frames(entry), get(entry, "definition")
        if place is not None and is_dataset(definition) and definition.size == 1:
            text = np.asarray(definition[()]).item()
            if (text.decode(errors="replace") if isinstance(text, bytes) else text) == "NXtomo":
                raise FileFormatError(
                    f"`{location.path}:{path}` says that it is NXtomo, but no image_key tells projections "
                    "from flats and darks. If all frames are wanted, name them, as in "
                    f"`{location.path.name}:{join(path, place)}`."
                )


def entry_of(layout: str, name: str) -> str:
    """Give the path of the entry, or of the DXchange group, that has its frames under a path."""
    places = _DATA_PLACES if layout == "nxtomo" else ("data",)
    path = join(name, "")
    return next(join(path[: -len(place)], "") for place in places if path.endswith("/" + place))


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
    """Write what NXtomo asks for around the frames, where it is not there."""
    path = entry_of("nxtomo", plan.dataset)
    entry = file.require_group(path)
    _classify(entry)
    while (key := _find_key(entry, "image_key")) is not None and key.size != plan.shape[0]:
        del file[key.name]
    if key is None:
        key = entry.create_dataset("instrument/detector/image_key", data=np.zeros(plan.shape[0], np.uint8))
    angles = next(filter(is_dataset, (get(entry, place) for place in _ANGLE_PLACES)), None)
    if angles is None and plan.angles is not None:
        angles = file.create_dataset(None, data=plan.angles)
        angles.attrs["units"] = "degree"
    _add(entry, {"definition": "NXtomo"})
    _add(entry, dict.fromkeys(_DATA_PLACES, file[plan.dataset]) | dict.fromkeys(_KEY_PLACES, key))
    _add(entry, dict.fromkeys(_ANGLE_PLACES, angles))
    _describe(file, {"default": path.strip("/").partition("/")[0]})
    _describe(entry, {"default": "data"})
    _describe(entry["data"], {"signal": "data"})


def _classify(entry: Any) -> None:
    """Say of the groups what they are."""
    classes = {
        "": "NXentry",
        "instrument": "NXinstrument",
        "instrument/detector": "NXdetector",
        "sample": "NXsample",
        "data": "NXdata",
    }
    for name, nexus in classes.items():
        if not name or is_group(entry.get(name, default=entry)):
            _describe(entry.require_group(name) if name else entry, {"NX_class": nexus})


def _add(group: Any, nodes: dict[str, Any]) -> None:
    """Add what is not there."""
    for path, node in nodes.items():
        *parents, name = path.split("/")
        parent = get(group, "/".join(parents)) if parents else group
        if node is not None and is_group(parent) and get(parent, name) is None:
            if parent.get(name, getlink=True) is not None:
                del parent[name]  # it leads nowhere
            parent[name] = node


def _describe(node: Any, attributes: dict[str, str]) -> None:
    """Add attributes that are not there."""
    for name, value in attributes.items():
        if name not in node.attrs:
            node.attrs[name] = value


def write_dxchange(file: Any, plan: Plan) -> None:
    """Write what DXchange asks for, with a flat of 1 and a dark of 0: the frames are corrected already."""
    exchange = file[entry_of("dxchange", plan.dataset)]
    exchange["data_white"] = np.ones((1, *plan.shape[1:]), plan.dtype)
    exchange["data_dark"] = np.zeros((1, *plan.shape[1:]), plan.dtype)
    _add(file, {"implements": "exchange"})
    if plan.angles is not None and "theta" not in exchange:
        exchange["theta"] = plan.angles
        exchange["theta"].attrs["units"] = "degrees"


def _groups(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield a group and what could be an entry in it: `/entry`, `/entry1/tomo_entry`."""
    yield join(path, ""), group
    for name, entry in members(group):
        if is_group(entry):
            yield join(path, name), entry
            for below, sub in members(entry):
                if is_group(sub):
                    yield join(path, f"{name}/{below}"), sub


def _frames(entry: Any) -> str | None:
    """Return the place of the frames in an entry: the signal of its data, or what the detector recorded."""
    for place in reversed(_DATA_PLACES):
        node = get(entry, place)
        if is_dataset(node) and len(node.shape) == 3 and is_numeric(node.dtype):
            return place
    return None


def _image_key(entry: Any) -> Any:
    """Return the image_key; with none, ESRF's image_key_control, which tells more apart."""
    key = _find_key(entry, "image_key")
    return _find_key(entry, "image_key_control") if key is None else key


def _find_key(entry: Any, name: str) -> Any:
    for place in _KEY_PLACES:
        node = get(entry, place.replace("image_key", name))
        if is_dataset(node):
            return node
    return _search(entry, name, _DEPTH)


def _search(group: Any, name: str, depth: int) -> Any:
    node = get(group, name)
    if is_dataset(node):
        return node
    if depth:
        for _, child in members(group):
            if is_group(child):
                found = _search(child, name, depth - 1)
                if found is not None:
                    return found
    return None


def _nxtomo(path: str, entry: Any, location: Location) -> Tomography:
    place, image_key = _frames(entry), _image_key(entry)
    assert place is not None
    data = entry[place]
    name = join(path, next(p for p in _DATA_PLACES if get(entry, p) == data))
    if image_key.size != data.shape[0] or not is_numeric(image_key.dtype):
        raise FileFormatError(
            f"`{location.path}:{path}` has {data.shape[0]} frames, but an image_key of shape "
            f"{image_key.shape}. Open the frames by name, as in `{location.path.name}:{name}`."
        )
    key = np.asarray(image_key[()]).ravel()
    key = np.where(key == _ALIGNMENT, _PROJECTION, key)
    frames = {kind: np.flatnonzero(key == kind) for kind in (_PROJECTION, _FLAT, _DARK)}
    if not frames[_PROJECTION].size:
        raise FileFormatError(
            f"`{location.path}:{path}` has no projection (image_key 0) but {frames[_FLAT].size} flats and "
            f"{frames[_DARK].size} darks. Open all frames by name, as in `{location.path.name}:{name}`."
        )
    angles = _angles(entry, _ANGLE_PLACES, {len(key), frames[_PROJECTION].size})
    if angles is not None and len(angles) == len(key):
        angles = angles[frames[_PROJECTION]]
    return Tomography(
        "nxtomo", data, name, frames[_PROJECTION], data, frames[_FLAT], data, frames[_DARK], angles
    )


def _dxchange(group: Any, location: Location) -> Tomography | None:
    exchange = get(group, "exchange")
    if exchange is None or not is_group(exchange):
        return None
    data, flats, darks = (get(exchange, name) for name in ("data", "data_white", "data_dark"))
    if not is_dataset(data) or len(data.shape) != 3:
        return None
    flats, darks = (part if is_dataset(part) else None for part in (flats, darks))
    angles = _angles(exchange, ("theta",), {data.shape[0]})
    path = join(location.inside, "exchange")
    return Tomography("dxchange", data, join(path, "data"), None, flats, None, darks, None, angles)


def _angles(group: Any, places: tuple[str, ...], numbers: set[int]) -> Float64 | None:
    """Return angles in degrees, whatever their unit, where there are as many as expected."""
    for place in places:
        node = get(group, place)
        if is_dataset(node) and is_numeric(node.dtype) and node.shape in {(n,) for n in numbers}:
            unit = node.attrs.get("units", "")
            values = np.asarray(node[()], np.float64)
            in_radians = (unit.decode() if isinstance(unit, bytes) else str(unit)).lower().startswith("rad")
            return np.degrees(values) if in_radians else values
    return None
