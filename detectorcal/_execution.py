"""Walking through stacks of frames: in batches, on threads, or lazily on Dask.

The only room that schedules. Frames are read a batch at a time; a batch is worked on by joblib threads
with BLAS held to one thread in each. Sums are taken in the frames' own precision over runs of
:data:`RUN_LENGTH` frames counted from the first, and each run is added to float64 in order, so a result
is the same to the last bit for every ``n_jobs`` and ``batch_size``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import joblib
import numpy as np
import threadpoolctl

from detectorcal._arrays import as_dask, is_dask, is_eager, is_numpy, put_like
from detectorcal._typing import Array, Float64, Shape, Stack
from detectorcal.kernels.accumulation import Accumulation, Condensed, join
from detectorcal.kernels.correction import correct
from detectorcal.kernels.model import ROW_STEP, Sums, add_rows, add_sums, empty_sums

__all__ = [
    "as_frames",
    "batches",
    "copy_frames",
    "correct_frames",
    "mean_frame",
    "read",
    "single_threaded_blas",
    "sum_frames",
]

RUN_LENGTH = 8
"""Frames summed in their own precision before they are added to float64."""

BATCH_BYTES = 32 * 2**20
"""Size of a batch of raw frames where ``batch_size`` is None."""

BLOCK_PIXELS = 2**16
"""Pixels of a row block: its handful of float32 temporaries stay near the core."""

TASK_PIXELS = 2**24
"""Pixels corrected by one task of a thread: enough to outweigh handing it over."""

MERGED_AT_ONCE = 8
"""Sums merged by one task of a Dask graph."""


def sum_frames(
    stack: Stack,
    dark: Float64 | Stack,
    accumulation: Accumulation,
    dtype: np.dtype,
    *,
    n_jobs: int | None,
    batch_size: int | None,
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

    Returns
    -------
    dict of str to float64 array of shape detector_shape
    """
    if is_dask(stack):
        return _sum_lazily(stack, dark, accumulation, dtype)
    totals = empty_sums(accumulation.model, tuple(stack.shape[1:]))
    dark_per_frame = len(dark.shape) == len(stack.shape)
    shared = None if dark_per_frame else np.asarray(dark).astype(dtype)
    with single_threaded_blas(), joblib.Parallel(n_jobs, require="sharedmem") as parallel:
        for batch, frames in _read_ahead(stack, batch_size):
            darks = read(dark, batch).astype(dtype) if dark_per_frame else shared
            _add_batch(frames, darks, accumulation, totals, parallel)
    return totals


def _sum_lazily(stack: Any, dark: Any, accumulation: Accumulation, dtype: np.dtype) -> Sums:
    """Sum each chunk of a Dask array where it is, and merge the sums as a tree, in one graph."""
    import dask

    sum_chunk = dask.delayed(partial(sum_frames, n_jobs=1, batch_size=None), pure=True)
    stack = _whole_frames(stack)
    chunks = list(stack.to_delayed().ravel())
    if len(dark.shape) == stack.ndim:
        darks = dark if is_dask(dark) else as_dask(dark)
        darks = list(darks.rechunk(stack.chunks).to_delayed().ravel())
    else:
        darks = [dask.delayed(np.asarray(dark))] * len(chunks)
    sums = [sum_chunk(frames, d, accumulation, dtype) for frames, d in zip(chunks, darks, strict=True)]
    merge = dask.delayed(add_sums, pure=True)
    while len(sums) > 1:
        sums = [merge(sums[i : i + MERGED_AT_ONCE]) for i in range(0, len(sums), MERGED_AT_ONCE)]
    total: Sums = sums[0].compute()
    return total


def _whole_frames(stack: Any) -> Any:
    """Merge the chunks of a Dask array that split a frame."""
    return stack.rechunk(dict.fromkeys(range(1, stack.ndim), -1))


