"""What an index of a stack means: which frames, which pixels, and what is left to do in memory."""

import operator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray


def expand(index: Any, ndim: int) -> list[Any]:
    """Return one key per axis."""
    keys = list(index) if isinstance(index, tuple) else [index]
    dots = [i for i, key in enumerate(keys) if key is Ellipsis]
    if len(dots) > 1 or len(keys) - len(dots) > ndim or any(key is None for key in keys):
        raise IndexError(f"{index!r} does not index a stack of {ndim} axes.")
    place = dots[0] if dots else len(keys)
    missing = [slice(None)] * (ndim - len(keys) + len(dots))
    return keys[:place] + missing + keys[place + 1 :]


def choose(frames: range | NDArray[np.intp], key: Any) -> NDArray[np.intp]:
    """Return the numbers of the frames that a key stands for."""
    if isinstance(key, slice):
        chosen = frames[key]
        if isinstance(chosen, range):
            return np.arange(chosen.start, chosen.stop, chosen.step)
        return chosen
    if isinstance(frames, range):
        if not isinstance(key, bool):
            with suppress(TypeError):
                return np.asarray(frames[operator.index(key)])
        frames = np.arange(frames.start, frames.stop, frames.step)
    return np.asarray(frames[np.asarray(key) if np.size(key) else np.empty(0, np.intp)])


def cut(key: Any, axis: range) -> tuple[slice, int | slice]:
    """Split a key of a detector axis into a slice that moves forward and what is left to do in memory."""
    if isinstance(key, slice):
        positions = axis[key]
        if not positions:
            return slice(0, 0, 1), slice(None)
        forward = positions if positions.step > 0 else positions[::-1]
        after = slice(None, None, 1 if positions.step > 0 else -1)
        return slice(forward.start, forward[-1] + 1, forward.step), after
    try:
        position = axis[operator.index(key)]
    except (TypeError, IndexError) as error:
        raise IndexError(
            f"{key!r} is no integer or slice within a detector axis of {len(axis)} pixels."
        ) from error
    return slice(position, position + 1, 1), 0
