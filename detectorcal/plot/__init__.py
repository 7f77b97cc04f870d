"""Figures about a calibration and what it does to images (extra ``plot``).

Every function takes arrays or a calibrator and, if you like, axes to draw on, which it returns. Nothing
is shown unless ``show=True``; only :func:`plot_pixel_calibrations` keeps the habits of 0.0.1. Maps larger
than a screen are averaged in blocks for display; histograms and figures count every pixel.
"""

from detectorcal.plot._maps import plot_coefficients, plot_defects
from detectorcal.plot._pixels import plot_pixel, plot_pixel_calibrations
from detectorcal.plot._response import plot_pattern_spectrum, plot_residuals
from detectorcal.plot._scan import plot_reconstruction, plot_removed_rings, plot_sinogram

__all__ = [
    "plot_coefficients",
    "plot_defects",
    "plot_pattern_spectrum",
    "plot_pixel",
    "plot_pixel_calibrations",
    "plot_reconstruction",
    "plot_removed_rings",
    "plot_residuals",
    "plot_sinogram",
]
