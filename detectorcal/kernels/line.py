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

from detectorcal._arrays import namespace
from detectorcal._typing import Array, Float64
from detectorcal.kernels.model import Response

__all__ = ["Croton", "Photon", "linearise"]

NEIGHBOUR_DISTANCE = 4
"""Pixels between the two whose difference tells the noise: near enough to share the error that smoothing
makes on a curved beam, further than light usually spreads."""

SMALLEST_SHARE_OF_PAIRS = 0.01
"""Below this share of pairs seen in equally many frames the noise is taken as not known."""


class Photon:
    """Photon-noise weights: no regression dilution; exact for Poisson statistics."""

    names: tuple[str, ...] = ("frames", "expected", "difference", "pair_scatter")

    def accumulate(self, measured: Array, expected: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        xp = namespace(measured, expected)
        difference = expected - measured
        return {
            "frames": xp.sum(expected > 0, axis=0, dtype=expected.dtype),
            "expected": xp.sum(expected, axis=0, dtype=expected.dtype),
            "difference": xp.sum(difference, axis=0, dtype=expected.dtype),
            "pair_scatter": _pair_scatter(difference, expected),
        }

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
        xp = namespace(measured, expected)
        dtype = expected.dtype
        return {
            **super().accumulate(measured, expected),
            "measured_difference": xp.sum(measured * (expected - measured), axis=0, dtype=dtype),
            "measured_squared": xp.sum(measured * measured, axis=0, dtype=dtype),
            "expected_cubed": xp.sum(expected * expected * expected, axis=0, dtype=dtype),
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
    """What the pixel would have read if it were like its neighbours, DN."""
    return measured * coef


def _pair_scatter(difference: Array, expected: Array) -> Array:
    r"""Sum :math:`D^2 / S` over frames, D and S the difference and sum over a pair of pixels of a row.

    The pair is a pixel and the one :data:`NEIGHBOUR_DISTANCE` to its right; 0 where there is none.
    """
    xp = namespace(difference)
    step = min(NEIGHBOUR_DISTANCE, difference.shape[-1] - 1)
    left, right = slice(None, difference.shape[-1] - step), slice(step, None)
    between = difference[..., right] - difference[..., left]
    total = expected[..., right] + expected[..., left]
    total = xp.where(total > 0, total, xp.ones_like(total))
    scatter = xp.sum(between * between / total, axis=0, dtype=difference.dtype)
    no_pair = xp.zeros((*scatter.shape[:-1], step), dtype=scatter.dtype, device=scatter.device)
    return xp.concat([scatter, no_pair], axis=-1)


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
    step = min(NEIGHBOUR_DISTANCE, frames.shape[-1] - 1)
    if step == 0 or frames.max() < 2:
        return float("nan")
    left, right = slice(None, frames.shape[-1] - step), slice(step, None)
    comparable = (frames[..., left] == frames[..., right]) & (frames[..., left] > 1)
    if comparable.mean() < SMALLEST_SHARE_OF_PAIRS:
        return float("nan")
    between = (sums["difference"][..., right] - sums["difference"][..., left])[comparable]
    total = (sums["expected"][..., right] + sums["expected"][..., left])[comparable]
    scatter = sums["pair_scatter"][..., left][comparable] - between**2 / total
    freedom = frames[..., left][comparable].astype(int) - 1
    return float(np.median(scatter / _chi_squared_medians(freedom.max())[freedom]))


def _chi_squared_medians(largest: int) -> Float64:
    """Medians of the chi-squared distributions with 0 to ``largest`` degrees of freedom."""
    from scipy.special import gammaincinv

    medians: Float64 = 2 * gammaincinv(np.arange(largest + 1) / 2, 0.5)
    return medians


def _nan_where_zero(values: Float64) -> Float64:
    return np.where(values == 0, np.nan, values)
