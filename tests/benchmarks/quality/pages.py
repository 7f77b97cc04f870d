"""The figures as tables, and the slices as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.quality.cases import Case, Setup
from tests.benchmarks.quality.judge import OFF, RING, RMSE, SAME_RING, SAME_RMSE, Figures, slices
from tests.benchmarks.quality.methods import (
    FILTERED,
    FILTERS,
    FLAT_FIELD,
    METHODS,
    ORACLE,
    OURS,
    PAPER,
    with_filter,
)
from tests.benchmarks.tables import Row, Table

CROP_PX, ZOOM, GREYS = 96, 2, 48
"""Of each picture; noise does not compress, so the greys are few."""

PICTURED_SEED = 0
BEST = "+ best filter"

MEASURES = {
    RING: "Rings weaker",
    RMSE: "RMSE lower",
    OFF: "Less off the oracle's slice",
    SAME_RING: "Rings against the same photons weaker",
    SAME_RMSE: "RMSE against the same photons lower",
}
"""What slices are compared by; the smaller, the better."""


def quality_tables(measured: dict[str, Any]) -> Iterator[Table]:
    """Give the tables of the page."""
    assumed = measured["assumed"]
    everything: dict[str, Figures] = measured["medians"]
    for title, wanted in (("As the model assumes", True), ("Not as the model assumes", False)):
        chosen = {case: figures for case, figures in everything.items() if assumed[case] == wanted}
        if chosen:
            yield Table(title, _NOTE, [_row(c, f, _pair) for c, f in chosen.items()])
    yield Table("Off the oracle's slice", _NOTE_OFF, [_row(c, f, _off) for c, f in everything.items()])
    told = {case: figures for case, figures in everything.items() if SAME_RING in figures[ORACLE]}
    if told:
        yield Table("Against the same photons", _NOTE_SAME, [_row(c, f, _same) for c, f in told.items()])
    for base in FILTERED:
        if any(with_filter(base, name) in f for f in everything.values() for name in FILTERS):
            note = f"Ring / RMSE, and off the oracle's slice in brackets. Every filter after: {base}."
            rows = [_filter_row(case, base, figures) for case, figures in everything.items()]
            yield Table(f"Stripe filters after {base}", note, rows)


_NOTE = (
    "Ring strength / RMSE as multiples of the oracle's, medians over the seeds. The best filter is algotom's "
    "that leaves the weakest rings in that case."
)
_NOTE_OFF = (
    "RMSE between a slice and the oracle's slice of the same frames, in % of its RMSE, medians: what "
    "a correction left or changed, whether noise hides it or not. To remove noise is no gain here."
)

_NOTE_SAME = (
    "Ring strength / RMSE against the slice that a perfect detector without read noise makes of the same "
    "photons, as multiples of the oracle's, medians. What photon noise there is, the reference has too."
)


def best_filter(figures: Figures) -> str | None:
    """Name of the filter that leaves the weakest rings after a flat field; None where none was run."""
    ran = [name for name in FILTERS if with_filter(FLAT_FIELD, name) in figures]
    return min(ran, key=lambda name: figures[with_filter(FLAT_FIELD, name)][RING], default=None)


def losses(measured: dict[str, Any]) -> list[str]:
    """Say, for each measure, in which cases flat field + best filter beats ours; nothing without filters."""
    everything: dict[str, Figures] = measured["medians"]
    best = {case: best_filter(figures) for case, figures in everything.items()}
    if not all(best.values()):
        return []
    sentences = []
    for measure, name in MEASURES.items():
        judged = {case: figures for case, figures in everything.items() if measure in figures[OURS]}
        lost = [
            case
            for case, figures in judged.items()
            if figures[with_filter(FLAT_FIELD, str(best[case]))][measure] < figures[OURS][measure]
        ]
        cases = "; ".join(lost) if lost else "no case"
        if judged:
            sentences.append(f"{name} after flat field + best filter than after {OURS}: {cases}.")
    return sentences


def _row(case: str, figures: Figures, cell: Callable[[dict[str, float]], str]) -> Row:
    best = best_filter(figures)
    row: Row = {"case": case, FLAT_FIELD: cell(figures[FLAT_FIELD])}
    if best:
        row[BEST] = f"{cell(figures[with_filter(FLAT_FIELD, best)])} ({best})"
    others = (name for name in METHODS if name not in (ORACLE, FLAT_FIELD))
    return row | {name: cell(figures[name]) for name in others}


def _filter_row(case: str, base: str, figures: Figures) -> Row:
    of_filters = {name: figures.get(with_filter(base, name)) for name in FILTERS}
    cells = {name: None if f is None else f"{_pair(f)} ({_off(f)})" for name, f in of_filters.items()}
    return {"case": case, "none": f"{_pair(figures[base])} ({_off(figures[base])})", **cells}


def _pair(figures: dict[str, float]) -> str:
    return f"{figures[RING]:.2f} / {figures[RMSE]:.3f}"


def _same(figures: dict[str, float]) -> str:
    return f"{figures[SAME_RING]:.1f} / {figures[SAME_RMSE]:.2f}"


def _off(figures: dict[str, float]) -> str:
    return f"{100 * figures[OFF]:.0f} %"


def as_markdown(measured: dict[str, Any]) -> str:
    """Give the machine and all tables as the generated part of the page."""
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items() if value)
    seeds = f"{len(measured['seeds'])} seeds, of each case a scan each."
    tables = (table.as_markdown().strip() for table in quality_tables(measured))
    return "\n\n".join([f"Machine: {machine}.", seeds, *losses(measured), *tables])


def draw(path: Path, cases: Sequence[Case], setup: Setup, measured: dict[str, Any]) -> None:
    """Draw a part of some slices, a case per row, each row on one grey scale, into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    shown = [case for case in cases if case.shown]
    filters = {case.name: best_filter(measured["medians"][case.name]) for case in shown}
    columns = [ORACLE, FLAT_FIELD, BEST, PAPER, OURS]
    side = ZOOM * min(CROP_PX, setup.width) / 100
    figure = Figure(figsize=(len(columns) * (side + 0.06), len(shown) * (side + 0.25)), dpi=100)
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1 - 0.25 / figure.get_figheight(), wspace=0.03, hspace=0.13)
    for line, case in zip(axes, shown, strict=True):
        names = [with_filter(FLAT_FIELD, filters[case.name] or "") if c == BEST else c for c in columns]
        _draw_row(line, dict(slices(case, setup, PICTURED_SEED, names)), case.name, names)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).convert("L").quantize(GREYS).save(path, format="png", optimize=True)


def _draw_row(line: Sequence[Any], images: dict[str, np.ndarray], case: str, names: Sequence[str]) -> None:
    oracle = _crop(images[ORACLE])
    darkest, brightest = np.percentile(oracle, (0.5, 99.5))
    for axis, name in zip(line, names, strict=True):
        axis.set_axis_off()
        if name in images:
            axis.imshow(
                _crop(images[name]), cmap="gray", vmin=darkest, vmax=brightest, interpolation="nearest"
            )
            axis.set_title(f"{case}: {name}" if name == ORACLE else name, fontsize=7, pad=3)


def _crop(image: np.ndarray) -> np.ndarray:
    """A part with the axis of rotation near its right edge, where the objects have no edge of their own."""
    top, left = (max(len(image) // 2 - int(part * CROP_PX), 0) for part in (0.5, 0.875))
    return image[top : top + CROP_PX, left : left + CROP_PX]
