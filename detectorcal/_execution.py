"""Walking through stacks of frames: in batches, on threads, or lazily on Dask.

The only room that schedules. Frames are read a batch at a time; a batch is worked on by joblib threads
with BLAS held to one thread in each. Sums are taken in the frames' own precision over runs of
:data:`RUN_LENGTH` frames counted from the first, and each run is added to float64 in order, so a result
is the same to the last bit for every ``n_jobs`` and ``batch_size``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
import threadpoolctl

from detectorcal._arrays import is_dask, put_like
from detectorcal._typing import Array, Float64, Progress, Shape, Stack
from detectorcal.kernels.accumulation import Accumulation, Condensed
from detectorcal.kernels.correction import correct
from detectorcal.kernels.model import Sums, empty_sums

__all__ = ["correct_frames", "mean_frame", "single_threaded_blas", "sum_frames"]

RUN_LENGTH = 8
"""Frames summed in their own precision before they are added to float64."""

BATCH_BYTES = 64 * 2**20
"""Size of a batch of raw frames where ``batch_size`` is None."""

BLOCK_PIXELS = 2**15
"""Pixels of a row block: its handful of float32 temporaries stay in a core's second-level cache."""


def sum_frames(
    stack: Stack,
    dark: Float64 | Stack,
    accumulation: Accumulation,
    dtype: np.dtype,
    *,
    n_jobs: int | None,
    batch_size: int | None,
    progress: Progress | None,
) -> Sums:
    """Accumulate a response model's sums over a stack.

    Parameters
    ----------
    stack : stack of shape (n_frames, *detector_shape)
        Raw frames, DN; read by slicing, a batch at a time.
    dark : array of shape detector_shape, or stack of the shape of ``stack``
        Dark, DN; one for all frames or one for each.
    accumulation : Accumulation
        What is summed.
    dtype : dtype
        Floating precision of the work inside a run.
    n_jobs : int or None
        Threads, as joblib counts them.
    batch_size : int or None
        Frames read at a time, rounded up to whole runs; None takes :data:`BATCH_BYTES`.
    progress : callable or None
        Called with the number of frames after each batch.

    Returns
    -------
    dict of str to float64 array of shape detector_shape
    """
    shape = tuple(stack.shape[1:])
    totals = empty_sums(accumulation.model, shape)
    dark_per_frame = len(dark.shape) == len(stack.shape)
    shared = None if dark_per_frame else np.asarray(dark).astype(dtype)
    with single_threaded_blas(), joblib.Parallel(n_jobs, require="sharedmem") as parallel:
        for batch in _batches(stack, batch_size):
            frames = _read(stack, batch)
            darks = _read(dark, batch).astype(dtype) if dark_per_frame else shared
            _add_batch(frames, darks, accumulation, totals, parallel)
            if progress is not None:
                progress(len(frames))
    return totals


