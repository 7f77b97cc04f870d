r"""The curved response: measured = expected x (a + b (expected - centre)), with its uncertainty.

With :math:`m` the measured and :math:`s` the expected value of a pixel in each frame,

.. math:: m = s\,(a + b\,(s - s_0)) + \mathrm{noise}, \qquad \mathrm{var} = K s + r^2 = K (s + \rho),

`a` is the pixel's gain at the level :math:`s_0`, `b` the change of its gain with the level, `K` the system
gain and `r` the read noise. The noise is in the measured value, not in the smoothed one, so measured is
regressed on expected, with the weights :math:`w = 1 / (s + \rho)`. `b` has a normal prior of mean 0, for the
curvature that all pixels share cannot be seen by smoothing and makes no pattern, and of a variance that the
pixels themselves tell (empirical Bayes [1]_): where a sweep cannot tell curvature from noise it is 0, and
the response is a straight line.

Summed are moments that depend on nothing that is estimated, so that parts of a sweep add up:
:math:`\sum w s^2, \sum w s^3, \sum w s^4, \sum w s r, \sum w s^2 r` with :math:`r = m - s`. They are
re-centred to :math:`s_0` when solved.

References
----------
.. [1] C. N. Morris, "Parametric empirical Bayes inference: theory and applications", J. Am. Stat. Assoc. 78
   (1983) 47, https://doi.org/10.1080/01621459.1983.10477920
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from detectorcal._arrays import namespace, sum_of_products
from detectorcal._typing import Array, Float64
from detectorcal.kernels.blocks import Index
from detectorcal.kernels.model import SMALLEST_SPAN, Curve, Evidence, Response, Sums, sampled_rows
from detectorcal.kernels.pairs import (
    CHI_SQUARED_DENSITY,
    CHI_SQUARED_MEDIAN,
    at_left_pixel,
    between_pixels,
    comparable_pairs,
    noise_scale,
    nonzero,
    pair_in,
    same_region,
)

__all__ = ["Curved", "Noise", "estimate_noise", "frame_sums", "level_span", "posterior"]

MOMENTS = ("w_s2", "w_s3", "w_s4", "w_sr", "w_s2r")

CHANCE = 3.0
"""Standard errors by which the pixels' curvatures must spread more than their noise for there to be any."""

SMALLEST_SHARE = 1e-12
"""Share of a variance that is as good as none; 0 itself would be divided by where there is no noise."""

OUTER_SHARE = 1 / 8
"""Share of the detector at either side whose pairs have no say in the prior."""

MOST_PAIRS = 2**16
"""Pairs by which the prior's width is known to one per cent; more are not asked."""


class Noise(NamedTuple):
    """What all pixels of a detector share."""

    system_gain: float
    """K, DN per electron; NaN if not known."""
    centre: float
    """The level at which `a` is the gain: where the sweep's photons tell most, DN."""
    prior_std: float
    """Standard deviation of the curvature `b` from pixel to pixel, 1/DN; 0 makes straight lines."""


