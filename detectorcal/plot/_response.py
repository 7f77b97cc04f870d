"""How straight the pixels are, and how much of their pattern goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._errors import InputError
from detectorcal._streaming import evenly, single_threaded_blas
from detectorcal._typing import Float64, Stack
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.kernels.masking import fill_masked
from detectorcal.kernels.smoothing import Smoothing, gaussian
from detectorcal.plot._common import AFTER, BEFORE, BLUE, GREY, LEGEND_ABOVE, VERMILLION, on_axes, show_if
from detectorcal.plot._pixels import accumulation_of
from detectorcal.plot._points import corrected_at, points_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_residuals", "plot_pattern_spectrum", "plot_residuals", "relative_pattern"]

SAMPLED_PIXELS, SAMPLED_FRAMES = 4000, 64
"""Enough for percentiles to 1 %; a whole sweep of a large detector would take minutes."""

BINS = 24
FEWEST_IN_BIN = 30
QUANTILES = 2.5, 16.0, 50.0, 84.0, 97.5

SPECTRUM_PIXELS = 1024
"""Side of the middle part that is transformed."""

BANDS_PER_OCTAVE = 3


def plot_residuals(
    calibrator: DetectorCalibrator,
    sweep: Stack,
    dark: Any = None,
    *,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Plot by how much corrected values miss the expected ones, against the intensity.

    A detector whose pixels are straight shows bands about 0 that are as wide as photon noise makes them,
    :math:`\sqrt{K / s}` in a single frame with system gain K and expected value s. Bands that open towards
    one end are pixels that curve, each in its way; what curves alike in all pixels cannot be seen.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted.
    sweep : array or stack of shape (n_frames, *detector_shape)
        Raw frames, DN: those of the fit, or others.
    dark : number, array of shape detector_shape, or stack of darks, optional
        Replaces the fitted dark, DN.
    seed : int, default=0
        Of the choice of at most 4000 pixels; at most 64 frames, evenly spaced, are read.
    ax : Axes, optional
        Where; by default a new figure's.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If an argument is unfit.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal import DetectorCalibrator
    >>> from detectorcal.plot import plot_residuals
    >>> levels = np.linspace(400, 2000, 12)[:, None, None]
    >>> sweep = np.random.default_rng(0).poisson(levels * np.ones((12, 32, 32)))
    >>> ax = plot_residuals(DetectorCalibrator(sigma=8).fit(sweep), sweep)
    >>> ax.get_ylabel()
    'corrected / expected - 1, %'
    """
    shape = tuple(sweep.shape[1:])
    kind = accumulation_of(calibrator, shape)
    dark_map = calibrator._dark_for_images(dark)
    good = np.flatnonzero(calibrator.defects_ == 0)
    pixels = np.sort(np.random.default_rng(seed).permutation(good)[:SAMPLED_PIXELS])
    frames = evenly(sweep.shape[0], SAMPLED_FRAMES)
    points = points_of(sweep, dark_map, kind, pixels, frames)
    (ax,) = on_axes(ax)
    corrected = corrected_at(calibrator, points, pixels)
    draw_residuals(ax, points.expected[points.used], corrected[points.used], calibrator.system_gain_)
    show_if(show)
    return ax


def draw_residuals(ax: Axes, expected: Float64, corrected: Float64, system_gain: float) -> None:
    """Draw the bands of :func:`plot_residuals` from pairs of values, DN.

    Parameters
    ----------
    ax : Axes
        Where.
    expected, corrected : arrays of shape (n,)
        Of any pixels and frames, above 0.
    system_gain : float
        DN per electron; NaN if not known.
    """
    level, bands = _bands(expected, corrected)
    if len(level):
        ax.fill_between(level, bands[0], bands[4], color=BLUE, alpha=0.2, lw=0, label="95 % of the values")
        ax.fill_between(level, bands[1], bands[3], color=BLUE, alpha=0.4, lw=0, label="68 %")
        ax.plot(level, bands[2], color=BLUE, lw=1.5, label="median")
        if np.isfinite(system_gain) and system_gain > 0:
            noise = 100 * np.sqrt(system_gain / level)
            ax.plot(level, noise, color=VERMILLION, ls="--", lw=1.2, label="photon noise, ± 1 std")
            ax.plot(level, -noise, color=VERMILLION, ls="--", lw=1.2)
        ax.legend(**LEGEND_ABOVE, ncols=2)
    else:
        ax.set_title("too few values are used by the fit", fontsize="medium")
    ax.axhline(0, color=GREY, lw=0.8, zorder=0)
    ax.set_xlabel("expected, DN above dark")
    ax.set_ylabel("corrected / expected - 1, %")


def _bands(expected: Float64, corrected: Float64) -> tuple[Float64, Float64]:
    """Give the median level of each bin of intensity, and the percentiles of the residuals in it, %."""
    positive = expected > 0
    expected, corrected = expected[positive], corrected[positive]
    if not expected.size:
        return np.empty(0), np.empty((5, 0))
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, BINS + 1)))
    number = np.clip(np.searchsorted(edges, expected, side="right") - 1, 0, max(len(edges) - 2, 0))
    residual = 100 * (corrected / expected - 1)
    groups = [number == i for i in range(max(len(edges) - 1, 1))]
    groups = [group for group in groups if np.count_nonzero(group) >= FEWEST_IN_BIN]
    level = np.array([np.median(expected[group]) for group in groups])
    bands = [np.percentile(residual[group], QUANTILES) for group in groups]
    return level, np.transpose(bands) if bands else np.empty((5, 0))