def _add_batch(
    frames: Array, dark: Any, accumulation: Accumulation, totals: Sums, parallel: joblib.Parallel
) -> None:
    """Add one batch to the totals: condense whole frames first, then sum blocks of rows."""
    step = _frames_per_part(frames.shape[1:])
    parts = [slice(i, min(i + step, len(frames))) for i in range(0, len(frames), step)]
    darks = [dark[part] if dark.ndim == frames.ndim else dark for part in parts]
    condensed = parallel(
        joblib.delayed(accumulation.condense)(frames[part], d) for part, d in zip(parts, darks, strict=True)
    )

    def add_rows(rows: slice) -> None:
        for first in range(0, len(parts), RUN_LENGTH // step):
            run = range(first, min(first + RUN_LENGTH // step, len(parts)))
            sums = _sum_run(
                (accumulation.sums(frames[parts[i]], darks[i], condensed[i], rows) for i in run),
            )
            for name, values in sums.items():
                totals[name][rows] += values

    parallel(joblib.delayed(add_rows)(rows) for rows in _row_blocks(frames.shape[1:]))


def _sum_run(parts: Iterator[dict[str, Array]]) -> dict[str, Array]:
    sums = next(parts)
    for part in parts:
        for name, values in part.items():
            sums[name] += values
    return sums


def correct_frames(
    frames: Stack,
    dark: Float64,
    scale: Float64,
    *,
    dtype: np.dtype,
    reject: float | None,
    out: Any,
    n_jobs: int | None,
    batch_size: int | None,
    progress: Progress | None,
) -> Any:
    """Correct a stack, ``(frames - dark) * scale``.

    Parameters
    ----------
    frames : stack of shape (n_frames, *detector_shape)
        Raw frames, DN. NumPy and other sliceable stacks are read a batch at a time; a Dask array gives a
        lazy Dask array, an array of another library stays in that library.
    dark, scale : float64 arrays of shape detector_shape
        The maps of the correction.
    dtype : dtype
        Floating precision of the result.
    reject : float or None
        See :func:`detectorcal.kernels.correction.correct`.
    out : array or writer of the shape of ``frames``, or None
        Anything that takes ``out[slice] = frames``; None makes a NumPy array.
    n_jobs, batch_size, progress
        As in :func:`sum_frames`.

    Returns
    -------
    array of the shape of ``frames``
        ``out`` if that was given.
    """
    if is_dask(frames):
        return _correct_lazily(frames, dark, scale, dtype, reject)
    if not _is_read_by_slicing_to_numpy(frames):
        like = frames[:0]
        maps = (put_like(m.astype(dtype), like) for m in (dark, scale))
        return correct(frames, *maps, reject, out)
    dark, scale = dark.astype(dtype), scale.astype(dtype)
    out = np.empty(frames.shape, dtype) if out is None else out
    in_place = isinstance(out, np.ndarray) and out.dtype == dtype
    with joblib.Parallel(n_jobs, require="sharedmem") as parallel:
        for batch in _batches(frames, batch_size):
            raw = _read(frames, batch)
            target = out[batch] if in_place else np.empty(raw.shape, dtype)
            _correct_batch(raw, dark, scale, reject, target, parallel)
            if not in_place:
                out[batch] = target
            if progress is not None:
                progress(len(raw))
    return out


def _correct_batch(
    raw: Any, dark: Any, scale: Any, reject: float | None, out: Any, parallel: joblib.Parallel
) -> None:
    """Correct frame by frame, in blocks of rows unless spots must be looked for in whole frames."""
    blocks = _row_blocks(raw.shape[1:]) if reject is None else [slice(None)]
    step = _frames_per_part(raw.shape[1:])

    def work(part: slice) -> None:
        for rows in blocks:
            correct(raw[part, rows], dark[rows], scale[rows], reject, out[part, rows])

    parallel(joblib.delayed(work)(slice(i, i + step)) for i in range(0, len(raw), step))


def _correct_lazily(frames: Any, dark: Any, scale: Any, dtype: np.dtype, reject: float | None) -> Any:
    whole_frames = frames.rechunk({axis: -1 for axis in range(1, frames.ndim)})
    maps = (dark.astype(dtype), scale.astype(dtype))
    return whole_frames.map_blocks(correct, *maps, reject, None, dtype=dtype, meta=np.empty((0,) * frames.ndim, dtype))


def mean_frame(stack: Stack, *, batch_size: int | None) -> Float64:
    """Mean over the frames of a stack, float64; reads a batch at a time."""
    total = np.zeros(stack.shape[1:])
    for batch in _batches(stack, batch_size):
        total += _read(stack, batch).sum(axis=0, dtype=np.float64)
    return total / stack.shape[0]


def _batches(stack: Stack, batch_size: int | None) -> Iterator[slice]:
    frame_bytes = max(1, int(np.prod(stack.shape[1:])) * np.dtype(stack.dtype).itemsize)
    size = BATCH_BYTES // frame_bytes if batch_size is None else batch_size
    size = -(-max(size, 1) // RUN_LENGTH) * RUN_LENGTH
    for start in range(0, stack.shape[0], size):
        yield slice(start, min(start + size, stack.shape[0]))


def _read(stack: Stack, batch: slice) -> np.ndarray:
    """Read a batch as a NumPy array in native byte order."""
    frames = np.asarray(stack[batch])
    return frames.astype(frames.dtype.newbyteorder("="), copy=False)


def _is_read_by_slicing_to_numpy(stack: Any) -> bool:
    return isinstance(stack, np.ndarray) or not hasattr(stack, "__array_namespace__")


def _frames_per_part(shape: Shape) -> int:
    """Frames worked on at once: a divisor of a run, fixed by the detector alone."""
    wanted = BLOCK_PIXELS // max(1, int(np.prod(shape)))
    return max(divisor for divisor in (1, 2, 4, 8) if divisor <= max(wanted, 1))


def _row_blocks(shape: Shape) -> list[slice]:
    """Cut a detector into blocks of whole rows; a line detector is not cut."""
    if len(shape) == 1:
        return [slice(0, shape[0])]
    rows = max(1, BLOCK_PIXELS // shape[1])
    return [slice(i, min(i + rows, shape[0])) for i in range(0, shape[0], rows)]


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limiter: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread while any thread of this process is inside.

    Overlapping :func:`threadpoolctl.threadpool_limits` restore one another's limit, and BLAS stays at
    one thread for good; so there is one limiter, set by the first to come and lifted by the last to go.
    """
    global _blas_users, _blas_limiter
    with _blas_lock:
        if _blas_users == 0:
            _blas_limiter = threadpoolctl.threadpool_limits(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limiter.restore_original_limits()
