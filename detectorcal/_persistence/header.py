"""The JSON header of a calibration file: made, checked, and what it says of the arrays.

Whatever the format of the file, the header is one JSON object, pure ASCII::

    {"format": "detectorcal calibration", "protocol": 1,
     "arrays": {"coef": {"shape": [2048, 2048], "dtype": "float64", "sha256": "..."}, ...},
     ... what the caller gave ...,
     "sha256": "..."}

The last entry is the checksum of all the others; those of the arrays are of their little-endian
bytes in C order. A checksum finds damage, not malice.

While a file is read, damage is a plain ValueError here: `read_calibration` adds the path and the cure.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import FileFormatError, InputError, NewerProtocolError

PROTOCOL = 1
"""The number of the layout, and of the meaning of what lies in it.

Anything that an older detectorcal may safely ignore (a further array, a further key of the
header) leaves the number alone. For everything else:

1. Add 1 here, and say in the changelog which version is the first to write it.
2. Where the *layout* changed, keep the old reader and choose by ``header["protocol"]``; where the
   *meaning* changed, let the caller choose, who is handed the number with the header.
   A protocol, once released, is read for ever.
3. Make ``tests/data/protocol-N.*`` with ``tests/test_persistence.py``, check them in and add N to
   the test there. Files of older protocols are never made again.
"""

FORMAT = "detectorcal calibration"
MARK = "detectorcal"
"""The name of the attribute that holds the header, in formats that have attributes."""

OWN_KEYS = {"format", "protocol", "arrays", "sha256"}
TYPES = (
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_NAME = re.compile(r"\w+(/\w+)*", re.ASCII)

Arrays: TypeAlias = dict[str, NDArray[Any]]


class Spec(NamedTuple):
    """What the header says of one array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sha256: str


Load: TypeAlias = Callable[[int, str, Spec], NDArray[Any]]
"""Reads one array, by its place in the order and its name; raises if it is not stored as specified."""


# Writing: refuse what would not come back as it was given.


def storable_arrays(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Give the arrays as little-endian NumPy arrays in C order, of one shape."""
    stored: Arrays = {}
    for name, given in arrays.items():
        array = np.asarray(given)
        if not _NAME.fullmatch(name) or any(other.startswith(f"{name}/") for other in arrays):
            raise InputError(f"An array cannot be named {name!r}; give a word of its own, or group/word.")
        if array.dtype.name not in TYPES:
            raise InputError(
                f"Array {name!r} has type {array.dtype}; a calibration file holds {', '.join(TYPES)}."
            )
        if array.ndim not in (1, 2) or array.size == 0:
            raise InputError(
                f"Array {name!r} has shape {array.shape}; a detector has (width,) or (height, width)."
            )
        stored[name] = _little_endian(array)
    shapes = {name: array.shape for name, array in stored.items()}
    if len(set(shapes.values())) != 1:
        raise InputError(f"The arrays of a calibration have one shape, the detector's; came {shapes}.")
    return stored


def whole_header(
    header: Mapping[str, Any], arrays: Arrays, descriptions: Mapping[str, str]
) -> dict[str, Any]:
    """Give the header as it is stored: with its mark and number, the arrays and the checksum."""
    if taken := sorted(OWN_KEYS & header.keys()):
        raise InputError(f"`header` has the keys {taken}, which the file itself needs; rename them.")
    _check_json(dict(header), "header")
    listed: dict[str, dict[str, Any]] = {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": sha256(array)}
        for name, array in arrays.items()
    }
    for name in listed.keys() & descriptions.keys():
        listed[name]["description"] = descriptions[name]
    whole = {"format": FORMAT, "protocol": PROTOCOL, "arrays": listed, **header}
    return {**whole, "sha256": _header_sha256(whole)}


def _check_json(value: Any, where: str) -> None:
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise InputError(f"`{where}` has the key {key!r}; JSON has only strings as keys.")
                _check_json(item, f"{where}.{key}")
        case list() | tuple():
            for i, item in enumerate(value):
                _check_json(item, f"{where}[{i}]")
        case float() if not math.isfinite(value):
            raise InputError(f"`{where}` is {value}, which JSON cannot hold; give a finite number or None.")
        case None | bool() | int() | float() | str():
            pass
        case _:
            raise InputError(
                f"`{where}` is {value!r} of type {type(value).__name__}, which JSON cannot hold; "
                "give a string, number, boolean, None, list or dict."
            )


# Reading: every check that a stranger's header goes through.


def checked_header(what: str, raw: Any) -> dict[str, Any]:
    """Give the header, whole and of a protocol that is known; `what` is the file, for messages."""
    header = json.loads(raw) if isinstance(raw, str | bytes) else raw
    if header is not None and not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    if header is None or header.get("format") != FORMAT:
        raise FileFormatError(f"{what} but not a {FORMAT}. Give one that detectorcal saved.")
    protocol = header.get("protocol")
    if type(protocol) is not int or protocol < 1:
        raise ValueError(f"its protocol is {protocol!r}, not a positive number")
    if protocol > PROTOCOL:
        raise NewerProtocolError(
            f"{what} of protocol {protocol}, and this version of detectorcal reads up to {PROTOCOL}. "
            "Upgrade it: pip install --upgrade detectorcal"
        )
    if header.get("sha256") != _header_sha256({key: header[key] for key in header if key != "sha256"}):
        raise ValueError("its header does not match its checksum")
    return header


def checked_specs(header: dict[str, Any], held: int) -> dict[str, Spec]:
    """Give what arrays to expect; refuse, before any is allocated, more than the file holds."""
    specs = {}
    for name, entry in header["arrays"].items():
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        if not _NAME.fullmatch(name) or dtype not in TYPES:
            raise ValueError(f"its header has an array {name!r} of type {dtype!r}, which cannot be")
        if len(shape) not in (1, 2) or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"its header has an array {name!r} of shape {shape}, which cannot be")
        specs[name] = Spec(shape, np.dtype(dtype), entry["sha256"])
    if len({spec.shape for spec in specs.values()}) != 1:
        raise ValueError("its header has no arrays, or arrays of different shapes")
    declared = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values())
    if declared > held:
        raise ValueError(f"its header announces {declared} bytes of arrays, but {held} bytes are on disk")
    return specs


def check_layout(name: str, found: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    """Refuse an array that is not stored as its spec wants it."""
    if found != wanted:
        raise ValueError(f"array {name!r} is stored as {found}, where {wanted} was announced")


# Checksums.


def sha256(array: NDArray[Any]) -> str:
    """Give the checksum of an array's little-endian bytes in C order."""
    return hashlib.sha256(_little_endian(array).reshape(-1).view(np.uint8).data).hexdigest()


def _header_sha256(header: Mapping[str, Any]) -> str:
    # Sorted and without spaces, so that it does not depend on how a library writes its JSON.
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
