"""Single pixels: what they read, what they should have read, and the line between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._errors import InputError
from detectorcal._execution import as_frames, mean_frame
from detectorcal._typing import Array, Float64, Path, Shape
from detectorcal.calibrator import METHODS, DetectorCalibrator
from detectorcal.kernels.accumulation import Accumulation
from detectorcal.kernels.smoothing import Smoothing
from detectorcal.plot._common import BLUE, GREY, VERMILLION, grid, on_axes, pyplot, show_if
from detectorcal.plot._points import Points, points_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accumulation_of", "plot_pixel", "plot_pixel_calibrations"]


def plot_pixel_calibrations(
    volume: Array,
    dark: Any = None,
    n_pixels: int = 9,
    save_path: Path | None = None,
    show: bool = True,
    sigma: float = 50,
    cutoff: float = 300,
    coords: Sequence[Sequence[int]] | None = None,
    gpu: bool = False,
    inch_per_plot: float = 3,
    *,
    seed: int = 0,
    calibrator: DetectorCalibrator | None = None,
) -> Figure:
    """Plot expected against measured values of some pixels, and the line fitted to each.

    Parameters
    ----------
    volume : array or stack of shape (n_frames, height, width)
        The sweep, raw frames in DN.
    dark : number, array of shape (height, width), or stack of darks, optional
        Dark, DN; a stack is averaged. With a calibrator its own is the default.
    n_pixels : int, default=9
        Number of pixels, drawn at random; not used where ``coords`` are given.
    save_path : path, optional
        Where the figure is saved, in a format of matplotlib's.
    show : bool, default=True
        Whether the figure is shown, where there is a screen.
    sigma : float, default=50
        Standard deviation of the Gaussian, pixels.
    cutoff : float, default=300
        Points whose expected value is not above this are drawn grey and not fitted, DN above dark.
    coords : sequence of (row, column), optional
        The pixels to plot.
    gpu : bool, default=False
        Accepted for the sake of 0.0.1; has no effect.
    inch_per_plot : float, default=3
        Side of each plot, inches.
    seed : int, default=0
        Of the choice of pixels.
    calibrator : DetectorCalibrator, optional
        Fitted. Its coefficients and standard errors are drawn, and its parameters say which points were
        used (``sigma`` and ``cutoff`` of this function are not looked at).

    Returns
    -------
    matplotlib.figure.Figure
        One plot a pixel. Bands are two standard errors of the coefficient wide either way; without a
        calibrator the error is that of each pixel's own residuals.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If an argument is unfit.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_pixel_calibrations
    >>> sweep = np.linspace(400, 2000, 5)[:, None, None] * np.ones((5, 32, 32))
    >>> figure = plot_pixel_calibrations(sweep, n_pixels=4, show=False)
    >>> len(figure.axes)
    4
    """
    plt = pyplot()
    stack = volume if hasattr(volume, "shape") else np.asarray(volume)
    shape: Shape = tuple(stack.shape)
    if len(shape) != 3:
        raise InputError(f"`volume` must have shape (n_frames, height, width), but has shape {shape}.")
    pixels = _chosen_pixels(coords, n_pixels, shape[1:], seed)
    places = np.ravel_multi_index(tuple(np.transpose(pixels)), shape[1:])
    if calibrator is None:
        smoothing = Smoothing(*validation.check_smoothing(sigma, "nearest", 0.0, 4.0))
        kind = Accumulation(METHODS["croton"], smoothing, cutoff, None, None)
    else:
        kind = accumulation_of(calibrator, shape[1:])
    points = points_of(stack, _dark_map(dark, shape[1:], calibrator), kind, places)
    n_rows, n_columns = grid(len(pixels))
    figure: Figure
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(inch_per_plot * n_columns, inch_per_plot * n_rows),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(pixels) :]:
        ax.remove()
    for number, (ax, pixel) in enumerate(zip(axes.flat, pixels, strict=False)):
        measured, expected, used = _of_pixel(points, number)
        coef, coef_std = (
            _fitted(measured[used], expected[used])
            if calibrator is None
            else (float(calibrator.coef_[pixel]), float(calibrator.coef_std_[pixel]))
        )
        plot_pixel(measured, expected, coef, coef_std, used=used, ax=ax)
        ax.set_title(f"pixel ({pixel[0]}, {pixel[1]})", fontsize="medium")
    if save_path is not None:
        figure.savefig(save_path, dpi=300)
    show_if(show)
    return figure


def plot_pixel(
    measured: Any,
    expected: Any,
    coef: float | None = None,
    coef_std: float | None = None,
    *,
    used: Any = None,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Plot expected against measured values of one pixel, and the line through them.

    Parameters
    ----------
    measured, expected : arrays of shape (n_frames,)
        Frame minus dark, and the same smoothed over the detector, DN.
    coef : float, optional
        Slope of the line; none is drawn without it or where it is NaN.
    coef_std : float, optional
        Its standard error: a band of two of them either way is drawn.
    used : array of shape (n_frames,), bool, optional
        Which points the fit counts; the others are drawn grey and hollow.
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
        If the arrays differ in shape.

    Examples
    --------
    >>> from detectorcal.plot import plot_pixel
    >>> ax = plot_pixel([98.0, 205.0, 290.0], [100.0, 200.0, 300.0], 1.01, 0.02)
    >>> ax.get_xlabel()
    'measured, DN above dark'
    """
    m, s = np.asarray(measured, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    counted = np.ones(m.shape, bool) if used is None else np.asarray(used, dtype=bool)
    if m.ndim != 1 or not m.shape == s.shape == counted.shape:
        raise InputError(
            f"`measured`, `expected` and `used` must be (n_frames,) alike, but are {m.shape}, {s.shape} and "
            f"{counted.shape}."
        )
    (ax,) = on_axes(ax)
    ax.scatter(m[~counted], s[~counted], s=16, facecolors="none", edgecolors=GREY, label="not used")
    ax.scatter(m[counted], s[counted], s=16, color=BLUE, label="used")
    if coef is not None and np.isfinite(coef) and counted.any():
        ends = np.array([0.0, m[counted].max()])
        known = coef_std is not None and np.isfinite(coef_std)
        label = f"coefficient {coef:.4f}" + (f" ± {coef_std:.4f}" if known else "")
        ax.plot(ends, coef * ends, color=VERMILLION, label=label)
        if coef_std is not None and known:
            band = 2 * coef_std * ends
            ax.fill_between(ends, coef * ends - band, coef * ends + band, color=VERMILLION, alpha=0.25, lw=0)
    ax.set_xlabel("measured, DN above dark")
    ax.set_ylabel("expected, DN above dark")
    handles, labels = ax.get_legend_handles_labels()
    drawn = [
        (h, label)
        for h, label in zip(handles, labels, strict=True)
        if label != "not used" or not counted.all()
    ]
    ax.legend(*zip(*drawn, strict=True), fontsize="x-small")
    show_if(show)
    return ax


def accumulation_of(calibrator: DetectorCalibrator, shape: Shape) -> Accumulation:
    """Tell what a fitted calibrator does with a frame of the given shape before it sums it."""
    if not hasattr(calibrator, "coef_"):
        raise InputError("`calibrator` must be a fitted DetectorCalibrator.")
    if calibrator.detector_shape_ != tuple(shape):
        raise InputError(
            f"the frames have shape {tuple(shape)}, but the calibration is of a detector of shape "
            f"{calibrator.detector_shape_}."
        )
    smoothing = calibrator._checked_parameters()
    return calibrator._accumulation(calibrator._model(), calibrator.kept_out_, smoothing)


def _dark_map(dark: Any, shape: Shape, calibrator: DetectorCalibrator | None) -> Float64:
    if calibrator is not None:
        return calibrator._dark_for_images(dark)
    if dark is None:
        return np.zeros(shape)
    return mean_frame(as_frames(validation.as_map_stack("dark", dark, shape), shape), batch_size=None)


def _of_pixel(points: Points, number: int) -> tuple[Float64, Float64, np.ndarray]:
    return points.measured[:, number], points.expected[:, number], points.used[:, number]


def _fitted(measured: Float64, expected: Float64) -> tuple[float, float]:
    """Solve for one pixel, as the paper does; the standard error is that of its own residuals (sandwich)."""
    squared = float(measured @ measured)
    if not squared:
        return math.nan, math.nan
    coef = 1 + float(measured @ (expected - measured)) / squared
    if measured.size < 2:
        return coef, math.nan
    residual = measured * (expected - coef * measured)
    return coef, math.sqrt(measured.size / (measured.size - 1) * float(residual @ residual)) / squared


def _chosen_pixels(
    coords: Sequence[Sequence[int]] | None, n_pixels: int, shape: Shape, seed: int
) -> list[tuple[int, int]]:
    """Give (row, column) of each pixel to plot."""
    if coords is None:
        count = validation.check_integer("n_pixels", n_pixels, at_least=1) or 1
        n_all = math.prod(shape)
        flat = np.random.default_rng(seed).choice(n_all, size=min(count, n_all), replace=False)
        return [(int(i // shape[1]), int(i % shape[1])) for i in flat]
    pixels = [tuple(int(c) for c in pixel) for pixel in coords]
    for pixel in pixels:
        if len(pixel) != 2 or not all(0 <= c < n for c, n in zip(pixel, shape, strict=True)):
            raise InputError(f"`coords` must be (row, column) within {shape}, got {pixel}.")
    return [(row, column) for row, column in pixels]
