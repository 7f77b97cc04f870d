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

from collections.abc import Mapping

import numpy as np

from detectorcal._arrays import namespace, sum_of_products
from detectorcal._typing import Array, Float64
from detectorcal.kernels.model import ROW_STEP, Response, sampled_rows

__all__ = ["Croton", "Photon", "system_gain"]

NEIGHBOUR_DISTANCE = 4
"""Pixels between the two whose difference tells the noise: near enough to share the error that smoothing
makes on a curved beam, further than light usually spreads."""

SMALLEST_SHARE_OF_PAIRS = 0.01
"""Below this share of pairs seen in equally many frames the noise is taken as not known."""


class Photon:
    """Photon-noise weights: no regression dilution; exact for Poisson statistics."""

    names: tuple[str, ...] = ("difference",)
    sampled_names: tuple[str, ...] = ("pair_scatter",)

    def accumulate(self, measured: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {"difference": sum_of_products(difference)}

    def accumulate_sampled(self, expected: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {"pair_scatter": _pair_scatter(difference, expected)}

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        r"""Solve the line; relative variance :math:`K c / \sum s`."""
        gain = system_gain(sums)
        with _nothing_by_nothing():
            coef = 1 + sums["difference"] / (sums["expected"] - sums["difference"])
            return Response(coef, gain * coef / sums["expected"], gain)


class Croton:
    """Unweighted least squares, the paper's method."""

    names: tuple[str, ...] = ("measured_difference", "measured_squared")
    sampled_names: tuple[str, ...] = ("difference", "expected_cubed", "pair_scatter")

    def accumulate(self, measured: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {
            "measured_difference": sum_of_products(measured, difference),
            "measured_squared": sum_of_products(measured, measured),
        }

    def accumulate_sampled(self, expected: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return {
            "difference": sum_of_products(difference),
            "expected_cubed": sum_of_products(expected, expected, expected),
            "pair_scatter": _pair_scatter(difference, expected),
        }

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        r"""Solve the line; relative variance :math:`K c \sum s^3 / (\sum s^2)^2`.

        Propagating :math:`\mathrm{var}(m) = K m` through the estimator gives this; the textbook formula
        for unweighted least squares, which takes the noise for the same in all frames, is 17 % low.
        It is :math:`K c / \sum s` times the sweep's own :func:`_skewness`.
        """
        gain = system_gain(sums)
        with _nothing_by_nothing():
            coef = sums["measured_difference"] / sums["measured_squared"]
            coef += 1
            variance = _skewness(sums, coef)
            variance *= coef
            variance *= gain
            variance /= sums["expected"]
        return Response(coef, variance, gain)


def _skewness(sums: Mapping[str, Float64], coef: Float64) -> Float64:
    r"""Give :math:`\sum s \sum s^3 / (\sum s^2)^2` at every pixel: 1 for equal frames, 9/8 for a ladder.

    It belongs to the beam's course over the sweep, not to the pixels, so each takes it from the sampled
    row above it, or, where that pixel was not solved, the median.
    """
    some_rows = sampled_rows(coef.ndim)
    names = ("expected", "measured_squared", "expected_cubed")
    expected, measured_squared, expected_cubed = (sums[name][some_rows] for name in names)
    skewness = expected * expected_cubed / (coef[some_rows] ** 2 * measured_squared) ** 2
    known = skewness[np.isfinite(skewness)]
    skewness = np.where(np.isfinite(skewness), skewness, np.median(known) if known.size else np.nan)
    if coef.ndim == 1:
        return skewness
    return np.repeat(skewness, ROW_STEP, axis=0)[: len(coef)]


def _pair(width: int) -> tuple[slice, slice] | None:
    """Columns of the left and of the right pixels of pairs; None where a row is one pixel wide."""
    distance = min(NEIGHBOUR_DISTANCE, width - 1)
    return (slice(None, width - distance), slice(distance, None)) if distance else None


def _pair_scatter(difference: Array, expected: Array) -> Array:
    r"""Sum :math:`D^2 / S` over frames, D and S the difference and sum over a pair of pixels of a row.

    The sum stands at the left pixel of the pair; everywhere else is 0.
    """
    xp = namespace(difference)
    scatter = xp.zeros_like(difference[0, ...])
    pair = _pair(scatter.shape[-1])
    if pair is not None:
        left, right = pair
        between = difference[..., right] - difference[..., left]
        total = expected[..., right] + expected[..., left]
        between *= between
        # a pair that takes no part is 0 in both: any other total will do for it
        between /= total + xp.astype(total == 0, total.dtype)
        scatter[..., left] = xp.sum(between, axis=0, dtype=difference.dtype)
    return scatter


def system_gain(sums: Mapping[str, Float64]) -> float:
    r"""Estimate K, DN per electron, from how pairs of pixels scatter about a line of their own.

    The difference D of two pixels follows :math:`D = \delta S` with photon noise of variance
    :math:`K S`, so :math:`\sum D^2/S - (\sum D)^2 / \sum S` is K times a chi-squared variable with one
    degree of freedom less than there are frames. K is the median over pairs, each divided by the median
    of its own chi-squared distribution. What two near pixels share drops out: the beam that smoothing
    bends, flicker, drift.

    Parameters
    ----------
    sums : mapping of str to array
        The sums of :class:`Photon`.

    Returns
    -------
    float
        System gain, DN per electron; NaN if fewer than two frames or two pixels were seen.
    """
    some_rows = sampled_rows(sums["frames"].ndim)
    frames, difference, expected, scatter = (
        sums[name][some_rows] for name in ("frames", "difference", "expected", "pair_scatter")
    )
    pair = _pair(frames.shape[-1])
    if pair is None:
        return float("nan")
    left, right = pair
    comparable = (frames[..., left] == frames[..., right]) & (frames[..., left] > 1)
    if comparable.mean() < SMALLEST_SHARE_OF_PAIRS:
        return float("nan")
    between = (difference[..., right] - difference[..., left])[comparable]
    total = (expected[..., right] + expected[..., left])[comparable]
    scatter = scatter[..., left][comparable] - between**2 / total
    freedom = frames[..., left][comparable].astype(int) - 1
    return float(np.median(scatter / _chi_squared_medians(freedom.max())[freedom]))


def _chi_squared_medians(largest: int) -> Float64:
    """Medians of the chi-squared distributions with 0 to ``largest`` degrees of freedom."""
    from scipy.special import gammaincinv

    medians: Float64 = 2 * gammaincinv(np.arange(largest + 1) / 2, 0.5)
    return medians


def _nothing_by_nothing() -> np.errstate:
    """Let pixels without sums become NaN: nothing is known of them."""
    return np.errstate(divide="ignore", invalid="ignore")
