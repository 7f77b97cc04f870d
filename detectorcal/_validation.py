"""Every check of what users hand in, and the wording of every message.

A message names the argument, what was wanted, what came and, where there is one, the cure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from detectorcal._arrays import DEVICES, is_dask, is_eager, is_host_table, is_lazy, is_numpy, to_host
from detectorcal._errors import InputError, InputTypeError
from detectorcal._typing import Path, Shape, Stack
from detectorcal.kernels.regions import LARGEST_LABEL, Regions
from detectorcal.kernels.smoothing import MODES

REAL = "buif"
"""Kinds of dtype that are real numbers: truth values, unsigned and signed integers, floats."""


_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

LONGEST_KERNEL = 1_000_000
"""Pixels from the centre of a Gaussian to its end, beyond which it is a mistake, and costs memory."""


def float_dtype(dtype: Any) -> np.dtype:
    """Precision to work in: float32 for float32 and integers up to 16 bit, float64 for all wider."""
    dtype = _numpy_dtype(dtype)
    narrow = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if narrow else np.float64)


def _numpy_dtype(dtype: Any) -> np.dtype:
    """Translate another library's dtype (``torch.float32``) by its name."""
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2])


def are_whole(dtype: Any) -> bool:
    """Whether numbers of a dtype, of any library, are whole."""
    return _numpy_dtype(dtype).kind != "f"


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
    number = _as_finite(value)
    if (
        number is None
        or (above is not None and number <= above)
        or (at_least is not None and number < at_least)
    ):
        wanted = "a finite number"
        wanted += "" if above is None else f" above {above:g}"
        wanted += "" if at_least is None else f" of at least {at_least:g}"
        wanted += " or None" if optional else ""
        raise InputError(f"`{name}` must be {wanted}, got {value!r}.")
    return number


def _as_finite(value: Any) -> float | None:
    """Give a finite real number as a float; None if it is anything else, a truth value included."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def check_integer(name: str, value: Any, *, at_least: int) -> int | None:
    """Check a whole number or None."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < at_least:
        raise InputError(f"`{name}` must be a whole number of at least {at_least} or None, got {value!r}.")
    return int(value)


def check_execution(n_jobs: Any, batch_size: Any, device: Any) -> None:
    """Check the parameters that say how the work is done."""
    if isinstance(batch_size, str):
        bytes_of(batch_size)
    else:
        check_integer("batch_size", batch_size, at_least=1)
    if not (device is None or isinstance(device, str)) or device not in DEVICES:
        raise InputError(f"`device` must be one of {', '.join(map(repr, DEVICES))}; got {device!r}.")
    if n_jobs is None:
        return
    if isinstance(n_jobs, (bool, np.bool_)) or not isinstance(n_jobs, Integral) or n_jobs == 0:
        raise InputError(f"`n_jobs` must be a number of threads, -1 for all cores, or None, got {n_jobs!r}.")


