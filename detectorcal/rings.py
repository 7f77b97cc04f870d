"""The last step over a scan: rings removed, no further than the calibration's own error bars."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from detectorcal import _validation as validation
from detectorcal._clone import clone_with
from detectorcal._errors import InputError, warn
from detectorcal._scan import sum_scan
from detectorcal._streaming import single_threaded_blas
from detectorcal._typing import Array, Float64, Shape, Stack
from detectorcal.correction import Correction
from detectorcal.kernels.model import Sums
from detectorcal.kernels.rings import Offsets, offsets

__all__ = ["CorrectedFrames", "RingSuppressor"]


class RingSuppressor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""Remove the rings a calibration left, and nothing that could not be its error.

    What a coefficient is off by is a constant in -log(T) of its pixel, and makes a ring. :meth:`fit` looks
    for it in the mean over all projections; :meth:`transform` takes it out by one multiplication per pixel.
    The calibration says how large it may be: no pixel is changed by more than ``n_std`` of its standard
    errors, so what is real in the object, however ring-shaped, loses no more than that.

    Parameters
    ----------
    calibrator : DetectorCalibrator, Correction, ScanCorrection or None, default=None
        What corrected the scan; it gives the standard errors. A fitted calibrator gives those at its
        ``reference_level_``. The :class:`Correction` it prepared, or a fitted :class:`ScanCorrection`, gives
        them at what each pixel read on average over the scan, and knows what the flat told: with
        ``method="curved"`` it is the one to give.
        Pixels that could not be calibrated are never changed. :func:`sklearn.base.clone` keeps the fit.
    variance : array of shape detector_shape or None, default=None
        Instead of a calibrator, the relative variance of a corrected value of each pixel; dimensionless.
        A pixel where it is NaN is never changed.
    window : float, default=4.0
        Standard deviation in pixels of the Gaussian along a row that separates the object's course from
        rings.
    n_std : float, default=3.0
        Standard errors by which a pixel may be changed at most.
    n_jobs : int or None, default=None
        Threads, as joblib counts them. The result does not depend on it.
    batch_size : int, str or None, default=None
        Projections read at a time, or bytes of them, as "64 MB"; None takes about 32 MB. The result does
        not depend on it.

    Attributes
    ----------
    multiplier_ : array of shape detector_shape, float64
        What the transmission of each pixel is multiplied with; 1 where it is left alone.
    report_ : dict of str to int or float
        ``n_pixels``; ``n_changed``; ``n_beyond``: more was found there than the calibration can be off
        by, so that less is removed, or nothing; ``n_left_alone``: not
        calibrated, or without usable projections; ``median_std_errors``, ``largest_std_errors``,
        ``median_percent``, ``largest_percent``: by how much the changed pixels were changed, in their
        standard errors and in % of the transmission (0 where none was).
    variance_ : array of shape detector_shape, float64
        Relative variance of a corrected value by which each pixel was judged; NaN where nothing is known.
    n_projections_ : int
        Number of projections of the fit.
    detector_shape_ : tuple of int
        ``(height, width)`` or ``(width,)``.
    n_features_in_ : int
        Number of pixels.

    See Also
    --------
    DetectorCalibrator : Makes the coefficients, and says how well they are known.

    Notes
    -----
    The approach is the package's own. With `e` the mean of -log(T) minus its twice-smoothed course along the
    row, `v` the relative variance of a corrected value, `n` the variance of the mean from noise and `o` the
    variance of `e` from the object,

    .. math:: \mathrm{multiplier} = \exp(\mathrm{sign}(e)\, \max(0, \min(k |e|,\, 2 N \sqrt v - k |e|))),
        \quad k = v / (v + n + o)

    with `N` = ``n_std``. `n` is half the mean squared difference of successive projections over their
    number; `o`, one number per row, is the robust variance of `e` minus the means of `v` and `n`, or 0.
    Whatever `n_std`, no multiplier is beyond 1/10 and 10. ``docs/rings.md`` has the derivation.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import RingSuppressor
    >>> rng = np.random.default_rng(0)
    >>> stripes = np.exp(rng.normal(0, 0.01, (4, 100)))
    >>> scan = 0.5 * stripes * np.exp(rng.normal(0, 0.02, (200, 4, 100)))
    >>> rings = RingSuppressor(variance=np.full((4, 100), 0.01**2)).fit(scan)
    >>> [round(float(100 * np.log(T).mean(axis=0).std()), 1) for T in (scan, rings.transform(scan))]
    [1.0, 0.3]
    >>> bool(np.all(np.abs(np.log(rings.multiplier_)) <= 3.001 * 0.01))
    True
    """

    multiplier_: Float64
    variance_: Float64
    report_: dict[str, Any]
    n_projections_: int
    detector_shape_: Shape
    n_features_in_: int

    def __init__(
        self,
        calibrator: Any = None,
        *,
        variance: Float64 | None = None,
        window: float = 4.0,
        n_std: float = 3.0,
        n_jobs: int | None = None,
        batch_size: int | str | None = None,
    ) -> None:
        self.calibrator = calibrator
        self.variance = variance
        self.window = window
        self.n_std = n_std
        self.n_jobs = n_jobs
        self.batch_size = batch_size

    def fit(self, X: Stack | CorrectedFrames, y: Any = None) -> Self:
        """Learn one multiplier per pixel from all projections.

        Parameters
        ----------
        X : array or stack of shape (n_projections, height, width) or (n_projections, width)
            Corrected projections, transmission, in the order they were taken: an array, or anything read by
            slicing (h5py, zarr, memory map, Dask, :func:`detectorcal.io.open_frames`), which is read a
            batch at a time. Values that are not above 0 or not finite are left out, with a warning.
        y : ignored

        Returns
        -------
        RingSuppressor
            The fitted transformer.

        Raises
        ------
        InputError
            If there is neither calibrator nor variance, or both; if it is of another detector, or says
            nothing of any pixel; if there are fewer than two projections, whose differences tell the noise.
        """
        variance = self.relative_variance()
        stack, correction = (X.stack, X.correction) if isinstance(X, CorrectedFrames) else (X, None)
        stack = _as_scan(stack, variance.shape)
        dtype = validation.float_dtype(stack.dtype)
        work = None if correction is None else correction._steps(stack.shape[0], dtype)
        sums = sum_scan(stack, dtype, work=work, n_jobs=self.n_jobs, batch_size=self.batch_size)
        _warn_of_left_out(sums, stack.shape[0])
        if (correction := _correction_of(self.calibrator)) is not None:
            mean = np.exp(sums["total"] / np.maximum(sums["count"], 1))
            variance = correction.predict_std(mean) ** 2
        with single_threaded_blas():
            found = offsets(sums, variance, float(self.window), float(self.n_std))
        self.multiplier_ = np.exp(found.removed)
        self.variance_ = variance
        self.report_ = _report(found, variance)
        self.n_projections_ = int(stack.shape[0])
        self.detector_shape_ = variance.shape
        self.n_features_in_ = variance.size
        return self

    def relative_variance(self) -> Float64:
        """Check the parameters, and give the relative variance of a corrected value of each pixel.

        Returns
        -------
        array of shape detector_shape, float64
            Dimensionless; NaN where nothing is known.

        Raises
        ------
        InputError
            If a parameter is unfit, or there is neither calibrator nor variance, or both.
        """
        validation.check_smoothing(self.window, "nearest", 0.0, 4.0, name="window")
        validation.check_number("n_std", self.n_std, at_least=0)
        validation.check_execution(self.n_jobs, self.batch_size, None)
        if (self.calibrator is None) == (self.variance is None):
            came = "neither" if self.variance is None else "both"
            raise InputError(
                "`RingSuppressor` needs either `calibrator`, fitted, or `variance`, to know how far it may "
                f"go, but got {came}. Filters that work blindly exist elsewhere: in algotom and tomopy."
            )
        variance = _variance_of(self.calibrator) if self.variance is None else _given(self.variance)
        if not np.any(np.isfinite(variance)):
            name = "variance" if self.calibrator is None else "calibrator"
            raise InputError(
                f"`{name}` has no finite standard error at any pixel, so no pixel may be changed. Fit a "
                "sweep of more frames."
            )
        return variance

    def transform(self, X: Array, *, out: Any = None) -> Any:
        """Multiply each pixel by its multiplier.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Corrected projections, transmission. A Dask array gives a lazy Dask array, which ``out`` makes it
            compute; a stack on disk is read a batch at a time.
        out : array or writer of the shape of ``X``, optional
            Where the result goes: anything that takes ``out[slice] = frames``, ``X`` itself included.

        Returns
        -------
        array of the shape of ``X``
            float32 for float32 and integers up to 16 bit, float64 for everything wider; ``out`` if given.

        Raises
        ------
        InputError
            If shapes or dtypes do not fit.
        """
        return self._multiplication().transform(X, out=out)

    def fit_transform(self, X: Stack, y: Any = None, *, out: Any = None) -> Any:
        """Learn from a scan and remove its rings.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        out
            As in :meth:`transform`.

        Returns
        -------
        array of the shape of ``X``
            As :meth:`transform` gives it.
        """
        return self.fit(X).transform(X, out=out)

    def inverse_transform(self, X: Array) -> Any:
        """Put the rings back.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            What :meth:`transform` gave.

        Returns
        -------
        array of the shape of ``X``
            What it was given.
        """
        return self._multiplication().inverse_transform(X)

    def _multiplication(self) -> Correction:
        check_is_fitted(self)
        return Correction(
            self.multiplier_, np.zeros_like(self.multiplier_), n_jobs=self.n_jobs, batch_size=self.batch_size
        )

    def __sklearn_clone__(self) -> Self:
        copied: Self = clone_with(self, "calibrator")
        return copied

    def __sklearn_tags__(self) -> Any:
        return validation.tags_of_frames(super().__sklearn_tags__())