@dataclass(frozen=True)
class Curved:
    """The curved response.

    Parameters
    ----------
    read_noise_level : float
        rho, the level at which photon noise equals read noise, r^2 / K; DN. It must be known before the
        first frame, for it is in the weights.
    """

    read_noise_level: float = 0.0

    names: ClassVar[tuple[str, ...]] = (*MOMENTS, "w_r2")
    sampled_names: ClassVar[tuple[str, ...]] = (*(f"pair_{name}" for name in MOMENTS), "pair_w_r2", "highest")
    curved: ClassVar[bool] = True
    twice: ClassVar[bool] = True

    def accumulate(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        residual = measured
        residual -= expected
        squares = residual * residual
        squares /= nonzero(expected + self.read_noise_level)
        return {
            "w_r2": sum_of_products(squares),
            **_moments(expected, residual, self.read_noise_level),
        }

    def accumulate_sampled(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames; see :class:`~detectorcal.kernels.model.ResponseModel`."""
        xp = namespace(expected)
        frame = expected[0, ...]
        sums = {"highest": xp.max(expected, axis=0)}
        pair = pair_in(frame.shape[-1])
        if pair is None:
            return sums | {name: xp.zeros_like(frame) for name in self.sampled_names if name != "highest"}
        total, between = between_pixels(expected, measured, pair)
        # both pixels of the pair read out once: twice the read noise
        rho = 2 * self.read_noise_level
        told = {f"pair_{name}": values for name, values in _moments(total, between, rho).items()}
        squares = between * between / nonzero(total + rho)
        told["pair_w_r2"] = xp.sum(squares, axis=0, dtype=frame.dtype)
        return sums | {name: at_left_pixel(values, frame, pair) for name, values in told.items()}

    def solve(
        self, sums: Mapping[str, Float64], system_gain: float | None, labels: np.ndarray | None = None
    ) -> Response:
        """Solve for the posterior of each pixel; NaN where the sums do not determine it."""
        noise = estimate_noise(sums, system_gain, labels)
        curve = posterior(sums, noise)
        with np.errstate(divide="ignore", invalid="ignore"):
            coef = 1 / curve.gain
            relative_variance = curve.gain_variance * coef**2
        return Response(coef, relative_variance, noise.system_gain, noise.centre, curve)

    def evidence(self, sums: Mapping[str, Float64]) -> Callable[[Index], Evidence]:
        """Tell how pixels scatter and bend."""

        def of_some(where: Index) -> Evidence:
            told = {name: sums[name][where] for name in ("frames", "expected", *self.names)}
            unit = told["expected"] / told["frames"]
            bend, schur = _curvature_moments(told)
            spans = schur > SMALLEST_SPAN**2 * told["w_s4"]
            explained = np.where(spans, bend**2 / schur, 0)
            freedom = told["frames"] - 1 - spans
            rest = told["w_r2"] - told["w_sr"] ** 2 / told["w_s2"] - explained
            scatter, explained = rest / (freedom * unit), explained / (freedom * unit)
            spread, level = np.sqrt(schur / told["w_s2"]) / unit, told["w_s3"] / told["w_s2"] / unit
            bend, variance, response = bend / schur * unit, unit**3 / schur, 1 + told["w_sr"] / told["w_s2"]
            return Evidence(scatter, freedom, bend, variance, spread, level, explained, response)

        return of_some


def _moments(expected: Array, residual: Array, rho: float) -> dict[str, Array]:
    """Sum the weighted moments over frames; a frame in which both are 0 adds nothing."""
    if rho:
        weighted = expected / (expected + rho)  # w s
        linear = sum_of_products(weighted, residual)
        weighted *= expected
    else:
        weighted, linear = expected, sum_of_products(residual)
    return {
        "w_s2": sum_of_products(weighted),
        "w_s3": sum_of_products(weighted, expected),
        "w_s4": sum_of_products(weighted, expected, expected),
        "w_sr": linear,
        "w_s2r": sum_of_products(weighted, residual),
    }


def frame_sums(expected: Float64, measured: Float64, weight: float, rho: float) -> Sums:
    """Give the sums of one frame that is the mean of ``weight`` frames.

    Parameters
    ----------
    expected, measured : arrays of detector shape, float64
        DN above dark; a pixel with an expected value that is not positive adds nothing.
    weight : float
        Number of frames.
    rho : float
        As the model's ``read_noise_level``, DN.

    Returns
    -------
    dict of str to array of detector shape
    """
    seen = expected > 0
    s, m = (np.where(seen, values, 0.0)[None] for values in (expected, measured))
    return {name: weight * values for name, values in _moments(s, m - s, rho).items()}


def posterior(sums: Mapping[str, Float64], noise: Noise) -> Curve:
    r"""Solve for each pixel's gain and curvature.

    With :math:`\tau` the prior's standard deviation and the moments re-centred to :math:`s_0`,
    :math:`I_{11} = \sum w s^2, I_{12} = \sum w s^2 (s - s_0), I_{22} = \sum w s^2 (s - s_0)^2`, the
    information matrix is :math:`(I + \mathrm{diag}(0, K/\tau^2)) / K`, and the right-hand side
    :math:`(\sum w s r, \sum w s (s - s_0) r) / K`, for `a` - 1 and `b`.

    Parameters
    ----------
    sums : mapping of str to array of detector shape
        The moments.
    noise : Noise
        What all pixels share.

    Returns
    -------
    Curve
        NaN where nothing is known.
    """
    s0 = noise.centre
    K = noise.system_gain
    tau2 = 0.0 if np.isnan(K) else noise.prior_std**2
    with np.errstate(divide="ignore", invalid="ignore"):
        bend, schur = _curvature_moments(sums)
        lean = sums["w_s3"] / sums["w_s2"] - s0  # I12 / I11
        stiffness = tau2 * schur + (0.0 if np.isnan(K) else K)
        known = stiffness > 0
        stiffness = np.where(known, stiffness, 1.0)
        b = np.where(known, tau2 * bend / stiffness, 0.0)
        b_variance = np.where(known, tau2 * K / stiffness, 0.0)
        a = 1 + sums["w_sr"] / sums["w_s2"] - lean * b
        a_variance = K / sums["w_s2"] + lean**2 * b_variance
    return Curve(a, b, a_variance, -lean * b_variance, b_variance, s0, noise.prior_std)


def _curvature_moments(sums: Mapping[str, Float64], prefix: str = "") -> tuple[Float64, Float64]:
    """Give right-hand side and information (times K) of the curvature once the gain is eliminated.

    Neither depends on the centre, which only moves what is called the gain.
    """
    w2, w3, w4, r1, r2 = (sums[prefix + name] for name in MOMENTS)
    lean = w3 / w2
    return r2 - lean * r1, np.maximum(w4 - lean * w3, 0.0)


def level_span(sums: Mapping[str, Float64]) -> float:
    """Give the relative spread of the levels that a pixel saw, over all pixels; dimensionless."""
    with np.errstate(divide="ignore", invalid="ignore"):
        schur = _curvature_moments(sums)[1]
    total = float(np.sum(sums["w_s4"]))
    return float(np.sum(schur[np.isfinite(schur)]) / total) ** 0.5 if total > 0 else 0.0


def estimate_noise(
    sums: Mapping[str, Float64], system_gain: float | None, labels: np.ndarray | None
) -> Noise:
    r"""Estimate what all pixels share, from pairs of near pixels.

    The difference D of the residuals of two pixels follows the same model in their sum S, with twice the
    read noise. What the model leaves of :math:`\sum w D^2` is K times a chi-squared variable.

    Parameters
    ----------
    sums : mapping of str to array
        The sums of :class:`Curved`.
    system_gain : float or None
        K, DN per electron, if it is known; else it is estimated.
    labels : array of shape detector_shape, int, or None
        Label of each pixel's region, if there are any: pairs are of one region.

    Returns
    -------
    Noise
    """
    weight = float(np.sum(sums["w_s2"]))
    centre = float(np.sum(sums["w_s3"])) / weight if weight > 0 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        K = _system_gain(sums, labels) if system_gain is None else system_gain
        return Noise(K, centre, 0.0 if np.isnan(K) else _prior_std(sums, K, labels))


def _system_gain(sums: Mapping[str, Float64], labels: np.ndarray | None) -> float:
    """Estimate K from how pairs of pixels scatter about a curve of their own; NaN if they do not tell."""
    some_rows = sampled_rows(sums["frames"].ndim)
    frames = sums["frames"][some_rows]
    pair = pair_in(frames.shape[-1])
    used = None if pair is None else comparable_pairs(frames, pair, 3, labels)
    if pair is None or used is None:
        return float("nan")
    told = {
        name: sums[name][some_rows][..., pair.left][used]
        for name in Curved.sampled_names
        if name.startswith("pair_")
    }
    bend, schur = _curvature_moments(told, "pair_")
    bent = schur > SMALLEST_SPAN**2 * told["pair_w_s4"]
    explained = told["pair_w_sr"] ** 2 / told["pair_w_s2"] + np.where(bent, bend**2 / schur, 0.0)
    freedom = frames[..., pair.left][used].astype(int) - 1 - bent
    return max(noise_scale(told["pair_w_r2"] - explained, freedom), 0.0)


def _prior_std(sums: Mapping[str, Float64], K: float, labels: np.ndarray | None) -> float:
    """Estimate how much curvatures differ, from differences between near pixels.

    What smoothing does to a beam that moves, near pixels share; pixels near an edge have no say all the same.
    """
    height, width = np.atleast_2d(sums["frames"]).shape
    rows, columns = _inner(height), _inner(width)
    step = 1 + (rows.stop - rows.start) * (columns.stop - columns.start) // MOST_PAIRS
    inner = slice(rows.start, rows.stop, step), columns
    bend, schur = (np.atleast_2d(m)[inner] for m in _curvature_moments(sums))
    bent = schur > SMALLEST_SPAN**2 * np.atleast_2d(sums["w_s4"])[inner]
    pair = pair_in(bend.shape[-1])
    if pair is None:
        return 0.0
    used = bent[:, pair.left] & bent[:, pair.right]
    if labels is not None:
        used &= same_region(np.atleast_2d(labels)[inner], pair)
    curvature, variance = bend / schur, K / schur
    between = (curvature[:, pair.right] - curvature[:, pair.left])[used]
    added = _added_variance(between, (variance[:, pair.right] + variance[:, pair.left])[used])
    return float(np.sqrt(added / 2))


def _inner(n: int) -> slice:
    """Give the middle of an axis: near an edge, smoothing bends a beam."""
    margin = round(n * OUTER_SHARE)
    return slice(margin, n - margin)


def _added_variance(differences: Float64, variances: Float64) -> float:
    """Find the variance that, added to theirs, explains the spread of differences.

    It is 0 where chance may have made the spread: a median of n values has a standard error of
    1 / (2 f sqrt(n)), `f` being their density there.
    """
    from scipy.optimize import brentq

    squares = differences**2
    # what would explain it alone; sought in shares of it, for a root finder's tolerance is absolute
    most = float(np.median(squares)) / CHI_SQUARED_MEDIAN if squares.size else 0.0
    if most == 0.0:
        return 0.0

    def excess(share: float) -> float:
        return float(np.median(squares / (variances + share * most))) - CHI_SQUARED_MEDIAN

    chance = CHANCE / (2 * CHI_SQUARED_DENSITY * np.sqrt(squares.size))
    if excess(SMALLEST_SHARE) <= chance:
        return 0.0
    if excess(1.0) >= 0.0:  # by rounding, where there is no noise
        return most
    return most * float(brentq(excess, SMALLEST_SHARE, 1.0, xtol=SMALLEST_SHARE * 1e-9))
