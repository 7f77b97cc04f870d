"""What all commands share: help under headings, messages in a shell's words, names that it completes."""

from __future__ import annotations

import re
from typing import Any

import click
from click.shell_completion import CompletionItem

from detectorcal._errors import DetectorcalError, InputError, OutputExistsError

__all__ = ["FILE", "FOLDER", "Command", "Group", "in_words_of"]

COLUMN = 26
"""Widest names of options that their description stands beside."""

DONE = "What is done"
"""The heading of every option that is under none of :data:`HEADINGS`."""

HEADINGS: dict[str, tuple[str, ...]] = {
    "Input": (
        "calibration", "dark", "dark_per_frame", "regions", "mask", "flat_names", "n_flats",
        "flat_has_dark", "sweep", "scan", "line",
        "roi", "chosen", "drift", "flat_average", "leave_out_flats", "exposure", "monitor",
    ),
    DONE: (),
    "Output": ("output", "overwrite", "resume", "title", "json", "chunks", "compression"),
    "Work": ("jobs", "batch_size", "device", "scheduler", "quiet"),
}  # fmt: skip
"""Options by heading, as their parameters are called."""


PARAMETER = re.compile(r"`(\w+)(?:=([^`]*))?`")
"""A parameter in a message of the package, with or without its value: ```sigma```, ```sigma=50```."""

OTHERWISE = {"n_jobs": "jobs"}
"""Parameters of the package whose options have other names."""


class Command(click.Command):
    """A command whose help has its options under headings, and whose errors name them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DetectorcalError as error:
            # what is wrong with a file names what is in it, which may be called like an option
            if isinstance(error, InputError | OutputExistsError):
                error.args = (in_words_of(self, str(error)),)
            raise

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


def in_words_of(command: click.Command, message: str) -> str:
    """Give a message of the package with its parameters called as a command calls them.

    Examples
    --------
    >>> import click
    >>> from detectorcal.cli._command import in_words_of
    >>> command = click.Command("fit", params=[click.Argument(["sweep"]), click.Option(["--batch-size"])])
    >>> in_words_of(command, "`X` has 1 frame; `batch_size=8` is too much, and `b` unknown.")
    '`SWEEP` has 1 frame; `--batch-size 8` is too much, and `b` unknown.'
    """
    words = {
        name.lstrip("-").replace("-", "_"): name
        for option in command.params
        for name in option.opts
        if name.startswith("--")
    }
    for argument in command.params:
        if isinstance(argument, click.Argument):
            words.setdefault("X", argument.human_readable_name)

    def told(found: re.Match[str]) -> str:
        word = words.get(OTHERWISE.get(found[1], found[1]))
        if word is None:
            return found[0]
        value = "" if found[2] in (None, "", "True") else " " + found[2].strip("\"'")
        return f"`{word}{value}`"

    return PARAMETER.sub(told, message)


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

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the next option where there should be a name."""
        if isinstance(value, str) and re.match("--?[A-Za-z]", value) and param is not None:
            what = "two names, IN and OUT" if param.nargs == 2 else f"the name of a {self.name}"
            self.fail(f"it takes {what}, but {value!r} follows.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Leave it to the shell, which knows best what is there."""
        return [CompletionItem(incomplete, type=self.kind)]


FILE = _Named("file", "file")
FOLDER = _Named("dir", "folder")
