"""What every response model offers, and the arithmetic that all of them share.

The sums over frames *are* the fit: batches, threads, devices, workers and later days meet by adding
them. A model says which sums it needs and how to solve them; nothing else knows its formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from detectorcal._arrays import put_like
from detectorcal._typing import Array, Float64, Shape

__all__ = [
    "COMMON",
    "ROW_STEP",
    "Response",
    "ResponseModel",
    "Sums",
    "add_rows",
    "add_sums",
    "empty_sums",
    "sampled_rows",
    "sum_names",
]

COMMON = ("frames", "expected")
"""The sums of all models: how many frames a pixel took part in, and its expected values, DN."""

ROW_STEP = 16
"""What is one number, or smooth over the detector, is summed in every so many-th row of an area only."""

Sums: TypeAlias = dict[str, Float64]
"""Detector-shaped sums over frames by name."""


class Response(NamedTuple):
    """A solved model: detector-shaped arrays."""

    coef: Float64
    """Expected over measured, dimensionless."""
    relative_variance: Float64
    """Variance of ``coef`` under photon noise, over ``coef`` squared; NaN where it is not known."""
    system_gain: float
    """K, DN per electron, estimated from the residuals; NaN if they do not tell."""


class ResponseModel(Protocol):
    """How a pixel's measured value depends on the expected one."""

    names: tuple[str, ...]
    """The sums it needs of every pixel, besides :data:`COMMON`."""

    sampled_names: tuple[str, ...]
    """The sums it needs of some rows only; see :func:`sampled_rows`."""

    def accumulate(self, measured: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames what ``names`` says.

        Parameters
        ----------
        measured, difference : arrays of shape (n_frames, *block_shape)
            Frame minus dark, and expected minus measured, DN; both are 0 where a pixel takes no part, and
            their sum, the expected value, is positive where it does.

        Returns
        -------
        dict of str to array of shape block_shape
        """
        ...

    def accumulate_sampled(self, expected: Array, difference: Array) -> dict[str, Array]:
        """Sum over a run of frames what ``sampled_names`` says, alike."""
        ...

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        """Solve for each pixel's response; NaN where the sums do not determine it."""
        ...


def sampled_rows(n_axes: int) -> tuple[Any, ...]:
    """Index the rows of which sampled sums are made: every :data:`ROW_STEP`-th, all of a line detector.

    Parameters
    ----------
    n_axes : int
        Number of axes of the detector, which are the last of what is indexed.
    """
    return (..., slice(None, None, ROW_STEP), slice(None)) if n_axes == 2 else (...,)


def sum_names(model: ResponseModel) -> tuple[str, ...]:
    """Name all the sums of a fit."""
    return (*COMMON, *model.names, *model.sampled_names)


def empty_sums(model: ResponseModel, shape: Shape, like: Array) -> dict[str, Array]:
    """Give the sums over no frames, float64 arrays of the library and device of ``like``."""
    return {name: put_like(np.zeros(shape), like) for name in sum_names(model)}


def add_rows(totals: Mapping[str, Array], sums: Mapping[str, Array], rows: slice) -> None:
    """Add the sums of some rows in place."""
    for name, values in sums.items():
        block = totals[name][rows, ...]
        block += values


def add_sums(parts: Iterable[Mapping[str, Float64]]) -> Sums:
    """Merge sums over disjoint sets of frames."""
    first, *others = parts
    merged = {name: np.array(values, np.float64) for name, values in first.items()}
    for part in others:
        for name, values in merged.items():
            values += part[name]
    return merged
