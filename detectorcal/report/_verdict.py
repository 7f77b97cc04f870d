r"""The verdict in words, and the physics behind its thresholds.

*Light.* A coefficient's relative standard error :math:`\sqrt v` is the pattern that is left; the pixels' own
spread :math:`P` is the pattern that was there. Of its variance the share :math:`1 - v/P^2` is removed.

*Rings.* What is left stays the same over all projections. The mean of N projections of level s (DN) has the
relative photon noise :math:`\sqrt{K/(sN)}`, so that rings stand :math:`r = \sqrt{v N s / K}` times over
it, and ring and noise together are :math:`\sqrt{1+r^2}` times what a perfect detector gives. As v is K over
the light of the whole sweep, r is about the square root of the scan's light over the sweep's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detectorcal.calibrator import DEFECTS
from detectorcal.report._evidence import Evidence
from detectorcal.report._scan import Scan
from detectorcal.report._words import count, number, percent, whole

__all__ = ["DEFAULT_PROJECTIONS", "THRESHOLDS", "Verdict", "judge", "ring_ratio"]

DEFAULT_PROJECTIONS = 1000
"""A usual scan, where neither a scan nor a number is given."""

GOOD_ERROR, MOST_ERROR = 0.25, 0.5
"""Standard error over the pixels' own spread: 94 % and 75 % of the pattern's variance are removed."""

GOOD_RINGS, MOST_RINGS = 1.0, 3.0
"""Rings over the noise of a column: at 1 they add 41 % to it, at 3 they are three times as strong."""

FEW_BAD, MANY_BAD = 1e-3, 1e-2
"""Share of pixels not to be trusted: above the second their neighbours cannot stand in."""

DISAGREEMENT = 1.5
"""Error that two halves of the sweep show, over that which photon noise explains."""

THRESHOLDS = (
    f"Light is enough where the standard error is below {GOOD_ERROR:g} of the pixels' own spread "
    f"(94 % of the pattern's variance removed), and too little above {MOST_ERROR:g} (75 %).",
    "Rings stand sqrt(v N s / K) over the noise of the mean of N projections: v is the relative variance of "
    "a coefficient, s the intensity in DN (of the scan if it was given, else of the sweep's open beam), K "
    f"the system gain in DN per electron. Up to {GOOD_RINGS:g} is good: rings are no stronger than the "
    "noise. "
    f"Above {MOST_RINGS:g} more light is needed. Behind a sample s is smaller, and so are the rings.",
    f"Pixels not to be trusted, the mask's left out: up to {100 * FEW_BAD:g} % is good, above "
    f"{100 * MANY_BAD:g} % poor.",
    f"Two halves of the sweep agree where their difference is below {DISAGREEMENT:g} times what photon noise "
    "makes of it.",
    "The pixels' own spread is that of the coefficients over their Gaussian of 20 pixels, robust, with the "
    "variance of the noise taken off.",
)
"""For the page's last section."""

RANK = {"good": 0, "unknown": 1, "fair": 2, "poor": 3}


@dataclass(frozen=True)
class Verdict:
    """The answer to one question."""

    grade: str
    """A key of :data:`RANK`."""
    question: str
    answer: str


def judge(evidence: Evidence, scan: Scan | None, n_projections: int) -> tuple[Verdict, list[Verdict]]:
    """Answer the questions, and say in one line what it comes to.

    Parameters
    ----------
    evidence : Evidence
        What is known of the calibration.
    scan : Scan or None
        A scan that it corrected.
    n_projections : int
        Of the scan that it is to be good enough for.

    Returns
    -------
    headline : Verdict
        As good as the worst answer about light and rings; its question is empty.
    verdicts : list of Verdict
    """
    pixels = _pixels(evidence)
    if evidence.n_lost == evidence.calibrator.n_features_in_:
        return Verdict("poor", "", "No pixel could be calibrated. Do not correct images with this."), [pixels]
    ratio = ring_ratio(evidence, scan, n_projections)
    light, rings = _light(evidence), _rings(ratio, n_projections, scan)
    verdicts = [rings, light, _longer(evidence, ratio, n_projections), pixels, *_halves(evidence)]
    return _headline(light, rings, n_projections), verdicts


def _headline(light: Verdict, rings: Verdict, n_projections: int) -> Verdict:
    """Sum up what matters most, in a line."""
    grade = max((light.grade, rings.grade), key=RANK.__getitem__)
    answer = {
        "good": f"Good enough for {n_projections} projections.",
        "unknown": "How good it is cannot be told: the noise of the sweep is not known.",
        "fair": f"Usable: faint rings are left in {n_projections} projections."
        if rings.grade == "fair"
        else "Usable: more light would help.",
        "poor": "Record more light: the calibration errs by more than half of what the pixels differ by."
        if light.grade == "poor"
        else f"Record more light for {n_projections} projections.",
    }[grade]
    return Verdict(grade, "", answer)


