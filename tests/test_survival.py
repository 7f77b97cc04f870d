"""Files survive: kills, a disk that fills up, two readers and a writer at once."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from detectorcal import DetectorCalibrator
from detectorcal._errors import DamagedFileError
from detectorcal.cli import main
from detectorcal.io import create_frames, open_frames
from tests import kills

FORMATS = [".h5", ".tif", ".zarr"]


# ---------------------------------------------------------------- kills


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> kills.Scene:
    return kills.Scene(tmp_path_factory.mktemp("scene"))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(16))  # of every job two
def test_a_kill_leaves_the_old_or_the_new(scene, number):
    assert kills.kill_once(scene, number, seed=20190627)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "cal.h5").write_bytes(b"half"), "neither the old one nor the new one"),
        (lambda folder: (folder / "cal.h5").unlink(missing_ok=True), "is gone"),
        (lambda folder: (folder.parent / "sweep.h5").write_bytes(b""), "an input was changed"),
    ],
)
def test_what_a_kill_could_break_is_seen(tmp_path, change, said, monkeypatch):
    scene = kills.Scene(tmp_path)
    monkeypatch.setattr(kills.Scene, "reference", lambda *_: kills.Reference("whole", "old", 1.0, 5))
    monkeypatch.setattr(kills.random, "Random", lambda _: type("Rng", (), {"random": lambda self: 0.0})())
    monkeypatch.setattr(kills, "_kill", lambda scene, job, folder, *_: change(folder))
    monkeypatch.setattr(kills.Scene, "write_old", lambda *_: None)
    with pytest.raises(AssertionError, match=said):
        kills.kill_once(scene, 0, 0)


# ---------------------------------------------------------------- readers and a writer

READER = """
import json, sys, time
from detectorcal import DetectorCalibrator
from detectorcal.io import open_frames
calibration, corrected = sys.argv[1:]
def frames():
    while True:
        try:
            with open_frames(corrected) as stack:
                return stack[:]
        except OSError as error:
            assert "has been replaced" in str(error), error
print("go", flush=True)
stop, seen = time.monotonic() + 30, []
while len(set(seen)) < 4 and time.monotonic() < stop:
    for values in (DetectorCalibrator.load(calibration).coef_, frames()):
        assert (values == values.flat[0]).all(), values
    seen.append(float(values.flat[0]))
print(len(set(seen)))
"""
"""Reads again and again; whatever it gets must be of one piece."""


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])  # a file is replaced, and a folder
def test_two_readers_and_a_writer(tmp_path, suffix):
    calibration, corrected = (str(tmp_path / f"{name}{suffix}") for name in ("cal", "out"))
    cal = DetectorCalibrator(sigma=2).fit(np.full((2, 40, 50), 100.0))
    chunks = {"chunks": (1, 40, 50)} if suffix == ".zarr" else {}

    def write(value: float) -> None:
        # all alike, which no mixture of two would be
        cal.coef_ = np.full((40, 50), value)
        cal.save(calibration, overwrite=True)
        with create_frames(corrected, (4, 40, 50), "f4", overwrite=True, **chunks) as out:
            out[:] = np.full((4, 40, 50), value, "f4")

    write(1.0)
    command = [sys.executable, "-c", READER, calibration, corrected]
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    written = 0
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "go\n"
    while any(reader.poll() is None for reader in readers):
        written += 1
        write(1.0 + written)
    answers = [reader.communicate() for reader in readers]
    assert [error for _, error in answers] == ["", ""]
    assert [said for said, _ in answers] == ["4\n", "4\n"]
    assert written >= 3


def test_a_store_that_is_replaced_is_not_mixed_with_the_new_one(tmp_path):
    path = tmp_path / "a.zarr"
    for value in (1, 2):
        with create_frames(path, (4, 8, 9), "u2", overwrite=True, chunks=(1, 8, 9)) as out:
            out[:] = np.full((4, 8, 9), value, "u2")
        if value == 1:
            stack = open_frames(path)
            assert stack[0].max() == 1
    with pytest.raises(DamagedFileError, match=r"has been replaced since it was opened\. Open it again"):
        stack[1]
    stack.close()


# ---------------------------------------------------------------- a full disk


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(2)
    sweep = rng.normal(1, 0.02, (64, 64)) * np.linspace(200, 3000, 6)[:, None, None]
    DetectorCalibrator(sigma=3).fit(sweep).save(tmp_path / "cal.h5")
    frames = rng.integers(100, 3000, (60, 64, 64), dtype=np.uint16)
    for name, values in (("sweep.h5", sweep), ("scan.h5", frames)):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = values
    return tmp_path


@pytest.mark.parametrize("suffix", [".h5", ".nxs", ".zarr", ".tif", ".npy"])
def test_correct_to_a_disk_that_fills_up(small_disk, inputs, suffix, capsys):
    """The output takes 0.98 MB; of the disk 3.5 MB are taken, first, by something else."""
    output = small_disk / f"out{suffix}"
    filler = small_disk / "filler"
    command = ("correct", inputs / "scan.h5", "-c", inputs / "cal.h5", "-o", output, "--batch-size", 4, "-q")
    whole = inputs / f"whole{suffix}"
    run(*command[:5], whole, *command[6:])
    filler.write_bytes(bytes(7 * 2**19))
    run(*command, code=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert not output.exists()
    partial = [item.name for item in small_disk.iterdir() if item != filler]
    assert partial == [] or (suffix == ".zarr" and f"{output.name}.partial" in partial)
    filler.unlink()
    run(*command, *(["--resume"] if partial else []))
    with open_frames(output) as found, open_frames(whole) as wanted:
        np.testing.assert_array_equal(found[:], wanted[:])


@pytest.mark.parametrize("suffix", FORMATS)
def test_fit_to_a_disk_that_fills_up(small_disk, inputs, suffix, capsys):
    output = small_disk / f"cal{suffix}"
    command = ("fit", inputs / "sweep.h5", "--sigma", 3, "-o", output, "-q")
    run(*command)
    old = kills.digest(output)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 2**16))
    run(*command, "--sigma", 2, "--overwrite", code=2)
    assert "No space left on device" in capsys.readouterr().err
    assert kills.digest(output) == old
    assert {item.name for item in small_disk.iterdir()} == {output.name, "filler"}
    filler.unlink()
    run(*command, "--sigma", 2, "--overwrite")
    assert DetectorCalibrator.load(output).sigma == 2
