"""Every check of what users hand in, and the wording of every message.

A message names the argument, what was wanted, what came and, where there is one, the cure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from detectorcal._arrays import is_host_table, is_lazy, is_numpy
from detectorcal._errors import InputError
from detectorcal._typing import Shape, Stack
from detectorcal.kernels.smoothing import MODES


def float_dtype(dtype: Any) -> np.dtype:
    """Precision to work in: float32 for float32 and integers up to 16 bit, float64 for all wider."""
    dtype = _numpy_dtype(dtype)
    narrow = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if narrow else np.float64)


def _numpy_dtype(dtype: Any) -> np.dtype:
    """Translate another library's dtype (``torch.float32``) by its name."""
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2])


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    optional: bool = False,
) -> float | None:
    """Check a finite real number."""
    if value is None and optional:
        return None
    wanted = "a finite number"
    if above is not None:
        wanted += f" above {above:g}"
    if at_least is not None:
        wanted += f" of at least {at_least:g}"
    if optional:
        wanted += " or None"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or (above is not None and value <= above)
        or (at_least is not None and value < at_least)
    ):
        raise InputError(f"`{name}` must be {wanted}, got {value!r}.")
    return float(value)


def check_integer(name: str, value: Any, *, at_least: int) -> int | None:
    """Check a whole number or None."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < at_least:
        raise InputError(f"`{name}` must be a whole number of at least {at_least} or None, got {value!r}.")
    return int(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check one of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}.")
    return value


def check_smoothing(sigma: Any, mode: Any, cval: Any, truncate: Any) -> tuple[float, str, float, float]:
    """Check the parameters of the Gaussian."""
    return (
        check_number("sigma", sigma, above=0) or 0.0,
        check_choice("mode", mode, MODES),
        check_number("cval", cval) or 0.0,
        check_number("truncate", truncate, above=0) or 0.0,
    )


def check_detector_shape(value: Any) -> Shape | None:
    """Check the shape of a detector: one or two positive whole numbers, or None."""
    if value is None:
        return None
    try:
        shape = tuple(int(n) for n in value)
        sound = shape == tuple(value) and len(shape) in (1, 2) and min(shape) > 0
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"`detector_shape` must be (width,) or (height, width) in pixels or None, got {value!r}."
        )
    return shape


def as_stack(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check that ``X`` is numeric and sized, without reading what is not in host memory.

    Parameters
    ----------
    estimator : estimator
        Whose feature names and number scikit-learn checks, for two-dimensional host input.
    X : array-like or stack
        What the user gave.
    reset : bool
        Whether this is the first look at the data (``fit``).

    Returns
    -------
    array or stack
        In-memory input as an array, anything read by slicing as it came.
    """
    if is_lazy(X) or (not is_numpy(X) and hasattr(X, "__array_namespace__") and not is_host_table(X)):
        _check_metadata(X)
        return X
    checked = check_array(X, allow_nd=True, ensure_all_finite=False, estimator=estimator, input_name="X")
    if checked.ndim == 2 and (reset or checked.shape != estimator.detector_shape_):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset and hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    return checked


def _check_metadata(X: Any) -> None:
    _check_real("X", X)
    if any(not isinstance(n, Integral) for n in X.shape):
        raise InputError(
            f"`X` has unknown sizes, shape {X.shape}; with Dask call `X.compute_chunk_sizes()` first."
        )
    if 0 in X.shape:
        raise InputError(f"`X` is empty: it has shape {tuple(X.shape)}.")


def sweep_shape(X: Stack, detector_shape: Shape | None) -> Shape:
    """Tell the detector's shape from a sweep, which is frames first.

    Parameters
    ----------
    X : stack
        A sweep, checked by :func:`as_stack`.
    detector_shape : tuple of int or None
        What the estimator was told.

    Returns
    -------
    tuple of int
        (width,) or (height, width).
    """
    shape = tuple(X.shape)
    if len(shape) not in (2, 3):
        cure = " A single frame is a sweep of one: `frame[None]`." if len(shape) < 2 else ""
        raise InputError(
            "`X` must be a sweep of shape (n_frames, height, width), or (n_frames, width) for a line "
            f"detector, but it has shape {shape}.{cure}"
        )
    if detector_shape is None or shape[1:] == detector_shape:
        return shape[1:]
    if shape[1:] == (math.prod(detector_shape),):
        return detector_shape
    raise InputError(
        f"`X` has frames of shape {shape[1:]}, but `detector_shape` is {detector_shape}: frames must have "
        f"that shape, or be rows of {math.prod(detector_shape)} pixels."
    )


