"""One self-contained HTML page about a calibration (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils.validation import check_is_fitted

from detectorcal import _validation as validation
from detectorcal._errors import InputError
from detectorcal._files import atomic_file
from detectorcal._typing import Path
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.plot._common import check_matplotlib
from detectorcal.report._evidence import Evidence, gather
from detectorcal.report._figures import pictures
from detectorcal.report._inspector import choose_pixels, inspector_data, inspector_map, read_points
from detectorcal.report._page import make_page
from detectorcal.report._scan import Scan, look_at_scan
from detectorcal.report._verdict import DEFAULT_PROJECTIONS, Verdict, judge

__all__ = ["write_report"]

SUFFIXES = (".html", ".htm")


def write_report(
    path: Path,
    calibrator: DetectorCalibrator,
    *,
    sweep: Any = None,
    scan: Any = None,
    corrected: Any = None,
    dark: Any = None,
    dark_per_frame: bool = False,
    n_projections: int | None = None,
    title: str = "Calibration",
    sources: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Verdict:
    """Write a page that shows what a detector does and whether its calibration is any good.

    It holds a verdict in words, figures with units, plots, and an inspector for single pixels; it needs no
    network and no other file. What it judges by is written at its end.

    Parameters
    ----------
    path : path
        ``.html``.
    calibrator : DetectorCalibrator
        Fitted.
    sweep : array or stack of shape (n_frames, *detector_shape), optional
        The frames of the fit, DN. With them the page shows residuals, points in the inspector, and the error
        of the coefficients as two halves of the sweep show it.
    scan, corrected : arrays or stacks of shape (n_projections, *detector_shape), optional
        Raw projections, DN, and what correction made of them.
    dark : number, array of shape detector_shape, or stack of darks, optional
        Of the sweep and the scan, DN; by default that of the calibration. A scan that was opened with darks
        of its own keeps to them.
    dark_per_frame : bool, default=False
        Whether ``dark`` holds one dark for each frame of ``sweep``.
    n_projections : int, optional
        Of the scan that it is to be good enough for; by default that of ``scan``, or 1000.
    title : str, default="Calibration"
        Of the page.
    sources : mapping of str to str, optional
        Names of what was given, for the provenance.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Returns
    -------
    Verdict
        The headline, with ``grade`` ("good", "fair", "poor" or "unknown") and ``answer``.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    OutputExistsError, AccessError, WriteError
        If the file exists, or cannot be written.
    InputError
        If an argument is unfit.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from detectorcal import DetectorCalibrator
    >>> from detectorcal.report import write_report
    >>> levels = np.linspace(400, 2000, 12)[:, None, None]
    >>> gain = 1 + 0.03 * np.random.default_rng(0).standard_normal((32, 32))
    >>> sweep = np.random.default_rng(1).poisson(levels * gain)
    >>> calibrator = DetectorCalibrator(sigma=8).fit(sweep)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(path, calibrator, sweep=sweep, n_projections=20).grade
    'fair'
    """
    check_matplotlib()  # before anything that takes time: it names the extra where matplotlib is missing
    _check_name(path)
    check_is_fitted(calibrator)
    validation.check_integer("n_projections", 1 if n_projections is None else n_projections, at_least=1)
    if (scan is None) != (corrected is None):
        raise InputError("`scan` and `corrected` go together: the raw projections and the corrected ones.")
    # opened first, so that a folder that cannot be written is told before the work
    with atomic_file(path, overwrite=overwrite) as temporary:
        evidence = gather(calibrator, sweep, dark, dark_per_frame)
        seen = None
        if scan is not None:
            own = getattr(scan, "darks", None)
            shared = None if dark_per_frame else dark
            seen = look_at_scan(calibrator, scan, corrected, shared if own is None else own)
        headline, page = _page(evidence, seen, n_projections, title, sources or {})
        temporary.write_text(page, encoding="utf-8")
    return headline


def _page(
    evidence: Evidence, scan: Scan | None, n_projections: int | None, title: str, sources: Mapping[str, str]
) -> tuple[Verdict, str]:
    """Judge, draw, and put the page together."""
    if n_projections is None:
        n_projections = DEFAULT_PROJECTIONS if scan is None else scan.n_projections
    judged = judge(evidence, scan, n_projections)
    inspected = choose_pixels(evidence)
    read = read_points(evidence, inspected)
    points, sampled = (None, None) if read is None else (read[0], read[1:])
    page = make_page(
        title,
        judged,
        evidence,
        scan,
        pictures(evidence, sampled, scan),
        inspector_data(evidence, inspected, points),
        inspector_map(evidence),
        sources,
    )
    return judged[0], page


def _check_name(path: Any) -> None:
    checked = validation.check_path("path", path)
    if not str(checked).lower().endswith(SUFFIXES):
        raise InputError(f"a report is an HTML page: name it .html, not `{checked}`.")
