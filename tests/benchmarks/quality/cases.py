"""Scans with known truth: those that a response model's assumptions fit, and those that they do not."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from detectorcal import simulate
from detectorcal.simulate import Detector, Ellipse

SEED = 20190527
PEAK = 3000.0
"""Brightest part of the beam in the scan, DN above dark: 6000 electrons."""

STRUCTURE_PX = 4.0
"""How fine a rough beam is (:func:`detectorcal.simulate.beam_profile`)."""


@dataclass(frozen=True)
class Setup:
    """Sizes that all cases share."""

    width: int = 512
    height: int = 64
    n_angles: int = 720
    n_flats: int = 20
    n_darks: int = 20
    sigma: float = 10.0
    """Of every calibration's Gaussian, px; ``docs/quality.md`` says why."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the detector."""
        return self.height, self.width

    @property
    def angles(self) -> np.ndarray:
        """Over half a turn, rad."""
        return np.linspace(0, np.pi, self.n_angles, endpoint=False)


@dataclass(frozen=True)
class World:
    """What is there to be recorded: intensities in DN, and the detector before and during the scan."""

    at_sweep: Detector
    at_scan: Detector
    sweep: np.ndarray
    """Intensity of each frame, (n_frames, height, width)."""
    beam: np.ndarray
    """Intensity of the empty beam in the scan, (height, width)."""
    phantom: Sequence[Ellipse] = simulate.ELLIPSES
    hardening: np.ndarray | None = None
    """By how much a pixel's gain grows per unit of -log(transmission), (height, width)."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What a beamline has after a scan, raw DN, and the world that only the oracle knows."""

    sweep: np.ndarray
    darks: np.ndarray
    flats: np.ndarray
    projections: np.ndarray
    perfect: np.ndarray | None
    """What a perfect detector without read noise makes of the same photons in the judged row, DN above dark;
    None where light spreads as X-rays, whose photons neighbours share."""
    setup: Setup
    world: World

    @property
    def row(self) -> int:
        """The row that is judged: the middle one."""
        return self.setup.height // 2


@dataclass(frozen=True)
class Case:
    """A kind of world. ``assumed`` says whether it is as a response model assumes."""

    name: str
    make: Callable[[Setup, np.random.Generator], World]
    assumed: bool = True
    shown: bool = field(default=False, kw_only=True)
    """Whether the page has its pictures."""

    @property
    def key(self) -> str:
        """Name for files."""
        return "".join(c if c.isalnum() else "-" for c in self.name)

    def world(self, setup: Setup, seed: int) -> World:
        """Draw the world; a seed gives the same pixels in every case."""
        return self.make(setup, np.random.default_rng([SEED, seed]))

    def record(self, setup: Setup, seed: int) -> Recording:
        """Take sweep, darks, flats and projections."""
        world = self.world(setup, seed)
        rng = np.random.default_rng([SEED, seed, zlib.crc32(self.name.encode())])
        sweep = world.at_sweep.record(world.sweep, rng)
        darks = world.at_scan.darks(setup.n_darks, rng)
        flats = world.at_scan.flats(world.beam, setup.n_flats, rng)
        return Recording(sweep, darks, flats, *_scan(world, setup, rng), setup, world)


