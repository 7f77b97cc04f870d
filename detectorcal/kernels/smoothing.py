r"""Gaussian smoothing over the detector axes, by thin matrix products where that is cheaper.

Along one axis, smoothing with a boundary rule is a matrix :math:`G` of shape (n, n). A wide Gaussian
keeps little detail, so :math:`G \approx A B^T` with few columns, and an image :math:`F` becomes

.. math:: A_h (B_h^T (F - c) B_w) A_w^T + c\, (G_h 1)(G_w 1)^T,

with :math:`c` the mean of the image, which is taken out first because the truncated kernel's singular
values fall slowly and most of an image is its mean. The rank is the smallest that keeps the error of a
frame with a usual pixel spread under :data:`TOLERANCE`; where it is not small, :mod:`scipy.ndimage`
filters the axes instead.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
from array_api_compat import device
from scipy import ndimage

from detectorcal._arrays import is_numpy, namespace, put_like
from detectorcal._typing import Array, Float64, Shape
from detectorcal.kernels.regions import Regions

__all__ = ["MODES", "Smoother", "Smoothing", "gaussian", "smoother_for"]

MODES = ("nearest", "reflect", "mirror", "wrap", "constant", "grid-constant", "grid-mirror", "grid-wrap")

TOLERANCE = 1e-6
"""Largest relative error aimed at, on a frame whose pixels differ by :data:`PIXEL_SPREAD`."""

PIXEL_SPREAD = 0.2
"""Spread assumed in the error bound: ten times the 2 % of a usual detector."""

OVERSAMPLING = 10
"""Extra random vectors in the range finder; 5 to 10 are enough (Halko et al. 2011, section 1.3)."""

POWER_ITERATIONS = 4
"""Four give what the exact decomposition gives, though the singular values fall slowly."""

PRODUCT_ADVANTAGE = 10
"""Multiply-adds of a matrix product that take the time of one in the line filter of scipy.ndimage."""

SMALLEST_RANK = 24
"""Costs nothing, and serves a strongly curved beam where the bound, made for pixel noise, asks for less."""

WIDTH_OF_PRODUCTS = 16
"""Matrices whose width is a multiple of a vector register's are multiplied up to twice as fast."""

PROJECTED_PIXELS = 2**18
"""Pixels projected at once: 1 MB in float32, a usual second-level cache. Fewer make more, shorter steps,
and between steps threads wait for each other."""

_SYNONYMS = {"grid-mirror": "reflect", "grid-wrap": "wrap", "grid-constant": "constant"}
_CACHED_AXES = 64
_MAX_CACHED_SMOOTHERS = 64


@dataclass(frozen=True)
class Smoothing:
    """The parameters of a Gaussian, as :func:`scipy.ndimage.gaussian_filter` defines them."""

    sigma: float
    mode: str
    cval: float
    truncate: float
    twice: bool = False
    """Whether what one smoothing takes away is smoothed and given back, 2 G F - G G F: Tukey's twicing. It
    bends a curved beam far less, for a little more of the pixels' noise."""
    regions: Regions | None = None
    """What is smoothed within itself, which :mod:`detectorcal.kernels.piecewise` sees to: here frames are
    one piece."""

    @property
    def radius(self) -> int:
        """Number of pixels from the centre of the kernel to its end."""
        return int(self.truncate * self.sigma + 0.5)


class Smoother(Protocol):
    """A Gaussian made ready for frames of one shape.

    Smoothing is split in two so that a caller may walk through frames in blocks of rows that stay in
    cache: ``project`` condenses frames to one array, frames first; ``expand`` gives any rows of the
    smoothed ones. A line detector's pixels take the part of rows.
    """

    def project(self, rows_of: Callable[[slice], Array]) -> Array:
        """Condense frames; ``rows_of`` gives some rows of them, of shape (n_frames, n_rows, ...).

        What is not finite in the frames makes the condensed form not finite.
        """
        ...

    def expand(self, condensed: Array, rows: slice) -> Array:
        """Give some rows of the smoothed frames, in an array of their own."""
        ...


