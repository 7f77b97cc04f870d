"""Jobs that take turns, so that a busy minute of the machine falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import NamedTuple

from detectorcal._streaming import single_threaded_blas
from tests.benchmarks.tables import Row

MS = "ms per frame"


class Job(NamedTuple):
    """Something to be timed."""

    run: Callable[[], object]
    n_frames: int
    """Frames it works on; times are given per frame."""
    ready: bool = False
    """Whether it needs no round to warm up."""
    most_turns: int = 1_000_000
    """Turns after which it sits out: what takes a minute need not be run often to be known to a percent."""
    hold_blas: bool = False
    """Whether BLAS is held to one thread meanwhile: without it ``n_jobs=1`` is one thread that calls many."""


def take_turns(jobs: Mapping[str, Job], turns: int) -> dict[str, list[float]]:
    """Give the seconds per frame of each turn of each job.

    One round to warm up is not counted. The order is reversed every turn, lest one job always finds in
    the caches what the same other one left there.
    """
    for job in jobs.values():
        if not job.ready:
            _timed(job)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns):
        for name in list(jobs)[:: -1 if turn % 2 else 1]:
            if turn < jobs[name].most_turns:
                seconds[name].append(_timed(jobs[name]) / jobs[name].n_frames)
    return seconds


def _timed(job: Job) -> float:
    """Run a job; to hold BLAS takes milliseconds of its own, which the clock must not see."""
    with single_threaded_blas() if job.hold_blas else nullcontext():
        start = time.perf_counter()
        job.run()
        return time.perf_counter() - start


def timed_rows(jobs: Mapping[str, Job], turns: int) -> list[Row]:
    """Time jobs and give a row each: the median, and how far the turns were apart."""
    return [
        {
            "job": name,
            MS: 1e3 * statistics.median(seconds),
            "fastest": 1e3 * min(seconds),
            "slowest": 1e3 * max(seconds),
            "turns": len(seconds),
        }
        for name, seconds in take_turns(jobs, turns).items()
    ]


def milliseconds(rows: list[Row], job: str) -> float | None:
    """Give the median of one job, None if it was left out."""
    return next((float(row[MS]) for row in rows if row["job"] == job), None)


def add_ratios(rows: list[Row], column: str, ratio: Callable[[float], float | None]) -> None:
    """Add a column that is worked out from the median; None leaves the field empty."""
    for row in rows:
        row[column] = ratio(row[MS])
