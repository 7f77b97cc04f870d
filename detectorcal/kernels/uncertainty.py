r"""The standard deviation of a corrected value, propagated [1]_ from the noise of the camera [2]_.

A pixel that reads :math:`m` above its dark has, by the camera model of [2]_,

.. math:: u^2(m) = K \max(m, 0) + r^2 + r^2 / n_d, \tag{1}

photon noise, the noise of a reading without light and that of the dark map, the mean of :math:`n_d` darks.
`r` holds the rounding of integers, which is at least :math:`1/12` DN². A corrected value :math:`T` (in DN
without a flat) has, by equation (10) of [1]_,

.. math:: u^2(T) = (\partial T / \partial m)^2\, u^2(m) + T^2 (v_c(s) + v_f), \tag{2}

with :math:`s` the value in DN and :math:`v_c` the relative variance of the response there (``predict_std``
squared). The mean of :math:`n_f` flats, smoothed to :math:`B`, has the relative variance

.. math:: v_f = \kappa\, (K B + r^2) / (n_f B^2), \quad \kappa = \int g^2 = 1 / (4 \pi \sigma^2), \tag{3}

the share of white noise that a Gaussian `g` of standard deviation :math:`\sigma` lets through on an area
(:math:`1 / (2 \sqrt\pi \sigma)` on a line). Where the flat's residual is followed instead, its pixel noise
enters whole, and with :math:`s_f` the divisor and :math:`f` what the flat reads

.. math:: v_f = (\partial \ln s_f / \partial f)^2\, (K f + r^2) / n_f, \tag{4}

and :math:`v_c` is the variance of the logarithm of the *ratio* of two responses of one pixel: nothing on a
straight line. At last :math:`u(-\ln T) = u(T) / T`. (5)

References
----------
.. [1] JCGM 100:2008, "Evaluation of measurement data: Guide to the expression of uncertainty in
   measurement", 5.1.2.
.. [2] EMVA Standard 1288, Release 4.0 Linear, 2021: mathematical model of the camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from detectorcal._arrays import namespace
from detectorcal._typing import Array, Float64
from detectorcal.kernels.accumulation import subtract_dark
from detectorcal.kernels.correction import Maps, Rejection, ScanMaps, replace_spots
from detectorcal.kernels.finishing import Counts, Finish
from detectorcal.kernels.model import Curve, StraightLine
from detectorcal.kernels.smoothing import Smoothing

__all__ = ["Deviation", "Uncertainty", "divisor_variance", "noise_let_through"]

ROUNDING = 1 / 12
"""Variance of rounding to whole numbers, DN^2."""


class Uncertainty(NamedTuple):
    """What the standard deviations of corrected values need to be known of, besides the response."""

    system_gain: float
    """K, DN per electron."""
    read_noise: float | None
    """Standard deviation of a reading without light, DN; None if it is not known."""
    n_darks: int
    """Frames that the dark is the mean of; 0 for a dark that is exact."""
    divisor_variance: Float64 | None = None
    """Relative variance of what the image is divided by; None without a flat."""
    followed: np.ndarray | None = None
    """Where the flat's residuals are followed; None where they are nowhere."""

    def reading_variance(self, *, whole: bool) -> float:
        """Give the variance of a reading without light, less its dark; of whole numbers or not; DN^2."""
        variance = (self.read_noise or 0.0) ** 2
        if whole:
            variance = max(variance, ROUNDING)
        return variance * (1 + (1 / self.n_darks if self.n_darks else 0.0))


