"""The command that corrects."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from detectorcal import _provenance
from detectorcal._cluster import connected, spread
from detectorcal._errors import InputError
from detectorcal._version import __version__
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.cli._inputs import opened
from detectorcal.cli._options import line_option, output_option, work_options
from detectorcal.cli._output import Output, refuse_inputs, refuse_unshared, refuse_whole
from detectorcal.cli._progress import Watched, progress_bar, say
from detectorcal.cli._words import changes, count, pixels, started_at
from detectorcal.correction import Correction
from detectorcal.io import FrameStack, open_frames
from detectorcal.rings import CorrectedFrames, RingSuppressor

__all__ = ["correct"]


@click.command(short_help="Correct images with a calibration.")
@click.argument("image")
@output_option
@click.option("-c", "--calibration", required=True, metavar="FILE", help="What `detectorcal fit` wrote.")
@click.option("--flat", metavar="FILE", help="Frames with beam and without sample; averaged.")
@click.option("--n-flats", type=int, metavar="N",
              help="Frames that a single flat is the mean of: its weight for curves.")  # fmt: skip
@click.option("--dark", metavar="FILE|DN", help="Dark of these images instead of the sweep's.")
@click.option("--sigma", type=float, metavar="K",
              help="Follow the flat where it is K spreads off the calibration; 3 is usual.")  # fmt: skip
@click.option("--flat-has-dark/--flat-without-dark", default=True, show_default=True,
              help="Whether the dark is still in the flat.")  # fmt: skip
@click.option("--reject", type=float, metavar="K", help="Replace spots beyond K spreads; 6 is usual.")
@click.option("--rings", is_flag=True,
              help="Remove what rings are left, within 3 standard errors; reads IMAGE twice.")  # fmt: skip
@line_option
@click.option("--resume", is_flag=True, help="Go on with what a stopped run left; HDF5 and zarr.")
@work_options
def correct(
    image: str, output: str, calibration: str, flat: str | None, dark: str | None, reject: float | None,
    rings: bool, line: bool, resume: bool, scheduler: str | None, overwrite: bool, jobs: int,
    batch_size: int | str | None, device: str | None, quiet: bool, **how: Any,
) -> None:  # fmt: skip
    """Correct IMAGE, one frame or many, file to file.

    A scan in NXtomo or DXchange layout brings its own flats and darks, and is written in its own layout.
    A run to HDF5 or zarr that is stopped leaves OUTPUT.partial, with which --resume goes on.

    \b
    Example:
      detectorcal correct scan.nxs -c detector.h5 -o corrected.nxs
    """  # noqa: D301
    refuse_inputs(output, image, calibration, flat, dark)
    for option in ("--resume",) * resume + ("--scheduler",) * (scheduler is not None):
        refuse_whole(option, output)
    calibrator = DetectorCalibrator.load(calibration)
    calibrator.set_params(n_jobs=jobs, batch_size=batch_size, device=device)
    if reject is not None:
        calibrator.set_params(reject=reject)
    with (
        open_frames(image, line=line) as frames,
        opened("flat", flat, line) as flats,
        opened("dark", dark, line) as darks,
    ):
        if scheduler is not None:
            refuse_unshared(frames)
        flats = frames.flats if flats is None else flats
        darks = frames.darks if darks is None else darks
        _refuse_rings_without_flat(rings, flats)
        correction = calibrator.correction(flats, dark=darks, **how)
        _refuse_dark_flat(correction)
        suppressor = RingSuppressor(correction, n_jobs=jobs, batch_size=batch_size) if rings else None
        made_by = _provenance.describe_correction(
            calibrator, calibration, {**how, "reject": calibrator.reject, "rings": rings},
            image=frames, flat=flats, dark=darks,
        )  # fmt: skip
        del calibrator  # its sums are ten maps that nothing needs any more
        told = {"detectorcal": __version__, "image": image, "calibration": calibration}
        whole = Output(output, frames, {**told, _provenance.KEY: made_by}, overwrite, resume, suppressor)
        _write(whole, correction, scheduler, quiet)
    what = "transmission" if flats is not None else "DN above dark"
    say(f"{output}: {count(len(frames), 'frame')} of {pixels(frames.shape[1:])}, {what}", quiet)
    if suppressor is not None:
        say(f"{output}: {changes(suppressor.report_)}", quiet)


def _refuse_rings_without_flat(rings: bool, flats: Any) -> None:
    if rings and flats is None:
        raise InputError(
            "`--rings` looks for rings in the logarithm of a transmission, which needs a flat: give "
            "`--flat`, or leave out `--rings`."
        )


def _refuse_dark_flat(correction: Correction) -> None:
    if not np.any(np.isfinite(correction.scale)):
        raise InputError("the flat is nowhere above the dark, so nothing is written. Were the two mixed up?")


def _write(output: Output, correction: Correction, scheduler: str | None, quiet: bool) -> None:
    """Correct the frames that the output does not have yet."""
    frames, suppressor = output.frames, output.suppressor
    with connected(scheduler), output.writer(correction) as writer:
        if output.resume:
            say(started_at(output.name, writer), quiet)
        if suppressor is not None:
            _find_rings(suppressor, correction, frames, scheduler, quiet)
            correction.set_params(scale=correction.scale * suppressor.multiplier_)
        with progress_bar(len(frames), "correcting", quiet, writer.n_written) as writer.progress:
            for run in writer.missing():
                part = frames.part(run)
                if scheduler is not None:
                    part = spread(part, step=writer.step, batch_size=correction.batch_size)
                correction.transform(part, out=writer.part(run))


def _find_rings(
    suppressor: RingSuppressor, correction: Correction, frames: FrameStack, scheduler: str | None, quiet: bool
) -> None:
    """Go through the raw scan a first time: corrected as it is read, and not written."""
    if scheduler is not None:
        stack = spread(frames, step=frames.step, batch_size=suppressor.batch_size)
        suppressor.fit(correction.transform(stack))
        return
    with progress_bar(len(frames), "looking for rings", quiet) as advance:
        suppressor.fit(CorrectedFrames(Watched(frames, advance), correction, frames.step))
