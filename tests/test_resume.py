"""A correction that is stopped goes on where it was, and gives what an unstopped one gives."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectorcal import Correction, DetectorCalibrator
from detectorcal.cli import main
from detectorcal.io import _partial, open_frames, resume_frames
from detectorcal.io._stack import FrameStack
from detectorcal.io._writer import RawSink
from detectorcal.io.zarr import ZarrSink

SHAPE = (128, 256)
N_FRAMES = 64
"""A zarr chunk takes 8 of these frames."""
OUTPUTS = ["out.h5", "out.nxs", "out.zarr"]
"""Plain, in NXtomo layout (the input's), and in files of chunks."""


@pytest.fixture(scope="module")
def calibration() -> DetectorCalibrator:
    rng = np.random.default_rng(3)
    response = rng.normal(1, 0.02, SHAPE)
    sweep = (100 + response * np.linspace(200, 3000, 8)[:, None, None]).astype(np.uint16)
    return DetectorCalibrator(sigma=8).fit(sweep, dark=100)


@pytest.fixture
def files(calibration, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    calibration.save("cal.h5")
    rng = np.random.default_rng(4)
    frames = rng.integers(100, 4000, (N_FRAMES, *SHAPE), dtype=np.uint16)
    with h5py.File("plain.h5", "w") as file:
        file["data"] = frames
    keys = np.zeros(N_FRAMES + 8, int)
    keys[:4], keys[30:34] = 2, 1  # so that the projections are two runs
    everything = np.full((len(keys), *SHAPE), 100, np.uint16)
    everything[keys == 1] = 4000
    everything[keys == 0] = frames
    with h5py.File("scan.nxs", "w") as file:
        file["entry/data/data"] = everything
        file["entry/instrument/detector/image_key"] = keys
        file["entry/sample/rotation_angle"] = np.arange(float(len(keys)))
    return tmp_path


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def command(output: str) -> list[str]:
    scan = "scan.nxs" if output.endswith(".nxs") else "plain.h5"
    return ["correct", scan, "-c", "cal.h5", "--batch-size", "8", "-o", output]


def data(path: str) -> np.ndarray:
    with open_frames(path) as stack:
        return stack[:]


def unstopped(output: str) -> np.ndarray:
    run(*command(f"whole_{output}"))
    return data(f"whole_{output}")


class Reads:
    """Note which frames are read, and stop before one of them."""

    def __init__(self, monkeypatch, stop: BaseException | None = None, at: int = N_FRAMES) -> None:
        self.frames: list[int] = []
        real = FrameStack.__getitem__
        parts: dict[int, int] = {}
        part = FrameStack.part

        def numbered(stack, run, **options):
            found = part(stack, run, **options)
            parts[id(found)] = run.start
            self.kept = found
            return found

        def read(stack, index):
            if id(stack) in parts:
                first = parts[id(stack)]
                chosen = [first + i for i in range(len(stack))[index]]
                if stop is not None and chosen[-1] >= at:
                    raise stop
                self.frames += chosen
            return real(stack, index)

        monkeypatch.setattr(FrameStack, "part", numbered)
        monkeypatch.setattr(FrameStack, "__getitem__", read)


def partials(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if ".part" in item.name)


def stop_at(monkeypatch, output: str, stop: BaseException, at: int = 40, code: int = 2, *more: str) -> None:
    with monkeypatch.context() as patch:
        Reads(patch, stop, at)
        run(*command(output), *more, code=code)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("output", OUTPUTS)
def test_interrupted_and_resumed(files, output, capsys, monkeypatch):
    expected = unstopped(output)
    stop_at(monkeypatch, output, KeyboardInterrupt(), code=130)
    said = capsys.readouterr().err.strip()
    assert said == f"detectorcal: interrupted; `{output}.partial` holds 40 of 64 frames, go on with --resume."
    assert partials(files) == [f"{output}.partial", f"{output}.partial.json"]
    assert not Path(output).exists()
    if not output.endswith("zarr"):
        with h5py.File(f"{output}.partial") as file:  # sound at any time
            assert file["entry/data/data" if output.endswith("nxs") else "data"].shape == (64, *SHAPE)
    reads = Reads(monkeypatch)
    run(*command(output), "--resume")
    assert reads.frames == list(range(40, 64))
    assert "going on, 40 of 64 frames are done" in capsys.readouterr().out
    np.testing.assert_array_equal(data(output), expected)
    assert partials(files) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_and_resumed(files, output, monkeypatch):
    """A child that pauses after 40 frames is killed as a computer's end would kill it."""
    expected = unstopped(output)
    child = (
        "import os, sys, time\n"
        "from detectorcal import cli\n"
        "from detectorcal.io import FrameStack, _partial\n"
        "_partial.SYNC_SECONDS = 0\n"
        "real, n = FrameStack.__getitem__, 0\n"
        "def read(stack, index):\n"
        "    global n\n"
        f"    n += len(stack) == 64 and os.path.exists({output + '.partial.json'!r})\n"
        "    if n > 6: time.sleep(60)\n"
        "    return real(stack, index)\n"
        "FrameStack.__getitem__ = read\n"
        "cli.main(sys.argv[1:])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", child, *command(output)])
    journal = Path(f"{output}.partial.json")
    try:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Path(output).exists()
    done = np.zeros(64, bool)
    for line in journal.read_text().splitlines()[1:]:
        done[slice(*json.loads(line))] = True
    assert 24 <= done.sum() < 64
    reads = Reads(monkeypatch)
    run(*command(output), "--resume")
    assert reads.frames == np.flatnonzero(~done).tolist()
    np.testing.assert_array_equal(data(output), expected)
    assert partials(files) == []


def test_stopped_twice(files, monkeypatch):
    expected = unstopped("out.h5")
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), 24, 130)
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), 48, 130, "--resume")
    run(*command("out.h5"), "--resume")
    np.testing.assert_array_equal(data("out.h5"), expected)


