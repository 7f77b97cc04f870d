"""What is known of a calibration: from itself, from its sweep, and from a scan it corrected."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from detectorcal import _validation as validation
from detectorcal._camera import parameters_with_maps
from detectorcal._defects import is_hopeless
from detectorcal._errors import DetectorcalWarning
from detectorcal._execution import as_frames
from detectorcal._streaming import evenly
from detectorcal._typing import Array, Float64, Shape, Stack
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.kernels.masking import robust_std
from detectorcal.plot._pixels import accumulation_of
from detectorcal.plot._response import relative_pattern

__all__ = ["PATTERN_SIGMA", "Evidence", "Sweep", "gather", "some_of"]

PATTERN_SIGMA = 20.0
"""Pixels: what is wider is taken for the beam, which smoothing bent, and not for the pixels' own pattern;
the measure of :meth:`DetectorCalibrator.score`."""


MOST_PIXELS = 2**20
"""Of larger detectors so many show what is usual, and to a window of so many in the middle two halves of the
sweep are fitted: a report takes seconds, whatever the detector."""

FEWEST_FRAMES, FITTED_PIXELS = 24, 1e8
"""Frames that two halves of a sweep consist of: all, but of large detectors fewer, down to the first."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that was given along with its calibration."""

    frames: Stack
    dark: Any
    """Of the detector's shape or of the frames'."""
    repeat: Float64
    """Relative error of each coefficient as two halves of the sweep show it, about 0; NaN if not known."""
    window: tuple[slice, ...]
    """Where it was looked for: the whole of a detector that is not large, the middle of others."""


@dataclass(frozen=True)
class Evidence:
    """Figures of a calibration; NaN where nothing is known. Ratios are fractions, not %."""

    calibrator: DetectorCalibrator
    pattern: Float64
    """The pixels' pattern, detector-shaped: gain over that of the neighbours, minus 1; 0 at defects."""
    pattern_std: float
    """Spread of the pixels' own gain, noise taken off (robust)."""
    error: float
    """Median relative standard error: the pattern that will be left."""
    error_95: float
    """95 % of the pixels are known better than this."""
    measured_error: float
    """Spread of the left-over pattern that two halves of the sweep show (robust)."""
    electrons: float
    """Collected by a pixel in the whole sweep (median)."""
    level: float
    """Mean expected value of a frame, DN above dark (median pixel)."""
    sweep: Sweep | None = None

    @property
    def n_bad(self) -> int:
        """Number of pixels that are marked: not calibrated, or not to be relied on."""
        return int(np.count_nonzero(self.calibrator.defects_))

    @property
    def n_lost(self) -> int:
        """Number of those that are not calibrated, and keep coefficient 1."""
        return int(np.count_nonzero(is_hopeless(self.calibrator.defects_)))

    @property
    def known_error(self) -> float:
        """The larger of the predicted and the measured error; NaN if neither is known."""
        return float(np.fmax(self.error, self.measured_error))


def gather(
    calibrator: DetectorCalibrator, sweep: Any = None, dark: Any = None, dark_per_frame: bool = False
) -> Evidence:
    """Find out all that the calibration and its sweep tell.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    sweep : array or stack of shape (n_frames, *detector_shape), optional
        The frames of the fit, DN.
    dark : number, array or stack, optional
        Their dark, DN; by default that of the calibration.
    dark_per_frame : bool, default=False
        Whether ``dark`` has one for each frame.

    Returns
    -------
    Evidence
    """
    given = None if sweep is None else _as_sweep(calibrator, sweep, dark, dark_per_frame)
    good = calibrator.defects_ == 0
    pattern = np.zeros(calibrator.coef_.shape)
    if good.any():
        pattern = relative_pattern(np.where(good, 1 / calibrator.coef_, np.nan), PATTERN_SIGMA)
    some = some_of(good)
    relative_error = some(calibrator.coef_std_) / some(calibrator.coef_)
    error = _median(relative_error)
    light, n_frames = some(calibrator.sums_["expected"]), np.maximum(some(calibrator.sums_["frames"]), 1)
    gain = calibrator.system_gain_
    return Evidence(
        calibrator=calibrator,
        pattern=pattern,
        pattern_std=_without_noise(_spread(some(pattern)), error),
        error=error,
        error_95=_percentile(relative_error, 95),
        measured_error=math.nan if given is None else _spread(given.repeat[given.window][good[given.window]]),
        electrons=_median(light) / gain if gain > 0 else math.nan,
        level=_median(light / n_frames),
        sweep=given,
    )


