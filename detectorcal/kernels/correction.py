r"""Correction of images: a few maps, one pass.

For a straight line through the origin every correction of the paper is ``m * scale``, with
``m = image - dark`` and ``scale`` prepared once from the coefficients and the flat. A response that curves,
:math:`m = s (\alpha + b s)`, is solved for `s` by the root of the quadratic that stays near the line, in the
form that loses no digits where `b` is small:

.. math:: s = 2 m / (\alpha + \sqrt{\alpha^2 + 4 b m}) = \frac{m}{\alpha}\, \frac{2}{1 + \sqrt{1 + q m}},
    \quad q = 4 b / \alpha^2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from detectorcal._arrays import is_numpy, namespace, put_like
from detectorcal._typing import Array, Float64
from detectorcal.kernels.accumulation import subtract_dark
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.model import Curve, StraightLine

__all__ = [
    "Drift",
    "Inverse",
    "Maps",
    "Rejection",
    "ScanMaps",
    "correct",
    "record",
    "replace_spots",
    "scale_map",
]


class Inverse(NamedTuple):
    """What undoes each pixel's response; float64 arrays of detector shape."""

    coef: Float64
    """1 / alpha: expected over measured near the dark, dimensionless."""
    curvature: Float64 | None
    """q, 1/DN; None where the response is a straight line."""

    @classmethod
    def of(cls, response: Curve | StraightLine) -> Self:
        """Undo straight lines, or curves, which may be straight as well."""
        if isinstance(response, StraightLine):
            return cls(response.coef, None)
        if response.prior_std == 0:
            return cls(1 / response.gain, None)
        alpha = response.gain - response.curvature * response.centre
        return cls(1 / alpha, 4 * response.curvature / alpha**2)

    def apply(self, measured: Float64) -> Float64:
        """Give what perfect pixels would have measured, DN above dark."""
        maps = Maps.of(np.zeros(self.coef.shape), *self, np.dtype(np.float64))
        corrected: Float64 = maps.apply(measured.copy())
        return corrected


class Maps(NamedTuple):
    """What a correction needs of each pixel, in the dtype of the result."""

    dark: Array
    """DN."""
    scale: Array | None
    """Factor; None where the response curves."""
    half: Array | None = None
    """1 / (2 scale) of a response that curves."""
    half_squared: Array | None = None
    bend: Array | None = None
    """half_squared times q: the corrected value is m / (half + sqrt(half_squared + bend m))."""

    @classmethod
    def of(cls, dark: Float64, scale: Float64, curvature: Float64 | None, dtype: np.dtype) -> Self:
        """Prepare the maps of a correction; ``curvature`` is q, 1/DN."""
        if curvature is None:
            return cls(dark.astype(dtype), scale.astype(dtype))
        with np.errstate(divide="ignore", invalid="ignore"):
            half = (0.5 / scale).astype(dtype)
            square = half * half
            return cls(dark.astype(dtype), None, half, square, square * curvature.astype(dtype))

    def each(self, change: Callable[[Array], Array]) -> Maps:
        """Give the maps with each of them changed, as by moving them to a device."""
        return Maps(*(None if m is None else change(m) for m in self))

    @property
    def alike(self) -> bool:
        """Whether all frames have the same maps."""
        return True

    @property
    def alone(self) -> bool:
        """Whether nothing of the size of the result is made beside it."""
        return self.scale is not None

    def rows(self, rows: slice) -> Maps:
        """Give the maps of some rows."""
        return self.each(lambda m: m[rows, ...])

    def part(self, run: slice | np.ndarray) -> Maps:
        """Give the maps of some frames: those of any."""
        return self

    def of_frames(self) -> Maps:
        """Give the maps that frames are corrected with."""
        return self

    def over(self, divisor: Array) -> Maps:
        """Give the maps that divide the result by an array of shape (n_frames or 1, *shape) as well."""
        if self.scale is not None:
            return Maps(self.dark, self.scale / divisor)
        square = divisor * divisor
        return Maps(self.dark, None, self.half * divisor, self.half_squared * square, self.bend * square)

    def apply(self, measured: Array, beyond: Callable[..., object] | None = None) -> Array:
        """Correct measured values in place, where the array library can.

        A reading that no intensity gives is NaN, and ``beyond`` is called where there is one: on NumPy by the
        processor's own flag, which costs nothing; whenever there might be on other libraries.
        """
        if self.scale is not None:
            measured *= self.scale
            return measured
        root = measured * self.bend
        root += self.half_squared
        if is_numpy(root):
            heeded = {"invalid": "ignore"} if beyond is None else {"invalid": "call", "call": beyond}
            with np.errstate(**heeded):
                np.sqrt(root, out=root)
        else:
            root = namespace(root).sqrt(root)
            if beyond is not None:
                beyond()
        root += self.half
        measured /= root
        return measured


