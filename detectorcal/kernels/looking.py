r"""Pixels unlike their neighbours, found before anything is summed.

A few frames of the sweep, averaged in groups, are held against what is usual around each pixel
(:mod:`detectorcal.kernels.blocks`). With :math:`g_i` a pixel's mean in group `i` and :math:`e_i` the usual
one, its response is :math:`a = \sum g / \sum e`; how it follows the light is the slope `b` of the straight
line through the :math:`(e_i, g_i)`; and how it scatters is :math:`q = \sum (g_i / e_i - a)^2`. Each is
judged by its own robust spread over the pixels around, which holds the sweep's own noise, so that no noise
makes a pixel strange.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from detectorcal._defects import DEFECTS, LARGEST_COEF
from detectorcal.kernels.blocks import ROWS_AT_ONCE, local_level, local_medians, local_spread, rows_between

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

N_DARK_SPREADS = 10.0
"""Robust standard deviations of the dark beyond which a pixel's is strange; darks have no normal
distribution."""


class _Course(NamedTuple):
    """What groups of frames tell of each pixel; see the head of the module."""

    response: np.ndarray
    slope: np.ndarray
    scatter: np.ndarray
    contrast: np.ndarray
    level: np.ndarray


def unlike_neighbours(groups: np.ndarray, dark: np.ndarray | None) -> np.ndarray:
    """Find the pixels whose values would spoil those expected of their neighbours.

    Parameters
    ----------
    groups : array of shape (n_groups, *detector_shape), floating
        Means of measured frames, DN; NaN where a pixel is not to be believed.
    dark : array of shape detector_shape, or None
        DN, where there is one for all frames.

    Returns
    -------
    array of shape detector_shape, uint8
        1 where a pixel does not follow the light and reads little, 2 where it reads much, 8 where it is only
        unlike its neighbours; 0 elsewhere, and everywhere on a detector of a few pixels.
    """
    found = np.zeros(groups.shape[1:], np.uint8)
    if found.size < FEWEST_PIXELS:
        return found
    with np.errstate(all="ignore"):
        course = _course(groups)
        strange = _strange_response(course)
        if dark is not None and dark.any():
            strange |= _strange_dark(dark, course.level)
        strange |= _scatters(course.scatter, len(groups))
        dead, hot = _deaf(course)
    found[strange] = DEFECTS["nonlinear"]
    found[dead], found[hot] = DEFECTS["dead"], DEFECTS["hot"]
    return found


def _course(groups: np.ndarray) -> _Course:
    medians = [local_medians(group) for group in groups]
    shape = groups.shape[1:]
    course = _Course(*(np.empty(shape, groups.dtype) for _ in _Course._fields))
    for start in range(0, shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE) if len(shape) == 2 else slice(None)
        expected = np.stack([rows_between(m, shape, rows) for m in medians])
        for values, out in zip(_course_of(groups[:, rows], expected), course, strict=True):
            out[rows] = values
    return course


def _course_of(measured: np.ndarray, expected: np.ndarray) -> _Course:
    level = expected.mean(axis=0)
    response = measured.sum(axis=0) / expected.sum(axis=0)
    away = expected - level
    squares = np.einsum("g...,g...->...", away, away)
    slope = np.einsum("g...,g...->...", away, measured) / squares
    contrast = np.sqrt(squares / len(measured)) / level
    relative = measured / expected
    relative -= response
    return _Course(response, slope, np.einsum("g...,g...->...", relative, relative), contrast, level)


def _strange_response(course: _Course) -> np.ndarray:
    deviation = course.response - 1
    limit = np.maximum(N_SPREADS * local_spread(deviation), SMALLEST_DEVIATION)
    strange: np.ndarray = np.abs(deviation) > limit
    return strange


def _strange_dark(dark: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Find darks far from those around, so far that their noise or drift would matter."""
    deviation = dark - local_level(np.asarray(dark, level.dtype))
    limit = np.maximum(N_DARK_SPREADS * local_spread(deviation), SMALLEST_DEVIATION * np.abs(level))
    strange: np.ndarray = np.abs(deviation) > limit
    return strange


def _scatters(scatter: np.ndarray, n_groups: int) -> np.ndarray:
    """Find pixels that scatter, from group to group, far more than those around."""
    if n_groups < 2:
        return np.zeros(scatter.shape, bool)
    freedom = n_groups - 1
    usual = local_level(scatter)
    limit = usual * chdtri(freedom, CHANCE_OF_SCATTER) / chdtri(freedom, 0.5)
    found: np.ndarray = scatter > np.maximum(limit, freedom * SMALLEST_DEVIATION**2)
    return found


def _deaf(course: _Course) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels that do not follow the light: those that read little, and those that read much.

    Where all levels are alike it is the response itself that is judged.
    """
    told = course.contrast > SMALLEST_CONTRAST
    follows = np.where(told, course.slope, course.response)
    surely = N_SPREADS * local_spread(follows - 1) < 1 - 1 / LARGEST_COEF
    deaf = surely & (follows < 1 / LARGEST_COEF)
    hot = (deaf & told & (course.response > 1)) | (surely & (course.response > LARGEST_COEF))
    return deaf & ~hot, hot
