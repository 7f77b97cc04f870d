"""A scan before and after its correction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._defects import DEFECTS
from detectorcal._errors import InputError
from detectorcal._streaming import single_threaded_blas
from detectorcal._typing import Float64, Stack
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.io import FrameStack
from detectorcal.kernels.masking import MAD_TO_STD
from detectorcal.kernels.piecewise import fill_within, gaussian_within
from detectorcal.kernels.smoothing import Smoothing
from detectorcal.report._evidence import dark_of

__all__ = ["Scan", "look_at_scan"]

MOST_PROJECTIONS = 360
"""Rows of the sinogram: more than a figure shows, and quickly read."""

TRANSMISSION_BELOW = 0.5
"""Corrected value over raw DN: about 1 where the result is DN, far less where it was divided by a flat."""

FAINTEST = 1e-3
"""Transmissions below this are noise; the logarithm stops there."""


@dataclass(frozen=True)
class Scan:
    """One detector row of a scan, without and with the pixels' calibration."""

    before: Float64
    """-log of the values that the beam's own course corrects, (n_shown, width)."""
    after: Float64
    """-log of the corrected values, (n_shown, width)."""
    row: int | None
    """Which; None of a line detector."""
    projections: np.ndarray
    """Numbers of those shown, (n_shown,)."""
    n_projections: int
    level: float
    """Mean reading, DN above dark."""
    stripes: tuple[float, float]
    """Spread from column to column, before and after: see :func:`_stripes`."""


def look_at_scan(calibrator: DetectorCalibrator, scan: Any, corrected: Any, dark: Any = None) -> Scan:
    """Compare a row of a raw scan with the same row corrected.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    scan, corrected : arrays or stacks of shape (n_projections, *detector_shape)
        Raw projections, DN, and what correction made of them.
    dark : number, array or stack, optional
        Of the projections, DN; by default that of the calibration.

    Returns
    -------
    Scan
    """
    raw, done = validation.as_real("scan", scan), validation.as_real("corrected", corrected)
    shape = calibrator.detector_shape_
    if tuple(raw.shape[1:]) != shape or tuple(raw.shape) != tuple(done.shape):
        raise InputError(
            f"the scan has shape {tuple(raw.shape)} and the corrected one {tuple(done.shape)}: both must be "
            f"the same projections of the calibration's detector, {shape}."
        )
    dark_map = dark_of(calibrator, dark, "the scan")
    row = _middle_row(calibrator.defects_) if len(shape) == 2 else None
    chosen = np.unique(np.linspace(0, raw.shape[0] - 1, MOST_PROJECTIONS).round().astype(int))
    measured = _row(raw, chosen, row) - (dark_map if row is None else dark_map[row])
    after = _row(done, chosen, row)
    smoothing = calibrator._checked_parameters()
    if smoothing.regions is not None and row is not None:
        smoothing = replace(smoothing, regions=smoothing.regions.part(row))
    before = measured * _beam_factor(measured, after, smoothing)
    before, after = (-np.log(np.maximum(np.nan_to_num(values), FAINTEST)) for values in (before, after))
    return Scan(
        before=before,
        after=after,
        row=row,
        projections=chosen,
        n_projections=int(raw.shape[0]),
        level=float(np.mean(measured)),
        stripes=(_stripes(before), _stripes(after)),
    )


def _middle_row(defects: np.ndarray) -> int:
    """Choose the row nearest to the middle in which least is masked: it may lie in a gap between modules."""
    n_masked = np.count_nonzero(defects & DEFECTS["user"], axis=1)
    best = np.flatnonzero(n_masked == n_masked.min())
    return int(best[np.argmin(np.abs(best - len(defects) // 2))])


def _row(stack: Stack, chosen: np.ndarray, row: int | None) -> Float64:
    """Read one row of some projections, one by one."""
    if row is None:
        rows = [np.asarray(stack[i : i + 1])[0] for i in chosen]
    elif isinstance(stack, FrameStack):  # which reads no more of a file than it must
        rows = [stack[i, row] for i in chosen]
    else:
        rows = [np.asarray(stack[i : i + 1])[0, row] for i in chosen]
    return np.array(rows, dtype=np.float64)


def _beam_factor(measured: Float64, after: Float64, smoothing: Smoothing) -> Float64:
    """Give what the scan was multiplied with, smoothed along the row: the beam, and none of the pixels.

    So the scan before needs no flat: the two differ in the pixels' pattern alone.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.nanmedian(np.where(measured > 0, after / measured, np.nan), axis=0)[None]
    with single_threaded_blas():
        factor = fill_within(factor, ~np.isfinite(factor), smoothing.regions)
        smooth: Float64 = gaussian_within(factor, smoothing)[0]
    return smooth


def _stripes(sinogram: Float64) -> float:
    """Tell how much columns differ from their neighbours: what makes rings, and little of the object.

    The mean over the projections of each column minus that of its two neighbours; robust standard deviation,
    for edges of the object are few, over the square root of 3/2, which is that of independent columns.
    """
    profile = sinogram.mean(axis=0)
    if profile.size < 3:
        return 0.0
    difference = profile[1:-1] - (profile[2:] + profile[:-2]) / 2
    return MAD_TO_STD * float(np.median(np.abs(difference - np.median(difference)))) / math.sqrt(1.5)