def smoother_for(shape: Shape, smoothing: Smoothing, like: Array) -> Smoother:
    """Choose the cheaper way, by counted operations, to smooth frames of this shape.

    Parameters
    ----------
    shape : tuple of int
        Shape of the detector, 1-D or 2-D.
    smoothing : Smoothing
        The Gaussian.
    like : array
        An array of the library, device and floating dtype the frames will have.

    Returns
    -------
    Smoother
        Matrix products wherever the frames are not NumPy arrays or the products are cheaper.
    """
    return _cached_smoother(shape, smoothing, namespace(like), like.dtype, device(like))


@lru_cache(maxsize=_MAX_CACHED_SMOOTHERS)
def _cached_smoother(shape: Shape, smoothing: Smoothing, xp: ModuleType, dtype: Any, place: Any) -> Smoother:
    like = xp.empty(0, dtype=dtype, device=place)
    if is_numpy(like) and (smoothing.radius == 0 or _filter_is_cheaper(shape, smoothing)):
        return _LineFilter(smoothing)
    return _Products(shape, smoothing, like)


def gaussian(frames: Array, smoothing: Smoothing) -> Array:
    """Smooth frames over all axes but the first.

    Parameters
    ----------
    frames : array of shape (n_frames, *detector_shape), floating
        Frames, DN.
    smoothing : Smoothing
        The Gaussian.

    Returns
    -------
    array of the same shape and dtype
        Smoothed frames, DN.
    """
    smoother = smoother_for(tuple(frames.shape[1:]), smoothing, frames)
    return smoother.expand(smoother.project(lambda rows: frames[:, rows, ...]), slice(None))


class _LineFilter:
    """:func:`scipy.ndimage.gaussian_filter` on each frame."""

    def __init__(self, smoothing: Smoothing) -> None:
        self._smoothing = smoothing

    def project(self, rows_of: Callable[[slice], Array]) -> Array:
        s = self._smoothing
        frames = rows_of(slice(None))
        smoothed = np.empty_like(frames)
        options = {"sigma": s.sigma, "mode": s.mode, "cval": s.cval, "truncate": s.truncate}
        for frame, out in zip(frames, smoothed, strict=True):
            ndimage.gaussian_filter(frame, output=out, **options)
            if s.twice:
                out += out - ndimage.gaussian_filter(out, **options)
        return smoothed

    def expand(self, condensed: Array, rows: slice) -> Array:
        return condensed[:, rows, ...].copy()


class _Factors(NamedTuple):
    """Smoothing along one axis of n pixels: G is about A B', without their last columns."""

    A: Array
    """Shape (n, rank + 1); the last column is G applied to ones."""
    B: Array
    """Shape (n, rank + 1); the last column takes the mean."""


