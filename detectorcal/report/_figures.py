"""The figures of the page, as SVG that takes the page's colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from detectorcal.plot import (
    plot_coefficients,
    plot_defects,
    plot_pattern_spectrum,
    plot_reconstruction,
    plot_removed_rings,
    plot_sinogram,
)
from detectorcal.plot._common import DISPLAY_PIXELS
from detectorcal.plot._points import Points, corrected_at
from detectorcal.plot._response import draw_residuals
from detectorcal.report._evidence import PATTERN_SIGMA, Evidence, some_of
from detectorcal.report._scan import Scan
from detectorcal.report._words import count, percent, thinned, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Picture", "pictures"]

INK = "#010203"
"""Stands for the colour of the page's text, which depends on whether it is light or dark."""

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "font.size": 10,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.framealpha": 0,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}

SIZE = 4.6, 3.6
"""Inches: so small that the text can still be read on a phone."""


@dataclass(frozen=True)
class Picture:
    """A figure and what it says."""

    title: str
    svg: str
    caption: str


def pictures(
    evidence: Evidence, sampled: tuple[Points, np.ndarray] | None, scan: Scan | None
) -> list[Picture]:
    """Draw all that can be drawn.

    Parameters
    ----------
    evidence : Evidence
        What is known of the calibration.
    sampled : (Points, array of int), optional
        Values of a sample of good pixels, and their places.
    scan : Scan, optional
        Before and after.

    Returns
    -------
    list of Picture
    """
    all_bad = evidence.n_bad == evidence.calibrator.n_features_in_
    drawn: list[Picture | None] = [_defects(evidence), _spectrum(evidence)]
    if not all_bad:
        drawn[:0] = _coefficients(evidence)
    drawn.append(_residuals(evidence, sampled))
    if scan is not None:
        drawn += [*_sinograms(scan), *_slices(scan), _beyond(evidence, scan)]
    return [picture for picture in drawn if picture is not None]


