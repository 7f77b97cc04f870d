"""A detector on which everything is wrong at once, with the truth of each pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from detectorcal.simulate import Detector, beam_profile, exposure_ladder

N_SATURATED_SHARE = 0.03


class Scene(NamedTuple):
    """A damaged sweep, the same frames undamaged, and which pixels were damaged how."""

    sweep: np.ndarray
    undamaged: np.ndarray
    """The same frames, with the photons that good pixels caught, of a detector without defects; those of the
    damaged sweep that are saturated as a whole are not among them."""
    dark: np.ndarray
    kinds: dict[str, np.ndarray]
    good: np.ndarray
    top: int


def damaged_scene(
    shape=(256, 256), *, n_frames=64, bits=16, highest=None, prnu=0.02, K=1.0, width=0.6, seed=0
) -> Scene:
    """Draw a scene.

    The bad pixels are drawn from wide ranges, fitted to no threshold: 1 % hot (stuck at the top),
    1 % dead, 0.3 % weak (response 0.8 or 1.2 times, gain that changes by 15 to 40 % over
    the sweep), 0.3 % blinking (20 to 60 % more or less in 10 to 90 % of the frames), 0.2 % that saturate in
    most frames (gain 7 to 9.5) and 0.1 % that do in some (gain 2 to 5); clusters, two at edges, a column
    at an edge, a row of NaN; 3 % of the frames saturated as a whole.
    """
    rng = np.random.default_rng(seed)
    top = 2**bits - 1
    highest = 0.5 * top if highest is None else highest
    detector = Detector.random(
        shape, prnu=prnu, dark=0.01 * top, dsnu=2.0, bits=None, system_gain=K, seed=rng
    )
    beam = beam_profile(shape, width=width)
    light = rng.permutation(exposure_ladder(beam, n_frames, lowest=0.05 * highest, highest=highest))
    undamaged = np.clip(np.rint(detector.record(light, seed=rng)), 0, top)

    rank = rng.permutation(detector.gain.size).reshape(shape) / detector.gain.size
    edges = np.cumsum([0.01, 0.01, 0.003, 0.003, 0.002, 0.001])
    names = ("hot", "dead", "nonlinear", "noisy", "saturated", "strong")
    kinds = {
        name: (rank >= low) & (rank < high)
        for name, low, high in zip(names, [0, *edges[:-1]], edges, strict=True)
    }
    clusters = np.zeros(shape, bool)
    clusters[40:46, 60:66] = clusters[-5:, 90:97] = clusters[100:104, 0:3] = True
    edge = np.zeros(shape, bool)
    edge[8:-8, -1] = True
    nan_row = np.zeros(shape, bool)
    nan_row[shape[0] // 3] = True
    for name in names:
        kinds[name] &= ~(clusters | edge | nan_row)
    kinds["dead"] |= (clusters | edge) & ~nan_row
    kinds["unsolved"] = nan_row

    gain = np.where(kinds["saturated"], rng.uniform(7, 9.5, shape), detector.gain)
    gain = np.where(kinds["strong"], rng.uniform(2, 5, shape), gain)
    gain = np.where(kinds["nonlinear"], detector.gain * rng.choice([0.8, 1.2], shape), gain)
    bend = rng.choice([-1, 1], shape) * rng.uniform(0.15, 0.4, shape) / light.max(axis=0)
    wrong = replace(detector, gain=gain, curvature=np.where(kinds["nonlinear"], bend, 0.0))
    sweep = np.clip(np.rint(wrong.record(light, seed=rng)), 0, top)
    blink = 1 + rng.choice([-1, 1], shape) * rng.uniform(0.2, 0.6, shape)
    on = rng.random((n_frames, *shape)) < rng.uniform(0.1, 0.9, shape)
    sweep = np.where(
        kinds["noisy"] & on, np.clip(detector.dark + (sweep - detector.dark) * blink, 0, top), sweep
    )
    good = ~np.any(list(kinds.values()), axis=0)
    sweep[:, good] = undamaged[:, good]
    sweep[:, kinds["hot"]] = top
    sweep[:, kinds["dead"]] = np.rint(detector.dark[kinds["dead"]])
    sweep = sweep.astype(np.float32)
    sweep[:, nan_row] = np.nan
    full = rng.choice(n_frames, max(1, round(N_SATURATED_SHARE * n_frames)), replace=False)
    sweep[full] = top
    return Scene(
        sweep, np.delete(undamaged, full, axis=0).astype(np.float32), detector.dark, kinds, good, top
    )
