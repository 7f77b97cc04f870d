"""The JSON header of a calibration file: made, checked, and held against the arrays.

Whatever the format, the header is one JSON object, pure ASCII::

    {"format": "detectorcal calibration", "protocol": 1,
     "arrays": {"coef": {"shape": [2048, 2048], "dtype": "float64", "sha256": "..."}, ...},
     ... what the caller gave ...,
     "sha256": "..."}

The last entry is the checksum of all the others, those of the arrays are over their
little-endian bytes in C order. Arrays are stored uncompressed, so a file can never ask for
more memory than its own size. Nothing in a file is ever executed, imported or followed to
another file: this is safe with files of strangers. What the header and the arrays mean is
not known here.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectorcal._errors import FileFormatError, InputError, NewerProtocolError

PROTOCOL = 1
"""The number of the layout and of the meaning of what is in it.

Anything that an older detectorcal may safely ignore (a further array, a further key of the
header) leaves the number alone. For everything else:

1. Add 1 here, and say in the changelog which version is the first to write it.
2. Where the *layout* changed, keep the old reader and choose by ``header["protocol"]``; where the
   *meaning* changed, let the caller choose, who is handed the number with the header.
   A protocol, once released, is read for ever.
3. Make ``tests/data/protocol-N.*`` by ``make_examples`` of ``tests/test_persistence.py``, check
   them in and add N to the test. Files of older protocols are never made again.
"""

FORMAT = "detectorcal calibration"
_MARK = "detectorcal"  # the attribute that holds the header
_OWN_KEYS = {"format", "protocol", "arrays", "sha256"}
_TYPES = {f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)} - {"float8"} | {"bool"}
_NAME = re.compile(r"\w+(/\w+)*", re.ASCII)

Arrays: TypeAlias = dict[str, NDArray[Any]]


class _Spec(NamedTuple):
    """What the header says of one array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sha256: str


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"The name of a calibration file ends in one of {', '.join(_FORMATS)}, which decides its format; "
            f"{str(path)!r} ends in {path.suffix!r}."
        ) from None


def _storable_arrays(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays as little-endian NumPy arrays in C order, of one shape."""
    stored: Arrays = {}
    for name, given in arrays.items():
        array = np.asarray(given)
        if not _NAME.fullmatch(name) or any(other.startswith(f"{name}/") for other in arrays):
            raise InputError(f"An array cannot be named {name!r}: names are words, or groups and words as 'a/b'.")
        if array.dtype.name not in _TYPES:
            raise InputError(f"Array {name!r} has type {array.dtype}; a calibration file holds {', '.join(sorted(_TYPES))}.")
        if array.ndim not in (1, 2) or not array.size:
            raise InputError(f"Array {name!r} has shape {array.shape}, but a detector has (width,) or (height, width).")
        stored[name] = _little_endian(array)
    if len({array.shape for array in stored.values()}) != 1:
        shapes = {name: array.shape for name, array in stored.items()}
        raise InputError(f"The arrays of a calibration have one shape, that of the detector; these have {shapes}.")
    return stored


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _whole_header(header: Mapping[str, Any], arrays: Arrays, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """The header as it is stored: marked, numbered, with the arrays listed and its checksum."""
    if taken := _OWN_KEYS & header.keys():
        raise InputError(f"`header` may not have the keys {sorted(taken)}: the file's own entries have those names.")
    _check_json(dict(header), "header")
    listed = {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": _sha256(array)}
        | ({"description": descriptions[name]} if name in descriptions else {})
        for name, array in arrays.items()
    }
    whole = {"format": FORMAT, "protocol": PROTOCOL, "arrays": listed, **header}
    return whole | {"sha256": _header_sha256(whole)}


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


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(_little_endian(array).reshape(-1).view(np.uint8)).hexdigest()


def _header_sha256(header: Mapping[str, Any]) -> str:
    # Sorted and without spaces, so that it does not depend on how a library writes its JSON.
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _checked_header(path: Path, kind: _Format, raw: Any) -> dict[str, Any]:
    header = json.loads(raw) if isinstance(raw, str | bytes) else raw
    if header is not None and not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    if header is None or header.get("format") != FORMAT:
        raise FileFormatError(
            f"{path} is {kind.name} but not a {FORMAT}. Give a file that detectorcal saved; "
            "frames and other images are opened by `detectorcal.io`."
        )
    protocol = header.get("protocol")
    if type(protocol) is not int or protocol < 1:
        raise ValueError(f"its protocol is {protocol!r}, not a positive number")
    if protocol > PROTOCOL:
        raise NewerProtocolError(
            f"{path} is of protocol {protocol}, and this version of detectorcal reads up to {PROTOCOL}. "
            "Upgrade it: pip install --upgrade detectorcal."
        )
    if header.get("sha256") != _header_sha256({key: header[key] for key in header if key != "sha256"}):
        raise ValueError("its header does not match its checksum")
    return header


def _checked_specs(header: dict[str, Any], held: int) -> dict[str, _Spec]:
    """What arrays to expect; refused before a byte of them is allocated if the file cannot hold them."""
    specs = {}
    for name, entry in header["arrays"].items():
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        if not _NAME.fullmatch(name) or dtype not in _TYPES:
            raise ValueError(f"its header names an array {name!r} of type {dtype!r}, which cannot be")
        if len(shape) not in (1, 2) or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"array {name!r} cannot have the shape {shape} that its header gives")
        specs[name] = _Spec(shape, np.dtype(dtype), entry["sha256"])
    if len({spec.shape for spec in specs.values()}) != 1:
        raise ValueError("its header gives no arrays, or arrays of different shapes")
    declared = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values())
    if declared > held:
        raise ValueError(f"its header announces {declared} bytes of arrays, but only {held} bytes are on disk")
    return specs


def _checked_array(index: int, name: str, spec: _Spec, load: _Load) -> NDArray[Any]:
    array = load(index, name, spec)
    if _sha256(array) != spec.sha256:
        raise ValueError(f"array {name!r} does not match its checksum")
    return array


def _check_layout(name: str, found: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    if found != wanted:
        raise ValueError(f"array {name!r} is stored as {found}, but the header says {wanted}")


