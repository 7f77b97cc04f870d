"""The frames everything is measured on: a plausible sweep, the same one for everybody."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

SEED = 20190513
LEVELS_DN = (500.0, 4000.0)
"""First and last step of the ladder: above the 300 DN under which 0.0.1 leaves frames out."""

PIXEL_SPREAD = 0.02
BEND, BEND_SPREAD = 0.04, 0.3
"""What pixels that curve lose at the last step, as a share, and how much that differs from pixel to pixel."""

DARK_DN, DARK_SPREAD_DN = 100.0, 2.0
DISTINCT = 50
"""Frames made where many are wanted; then they come again, since noise takes longer to make than to fit."""

FILL_FRAMES = 16


def make_sweep(
    n_frames: int, shape: tuple[int, int], distinct: int | None = None, *, curved: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Make a sweep and its dark: a linear ladder, pixels that differ, noise as of one DN per electron.

    Parameters
    ----------
    n_frames : int
        Frames.
    shape : (int, int)
        Detector.
    distinct : int, optional
        Frames to make before they repeat; all by default.
    curved : bool, default=False
        Whether each pixel's response bends by itself.

    Returns
    -------
    sweep : uint16 array of shape (n_frames, *shape)
    dark : float64 array of the shape of a frame
    """
    rng = np.random.default_rng(SEED)
    distinct = min(n_frames, distinct or n_frames)
    response = 1 + PIXEL_SPREAD * rng.standard_normal(shape, np.float32)
    dark = DARK_DN + DARK_SPREAD_DN * rng.standard_normal(shape)
    differ = 1 + BEND_SPREAD * rng.standard_normal(shape, np.float32) if curved else 0
    bend = np.float32(BEND / LEVELS_DN[1]) * differ
    sweep = np.empty((n_frames, *shape), np.uint16)
    for i, level in enumerate(np.linspace(*LEVELS_DN, distinct, dtype=np.float32)):
        signal = level * response
        signal *= 1 - bend * signal
        sweep[i] = np.rint(signal + np.sqrt(signal) * rng.standard_normal(shape, np.float32) + dark)
    for i in range(distinct, n_frames):
        sweep[i] = sweep[i % distinct]
    return sweep, dark


def flat_of(sweep: np.ndarray) -> np.ndarray:
    """Give a flat for a sweep: its brightest frame."""
    flat: np.ndarray = sweep[-1].astype(np.float64)
    return flat


def write_hdf5(path: Path, name: str, frames: np.ndarray, n_frames: int, *, chunked: bool) -> None:
    """Write ``n_frames`` frames, ``frames`` again and again; not compressed, lest a codec be timed."""
    shape = (n_frames, *frames.shape[1:])
    with h5py.File(path, "a") as file:
        data = file.create_dataset(name, shape, frames.dtype, chunks=(1, *shape[1:]) if chunked else None)
        for start in range(0, n_frames, FILL_FRAMES):
            rows = np.arange(start, min(start + FILL_FRAMES, n_frames)) % len(frames)
            data[start : start + len(rows)] = frames[rows]


def read_hdf5(path: Path, name: str, buffer: np.ndarray) -> None:
    """Read a dataset batch by batch into one array: what no reader can do without."""
    with h5py.File(path) as file:
        data = file[name]
        for start in range(0, len(data), len(buffer)):
            part = slice(start, min(start + len(buffer), len(data)))
            data.read_direct(buffer, np.s_[part], np.s_[: part.stop - start])


def stack_named(sweep: np.ndarray) -> str:
    """Say what a stack is."""
    n, height, width = sweep.shape
    return f"{n} {sweep.dtype} frames of {height}x{width}"
