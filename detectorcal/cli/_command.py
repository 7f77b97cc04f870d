"""What all commands are made of: help under headings, and names that a shell completes to files."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["FILE", "FOLDER", "Command", "Group"]

COLUMN = 26
"""Widest names of options that their description stands beside."""

DONE = "What is done"
"""The heading of every option that is under none of :data:`HEADINGS`."""

HEADINGS: dict[str, tuple[str, ...]] = {
    "Input": (
        "calibration", "dark", "dark_per_frame", "regions", "mask", "flat", "flat_names", "n_flats",
        "flat_has_dark", "sweep", "scan", "line",
        "roi", "chosen", "drift", "flat_average", "leave_out_flats", "exposure", "monitor",
    ),
    DONE: (),
    "Output": ("output", "overwrite", "resume", "title", "json", "chunks", "compression"),
    "Work": ("jobs", "batch_size", "device", "scheduler", "quiet"),
}  # fmt: skip
"""Options by heading, as their parameters are called."""


class Command(click.Command):
    """A command whose help has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; of a pair, such as ``--with/--without``, the one that changes something."""
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for option in self.get_params(ctx):
            if not isinstance(option, click.Option):  # arguments are told of in the text above
                continue
            record = option.get_help_record(ctx)
            if record is not None:  # it is, of hidden ones
                rows[_heading_of(option)].append((record[0].rpartition(" / ")[2], record[1]))
        width = min(COLUMN, max(len(names) for records in rows.values() for names, _ in records))
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(names.ljust(width), text) for names, text in records], width)


class Group(click.Group):
    """Commands in the order in which they were added, which is that in which they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names."""
        return list(self.commands)


def _heading_of(option: click.Option) -> str:
    if "--help" in option.opts:  # click's own names for its parameter differ
        return "Work"
    return next((heading for heading, names in HEADINGS.items() if option.name in names), DONE)


class _Named(click.ParamType):
    """A name of a file or folder, which may have more to it than a path: `file.h5:/dataset`."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Leave it to the shell, which knows best what is there."""
        return [CompletionItem(incomplete, type=self.kind)]


FILE = _Named("file", "file")
FOLDER = _Named("dir", "folder")