def bytes_of(batch_size: str) -> int:
    """Read a number of bytes, such as "64 MB" or "1.5GiB"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(kB|MB|GB|KiB|MiB|GiB|B)\s*", batch_size)
    if not found or not float(found[1]):
        raise InputError(
            '`batch_size` must be a whole number of at least 1 (frames), or bytes such as "64 MB", or '
            f"None, got {batch_size!r}."
        )
    return int(float(found[1]) * _BYTES[found[2]])


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check one of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}.")
    return value


def check_smoothing(
    sigma: Any, mode: Any, cval: Any, truncate: Any, *, name: str = "sigma"
) -> tuple[float, str, float, float]:
    """Check the parameters of the Gaussian, whose width is called ``name`` by the caller."""
    checked = (
        check_number(name, sigma, above=0) or 0.0,
        check_choice("mode", mode, MODES),
        check_number("cval", cval) or 0.0,
        check_number("truncate", truncate, above=0) or 0.0,
    )
    if checked[0] * checked[3] > LONGEST_KERNEL:
        raise InputError(
            f"`{name}` times `truncate` must be at most {LONGEST_KERNEL:,} pixels, far wider than any "
            f"detector, but is {checked[0] * checked[3]:g}."
        )
    return checked


def check_detector_shape(value: Any) -> Shape | None:
    """Check the shape of a detector: one or two positive whole numbers, or None."""
    if value is None:
        return None
    sizes = value.tolist() if isinstance(value, np.ndarray) else value
    if (
        not isinstance(sizes, (tuple, list))
        or len(sizes) not in (1, 2)
        or any(isinstance(n, bool) or not isinstance(n, Integral) or n < 1 for n in sizes)
    ):
        raise InputError(
            f"`detector_shape` must be (width,) or (height, width) in pixels or None, got {value!r}."
        )
    return tuple(int(n) for n in sizes)


def check_regions(value: Any) -> Regions | None:
    """Check a label image, or None: whole numbers, a detector's shape, regions of two pixels at least."""
    if value is None:
        return None
    labels = to_host(as_real("regions", value))
    if labels.dtype.kind not in "iu":
        raise InputError(
            "`regions` must hold whole numbers, a label for each pixel and 0 in gaps, but its dtype is "
            f"{labels.dtype}. A mask of pixels not to be believed is `mask`."
        )
    if labels.ndim not in (1, 2):
        raise InputError(
            f"`regions` must have the detector's shape, (width,) or (height, width), got {labels.shape}."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > LARGEST_LABEL:
        raise InputError(
            f"`regions` must hold labels from 0 to {LARGEST_LABEL}, but they go from {lowest} to {highest}."
        )
    if highest == 0:
        raise InputError(
            "`regions` is 0 everywhere, a gap and no detector. Give each module a label above 0."
        )
    regions = Regions.of(labels)
    for box, _ in regions.pieces:
        if regions.labels[box].size == 1:
            place = tuple(side.start for side in box)
            raise InputError(
                f"`regions` has a region of one pixel, label {int(regions.labels[place])} at {place}, which "
                "has no neighbours to be compared with. Give it their label, or 0."
            )
    return regions


def check_regions_fit(regions: Regions | None, shape: Shape) -> None:
    """Check that a label image is of the detector's shape."""
    if regions is not None and regions.shape != shape:
        raise InputError(f"`regions` has shape {regions.shape}, but the frames of `X` have shape {shape}.")


def check_path(name: str, value: Any) -> Path:
    """Check that something names a file, whether or not it is there."""
    if not isinstance(value, (str, PathLike)):
        raise InputError(f"`{name}` must be text or a path, got {value!r}.")
    return value


def as_real(name: str, value: Any) -> Any:
    """Check that something holds real numbers, without reading what is not in host memory.

    Parameters
    ----------
    name : str
        Of the argument.
    value : array-like or stack
        What the user gave.

    Returns
    -------
    array or stack
        In-memory input as an array, masked entries as NaN; anything read by slicing as it came.
    """
    on_device = is_eager(value) and not is_numpy(value) and not is_host_table(value)
    stack = value if is_lazy(value) or on_device else _host_array(name, value)
    dtype = _numpy_dtype(stack.dtype)
    if dtype.kind not in REAL:
        # scikit-learn wants these three words of everyone
        hint = "Complex data not supported: " if dtype.kind == "c" else ""
        raise InputError(f"{hint}`{name}` must hold real numbers, but its dtype is {stack.dtype}.")
    if any(not isinstance(n, Integral) for n in stack.shape):
        raise InputError(
            f"`{name}` has unknown sizes, shape {stack.shape}; with Dask call "
            f"`{name}.compute_chunk_sizes()` first."
        )
    if 0 in stack.shape:
        raise InputError(f"`{name}` is empty: it has {_empty(tuple(stack.shape))}.")
    return stack


def _empty(shape: Shape) -> str:
    # scikit-learn wants these words of everyone
    if len(shape) == 2 and shape[1] == 0:
        return f"0 feature(s) (shape={shape}) while a minimum of 1 is required"
    return f"shape {shape}"


def _host_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(float_dtype(value.dtype)), np.nan)
    if isinstance(value, (str, PathLike)):
        raise InputTypeError(
            f"`{name}` must be an array or a stack, but is the name {str(value)!r}. Open the file with "
            "`detectorcal.io.open_frames`."
        )
    if isinstance(value, np.ndarray) and value.dtype.kind not in REAL + "O":
        return value
    try:
        array: np.ndarray = check_array(
            value, input_name=name, ensure_2d=False, allow_nd=True, ensure_all_finite=False,
            ensure_min_samples=0, ensure_min_features=0,
        )  # fmt: skip
    except TypeError as error:
        raise InputTypeError(f"`{name}` must hold real numbers: {error}") from error
    except ValueError as error:
        raise InputError(f"`{name}` must hold real numbers in a regular array: {error}") from error
    return array


def as_sweep(estimator: Any, X: Any, *, reset: bool) -> tuple[Stack, Shape]:
    """Check a sweep, and tell the detector's shape from it.

    Parameters
    ----------
    estimator : DetectorCalibrator
        What it was told of ``detector_shape`` is believed; scikit-learn checks its feature names.
    X : array-like or stack
        What the user gave.
    reset : bool
        Whether this is the first look at the data, so that feature names are taken and not compared.

    Returns
    -------
    stack : array or stack
        As :func:`as_real` gives it.
    shape : tuple of int
        (width,) or (height, width).
    """
    stack = as_real("X", X)
    shape = _frame_shape(tuple(stack.shape), check_detector_shape(estimator.detector_shape))
    if not reset and shape != estimator.detector_shape_:
        raise InputError(
            f"`X` has frames of shape {shape}, but this calibrator was fitted on frames of shape "
            f"{estimator.detector_shape_}."
            + (_features_message(estimator, tuple(stack.shape)) if len(stack.shape) == 2 else "")
        )
    _check_feature_names(estimator, X, stack, reset=reset)
    return stack, shape