class _Products:
    """Thin matrix products; see the module's head for the formula.

    The condensed form of a frame F is B' (F - c) B but for its last entry: the level c, which the last
    columns of ``A`` spread over the detector. So the level is found and put back by the same products.
    """

    def __init__(self, shape: Shape, smoothing: Smoothing, like: Array) -> None:
        mode = _SYNONYMS.get(smoothing.mode, smoothing.mode)
        factors = _factors(shape, smoothing.sigma, mode, smoothing.truncate)

        def put(values: Float64) -> Array:
            xp = namespace(like)
            return xp.astype(put_like(np.ascontiguousarray(values), like), like.dtype)

        self._shape = shape
        self._padding = smoothing.cval if mode == "constant" else 0.0
        self._twice = smoothing.twice
        self._down_A, self._down_B = put(factors[0].A), put(factors[0].B.T)
        self._across_A, self._across_B = put(factors[-1].A.T), put(factors[-1].B)
        ones = [factor.B.sum(axis=0) for factor in factors]
        detail = [np.append(np.ones(one.size - 1), 0.0) for one in ones]
        self._of_ones = put(ones[0] if len(shape) == 1 else np.outer(*ones))
        self._detail = put(detail[0] if len(shape) == 1 else np.outer(*detail))
        self._level = put((1 - detail[0]) if len(shape) == 1 else np.outer(1 - detail[0], 1 - detail[1]))
        self._down_again = put(factors[0].B.T @ factors[0].A)
        self._across_again = put(factors[-1].A.T @ factors[-1].B)

    def project(self, rows_of: Callable[[slice], Array]) -> Array:
        if len(self._shape) == 1:
            core = self._condense(rows_of(slice(None)) @ self._across_B)
        else:
            core = self._condense(self._project_areas(rows_of))
        return 2 * core - self._condense(self._projected_again(core)) if self._twice else core

    def _condense(self, projected: Array) -> Array:
        """Take the level out; smoothing is linear, so that it is taken out of the frames."""
        level = projected[:, -1:] if len(self._shape) == 1 else projected[:, -1:, -1:]
        return (projected - level * self._of_ones) * self._detail + (level - self._padding) * self._level

    def _projected_again(self, core: Array) -> Array:
        """Project the smoothed frames that a condensed form stands for, without expanding it."""
        again = core @ self._across_again
        if len(self._shape) == 2:
            again = self._down_again @ again
        return again + self._padding * self._of_ones

    def _project_areas(self, rows_of: Callable[[slice], Array]) -> Array:
        """Add up what blocks of rows contribute."""
        height, width = self._shape
        step = max(1, PROJECTED_PIXELS // width)
        blocks = (slice(start, min(start + step, height)) for start in range(0, height, step))
        cores = (self._down_B[:, rows] @ (rows_of(rows) @ self._across_B) for rows in blocks)
        return functools.reduce(operator.add, cores)

    def expand(self, condensed: Array, rows: slice) -> Array:
        if condensed.ndim == 2:
            smoothed = condensed @ self._across_A[:, rows]
        else:
            xp = namespace(condensed)
            down = self._down_A[rows, :] @ condensed
            # one tall product: a stack of small ones takes three times as long
            smoothed = xp.reshape(down, (-1, down.shape[-1])) @ self._across_A
            smoothed = xp.reshape(smoothed, (*down.shape[:-1], smoothed.shape[-1]))
        return smoothed + self._padding if self._padding else smoothed


def _filter_is_cheaper(shape: Shape, smoothing: Smoothing) -> bool:
    """Count multiply-adds per pixel: two per rank in products, half a kernel per axis in a filter."""
    is_line = len(shape) == 1
    products = shape[0] if is_line else 2 * max(_expected_rank(n, smoothing.sigma) for n in shape)
    filtering = len(shape) * (smoothing.radius + 1)
    return products > PRODUCT_ADVANTAGE * filtering


def _expected_rank(n: int, sigma: float) -> int:
    """Count the cosines, of wavelength 2 n / k, that a Gaussian passes with more than exp(-8)."""
    return min(n, SMALLEST_RANK + WIDTH_OF_PRODUCTS + int(4 / np.pi * n / sigma))


def _factors(shape: Shape, sigma: float, mode: str, truncate: float) -> list[_Factors]:
    """Factor the smoothing of each axis; a line, whose noise no other axis averages, exactly."""
    if len(shape) == 1:
        G = _smoothing_matrix(shape[0], sigma, mode, truncate)
        return [_with_level(G.toarray(), np.eye(shape[0]), np.asarray(G @ np.ones(shape[0])))]
    norms = [_largest_row_norm(n, sigma, mode, truncate) for n in shape]
    return [_axis_factors(n, sigma, mode, truncate, o) for n, o in zip(shape, norms[::-1], strict=True)]


@lru_cache(maxsize=_CACHED_AXES)
def _largest_row_norm(n: int, sigma: float, mode: str, truncate: float) -> float:
    G = _smoothing_matrix(n, sigma, mode, truncate)
    return float(np.sqrt(G.multiply(G).sum(axis=1).max()))


@lru_cache(maxsize=_CACHED_AXES)
def _axis_factors(n: int, sigma: float, mode: str, truncate: float, other_norm: float) -> _Factors:
    """Factor the smoothing of one axis; G itself where no low rank will do.

    White noise of standard deviation :data:`PIXEL_SPREAD` that the other axis, with rows of norm
    ``other_norm``, has averaged leaves an error of ``PIXEL_SPREAD * other_norm * |row of G - A B'|``.
    """
    G = _smoothing_matrix(n, sigma, mode, truncate)
    unit = np.asarray(G @ np.ones(n))
    row_norms_2 = np.asarray(G.multiply(G).sum(axis=1)).ravel()
    allowed = TOLERANCE / (PIXEL_SPREAD * other_norm)
    rank = _expected_rank(n, sigma)
    while 2 * rank < n:
        left, values, right = _leading_singular_vectors(G, rank)
        A = left * values
        # |G_i - A_i B'|^2 = |G_i|^2 - |A_i|^2, since the columns of B are orthonormal
        left_over_2 = row_norms_2[:, None] - np.cumsum(A**2, axis=1)
        sufficient = np.flatnonzero(left_over_2.max(axis=0) <= allowed**2)
        if sufficient.size:
            r = max(int(sufficient[0]) + 1, SMALLEST_RANK)
            r = min(-(-(r + 1) // WIDTH_OF_PRODUCTS) * WIDTH_OF_PRODUCTS - 1, rank)
            return _with_level(A[:, :r], right[:r].T, unit)
        rank *= 2
    return _with_level(G.toarray(), np.eye(n), unit)


def _with_level(A: Float64, B: Float64, unit: Float64) -> _Factors:
    return _Factors(np.column_stack([A, unit]), np.column_stack([B, np.full(len(B), 1 / len(B))]))


def _leading_singular_vectors(G: Any, rank: int) -> tuple[Float64, Float64, Float64]:
    """Randomised singular value decomposition (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1).

    References
    ----------
    .. [1] N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53(2) 217 (2011),
       https://doi.org/10.1137/090771806
    """
    n = G.shape[0]
    columns = min(rank + OVERSAMPLING, n)
    Q = np.linalg.qr(G @ np.random.default_rng(0).standard_normal((n, columns)))[0]
    for _ in range(POWER_ITERATIONS):
        Q = np.linalg.qr(G.T @ Q)[0]
        Q = np.linalg.qr(G @ Q)[0]
    left, values, right = np.linalg.svd((G.T @ Q).T, full_matrices=False)
    return (Q @ left)[:, :rank], values[:rank], right[:rank]


def _smoothing_matrix(n: int, sigma: float, mode: str, truncate: float) -> Any:
    """Give the sparse (n, n) matrix of a truncated Gaussian, from shifted indices.

    Row ``i`` holds the weights with which the pixels of a line enter the smoothed pixel ``i``; weights
    that fall outside are added to the pixel the boundary rule maps them to, or dropped for "constant".
    """
    from scipy import sparse

    shifts, weights = _kernel(n, sigma, mode, truncate)
    rows = np.repeat(np.arange(n), shifts.size)
    columns = (np.arange(n)[:, None] + shifts).ravel()
    values = np.tile(weights, n)
    if mode == "constant":
        inside = (columns >= 0) & (columns < n)
        rows, columns, values = rows[inside], columns[inside], values[inside]
    else:
        columns = _BOUNDARY[mode](columns, n)
    return sparse.coo_matrix((values, (rows, columns)), shape=(n, n)).tocsr()


def _kernel(n: int, sigma: float, mode: str, truncate: float) -> tuple[np.ndarray, Float64]:
    """Give the shifts that act differently on a line of n pixels, and the weight of each.

    However wide the Gaussian, they are fewer than 2 n + 2: far shifts all reach the same edge pixel, or
    come round again.
    """
    radius = int(truncate * sigma + 0.5)
    shifts = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (shifts / sigma) ** 2)
    weights /= weights.sum()
    alike = shifts % (2 * n - 2 if mode == "mirror" and n > 1 else 2 * n)
    if mode in ("nearest", "constant"):
        alike = np.clip(shifts, -n, n)
    distinct, where = np.unique(alike, return_inverse=True)
    return distinct, np.bincount(where, weights).astype(np.float64)


_BOUNDARY = {
    "nearest": lambda i, n: np.clip(i, 0, n - 1),
    "wrap": lambda i, n: i % n,
    "reflect": lambda i, n: np.minimum(i % (2 * n), 2 * n - 1 - i % (2 * n)),
    "mirror": lambda i, n: (n - 1) - np.abs((n - 1) - i % max(2 * n - 2, 1)),
}