@pytest.mark.parametrize("output", OUTPUTS)
def test_done_frames_need_not_be_neighbours(files, output, monkeypatch):
    """As a cluster leaves them."""
    expected = unstopped(output)
    stop_at(monkeypatch, output, KeyboardInterrupt(), 56, 130)
    journal = Path(f"{output}.partial.json")
    header = journal.read_text().splitlines()[0]
    journal.write_text(f"{header}\n[8, 16]\n[32, 56]\n")
    if output == "out.zarr":  # what was not done may be torn
        (Path("out.zarr.partial") / "c" / "0" / "0" / "0").write_bytes(b"torn")
    reads = Reads(monkeypatch)
    run(*command(output), "--resume")
    assert reads.frames == [*range(8), *range(16, 32), *range(56, 64)]
    np.testing.assert_array_equal(data(output), expected)


def test_progress_goes_on_at_the_right_number(files, capsys, monkeypatch):
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), code=130)
    capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    run(*command("out.h5"), "--resume")
    err = capsys.readouterr().err
    assert "64/64" in err
    assert " 0/64" not in err


@pytest.mark.parametrize("tail", [b"[40, 4", b"\0\0\0\n", b"{", b"[64\n[0, 64]\n"])
def test_torn_journal_line_is_ignored(files, tail, monkeypatch):
    expected = unstopped("out.h5")
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), code=130)
    with Path("out.h5.partial.json").open("ab") as file:
        file.write(tail)
    reads = Reads(monkeypatch)
    run(*command("out.h5"), "--resume")
    assert reads.frames == list(range(40, 64))
    np.testing.assert_array_equal(data("out.h5"), expected)


def test_only_whole_chunks_of_a_store_count(files, monkeypatch):
    with pytest.raises(KeyboardInterrupt), writer("out.zarr") as out:
        out[0:12] = np.ones((12, *SHAPE), "float32")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), writer("out.zarr", resume=True) as out:
        assert out.missing() == [slice(8, 64)]
        raise KeyboardInterrupt


def test_nothing_is_noted_before_it_is_synced(files, monkeypatch):
    monkeypatch.setattr(_partial, "SYNC_SECONDS", 0)
    events: list[str] = []
    for name in ("sync", "note"):
        kind = RawSink if name == "sync" else _partial.Journal
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *a, r=real, n=name: (events.append(n), r(*a)))
    run(*command("out.h5"))
    assert events == ["sync", "note"] * 8


