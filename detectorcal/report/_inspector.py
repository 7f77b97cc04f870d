"""The pixel inspector: which pixels, what of them, and the map to choose them on."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from detectorcal._streaming import evenly
from detectorcal._typing import Float64
from detectorcal.calibrator import DEFECTS
from detectorcal.plot._common import PALETTE, SEQUENTIAL, reduced, scale_of
from detectorcal.plot._pixels import accumulation_of
from detectorcal.plot._points import Points, points_of, response_at
from detectorcal.report._evidence import Evidence

__all__ = ["MAP_PIXELS", "Inspected", "choose_pixels", "inspector_data", "inspector_map", "read_points"]

MOST_PIXELS = 500
PER_CAUSE, PER_EXTREME = 40, 20
MAP_PIXELS = 512
"""Width of the map, and its largest height."""
LEAST_HEIGHT = 48
"""Of the map of a line detector: enough for a finger."""

MOST_POINTS = 60_000
"""In the page, of all pixels together: about 1 MB."""
FEWEST_FRAMES, SMOOTHED_PIXELS = 24, 1e8
"""Of a large detector fewer frames are read, down to the first: smoothing is what takes time."""

SAMPLED_PIXELS = 4000
"""Read along, for the bands of all pixels' residuals."""


@dataclass(frozen=True)
class Inspected:
    """Pixels by the reason they were chosen for."""

    names: list[str]
    """Of the groups."""
    places: np.ndarray
    """In the flattened detector, (n_pixels,)."""
    groups: np.ndarray
    """Number of the group of each, (n_pixels,)."""


def choose_pixels(evidence: Evidence, seed: int = 0) -> Inspected:
    """Choose the worst pixels of each cause, the extreme ones of the others, and a random sample.

    Of a cause those are the worst that took part in the fewest frames.

    Parameters
    ----------
    evidence : Evidence
        What is known of the calibration.
    seed : int, default=0
        Of the random sample.

    Returns
    -------
    Inspected
        At most 500 pixels, each once.
    """
    calibrator = evidence.calibrator
    defects = calibrator.defects_.ravel()
    rng = np.random.default_rng(seed)
    n_frames = calibrator.sums_["frames"].ravel()
    good = np.flatnonzero(defects == 0)
    rankings: list[tuple[str, np.ndarray, Float64, int]] = []
    for cause, bit in DEFECTS.items():
        bad = np.flatnonzero(defects & bit)
        rankings.append((cause, bad, rng.random(bad.size) - n_frames[bad], PER_CAUSE))
    for name, badness in _extremes(evidence).items():
        rankings.append((name, good, badness.ravel()[good], PER_EXTREME))
    # twice as many as are wanted, for some are taken already
    some = rng.choice(defects.size, min(2 * MOST_PIXELS, defects.size), replace=False)
    rankings.append(("random", some, rng.random(some.size), MOST_PIXELS))

    names: list[str] = []
    chosen: list[np.ndarray] = []
    taken = np.zeros(defects.size, bool)
    for name, places, badness, most in rankings:
        room = MOST_PIXELS - int(np.count_nonzero(taken))
        worst = places[_largest(np.where(taken[places], np.nan, badness), min(most, room))]
        if worst.size:
            taken[worst] = True
            names.append(name)
            chosen.append(worst)
    groups = np.repeat(np.arange(len(names)), [len(places) for places in chosen])
    return Inspected(names, np.concatenate(chosen), groups)


def _extremes(evidence: Evidence) -> dict[str, Float64]:
    """Give what good pixels may be worst in, detector-shaped; NaN where nothing is known."""
    calibrator = evidence.calibrator
    extremes = {
        "most sensitive": evidence.pattern,
        "least sensitive": -evidence.pattern,
        "least certain": calibrator.coef_std_,
    }
    if evidence.sweep is not None:
        in_errors = np.abs(evidence.sweep.repeat * calibrator.coef_ / calibrator.coef_std_)
        extremes["halves disagree most"] = in_errors
    return extremes


def _largest(values: Float64, n: int) -> np.ndarray:
    """Give the places of the largest values, largest first; NaN and inf are left out."""
    known = np.flatnonzero(np.isfinite(values))
    n = min(n, known.size)
    if n <= 0:
        return np.empty(0, np.intp)
    some = known[np.argpartition(-values[known], n - 1)[:n]]
    return some[np.argsort(-values[some], kind="stable")]


