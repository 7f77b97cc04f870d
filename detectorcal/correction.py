"""The correction a calibration prepares: a few maps and nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from detectorcal import _validation as validation
from detectorcal._arrays import is_dask, is_eager, is_numpy, namespace, put_like, reshape
from detectorcal._defects import is_hopeless, not_believed
from detectorcal._errors import InputError
from detectorcal._execution import as_frames, copy_frames, correct_frames
from detectorcal._policies import (
    Plan,
    Policies,
    warn_of_lost,
    warn_of_meaningless,
    warn_of_unknown_noise,
)
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.correction import Drift, Maps, Rejection, ScanMaps, record
from detectorcal.kernels.finishing import Counts, Finish, Steps
from detectorcal.kernels.interpolation import Neighbours, good_neighbours
from detectorcal.kernels.model import Curve, StraightLine
from detectorcal.kernels.uncertainty import Deviation, Uncertainty

__all__ = ["Correction"]


class Correction(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""A prepared correction of images, ``(image - dark) * scale``.

    Made by :meth:`DetectorCalibrator.correction`. It holds a few maps and needs no fit, so it suits live
    streams, and Pipelines through which no flat or dark can be passed.

    Parameters
    ----------
    scale : array of shape detector_shape, float64
        Factor of each pixel: its coefficient, over the expected flat if there was one. 1/DN with a flat,
        dimensionless without.
    dark : array of shape detector_shape, float64
        What is subtracted first, DN.
    curvature : array of shape detector_shape or None, default=None
        Where the response is no straight line, `q` in 1/DN: with `m` the image minus dark the result is
        :math:`m \, \mathrm{scale} \cdot 2 / (1 + \sqrt{1 + q m})`, the root of a quadratic response.
    response : Curve, StraightLine or None, default=None
        What is known of the pixels' response, for standard errors.
    beam : array of shape detector_shape or None, default=None
        What the result is a transmission of, DN: the expected flat; None for a result in DN.
    defect_map : array of shape detector_shape, uint8, or None, default=None
        As ``defects_`` of the calibrator, and 128 where the flat shows that a pixel has changed since the
        sweep.
    defects : {"keep", "nan", "interpolate"}, default="keep"
        What becomes of the pixels of ``defect_map``, but for those that have only changed: they keep what
        they give, become NaN, or are replaced from the good pixels around them.
    invalid : "nan", "clip" or float, default="nan"
        What stands in for values that mean nothing; see :meth:`DetectorCalibrator.transform`.
    log : bool, default=False
        Whether -log of the transmission is given; needs ``beam``.
    uncertainty : Uncertainty or None, default=None
        What is known of the noise of camera, dark and flat, for ``return_std``.
    reject : float or None, default=None
        Pixels further than so many robust standard deviations from the median of the 25 pixels around
        them are replaced by that median.
    drift : Drift or None, default=None
        How the light of each frame of a scan differs from that of the flat, as :class:`ScanCorrection` finds
        it; images are then the frames of that scan, all of them, or those of :meth:`part`.
    flattened : bool, default=False
        Whether rows of pixels, (n_frames, n_pixels), are accepted as frames.
    n_jobs : int or None, default=None
        Threads, as joblib counts them.
    batch_size : int, str or None, default=None
        Frames read at a time, or bytes of them, as "64 MB"; None takes about 32 MB.
    device : {"cpu", "cuda"} or None, default=None
        Where batches of host arrays are worked on; see :class:`DetectorCalibrator`.

    Attributes
    ----------
    detector_shape_ : tuple of int
        Shape of the maps.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import Correction
    >>> live = Correction(scale=np.array([[0.5, 2.0]]), dark=np.array([[10.0, 10.0]]))
    >>> live.transform(np.array([[30, 20]], dtype=np.uint16))
    array([[10., 20.]], dtype=float32)
    """

    def __init__(
        self,
        scale: Float64,
        dark: Float64,
        *,
        curvature: Float64 | None = None,
        response: Curve | StraightLine | None = None,
        beam: Float64 | None = None,
        defect_map: np.ndarray | None = None,
        defects: str = "keep",
        invalid: str | float = "nan",
        log: bool = False,
        uncertainty: Uncertainty | None = None,
        reject: float | None = None,
        drift: Drift | None = None,
        flattened: bool = False,
        n_jobs: int | None = None,
        batch_size: int | str | None = None,
        device: str | None = None,
    ) -> None:
        self.scale = scale
        self.dark = dark
        self.curvature = curvature
        self.response = response
        self.beam = beam
        self.defect_map = defect_map
        self.defects = defects
        self.invalid = invalid
        self.log = log
        self.uncertainty = uncertainty
        self.reject = reject
        self.drift = drift
        self.flattened = flattened
        self.n_jobs = n_jobs
        self.batch_size = batch_size
        self.device = device

    @property
    def detector_shape_(self) -> Shape:  # noqa: D102 - an attribute, described above
        return tuple(np.shape(self.scale))

    def fit(self, X: Any = None, y: Any = None) -> Correction:
        """Do nothing: the maps are ready.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        Correction
            This object.
        """
        return self

    def part(self, run: slice | np.ndarray) -> Correction:
        """Give the correction of some frames of a scan.

        Parameters
        ----------
        run : slice, array of int or array of bool
            Which.

        Returns
        -------
        Correction
            This object itself if all frames are corrected alike.
        """
        if self.drift is None:
            return self
        parameters = self.get_params(deep=False) | {"drift": self.drift.part(run)}
        return type(self)(**parameters)

    def transform(self, X: Array, *, return_std: bool = False, out: Any = None) -> Any:
        """Correct images.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Images, DN. A Dask array gives a lazy Dask array, which ``out`` makes it compute; a stack on disk
            (h5py, zarr, memory map, :func:`detectorcal.io.open_frames`) is read a batch at a time.
        return_std : bool, default=False
            Whether the standard deviation of each corrected value is given too; see
            :meth:`DetectorCalibrator.transform`.
        out : array or writer of the shape of ``X``, optional
            Where the corrected images go: anything that takes ``out[slice] = frames``.

        Returns
        -------
        array of the shape of ``X``
            float32 for float32 and integers up to 16 bit, float64 for everything wider; ``out`` if given.
        std : array of the shape of ``X``
            Of the same dtype, and only with ``return_std``.

        Raises
        ------
        InputError
            If shapes or dtypes do not fit, or what is asked for needs a flat, a map of defects or a noise
            that this correction was not given.
        """
        plan = self._plan()
        X = validation.as_images(self, X, flattened=self.flattened)
        std = self._std(X, plan) if return_std else None  # first, for `out` may be where `X` is
        corrected, counts = self._apply(X, plan.steps(validation.float_dtype(X.dtype)), out)
        warn_of_meaningless(counts, math.prod(X.shape), plan.policies)
        warn_of_lost(plan.neighbours)
        return corrected if std is None else (corrected, std)

    def predict_std(self, values: Float64 | float | None = None) -> Float64:
        """Give the relative standard error of corrected values: what the calibration does not know.

        Parameters
        ----------
        values : array of shape detector_shape, or float, optional
            Corrected values: transmissions, also with ``log``, or DN where there was no flat. By default
            those of the sweep.

        Returns
        -------
        array of shape detector_shape, float64
            Dimensionless; NaN where nothing is known. An image's own noise is not in it.

        Raises
        ------
        InputError
            If the correction was made without a calibrator.
        """
        response = self._checked_response()
        if values is None:
            level: Any = response.centre
        else:
            level = validation.as_level("values", values, self.detector_shape_)
            level = level if self.beam is None else level * self._checked_map("beam")
        std: Float64 = np.sqrt(response.relative_variance(level))
        return std

    def inverse_transform(self, X: Array) -> Any:
        """Give what the detector would have recorded, ``X / scale + dark``.

        What was interpolated, became NaN or was replaced by ``invalid`` is not brought back.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Corrected images, of which ``log`` took minus the logarithm.

        Returns
        -------
        array of the shape of ``X``, floating
            Raw images, DN.
        """
        plan = self._plan()
        dark, scale, curvature = plan.dark, plan.scale, plan.curvature
        X = validation.as_images(self, X, flattened=self.flattened)
        X = _transmission(X) if self.log else X
        per_unit = 1 / np.where(scale == 0, np.nan, scale)
        dtype = validation.float_dtype(X.dtype)
        if curvature is None and self.drift is None:
            # X / scale + dark, written as the same pass over the data: (X - offset) * factor
            steps = Steps(Maps.of(-dark * scale, per_unit, None, dtype), None, Finish())
            return self._apply(X, steps, None)[0]
        alike = Maps.of(np.zeros_like(dark), per_unit, None, dtype)
        scaled = alike if self.drift is None else ScanMaps(alike, self.drift.astype(dtype), inverse=True)
        straight, _ = self._apply(X, Steps(scaled, None, Finish()), None)
        curvature = np.zeros_like(dark) if curvature is None else curvature
        frames = as_frames(straight, scale.shape)
        maps = [m.astype(dtype) for m in (dark, curvature)]
        recorded = record(frames, *(maps if is_dask(frames) else [put_like(m, frames) for m in maps]))
        return reshape(recorded, tuple(straight.shape))

    def _steps(self, n_frames: int, dtype: np.dtype) -> Steps:
        """Give what makes corrected frames of so many raw ones, for a walk through them of another kind."""
        self._check_drift(n_frames)
        return self._plan().steps(dtype)

    def _plan(self) -> Plan:
        """Check the parameters, and find out what is done with each pixel."""
        validation.check_number("reject", self.reject, above=0, optional=True)
        validation.check_execution(self.n_jobs, self.batch_size, self.device)
        policies = Policies(self.defects, self.invalid, self.log)
        policies.check(has_flat=self.beam is not None)
        dark, scale = (
            np.asarray(validation.as_real(name, getattr(self, name))) for name in ("dark", "scale")
        )
        if scale.ndim not in (1, 2) or dark.shape != scale.shape:
            raise InputError(
                "`scale` and `dark` must be maps of one shape, (height, width) or (width,), but have shapes "
                f"{scale.shape} and {dark.shape}."
            )
        curvature = None if self.curvature is None else self._checked_map("curvature")
        lit = np.isfinite(scale)
        neighbours = None
        if self.defects != "keep":
            if self.defect_map is None:
                raise InputError(f'`defects="{self.defects}"` needs the map of the defects, `defect_map`.')
            bad = not_believed(self._checked_map("defect_map").astype(np.uint8))
            if self.defects == "nan":
                scale = np.where(bad, np.nan, scale)
                lit = lit | bad  # nothing stands in for what was wanted to be NaN
            else:
                neighbours = self._neighbours(bad & lit, ~bad & lit)
        return Plan(dark, scale, curvature, self._rejection(), policies, lit, neighbours, self.drift)

    def _rejection(self) -> Rejection | None:
        """Tell which spots are replaced; pixels that never mean anything, as those of a gap, have no say."""
        if self.reject is None:
            return None
        if self.defect_map is None:
            return Rejection(self.reject)
        hopeless = is_hopeless(self._checked_map("defect_map").astype(np.uint8))
        return Rejection(self.reject, hopeless if hopeless.any() else None)

    def _neighbours(self, bad: np.ndarray, good: np.ndarray) -> Neighbours | None:
        """Find what defects are replaced from, unless that was done before: images may come one by one."""
        known = getattr(self, "_replacing", None)
        if known is None or not (np.array_equal(known[0], bad) and np.array_equal(known[1], good)):
            known = self._replacing = bad, good, good_neighbours(bad, good) if bad.any() else None
        return known[2]

    def _checked_map(self, name: str) -> Float64:
        values = np.asarray(validation.as_real(name, getattr(self, name)))
        if values.shape != self.detector_shape_:
            raise InputError(
                f"`{name}` has shape {values.shape}, but `scale` has shape {self.detector_shape_}."
            )
        return values

    def _check_drift(self, n_frames: int) -> None:
        if self.drift is not None and n_frames != self.drift.n_frames:
            raise InputError(
                f"`X` has {n_frames} frames, but this correction is of the {self.drift.n_frames} frames of a "
                "scan, each with its own light. Give them all; for some of them take "
                "`correction.part(slice(start, stop))`."
            )

    def _checked_response(self) -> Curve | StraightLine:
        if self.response is None:
            raise InputError(
                "this correction has no `response`: it was not made by a calibrator's `correction`."
            )
        if not isinstance(self.response, (Curve, StraightLine)):
            raise InputError(
                f"`response` must be what a calibrator's `correction` gives, or None, got {self.response!r}."
            )
        return self.response

    def _std(self, X: Any, plan: Plan) -> Any:
        """Give the standard deviations of the corrected values."""
        response = self._checked_response()
        if not isinstance(self.uncertainty, Uncertainty):
            raise InputError(
                "`return_std` needs to know the noise of the camera: `uncertainty`, which a calibrator's "
                "`correction` gives."
            )
        if not np.isfinite(self.uncertainty.system_gain):
            raise InputError(
                "`return_std` needs the system gain, which the sweep did not tell: give the calibrator "
                "`system_gain`, or fit a sweep of more frames."
            )
        warn_of_unknown_noise(self.uncertainty)
        beam = None if self.beam is None else self._checked_map("beam")
        variance = self.uncertainty.reading_variance(whole=validation.are_whole(X.dtype))
        work = plan.deviation(response, beam, self.uncertainty, variance, validation.float_dtype(X.dtype))
        return self._apply(X, work, None)[0]

    def _apply(self, X: Any, work: Steps | Deviation, out: Any) -> tuple[Any, Counts]:
        frames = as_frames(X, self.detector_shape_)
        self._check_drift(frames.shape[0])
        target = None
        if out is not None:
            validation.check_out(out, tuple(X.shape), work.dtype)
            target = _out_frames(out, frames.shape, self.detector_shape_)
        result, counts = correct_frames(
            frames, work, out=target, n_jobs=self.n_jobs, batch_size=self.batch_size, device=self.device
        )
        if out is None:
            return reshape(result, tuple(X.shape)), counts
        if is_dask(result):
            copy_frames(result, target)
        return out, counts

    def __getstate__(self) -> Any:
        return {name: value for name, value in super().__getstate__().items() if name != "_replacing"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


def _transmission(X: Any) -> Any:
    """Undo minus the logarithm; what is read by slicing is read whole, as is the result."""
    X = X if is_eager(X) or is_dask(X) else np.asarray(X[...])
    xp = namespace(X)
    dtype = validation.float_dtype(X.dtype)
    return xp.exp(-xp.astype(X, getattr(xp, dtype.name)))


def _out_frames(out: Any, shape: Shape, detector_shape: Shape) -> Any:
    """See the output as frames too, which only a contiguous array allows."""
    if tuple(shape) == tuple(out.shape):
        return out
    if not is_numpy(out) or not out.flags.c_contiguous:
        raise InputError(
            f"`out` of shape {tuple(out.shape)} must be a C-contiguous NumPy array to be seen as frames of "
            f"shape {detector_shape}."
        )
    return out.reshape(shape)