# ---------------------------------------------------------------- refusals


def writer(path: str, **options):
    source = open_frames("plain.h5")
    return resume_frames(
        path, (N_FRAMES, *SHAPE), "float32", source=source, settings={"dark": "1"}, **options
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("calibration", "calibration or flat"),
        ("flat", "calibration or flat"),
        ("dark", "dark"),
        ("reject", "`--reject`"),
        ("defects", "`--defects`, pixels with defects"),
        ("invalid", "`--invalid`"),
        ("log", "calibration or flat, `--log`"),
        ("input", "input"),
    ],
)
def test_another_job_is_refused(files, calibration, change, said, capsys, monkeypatch):
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), code=130)
    capsys.readouterr()
    before = Path("out.h5.partial.json").read_bytes()
    more = {
        "flat": ["--flat", "plain.h5"],
        "dark": ["--dark", "90"],
        "reject": ["--reject", "9"],
        "defects": ["--defects", "interpolate"],
        "invalid": ["--invalid", "0.5"],
        "log": ["--log", "--flat", "plain.h5"],
    }.get(change, [])
    if change == "calibration":
        DetectorCalibrator(sigma=5).fit(np.ones((2, *SHAPE)) + np.eye(*SHAPE), dark=100 / 1000).save(
            "cal.h5", overwrite=True
        )
    if change == "input":
        os.utime("plain.h5", ns=(0, 0))
    run(*command("out.h5"), *more, "--resume", code=2)
    err = capsys.readouterr().err.splitlines()[-1]
    assert "`--resume`: `out.h5.partial` was begun by another job; not the same: " in err
    assert f"{said}. Give" in err or f"{said}, dark. Give" in err
    assert Path("out.h5.partial.json").read_bytes() == before
    run(*command("out.h5"), *more, "--overwrite")
    assert partials(files) == []


def test_a_partial_output_is_not_started_again_unasked(files, capsys, monkeypatch):
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), code=130)
    before = Path("out.h5.partial").read_bytes()
    capsys.readouterr()
    run(*command("out.h5"), code=2)
    err = capsys.readouterr().err
    assert "--resume" in err
    assert "--overwrite" in err
    assert Path("out.h5.partial").read_bytes() == before
    reads = Reads(monkeypatch)
    run(*command("out.h5"), "--overwrite")
    assert reads.frames == list(range(64))


def test_resume_with_nothing_to_resume_starts(files, capsys):
    run(*command("out.h5"), "--resume")
    assert "nothing to resume" in capsys.readouterr().out
    assert data("out.h5").shape == (64, *SHAPE)
    run(*command("out.h5"), "--resume", code=2)
    assert "exists already" in capsys.readouterr().err


def test_a_partial_output_without_journal_is_not_touched(files, capsys):
    Path("out.h5.partial").write_text("somebody else's")
    run(*command("out.h5"), "--resume", code=2)
    assert "no journal" in capsys.readouterr().err
    assert partials(files) == ["out.h5.partial"]
    assert Path("out.h5.partial").read_text() == "somebody else's"
    Path("out.h5.partial.json").write_text('{"theirs": 1}')
    run(*command("out.h5"), "--resume", code=2)
    assert Path("out.h5.partial.json").read_text() == '{"theirs": 1}'


@pytest.mark.parametrize("output", ["out.tif", "out.npy"])
def test_formats_that_cannot_be_resumed(files, output, capsys):
    run(*command(output), "--resume", code=2)
    err = capsys.readouterr().err
    assert "--resume" in err
    assert ".h5 or .zarr" in err
    run(*command(output))
    with pytest.raises(ValueError, match="HDF5 and zarr"), writer(output):
        pass


def test_a_second_process_is_refused(files, capsys):
    with writer("out.h5") as out:
        out[0:8] = np.ones((8, *SHAPE), "float32")
        for more in ("--resume", "--overwrite"):
            child = [sys.executable, "-m", "detectorcal", *command("out.h5"), more]
            second = subprocess.run(child, capture_output=True, text=True, check=False, timeout=60)
            assert second.returncode == 2
            assert "`out.h5.partial` is being written by another process" in second.stderr.replace(
                f"{files}/", ""
            )
            assert second.stderr.count("\n") == 1
        out[8:64] = np.ones((56, *SHAPE), "float32")
    np.testing.assert_array_equal(data("out.h5"), 1)
    assert partials(files) == []


