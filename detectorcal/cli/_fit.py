"""The command that fits."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from detectorcal import _provenance
from detectorcal._cluster import connected, spread
from detectorcal._errors import InputError
from detectorcal._files import refuse_existing
from detectorcal._persistence import check_calibration_name
from detectorcal.calibrator import METHODS, MOST_FAILED, DetectorCalibrator
from detectorcal.cli._inputs import image_of, opened
from detectorcal.cli._options import line_option, output_option, work_options
from detectorcal.cli._output import refuse_inputs, refuse_unshared
from detectorcal.cli._progress import Watched, progress_bar, say
from detectorcal.cli._words import summary
from detectorcal.io import FrameStack, open_frames
from detectorcal.kernels.smoothing import MODES

__all__ = ["fit"]


@click.command(short_help="Learn each pixel's response from a sweep.")
@click.argument("sweep")
@output_option
@click.option("--dark", metavar="FILE|DN", help="Dark: a frame, frames to be averaged, or a number.")
@click.option("--dark-per-frame", is_flag=True, help="The dark file has one dark for each frame.")
@click.option("--sigma", default=50.0, show_default=True, help="Width of the Gaussian, pixels.")
@click.option("--method", type=click.Choice(list(METHODS)), default="croton", show_default=True,
              help="The paper's least squares, weights for photon noise, or curves.")  # fmt: skip
@click.option("--cutoff", default=0.0, show_default=True, help="Lowest expected value used, DN.")
@click.option("--saturation", type=float, help="Highest raw value used (exclusive), DN.")
@click.option("--reject", type=float, metavar="K", help="Leave out spots beyond K spreads; 6 is usual.")
@click.option("--system-gain", type=float, metavar="K", help="DN per electron, if it is known.")
@click.option("--read-noise", type=float, metavar="DN", help="Noise without light, if curves shall know.")
@click.option("--mode", type=click.Choice(MODES), default="nearest", show_default=True,
              help="How the Gaussian continues beyond the edge.")  # fmt: skip
@click.option("--regions", metavar="FILE",
              help="Label image: each module is smoothed within itself, 0 is a gap.")  # fmt: skip
@line_option
@work_options
def fit(
    sweep: str, output: str, dark: str | None, dark_per_frame: bool, regions: str | None, line: bool,
    scheduler: str | None, overwrite: bool, jobs: int, batch_size: int | str | None, device: str | None,
    quiet: bool, **params: Any,
) -> None:  # fmt: skip
    """Learn each pixel's response from SWEEP, frames of an empty beam at many intensities.

    \b
    Example:
      detectorcal fit sweep.tif --dark darks.tif -o detector.h5
    """  # noqa: D301
    check_calibration_name(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_inputs(output, sweep, dark, regions)
    params["regions"] = image_of("--regions", regions, line)
    calibrator = DetectorCalibrator(**params, n_jobs=jobs, batch_size=batch_size, device=device)
    with open_frames(sweep, line=line) as frames, opened("dark", dark, line) as darks:
        if frames.layout is not None:
            raise InputError(
                f"`{sweep}` is a scan ({frames.layout}), not a sweep. Name the dataset that holds the "
                f"sweep, as in `{sweep}:/path`."
            )
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
    if np.all(calibrator.defects_):
        raise InputError(f"no pixel of `{sweep}` could be calibrated, so nothing is written.{MOST_FAILED}")
    calibrator.save(output, overwrite=overwrite)
    say(f"{output}: {summary(calibrator)}", quiet)
