r"""What the sums of a fit tell against single pixels: which scatter, which bend, which were saturated.

From frame to frame a pixel scatters about its own response with the variance :math:`K s` of photon noise,
and its gain may change with the level, :math:`m = s (a + b s)`. A model says how much of both its sums show
(:class:`Evidence`); here that is held against the pixels around (:mod:`detectorcal.kernels.blocks`), so that
what the whole detector does, flicker, drift, a beam that smoothing bends, counts against no pixel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import chdtri

from detectorcal._defects import DEFECTS
from detectorcal._typing import Float64
from detectorcal.kernels.blocks import ROWS_AT_ONCE, local_level, local_spread
from detectorcal.kernels.model import ROW_STEP, Evidence, sampled_rows

__all__ = ["find_causes", "line_evidence"]

NOISIER = 4.0
"""Times the variance of the pixels around from where on a pixel is noisy: it then counts for less than a
quarter of one of them."""

CHANCE = 1e-6
"""Chance for a usual pixel to be that noisy, as the degrees of freedom of short sweeps allow: one in the
million pixels of a detector."""

SMALLEST_SCATTER = 0.005
"""Scatter, in parts of the level, that no pixel is blamed for: it may be the beam's."""

UNEXPLAINED = 0.1
"""Share of what a bend moves a pixel's readings by that is not called scatter: no response bends exactly as
the model says."""

N_SPREADS = 6.0
"""Standard errors by which a pixel's curvature must differ from those around, and robust standard deviations
of the pixels around by which its curvature or scatter must: where all scatter or bend, none is a defect."""

SMALLEST_BEND = 0.05
"""Change of a pixel's gain over the levels of the sweep, against the pixels around, from where on it is
nonlinear: a straight line then errs by one per cent, root mean square, as much as the pattern that is to be
corrected."""

EVEN_RANGE = 12**0.5
"""The range of evenly spread levels over their standard deviation."""

LARGEST_SATURATED_SHARE = 0.5
"""A pixel is saturated if in more than this share of the frames it read the saturation."""

ENOUGH_FRAMES = 0.9
"""A pixel that took part in less than this share of the frames of those around is not compared with them."""

SMALLEST_RELATIVE_SPAN = 0.05
"""Relative spread of the levels under which nothing is concluded on curvature."""


def find_causes(sums: Mapping[str, Float64], evidence: Evidence) -> np.ndarray:
    """Flag noisy, nonlinear and saturated pixels.

    Parameters
    ----------
    sums : mapping of str to array of detector shape
        Of the fit.
    evidence : Evidence
        What the model reads from them.

    Returns
    -------
    array of detector shape, uint8
        Sum of bits; see :data:`~detectorcal._defects.DEFECTS`.
    """
    frames, saturated = sums["frames"], sums["saturated"]
    flags = np.zeros(frames.shape, np.uint8)
    with np.errstate(all="ignore"):
        comparable = frames >= ENOUGH_FRAMES * local_level(frames.astype(np.float32))
        noisy, nonlinear = _unlike(evidence)
        full = saturated > LARGEST_SATURATED_SHARE * (frames + saturated)
    for cause, found in (
        ("noisy", noisy & comparable),
        ("nonlinear", nonlinear & comparable),
        ("saturated", full),
    ):
        flags |= np.uint8(DEFECTS[cause]) * found
    return flags


