"""Walking through an HDF5 file: what is where, under one identity whatever links lead to it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectorcal._errors import DamagedFileError, DetectorcalError, MissingFileError

_MOST_LINKS = 16
"""Soft links that are followed one after the other, as the library does."""


def get(group: Any, name: str) -> Any:
    """Return what a group holds under a name, through its links; None where these lead nowhere."""
    try:
        return group.get(name)
    except (KeyError, OSError, RuntimeError):  # a link to a file that is gone or is no HDF5
        return None


def members(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a group holds by name, through its links; what dangles is skipped."""
    for name in group:
        node = get(group, name)
        if node is not None:
            yield name, node


def is_group(node: Any) -> bool:
    """Tell whether a node is a group or a file."""
    return not hasattr(node, "shape") and hasattr(node, "keys")


def is_dataset(node: Any) -> bool:
    """Tell whether a node is a dataset that holds something."""
    return node is not None and getattr(node, "shape", None) is not None


def identity(node: Any) -> tuple[str, int]:
    """Give what is the same for a node by whatever links it was reached: its file and its place there.

    Not the number that the library gives a file: this is another one after the file was closed and opened.
    """
    import h5py

    return os.path.realpath(file_of(node)), h5py.h5o.get_info(node.id).addr


def file_of(node: Any) -> Path:
    """Give the file that a node is in, which behind an external link is another one."""
    import h5py

    return Path(os.fsdecode(h5py.h5f.get_name(node.id)))


def join(path: str, name: str) -> str:
    """Give the absolute path of what is in a group."""
    return "/" + "/".join(filter(None, f"{path}/{name}".split("/")))


def dangling(group: Any, path: str, depth: int = _MOST_LINKS) -> tuple[str, Any] | None:
    """Return the link to another file that keeps `path` in a group from being found, and where it is."""
    import h5py

    parts = path.strip("/").split("/")
    for number, name in enumerate(parts, 1):
        try:
            link = group.get(name, getlink=True)
        except (KeyError, OSError, RuntimeError):
            return None
        node = get(group, name)
        if node is None and isinstance(link, h5py.ExternalLink):
            return "/".join(parts[:number]), link
        if node is None and isinstance(link, h5py.SoftLink) and depth:
            start = group.file if link.path.startswith("/") else group
            found = dangling(start, link.path, depth - 1)
            return None if found is None else ("/".join(parts[:number]), found[1])
        if not is_group(node):
            return None
        group = node
    return None


def broken(name: str, path: Path, link: Any) -> DetectorcalError:
    """Give the error for a link to another file that leads nowhere."""
    target = path.parent / link.filename
    if target.exists():
        return DamagedFileError(
            f"`{name}` links to `{link.path}` in `{link.filename}`, which is damaged or has no such dataset."
        )
    return MissingFileError(
        f"`{name}` links to `{link.path}` in `{link.filename}`, which is not there. Put it beside "
        f"`{path.name}`."
    )
