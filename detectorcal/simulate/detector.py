"""The detector: what it does to light, and the coefficient that undoes it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detectorcal._typing import Float64, Shape
from detectorcal.simulate._common import Seed, require, spread

DEAD, HOT = 1, 2  # the bits of `defects_` in a calibrator
_HOT_LEVELS = 1000.0, 3000.0  # DN above the other darks
_HOT_NOISE = 10.0  # times the read noise of the others
_EXACT_COUNTS = 1e9  # above it a Poisson number is drawn as a rounded normal one: the skewness is below 4e-5


@dataclass(frozen=True, eq=False, kw_only=True)
class Detector:
    r"""A line or area detector whose every property is known.

    A pixel of relative gain :math:`g` and curvature :math:`b` that sees the intensity :math:`s` reads

    .. math:: m = g s (1 + b s), \qquad \mathrm{var}(m) = K m + r^2

    above its dark [1]_. As ``s (a + b' (s - s0))``: ``a = g (1 + b s0)`` and ``b' = g b``.

    Parameters
    ----------
    gain : array of detector shape, float64
        Relative sensitivity, 1 for a perfect pixel, 0 for a dead one.
    dark : array of detector shape, float64
        Mean reading without beam, DN. It carries read noise but no shot noise.
    curvature : array of detector shape, float64
        `b`, in 1/DN: -1e-5 loses 4 % at 4000 DN. Meant for ``abs(b) * s`` well below 0.5.
    read_noise : array of detector shape, float64
        Standard deviation of the noise of every reading, DN.
    defects : array of detector shape, uint8
        1 where dead, 2 where hot, else 0.
    system_gain : float
        `K`, DN per electron; 0 records without photon noise.
    row_noise : float
        Standard deviation, DN, of an offset shared by each row of each frame.
    blur : float
        Standard deviation, pixels, of the Gaussian by which light spreads before it is detected.
    light_yield : float
        Electrons per absorbed X-ray. Above 0 the X-rays are counted before their light spreads, which adds
        noise that neighbours share: ``K * light_yield * s`` without blur [2]_. 0 stands for very many X-rays.
    bits : int or None
        Readings are rounded and clipped to ``[0, 2**bits - 1]``; None records plain float64.

    References
    ----------
    .. [1] EMVA Standard 1288, Release 4.0 Linear, 2021: mathematical model of the camera.
    .. [2] I. A. Cunningham and R. Shaw, J. Opt. Soc. Am. A 16, 621 (1999), on cascaded detectors.

    Examples
    --------
    >>> detector = Detector.random((64, 96), prnu=0.02, seed=1)
    >>> from detectorcal.simulate import beam_profile, exposure_ladder
    >>> sweep = detector.record(exposure_ladder(beam_profile(detector.shape), 5), seed=2)
    >>> sweep.shape, sweep.dtype
    ((5, 64, 96), dtype('uint16'))
    """

    gain: Float64
    dark: Float64
    curvature: Float64
    read_noise: Float64
    defects: NDArray[np.uint8]
    system_gain: float = 0.5
    row_noise: float = 0.0
    blur: float = 0.0
    light_yield: float = 0.0
    bits: int | None = 12

    @classmethod
    def random(
        cls,
        shape: Shape,
        *,
        prnu: float = 0.02,
        curvature: float = 0.0,
        curvature_spread: float = 0.0,
        dark: float = 100.0,
        dsnu: float = 2.0,
        read_noise: float = 2.0,
        dead: float = 0.0,
        hot: float = 0.0,
        system_gain: float = 0.5,
        row_noise: float = 0.0,
        blur: float = 0.0,
        light_yield: float = 0.0,
        bits: int | None = 12,
        seed: Seed = 0,
    ) -> "Detector":
        """Draw a detector; a seed gives the same pixels whatever else is asked for.

        Parameters
        ----------
        shape : (width,) or (height, width)
            Detector shape.
        prnu, dsnu : float
            Standard deviations of the gain (a fraction) and of the dark (DN).
        curvature, curvature_spread : float
            Mean and standard deviation of the curvature, 1/DN.
        dark, read_noise : float
            Mean dark and read noise, DN.
        dead, hot : float
            Fractions of the pixels that see nothing, and whose dark lies 1000 to 3000 DN higher and is noisy.
        system_gain, row_noise, blur, light_yield, bits
            As those of the class.
        seed : int or numpy.random.Generator, default 0
            Source of the randomness.
        """
        require(len(shape) in (1, 2) and min(shape) > 0, "shape", "(width,) or (height, width)", shape)
        require(min(dead, hot) >= 0 and dead + hot <= 1, "dead, hot", "fractions of the pixels", (dead, hot))
        require(bits is None or 1 <= bits <= 32, "bits", "from 1 to 32, or None", bits)
        scales = (prnu, dsnu, curvature_spread, read_noise, system_gain, row_noise, blur, light_yield)
        require(min(scales) >= 0, "scales of spread and noise", "at least 0", scales)
        rng = np.random.default_rng(seed)
        gain, darks, curvatures = rng.standard_normal((3, *shape))
        levels = rng.uniform(*_HOT_LEVELS, shape)
        rank = rng.permutation(gain.size).reshape(shape)
        n_dead, n_hot = round(dead * gain.size), round(hot * gain.size)
        is_dead, is_hot = rank < n_dead, (rank >= n_dead) & (rank < n_dead + n_hot)
        return cls(
            gain=np.where(is_dead, 0.0, np.maximum(1.0 + prnu * gain, 0.0)),
            dark=dark + dsnu * darks + is_hot * levels,
            curvature=curvature + curvature_spread * curvatures,
            read_noise=read_noise * np.where(is_hot, _HOT_NOISE, 1.0),
            defects=(DEAD * is_dead + HOT * is_hot).astype(np.uint8),
            system_gain=system_gain,
            row_noise=row_noise,
            blur=blur,
            light_yield=light_yield,
            bits=bits,
        )

    @property
    def shape(self) -> Shape:
        """Detector shape, (width,) or (height, width)."""
        return self.gain.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the recorded frames."""
        return np.dtype(np.float64) if self.bits is None else np.min_scalar_type(2 ** max(self.bits, 9) - 1)

    def response(self, intensity: ArrayLike) -> Float64:
        """Mean reading above the dark, DN: what infinitely many frames would average to.

        Parameters
        ----------
        intensity : array of shape (..., *detector_shape)
            Mean reading of a perfect pixel above its dark, DN.

        Returns
        -------
        array of the shape of `intensity`, float64
        """
        light = spread(self._checked(intensity), self.blur, len(self.shape))
        return np.maximum(self.gain * light * (1.0 + self.curvature * light), 0.0)

    def record(self, intensity: ArrayLike, seed: Seed, *, dark: ArrayLike | None = None) -> NDArray[Any]:
        """Take one frame of each intensity.

        Parameters
        ----------
        intensity : array of shape (..., *detector_shape)
            Mean reading of a perfect pixel above its dark, DN.
        seed : int or numpy.random.Generator
            Source of the noise; give every recording its own.
        dark : array, optional
            Mean dark of each frame, DN, broadcast to the intensities (`drifting_darks`); by default the
            detector's own.

        Returns
        -------
        array of the shape of `intensity`, uint16 (uint32 above 16 bits) or float64
            Raw readings, DN.
        """
        intensity = self._checked(intensity)
        darks = np.broadcast_to(self.dark if dark is None else np.asarray(dark), intensity.shape)
        rng = np.random.default_rng(seed)
        frames = np.empty(intensity.shape, self.dtype)
        for index in np.ndindex(intensity.shape[: -len(self.shape)]):
            frames[index] = self._digitise(darks[index] + self._detect(intensity[index], rng))
        return frames

    def darks(self, n_frames: int, seed: Seed) -> NDArray[Any]:
        """Record frames without beam.

        Parameters
        ----------
        n_frames : int
            Number of frames.
        seed : int or numpy.random.Generator
            Source of the noise.

        Returns
        -------
        array of shape (n_frames, *detector_shape)
            Raw readings, DN.
        """
        return self.flats(np.zeros(self.shape), n_frames, seed)

    def flats(self, beam: ArrayLike, n_frames: int, seed: Seed) -> NDArray[Any]:
        """Record frames of a steady beam.

        Parameters
        ----------
        beam : array of detector shape
            Intensity, DN.
        n_frames : int
            Number of frames.
        seed : int or numpy.random.Generator
            Source of the noise.

        Returns
        -------
        array of shape (n_frames, *detector_shape)
            Raw readings, DN.
        """
        return self.record(np.broadcast_to(self._checked(beam), (n_frames, *self.shape)), seed)

    def _checked(self, intensity: ArrayLike) -> Float64:
        values = np.asarray(intensity, dtype=np.float64)
        fits = values.shape[-len(self.shape) :] == self.shape
        require(fits, "intensity", f"of shape (..., {', '.join(map(str, self.shape))})", values.shape)
        lowest, highest = values.min(initial=0.0), values.max(initial=0.0)
        require(0.0 <= lowest <= highest < np.inf, "intensity", "finite and at least 0", (lowest, highest))
        return values

    def _detect(self, light: Float64, rng: np.random.Generator) -> Float64:
        """Signal and noise of one frame above its dark, DN."""
        light = _count(light, self.system_gain * self.light_yield, rng)
        signal = _count(self.response(light), self.system_gain, rng)
        signal = signal + self.read_noise * rng.standard_normal(self.shape)
        return signal + self.row_noise * rng.standard_normal((*self.shape[:-1], 1))

    def _digitise(self, reading: Float64) -> Float64:
        return reading if self.bits is None else np.clip(np.rint(reading), 0, 2**self.bits - 1)


def true_coefficient(
    detector: Detector,
    sigma: float,
    *,
    beam: ArrayLike | None = None,
    mode: str = "nearest",
    truncate: float = 4.0,
) -> Float64:
    """Coefficient that infinitely many photons of one beam would give.

    It is ``Gaussian(m) / m`` with ``m = detector.response(beam)``; in an even beam and without curvature
    ``Gaussian(gain) / gain``. Every exposure of that beam gives the same one if no pixel curves.

    Parameters
    ----------
    detector : Detector
        The truth.
    sigma, mode, truncate
        The Gaussian, as in `scipy.ndimage.gaussian_filter`; sigma in pixels.
    beam : array of detector shape, optional
        Intensity, DN; even if not given.

    Returns
    -------
    array of detector shape, float64
        Dimensionless; 1 where the pixel is dead, whose place in the Gaussian a perfect pixel takes.

    Examples
    --------
    >>> perfect = Detector.random((8, 8), prnu=0.0)
    >>> bool(np.all(true_coefficient(perfect, 2.0) == 1.0))
    True
    """
    from scipy.ndimage import gaussian_filter

    beam = np.ones(detector.shape) if beam is None else np.asarray(beam, dtype=np.float64)
    measured = detector.response(beam)
    dead = detector.gain == 0.0
    measured[dead] = beam[dead]
    expected = gaussian_filter(measured, sigma, mode=mode, truncate=truncate)
    return np.where(dead, 1.0, np.divide(expected, measured, out=np.ones_like(measured), where=measured > 0))


def drifting_darks(
    detector: Detector, n_frames: int, *, drift: float = 200.0, spread: float = 0.3, seed: Seed = 0
) -> Float64:
    """Mean dark of each frame where the dark current has grown from frame to frame, as with exposure time.

    Parameters
    ----------
    detector : Detector
        Its `dark` is the first frame's.
    n_frames : int
        Number of frames.
    drift, spread : float
        DN gained by the last frame, and the relative spread of that gain from pixel to pixel.
    seed : int or numpy.random.Generator, default 0
        Source of the pixels' spread.

    Returns
    -------
    array of shape (n_frames, *detector_shape), float64
        DN, free of noise; for `Detector.record`, and for a fit that subtracts darks frame by frame.

    Examples
    --------
    >>> detector = Detector.random((64, 64))
    >>> drifting_darks(detector, 3, drift=50).mean(axis=(1, 2)).round()
    array([100., 125., 150.])
    """
    growth = drift * (1.0 + spread * np.random.default_rng(seed).standard_normal(detector.shape))
    return detector.dark + np.multiply.outer(np.linspace(0.0, 1.0, n_frames), growth)


def _count(mean: Float64, unit: float, rng: np.random.Generator) -> Float64:
    """Poisson noise of a mean signal that arrives in quanta of `unit` DN."""
    if unit == 0.0:
        return mean
    counts = mean / unit
    noisy = rng.poisson(np.minimum(counts, _EXACT_COUNTS)).astype(np.float64)
    many = counts > _EXACT_COUNTS
    noisy[many] = np.rint(rng.normal(counts[many], np.sqrt(counts[many])))
    return unit * noisy
