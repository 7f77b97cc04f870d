"""Correction of images: two maps, one pass.

For a straight line through the origin every correction of the paper is
``(image - dark) * scale``, with ``scale`` prepared once from the coefficients and the flat.
"""

from __future__ import annotations

import numpy as np

from detectorcal._arrays import is_numpy, namespace
from detectorcal._typing import Array, Float64
from detectorcal.kernels.accumulation import subtract_dark
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.smoothing import Smoothing, gaussian

__all__ = ["correct", "expected_flat", "replace_spots", "scale_map"]


def expected_flat(
    flat: Float64, coef: Float64, smoothing: Smoothing, n_std: float | None, reject: float | None
) -> Float64:
    """Predict what a perfect detector would have recorded as the flat.

    Parameters
    ----------
    flat : array of shape detector_shape, float64
        Flat minus dark, DN.
    coef : array of shape detector_shape, float64
        Response coefficients, dimensionless.
    smoothing : Smoothing
        The Gaussian that takes the pixels' pattern out of the flat.
    n_std : float or None
        None: the smoothed flat. A number: the paper's residual correction [1]_. Where the flat disagrees
        with the coefficients by at least so many standard deviations of that disagreement (dust, a pixel
        that has changed), the flat is followed instead.
    reject : float or None
        Robust spreads from the median of its neighbours beyond which a pixel is replaced by it.

    Returns
    -------
    array of shape detector_shape, float64
        DN.

    References
    ----------
    .. [1] Croton et al., Opt. Express 27(10) 14231 (2019), https://doi.org/10.1364/OE.27.014231
    """
    frame = flat[None]
    masked = ~np.isfinite(frame)
    if masked.any():
        frame = fill_masked(frame, masked)
    if reject is not None:
        frame = replace_spots(frame, reject)
    smooth: Float64 = gaussian(frame, smoothing)[0]
    if n_std is None:
        return smooth
    residual = smooth - coef * frame[0]
    persistent = np.abs(residual) >= n_std * np.std(residual)
    return smooth - np.where(persistent, residual, 0.0)


def scale_map(coef: Float64, flat: Float64 | None) -> Float64:
    """Factor that turns image minus dark into the corrected image.

    Parameters
    ----------
    coef : array of shape detector_shape, float64
        Response coefficients, dimensionless.
    flat : array of shape detector_shape, float64, or None
        What :func:`expected_flat` gave, DN; None leaves the result in DN.

    Returns
    -------
    array of shape detector_shape, float64
        1/DN with a flat, dimensionless without; NaN where the flat is not positive.
    """
    if flat is None:
        return coef
    positive = flat > 0
    return np.where(positive, coef / np.where(positive, flat, 1.0), np.nan)


def replace_spots(frames: Array, n_spreads: float) -> Array:
    """Replace spots (see :func:`~detectorcal.kernels.masking.find_spots`) by the median around them.

    Pixels that are not finite stay as they are.
    """
    xp = namespace(frames)
    finite = xp.isfinite(frames)
    whole = frames if bool(xp.all(finite)) else fill_masked(frames, ~finite)
    medians = median_of_neighbours(whole)
    return xp.where(find_spots(whole, medians, n_spreads) & finite, medians, frames)


def correct(frames: Array, dark: Array, scale: Array, reject: float | None, out: Array | None) -> Array:
    """Correct frames, or rows of them when nothing is rejected.

    Parameters
    ----------
    frames : array of shape (n_frames, *shape)
        Raw frames, DN, of any real dtype.
    dark, scale : arrays of shape ``shape``
        The two maps, in the dtype of the result.
    reject : float or None
        Spots beyond so many robust spreads are replaced by the median around them.
    out : NumPy array of the shape of ``frames``, or None
        Where the result goes.

    Returns
    -------
    array of the shape of ``frames``
        ``(frames - dark) * scale``; ``out`` if that was given.
    """
    if is_numpy(frames) and reject is None:
        out = np.empty(frames.shape, dark.dtype) if out is None else out
        np.copyto(out, frames, casting="unsafe")
        np.subtract(out, dark, out=out)
        np.multiply(out, scale, out=out)
        return out
    measured = subtract_dark(frames, dark)
    corrected = (measured if reject is None else replace_spots(measured, reject)) * scale
    if out is None:
        return corrected
    out[...] = corrected
    return out
