"""The command that writes a report."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from detectorcal._errors import InputError, warn
from detectorcal._files import refuse_existing
from detectorcal._provenance import mapping_in
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.cli._command import FILE, Command
from detectorcal.cli._inputs import opened
from detectorcal.cli._options import line_option, quiet_option
from detectorcal.io import FrameStack, open_frames

__all__ = ["report"]


@click.command(cls=Command, short_help="Write a page that shows a calibration and judges it.")
@click.argument("calibration", type=FILE)
@click.option("-o", "--output", required=True, metavar="FILE", type=FILE, help="The page, .html.")
@click.option("--sweep", metavar="FILE", type=FILE, help="Frames of the fit; shows single pixels.")
@click.option("--dark", metavar="FILE|DN", type=FILE, help="Of sweep and scan, not the calibration's.")
@click.option("--dark-per-frame", is_flag=True, help="The dark file has one for each frame.")
@click.option("--scan", nargs=2, metavar="IN OUT", type=FILE, help="A scan, and what `correct` made of it.")
@click.option("--projections", type=click.IntRange(min=1), metavar="N",
              help="Of the scan it shall be good for, else 1000.")  # fmt: skip
@click.option("--title", help="Of the page, not the calibration's name.")
@line_option
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
@click.option("--jobs", default=-1, show_default=True, help="Threads; -1 takes all cores.")
@quiet_option
def report(
    calibration: str, output: str, sweep: str | None, dark: str | None, dark_per_frame: bool,
    scan: tuple[str, str] | None, projections: int | None, title: str | None, line: bool, overwrite: bool,
    jobs: int, quiet: bool,
) -> None:  # fmt: skip
    """Write one HTML page about CALIBRATION: is it good enough, which pixels not to trust, and why.

    \b
    Example:
      detectorcal report detector.h5 --sweep sweep.tif -o report.html
    """  # noqa: D301
    from detectorcal.report import write_report

    refuse_existing(output, overwrite=overwrite)
    if dark_per_frame and (sweep is None or dark is None):
        raise InputError(
            "`--dark-per-frame` needs `--sweep` and `--dark`, a file with a dark for each frame."
        )
    calibrator = DetectorCalibrator.load(calibration)
    calibrator.set_params(n_jobs=jobs)
    sources = {"calibration": calibration, "sweep": sweep, "dark": dark, "scan": scan and " -> ".join(scan)}
    with ExitStack() as files:
        frames = None if sweep is None else _frames(files, sweep, line)
        if frames is not None:
            _warn_of_another_sweep(calibrator, frames)
        raw, corrected = (None, None) if scan is None else (_frames(files, name, line) for name in scan)
        headline = write_report(
            output,
            calibrator,
            sweep=frames,
            scan=raw,
            corrected=corrected,
            dark=files.enter_context(opened("dark", dark, line)),
            dark_per_frame=dark_per_frame,
            n_projections=projections,
            title=Path(calibration).name if title is None else title,
            sources={name: value for name, value in sources.items() if value is not None},
            overwrite=overwrite,
        )
    if not quiet:
        click.echo(f"{output}: {headline.answer}")


def _warn_of_another_sweep(calibrator: DetectorCalibrator, frames: FrameStack) -> None:
    """Compare the number of frames with that of the sweep that the calibration's record tells of."""
    recorded = mapping_in(mapping_in(calibrator.provenance_, "inputs"), "sweep")
    shape = recorded.get("shape")
    if isinstance(shape, list) and shape and shape[0] != len(frames):
        warn(
            f"`{frames.path}` has {len(frames)} frames, but this calibration was fitted to {shape[0]}: is it "
            "the same sweep?"
        )


def _frames(files: ExitStack, name: str, line: bool) -> FrameStack:
    return files.enter_context(open_frames(name, line=line))
