r"""The straight line through the origin: expected = coefficient x measured.

With :math:`m` the measured and :math:`s` the expected value of a pixel in each frame and
:math:`d = s - m`, least squares of expected on measured (the paper's method [1]_) is

.. math:: c = \sum s m / \sum m^2 = 1 + \sum m d / \sum m^2,

and weighting each frame by the inverse of its photon noise, which grows with the intensity, is

.. math:: c = \sum s / \sum m = 1 + \sum d / \sum m.

The second forms are the ones summed: they keep eight digits where the first keep five.

References
----------
.. [1] L. C. P. Croton, G. Ruben, K. S. Morgan, D. M. Paganin, M. J. Kitchen, "Ring artifact suppression
   in X-ray computed tomography using a simple, pixel-wise response correction", Opt. Express 27(10)
   14231 (2019), https://doi.org/10.1364/OE.27.014231
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from detectorcal._arrays import namespace, sum_of_products
from detectorcal._typing import Array, Float64
from detectorcal.kernels.blocks import Index
from detectorcal.kernels.causes import COURSE, line_evidence
from detectorcal.kernels.model import ROW_STEP, Evidence, Response, sampled_rows
from detectorcal.kernels.pairs import (
    at_left_pixel,
    between_pixels,
    comparable_pairs,
    noise_scale,
    nonzero,
    pair_in,
)

__all__ = ["Croton", "Photon", "estimate_system_gain"]


class Photon:
    """Photon-noise weights: no regression dilution; exact for Poisson statistics."""

    names: tuple[str, ...] = ("difference", "expected_difference", "difference_squared")
    sampled_names: tuple[str, ...] = (*COURSE, "pair_scatter")
    curved = False
    twice = False

    def accumulate(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        difference = measured
        difference -= expected  # in place, and so with the other sign
        return {
            "difference": -sum_of_products(difference),
            "expected_difference": -sum_of_products(expected, difference),
            "difference_squared": sum_of_products(difference, difference),
        }

    def accumulate_sampled(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {**_course(expected), "pair_scatter": _pair_scatter(expected, measured)}

    def evidence(self, sums: Mapping[str, Float64]) -> Callable[[Index], Evidence]:
        """Tell how pixels scatter and bend."""
        return line_evidence(sums, lambda where: (sums["expected_difference"][where], None))

    def solve(
        self, sums: Mapping[str, Float64], system_gain: float | None, labels: np.ndarray | None = None
    ) -> Response:
        r"""Solve the line; relative variance :math:`K c / \sum s`."""
        gain = estimate_system_gain(sums, labels) if system_gain is None else system_gain
        with _nothing_by_nothing():
            coef = 1 + sums["difference"] / (sums["expected"] - sums["difference"])
            return Response(coef, gain * coef / sums["expected"], gain, _mean_level(sums))


class Croton:
    """Unweighted least squares, the paper's method."""

    names: tuple[str, ...] = ("measured_difference", "measured_squared", "difference", "difference_squared")
    sampled_names: tuple[str, ...] = (*COURSE, "pair_scatter")
    curved = False
    twice = False

    def accumulate(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        difference = expected
        difference -= measured  # in place: a third array of this size would not stay in cache
        return {
            "measured_difference": sum_of_products(measured, difference),
            "measured_squared": sum_of_products(measured, measured),
            "difference": sum_of_products(difference),
            "difference_squared": sum_of_products(difference, difference),
        }

    def accumulate_sampled(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {**_course(expected), "pair_scatter": _pair_scatter(expected, measured)}

    def evidence(self, sums: Mapping[str, Float64]) -> Callable[[Index], Evidence]:
        """Tell how pixels scatter and bend: s = m + d, so that s d and s^2 follow from what is summed."""

        def moments(where: Index) -> tuple[Float64, Float64 | None]:
            md, mm, dd = (sums[name][where] for name in (*self.names[:2], "difference_squared"))
            expected_difference: Float64 = md + dd
            return expected_difference, mm + md + expected_difference

        return line_evidence(sums, moments)

    def solve(
        self, sums: Mapping[str, Float64], system_gain: float | None, labels: np.ndarray | None = None
    ) -> Response:
        r"""Solve the line; relative variance :math:`K c \sum s^3 / (\sum s^2)^2`.

        Propagating :math:`\mathrm{var}(m) = K m` through the estimator gives this; the textbook formula
        for unweighted least squares, which takes the noise for the same in all frames, is 17 % low.
        It is :math:`K c / \sum s` times the sweep's own :func:`_skewness`.
        """
        gain = estimate_system_gain(sums, labels) if system_gain is None else system_gain
        with _nothing_by_nothing():
            coef = sums["measured_difference"] / sums["measured_squared"]
            coef += 1
            variance = coef * gain
            variance /= sums["expected"]
            _multiply_rows(variance, _skewness(sums, coef))
        return Response(coef, variance, gain, _mean_level(sums))


def _course(expected: Array) -> dict[str, Array]:
    """Sum the powers of the expected values that tell the course of the sweep."""
    squared = expected * expected
    return {
        "expected_squared": sum_of_products(squared),
        "expected_cubed": sum_of_products(squared, expected),
        "expected_fourth": sum_of_products(squared, squared),
    }


def _mean_level(sums: Mapping[str, Float64]) -> float:
    """Mean expected value of the sweep, DN."""
    n_values = float(np.sum(sums["frames"]))
    return float(np.sum(sums["expected"])) / n_values if n_values else 0.0


def _skewness(sums: Mapping[str, Float64], coef: Float64) -> Float64:
    r"""Give :math:`\sum s \sum s^3 / (\sum s^2)^2` in the sampled rows: 1 for equal frames, 9/8 for a ladder.

    It belongs to the beam's course over the sweep, not to the pixels, so those between take it from the
    sampled row above them. Where a pixel was not solved it is the median.
    """
    some_rows = sampled_rows(coef.ndim)
    names = ("expected", "measured_squared", "expected_cubed")
    expected, measured_squared, expected_cubed = (sums[name][some_rows] for name in names)
    skewness = expected * expected_cubed / (coef[some_rows] ** 2 * measured_squared) ** 2
    known = skewness[np.isfinite(skewness)]
    return np.where(np.isfinite(skewness), skewness, np.median(known) if known.size else np.nan)


def _multiply_rows(values: Float64, sampled: Float64) -> None:
    """Multiply each row in place by the sampled row above it; a line detector has all its pixels sampled."""
    if values.ndim == 1:
        values *= sampled
        return
    for row, factors in zip(range(0, len(values), ROW_STEP), sampled, strict=True):
        values[row : row + ROW_STEP] *= factors


def _pair_scatter(expected: Array, measured: Array) -> Array:
    r"""Sum :math:`D^2 / S` over frames, D and S the difference and sum over a pair of pixels."""
    xp = namespace(expected)
    frame = expected[0, ...]
    pair = pair_in(frame.shape[-1])
    if pair is None:
        return xp.zeros_like(frame)
    total, between = between_pixels(expected, measured, pair)
    between *= between
    between /= nonzero(total)
    return at_left_pixel(xp.sum(between, axis=0, dtype=frame.dtype), frame, pair)


def estimate_system_gain(sums: Mapping[str, Float64], labels: np.ndarray | None = None) -> float:
    r"""Estimate K, DN per electron, from how pairs of pixels scatter about a line of their own.

    The difference D of two pixels follows :math:`D = \delta S` with photon noise of variance
    :math:`K S`, so :math:`\sum D^2/S - (\sum D)^2 / \sum S` is K times a chi-squared variable with one
    degree of freedom less than there are frames.

    Parameters
    ----------
    sums : mapping of str to array
        The sums of :class:`Photon`.
    labels : array of shape detector_shape, int, or None
        Label of each pixel's region, if there are any: pairs are of one region.

    Returns
    -------
    float
        System gain, DN per electron; NaN if fewer than two frames or two pixels were seen.
    """
    some_rows = sampled_rows(sums["frames"].ndim)
    frames, difference, expected, scatter = (
        sums[name][some_rows] for name in ("frames", "difference", "expected", "pair_scatter")
    )
    pair = pair_in(frames.shape[-1])
    used = None if pair is None else comparable_pairs(frames, pair, 2, labels)
    if pair is None or used is None:
        return float("nan")
    left, right = pair
    between = (difference[..., right] - difference[..., left])[used]
    total = (expected[..., right] + expected[..., left])[used]
    scatter = scatter[..., left][used] - between**2 / total
    return noise_scale(scatter, frames[..., left][used].astype(int) - 1)


def _nothing_by_nothing() -> np.errstate:
    """Let pixels without sums become NaN: nothing is known of them."""
    return np.errstate(divide="ignore", invalid="ignore")
