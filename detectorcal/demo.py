"""The demonstration: a simulated detector, calibrated, and what that does to a simulated scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal import _provenance, _typing, metrics, simulate
from detectorcal._errors import AccessError
from detectorcal._typing import Float64
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.io import create_frames

__all__ = ["FILES", "Demonstration", "run", "write"]

CALIBRATION = "calibration.h5"
FILES = ("sweep.h5", "darks.h5", "flats.h5", "scan.h5", CALIBRATION, "corrected.h5")

SHAPE = (64, 320)
N_SWEEP, N_DARKS, N_FLATS, N_ANGLES = 200, 20, 20, 400
LEVEL = 2500.0
"""Brightest part of the beam in the scan, DN above dark."""
BEAM_WIDTH = 1.5
FAINTEST = 1e-3
"""Transmissions below this are noise; the logarithm stops there."""
SIGMA = 10.0


@dataclass(frozen=True)
class Demonstration:
    """What was simulated, what was fitted, and the figures that judge it."""

    calibrator: DetectorCalibrator
    sweep: np.ndarray
    darks: np.ndarray
    flats: np.ndarray
    scan: np.ndarray
    corrected: np.ndarray
    figures: dict[str, tuple[float, float]]
    """By kind of correction: pattern of an even beam (PRNU) and rings of a slice, both in %."""


def run(seed: int) -> Demonstration:
    """Simulate a sweep and a scan, fit, correct, measure.

    Parameters
    ----------
    seed : int
        Of all the noise.

    Returns
    -------
    Demonstration
    """
    rng = np.random.default_rng(seed)
    detector = simulate.Detector.random(SHAPE, prnu=0.02, seed=rng)
    profile = simulate.beam_profile(SHAPE, "bell", width=BEAM_WIDTH)
    beam = LEVEL * profile
    angles = np.radians(_degrees())
    sweep = detector.record(simulate.exposure_ladder(profile, N_SWEEP), rng)
    darks = detector.darks(N_DARKS, rng)
    flats = detector.flats(beam, N_FLATS, rng)
    scan = simulate.projections(detector, beam, simulate.ELLIPSES, angles, seed=rng)

    calibrator = DetectorCalibrator(sigma=SIGMA).fit(sweep, dark=darks)
    corrected = calibrator.transform(scan, flats)

    even = detector.flats(np.full(SHAPE, LEVEL), N_FLATS, rng)
    dark, flat = darks.mean(axis=0), flats.mean(axis=0)
    corrections: dict[str, Callable[[Any], Any]] = {
        "dark only": lambda frames: (frames - dark) / beam,
        "flat field": lambda frames: (frames - dark) / (flat - dark),
        "detectorcal": lambda frames: calibrator.transform(frames, flats),
    }
    figures = {
        name: (metrics.prnu(correct(even) * beam), _rings(correct(scan), angles))
        for name, correct in corrections.items()
    }
    return Demonstration(calibrator, sweep, darks, flats, scan, corrected, figures)


def _degrees() -> Float64:
    """Give the angles of the scan."""
    return np.linspace(0, 180, N_ANGLES, endpoint=False)


def _rings(transmission: np.ndarray, angles: Float64) -> float:
    """Ring strength of the middle slice, in % of the phantom's mean density."""
    width = transmission.shape[-1]
    truth = simulate.reconstruct(simulate.phantom_sinogram(simulate.ELLIPSES, angles, width), angles)
    middle = transmission[:, transmission.shape[1] // 2]
    measured = simulate.reconstruct(-np.log(np.maximum(middle, FAINTEST)), angles)
    inside = simulate.phantom_image(simulate.ELLIPSES, width) > 0
    return 100 * metrics.ring_strength(measured, truth) / float(truth[inside].mean())


def make_folder(folder: _typing.Path) -> Path:
    """Make a folder, and those that it lies in."""
    made = Path(folder)
    try:
        made.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise AccessError(f"`{folder}` cannot be made: there is a file of that name on the way.") from error
    return made


def write(result: Demonstration, folder: _typing.Path) -> None:
    """Write the demonstration's files, named in :data:`FILES`, into a folder.

    Parameters
    ----------
    result : Demonstration
        What :func:`run` returned.
    folder : path
        Made if it is not there; files of an earlier demonstration are replaced.
    """
    folder = make_folder(folder)
    stacks = (result.sweep, result.darks, result.flats, result.scan)
    for name, frames in (*zip(FILES, stacks, strict=False), (FILES[-1], result.corrected)):
        made_by = _provenance.describe_call("demo", result.calibrator)
        if frames is result.corrected:
            made_by["calibration"] = {
                "path": CALIBRATION,
                "method": result.calibrator.method,
                "sigma": result.calibrator.sigma,
            }
        told = {_provenance.KEY: made_by}
        # the raw scan is bare: a layout would bring a flat of 1, which is right for corrected frames alone
        turned: dict[str, Any] = (
            {"layout": "dxchange", "angles": _degrees()} if frames is result.corrected else {}
        )
        with create_frames(
            folder / name, frames.shape, frames.dtype, overwrite=True, attributes=told, **turned
        ) as writer:
            writer[:] = frames
    result.calibrator.save(folder / CALIBRATION, overwrite=True)
