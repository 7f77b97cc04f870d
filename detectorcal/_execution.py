"""Walking through stacks of frames: in batches, on threads, or lazily on Dask.

Says what is done with a batch of frames; how batches come and go is :mod:`detectorcal._streaming`'s affair.
A batch is worked on by threads with BLAS held to one thread in each. Sums are taken in the frames' own
precision over runs of 8 frames counted from the first, and each run is
added to float64 in order, so a result is the same to the last bit for every ``n_jobs`` and ``batch_size``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any

import numpy as np

from detectorcal._arrays import (
    as_dask,
    device_named,
    is_dask,
    is_eager,
    is_numpy,
    namespace,
    put_like,
    reshape,
    to_host,
)
from detectorcal._errors import TooLargeError
from detectorcal._pieces import Piece, pieces_of, put_together
from detectorcal._streaming import (
    RUN_LENGTH,
    Threads,
    WriteBehind,
    batches,
    cut,
    evenly,
    is_resident,
    read,
    read_ahead,
    single_threaded_blas,
)
from detectorcal._typing import Array, Float64, Shape, Stack
from detectorcal.kernels.accumulation import Accumulation
from detectorcal.kernels.finishing import Counts, Steps
from detectorcal.kernels.model import ROW_STEP, Sums, add_sums
from detectorcal.kernels.pairs import noise_scale
from detectorcal.kernels.uncertainty import Deviation

__all__ = [
    "any_reaches",
    "as_frames",
    "copy_frames",
    "correct_batch",
    "correct_frames",
    "count_batches",
    "mean_frame",
    "merge_lazily",
    "row_blocks",
    "some_frames",
    "sum_frames",
    "temporal_noise",
    "whole_frames",
]

BLOCK_PIXELS = 2**16
"""Pixels of a row block: its handful of float32 temporaries stay near the core."""

DEVICE_BLOCK_PIXELS = 2**24
"""The same on a device, which wants few large pieces of work: temporaries of 64 MB."""

MERGED_AT_ONCE = 8
"""Sums merged by one task of a Dask graph."""


def sum_frames(
    stack: Stack,
    dark: Float64 | Stack,
    accumulation: Accumulation,
    dtype: np.dtype,
    *,
    n_jobs: int | None,
    batch_size: int | str | None,
    device: str | None,
    each: Callable[[Iterator[Any]], Iterator[Any]] | None = None,
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
    batch_size : int, str or None
        Frames or bytes read at a time; see :func:`~detectorcal._streaming.batches`.
    device : str or None
        Where the batches of host arrays are worked on, a key of :data:`~detectorcal._arrays.DEVICES`.
    each : callable or None
        Takes the batches and gives them on, to follow the work; not asked of a Dask array.

    Returns
    -------
    dict of str to float64 array of shape detector_shape
    """
    if is_dask(stack):
        return _sum_lazily(stack, dark, accumulation, dtype, device)
    place = device_named(device)
    dark_per_frame = len(dark.shape) == len(stack.shape)
    pieces: list[Piece] = []
    with single_threaded_blas(), Threads(n_jobs) as threads:
        coming = read_ahead(stack, batch_size, place)
        for batch, frames in coming if each is None else each(coming):
            if not pieces:
                shared = None if dark_per_frame else to_host(dark).astype(dtype, copy=False)
                pieces = pieces_of(accumulation, tuple(stack.shape[1:]), shared, dtype, frames)
            darks = _to(read(dark, batch), dtype, frames) if dark_per_frame else None
            _add_batch(pieces, frames, darks, threads)
            place.finish()
        return put_together(pieces, accumulation.model, tuple(stack.shape[1:]), threads)


def count_batches(stack: Stack, batch_size: int | str | None) -> int:
    """Count the batches in which a stack is summed; 0 of a Dask array, which is summed in one graph."""
    return 0 if is_dask(stack) else len(batches(stack, batch_size))


def _to(values: Array, dtype: np.dtype, like: Array) -> Array:
    """Bring a dark to the frames' library and device, in the precision of the work."""
    return put_like(to_host(values).astype(dtype, copy=False), like)


