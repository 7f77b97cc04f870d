r"""What the sums of a fit tell against single pixels: which scatter, which bend, which were saturated.

From frame to frame a pixel scatters about its own response with the variance :math:`K s` of photon noise,
and its gain may change with the level, :math:`m = s (a + b s)`. A model says how much of both its sums show
(:class:`Evidence`); here that is held against the pixels around (:mod:`detectorcal.kernels.blocks`), so that
what the whole detector does, flicker, drift, a beam that smoothing bends, counts against no pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import chdtri

from detectorcal._defects import DEFECTS
from detectorcal._typing import Float64, Shape
from detectorcal.kernels.blocks import (
    Band,
    Index,
    Spread,
    Usual,
    bands,
    near,
    only,
    rows_between,
    take_rows,
    thin,
    usual,
    usual_at,
)
from detectorcal.kernels.model import ROW_STEP, SMALLEST_SPAN, Evidence, sampled_rows

__all__ = ["COURSE", "find_causes", "line_evidence"]

COURSE = ("expected_squared", "expected_cubed", "expected_fourth")
"""Sums that tell how the levels of the sweep are spread."""

NOISIER = 4.0
"""Times the variance of the pixels around from where on a pixel is noisy: it then counts for less than a
quarter of one of them."""

CHANCE = 1e-8
"""Chance for a usual pixel to be that noisy, as the degrees of freedom of short sweeps allow: of ten million
pixels none is."""

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
        # of scatter, standard deviations are spread more evenly than variances, and have the same median
        maps = np.sqrt(np.maximum(some.scatter, 0)), some.bend, frames[thin(shape)]
        root, bend, count = spread_work(lambda values: usual(values, shape), maps)

    def comparable(at: Index) -> Index:
        return only(at, frames[at] >= ENOUGH_FRAMES * usual_at(count, shape, at).level)

    def judge(band: Band) -> None:
        with np.errstate(all="ignore"):
            here = evidence(band.rows)
            much = band.part(here.scatter) > NOISIER * band.around(root).level ** 2
            noisy = _noisy(evidence, comparable(band.pixels(much, shape)), root, shape)
            around = band.around(bend)
            off = np.abs(band.part(here.bend) - around.level) > N_SPREADS * around.spread
            bent = _nonlinear(evidence, comparable(band.pixels(off, shape)), root, bend, shape)
        flags[noisy] |= np.uint8(DEFECTS["noisy"])
        flags[bent] |= np.uint8(DEFECTS["nonlinear"])

    spread_work(judge, bands(shape))
    if saturated.any():
        full = saturated > LARGEST_SATURATED_SHARE * (frames + saturated)
        flags |= np.uint8(DEFECTS["saturated"]) * full
    return flags


def _noisy(evidence: Callable[[Index], Evidence], at: Index, root: Usual, shape: Shape) -> Index:
    """Choose the noisy ones of some pixels."""
    here, around = evidence(at), usual_at(root, shape, at)
    limit = np.maximum(
        _most_scatter(here.freedom) * around.level**2, (around.level + N_SPREADS * around.spread) ** 2
    )
    # whoever reads more scatters more, and is corrected: what counts is what is left then
    limit *= np.maximum(here.response, 1) ** 2
    found = here.scatter > limit + UNEXPLAINED * here.explained
    found &= (here.scatter > SMALLEST_SCATTER**2 * here.level) & (np.rint(here.freedom) >= 1)
    at = only(at, found)
    beside = near(lambda places: evidence(places).scatter, shape, at)
    return only(at, here.scatter[found] > NOISIER * beside * np.maximum(here.response[found], 1) ** 2)


def _most_scatter(freedom: np.ndarray) -> np.ndarray:
    """Give the scatter that is not chance, in units of the usual, which is a median."""
    degrees = np.rint(np.nan_to_num(freedom)).astype(np.int64)
    least, most = int(max(degrees.min(initial=1), 1)), int(degrees.max(initial=1))
    each = np.arange(least, most + 1)
    limits = np.maximum(NOISIER, chdtri(each, CHANCE) / chdtri(each, 0.5))
    found: np.ndarray = limits[np.clip(degrees, least, most) - least]
    return found


def _nonlinear(
    evidence: Callable[[Index], Evidence], at: Index, root: Usual, bend: Usual, shape: Shape
) -> Index:
    """Choose the nonlinear ones of some pixels."""
    here, around = evidence(at), usual_at(bend, shape, at)
    usual_scatter = usual_at(root, shape, at).level ** 2
    std = np.sqrt(here.bend_variance * np.maximum(here.scatter, usual_scatter))
    limit = np.maximum(N_SPREADS * np.maximum(std, around.spread), SMALLEST_BEND / (EVEN_RANGE * here.spread))
    found = (np.abs(here.bend - around.level) > limit) & (here.spread > SMALLEST_SPAN * here.level)
    at = only(at, found)
    beside = near(lambda places: evidence(places).bend, shape, at)
    return only(at, np.abs(here.bend[found] - beside) > limit[found])


def line_evidence(
    sums: Mapping[str, Float64], moments: Callable[[Index], tuple[np.ndarray, np.ndarray | None]]
) -> Callable[[Index], Evidence]:
    r"""Read scatter and bend from the sums of a straight line.

    With :math:`d = s - m`, weights :math:`1/s` and :math:`S_k = \sum s^k`, the curvature is
    :math:`b = ((S_2 / S_1) \sum d - \sum s d) / h`, of variance `K` over :math:`h = S_3 - S_2^2 / S_1`.
    What the line leaves of :math:`\sum d^2`, :math:`\sum d^2 - (\sum s d)^2 / S_2`, less what the bend
    explains, :math:`b^2 q` with :math:`q = S_4 - S_3^2 / S_2`, is expected to be
    :math:`K (S_1 - S_3 / S_2 - q / h)`. All is in units of a pixel's mean level :math:`S_1 / n`, so that
    :math:`S_1 = n` and the other :math:`S_k / n` tell the course of the beam over the sweep.

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
        Gives what they tell of some pixels.
    """
    shape = sums["frames"].shape
    with np.errstate(all="ignore"):
        lean, cubed, fourth = (_course(sums, name, power) for power, name in enumerate(COURSE, start=2))
        schur = np.maximum(cubed - lean**2, 0)
        spread = np.sqrt(schur)
        spans = spread > SMALLEST_SPAN * lean  # of equal levels, the bend is rounding over rounding
        curl = fourth - cubed**2 / lean
        per_bend = np.where(spans, 1 / schur, 0)
        lost = cubed / lean + curl * per_bend
    course = np.stack([lean, curl, per_bend, lost, spread, spans])
    n_sampled = course.shape[1] if len(shape) == 2 else 0
    nearest = np.minimum((np.arange(shape[0]) + ROW_STEP // 2) // ROW_STEP, n_sampled - 1)

    def evidence(where: Index) -> Evidence:
        n, S1, D1, DD = (sums[name][where] for name in _LINE)
        SD, S2 = moments(where)
        unit = n / S1
        D1, n = (D1 * unit).astype(np.float32), n.astype(np.float32)
        here = course[:, *where] if len(shape) == 1 else take_rows(course, nearest, where)
        lean, curl, per_bend, lost, spread, spans = here
        unit *= unit
        SD, DD = (SD * unit).astype(np.float32), (DD * unit).astype(np.float32)
        if S2 is not None:
            lean = (S2 * unit).astype(np.float32) / n
        bend = (lean * D1 - SD) * per_bend / n
        told = n - lost
        explained = bend * bend * (n * curl)
        off = SD / (n * lean)
        scatter, freedom = (DD - SD * off - explained) / told, n / lean - 1 - spans
        explained /= told
        return Evidence(scatter, freedom, bend, per_bend / n, spread, lean, explained, 1 - off)

    return evidence


_LINE = ("frames", "expected", "difference", "difference_squared")


def _course(sums: Mapping[str, Float64], name: str, power: int) -> np.ndarray:
    r"""Give the mean of :math:`s^k` over the k-th power of the mean, in the sampled rows.

    It belongs to the beam's course over the sweep, not to the pixels; where one missed frames it is that of
    the pixels around.
    """
    some_rows = sampled_rows(sums["frames"].ndim)
    n, S1, Sk = (sums[key][some_rows] for key in ("frames", "expected", name))
    course = Sk / n / (S1 / n) ** power
    seen = np.where(n == n.max(), course, np.nan)
    around = rows_between(usual(seen[thin(n.shape)], n.shape).level, n.shape, (slice(None),))
    return np.where(n == n.max(), course, around).astype(np.float32)
