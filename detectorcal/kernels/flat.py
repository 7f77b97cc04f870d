"""The flat: what a perfect detector would have recorded, and what it tells of the pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detectorcal._typing import Float64
from detectorcal.kernels.correction import Inverse, Rejection, replace_spots
from detectorcal.kernels.curve import MOMENTS, Noise, frame_sums, posterior
from detectorcal.kernels.masking import fill_masked
from detectorcal.kernels.model import Curve
from detectorcal.kernels.piecewise import each_alone, fill_within, gaussian_within
from detectorcal.kernels.regions import Regions
from detectorcal.kernels.smoothing import Smoothing

__all__ = ["follow_residuals", "heed_flat", "smoothed_flat"]

CHANGED = 5.0
"""Standard deviations of the prediction beyond which a pixel has changed since the sweep."""

DISCOUNT = 1e-6
"""What the sweep counts for at a pixel that has changed: the flat decides, and where it is dim, the prior."""

SHARED_SIGMA = 10.0
"""Width in pixels over which the error is taken that near pixels share, of a beam that smoothing bends."""

SHARED_CLIP, SHARED_STEPS = 3.0, 4
"""Standard deviations at which a pixel is cut off in that mean, for a changed pixel must not hide itself; and
how often the mean is taken anew about the last one."""


def smoothed_flat(flat: Float64, smoothing: Smoothing, reject: float | None) -> tuple[Float64, Float64]:
    """Clean a flat and smooth it.

    Parameters
    ----------
    flat : array of shape detector_shape, float64
        Flat minus dark, DN; what is not finite is filled from its neighbours.
    smoothing : Smoothing
        The Gaussian that takes the pixels' pattern out of the flat, and the regions it acts within.
    reject : float or None
        Robust spreads from the median of its neighbours beyond which a pixel is replaced by it.

    Returns
    -------
    clean, smooth : arrays of shape detector_shape, float64
        DN. In gaps both are continued from the regions around: what is masked there may be looked at.
    """
    frame = flat[None]
    masked = ~np.isfinite(frame)
    regions = smoothing.regions
    if masked.any():
        frame = fill_within(frame, masked, regions)
    if reject is not None:
        frame = each_alone(lambda piece: replace_spots(piece, Rejection(reject)), frame, regions)
    smooth = gaussian_within(frame, smoothing)
    if regions is not None and (gaps := regions.gaps[None]).any():
        smooth = fill_masked(smooth, gaps)
        frame = np.where(gaps, smooth, frame)
    return frame[0], smooth[0]


def follow_residuals(clean: Float64, smooth: Float64, inverse: Inverse, n_std: float) -> Float64:
    """Follow the flat where it disagrees with the calibration: the paper's residual correction [1]_.

    Parameters
    ----------
    clean, smooth : arrays of shape detector_shape, float64
        What :func:`smoothed_flat` gave, DN.
    inverse : Inverse
        What undoes the pixels' response.
    n_std : float
        Where the flat disagrees by at least so many standard deviations of that disagreement (dust, a pixel
        that has changed), it is followed instead.

    Returns
    -------
    array of shape detector_shape, float64
        What the corrected image is divided by, DN.

    References
    ----------
    .. [1] Croton et al., Opt. Express 27(10) 14231 (2019), https://doi.org/10.1364/OE.27.014231
    """
    residual = smooth - inverse.apply(clean)
    persistent = np.abs(residual) >= n_std * np.std(residual)
    return smooth - np.where(persistent, residual, 0.0)


def heed_flat(
    expected: Float64,
    measured: Float64,
    n_flats: int,
    sums: Mapping[str, Float64],
    curve: Curve,
    noise: Noise,
    rho: float,
    regions: Regions | None,
) -> tuple[Curve, np.ndarray]:
    """Take a flat for what it is: one more frame of the sweep, of weight ``n_flats``, and the latest.

    A pixel that reads otherwise than the sweep predicts, by more than :data:`CHANGED` standard deviations
    and more than its neighbours do, has changed since; there the flat decides.

    Parameters
    ----------
    expected, measured : arrays of shape detector_shape, float64
        Smoothed flat and flat, DN above dark; NaN in ``measured`` where it tells nothing.
    n_flats : int
        Number of frames that ``measured`` is the mean of.
    sums : mapping of str to array of shape detector_shape
        The moments of the sweep.
    curve : Curve
        The posterior after the sweep.
    noise : Noise
        What all pixels share.
    rho : float
        As the model's ``read_noise_level``, DN.
    regions : Regions or None
        Neighbours are pixels of the same region.

    Returns
    -------
    curve : Curve
        The posterior after sweep and flat.
    changed : array of shape detector_shape, bool
    """
    told = np.isfinite(measured) & (expected > 0)
    x = expected - curve.centre
    of_gain = curve.gain_variance + x * (2 * curve.covariance + x * curve.curvature_variance)
    variance = expected**2 * of_gain + noise.system_gain * (expected + rho) / n_flats
    with np.errstate(divide="ignore", invalid="ignore"):
        off = (measured - curve.response(expected)) / np.sqrt(variance)
    off = np.where(told & np.isfinite(off), off, 0.0)
    changed = np.abs(off - _shared(off, regions)) > CHANGED
    flat = frame_sums(np.where(told, expected, 0.0), np.where(told, measured, 0.0), n_flats, rho)
    swept = np.where(changed, DISCOUNT, 1.0)
    return posterior({name: swept * sums[name] + flat[name] for name in MOMENTS}, noise), changed


def _shared(off: Float64, regions: Regions | None) -> Float64:
    """Take a robust mean over near pixels, Huber's [1]_: outliers pull no more than the cut.

    References
    ----------
    .. [1] P. J. Huber, Ann. Math. Statist. 35 (1964) 73, https://doi.org/10.1214/aoms/1177703732
    """
    near = Smoothing(SHARED_SIGMA, "nearest", 0.0, 4.0, regions=regions)
    shared: Float64 = gaussian_within(off[None], near)[0]
    for _ in range(SHARED_STEPS):
        shared = shared + gaussian_within(np.clip(off - shared, -SHARED_CLIP, SHARED_CLIP)[None], near)[0]
    return shared
