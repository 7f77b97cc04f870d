r"""What the sums of a fit tell against single pixels: which scatter, which bend, which were saturated.

From frame to frame a pixel scatters about its own response with the variance :math:`K s` of photon noise,
and its gain may change with the level, :math:`m = s (a + b s)`. A model says how much of both its sums show
(:class:`Evidence`); here that is held against the pixels around (:mod:`detectorcal.kernels.blocks`), so that
what the whole detector does, flicker, drift, a beam that smoothing bends, counts against no pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import chdtri

from detectorcal._defects import DEFECTS
from detectorcal._typing import Float64, Shape
from detectorcal.kernels.blocks import Band, Index, Spread, Usual, bands, near, rows_between, thin, usual
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


def find_causes(
    sums: Mapping[str, Float64], evidence: Callable[[Index], Evidence], spread_work: Spread
) -> np.ndarray:
    """Flag noisy, nonlinear and saturated pixels.

    Parameters
    ----------
    sums : mapping of str to array of detector shape
        Of the fit.
    evidence : callable
        Gives what the model reads from them of some pixels.
    spread_work : callable
        Calls a function with each of some items.

    Returns
    -------
    array of detector shape, uint8
        Sum of bits; see :data:`~detectorcal._defects.DEFECTS`.
    """
    frames, saturated = sums["frames"], sums["saturated"]
    shape = frames.shape
    flags = np.zeros(shape, np.uint8)
    with np.errstate(all="ignore"):
        some = evidence(thin(shape))
        # of scatter, standard deviations are spread more evenly than variances
        maps = (some.scatter, np.sqrt(np.maximum(some.scatter, 0)), some.bend, frames[thin(shape)])
        usually = spread_work(lambda values: usual(values, shape), maps)
        most = _most_scatter(some.freedom)

    def judge(band: Band) -> None:
        with np.errstate(all="ignore"):
            here = Evidence(*(band.part(values) for values in evidence(band.rows)))
            scatter, root, bend, count = (band.around(each) for each in usually)
            comparable = band.part(frames[band.rows]) >= ENOUGH_FRAMES * count.level
            noisy = comparable & _noisy(here, scatter.level, root, most)
            bent = comparable & _nonlinear(here, scatter.level, bend)
        found = np.uint8(DEFECTS["noisy"]) * noisy + np.uint8(DEFECTS["nonlinear"]) * bent
        flags[band.rows] = found.reshape(flags[band.rows].shape)

    spread_work(judge, bands(shape))
    if saturated.any():
        full = saturated > LARGEST_SATURATED_SHARE * (frames + saturated)
        flags |= np.uint8(DEFECTS["saturated"]) * full
    return flags


def _most_scatter(freedom: np.ndarray) -> np.ndarray:
    """Give, for 0, 1, 2, ... degrees of freedom, the scatter that is not chance, in units of the usual."""
    highest = int(np.rint(np.nanmax(freedom, initial=1)))
    degrees = np.arange(1, max(highest, 1) + 1)
    limits = np.maximum(NOISIER, chdtri(degrees, CHANCE) / degrees)
    return np.concatenate([[np.inf], limits]).astype(np.float32)


def _noisy(here: Evidence, scatter: np.ndarray, root: Usual, most: np.ndarray) -> np.ndarray:
    degrees = np.clip(np.rint(np.nan_to_num(here.freedom)), 0, len(most) - 1).astype(np.int64)
    limit = np.maximum(most[degrees] * scatter, (root.level + N_SPREADS * root.spread) ** 2)
    found: np.ndarray = here.scatter > limit + UNEXPLAINED * here.explained
    found &= (here.scatter > SMALLEST_SCATTER**2 * here.level) & (here.freedom >= 1)
    found[found] = here.scatter[found] > NOISIER * near(here.scatter, found)
    return found


def _nonlinear(here: Evidence, scatter: np.ndarray, bend: Usual) -> np.ndarray:
    away = np.abs(here.bend - bend.level)
    std = np.sqrt(here.bend_variance * np.maximum(here.scatter, scatter))
    limit = np.maximum(N_SPREADS * np.maximum(std, bend.spread), SMALLEST_BEND / (EVEN_RANGE * here.spread))
    found: np.ndarray = (away > limit) & (here.spread > SMALLEST_RELATIVE_SPAN * here.level)
    found[found] = np.abs(here.bend[found] - near(here.bend, found)) > limit[found]
    return found


def line_evidence(
    sums: Mapping[str, Float64], moments: Callable[[Index], tuple[np.ndarray, np.ndarray | None]]
) -> Callable[[Index], Evidence]:
    r"""Read scatter and bend from the sums of a straight line.

    With :math:`d = s - m`, weights :math:`1/s` and :math:`S_k = \sum s^k`, the curvature is
    :math:`b = -(\sum s d - (S_2 / S_1) \sum d) / (S_3 - S_2^2 / S_1)`, of variance K over that denominator.
    What the line leaves of :math:`\sum d^2`, :math:`\sum d^2 - (\sum s d)^2 / S_2`, less what the bend
    explains, :math:`b^2 (S_4 - S_3^2 / S_2)`, is expected to be
    :math:`K (S_1 - S_3 / S_2 - (S_4 - S_3^2 / S_2) / (S_3 - S_2^2 / S_1))`.

    Parameters
    ----------
    sums : mapping of str to array of detector shape
        "frames", "expected", "difference", "difference_squared" of all pixels, and of sampled rows
        "expected_squared", "expected_cubed", "expected_fourth".
    moments : callable
        Gives the sum of s d of some pixels, and their :math:`S_2` where that is known of each.

    Returns
    -------
    callable
        Gives what they tell of some pixels, float32, in units of the sweep's mean level: fourth powers of
        readings of 32 bits would be more than float32 holds.
    """
    n_values = float(np.sum(sums["frames"]))
    unit = (float(np.sum(sums["expected"])) / n_values if n_values else 0.0) or 1.0
    courses = [_course(sums, name, power) for power, name in enumerate(_POWERS, start=2)]
    names = ("frames", "expected", "difference", "difference_squared")

    def evidence(where: Index) -> Evidence:
        powers = (1, unit, unit, unit**2)
        told = ((sums[name][where] / power) for name, power in zip(names, powers, strict=True))
        n, S1, D1, DD = (values.astype(np.float32) for values in told)
        SD, known = moments(where)
        SD = SD / unit**2
        S2, S3, S4 = _levels(S1, n, [_between_rows(c, sums["frames"].shape, where) for c in courses])
        if known is not None:
            S2 = (known / unit**2).astype(np.float32)
        return _evidence_of((S1, S2, S3, S4), (D1, SD.astype(np.float32), DD))

    return evidence


def _levels(S1: np.ndarray, n: np.ndarray, courses: list[np.ndarray]) -> list[np.ndarray]:
    """Give the sums of the 2nd, 3rd and 4th powers of the levels, from their courses."""
    mean = S1 / n
    square = mean * mean
    powers = (mean, square, square * mean)
    return [S1 * power * course for power, course in zip(powers, courses, strict=True)]


def _evidence_of(levels: Sequence[np.ndarray], differences: Sequence[np.ndarray]) -> Evidence:
    """Put the formulas of :func:`line_evidence` to work."""
    (S1, S2, S3, S4), (D1, SD, DD) = levels, differences
    lean, curl = S2 / S1, S4 - S3 * S3 / S2
    schur = S3 - lean * S2
    spread = np.sqrt(np.maximum(schur, 0) / S1)
    spans = spread > SMALLEST_RELATIVE_SPAN * lean  # of equal levels, the bend is rounding over rounding
    bend = np.where(spans, (lean * D1 - SD) / schur, 0)
    per_gain = S1 - S3 / S2 - np.where(spans, curl / schur, 0)
    explained = bend * bend * curl
    rest = DD - SD * SD / S2 - explained
    freedom = S1 * S1 / S2 - 1 - spans
    return Evidence(rest / per_gain, freedom, bend, 1 / schur, spread, lean, explained / per_gain)


_POWERS = ("expected_squared", "expected_cubed", "expected_fourth")


def _course(sums: Mapping[str, Float64], name: str, power: int) -> np.ndarray:
    r"""Give the mean of :math:`s^k` over the k-th power of the mean, in the sampled rows.

    It belongs to the beam's course over the sweep, not to the pixels; where one missed frames it is that of
    the pixels around.
    """
    some_rows = sampled_rows(sums["frames"].ndim)
    n, S1, Sk = (sums[key][some_rows] for key in ("frames", "expected", name))
    with np.errstate(all="ignore"):
        course = Sk / n / (S1 / n) ** power
    seen = np.where(n == n.max(), course, np.nan)
    around = rows_between(usual(seen[thin(n.shape)], n.shape).level, n.shape, (slice(None),))
    return np.where(n == n.max(), course, around).astype(np.float32)


def _between_rows(course: np.ndarray, shape: Shape, where: Index) -> np.ndarray:
    """Give the course at some pixels: between the sampled rows on straight lines."""
    if len(shape) == 1:
        return course[where]
    place = np.minimum(np.arange(shape[0])[where[0]] / ROW_STEP, len(course) - 1)
    above = np.minimum(place.astype(int), max(len(course) - 2, 0))
    below = np.minimum(above + 1, len(course) - 1)
    share = (place - above).astype(np.float32)[:, None]
    columns = course[:, where[1]] if len(where) > 1 else course
    found: np.ndarray = (1 - share) * columns[above] + share * columns[below]
    return found