def _as_sweep(calibrator: DetectorCalibrator, sweep: Any, dark: Any, dark_per_frame: bool) -> Sweep:
    """Check the sweep, and judge how well two halves of it agree."""
    shape = calibrator.detector_shape_
    stack: Stack = validation.as_real("sweep", sweep)
    accumulation_of(calibrator, tuple(stack.shape[1:]))  # raises if it is another detector's
    if dark_per_frame:
        darks = as_frames(validation.as_darks_per_frame(dark, stack.shape[0], shape, flattened=False), shape)
    else:
        darks = calibrator._dark_for_images(dark)
    window = _middle_of(shape)
    repeat = np.full(shape, np.nan)
    if stack.shape[0] > 1:
        repeat[window] = _repeat(calibrator, stack, darks, dark_per_frame, window)
    return Sweep(stack, darks, repeat, window)


def some_of(chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Give what takes the chosen pixels of a map, 1-D: all of them, or of large maps as many as suffice.

    Those are as far apart as has no divisor in common with a row, lest some columns are never seen.
    """
    step = -(-chosen.size // MOST_PIXELS)
    while math.gcd(step, chosen.shape[-1]) > 1:
        step += 1
    taken = chosen.ravel()[::step]
    return lambda values: values.ravel()[::step][taken]


def _middle_of(shape: Shape) -> tuple[slice, ...]:
    """Give the part of a detector, whole or in the middle, that holds no more than `MOST_PIXELS`."""
    share = min(1.0, (MOST_PIXELS / math.prod(shape)) ** (1 / len(shape)))
    lengths = [math.ceil(n * share) for n in shape]
    return tuple(
        slice((n - length) // 2, (n + length) // 2) for n, length in zip(shape, lengths, strict=True)
    )


def _repeat(
    calibrator: DetectorCalibrator, stack: Stack, darks: Any, per_frame: bool, window: tuple[slice, ...]
) -> Float64:
    r"""Tell the error of the coefficients from the difference of those of two halves of the sweep.

    With the light :math:`S_1, S_2` of the halves the variances of their coefficients are :math:`K/S_1` and
    :math:`K/S_2`, that of the whole is :math:`K/S`: the difference times
    :math:`\sqrt{S_1 S_2 / ((S_1+S_2) S)}` has the variance of the whole. Of a long sweep of a large detector
    evenly spaced frames make up the halves, and of each a window in the middle.
    """
    n_frames = stack.shape[0]
    most = max(FEWEST_FRAMES, int(FITTED_PIXELS / calibrator.n_features_in_))
    numbers = evenly(n_frames, min(most, n_frames))
    halves, maps = [], {}
    for name, value in parameters_with_maps(calibrator).items():  # maps are cut with it
        if isinstance(value, np.ndarray) and value.shape == calibrator.detector_shape_:
            maps[name] = value[window]
    for first in (0, 1):
        half, chosen = clone(calibrator).set_params(detector_shape=None, **maps), numbers[first::2]
        dark = _Chosen(darks, chosen, window) if per_frame else darks[window]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DetectorcalWarning)  # what a half lacks the whole may have
            half.fit(_Chosen(stack, chosen, window), dark=dark, dark_per_frame=per_frame)
        halves.append(half)
    a, b = halves
    light_a, light_b = a.sums_["expected"], b.sums_["expected"]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = light_a * light_b / ((light_a + light_b) * calibrator.sums_["expected"][window])
        repeat = np.sqrt(share) * (a.coef_ - b.coef_) / calibrator.coef_[window]
    known = (a.defects_ == 0) & (b.defects_ == 0) & np.isfinite(repeat)
    return np.where(known, repeat, np.nan)


class _Chosen:
    """A window of some frames of a stack, read when they are needed."""

    def __init__(self, stack: Stack, numbers: np.ndarray, window: tuple[slice, ...]) -> None:
        self._stack = stack
        self._numbers = numbers
        self._window = window
        self.shape: Shape = (len(numbers), *(part.stop - part.start for part in window))
        self.dtype = stack.dtype

    def __getitem__(self, batch: slice) -> Array:
        frames = [np.asarray(self._stack[slice(i, i + 1)])[:, *self._window] for i in self._numbers[batch]]
        return np.concatenate(frames)


def _spread(values: Float64) -> float:
    """Robust standard deviation about the median; NaN are left out."""
    known = values[np.isfinite(values)]
    if not known.size:
        return math.nan
    return robust_std(known)


def _without_noise(spread: float, error: float) -> float:
    """Take the noise off a spread; all of it is pattern where the noise is not known."""
    return math.sqrt(max(spread**2 - (error**2 if math.isfinite(error) else 0.0), 0.0))


def _median(values: Float64) -> float:
    return _percentile(values, 50)


def _percentile(values: Float64, percent: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if known.size else math.nan
