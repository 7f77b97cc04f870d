"""The two functions of detectorcal 0.0.1, on today's estimator.

Names, order and defaults of the arguments are those of 0.0.1; what comes new is keyword-only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from detectorcal import _provenance
from detectorcal import _validation as validation
from detectorcal._arrays import as_dask, is_dask, is_eager, is_numpy, namespace, to_host
from detectorcal._errors import InputError, OutputExistsError, warn
from detectorcal._execution import copy_frames
from detectorcal._files import refuse_existing
from detectorcal._typing import Array, Float64, Path
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.io import create_frames, open_frames

__all__ = ["correct_image", "fit_response"]

HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (*HDF5_SUFFIXES, ".zarr", ".tif", ".tiff")


def fit_response(
    volume: Array,
    dark: Any = None,
    save_path: Path | None = None,
    sigma: float = 50,
    mode: str = "nearest",
    cval: float = 0.0,
    truncate: float = 4.0,
    cutoff: float = 300,
    gpu: bool = False,
    verbose: bool = False,
    *,
    save: Path | None = None,
    reject: float | None = None,
) -> Float64:
    """Learn each pixel's coefficient from a sweep.

    Parameters
    ----------
    volume : array or stack of shape (n_frames, height, width)
        The sweep, raw frames in DN, of any real dtype.
    dark : number, array of shape (height, width), or stack of darks, optional
        Dark, DN; a stack is averaged.
    save_path, save : path, optional
        Where the coefficients are written too: ``/data`` of a ``.h5`` or ``.hdf5``, the root of a
        ``.zarr``, the page of a ``.tif`` or ``.tiff``. An earlier output of this kind is replaced; a file
        that holds anything else is left alone, with an error before any work.
    sigma : float, default=50
        Standard deviation of the Gaussian, pixels.
    mode : str, default="nearest"
        How the Gaussian continues a frame beyond its edge; see :func:`scipy.ndimage.gaussian_filter`.
    cval : float, default=0.0
        Value beyond the edge for ``mode="constant"``, DN above dark.
    truncate : float, default=4.0
        Standard deviations at which the Gaussian ends.
    cutoff : float, default=300
        Frames take part at the pixels where the smoothed value is above this, DN above dark.
    gpu : bool, default=False
        Whether the work is done by CuPy's current CUDA device.
    verbose : bool, default=False
        Whether a line about the fit is printed.
    reject : float, optional
        Pixels further than so many robust standard deviations from the median of the 25 pixels around
        them (cosmic rays, hot pixels) take no part in that frame's fit; about 6 is usual.

    Returns
    -------
    array of shape (height, width), float64
        Coefficients, dimensionless; 1 where a pixel could not be solved (0.0.1: 0).

    Raises
    ------
    InputError
        If an argument is unfit.
    OutputExistsError
        If the output exists and holds something else.

    See Also
    --------
    DetectorCalibrator : The same with standard errors, flags and files that go on.

    References
    ----------
    .. [1] Croton et al., Opt. Express 27(10) 14231 (2019), https://doi.org/10.1364/OE.27.014231

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import fit_response
    >>> gain = np.array([[1.0, 0.8], [1.0, 1.2]])
    >>> sweep = np.array([1000.0, 2000.0])[:, None, None] * gain
    >>> fit_response(sweep).round(2)
    array([[1.  , 1.25],
           [1.  , 0.83]])
    """
    save_path = _output(save_path, save)
    with _calling_it("volume"):
        calibrator = DetectorCalibrator(
            sigma,
            mode=mode,
            cval=cval,
            truncate=truncate,
            cutoff=cutoff,
            reject=reject,
            n_jobs=-1,
            device="cuda" if gpu else None,
        ).fit(volume, dark=dark)
    if verbose:
        frames, shape = calibrator.n_frames_seen_, calibrator.detector_shape_
        print(f"detectorcal: {frames} frames of {shape} pixels fitted")
    if save_path is not None:
        _write(save_path, calibrator.coef_, "fit_response", calibrator)
    return calibrator.coef_


def correct_image(
    ct_volume: Array,
    coefficients: Array,
    dark: Any = None,
    flat: Any = None,
    save_path: Path | None = None,
    use_dask: bool = False,
    sigma: float | None = None,
    smooth_radius: float = 50,
    mode: str = "nearest",
    cval: float = 0.0,
    truncate: float = 4.0,
    gpu: bool = False,
    verbose: bool = False,
    *,
    save: Path | None = None,
    flat_has_dark: bool | None = None,
    reject: float | None = None,
) -> Any:
    """Correct images with coefficients from :func:`fit_response`.

    Parameters
    ----------
    ct_volume : array or stack of shape (n, height, width) or (height, width)
        Images, DN. A Dask array gives a lazy Dask array of float64.
    coefficients : array of shape (height, width)
        From :func:`fit_response`, dimensionless.
    dark, flat : number, array of shape (height, width), or stack, optional
        Dark, and frame with beam and without sample, DN; a stack is averaged.
    save_path, save : path, optional
        Where the result is written too; see :func:`fit_response`.
    use_dask : bool, default=False
        Whether the result is a lazy Dask array; always so for a Dask array.
    sigma : float, optional
        Residuals of the flat beyond so many of their standard deviations are corrected too.
    smooth_radius : float, default=50
        Standard deviation of the Gaussian that smooths the flat, pixels.
    mode, cval, truncate
        As in :func:`fit_response`.
    gpu : bool, default=False
        Whether the work is done by CuPy's current CUDA device.
    verbose : bool, default=False
        Whether a line about the correction is printed.
    flat_has_dark : bool, optional
        Whether the dark is still in ``flat``. Default True: it is subtracted from both image and flat,
        with a warning, since 0.0.1 subtracted it from the image alone. False gives the numbers of 0.0.1.
    reject : float, optional
        Pixels further than so many robust standard deviations from the median of the 25 pixels around
        them, in images and flat, are replaced by that median; about 6 is usual.

    Returns
    -------
    array of the shape of ``ct_volume``, float64
        The corrected images; a Dask array if that was asked for.

    Raises
    ------
    InputError
        If an argument is unfit.
    OutputExistsError
        If the output exists and holds something else.

    References
    ----------
    .. [1] Croton et al., Opt. Express 27(10) 14231 (2019), https://doi.org/10.1364/OE.27.014231

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import correct_image
    >>> coefficients = np.array([[1.0, 1.25]])
    >>> correct_image(np.array([[110, 90]], dtype=np.uint16), coefficients, dark=10)
    array([[100., 100.]])
    """
    save_path = _output(save_path, save)
    if flat is None and sigma is not None:
        warn("`sigma` is the threshold of the flat's residuals: without a `flat` it changes nothing.")
        sigma = None
    if flat_has_dark is None and flat is not None and dark is not None:
        _warn_of_the_flats_dark()
    calibrator = _calibrator_of(coefficients, smooth_radius, mode, cval, truncate)
    calibrator.set_params(reject=reject, device="cuda" if gpu else None)
    correction = calibrator.correction(flat, sigma, dark, flat_has_dark=flat_has_dark is not False)
    with _calling_it("ct_volume"):
        images = validation.as_images(calibrator, ct_volume, flattened=False)
    if use_dask and not is_dask(images):
        images = as_dask(images)
    if is_dask(images):
        corrected = correction.transform(images.astype(np.float64))
    elif is_eager(images) and not is_numpy(images):
        xp = namespace(images)
        corrected = correction.transform(xp.astype(images, xp.float64))
    else:
        corrected = np.array(images, dtype=np.float64)
        correction.transform(corrected, out=corrected)
    if verbose:
        print(f"detectorcal: images of shape {tuple(images.shape)} corrected")
    if save_path is not None:
        _write(save_path, corrected, "correct_image", calibrator)
    return corrected


def _calibrator_of(
    coefficients: Array, smooth_radius: float, mode: str, cval: float, truncate: float
) -> DetectorCalibrator:
    """Make a calibrator that knows nothing but its coefficients."""
    sigma = validation.check_number("smooth_radius", smooth_radius, above=0) or 0.0
    calibrator = DetectorCalibrator(sigma, mode=mode, cval=cval, truncate=truncate, n_jobs=-1)
    coef = np.array(to_host(validation.as_real("coefficients", coefficients)), dtype=np.float64)
    if coef.ndim not in (1, 2):
        raise InputError(
            f"`coefficients` must be a map of shape (height, width), but has shape {coef.shape}."
        )
    calibrator.coef_ = coef
    calibrator.coef_std_ = np.full(coef.shape, np.nan)
    calibrator.reference_level_ = calibrator.system_gain_ = np.nan
    calibrator.n_darks_, calibrator.read_noise_ = 0, 0.0
    calibrator.dark_ = np.zeros(coef.shape)
    calibrator.defects_ = np.zeros(coef.shape, np.uint8)
    calibrator.kept_out_, calibrator.saturation_ = np.zeros(coef.shape, np.uint8), None
    calibrator.detector_shape_ = coef.shape
    calibrator.n_features_in_ = coef.size
    return calibrator


@contextmanager
def _calling_it(name: str) -> Iterator[None]:
    """Call by its name here what the estimator calls `X`, in errors about it."""
    try:
        yield
    except InputError as error:
        raise type(error)(str(error).replace("`X`", f"`{name}`")) from error


def _output(save_path: Path | None, save: Path | None) -> FilePath | None:
    """Take either name of the output, and refuse an unusable one before any work."""
    if save_path is not None and save is not None:
        raise InputError("`save_path` and `save` name the same output; give one.")
    name = "save_path" if save is None else "save"
    given = save_path if save is None else save
    if given is None:
        return None
    path = FilePath(validation.check_path(name, given))
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"`{name}` must end in {', '.join(SUFFIXES)}, got {str(given)!r}.")
    refuse_existing(path, overwrite=True)
    if path.exists() and not _is_ours(path):
        raise OutputExistsError(
            f"`{path}` exists and holds something else than an array that these functions wrote, which "
            "writing would destroy. Choose another name, or remove it first."
        )
    return path


def _is_ours(path: FilePath) -> bool:
    """Whether an existing file holds one array where these functions put it, and nothing else."""
    suffix = path.suffix.lower()
    looks = (
        _is_lone_dataset if suffix in HDF5_SUFFIXES else _is_root_array if suffix == ".zarr" else _is_image
    )
    try:
        return looks(path)
    except Exception:  # a file that cannot be read is not known to be ours
        return False


def _is_lone_dataset(path: FilePath) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return list(file) == ["data"] and isinstance(file["data"], h5py.Dataset)


def _is_root_array(path: FilePath) -> bool:
    import zarr

    return isinstance(zarr.open(str(path), mode="r"), zarr.Array)


def _is_image(path: FilePath) -> bool:
    # a calibration is none: its pages are of several types
    with open_frames(path):
        return True


def _write(path: Path, array: Any, function: str, calibrator: DetectorCalibrator) -> None:
    """Write a map or images, a batch at a time if they are lazy, with what made them."""
    made_by = _provenance.describe_call(function, calibrator)
    attributes = {_provenance.KEY: made_by}
    with create_frames(path, array.shape, array.dtype, overwrite=True, attributes=attributes) as writer:
        if is_dask(array):
            copy_frames(array, writer)
        else:
            writer[:] = array


def _warn_of_the_flats_dark() -> None:
    warn(
        "the dark is subtracted from the flat too, so the numbers differ from those of detectorcal 0.0.1. If "
        "your flat has no dark in it, or you want the old numbers, pass `flat_has_dark=False`; pass "
        "`flat_has_dark=True` to silence this."
    )
