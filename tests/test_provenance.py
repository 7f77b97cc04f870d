"""Every file says what made it, to those who open it with the library of its format alone too."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import detectorcal
from detectorcal import DetectorCalibrator, _provenance, correct_image, fit_response
from detectorcal._errors import DamagedFileError, FileFormatError
from detectorcal._persistence import read_checksum
from detectorcal.cli import main
from detectorcal.io import create_frames, read_attributes

SHAPE = (8, 10)
OUTPUTS = ["out.h5", "out.nxs", "out.zarr", "out.tif"]
EPOCH = "1561593600"
"""2019-06-27, when the method was published."""


def run(*words: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert (stop.value.code or 0) == code


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    rng = np.random.default_rng(5)
    levels = np.linspace(200, 3000, 9)[:, None, None]
    frames = (100 + rng.normal(1, 0.03, SHAPE) * levels).astype(np.uint16)
    tifffile.imwrite("sweep.tif", frames, photometric="minisblack")
    np.save("flat.npy", frames[-2:])
    with create_frames("scan.nxs", (5, *SHAPE), "uint16", layout="nxtomo") as out:
        out[:] = frames[:5]
    run("fit", "sweep.tif", "--dark", "100", "--sigma", "2", "-o", "cal.h5")
    return tmp_path


def correct(output: str, *more: str) -> None:
    run("correct", "scan.nxs", "-c", "cal.h5", "--flat", "flat.npy", "--reject", "6", "-o", output, *more)


def record(path: str) -> dict:
    """Read the record without detectorcal."""
    if path.endswith(".zarr"):
        return zarr.open(path, mode="r").attrs["provenance"]
    if path.endswith(".tif"):
        with tifffile.TiffFile(path) as file:
            return json.loads(file.pages[0].description)["provenance"]
    with h5py.File(path) as file:
        return json.loads(file["entry/instrument/detector/data"].attrs["provenance"])


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize("output", OUTPUTS)
def test_corrected_frames_say_what_made_them(files, output):
    correct(output)
    told = record(output)
    assert told["detectorcal"] == detectorcal.__version__
    assert told["numpy"] == np.__version__
    assert told["time"] == "2019-06-27T00:00:00+00:00"
    assert told["parameters"].items() >= {"sigma": None, "flat_has_dark": True, "reject": 6.0}.items()
    image, flat = told["inputs"]["image"], told["inputs"]["flat"]
    with h5py.File("scan.nxs") as file:
        assert image["sha256"] == sha256(file["entry/data/data"][...])
    assert image["sha256_of"] == "all frames"
    assert image["shape"] == [5, *SHAPE]
    assert image["bytes"] == os.path.getsize("scan.nxs")  # noqa: PTH202
    assert Path(image["path"]) == files / "scan.nxs"
    assert flat["sha256"] == sha256(np.load("flat.npy"))
    assert "dark" not in told["inputs"]
    calibration = told["calibration"]
    with h5py.File("cal.h5") as file:
        header = json.loads(file.attrs["detectorcal"])
    assert calibration["sha256"] == header["sha256"]
    assert calibration["provenance"] == header["provenance"]
    sweep = header["provenance"]["inputs"]["sweep"]
    assert sweep["sha256"] == sha256(tifffile.imread("sweep.tif"))
    assert header["provenance"]["inputs"]["dark"] == 100.0


@pytest.mark.parametrize("output", OUTPUTS)
def test_inspect_tells_the_history_of_corrected_frames(files, output, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    correct(output)
    capsys.readouterr()
    run("inspect", output)
    out = capsys.readouterr().out
    told = record(output)
    for word in ("scan.nxs", "flat.npy", "sweep.tif", "cal.h5", "method croton", "reject 6.0", "2019-06-27",
                 told["inputs"]["image"]["sha256"][:12], told["calibration"]["sha256"][:12]):  # fmt: skip
        assert word in out


def test_inspect_refuses_what_has_no_history(files, capsys):
    run("inspect", "sweep.tif", code=2)
    assert "not a detectorcal calibration" in capsys.readouterr().err
    run("inspect", "nothing.h5", code=2)
    assert "nothing.h5" in capsys.readouterr().err


@pytest.mark.parametrize("output", [*OUTPUTS, "cal.h5", "cal.tif", "cal.zarr"])
def test_files_can_be_made_again_to_the_byte(files, output):
    def make(name: str) -> dict[str, bytes]:
        if output.startswith("cal"):
            run("fit", "sweep.tif", "--dark", "100", "--sigma", "2", "-o", output, "--overwrite")
        else:
            correct(output, "--overwrite")
        path = Path(output)
        parts = [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]
        return {str(p): p.read_bytes() for p in parts}

    assert make("one") == make("other")


def test_of_large_stacks_three_frames_are_hashed(files, monkeypatch):
    monkeypatch.setattr(_provenance, "WHOLE_BYTES", 100)
    correct("out.h5")
    image = record("out.h5")["inputs"]["image"]
    assert image["sha256_of"] == "frames 0, 2, 4"
    with h5py.File("scan.nxs") as file:
        assert image["sha256"] == sha256(file["entry/data/data"][::2])


def test_a_calibration_has_one_checksum_in_all_formats(files):
    cal = DetectorCalibrator.load("cal.h5")
    found = {read_checksum("cal.h5")}
    for name in ("other.h5", "other.tif", "other.zarr"):
        cal.save(name)
        found.add(read_checksum(name))
    assert len(found) == 1
    with pytest.raises(FileFormatError):
        read_checksum("sweep.tif")
    os.truncate("other.h5", 3000)
    with pytest.raises(DamagedFileError):
        read_checksum("other.h5")


@pytest.mark.parametrize("name", ["map.h5", "map.zarr", "map.tif"])
def test_drop_in_functions_say_what_made_their_files(tmp_path, name):
    sweep = np.random.default_rng(1).normal(1000, 10, (4, *SHAPE))
    coef = fit_response(sweep, save_path=tmp_path / name)
    told = read_attributes(tmp_path / name)["provenance"]
    assert told["parameters"]["function"] == "fit_response"
    assert told["parameters"]["sigma"] == 50.0
    correct_image(sweep, coef, save_path=tmp_path / f"images_{name}")
    told = read_attributes(tmp_path / f"images_{name}")["provenance"]
    assert told["parameters"]["function"] == "correct_image"


@pytest.mark.parametrize("name", ["a.h5", "a.nxs", "a.zarr", "a.tif"])
def test_attributes_come_back(tmp_path, name):
    told = {"text": "Größe", "number": 1.5, "list": [1, "x"], "nested": {"a": [None, True]}}
    with create_frames(tmp_path / name, (1, *SHAPE), "uint16", attributes=told) as out:
        out[:] = np.zeros((1, *SHAPE), np.uint16)
    assert read_attributes(tmp_path / name) == told


def test_files_of_others_have_no_history(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, *SHAPE), "u2"), photometric="minisblack", description="{not"
    )
    np.save(tmp_path / "a.npy", np.zeros((3, *SHAPE)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((3, *SHAPE))
        file["data"].attrs["provenance"] = "by hand"
        file["data"].attrs["broken"] = "{"
    for name in ("a.tif", "a.npy", "a.h5"):
        assert _provenance.read_history(tmp_path / name) is None
    assert read_attributes(tmp_path / "a.h5") == {"provenance": "by hand", "broken": "{"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "image", "calibration", "provenance", "parameters", "shape", "sha256", "time"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.dictionaries(st.sampled_from(["inputs", "calibration", "parameters", "time"]), json_values))
def test_any_record_of_a_stranger_is_shown(history):
    rows = list(_provenance.describe(history))
    assert all(isinstance(name, str) and isinstance(text, str) for name, text in rows)
    assert ("time" in history) == any(name == "time" for name, _ in rows)