def _sum_lazily(
    stack: Any, dark: Any, accumulation: Accumulation, dtype: np.dtype, device: str | None
) -> Sums:
    """Sum each chunk of a Dask array where it is, and merge the sums as a tree, in one graph."""
    import dask

    work = partial(sum_frames, n_jobs=1, batch_size=None, device=device)
    sum_chunk = dask.delayed(work, pure=True)
    accumulation = dask.delayed(accumulation, traverse=False, pure=True)  # once, and not in every task
    stack = whole_frames(stack)
    chunks = list(stack.to_delayed().ravel())
    if len(dark.shape) == stack.ndim:
        darks = dark if is_dask(dark) else as_dask(dark)
        darks = list(darks.rechunk(stack.chunks).to_delayed().ravel())
    else:
        darks = [dask.delayed(to_host(dark))] * len(chunks)
    sums = [sum_chunk(frames, d, accumulation, dtype) for frames, d in zip(chunks, darks, strict=True)]
    return merge_lazily(sums, add_sums)


def merge_lazily(sums: list[Any], merge: Callable[[list[Any]], Sums]) -> Sums:
    """Merge delayed sums as a tree, and compute it all in one graph."""
    import dask

    merge_some = dask.delayed(merge, pure=True)
    while len(sums) > 1:
        sums = [merge_some(sums[i : i + MERGED_AT_ONCE]) for i in range(0, len(sums), MERGED_AT_ONCE)]
    total: Sums = sums[0].compute()
    return total


def whole_frames(stack: Any) -> Any:
    """Merge the chunks of a Dask array that split a frame."""
    return stack.rechunk(dict.fromkeys(range(1, stack.ndim), -1))


def _add_batch(pieces: list[Piece], frames: Array, darks: Array | None, threads: Threads) -> None:
    """Add one batch to the totals: condense whole frames first, then sum blocks of rows.

    Regions take turns, frame by frame and row by row: what lies beside one comes into cache with it.
    """
    n_frames = frames.shape[0]
    batches = [piece.batch(frames, darks) for piece in pieces]
    parts = [(part, batch) for batch in batches for part in cut(n_frames, _frames_per_part(batch.frames))]
    parts.sort(key=lambda task: task[0].start)
    condensed = threads.map(lambda task: task[1].condense(task[0]), parts)
    for (part, batch), whole in zip(parts, condensed, strict=True):
        batch.take(whole, part)
    blocks = [(rows, batch) for batch in batches for rows in row_blocks(batch.frames)]
    blocks.sort(key=lambda task: task[1].piece.box[0].start + task[0].start)
    tasks = [
        (batch.sum_sampled, rows)
        for batch in batches
        for rows in row_blocks(batch.frames, ROW_STEP, first=batch.piece.first_sampled)
    ]
    tasks += [(batch.sum_rows, rows) for rows, batch in blocks]
    threads.map(lambda task: task[0](task[1]), tasks)


def correct_frames(
    frames: Stack,
    work: Steps | Deviation,
    *,
    out: Any,
    n_jobs: int | None,
    batch_size: int | str | None,
    device: str | None,
) -> tuple[Any, Counts]:
    """Correct a stack, or tell the standard deviations of what is corrected.

    Parameters
    ----------
    frames : stack of shape (n_frames, *detector_shape)
        Raw frames, DN. NumPy and other sliceable stacks are read a batch at a time; a Dask array gives a
        lazy Dask array, an array of another library stays in that library.
    work : Steps or Deviation
        What is made of each frame, in the dtype of the result.
    out : array or writer of the shape of ``frames``, or None
        Anything that takes ``out[slice] = frames``; None makes a NumPy array.
    n_jobs, batch_size, device
        As in :func:`sum_frames`.

    Returns
    -------
    result : array of the shape of ``frames``
        ``out`` if that was given.
    counts : Counts
        Of the values that mean nothing; of a Dask array, which is not computed, none.
    """
    if is_dask(frames):
        return _correct_lazily(frames, work, device), Counts()
    if is_eager(frames) and not is_numpy(frames):
        return _correct_on_device(frames, work.each(lambda m: put_like(m, frames)).of_frames(), out)
    out = _new_result(frames.shape, work.dtype) if out is None else out
    place = device_named(device)
    in_place = isinstance(out, np.ndarray) and out.dtype == work.dtype
    if in_place and is_resident(frames) and batch_size is None and device is None:
        batch_size = frames.shape[0]  # in memory, and nothing of the size of a batch is made
    placed: Steps | Deviation | None = None
    counts = Counts()
    with Threads(n_jobs) as threads, WriteBehind(out, place) as writer:
        for batch, raw in read_ahead(frames, batch_size, place):
            placed = placed or work.each(partial(put_like, like=raw))
            on_host = is_numpy(raw)
            if not on_host:
                corrected, found = _correct_on_device(raw, placed.part(batch).of_frames(), None)
                place.finish()
            else:
                corrected = out[batch] if in_place else np.empty(raw.shape, work.dtype)
                found = correct_batch(raw, placed.part(batch), corrected, threads)
            counts = counts.add(found)
            if not (on_host and in_place):
                writer.write(batch, corrected)
    return out, counts