class CorrectedFrames(NamedTuple):
    """The frames of a raw scan, to be corrected as they are looked through."""

    stack: Stack
    """Shape (n_projections, *detector_shape), DN."""
    correction: Correction
    """What is made of them; it takes no logarithm."""


def _variance_of(calibrator: Any) -> Float64:
    """Give the relative variance of what was corrected, at the level of the sweep; NaN at defects."""
    if not hasattr(calibrator, "predict_std"):
        raise InputError(
            "`calibrator` must be a DetectorCalibrator, or the Correction it prepared, but is a "
            f"{type(calibrator).__name__}."
        )
    check_is_fitted(calibrator)
    variance: Float64 = calibrator.predict_std() ** 2
    return variance


def _correction_of(calibrator: Any) -> Correction | None:
    """Give the prepared correction, which a ScanCorrection holds; None of a calibrator."""
    found = getattr(calibrator, "correction_", calibrator)
    return found if isinstance(found, Correction) else None


def _given(variance: Any) -> Float64:
    values = np.asarray(validation.as_real("variance", variance), dtype=np.float64)
    if values.ndim not in (1, 2):
        raise InputError(
            "`variance` must be a map of shape (height, width) or (width,), but has shape "
            f"{values.shape}. Where it is the same everywhere: `np.full(detector_shape, variance)`."
        )
    if np.any(values < 0):
        raise InputError(f"`variance` must be at least 0, but its smallest value is {np.nanmin(values):g}.")
    return values


