"""Walking through the projections of a scan, whose sums need the order of the frames as well."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from detectorcal._arrays import device_named, is_dask, to_host
from detectorcal._execution import merge_lazily, row_blocks, whole_frames
from detectorcal._streaming import RUN_LENGTH, Threads, cut, read_ahead
from detectorcal._typing import Array, Stack
from detectorcal.kernels.model import Sums
from detectorcal.kernels.rings import add_run, join_scans, logarithm

__all__ = ["sum_scan"]


def sum_scan(stack: Stack, dtype: np.dtype, *, n_jobs: int | None, batch_size: int | str | None) -> Sums:
    """Sum log(T) over the projections of a scan, and the squares of its steps.

    Each run of :data:`~detectorcal._streaming.RUN_LENGTH` projections, counted from the first, is summed in
    its own precision and added to float64 in order: the result is the same to the last bit for every
    ``n_jobs`` and ``batch_size``. A Dask array is summed chunk by chunk where it is, and agrees but for
    rounding.

    Parameters
    ----------
    stack : stack of shape (n_projections, *detector_shape)
        Transmissions.
    dtype : dtype
        Floating precision in which the logarithm is taken.
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
        for _, frames in read_ahead(stack, batch_size, device_named(None)):
            blocks = row_blocks(frames)
            totals = totals or [{} for _ in blocks]
            threads.map(partial(_add_rows, frames, dtype), list(zip(totals, blocks, strict=True)))
    return {name: np.concatenate([_whole(total, name) for total in totals]) for name in totals[0]}


def _whole(total: dict[str, Array], name: str) -> np.ndarray:
    """Give sums as an array also where they are one number for all pixels."""
    return np.broadcast_to(to_host(total[name]), total["first"].shape)


def _add_rows(frames: Array, dtype: np.dtype, block: tuple[dict[str, Array], slice]) -> None:
    """Add some rows of a batch to what was summed of them before."""
    total, rows = block
    for run in cut(frames.shape[0], RUN_LENGTH):
        add_run(total, logarithm(frames[run, rows, ...], dtype))


def _sum_lazily(stack: Any, dtype: np.dtype) -> Sums:
    """Sum each chunk of a Dask array where it is, and join the sums as a tree, in one graph."""
    import dask

    sum_chunk = dask.delayed(partial(sum_scan, n_jobs=1, batch_size=None), pure=True)
    return merge_lazily(
        [sum_chunk(chunk, dtype) for chunk in whole_frames(stack).to_delayed().ravel()], join_scans
    )
