"""The command line: the estimator's own words, file to file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detectorcal import _provenance, demo
from detectorcal._cli_inputs import opened
from detectorcal._cli_output import Output, refuse_inputs, refuse_unshared, refuse_whole
from detectorcal._cli_report import report
from detectorcal._cli_words import changes, count, facts, pixels, started_at, summary
from detectorcal._cluster import connected, spread
from detectorcal._errors import DetectorcalError, DetectorcalWarning, FileFormatError, InputError
from detectorcal._files import refuse_existing
from detectorcal._persistence import check_calibration_name
from detectorcal._typing import Stack
from detectorcal._version import __version__
from detectorcal.calibrator import METHODS, MOST_FAILED, DetectorCalibrator
from detectorcal.correction import Correction
from detectorcal.io import FrameStack, open_frames
from detectorcal.kernels.smoothing import MODES
from detectorcal.rings import CorrectedFrames, RingSuppressor

__all__ = ["main"]

BAD_USE = 2
"""Exit code after a mistake that the message explains."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 plus the signal's number."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : list of str, optional
        Words after the program's name; those of this process by default.

    Raises
    ------
    SystemExit
        Code 0 when all went well, 2 after a mistake (one line on stderr), 130 after Ctrl-C.
    """
    console = Console(stderr=True)
    warnings.showwarning = _warn
    warnings.simplefilter("default", DetectorcalWarning)
    try:
        sys.exit(cli.main(arguments, prog_name="detectorcal", standalone_mode=False))
    except click.ClickException as error:
        _fail(error.format_message(), BAD_USE)
    except (KeyboardInterrupt, click.Abort) as error:
        console.show_cursor()
        # click raises Abort from the interrupt, which has the notes
        notes = _notes(error) or _notes(error.__cause__) or "nothing unfinished was kept."
        _fail(f"interrupted; {notes[0].lower()}{notes[1:]}", INTERRUPTED)
    except (DetectorcalError, OSError, MemoryError) as error:
        _fail(f"{str(error) or type(error).__name__} {_notes(error)}", BAD_USE)


def _notes(error: BaseException | None) -> str:
    """Give what was added to an error on its way: what is left of the output."""
    return " ".join(getattr(error, "__notes__", []))


def _fail(message: str, code: int) -> None:
    click.echo(f"detectorcal: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _warn(message: object, *_: object, **__: object) -> None:
    click.echo(f"detectorcal: warning: {' '.join(str(message).split())}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Tell what a detector saw from what it recorded.

    Learn each pixel's response from a sweep of frames (fit), correct images with it (correct).
    Files are TIFF (a file, a folder, "scan_*.tif"), HDF5 ("file.h5:/dataset"), zarr and NumPy.
    """


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


_output = click.option("-o", "--output", required=True, metavar="FILE", help="Where the result goes.")
_work = _options(
    click.option("--overwrite", is_flag=True, help="Replace an existing output."),
    click.option("--jobs", default=-1, show_default=True, help="Threads; -1 takes all cores."),
    click.option(
        "--batch-size",
        metavar="N|BYTES",
        callback=lambda _, __, word: int(word) if word and word.lstrip("+-").isdigit() else word,
        help='Read at a time: frames, or bytes as "64 MB"; by default about 32 MB.',
    ),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where batches are worked on."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Work on this Dask cluster (tcp://host:port), or on one of this machine: local.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors."),
)


