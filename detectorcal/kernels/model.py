"""What every response model offers, and the arithmetic that all of them share.

The sums over frames *are* the fit: batches, threads, devices, workers and later days meet by adding
them. A model says which sums it needs and how to solve them; nothing else knows its formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from detectorcal._typing import Array, Float64, Shape

__all__ = ["ROW_STEP", "Response", "ResponseModel", "Sums", "add_sums", "empty_sums"]

ROW_STEP = 8
"""Frames are summed in blocks of a multiple of so many rows, so that a model can keep to every such row for
what one number is made of."""

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
    """The sums it needs, besides "frames", how many frames a pixel took part in."""

    def accumulate(self, measured: Array, expected: Array) -> dict[str, Array]:
        """Sum over a run of frames.

        Parameters
        ----------
        measured, expected : arrays of shape (n_frames, *block_shape)
            Frame minus dark and its smoothed version, DN; both are 0 where a pixel takes no part, and
            ``expected`` is positive where it does.

        Returns
        -------
        dict of str to array of shape block_shape
        """
        ...

    def solve(self, sums: Mapping[str, Float64]) -> Response:
        """Solve for each pixel's response; NaN where the sums do not determine it."""
        ...


def empty_sums(model: ResponseModel, shape: Shape) -> Sums:
    """Give the sums over no frames."""
    return {name: np.zeros(shape) for name in ("frames", *model.names)}


def add_sums(parts: Iterable[Mapping[str, Float64]]) -> Sums:
    """Merge sums over disjoint sets of frames."""
    first, *others = parts
    merged = {name: np.array(values, np.float64) for name, values in first.items()}
    for part in others:
        for name, values in merged.items():
            values += part[name]
    return merged
