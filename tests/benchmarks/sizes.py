"""How much is measured; the tests run the same code with less."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Frames, pixels and turns of every section."""

    n_frames: int = 100
    shape: tuple[int, int] = (1032, 1032)
    sigma: float = 50.0
    turns: int = 3
    old_fits: int = 1
    """Turns of 0.0.1's fit, which takes a minute."""
    smoothed_widths: tuple[int, ...] = (1032, 2048)
    factored_widths: tuple[int, ...] = (1032, 2048, 4096)
    growth_frames: tuple[int, ...] = (10, 30, 100, 300, 1000)
    growth_widths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    growth_width_frames: int = 16
    """Frames of the sweeps that grow in pixels."""
    file_frames: tuple[int, ...] = (200, 600)
    child_turns: int = 1
    held_frames: int = 100
    """Frames held in memory by the children whose extra memory is measured."""


DEFAULT = Sizes()

FULL = Sizes(turns=5, file_frames=(200, 2000))

QUICK = Sizes(
    n_frames=16,
    smoothed_widths=(1032,),
    factored_widths=(1032, 2048),
    growth_frames=(10, 30),
    growth_widths=(256, 512, 1024),
    growth_width_frames=8,
    file_frames=(40, 120),
    held_frames=40,
)
"""For work on the benchmark itself; too little to quote."""