@cli.command(short_help="Learn each pixel's response from a sweep.")
@click.argument("sweep")
@_output
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
@click.option("--line", is_flag=True, help="A 2-D array is frames of a line detector.")
@_work
def fit(
    sweep: str, output: str, dark: str | None, dark_per_frame: bool, line: bool, scheduler: str | None,
    overwrite: bool, jobs: int, batch_size: int | str | None, device: str | None, quiet: bool,
    **params: Any,
) -> None:  # fmt: skip
    """Learn each pixel's response from SWEEP, frames of an empty beam at many intensities.

    \b
    Example:
      detectorcal fit sweep.tif --dark darks.tif -o detector.h5
    """  # noqa: D301
    check_calibration_name(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_inputs(output, sweep, dark)
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
            with _progress(len(frames), "fitting", quiet) as advance:
                stack = _Watched(frames, advance)
                calibrator.fit(stack, dark=darks, dark_per_frame=dark_per_frame)
        calibrator.provenance_["inputs"] = _provenance.describe_inputs(sweep=frames, dark=darks)
    if np.all(calibrator.defects_):
        raise InputError(f"no pixel of `{sweep}` could be calibrated, so nothing is written.{MOST_FAILED}")
    calibrator.save(output, overwrite=overwrite)
    _say(f"{output}: {summary(calibrator)}", quiet)


@cli.command(short_help="Correct images with a calibration.")
@click.argument("image")
@_output
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
@click.option("--line", is_flag=True, help="A 2-D array is frames of a line detector.")
@click.option("--resume", is_flag=True, help="Go on with what a stopped run left; HDF5 and zarr.")
@_work
def correct(
    image: str, output: str, calibration: str, flat: str | None, n_flats: int | None, dark: str | None,
    sigma: float | None, flat_has_dark: bool, reject: float | None, rings: bool, line: bool, resume: bool,
    scheduler: str | None, overwrite: bool, jobs: int, batch_size: int | str | None, device: str | None,
    quiet: bool,
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
        if rings and flats is None:
            raise InputError(
                "`--rings` looks for rings in the logarithm of a transmission, which needs a flat: give "
                "`--flat`, or leave out `--rings`."
            )
        correction = calibrator.correction(flats, sigma, darks, n_flats=n_flats, flat_has_dark=flat_has_dark)
        suppressor = RingSuppressor(correction, n_jobs=jobs, batch_size=batch_size) if rings else None
        parameters = {
            "sigma": sigma,
            "n_flats": n_flats,
            "flat_has_dark": flat_has_dark,
            "reject": calibrator.reject,
            "rings": rings,
        }
        made_by = _provenance.describe_correction(
            calibrator, calibration, parameters, image=frames, flat=flats, dark=darks
        )
        del calibrator  # its sums are ten maps that nothing needs any more
        if not np.any(np.isfinite(correction.scale)):
            raise InputError(
                "the flat is nowhere above the dark, so nothing is written. Were the two mixed up?"
            )
        told = {"detectorcal": __version__, "image": image, "calibration": calibration}
        whole = Output(output, frames, {**told, _provenance.KEY: made_by}, overwrite, resume, suppressor)
        with connected(scheduler), whole.writer(correction) as writer:
            if resume:
                _say(started_at(output, writer), quiet)
            if suppressor is not None:
                _find_rings(suppressor, correction, frames, scheduler, quiet)
                correction.set_params(scale=correction.scale * suppressor.multiplier_)
            with _progress(len(frames), "correcting", quiet, writer.n_written) as writer.progress:
                for run in writer.missing():
                    part = frames.part(run)
                    if scheduler is not None:
                        part = spread(part, step=writer.step, batch_size=batch_size)
                    correction.transform(part, out=writer.part(run))
    what = "transmission" if flats is not None else "DN above dark"
    _say(f"{output}: {count(len(frames), 'frame')} of {pixels(frames.shape[1:])}, {what}", quiet)
    if suppressor is not None:
        _say(f"{output}: {changes(suppressor.report_)}", quiet)


@cli.command(short_help="Show what a calibration holds, or how corrected frames were made.")
@click.argument("file")
@click.option("--projections", default=1000, show_default=True, help="Of the scan whose rings are predicted.")
def inspect(file: str, projections: int) -> None:
    """Show what the calibration FILE holds and how good it is; of corrected frames, how they were made.

    \b
    Example:
      detectorcal inspect detector.h5
      detectorcal inspect corrected.nxs
    """  # noqa: D301
    try:
        rows = list(facts(DetectorCalibrator.load(file), projections))
    except (FileFormatError, InputError):
        history = None
        with suppress(DetectorcalError):
            history = _provenance.read_history(file)
        if history is None:
            raise
        rows = list(_provenance.describe(history))
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(name, escape(value))
    Console().print(table)


cli.add_command(report)


@cli.command("demo", short_help="Calibrate a simulated detector and see what it does to a scan.")
@click.option("-o", "--output", metavar="FOLDER", help="Keep the simulated and corrected files here.")
@click.option("--seed", default=0, show_default=True, help="Of the simulated noise.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
def run_demo(output: str | None, seed: int, quiet: bool) -> None:
    """Calibrate a simulated detector, correct a simulated scan, and measure both.

    \b
    Example:
      detectorcal demo -o demo_files
    """  # noqa: D301
    result = demo.run(seed)
    if output is not None:
        demo.write(result, output)
    if quiet:
        return
    table = Table("correction", title_justify="left")
    for name in ("pattern (PRNU)", "rings of a slice"):
        table.add_column(name, justify="right")
    for name, figures in result.figures.items():
        table.add_row(name, *(f"{figure:.2f} %" for figure in figures))
    click.echo(f"simulated: {summary(result.calibrator)}")
    Console().print(table)
    if output is not None:
        click.echo(f"{output}: {', '.join(demo.FILES)}")


# ---------------------------------------------------------------------- helpers


def _find_rings(
    suppressor: RingSuppressor, correction: Correction, frames: FrameStack, scheduler: str | None, quiet: bool
) -> None:
    """Go through the raw scan a first time: corrected as it is read, and not written."""
    if scheduler is not None:
        stack = spread(frames, step=frames.step, batch_size=suppressor.batch_size)
        suppressor.fit(correction.transform(stack))
        return
    with _progress(len(frames), "looking for rings", quiet) as advance:
        suppressor.fit(CorrectedFrames(_Watched(frames, advance), correction, frames.step))


class _Watched:
    """A stack that tells how many of its frames have been read."""

    def __init__(self, stack: Stack, advance: Callable[[int], object]) -> None:
        self._stack = stack
        self._advance = advance
        self.shape = stack.shape
        self.dtype = stack.dtype

    def __getitem__(self, index: Any) -> Any:
        frames = self._stack[index]
        self._advance(len(frames))
        return frames


@contextmanager
def _progress(total: int, verb: str, quiet: bool, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr, if that is a terminal; yield what makes it advance."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda n_frames: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(verb, total=total, completed=done)
        yield lambda n_frames: progress.advance(task, n_frames)


def _say(message: str, quiet: bool) -> None:
    if not quiet:
        click.echo(message)
