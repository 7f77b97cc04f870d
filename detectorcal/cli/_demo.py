"""The command that shows what the package does."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from detectorcal import demo
from detectorcal.cli._command import FOLDER, Command
from detectorcal.cli._options import quiet_option
from detectorcal.cli._words import figures, summary

__all__ = ["run_demo"]


@click.command(
    "demo", cls=Command, short_help="Calibrate a simulated detector and see what it does to a scan."
)
@click.option("-o", "--output", metavar="FOLDER", type=FOLDER, help="Keep all files here.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the simulated noise."
)
@quiet_option
def run_demo(output: str | None, seed: int, quiet: bool) -> None:
    """Calibrate a simulated detector, correct a simulated scan, and measure both.

    \b
    Example:
      detectorcal demo -o demo_files
    """  # noqa: D301
    if output is not None:
        demo.make_folder(output)  # before the work, not after it
    result = demo.run(seed)
    if output is not None:
        demo.write(result, output)
    if quiet:
        return
    table = Table("correction", title_justify="left")
    for name in ("pattern (PRNU)", "rings of a slice"):
        table.add_column(name, justify="right")
    for name, percent in result.figures.items():
        table.add_row(name, *(f"{figure:.2f} %" for figure in percent))
    click.echo(f"simulated: {summary(figures(result.calibrator))}")
    Console().print(table)
    if output is None:
        click.echo("`detectorcal demo -o FOLDER` keeps the files, to try the other commands on.")
    else:
        click.echo(f"{output}: {', '.join(demo.FILES)}")
        sweep, scan, corrected, calibration = (
            shlex.quote(str(Path(output) / name))
            for name in ("sweep.h5", "scan.h5", "corrected.h5", "calibration.h5")
        )
        click.echo("A page about them, which needs the extra `plot`:")
        click.echo(
            f"  detectorcal report {calibration} --sweep {sweep} --scan {scan} {corrected} -o report.html"
        )
