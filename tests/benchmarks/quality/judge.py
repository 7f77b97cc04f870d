"""Reconstruct, and measure against a perfect detector."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Container, Iterator

import numpy as np

from detectorcal import metrics, simulate
from tests.benchmarks.quality.cases import Case, Recording, Setup, behind_object
from tests.benchmarks.quality.methods import ORACLE, seen_by_perfect, sinogram, sinograms

Reconstruct = Callable[[np.ndarray, np.ndarray], np.ndarray]
Figures = dict[str, dict[str, float]]

REFERENCE, SAME_PHOTONS = "reference", "same photons"
RING, RMSE, OFF = "ring", "rmse", "off"
SAME_RING, SAME_RMSE = "ring, same photons", "rmse, same photons"


def find_reconstruction() -> Reconstruct:
    """astra-toolbox on the CPU where it is installed, else the simulator's own."""
    try:
        importlib.import_module("astra")
    except ImportError:
        return simulate.reconstruct
    return reconstruct_with_astra


def reconstruct_with_astra(rows: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Filtered back-projection (ram-lak) by astra-toolbox; axes and units as `detectorcal.simulate`'s."""
    astra = importlib.import_module("astra")
    width = rows.shape[1]
    volume = astra.create_vol_geom(width, width)
    scan = astra.create_proj_geom("parallel", 1.0, width, angles)
    options = astra.astra_dict("FBP") | {"option": {"FilterType": "ram-lak"}}
    options["ProjectorId"] = astra.create_projector("linear", scan, volume)
    options["ProjectionDataId"] = astra.data2d.create("-sino", scan, rows)
    options["ReconstructionDataId"] = slice_id = astra.data2d.create("-vol", volume)
    algorithm = astra.algorithm.create(options)
    astra.algorithm.run(algorithm)
    image = np.array(astra.data2d.get(slice_id)[::-1], dtype=np.float64)  # its first row is the highest y
    astra.algorithm.delete(algorithm)
    astra.data2d.delete([options["ProjectionDataId"], slice_id])
    astra.projector.delete(options["ProjectorId"])
    return image


def reference_sinogram(recording: Recording) -> np.ndarray:
    """-log(transmission) of the judged row as a perfect detector would read it without noise."""
    world, row = recording.world, recording.row
    unhardened = dataclasses.replace(world, hardening=None)
    read = [seen_by_perfect(recording, light)[row] for light in behind_object(unhardened, recording.setup)]
    return sinogram(np.stack(read) / seen_by_perfect(recording, world.beam)[row])


def rmse(image: np.ndarray, reference: np.ndarray) -> float:
    """Root mean squared difference inside the circle that every angle sees."""
    from_middle = np.arange(len(image)) - (len(image) - 1) / 2
    inside = np.hypot(from_middle, from_middle[:, None]) < len(image) / 2
    return float(np.sqrt(np.mean((image - reference)[inside] ** 2)))


def slices(
    case: Case, setup: Setup, seed: int, wanted: Container[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and slice of the reference, then of every method and filter, or of those that are wanted."""
    reconstruct = find_reconstruction()
    recording = case.record(setup, seed)
    yield REFERENCE, reconstruct(reference_sinogram(recording), setup.angles)
    if recording.perfect is not None and (wanted is None or SAME_PHOTONS in wanted):
        beam = seen_by_perfect(recording, recording.world.beam)[recording.row]
        yield SAME_PHOTONS, reconstruct(sinogram(recording.perfect / beam), setup.angles)
    for name, rows in sinograms(recording):
        if wanted is None or name in wanted:
            yield name, reconstruct(rows, setup.angles)


def judge(case: Case, setup: Setup, seed: int) -> Figures:
    """Ring strength and RMSE against both references, and RMSE against the oracle's slice, per pixel."""
    found = slices(case, setup, seed)
    _, reference = next(found)
    figures: Figures = {}
    of_oracle = same = None
    for name, image in found:
        if name == SAME_PHOTONS:
            same = image
            continue
        of_oracle = image if of_oracle is None else of_oracle  # it is the first
        figures[name] = {
            RING: metrics.ring_strength(image, reference),
            RMSE: rmse(image, reference),
            OFF: rmse(image, of_oracle),
        }
        if same is not None:
            figures[name] |= {SAME_RING: metrics.ring_strength(image, same), SAME_RMSE: rmse(image, same)}
    return figures


def relative(figures: Figures) -> Figures:
    """Give the figures as multiples of the oracle's; how far off its slice, as multiples of its RMSE."""
    units = figures[ORACLE] | {OFF: figures[ORACLE][RMSE]}
    return {
        name: {measure: value / units[measure] for measure, value in of_method.items()}
        for name, of_method in figures.items()
    }


def medians(of_seeds: list[Figures]) -> Figures:
    """Median over seeds of each relative figure."""
    each = [relative(figures) for figures in of_seeds]

    def median(name: str, measure: str) -> float:
        return float(np.median([figures[name][measure] for figures in each]))

    return {
        name: {measure: median(name, measure) for measure in of_name} for name, of_name in each[0].items()
    }
