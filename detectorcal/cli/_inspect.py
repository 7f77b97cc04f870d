"""The command that shows what a file holds."""

from __future__ import annotations

from contextlib import suppress

import click

from detectorcal import _provenance
from detectorcal._errors import DetectorcalError, FileFormatError, InputError
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.cli._command import FILE, Command
from detectorcal.cli._options import json_option
from detectorcal.cli._progress import print_rows
from detectorcal.cli._words import PROJECTIONS, as_json, describe, figures

__all__ = ["inspect"]


@click.command(cls=Command, short_help="Show what a calibration holds, or how corrected frames were made.")
@click.argument("file", type=FILE)
@click.option("--projections", type=click.IntRange(min=1), default=PROJECTIONS, show_default=True,
              metavar="N", help="Of the scan whose rings are told.")  # fmt: skip
@json_option
def inspect(file: str, projections: int, json: bool) -> None:
    """Show what the calibration FILE holds and how good it is; of corrected frames, how they were made.

    \b
    Example:
      detectorcal inspect detector.h5
      detectorcal inspect corrected.nxs --json
    """  # noqa: D301
    try:
        found = figures(DetectorCalibrator.load(file), projections)
        rows = describe(found)
    except (FileFormatError, InputError) as error:
        history = None
        with suppress(DetectorcalError):
            history = _provenance.read_history(file)
        if history is None:
            error.add_note("`inspect` shows what `fit` and `correct` wrote; .npy files have no place for it.")
            raise
        found = {"provenance": history}
        rows = _provenance.describe(history)
    if json:
        click.echo(as_json({"file": file, **found}))
    else:
        print_rows(list(rows))
