"""What the command line says of a calibration and of what was done, to people and to programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from detectorcal import _provenance
from detectorcal._defects import DEFECTS, is_hopeless
from detectorcal._record import parameters_of
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.correction import Correction
from detectorcal.io import FrameWriter

__all__ = [
    "as_json",
    "changes",
    "corrected",
    "count",
    "describe",
    "figures",
    "pixels",
    "started_at",
    "summary",
]

PROJECTIONS = 1000
"""Of a scan, where nothing is said."""


def figures(calibrator: DetectorCalibrator, n_projections: int = PROJECTIONS) -> dict[str, Any]:
    """Give what a calibration holds and how good it is, as ``--json`` prints it; NaN where not known."""
    good = calibrator.defects_ == 0
    coef = calibrator.coef_[good] if good.any() else np.full(1, np.nan)
    relative = calibrator.coef_std_ / calibrator.coef_
    known = relative[np.isfinite(relative)]
    low, high = np.percentile(coef, [0.1, 99.9])
    curved, regions = hasattr(calibrator, "covariance_"), calibrator.regions
    bend = calibrator.prior_std_ * calibrator.reference_level_ if curved else math.nan
    return {
        "detector_shape": list(calibrator.detector_shape_),
        "n_frames": calibrator.n_frames_seen_,
        "parameters": parameters_of(calibrator),
        "n_regions": None if regions is None else len(np.unique(regions[regions > 0])),
        "n_defects": int(np.count_nonzero(calibrator.defects_ & ~np.uint8(DEFECTS["user"]))),
        "n_doubtful": int(np.count_nonzero(~good & ~is_hopeless(calibrator.defects_))),
        "defects": {
            cause: int(np.count_nonzero(calibrator.defects_ & bit)) for cause, bit in DEFECTS.items()
        },
        "coef_spread_percent": 100 * float(coef.std()),
        "coef_low": float(low),
        "coef_high": float(high),
        "standard_error_percent": 100 * float(np.median(known)) if known.size else math.nan,
        "expected_prnu_percent": calibrator.expected_prnu_,
        "expected_rings": calibrator.expected_rings(n_projections),
        "projections": n_projections,
        "system_gain": calibrator.system_gain_,
        "reference_level": calibrator.reference_level_,
        "read_noise": calibrator.read_noise_ if curved else math.nan,
        "curvature_percent": 100 * bend,
        "dark_mean": math.nan if calibrator.dark_ is None else _mean_of(calibrator.dark_),
        "provenance": calibrator.provenance_,
    }


def _mean_of(dark: np.ndarray) -> float:
    """Give the mean of a dark, which may hold pixels of which nothing is known."""
    known = dark[np.isfinite(dark)]
    return float(np.mean(known)) if known.size else math.nan


def as_json(values: Mapping[str, Any]) -> str:
    """Write one object of JSON; what is not known, or no number, is null."""
    return json.dumps(_plain(values), allow_nan=False, indent=2)


def _plain(value: Any) -> Any:
    """Give what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def summary(found: Mapping[str, Any]) -> str:
    """Tell in a line what was fitted, and how well."""
    error, doubtful = found["standard_error_percent"], found["n_doubtful"]
    return (
        f"{count(found['n_frames'], 'frame')} of {pixels(found['detector_shape'])}, "
        f"{count(found['n_defects'] - doubtful, 'pixel')} not calibrated, "
        + (f"{doubtful} not to be relied on, " if doubtful else "")
        + (f"standard error {error:.2g} %" if math.isfinite(error) else "standard error not known")
    )


def describe(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell people the figures of a calibration, a name and a line each."""
    parameters = found["parameters"]
    yield "detector", pixels(found["detector_shape"])
    yield "sweep", count(found["n_frames"], "frame")
    yield (
        "method",
        f"{parameters['method']}, sigma {parameters['sigma']:g} px, cutoff {parameters['cutoff']:g} DN",
    )
    if found["n_regions"] is not None:
        yield "regions", f"{found['n_regions']}, each smoothed alone"
    yield from _quality(found)
    for cause, number in found["defects"].items():
        if cause != "changed":  # only a flat can show that
            yield cause, count(number, "pixel")
    dark = found["dark_mean"]
    yield "dark", f"{dark:.4g} DN (mean)" if math.isfinite(dark) else "one per frame, not kept"
    yield from _provenance.describe(found["provenance"])


def _quality(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell how good a calibration is, as far as that is known."""
    names = ("coef_spread", "standard_error", "expected_prnu")
    spread, error, prnu = (found[f"{name}_percent"] for name in names)
    if math.isfinite(spread):
        within = f"99.8 % in {found['coef_low']:.4f}-{found['coef_high']:.4f}"
        yield "coefficients", f"spread {spread:.3g} %, bend of the beam included; {within}"
    yield "standard error", f"{error:.2g} % (median)" if math.isfinite(error) else "not known"
    if math.isfinite(prnu):
        yield "pattern left", f"{prnu:.2g} % (PRNU) expected after correction"
        scan = f"a scan of {found['projections']} projections"
        yield "rings", f"{found['expected_rings']:.2g} times the noise expected in {scan}"
    if math.isfinite(found["system_gain"]):
        yield "system gain", f"{found['system_gain']:.3g} DN per electron"
    if math.isfinite(found["read_noise"]):
        bend, level = found["curvature_percent"], found["reference_level"]
        yield "read noise", f"{found['read_noise']:.3g} DN"
        yield "curvature", f"{bend:.2g} % per {level:.4g} DN from pixel to pixel"


def pixels(shape: Sequence[int]) -> str:
    """Say a shape."""
    return "x".join(map(str, shape)) + " pixels"


def count(number: int, noun: str) -> str:
    """Say a number of things."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def corrected(correction: Correction, shape: Sequence[int]) -> str:
    """Tell in a line what was made of frames, and how good it is."""
    what = "DN above dark" if correction.beam is None else "transmission"
    what = f"-log of the {what}" if correction.log else what
    std = correction.predict_std()
    known = std[np.isfinite(std)]
    left = 100 * float(np.sqrt(np.mean(known**2))) if known.size else math.nan
    return f"{count(shape[0], 'frame')} of {pixels(shape[1:])}, {what}; " + (
        f"a pattern of {left:.2g} % is left, by the calibration's standard errors"
        if math.isfinite(left)
        else "what pattern is left is not known"
    )


def changes(report: dict[str, Any]) -> str:
    """Say in a line what was done against rings."""
    if not report["n_changed"]:
        return f"rings: none of {count(report['n_pixels'], 'pixel')} changed"
    return (
        f"rings: {report['n_changed']} of {count(report['n_pixels'], 'pixel')} changed, by "
        f"{report['median_percent']:.2g} % ({report['median_std_errors']:.2g} standard errors) in the "
        f"median, {report['largest_percent']:.2g} % ({report['largest_std_errors']:.2g}) at most; "
        f"{report['n_beyond']} stand out more than a calibration can be off, and less of them is removed, or "
        "nothing"
    )


def started_at(output: str, writer: FrameWriter) -> str:
    """Say where a resumed run goes on."""
    if writer.n_written == 0:
        return f"{output}: nothing to resume, starting with the first frame"
    return f"{output}: going on, {writer.n_written} of {count(writer.shape[0], 'frame')} are done"