def _scan(world: World, setup: Setup, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Take the projections, and see the photons of the judged row with a perfect detector as well."""
    detector, row = world.at_scan, setup.height // 2
    nothing = np.zeros(setup.shape)
    quiet = dataclasses.replace(detector, dark=nothing, read_noise=nothing, row_noise=0.0, bits=None)
    ideal = behind_object(dataclasses.replace(world, hardening=None), setup)
    thinning = np.random.default_rng(rng.bit_generator.seed_seq.spawn(1)[0])  # type: ignore[attr-defined]
    projections, perfect = [], []
    for light, wanted in zip(behind_object(world, setup), ideal, strict=True):
        drawn = quiet.record(light, deepcopy(rng))[row]  # the photon noise of the projection that follows
        projections.append(detector.record(light, rng))
        perfect.append(
            same_photons(drawn, detector.response(light)[row], wanted[row], detector.system_gain, thinning)
        )
    return np.stack(projections), None if detector.light_yield else np.stack(perfect)


def same_photons(
    drawn: np.ndarray, mean: np.ndarray, wanted: np.ndarray, unit: float, rng: np.random.Generator
) -> np.ndarray:
    """Give a Poisson number of mean ``wanted`` that shares as much as it can with one drawn of ``mean``, DN.

    Of a pixel that sees too much each electron is kept with the probability wanted / mean; one that sees too
    little gains Poisson(wanted - mean). Either way the result is exactly Poisson of mean ``wanted``.
    """
    if unit == 0:
        return wanted
    kept = np.minimum(1.0, wanted / np.maximum(mean, np.finfo(float).tiny))
    electrons = rng.binomial(np.rint(drawn / unit).astype(np.int64), kept)
    missing = rng.poisson(np.maximum(wanted - mean, 0.0) / unit, drawn.shape)
    return unit * (electrons + missing)


def behind_object(world: World, setup: Setup) -> Iterator[np.ndarray]:
    """Intensity of each projection as the pixels see it, DN; a gain that grows is more light to a pixel."""
    for line_integrals in simulate.phantom_sinogram(world.phantom, setup.angles, setup.width):
        grown = 1.0 if world.hardening is None else 1 + world.hardening * line_integrals
        yield world.beam * np.exp(-line_integrals) * grown


def _profile(setup: Setup) -> np.ndarray:
    """A bell across the rows, the same in each of them: few rows see little of a beam's height."""
    return np.broadcast_to(simulate.beam_profile((setup.width,)), setup.shape)


def _ladder(setup: Setup, rng: np.random.Generator, n_frames: int = 60, **detector: Any) -> World:
    """One beam at rising exposures; the detector as asked for."""
    pixels = Detector.random(setup.shape, seed=rng, **detector)
    profile = _profile(setup)
    sweep = simulate.exposure_ladder(profile, n_frames, highest=PEAK)
    return World(pixels, pixels, sweep, PEAK * profile)


CURVED = {"curvature": -1e-5, "curvature_spread": 0.3e-5}
"""4 % lost at 4000 DN, +- 30 % of that from pixel to pixel."""


def _moved_beam(setup: Setup, rng: np.random.Generator) -> World:
    world = _ladder(setup, rng)
    swept = simulate.moved_beam((setup.width,), len(world.sweep), peak=PEAK)[:, None, :]
    return dataclasses.replace(world, sweep=np.broadcast_to(swept, world.sweep.shape))


def _dust(setup: Setup, rng: np.random.Generator) -> World:
    """0.4 % of each row's pixels lose 5 to 30 % of their light after the sweep."""
    world = _ladder(setup, rng)
    per_row = max(round(0.004 * setup.width), 1)
    rank = rng.permuted(np.broadcast_to(np.arange(setup.width), setup.shape), axis=1)
    lost = np.where(rank < per_row, rng.uniform(0.05, 0.3, setup.shape), 0.0)
    return _with_gain(world, 1 - lost)


def _with_gain(world: World, factor: np.ndarray) -> World:
    """Change the gains after the sweep."""
    changed = dataclasses.replace(world.at_scan, gain=world.at_scan.gain * factor)
    return dataclasses.replace(world, at_scan=changed)


def _cylinders(setup: Setup, rng: np.random.Generator) -> World:
    return dataclasses.replace(_ladder(setup, rng), phantom=simulate.CYLINDERS)


def _drift(setup: Setup, rng: np.random.Generator) -> World:
    """Brightness and balance of the beam walk by 5 % during the sweep."""
    world = _ladder(setup, rng)
    drifting = simulate.drifting_beam(np.ones(setup.shape), len(world.sweep), drift=0.05, seed=rng)
    return dataclasses.replace(world, sweep=world.sweep * drifting)


def _rough(setup: Setup, rng: np.random.Generator, moved_px: int = 0) -> World:
    """5 % of structure 4 px wide, which has moved sideways between sweep and scan by so many pixels."""
    world = _ladder(setup, rng)
    profile, rough = (
        simulate.beam_profile(setup.shape, kind, width=1e6, seed=rng) for kind in ("even", "rough")
    )
    structure = rough / profile
    return dataclasses.replace(
        world, sweep=world.sweep * structure, beam=world.beam * np.roll(structure, moved_px, axis=1)
    )


def _new_spectrum(setup: Setup, rng: np.random.Generator) -> World:
    """After the sweep every pixel's gain is another by 0.5 %, independently of its neighbours'."""
    world = _ladder(setup, rng)
    return _with_gain(world, 1 + 0.005 * rng.standard_normal(setup.shape))


def _hardened(setup: Setup, rng: np.random.Generator) -> World:
    """Behind the object every pixel's gain is another, by 0.1 % per unit of -log(transmission)."""
    world = _ladder(setup, rng)
    return dataclasses.replace(world, hardening=0.001 * rng.standard_normal(setup.shape))


CASES = (
    Case("linear, 60 frames", _ladder, shown=True),
    Case("linear, 300 frames", partial(_ladder, n_frames=300)),
    Case("beam swept across", _moved_beam),
    Case("dust after the sweep", _dust, shown=True),
    Case("curved pixels, 60 frames", partial(_ladder, **CURVED), shown=True),
    Case("curved pixels, 300 frames", partial(_ladder, n_frames=300, **CURVED)),
    Case("centred cylinders", _cylinders, shown=True),
    Case("light spreads to neighbours", partial(_ladder, blur=1.0, light_yield=10.0), assumed=False),
    Case("beam drifts during the sweep", _drift, assumed=False),
    Case("noise shared by a row", partial(_ladder, row_noise=5.0), assumed=False),
    Case("rough beam", _rough, assumed=False),
    Case("rough beam, moved since", partial(_rough, moved_px=2), assumed=False),
    Case("new spectrum since the sweep", _new_spectrum, assumed=False),
    Case("spectrum hardens in the object", _hardened, assumed=False),
)
