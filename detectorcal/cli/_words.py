"""What the command line says of a calibration and of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from detectorcal import _provenance
from detectorcal._defects import DEFECTS
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.io import FrameWriter

__all__ = ["changes", "count", "facts", "pixels", "started_at", "summary"]


def summary(calibrator: DetectorCalibrator) -> str:
    """Tell in a line what was fitted, and how well."""
    n_defects = int(np.count_nonzero(calibrator.defects_ & ~np.uint8(DEFECTS["user"])))
    error = _left_pattern(calibrator)
    return (
        f"{count(calibrator.n_frames_seen_, 'frame')} of {pixels(calibrator.detector_shape_)}, "
        f"{count(n_defects, 'pixel')} not calibrated, "
        + ("standard error not known" if error is None else f"standard error {error:.2g} %")
    )


def _left_pattern(calibrator: DetectorCalibrator) -> float | None:
    """Median relative standard error of the coefficients, %: the pattern that will be left."""
    relative = calibrator.coef_std_ / calibrator.coef_
    known = relative[np.isfinite(relative)]
    return 100 * float(np.median(known)) if known.size else None


def facts(calibrator: DetectorCalibrator, n_projections: int) -> Iterator[tuple[str, str]]:
    """Tell what a calibration holds, a name and a line each."""
    good = calibrator.defects_ == 0
    left = _left_pattern(calibrator)
    yield "detector", f"{pixels(calibrator.detector_shape_)}"
    yield "sweep", count(calibrator.n_frames_seen_, "frame")
    yield "method", f"{calibrator.method}, sigma {calibrator.sigma:g} px, cutoff {calibrator.cutoff:g} DN"
    if calibrator.regions is not None:
        yield "regions", f"{len(np.unique(calibrator.regions[calibrator.regions > 0]))}, each smoothed alone"
    if good.any():
        low, high = np.percentile(calibrator.coef_[good], [0.1, 99.9])
        spread = 100 * calibrator.coef_[good].std()
        yield (
            "coefficients",
            f"spread {spread:.3g} %, bend of the beam included; 99.8 % in {low:.4f}-{high:.4f}",
        )
    yield "standard error", "not known" if left is None else f"{left:.2g} % (median)"
    if np.isfinite(calibrator.expected_prnu_):
        yield "pattern left", f"{calibrator.expected_prnu_:.2g} % (PRNU) expected after correction"
        rings = calibrator.expected_rings(n_projections)
        yield "rings", f"{rings:.2g} times the noise expected in a scan of {n_projections} projections"
    if np.isfinite(calibrator.system_gain_):
        yield "system gain", f"{calibrator.system_gain_:.3g} DN per electron"
    if calibrator.method == "curved":
        yield "read noise", f"{calibrator.read_noise_:.3g} DN"
        bend = 100 * calibrator.prior_std_ * calibrator.reference_level_
        yield "curvature", f"{bend:.2g} % per {calibrator.reference_level_:.4g} DN from pixel to pixel"
    for cause, bit in DEFECTS.items():
        if cause == "changed":  # only a flat can show that
            continue
        yield cause, count(int(np.count_nonzero(calibrator.defects_ & bit)), "pixel")
    dark = calibrator.dark_
    yield "dark", "one per frame, not kept" if dark is None else f"{np.mean(dark):.4g} DN (mean)"
    yield from _provenance.describe(calibrator.provenance_)


def pixels(shape: tuple[int, ...]) -> str:
    """Say a shape."""
    return "x".join(map(str, shape)) + " pixels"


def count(number: int, noun: str) -> str:
    """Say a number of things."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def changes(report: dict[str, Any]) -> str:
    """Say in a line what was done against rings."""
    if not report["n_changed"]:
        return f"rings: none of {count(report['n_pixels'], 'pixel')} changed"
    return (
        f"rings: {report['n_changed']} of {count(report['n_pixels'], 'pixel')} changed, by "
        f"{report['median_percent']:.2g} % ({report['median_std_errors']:.2g} standard errors) in the "
        f"median, {report['largest_percent']:.2g} % ({report['largest_std_errors']:.2g}) at most; "
        f"{report['n_beyond']} stand out more than a calibration can be off, and are left to the object"
    )


def started_at(output: str, writer: FrameWriter) -> str:
    """Say where a resumed run goes on."""
    if writer.n_written == 0:
        return f"{output}: nothing to resume, starting with the first frame"
    return f"{output}: going on, {writer.n_written} of {count(writer.shape[0], 'frame')} are done"
