"""What all figures share: matplotlib, where it is there; axes, colours, and maps of a size for display."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal._errors import InputError, MissingDependencyError
from detectorcal._typing import Shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW, GREY = PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#999999",
)  # fmt: skip
"""The Okabe-Ito palette, which colour-blind readers can tell apart; grey in the place of its black."""

BEFORE, AFTER = ORANGE, BLUE

MARKERS = "osDv^XP*"
"""As many as there are colours, for readers and printers without colour."""

SEQUENTIAL, DIVERGING, GREYS = "cividis", "PuOr_r", "gray"

LEGEND_ABOVE: dict[str, Any] = {
    "fontsize": "small", "loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False,
}  # fmt: skip
"""Where a legend hides no data."""

DISPLAY_PIXELS = 640
"""Side of the largest map handed to matplotlib: more than a figure has, and quickly drawn."""

PERCENTILES = 1.0, 99.0
"""Of what a colour scale spans: the few pixels outside would take the contrast from all others."""


def pyplot() -> Any:
    """Import matplotlib's pyplot, or name the extra that has it."""
    return _imported("matplotlib.pyplot")


def check_matplotlib() -> None:
    """Name the extra where matplotlib is missing; pyplot, which takes longer, is not imported."""
    _imported("matplotlib")


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            'matplotlib is needed for figures and is not installed: `pip install "detectorcal[plot]"`.'
        ) from error


def on_axes(ax: Any, n: int = 1, *, size: tuple[float, float] = (5.0, 3.8)) -> np.ndarray:
    """Give the axes to draw on: those that were given, checked, or those of a new figure.

    Parameters
    ----------
    ax : Axes, sequence of Axes, or None
        As the caller's user gave it.
    n : int, default=1
        How many are needed, side by side.
    size : (float, float), default=(5.0, 3.8)
        Of each, inches.

    Returns
    -------
    array of shape (n,), object
    """
    if ax is None:
        width, height = size
        figure = pyplot().figure(figsize=(n * width, height), layout="constrained")
        figure.get_layout_engine().set(wspace=0.08)  # no label touches the next plot's
        new: np.ndarray = figure.subplots(1, n, squeeze=False)[0]
        return new
    given = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if given.size != n or not all(hasattr(one, "plot") for one in given):
        name = "`ax` must be an Axes" if n == 1 else f"`axes` must be {n} Axes"
        raise InputError(f"{name} of matplotlib, got {ax!r}.")
    return given


def show_if(show: bool) -> None:
    """Show the figures, if that was asked for and there is a screen."""
    if show:
        plt = pyplot()
        if plt.get_backend().lower() in _interactive_backends():
            plt.show()


def _interactive_backends() -> set[str]:
    from matplotlib.backends import BackendFilter, backend_registry

    return {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}


def reduced(image: Any, limit: int = DISPLAY_PIXELS) -> np.ndarray:
    """Average an image in blocks, so that no side has more than ``limit`` pixels; NaN are left out.

    Parameters
    ----------
    image : array of shape (height, width)
        Any real dtype.
    limit : int, default=640
        Most pixels of a side.

    Returns
    -------
    array of shape (height', width'), floating
        The image itself where it is small enough. Blocks at the lower and right edge may be smaller.
    """
    values = np.asarray(image, dtype=np.result_type(image, np.float32))
    for axis in (0, 1):
        step = -(-values.shape[axis] // limit)
        if step > 1:
            values = averaged(values, step, axis)
    return values


def averaged(values: np.ndarray, step: int, axis: int) -> np.ndarray:
    """Average blocks of ``step`` along an axis; NaN are left out, and the last block may be shorter."""
    starts = np.arange(0, values.shape[axis], step)
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0), starts, axis=axis)
    count = np.add.reduceat(known, starts, axis=axis, dtype=np.intp)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_map(ax: Axes, image: Any, label: str, **colours: Any) -> None:
    """Draw a map in pixel coordinates, with its colour bar.

    Parameters
    ----------
    ax : Axes
        Where.
    image : array of shape (height, width)
        What, at full size.
    label : str
        Of the colour bar, with the unit.
    **colours
        Of :meth:`matplotlib.axes.Axes.imshow`.
    """
    height, width = np.shape(image)
    shown = reduced(image)
    blocks = [-(-size // limit) for size, limit in zip((height, width), shown.shape, strict=True)]
    if max(blocks) > 1:
        label = f"{label} (mean of {blocks[0]}x{blocks[1]} pixels)"
    drawn = ax.imshow(
        shown,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        aspect="equal" if 0.25 <= height / width <= 4 else "auto",
        interpolation="nearest",
        **{"cmap": SEQUENTIAL, **colours},
    )
    ax.set_xlabel("column, pixels")
    ax.set_ylabel("row, pixels")
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.85)


def scale_of(*images: Any, percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Give the range of a colour scale that suits several images; (0, 1) where nothing is finite."""
    values = np.concatenate([np.ravel(reduced(image)) for image in images])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, percentiles)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def map_of(value: Any, attribute: str, name: str) -> tuple[np.ndarray, Shape]:
    """Give the map of a fitted estimator, or the array that was given in its place, and its shape."""
    array = np.asarray(getattr(value, attribute) if hasattr(value, attribute) else value)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or array.size == 0:
        raise InputError(
            f"`{name}` must be a fitted estimator or a map of shape (height, width) or (width,), got "
            + (f"shape {array.shape} of {array.dtype}." if array.ndim else f"a {type(value).__name__}.")
        )
    return array, array.shape


def image_of(value: Any, name: str) -> np.ndarray:
    """Check an image, (height, width)."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.ndim != 2 or array.size == 0:
        raise InputError(
            f"`{name}` must be a 2-D array of numbers, but has shape {array.shape} and dtype {array.dtype}."
        )
    return array


def pixel_count(number: int) -> str:
    """Say how many pixels."""
    return f"{number} pixel" + ("" if number == 1 else "s")


def grid(n: int) -> tuple[int, int]:
    """Rows and columns of a nearly square grid of ``n`` plots."""
    n_columns = math.ceil(math.sqrt(n))
    return math.ceil(n / n_columns), n_columns