def _frame_shape(shape: Shape, detector_shape: Shape | None) -> Shape:
    if len(shape) not in (2, 3):
        cure = " A single frame is a sweep of one: `frame[None]`." if len(shape) == 1 else ""
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


def _check_feature_names(estimator: Any, X: Any, stack: Stack, *, reset: bool) -> None:
    """Let scikit-learn keep or compare the column names of a data frame; a Correction has none."""
    if is_numpy(stack) and len(stack.shape) == 2 and (reset or hasattr(estimator, "n_features_in_")):
        try:
            validate_data(estimator, X, reset=reset, skip_check_array=True)
        except ValueError as error:
            raise InputError(str(error)) from error


def is_number(value: Any) -> bool:
    """Whether a dark or flat is a number for all pixels; a stack need not have more than a shape."""
    return tuple(value.shape) == () if hasattr(value, "shape") else np.ndim(value) == 0


def as_images(estimator: Any, X: Any, *, flattened: bool) -> Any:
    """Check images that are to be corrected.

    Parameters
    ----------
    estimator : DetectorCalibrator or Correction
        Its ``detector_shape_`` is what they must have.
    X : array-like or stack
        What the user gave.
    flattened : bool
        Whether rows of pixels are accepted as frames.

    Returns
    -------
    array or stack
        As :func:`as_real` gives it.
    """
    images = as_real("X", X)
    shape, detector_shape = tuple(images.shape), estimator.detector_shape_
    n_axes, n_pixels = len(detector_shape), math.prod(detector_shape)
    if n_axes == 2 and shape == detector_shape:
        return images
    are_rows = flattened and len(shape) == 2 and shape[1] == n_pixels
    if are_rows or (len(shape) > n_axes and shape[-n_axes:] == detector_shape):
        _check_feature_names(estimator, X, images, reset=False)
        return images
    wanted = "(..., " + ", ".join(map(str, detector_shape)) + ")"
    message = (
        f"`X` has shape {shape}, but this calibration is for a detector of shape {detector_shape}: images "
        f"must have shape {wanted}" + (f" or be rows of {n_pixels} pixels." if flattened else ".")
    )
    if n_axes == 1 and len(shape) == 1:
        message += " Reshape your data: a single image of a line detector is (1, width), `image[None]`."
    elif len(shape) == 2 and (n_axes == 1 or flattened):
        message += _features_message(estimator, shape)
    raise InputError(message)


def _features_message(estimator: Any, shape: Shape) -> str:
    """Say of rows of pixels what scikit-learn wants everyone to say."""
    name, n_pixels = type(estimator).__name__, math.prod(estimator.detector_shape_)
    return f" X has {shape[1]} features, but {name} is expecting {n_pixels} features as input."