def _add_batch(
    frames: Array, dark: Any, accumulation: Accumulation, totals: Sums, parallel: joblib.Parallel
) -> None:
    """Add one batch to the totals: condense whole frames first, then sum blocks of rows."""
    step = _frames_per_part(frames.shape[1:])

    def darks(part: slice) -> Any:
        return dark[part] if dark.ndim == frames.ndim else dark

    def condense(part: slice) -> Condensed:
        return accumulation.condense(frames[part], darks(part))

    condensed = parallel(joblib.delayed(condense)(part) for part in _cut(len(frames), step))
    runs = [
        (run, join(condensed[run.start // step : -(-run.stop // step)]))
        for run in _cut(len(frames), RUN_LENGTH)
    ]

    def sum_rows(rows: slice) -> None:
        for run, whole in runs:
            sums = accumulation.sums(frames[run], darks(run), whole, rows)
            add_rows(accumulation.model, totals, sums, rows)

    parallel(joblib.delayed(sum_rows)(rows) for rows in _row_blocks(frames.shape[1:]))


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
    n_jobs, batch_size
        As in :func:`sum_frames`.

    Returns
    -------
    array of the shape of ``frames``
        ``out`` if that was given.
    """
    if is_dask(frames):
        return _correct_lazily(frames, dark, scale, dtype, reject)
    if is_eager(frames) and not is_numpy(frames):
        like = frames[:0]
        return correct(
            frames, put_like(dark.astype(dtype), like), put_like(scale.astype(dtype), like), reject, out
        )
    dark, scale = dark.astype(dtype), scale.astype(dtype)
    out = np.empty(frames.shape, dtype) if out is None else out
    in_place = isinstance(out, np.ndarray) and out.dtype == dtype
    with joblib.Parallel(n_jobs, require="sharedmem") as parallel, _WriteBehind(out) as writer:
        for batch, raw in _read_ahead(frames, batch_size):
            target = out[batch] if in_place else np.empty(raw.shape, dtype)
            _correct_batch(raw, dark, scale, reject, target, parallel)
            if not in_place:
                writer.write(batch, target)
    return out


def _correct_batch(
    raw: Any, dark: Any, scale: Any, reject: float | None, out: Any, parallel: joblib.Parallel
) -> None:
    """Correct frame by frame, in blocks of rows unless spots must be looked for in whole frames."""
    blocks = _row_blocks(raw.shape[1:]) if reject is None else [slice(None)]
    step = _frames_per_part(raw.shape[1:])
    per_task = max(step, TASK_PIXELS // math.prod(raw.shape[1:]))

    def work(task: slice) -> None:
        # rows outside: their part of the two maps stays in cache over the frames
        for rows in blocks:
            for start in range(task.start, task.stop, step):
                part = slice(start, min(start + step, task.stop))
                correct(raw[part, rows], dark[rows], scale[rows], reject, out[part, rows])

    parallel(joblib.delayed(work)(part) for part in _cut(len(raw), per_task))


def _correct_lazily(frames: Any, dark: Any, scale: Any, dtype: np.dtype, reject: float | None) -> Any:
    whole_frames = frames.rechunk(dict.fromkeys(range(1, frames.ndim), -1))
    maps = (dark.astype(dtype), scale.astype(dtype))
    return whole_frames.map_blocks(
        correct, *maps, reject, None, dtype=dtype, meta=np.empty((0,) * frames.ndim, dtype)
    )


def copy_frames(stack: Stack, out: Any) -> None:
    """Copy a stack, lazy or on disk, a batch at a time."""
    for batch in batches(stack, None):
        out[batch] = read(stack, batch)


def as_frames(images: Any, frame_shape: Shape) -> Any:
    """See images as a stack of frames: leading axes joined, a lone image as one frame, rows as images.

    Parameters
    ----------
    images : array or stack of shape (..., *frame_shape), or (n_frames, n_pixels)
        Images.
    frame_shape : tuple of int
        Shape of the detector.

    Returns
    -------
    array or stack of shape (n_frames, *frame_shape)
        A view of an array; anything else is reshaped as it is read.
    """
    shape = tuple(images.shape)
    n_frames = math.prod(shape) // math.prod(frame_shape)
    if shape == (n_frames, *frame_shape):
        return images
    if hasattr(images, "reshape"):
        return images.reshape((n_frames, *frame_shape))
    if shape[0] == n_frames:
        return _Framed(images, frame_shape)
    return np.asarray(images[:]).reshape((n_frames, *frame_shape))


class _Framed:
    """A stack of rows seen as images, reshaped as they are read."""

    def __init__(self, stack: Stack, frame_shape: Shape) -> None:
        self._stack = stack
        self.shape = (stack.shape[0], *frame_shape)
        self.dtype = stack.dtype

    def __getitem__(self, batch: slice) -> Array:
        frames = np.asarray(self._stack[batch])
        return frames.reshape(len(frames), *self.shape[1:])


def mean_frame(stack: Stack, *, batch_size: int | None) -> Float64:
    """Mean over the frames of a stack, float64; reads a batch at a time."""
    total = np.zeros(stack.shape[1:])
    for batch in batches(stack, batch_size):
        total += read(stack, batch).sum(axis=0, dtype=np.float64)
    return total / stack.shape[0]


def batches(stack: Stack, batch_size: int | None) -> list[slice]:
    """Cut a stack into batches of whole runs."""
    frame_bytes = max(1, math.prod(stack.shape[1:]) * np.dtype(stack.dtype).itemsize)
    size = BATCH_BYTES // frame_bytes if batch_size is None else batch_size
    size = -(-max(size, 1) // RUN_LENGTH) * RUN_LENGTH
    return _cut(stack.shape[0], size)


def _cut(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def read(stack: Stack, batch: slice) -> np.ndarray:
    """Read a batch as a NumPy array in native byte order, of single precision at least."""
    frames = np.asarray(stack[batch])
    half = frames.dtype.kind == "f" and frames.dtype.itemsize < np.dtype(np.float32).itemsize
    return frames.astype(np.float32 if half else frames.dtype.newbyteorder("="), copy=False)


def _read_ahead(stack: Stack, batch_size: int | None) -> Iterator[tuple[slice, np.ndarray]]:
    """Give the batches one by one while the next is being read."""
    todo = batches(stack, batch_size)
    with ThreadPoolExecutor(1, "detectorcal-reader") as reader:
        coming = reader.submit(read, stack, todo[0])
        for batch, after in zip(todo, [*todo[1:], None], strict=True):
            frames = coming.result()
            if after is not None:
                coming = reader.submit(read, stack, after)
            yield batch, frames


class _WriteBehind:
    """Write each batch while the next is being worked on; errors come out with the one after."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._thread = ThreadPoolExecutor(1, "detectorcal-writer")
        self._going: Future[None] | None = None

    def write(self, batch: slice, frames: np.ndarray) -> None:
        self._wait()
        self._going = self._thread.submit(self._out.__setitem__, batch, frames)

    def _wait(self) -> None:
        if self._going is not None:
            self._going.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._wait()


def _frames_per_part(shape: Shape) -> int:
    """Frames worked on at once: a divisor of a run, fixed by the detector alone."""
    wanted = BLOCK_PIXELS // max(1, math.prod(shape))
    return max(divisor for divisor in (1, 2, 4, 8) if divisor <= max(wanted, 1))


def _row_blocks(shape: Shape) -> list[slice]:
    """Cut a detector into blocks of whole rows; a line detector is not cut."""
    if len(shape) == 1:
        return [slice(0, shape[0])]
    return _cut(shape[0], max(1, BLOCK_PIXELS // shape[1] // ROW_STEP) * ROW_STEP)


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
