"""A calibration for another readout of the same detector: a part of it, or pixels binned by the camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from numbers import Integral
from typing import Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._defects import DEFECTS, is_hopeless
from detectorcal._errors import InputError
from detectorcal._flat import highest_level
from detectorcal._typing import Shape
from detectorcal.kernels.curve import MOMENTS
from detectorcal.kernels.model import COMMON, ROW_STEP, Sums
from detectorcal.kernels.pairs import NEIGHBOUR_DISTANCE

__all__ = ["FROZEN", "READOUTS", "binned", "cropped", "refuse_frozen", "sums_when_frozen"]

READOUTS = ("mean", "sum")

FROZEN = {
    "cropped": f"it was cropped, and what tells its noise is kept in every {ROW_STEP}th row of the detector "
    f"only: crop from a row that is a multiple of {ROW_STEP}, and to more than {NEIGHBOUR_DISTANCE} columns",
    "binned": "it was binned, and what is summed of single pixels is not that of binned ones: fit a sweep of "
    "binned frames",
}
"""Why a calibration corrects but does not go on learning."""

LEVEL_PARAMETERS = ("cutoff", "saturation", "cval")
"""Parameters in DN above dark, or raw: of a sum of pixels so many times more."""


def refuse_frozen(calibrator: Any) -> None:
    """Raise if a calibration does not go on learning."""
    if (how := getattr(calibrator, "frozen_", None)) is not None:
        raise InputError(
            f"this calibration corrects, but does not go on learning and cannot be merged: {FROZEN[how]}."
        )


def sums_when_frozen(curved: bool) -> tuple[str, ...]:
    """Name the sums that a calibration needs which does not go on learning."""
    return (*COMMON, *MOMENTS, "highest") if curved else COMMON


def cropped(calibrator: Any, *pixels: slice) -> Any:
    """Give the calibration of a part of the detector; see :meth:`DetectorCalibrator.crop`."""
    shape: Shape = calibrator.detector_shape_
    window = _checked_window(pixels, shape)
    index: Any = (..., *window)

    def cut(values: Any) -> Any:
        if isinstance(values, np.ndarray) and values.shape[-len(shape) :] == shape:
            return values[index].copy()
        return deepcopy(values)

    attributes = {name: cut(value) for name, value in _fitted(calibrator).items() if name != "sums_"}
    sums = {name: cut(values) for name, values in calibrator.sums_.items()}
    starts, sizes = [part.start for part in window], attributes["coef_"].shape
    columns_alike = sizes[-1] == shape[-1] or sizes[-1] > NEIGHBOUR_DISTANCE
    goes_on = columns_alike and (len(shape) == 1 or starts[0] % ROW_STEP == 0)
    if not goes_on or hasattr(calibrator, "frozen_"):
        curved = "highest" in sums
        if curved:
            sums["highest"] = highest_level(calibrator)[index]
        sums = {name: sums[name] for name in sums_when_frozen(curved)}
        attributes.setdefault("frozen_", "cropped")
    if (names := attributes.get("feature_names_in_")) is not None and len(shape) == 2:
        attributes["feature_names_in_"] = names.reshape(shape)[index].ravel()
    params = {name: cut(value) for name, value in parameters_with_maps(calibrator).items()}
    step = {"crop": [[part.start, part.stop] for part in window]}
    return _made(calibrator, params, attributes | {"sums_": sums}, step)


def _checked_window(pixels: tuple[slice, ...], shape: Shape) -> list[slice]:
    if len(pixels) != len(shape) or not all(isinstance(part, slice) for part in pixels):
        wanted = "rows and columns, two slices" if len(shape) == 2 else "columns, one slice"
        raise InputError(f"a part of a detector of shape {shape} is told by its {wanted}; got {pixels!r}.")
    window = []
    for part, n in zip(pixels, shape, strict=True):
        for end in (part.start, part.stop, part.step):
            if end is not None and not isinstance(end, Integral):
                raise InputError(f"a part of a detector is told by whole numbers of pixels, got {part!r}.")
        start, stop, step = part.indices(n)
        beyond = max(part.start or 0, part.stop or 0) > n
        if step != 1 or stop <= start or beyond:
            raise InputError(
                f"{part!r} is no part of an axis of {n} pixels: it must be slice(start, stop) within it, "
                "with at least one pixel. To leave out pixels between, bin."
            )
        window.append(slice(start, stop))
    return window


def binned(calibrator: Any, factors: int | Sequence[int], readout: str) -> Any:
    """Give the calibration of binned pixels; see :meth:`DetectorCalibrator.bin`."""
    shape: Shape = calibrator.detector_shape_
    validation.check_choice("readout", readout, READOUTS)
    blocks = _checked_factors(factors, shape)
    n = math.prod(blocks)
    level = n if readout == "sum" else 1

    def each(values: np.ndarray, reduce: Callable[..., Any]) -> np.ndarray:
        return _reduce(values, blocks, reduce)

    old = _fitted(calibrator)
    defects = each(old["defects_"], np.bitwise_or.reduce)
    params = _binned_params(calibrator, each, level, n)
    if params["regions"] is not None:
        defects[params["regions"] == 0] |= np.uint8(DEFECTS["user"])
    lost = is_hopeless(defects)
    coef = np.where(lost, 1.0, 1 / each(1 / old["coef_"], np.mean))
    gain_std = np.sqrt(each((old["coef_std_"] / old["coef_"] ** 2) ** 2, np.sum)) / n
    new = {
        "coef_": coef,
        "coef_std_": np.where(lost, np.nan, coef**2 * gain_std),
        "defects_": defects,
        "kept_out_": each(old["kept_out_"], np.bitwise_or.reduce),
        "saturation_": None if old["saturation_"] is None else level * old["saturation_"],
        "dark_": None if old["dark_"] is None else level * each(old["dark_"], np.mean),
        "system_gain_": old["system_gain_"] * level / n,
        "reference_level_": old["reference_level_"] * level,
        "sums_": _binned_sums(calibrator, each, level),
        "detector_shape_": coef.shape,
        "n_features_in_": coef.size,
        "n_frames_seen_": old["n_frames_seen_"],
        "n_darks_": old["n_darks_"],
        "read_noise_": old["read_noise_"] * level / math.sqrt(n),
        "provenance_": deepcopy(old["provenance_"]),
        "frozen_": "binned",
    }
    if "covariance_" in old:
        new |= _binned_curves(old, each, level, n, lost)
    return _made(calibrator, params, new, {"bin": list(blocks), "readout": readout})


def _binned_curves(
    old: dict[str, Any], each: Callable[..., np.ndarray], level: int, n: int, lost: np.ndarray
) -> dict[str, Any]:
    """Give what only curves have: gains and curvatures are averaged, and so is their noise."""
    powers = np.array([1, level, level**2]).reshape(-1, *(1,) * lost.ndim)
    covariance = each(old["covariance_"], np.sum) / n**2 / powers
    return {
        "curvature_": np.where(lost, 0.0, each(old["curvature_"], np.mean) / level),
        "covariance_": np.where(lost, np.nan, covariance),
        "prior_std_": old["prior_std_"] / level / math.sqrt(n),
        "read_noise_level_": old["read_noise_level_"] * level,
    }


def _binned_sums(calibrator: Any, each: Callable[..., np.ndarray], level: int) -> Sums:
    """Give the sums that a sweep of binned frames has, of those that are linear in the measured values."""
    sums = calibrator.sums_
    found = {
        "frames": each(sums["frames"], np.min),
        "saturated": each(sums["saturated"], np.max),
        "expected": level * each(sums["expected"], np.mean),
    }
    if "highest" in sums:
        found["highest"] = level * each(highest_level(calibrator), np.mean)
        # w s^2, w s^3, w s^4, w s r, w s^2 r, with w = 1 / (s + rho)
        powers = dict(zip(MOMENTS, (1, 2, 3, 1, 2), strict=True))
        found |= {name: level**power * each(sums[name], np.mean) for name, power in powers.items()}
    return found


def _binned_params(calibrator: Any, each: Callable[..., np.ndarray], level: int, n: int) -> dict[str, Any]:
    params = parameters_with_maps(calibrator)
    scaled: dict[str, float] = dict.fromkeys(LEVEL_PARAMETERS, level)
    scaled |= {"sigma": n**-0.5, "system_gain": level / n, "read_noise": level / math.sqrt(n)}
    for name, factor in scaled.items():
        if params.get(name) is not None:
            params[name] = params[name] * factor
    if params.get("mask") is not None:
        params["mask"] = each(params["mask"], np.any)
    if params.get("regions") is not None:
        labels = params["regions"]
        low, high = each(labels, np.min), each(labels, np.max)
        params["regions"] = np.where(low == high, low, 0)  # a pixel of two modules is of none
    return params


def _checked_factors(factors: Any, shape: Shape) -> tuple[int, ...]:
    each = list(factors) if np.ndim(factors) else [factors] * len(shape)
    blocks = [0 if isinstance(n, bool) or not isinstance(n, (int, np.integer)) else int(n) for n in each]
    if len(blocks) != len(shape) or not all(1 <= n <= size for n, size in zip(blocks, shape, strict=True)):
        raise InputError(
            "`factors` must be a whole number of pixels, or one for each axis of a detector of shape "
            f"{shape} and no more than it has, got {factors!r}."
        )
    return tuple(blocks)


def _reduce(values: np.ndarray, blocks: tuple[int, ...], reduce: Callable[..., Any]) -> np.ndarray:
    """Reduce blocks of the last axes to one value each; what fills no block is dropped, as cameras do."""
    lead = values.shape[: values.ndim - len(blocks)]
    sizes = [size // block for size, block in zip(values.shape[len(lead) :], blocks, strict=True)]
    used: Any = (..., *(slice(size * block) for size, block in zip(sizes, blocks, strict=True)))
    pairs = [n for pair in zip(sizes, blocks, strict=True) for n in pair]
    axes = tuple(len(lead) + 1 + 2 * axis for axis in range(len(blocks)))
    blocked = np.moveaxis(values[used].reshape(*lead, *pairs), axes, range(-len(blocks), 0))
    result: np.ndarray = reduce(blocked.reshape(*lead, *sizes, -1), axis=-1)
    return result


def parameters_with_maps(calibrator: Any) -> dict[str, Any]:
    """Give the parameters; those that are maps, which a user may give as lists or flattened, as such."""
    params: dict[str, Any] = calibrator.get_params()
    for name in ("mask", "regions"):
        if params[name] is not None:
            params[name] = np.asarray(params[name]).reshape(calibrator.detector_shape_)
    return params


def _fitted(calibrator: Any) -> dict[str, Any]:
    """Give the fitted attributes."""
    return {name: value for name, value in vars(calibrator).items() if name.endswith("_")}


def _made(calibrator: Any, params: dict[str, Any], attributes: dict[str, Any], step: dict[str, Any]) -> Any:
    """Make a calibrator of parameters and fitted attributes, with a note of what was done."""
    if params.get("detector_shape") is not None:
        params["detector_shape"] = attributes["coef_"].shape
    made = type(calibrator)(**params)
    attributes["detector_shape_"] = attributes["coef_"].shape
    attributes["n_features_in_"] = attributes["coef_"].size
    steps = [*attributes["provenance_"].get("readout", ()), step]
    attributes["provenance_"] = {**attributes["provenance_"], "readout": steps}
    for name, value in attributes.items():
        setattr(made, name, value)
    made._summed_with = made._what_sums_depend_on()
    return made
