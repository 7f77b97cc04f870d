"""Rings: what is constant in the log of a scan, pixel by pixel, and how much of it may be removed.

A pixel whose coefficient is off by a factor adds the same to -log(T) in all projections. Over a scan the
mean of -log(T) shows it, beside the noise of that mean and what the object does there. The approach is the
package's own: a shrunk estimate of the offset, cut off at a few standard errors of the calibration. Its
derivation is in ``docs/rings.md``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectorcal._arrays import namespace, sum_of_products
from detectorcal._typing import Array, Float64
from detectorcal.kernels.masking import fill_masked, robust_std
from detectorcal.kernels.model import Sums
from detectorcal.kernels.smoothing import Smoothing, gaussian

__all__ = ["Offsets", "add_run", "join_scans", "logarithm", "offsets", "scan_sums"]

LARGEST_OFFSET = float(np.log(10.0))
"""However little is known of a pixel, it is not changed by more than a factor of 10, beyond which a
calibration calls it defective."""

SUMMED = ("count", "total", "pairs", "squares")
"""What of the sums of a scan is added up."""

TRUNCATE = 4.0
"""Standard deviations at which the Gaussian along the row ends."""


class Offsets(NamedTuple):
    """What a scan tells of each pixel's constant offset in -log(T); float64 arrays of detector shape."""

    removed: Float64
    """What is subtracted from -log(T); 0 where a pixel is left alone."""
    judged: np.ndarray
    """Whether everything that is needed to judge a pixel is known; bool."""
    beyond: np.ndarray
    """Whether more was found than may be removed, so that less is; bool."""


