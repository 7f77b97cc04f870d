"""Frames on their way: read ahead, worked on by threads or a device, written behind.

Reading, work and writing each have threads of their own, so that the slowest of the three sets the pace. A
device's transfers run in the reading and the writing thread and thus beside its work.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Self, TypeVar

import joblib
import numpy as np
import threadpoolctl

from detectorcal._arrays import Device, is_eager, is_lazy, is_numpy
from detectorcal._errors import TooLargeError
from detectorcal._typing import Array, Stack
from detectorcal._validation import bytes_of

__all__ = [
    "RUN_LENGTH",
    "Threads",
    "WriteBehind",
    "batches",
    "cut",
    "evenly",
    "read",
    "read_ahead",
    "single_threaded_blas",
]

T = TypeVar("T")

RUN_LENGTH = 8
"""Frames summed in their own precision before they are added to float64."""

BATCH_BYTES = 32 * 2**20
"""Size of a batch of raw frames where ``batch_size`` is None."""

IN_MEMORY = 4
"""Batches of frames that are in memory already are so many times larger: they cost no memory, and the
totals of a block of rows stay in cache for longer."""

LARGEST_HEAP_BLOCK = 31 * 2**20
"""A little less than the largest block that glibc's allocator takes from its heap and not from the system."""

TASKS_PER_THREAD = 16
"""Handing a task to a thread costs more than small tasks take; with one each, all wait for the slowest."""


def batches(stack: Stack, batch_size: int | str | None, step: int = 1) -> list[slice]:
    """Cut a stack into batches of whole runs, along the chunks of its file where they are larger.

    Parameters
    ----------
    stack : stack of shape (n_frames, *detector_shape)
        Its ``chunks``, as h5py and zarr have them, or ``step``, as :class:`detectorcal.io.FrameStack` has it,
        tell how many frames the file keeps together.
    batch_size : int, str or None
        Frames, or bytes of raw frames, as "64 MB"; None is :data:`BATCH_BYTES`.
    step : int, default=1
        All batches but the last have a multiple of so many frames.

    Returns
    -------
    list of slice
    """
    n_wanted = _frames_wanted(stack, batch_size)
    step = math.lcm(RUN_LENGTH, step)
    along_chunks = math.lcm(step, _frames_together(stack))
    # no chunk is read twice, unless that took far more memory than was asked for
    return cut(stack.shape[0], _round_up(n_wanted, along_chunks if along_chunks <= 2 * n_wanted else step))


