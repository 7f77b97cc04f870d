"""Maps of the detector: its coefficients, and the pixels that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal._errors import InputError
from detectorcal.calibrator import DEFECTS
from detectorcal.kernels.masking import robust_std
from detectorcal.plot._common import (
    BLUE,
    LEGEND_ABOVE,
    MARKERS,
    PALETTE,
    VERMILLION,
    draw_map,
    map_of,
    on_axes,
    pixel_count,
    scale_of,
    show_if,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_coefficients", "plot_defects"]

BINS = 120

MOST_MARKERS = 2000
"""Defects drawn one by one; of more, a random choice of as many shows where they are."""

WIDEST = 8.0
"""Robust standard deviations of the coefficients that a histogram spans either way."""


def plot_coefficients(coef: Any, coef_std: Any = None, *, axes: Any = None, show: bool = False) -> np.ndarray:
    """Plot the map of the coefficients, and their histogram.

    Parameters
    ----------
    coef : DetectorCalibrator or array of shape (height, width) or (width,)
        Fitted, or its ``coef_``.
    coef_std : array of the same shape, optional
        Standard errors; those of a calibrator are taken from it. Their median is drawn as the noise that
        a coefficient has, and around the coefficients of a line detector as a band.
    axes : two Axes, optional
        For map and histogram; by default those of a new figure.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    array of two matplotlib.axes.Axes
        With the map and the histogram.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If an argument is unfit.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_coefficients
    >>> axes = plot_coefficients(1 + 0.02 * np.random.default_rng(0).standard_normal((64, 64)))
    >>> axes[1].get_xlabel()
    'coefficient'
    """
    values, shape = map_of(coef, "coef_", "coef")
    errors = getattr(coef, "coef_std_", coef_std)
    if errors is not None and np.shape(errors) != shape:
        raise InputError(f"`coef_std` has shape {np.shape(errors)}, but `coef` has shape {shape}.")
    map_ax, histogram_ax = drawn = on_axes(axes, 2)
    if len(shape) == 1:
        _draw_line(map_ax, values, errors)
    else:
        low, high = scale_of(values)
        draw_map(map_ax, values, "coefficient", vmin=low, vmax=high)
    _draw_histogram(histogram_ax, values, errors)
    show_if(show)
    return drawn


def _draw_line(ax: Axes, coef: np.ndarray, errors: Any) -> None:
    """Coefficients of a line detector over its pixels."""
    x = np.arange(coef.size)
    ax.plot(x, coef, color=BLUE, lw=0.8, label="coefficient")
    if errors is not None:
        ax.fill_between(
            x, coef - errors, coef + errors, color=BLUE, alpha=0.3, lw=0, label="± 1 standard error"
        )
        ax.legend(fontsize="small")
    ax.set_xlabel("pixel")
    ax.set_ylabel("coefficient")


def _draw_histogram(ax: Axes, coef: np.ndarray, errors: Any) -> None:
    """All coefficients; what lies outside the bins is counted in the title."""
    middle = float(np.median(coef))
    spread = robust_std(coef) or float(np.std(coef)) or 0.01
    low, high = (
        max(float(coef.min()), middle - WIDEST * spread),
        min(float(coef.max()), middle + WIDEST * spread),
    )
    low, high = (low, high) if high > low else (middle - spread, middle + spread)
    label = f"spread (robust) {100 * spread / middle:.2g} %"
    ax.hist(coef.ravel(), BINS, range=(low, high), color=BLUE, label=label)
    n_outside = int(np.count_nonzero((coef < low) | (coef > high)))
    if errors is not None and np.isfinite(errors).any():
        error = float(np.nanmedian(errors))
        ax.axvspan(
            middle - error, middle + error, color=VERMILLION, alpha=0.35, lw=0,
            label=f"± 1 standard error ({100 * error / middle:.2g} %)",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    ax.set_xlabel("coefficient" + (f" ({pixel_count(n_outside)} outside)" if n_outside else ""))
    ax.set_ylabel("number of pixels")
    ax.legend(**LEGEND_ABOVE)


def plot_defects(defects: Any, *, ax: Axes | None = None, show: bool = False) -> Axes:
    """Plot where the pixels are that could not be calibrated, by cause.

    Parameters
    ----------
    defects : DetectorCalibrator or array of shape (height, width) or (width,), integer
        Fitted, or its ``defects_``. A pixel with several causes is drawn for each.
    ax : Axes, optional
        Where; by default a new figure's.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    matplotlib.axes.Axes
        With one set of markers a cause; of more than 2000 pixels a random choice is drawn.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If an argument is unfit.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_defects
    >>> defects = np.zeros((64, 64), np.uint8)
    >>> defects[10, 20] = 1
    >>> ax = plot_defects(defects)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['dead: 1 pixel']
    """
    values, shape = map_of(defects, "defects_", "defects")
    if values.dtype.kind not in "iu":
        raise InputError(f"`defects` must hold whole numbers, sums of bits, but is {values.dtype}.")
    (ax,) = on_axes(ax)
    height, width = shape if len(shape) == 2 else (1, *shape)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_aspect("equal" if 0.25 <= height / width <= 4 else "auto")
    rng = np.random.default_rng(0)
    for number, (cause, bit) in enumerate(DEFECTS.items()):
        (places,) = np.nonzero((values & bit).ravel())
        if not places.size:
            continue
        chosen = rng.permutation(places)[:MOST_MARKERS]
        label = f"{cause}: {pixel_count(places.size)}"
        if chosen.size < places.size:
            label += f", {chosen.size} drawn"
        size, style = 18 if chosen.size < 300 else 5, number % len(PALETTE)
        look: dict[str, Any] = {"s": size, "c": PALETTE[style], "marker": MARKERS[style], "lw": 0}
        ax.scatter(chosen % width, chosen // width, label=label, **look)
    ax.set_xlabel("column, pixels" if len(shape) == 2 else "pixel")
    ax.set_ylabel("row, pixels" if len(shape) == 2 else "")
    if len(shape) == 1:
        ax.set_yticks([])
    if ax.collections:
        ax.legend(**LEGEND_ABOVE, ncols=2)
    else:
        ax.set_title("no pixel is marked", fontsize="medium")
    show_if(show)
    return ax
