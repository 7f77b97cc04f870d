"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["line_option", "output_option", "quiet_option", "work_options"]


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


output_option = click.option("-o", "--output", required=True, metavar="FILE", help="Where the result goes.")
line_option = click.option("--line", is_flag=True, help="A 2-D array is frames of a line detector.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
work_options = _options(
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
    quiet_option,
)
