"""What was measured, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN = "<!-- measured: begin (--markdown writes what is between these lines) -->"
END = "<!-- measured: end -->"

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows with a heading; the columns are the keys of the rows, in the order in which they first come."""

    title: str
    note: str
    rows: list[Row]

    @property
    def columns(self) -> list[str]:
        """Headings of the columns that have an entry."""
        return list(
            dict.fromkeys(key for row in self.rows for key, value in row.items() if value is not None)
        )

    def as_dict(self) -> dict[str, Any]:
        """Give what goes into JSON: figures unrounded."""
        return dataclasses.asdict(self)

    def as_markdown(self) -> str:
        """Give a heading, the note, and a table that can be read unrendered too."""
        lines = [self.columns, *([_cell(row.get(key)) for key in self.columns] for row in self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        sides = ["<" if isinstance(self.rows[0].get(key), str) else ">" for key in self.columns]
        rules = [
            "-" * (width - 1) + ("-" if s == "<" else ":") for s, width in zip(sides, widths, strict=True)
        ]
        padded = [
            [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)]
            for line in (lines[0], rules, *lines[1:])
        ]
        table = "\n".join(f"| {' | '.join(line)} |" for line in padded)
        return f"### {self.title}\n\n{self.note}\n\n{table}\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # three digits, never an exponent
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    return str(value)


def check_markers(path: Path) -> str:
    """Give the text of a page that has both markers, in order; anything else ends the program.

    Called before anything is measured: ten minutes later is too late to learn of a wrong path.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise SystemExit(f"{path} must have these two lines, between which the tables go:\n{BEGIN}\n{END}")
    return text


def replace_measured(path: Path, measured: str) -> None:
    """Put ``measured`` between the markers of a page and leave the rest as it is."""
    text = check_markers(path)
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n\n{measured.strip()}\n\n{END}{tail}", encoding="utf-8")