def as_map_stack(
    name: str, value: Any, detector_shape: Shape, *, flattened: bool = False, whose: str = "`X`"
) -> Any:
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
    whose : str
        What those frames are, for the message.

    Returns
    -------
    stack of shape (n_frames, *detector_shape) or (n_frames, n_pixels)
        To be averaged by the caller; one frame where one was given.
    """
    if isinstance(value, Real):
        return np.full((1, *detector_shape), check_number(name, value))
    stack = as_real(name, value)
    shape = tuple(stack.shape)
    frame_shapes = [detector_shape] + [(math.prod(detector_shape),)] * flattened
    if shape == ():
        return np.full((1, *detector_shape), check_number(name, np.asarray(stack).item()))
    if shape in frame_shapes:
        # what is read by slicing knows no `None`
        return (stack if is_eager(stack) or is_dask(stack) else np.asarray(stack[...]))[None, ...]
    if shape[1:] in frame_shapes:
        return stack
    raise InputError(_shape_message(name, shape, detector_shape, whose))


def as_mask(name: str, value: Any, detector_shape: Shape, *, flattened: bool) -> np.ndarray | None:
    """Check a mask: truth values, or 0 and 1, of the detector's shape; an array of its own, or None.

    None too if it marks nothing.
    """
    if value is None:
        return None
    mask = to_host(as_real(name, value))
    if mask.shape != detector_shape and not (flattened and mask.shape == (math.prod(detector_shape),)):
        raise InputError(_shape_message(name, tuple(mask.shape), detector_shape, "`X`"))
    if mask.dtype.kind not in "bui" or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"`{name}` must be True (or 1) where a pixel is not to be believed and False (or 0) elsewhere, "
            f"but holds {mask.dtype} from {np.min(mask):g} to {np.max(mask):g}. A map of causes makes one by "
            f"`{name} != 0`."
        )
    found: np.ndarray = mask.reshape(detector_shape) != 0
    return found if found.any() else None


def check_mostly_finite(name: str, mean: np.ndarray, n_frames: int) -> None:
    """Raise if a mean frame tells of fewer than half of the pixels; single ones are defects of theirs."""
    count = int(np.count_nonzero(~np.isfinite(mean)))
    if 2 * count > mean.size:
        some = "it is" if n_frames == 1 else f"the mean of its {n_frames} frames is, and so is one of them,"
        raise InputError(
            f"`{name}`: {some} NaN or infinite at {count} of {mean.size} pixels. Leave that frame out, as "
            "`detectorcal.average` does with `leave_out=`, or record it anew."
        )


def as_level(name: str, value: Any, detector_shape: Shape) -> np.ndarray:
    """Check a level: a number, or one for each pixel."""
    level = np.asarray(as_real(name, value))
    if level.shape not in ((), detector_shape):
        raise InputError(
            f"`{name}` must be a number or have the detector's shape, {detector_shape}, but has shape "
            f"{level.shape}."
        )
    return level


def _shape_message(name: str, shape: Shape, detector_shape: Shape, whose: str) -> str:
    message = f"`{name}` has shape {shape}, but the frames of {whose} have shape {detector_shape}."
    if len(shape) == len(detector_shape) and shape[1:] == detector_shape[1:] and shape[0] < detector_shape[0]:
        message += (
            f" If it was cut to {shape[0]} rows by cross-validation, which splits every array as long as "
            f"the sweep: pass it as a stack of one frame, `{name}[None]`."
        )
    return message


def as_darks_per_frame(dark: Any, n_frames: int, detector_shape: Shape, *, flattened: bool) -> Any:
    """Check a stack of darks that has one frame for each of the sweep's.

    Parameters
    ----------
    dark : array-like or stack
        What the user gave.
    n_frames : int
        Of the sweep.
    detector_shape : tuple of int
        Of its frames.
    flattened : bool
        Whether rows of pixels are accepted as frames.

    Returns
    -------
    array or stack
        As :func:`as_real` gives it.
    """
    wanted = (n_frames, *detector_shape)
    if dark is None:
        raise InputError(f"`dark_per_frame=True` needs a stack of darks of shape {wanted}, `dark=`.")
    darks = as_real("dark", dark)
    if tuple(darks.shape) != wanted and not (
        flattened and tuple(darks.shape) == (n_frames, math.prod(detector_shape))
    ):
        raise InputError(
            f"`dark` has shape {tuple(darks.shape)}, but with `dark_per_frame=True` it must have one frame "
            f"for each of the sweep's, shape {wanted}."
        )
    return darks


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
    shape = _shape_of(y)
    if len(detector_shape) == 2 and shape == detector_shape:
        if dark is not None:
            raise InputError("two darks were given, by position and as `dark=`; give one.")
        return y
    # a stack of frames is no labels: most likely darks, which must not be passed over in silence
    n_pixels = math.prod(detector_shape)
    are_frames = n_pixels > 1 and shape[1:] in (detector_shape, (n_pixels,))
    if shape[:1] == (n_frames,) and not are_frames:
        return dark
    raise InputError(
        f"the second argument has shape {shape}: it is neither a dark frame of shape {detector_shape} nor "
        f"labels of the {n_frames} frames. Pass a dark by name, `dark=`."
    )


def _shape_of(value: Any) -> Shape:
    if hasattr(value, "shape"):
        return tuple(value.shape)
    try:
        return np.asarray(value).shape
    except ValueError:  # lists of different lengths
        return (len(value),)


def check_out(out: Any, shape: Shape, dtype: np.dtype) -> None:
    """Check the array a result is to be written to."""
    if tuple(getattr(out, "shape", ())) != shape or not hasattr(out, "__setitem__"):
        came = f"has shape {tuple(out.shape)}" if hasattr(out, "shape") else f"is a {type(out).__name__}"
        raise InputError(f"`out` must be an array of the shape of `X`, {shape}, but {came}.")
    if _numpy_dtype(out.dtype) != dtype:
        raise InputError(f"`out` must have dtype {dtype} for this input, but has {out.dtype}.")


def tags_of_frames(tags: Any) -> Any:
    """Tell scikit-learn what is fitted on frames takes: lines or areas, with NaN, their dtype kept."""
    tags.input_tags.two_d_array = True
    tags.input_tags.three_d_array = True
    tags.input_tags.allow_nan = True
    tags.transformer_tags.preserves_dtype = ["float64", "float32"]
    return tags