def ring_ratio(evidence: Evidence, scan: Scan | None, n_projections: int) -> float:
    """Give r, how far rings stand over the noise of the mean of the projections; NaN if not known."""
    level = None if scan is None or not scan.level > 0 else scan.level
    rings = evidence.calibrator.expected_rings(n_projections, level)
    # as two halves of the sweep show it, where that is more than photons explain
    return rings * evidence.known_error / evidence.error if evidence.error > 0 else math.nan


def _light(evidence: Evidence) -> Verdict:
    question = "Is there light enough?"
    error, pattern = evidence.known_error, evidence.pattern_std
    if not math.isfinite(error):
        return Verdict("unknown", question, "One frame does not tell how well it is known. Record many.")
    numbers = (
        f"A coefficient is known to {percent(error)}; the pixels themselves differ by {percent(pattern)}."
    )
    if error > MOST_ERROR * pattern:
        removed = 1 - (error / pattern) ** 2 if pattern > error else 0.0
        gain = (
            f"Correction removes {100 * removed:.0f} % of the pattern's variance at most."
            if removed
            else "Correction adds as much pattern as it removes, or more."
        )
        sigma = evidence.calibrator.sigma
        return Verdict("poor", question, f"No, too little light for sigma {sigma:g}. {numbers} {gain}")
    if error > GOOD_ERROR * pattern:
        return Verdict("fair", question, f"Just. {numbers}")
    return Verdict("good", question, f"Yes. {numbers}")


def _rings(ratio: float, n_projections: int, scan: Scan | None) -> Verdict:
    question = f"Is it good enough for {n_projections} projections?"
    if not math.isfinite(ratio):
        return Verdict("unknown", question, "The noise of the sweep is not known, so neither are the rings.")
    where = "at the open beam of the sweep" if scan is None else "at the mean intensity of the scan"
    stand = f"rings stand {ratio:.2g} times over the noise of a column, {where}"
    if ratio <= GOOD_RINGS:
        return Verdict("good", question, f"Yes: {stand}.")
    cure = (
        f"They drown in the noise up to {int(n_projections / ratio**2)} projections; "
        "`detectorcal correct --rings` removes what it can within the error bars."
    )
    if ratio <= MOST_RINGS:
        return Verdict("fair", question, f"Nearly: {stand}. {cure}")
    return Verdict("poor", question, f"No: {stand}. {cure}")


def _longer(evidence: Evidence, ratio: float, n_projections: int) -> Verdict:
    question = "Should the sweep be longer?"
    n_frames = evidence.calibrator.n_frames_seen_
    if not math.isfinite(ratio):
        return Verdict(
            "unknown", question, "Yes: record a hundred frames or more, which also tell the noise."
        )
    error, pattern = evidence.known_error, evidence.pattern_std
    for_light = error / (GOOD_ERROR * pattern) if pattern > 0 else 0.0
    factor = max(ratio / GOOD_RINGS, for_light) ** 2
    if factor <= 1:
        return Verdict("good", question, f"No: {count(n_frames, 'frame')} collected light enough.")
    return Verdict(
        "fair" if factor <= MOST_RINGS**2 else "poor",
        question,
        f"Yes: {number(factor, digits=2)} times the light of {count(n_frames, 'frame')}, about "
        f"{number(n_frames * factor, digits=2)} frames like these, makes it good for {n_projections} "
        "projections.",
    )


def _pixels(evidence: Evidence) -> Verdict:
    question = "Which pixels should not be trusted?"
    defects = evidence.calibrator.defects_
    if not evidence.n_bad:
        return Verdict("good", question, "None is marked.")
    n_own = int(np.count_nonzero(defects & ~np.uint8(DEFECTS["user"])))  # a gap is no failure
    share = n_own / defects.size
    counts = {cause: int(np.count_nonzero(defects & bit)) for cause, bit in DEFECTS.items()}
    causes = ", ".join(f"{whole(n)} {cause}" for cause, n in counts.items() if n)
    return Verdict(
        "good" if share <= FEW_BAD else "fair" if share <= MANY_BAD else "poor",
        question,
        f"{count(n_own, 'pixel')} of {whole(defects.size)}, {percent(share)}; by cause, the mask's included: "
        f"{causes}. The map of defects and the pixel inspector show them.",
    )


def _halves(evidence: Evidence) -> list[Verdict]:
    """Compare what two halves of the sweep show with what photon noise explains."""
    measured, predicted = evidence.measured_error, evidence.error
    if not (math.isfinite(measured) and predicted > 0):
        return []
    question = "Do two halves of the sweep agree?"
    numbers = f"left-over pattern is {percent(measured)}, where photon noise explains {percent(predicted)}"
    if measured <= DISAGREEMENT * predicted:
        return [Verdict("good", question, f"Yes: the {numbers}.")]
    answer = (
        f"No: the {numbers}. Something else than photons changed: drift, spots (`--reject`), the dark, or "
        "pixels that are not straight."
    )
    return [Verdict("fair", question, answer)]
