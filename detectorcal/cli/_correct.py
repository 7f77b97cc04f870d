"""The command that corrects."""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy
from typing import Any

import click
import numpy as np

from detectorcal import _provenance
from detectorcal._cluster import connected, spread
from detectorcal._errors import InputError, warn
from detectorcal._policies import DEFECT_POLICIES
from detectorcal._version import __version__
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.cli._command import FILE, Command
from detectorcal.cli._inputs import opened, refuse_corrected
from detectorcal.cli._options import (
    light_options,
    line_option,
    output_option,
    part_options,
    storage_options,
    work_options,
)
from detectorcal.cli._output import Output, refuse_inputs, refuse_unshared, refuse_whole
from detectorcal.cli._progress import Watched, progress_bar, say
from detectorcal.cli._scan import LIGHT, checked_roi, prepare, size_of, slice_of, windowed
from detectorcal.cli._words import changes, corrected, started_at
from detectorcal.correction import Correction
from detectorcal.io import FrameStack, open_frames
from detectorcal.rings import CorrectedFrames, RingSuppressor

__all__ = ["correct"]

STORAGE = ("chunks", "compression")
"""Options that say how the output is stored."""

MOST_BELOW = 0.6
"""Share of pixels below the dark that noise does not explain: without light it is half of them."""


@click.command(cls=Command, short_help="Correct images with a calibration.")
@click.argument("image", type=FILE)
@output_option
@click.option(
    "-c", "--calibration", required=True, metavar="FILE", type=FILE, help="What `detectorcal fit` wrote."
)
@click.option("--flat", "flat_names", metavar="FILE", type=FILE, multiple=True,
              help="Frames without sample; twice: before, after.")  # fmt: skip
@click.option("--n-flats", type=int, metavar="N",
              help="Frames that one flat is the mean of, for curves.")  # fmt: skip
@click.option("--dark", metavar="FILE|DN", type=FILE, help="Dark of these images, not the sweep's.")
@click.option("--sigma", type=float, metavar="K",
              help="Follow the flat where K spreads off; 3 is usual.")  # fmt: skip
@click.option("--flat-has-dark/--flat-without-dark", default=True,
              help="Subtract no dark from the flat.")  # fmt: skip
@click.option("--defects", type=click.Choice(DEFECT_POLICIES), default="keep", metavar="WORD",
              help="keep, nan or interpolate bad pixels.")  # fmt: skip
@click.option("--invalid", default="nan", metavar="nan|clip|NUMBER",
              callback=lambda _, __, word: word_or_number(word),
              help="What stands in for values that mean nothing.")  # fmt: skip
@click.option("--log", is_flag=True, help="Write -log of the transmission.")
@click.option("--reject", type=float, metavar="K", help="Replace spots beyond K spreads; 6 is usual.")
@click.option("--rings", is_flag=True,
              help="Remove rings that are left; reads IMAGE twice.")  # fmt: skip
@light_options
@part_options
@line_option
@click.option("--resume", is_flag=True, help="Go on with OUTPUT.partial; HDF5 and zarr.")
@storage_options
@work_options
def correct(
    image: str, output: str, calibration: str, flat_names: tuple[str, ...], dark: str | None,
    reject: float | None, rings: bool, roi: str | None, chosen: str | None, line: bool, resume: bool,
    scheduler: str | None, overwrite: bool, jobs: int, batch_size: int | str | None, device: str | None,
    quiet: bool, **how: Any,
) -> None:  # fmt: skip
    """Correct IMAGE, frames or a scan, of which NXtomo and DXchange bring flats and darks, file to file.

    \b
    Example:
      detectorcal correct scan.nxs -c detector.h5 -o corrected.nxs
    """  # noqa: D301
    light, storage = ({name: how.pop(name) for name in names} for names in (LIGHT, STORAGE))
    refuse_inputs(output, image, calibration, *flat_names, dark, light["monitor"])
    for option in ("--resume",) * resume + ("--scheduler",) * (scheduler is not None):
        refuse_whole(option, output, storage)
    calibrator = DetectorCalibrator.load(calibration)
    calibrator.set_params(n_jobs=jobs, batch_size=batch_size, device=device)
    if reject is not None:
        calibrator.set_params(reject=reject)
    with ExitStack() as files:
        frames = files.enter_context(open_frames(image, line=line))
        if scheduler is not None:
            refuse_unshared(frames)
        own = [] if frames.flats is None else [frames.flats]
        flats = [files.enter_context(opened("flat", name, line)) for name in flat_names] or own
        darks = files.enter_context(opened("dark", dark, line))
        darks = frames.darks if darks is None else darks
        refuse_inputs(output, frames, *flats, darks)
        refuse_corrected(frames, *flats, darks)
        _refuse_without_flat(flats, rings=rings, log=how["log"])
        whole, shape = frames, calibrator.detector_shape_
        if roi is not None:
            if frames.shape[1:] != shape == size_of(roi, frames.shape[1:]):
                shape = frames.shape[1:]  # what was calibrated is that part of it
            else:
                calibrator = calibrator.crop(*checked_roi(roi, shape))
            whole, darks, *flats = (windowed(stack, roi, shape) for stack in (whole, darks, *flats))
        correction = prepare(calibrator, whole, flats, darks, how, light)
        _refuse_dark_flat(correction)
        _warn_of_another_scale(whole, correction)
        frames = whole
        if chosen is not None:
            part = slice_of("--frames", chosen, len(whole))
            frames, correction = whole.part(part), correction.part(part)
        suppressor = RingSuppressor(correction, n_jobs=jobs, batch_size=batch_size) if rings else None
        made_by = _provenance.describe_correction(
            calibrator, calibration,
            {**how, "reject": calibrator.reject, "rings": rings, **_given(roi=roi, frames=chosen, **light)},
            image=frames, dark=darks, **dict(zip(("flat", "flat_after"), flats, strict=False)),
        )  # fmt: skip
        del calibrator  # its sums are ten maps that nothing needs any more
        told = {"detectorcal": __version__, "image": image, "calibration": calibration}
        result = Output(
            output, frames, {**told, _provenance.KEY: made_by}, overwrite, resume, suppressor, storage
        )
        _write(result, correction, scheduler, quiet)
    say(f"{output}: {corrected(correction, frames.shape)}", quiet)
    if suppressor is not None:
        say(f"{output}: {changes(suppressor.report_)}", quiet)


