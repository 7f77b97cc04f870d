"""Runs in the environment of detectorcal 0.0.1: does what standard input says, answers when it is done.

A process that stays, rather than one for each run, so that 0.0.1 takes its turns among the other jobs with
its imports made and its frames loaded.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import numpy as np


def main(folder: Path, sigma: float) -> None:
    """Load the frames that :class:`tests.benchmarks.old.Old` wrote to ``folder`` and wait for work."""
    # 0.0.1 prints; what it prints must not look like an answer
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import detectorcal

    sweep, dark, flat = (np.load(folder / f"{name}.npy") for name in ("sweep", "dark", "flat"))
    small = (slice(None, 2), slice(None, 32), slice(None, 32))
    coefficients = detectorcal.fit_response(sweep[small], dark[small[1:]])
    versions = {name: importlib.metadata.version(name) for name in ("detectorcal", "numpy", "scipy", "dask")}
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "fit":
            coefficients = detectorcal.fit_response(sweep, dark, sigma=sigma)
            np.save(folder / "coefficients.npy", coefficients)
        else:
            detectorcal.correct_image(sweep, coefficients, dark, flat, smooth_radius=sigma)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