def _as_scan(X: Any, shape: Shape) -> Stack:
    """Check the projections of a fit."""
    stack: Stack = validation.as_real("X", X)
    if tuple(stack.shape[1:]) != shape:
        raise InputError(
            f"`X` has shape {tuple(stack.shape)}, but the calibration is of a detector of shape {shape}: "
            f"projections must have shape (n_projections, {', '.join(map(str, shape))})."
        )
    if stack.shape[0] < 2:
        raise InputError(
            "`X` must have at least two projections, for their differences tell the noise; it has one. Give "
            "the whole scan."
        )
    return stack


def _warn_of_left_out(sums: Sums, n_projections: int) -> None:
    count = sums["count"]
    n_left_out = int(n_projections * count.size - count.sum())
    if n_left_out:
        n_alone = np.count_nonzero(count == 0)
        alone = f"; {n_alone} of {count.size} pixels have no others and are left alone" if n_alone else ""
        warn(
            f"{n_left_out} of {n_projections * count.size} values of the projections are not above 0 or not "
            f"finite, and took no part in the search for rings{alone}."
        )


def _report(found: Offsets, variance: Float64) -> dict[str, Any]:
    """Tell how many pixels are changed, and by how much."""
    changed = found.removed != 0
    size = np.abs(found.removed[changed])
    std_errors, percent = size / np.sqrt(variance[changed]), 100 * np.abs(np.expm1(found.removed[changed]))
    figures = {"std_errors": std_errors, "percent": percent}
    return {
        "n_pixels": found.removed.size,
        "n_changed": int(np.count_nonzero(changed)),
        "n_beyond": int(np.count_nonzero(found.beyond)),
        "n_left_alone": int(np.count_nonzero(~found.judged)),
        **{f"median_{name}": float(np.median(f)) if f.size else 0.0 for name, f in figures.items()},
        **{f"largest_{name}": float(np.max(f, initial=0.0)) for name, f in figures.items()},
    }
