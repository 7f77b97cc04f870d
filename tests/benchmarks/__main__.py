"""Measure fit, correct and smoothing against their floors, other packages and detectorcal 0.0.1.

    python -m tests.benchmarks [--full] [--without-old] [--json FILE]

Everything is timed in one run, in turn, and the median is taken; ratios within a run are what to quote, since
machines are shared and differ. ``--full`` takes more frames, and adds growth with frames and with pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from detectorcal import Correction, DetectorCalibrator
from detectorcal._execution import single_threaded_blas
from detectorcal.kernels.smoothing import Smoothing, gaussian

SHAPE = (1032, 1032)
SIGMA = 50.0

Jobs = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more frames; growth with frames and pixels")
    parser.add_argument(
        "--without-old", action="store_true", help="do not install and time detectorcal 0.0.1"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    n_frames, repeats = (100, 5) if options.full else (40, 3)
    sweep, dark = _sweep(n_frames, SHAPE)
    tables = {
        "fit": _time(_fits(sweep, dark), n_frames, repeats),
        "correct": _time(_corrections(sweep, dark), n_frames, repeats),
        "smoothing": _time(_smoothings(), 1, repeats),
    }
    if not options.without_old:
        for name, seconds in _old_version(n_frames).items():
            tables[name]["detectorcal 0.0.1"] = seconds / n_frames
    if options.full:
        tables["fit, by frames"] = {str(n): _fit_time(n, SHAPE) for n in (10, 30, 100, 300, 1000)}
        tables["fit, by width"] = {str(w): _fit_time(16, (w, w)) for w in (256, 512, 1024, 2048, 4096)}
    for name, table in tables.items():
        _print(name, table)
    if options.json:
        machine = {"cores": os.cpu_count(), "python": sys.version.split()[0], "numpy": np.__version__}
        options.json.write_text(json.dumps({"machine": machine, "seconds per frame": tables}, indent=1))


def _sweep(n_frames: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pattern = (1 + 0.02 * rng.standard_normal(shape)).astype(np.float32)
    levels = np.linspace(500, 4000, n_frames, dtype=np.float32)
    return np.stack([(level * pattern + 100).astype(np.uint16) for level in levels]), np.full(shape, 100.0)


def _fits(sweep: np.ndarray, dark: np.ndarray) -> Jobs:
    dark32, frame = dark.astype(np.float32), np.empty(sweep.shape[1:], np.float32)

    def floor() -> None:
        for raw in sweep:
            np.subtract(raw, dark32, out=frame)

    jobs: Jobs = {"floor: numpy.subtract(frame, dark, out=float32)": floor}
    for method in ("croton", "photon"):
        for n_jobs in (1, -1):
            calibrator = DetectorCalibrator(SIGMA, method=method, n_jobs=n_jobs)
            cores = "1 core" if n_jobs == 1 else "all cores"
            jobs[f"fit, {method}, {cores}"] = lambda calibrator=calibrator: calibrator.fit(sweep, dark=dark)
    return jobs


def _corrections(sweep: np.ndarray, dark: np.ndarray) -> Jobs:
    dark32, flat32 = dark.astype(np.float32), sweep[-1].astype(np.float32)
    out = np.empty(sweep.shape, np.float32)
    correction = Correction(1.0 / (flat32 - dark32), dark, n_jobs=-1)
    jobs: Jobs = {
        "floor: numpy.copyto(float32, uint16)": lambda: np.copyto(out, sweep),
        "transform, all cores": lambda: correction.transform(sweep, out=out),
        "(x - dark) / (flat - dark), NumPy": lambda: np.divide(sweep - dark32, flat32 - dark32, out=out),
    }
    try:
        import numexpr
    except ImportError:
        print("numexpr is not installed: left out")
    else:
        names = {"x": sweep, "d": dark32, "f": flat32}
        jobs["the same, numexpr"] = lambda: numexpr.evaluate("(x - d) / (f - d)", names, out=out)
    return jobs


def _smoothings() -> Jobs:
    jobs: Jobs = {}
    smoothing = Smoothing(SIGMA, "nearest", 0.0, 4.0)
    for width in (1032, 2048):
        frames = np.random.default_rng(0).normal(1000, 20, (8, width, width)).astype(np.float32)

        def ours(frames: np.ndarray = frames) -> None:
            for i in range(len(frames)):
                gaussian(frames[i : i + 1], smoothing)

        jobs[f"scipy.ndimage.gaussian_filter, {width}"] = lambda frame=frames[0]: ndimage.gaussian_filter(
            frame, SIGMA, mode="nearest"
        )
        jobs[f"products, {width} (8 frames)"] = ours
    return jobs


def _time(jobs: Jobs, n_frames: int, repeats: int) -> dict[str, float]:
    """Give the median seconds per frame; the jobs take turns, after a first round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                seconds[name].append((time.perf_counter() - start) / n_frames)
    return {
        name: statistics.median(times) / (8 if "8 frames" in name else 1) for name, times in seconds.items()
    }


def _fit_time(n_frames: int, shape: tuple[int, int]) -> float:
    sweep, dark = _sweep(n_frames, shape)
    calibrator = DetectorCalibrator(SIGMA, n_jobs=-1)
    return _time({"": lambda: calibrator.fit(sweep, dark=dark)}, n_frames, 3)[""]


def _old_version(n_frames: int) -> dict[str, float]:
    """Time detectorcal 0.0.1 on the same frames, in an environment of its own."""
    code = f"""
        import json, time
        import numpy as np
        import detectorcal
        rng = np.random.default_rng(0)
        pattern = (1 + 0.02 * rng.standard_normal({SHAPE})).astype(np.float32)
        levels = np.linspace(500, 4000, {n_frames}, dtype=np.float32)
        sweep = np.stack([(level * pattern + 100).astype(np.uint16) for level in levels])
        dark = np.full({SHAPE}, 100.0)
        start = time.perf_counter()
        coefficients = detectorcal.fit_response(sweep, dark)
        fitted = time.perf_counter()
        detectorcal.correct_image(sweep, coefficients, dark, sweep[-1].astype(float))
        corrected = time.perf_counter()
        print(json.dumps({{"fit": fitted - start, "correct": corrected - fitted}}))
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "detectorcal==0.0.1"], check=True)
        # it starts a Dask client, which needs the guard of a main module
        script = Path(folder) / "old.py"
        script.write_text("if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(code), "    "))
        done = subprocess.run(
            [python, script], cwd=folder, check=True, capture_output=True, text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _print(name: str, table: dict[str, float]) -> None:
    first = next(iter(table.values()))
    print(f"\n{name}: ms per frame, and times the first row")
    for row, seconds in table.items():
        print(f"  {row:48s} {1e3 * seconds:10.2f} {seconds / first:10.2f}")


if __name__ == "__main__":
    with single_threaded_blas():
        main()
