"""The README's figures, from those that were measured: python -m tests.benchmarks.readme writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.quality.judge import OFF, RING, RMSE
from tests.benchmarks.quality.methods import FILTERS, FLAT_FIELD, OURS, PAPER, with_filter
from tests.benchmarks.quality.pages import best_filter

ROOT = Path(__file__).parents[2]
BEGIN = "<!-- figures: begin (python -m tests.benchmarks.readme writes what is between these lines) -->"
END = "<!-- figures: end -->"

CASES = {
    "linear, 60 frames": "pixels that differ by 2 %",
    "dust after the sweep": "dust after the sweep",
    "curved pixels, 60 frames": "pixels that curve, each otherwise",
    "centred cylinders": "an object with rings of its own",
}
"""Of those of the page about quality, and what the README calls them."""

JOBS = {
    "fit": ("fit, croton, all cores", "subtracting the dark"),
    "correct": ("transform, all cores", "turning integers into floats"),
}
"""Rows of the tables of times: ours, and what the floor does."""


def figures(benchmarks: dict[str, Any], quality: dict[str, Any]) -> str:
    """Give what stands between the markers."""
    return f"{_quality(quality['medians'])}\n\n{_times(benchmarks)}"


def measured() -> str:
    """Give the figures of the files that are kept."""
    files = (ROOT / "docs" / f"{name}.json" for name in ("benchmarks", "quality"))
    return figures(*(json.loads(file.read_text(encoding="utf-8")) for file in files))


def _quality(medians: dict[str, Any]) -> str:
    lines = [
        "| ring strength / RMSE | flat field | + best stripe filter of algotom | the paper's method "
        '| `method="curved"`, flats, rings |',
        "|---|---|---|---|---|",
    ]
    off: dict[str, list[float]] = {"filter": [], "ours": []}
    for case, name in CASES.items():
        found = medians[case]
        best = with_filter(FLAT_FIELD, best_filter(found) or FILTERS[0])
        compared = [found[method] for method in (FLAT_FIELD, best, PAPER, OURS)]
        least = min(one[RING] for one in compared)
        cells = (f"**{_pair(one)}**" if one[RING] == least else _pair(one) for one in compared)
        lines.append(f"| {name} | {' | '.join(cells)} |")
        off["filter"].append(found[best][OFF])
        off["ours"].append(found[OURS][OFF])
    filters, ours = (f"{100 * min(values):.0f} to {100 * max(values):.0f} %" for values in off.values())
    return (
        "\n".join(lines)
        + "\n\nAn RMSE below 1 is photon noise taken out along with rings: the filters' slices are "
        + f"{filters} of the noise off\nthe oracle's, ours {ours}."
    )


def _pair(found: dict[str, float]) -> str:
    ring = found[RING]
    return f"{ring:.2f} / {found[RMSE]:.3f}" if ring < 10 else f"{ring:.1f} / {found[RMSE]:.3f}"


def _times(benchmarks: dict[str, Any]) -> str:
    n_frames, (height, width) = benchmarks["sizes"]["n_frames"], benchmarks["sizes"]["shape"]
    cores = benchmarks["machine"]["cores"]
    lines = [
        f"| {n_frames} uint16 frames of {height}x{width}, {cores} cores | 0.0.1 | this "
        "| the least it can take |",
        "|---|---|---|---|",
    ]
    for table, (ours, floor) in JOBS.items():
        ms = {row["job"]: row["ms per frame"] for row in benchmarks["tables"][table]["rows"]}
        least = next(job for job in ms if job.startswith("floor"))
        jobs = ("detectorcal 0.0.1", ours, least)
        seconds = [f"{n_frames * ms[job] / 1000:#.2g}".rstrip(".") + " s" for job in jobs]
        lines.append(f"| {table} | {' | '.join(seconds)}: {floor} |")
    return "\n".join(lines)


def main() -> None:
    """Write the README anew."""
    page = ROOT / "README.md"
    head, rest = page.read_text(encoding="utf-8").split(BEGIN, 1)
    page.write_text(f"{head}{BEGIN}\n\n{measured()}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
