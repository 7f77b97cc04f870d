"""What a flat tells a calibration: the beam, and where a pixel is no longer what it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detectorcal._defects import DEFECTS, LARGEST_COEF, is_hopeless
from detectorcal._errors import InputError, warn
from detectorcal._execution import any_reaches
from detectorcal._typing import Float64, Stack
from detectorcal.kernels.correction import Inverse, Rejection, replace_spots
from detectorcal.kernels.curve import Noise
from detectorcal.kernels.flat import follow_residuals, heed_flat, smoothed_flat
from detectorcal.kernels.masking import fill_masked
from detectorcal.kernels.model import ROW_STEP, Curve, StraightLine
from detectorcal.kernels.regions import Regions
from detectorcal.kernels.smoothing import Smoothing

__all__ = ["Told", "highest_level", "tell_flat", "warn_of_bright_images", "without_saturated"]

BEYOND = 0.02
"""Share by which a level may exceed the brightest of the sweep before it is warned of: drift of the beam."""

CHANCE = 6.0
"""Standard deviations of an image's noise that are not taken for brightness."""


class Told(NamedTuple):
    """What a correction takes from calibration and flat."""

    response: Curve | StraightLine
    defects: np.ndarray
    divisor: Float64
    """What a corrected image is divided by, DN: the smoothed flat, or what follows its residuals."""
    followed: np.ndarray | None
    """Where it follows them; None where it does nowhere."""


def tell_flat(
    calibrator: Any,
    flat: Float64,
    response: Curve | StraightLine,
    smoothing: Smoothing,
    *,
    n_std: float | None,
    n_flats: int,
) -> Told:
    """Find out what a flat tells.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    flat : array of shape detector_shape, float64
        Mean flat minus dark, DN.
    response : Curve or StraightLine
        What the calibrator knows of the pixels.
    smoothing : Smoothing
        Its Gaussian, and the regions this acts within.
    n_std : float or None
        Threshold of the paper's residual correction, which is then all that is done.
    n_flats : int
        Frames that ``flat`` is the mean of: its weight as evidence on a curve.

    Returns
    -------
    Told
    """
    good = calibrator.defects_ == 0
    # what must not spoil its neighbours is filled from them before smoothing
    believed = good & (calibrator.kept_out_ == 0)
    clean, beam = smoothed_flat(np.where(believed, flat, np.nan), smoothing, calibrator.reject)
    own = ~believed & ~is_hopeless(calibrator.defects_) & np.isfinite(flat)
    clean = np.where(own, flat, clean)  # it has a response of its own, which the flat is held against
    flat = np.where(good, flat, np.nan)
    divisor, defects, followed = beam, calibrator.defects_, None
    if n_std is not None:
        divisor = follow_residuals(clean, beam, Inverse.of(response), n_std)
        followed = divisor != beam
    elif isinstance(response, Curve):
        curve = response
        _warn_of_bright_flat(calibrator, beam, curve)
        told = np.where(clean == flat, flat, np.nan)  # nothing where it was filled or a spot replaced
        response, changed = _heed(calibrator, told, beam, n_flats, curve, smoothing.regions)
        if changed.any():  # they stand out of the beam too, and their neighbours must not pay for it
            steady = np.where(believed & ~changed, flat, np.nan)
            beam = divisor = smoothed_flat(steady, smoothing, calibrator.reject)[1]
            response, changed = _heed(calibrator, told, beam, n_flats, curve, smoothing.regions)
        _warn_of_changed(changed)
        defects = defects | np.uint8(DEFECTS["changed"]) * changed
        response, defects = _without_lost(response, changed, defects)
    return Told(response, defects, divisor, followed)


def _heed(
    calibrator: Any, measured: Float64, beam: Float64, n_flats: int, curve: Curve, regions: Regions | None
) -> tuple[Curve, np.ndarray]:
    """Refine the response by the flat, and find the pixels that have changed."""
    noise = Noise(calibrator.system_gain_, curve.centre, curve.prior_std)
    if n_flats == 0 or np.isnan(noise.system_gain):  # without noise nothing can be weighed
        return curve, np.zeros(beam.shape, np.bool_)
    rho = calibrator.read_noise_level_
    heeded, changed = heed_flat(beam, measured, n_flats, calibrator.sums_, curve, noise, rho, regions)
    good = calibrator.defects_ == 0
    return heeded.where(good, curve), changed & good


def _warn_of_changed(changed: np.ndarray) -> None:
    if np.any(changed):
        warn(
            f"{np.count_nonzero(changed)} of {changed.size} pixels have changed since the sweep, or are "
            "dusty, as the flat shows; there it is followed. They are 128 in the correction's `defect_map`."
        )


