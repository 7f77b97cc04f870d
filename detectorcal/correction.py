"""The correction a calibration prepares: a few maps and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from detectorcal import _validation as validation
from detectorcal._arrays import is_dask, is_numpy, put_like, reshape
from detectorcal._errors import InputError
from detectorcal._execution import as_frames, copy_frames, correct_frames
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.correction import Drift, Maps, ScanMaps, record
from detectorcal.kernels.model import Curve, StraightLine

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
        What is known of the pixels' response, for :meth:`predict_std`.
    beam : array of shape detector_shape or None, default=None
        The expected flat that the result is a transmission of, DN; None for a result in DN.
    defects : array of shape detector_shape, uint8, or None, default=None
        As ``defects_`` of the calibrator, and 128 where the flat shows that a pixel has changed since the
        sweep.
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
        defects: np.ndarray | None = None,
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
        self.defects = defects
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

    def transform(self, X: Array, *, out: Any = None) -> Any:
        """Correct images.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Images, DN. A Dask array gives a lazy Dask array, which ``out`` makes it compute; a stack on disk
            (h5py, zarr, memory map, :func:`detectorcal.io.open_frames`) is read a batch at a time.
        out : array or writer of the shape of ``X``, optional
            Where the result goes: anything that takes ``out[slice] = frames``.

        Returns
        -------
        array of the shape of ``X``
            float32 for float32 and integers up to 16 bit, float64 for everything wider; ``out`` if given.

        Raises
        ------
        InputError
            If shapes or dtypes do not fit.
        """
        return self._apply(X, *self._checked_maps(), self.reject, out)

    def predict_std(self, values: Float64 | float | None = None) -> Float64:
        """Give the relative standard error of corrected values: what the calibration does not know.

        Parameters
        ----------
        values : array of shape detector_shape, or float, optional
            Corrected values: transmissions, or DN where there was no flat. By default those of the sweep.

        Returns
        -------
        array of shape detector_shape, float64
            Dimensionless; NaN where nothing is known. An image's own noise is not in it.

        Raises
        ------
        InputError
            If the correction was made without a calibrator.
        """
        if self.response is None:
            raise InputError(
                "this correction has no `response`: it was not made by a calibrator's `correction`."
            )
        if values is None:
            level: Any = self.response.centre
        else:
            level = validation.as_level("values", values, self.detector_shape_)
            level = level if self.beam is None else level * self._checked_map("beam")
        std: Float64 = np.sqrt(self.response.relative_variance(level))
        return std

    def inverse_transform(self, X: Array) -> Any:
        """Give what the detector would have recorded, ``X / scale + dark``.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Corrected images.

        Returns
        -------
        array of the shape of ``X``, floating
            Raw images, DN.
        """
        dark, scale, curvature = self._checked_maps()
        per_unit = 1 / np.where(scale == 0, np.nan, scale)
        if curvature is None and self.drift is None:
            # X / scale + dark, written as the same pass over the data: (X - offset) * factor
            return self._apply(X, -dark * scale, per_unit, None, None, None)
        straight = self._apply(X, np.zeros_like(dark), per_unit, None, None, None, inverse=True)
        curvature = np.zeros_like(dark) if curvature is None else curvature
        frames = as_frames(straight, scale.shape)
        dtype = validation.float_dtype(frames.dtype)
        maps = [m.astype(dtype) for m in (dark, curvature)]
        recorded = record(frames, *(maps if is_dask(frames) else [put_like(m, frames) for m in maps]))
        return reshape(recorded, tuple(straight.shape))

    def _checked_maps(self) -> tuple[Float64, Float64, Float64 | None]:
        """Check the parameters and give the maps: dark, scale and curvature."""
        validation.check_number("reject", self.reject, above=0, optional=True)
        validation.check_execution(self.n_jobs, self.batch_size, self.device)
        dark, scale = (
            np.asarray(validation.as_real(name, getattr(self, name))) for name in ("dark", "scale")
        )
        if scale.ndim not in (1, 2) or dark.shape != scale.shape:
            raise InputError(
                "`scale` and `dark` must be maps of one shape, (height, width) or (width,), but have shapes "
                f"{scale.shape} and {dark.shape}."
            )
        if self.curvature is None:
            return dark, scale, None
        return dark, scale, self._checked_map("curvature")

    def _checked_map(self, name: str) -> Float64:
        values = np.asarray(validation.as_real(name, getattr(self, name)))
        if values.shape != self.detector_shape_:
            raise InputError(
                f"`{name}` has shape {values.shape}, but `scale` has shape {self.detector_shape_}."
            )
        return values

    def _checked_drift(self, n_frames: int, dtype: np.dtype) -> Drift:
        drift = self.drift
        assert drift is not None
        if n_frames != drift.n_frames:
            raise InputError(
                f"`X` has {n_frames} frames, but this correction is of the {drift.n_frames} frames of a "
                "scan, each with its own light. Give them all; for some of them take "
                "`correction.part(slice(start, stop))`."
            )
        return drift.with_beams(lambda beams: beams.astype(dtype, copy=False))

    def _apply(
        self,
        X: Any,
        dark: Float64,
        scale: Float64,
        curvature: Float64 | None,
        reject: float | None,
        out: Any,
        *,
        inverse: bool = False,
    ) -> Any:
        X = validation.as_images(self, X, flattened=self.flattened)
        dtype = validation.float_dtype(X.dtype)
        frames = as_frames(X, self.detector_shape_)
        target = None
        if out is not None:
            validation.check_out(out, tuple(X.shape), dtype)
            target = _out_frames(out, frames.shape, self.detector_shape_)
        alike = Maps.of(dark, scale, curvature, dtype)
        maps: Maps | ScanMaps = alike
        if self.drift is not None:
            maps = ScanMaps(alike, self._checked_drift(frames.shape[0], dtype), inverse)
        result = correct_frames(
            frames, maps, dtype=dtype, reject=reject, out=target,
            n_jobs=self.n_jobs, batch_size=self.batch_size, device=self.device,
        )  # fmt: skip
        if out is None:
            return reshape(result, tuple(X.shape))
        if is_dask(result):
            copy_frames(result, target)
        return out

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags


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
