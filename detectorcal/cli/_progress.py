"""What a command shows while it works, and says when it is done."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detectorcal._typing import Stack

__all__ = ["Watched", "complain", "print_rows", "progress_bar", "say"]


_shown: list[Progress] = []
"""The progress bar, while there is one."""


class Watched:
    """A stack that tells how many of its frames have been read, but for some reads at first."""

    def __init__(self, stack: Stack, advance: Callable[[int], object]) -> None:
        self._stack = stack
        self._advance = advance
        self.shape = stack.shape
        self.dtype = stack.dtype
        self.step = getattr(stack, "step", 1)
        self._seen = np.zeros(stack.shape[0], bool)

    def __getitem__(self, index: slice) -> Any:
        """Read; a frame counts once, whatever has looked at it before."""
        frames = self._stack[index]
        self._advance(int(np.count_nonzero(~self._seen[index])))
        self._seen[index] = True
        return frames


@contextmanager
def progress_bar(total: int, verb: str, quiet: bool, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr, if that is a terminal; yield what makes it advance."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda n_frames: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        _shown.append(progress)
        task = progress.add_task(verb, total=total, completed=done)
        try:
            yield lambda n_frames: progress.advance(task, n_frames)
        finally:
            _shown.remove(progress)


def complain(message: str) -> None:
    """Print a line on stderr, above the progress bar if one is shown."""
    if _shown:
        _shown[-1].console.print(message, markup=False, highlight=False)
    else:
        click.echo(message, err=True)


def say(message: str, quiet: bool) -> None:
    """Print a line, unless it is not wanted."""
    if not quiet:
        click.echo(message)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns, folded to the width of a terminal; elsewhere a line each.

    What is said may come from a stranger's file: nothing in it moves a cursor or begins a line.
    """
    rows = [(_printable(name), _printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, value in rows:
        lines = textwrap.wrap(value, max(room - width - 2, 20)) if room else [value]
        for number, line in enumerate(lines or [""]):
            click.echo(f"{'' if number else name:<{width}}  {line}".rstrip())


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
