"""On a Dask cluster: reach one, give it frames by the path of their file, have its workers write theirs."""

from __future__ import annotations

import logging
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from detectorcal._errors import ClusterError, DetectorcalError, MissingDependencyError
from detectorcal._streaming import batches

__all__ = ["LOCAL", "carry_frames", "connected", "spread"]

LOCAL = "local"
"""Scheduler's name for a cluster of this machine's cores, started on request."""

PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""


@contextmanager
def connected(scheduler: str | None) -> Iterator[None]:
    """Have Dask compute on a cluster within the block; without a scheduler change nothing.

    Parameters
    ----------
    scheduler : str or None
        The address, such as "tcp://host:8786", or "local" to start a cluster of this machine's cores.

    Raises
    ------
    ClusterError
        If the scheduler does not answer, or the cluster is lost in mid-work.
    MissingDependencyError
        If `distributed` is not installed.
    """
    if scheduler is None:
        yield
        return
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            "`--scheduler` needs Dask's `distributed`, which is not installed: "
            'pip install "detectorcal[dask]".'
        ) from error
    with _quiet(), _client(distributed, scheduler), _named(distributed, scheduler):
        yield


@contextmanager
def _client(distributed: Any, scheduler: str) -> Iterator[None]:
    try:
        if scheduler == LOCAL:
            client = distributed.Client(dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
        else:
            client = distributed.Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"the scheduler `{scheduler}` did not answer within {PATIENCE:g} s ({error}). Is it running, and "
            "is this its address, as in tcp://host:8786?"
        ) from error
    with client:
        yield


@contextmanager
def _named(distributed: Any, scheduler: str) -> Iterator[None]:
    """Say in a line what became of the cluster; the errors of the work itself pass."""
    try:
        yield
    except DetectorcalError:
        raise
    except distributed.scheduler.KilledWorker as error:
        raise ClusterError(
            f"several workers of `{scheduler}` died one after the other at the same frames. Have they enough "
            "memory? A task needs about four times `--batch-size` frames."
        ) from error
    except distributed.CancelledError as error:
        raise ClusterError(f"the scheduler `{scheduler}` was lost in mid-work ({error}).") from error
    except RuntimeError as error:
        if "deserializ" not in str(error).lower():
            raise
        raise ClusterError(
            f"the cluster `{scheduler}` cannot read what it is sent ({error.__cause__ or error}). Scheduler "
            "and workers need the same versions of detectorcal, dask and Python as here."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the cluster's own log off the terminal: what matters comes out as an error."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            # the maps of a large detector are meant to be in the graph
            warnings.filterwarnings("ignore", "Sending large graph")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def spread(stack: Any, *, step: int = 1, batch_size: int | str | None = None) -> Any:
    """See a stack of a file as a Dask array whose workers open the file for themselves.

    Parameters
    ----------
    stack : FrameStack
        Frames in a file under an absolute path.
    step : int, default=1
        Every block but the last has a multiple of so many frames.
    batch_size : int, str or None
        Frames or bytes of a block; see :func:`~detectorcal._streaming.batches`.

    Returns
    -------
    dask.array.Array
        Whole frames in blocks. Neither making it nor its name reads the file.
    """
    import dask.array
    from dask.highlevelgraph import HighLevelGraph

    name = f"frames-{secrets.token_hex(8)}"
    parts = [stack.part(batch) for batch in batches(stack, batch_size, step)]
    first_block = (0,) * (stack.ndim - 1)
    tasks = {(name, number, *first_block): (np.asarray, part) for number, part in enumerate(parts)}
    chunks = (tuple(len(part) for part in parts), *((length,) for length in stack.shape[1:]))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[])
    return dask.array.Array(graph, name, chunks, meta=np.empty((0,) * stack.ndim, stack.dtype))


def carry_frames(
    stack: Any, carrier: Callable[[int, Any], None], carried: Callable[[int, int], None]
) -> None:
    """Compute a Dask array and have each block written by who computed it.

    Parameters
    ----------
    stack : dask.array.Array
        Whole frames.
    carrier : callable
        Picklable; takes the number of the first frame and the frames, and writes them.
    carried : callable
        Is told the first frame and the one after the last of each block that was written.
    """
    import dask

    edges = np.cumsum([0, *stack.chunks[0]]).tolist()
    write = dask.delayed(_write, pure=False)
    blocks = stack.to_delayed().ravel()
    tasks = [write(carrier, start, block) for start, block in zip(edges, blocks, strict=False)]
    try:
        from distributed import as_completed, get_client

        client = get_client()
    except (ImportError, ValueError):  # no cluster: Dask's threads
        for start, stop in dask.compute(*tasks):
            carried(start, stop)
        return
    futures = client.compute(tasks)
    try:
        for future in as_completed(futures):
            carried(*future.result())
            future.release()
    finally:
        client.cancel(futures)


def _write(carrier: Callable[[int, Any], None], start: int, frames: Any) -> tuple[int, int]:
    carrier(start, frames)
    return start, start + len(frames)