def check_images(X: Any, detector_shape: Shape, *, flattened: bool) -> None:
    """Check images to be transformed against the detector.

    Parameters
    ----------
    X : stack
        Images, checked by :func:`as_stack`.
    detector_shape : tuple of int
        What was fitted.
    flattened : bool
        Whether rows of pixels are accepted as frames.
    """
    shape = tuple(X.shape)
    n_axes = len(detector_shape)
    is_area_image = n_axes == 2 and shape == detector_shape
    are_frames = len(shape) > n_axes and shape[-n_axes:] == detector_shape
    are_rows = flattened and len(shape) == 2 and shape[1] == math.prod(detector_shape)
    if is_area_image or are_frames or are_rows:
        return
    wanted = "(..., " + ", ".join(map(str, detector_shape)) + ")"
    raise InputError(
        f"`X` has shape {shape}, but this calibration is for a detector of shape {detector_shape}: images "
        f"must have shape {wanted}."
        + (" A single image of a line detector is (1, width)." if n_axes == 1 else "")
    )


def as_map_stack(name: str, value: Any, detector_shape: Shape, *, flattened: bool = False) -> Any:
    """Check a dark or flat: a number, a frame, or a stack of frames.

    Parameters
    ----------
    name : str
        Of the argument.
    value : number, array of shape detector_shape or (n_frames, *detector_shape)
        DN.
    detector_shape : tuple of int
        Of the frames it belongs to.
    flattened : bool
        Whether rows of pixels are accepted as frames.

    Returns
    -------
    stack of shape (n_frames, *detector_shape) or (n_frames, n_pixels)
        To be averaged by the caller; one frame where one was given.
    """
    if isinstance(value, Real):
        value = np.asarray(value)
    elif not hasattr(value, "shape"):
        value = check_array(value, ensure_2d=False, allow_nd=True, ensure_all_finite=False, input_name=name)
    _check_real(name, value)
    shape = tuple(value.shape)
    frame_shapes = [detector_shape] + [(math.prod(detector_shape),)] * flattened
    if shape == ():
        return np.full((1, *detector_shape), check_number(name, np.asarray(value).item()))
    if shape in frame_shapes:
        return value[None]
    if shape[1:] in frame_shapes and shape[0] > 0:
        return value
    raise InputError(_shape_message(name, shape, detector_shape))


def _check_real(name: str, value: Any) -> None:
    if _numpy_dtype(value.dtype).kind not in "buif":
        raise InputError(f"`{name}` must hold real numbers, but its dtype is {value.dtype}.")


def _shape_message(name: str, shape: Shape, detector_shape: Shape) -> str:
    message = f"`{name}` has shape {shape}, but the frames of `X` have shape {detector_shape}."
    if len(shape) == len(detector_shape) and shape[1:] == detector_shape[1:] and shape[0] < detector_shape[0]:
        message += (
            f" If it was cut to {shape[0]} rows by cross-validation, which splits every array as long as "
            "the sweep: give the estimator a subset of the data's dark inside a Pipeline, subtract it "
            "beforehand, or pass it as a stack of shape (1, height, width)."
        )
    return message


def check_darks_per_frame(dark: Any, X: Stack, detector_shape: Shape) -> Any:
    """Check a stack of darks that has one frame for each of the sweep's."""
    dark = dark if hasattr(dark, "shape") and hasattr(dark, "__getitem__") else np.asarray(dark)
    wanted = (X.shape[0], *detector_shape)
    if tuple(dark.shape) != wanted:
        raise InputError(
            f"`dark` has shape {tuple(dark.shape)}, but with `dark_per_frame=True` it must have one frame "
            f"for each of the sweep's, shape {wanted}."
        )
    return dark


def dark_of(y: Any, dark: Any, n_frames: int, detector_shape: Shape) -> Any:
    """Tell what the second positional argument of ``fit`` is: a dark frame, or labels to be ignored.

    Parameters
    ----------
    y : object
        The second positional argument.
    dark : object
        The keyword.
    n_frames : int
        Number of frames of the sweep.
    detector_shape : tuple of int
        Of its frames.

    Returns
    -------
    object
        The dark, or None.
    """
    if y is None:
        return dark
    shape = tuple(y.shape) if hasattr(y, "shape") else np.asarray(y).shape
    if len(detector_shape) == 2 and shape == detector_shape:
        if dark is not None:
            raise InputError("two darks were given, by position and as `dark=`; give one.")
        return y
    if len(shape) > 0 and shape[0] == n_frames:
        return dark
    raise InputError(
        f"the second argument has shape {shape}: it is neither a dark frame of shape {detector_shape} nor "
        f"labels of the {n_frames} frames. Pass a dark by name, `dark=`."
    )


def check_out(out: Any, shape: Shape, dtype: np.dtype) -> None:
    """Check the array a result is to be written to."""
    if tuple(getattr(out, "shape", ())) != shape or not hasattr(out, "__setitem__"):
        raise InputError(f"`out` must have the shape of `X`, {shape}, but has {getattr(out, 'shape', None)}.")
    if _numpy_dtype(out.dtype) != dtype:
        raise InputError(f"`out` must have dtype {dtype} for this input, but has {out.dtype}.")
