"""What every response model offers, and the arithmetic that all of them share.

The sums over frames *are* the fit: batches, threads, devices, workers and later days meet by adding
them. A model says which sums it needs and how to solve them; nothing else knows its formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from detectorcal._arrays import namespace, put_like
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.blocks import Index

__all__ = [
    "COMMON",
    "EXTREMES",
    "ROW_STEP",
    "SMALLEST_SPAN",
    "Curve",
    "Evidence",
    "Response",
    "ResponseModel",
    "StraightLine",
    "Sums",
    "add_rows",
    "add_sums",
    "empty_sums",
    "sampled_rows",
    "sum_names",
]

COMMON = ("frames", "saturated", "expected")
"""The sums of all models: how many frames a pixel took part in, in how many more it would have but for
reading the saturation, and its expected values, DN."""

ROW_STEP = 16
"""What is one number, or smooth over the detector, is summed in every so many-th row of an area only."""

SMALLEST_SPAN = 0.05
"""Relative spread of the levels that a pixel saw under which nothing is concluded on curvature: it would be
wilder than any detector's before it stood out, and single precision begins to lose it."""

EXTREMES = frozenset({"highest"})
"""What is no sum but a largest value, and is merged as such."""

Sums: TypeAlias = dict[str, Float64]
"""Detector-shaped sums over frames by name."""


class Curve(NamedTuple):
    """The posterior of each pixel's response, s (a + b (s - centre)); float64 arrays of detector shape."""

    gain: Float64
    """a: measured over expected at the centre, dimensionless."""
    curvature: Float64
    """b: change of the gain with the level, 1/DN."""
    gain_variance: Float64
    """Dimensionless."""
    covariance: Float64
    """Of gain and curvature, 1/DN."""
    curvature_variance: Float64
    """1/DN^2."""
    centre: float
    """DN."""
    prior_std: float
    """Standard deviation of the curvature from pixel to pixel, 1/DN."""

    def relative_variance(self, level: Float64 | float, over: Float64 | None = None) -> Float64:
        """Give the relative variance of a corrected value, dimensionless.

        That of ``a + b (s - centre)``, over the square of the response's slope at ``level``, the corrected
        value in DN above dark: an array of detector shape, or one number. With ``over``, that of its ratio to
        the pixel's corrected value at another level.
        """
        of_gain, of_curvature = self._derivatives(level)
        if over is not None:
            at_other = self._derivatives(over)
            of_gain, of_curvature = of_gain - at_other[0], of_curvature - at_other[1]
        return of_gain**2 * self.gain_variance + of_curvature * (
            2 * of_gain * self.covariance + of_curvature * self.curvature_variance
        )

    def _derivatives(self, level: Float64 | float) -> tuple[Float64, Float64]:
        """Derive minus the logarithm of a corrected value by gain and curvature."""
        of_gain = 1 / self.slope(level)
        return of_gain, of_gain * (level - self.centre)

    def where(self, condition: np.ndarray, otherwise: Curve) -> Curve:
        """Give this curve at the pixels of a condition and another one elsewhere."""
        pairs = zip(self[:-2], otherwise[:-2], strict=True)
        a, b, aa, ab, bb = (np.where(condition, here, there) for here, there in pairs)
        return Curve(a, b, aa, ab, bb, self.centre, self.prior_std)

    def response(self, level: Float64) -> Float64:
        """Give what each pixel measures at a level, both DN above dark."""
        return level * (self.gain + self.curvature * (level - self.centre))

    def slope(self, level: Float64 | float) -> Float64:
        """Give the derivative of what each pixel measures by the level."""
        return self.gain + self.curvature * (2 * level - self.centre)


class StraightLine(NamedTuple):
    """What is known of straight lines through the origin; float64 arrays of detector shape."""

    coef: Float64
    """Expected over measured, dimensionless."""
    coef_std: Float64
    """Its standard error."""
    centre: float
    """What the sweep's expected values are like, DN."""

    def relative_variance(self, level: Float64 | float, over: Float64 | None = None) -> Float64:
        """Give the relative variance of a corrected value, dimensionless: the same at every level.

        With ``over``, that of its ratio to the pixel's corrected value at another level: nothing.
        """
        variance: Float64 = (self.coef_std / self.coef) ** 2
        return variance if over is None else 0 * variance

    def response(self, level: Float64) -> Float64:
        """Give what each pixel measures at a level, both DN above dark."""
        return level / self.coef

    def slope(self, level: Float64 | float) -> Float64:
        """Give the derivative of what each pixel measures by the level."""
        return 1 / self.coef


