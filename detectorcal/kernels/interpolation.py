r"""Pixels that are not to be believed, replaced from good ones around them.

Where the good neighbours lie is the same in every frame, so places and weights are found once and a frame
costs one gather. From a bad pixel one looks along rows and columns for the first good pixel, and along the
diagonals too where one of those four is missing, so that a cluster, a dead column or a gap is bridged from
all sides. A plane is fitted through what is found by least squares, with weights
:math:`\omega_i = 1 / d_i^2`. With :math:`\bar d` the weighted mean of the offsets :math:`d_i` and
:math:`S = \sum \omega_i (d_i - \bar d)(d_i - \bar d)^T`, the weights
adding up to 1, its value at the pixel is

.. math:: \sum w_i v_i, \quad w_i = \omega_i (1 - \bar d^T S^+ (d_i - \bar d)),

Shepard's weighted mean [1]_ made exact for an image that is locally linear.

References
----------
.. [1] D. Shepard, "A two-dimensional interpolation function for irregularly-spaced data", Proc. 23rd
   ACM national conference (1968) 517, https://doi.org/10.1145/800186.810616
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from detectorcal._arrays import is_numpy, namespace
from detectorcal._typing import Array, Float64

__all__ = ["Neighbours", "as_neighbours", "good_neighbours"]

DIRECTIONS = {
    1: ((0, -1), (0, 1)),
    2: ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)),
}
"""Steps in rows and columns, by the detector's number of axes; diagonals last."""

MOST_NOISE = 4.0
"""Sum of squared weights up to which a plane is continued beyond its points: a corner has 3. Where it would
cost more noise, the weighted mean is taken."""

FLATTEST = 1e-6
"""Eigenvalue of S, over the largest, under which the points lie on a line, and nothing is known across it."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The bad pixels of a detector, and what each is replaced by."""

    pixels: Array
    """Places of the bad pixels in the flattened detector, (n_bad,)."""
    places: Array
    """Those of their good neighbours, (n_directions, n_bad)."""
    weights: Array
    """(n_directions, n_bad); 0 where a direction has none, NaN where none has."""
    sources: Array
    """Where every pixel of the result is taken from: its own place, or the number of pixels and that of the
    bad one."""
    power: int = 1
    """Of the weights: 2 for variances, of neighbours that are taken for independent."""

    def each(self, change: Callable[[Array], Array]) -> Neighbours:
        """Give the same with each array changed: moved to a device, say."""
        arrays = {name: getattr(self, name) for name in ("pixels", "places", "weights", "sources")}
        changed = {name: change(array) for name, array in arrays.items()}
        if all(changed[name] is arrays[name] for name in changed):
            return self  # with what it keeps
        return replace(self, **changed)

    def astype(self, dtype: np.dtype) -> Neighbours:
        """Give the same with weights of the precision of the frames."""
        return self if self.weights.dtype == dtype else self._in_single

    @cached_property
    def _in_single(self) -> Neighbours:
        return replace(self, weights=self.weights.astype(np.float32))

    @cached_property
    def for_variances(self) -> Neighbours:
        """What fills the variances of what this fills."""
        return replace(self, power=2)

    def fill(self, frames: Array) -> Array:
        """Replace the bad pixels of corrected frames, in place on NumPy.

        Parameters
        ----------
        frames : array of shape (n_frames, *detector_shape), floating
            What they hold at bad pixels does not matter. A neighbour that is NaN is passed over.

        Returns
        -------
        array of the same shape and dtype
        """
        if is_numpy(frames):
            for frame in frames:
                self._fill_in_place(frame)
            return frames
        xp = namespace(frames)
        flat = xp.reshape(frames, (frames.shape[0], -1))
        values = self._gathered(flat)
        filled = self._without_nan(flat, xp.sum(values * self.weights**self.power, axis=1))
        return xp.reshape(xp.take(xp.concat([flat, filled], axis=1), self.sources, axis=1), frames.shape)

    def _fill_in_place(self, frame: np.ndarray) -> None:
        flat = frame.reshape(-1)
        flat[self.pixels] = self._without_nan(flat[None], (self._matrix @ flat)[None])[0]
        if not np.may_share_memory(flat, frame):  # `out` may be a view of anything
            frame[...] = flat.reshape(frame.shape)

    @cached_property
    def _matrix(self) -> sparse.csr_array:
        """What turns a flattened frame into the values of its bad pixels; twice as fast as a gather."""
        used = self.weights.T != 0
        ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        parts = (
            self.weights.T[used] ** self.power,
            self.places.T[used].astype(np.int32),
            ends.astype(np.int32),
        )
        return sparse.csr_array(parts, shape=(self.pixels.size, self.sources.size))

    def _gathered(self, flat: Array) -> Array:
        xp = namespace(flat)
        values = xp.take(flat, xp.reshape(self.places, (-1,)), axis=1)
        return xp.reshape(values, (flat.shape[0], *self.places.shape))

    def _without_nan(self, flat: Array, filled: Array) -> Array:
        """Take the weighted mean of the others where a neighbour is NaN: the plane was through all."""
        xp = namespace(flat)
        if not bool(xp.any(xp.isnan(filled))):
            return filled
        values = self._gathered(flat)
        nothing = xp.zeros_like(values)
        known = ~xp.isnan(values)
        weights = xp.where(known, xp.abs(self.weights), nothing)
        total = xp.sum(xp.where(known, values, nothing) * weights**self.power, axis=1)
        whole = xp.sum(weights, axis=1) ** self.power
        unknown = xp.full_like(whole, xp.nan)
        mean = xp.where(whole > 0, total / xp.where(whole > 0, whole, xp.ones_like(whole)), unknown)
        return xp.where(xp.isnan(filled), mean, filled)