class Drift(NamedTuple):
    """How the light of each frame differs from that of the flat which a correction divides by.

    The result of frame `i` is multiplied by ``factor[i]``, and divided by
    ``(1 - share[i]) * beams[before[i]] + share[i] * beams[after[i]]``.
    """

    beams: Array | None
    """Expected flats over the correction's own, (n_groups, *detector_shape); None if there is no other."""
    before: np.ndarray
    """Number of the flats that are used, (n_frames,), int."""
    after: np.ndarray
    """Number of those which they go over to, alike."""
    share: Float64
    """How far they have done so, from 0 to 1, (n_frames,)."""
    factor: Float64
    """(n_frames,), float64."""
    noise: Float64
    """Variance of the flats that each frame is divided by, over that of all of them, (n_frames,)."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.factor)

    def part(self, run: slice | np.ndarray) -> Drift:
        """Give that of some frames."""
        return Drift(self.beams, *(values[run] for values in self[1:]))

    def astype(self, dtype: np.dtype) -> Drift:
        """Give it with beams of another precision."""
        return self.with_beams(lambda beams: beams.astype(dtype, copy=False))

    def flat_noise(self, like: Array) -> Array:
        """Give ``noise`` for each frame, (n_frames, 1, ...), in the library of ``like``."""
        return self._per_frame(self.noise, like)

    def _per_frame(self, values: Float64, like: Array) -> Array:
        dtype = str(like.dtype).rpartition(".")[2]
        return put_like(values.reshape(-1, *(1,) * like.ndim).astype(dtype), like)

    def with_beams(self, change: Callable[[Array], Array]) -> Drift:
        """Give it with the beams changed: cut to some rows, cast, or moved to a device."""
        return self if self.beams is None else self._replace(beams=change(self.beams))

    def divisor(self, like: Array) -> Array:
        """Give what the frames are divided by, (n_frames or 1, *shape), in the library of ``like``."""
        if self.beams is None:
            return self._per_frame(1 / self.factor, like)
        alike = not self.share.any() and np.ptp(self.before) == 0 and np.ptp(self.factor) == 0
        frames = [self._of_frame(i) for i in range(1 if alike else self.n_frames)]
        return namespace(like).stack(frames)

    def _of_frame(self, i: int) -> Array:
        assert self.beams is not None
        divisor = self.beams[int(self.before[i]), ...] * float((1 - self.share[i]) / self.factor[i])
        if self.share[i]:
            divisor += self.beams[int(self.after[i]), ...] * float(self.share[i] / self.factor[i])
        return divisor


class ScanMaps(NamedTuple):
    """The maps of a correction whose light differs from frame to frame."""

    maps: Maps
    drift: Drift
    inverse: bool = False
    """Whether the result is multiplied by what it was divided by."""

    @property
    def dark(self) -> Array:
        """DN."""
        return self.maps.dark

    @property
    def alike(self) -> bool:
        """As :attr:`Maps.alike`."""
        return False

    @property
    def alone(self) -> bool:
        """As :attr:`Maps.alone`."""
        return False

    def each(self, change: Callable[[Array], Array]) -> ScanMaps:
        """As :meth:`Maps.each`, and so on."""
        return self._replace(maps=self.maps.each(change), drift=self.drift.with_beams(change))

    def rows(self, rows: slice) -> ScanMaps:
        """As :meth:`Maps.rows`."""
        return self._replace(
            maps=self.maps.rows(rows), drift=self.drift.with_beams(lambda beams: beams[:, rows, ...])
        )

    def part(self, run: slice | np.ndarray) -> ScanMaps:
        """As :meth:`Maps.part`, but that they are those of no others."""
        return self._replace(drift=self.drift.part(run))

    def of_frames(self) -> Maps:
        """As :meth:`Maps.of_frames`, one of each for every frame."""
        divisor = self.drift.divisor(self.maps.dark)
        return self.maps.over(1 / divisor if self.inverse else divisor)


def scale_map(coef: Float64, flat: Float64 | None) -> Float64:
    """Factor that turns image minus dark into the corrected image, but for curvature.

    Parameters
    ----------
    coef : array of shape detector_shape, float64
        Response coefficients near the dark, dimensionless.
    flat : array of shape detector_shape, float64, or None
        Expected flat, DN above dark; None leaves the result in DN.

    Returns
    -------
    array of shape detector_shape, float64
        1/DN with a flat, dimensionless without; NaN where the flat is not positive.
    """
    if flat is None:
        return coef
    positive = flat > 0
    return np.where(positive, coef / np.where(positive, flat, 1.0), np.nan)


def record(straight: Array, dark: Array, curvature: Array) -> Array:
    """Give what the detector would have recorded: the inverse of a correction that curves.

    Parameters
    ----------
    straight : array of shape (n_frames, *detector_shape)
        Corrected images over ``scale``: what pixels without curvature would measure, DN above dark.
    dark, curvature : arrays of detector shape
        DN, and q of the module's formula, 1/DN.

    Returns
    -------
    array of the shape of ``straight``
        DN.
    """
    return straight * (1 + straight * (curvature / 4)) + dark


class Rejection(NamedTuple):
    """Which readings of a frame are replaced."""

    n_spreads: float
    """Robust spreads beyond which a pixel is a spot; see :func:`~detectorcal.kernels.masking.find_spots`."""
    hopeless: Array | None = None
    """Shape detector_shape, bool: pixels that always mean nothing. They stay, and have no say."""

    def each(self, change: Callable[[Array], Array]) -> Rejection:
        """Give the same with its array changed: moved to a device, say."""
        return self if self.hopeless is None else self._replace(hopeless=change(self.hopeless))


def replace_spots(frames: Array, rejection: Rejection) -> Array:
    """Replace spots by the median around them. Pixels that are not finite stay as they are."""
    xp = namespace(frames)
    believed = xp.isfinite(frames)
    if rejection.hopeless is not None:
        believed = believed & ~rejection.hopeless
    whole = frames if bool(xp.all(believed)) else fill_masked(frames, ~believed)
    medians = median_of_neighbours(whole)
    return xp.where(find_spots(whole, medians, rejection.n_spreads) & believed, medians, frames)


def correct(
    frames: Array,
    maps: Maps,
    reject: Rejection | None,
    out: Array | None,
    beyond: Callable[..., object] | None = None,
) -> Array:
    """Correct frames, or rows of them when nothing is rejected.

    Parameters
    ----------
    frames : array of shape (n_frames, *shape)
        Raw frames, DN, of any real dtype.
    maps : Maps of arrays of shape ``shape``
        In the dtype of the result.
    reject : Rejection or None
        The spots that are replaced by the median around them.
    out : NumPy array of the shape of ``frames``, or None
        Where the result goes.
    beyond : callable or None
        Called where a reading is one that no intensity gives; see :meth:`Maps.apply`.

    Returns
    -------
    array of the shape of ``frames``
        ``out`` if that was given.
    """
    if is_numpy(frames) and reject is None:
        out = np.empty(frames.shape, maps.dark.dtype) if out is None else out
        np.copyto(out, frames, casting="unsafe")
        out -= maps.dark
        return maps.apply(out, beyond)
    measured = subtract_dark(frames, maps.dark)
    corrected = maps.apply(measured if reject is None else replace_spots(measured, reject), beyond)
    if out is None:
        return corrected
    out[...] = corrected
    return out
