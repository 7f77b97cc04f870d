r"""Pixels that are not to be believed in any frame: filled from the same neighbours in each.

What stays the same from frame to frame is worked out once: for each such pixel the places of its nearest
good neighbours, and the weights with which they add up to the plane through them at the pixel. So a sloping
beam is followed, and filling a frame is one gather and one sum, hundreds of times cheaper than the filling
of pixels that come and go (:func:`~detectorcal.kernels.masking.fill_masked`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from detectorcal._arrays import namespace, put_like
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.interpolation import Neighbours, as_neighbours

__all__ = ["Filling", "filling_for"]

N_NEIGHBOURS = 8
"""Neighbours that a pixel is filled from: its guess is off by less than half of the pixels' own spread."""

FEWEST_NEIGHBOURS = 6
"""With fewer in a window, a wider one is looked at."""

REACH = 3
"""Half the side of the first window, in pixels; wider ones take every 2nd, 4th, ... pixel of theirs."""

STIFFNESS = 4.0
"""How much the plane through the neighbours is drawn towards a level one, in squared steps of the window:
next to nothing with neighbours all around, where their squares sum to some 30, and enough to keep a plane
that is extrapolated, at an edge or from one side of a cluster, from swinging."""


@dataclass(frozen=True, eq=False)
class Filling:
    """How pixels are filled in every frame."""

    kept_out: Array
    """Shape detector_shape, bool: the pixels that are filled."""
    hopeless: Array
    """Shape detector_shape, bool: those of them that take no part in any sum either."""
    hoped: Array
    """Shape (n,), int64: where the others of them are, in the flattened detector."""
    neighbours: Neighbours
    """What each is filled from; where no pixel is good, nothing."""

    def placed(self, like: Array, dtype: np.dtype) -> Filling:
        """Give the same in the library and on the device of ``like``, in the precision of the work."""
        put = partial(put_like, like=like)
        neighbours = self.neighbours.astype(dtype).each(put)
        return Filling(put(self.kept_out), put(self.hopeless), put(self.hoped), neighbours)

    def are_finite(self, frames: Array) -> bool:
        """Whether those that take part in the sums are finite in frames that are still to be filled."""
        xp = namespace(frames)
        values = xp.take(xp.reshape(frames, (frames.shape[0], -1)), self.hoped, axis=1)
        return bool(xp.all(xp.isfinite(values)))

    def fill(self, frames: Array) -> Array:
        """Fill frames of shape (n_frames, *detector_shape), floating; NumPy's in place."""
        return self.neighbours.fill(frames)


def filling_for(
    kept_out: np.ndarray, hopeless: np.ndarray, outside: np.ndarray | None = None
) -> Filling | None:
    """Work out how pixels are filled in every frame.

    Parameters
    ----------
    kept_out : array of shape detector_shape, bool
        The pixels that are not to be believed.
    hopeless : array of shape detector_shape, bool
        Those of them that take no part in the sums either.
    outside : array of shape detector_shape, bool, or None
        Pixels that are no one's neighbours, and are not filled: what is not of a region.

    Returns
    -------
    Filling or None
        None where there are none. Without a good pixel on the detector the weights are 0.
    """
    if outside is not None:
        kept_out, hopeless = kept_out & ~outside, hopeless & ~outside
    places = np.flatnonzero(kept_out)
    if not places.size:
        return None
    whole, kept_out = kept_out, kept_out if outside is None else kept_out | outside
    sources = np.zeros((N_NEIGHBOURS, places.size), np.int64)
    weights = np.zeros((N_NEIGHBOURS, places.size))
    todo, step = np.arange(places.size), 1
    while todo.size and REACH * step < 2 * max(kept_out.shape):
        found, n_found = _nearest(kept_out, places[todo], step)
        near = n_found >= FEWEST_NEIGHBOURS
        chosen = todo[near]
        sources[:, chosen], weights[:, chosen] = _plane(
            found[:, near], n_found[near], places[chosen], kept_out.shape, step
        )
        todo, step = todo[~near], 2 * step
    if todo.size and not kept_out.all():  # fewer good pixels than a plane is made of, or all far away
        good = np.flatnonzero(~kept_out)[:N_NEIGHBOURS]
        sources[:, todo], weights[: good.size, todo] = good[0], 1 / good.size
        sources[: good.size, todo] = good[:, None]
    hoped = np.flatnonzero(whole & ~hopeless)
    return Filling(whole, hopeless, hoped, as_neighbours(places, sources, weights, whole.size))


def _nearest(kept_out: np.ndarray, places: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest good pixels in a window around each place, and how many were found."""
    found = np.zeros((N_NEIGHBOURS, places.size), np.int64)
    n_found = np.zeros(places.size, np.int64)
    at = np.stack(np.unravel_index(places, kept_out.shape))
    wanting = np.arange(places.size)
    for shift in _shifts(kept_out.ndim, step):  # nearest first
        index, inside = _shifted(at[:, wanting], shift, kept_out.shape)
        good = inside & ~kept_out.ravel()[index]
        which = wanting[good]
        found[n_found[which], which] = index[good]
        n_found[which] += 1
        wanting = wanting[n_found[wanting] < N_NEIGHBOURS]
    return found, n_found


def _shifts(n_axes: int, step: int) -> np.ndarray:
    """Give the shifts to the pixels of a window, the nearest first."""
    # a line has fewer neighbours as near: it is looked at as far as a whole window holds pixels
    reach = REACH if n_axes == 2 else N_NEIGHBOURS
    axis = step * np.arange(-reach, reach + 1)
    shifts = np.stack(np.meshgrid(*[axis] * n_axes, indexing="ij"), axis=-1).reshape(-1, n_axes)
    return shifts[np.argsort(np.sum(shifts**2, axis=1), kind="stable")][1:]


def _shifted(at: np.ndarray, shift: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Give the flat index of shifted places, and whether they are on the detector."""
    index, inside = np.zeros(at[0].shape, np.int64), np.ones(at[0].shape, bool)
    for axis, by, n in zip(at, shift, shape, strict=True):
        moved = axis + by
        inside &= (moved >= 0) & (moved < n)
        index = index * n + np.clip(moved, 0, n - 1)
    return index, inside


def _plane(
    found: np.ndarray, n_found: np.ndarray, places: np.ndarray, shape: Shape, step: int
) -> tuple[np.ndarray, Float64]:
    r"""Give the weights of the plane through the neighbours, at the place itself.

    Least squares of :math:`a + p x + q y` with a penalty :math:`\lambda (p^2 + q^2)`. With the slopes
    eliminated, `a` is the sum of the values with weights proportional to :math:`1 - x u - y v`, where `u` and
    `v` solve :math:`(\sum x^2 + \lambda) u + \sum x y\, v = \sum x` and its like in `y`.
    """
    used = np.arange(N_NEIGHBOURS)[:, None] < n_found
    found = np.where(used, found, found[0])
    width = shape[-1]
    x = np.where(used, found % width - places % width, 0) / step
    y = np.where(used, found // width - places // width, 0) / step  # a line has but one row
    xx, yy, xy = (np.einsum("kn,kn->n", *pair) for pair in ((x, x), (y, y), (x, y)))
    xx, yy, sum_x, sum_y = xx + STIFFNESS, yy + STIFFNESS, x.sum(axis=0), y.sum(axis=0)
    determinant = xx * yy - xy * xy
    u, v = (sum_x * yy - sum_y * xy) / determinant, (sum_y * xx - sum_x * xy) / determinant
    weights = np.where(used, 1 - x * u - y * v, 0.0)
    return found, weights / weights.sum(axis=0)
