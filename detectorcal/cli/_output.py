"""What `correct` writes, and what it refuses to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detectorcal._errors import InputError
from detectorcal._validation import float_dtype
from detectorcal.correction import Correction
from detectorcal.io import FrameStack, FrameWriter, create_frames, resume_frames
from detectorcal.io._names import HDF5_SUFFIXES, split_address
from detectorcal.io._partial import can_resume, digest
from detectorcal.kernels.correction import Drift
from detectorcal.rings import RingSuppressor

__all__ = ["Output", "refuse_inputs", "refuse_unshared", "refuse_whole"]


@dataclass(frozen=True)
class Output:
    """What `correct` writes, and how."""

    name: str
    frames: FrameStack
    attributes: dict[str, Any]
    overwrite: bool
    resume: bool
    suppressor: RingSuppressor | None
    storage: dict[str, Any]
    """Chunks, which may be a number of frames alone, and compression."""

    def writer(self, correction: Correction) -> AbstractContextManager[FrameWriter]:
        """Create the output, in the layout of the input where the format has it, or go on with it."""
        frames, dtype = self.frames, float_dtype(self.frames.dtype)
        keeps_layout = frames.layout is not None and self.name.lower().endswith(HDF5_SUFFIXES)
        what: dict[str, Any] = {
            "overwrite": self.overwrite,
            "attributes": self.attributes,
            "like": frames if keeps_layout else None,
            "chunks": _chunk_shape(self.storage["chunks"], frames.shape),
            "compression": self.storage["compression"],
        }
        if _in_parts(self.name, self.storage):
            settings = _settings(correction, self.suppressor, dtype)
            return resume_frames(
                self.name, frames.shape, dtype, source=frames, settings=settings, resume=self.resume, **what
            )
        return create_frames(self.name, frames.shape, dtype, **what)


def _chunk_shape(told: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Give the shape of the chunks: a number alone is one of whole frames."""
    if told is None or len(told) > 1:
        return told
    return (min(told[0], shape[0]), *shape[1:])


def _in_parts(output: str, storage: dict[str, Any]) -> bool:
    """Tell whether an output can be gone on with, and written by several processes."""
    return can_resume(output, plain=all(value is None for value in storage.values()))


def _settings(correction: Correction, suppressor: RingSuppressor | None, dtype: np.dtype) -> dict[str, Any]:
    """Give what decides the corrected numbers, in the precision that they are computed in.

    Multipliers against rings follow from the input, the maps and the standard errors, and are found anew.
    """
    return {
        "calibration or flat": digest(np.asarray(correction.scale, dtype)),
        "dark": digest(np.asarray(correction.dark, dtype)),
        "curves": None if correction.curvature is None else digest(np.asarray(correction.curvature, dtype)),
        "light of its frames": None if correction.drift is None else _digest_of(correction.drift, dtype),
        "`--defects`": correction.defects,
        **_defects(correction),
        "`--invalid`": correction.invalid,
        "`--log`": correction.log,
        "`--reject`": correction.reject,
        "`--rings`": None if suppressor is None else digest(suppressor.relative_variance()),
    }


def _digest_of(drift: Drift, dtype: np.dtype) -> str:
    """Give one checksum of all that a drift consists of."""
    drift = drift.with_beams(lambda beams: beams.astype(dtype))
    return "".join(digest(np.asarray(values)) for values in drift if values is not None)


def _defects(correction: Correction) -> dict[str, str]:
    """Give which pixels are treated as defects, if any are."""
    if correction.defects == "keep" or correction.defect_map is None:
        return {}
    return {"pixels with defects": digest(np.asarray(correction.defect_map))}


def refuse_inputs(output: str, *inputs: Any) -> None:
    """Never write over what is being read, whatever `--overwrite` says.

    Parameters
    ----------
    output : str
        As the user named it.
    *inputs : str, FrameStack, or anything else
        Names of inputs, or what was opened: this knows the files of a pattern, and those that a file links
        to. Numbers and None are no files.
    """
    target, _ = split_address(output)
    written = {target.resolve(), Path(f"{target}.partial").resolve()}
    for given in inputs:
        files: set[Path] = set()
        if isinstance(given, FrameStack):
            files = given.files
        elif isinstance(given, str):
            files = {split_address(given)[0].resolve()}
        if written & files:
            raise InputError(f"the output `{output}` is also an input. Choose another name.")


def refuse_whole(option: str, output: str, storage: dict[str, Any]) -> None:
    """Raise if an output is written whole by one process, or not at all."""
    if not can_resume(output):
        raise InputError(
            f"`{option}` is for HDF5 and zarr outputs, which are written in parts; `{output}` is neither. "
            f"Name an output .h5 or .zarr, or leave out `{option}`."
        )
    if not _in_parts(output, storage):
        raise InputError(
            f"`{option}` is not for an HDF5 output with `--chunks` or `--compression`, which is written as a "
            f"whole. Name an output .zarr, whose chunks are files of their own, or leave out `{option}`."
        )


def refuse_unshared(*stacks: FrameStack) -> None:
    """Raise unless the workers of a cluster can read the stacks by their path."""
    for stack in stacks:
        kind = stack.source.location.format if stack.source is not None else "unknown"
        if kind not in ("hdf5", "zarr"):
            raise InputError(
                f"`--scheduler` is for HDF5 and zarr inputs, which workers read for themselves, and "
                f"`{stack.path}` is of format {kind}. Convert it, or leave out `--scheduler`."
            )