def read_points(evidence: Evidence, inspected: Inspected) -> tuple[Points, Points, np.ndarray] | None:
    """Read the sweep at the chosen pixels, and at a sample of all good ones; None without a sweep.

    Returns
    -------
    points, sampled : Points
        Of the chosen pixels and of the sample.
    places : array of int
        Of the sample.
    """
    sweep = evidence.sweep
    if sweep is None:
        return None
    shape = evidence.calibrator.detector_shape_
    n_pixels = evidence.calibrator.n_features_in_
    kind = accumulation_of(evidence.calibrator, shape)
    most = min(MOST_POINTS // len(inspected.places), max(FEWEST_FRAMES, int(SMOOTHED_PIXELS / n_pixels)))
    frames = evenly(sweep.frames.shape[0], most)
    good = np.flatnonzero(evidence.calibrator.defects_ == 0)
    sample = np.sort(np.random.default_rng(0).permutation(good)[:SAMPLED_PIXELS])
    both = np.concatenate([inspected.places, sample])
    points = points_of(sweep.frames, sweep.dark, kind, both, frames)
    n = len(inspected.places)
    first, rest = (
        Points(points.measured[:, part], points.expected[:, part], points.used[:, part])
        for part in (slice(None, n), slice(n, None))
    )
    return first, rest, sample


def inspector_data(evidence: Evidence, inspected: Inspected, points: Points | None) -> dict[str, Any]:
    """Give all that the page shows of the chosen pixels, as JSON can hold it."""
    calibrator = evidence.calibrator
    shape = calibrator.detector_shape_
    width, height = _map_size(shape)
    coef, std, defects = (a.ravel() for a in (calibrator.coef_, calibrator.coef_std_, calibrator.defects_))
    dark = None if calibrator.dark_ is None else calibrator.dark_.ravel()
    frames = calibrator.sums_["frames"].ravel()
    scale, curvature = response_at(calibrator, inspected.places)
    pixels = []
    for number, (place, group) in enumerate(zip(inspected.places, inspected.groups, strict=True)):
        pixel: dict[str, Any] = {
            "row": int(place // shape[-1]) if len(shape) == 2 else None,
            "column": int(place % shape[-1]),
            "group": int(group),
            "coef": _short(coef[place], 7),
            "std": _short(std[place], 3),
            "dark": "one per frame" if dark is None else f"{dark[place]:.6g} DN",
            "frames": int(frames[place]),
            "causes": [cause for cause, bit in DEFECTS.items() if defects[place] & bit],
        }
        if curvature is not None:
            pixel["scale"], pixel["curvature"] = _short(scale[number], 7), _short(curvature[number])
        if points is not None:
            pixel["measured"] = [_short(value) for value in points.measured[:, number]]
            pixel["expected"] = [_short(value) for value in points.expected[:, number]]
            pixel["used"] = points.used[:, number].astype(int).tolist()
        pixels.append(pixel)
    gain = calibrator.system_gain_
    return {
        "shape": list(shape),
        "map": [width, height],
        "gain": _short(gain),
        "seen": calibrator.n_frames_seen_,
        "groups": inspected.names,
        "colours": [PALETTE[i % len(PALETTE)] for i in range(len(inspected.names))],
        "pixels": pixels,
    }


def as_json(data: dict[str, Any]) -> str:
    """Write JSON that no browser mistakes for the end of its script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: float, digits: int = 5) -> float | None:
    """Round to some digits, for a small page; None where JSON has no word for the value."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _map_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Size of the map in pixels of the page."""
    height, width = shape if len(shape) == 2 else (1, *shape)
    scale = min(MAP_PIXELS / width, MAP_PIXELS / height)
    return max(round(width * scale), LEAST_HEIGHT), max(round(height * scale), LEAST_HEIGHT)


def inspector_map(evidence: Evidence) -> str:
    """Give the map of the coefficients as a data URL of a PNG, at most 512 pixels a side."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    coef = evidence.calibrator.coef_
    image = reduced(np.atleast_2d(coef), MAP_PIXELS)
    low, high = scale_of(image)
    png = BytesIO()
    imsave(png, np.nan_to_num(image, nan=1.0), vmin=low, vmax=high, cmap=colormaps[SEQUENTIAL], format="png")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