def test_a_damaged_partial_output_is_refused(files, capsys, monkeypatch):
    stop_at(monkeypatch, "out.h5", KeyboardInterrupt(), code=130)
    os.truncate("out.h5.partial", 1000)
    capsys.readouterr()
    run(*command("out.h5"), "--resume", code=2)
    assert "Start again" in capsys.readouterr().err


# ---------------------------------------------------------------- other stops


@pytest.mark.parametrize("output", OUTPUTS)
def test_full_disk_in_mid_write(files, output, capsys, monkeypatch):
    expected = unstopped(output)
    Path(f"whole_{output}").rename(output)
    kind = ZarrSink if output == "out.zarr" else RawSink
    real = kind.put

    def full(sink, start, frames):
        if start >= 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(sink, start, frames)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "put", full)
        run(*command(output), "--overwrite", code=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"`{output}.partial` could not be written (No space left on device). Free some space" in err
    assert f"`{output}.partial` holds 40 of 64 frames, go on with --resume." in err
    assert "kept" not in err
    np.testing.assert_array_equal(data(output), expected)
    run(*command(output), "--resume", code=2)  # the old output is still there
    assert "--overwrite" in capsys.readouterr().err
    reads = Reads(monkeypatch)
    run(*command(output), "--resume", "--overwrite")
    assert reads.frames == list(range(40, 64))
    np.testing.assert_array_equal(data(output), expected)
    assert partials(files) == []


@pytest.mark.parametrize("can_reserve", [True, False])
def test_a_disk_that_is_too_small_is_found_before_the_work(files, can_reserve, capsys, monkeypatch):
    from detectorcal import _files

    def fallocate(*_: object) -> bool:
        if can_reserve:
            raise OSError(errno.ENOSPC, "No space left on device")
        return False

    monkeypatch.setattr(_files, "_fallocate", fallocate)
    usage = _files.shutil.disk_usage(files)
    monkeypatch.setattr(_files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    reads = Reads(monkeypatch)
    run(*command("out.h5"), code=2)
    err = capsys.readouterr().err
    assert "`out.h5` could not be written (No space left on device)" in err
    assert "Nothing unfinished was kept" in err
    assert reads.frames == []
    assert partials(files) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fallocate is Linux's")
def test_space_is_reserved(files):
    with pytest.raises(KeyboardInterrupt), writer("out.h5") as out:
        assert Path("out.h5.partial").stat().st_blocks * 512 >= 64 * 128 * 256 * 4
        out[0] = np.zeros(SHAPE, "float32")
        raise KeyboardInterrupt


def test_damaged_input_keeps_what_is_done(files, capsys, monkeypatch):
    from detectorcal._errors import DamagedFileError

    stop_at(monkeypatch, "out.h5", DamagedFileError("`plain.h5` is damaged."))
    err = capsys.readouterr().err
    assert "`plain.h5` is damaged. `out.h5.partial` holds 40 of 64 frames" in err


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_stop_before_the_first_frame_leaves_nothing(files, output, capsys, monkeypatch):
    stop_at(monkeypatch, output, KeyboardInterrupt(), 0, 130)
    assert capsys.readouterr().err.strip() == "detectorcal: interrupted; nothing unfinished was kept."
    assert partials(files) == []


def test_python_writes_leave_no_partial(files, calibration):
    """Only the command line's outputs outlive a stop."""
    from detectorcal.io import create_frames

    correction: Correction = calibration.correction()
    with (
        pytest.raises(KeyboardInterrupt),
        open_frames("plain.h5") as scan,
        create_frames("out.h5", scan.shape, "float32") as out,
    ):
        correction.transform(scan.part(slice(0, 8)), out=out.part(slice(0, 8)))
        raise KeyboardInterrupt
    assert not [item for item in files.iterdir() if "out" in item.name]