def _given(**options: Any) -> dict[str, Any]:
    """Give the options that were."""
    return {name: value for name, value in options.items() if value is not None}


def word_or_number(word: str) -> str | float:
    """Give what `--invalid` says: a number if it is one."""
    try:
        return float(word) if word != "nan" else word
    except ValueError:
        return word


def _refuse_without_flat(flats: Any, *, rings: bool, log: bool) -> None:
    if log and not flats:
        raise InputError(
            "`--log` takes the logarithm of a transmission, which needs a flat: give `--flat`, or leave out "
            "`--log`."
        )
    if rings and not flats:
        raise InputError(
            "`--rings` looks for rings in the logarithm of a transmission, which needs a flat: give "
            "`--flat`, or leave out `--rings`."
        )


def _refuse_dark_flat(correction: Correction) -> None:
    if not np.any(np.isfinite(correction.scale)):
        raise InputError("the flat is nowhere above the dark, so nothing is written. Were the two mixed up?")


def _warn_of_another_scale(frames: FrameStack, correction: Correction) -> None:
    """Look at one frame: what reads less than the dark was not recorded as the calibration was."""
    if frames.shape[1:] != correction.detector_shape_:
        return  # which is told of when they are corrected
    middle = len(frames) // 2
    below = np.mean(frames[middle : middle + 1] < correction.dark)
    if below > MOST_BELOW:
        warn(
            f"{100 * below:.0f} % of the pixels of a frame of `{frames.path}`, {frames.dtype}, read less "
            "than the dark: is it of the same camera, bit depth and scale?"
        )


def _write(output: Output, correction: Correction, scheduler: str | None, quiet: bool) -> None:
    """Correct the frames that the output does not have yet."""
    frames, suppressor = output.frames, output.suppressor
    with connected(scheduler), output.writer(correction) as writer:
        if output.resume:
            say(started_at(output.name, writer), quiet)
        if suppressor is not None:
            _find_rings(suppressor, correction, frames, scheduler, quiet)
            correction.set_params(scale=correction.scale * suppressor.multiplier_)
        with progress_bar(len(frames), _pass(2, suppressor), quiet, writer.n_written) as writer.progress:
            for run in writer.missing():
                part = frames.part(run, step=writer.step)
                if scheduler is not None:
                    part = spread(part, step=writer.step, batch_size=correction.batch_size)
                correction.part(run).transform(part, out=writer.part(run))


def _pass(number: int, suppressor: RingSuppressor | None) -> str:
    """Say which of the two times that a scan with rings is read this is: the time left is of one."""
    what = ("looking for rings", "correcting")[number - 1]
    return what if suppressor is None else f"{number} of 2: {what}"


def _find_rings(
    suppressor: RingSuppressor, correction: Correction, frames: FrameStack, scheduler: str | None, quiet: bool
) -> None:
    """Go through the raw scan a first time: corrected as it is read, and not written."""
    correction = copy(correction).set_params(log=False)  # it looks for them in the logarithm that it takes
    if scheduler is not None:
        stack = spread(frames, step=frames.step, batch_size=suppressor.batch_size)
        suppressor.fit(correction.transform(stack))
        return
    with progress_bar(len(frames), _pass(1, suppressor), quiet) as advance:
        suppressor.fit(CorrectedFrames(Watched(frames, advance), correction))
