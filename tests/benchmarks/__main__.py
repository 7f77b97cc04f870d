"""Measure fit, correct, smoothing and memory against their floors, other packages and detectorcal 0.0.1.

    python -m tests.benchmarks [--full] [--json FILE] [--markdown FILE] [--without-old] [--folder FOLDER]

Everything is timed in one run, the jobs taking turns, and the median is taken; ratios within a run are what
to quote, since machines are shared and differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import beyond, growth, jobs, memory, smoothing
from tests.benchmarks.frames import make_sweep
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.old import install_old, old_version
from tests.benchmarks.sizes import DEFAULT, FULL, QUICK, Sizes
from tests.benchmarks.tables import Table, check_markers, replace_measured


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = _parse(arguments)
    if options.markdown:
        check_markers(options.markdown)
    sizes = FULL if options.full else QUICK if options.quick else DEFAULT
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name).resolve()
        python = None if options.without_old else install_old(folder / "old")
        measured = measure(sizes, folder, python)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        replace_measured(options.markdown, as_markdown(measured))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full", action="store_true", help="more turns; files of 2000 frames (13 GB of disk)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the tables of this page")
    parser.add_argument("--without-old", action="store_true", help="leave detectorcal 0.0.1 out")
    parser.add_argument("--folder", type=Path, help="where temporary files go; the system's place by default")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(sizes: Sizes, folder: Path, python_of_old: Path | None) -> dict[str, Any]:
    """Run every section, print its table, and give everything that was found out.

    Parameters
    ----------
    sizes : Sizes
        How much.
    folder : Path
        Place for temporary files.
    python_of_old : Path or None
        Interpreter of an environment that has detectorcal 0.0.1; None leaves it out.
    """
    tables: dict[str, Any] = {}
    found = {"machine": describe_machine(), "sizes": dataclasses.asdict(sizes), "tables": tables}
    sweep, dark = make_sweep(sizes.n_frames, sizes.shape)
    with old_version(python_of_old, folder, sweep, dark, sizes.sigma) as old:
        if old is not None:
            found["0.0.1"] = old.versions
        for key, table in (
            ("fit", jobs.fit_in_memory(sweep, dark, sizes, old)),
            ("correct", jobs.correct_in_memory(sweep, dark, sizes, old)),
        ):
            tables[key] = _shown(table)
    tables["fit from file"] = _shown(jobs.fit_from_file(sweep, dark, sizes, folder))
    del sweep
    tables.update((key, _shown(table)) for key, table in _other_sections(sizes, folder))
    return found


def _other_sections(sizes: Sizes, folder: Path) -> Iterator[tuple[str, Table]]:
    yield "fit of curves", beyond.fit_curves(sizes)
    yield "correction by curves", beyond.correct_curves(sizes, folder)
    yield "ring pass", beyond.ring_pass(sizes, folder)
    yield "smoothing", smoothing.smooth_frames(sizes)
    yield "factors", smoothing.build_factors(sizes)
    yield "growth with frames", growth.grow_frames(sizes)
    yield "growth with pixels", growth.grow_pixels(sizes)
    if memory.can_measure():
        yield "file to file", memory.file_to_file(sizes, folder)
        yield "extra memory", memory.in_memory(sizes)


def _shown(table: Table) -> dict[str, Any]:
    print(f"\n{table.as_markdown()}", flush=True)
    return table.as_dict()


def as_markdown(measured: dict[str, Any]) -> str:
    """Give the machine and all tables as the generated part of the page."""
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items() if value)
    lines = [f"Machine: {machine}."]
    if "0.0.1" in measured:
        with_ = (f"{name} {version}" for name, version in measured["0.0.1"].items() if name != "detectorcal")
        lines.append(f"detectorcal 0.0.1 ran with {', '.join(with_)}.")
    if measured["sizes"] == dataclasses.asdict(QUICK):
        lines.append("**A quick run, made to try the benchmark: too little to quote.**")
    return "\n\n".join(
        [*lines, *(Table(**table).as_markdown().strip() for table in measured["tables"].values())]
    )


if __name__ == "__main__":
    main()
