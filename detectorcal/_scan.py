"""Walking through the projections of a scan, whose sums need the order of the frames as well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from detectorcal._arrays import device_named, is_dask, to_host
from detectorcal._execution import correct_batch, merge_lazily, row_blocks, whole_frames
from detectorcal._streaming import RUN_LENGTH, Threads, cut, read_ahead
from detectorcal._typing import Array, Stack
from detectorcal.kernels.finishing import Steps
from detectorcal.kernels.model import Sums
from detectorcal.kernels.rings import add_run, join_scans, logarithm

__all__ = ["sum_scan"]


def sum_scan(
    stack: Stack,
    dtype: np.dtype,
    *,
    work: Steps | None = None,
    n_jobs: int | None,
    batch_size: int | str | None,
) -> Sums:
    """Sum log(T) over the projections of a scan, and the squares of its steps.

    Each run of :data:`~detectorcal._streaming.RUN_LENGTH` projections, counted from the first, is summed in
    its own precision and added to float64 in order: the result is the same to the last bit for every
    ``n_jobs`` and ``batch_size``. A Dask array is summed chunk by chunk where it is, and agrees but for
    rounding.

    Parameters
    ----------
    stack : stack of shape (n_projections, *detector_shape)
        Transmissions, or raw frames with ``work``.
    dtype : dtype
        Floating precision in which the logarithm is taken.
    work : Steps or None
        What makes transmissions of raw frames, which are not a Dask array.
    n_jobs : int or None
        Threads, as joblib counts them.
    batch_size : int, str or None
        Frames or bytes read at a time; see :func:`~detectorcal._streaming.batches`.

    Returns
    -------
    dict of str to array of shape detector_shape
        As :func:`detectorcal.kernels.rings.scan_sums` has them, in host memory.
    """
    if is_dask(stack):
        return _sum_lazily(stack, dtype)
    totals: list[dict[str, Array]] = []
    with Threads(n_jobs) as threads:
        for batch, frames in read_ahead(stack, batch_size, device_named(None)):
            blocks = row_blocks(frames)
            totals = totals or [{} for _ in blocks]
            frames, here = _corrected(frames, work and work.part(batch), blocks, threads)
            threads.map(partial(_add_rows, frames, dtype), list(zip(totals, blocks, here, strict=True)))
    return {name: np.concatenate([_whole(total, name) for total in totals]) for name in totals[0]}


def _corrected(
    frames: Array, work: Steps | None, blocks: list[slice], threads: Threads
) -> tuple[Array, Sequence[Steps | None]]:
    """Give frames, and what is still to do with each block of rows: nothing if whole frames were needed."""
    nothing: list[Steps | None] = [None] * len(blocks)
    if work is None:
        return frames, nothing
    here, late = work.in_blocks(blocks)
    if late is None and not work.needs_frames:
        return frames, here
    corrected = np.empty(frames.shape, work.dtype)
    correct_batch(frames, work, corrected, threads)
    return corrected, nothing


def _whole(total: dict[str, Array], name: str) -> np.ndarray:
    """Give sums as an array also where they are one number for all pixels."""
    return np.broadcast_to(to_host(total[name]), total["first"].shape)


def _add_rows(frames: Array, dtype: np.dtype, block: tuple[dict[str, Array], slice, Steps | None]) -> None:
    """Add some rows of a batch to what was summed of them before."""
    total, rows, work = block
    for run in cut(frames.shape[0], RUN_LENGTH):
        values = frames[run, rows, ...]
        if work is not None:
            values, _ = work.complete(work.part(run).run(values, None)[0])
        add_run(total, logarithm(values, dtype))


def _sum_lazily(stack: Any, dtype: np.dtype) -> Sums:
    """Sum each chunk of a Dask array where it is, and join the sums as a tree, in one graph."""
    import dask

    sum_chunk = dask.delayed(partial(sum_scan, n_jobs=1, batch_size=None), pure=True)
    return merge_lazily(
        [sum_chunk(chunk, dtype) for chunk in whole_frames(stack).to_delayed().ravel()], join_scans
    )
