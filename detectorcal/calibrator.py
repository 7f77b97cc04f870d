"""The estimator: learn each pixel's response from a sweep, correct images with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from detectorcal import _notebook, _record
from detectorcal import _validation as validation
from detectorcal._arrays import is_lazy, is_numpy
from detectorcal._callbacks import FitTask, Watchable, watched
from detectorcal._camera import binned, cropped, refuse_frozen
from detectorcal._defects import DEFECTS, HOPELESS, LARGEST_COEF, is_hopeless
from detectorcal._errors import FileFormatError, InputError, warn
from detectorcal._execution import (
    as_frames,
    count_batches,
    mean_frame,
    some_frames,
    sum_frames,
    temporal_noise,
)
from detectorcal._flat import tell_flat, warn_of_bright_images, without_saturated
from detectorcal._look import look_at
from detectorcal._policies import Policies, warn_of_dark_flat
from detectorcal._streaming import Threads, single_threaded_blas
from detectorcal._typing import Array, Float64, Path, Shape, Stack
from detectorcal.correction import Correction
from detectorcal.kernels.accumulation import Accumulation
from detectorcal.kernels.causes import find_causes
from detectorcal.kernels.correction import Inverse, scale_map
from detectorcal.kernels.curve import Curved, level_span
from detectorcal.kernels.line import Croton, Photon
from detectorcal.kernels.model import SMALLEST_SPAN, Curve, ResponseModel, StraightLine, Sums, add_sums
from detectorcal.kernels.piecewise import fill_within, gaussian_within
from detectorcal.kernels.regions import Regions, user_mask
from detectorcal.kernels.smoothing import Smoothing
from detectorcal.kernels.uncertainty import Uncertainty, divisor_variance, noise_let_through

__all__ = ["DEFECTS", "METHODS", "DetectorCalibrator"]

METHODS: dict[str, ResponseModel] = {"croton": Croton(), "photon": Photon(), "curved": Curved()}

FRAMES_FOR_GAIN, PIXELS_FOR_GAIN = 16, 256
"""Frames, spread over a sweep, and side of the middle of the detector, in which the system gain is looked
for where a weight needs it beforehand."""

DARKS_FOR_NOISE = 16
"""Darks, spread over a stack, in which the read noise of straight lines is looked for, in the same middle."""

GAIN_STEPS, GAIN_TOLERANCE = 10, 0.01
"""Times that this gain is improved at most, for it is what the weights made with it give back; and the
relative change that is none."""

MOST_FAILED = (
    " With so many, look whether sweep and dark were mixed up, whether there was a beam, and at `cutoff` and "
    "`saturation`."
)

WORTH_TELLING = 0.01
"""Share of otherwise good pixels that read what was taken for the saturation, from where on that is told."""

UNSOLVED = HOPELESS & ~DEFECTS["user"]
SOLVED_BUT = DEFECTS["noisy"] | DEFECTS["nonlinear"] | DEFECTS["saturated"]
"""Causes that the user does not know yet: without and with a coefficient."""

SCORE_SIGMA = 20.0
"""Pixels over which :meth:`DetectorCalibrator.score` smooths, whatever the estimator's own sigma: held
against itself, R^2 is the same for every sigma and chooses nothing."""

THIS = "this calibration"

_WHAT_SUMS_DEPEND_ON = (
    "method", "sigma", "mode", "cval", "truncate", "cutoff", "saturation", "reject", "mask", "regions",
)  # fmt: skip


class DetectorCalibrator(Watchable, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""Learn how each pixel of a detector responds, and correct images with it.

    A *sweep* is a stack of frames of an empty beam at different intensities. Each pixel's measured
    values (frame minus dark) are compared with the expected ones, the same frames smoothed over the
    detector: what the pixel would have read if it were like its neighbours. The fitted coefficient
    multiplies what the pixel reads from then on [1]_.

    Parameters
    ----------
    sigma : float, default=50.0
        Standard deviation in pixels of the Gaussian that makes the expected values. Wide enough to
        average the pixels' differences, narrow enough to follow the beam.
    method : {"croton", "photon", "curved"}, default="croton"
        "croton": least squares of expected on measured, through the origin, as in the paper. "photon":
        the same line with weights for photon noise; no bias at few counts (the paper's estimator reads
        1.2 % low at 100 electrons a frame). "curved": a line that may bend, as far as the sweep shows that
        pixels do, and that knows its standard error at every level; flats refine it. See Notes.
    mode : str, default="nearest"
        How the Gaussian continues a frame beyond its edge; see :func:`scipy.ndimage.gaussian_filter`.
    cval : float, default=0.0
        Value beyond the edge for ``mode="constant"``, DN above dark.
    truncate : float, default=4.0
        Standard deviations at which the Gaussian ends.
    cutoff : float, default=0.0
        Frames take part at the pixels where the expected value is above this, DN above dark.
    saturation : float or None, default=None
        Frames take part at the pixels where the raw value is below this, DN. None takes for it the largest
        value that integers of the sweep's dtype hold, or the largest reading, if that is one less than a
        power of two (4095, 16383) and many pixels pile up at it. A frame more than half of which is
        saturated or not finite takes no part.
    reject : float or None, default=None
        Pixels further than so many robust standard deviations from the median of the 25 pixels around
        them (cosmic rays, gamma spots, zingers) take no part in that frame's fit; in correction they are
        replaced by that median. About 6 is usual.
    system_gain : float or None, default=None
        K, DN per electron, if it is known; None estimates it from the sweep.
    mask : array of shape detector_shape, bool, or None, default=None
        True (or 1) where a pixel is not to be believed, whatever it reads: it takes no part, is filled from
        its neighbours before smoothing, keeps coefficient 1 and is 64 in ``defects_``. A second fit leaves
        out what a first one found by ``mask=cal.defects_ != 0``.
    read_noise : float or None, default=None
        Standard deviation of a reading without light, DN, for the weights of ``method="curved"`` and for
        standard deviations of images. None takes it from ``dark`` if that is a stack, and neglects it
        otherwise.
    regions : array of shape detector_shape, integer, or None, default=None
        A label image: the pixels of each label above 0 (a module, a tile) are smoothed within themselves, as
        if they were a detector of their own, and nothing leaks over a step from one to the next. 0 is a gap
        in which there is nothing: its pixels take no part and are 64 in ``defects_``. See
        ``docs/how-to/modules.md``.
    detector_shape : tuple of int or None, default=None
        ``(height, width)`` lets rows of ``height * width`` pixels be used as frames.
    batch_size : int, str or None, default=None
        Frames read at a time, or bytes of them, as "64 MB", rounded up to a multiple of 8 and, if that is
        near, to whole chunks of a file; None takes about 32 MB. The result does not depend on it.
    n_jobs : int or None, default=None
        Threads, as joblib counts them. The result does not depend on it.
    device : {"cpu", "cuda"} or None, default=None
        Where batches of host arrays are worked on. "cuda" is CuPy's current device and needs the extra
        ``gpu``; arrays that are on a device already (CuPy, PyTorch) stay there whatever this says. It
        belongs to the machine and is not saved.

    Attributes
    ----------
    coef_ : array of shape detector_shape, float64
        Expected over measured, dimensionless; 1 where the pixel was not solved.
    coef_std_ : array of shape detector_shape, float64
        Standard error of ``coef_`` from photon noise; NaN after one frame and where not solved.
    dark_ : array of shape detector_shape, float64, or None
        Dark of the last fit, DN; None after a fit with a dark for each frame.
    defects_ : array of shape detector_shape, uint8
        Sum of bits: 1 dead (does not follow the light and reads little, or a coefficient above 10), 2 hot
        (reads much, or a coefficient below 1/10), 4 noisy (scatters from frame to frame far more than its
        neighbours), 8 nonlinear (its gain changes with the level as its neighbours' do not), 16 saturated
        (in more than half of the frames), 32 unsolved (no frame in which the pixel takes part), 64 user
        (``mask``, or a gap of ``regions``). Dead, hot, unsolved and the user's have coefficient 1; the
        others keep theirs. See ``docs/how-to/defects.md``.
    kept_out_ : array of shape detector_shape, uint8
        Not 0 where a pixel is filled from its neighbours before smoothing, as a look at up to 16 frames of
        the first call told: 1, 2, 32, 64 as above; 8 where it is unlike its neighbours, in response,
        scatter or dark, but is solved like any other.
    saturation_ : float or None
        Readings from here on take no part, DN: ``saturation``, or what was found; None if there is no such
        level.
    system_gain_ : float
        K, DN per electron, as given or as estimated from the residuals; NaN after one frame, and of curves
        after two.
    read_noise_ : float
        Standard deviation of a reading without light, DN: as given or as a stack of darks tells; 0 where it
        is not known. The weights of ``method="curved"`` count with it.
    n_darks_ : int
        Frames that ``dark_`` is the mean of; 0 without, or where it was a number.
    reference_level_ : float
        What the sweep's expected values are like, DN above dark; of ``method="curved"`` the level at which
        ``coef_`` holds.
    expected_prnu_ : float
        Fixed pattern that will be left after correction, %: the standard errors, root mean square over the
        pixels, at the reference level. NaN after one frame.
    curvature_ : array of shape detector_shape, float64
        Only of ``method="curved"``, like all below: change of a pixel's gain with the level, 1/DN, beyond
        what all pixels share, which no smoothing can see.
    covariance_ : array of shape (3, *detector_shape), float64
        How well they are known: variance of the gain (1 / ``coef_``), covariance of gain and curvature,
        variance of the curvature; in powers of 1/DN.
    prior_std_ : float
        How much curvatures differ from pixel to pixel, 1/DN, as the pixels themselves tell; 0 where
        the sweep shows no curvature, and all responses are straight lines.
    read_noise_level_ : float
        Level at which photon noise equals it, DN: frames far below tell little.
    n_frames_seen_ : int
        Number of frames in the sums.
    sums_ : dict of str to array of shape detector_shape, float64
        The sums over frames that the fit consists of.
    detector_shape_ : tuple of int
        ``(height, width)`` or ``(width,)``.
    n_features_in_ : int
        Number of pixels.
    frozen_ : str
        Only of a calibrator that does not go on learning: "cropped" or "binned", as :meth:`crop` and
        :meth:`bin` made it.
    provenance_ : dict
        When, with which versions, by which method and from how many frames the fit was made.

    See Also
    --------
    detectorcal.fit_response, detectorcal.correct_image : The functions of detectorcal 0.0.1.

    Notes
    -----
    With ``method="curved"`` a pixel at the expected level `s` reads :math:`s (a + b (s - s_0))`, `a` being
    1 / ``coef_``, `b` ``curvature_`` and :math:`s_0` ``reference_level_``. `b` is drawn towards 0 as far as
    the sweep leaves it open, so that it costs nothing where pixels are straight. A flat handed to
    :meth:`transform` is one more frame of evidence, and shows which pixels have changed since the sweep. See
    ``docs/curved.md``.

    Pixels must respond independently of each other (light that spreads to neighbours breaks this), and
    the spectrum must be that of the sweep. The pattern that is left is about one over the square root of
    the electrons a pixel collected in the whole sweep.

    References
    ----------
    .. [1] L. C. P. Croton, G. Ruben, K. S. Morgan, D. M. Paganin, M. J. Kitchen, "Ring artifact
       suppression in X-ray computed tomography using a simple, pixel-wise response correction", Opt.
       Express 27(10) 14231 (2019), https://doi.org/10.1364/OE.27.014231

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import DetectorCalibrator
    >>> rng = np.random.default_rng(0)
    >>> gain = 1 + 0.02 * rng.standard_normal((64, 64))
    >>> levels = np.linspace(1000, 4000, 12)[:, None, None]
    >>> dark = np.full((64, 64), 100.0)
    >>> sweep = rng.poisson(levels * gain) + dark
    >>> cal = DetectorCalibrator(sigma=10).fit(sweep, dark)
    >>> corrected = cal.transform(sweep[-1])
    >>> bool(corrected.std() / corrected.mean() < 0.9 * sweep[-1].std() / sweep[-1].mean())
    True
    """

    coef_: Float64
    coef_std_: Float64
    dark_: Float64 | None
    defects_: np.ndarray
    kept_out_: np.ndarray
    saturation_: float | None
    system_gain_: float
    reference_level_: float
    curvature_: Float64
    covariance_: Float64
    prior_std_: float
    read_noise_: float
    read_noise_level_: float
    n_darks_: int
    n_frames_seen_: int
    sums_: Sums
    detector_shape_: Shape
    n_features_in_: int
    provenance_: dict[str, Any]

    def __init__(
        self,
        sigma: float = 50.0,
        *,
        method: str = "croton",
        mode: str = "nearest",
        cval: float = 0.0,
        truncate: float = 4.0,
        cutoff: float = 0.0,
        saturation: float | None = None,
        reject: float | None = None,
        mask: Any = None,
        system_gain: float | None = None,
        read_noise: float | None = None,
        regions: Any = None,
        detector_shape: Shape | None = None,
        batch_size: int | str | None = None,
        n_jobs: int | None = None,
        device: str | None = None,
    ) -> None:
        self.sigma = sigma
        self.method = method
        self.mode = mode
        self.cval = cval
        self.truncate = truncate
        self.cutoff = cutoff
        self.saturation = saturation
        self.reject = reject
        self.mask = mask
        self.system_gain = system_gain
        self.read_noise = read_noise
        self.regions = regions
        self.detector_shape = detector_shape
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device

    # ------------------------------------------------------------------ learning

    @watched
    def fit(self, X: Stack, y: Any = None, *, dark: Any = None, dark_per_frame: bool = False) -> Self:
        """Learn the response from a sweep.

        Parameters
        ----------
        X : array or stack of shape (n_frames, height, width) or (n_frames, width)
            The sweep, raw frames in DN, of any real dtype: an array, or anything read by slicing (h5py,
            zarr, memory map, Dask, :func:`detectorcal.io.open_frames`), which is read batch by batch.
            NaN, inf and saturated pixels are left out and never spread.
        y : array, optional
            On an area detector an array of exactly the detector's shape is the dark, so that
            ``fit(sweep, dark)`` works. Labels with one entry per frame are ignored.
        dark : number, array of shape detector_shape, or stack of darks, optional
            Dark, DN. A stack is averaged. Without one, the frames are taken as free of it.
        dark_per_frame : bool, default=False
            Whether ``dark`` holds one dark for each frame of ``X``, subtracted frame by frame, as a
            ladder of exposure times needs it.

        Returns
        -------
        DetectorCalibrator
            The fitted estimator.

        Raises
        ------
        InputError
            If a parameter or argument is unfit; it is a :class:`ValueError`.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        task = FitTask(self, X, y)
        self._learn(X, y, dark, dark_per_frame, task)
        task.end()
        return self

    def partial_fit(self, X: Stack, y: Any = None, *, dark: Any = None, dark_per_frame: bool = False) -> Self:
        """Go on learning from more frames.

        Parameters
        ----------
        X, y, dark, dark_per_frame
            As in :meth:`fit`. Where no dark is given, the one of an earlier call is used.

        Returns
        -------
        DetectorCalibrator
            The fitted estimator: the same as one :meth:`fit` on all frames together, but that
            ``kept_out_`` and ``saturation_`` are those of the first call, as are the read noise of
            ``method="curved"`` and the gain to weigh it by.
        """
        return self._learn(X, y, dark, dark_per_frame)

    def _learn(self, X: Stack, y: Any, dark: Any, dark_per_frame: bool, task: FitTask | None = None) -> Self:
        """Add frames to the sums, if there are any yet, and solve."""
        smoothing = self._checked_parameters()
        first = not self.__sklearn_is_fitted__()
        if not first:
            refuse_frozen(self)
            self._check_sums_are_of_this_kind()
        X, shape = validation.as_sweep(self, X, reset=first)
        validation.check_regions_fit(smoothing.regions, shape)
        dark = validation.dark_of(y, dark, X.shape[0], shape)
        darks, mean_dark = self._checked_dark(dark, X, shape, dark_per_frame)
        frames = as_frames(X, shape)
        if first:
            self.kept_out_, self.saturation_ = look_at(
                frames, darks, user_mask(self._checked_mask(shape), smoothing.regions), smoothing.regions,
                self.saturation, self.cutoff, n_jobs=self.n_jobs,
            )  # fmt: skip
        if first and METHODS[self.method].curved:
            self.read_noise_ = self._read_noise_of(None if dark_per_frame else dark, shape)
            self.read_noise_level_ = self._level_of_read_noise(frames, darks, dark_per_frame, smoothing)
        self._learn_of_darks(None if dark_per_frame else dark, shape, first)
        if task is not None:
            task.begin(count_batches(frames, self.batch_size))
        sums = self._sum(frames, darks, self._accumulation(self._model(), self.kept_out_, smoothing), task)
        self.sums_ = sums if first else add_sums([self.sums_, sums])
        self.n_frames_seen_ = X.shape[0] + (0 if first else self.n_frames_seen_)
        self.detector_shape_ = shape
        self.dark_ = mean_dark
        return self._solve()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    def _learn_of_darks(self, dark: Any, shape: Shape, first: bool) -> None:
        """Take from the darks what standard deviations of images need; nothing new where there are none."""
        if dark is None and not first:
            return
        self.n_darks_, told = (0, None) if dark is None else self._told_by_darks(dark, shape, "`X`")
        if METHODS[self.method].curved:  # their weights hold the read noise, from all pixels
            return
        if self.read_noise is not None:
            self.read_noise_ = float(self.read_noise)
        elif told is not None or first:
            self.read_noise_ = float(told or 0.0)

    def _model(self) -> ResponseModel:
        """Give the response model of the method."""
        model = METHODS[self.method]
        return replace(model, read_noise_level=self.read_noise_level_) if isinstance(model, Curved) else model

    def _accumulation(self, model: ResponseModel, kept_out: np.ndarray, smoothing: Smoothing) -> Accumulation:
        """Tell what is summed; ``kept_out`` may be a part of ``kept_out_``."""
        known = (kept_out != 0, is_hopeless(kept_out)) if kept_out.any() else (None, None)
        return Accumulation(model, smoothing, self.cutoff, self.saturation_, self.reject, *known)

    def _sum(
        self, frames: Stack, darks: Any, accumulation: Accumulation, task: FitTask | None = None
    ) -> Sums:
        sums = sum_frames(
            frames,
            darks if len(darks.shape) == len(frames.shape) else np.nan_to_num(darks, posinf=0, neginf=0),
            accumulation,
            validation.float_dtype(frames.dtype),
            n_jobs=self.n_jobs,
            batch_size=self.batch_size,
            device=self.device,
            each=None if task is None else task.each,
        )
        if accumulation.hopeless is not None:
            for values in sums.values():
                values[accumulation.hopeless] = 0.0
        return sums

    def _read_noise_of(self, dark: Any, shape: Shape) -> float:
        """Give the read noise: as the user says, or as a stack of darks shows, or none."""
        if self.read_noise is not None or dark is None:
            return float(self.read_noise or 0.0)
        darks = self._map_stack("dark", dark, shape, "`X`")
        return temporal_noise(darks, batch_size=self.batch_size) if darks.shape[0] > 1 else 0.0

    def _level_of_read_noise(
        self, frames: Stack, darks: Any, dark_per_frame: bool, smoothing: Smoothing
    ) -> float:
        """Give the level at which photon noise equals the read noise; 0 where that is neglected."""
        if not self.read_noise_:
            return 0.0
        gain = self.system_gain
        if gain is None:
            few = some_frames(frames, FRAMES_FOR_GAIN)
            few_darks = some_frames(darks, FRAMES_FOR_GAIN) if dark_per_frame else darks
            gain = self._first_gain(few, few_darks, smoothing)
        if gain > 0:
            return float(self.read_noise_**2 / gain)
        warn(
            f"{min(FRAMES_FOR_GAIN, frames.shape[0])} frames do not tell the system gain, so the read noise "
            f"of {self.read_noise_:.3g} DN is neglected. Give `system_gain`, or begin with more frames."
        )
        return 0.0

    def _first_gain(self, frames: Stack, darks: Any, smoothing: Smoothing) -> float:
        """Estimate K before the fit, from some of the frames."""
        middle = tuple(_middle(n) for n in frames.shape[1:])
        kept_out = self.kept_out_[middle]
        if smoothing.regions is not None:
            smoothing = replace(smoothing, regions=smoothing.regions.part(*middle))
        labels = None if smoothing.regions is None else smoothing.regions.labels
        frames, darks = frames[:, *middle], darks[..., *middle]

        def gain_of(model: ResponseModel) -> float:
            sums = self._sum(frames, darks, self._accumulation(model, kept_out, smoothing))
            return model.solve(sums, None, labels).system_gain

        # all noise is taken for that of photons first, and what each K leaves to read noise is taken off
        gain = gain_of(Photon())
        for _ in range(GAIN_STEPS if gain > 0 else 0):
            before, found = gain, gain_of(Curved(self.read_noise_**2 / gain))
            if not found > 0:  # of two frames a curve tells nothing
                break
            gain = found
            if abs(gain / before - 1) < GAIN_TOLERANCE:
                break
        return gain

    def _checked_parameters(self) -> Smoothing:
        """Check the parameters; what some of them make, the Gaussian, is all that is returned."""
        validation.check_choice("method", self.method, tuple(METHODS))
        validation.check_number("cutoff", self.cutoff, at_least=0)
        validation.check_number("saturation", self.saturation, optional=True)
        validation.check_number("reject", self.reject, above=0, optional=True)
        validation.check_number("system_gain", self.system_gain, above=0, optional=True)
        validation.check_number("read_noise", self.read_noise, at_least=0, optional=True)
        validation.check_detector_shape(self.detector_shape)
        validation.check_execution(self.n_jobs, self.batch_size, self.device)
        gaussian_ = validation.check_smoothing(self.sigma, self.mode, self.cval, self.truncate)
        regions = validation.check_regions(self.regions)
        if hasattr(self, "detector_shape_"):
            validation.check_regions_fit(regions, self.detector_shape_)
        return Smoothing(*gaussian_, twice=METHODS[self.method].twice, regions=regions)

    def _what_sums_depend_on(self) -> dict[str, Any]:
        """Give the parameters that sums are made with, as they are now: an array may change."""
        params = {name: getattr(self, name) for name in _WHAT_SUMS_DEPEND_ON}
        arrays = {
            "mask": self._checked_mask(self.detector_shape_),
            "regions": validation.check_regions(self.regions),
        }
        return params | arrays

    def _checked_mask(self, shape: Shape) -> np.ndarray | None:
        return validation.as_mask("mask", self.mask, shape, flattened=self.detector_shape is not None)

    def _check_sums_are_of_this_kind(self) -> None:
        """Refuse to go on, to merge or to save with parameters that the sums were not made with."""
        now = self._what_sums_depend_on()
        for name, value in self._summed_with.items():
            if not _same(now[name], value):
                raise InputError(
                    f"`{name}` was {_told(value)} when this calibrator was fitted and is {_told(now[name])} "
                    "now: the sums of both do not go together. Call `fit`, or set it back."
                )
        weighed_by = self.read_noise_ if METHODS[self.method].curved else None
        if weighed_by is not None and self.read_noise not in (None, weighed_by):
            raise InputError(
                f"`read_noise` is {self.read_noise!r}, but the sums of this calibrator were weighed by "
                f"{weighed_by!r} DN, and no others go with them. Call `fit`, or set it back."
            )

    def _checked_dark(
        self, dark: Any, X: Stack, shape: Shape, dark_per_frame: bool
    ) -> tuple[Any, Float64 | None]:
        """Give what is subtracted in the fit, and what ``dark_`` will be."""
        if dark_per_frame:
            flattened = self.detector_shape is not None
            darks = validation.as_darks_per_frame(dark, X.shape[0], shape, flattened=flattened)
            return as_frames(darks, shape), None
        if dark is not None:
            mean_dark = self._mean_map("dark", dark, shape, "`X`")
        elif self.__sklearn_is_fitted__():
            mean_dark = self._dark_for_images(None)
        else:
            mean_dark = np.zeros(shape)
        return mean_dark, mean_dark

    def _map_stack(self, name: str, value: Any, shape: Shape, whose: str) -> Stack:
        flattened = self.detector_shape is not None
        stack: Stack = validation.as_map_stack(name, value, shape, flattened=flattened, whose=whose)
        return stack

    def _mean_map(self, name: str, value: Any, shape: Shape, whose: str) -> Float64:
        return self._mean_of(name, self._map_stack(name, value, shape, whose), shape)

    def _mean_of(self, name: str, stack: Stack, shape: Shape) -> Float64:
        mean = mean_frame(stack, batch_size=self.batch_size).reshape(shape)
        validation.check_mostly_finite(name, mean, stack.shape[0])
        return mean

    def _solve(self) -> Self:
        """Turn the sums into coefficients; what cannot be solved becomes 1 and a flag."""
        regions = validation.check_regions(self.regions)
        labels = None if regions is None else regions.labels
        with np.errstate(all="ignore"):
            response = self._model().solve(self.sums_, self.system_gain, labels)
            # where there is no noise, its estimate may round to less than nothing
            relative_std = np.maximum(response.relative_variance, 0, out=response.relative_variance)
            np.sqrt(relative_std, out=relative_std)
            self.coef_std_ = np.multiply(response.coef, relative_std, out=relative_std)
        self.coef_ = response.coef
        self.defects_ = _find_defects(self.coef_, self.sums_["frames"], self.kept_out_)
        bad = is_hopeless(self.defects_)
        with Threads(self.n_jobs) as threads:
            causes = find_causes(self.sums_, self._model().evidence(self.sums_), threads.map)
        causes[bad] = 0
        self.defects_ |= causes
        self.coef_[bad], self.coef_std_[bad] = 1.0, np.nan
        self.system_gain_ = max(response.system_gain, 0.0)  # NaN stays NaN
        self.reference_level_ = response.level
        if (curve := response.curve) is not None:
            self.curvature_ = np.where(bad, 0.0, curve.curvature)
            parts = (curve.gain_variance, curve.covariance, curve.curvature_variance)
            self.covariance_ = np.where(bad, np.nan, np.stack(parts))
            self.prior_std_ = curve.prior_std
        self.n_features_in_ = self.coef_.size
        self.provenance_ = _record.provenance(self.method, self.n_frames_seen_)
        self._summed_with = self._what_sums_depend_on()
        self._warn_of_weak_points()
        return self

    @property
    def expected_prnu_(self) -> float:  # noqa: D102 - an attribute, described above
        check_is_fitted(self)
        return 100 * self._pattern_left(None)

    def _pattern_left(self, level: float | None) -> float:
        """Give the root mean square of the relative standard errors; NaN if none is known."""
        std = self.predict_std(level)
        known = std[np.isfinite(std)]
        return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")

    @property
    def _is_curved(self) -> bool:
        """Whether the fit gave curves: `method` may have been set anew since."""
        return hasattr(self, "covariance_")

    def _response(self) -> Curve | StraightLine:
        """Give what is known of the pixels' response."""
        if self._is_curved:
            gain = 1 / self.coef_
            a, ab, b = self.covariance_
            return Curve(gain, self.curvature_, a, ab, b, self.reference_level_, self.prior_std_)
        return StraightLine(self.coef_, self.coef_std_, self.reference_level_)

    def _warn_of_weak_points(self) -> None:
        if METHODS[self.method].curved and level_span(self.sums_) < SMALLEST_SPAN:
            warn(
                f"the intensities of the sweep differ by {100 * level_span(self.sums_):.2g} % at a pixel, "
                "which cannot tell whether its response curves: it is taken for a straight line. Record "
                "frames at several intensities, down to those behind the sample."
            )
        if Smoothing(self.sigma, self.mode, self.cval, self.truncate).radius == 0:
            warn(
                f"`sigma`, {self.sigma:g} pixels, is so narrow that each pixel is compared with itself: "
                "every coefficient is 1. It should span many pixels, such as 50."
            )
        if self.n_frames_seen_ == 1:
            warn(
                "the sweep has one frame: the fit has no standard errors, and its pattern includes the "
                "whole noise of that frame. Record a sweep of many frames; a file of lines, as a line "
                "detector records them, is read by `line=True`."
            )
        self._warn_of_saturation()
        self._warn_of_lost_frames()
        told = _counted(self.defects_)
        if told:
            warn(told + (MOST_FAILED if np.mean(self.defects_ & UNSOLVED != 0) > 0.5 else ""))

    def _warn_of_saturation(self) -> None:
        """Tell which readings are taken for saturated where that was found, and matters."""
        if self.saturation is None and self.saturation_ is not None:
            n_pixels = np.count_nonzero((self.sums_["saturated"] > 0) & (self.defects_ == 0))
            if n_pixels > WORTH_TELLING * self.n_features_in_:
                warn(
                    f"readings from {self.saturation_:.6g} DN on, where they pile up or the dtype ends, are "
                    f"taken for saturated and left out, at {n_pixels} pixels. Give `saturation` to say "
                    "otherwise."
                )

    def _warn_of_lost_frames(self) -> None:
        """Count the frames that take no part at any pixel, unless `cutoff` may have been meant to do that."""
        frames = self.sums_["frames"]
        lost = self.n_frames_seen_ - int(frames.max())
        by_the_whole = np.mean(frames == frames.max()) > WORTH_TELLING  # and not each pixel its own few
        if lost and by_the_whole and self.cutoff == 0:
            warn(
                f"{lost} of {self.n_frames_seen_} frames take no part: more than half of each is saturated "
                "or not finite, or it is no brighter than `dark`: is that really their dark?"
            )

    @classmethod
    def merge(cls, *calibrators: DetectorCalibrator) -> Self:
        """Make one calibrator from several fitted alike on different frames.

        Parameters
        ----------
        *calibrators : DetectorCalibrator
            Fitted, on the same detector, with the same parameters.

        Returns
        -------
        DetectorCalibrator
            As if fitted on all their frames, each part with what a look at its own frames kept out of the
            smoothing; ``kept_out_`` joins them. Its dark is the mean of theirs, weighted by their frames, or
            None if one of them was fitted with a dark per frame.

        Raises
        ------
        InputError
            If parameters or detectors differ, or were changed after the fit.
        """
        if not calibrators:
            raise InputError("`merge` needs at least one calibrator.")
        for given in calibrators:
            if not isinstance(given, DetectorCalibrator):
                raise InputError(f"`merge` takes calibrators one by one, but a {type(given).__name__} came.")
            check_is_fitted(given)
            refuse_frozen(given)
            given._check_sums_are_of_this_kind()
        first = calibrators[0]
        for other in calibrators:
            a, b = (c._summed_with | {"detector_shape_": c.detector_shape_} for c in (first, other))
            for name in a:
                if not _same(a[name], b[name]):
                    raise InputError(
                        f"calibrators to be merged must agree in `{name}`, but one has {_told(a[name])} and "
                        f"another {_told(b[name])}."
                    )
            _check_same_weights(first, other)
        merged = cls(**first.get_params())
        merged.sums_ = add_sums([c.sums_ for c in calibrators])
        merged.n_frames_seen_ = sum(c.n_frames_seen_ for c in calibrators)
        merged.detector_shape_ = first.detector_shape_
        merged.kept_out_ = np.bitwise_or.reduce([c.kept_out_ for c in calibrators])
        found = [c.saturation_ for c in calibrators if c.saturation_ is not None]
        merged.saturation_ = min(found, default=None)
        merged.dark_ = _mean_dark(calibrators)
        alike = all(_same(c.dark_, first.dark_) for c in calibrators)
        merged.n_darks_ = first.n_darks_ if alike else sum(c.n_darks_ for c in calibrators)
        merged.read_noise_ = _mean_noise({c.read_noise_ for c in calibrators if c.read_noise_})
        if METHODS[first.method].curved:
            merged.read_noise_level_ = first.read_noise_level_
        return merged._solve()

    # ------------------------------------------------------------------ other readouts of the detector

    def crop(self, *pixels: slice) -> Self:
        """Give the calibration of a part of the detector, for a camera that reads out no more.

        Parameters
        ----------
        *pixels : slice
            One per detector axis: rows and columns, or the columns of a line detector; without step.

        Returns
        -------
        DetectorCalibrator
            With the coefficients, the dark and all else of that part. If the rows begin at a multiple of 16
            (and there are more than 4 columns) it goes on learning: :meth:`partial_fit` and :meth:`merge`
            take frames of that part. Else it corrects only, for what tells the noise is summed in every
            16th row.

        Raises
        ------
        InputError
            If that is no part of the detector.

        Examples
        --------
        >>> import numpy as np
        >>> from detectorcal import DetectorCalibrator
        >>> levels = np.linspace(1000, 4000, 12)[:, None, None]
        >>> cal = DetectorCalibrator(sigma=5).fit(levels * np.ones((12, 64, 64)))
        >>> cal.crop(slice(16, 48), slice(0, 20)).detector_shape_
        (32, 20)
        """
        check_is_fitted(self)
        part: Self = cropped(self, *pixels)
        return part

    def bin(self, factors: int | Sequence[int], *, readout: str = "mean") -> Self:
        r"""Give the calibration of binned pixels, for a camera that reads out blocks of them as one.

        Parameters
        ----------
        factors : int or sequence of int
            Pixels per block along every axis, or along each. Pixels at the end that fill no block are
            dropped.
        readout : {"mean", "sum"}, default="mean"
            Whether a binned pixel gives the mean of its pixels or their sum.

        Returns
        -------
        DetectorCalibrator
            A block of :math:`N` pixels in the same light has the mean of their gains, so its coefficient is
            :math:`1 / \mathrm{mean}(1 / c)`; its dark is the mean or sum, and a defect of any of them is its
            own. ``sigma`` becomes as many times fewer pixels. It corrects, but does not go on learning: the
            sums of least squares are not linear in what pixels measure. The read noise is that of blocks
            added after they were read.

        Raises
        ------
        InputError
            If a factor is not a whole number of pixels of that axis.

        Examples
        --------
        >>> import numpy as np
        >>> from detectorcal import DetectorCalibrator
        >>> levels = np.linspace(1000, 4000, 12)[:, None, None]
        >>> cal = DetectorCalibrator(sigma=8).fit(levels * np.ones((12, 64, 64)), dark=100)
        >>> two = cal.bin(2, readout="sum")
        >>> two.detector_shape_, two.sigma, float(two.dark_[0, 0])
        ((32, 32), 4.0, 400.0)
        """
        check_is_fitted(self)
        coarse: Self = binned(self, factors, readout)
        return coarse

    # ------------------------------------------------------------------ what to expect

    def predict_std(self, level: Float64 | float | None = None) -> Float64:
        """Give the relative standard error of corrected values: what this calibration does not know.

        Parameters
        ----------
        level : array of shape detector_shape, or float, optional
            Corrected value, DN above dark; by default ``reference_level_``. Only ``method="curved"`` knows
            a difference.

        Returns
        -------
        array of shape detector_shape, float64
            Dimensionless; NaN where nothing is known. An image's own noise is not in it.
        """
        check_is_fitted(self)
        at = self.reference_level_ if level is None else validation.as_level("level", level, self.coef_.shape)
        std: Float64 = np.sqrt(self._response().relative_variance(at))
        return std

    def expected_rings(self, n_projections: int, level: float | None = None) -> float:
        r"""Tell how strong the rings of a scan will stand above its noise.

        An error of relative variance `v` adds the same to -log(T) in all projections, whose mean has the
        variance :math:`K (s + \rho) / (s^2 N)` from noise: the square root of their ratio.

        Parameters
        ----------
        n_projections : int
            Number of projections, N.
        level : float, optional
            What a pixel reads behind the sample, DN above dark; by default ``reference_level_``.

        Returns
        -------
        float
            Dimensionless: below 1 rings drown in noise; NaN after one frame.
        """
        validation.check_integer("n_projections", n_projections, at_least=1)
        validation.check_number("level", level, above=0, optional=True)
        pattern = self._pattern_left(level)
        s = self.reference_level_ if level is None else level
        if np.isnan(pattern):
            return pattern
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = getattr(self, "read_noise_level_", self.read_noise_**2 / np.float64(self.system_gain_))
            noise = self.system_gain_ * (s + rho) / s**2 / n_projections
        return float(pattern / np.sqrt(noise)) if noise > 0 else float("nan")

    # ------------------------------------------------------------------ correcting

    def correction(
        self,
        flat: Any = None,
        sigma: float | None = None,
        dark: Any = None,
        *,
        n_flats: int | None = None,
        flat_has_dark: bool = True,
        defects: str = "keep",
        invalid: str | float = "nan",
        log: bool = False,
    ) -> Correction:
        """Prepare the correction once, for images that come one by one.

        Parameters
        ----------
        flat, sigma, dark, n_flats, flat_has_dark, defects, invalid, log
            As in :meth:`transform`.

        Returns
        -------
        Correction
            A transformer that holds the maps of the correction and needs nothing else. Its ``defect_map`` is
            that of this calibrator and, with ``method="curved"``, the pixels that have changed since.
        """
        check_is_fitted(self)
        smoothing = self._checked_parameters()
        validation.check_number("sigma", sigma, at_least=0, optional=True)
        self._check_flats(flat, sigma, n_flats)
        policies = Policies(defects, invalid, log)
        policies.check(has_flat=flat is not None)
        dark_map = self._dark_for_images(dark)
        known = self._noise_known(dark)
        response, defect_map, divisor = self._response(), self.defects_, None
        if flat is not None:
            flat_map, count = self._mean_flat(flat, n_flats, dark_map, flat_has_dark)
            with single_threaded_blas():
                told = tell_flat(self, flat_map, response, smoothing, n_std=sigma, n_flats=count)
            response, defect_map, divisor, followed = told
            warn_of_dark_flat(divisor, policies)
            share = noise_let_through(smoothing, len(self.detector_shape_))
            variance = divisor_variance(divisor, followed, response, known, n_flats=count, let_through=share)
            known = known._replace(divisor_variance=variance, followed=followed)
        inverse = Inverse.of(response)
        return Correction(
            scale_map(inverse.coef, divisor),
            dark_map,
            curvature=inverse.curvature,
            response=response,
            beam=divisor,
            defect_map=defect_map,
            **policies._asdict(),
            uncertainty=known,
            reject=self.reject,
            flattened=self.detector_shape is not None,
            n_jobs=self.n_jobs,
            batch_size=self.batch_size,
            device=self.device,
        )

    def _mean_flat(
        self, flat: Any, n_flats: int | None, dark: Float64, has_dark: bool
    ) -> tuple[Float64, int]:
        """Give the mean flat above dark, and how many frames it is the mean of: its weight."""
        flats = self._map_stack("flat", flat, self.detector_shape_, THIS)
        mean = self._mean_of("flat", flats, self.detector_shape_)
        if validation.is_number(flat):  # a number was not measured: it tells nothing of the pixels
            return mean - dark if has_dark else mean, 0
        if has_dark:
            [mean] = without_saturated(self, [as_frames(flats, self.detector_shape_)], [mean])
        return mean - dark if has_dark else mean, flats.shape[0] if n_flats is None else n_flats

    def _noise_known(self, dark: Any) -> Uncertainty:
        """Give what is known of the noise of camera and dark, which may come with the images."""
        n_darks, read_noise = self.n_darks_, self.read_noise_
        if dark is not None:
            n_darks, told = self._told_by_darks(dark, self.detector_shape_, THIS)
            read_noise = read_noise if told is None else told
        known = (read_noise or None) if self.read_noise is None else float(self.read_noise)
        return Uncertainty(self.system_gain_, known, n_darks)

    def _told_by_darks(self, dark: Any, shape: Shape, whose: str) -> tuple[int, float | None]:
        """Give the number of darks, 0 of a dark that is no frame, and the read noise that they tell."""
        if validation.is_number(dark):
            return 0, None
        darks = self._map_stack("dark", dark, shape, whose)
        if darks.shape[0] == 1:
            return 1, None
        few = as_frames(some_frames(darks, DARKS_FOR_NOISE), shape)
        middle = tuple(_middle(n) for n in shape)
        return darks.shape[0], temporal_noise(few[:, *middle], batch_size=None)

    def _check_flats(self, flat: Any, sigma: float | None, n_flats: int | None) -> None:
        validation.check_integer("n_flats", n_flats, at_least=1)
        if flat is None and (sigma is not None or n_flats is not None):
            name, what = (
                ("n_flats", "the number of frames")
                if sigma is None
                else ("sigma", "the threshold of the flat's residuals")
            )
            raise InputError(f"`{name}` is {what} and needs a `flat`.")
        if sigma is not None and validation.is_number(flat):
            raise InputError(
                "`sigma` follows what a measured flat tells of the pixels, but `flat` is a number: leave out "
                "`sigma`, or give frames."
            )

    def _dark_for_images(self, dark: Any) -> Float64:
        if dark is not None:
            return self._mean_map("dark", dark, self.detector_shape_, THIS)
        if self.dark_ is None:
            raise InputError(
                "this calibration was fitted with one dark per frame and has none of its own: give the dark "
                "of the images, `dark=`."
            )
        return self.dark_

    def transform(
        self,
        X: Array,
        flat: Any = None,
        sigma: float | None = None,
        *,
        dark: Any = None,
        n_flats: int | None = None,
        flat_has_dark: bool = True,
        defects: str = "keep",
        invalid: str | float = "nan",
        log: bool = False,
        return_std: bool = False,
        out: Any = None,
    ) -> Any:
        """Correct images: dark, response and, where a flat is given, the beam.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Raw images, DN. A single image of a line detector is (1, width). A Dask array gives a lazy
            Dask array; a stack on disk is read a batch at a time.
        flat : number, array of shape detector_shape, or stack of flats, optional
            Frame with beam and without sample, DN; a stack is averaged. The result is divided by it,
            smoothed, and is a transmission.
        sigma : float, optional
            Residuals of the flat beyond so many of their standard deviations are taken for dust or a
            changed pixel, and corrected too; 3 is usual. None takes the coefficients as they are.
        dark : number, array of shape detector_shape, or stack of darks, optional
            Replaces the fitted dark, for images and flat, DN.
        n_flats : int, optional
            The number of frames that a single ``flat`` is the mean of: its weight in standard deviations and,
            with ``method="curved"``, as evidence. A stack tells its own; else a flat counts as one frame.
        flat_has_dark : bool, default=True
            Whether the dark is still in ``flat``.
        defects : {"keep", "nan", "interpolate"}, default="keep"
            What becomes of the pixels that are not to be believed, all of ``defects_`` but those that have
            changed and were followed: they keep what they give, become NaN, or are replaced from the good
            pixels around them, by a plane through the nearest of each row and column. A pixel that is NaN in
            an image alone stays NaN.
        invalid : "nan", "clip" or float, default="nan"
            What stands in for values that mean nothing, which are counted in a warning for each cause: a
            transmission where the flat is not positive; with ``log`` one that is not above 0; a reading
            beyond the top of a pixel's curve. A number above 0 stands in for all of them. "clip" gives the
            nearest value that means something: 1 where the flat is not positive; the transmission of half a
            DN, than which whole numbers tell nothing less, where it is below that and ``log`` is set; the
            value at the curve's top. Without ``log``, values below 0 are noise and stay.
        log : bool, default=False
            Whether to give -log of the transmission, what a reconstruction takes; needs a ``flat``.
        return_std : bool, default=False
            Whether to give the standard deviation of each corrected value too, from photon and read noise,
            dark, flat and calibration; see the docs on uncertainty.
        out : array or writer of the shape of ``X``, optional
            Where the corrected images go: anything that takes ``out[slice] = frames``.

        Returns
        -------
        array of the shape of ``X``
            DN above dark without a flat, transmission with one, or -log of it.
            float32 for float32 and integers up to 16 bit, float64 for everything wider.
        std : array of the shape of ``X``
            Only with ``return_std``: in the units and of the dtype of the result, in memory also where
            ``out`` is given. NaN where a pixel was not calibrated, or where something stands in for the
            value.

        Raises
        ------
        InputError
            If shapes or dtypes do not fit.
        """
        check_is_fitted(self)
        X = self._checked_images(X)
        correction = self.correction(
            flat, sigma, dark, n_flats=n_flats, flat_has_dark=flat_has_dark, defects=defects, invalid=invalid,
            log=log,
        )  # fmt: skip
        if flat is None and self._is_curved and is_numpy(X) and not is_lazy(X):
            frames, inverse = (
                as_frames(X, self.detector_shape_),
                Inverse(correction.scale, correction.curvature),
            )
            warn_of_bright_images(self, frames, correction.dark, inverse)
        return correction.transform(X, return_std=return_std, out=out)

    def _checked_images(self, X: Array) -> Any:
        return validation.as_images(self, X, flattened=self.detector_shape is not None)

    def fit_transform(
        self, X: Stack, y: Any = None, *, dark: Any = None, flat: Any = None, sigma: float | None = None
    ) -> Any:
        """Learn from a sweep and correct the same frames.

        Parameters
        ----------
        X, y, dark
            As in :meth:`fit`.
        flat, sigma
            As in :meth:`transform`.

        Returns
        -------
        array of the shape of ``X``
            The corrected sweep.
        """
        return self.fit(X, y, dark=dark).transform(X, flat, sigma)

    def inverse_transform(
        self,
        X: Array,
        flat: Any = None,
        sigma: float | None = None,
        *,
        dark: Any = None,
        n_flats: int | None = None,
        flat_has_dark: bool = True,
        log: bool = False,
    ) -> Any:
        """Give what the detector would have recorded.

        What was interpolated, became NaN or was replaced by ``invalid`` is not brought back.

        Parameters
        ----------
        X : array or stack of shape detector_shape or (..., *detector_shape)
            Corrected images.
        flat, sigma, dark, n_flats, flat_has_dark, log
            As they were given to :meth:`transform`.

        Returns
        -------
        array of the shape of ``X``, floating
            Raw images, DN.
        """
        check_is_fitted(self)
        X = self._checked_images(X)
        correction = self.correction(flat, sigma, dark, n_flats=n_flats, flat_has_dark=flat_has_dark, log=log)
        return correction.inverse_transform(X)

    def score(self, X: Stack, y: Any = None, *, dark: Any = None) -> float:
        """Tell how much of the fixed pattern of other frames this calibration removes.

        Parameters
        ----------
        X : array or stack of shape (n_frames, *detector_shape)
            Frames that were not fitted, DN. Their mean is judged.
        y : ignored
        dark : number, array of shape detector_shape, or stack of darks, optional
            Replaces the fitted dark, DN.

        Returns
        -------
        float
            One minus the variance of the pattern after correction over that before; 1 is perfect, 0
            nothing gained. The pattern is the mean frame over its Gaussian of 20 pixels, within regions:
            what is smoother than that is taken for the beam, and a correction that bends it scores lower.
        """
        check_is_fitted(self)
        X = self._checked_images(X)
        frames = as_frames(X, self.detector_shape_)
        measured = mean_frame(frames, batch_size=self.batch_size) - self._dark_for_images(dark)
        corrected = Inverse.of(self._response()).apply(measured)
        regions = validation.check_regions(self.regions)
        before, after = _pattern_variances(measured, corrected, self.defects_ == 0, regions)
        if before == 0:
            return 1.0 if after == 0 else 0.0
        return 1 - after / before

    # ------------------------------------------------------------------ keeping

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the calibration to a file.

        Parameters
        ----------
        path : path
            ``.h5``, ``.hdf5``, ``.zarr``, ``.tif`` or ``.tiff``. Its layout is open: see the docs.
        overwrite : bool, default=False
            Whether an existing calibration may be replaced.

        Raises
        ------
        OutputExistsError
            If the file exists and ``overwrite`` is False.
        InputError
            If the suffix is another one, or parameters were changed after the fit.
        """
        from detectorcal._persistence import write_calibration

        check_is_fitted(self)
        self._check_sums_are_of_this_kind()
        validation.check_path("path", path)
        header, arrays = _record.pack(self)
        write_calibration(path, header, arrays, overwrite=overwrite, descriptions=_record.DESCRIPTIONS)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a calibration that :meth:`save` wrote; runs no code from the file.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        DetectorCalibrator
            Equal to the one saved; :meth:`partial_fit` goes on where it stopped.

        Raises
        ------
        MissingFileError, FileFormatError, DamagedFileError, NewerProtocolError
            If there is no such file, it is something else, broken, or from a later version.
        """
        from detectorcal._persistence import read_calibration

        header, arrays = read_calibration(validation.check_path("path", path))
        try:
            return cls._from_record(header, arrays)
        except InputError as error:
            raise FileFormatError(
                f"`{path}` is a calibration file that cannot be believed: {error}"
            ) from error

    @classmethod
    def _from_record(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        params, attributes = _record.unpack(header, arrays, parameters=cls._get_param_names(), models=METHODS)
        calibrator = cls(**params)
        calibrator._checked_parameters()
        for name, value in attributes.items():
            setattr(calibrator, name, value)
        calibrator._summed_with = calibrator._what_sums_depend_on()
        return calibrator

    def __sklearn_tags__(self) -> Any:
        return validation.tags_of_frames(super().__sklearn_tags__())

    # what IPython asks, and what sphinx-gallery asks: the estimator's diagram, and below it what was fitted

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += _notebook.summary(self, DEFECTS)
        return bundle

    @property
    def _repr_html_(self) -> Any:
        diagram = super()._repr_html_  # raises AttributeError where scikit-learn is set to show text
        return lambda: diagram() + _notebook.summary(self, DEFECTS)


def _same(a: Any, b: Any) -> bool:
    """Whether two parameters are equal, arrays too."""
    return np.array_equal(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else bool(a == b)


def _told(value: Any) -> str:
    """Say a parameter in a message."""
    if isinstance(value, np.ndarray):
        return f"an array that marks {np.count_nonzero(value)} pixels"
    return repr(value)


def _middle(n: int) -> slice:
    """Give the middle of an axis."""
    start = max(0, (n - PIXELS_FOR_GAIN) // 2)
    return slice(start, start + PIXELS_FOR_GAIN)


def _find_defects(coef: Float64, n_frames: Float64, kept_out: np.ndarray) -> np.ndarray:
    """Flag the pixels that have no coefficient; a cause that was known before the fit comes first."""
    defects = np.zeros(coef.shape, np.uint8)
    strange = ~((coef >= 1 / LARGEST_COEF) & (coef <= LARGEST_COEF))
    strange_coef = coef[strange]
    causes = {
        "unsolved": n_frames[strange] == 0,
        "hot": (strange_coef > 0) & (strange_coef < 1 / LARGEST_COEF),
    }
    defects[strange] = np.select(list(causes.values()), [DEFECTS[c] for c in causes], DEFECTS["dead"])
    return np.where(is_hopeless(kept_out), kept_out & np.uint8(HOPELESS), defects)


def _counted(defects: np.ndarray) -> str:
    """Say how many pixels are not to be believed and why; nothing of those the user masked."""
    found = np.where(defects & DEFECTS["user"], 0, defects)
    parts = []
    for bits, what in (
        (UNSOLVED, "could not be calibrated ({}); they keep coefficient 1 and are marked in `defects_`."),
        (SOLVED_BUT, "are calibrated, but not to be relied on ({}); they are marked in `defects_`."),
    ):
        marked = np.count_nonzero(found & bits)
        counts = {cause: np.count_nonzero(found & bit) for cause, bit in DEFECTS.items() if bit & bits}
        causes = ", ".join(f"{count} {cause}" for cause, count in counts.items() if count)
        if marked:
            parts.append(f"{marked} of {defects.size} pixels {what.format(causes)}")
    return " ".join(parts)


def _check_same_weights(a: DetectorCalibrator, b: DetectorCalibrator) -> None:
    """Refuse to merge sums whose weights differ: each took the noise from its own darks and first frames."""
    levels = [getattr(c, "read_noise_level_", 0.0) for c in (a, b)]
    if levels[0] != levels[1]:
        raise InputError(
            f"calibrators to be merged must agree in `read_noise_level_`, but one has {levels[0]:g} DN and "
            f"another {levels[1]:g} DN. Fit all with `system_gain={a.system_gain_:.6g}, "
            f"read_noise={a.read_noise_:.6g}`."
        )


def _mean_noise(known: set[float]) -> float:
    """Give the root mean square of what is known, exactly where all know the same; 0 where nothing is."""
    return max(known, default=0.0) if len(known) < 2 else float(np.sqrt(np.mean(np.square([*known]))))


def _mean_dark(calibrators: Sequence[DetectorCalibrator]) -> Float64 | None:
    """Mean of the darks, weighted by frames; exactly the dark where all have the same."""
    darks = [c.dark_ for c in calibrators if c.dark_ is not None]
    if len(darks) < len(calibrators):
        return None
    if all(np.array_equal(dark, darks[0]) for dark in darks):
        return darks[0].copy()
    mean: Float64 = np.average(darks, axis=0, weights=[c.n_frames_seen_ for c in calibrators])
    return mean


def _pattern_variances(
    measured: Float64, corrected: Float64, good: np.ndarray, regions: Regions | None
) -> tuple[float, float]:
    """Variance over the good pixels of a frame over its Gaussian, before and after correction."""
    believed = good & np.isfinite(measured) & np.isfinite(corrected)
    whole = fill_within(measured[None], ~believed[None], regions)
    with single_threaded_blas():
        smooth = gaussian_within(whole, Smoothing(SCORE_SIGMA, "nearest", 0.0, 4.0, regions=regions))[0]
    lit = believed & (smooth > 0)
    if not lit.any():
        return 0.0, 0.0
    return float(np.var(measured[lit] / smooth[lit])), float(np.var(corrected[lit] / smooth[lit]))
