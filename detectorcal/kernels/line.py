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
from typing import Any

import numpy as np

from detectorcal._arrays import namespace, sum_of_products
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.model import ROW_STEP, Response

__all__ = ["Croton", "Photon", "linearise"]

NEIGHBOUR_DISTANCE = 4
"""Pixels between the two whose difference tells the noise: near enough to share the error that smoothing
makes on a curved beam, further than light usually spreads."""

SMALLEST_SHARE_OF_PAIRS = 0.01
"""Below this share of pairs seen in equally many frames the noise is taken as not known."""


class Photon:
    """Photon-noise weights: no regression dilution; exact for Poisson statistics."""

    names: tuple[str, ...] = ("expected", "difference", "pair_scatter")

    def accumulate(self, measured: Array, expected: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        return _noise_sums(expected - measured, expected)

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        r"""Solve the line; relative variance :math:`K c / \sum s`."""
        expected = _nan_where_zero(sums["expected"])
        measured = _nan_where_zero(expected - sums["difference"])
        coef = 1 + sums["difference"] / measured
        gain = system_gain(sums)
        return Response(coef, gain * coef / expected, gain)


class Croton(Photon):
    """Unweighted least squares, the paper's method."""

    names = (*Photon.names, "measured_difference", "measured_squared", "expected_cubed")

    def accumulate(self, measured: Array, expected: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        difference = expected - measured
        return {
            **_noise_sums(difference, expected),
            "measured_difference": sum_of_products(measured, difference),
            "measured_squared": sum_of_products(measured, measured),
            "expected_cubed": sum_of_products(expected, expected, expected),
        }

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        r"""Solve the line; relative variance :math:`K c \sum s^3 / (\sum s^2)^2`.

        Propagating :math:`\mathrm{var}(m) = K m` through the estimator gives this; the textbook formula
        for unweighted least squares, which takes the noise for the same in all frames, is 17 % low.
        """
        measured_squared = _nan_where_zero(sums["measured_squared"])
        coef = 1 + sums["measured_difference"] / measured_squared
        gain = system_gain(sums)
        expected_squared = coef**2 * measured_squared
        return Response(coef, gain * coef * sums["expected_cubed"] / expected_squared**2, gain)


def linearise(measured: Array, coef: Array) -> Array:
    """Give what the pixel would have read if it were like its neighbours, DN."""
    return measured * coef


def _noise_sums(difference: Array, expected: Array) -> dict[str, Array]:
    """Give the sums that both methods need: for the photon weights and for K."""
    xp = namespace(expected)
    return {
        "expected": xp.sum(expected, axis=0, dtype=expected.dtype),
        "difference": xp.sum(difference, axis=0, dtype=expected.dtype),
        "pair_scatter": _pair_scatter(difference, expected),
    }


def _pairs(shape: Shape) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """Index the left and the right pixels of the pairs; None where the detector is one pixel wide.

    On an area detector the pairs lie in every :data:`~detectorcal.kernels.model.ROW_STEP`-th row.
    """
    width = shape[-1]
    distance = min(NEIGHBOUR_DISTANCE, width - 1)
    if distance == 0:
        return None
    left, right = slice(None, width - distance), slice(distance, None)
    if len(shape) == 1:
        return (left,), (right,)
    rows = slice(None, None, ROW_STEP)
    return (rows, left), (rows, right)


def _pair_scatter(difference: Array, expected: Array) -> Array:
    r"""Sum :math:`D^2 / S` over frames, D and S the difference and sum over a pair of pixels of a row.

    The sum stands at the left pixel of the pair; everywhere else is 0.
    """
    xp = namespace(difference)
    scatter = xp.zeros_like(difference[0, ...])
    pairs = _pairs(scatter.shape)
    if pairs is not None:
        left, right = pairs
        between = difference[:, *right] - difference[:, *left]
        total = expected[:, *right] + expected[:, *left]
        total = xp.where(total > 0, total, xp.ones_like(total))
        scatter[left] = xp.sum(between * between / total, axis=0, dtype=difference.dtype)
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
    frames = sums["frames"]
    pairs = _pairs(frames.shape)
    if pairs is None:
        return float("nan")
    left, right = pairs
    comparable = (frames[left] == frames[right]) & (frames[left] > 1)
    if comparable.mean() < SMALLEST_SHARE_OF_PAIRS:
        return float("nan")
    between = (sums["difference"][right] - sums["difference"][left])[comparable]
    total = (sums["expected"][right] + sums["expected"][left])[comparable]
    scatter = sums["pair_scatter"][left][comparable] - between**2 / total
    freedom = frames[left][comparable].astype(int) - 1
    return float(np.median(scatter / _chi_squared_medians(freedom.max())[freedom]))


def _chi_squared_medians(largest: int) -> Float64:
    """Medians of the chi-squared distributions with 0 to ``largest`` degrees of freedom."""
    from scipy.special import gammaincinv

    medians: Float64 = 2 * gammaincinv(np.arange(largest + 1) / 2, 0.5)
    return medians


def _nan_where_zero(values: Float64) -> Float64:
    return np.where(values == 0, np.nan, values)