def _frames_wanted(stack: Stack, batch_size: int | str | None) -> int:
    if batch_size is None:
        n_bytes = BATCH_BYTES * (IN_MEMORY if is_resident(stack) else 1)
    elif isinstance(batch_size, str):
        n_bytes = bytes_of(batch_size)
    else:
        return batch_size
    item_bytes = np.dtype(str(stack.dtype).rpartition(".")[2]).itemsize
    return max(1, n_bytes // max(1, math.prod(stack.shape[1:]) * item_bytes))


def _frames_together(stack: Stack) -> int:
    """Frames in a chunk of the stack's file; 1 where nothing is known of it."""
    chunks = getattr(stack, "chunks", None)
    if chunks and isinstance(chunks[0], int):
        return chunks[0]
    return int(getattr(stack, "step", 1))


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def cut(length: int, size: int) -> list[slice]:
    """Cut a range into slices of one size, the last of which may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def evenly(length: int, number: int) -> np.ndarray:
    """Give up to so many indices of a range, evenly spread over it, the first and the last among them."""
    chosen: np.ndarray = np.unique(np.linspace(0, length - 1, number).round().astype(int))
    return chosen


def is_resident(stack: Stack) -> bool:
    """Whether frames are in memory, of the host or a device, and need no reading."""
    return is_eager(stack) and not is_lazy(stack)


def read(stack: Stack, batch: slice) -> Array:
    """Read a batch: what is not an array already as NumPy's, native and of single precision at least."""
    frames = stack[batch, ...] if is_resident(stack) else stack[batch]
    if is_eager(frames) and not is_numpy(frames):
        return frames
    frames = np.asarray(frames)
    half = frames.dtype.kind == "f" and frames.dtype.itemsize < np.dtype(np.float32).itemsize
    return frames.astype(np.float32 if half else frames.dtype.newbyteorder("="), copy=False)


def read_ahead(stack: Stack, batch_size: int | str | None, device: Device) -> Iterator[tuple[slice, Array]]:
    """Give the batches, on the device, one by one while the next is read and on its way there."""
    todo = batches(stack, batch_size)

    def fetch(batch: slice) -> Array:
        with _naming_the_batch(stack, batch):
            return device.put(read(stack, batch))

    with ThreadPoolExecutor(1, "detectorcal-reader") as reader:
        coming = reader.submit(fetch, todo[0])
        for batch, after in zip(todo, [*todo[1:], None], strict=True):
            frames = coming.result()
            if after is not None:
                coming = reader.submit(fetch, after)
            yield batch, frames


@contextmanager
def _naming_the_batch(stack: Stack, batch: slice) -> Iterator[None]:
    """Tell what to do when a batch does not fit into memory, the host's or a device's."""
    try:
        yield
    except MemoryError as error:
        n_frames = batch.stop - batch.start
        raise TooLargeError(
            f"a batch of {n_frames} frames of shape {tuple(stack.shape[1:])}, {stack.dtype}, does not fit "
            f'into memory ({error or "MemoryError"}). Pass a smaller `batch_size`, in frames or as "64 MB".'
        ) from error


class WriteBehind:
    """Write each batch while the next is being worked on; errors come out with the one after."""

    def __init__(self, out: Any, device: Device) -> None:
        self._out = out
        self._device = device
        self._thread = ThreadPoolExecutor(1, "detectorcal-writer")
        self._going: Future[None] | None = None

    def write(self, batch: slice, frames: Array) -> None:
        """Hand over a batch that is on the device."""
        self._wait()
        self._going = self._thread.submit(self._write, batch, frames)

    def _write(self, batch: slice, frames: Array) -> None:
        self._out[batch] = self._device.get(frames)

    def _wait(self) -> None:
        if self._going is not None:
            self._going.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._wait()


class Threads:
    """Threads that work through lists together; ``n_jobs`` as joblib counts it.

    The pool is the standard library's: joblib's own looks every 10 ms whether its threads are done, which
    is longer than they take.
    """

    def __init__(self, n_jobs: int | None) -> None:
        _keep_freed_memory()
        self._n_threads = _count(n_jobs)
        self._pool = ThreadPoolExecutor(self._n_threads, "detectorcal-worker")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """Give ``work`` of each item, in order; neighbouring items are worked on by one thread."""
        if self._n_threads == 1 or len(items) == 1:
            return [work(item) for item in items]
        size = max(1, len(items) // (TASKS_PER_THREAD * self._n_threads))
        stretches = [items[part] for part in cut(len(items), size)]
        done = self._pool.map(lambda stretch: [work(item) for item in stretch], stretches)
        return list(itertools.chain.from_iterable(done))


@cache
def _keep_freed_memory() -> None:
    """Bring the allocator into the state in which it keeps freed memory for what comes next.

    glibc's threshold for this follows the largest block that was freed so far [1]_. Before a large one was,
    what each piece of work allocates goes back to the system at its end and comes anew, cleared, for the
    next: a sixth of a fit, and threads wait for each other meanwhile. Elsewhere it does nothing.

    .. [1] ``M_MMAP_THRESHOLD`` in mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    np.empty(LARGEST_HEAP_BLOCK, np.uint8)


def _count(n_jobs: int | None) -> int:
    if n_jobs is None or not multiprocessing.current_process().daemon:
        return int(joblib.effective_n_jobs(n_jobs))
    # a worker of multiprocessing may start no processes, of which joblib warns, but it may start threads
    with joblib.parallel_config(backend="threading"):
        return int(joblib.effective_n_jobs(n_jobs))


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limiter: Any = None


@cache
def _blas_libraries() -> threadpoolctl.ThreadpoolController:
    """Look for them once: NumPy's is loaded by now, and the search takes longer than a frame."""
    return threadpoolctl.ThreadpoolController()


def _forget_users() -> None:
    """Begin anew in a forked child: threads that were inside, or held the lock, are not in it."""
    global _blas_lock, _blas_users
    _blas_lock = threading.Lock()
    if _blas_users:
        _blas_users = 0
        _blas_limiter.restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_users)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread while any thread of this process is inside.

    Overlapping :func:`threadpoolctl.threadpool_limits` restore one another's limit, and BLAS stays at
    one thread for good; so there is one limiter, set by the first to come and lifted by the last to go.
    """
    global _blas_users, _blas_limiter
    with _blas_lock:
        if _blas_users == 0:
            _blas_limiter = _blas_libraries().limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limiter.restore_original_limits()
