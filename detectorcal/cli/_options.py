"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from detectorcal._average import AVERAGES
from detectorcal._errors import InputError
from detectorcal._groups import DRIFTS
from detectorcal.cli._command import FILE

__all__ = [
    "json_option",
    "light_options",
    "line_option",
    "output_option",
    "part_options",
    "quiet_option",
    "storage_options",
    "work_options",
]


def _options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


output_option = click.option(
    "-o", "--output", required=True, metavar="FILE", type=FILE, help="Where the result goes."
)
line_option = click.option("--line", is_flag=True, help="2-D arrays are of a line detector.")
json_option = click.option("--json", is_flag=True, help="Print one JSON object, and nothing else.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
part_options = _options(
    click.option("--roi", metavar="T:B,L:R", help="Rows T to B, columns L to R of the detector."),
    click.option("--frames", "chosen", metavar="START:STOP[:STEP]", help="Some of the frames, from 0."),
)
light_options = _options(
    click.option("--drift", type=click.Choice(DRIFTS), help="Between flats: two, or NXtomo's own."),
    click.option(
        "--flat-average", type=click.Choice(AVERAGES), metavar="NAME", help="mean or median of flats."
    ),
    click.option("--leave-out-flats", metavar="N,N", help="Flats to leave out, counted from 0."),
    click.option("--exposure", metavar="IMAGE/FLAT", help="Their exposure times, s, if they differ."),
    click.option("--monitor", metavar="FILE", type=FILE, help="Light of images, then flats; see docs."),
)
work_options = _options(
    click.option("--overwrite", is_flag=True, help="Replace an existing output."),
    click.option("--jobs", default=-1, show_default=True, help="Threads; -1 takes all cores."),
    click.option(
        "--batch-size",
        metavar="N|BYTES",
        callback=lambda _, __, word: int(word) if word and word.lstrip("+-").isdigit() else word,
        help='Read at a time: frames, or bytes as "64 MB".',
    ),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where batches are worked on."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask cluster: tcp://host:port, or local.",
    ),
    quiet_option,
)
storage_options = _options(
    click.option(
        "--chunks",
        metavar="N|NxHxW",
        callback=lambda _, __, word: None if word is None else _chunks(word),
        help="Chunks of N frames, or that shape.",
    ),
    click.option(
        "--compression",
        metavar="WORD",
        help="gzip, zstd, ..., as the format has them.",
    ),
)


def _chunks(word: str) -> tuple[int, ...]:
    sizes = word.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise InputError(f"`--chunks` is a number of frames, or a shape as in 8x256x256, not {word!r}.")
    return tuple(map(int, sizes))
