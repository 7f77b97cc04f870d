"""What is compared: each method makes a sinogram of the same recording."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np

from detectorcal import DetectorCalibrator, RingSuppressor
from tests.benchmarks.quality.cases import Recording

FAINTEST = 1e-3
"""Transmissions below this are noise; the logarithm stops there, for every method."""

Method = Callable[[Recording], np.ndarray]


def sinogram(transmission: np.ndarray) -> np.ndarray:
    """-log(transmission) of one row, (n_angles, width), float64."""
    return -np.log(np.maximum(np.asarray(transmission, np.float64), FAINTEST))


def oracle(recording: Recording) -> np.ndarray:
    """Undo the true dark and the true response, and divide by the true beam: only the noise is left."""
    world, row = recording.world, recording.row
    detector = world.at_scan
    measured = (recording.projections[:, row] - detector.dark[row]) / detector.gain[row]
    # the stable root of measured = s (1 + b s)
    under_root = np.maximum(1 + 4 * detector.curvature[row] * measured, 0)
    intensity = 2 * measured / (1 + np.sqrt(under_root))
    return sinogram(intensity / seen_by_perfect(recording, world.beam)[row])


def seen_by_perfect(recording: Recording, intensity: np.ndarray) -> np.ndarray:
    """What a perfect pixel reads of an intensity, DN, without noise; light spreads on its way there too."""
    world = recording.world.at_scan
    perfect = type(world).random(world.shape, prnu=0.0, blur=world.blur)
    return perfect.response(intensity)


def flat_field(recording: Recording) -> np.ndarray:
    """Divide by the mean flat, pixel by pixel."""
    row = recording.row
    dark, flat = (stack[:, row].mean(axis=0) for stack in (recording.darks, recording.flats))
    return sinogram((recording.projections[:, row] - dark) / (flat - dark))


@lru_cache(maxsize=1)
def _calibrator(recording: Recording, method: str) -> DetectorCalibrator:
    calibrator = DetectorCalibrator(sigma=recording.setup.sigma, method=method, n_jobs=1)
    return calibrator.fit(recording.sweep, dark=recording.darks)


def calibrated(recording: Recording, method: str, *, evidence: bool, rings: bool = False) -> np.ndarray:
    """Fit the sweep and correct the scan; the flats as evidence about the pixels, or as a beam alone."""
    with warnings.catch_warnings():
        # of changed pixels, levels outside the sweep and the like: here they are the case
        warnings.simplefilter("ignore")
        flats = recording.flats if evidence else recording.flats.mean(axis=0)
        correction = _calibrator(recording, method).correction(flats)
        transmission = correction.transform(recording.projections)
        if rings:
            transmission = RingSuppressor(correction, n_jobs=1).fit_transform(transmission)
    return sinogram(transmission[:, recording.row])


ORACLE, FLAT_FIELD, PAPER, OURS = "oracle", "flat field", "paper", "curved + flats + rings"
METHODS: dict[str, Method] = {
    ORACLE: oracle,
    FLAT_FIELD: flat_field,
    PAPER: partial(calibrated, method="croton", evidence=False),
    "curved": partial(calibrated, method="curved", evidence=False),
    "curved + flats": partial(calibrated, method="curved", evidence=True),
    OURS: partial(calibrated, method="curved", evidence=True, rings=True),
}
"""By name; those that a stripe filter follows come in `FILTERED`."""

FILTERED = FLAT_FIELD, OURS
FILTERS = {
    "fft": "remove_stripe_based_fft",
    "sorting": "remove_stripe_based_sorting",
    "wavelet-fft": "remove_stripe_based_wavelet_fft",
    "all": "remove_all_stripe",
}
"""algotom's stripe filters, with the settings they have by themselves."""


def find_filters() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """algotom's filters by name; none where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its dependencies deprecate
            room = importlib.import_module("algotom.prep.removal")
    except ImportError:
        return {}
    return {name: getattr(room, function) for name, function in FILTERS.items()}


def with_filter(method: str, stripe_filter: str) -> str:
    """Name of a method followed by a filter."""
    return f"{method} + {stripe_filter}"


def sinograms(recording: Recording) -> Iterator[tuple[str, np.ndarray]]:
    """Name and sinogram of every method, and of every filter after those it follows."""
    filters = find_filters()
    for name, method in METHODS.items():
        found = method(recording)
        yield name, found
        if name in FILTERED:
            for stripe_filter, remove in filters.items():
                yield with_filter(name, stripe_filter), remove(found.copy())
