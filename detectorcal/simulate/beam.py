"""Empty beams: their shape, and what they do from frame to frame."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from detectorcal._typing import Float64, Shape
from detectorcal.simulate._common import Seed, require, spread


def beam_profile(
    shape: Shape,
    kind: Literal["bell", "even", "rough"] = "bell",
    *,
    width: float = 0.6,
    centre: float = 0.5,
    seed: Seed = 0,
) -> Float64:
    """Shape of an empty beam, about 1 at its brightest.

    Parameters
    ----------
    shape : (width,) or (height, width)
        Detector shape.
    kind : {"bell", "even", "rough"}
        A Gaussian bell, no structure at all, or a bell with 5 % of structure 4 px wide, which no Gaussian
        of a calibration's width can tell from the pixels' own pattern.
    width, centre : float
        Standard deviation of the bell, as a fraction of each side, and its place along the last axis.
    seed : int or numpy.random.Generator, default 0
        Source of the rough structure.

    Returns
    -------
    array of `shape`, float64
        Dimensionless; times a level in DN it is an intensity.

    Examples
    --------
    >>> beam_profile((5,)).round(2)
    array([0.8 , 0.95, 1.  , 0.95, 0.8 ])
    """
    require(kind in ("bell", "even", "rough"), "kind", "'bell', 'even' or 'rough'", kind)
    if kind == "even":
        return np.ones(shape)
    bell = np.ones(shape)
    for axis, n in enumerate(shape):
        middle = centre if axis == len(shape) - 1 else 0.5
        place = ((np.arange(n) + 0.5) / n - middle) / width
        bell *= np.exp(-0.5 * place**2).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    if kind == "rough":
        structure = spread(np.random.default_rng(seed).standard_normal(shape), 4.0, len(shape))
        bell *= np.maximum(1.0 + 0.05 * structure / structure.std(), 0.0)
    return bell


def exposure_ladder(
    beam: ArrayLike, n_frames: int, *, lowest: float = 200.0, highest: float = 3000.0
) -> Float64:
    """One beam at rising intensities.

    Parameters
    ----------
    beam : array of detector shape
        Shape of the beam, about 1 at its brightest.
    n_frames : int
        Number of frames.
    lowest, highest : float
        Intensity of the first and the last frame where `beam` is 1, DN; evenly spaced between.

    Returns
    -------
    array of shape (n_frames, *detector_shape), float64
        Intensities, DN.

    Examples
    --------
    >>> exposure_ladder([0.5, 1.0], 3, lowest=100, highest=300)
    array([[ 50., 100.],
           [100., 200.],
           [150., 300.]])
    """
    return np.multiply.outer(np.linspace(lowest, highest, n_frames), np.asarray(beam, dtype=np.float64))


def moved_beam(shape: Shape, n_frames: int, *, peak: float = 3000.0, width: float = 0.3) -> Float64:
    """One bell swept across the last axis from edge to edge.

    Parameters
    ----------
    shape : (width,) or (height, width)
        Detector shape.
    n_frames : int
        Number of frames, and of places of the bell.
    peak : float
        Intensity at the middle of the bell, DN.
    width : float
        Standard deviation of the bell, as a fraction of each side.

    Returns
    -------
    array of shape (n_frames, *shape), float64
        Intensities, DN.

    Examples
    --------
    >>> moved_beam((5,), 3).argmax(axis=1)
    array([0, 2, 4])
    """
    centres = np.linspace(0.0, 1.0, n_frames)
    return np.stack([peak * beam_profile(shape, width=width, centre=c) for c in centres])


def drifting_beam(beam: ArrayLike, n_frames: int, *, drift: float = 0.01, seed: Seed = 0) -> Float64:
    """Let brightness and left-right balance of a beam walk at random.

    Parameters
    ----------
    beam : array of detector shape
        Intensity of the first frame, DN.
    n_frames : int
        Number of frames.
    drift : float
        Relative standard deviation that each of the two walks has reached at the last frame (the balance
        at the edges of the last axis).
    seed : int or numpy.random.Generator, default 0
        Source of the randomness.

    Returns
    -------
    array of shape (n_frames, *detector_shape), float64
        Intensities, DN.

    Examples
    --------
    >>> beams = drifting_beam([1000.0, 1000.0], 3)
    >>> beams[0], bool(np.all(np.abs(beams - 1000) < 100))
    (array([1000., 1000.]), True)
    """
    beam = np.asarray(beam, dtype=np.float64)
    steps = np.random.default_rng(seed).standard_normal((2, n_frames))
    steps[:, 0] = 0.0
    brightness, balance = drift * np.cumsum(steps, axis=1) / np.sqrt(max(n_frames - 1, 1))
    tilt = 1.0 + brightness[:, None] + np.multiply.outer(balance, np.linspace(-1, 1, beam.shape[-1]))
    drifting: Float64 = np.maximum(tilt, 0.0).reshape(n_frames, *[1] * (beam.ndim - 1), -1) * beam
    return drifting