def _new_result(shape: Shape, dtype: np.dtype) -> np.ndarray:
    try:
        return np.empty(shape, dtype)
    except MemoryError as error:
        raise TooLargeError(
            f"the result, {dtype} of shape {tuple(shape)}, does not fit into memory ({error}). Give "
            "`out=`, such as a memory map or what `detectorcal.io.create_frames` makes."
        ) from error


def correct_batch(raw: Any, work: Steps | Deviation, out: Any, threads: Threads) -> Counts:
    """Correct in pieces that stay in cache: runs of frames, rows of them unless all are needed."""
    if work.needs_frames:
        n_frames, blocks = _frames_per_part(raw), [slice(None)]
    else:
        # a curve has a root beside the result, a scan a divisor, and both should stay near the core
        n_pixels = BLOCK_PIXELS if work.maps.alone else BLOCK_PIXELS // 2
        n_frames = RUN_LENGTH * max(1, n_pixels // math.prod(raw.shape[1:]))
        blocks = row_blocks(raw, n_pixels=n_pixels)
    here, late = work.in_blocks(blocks)

    def correct_piece(piece: tuple[slice, int]) -> Counts:
        part, i = piece
        mine = here[i] if work.maps.alike else here[i].part(part).of_frames()
        corrected, counts = mine.run(raw[part, blocks[i]], out[part, blocks[i]])
        return mine.complete(corrected)[1].add(counts)

    # rows outside: their part of the maps stays in cache over the frames
    pieces = [(part, i) for i in range(len(blocks)) for part in cut(len(raw), n_frames)]
    found = threads.map(correct_piece, pieces)
    if late is not None:
        found += threads.map(lambda frame: late(out[frame])[1], cut(len(raw), 1))
    return reduce(Counts.add, found)


def _correct_on_device(frames: Array, work: Steps | Deviation, out: Any) -> tuple[Any, Counts]:
    corrected, counts = work.run(frames, None)
    corrected, last = work.complete(corrected)
    counts = Counts(*map(int, counts.add(last)))
    if out is None:
        return corrected, counts
    out[...] = corrected
    return out, counts


def _correct_lazily(frames: Any, work: Steps | Deviation, device: str | None) -> Any:
    import dask

    frames, empty = whole_frames(frames), np.empty((0,) * frames.ndim, work.dtype)
    # delayed, Dask puts the maps into the graph once and not into every task
    shared = dask.delayed(work, traverse=False, pure=True)
    correct_chunk = partial(_correct_chunk, device=device)
    numbers = None if work.maps.alike else _numbers_of(frames)
    return frames.map_blocks(correct_chunk, numbers, work=shared, dtype=work.dtype, meta=empty)


def _numbers_of(frames: Any) -> Any:
    """Give the numbers of frames, in chunks that go with theirs."""
    import dask.array

    numbers = dask.array.arange(frames.shape[0], chunks=(frames.chunks[0],))
    return numbers.reshape(-1, *(1,) * (frames.ndim - 1))


def _correct_chunk(
    frames: Array, numbers: np.ndarray | None, *, work: Steps | Deviation, device: str | None
) -> Array:
    """Correct one chunk of a Dask array where it is."""
    place = device_named(device)
    frames = place.put(frames)
    here = work if numbers is None else work.part(numbers.ravel())
    corrected, _ = _correct_on_device(frames, here.each(partial(put_like, like=frames)).of_frames(), None)
    place.finish()
    return place.get(corrected)


def copy_frames(stack: Stack, out: Any) -> None:
    """Copy a stack, lazy or on disk, a batch at a time; Dask's workers write themselves where they can."""
    carrier = out.carrier() if is_dask(stack) and hasattr(out, "carrier") else None
    if carrier is not None:
        from detectorcal._cluster import carry_frames

        carry_frames(whole_frames(stack), carrier, out.carried)
        return
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
    if is_dask(images) or is_eager(images):
        return reshape(images, (n_frames, *frame_shape))
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


def some_frames(stack: Stack, n_frames: int) -> Any:
    """Give frames evenly spread over a stack: read, unless they are a Dask array's."""
    chosen = evenly(stack.shape[0], n_frames).tolist()
    if is_dask(stack):
        return stack[chosen]
    parts = [read(stack, slice(number, number + 1)) for number in chosen]
    return namespace(*parts).concat(parts, axis=0)


def mean_frame(stack: Stack, *, batch_size: int | str | None) -> Float64:
    """Mean over the frames of a stack, float64 in host memory; reads a batch at a time."""
    if stack.shape[0] == 1:
        only: Float64 = to_host(read(stack, slice(0, 1)))[0].astype(np.float64)
        return only
    total = np.zeros(stack.shape[1:])
    for batch in batches(stack, batch_size):
        total += to_host(read(stack, batch)).sum(axis=0, dtype=np.float64)
    return total / stack.shape[0]


def any_reaches(stack: Stack, level: float, *, batch_size: int | str | None) -> np.ndarray:
    """Tell at which pixels any frame of a stack reads at least a level; reads a batch at a time."""
    reached = np.zeros(stack.shape[1:], np.bool_)
    for batch in batches(stack, batch_size):
        reached |= np.any(to_host(read(stack, batch)) >= level, axis=0)
    return reached


def temporal_noise(stack: Stack, *, batch_size: int | str | None) -> float:
    """Give the standard deviation from frame to frame of a usual pixel, from two frames at least.

    Of each pixel it is the unbiased variance, of the pixels the median, lest noisy ones count.
    """
    first = to_host(read(stack, slice(0, 1)))[0].astype(np.float64)
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for batch in batches(stack, batch_size):
        for frame in to_host(read(stack, batch)):
            difference = frame - first
            total += difference
            squares += difference**2
    n = stack.shape[0]
    scatter = (squares - total**2 / n).ravel()
    scatter = scatter[np.isfinite(scatter)]  # one NaN would make the median NaN
    if not scatter.size:
        return 0.0
    return float(np.sqrt(noise_scale(scatter, np.full(scatter.size, n - 1))))


def _frames_per_part(frames: Array) -> int:
    """Frames worked on at once: a divisor of a run, fixed by the detector and the kind of array alone."""
    wanted = _block_pixels(frames) // max(1, math.prod(frames.shape[1:]))
    return max(divisor for divisor in (1, 2, 4, 8) if divisor <= max(wanted, 1))


def row_blocks(frames: Array, step: int = 1, n_pixels: int | None = None, first: int = 0) -> list[slice]:
    """Cut a detector into blocks of whole rows, of which every ``step``-th counts; a line is not cut."""
    height, *width = frames.shape[1:]
    if not width:
        return [slice(0, height)]
    n_rows = max(1, (n_pixels or _block_pixels(frames)) // width[0])
    blocks = cut(max(height - first, 0), n_rows * step)
    return [slice(rows.start + first, rows.stop + first, step) for rows in blocks]


def _block_pixels(frames: Array) -> int:
    return BLOCK_PIXELS if is_numpy(frames) else DEVICE_BLOCK_PIXELS