def good_neighbours(bad: np.ndarray, good: np.ndarray) -> Neighbours:
    """Find what bad pixels are to be replaced by.

    Parameters
    ----------
    bad : array of detector shape, bool
        The pixels to replace.
    good : array of detector shape, bool
        The pixels to replace them from.

    Returns
    -------
    Neighbours
        Of NumPy arrays, float64 weights.
    """
    pixels = np.flatnonzero(bad)
    row, column = np.unravel_index(pixels, _as_area(bad).shape)
    steps = np.array(DIRECTIONS[bad.ndim])
    n_steps = np.stack([_steps_to_good(_as_area(good), *step)[row, column] for step in steps])
    offsets = n_steps[..., None] * steps[:, None]  # (n_directions, n_bad, 2)
    places = pixels + offsets @ np.array([bad.shape[-1], 1])
    return as_neighbours(pixels, places, _weights(offsets.astype(np.float64)), bad.size)


def as_neighbours(pixels: np.ndarray, places: np.ndarray, weights: Float64, n_pixels: int) -> Neighbours:
    """Put together how the bad ones of a detector's pixels are replaced; see :class:`Neighbours`."""
    sources = np.arange(n_pixels)
    sources[pixels] = n_pixels + np.arange(pixels.size)
    return Neighbours(pixels, places, weights, sources)


def _as_area(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _steps_to_good(good: np.ndarray, row: int, column: int) -> np.ndarray:
    """Count at each pixel the steps in one direction to the first good pixel; 0 where there is none."""
    if row == 0:
        return _steps_to_good(good.T, column, 0).T
    steps = np.zeros(good.shape, np.int32)
    order = range(1, len(good)) if row < 0 else range(len(good) - 2, -1, -1)
    here = slice(max(0, -column), good.shape[1] - max(0, column))
    there = slice(max(0, column), good.shape[1] - max(0, -column))
    for i in order:
        further = steps[i + row] + (steps[i + row] > 0)
        steps[i, here] = np.where(good[i + row], 1, further)[there]
    return steps


def _weights(offsets: Float64) -> Float64:
    """Weigh neighbours, given by their offsets (0 where there is none), by the plane of the formula."""
    squares = np.sum(offsets**2, axis=-1)
    omega = np.divide(1, squares, out=np.zeros_like(squares), where=squares > 0)
    omega[4:] *= ~np.all(omega[:4] > 0, axis=0)  # no diagonals where rows and columns suffice
    with np.errstate(invalid="ignore"):  # of no neighbour: NaN
        omega /= omega.sum(axis=0)
    mean = np.einsum("db,dbx->bx", omega, offsets)
    centred = offsets - mean
    spread = np.einsum("db,dbx,dby->bxy", omega, centred, centred)
    known = np.isfinite(mean).all(axis=-1)
    inverse = np.zeros_like(spread)
    inverse[known] = np.linalg.pinv(spread[known], rcond=FLATTEST, hermitian=True)
    plane = omega * (1 - np.einsum("bx,bxy,dby->db", mean, inverse, centred))
    weights: Float64 = np.where(np.sum(plane**2, axis=0) <= MOST_NOISE, plane, omega)
    return weights