def plot_pattern_spectrum(
    before: Any,
    after: Any,
    *,
    sigma: float = 20.0,
    labels: tuple[str, str] = ("before", "after"),
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Plot the fixed pattern before and after correction by spatial frequency.

    Each image is divided by its own Gaussian, which takes out the beam. The squares of the values, one a
    third of an octave, add up to the variance of what is left, so that one reads off at which sizes pattern
    stands. Noise of the images is in both.

    Parameters
    ----------
    before : array of shape (height, width) or (width,)
        Image of an even or smooth beam minus its dark, best the mean of many frames; NaN are filled.
    after : array of the same shape, or DetectorCalibrator
        The corrected image, or what corrects ``before`` and says which pixels not to count: then choose
        frames that were not fitted.
    sigma : float, default=20
        Standard deviation of that Gaussian, pixels.
    labels : (str, str), default=("before", "after")
        In the legend.
    ax : Axes, optional
        Where; by default a new figure's.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If the shapes differ, or an image is nowhere above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_pattern_spectrum
    >>> noise = np.random.default_rng(0).standard_normal((64, 64))
    >>> ax = plot_pattern_spectrum(1000 + 20 * noise, 1000 + 5 * noise)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['before: 2.0 %', 'after: 0.5 %']
    """
    first = np.asarray(before, dtype=np.float64)
    if hasattr(after, "coef_"):
        _check_same_shape(first, after.coef_)
        first = np.where(after.defects_ == 0, first, np.nan)
        after = first * after.coef_
    second = np.asarray(after, dtype=np.float64)
    _check_same_shape(first, second)
    (ax,) = on_axes(ax)
    any_drawn = False  # where nothing is, no logarithm can be
    for image, label, colour in zip((first, second), labels, (BEFORE, AFTER), strict=True):
        pattern = 100 * relative_pattern(image, sigma)
        frequency, amplitude = _spectrum(pattern)
        any_drawn |= bool(amplitude.size)
        spread = f"{np.std(pattern):.2g} %" if np.std(pattern) < 0.995 else f"{np.std(pattern):.1f} %"
        ax.plot(frequency, amplitude, color=colour, lw=1.8, marker="o", ms=3, label=f"{label}: {spread}")
    if any_drawn:
        _make_logarithmic(ax)
    ax.set_xlabel("spatial frequency, cycles per pixel")
    ax.set_ylabel("pattern in a third of an octave, %")
    ax.legend(fontsize="small")
    show_if(show)
    return ax


def _make_logarithmic(ax: Axes) -> None:
    """Two plain numbers a decade on both axes, which fit whether there is one decade or five."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _check_same_shape(before: Float64, after: Float64) -> None:
    if before.shape != after.shape or before.ndim not in (1, 2):
        raise InputError(
            "`before` and `after` must be of one detector, 1-D or 2-D, but have shapes "
            f"{before.shape} and {after.shape}."
        )


def relative_pattern(image: Float64, sigma: float) -> Float64:
    """Give an image over its own Gaussian, minus 1; NaN are filled from their neighbours, and so give 0.

    Parameters
    ----------
    image : array of shape (height, width) or (width,), float64
        Above 0 when smoothed.
    sigma : float
        Standard deviation of the Gaussian, pixels.

    Returns
    -------
    array of the same shape, float64
    """
    smoothing = Smoothing(*validation.check_smoothing(sigma, "nearest", 0.0, 4.0))
    unknown = ~np.isfinite(image)
    with single_threaded_blas():
        whole = fill_masked(image[None], unknown[None])
        smooth = gaussian(whole, smoothing)[0]
    if not np.all(smooth > 0):
        raise InputError(
            "the smoothed image must be above 0 everywhere. Is it minus its dark, and was there a beam?"
        )
    pattern: Float64 = np.where(unknown, 0.0, whole[0] / smooth - 1)
    return pattern


def _spectrum(pattern: Float64) -> tuple[Float64, Float64]:
    """Give the middle frequencies of bands, cycles a pixel, and the standard deviation of each band."""
    middle = [slice(max(0, (n - SPECTRUM_PIXELS) // 2), (n + SPECTRUM_PIXELS) // 2) for n in pattern.shape]
    part = pattern[tuple(middle)]
    window = np.ones(())
    for n in part.shape:
        window = np.multiply.outer(window, np.hanning(n + 2)[1:-1])
    power = np.abs(np.fft.fftn(part * window)) ** 2 / (part.size * np.sum(window**2))
    distance = np.zeros(())
    for n in part.shape:
        distance = np.add.outer(distance, np.fft.fftfreq(n) ** 2)
    frequency = np.sqrt(distance)
    lowest = 1 / max(part.shape)
    if frequency.max() == 0:  # a single pixel
        return np.empty(0), np.empty(0)
    n_bands = max(1, round(BANDS_PER_OCTAVE * np.log2(frequency.max() / lowest)))
    edges = np.geomspace(lowest * 0.999, frequency.max() * 1.001, n_bands + 1)
    variance, _ = np.histogram(frequency, edges, weights=power)
    seen = variance > 0
    return np.sqrt(edges[:-1] * edges[1:])[seen], np.sqrt(variance[seen])
