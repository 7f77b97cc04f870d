"""The program: its commands, and what becomes of mistakes."""

from __future__ import annotations

import os
import sys
import warnings

import click
from rich.console import Console

from detectorcal._errors import DetectorcalError, DetectorcalWarning
from detectorcal._version import __version__
from detectorcal.cli._command import Group, in_words_of
from detectorcal.cli._correct import correct
from detectorcal.cli._demo import run_demo
from detectorcal.cli._fit import fit
from detectorcal.cli._inspect import inspect
from detectorcal.cli._progress import complain
from detectorcal.cli._report import report

__all__ = ["cli", "main"]

READER_GONE = 1
"""Exit code where what reads the output, as `head` does, wanted no more of it."""

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
        Code 0 when all went well, 1 where the reader of the output has gone, 2 after a mistake (one line on
        stderr), 130 after Ctrl-C.
    """
    console = Console(stderr=True)
    warnings.showwarning = _warn
    warnings.simplefilter("default", DetectorcalWarning)
    try:
        code = cli.main(arguments, prog_name="detectorcal", standalone_mode=False)
        sys.stdout.flush()  # a reader that has gone is told of here, and not by the interpreter at its end
        sys.exit(code)
    except click.ClickException as error:
        words = getattr(error, "ctx", None)
        see = f" See `{words.command_path} --help`." if words is not None else ""
        _fail(f"{error.format_message()}{see}", BAD_USE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in its buffer
        sys.exit(READER_GONE)
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
    context = click.get_current_context(silent=True)
    told = str(message) if context is None else in_words_of(context.command, str(message))
    complain(f"detectorcal: warning: {' '.join(told.split())}")


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 what read the output has gone; 2 a mistake, told in one line; 130 Ctrl-C.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Tell what a detector saw from what it recorded.

    Learn each pixel's response from a sweep of frames (fit), correct images with it (correct).
    Files are TIFF (a file, a folder, "scan_*.tif"), HDF5 ("file.h5:/dataset"), zarr and NumPy.

    \b
    Example:
      detectorcal demo
      detectorcal fit sweep.tif --dark darks.tif -o detector.h5
      detectorcal correct scan.tif -c detector.h5 --flat flats.tif -o corrected.tif
    """  # noqa: D301
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (fit, correct, inspect, report, run_demo):
    cli.add_command(command)
