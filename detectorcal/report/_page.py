"""The page: all parts put into the template, and everything that came from a file escaped."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from detectorcal._version import __version__
from detectorcal.kernels.masking import robust_std
from detectorcal.report._evidence import Evidence
from detectorcal.report._figures import Picture
from detectorcal.report._inspector import MAP_PIXELS, as_json
from detectorcal.report._scan import Scan
from detectorcal.report._verdict import THRESHOLDS, Verdict
from detectorcal.report._words import count, in_html, number, percent, thinned

__all__ = ["make_page"]

SIGN = {"good": "✓ good", "fair": "△ fair", "poor": "✗ poor", "unknown": "? not known"}
"""A word and a sign: colour alone does not tell everybody."""

Row = tuple[str, str, str]
"""Name, value with its unit, and a note."""


def make_page(
    title: str,
    judged: tuple[Verdict, list[Verdict]],
    evidence: Evidence,
    scan: Scan | None,
    pictures: list[Picture],
    inspector: dict[str, Any],
    map_url: str,
    sources: Mapping[str, str],
) -> str:
    """Give the page as text.

    Parameters
    ----------
    title : str
        Of the page; may come from a file's name.
    judged : (Verdict, list of Verdict)
        The headline, and the answers below it.
    evidence, scan : Evidence, Scan or None
        For the tables.
    pictures : list of Picture
        The figures.
    inspector : dict
        What the inspector shows.
    map_url : str
        The map it is chosen on.
    sources : mapping of str to str
        What was read, for the provenance.

    Returns
    -------
    str
        HTML that needs nothing else: no network, no other file.
    """
    headline, verdicts = judged
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_asset("page.html")).substitute(
        # the browser itself refuses whatever is not in this page
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        title=escape(title),
        style=_asset("page.css"),
        grade=headline.grade,
        headline=in_html(headline.answer),
        verdicts="".join(map(_verdict, verdicts)),
        figures="".join(_figure_rows(evidence, scan)),
        pictures="".join(map(_picture, pictures)),
        inspector=_inspector(inspector, map_url, with_points=evidence.sweep is not None),
        provenance="".join(_provenance(evidence.calibrator, sources)),
        rules="".join(f"<li>{in_html(rule)}</li>" for rule in THRESHOLDS),
        data=as_json(inspector),
        script=script,
    )


def _asset(name: str) -> str:
    return files("detectorcal.report").joinpath(name).read_text(encoding="utf-8")


def _verdict(verdict: Verdict) -> str:
    return (
        f'<article class="verdict {verdict.grade}"><h3>{in_html(verdict.question)}</h3>'
        f'<p><span class="grade">{SIGN[verdict.grade]}</span> {in_html(verdict.answer)}</p></article>'
    )


def _picture(picture: Picture) -> str:
    return (
        f"<figure><h3>{in_html(picture.title)}</h3>{picture.svg}"
        f"<figcaption>{in_html(picture.caption)}</figcaption></figure>"
    )


def _figure_rows(evidence: Evidence, scan: Scan | None) -> Iterator[str]:
    rows = [*_of_fit(evidence), *_of_noise(evidence), *([] if scan is None else _of_scan(scan))]
    for name, value, note in rows:
        yield (
            f'<tr><th scope="row">{in_html(name)}</th><td class="value">{in_html(value)}</td>'
            f'<td class="note">{in_html(note)}</td></tr>'
        )


def _of_fit(evidence: Evidence) -> Iterator[Row]:
    calibrator = evidence.calibrator
    size = " x ".join(map(str, calibrator.detector_shape_))
    yield "Detector", size, count(calibrator.n_features_in_, "pixel")
    n_frames = count(calibrator.n_frames_seen_, "frame")
    yield "Sweep", n_frames, f"mean level {number(evidence.level, 'DN')} above dark"
    yield "Not calibrated", count(evidence.n_lost, "pixel"), "they keep coefficient 1 and are marked"
    n_doubtful = evidence.n_bad - evidence.n_lost
    yield "Not to be relied on", count(n_doubtful, "pixel"), "calibrated, and marked for their behaviour"
    own = "spread of the pixels' own gain, noise taken off: robust, over 20 pixels"
    yield "PRNU", percent(evidence.pattern_std), own
    error = f"standard error of a coefficient, median; 95 % of them: up to {percent(evidence.error_95)}"
    yield "Left-over pattern", percent(evidence.error), error
    if evidence.sweep is not None:
        yield "The same, measured", percent(evidence.measured_error), "from two halves of the sweep, robust"


def _of_noise(evidence: Evidence) -> Iterator[Row]:
    calibrator = evidence.calibrator
    gain, dark = calibrator.system_gain_, calibrator.dark_
    if not gain > 0:
        gain = math.nan
    yield "System gain K", number(gain, "DN/e⁻"), "from the scatter about the fitted lines"
    yield "Light", number(evidence.electrons, "e⁻"), "collected by a pixel in the whole sweep, median"
    snr = math.sqrt(evidence.level / gain) if evidence.level > 0 else math.nan
    yield "Signal to noise", number(snr, "to 1"), "of a pixel in a frame of the mean level, of photons alone"
    if dark is None:
        yield "Dark", "one per frame", "not kept in the calibration"
        return
    known = dark[np.isfinite(dark)]
    yield "Dark", number(float(np.mean(known)), "DN"), "mean"
    spread = robust_std(known)
    electrons = f"{number(spread / gain, 'e⁻')}: " if gain > 0 else ""
    yield "DSNU, at most", number(spread, "DN"), f"{electrons}robust spread of the mean dark, noise included"


def _of_scan(scan: Scan) -> Iterator[Row]:
    level = f"mean level {number(scan.level, 'DN')} above dark, in the row shown below"
    yield "Scan", count(scan.n_projections, "projection"), level
    stripes = "from column to column, robust"
    for when, strength in zip(("before", "after"), scan.stripes, strict=True):
        yield f"Stripes {when}", number(strength, digits=2), f"of -log(transmission), {stripes}"


def _inspector(inspector: dict[str, Any], map_url: str, *, with_points: bool) -> str:
    width, height = inspector["map"]
    told = (
        "Blue points are frames that the fit uses, hollow ones are not used. The line is the fit, its band "
        "two "
        "standard errors wide either way. Below it is what correction leaves, with a band of one standard "
        "deviation of photon noise."
        if with_points
        else "The sweep was not given, so there are no points (`--sweep` adds them): the line is the "
        "coefficient, "
        "its band two standard errors wide either way."
    )
    return Template(_asset("inspector.html")).substitute(
        n_pixels=len(inspector["pixels"]),
        told=in_html(told + thinned(inspector["shape"], MAP_PIXELS, "map")),
        width=width,
        height=height,
        map=map_url,
        legend="".join(map(_legend, inspector["groups"], inspector["colours"])),
        residuals_hidden="" if with_points else "hidden",
    )


def _legend(group: str, colour: str) -> str:
    return f'<li><span class="dot" style="background:{colour}"></span>{escape(group)}</li>'


def _provenance(calibrator: Any, sources: Mapping[str, str]) -> Iterator[str]:
    made = {f"fit: {name}": value for name, value in calibrator.provenance_.items()}
    estimator = {"estimator": " ".join(repr(calibrator).split())}
    written = {"report": f"detectorcal {__version__}, {datetime.now(UTC).isoformat(timespec='seconds')}"}
    for name, value in {**sources, **made, **estimator, **written}.items():
        yield f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
