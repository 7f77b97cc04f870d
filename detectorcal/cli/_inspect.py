"""The command that shows what a file holds."""

from __future__ import annotations

from contextlib import suppress

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detectorcal import _provenance
from detectorcal._errors import DetectorcalError, FileFormatError, InputError
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.cli._words import facts

__all__ = ["inspect"]


@click.command(short_help="Show what a calibration holds, or how corrected frames were made.")
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
