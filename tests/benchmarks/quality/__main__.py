"""Measure rings and errors of reconstructions against other corrections and against an oracle.

    python -m tests.benchmarks.quality [--seeds N] [--json FILE] [--markdown FILE] [--pictures FILE]

``docs/quality.md`` says what is compared. It wants astra-toolbox and algotom: without the first, slices come
from the simulator's own reconstruction; without the second, its filters are absent.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from tests.benchmarks.machine import describe_machine
from tests.benchmarks.quality.cases import CASES, Case, Setup
from tests.benchmarks.quality.judge import Figures, judge, medians
from tests.benchmarks.quality.pages import as_markdown, draw, quality_tables
from tests.benchmarks.tables import check_markers, replace_measured

PACKAGES = "detectorcal", "numpy", "scipy", "astra-toolbox", "algotom"
QUICK = Setup(width=64, height=8, n_angles=40, sigma=4.0)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = _parse(arguments)
    if options.markdown:
        check_markers(options.markdown)
    setup, cases, seeds = (QUICK, CASES[:1], 2) if options.quick else (Setup(), CASES, options.seeds)
    measured = measure(cases, setup, range(seeds), options.folder, options.workers)
    for table in quality_tables(measured):
        print(f"\n{table.as_markdown()}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        replace_measured(options.markdown, as_markdown(measured))
    if options.pictures:
        draw(options.pictures, cases, setup, measured)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="scans of each case (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the tables of this page")
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="draw slices into this PNG")
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep the figures of each scan here, and do not measure anew what is there",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (one for each core)"
    )
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(
    cases: Sequence[Case], setup: Setup, seeds: Sequence[int], folder: Path | None, n_workers: int
) -> dict[str, Any]:
    """Judge every case with every seed, and give everything that was found out.

    Parameters
    ----------
    cases : sequence of Case
        The worlds.
    setup : Setup
        Sizes.
    seeds : sequence of int
        One scan of each case for each.
    folder : Path or None
        Where the figures of each scan are kept, and taken from.
    n_workers : int
        Processes.
    """
    tasks = [(case, seed) for seed in seeds for case in cases]
    with Parallel(n_workers) as parallel:
        judged = parallel(delayed(_judge_or_recall)(case, setup, seed, folder) for case, seed in tasks)
    of_case: dict[str, list[Figures]] = {case.name: [] for case in cases}
    for (case, _), figures in zip(tasks, judged, strict=True):
        of_case[case.name].append(figures)
    return {
        "machine": describe_machine(PACKAGES),
        "setup": dataclasses.asdict(setup),
        "seeds": list(seeds),
        "assumed": {case.name: case.assumed for case in cases},
        "medians": {name: medians(of_seeds) for name, of_seeds in of_case.items()},
        "scans": of_case,
    }


def _judge_or_recall(case: Case, setup: Setup, seed: int, folder: Path | None) -> Figures:
    if folder is None:
        return judge(case, setup, seed)
    kept = folder / f"{case.key}-{seed}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half_written = kept.with_suffix(".part")
        half_written.write_text(json.dumps(judge(case, setup, seed), indent=1) + "\n", encoding="utf-8")
        half_written.replace(kept)
    found: Figures = json.loads(kept.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