def logarithm(frames: Array, dtype: np.dtype) -> Array:
    """Take the logarithm of transmissions.

    Parameters
    ----------
    frames : array of any shape
        Transmissions, of any real dtype.
    dtype : numpy.dtype
        Floating precision of the result.

    Returns
    -------
    array of the same shape
        Dimensionless; not finite where the transmission is not finite or not above 0.
    """
    xp = namespace(frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        return xp.log(xp.astype(frames, getattr(xp, dtype.name), copy=False))


def scan_sums(logs: Array, before: Array | None = None) -> dict[str, Array]:
    """Sum a run of a few consecutive projections.

    Parameters
    ----------
    logs : array of shape (n_projections, *shape), floating
        What :func:`logarithm` gave; what is not finite is left out.
    before : array of shape ``shape``, optional
        That of the projection before them, for the step from there.

    Returns
    -------
    dict of str to array of shape ``shape``
        ``count`` and ``total`` of the logarithms, ``pairs`` and ``squares`` of the differences of successive
        ones, and the ``first`` and ``last`` of them, by which scans are joined. The counts are float64, or
        numbers where nothing is left out.
    """
    xp = namespace(logs)
    with np.errstate(invalid="ignore", over="ignore"):
        total = sum_of_products(logs)
        steps = [logs[1:, ...] - logs[:-1, ...]] + ([] if before is None else [logs[:1, ...] - before])
        whole = bool(xp.all(xp.isfinite(total if before is None else total + before)))
    if whole:  # then nothing needs to be counted or masked
        count, pairs = float(logs.shape[0]), float(sum(step.shape[0] for step in steps))
    else:
        finite, both = xp.isfinite(logs), [xp.isfinite(step) for step in steps]
        count = xp.sum(xp.astype(finite, xp.float64), axis=0)
        pairs = sum(xp.sum(xp.astype(known, xp.float64), axis=0) for known in both)
        total = sum_of_products(xp.where(finite, logs, xp.zeros_like(logs)))
        steps = [xp.where(k, step, xp.zeros_like(step)) for k, step in zip(both, steps, strict=True)]
    return {
        "first": logs[0, ...],
        "last": logs[-1, ...],
        "count": count,
        "total": xp.astype(total, xp.float64),
        "pairs": pairs,
        "squares": xp.astype(sum(sum_of_products(step, step) for step in steps), xp.float64),
    }


def add_run(total: dict[str, Array], logs: Array) -> None:
    """Add the run that follows to what was summed of a scan, in place; to nothing, if it is the first.

    Parameters
    ----------
    total : dict of str to array
        What :func:`scan_sums` gave, or nothing.
    logs : array of shape (n_projections, *shape), floating
        What :func:`logarithm` gave.
    """
    run = scan_sums(logs, total.get("last"))
    for name in SUMMED:
        if name in total:
            total[name] += run[name]
        else:
            total[name] = run[name]
    total.setdefault("first", run["first"])
    total["last"] = run["last"]


def join_scans(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """Join the sums of parts of a scan that follow each other.

    Parameters
    ----------
    parts : list of dict of str to array
        What :func:`scan_sums` gave, in the order of the projections.

    Returns
    -------
    dict of str to array
        As if summed together, but for rounding.
    """
    joined = dict(parts[0])
    xp = namespace(joined["total"])
    for part in parts[1:]:
        with np.errstate(invalid="ignore"):
            step = part["first"] - joined["last"]
        both = xp.isfinite(step)
        step = xp.astype(xp.where(both, step, xp.zeros_like(step)), xp.float64)
        for name in SUMMED:
            joined[name] = joined[name] + part[name]
        joined["pairs"] = joined["pairs"] + xp.astype(both, xp.float64)
        joined["squares"] = joined["squares"] + step * step
        joined["last"] = part["last"]
    return joined


def offsets(sums: Sums, variance: Float64, window: float, n_std: float) -> Offsets:
    r"""Estimate each pixel's constant offset in -log(T), and bound it by what is known of the pixel.

    With `e` the mean of -log(T) minus its twice-smoothed course along the row, `v` the relative variance of a
    corrected value, `n` the variance of that mean from noise and `o` that of `e` from the object,

    .. math:: \mathrm{removed} = \mathrm{sign}(e)\, \max(0, \min(k |e|,\, 2 N \sqrt v - k |e|)),
        \quad k = v / (v + n + o)

    which is the posterior mean of a normal offset up to `N` standard errors, and falls to 0 at twice that:
    what is larger is no error of the calibration. `n` is half the mean squared difference of
    successive projections over their number; `o`, one number per row, is the robust variance of `e` (from
    its median absolute deviation) minus the means of `v` and `n`, or 0.

    Parameters
    ----------
    sums : dict of str to array of shape detector_shape, float64
        What :func:`scan_sums` and :func:`join_scans` gave of all projections.
    variance : array of shape detector_shape, float64
        Relative variance of a corrected value; a pixel where it is not finite is left alone.
    window : float
        Standard deviation of the Gaussian along the row, pixels.
    n_std : float
        `N`, standard errors.

    Returns
    -------
    Offsets
    """
    shape = variance.shape
    # the pixels of a row share their object; a line detector is one row
    rows = {name: sums[name].reshape(-1, shape[-1]) for name in ("count", "total", "pairs", "squares")}
    v = variance.reshape(-1, shape[-1])
    judged = (rows["count"] > 0) & (rows["pairs"] > 0) & np.isfinite(v)
    v = np.where(judged, v, 0.0)
    count, pairs = np.maximum(rows["count"], 1), np.maximum(rows["pairs"], 1)
    mean = -rows["total"] / count
    noise = rows["squares"] / (2 * pairs * count)
    e = np.where(judged, mean - _course(mean, judged, window), 0.0)
    total = v + noise + _object_variance(e, v + noise, judged)
    k = np.divide(v, total, out=np.zeros_like(v), where=total > 0)
    bound = np.minimum(n_std * np.sqrt(v), LARGEST_OFFSET)
    found = k * e
    size = np.abs(found)
    # what is larger than the calibration can explain is the object's: the more so, the larger it is
    removed = np.sign(found) * np.clip(2 * bound - size, 0, size)
    beyond = size > bound
    return Offsets(removed.reshape(shape), judged.reshape(shape), beyond.reshape(shape))


def _course(mean: Float64, judged: np.ndarray, window: float) -> Float64:
    """Smooth each row by itself, twice; pixels that cannot be judged are filled from their row first.

    Once would bend under a smooth object, and the bend be taken for structure of its own.
    """
    whole = mean if judged.all() else fill_masked(mean, ~judged)
    smooth: Float64 = gaussian(whole, Smoothing(window, "nearest", 0.0, TRUNCATE, twice=True))
    return smooth


def _object_variance(e: Float64, known: Float64, judged: np.ndarray) -> Float64:
    """Variance of `e` along each row that calibration and noise (`known`) do not explain, as a column."""
    spread = np.zeros((len(e), 1))
    for row, (values, used) in enumerate(zip(e, judged, strict=True)):
        if used.any():
            spread[row] = robust_std(values[used]) ** 2 - known[row, used].mean()
    return np.maximum(spread, 0.0)
