"""What some pixels of a sweep read, and what they should have read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectorcal._arrays import to_host
from detectorcal._streaming import cut, read, single_threaded_blas
from detectorcal._typing import Float64, Stack
from detectorcal._validation import float_dtype
from detectorcal.correction import Correction
from detectorcal.kernels.accumulation import Accumulation
from detectorcal.kernels.smoothing import smoother_for

__all__ = ["Points", "corrected_at", "points_of", "response_at"]

FRAMES_AT_ONCE = 8


@dataclass(frozen=True)
class Points:
    """Values of some pixels in each frame, arrays of shape (n_frames, n_pixels)."""

    measured: Float64
    """Frame minus dark, DN."""
    expected: Float64
    """The same smoothed over the detector, DN."""
    used: np.ndarray
    """Whether the fit counts them."""


def points_of(
    stack: Stack, dark: Any, kind: Accumulation, pixels: np.ndarray, frames: np.ndarray | None = None
) -> Points:
    """Read the values of some pixels from a sweep, masked and smoothed as a fit does it.

    Parameters
    ----------
    stack : stack of shape (n_frames, *detector_shape)
        Raw frames, DN.
    dark : array of the detector's shape or of the stack's
        Dark, DN.
    kind : Accumulation
        What a fit does with them.
    pixels : array of int
        Places in the flattened detector.
    frames : array of int, optional
        Which of the frames; all by default.

    Returns
    -------
    Points
    """
    rows = np.arange(stack.shape[0]) if frames is None else frames
    dtype = float_dtype(stack.dtype)
    per_frame = len(dark.shape) == len(stack.shape)
    pieces = [(box, alone.placed(np.empty(0), dtype)) for box, alone in kind.pieces(tuple(stack.shape[1:]))]
    parts: list[tuple[Any, Any, Any]] = []
    with single_threaded_blas():
        for part in cut(len(rows), FRAMES_AT_ONCE):
            chosen = rows[part]
            raw = np.concatenate([to_host(read(stack, slice(i, i + 1))) for i in chosen])
            darks = np.concatenate([read(dark, slice(i, i + 1)) for i in chosen]) if per_frame else dark
            parts.append(_some_pixels(raw, np.asarray(darks, dtype), pieces, pixels))
    measured, expected, used = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    used &= expected > kind.cutoff
    return Points(measured.astype(np.float64), expected.astype(np.float64), used)


def corrected_at(calibrator: Any, points: Points, pixels: np.ndarray) -> Float64:
    """Give what correction makes of the measured values of some pixels, DN, (n_frames, n_pixels)."""
    scale, curvature = response_at(calibrator, pixels)
    corrected: Float64 = Correction(scale, np.zeros_like(scale), curvature=curvature).transform(
        points.measured
    )
    return corrected


def response_at(calibrator: Any, pixels: np.ndarray) -> tuple[Float64, Float64 | None]:
    """Give the maps of the correction, `scale` and `curvature`, at some pixels, (n_pixels,)."""
    correction = calibrator.correction(dark=0.0)
    curvature = correction.curvature
    return correction.scale.ravel()[pixels], None if curvature is None else curvature.ravel()[pixels]


def _some_pixels(
    raw: np.ndarray, dark: np.ndarray, pieces: list[tuple[Any, Accumulation]], pixels: np.ndarray
) -> tuple[Any, Any, Any]:
    expected, believed = np.zeros(raw.shape, dark.dtype), np.zeros(raw.shape, np.bool_)
    for box, alone in pieces:
        there: Any = (..., *box)
        _expect(raw[there], dark[there], alone, expected[there], believed[there])
    expected, believed = (values.reshape(len(raw), -1)[:, pixels] for values in (expected, believed))
    # floating before the subtraction: unsigned integers would wrap round
    measured = raw.reshape(len(raw), -1)[:, pixels].astype(dark.dtype)
    measured -= dark.reshape(-1, math.prod(raw.shape[1:]))[:, pixels]
    return measured, expected, believed


def _expect(raw: np.ndarray, dark: np.ndarray, kind: Accumulation, expected: Any, believed: Any) -> None:
    """Fill in, for one region, what its pixels should have read and whether they are believed."""
    condensed = kind.condense(raw, dark)
    smooth = smoother_for(raw.shape[1:], kind.smoothing, dark).expand(condensed.smoothed, slice(None))
    inside = True if kind.outside is None else ~kind.outside
    np.copyto(expected, smooth, where=inside)
    np.copyto(believed, True if condensed.masked is None else ~condensed.masked, where=inside)
    if kind.filling is not None:
        believed &= ~kind.filling.hopeless
