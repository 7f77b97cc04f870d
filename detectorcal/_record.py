"""A fitted calibrator as the header and the arrays of a calibration file, and back.

The checksums of a file tell that it is whole, not that what it says is true: here every claim is
checked, so that a header that lies gives one error that says what is wrong.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import scipy

from detectorcal._camera import FROZEN, sums_when_frozen
from detectorcal._errors import InputError
from detectorcal._validation import check_integer, check_number, check_regions
from detectorcal._version import __version__
from detectorcal.kernels.model import COMMON, ResponseModel, sum_names

__all__ = ["DESCRIPTIONS", "made_with", "pack", "parameters_of", "provenance", "unpack"]

ESTIMATOR = "DetectorCalibrator"

COVARIANCE = ("gain_variance", "gain_curvature_covariance", "curvature_variance")
"""Arrays that are the parts of ``covariance_``, in order."""

OF_CURVES = ("prior_std", "read_noise", "read_noise_level")
"""What the state of a calibrator with curves holds besides."""

SINCE_THE_FIRST = frozenset(
    {
        "saturated", "expected_difference", "difference_squared", "expected_squared", "expected_cubed",
        "expected_fourth", "w_r2",
    }
)  # fmt: skip
"""Sums that the first files lack. They tell causes, not coefficients: NaN says that nothing is known."""

OF_THE_MACHINE = {"device"}
"""Parameters that are not saved: the next machine may not have what they name."""

AS_ARRAYS = {"mask", "regions"}
"""Parameters that are arrays of the detector's shape, and saved as such where they are given."""

DESCRIPTIONS = {
    "coef": "Coefficient, dimensionless: multiplies what the pixel reads above its dark; 1 if not solved",
    "coef_std": "Standard error of the coefficient; NaN if not known",
    "dark": "Dark that was subtracted, DN",
    "defects": "Sum of bits: 1 dead, 2 hot, 4 noisy, 8 nonlinear, 16 saturated, 32 unsolved, 64 user",
    "kept_out": "Not 0 where the pixel was kept out of the smoothing; bits as of defects",
    "mask": "1 where the user told not to believe the pixel",
    "curvature": "Change of the gain (1 / coef) with the level, 1/DN, about reference_level",
    "gain_variance": "Variance of the gain",
    "gain_curvature_covariance": "Covariance of gain and curvature, 1/DN",
    "curvature_variance": "Variance of the curvature, 1/DN^2",
    "regions": "Label of the region each pixel was smoothed within; 0 is a gap",
    "sums/frames": "Number of frames in which the pixel took part",
}
"""A line about each array, for those who open the file with other software."""


def made_with() -> dict[str, str]:
    """Tell when and with what something is made.

    The time is that of ``SOURCE_DATE_EPOCH`` where this is set, so that files can be made again to the byte.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return {
        "detectorcal": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "time": now.isoformat(timespec="seconds"),
    }


def provenance(method: str, n_frames: int) -> dict[str, Any]:
    """Tell when and with what a fit is made."""
    return {**made_with(), "method": method, "n_frames": n_frames}


def parameters_of(calibrator: Any) -> dict[str, Any]:
    """Give the parameters of an estimator that are saved, as JSON holds them."""
    found = calibrator.get_params()
    return {name: _plain(found[name]) for name in found if name not in OF_THE_MACHINE | AS_ARRAYS}


def pack(calibrator: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Give the header and the arrays of a calibration file.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.

    Returns
    -------
    header : dict
        What JSON can hold.
    arrays : dict of str to array of shape detector_shape
        The coefficients first: an image viewer shows them.
    """
    names = getattr(calibrator, "feature_names_in_", None)
    curved = hasattr(calibrator, "curvature_")
    header = {
        "estimator": ESTIMATOR,
        "params": parameters_of(calibrator),
        "state": {
            "n_frames_seen": calibrator.n_frames_seen_,
            "system_gain": None if np.isnan(calibrator.system_gain_) else calibrator.system_gain_,
            "reference_level": calibrator.reference_level_,
            "saturation": calibrator.saturation_,
            "n_darks": calibrator.n_darks_,
            "read_noise": calibrator.read_noise_,
            **({name: getattr(calibrator, f"{name}_") for name in OF_CURVES} if curved else {}),
            **({"frozen": calibrator.frozen_} if hasattr(calibrator, "frozen_") else {}),
            "feature_names": None if names is None else names.tolist(),
        },
        "provenance": calibrator.provenance_,
    }
    arrays = {"coef": calibrator.coef_, "coef_std": calibrator.coef_std_, "defects": calibrator.defects_}
    arrays["kept_out"] = calibrator.kept_out_
    if calibrator.mask is not None:
        arrays["mask"] = np.asarray(calibrator.mask, np.uint8).reshape(calibrator.detector_shape_)
    if curved:
        arrays["curvature"] = calibrator.curvature_
        arrays |= dict(zip(COVARIANCE, calibrator.covariance_, strict=True))
    if calibrator.dark_ is not None:
        arrays["dark"] = calibrator.dark_
    if (regions := check_regions(calibrator.regions)) is not None:
        arrays["regions"] = regions.labels
    return header, arrays | {f"sums/{name}": values for name, values in calibrator.sums_.items()}


