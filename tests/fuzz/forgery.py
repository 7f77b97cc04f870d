"""Files made wrong on purpose, their checksums made right again: what a malicious stranger can do."""

from __future__ import annotations

import functools
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from detectorcal._persistence.header import MARK, _header_sha256
from tests.fuzz.damage import Damage
from tests.fuzz.lookup3 import lookup3
from tests.fuzz.samples import Files

DEEP: Any = functools.reduce(lambda inner, _: [inner], range(500), 0)
NASTY: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**40),
    *(
        0.5,
        -1.5,
        1e308,
        1e-320,
        "",
        "x",
        "coef",
        "../coef",
        "/etc/passwd",
        "float64",
        "object",
        "|O",
        "U9999",
    ),
    *("9" * 5000, "\udc80", [], {}, [[]], [0], [-1, 2], [2**40, 2**40], [1] * 40, [True, False]),
    *({"id": "pickle"}, {"name": "numcodecs.pickle", "configuration": {}}, {"id": "zlib", "level": 1}, DEEP),
]
_NUMBERS = [0, 1, 2, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]


# ---- JSON


def edit_json(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one entry replaced, removed, repeated or added, anywhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        value, key = dict(value), rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                del value[key]
            case 1:
                value[rng.choice(["x", "../x", "", key + "/x", key.upper()])] = value[key]
            case _:
                value[key] = edit_json(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], edit_json(value[at], rng), *value[at + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return rng.choice((value + 1, value * 2, -value, value * 2**20, float(value)))
    return rng.choice(NASTY)


def _sealed(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    changed = edit_json({key: header[key] for key in header if key != "sha256"}, rng)
    if isinstance(changed, dict):
        changed["sha256"] = _header_sha256(changed)
    return changed


def forge_header(files: Files, rng: random.Random) -> None:
    """Change the header of a calibration, and make its checksum right."""
    if "zarr.json" in files:
        root = json.loads(files["zarr.json"] or b"")
        root["attributes"][MARK] = _sealed(root["attributes"][MARK], rng)
        files["zarr.json"] = json.dumps(root).encode()
    elif (content := files[""] or b"").startswith(b"\x89HDF"):
        files[""] = _in_hdf5(content, lambda file: _forge_hdf5_header(file, rng))
    else:
        start = content.index(b'{"')
        end = content.index(b"\0", start)
        new = json.dumps(_sealed(json.loads(content[start:end]), rng), separators=(", ", " : ")).encode()
        files[""] = _with_description(content, start, new + b"\0")


def _forge_hdf5_header(file: h5py.File, rng: random.Random) -> None:
    header = json.dumps(_sealed(json.loads(file.attrs[MARK]), rng)).encode()
    if len(header) < 2**15:  # what an attribute of this layout can hold
        file.attrs[MARK] = np.bytes_(header)


def _with_description(content: bytes, start: int, text: bytes) -> bytes:
    """Put another ImageDescription behind the end, and let the tag that led to the old one lead there."""
    at = content.index(struct.pack("<I", start))
    count = struct.pack("<II", len(text), len(content))
    return content[: at - 4] + count + content[at + 4 :] + text


def edit_zarr_json(files: Files, rng: random.Random) -> None:
    """Change the metadata of a zarr node."""
    name = rng.choice([name for name in files if name.rsplit("/", 1)[-1] in _ZARR_METADATA])
    files[name] = json.dumps(edit_json(json.loads(files[name] or b""), rng)).encode()


_ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup")


def inflate_zarr(files: Files, rng: random.Random) -> None:
    """Declare a shape, or chunks, far larger than what is there."""
    name = rng.choice([name for name in files if name.rsplit("/", 1)[-1] in ("zarr.json", ".zarray")])
    text = files[name] or b""
    factor = rng.choice((2**10, 2**20, 2**30, 2**60))
    for number in (6, 8, 20, 24, 40, 12, 16, 4):
        if rng.random() < 0.3:
            for end in b",]":
                mark = b" %d%c" % (number, end)
                text = text.replace(mark, b" %d%c" % (number * factor, end))
    files[name] = text


# ---- HDF5


@functools.lru_cache(maxsize=64)
def _sealed_blocks(content: bytes) -> tuple[tuple[int, int], ...]:
    """Find where the library's checksums are: blocks from a signature to four bytes that seal it."""
    found = []
    for mark in (
        b"\x89HDF\r\n\x1a\n",
        b"OHDR",
        b"OCHK",
        b"BTHD",
        b"BTLF",
        b"FRHP",
        b"FHDB",
        b"FSHD",
        b"FAHD",
    ):
        start = content.find(mark)
        while start >= 0:
            for stop in range(start + 8, min(start + 700, len(content) - 3)):
                if struct.unpack_from("<I", content, stop)[0] == lookup3(content[start:stop]):
                    found.append((start, stop))
                    break
            start = content.find(mark, start + 1)
    return tuple(found)


def reseal_hdf5(files: Files, rng: random.Random) -> None:
    """Change bytes of the library's own structures, and make its checksums right again."""
    content = bytearray(files[""] or b"")
    blocks = _sealed_blocks(bytes(content))
    for start, stop in rng.sample(blocks, min(len(blocks), rng.randint(1, 2))):
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(start + 4, stop)
            content[at] = rng.choice((rng.randrange(256), content[at] ^ 1, 0, 255))
        struct.pack_into("<I", content, stop, lookup3(bytes(content[start:stop])))
    files[""] = bytes(content)


def replace_in_hdf5(files: Files, rng: random.Random) -> None:
    """Put something else in the place of a dataset: links, filters, other shapes and types."""
    files[""] = _in_hdf5(files[""] or b"", lambda file: _replace_dataset(file, rng))


def _replace_dataset(file: h5py.File, rng: random.Random) -> None:
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    name = rng.choice(sorted(names))
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    rng.choice(_REPLACEMENTS)(file, name, shape, dtype)


def _huge(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    file.create_dataset(name, (2**33, *shape[1:]), dtype, chunks=(1, *shape[1:]))


def _wide(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    file.create_dataset(name, (*shape[:-1], 2**40), dtype, chunks=(*(1,) * (len(shape) - 1), 2**20))


def _bomb(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    file.create_dataset(name, data=np.zeros((200, 500, *shape[2:]), dtype), compression="gzip", chunks=True)


def _virtual(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource("/etc/passwd", "coef", shape)
    file.create_virtual_dataset(name, layout)


def _external(file: h5py.File, name: str, shape: Any, dtype: Any) -> None:
    file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, 2**20)])


def _link(file: h5py.File, name: str, link: Any) -> None:
    file[name] = link


_REPLACEMENTS: list[Callable[[h5py.File, str, Any, Any], object]] = [
    *(_huge, _wide, _bomb, _virtual, _external),
    lambda file, name, shape, dtype: _link(file, name, h5py.SoftLink(f"/{name}")),
    lambda file, name, shape, dtype: _link(file, name, h5py.SoftLink("/")),
    lambda file, name, shape, dtype: _link(file, name, h5py.ExternalLink("/etc/passwd", "/coef")),
    lambda file, name, shape, dtype: _link(file, name, file["/"]),  # a group that holds itself
    lambda file, name, shape, dtype: file.create_group(name),
    lambda file, name, shape, dtype: _link(file, name, dtype),  # a named type
    lambda file, name, shape, dtype: _link(file, name, h5py.Empty(dtype)),
    lambda file, name, shape, dtype: _link(file, name, 3.5),
    lambda file, name, shape, dtype: _link(file, name, "text"),
    lambda file, name, shape, dtype: file.create_dataset(name, shape, h5py.vlen_dtype(np.float64)),
    lambda file, name, shape, dtype: file.create_dataset(name, shape, h5py.ref_dtype),
    lambda file, name, shape, dtype: file.create_dataset(name, shape, "c16"),
    lambda file, name, shape, dtype: file.create_dataset(name, shape, [("a", dtype), ("b", "f4")]),
    lambda file, name, shape, dtype: file.create_dataset(name, shape, np.dtype((np.uint8, (3,)))),
    lambda file, name, shape, dtype: file.create_dataset(name, shape[::-1], dtype),
    lambda file, name, shape, dtype: file.create_dataset(name, (0,) * len(shape), dtype, chunks=None),
    lambda file, name, shape, dtype: file.create_dataset(name, (1,) * 30, dtype),
]


_WRITABLE = 1
"""H5LT_FILE_IMAGE_OPEN_RW of the high-level library."""


def _in_hdf5(content: bytes, change: Callable[[h5py.File], None]) -> bytes:
    with h5py.File(h5py.h5f.open_file_image(content, flags=_WRITABLE)) as file:
        change(file)
        file.flush()
        return bytes(file.id.get_file_image())


# ---- TIFF


def edit_tiff_tags(files: Files, rng: random.Random) -> None:
    """Change the type, count or value of some tags, or where the next page is."""
    content = bytearray(files[""] or b"")
    entries = list(_tiff_entries(bytes(content)))
    for at, size, order in rng.sample(entries, min(len(entries), rng.randint(1, 3))):
        number = rng.choice((*_NUMBERS, rng.randrange(len(content)), rng.randrange(2**32)))
        match rng.randrange(6):
            case 0:
                struct.pack_into(order + "H", content, at, rng.randrange(65536))
            case 1:
                struct.pack_into(order + "H", content, at + 2, rng.randrange(20))
            case 2:
                struct.pack_into(order + "IQ"[size == 8], content, at + 4, number % 256**size)
            case _:
                struct.pack_into(order + "IQ"[size == 8], content, at + 4 + size, number % 256**size)
    files[""] = bytes(content)


def _tiff_entries(content: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield where the tags of all pages are, the size of a value, and the byte order."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    size, counter, number = (8, "Q", "Q") if big else (4, "H", "I")
    pages = [struct.unpack_from(order + number, content, size)[0]]
    while pages:
        at = pages.pop()
        (n_tags,) = struct.unpack_from(order + counter, content, at)
        at += struct.calcsize(counter)
        for _ in range(n_tags):
            yield at, size, order
            tag, _, count = struct.unpack_from(order + "HH" + number, content, at)
            value = struct.unpack_from(order + number, content, at + 4 + size)[0]
            if tag == _SUB_IFDS and count == 1:
                pages.append(value)
            at += 4 + 2 * size
        following = struct.unpack_from(order + number, content, at)[0]
        if following:
            pages.append(following)


_SUB_IFDS = 330


def forgeries(kind: str, suffix: str) -> list[Damage]:
    """Give what can be forged in a file."""
    own = {
        ".h5": [reseal_hdf5, replace_in_hdf5],
        ".nxs": [reseal_hdf5, replace_in_hdf5],
        ".zarr": [edit_zarr_json, inflate_zarr],
        ".tif": [edit_tiff_tags],
    }[suffix]
    return [*own, forge_header] if kind == "calibration" else own


def is_forged(damage: Damage) -> bool:
    """Tell whether a file may afterwards be sound, with another content."""
    return damage.__module__ == __name__
