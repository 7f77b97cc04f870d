"""The command that fits."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from detectorcal import _provenance
from detectorcal._cluster import connected, spread
from detectorcal._defects import HOPELESS
from detectorcal._errors import InputError
from detectorcal._files import refuse_existing
from detectorcal._persistence import check_calibration_name
from detectorcal.calibrator import METHODS, MOST_FAILED, DetectorCalibrator
from detectorcal.cli._command import FILE, Command
from detectorcal.cli._inputs import image_of, opened, refuse_corrected
from detectorcal.cli._options import json_option, line_option, output_option, part_options, work_options
from detectorcal.cli._output import refuse_inputs, refuse_unshared
from detectorcal.cli._progress import Watched, progress_bar, say
from detectorcal.cli._scan import slice_of, windowed
from detectorcal.cli._words import as_json, figures, summary
from detectorcal.io import FrameStack, open_frames
from detectorcal.kernels.smoothing import MODES

__all__ = ["fit"]


@click.command(cls=Command, short_help="Learn each pixel's response from a sweep.")
@click.argument("sweep", type=FILE)
@output_option
@click.option("--dark", metavar="FILE|DN", type=FILE, help="Dark: a frame, several, or a number.")
@click.option("--dark-per-frame", is_flag=True, help="The dark file has one for each frame.")
@click.option("--sigma", default=50.0, show_default=True, help="Width of the Gaussian, pixels.")
@click.option("--method", type=click.Choice(list(METHODS)), default="croton", show_default=True,
              metavar="NAME", help=f"{', '.join(METHODS)}.")  # fmt: skip
@click.option("--cutoff", default=0.0, show_default=True, help="Lowest expected value used, DN.")
@click.option("--saturation", type=float, help="Highest raw value used (exclusive), DN.")
@click.option("--mask", metavar="FILE", type=FILE, help="Image: 1 where a pixel is not to be believed.")
@click.option("--reject", type=float, metavar="K", help="Leave out spots beyond K spreads; 6 is usual.")
@click.option("--system-gain", type=float, metavar="K", help="DN per electron, if it is known.")
@click.option("--read-noise", type=float, metavar="DN", help="Noise without light, for curves.")
@click.option("--mode", type=click.Choice(MODES), default="nearest", show_default=True,
              metavar="NAME", help="What is beyond the edge.")  # fmt: skip
@click.option("--regions", metavar="FILE", type=FILE,
              help="Labels: each module by itself, 0 a gap.")  # fmt: skip
@part_options
@line_option
@json_option
@work_options
def fit(
    sweep: str, output: str, dark: str | None, dark_per_frame: bool, mask: str | None, regions: str | None,
    roi: str | None, chosen: str | None, line: bool, scheduler: str | None,
    overwrite: bool, jobs: int, batch_size: int | str | None, device: str | None, quiet: bool,
    json: bool, **params: Any,
) -> None:  # fmt: skip
    """Learn each pixel's response from SWEEP, frames of an empty beam at many intensities.

    \b
    Example:
      detectorcal fit sweep.tif --dark darks.tif -o detector.h5
    """  # noqa: D301
    check_calibration_name(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_inputs(output, sweep, dark, mask, regions)
    maps: dict[str, Any] = {
        "mask": image_of("--mask", mask, line),
        "regions": image_of("--regions", regions, line),
    }
    with open_frames(sweep, line=line) as frames, opened("dark", dark, line) as darks:
        refuse_inputs(output, frames, darks)
        refuse_corrected(frames, darks)
        if frames.layout is not None:
            raise InputError(
                f"`{sweep}` is a scan ({frames.layout}), not a sweep. Name the dataset that holds the "
                f"sweep, as in `{sweep}:/path`."
            )
        maps = {name: windowed(image, roi, frames.shape[1:]) for name, image in maps.items()}
        frames, darks = _part_of(frames, darks, roi, chosen, dark_per_frame)
        calibrator = DetectorCalibrator(**params, **maps, n_jobs=jobs, batch_size=batch_size, device=device)
        if scheduler is not None:
            each = dark_per_frame and isinstance(darks, FrameStack)
            refuse_unshared(frames, *([darks] if each else []))
            with connected(scheduler):
                stack = spread(frames, batch_size=batch_size)
                shared = spread(darks, batch_size=batch_size) if each else darks
                calibrator.fit(stack, dark=shared, dark_per_frame=dark_per_frame)
        else:
            with progress_bar(len(frames), "fitting", quiet) as advance:
                stack = Watched(frames, advance)
                calibrator.fit(stack, dark=darks, dark_per_frame=dark_per_frame)
        calibrator.provenance_["inputs"] = _provenance.describe_inputs(sweep=frames, dark=darks)
    if np.all(calibrator.defects_ & HOPELESS):
        raise InputError(f"no pixel of `{sweep}` could be calibrated, so nothing is written.{MOST_FAILED}")
    calibrator.save(output, overwrite=overwrite)
    found = figures(calibrator)
    if json:
        click.echo(as_json({"file": output, **found}))
    else:
        say(f"{output}: {summary(found)}", quiet)


def _part_of(
    frames: FrameStack, darks: Any, roi: str | None, chosen: str | None, each: bool
) -> tuple[Any, Any]:
    """Give the part of a sweep that is fitted, and its darks: with ``each``, one of every frame."""
    shape = frames.shape[1:]
    frames, darks = windowed(frames, roi, shape), windowed(darks, roi, shape)
    if chosen is None:
        return frames, darks
    part = slice_of("--frames", chosen, len(frames))
    return frames.part(part), darks.part(part) if each and isinstance(darks, FrameStack) else darks