class Deviation(NamedTuple):
    """All that tells the standard deviations of corrected values; arrays of detector shape."""

    maps: Maps | ScanMaps
    """Of the correction, float64."""
    slope: Array
    """Derivative of a corrected value by what is measured, near the dark."""
    bend: Array | None
    """q / (2 scale): the slope is this one over 1 + bend T; None where the response is straight."""
    beam: Array | None
    """What the image is divided by, DN; None without a flat."""
    response: Curve | StraightLine
    divisor_variance: Array | None
    followed: Array | None
    """As of :class:`Uncertainty`."""
    system_gain: float
    reading_variance: float
    reject: Rejection | None
    finish: Finish
    """What is done to the corrected values."""
    dtype: np.dtype
    """Of the result."""

    @property
    def needs_frames(self) -> bool:
        """Whether :meth:`run` must see whole frames."""
        return self.reject is not None or self.finish.neighbours is not None

    def each(self, change: Callable[[Array], Array]) -> Deviation:
        """Give the same with each array changed: moved to a device, say."""

        def changed(m: Any) -> Any:
            return m if m is None or isinstance(m, float) else change(m)

        response = type(self.response)(*map(changed, self.response))
        names = ("slope", "bend", "beam", "divisor_variance", "followed")
        return self._replace(
            maps=self.maps.each(change), response=response, finish=self.finish.each(change),
            reject=None if self.reject is None else self.reject.each(change),
            **{name: changed(getattr(self, name)) for name in names},
        )  # fmt: skip

    def part(self, run: slice | np.ndarray) -> Deviation:
        """Give the same for some frames of a scan."""
        return self._replace(maps=self.maps.part(run))

    def of_frames(self) -> Deviation:
        """Give the same with maps for each frame of a scan, for :meth:`run`.

        Values are those of the light of all flats over a divisor, and so are their deviations; the noise of
        the flats is that of those around each frame.
        """
        if isinstance(self.maps, Maps):
            return self
        divisor = self.maps.drift.divisor(self.slope)
        noise = self.maps.drift.flat_noise(self.slope)
        return self._replace(
            maps=self.maps.maps.over(divisor),
            slope=self.slope / divisor,
            bend=None if self.bend is None else self.bend * divisor,
            beam=None if self.beam is None else self.beam * divisor,
            divisor_variance=None if self.divisor_variance is None else self.divisor_variance * noise,
        )

    def in_blocks(self, blocks: list[slice]) -> tuple[list[Deviation], Finish | None]:
        """Give the same for each of some blocks of rows; nothing is left to do with whole frames."""
        if len(blocks) == 1:
            return [self], None
        return [self._rows(rows) for rows in blocks], None

    def _rows(self, rows: slice) -> Deviation:
        """Give the same for some rows, which cannot be interpolated by themselves."""
        here = self._replace(finish=self.finish._replace(neighbours=None), maps=Maps(self.maps.dark, None))
        return here.each(lambda m: m[rows])._replace(maps=self.maps.rows(rows))

    def run(self, frames: Array, out: Array | None) -> tuple[Array, Counts]:
        """Give the standard deviations; NaN where a value is not known, or something stands in for it."""
        values, variances = self._values_and_variances(frames)
        if (neighbours := self.finish.neighbours) is not None:
            values = neighbours.fill(values)
            variances = neighbours.for_variances.fill(variances)
        xp = namespace(values)
        std = xp.sqrt(variances)
        if self.finish.least is not None:
            std = std / xp.where(values > self.finish.least, values, xp.full_like(values, xp.nan))
        if out is None:
            return xp.astype(std, getattr(xp, self.dtype.name)), Counts()
        out[...] = std
        return out, Counts()

    def complete(self, std: Array) -> tuple[Array, Counts]:
        """Give what :meth:`run` gave: nothing is left to do."""
        return std, Counts()

    def _values_and_variances(self, frames: Array) -> tuple[Array, Array]:
        """Give corrected values and formula (2)."""
        xp = namespace(frames, self.maps.dark)
        measured = subtract_dark(frames, self.maps.dark)
        if self.reject is not None:
            measured = replace_spots(measured, self.reject)
        photons = xp.where(measured > 0, measured, xp.zeros_like(measured)) * self.system_gain
        values = self.maps.of_frames().apply(measured)
        slope = self.slope if self.bend is None else self.slope / (1 + self.bend * values)
        relative = self._relative_variance(values if self.beam is None else values * self.beam)
        return values, slope**2 * (photons + self.reading_variance) + values**2 * relative

    def _relative_variance(self, level: Array) -> Array:
        """Give what calibration and flat add at a level, relative."""
        xp = namespace(level)
        variance = self.response.relative_variance(level)
        if self.followed is not None:
            ratio = self.response.relative_variance(level, self.beam)
            variance = xp.where(self.followed, ratio, variance)
        return variance if self.divisor_variance is None else variance + self.divisor_variance


def noise_let_through(smoothing: Smoothing, n_axes: int) -> float:
    r"""Give the variance of smoothed white noise over that of the noise: kappa of formula (3).

    It is the integral of the square of the kernel, `g`, or of Tukey's :math:`2 g - g * g`; that of the
    product of two Gaussians is the value at 0 of one with the sum of their variances.
    """

    def product(variance: float) -> float:
        return float((2 * math.pi * variance) ** (-n_axes / 2))

    square = smoothing.sigma**2
    share = product(2 * square)
    if smoothing.twice:
        share = 4 * share - 4 * product(3 * square) + product(4 * square)
    return min(share, 1.0)


def divisor_variance(
    divisor: Float64,
    followed: np.ndarray | None,
    response: Curve | StraightLine,
    known: Uncertainty,
    *,
    n_flats: int,
    let_through: float,
) -> Float64:
    """Give the relative variance of what an image is divided by: formulas (3) and (4).

    Parameters
    ----------
    divisor : array of detector shape, float64
        Smoothed flat, or what follows it; DN.
    followed : array of detector shape, bool, or None
        Where the flat's residuals are followed.
    response : Curve or StraightLine
        Of the pixels.
    known : Uncertainty
        Noise of the camera.
    n_flats : int
        Frames that the flat is the mean of; 0 for one that is exact.
    let_through : float
        What :func:`noise_let_through` gives.

    Returns
    -------
    array of detector shape, float64
        Dimensionless; NaN where the flat is not positive.
    """
    if n_flats == 0:
        return np.zeros_like(divisor)
    level = np.where(divisor > 0, divisor, np.nan)
    square = (known.read_noise or 0.0) ** 2
    variance: Float64 = let_through * (known.system_gain * level + square) / level**2
    if followed is not None:
        reading = response.response(level)
        of_pixel = (known.system_gain * np.maximum(reading, 0) + square) / (
            response.slope(level) * level
        ) ** 2
        variance = np.where(followed, of_pixel, variance)
    variance /= n_flats
    return variance