def unpack(
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    parameters: Collection[str],
    models: Mapping[str, ResponseModel],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what makes a calibrator equal to the one that was packed.

    Parameters
    ----------
    header, arrays
        What :func:`pack` gave. An older file may lack parameters, which then have their defaults.
    parameters : collection of str
        Names the estimator knows; their values are left for it to check.
    models : mapping of str to response model
        The methods.

    Returns
    -------
    params, attributes : dict
        Arguments of the estimator, and its fitted attributes.

    Raises
    ------
    InputError
        If something is missing, unknown or impossible.
    """
    _expect(header.get("estimator") == ESTIMATOR, f"it holds a {header.get('estimator')!r}")
    params, state, origin = (_entry(header, name, dict) for name in ("params", "state", "provenance"))
    unknown = sorted(params.keys() - set(parameters))
    _expect(not unknown, f"its parameters {unknown} are not known; if a later version wrote it, upgrade")
    method = _entry(params, "method", str)
    _expect(method in models, f"its `method` {method!r} is not one of {', '.join(models)}")
    frozen = _frozen(state.get("frozen"))
    names = sums_when_frozen(models[method].curved) if frozen else sum_names(models[method])
    sums = [f"sums/{name}" for name in names]
    _expect_possible(arrays)
    arrays = _with_what_is_newer(arrays, sums)
    for name in ("coef", "coef_std", *sums):
        _expect_array(arrays, name, np.float64)
    for name in ("defects", "kept_out"):
        _expect_array(arrays, name, np.uint8)
    if "dark" in arrays:
        _expect_array(arrays, "dark", np.float64)
    for name, dtype in (("mask", np.uint8), ("regions", np.uint16)):
        if name in arrays:
            _expect_array(arrays, name, dtype)
    gain = check_number("system_gain", state.get("system_gain"), at_least=0, optional=True)
    coef = arrays["coef"]
    _expect(
        bool((np.isfinite(coef) & (coef > 0)).all()),
        "some of its coefficients are not finite, or not positive",
    )
    attributes = {
        "coef_": coef,
        "coef_std_": arrays["coef_std"],
        "dark_": arrays.get("dark"),
        "defects_": arrays["defects"],
        "kept_out_": arrays["kept_out"],
        "saturation_": check_number(
            "saturation", state.get("saturation", params.get("saturation")), optional=True
        ),
        "system_gain_": float("nan") if gain is None else gain,
        "n_frames_seen_": _entry(state, "n_frames_seen", int),
        "sums_": {name.removeprefix("sums/"): arrays[name] for name in sums},
        "reference_level_": _reference_level(state, arrays),
        **_of_darks(state),
        "provenance_": origin,
        "detector_shape_": coef.shape,
        "n_features_in_": coef.size,
    }
    _expect(attributes["n_frames_seen_"] > 0, f"its `n_frames_seen` is {attributes['n_frames_seen_']}")
    attributes |= _curves(state, arrays) if models[method].curved else {}
    attributes |= frozen
    params = _with_tuple(params, coef.shape) | {name: arrays.get(name) for name in AS_ARRAYS}
    return params, attributes | _feature_names(state.get("feature_names"), coef.size)


def _with_what_is_newer(arrays: Mapping[str, np.ndarray], sums: Sequence[str]) -> dict[str, np.ndarray]:
    """Complete the arrays of a file of the first kind, which knew dead, hot and unsolved pixels only."""
    if "kept_out" in arrays or "coef" not in arrays:
        return dict(arrays)
    shape = arrays["coef"].shape
    unknown = {name: np.full(shape, np.nan) for name in sums if name.removeprefix("sums/") in SINCE_THE_FIRST}
    return {**unknown, **arrays, "kept_out": np.zeros(shape, np.uint8)}


def _reference_level(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> float:
    """Give the level of the sweep, which the first files did not tell apart from their sums."""
    level = check_number("reference_level", state.get("reference_level"), at_least=0, optional=True)
    if level is not None:
        return level
    n_values = float(np.sum(arrays["sums/frames"]))
    return float(np.sum(arrays["sums/expected"])) / n_values if n_values else 0.0


def _frozen(how: Any) -> dict[str, str]:
    """Give the attribute of a calibration that does not go on learning."""
    if how is None:
        return {}
    _expect(
        isinstance(how, str) and how in FROZEN, f"its `frozen` is {how!r}, not one of {', '.join(FROZEN)}"
    )
    return {"frozen_": how}


def _of_darks(state: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the darks told, which the first files do not tell: one dark then, and no read noise."""
    n_darks = check_integer("n_darks", state.get("n_darks", 1), at_least=0)
    return {
        "n_darks_": n_darks,
        "read_noise_": check_number("read_noise", state.get("read_noise", 0.0), at_least=0),
    }


def _curves(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give the attributes that only curves have."""
    for name in ("curvature", *COVARIANCE):
        _expect_array(arrays, name, np.float64)
    _expect(bool(np.isfinite(arrays["curvature"]).all()), "some of its curvatures are not finite")
    impossible = any((arrays[name] < 0).any() for name in (COVARIANCE[0], COVARIANCE[2]))
    impossible |= any(np.isinf(arrays[name]).any() for name in COVARIANCE)
    _expect(not impossible, "some of its variances are negative or infinite")
    check_number("reference_level", state.get("reference_level"), at_least=0)  # no curve without
    numbers = {name: check_number(name, state.get(name), at_least=0) for name in OF_CURVES}
    covariance = np.stack([arrays[name] for name in COVARIANCE])
    attributes = {"curvature_": arrays["curvature"], "covariance_": covariance}
    return attributes | {f"{name}_": number for name, number in numbers.items()}


def _plain(value: Any) -> Any:
    """Turn a parameter into what JSON can hold."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _expect(met: bool, otherwise: str) -> None:
    if not met:
        raise InputError(f"{otherwise}.")


def _entry(mapping: Mapping[str, Any], name: str, kind: type) -> Any:
    value = mapping.get(name)
    _expect(type(value) is kind, f"its `{name}` is not a {kind.__name__}, but {value!r}")
    return value


def _expect_array(arrays: Mapping[str, np.ndarray], name: str, dtype: type) -> None:
    _expect(name in arrays, f"its array {name!r} is missing")
    found = arrays[name].dtype
    _expect(found == dtype, f"its array {name!r} is {found} and not {np.dtype(dtype)}")


def _expect_possible(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse sums that no frames give: numbers of frames, values above a cutoff that is not negative."""
    for name in (f"sums/{name}" for name in COMMON):
        values = arrays.get(name, np.zeros(1))
        sound = bool((np.isfinite(values) & (values >= 0)).all())
        _expect(sound, f"its array {name!r} has values that are negative or not finite")


def _with_tuple(params: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Give the parameters with ``detector_shape`` as it was before JSON made a list of it."""
    told = params.get("detector_shape")
    if told is None:
        return params
    _expect(list(shape) == told, f"its `detector_shape` is {told!r}, but its arrays have shape {shape}")
    return params | {"detector_shape": shape}


def _feature_names(names: Any, n_features: int) -> dict[str, Any]:
    if names is None:
        return {}
    sound = type(names) is list and len(names) == n_features and all(type(name) is str for name in names)
    _expect(sound, f"its `feature_names` are not those of {n_features} pixels")
    return {"feature_names_in_": np.array(names, dtype=object)}
