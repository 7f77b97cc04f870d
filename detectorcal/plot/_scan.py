"""What was done to a scan: its sinogram, a slice, and the rings that were removed."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectorcal._errors import InputError
from detectorcal.plot._common import (
    BLUE,
    DIVERGING,
    GREYS,
    draw_map,
    image_of,
    map_of,
    on_axes,
    scale_of,
    show_if,
)

__all__ = ["plot_reconstruction", "plot_removed_rings", "plot_sinogram"]

NAMES = "before", "after"


def plot_sinogram(before: Any, after: Any, *, axes: Any = None, show: bool = False) -> np.ndarray:
    """Plot a detector row over all projections, before and after correction, in one scale of grey.

    Parameters
    ----------
    before, after : arrays of shape (n_projections, width)
        -log(transmission), dimensionless.
    axes : two Axes, optional
        By default those of a new figure.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    array of two matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_sinogram
    >>> axes = plot_sinogram(np.eye(40), np.eye(40))
    >>> axes[1].get_title()
    'after'
    """
    drawn = _draw_pair(before, after, axes, "-log(transmission)")
    for ax in drawn:
        ax.set_aspect("auto")
        ax.set_ylabel("projection")
    show_if(show)
    return drawn


def plot_reconstruction(before: Any, after: Any, *, axes: Any = None, show: bool = False) -> np.ndarray:
    """Plot a reconstructed slice before and after correction, in one scale of grey.

    Parameters
    ----------
    before, after : arrays of shape (height, width)
        Attenuation per pixel, 1/pixel.
    axes : two Axes, optional
        By default those of a new figure.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    array of two matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_reconstruction
    >>> axes = plot_reconstruction(np.eye(40), np.eye(40))
    >>> axes[0].get_title()
    'before'
    """
    drawn = _draw_pair(before, after, axes, "attenuation, 1/pixel")
    show_if(show)
    return drawn


def _draw_pair(before: Any, after: Any, axes: Any, label: str) -> np.ndarray:
    """Draw two images of one kind; the scale is that of the second, whose errors are the smaller."""
    images = [image_of(image, name) for image, name in zip((before, after), NAMES, strict=True)]
    if images[0].shape != images[1].shape:
        raise InputError(f"`before` has shape {images[0].shape}, but `after` has shape {images[1].shape}.")
    low, high = scale_of(images[1], percentiles=(0.5, 99.5))
    drawn = on_axes(axes, 2)
    for ax, image, name in zip(drawn, images, NAMES, strict=True):
        draw_map(ax, image, label, cmap=GREYS, vmin=low, vmax=high)
        ax.set_title(name, fontsize="medium")
    return drawn


def plot_removed_rings(removed: Any, std: Any = None, *, axes: Any = None, show: bool = False) -> np.ndarray:
    """Plot what ring suppression changed: by how much each pixel, and in how many standard errors.

    Parameters
    ----------
    removed : RingSuppressor or array of shape (height, width) or (width,)
        Fitted, or its ``multiplier_``.
    std : array of the same shape, optional
        Relative standard errors of the corrected values; those of a RingSuppressor are taken from it.
    axes : two Axes, optional
        For map and histogram; by default those of a new figure.
    show : bool, default=False
        Whether the figure is shown, where there is a screen.

    Returns
    -------
    array of two matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    InputError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from detectorcal.plot import plot_removed_rings
    >>> multiplier = np.exp(0.01 * np.random.default_rng(0).standard_normal((8, 100)))
    >>> axes = plot_removed_rings(multiplier, std=np.full((8, 100), 0.01))
    >>> axes[1].get_xlabel()
    'change, standard errors'
    """
    multiplier, shape = map_of(removed, "multiplier_", "removed")
    if hasattr(removed, "variance_"):
        std = np.sqrt(removed.variance_)
    if std is not None and np.shape(std) != shape:
        raise InputError(f"`std` has shape {np.shape(std)}, but `removed` has shape {shape}.")
    percent = 100 * (multiplier - 1)
    map_ax, histogram_ax = drawn = on_axes(axes, 2)
    if len(shape) == 1:
        map_ax.plot(percent, color=BLUE, lw=0.8)
        map_ax.set_xlabel("pixel")
        map_ax.set_ylabel("change of the transmission, %")
    else:
        largest = max(np.abs(scale_of(percent)).max(), 1e-12)
        draw_map(
            map_ax, percent, "change of the transmission, %", cmap=DIVERGING, vmin=-largest, vmax=largest
        )
    changed = multiplier != 1
    if std is None:
        values, label = percent[changed], "change of the transmission, %"
    else:
        values, label = np.log(multiplier[changed]) / np.asarray(std)[changed], "change, standard errors"
    histogram_ax.hist(values, 100, color=BLUE)
    histogram_ax.set_yscale("log")
    histogram_ax.set_xlabel(label)
    histogram_ax.set_ylabel("number of pixels")
    histogram_ax.set_title(f"{changed.sum()} of {changed.size} pixels changed", fontsize="medium")
    show_if(show)
    return drawn