def _without_lost(curve: Curve, changed: np.ndarray, defects: np.ndarray) -> tuple[Curve, np.ndarray]:
    """Treat as :meth:`DetectorCalibrator.fit` does a pixel that has died or become hot since the sweep."""
    dead = changed & ~(curve.gain >= 1 / LARGEST_COEF)
    hot = changed & (curve.gain > LARGEST_COEF)
    if not (dead | hot).any():
        return curve, defects
    one = np.ones_like(curve.gain)
    nothing = np.full_like(one, np.nan)
    lost = Curve(one, 0 * one, nothing, nothing, nothing, curve.centre, curve.prior_std)
    flags = np.uint8(DEFECTS["dead"]) * dead + np.uint8(DEFECTS["hot"]) * hot
    return curve.where(~(dead | hot), lost), defects | flags


def _warn_of_bright_flat(calibrator: Any, flat: Float64, curve: Curve) -> None:
    """Count the pixels where a flat is brighter than the sweep, whose curve is there a guess."""
    if curve.prior_std == 0:  # a straight line
        return
    _warn_of_bright("the flat is", flat > (1 + BEYOND) * highest_level(calibrator), calibrator)


def warn_of_bright_images(calibrator: Any, frames: np.ndarray, dark: Float64, inverse: Inverse) -> None:
    """Count the pixels at which images without a flat are brighter than the sweep, noise apart.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted, with curves.
    frames : array of shape (n_frames, *detector_shape)
        Raw images in host memory, DN.
    dark : array of shape detector_shape
        What is subtracted from them, DN.
    inverse : Inverse
        What undoes the pixels' response.
    """
    if calibrator.prior_std_ == 0:  # straight lines
        return
    highest = (1 + BEYOND) * highest_level(calibrator)
    noise = np.sqrt(calibrator.system_gain_ * highest)
    measured = np.max(frames, axis=0) - dark
    if calibrator.reject is not None:
        measured = replace_spots(measured[None], Rejection(calibrator.reject))[0]
    brightest = inverse.apply(measured)
    bright = brightest > highest + CHANCE * noise  # of noise that is not known, none
    bright |= np.isnan(brightest) & np.isfinite(measured)  # no intensity gives it: beyond a curve's top
    _warn_of_bright("the images are", bright, calibrator)


def _warn_of_bright(what: str, bright: np.ndarray, calibrator: Any) -> None:
    count = int(np.count_nonzero(bright & (calibrator.defects_ == 0)))
    if count:
        warn(
            f"{what} brighter than every frame of the sweep at {count} of {bright.size} pixels: there the "
            "curve is continued to where nothing was measured. Record a sweep that is as bright, or use "
            'method="photon".'
        )


def highest_level(calibrator: Any) -> Float64:
    """Give the brightest expected value of the sweep at each pixel, DN."""
    highest: Float64 = calibrator.sums_["highest"]
    if highest.ndim == 1:
        return highest
    sampled = highest[::ROW_STEP]
    unseen = sampled == 0  # a pixel that took no part must not stand for the 15 rows on either side
    if unseen.any() and not unseen.all():
        sampled = fill_masked(sampled[None], unseen[None])[0]
    return _between_sampled_rows(sampled, len(highest))


def _between_sampled_rows(sampled: Float64, n_rows: int) -> Float64:
    """Fill the rows between those that are sampled, by straight lines; the last are as the last sampled."""
    above, share = np.divmod(np.arange(n_rows), ROW_STEP)
    below = np.minimum(above + 1, len(sampled) - 1)
    weight = (share / ROW_STEP)[:, None]
    filled: Float64 = (1 - weight) * sampled[above] + weight * sampled[below]
    return filled


def without_saturated(calibrator: Any, flats: Sequence[Stack], means: Sequence[Float64]) -> list[Float64]:
    """Make flats NaN where one of their frames is saturated: they tell nothing there.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    flats : sequence of stacks of shape (n_frames, *detector_shape)
        Raw flats, DN; one stack for each flat.
    means : sequence of arrays of shape detector_shape, float64
        What is made of each.

    Returns
    -------
    list of arrays of shape detector_shape, float64
    """
    if (saturation := calibrator.saturation_) is None:
        return list(means)
    reached = [any_reaches(stack, saturation, batch_size=calibrator.batch_size) for stack in flats]
    if any(each.all() for each in reached):
        raise InputError(
            f"the flat is saturated at every pixel: it reads {saturation:g} DN or more, from where on the "
            "calibration takes readings for saturated. Record it with less light, or fit with the right "
            "`saturation`."
        )
    anywhere = np.logical_or.reduce(reached)
    if count := int(np.count_nonzero(anywhere & (calibrator.defects_ == 0))):
        warn(
            f"the flat is saturated, {saturation:.6g} DN or more, at {count} of {anywhere.size} pixels: it "
            "tells nothing there, and is filled from its neighbours."
        )
    return [np.where(each, np.nan, mean) for each, mean in zip(reached, means, strict=True)]
