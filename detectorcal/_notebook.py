"""What a notebook shows of a fitted calibrator, beside scikit-learn's own diagram."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

__all__ = ["summary"]

THUMBNAIL_PIXELS = 160
"""Longest side."""

PERCENTILES = 1.0, 99.0
"""Of the coefficients that the thumbnail's colours span."""

STYLE = "display:flex;gap:1em;align-items:start;flex-wrap:wrap;margin:.5em 0"


def summary(calibrator: Any, causes: Mapping[str, int]) -> str:
    """Give a small table of what was fitted, and a thumbnail of the coefficients.

    Parameters
    ----------
    calibrator : DetectorCalibrator
        Fitted or not.
    causes : mapping of str to int
        Bit of ``defects_`` for each cause.

    Returns
    -------
    str
        HTML; empty before a fit. Without matplotlib it has no thumbnail.
    """
    if not hasattr(calibrator, "coef_"):
        return ""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in _facts(calibrator, causes)
    )
    return f'<div style="{STYLE}"><table><tbody>{rows}</tbody></table>{_thumbnail(calibrator.coef_)}</div>'


def _facts(calibrator: Any, causes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    yield "detector", " x ".join(map(str, calibrator.detector_shape_)) + " pixels"
    yield "method", f"{calibrator.method}, sigma {calibrator.sigma:g} px"
    yield "sweep", f"{calibrator.n_frames_seen_} frames"
    relative = calibrator.coef_std_ / calibrator.coef_
    known = relative[np.isfinite(relative)]
    if known.size:
        yield "standard error", f"{100 * np.median(known):.2g} % (median)"
    defects = calibrator.defects_
    counts = {cause: int(np.count_nonzero(defects & bit)) for cause, bit in causes.items()}
    told = ", ".join(f"{count} {cause}" for cause, count in counts.items() if count)
    yield (
        "not to be trusted",
        f"{np.count_nonzero(defects)} of {defects.size} pixels" + (f": {told}" if told else ""),
    )


def _thumbnail(coef: Any) -> str:
    try:
        from matplotlib import colormaps
        from matplotlib.image import imsave
    except ImportError:
        return ""
    image = np.atleast_2d(coef)
    step = -(-max(image.shape) // THUMBNAIL_PIXELS)
    image = image[::step, ::step]
    low, high = np.percentile(image, PERCENTILES)
    png = BytesIO()
    imsave(png, image, vmin=low, vmax=high, cmap=colormaps["cividis"], format="png")
    data = base64.b64encode(png.getvalue()).decode("ascii")
    height, width = image.shape
    scale = THUMBNAIL_PIXELS / max(image.shape)
    return (
        f'<img src="data:image/png;base64,{data}" width="{max(1, round(width * scale))}" '
        f'height="{max(16, round(height * scale))}" style="image-rendering:pixelated" '
        f'alt="Map of the coefficients, dark {low:.3f} to bright {high:.3f}" '
        f'title="coefficients, {low:.3f} to {high:.3f}">'
    )
