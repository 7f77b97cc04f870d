"""Files and numbers that options of the command line name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from detectorcal._errors import InputError
from detectorcal._provenance import history_of
from detectorcal.io import open_frames

__all__ = ["image_of", "opened", "refuse_corrected"]


@contextmanager
def opened(kind: str, name: str | None, line: bool) -> Iterator[Any]:
    """Open the flats or darks of an option; a number stays a number, nothing stays None."""
    if name is None or _is_number(name):
        yield None if name is None else float(name)
        return
    with open_frames(name, line=line) as frames:
        own = {"flat": frames.flats, "dark": frames.darks}[kind]
        if frames.layout is not None and own is None:
            raise InputError(f"`{name}` is a scan ({frames.layout}) that holds no {kind}s of its own.")
        yield frames if own is None else own


def image_of(option: str, name: str | None, line: bool) -> np.ndarray | None:
    """Read the one image of an option, such as a label image; nothing stays None."""
    if name is None:
        return None
    with open_frames(name, line=line) as frames:
        if len(frames) != 1:
            raise InputError(f"`{option}` takes one image, but `{name}` holds {len(frames)}.")
        image: np.ndarray = np.asarray(frames[:])[0]
    return image


def refuse_corrected(*stacks: Any) -> None:
    """Raise if frames that should be raw were written by `correct`."""
    for stack in stacks:
        if history_of(stack) is not None:
            raise InputError(
                f"`{stack.path}` was written by detectorcal: its frames are corrected already. Give raw ones."
            )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
