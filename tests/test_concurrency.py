"""The same numbers from eight threads at once, and from forked and spawned processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

from detectorcal import DetectorCalibrator

SHAPE = (40, 300)
"""Wide enough that smoothing is done by matrix products, which BLAS has threads for."""
N_THREADS = 8


def simulated(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    levels = np.linspace(200, 3000, 24)[:, None, None]
    return (100 + rng.normal(1, 0.02, SHAPE) * levels).astype(np.uint16)


def fitted(seed: int, n_jobs: int) -> bytes:
    """Fit and correct; give all that came out, to the last bit."""
    sweep = simulated(seed)
    cal = DetectorCalibrator(sigma=20, n_jobs=n_jobs, batch_size=5).fit(sweep, dark=100)
    corrected = cal.transform(sweep, sweep[-2:])
    return b"".join(array.tobytes() for array in (cal.coef_, cal.coef_std_, *cal.sums_.values(), corrected))


def blas_threads() -> list[int]:
    return [found["num_threads"] for found in threadpoolctl.threadpool_info() if found["user_api"] == "blas"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_eight_threads_at_once(n_jobs):
    alone = [fitted(seed, 1) for seed in range(N_THREADS)]
    together = threading.Barrier(N_THREADS)

    def work(seed: int) -> list[bytes]:
        together.wait(timeout=60)
        return [fitted(seed, n_jobs) for _ in range(3)]

    with threadpoolctl.threadpool_limits(3, "blas"):
        assert blas_threads()
        assert set(blas_threads()) == {3}
        with ThreadPoolExecutor(N_THREADS) as pool:
            results = list(pool.map(work, range(N_THREADS)))
        assert set(blas_threads()) == {3}
    for result, expected in zip(results, alone, strict=True):
        assert result == [expected] * 3


def test_eight_threads_share_a_calibration():
    sweep = simulated(0)
    cal = DetectorCalibrator(sigma=20).fit(sweep, dark=100)
    images = [simulated(seed) for seed in range(N_THREADS)]
    expected = [cal.transform(image, sweep[-2:]) for image in images]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(lambda image: cal.transform(image, sweep[-2:]), images))
    np.testing.assert_array_equal(found, expected)


PROCESSES = """
import contextlib, hashlib, multiprocessing, sys, warnings
from detectorcal._streaming import single_threaded_blas
from tests.test_concurrency import blas_threads, fitted

def work(seed):
    warnings.simplefilter("error")
    return blas_threads(), hashlib.sha256(fitted(seed, 2)).hexdigest(), blas_threads()

if __name__ == "__main__":
    expected = [work(seed) for seed in range(2)]
    warnings.simplefilter("ignore")  # of forking where there are threads: BLAS has its own
    places = [contextlib.nullcontext, single_threaded_blas]
    for place in places if sys.argv[1] == "fork" else places[:1]:
        with place(), multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            found = pool.map_async(work, range(2)).get(timeout=60)
        assert found == expected, found
        assert blas_threads() == expected[0][0]
    print("same")
"""
"""Fits in child processes, which may be begun while BLAS is held to one thread for somebody's fit."""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(tmp_path, method):
    if method == "fork" and not sys.platform.startswith("linux"):
        pytest.skip("forking is safe on Linux only")
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    run = [sys.executable, str(script), method]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "same\n"