@contextmanager
def _figure(n: int = 1) -> Iterator[list[Axes]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        yield [Figure(figsize=SIZE, layout="constrained").subplots() for _ in range(n)]


def _svg(figure: Any, name: str, label: str) -> str:
    """Write a figure as an element of the page, every id of its own."""
    from matplotlib import rc_context

    text = StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}):
        # what a file of its own would say of itself is no use in a page
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 sans-serif", svg)
    svg = svg.replace(INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _picture(ax: Axes, name: str, title: str, caption: str) -> Picture:
    return Picture(title, _svg(ax.figure, name, f"{title}: see the caption"), caption)


def _coefficients(evidence: Evidence) -> list[Picture]:
    coef = evidence.calibrator.coef_
    low, middle, high = np.percentile(some_of(np.ones(coef.shape, bool))(coef), (1, 50, 99))
    error = f"is known to {percent(evidence.error)} (median)" if np.isfinite(evidence.error) else "may err"
    with _figure(2) as axes:
        plot_coefficients(evidence.calibrator, axes=axes)
        return [
            _picture(
                axes[0],
                "map",
                "Coefficients",
                f"What each pixel is multiplied with. The median is {middle:.4f}; 98 % are from {low:.4f} to "
                f"{high:.4f}. A smooth course is the beam, bent by smoothing; it makes no rings."
                + thinned(coef.shape if coef.ndim == 2 else (), DISPLAY_PIXELS),
            ),
            _picture(
                axes[1],
                "histogram",
                "How far the pixels differ, and how well that is known",
                f"The pixels' own spread is {percent(evidence.pattern_std)}; a coefficient {error}. The band "
                "should be much narrower than the heap.",
            ),
        ]


def _defects(evidence: Evidence) -> Picture | None:
    if not evidence.n_bad:
        return None
    with _figure() as (ax,):
        plot_defects(evidence.calibrator, ax=ax)
        return _picture(
            ax,
            "defects",
            "Pixels not to be trusted",
            f"{count(evidence.n_bad, 'pixel')} of {whole(evidence.calibrator.n_features_in_)}. "
            f"{whole(evidence.n_lost)} of them could not be calibrated, and keep coefficient 1.",
        )


def _spectrum(evidence: Evidence) -> Picture | None:
    sweep, coef = evidence.sweep, evidence.calibrator.coef_
    if sweep is None:
        return None
    coef, repeat = coef[sweep.window], sweep.repeat[sweep.window]
    good = np.isfinite(repeat) & (evidence.calibrator.defects_[sweep.window] == 0)
    if not good.any():
        return None
    before, after = np.where(good, 1 / coef, np.nan), np.where(good, 1 + repeat, np.nan)
    with _figure() as (ax,):
        plot_pattern_spectrum(before, after, sigma=PATTERN_SIGMA, labels=("before", "left after"), ax=ax)
        return _picture(
            ax,
            "spectrum",
            "Fixed pattern before and after, by spatial frequency",
            "Squares add up to the variance. Before: the pattern of the coefficients. After: what is left, "
            f"from the difference of two halves of the sweep ({percent(evidence.measured_error)}, robust)."
            + (
                ""
                if coef.size == evidence.calibrator.n_features_in_
                else f" Of this large detector the middle, {' x '.join(map(str, coef.shape))} pixels."
            ),
        )


def _residuals(evidence: Evidence, sampled: tuple[Points, np.ndarray] | None) -> Picture | None:
    if sampled is None or not sampled[1].size:
        return None
    points, places = sampled
    corrected = corrected_at(evidence.calibrator, points, places)
    with _figure() as (ax,):
        draw_residuals(
            ax, points.expected[points.used], corrected[points.used], evidence.calibrator.system_gain_
        )
        return _picture(
            ax,
            "residuals",
            "Residuals against intensity",
            "Single frames after correction. The inner band should be as wide as photon noise makes it "
            "(with a few frames it is narrower); a median that leaves 0, or bands that open at one end, are "
            f"pixels that are not straight.{_of_sample(places.size, points.used.shape[0], evidence)}",
        )


def _sinograms(scan: Scan) -> list[Picture]:
    told = "Stripes, from column to column: {:.2g} before, {:.2g} after.".format(*scan.stripes)
    where = "The detector" if scan.row is None else f"Detector row {scan.row}"
    n_shown = len(scan.projections)
    some = "all" if n_shown == scan.n_projections else f"{n_shown} of"
    drawn = thinned(scan.before.shape, DISPLAY_PIXELS)
    shown = f"{where}, {some} {count(scan.n_projections, 'projection')}.{drawn} {told}"
    with _figure(2) as axes:
        plot_sinogram(scan.before, scan.after, axes=axes)
        for ax in axes:
            ax.set_title("")
            ax.images[0].set_extent((-0.5, scan.before.shape[1] - 0.5, scan.n_projections - 0.5, -0.5))
        first = _picture(
            axes[0], "sinogram-before", "Sinogram before", f"Dark and beam corrected only. {shown}"
        )
        return [first, _picture(axes[1], "sinogram-after", "Sinogram after", f"Corrected. {shown}")]


def _slices(scan: Scan) -> list[Picture]:
    found = scan.slices()
    if found is None:
        return []
    averaged = "" if scan.columns_in_one == 1 else f" Columns were averaged, {scan.columns_in_one} to one."
    told = (
        "Reconstructed about the middle of the row from the projections of the sinogram: to look for rings, "
        f"which are circles about it wherever the true axis is, and not at the object.{averaged}"
    )
    with _figure(2) as axes:
        plot_reconstruction(*found, axes=axes)
        for ax in axes:
            ax.set_title("")
        first = _picture(axes[0], "slice-before", "Slice before", f"Dark and beam corrected only. {told}")
        return [first, _picture(axes[1], "slice-after", "Slice after", f"Corrected. {told}")]


def _beyond(evidence: Evidence, scan: Scan) -> Picture | None:
    if scan.beyond is None:
        return None
    change = np.abs(scan.beyond - 1)
    usual, largest = float(np.sqrt(np.mean(change**2))), float(change.max())
    with _figure(2) as axes:
        plot_removed_rings(scan.beyond, axes=axes)
        return _picture(
            axes[0],
            "beyond",
            "What was removed beyond the calibration",
            "By ring suppression, or by a flat that was followed where it disagrees: in the row shown above "
            f"{percent(usual)} (root mean square), at most {percent(largest)}. Coefficients are known to "
            f"{percent(evidence.error)}: far more is a ring of the object, or a pixel that has changed.",
        )


def _of_sample(n_pixels: int, n_frames: int, evidence: Evidence) -> str:
    """Say of how many pixels and frames a figure is, if not of all."""
    calibrator = evidence.calibrator
    if n_pixels + evidence.n_bad == calibrator.n_features_in_ and n_frames == calibrator.n_frames_seen_:
        return ""
    return f" Of {whole(n_pixels)} pixels, chosen at random, in {count(n_frames, 'frame')}."
