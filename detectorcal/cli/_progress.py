"""What a command shows while it works, and says when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from detectorcal._typing import Stack

__all__ = ["Watched", "progress_bar", "say"]


class Watched:
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
def progress_bar(total: int, verb: str, quiet: bool, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr, if that is a terminal; yield what makes it advance."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda n_frames: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(verb, total=total, completed=done)
        yield lambda n_frames: progress.advance(task, n_frames)


def say(message: str, quiet: bool) -> None:
    if not quiet:
        click.echo(message)
