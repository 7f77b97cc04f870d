"""On a Dask cluster: the same numbers, whatever dies; files are read and written by the workers."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.array
import h5py
import numpy as np
import pytest

from detectorcal import Correction, DetectorCalibrator, _errors
from detectorcal._cluster import connected, spread
from detectorcal._errors import (
    ClusterError,
    DamagedFileError,
    DetectorcalError,
    InputError,
    MissingDependencyError,
    MissingFileError,
    WriteError,
)
from detectorcal.cli import main
from detectorcal.io import create_frames, open_frames, resume_frames

distributed = pytest.importorskip("distributed")

# Worker processes that are killed, and clusters that are closed, leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHAPE = (128, 256)
N_FRAMES = 64
"""A zarr chunk of the corrected frames takes 8 of them."""
PATIENCE = 60
"""Seconds that anything may take before a test fails."""


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """A sweep and a scan, as HDF5 and zarr, with one dark for each frame."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    response = rng.normal(1, 0.02, SHAPE)
    sweep = (100 + response * np.linspace(200, 3000, N_FRAMES)[:, None, None]).astype(np.uint16)
    for name, frames in (("sweep", sweep), ("scan", sweep[::-1]), ("darks", sweep // 50)):
        with h5py.File(f"{name}.h5", "w") as file:
            file["data"] = frames
        with create_frames(f"{name}.zarr", sweep.shape, "uint16") as out:
            out[:] = frames
    return tmp_path


@pytest.fixture
def cluster():
    """Two worker processes and this one as their client."""
    with (
        distributed.LocalCluster(
            2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as two,
        distributed.Client(two) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and two workers as processes of their own; gives the address and the workers."""
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:

        def start(kind: str, *words: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{kind}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *words],
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = folder / "scheduler.json"
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        wait_for(file.exists)
        address = json.loads(file.read_text())["address"]
        workers = [start("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        with distributed.Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        yield address, workers


def comes_true(condition, within: float) -> bool:
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def wait_for(condition) -> None:
    assert comes_true(condition, PATIENCE)


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "detectorcal", *words],
        capture_output=True, text=True, check=False, timeout=2 * PATIENCE,
    )  # fmt: skip


def data(path: str) -> np.ndarray:
    with open_frames(path) as stack:
        return stack[:]


# ---------------------------------------------------------------- stacks that travel


@pytest.mark.parametrize("name", ["scan.h5", "scan.h5:/data", "scan.zarr"])
def test_a_stack_is_opened_again_by_its_path(files, name, monkeypatch):
    with open_frames(name) as stack:
        packed = pickle.dumps(stack)
        part = pickle.loads(pickle.dumps(stack.part(slice(3, 7))))
        expected = stack[:]
    monkeypatch.chdir("/")  # as a worker may be anywhere
    with pickle.loads(packed) as again:
        assert again.path == stack.path
        np.testing.assert_array_equal(again[5:9], expected[5:9])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(again))[5], expected[5])
    np.testing.assert_array_equal(part[:], expected[3:7])
    with pytest.raises(InputError, match="closed"):
        pickle.dumps(stack)


def test_a_scan_brings_its_flats_and_darks(tmp_path):
    frames = np.arange(10 * 3 * 4, dtype="f4").reshape(10, 3, 4)
    key = np.array([2, 2, 1, 0, 0, 1, 0, 0, 0, 3])
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["entry/data/data"] = frames
        file["entry/data/image_key"] = key
        file["entry/sample/rotation_angle"] = np.arange(10.0)
    with open_frames(tmp_path / "scan.nxs") as stack:
        again = pickle.loads(pickle.dumps(stack))
        flats = pickle.loads(pickle.dumps(stack.flats))
    np.testing.assert_array_equal(again[:], frames[key == 0])
    np.testing.assert_array_equal(again.part(slice(1, 3)).angles, [4, 6])
    np.testing.assert_array_equal(again.darks[:], frames[key == 2])
    np.testing.assert_array_equal(flats[:], frames[key == 1])
    assert again.layout == "nxtomo"
    flats.close()
    again.close()


def test_what_became_of_the_file_is_told(files):
    with open_frames("scan.h5") as stack:
        packed = pickle.dumps(stack)
    with h5py.File("scan.h5", "w") as file:
        file["data"] = np.zeros((3, 4, 5))
    with pytest.raises(DamagedFileError, match="has changed"):
        pickle.loads(packed)[0]
    Path("scan.h5").unlink()
    with pytest.raises(MissingFileError, match="storage that all machines share"):
        pickle.loads(packed)[0]


@pytest.mark.parametrize(("name", "step"), [("scan.h5", 1), ("scan.zarr", 16)])
def test_blocks_are_whole_chunks_and_read_nothing(files, name, step, monkeypatch):
    with open_frames(name) as stack:
        assert stack.step == step
        expected = stack[:]
        reader = stack._reader
        with monkeypatch.context() as patch:
            patch.setattr(type(reader), "fill", lambda *_: pytest.fail("reads the file"))
            array = spread(stack, step=8, batch_size=20)
        assert array.chunks[1:] == ((128,), (256,))
        assert set(array.chunks[0][:-1]) == {32 if step == 16 else 24}
        np.testing.assert_array_equal(array.compute(scheduler="threads"), expected)
        assert spread(stack).name != spread(stack).name


@pytest.mark.parametrize("output", ["out.h5", "out.zarr"])
def test_parts_are_carried_to_their_place(files, output):
    """Without a cluster, by Dask's threads: what is missing does not begin with frame 0."""
    correction = Correction(np.full(SHAPE, 0.5), np.full(SHAPE, 90.0))
    with open_frames("scan.h5") as scan:
        expected = correction.transform(scan[:])
        with resume_frames(output, scan.shape, "float32", source=scan, settings={}) as out:
            for start in (24, 0):
                run = slice(start, 64 if start else 24)
                correction.transform(spread(scan.part(run), step=8, batch_size=8), out=out.part(run))
            assert out.missing() == []
    np.testing.assert_array_equal(data(output), expected)


@pytest.mark.parametrize("output", ["out.h5", "out.zarr"])
def test_a_late_worker_writes_nothing_into_another_job(files, output):
    with open_frames("scan.h5") as scan:
        job = {"source": scan, "settings": {}}
        frame = np.ones((8, *SHAPE), "float32")
        with pytest.raises(KeyboardInterrupt), resume_frames(output, scan.shape, "float32", **job) as out:
            out[0:8] = frame
            carrier = pickle.loads(pickle.dumps(out.carrier()))
            raise KeyboardInterrupt
        carrier(8, frame)  # the same job, stopped: harmless
        with resume_frames(output, scan.shape, "float32", overwrite=True, **job) as out:
            with pytest.raises(WriteError, match="no longer"):
                carrier(8, frame)
            out[:] = np.zeros(scan.shape, "float32")
        with pytest.raises(WriteError, match="no longer"):
            carrier(8, frame)
    assert not [item for item in files.iterdir() if ".part" in item.name]


def test_errors_travel():
    kinds = [kind for kind in vars(_errors).values() if isinstance(kind, type)]
    for kind in (kind for kind in kinds if issubclass(kind, DetectorcalError)):
        error = kind("`x.h5` is bad.")
        error.add_note("It holds 3 frames.")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == "`x.h5` is bad."
        assert again.__notes__ == error.__notes__
    full = WriteError("`x.h5` is full.")
    full.errno = 28
    assert pickle.loads(pickle.dumps(full)).errno == 28


# ---------------------------------------------------------------- two worker processes


def test_fit_equals_numpy(files, cluster):
    with open_frames("sweep.h5") as sweep, open_frames("darks.zarr") as darks:
        one = DetectorCalibrator(sigma=8).fit(sweep, dark=100)
        two = DetectorCalibrator(sigma=8).fit(spread(sweep, batch_size=8), dark=100)
        np.testing.assert_allclose(two.coef_, one.coef_, rtol=1e-7)
        each = DetectorCalibrator(sigma=8).fit(sweep[:], dark=darks[:], dark_per_frame=True)
        both = spread(sweep, batch_size=8), spread(darks, batch_size=16)
        two = DetectorCalibrator(sigma=8).fit(both[0], dark=both[1], dark_per_frame=True)
        np.testing.assert_allclose(two.coef_, each.coef_, rtol=1e-7)


def slowly(block: np.ndarray, folder: str) -> np.ndarray:
    (Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(0.2)
    return block


def kill_one_in_the_middle(client, work, seen: Path):
    """Kill the process of a worker once some blocks were computed."""
    import threading

    pids = set(client.run(os.getpid).values())

    def kill() -> None:
        wait_for(lambda: len(list(seen.iterdir())) >= 4)
        os.kill(min(pids), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = work()
    killer.join()
    assert min(pids) not in client.run(os.getpid).values()
    return result


def slow(stack, seen: Path):
    seen.mkdir()
    blocks = spread(stack, step=8, batch_size=8)
    return dask.array.map_blocks(slowly, blocks, str(seen), dtype=blocks.dtype, meta=blocks._meta)


@pytest.mark.slow
def test_fit_survives_the_death_of_a_worker(files, cluster):
    with open_frames("sweep.h5") as sweep:
        one = DetectorCalibrator(sigma=8).fit(sweep, dark=100)
        array = slow(sweep, files / "seen")
        two = kill_one_in_the_middle(
            cluster, lambda: DetectorCalibrator(sigma=8).fit(array, dark=100), files / "seen"
        )
    np.testing.assert_allclose(two.coef_, one.coef_, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.h5", "out.zarr"])
def test_correct_survives_the_death_of_a_worker(files, cluster, output):
    correction = Correction(np.linspace(0.5, 1.5, 128 * 256).reshape(SHAPE), np.full(SHAPE, 90.0))
    with open_frames("scan.h5") as scan:
        array = slow(scan, files / "seen")
        with resume_frames(output, scan.shape, "float32", source=scan, settings={}) as out:
            kill_one_in_the_middle(cluster, lambda: correction.transform(array, out=out), files / "seen")
    np.testing.assert_array_equal(data(output), correction.transform(data("scan.h5")))


# ---------------------------------------------------------------- the command line


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_command_line_on_a_cluster(files, scheduler, suffix):
    there = ("--scheduler", scheduler[0], "--batch-size", "8")
    for name, more in (("here", ()), ("there", there)):
        words = (f"sweep{suffix}", "--dark", f"darks{suffix}", "--dark-per-frame", "-o", f"{name}_cal.h5")
        done = shell("fit", *words, *more)
        assert (done.returncode, done.stderr) == (0, "")
        assert "64 frames" in done.stdout
        words = (f"scan{suffix}", "-c", "here_cal.h5", "--flat", "sweep.h5", "--dark", "90", "--reject", "9")
        done = shell("correct", *words, "-o", f"{name}{suffix}", *more)
        assert (done.returncode, done.stderr) == (0, "")
    coefs = [DetectorCalibrator.load(f"{name}_cal.h5").coef_ for name in ("here", "there")]
    np.testing.assert_allclose(coefs[1], coefs[0], rtol=1e-7)
    np.testing.assert_array_equal(data(f"there{suffix}"), data(f"here{suffix}"))
    assert not [item for item in files.iterdir() if ".part" in item.name]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.h5", "out.zarr"])
def test_interrupted_on_a_cluster_and_resumed(files, scheduler, output):
    address, workers = scheduler
    run("fit", "sweep.h5", "--dark", 100, "-o", "cal.h5")
    words = ("correct", "scan.h5", "-c", "cal.h5", "--batch-size", "8")
    run(*words, "-o", f"whole_{output}")
    words = (*words, "--scheduler", address, "-o", output)
    child = (
        "import signal, sys\nfrom detectorcal import cli\nfrom detectorcal.io import _partial\n"
        # a shell that runs the tests in the background has it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "_partial.SYNC_SECONDS = 0\ncli.main(sys.argv[1:])\n"
    )
    journal = Path(f"{output}.partial.json")

    def some_are_done() -> bool:
        return journal.exists() and journal.read_bytes().count(b"\n") >= 3

    for _ in range(12):
        workers[1].send_signal(signal.SIGSTOP)  # it takes some blocks and never returns them
        process = subprocess.Popen([sys.executable, "-c", child, *words], stderr=subprocess.PIPE, text=True)
        try:
            if comes_true(some_are_done, PATIENCE / 10):
                process.send_signal(signal.SIGINT)
            else:  # it took what all blocks need: begin anew
                process.kill()
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            workers[1].send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if process.returncode == 130:
            break
        for item in files.glob(f"*{output}.partial*"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    assert process.returncode == 130
    assert err.strip().startswith(f"detectorcal: interrupted; `{output}.partial` holds ")
    assert err.strip().count("\n") == 0
    n_done = int(err.split(" of 64 frames")[0].rsplit(" ", 1)[1])
    assert 0 < n_done < 64
    done = shell(*words, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"going on, {n_done} of 64 frames are done" in done.stdout
    np.testing.assert_array_equal(data(output), data(f"whole_{output}"))
    assert not [item for item in files.iterdir() if ".part" in item.name]


@pytest.mark.slow
def test_errors_of_workers_take_one_line(files, scheduler):
    with h5py.File("cut.h5", "w", libver="latest") as file:
        file.create_dataset("data", data=data("scan.h5"), chunks=(8, *SHAPE), compression="gzip")
        offset = file["data"].id.get_chunk_info(5).byte_offset
    with Path("cut.h5").open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\0" * 1000)
    run("fit", "sweep.h5", "--dark", 100, "-o", "cal.h5")
    there = ("--scheduler", scheduler[0], "--batch-size", "8")
    done = shell("fit", "cut.h5", "-o", "no.h5", *there)
    assert done.returncode == 2
    assert "is damaged in frames 40 to 47" in done.stderr
    assert done.stderr.count("\n") == 1
    done = shell("correct", "cut.h5", "-c", "cal.h5", "-o", "out.h5", *there)
    assert done.returncode == 2
    assert "is damaged in frames 40 to 47" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_cluster_of_this_machine(files):
    done = shell("fit", "sweep.h5", "--dark", "100", "-o", "cal.h5", "--scheduler", "local")
    assert (done.returncode, done.stderr) == (0, "")
    run("fit", "sweep.h5", "--dark", 100, "-o", "here.h5")
    coefs = [DetectorCalibrator.load(name).coef_ for name in ("cal.h5", "here.h5")]
    np.testing.assert_allclose(coefs[1], coefs[0], rtol=1e-7)


def test_a_scheduler_that_does_not_answer(monkeypatch):
    from detectorcal import _cluster

    monkeypatch.setattr(_cluster, "PATIENCE", 0.5)
    with (
        pytest.raises(ClusterError, match=r"`tcp://127\.0\.0\.1:9` did not answer"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass


def test_no_distributed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingDependencyError, match=r"detectorcal\[dask\]"),
        connected("tcp://127.0.0.1:9"),
    ):
        pass
    with connected(None):  # without a scheduler it is not needed
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit sweep.npy -o x.h5", "`sweep.npy`"),
        ("fit sweep.h5 --dark sweep.npy --dark-per-frame -o x.h5", "`sweep.npy`"),
        ("correct sweep.npy -c cal.h5 -o x.h5", "`sweep.npy`"),
        ("correct scan.h5 -c cal.h5 -o x.tif", "`x.tif`"),
    ],
)
def test_files_that_workers_cannot_share(files, words, said, capsys):
    np.save("sweep.npy", data("sweep.h5"))
    DetectorCalibrator(sigma=8).fit(data("sweep.h5"), dark=100).save("cal.h5")
    run(*words.split(), "--scheduler", "tcp://127.0.0.1:9", code=2)
    err = capsys.readouterr().err
    assert said in err
    assert "leave out `--scheduler`" in err
    assert "answer" not in err  # before any cluster is looked for
