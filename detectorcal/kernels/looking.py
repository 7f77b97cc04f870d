r"""Pixels unlike their neighbours, found before anything is summed.

A few frames of the sweep, averaged in groups, are held against what is usual around each pixel
(:mod:`detectorcal.kernels.blocks`). With :math:`g_i` a pixel's mean in group `i` and :math:`e_i` the usual
one, its response is :math:`a = \sum g / \sum e`; how it follows the light is the slope `b` of the straight
line through the :math:`(e_i, g_i)`; and how it scatters is
:math:`q = \sum (g_i - a e_i)^2 / (e_i \bar e)`. Each is judged by its own robust spread over the pixels
around, which holds the sweep's own noise, so that no noise makes a pixel strange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from detectorcal._defects import DEFECTS, LARGEST_COEF
from detectorcal._typing import Shape
from detectorcal.kernels.blocks import (
    Band,
    Index,
    Spread,
    Usual,
    bands,
    near,
    only,
    rows_between,
    thin,
    usual,
    usual_at,
)

__all__ = ["FEWEST_PIXELS", "unlike_neighbours"]

FEWEST_PIXELS = 64
"""On a smaller detector there is no telling what is usual."""

N_SPREADS = 6.0
"""Robust standard deviations of the pixels' responses beyond which one is strange: of 10^8
normal pixels none is."""

SMALLEST_DEVIATION = 0.1
"""Relative deviation, of response or scatter, under which none is: it does the expected values no harm."""

CHANCE_OF_SCATTER = 1e-9
"""Chance for a usual pixel to be taken for one that scatters."""

SMALLEST_CONTRAST = 0.1
"""Relative spread of the levels from where on a pixel can be asked whether it follows them."""

DIMMEST = 0.01
"""Share of the brightest level under which a pixel lies in the shadow, and nothing is told of it."""

STUCK = 0.5
"""A hot pixel reads no less than this share of its largest reading in any group."""

N_DARK_SPREADS = 10.0
"""Robust standard deviations of the dark beyond which a pixel's is strange; darks have no normal
distribution."""


class _Course(NamedTuple):
    """What groups of frames tell of each pixel; see the head of the module."""

    response: np.ndarray
    follows: np.ndarray
    """The slope, or the response where the levels differ too little to ask for it."""
    leverage: np.ndarray
    """Relative error of that over the relative error of one group."""
    scatter: np.ndarray
    level: np.ndarray
    """Of the pixels around, DN."""
    evenness: np.ndarray
    """Smallest over largest reading."""


def unlike_neighbours(
    groups: np.ndarray, dark: np.ndarray | None, cutoff: float, spread_work: Spread
) -> np.ndarray:
    """Find the pixels whose values would spoil those expected of their neighbours.

    Parameters
    ----------
    groups : array of shape (n_groups, *detector_shape), floating
        Means of measured frames, DN; NaN where a pixel is not to be believed.
    dark : array of shape detector_shape, floating, or None
        DN, where there is one for all frames.
    cutoff : float
        Where levels are not above this, DN, nothing is concluded.
    spread_work : callable
        Calls a function with each of some items; a pool's ``map``, for bands need nothing of each other.

    Returns
    -------
    array of shape detector_shape, uint8
        1 where a pixel does not follow the light and reads little, 2 where it reads much, 8 where it is only
        unlike its neighbours; 0 elsewhere, and everywhere on a detector of a few pixels.
    """
    found = np.zeros(groups.shape[1:], np.uint8)
    if found.size < FEWEST_PIXELS:
        return found
    shape = found.shape
    some = thin(shape)

    def level_of(group: np.ndarray) -> np.ndarray:
        return usual(group[some], shape, goes_on=True).level

    levels = spread_work(level_of, list(groups))
    seen = _Groups(groups, levels)
    course = seen.course(some)
    asked = [course.response, course.follows, course.scatter, *([] if dark is None else [dark[some]])]
    response, follows, scatter, *of_dark = spread_work(lambda values: usual(values, shape), asked)
    dimmest = max(cutoff, DIMMEST * float(np.max(np.mean(levels, axis=0))))

    def judge(band: Band) -> None:
        doubtful = seen.doubtful(band)
        if dark is not None:
            doubtful |= _strange_dark(band.part(dark[band.rows]), band.around(of_dark[0]))
        at = band.pixels(doubtful, shape)
        here = seen.course(at)
        with np.errstate(invalid="ignore"):
            strange = _strange_response(seen, at, here, usual_at(response, shape, at).spread)
            usual_scatter = usual_at(scatter, shape, at).level
            strange |= _scatters(seen, at, here, usual_scatter)
            if dark is not None:
                strange |= _strange_dark(dark[at], usual_at(of_dark[0], shape, at), here.level)
            noise = np.sqrt(np.maximum(usual_scatter, 0) / max(len(groups) - 1, 1))
            dead, hot = _deaf(here, usual_at(follows, shape, at).spread, noise)
        flags = strange * np.uint8(DEFECTS["nonlinear"])
        flags[dead], flags[hot] = DEFECTS["dead"], DEFECTS["hot"]
        found[at] = np.where(here.level > dimmest, flags, 0)

    spread_work(judge, bands(shape))
    return found


@dataclass(frozen=True)
class _Groups:
    """Groups of frames, and what is usual in each."""

    means: np.ndarray
    levels: Sequence[np.ndarray]

    @property
    def shape(self) -> Shape:
        return self.means.shape[1:]

    def course(self, where: Index) -> _Course:
        """Tell what they do at some pixels."""
        with np.errstate(all="ignore"):
            expected = np.stack([rows_between(level, self.shape, where) for level in self.levels])
            return _course_of(np.ascontiguousarray(self.means[:, *where]), expected)

    def doubtful(self, band: Band) -> np.ndarray:
        r"""Choose the pixels that have to be looked at closely, of which a good detector has few.

        If all :math:`g_i = e_i (1 + \delta_i)` with :math:`|\delta_i| \le x`, the response deviates by `x` at
        most; the scatter of `n` groups is :math:`n x^2` at most, since `a` is where it is least; and the
        slope, asked for where the contrast of the levels is at least `C`, is at least
        :math:`1 - x \sqrt{1 + 1/C^2}` (Cauchy and Schwarz).
        """
        n = len(self.means)
        still_follows = (1 - 1 / LARGEST_COEF) / np.sqrt(1 + 1 / SMALLEST_CONTRAST**2)
        x = min(SMALLEST_DEVIATION * np.sqrt(max(n - 1, 1) / n), still_follows)
        doubtful = np.zeros(band.part(self.means[0][band.rows]).shape, bool)
        for mean, level in zip(self.means, self.levels, strict=True):
            values = band.part(mean[band.rows])
            least, most = band.limits(level, self.shape)
            doubtful |= (values < (1 - x) * least) | (values > (1 + x) * most)
        return doubtful


def _course_of(measured: np.ndarray, expected: np.ndarray) -> _Course:
    level = expected.mean(axis=0)
    response = measured.sum(axis=0) / expected.sum(axis=0)
    away = expected - level
    squares = np.einsum("g...,g...->...", away, away)
    slope = np.einsum("g...,g...->...", away, measured) / squares
    told = squares > len(measured) * (SMALLEST_CONTRAST * level) ** 2
    rest = measured - response * expected
    rest *= rest
    rest /= expected
    scatter = rest.sum(axis=0) / level
    evenness = measured.min(axis=0) / measured.max(axis=0)
    leverage = np.where(told, level / np.sqrt(squares), 1.0)
    return _Course(response, np.where(told, slope, response), leverage, scatter, level, evenness)


def _strange_response(seen: _Groups, at: Index, here: _Course, spread: np.ndarray) -> np.ndarray:
    limit = np.maximum(N_SPREADS * spread, SMALLEST_DEVIATION)
    found: np.ndarray = np.abs(here.response - 1) > limit
    beside = near(lambda places: seen.course(places).response, seen.shape, only(at, found))
    found[found] = np.abs(here.response[found] - beside) > limit[found]
    return found


def _scatters(seen: _Groups, at: Index, here: _Course, around: np.ndarray) -> np.ndarray:
    """Find pixels that scatter, from group to group, far more than those around."""
    freedom = len(seen.means) - 1
    if not freedom:
        return np.zeros(here.scatter.shape, bool)
    times = chdtri(freedom, CHANCE_OF_SCATTER) / chdtri(freedom, 0.5)
    found: np.ndarray = here.scatter > np.maximum(times * around, freedom * SMALLEST_DEVIATION**2)
    beside = near(lambda places: seen.course(places).scatter, seen.shape, only(at, found))
    found[found] = here.scatter[found] > times * beside
    return found


def _strange_dark(dark: np.ndarray, around: Usual, level: np.ndarray | float = 0.0) -> np.ndarray:
    """Find darks far from those around, so far that their noise or drift would matter at that level."""
    limit = np.maximum(N_DARK_SPREADS * around.spread, SMALLEST_DEVIATION * np.abs(level))
    strange: np.ndarray = np.abs(dark - around.level) > limit
    return strange


def _deaf(course: _Course, spread: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels that do not follow the light: those that read little, and those that read much.

    ``noise`` is the relative noise of a group, and with its leverage that of the slope.
    """
    error = N_SPREADS * np.maximum(spread, course.leverage * noise)
    deaf = (error < 1 - 1 / LARGEST_COEF) & (course.follows < 1 / LARGEST_COEF)
    stuck = course.evenness > STUCK  # and not struck by a few spots
    much = (deaf & (course.response > 1)) | (course.response > LARGEST_COEF)
    return deaf & (course.response < 1), much & stuck
