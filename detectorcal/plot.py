"""Figures about a calibration (extra ``plot``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal import _validation as validation
from detectorcal._errors import InputError, MissingDependencyError
from detectorcal._execution import as_frames, mean_frame
from detectorcal._streaming import batches, read, single_threaded_blas
from detectorcal._typing import Array, Float64, Path, Shape
from detectorcal.kernels.accumulation import subtract_dark
from detectorcal.kernels.smoothing import Smoothing, gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_pixel_calibrations"]

USED, LEFT_OUT, FITTED = "#0072B2", "#999999", "#D55E00"
"""Blue, grey and vermillion of the Okabe-Ito palette, which colour-blind readers can tell apart."""


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
) -> Figure:
    """Plot expected against measured values of some pixels, and the line fitted to each.

    Parameters
    ----------
    volume : array or stack of shape (n_frames, height, width)
        The sweep, raw frames in DN.
    dark : number, array of shape (height, width), or stack of darks, optional
        Dark, DN; a stack is averaged.
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

    Returns
    -------
    matplotlib.figure.Figure
        One plot a pixel.

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
    plt = _pyplot()
    shape: Shape = tuple(np.shape(volume))
    if len(shape) != 3:
        raise InputError(f"`volume` must have shape (n_frames, height, width), but has shape {shape}.")
    smoothing = Smoothing(*validation.check_smoothing(sigma, "nearest", 0.0, 4.0))
    pixels = _chosen_pixels(coords, n_pixels, shape[1:], seed)
    measured, expected = _points(volume, dark, smoothing, pixels)
    n_columns = math.ceil(math.sqrt(len(pixels)))
    n_rows = math.ceil(len(pixels) / n_columns)
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
    for ax, pixel, m, s in zip(axes.flat, pixels, measured.T, expected.T, strict=False):
        _plot_pixel(ax, pixel, m, s, cutoff)
    if save_path is not None:
        figure.savefig(save_path, dpi=300)
    if show and plt.get_backend().lower() in _interactive_backends():
        plt.show()
    return figure


def _plot_pixel(ax: Axes, pixel: Sequence[int], measured: Float64, expected: Float64, cutoff: float) -> None:
    used = expected > cutoff
    ax.scatter(
        measured[~used], expected[~used], s=16, facecolors="none", edgecolors=LEFT_OUT, label="not used"
    )
    ax.scatter(measured[used], expected[used], s=16, color=USED, label="used")
    if used.any():
        coef = _coefficient(measured[used], expected[used])
        ends = np.array([0.0, measured.max()])
        ax.plot(ends, coef * ends, color=FITTED, label=f"coefficient {coef:.4f}")
    ax.set_title(f"pixel ({pixel[0]}, {pixel[1]})", fontsize="medium")
    ax.set_xlabel("measured, DN above dark")
    ax.set_ylabel("expected, DN above dark")
    ax.legend(fontsize="x-small")


def _coefficient(measured: Float64, expected: Float64) -> float:
    """Solve for one pixel, as the paper does."""
    return 1 + float(measured @ (expected - measured) / (measured @ measured))


def _points(
    volume: Array, dark: Any, smoothing: Smoothing, pixels: list[tuple[int, int]]
) -> tuple[Float64, Float64]:
    """Measured and expected values of some pixels, each of shape (n_frames, n_pixels)."""
    stack = volume if hasattr(volume, "shape") else np.asarray(volume)
    shape = tuple(stack.shape[1:])
    dark_map = np.zeros(shape)
    if dark is not None:
        dark_map = mean_frame(as_frames(validation.as_map_stack("dark", dark, shape), shape), batch_size=None)
    rows, columns = np.transpose(pixels)
    measured, expected = [], []
    with single_threaded_blas():
        for batch in batches(stack, None):
            frames = subtract_dark(read(stack, batch), dark_map)
            measured.append(frames[:, rows, columns])
            expected.append(gaussian(frames, smoothing)[:, rows, columns])
    return np.concatenate(measured), np.concatenate(expected)


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


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            'matplotlib is needed for figures and is not installed: `pip install "detectorcal[plot]"`.'
        ) from error
    return plt


def _interactive_backends() -> set[str]:
    from matplotlib.backends import BackendFilter, backend_registry

    return {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}
