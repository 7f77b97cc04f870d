"""Read damaged and forged calibrations and stacks in child processes, and say what came of it.

    python -m tests.fuzz [--calibrations N] [--stacks N] [--seed S] [--start I] [--json FILE] [--keep FOLDER]

A case is decided by the seed and its number, so a long run can be made in pieces (--start) and any case
repeated. The exit code is 1 if a file was read wrongly, or anything but our own errors came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.run import Case, Fuzzer, fuzz
from tests.fuzz.samples import Sample, calibrations, stacks, write_files

_SHOWN = 1500
"""Characters of a traceback that are printed."""


def main(arguments: list[str] | None = None) -> int:
    """Run, print and save; give the exit code."""
    options = _parse(arguments)
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as name:
        chosen = ((calibrations, options.calibrations), (stacks, options.stacks))
        for make, n_cases in chosen:
            folder = Path(name, make.__name__)
            folder.mkdir()
            samples = make(folder)
            started = time.monotonic()
            done = []
            for case in fuzz(samples, options.seed, range(options.start, options.start + n_cases)):
                done.append(case)
                if case.failed or case.outcome == "native":
                    _report(case)
                    _keep(options.keep, samples, options.seed, case)
            _print_table(done, time.monotonic() - started)
            cases += done
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    return int(any(case.failed for case in cases))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--calibrations", type=int, default=2000, metavar="N", help="damaged calibrations")
    parser.add_argument("--stacks", type=int, default=500, metavar="N", help="damaged stacks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, metavar="I", help="number of the first case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every case here")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files that failed here")
    return parser.parse_args(arguments)


def _report(case: Case) -> None:
    verdict = "FAILED" if case.failed else "NATIVE"
    print(f"{verdict} {case.kind} {case.number} {case.sample} {case.damage}: {case.outcome}, "
          f"grown by {case.grown} bytes\n{case.detail[-_SHOWN:]}\n", flush=True)  # fmt: skip


def _keep(folder: Path | None, samples: list[Sample], seed: int, case: Case) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _, _, files = Fuzzer(samples, seed, folder, None).make(case.number)  # type: ignore[arg-type]
    write_files(folder / f"{case.kind}_{case.number}_{case.sample}", files)


def _print_table(cases: list[Case], seconds: float) -> None:
    if not cases:
        return
    print(f"{len(cases)} of kind {cases[0].kind} in {seconds:.0f} s")
    for outcome, count in sorted(Counter(case.outcome for case in cases).items()):
        print(f"  {outcome:10} {count}")
    refusals = Counter(case.detail.partition(":")[0] for case in cases if case.outcome == "refused")
    print("  refused by " + ", ".join(f"{name} {count}" for name, count in refusals.most_common()))
    print(f"  memory grew by {max(case.grown for case in cases) / 2**20:.1f} MB at most", flush=True)


if __name__ == "__main__":
    sys.exit(main())