class Response(NamedTuple):
    """A solved model: detector-shaped arrays."""

    coef: Float64
    """Expected over measured at the level, dimensionless."""
    relative_variance: Float64
    """Variance of ``coef`` under the sweep's noise, over ``coef`` squared; NaN where it is not known."""
    system_gain: float
    """K, DN per electron, given or estimated from the residuals; NaN if they do not tell."""
    level: float
    """What the sweep's expected values are like, DN: their mean, or the centre of a curve."""
    curve: Curve | None = None
    """Where the response is no straight line."""


class Evidence(NamedTuple):
    """What the sums tell of pixels besides their response, floating; NaN where nothing.

    All levels are in units of the pixel's mean expected value.
    """

    scatter: np.ndarray
    """Variance about its own response over the level: K over the mean level where all is photon noise."""
    freedom: np.ndarray
    """Degrees of freedom of that."""
    bend: np.ndarray
    """Change of the gain with the level, not drawn towards anything."""
    bend_variance: np.ndarray
    """Its variance over the scatter."""
    spread: np.ndarray
    """Standard deviation of the levels."""
    level: np.ndarray
    """Their mean, weighted by the levels."""
    explained: np.ndarray
    """What the bend takes off the scatter."""
    response: np.ndarray
    """Measured over expected."""


class ResponseModel(Protocol):
    """How a pixel's measured value depends on the expected one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sums it needs of every pixel, besides :data:`COMMON`."""
        ...

    @property
    def sampled_names(self) -> tuple[str, ...]:
        """The sums it needs of some rows only; see :func:`sampled_rows`."""
        ...

    @property
    def curved(self) -> bool:
        """Whether :meth:`solve` gives a curve, and flats are evidence."""
        ...

    @property
    def twice(self) -> bool:
        """Whether its expected values are smoothed twice; see :mod:`detectorcal.kernels.smoothing`."""
        ...

    def accumulate(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames what ``names`` says.

        Parameters
        ----------
        expected, measured : arrays of shape (n_frames, *block_shape)
            Smoothed frame minus dark, and frame minus dark, DN. Both are 0 where a pixel takes no part;
            the expected value is positive where it does. Both may be overwritten.

        Returns
        -------
        dict of str to array of shape block_shape
        """
        ...

    def accumulate_sampled(self, expected: Array, measured: Array) -> dict[str, Array]:
        """Sum over a run of frames what ``sampled_names`` says, alike."""
        ...

    def solve(
        self, sums: Mapping[str, Float64], system_gain: float | None, labels: np.ndarray | None = None
    ) -> Response:
        """Solve for each pixel's response, with K if that is known; NaN where the sums tell nothing.

        ``labels``, of shape detector_shape, are those of the regions, if there are any.
        """
        ...

    def evidence(self, sums: Mapping[str, Float64]) -> Callable[[Index], Evidence]:
        """Tell how pixels scatter and bend: what is given tells it of some of them."""
        ...


def sampled_rows(n_axes: int) -> tuple[Any, ...]:
    """Index the rows of which sampled sums are made: every :data:`ROW_STEP`-th, all of a line detector.

    Parameters
    ----------
    n_axes : int
        Number of axes of the detector, which are the last of what is indexed.
    """
    return (..., slice(None, None, ROW_STEP), slice(None)) if n_axes == 2 else (...,)


def sum_names(model: ResponseModel) -> tuple[str, ...]:
    """Name all the sums of a fit."""
    return (*COMMON, *model.names, *model.sampled_names)


def empty_sums(model: ResponseModel, shape: Shape, like: Array) -> dict[str, Array]:
    """Give the sums over no frames, float64 arrays of the library and device of ``like``."""
    return {name: put_like(np.zeros(shape), like) for name in sum_names(model)}


def add_rows(totals: Mapping[str, Array], sums: Mapping[str, Array], rows: slice) -> None:
    """Add the sums of some rows in place."""
    for name, values in sums.items():
        block = totals[name][rows, ...]
        if name in EXTREMES:
            block[...] = _larger(block, values)
            continue
        with np.errstate(invalid="ignore"):  # of pixels that take no part
            block += values


def _larger(a: Array, b: Array) -> Array:
    xp = namespace(a)
    return xp.maximum(a, xp.astype(b, a.dtype))


def add_sums(parts: Iterable[Mapping[str, Float64]]) -> Sums:
    """Merge sums over disjoint sets of frames."""
    first, *others = parts
    merged = {name: np.array(values, np.float64) for name, values in first.items()}
    for part in others:
        for name, values in merged.items():
            if name in EXTREMES:
                np.maximum(values, part[name], out=values)
            else:
                values += part[name]
    return merged