def _unlike(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels that scatter and those that bend unlike the pixels around."""
    scatter, freedom, bend, bend_variance, spread, level, explained = evidence
    usual = np.maximum(local_level(scatter), 0)
    whole, steps = np.unique(np.maximum(np.floor(freedom), 0), return_inverse=True)
    most = np.maximum(NOISIER, chdtri(whole, CHANCE) / whole)[steps.reshape(freedom.shape)]
    ratio = np.sqrt(np.maximum(scatter, 0) / usual)  # of standard deviations, which spread more evenly
    most = usual * np.maximum(most, (1 + N_SPREADS * local_spread(ratio - 1)) ** 2)
    noisy = (scatter > most + UNEXPLAINED * explained) & (scatter > SMALLEST_SCATTER**2 * level)
    away = bend - local_level(bend)
    surely = N_SPREADS * np.maximum(np.sqrt(bend_variance * np.maximum(scatter, usual)), local_spread(away))
    bent = np.abs(away) > np.maximum(surely, SMALLEST_BEND / (EVEN_RANGE * spread))
    return noisy & (freedom >= 1), bent & (spread > SMALLEST_RELATIVE_SPAN * level)


def line_evidence(
    sums: Mapping[str, Float64], expected_difference: Float64, expected_squared: Float64 | None
) -> Evidence:
    r"""Read scatter and bend from the sums of a straight line.

    With :math:`d = s - m`, weights :math:`1/s` and :math:`S_k = \sum s^k`, the curvature is
    :math:`b = -(\sum s d - (S_2 / S_1) \sum d) / (S_3 - S_2^2 / S_1)`, of variance K over that denominator.
    What the line leaves of :math:`\sum d^2`, :math:`\sum d^2 - (\sum s d)^2 / S_2`, less what the bend explains,
    :math:`b^2 (S_4 - S_3^2 / S_2)`, is expected to be
    :math:`K (S_1 - S_3 / S_2 - (S_4 - S_3^2 / S_2) / (S_3 - S_2^2 / S_1))`.

    Parameters
    ----------
    sums : mapping of str to array of detector shape
        "frames", "expected", "difference", "difference_squared" of all pixels, and of sampled rows
        "expected_squared", "expected_cubed", "expected_fourth".
    expected_difference : array of detector shape
        Sum of s d.
    expected_squared : array of detector shape or None
        :math:`S_2`, where it is known of each pixel.

    Returns
    -------
    Evidence
        Of float32 arrays.
    """
    shape = sums["frames"].shape
    courses = [_course(sums, name, power) for power, name in enumerate(_POWERS, start=2)]
    evidence = Evidence(*(np.empty(shape, np.float32) for _ in Evidence._fields))
    names = ("frames", "expected", "difference", "difference_squared")
    for start in range(0, shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE) if len(shape) == 2 else slice(None)
        n, S1, D1, DD = (sums[name][rows].astype(np.float32) for name in names)
        mean = S1 / n
        S2, S3, S4 = (n * course[rows] * mean**power for power, course in enumerate(courses, start=2))
        if expected_squared is not None:
            S2 = expected_squared[rows].astype(np.float32)
        SD = expected_difference[rows].astype(np.float32)
        lean, curl = S2 / S1, S4 - S3**2 / S2
        schur = S3 - lean * S2
        bend = (lean * D1 - SD) / schur
        per_gain = S1 - S3 / S2 - curl / schur
        rest = DD - SD**2 / S2 - bend**2 * curl
        found = (
            rest / per_gain, S1**2 / S2 - 2, bend, 1 / schur, np.sqrt(np.maximum(schur, 0) / S1), lean,
            bend**2 * curl / per_gain,
        )  # fmt: skip
        for values, out in zip(found, evidence, strict=True):
            out[rows] = values
    return evidence


_POWERS = ("expected_squared", "expected_cubed", "expected_fourth")


def _course(sums: Mapping[str, Float64], name: str, power: int) -> np.ndarray:
    r"""Give the mean of :math:`s^k` over the k-th power of the mean, for all rows: the course of the sweep.

    It belongs to the beam and changes slowly over the detector: between sampled rows it follows straight
    lines, and where a pixel missed frames it is that of the pixels around.
    """
    some_rows = sampled_rows(sums["frames"].ndim)
    n, S1, Sk = (sums[key][some_rows] for key in ("frames", "expected", name))
    course = Sk / n / (S1 / n) ** power
    usual = local_level(np.where(n == n.max(), course, np.nan))
    course = np.where(n == n.max(), course, usual)
    height = sums["frames"].shape[0]
    if course.ndim == 1 or len(course) == 1:
        return course if course.ndim == 1 else np.repeat(course, height, axis=0)
    place = np.minimum(np.arange(height) / ROW_STEP, len(course) - 1)
    above = np.minimum(place.astype(int), len(course) - 2)
    share = (place - above)[:, None]
    found: np.ndarray = (1 - share) * course[above] + share * course[above + 1]
    return found.astype(np.float32)
