"""A scan before and after its correction."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.ndimage import median_filter
from scipy.signal import savgol_filter

from detectorcal import _validation as validation
from detectorcal._defects import DEFECTS
from detectorcal._errors import InputError
from detectorcal._provenance import history_of, mapping_in
from detectorcal._streaming import evenly, single_threaded_blas
from detectorcal._typing import Float64, Stack
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.correction import Correction
from detectorcal.io import FrameStack
from detectorcal.kernels.masking import robust_std
from detectorcal.kernels.piecewise import fill_within, gaussian_within
from detectorcal.kernels.smoothing import Smoothing
from detectorcal.plot._common import averaged
from detectorcal.plot._points import response_at
from detectorcal.simulate import reconstruct

__all__ = ["Scan", "look_at_scan"]

MOST_PROJECTIONS = 360
"""Rows of the sinogram: more than a figure shows, and quickly read."""

FAINTEST = 1e-3
"""Transmissions below this are noise; the logarithm stops there."""

SLICE_PIXELS = 320
"""Side of the largest slice: back-projection takes the square of it, and a figure shows no more."""

BEAM_PIXELS = 21
"""Pixels of a row to which a cubic is fitted: a beam follows it."""

NOTHING = 2e-4
"""A beam is off its cubics by less, and a correction rounded."""


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
    beyond: Float64 | None
    """By what the correction multiplied each pixel of the row beyond its calibration, (width,); 1 where that
    is not known, None where it did nothing of the kind."""
    angles: Float64 | None
    """Of the projections shown, degrees, (n_shown,); None if they are not known."""

    @property
    def columns_in_one(self) -> int:
        """How many columns are averaged for a column of the slices."""
        width: int = self.before.shape[1]
        return -(-width // SLICE_PIXELS)

    def slices(self) -> tuple[Float64, Float64] | None:
        """Reconstruct the row before and after, about its middle, 1/pixel; None without angles."""
        if self.angles is None:
            return None
        angles = np.radians(self.angles)
        before, after = (
            reconstruct(averaged(sinogram, self.columns_in_one, 1), angles) / self.columns_in_one
            for sinogram in (self.before, self.after)
        )
        return before, after


def _transmission(values: Float64, corrected: Any) -> Float64:
    """Give transmissions, of which a file may hold -log, as its record tells."""
    is_log = mapping_in(history_of(corrected) or {}, "parameters").get("log") is True
    return np.exp(-values) if is_log else values


def look_at_scan(calibrator: DetectorCalibrator, scan: Any, corrected: Any, dark: Any = None) -> Scan:
    """Compare a row of a raw scan with the same row corrected.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    scan, corrected : arrays or stacks of shape (n_projections, *detector_shape)
        Raw projections, DN, and what correction made of them: transmissions or DN. Of -log(T) only a file
        that ``detectorcal correct --log`` wrote, which tells of it.
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
    if history_of(scan) is not None:
        raise InputError(
            f"`{scan.path}` is corrected already. Give the raw scan first, then what was made of it."
        )
    dark_map = calibrator._dark_for_images(dark)
    row = _middle_row(calibrator.defects_) if len(shape) == 2 else None
    chosen = evenly(raw.shape[0], MOST_PROJECTIONS)
    measured = _row(raw, chosen, row) - (dark_map if row is None else dark_map[row])
    after = _transmission(_row(done, chosen, row), corrected)
    smoothing = calibrator._checked_parameters()
    if smoothing.regions is not None and row is not None:
        smoothing = replace(smoothing, regions=smoothing.regions.part(row))
    before = measured * _beam_factor(measured, after, smoothing)
    beyond = _beyond_calibration(measured, after, calibrator, row)
    known = [getattr(stack, "angles", None) for stack in (scan, corrected)]
    angles = next((own for own in known if own is not None), None)
    before, after = (-np.log(np.maximum(np.nan_to_num(values), FAINTEST)) for values in (before, after))
    return Scan(
        before=before,
        after=after,
        row=row,
        projections=chosen,
        n_projections=int(raw.shape[0]),
        level=float(np.mean(measured)),
        stripes=(_stripes(before), _stripes(after)),
        beyond=beyond,
        angles=None if angles is None else np.asarray(angles, np.float64)[chosen],
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


def _beyond_calibration(
    measured: Float64, after: Float64, calibrator: DetectorCalibrator, row: int | None
) -> Float64 | None:
    """Give what was done to each pixel that neither the calibration nor the beam does.

    Ring suppression does that, and a flat that is followed where it disagrees. What is as wide as
    :data:`BEAM_PIXELS` is taken for the beam.
    """
    width = measured.shape[1]
    places = np.arange(width) + (0 if row is None else row * width)
    scale, curvature = response_at(calibrator, places)
    calibrated = Correction(scale, np.zeros(width), curvature=curvature).transform(measured)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column that is nowhere above the dark
        factor = np.nanmedian(np.where(measured > 0, after / calibrated, np.nan), axis=0)
    factor[calibrator.defects_.ravel()[places] != 0] = np.nan
    known = factor > 0  # and so no NaN
    if np.count_nonzero(known) < BEAM_PIXELS:
        return None
    factor = np.interp(np.arange(width), np.flatnonzero(known), factor[known])
    # single pixels do not pull at the beam where the median of their neighbours takes their place
    beam = savgol_filter(median_filter(factor, 5, mode="nearest"), BEAM_PIXELS, 3, mode="interp")
    beyond: Float64 = factor / beam
    return beyond if np.abs(beyond - 1).max() > NOTHING else None


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
    return robust_std(difference) / math.sqrt(1.5)
