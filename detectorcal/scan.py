"""A scan as it is: flats here and there in it, a beam that drifts, other exposure times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from detectorcal import _validation as validation
from detectorcal._average import AVERAGES, InSameLight, average, weight_of
from detectorcal._clone import clone_with
from detectorcal._errors import InputError, warn
from detectorcal._execution import as_frames
from detectorcal._flat import without_saturated
from detectorcal._groups import DRIFTS, Group, between, checked_exposure, groups_of, readings
from detectorcal._typing import Array, Float64, Shape, Stack
from detectorcal.correction import Correction
from detectorcal.kernels.correction import Drift

__all__ = ["ScanCorrection"]

NO_RESIDUALS = 1e9
"""Standard deviations beyond which no residual lies: with this threshold a flat tells the beam alone."""


class ScanCorrection(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""Correct the projections of one scan, each with the beam of its own moment.

    A beam drifts, and a scan has flats before and after it or scattered through it. Each group of flats
    gives a beam, smoothed as ever, and each projection is divided by what they say of its moment. Exposure
    times and a beam monitor tell how much light each frame had.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted. :func:`sklearn.base.clone` keeps the fit.
    flats : list of arrays, or array or stack of shape (n_flats, *detector_shape)
        A list has one entry for each group of flats, a frame or a stack, which is averaged. Of a stack, such
        as ``scan.flats``, ``flat_positions`` tells the groups: frames at one position are one. What is given
        for each group is in the order in which they first come.
    flat_positions : sequence of float or None, default=None
        Where in the scan each entry of ``flats`` was taken, counted in projections: -0.5 is before the first,
        ``n - 0.5`` after the last of `n`. None if all flats are one group.
    drift : {"linear", "nearest"}, default="linear"
        How a projection's beam is found between two groups: on a straight line between them, in projections,
        or as that of the nearer. Before the first and after the last group it is theirs.
    average : {"mean", "median"}, default="mean"
        How the frames of a group become one; see :func:`detectorcal.average`.
    n_flats : int, sequence of int or None, default=None
        With ``method="curved"``, the number of frames that each single frame of ``flats`` is the mean of
        already: one number, or one for each group.
    sigma : float or None, default=None
        As in :meth:`DetectorCalibrator.transform`; residuals are those of each group.
    dark : number, array of shape detector_shape, stack of darks, or None, default=None
        Replaces the calibrator's dark, DN.
    flat_has_dark : bool, default=True
        Whether the dark is still in ``flats``.
    defects, invalid, log
        As in :meth:`DetectorCalibrator.transform`. With ``invalid="clip"`` the least transmission is that of
        half a DN in the light of all flats.
    exposure : tuple of float or None, default=None
        Exposure times of a projection, a flat and, if ``bias`` is given, the dark: ``(image, flat)`` or
        ``(image, flat, dark)``, s.
    bias : number, array of shape detector_shape, stack, or None, default=None
        What the detector reads after no time in the dark, DN. With it the dark is taken to be
        ``bias + rate * time``; see Notes.
    monitor : sequence of float or None, default=None
        What a beam monitor counted during each projection, in proportion to the light of the whole frame. A
        rate, such as the current of a ring, must be multiplied by the exposure time if these differ.
    flat_monitor : float, sequence of float or None, default=None
        The same during the flats: one number for all, one for each group, or one for each frame of them.

    Attributes
    ----------
    correction_ : Correction
        The prepared correction of these projections.
    brightness_ : array of shape (n_groups,), float64
        Median of the beam of each group over that of all flats; by monitor counts, if those were given.
    n_frames_ : int
        Number of projections.
    detector_shape_ : tuple of int
        ``(height, width)`` or ``(width,)``.
    n_features_in_ : int
        Number of pixels.

    See Also
    --------
    DetectorCalibrator.correction : What one group of flats, without more, gives to the last bit.

    Notes
    -----
    With `m` a projection minus dark, `B` the smoothed flats before and after it, and `w` its place between
    them from 0 to 1, its transmission is

    .. math:: T_i = \frac{c\, m_i}{(1 - w_i) B_0 + w_i B_1} \cdot \frac{t_{flat}}{t_{image}}

    and with a monitor, whose readings are `M`, instead

    .. math:: T_i = \frac{c\, m_i}{(1 - w_i) B_0 / M_0 + w_i B_1 / M_1} \cdot \frac{1}{M_i}

    Exposure times then only tell how much dark there is. The dark is subtracted as it is, with a warning
    where the times differ; with a bias it is :math:`bias + (dark - bias)\, t / t_{dark}`, for projections and
    for flats. Coefficients are ratios, so the exposure times of the sweep do not matter.

    With ``method="curved"`` all flats together are the evidence that refines the response, which is the same
    for the whole scan. Memory holds one map for each group of flats.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import DetectorCalibrator, ScanCorrection
    >>> levels = np.linspace(1000, 4000, 12)[:, None, None]
    >>> cal = DetectorCalibrator(sigma=5).fit(levels * np.ones((12, 8, 8)))
    >>> beam = np.linspace(2000, 1000, 5)[:, None, None] * np.ones((5, 8, 8))  # it halves during the scan
    >>> scan = ScanCorrection(cal, [beam[0], beam[-1]], [0, 4]).fit(0.5 * beam)
    >>> scan.transform(0.5 * beam)[:, 0, 0].round(6)
    array([0.5, 0.5, 0.5, 0.5, 0.5])
    """

    correction_: Correction
    brightness_: Float64
    n_frames_: int
    detector_shape_: Shape
    n_features_in_: int

    def __init__(
        self,
        calibrator: Any,
        flats: Any,
        flat_positions: Sequence[float] | None = None,
        *,
        drift: str = "linear",
        average: str = "mean",
        n_flats: int | Sequence[int] | None = None,
        sigma: float | None = None,
        dark: Any = None,
        flat_has_dark: bool = True,
        defects: str = "keep",
        invalid: str | float = "nan",
        log: bool = False,
        exposure: tuple[float, ...] | None = None,
        bias: Any = None,
        monitor: Sequence[float] | None = None,
        flat_monitor: float | Sequence[float] | None = None,
    ) -> None:
        self.calibrator = calibrator
        self.flats = flats
        self.flat_positions = flat_positions
        self.drift = drift
        self.average = average
        self.n_flats = n_flats
        self.sigma = sigma
        self.dark = dark
        self.flat_has_dark = flat_has_dark
        self.defects = defects
        self.invalid = invalid
        self.log = log
        self.exposure = exposure
        self.bias = bias
        self.monitor = monitor
        self.flat_monitor = flat_monitor

    def fit(self, X: Stack, y: Any = None) -> Self:
        """Prepare the correction of a scan.

        Parameters
        ----------
        X : array or stack of shape (n_projections, *detector_shape)
            Raw projections, in the order they were taken. Their number is all that is taken from them:
            nothing is read.
        y : ignored

        Returns
        -------
        ScanCorrection
            The fitted transformer.

        Raises
        ------
        InputError
            If a parameter is unfit, or does not fit the scan or the detector.
        """
        check_is_fitted(self.calibrator)
        validation.check_choice("drift", self.drift, DRIFTS)
        validation.check_choice("average", self.average, AVERAGES)
        flattened = self.calibrator.detector_shape is not None
        X = validation.as_images(self.calibrator, X, flattened=flattened)
        self.detector_shape_ = self.calibrator.detector_shape_
        self.n_features_in_ = math.prod(self.detector_shape_)
        self.n_frames_ = math.prod(X.shape) // self.n_features_in_
        groups = groups_of(self.flats, self.flat_positions, self.detector_shape_, flattened)
        times = checked_exposure(self.exposure)
        flat_light, factor = self._light(groups, times)
        dark, flat_dark = self._darks(times)
        flats = [
            self._average(group.frames, light, dark, flat_dark)
            for group, light in zip(groups, flat_light, strict=True)
        ]
        if self.flat_has_dark:
            raw = [as_frames(group.frames, self.detector_shape_) for group in groups]
            flats = without_saturated(self.calibrator, raw, flats)
        if flat_dark is not None:
            flats = [flat - flat_dark for flat in flats]
        weights = self._weights(groups)
        pooled, beams = self._corrections(flats, weights, dark, flat_dark is None)
        brightness = np.array([light.mean() for light in flat_light])
        beams = [beam / light for beam, light in zip(beams, brightness / brightness.mean(), strict=True)]
        self.brightness_ = np.array([_median_of_known(beam) for beam in beams])
        self.correction_ = pooled.set_params(drift=self._drift(groups, beams, factor, weights))
        return self

    def transform(self, X: Array, *, return_std: bool = False, out: Any = None) -> Any:
        """Correct the projections.

        Parameters
        ----------
        X : array or stack of shape (n_projections, *detector_shape)
            Raw projections, DN: all of the scan, as for :meth:`fit`; of some of them see :meth:`part`. A Dask
            array gives a lazy Dask array; a stack on disk is read a batch at a time.
        return_std : bool, default=False
            Whether to give the standard deviation of each corrected value too; see
            :meth:`DetectorCalibrator.transform`. A monitor's noise is not in it.
        out : array or writer of the shape of ``X``, optional
            Where the result goes: anything that takes ``out[slice] = frames``.

        Returns
        -------
        array of the shape of ``X``
            Transmission, or -log of it; float32 for float32 and integers up to 16 bit, float64 for everything
            wider; ``out`` if given.
        std : array of the shape of ``X``
            Only with ``return_std``.

        Raises
        ------
        InputError
            If shapes or dtypes do not fit.
        """
        check_is_fitted(self)
        return self.correction_.transform(X, return_std=return_std, out=out)

    def fit_transform(self, X: Stack, y: Any = None, *, out: Any = None) -> Any:
        """Prepare the correction of a scan, and correct it.

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

    def part(self, run: slice | np.ndarray) -> Correction:
        """Give the correction of some projections.

        Parameters
        ----------
        run : slice, array of int or array of bool
            Which.

        Returns
        -------
        Correction
            For those projections alone.
        """
        check_is_fitted(self)
        return self.correction_.part(run)

    def inverse_transform(self, X: Array) -> Any:
        """Give what the detector would have recorded.

        Parameters
        ----------
        X : array or stack of shape (n_projections, *detector_shape)
            Corrected projections.

        Returns
        -------
        array of the shape of ``X``, floating
            Raw projections, DN.
        """
        check_is_fitted(self)
        return self.correction_.inverse_transform(X)

    def predict_std(self, values: Float64 | float | None = None) -> Float64:
        """Give the relative standard error of corrected values; see :meth:`Correction.predict_std`.

        Parameters
        ----------
        values : array of shape detector_shape, or float, optional
            Transmissions. By default those of the sweep.

        Returns
        -------
        array of shape detector_shape, float64
            Dimensionless, in the light that the flats had on average.
        """
        check_is_fitted(self)
        return self.correction_.predict_std(values)

    def _weights(self, groups: list[Group]) -> list[int]:
        """Give the number of frames that tell each group's flat."""
        told: Any = self.n_flats
        made_of = told if np.ndim(told) else [told] * len(groups)
        if len(made_of) != len(groups):
            raise InputError(
                f"`n_flats` has {len(made_of)} numbers, but there are {len(groups)} groups of flats."
            )
        counts = [validation.check_integer("n_flats", n, at_least=1) or 1 for n in made_of]
        return [counts[group.number] * weight_of(len(group.numbers), self.average) for group in groups]

    def _average(self, frames: Stack, light: Float64, dark: Any, flat_dark: Float64 | None) -> Float64:
        """Average the flats of a group; the median is of flats in the same light."""
        if self.average == "median" and np.any(light != light[0]):
            below = self._below_flats(dark) if flat_dark is None else flat_dark
            above = average(InSameLight(frames, below, light), self.average)
            return above.reshape(self.detector_shape_) + below
        return average(frames, self.average).reshape(self.detector_shape_)

    def _below_flats(self, dark: Any) -> Float64:
        """Give what flats hold besides light, DN."""
        if not self.flat_has_dark:
            return np.zeros(self.detector_shape_)
        below: Float64 = self.calibrator._dark_for_images(dark)
        return below

    def _light(self, groups: list[Group], times: tuple[float, ...] | None) -> tuple[list[Float64], Float64]:
        """Give the light of the flats of each group, in any unit, and what each result is multiplied by."""
        if (self.monitor is None) != (self.flat_monitor is None):
            here, missing = ("monitor", "flat_monitor") if self.flat_monitor is None else (
                "flat_monitor", "monitor")  # fmt: skip
            raise InputError(f"`{here}` is of no use without `{missing}`: their ratio is what counts.")
        if self.monitor is None or self.flat_monitor is None:
            factor = 1.0 if times is None else times[1] / times[0]
            return [np.ones(1) for _ in groups], np.full(self.n_frames_, factor)
        counted = readings("monitor", self.monitor, {self.n_frames_: "projections"})
        of_flats = self.flat_monitor if np.ndim(self.flat_monitor) else [self.flat_monitor] * len(groups)
        n_flats = sum(len(group.numbers) for group in groups)
        lengths = {n_flats: "flats", len(groups): "groups of flats"}
        read = readings("flat_monitor", of_flats, lengths)
        by_group = len(read) == len(groups)
        light = [np.atleast_1d(read[g.number if by_group else g.numbers]) for g in groups]
        return light, np.mean([of_group.mean() for of_group in light]) / counted

    def _darks(self, times: tuple[float, ...] | None) -> tuple[Any, Float64 | None]:
        """Give the dark of projections; and that of flats, if it is another one."""
        dark = self.calibrator.dark_ if self.dark is None else self.dark
        if self.bias is None:
            if times is not None and len(set(times)) > 1 and not _is_nothing(dark):
                warn(
                    "projections, flats and dark differ in exposure time, and the dark is subtracted from "
                    "all as it is, which is right where no dark current gathers. Else give `bias`, a frame "
                    "of no exposure, and the exposure time of the dark."
                )
            return self.dark, None
        if times is None or len(times) < 3:
            raise InputError(
                "`bias` needs the exposure times of projection, flat and dark, "
                f"`exposure=(image, flat, dark)`, but got {self.exposure!r}."
            )
        if dark is None:
            raise InputError("`bias` needs a dark whose exposure time is known: give `dark`.")
        image, flat, t_dark = times
        bias, frame = (self._frame(name, value) for name, value in (("bias", self.bias), ("dark", dark)))
        rate = (frame - bias) / t_dark
        return bias + rate * image, (bias + rate * flat if self.flat_has_dark else np.zeros_like(bias))

    def _frame(self, name: str, value: Any) -> Float64:
        stack = validation.as_map_stack(
            name, value, self.detector_shape_, flattened=self.calibrator.detector_shape is not None,
            whose="this calibration",
        )  # fmt: skip
        return average(stack).reshape(self.detector_shape_)

    def _corrections(
        self, flats: list[Float64], weights: list[int], dark: Any, with_dark: bool
    ) -> tuple[Correction, list[Float64]]:
        """Give the correction by all flats together, and what each group's beam is of theirs."""
        how = {
            "dark": dark, "flat_has_dark": self.flat_has_dark and with_dark, "defects": self.defects,
            "invalid": self.invalid, "log": self.log,
        }  # fmt: skip
        mean = flats[0] if len(flats) == 1 else np.average(flats, axis=0, weights=weights)
        pooled: Correction = self.calibrator.correction(mean, self.sigma, n_flats=sum(weights), **how)
        if self.bias is not None:  # the dark is made of frames that tell the noise, and it does not
            noise = self.calibrator._noise_known(self.dark)
            assert pooled.uncertainty is not None
            known = pooled.uncertainty._replace(n_darks=noise.n_darks, read_noise=noise.read_noise)
            pooled.set_params(uncertainty=known)
        if len(flats) == 1:
            return pooled, [np.ones(self.detector_shape_)]
        # what has changed since the sweep, as all flats show, is kept out of every beam
        told = copy(self.calibrator)
        told.defects_ = pooled.defect_map
        n_std = NO_RESIDUALS if self.sigma is None else self.sigma
        how["dark"] = pooled.dark  # its mean, and not all of it again for each group
        beams = [told.correction(flat, n_std, **how).beam for flat in flats]
        relative = [_relative(beam, pooled.beam) for beam in beams]
        if self.invalid != "nan":  # what stands in for nothing does so in all frames
            unlit = np.logical_or.reduce([np.isnan(beam) for beam in relative])
            pooled.set_params(scale=np.where(unlit, np.nan, pooled.scale))
            relative = [np.where(unlit, 1.0, beam) for beam in relative]
        return pooled, relative

    def _drift(
        self, groups: list[Group], beams: list[Float64], factor: Float64, weights: list[int]
    ) -> Drift | None:
        if len(groups) == 1:
            alike = np.zeros(self.n_frames_, np.intp)
            return None if np.all(factor == 1) else Drift(None, alike, alike, factor * 0, factor, factor**0)
        positions, n = np.array([group.position for group in groups]), np.array(weights)
        before, after, share = between(positions, self.n_frames_, self.drift)
        noise = n.sum() * ((1 - share) ** 2 / n[before] + share**2 / n[after])
        return Drift(np.stack(beams), before, after, share, factor, noise)

    def __sklearn_clone__(self) -> Self:
        copied: Self = clone_with(self, "calibrator", "flats", "dark", "bias")
        return copied

    def __sklearn_tags__(self) -> Any:
        return validation.tags_of_frames(super().__sklearn_tags__())


def _relative(beam: Float64 | None, of_all: Float64 | None) -> Float64:
    """Give what one group's beam is of that of all; NaN where either is not positive."""
    assert beam is not None
    assert of_all is not None
    usable = (beam > 0) & (of_all > 0)
    return np.where(usable, beam / np.where(usable, of_all, 1.0), np.nan)


def _median_of_known(beam: Float64) -> float:
    known = beam[np.isfinite(beam)]
    return float(np.median(known)) if known.size else float("nan")


def _is_nothing(dark: Any) -> bool:
    """Whether a dark is 0 everywhere, as far as that is known without reading it."""
    return dark is None or (isinstance(dark, (int, float, np.ndarray)) and not np.any(dark))
