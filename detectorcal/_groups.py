"""Which flats of a scan belong together, which projections lie between them, and how much light each had."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detectorcal import _validation as validation
from detectorcal._average import Chosen
from detectorcal._errors import InputError
from detectorcal._typing import Float64, Shape, Stack

__all__ = ["DRIFTS", "Group", "between", "checked_exposure", "groups_of", "readings"]

DRIFTS = ("linear", "nearest")


class Group(NamedTuple):
    """Flats taken at one moment of a scan."""

    position: float
    number: int
    """Of the group, as the user counts them: of a stack, by the first flat of each."""
    numbers: np.ndarray
    """Of its frames, among all flats."""
    frames: Stack


def groups_of(flats: Any, positions: Any, shape: Shape, flattened: bool) -> list[Group]:
    """Tell the groups of flats, in the order of their positions.

    Parameters
    ----------
    flats, positions : list or stack, and sequence of float or None
        As :class:`~detectorcal.ScanCorrection` takes them.
    shape : tuple of int
        Of the detector.
    flattened : bool
        Whether rows of pixels are accepted as frames.

    Returns
    -------
    list of Group
    """

    def checked(name: str, value: Any) -> Stack:
        if np.ndim(value) == 0 and not hasattr(value, "shape"):
            raise InputError(f"`{name}` must be a frame or a stack of them, got {value!r}.")
        stack: Stack = validation.as_map_stack(
            name, value, shape, flattened=flattened, whose="this calibration"
        )
        return stack

    if isinstance(flats, (list, tuple)):
        stacks = [checked(f"flats[{number}]", value) for number, value in enumerate(flats)]
        ends = np.cumsum([0, *(stack.shape[0] for stack in stacks)])
        at = _positions(positions, len(stacks), "groups of flats")
        groups = [
            Group(place, i, np.arange(*ends[i : i + 2]), stack)
            for i, (place, stack) in enumerate(zip(at.tolist(), stacks, strict=True))
        ]
    else:
        stack = checked("flats", flats)
        if positions is None:
            return [Group(0.0, 0, np.arange(stack.shape[0]), stack)]
        at = _positions(positions, stack.shape[0], "flats")
        numbers = [np.flatnonzero(at == place) for place in dict.fromkeys(at.tolist())]
        groups = [Group(float(at[n[0]]), i, n, Chosen(stack, n)) for i, n in enumerate(numbers)]
    groups.sort(key=lambda group: group.position)
    if len({group.position for group in groups}) < len(groups):
        raise InputError("`flat_positions` has a position twice: give flats taken together as one stack.")
    return groups


def _positions(positions: Any, n: int, of_what: str) -> Float64:
    if n == 0:
        raise InputError("`flats` is empty: give one group of flats at least.")
    if positions is None:
        if n > 1:
            raise InputError(
                f"`flats` has {n} groups, so `flat_positions` must tell where in the scan each was taken, "
                "counted in projections."
            )
        return np.zeros(1)
    at = np.asarray(validation.as_real("flat_positions", positions), dtype=np.float64)
    if at.shape != (n,) or not np.all(np.isfinite(at)):
        raise InputError(f"`flat_positions` must be {n} finite numbers, one for each of the {of_what}.")
    return at


def between(positions: Float64, n_frames: int, drift: str) -> tuple[np.ndarray, np.ndarray, Float64]:
    """Tell between which groups each projection lies, and where between them.

    Parameters
    ----------
    positions : array of shape (n_groups,), float64
        Of the groups, ascending, counted in projections.
    n_frames : int
        Number of projections.
    drift : {"linear", "nearest"}
        How the beam is found between two groups.

    Returns
    -------
    before, after : arrays of shape (n_frames,), int
        Numbers of groups.
    share : array of shape (n_frames,), float64
        From 0, before, to 1, after.
    """
    numbers = np.arange(n_frames)
    after = np.searchsorted(positions, numbers, side="right")
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(positions) - 1)
    gap = positions[after] - positions[before]
    share = np.divide(numbers - positions[before], gap, out=np.zeros(n_frames), where=gap > 0)
    if drift == "nearest":
        nearest = np.where(share > 0.5, after, before)
        return nearest, nearest, np.zeros(n_frames)
    return before, after, share


def checked_exposure(exposure: Any) -> tuple[float, ...] | None:
    """Check the exposure times of projection, flat and dark."""
    if exposure is None:
        return None
    if not isinstance(exposure, (tuple, list)) or len(exposure) not in (2, 3):
        raise InputError(
            f"`exposure` must be (image, flat) or (image, flat, dark), times in s, got {exposure!r}."
        )
    return tuple(validation.check_number("exposure", time, above=0) or 0.0 for time in exposure)


def readings(name: str, values: Any, lengths: dict[int, str]) -> Float64:
    """Check what a monitor counted."""
    read = np.asarray(validation.as_real(name, values), dtype=np.float64)
    if read.ndim != 1 or len(read) not in lengths:
        wanted = " or ".join(f"{n}, one for each of the {what}" for n, what in lengths.items())
        raise InputError(f"`{name}` must be a list of readings, {wanted}, but has shape {read.shape}.")
    bad = np.flatnonzero(~(np.isfinite(read) & (read > 0)))
    if bad.size:
        raise InputError(
            f"`{name}` must be above 0, but {bad.size} of {len(read)} readings are not, the first being "
            f"{read[bad[0]]:g} at number {bad[0]}: without light, or a reading of it, there is nothing to "
            "divide by. Leave those frames out, or correct without a monitor."
        )
    return read
