"""NXtomo and DXchange files as beamlines write them: found through their links, copied but for the frames."""

import json
import os
import pickle
import re
import shutil
import tracemalloc
from pathlib import Path
from uuid import uuid4

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectorcal import DetectorCalibrator
from detectorcal._errors import DamagedFileError, DetectorcalError, FileFormatError, MissingFileError
from detectorcal.cli import main
from detectorcal.io import _rest, create_frames, open_frames, read_attributes, resume_frames
from detectorcal.io._partial import identity

SHAPE = (5, 7)
KEY = np.array([2, 2, 1, 0, 0, 3, 0, 1, 0, 0, 1, 2])
"""Invalid frames and flats in mid-scan."""

PROJECTIONS = np.flatnonzero(KEY == 0)
FRAMES = np.random.default_rng(8).integers(0, 4096, (len(KEY), *SHAPE), np.uint16)
ANGLES = 15.0 * np.arange(len(KEY))


def lay_out(file: h5py.File, entry: str = "entry", data: object = FRAMES) -> h5py.Group:
    """Write the least of an NXtomo entry; `data` may be a link."""
    group = file.require_group(entry)
    group["instrument/detector/data"] = data
    group["instrument/detector/image_key"] = KEY
    group["sample/rotation_angle"] = ANGLES
    return group


def check_scan(path: object) -> None:
    """Compare what is opened with what was written."""
    with open_frames(path) as scan:
        assert scan.layout == "nxtomo"
        np.testing.assert_array_equal(scan[:], FRAMES[PROJECTIONS])
        np.testing.assert_array_equal(scan.flats[:], FRAMES[KEY == 1])
        np.testing.assert_array_equal(scan.darks[:], FRAMES[KEY == 2])
        np.testing.assert_array_equal(scan.angles, ANGLES[PROJECTIONS])
        np.testing.assert_array_equal(scan.flats.frames, [2, 7, 10])  # when they were taken


def test_refused_without_an_image_key(tmp_path):
    """A scan with flats and darks among its projections would be corrected as if it were all projections."""
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        entry = lay_out(file)
        del entry["instrument/detector/image_key"]
        entry["definition"] = "NXtomo"
    named = tmp_path / "scan.nxs:/entry/instrument/detector/data"
    with pytest.raises(FileFormatError, match=r"no image_key.*scan\.nxs:/entry/instrument/detector/data`"):
        open_frames(tmp_path / "scan.nxs")
    with open_frames(named) as frames:
        np.testing.assert_array_equal(frames[:], FRAMES)


# --- found wherever they are


@pytest.mark.parametrize("entry", ["entry", "entry1/tomo_entry", "beamline/scan"])
@pytest.mark.parametrize(
    "place",
    ["instrument/detector/image_key", "data/image_key", "instrument/camera/keys/image_key",
     "instrument/detector/image_key_control"],
)  # fmt: skip
@pytest.mark.parametrize("link", ["hard", "soft", "external"])
def test_image_key_wherever_it_is(tmp_path, entry, place, link):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        group = lay_out(file, entry)
        del group["instrument/detector/image_key"]
        if link == "hard":
            group[place] = KEY
        elif link == "soft":
            file["elsewhere/key"] = KEY
            group[place] = h5py.SoftLink("/elsewhere/key")
        else:
            with h5py.File(tmp_path / "keys.h5", "w") as other:
                other["key"] = KEY
            group[place] = h5py.ExternalLink("keys.h5", "key")
    check_scan(tmp_path / "scan.nxs")


def test_alignment_images_are_projections(tmp_path):
    """ESRF tells them apart in image_key_control only, where image_key calls them projections."""
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        detector = lay_out(file)["instrument/detector"]
        del detector["image_key"]
        detector["image_key_control"] = np.where(np.arange(len(KEY)) == PROJECTIONS[-1], -1, KEY)
    check_scan(tmp_path / "scan.nxs")


@pytest.mark.parametrize(("units", "factor"), [("rad", np.pi / 180), ("radian", np.pi / 180), ("deg", 1)])
@pytest.mark.parametrize("per_projection", [False, True])
def test_angles_are_degrees(tmp_path, units, factor, per_projection):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        sample = lay_out(file)["sample"]
        del sample["rotation_angle"]
        sample["rotation_angle"] = factor * (ANGLES[PROJECTIONS] if per_projection else ANGLES)
        sample["rotation_angle"].attrs["units"] = np.bytes_(units) if per_projection else units
    with open_frames(tmp_path / "scan.nxs") as scan:
        np.testing.assert_allclose(scan.angles, ANGLES[PROJECTIONS], rtol=1e-14)


def write_data(folder: Path, kind: str) -> object:
    """Write the frames beside the scan; return what leads to them."""
    if kind == "external":
        with h5py.File(folder / "scan_data.h5", "w") as file:
            file["raw/frames"] = FRAMES
        return h5py.ExternalLink("scan_data.h5", "raw/frames")
    layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
    for number, frame in enumerate(FRAMES):
        with h5py.File(folder / f"frame_{number:02d}.h5", "w") as file:
            file["data"] = frame
        layout[number] = h5py.VirtualSource(f"frame_{number:02d}.h5", "data", SHAPE)
    with h5py.File(folder / "scan_data.h5", "w") as file:
        file.create_virtual_dataset("raw/frames", layout)
    return h5py.ExternalLink("scan_data.h5", "raw/frames")


@pytest.fixture(params=["external", "virtual", "raw file"])
def apart(request, tmp_path, monkeypatch):
    """A scan whose frames are in other files; read from another folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    with h5py.File(folder / "scan.nxs", "w") as file:
        if request.param == "raw file":
            (folder / "scan_data.h5").write_bytes(b"head" + FRAMES.tobytes())
            group = lay_out(file)
            del group["instrument/detector/data"]
            pieces = [
                ("scan_data.h5", 4, FRAMES.nbytes // 3),
                ("scan_data.h5", 4 + FRAMES.nbytes // 3, 2**63),
            ]
            pieces[1] = (*pieces[1][:2], FRAMES.nbytes - FRAMES.nbytes // 3)
            group.create_dataset("instrument/detector/data", FRAMES.shape, FRAMES.dtype, external=pieces)
        else:
            lay_out(file, data=write_data(folder, request.param))
        file["entry/data/data"] = h5py.SoftLink("/entry/instrument/detector/data")
    monkeypatch.chdir(tmp_path)
    return folder / "scan.nxs"


def test_frames_in_other_files(apart):
    check_scan(apart)
    with open_frames(apart) as scan:
        np.testing.assert_array_equal(
            scan.window(slice(1, 4), slice(0, 7, 3))[2:], FRAMES[PROJECTIONS][2:, 1:4, ::3]
        )
    with open_frames(f"{apart}:/entry/data/data") as everything:
        np.testing.assert_array_equal(everything[:], FRAMES)


def test_missing_files_are_named(apart):
    (apart.parent / "scan_data.h5").unlink()
    with pytest.raises(MissingFileError, match=r"scan\.nxs.*scan_data\.h5.*not there.*beside `scan\.nxs`"):
        open_frames(apart)
    with pytest.raises(MissingFileError, match=r"scan\.nxs.*scan_data\.h5"):
        open_frames(f"{apart}:/entry/data/data")


def test_flats_are_not_taken_for_projections_that_are_missing(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("gone.h5", "frames")
        file["exchange/data_white"] = FRAMES[:2]
    with pytest.raises(MissingFileError, match=r"scan\.h5:/exchange/data` links to `frames` in `gone\.h5`"):
        open_frames(tmp_path / "scan.h5")


def test_the_link_that_leads_nowhere_is_named(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        lay_out(file, "other", h5py.SoftLink("/camera/frames"))
        file["camera"] = h5py.ExternalLink("camera.h5", "run_3")
    with pytest.raises(
        MissingFileError, match=r"nxs:/other/instrument/detector/data` links to `run_3` in `camera"
    ):
        open_frames(tmp_path / "scan.nxs")


def test_damaged_other_files(apart):
    data = apart.parent / "scan_data.h5"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError):
        open_frames(apart)[:]


def test_missing_parts_of_a_virtual_dataset(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        lay_out(file, data=write_data(tmp_path, "virtual"))
    with h5py.File(tmp_path / "frame_03.h5", "w") as file:
        file["other"] = FRAMES[0]
    with pytest.raises(DamagedFileError, match=r"frame_03\.h5` holds no dataset `data`"):
        open_frames(tmp_path / "scan.nxs")
    (tmp_path / "frame_03.h5").unlink()
    with pytest.raises(MissingFileError, match=r"frame_03\.h5` is missing"):
        open_frames(tmp_path / "scan.nxs")


@pytest.mark.parametrize(("shape", "told"), [((3, *SHAPE), "Was the scan stopped"), ((84, 5), "(84, 5)")])
def test_parts_of_other_shapes(tmp_path, shape, told):
    """HDF5 reads zeros for what is not there, and crashes over other axes."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.create_dataset("data", shape, "u2")
    layout = h5py.VirtualLayout(FRAMES.shape, "u2")
    layout[2:] = h5py.VirtualSource("part.h5", "data", FRAMES.shape)[2:]
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(DamagedFileError, match=re.escape(told)):
        open_frames(tmp_path / "scan.nxs")


def test_virtual_dataset_made_of_itself(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        for name, other in (("one", "other"), ("other", "one")):
            layout = h5py.VirtualLayout(FRAMES.shape, "u2")
            layout[...] = h5py.VirtualSource(".", other, FRAMES.shape)
            file.create_virtual_dataset(name, layout)
    with pytest.raises(DamagedFileError, match="made of each other"):
        open_frames(f"{tmp_path / 'scan.nxs'}:/one")


def test_absurd_virtual_sizes_are_refused(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = FRAMES
    layout = h5py.VirtualLayout((2**40, 2**30, 2**30), "u2")
    layout[: len(FRAMES), :5, :7] = h5py.VirtualSource("part.h5", "data", FRAMES.shape)
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(DetectorcalError, match="declares"):
        open_frames(tmp_path / "scan.nxs")
    layout = h5py.VirtualLayout((2**10, 2**20, 2**20), "u2")
    layout[: len(FRAMES), :5, :7] = h5py.VirtualSource("part.h5", "data", FRAMES.shape)
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file.create_virtual_dataset("data", layout)
    with open_frames(tmp_path / "scan.nxs") as scan, pytest.raises(DetectorcalError, match="memory"):
        scan[0]


# --- copied through

MASK = np.arange(35, dtype=np.uint32).reshape(SHAPE)
NAMES = np.array([f"frame_{number}.edf" for number in range(len(KEY))], dtype=object)
PER_FRAME = {
    "sample/rotation_angle": ANGLES,
    "sample/x_translation": 1e-3 * np.arange(len(KEY)),
    "instrument/detector/image_key": KEY,
    "instrument/detector/image_key_control": np.where(KEY == 0, 0, KEY),
    "instrument/detector/count_time": np.full(len(KEY), 0.5, "f4"),
    "instrument/detector/spectra": np.arange(len(KEY) * 20_000.0).reshape(len(KEY), -1),
    "instrument/detector/small_frames": np.arange(len(KEY) * 6).reshape(-1, 2, 3),
    "control/data": 1e6 + np.arange(len(KEY)),
}
ALONE = {
    "title": "a scan",
    "start_time": "2026-05-01T12:00:00+02:00",
    "definition": "NXtomo",
    "sample/name": np.bytes_("bamboo"),
    "instrument/name": "I99",
    "instrument/source/probe": "x-ray",
    "instrument/detector/x_pixel_size": 1.1e-6,
    "instrument/detector/distance": np.float32(0.3),
    "instrument/detector/pixel_mask": MASK,
    "instrument/detector/flatfield_of_the_factory": np.arange(40_000.0),
    "user/name": "A. N. Other",
    "control/settings": np.array([(1, 2.5), (3, 4.5)], [("channel", "i4"), ("gain", "f8")]),
}


def full_scan(path: Path, entry: str = "entry") -> None:
    """Write a scan with what beamlines put into theirs."""
    with h5py.File(path, "w") as file:
        file.attrs["creator"] = "GDA"
        group = lay_out(file, entry)
        for name in ("instrument/detector/image_key", "sample/rotation_angle"):
            del group[name]
        for name, values in {**PER_FRAME, **ALONE}.items():
            group[name] = values
        detector = group["instrument/detector"]
        detector.create_dataset("filenames", data=NAMES, dtype=h5py.string_dtype())
        detector["data"].attrs["units"] = "counts"
        detector["data"].attrs["long_name"] = "frames"
        detector["packed"] = h5py.Empty("f4")
        detector.attrs.create("fixed", "µ".encode(), dtype=h5py.string_dtype("utf-8", 4))
        detector.attrs["list"] = ["one", "two"]
        detector.attrs["nothing"] = h5py.Empty("i2")
        detector.attrs["numbers"] = np.array([[1, 2], [3, 4]], ">i2")
        detector.attrs["leads"] = group["sample"].ref
        group["sample/rotation_angle"].attrs["units"] = "degree"
        group["sample"].attrs["NX_class"] = "NXsample"
        data = group.create_group("data")
        data["data"] = h5py.SoftLink(f"/{entry}/instrument/detector/data")
        data["rotation_angle"] = group["sample/rotation_angle"]
        data["image_key"] = h5py.SoftLink("../detector/image_key")  # as HDF5 has it, leads nowhere
        data.attrs["signal"] = "data"
        file["process/steps"] = np.arange(3)
        file["process/scan"] = h5py.SoftLink(f"/{entry}")
        file["process/up"] = file["process"]
        file["process/alias"] = h5py.SoftLink("steps")


def corrected(source: object, path: Path, part: object = None, **options: object) -> np.ndarray:
    """Write what a correction would; return it."""
    with open_frames(source) as scan:
        scan = scan if part is None else part(scan)
        frames = np.asarray(scan[:], np.float32) / 4096
        with create_frames(path, scan.shape, "float32", like=scan, **options) as out:
            out[:] = frames
    return frames


def check_equal(found: h5py.Dataset, wanted: object) -> None:
    """Compare a dataset with values, its type too."""
    expected = np.asarray(wanted)
    if expected.dtype.kind == "U" or expected.dtype == object:
        np.testing.assert_array_equal(found.asstr()[()], wanted)
    else:
        np.testing.assert_array_equal(found[()], expected)
        assert found.dtype == expected.dtype


def test_everything_is_copied_through(tmp_path):
    full_scan(tmp_path / "scan.nxs")
    frames = corrected(tmp_path / "scan.nxs", tmp_path / "out.nxs", attributes={"made": {"by": "us"}})
    with h5py.File(tmp_path / "out.nxs") as file, h5py.File(tmp_path / "scan.nxs") as raw:
        entry = file["entry"]
        for name, values in PER_FRAME.items():
            check_equal(entry[name], values[PROJECTIONS])
        for name, values in ALONE.items():
            check_equal(entry[name], values)
        detector = entry["instrument/detector"]
        check_equal(detector["filenames"], NAMES[PROJECTIONS])
        assert detector["packed"].shape is None
        for name in ("data/data", "instrument/detector/data"):
            check_equal(entry[name], frames)
        check_equal(entry["data/rotation_angle"], ANGLES[PROJECTIONS])
        np.testing.assert_array_equal(entry["data/image_key"], 0)
        check_equal(file["process/steps"], np.arange(3))
        assert file["process/scan"] == entry
        assert file["process/up"] == file["process"]
        assert file["process/alias"] == file["process/steps"]
        assert isinstance(file.get("process/scan", getlink=True), h5py.SoftLink)
        attributes = dict(detector.attrs)
        assert attributes.pop("NX_class") == "NXdetector"
        assert list(attributes) == ["fixed", "list", "nothing", "numbers"]  # no reference into the old file
        assert attributes["fixed"] == raw["entry/instrument/detector"].attrs["fixed"]
        for name in attributes:
            types = [node["entry/instrument/detector"].attrs.get_id(name).dtype for node in (file, raw)]
            assert types[0] == types[1]
        np.testing.assert_array_equal(attributes["numbers"], [[1, 2], [3, 4]])
        assert isinstance(attributes["nothing"], h5py.Empty)
        assert entry["sample/rotation_angle"].attrs["units"] == "degree"
        assert file.attrs["creator"] == "GDA"
        told = dict(detector["data"].attrs)
        assert told == {"long_name": "frames", "made": '{"by": "us"}'}  # counts they are no more
    assert read_attributes(tmp_path / "out.nxs")["made"] == {"by": "us"}
    assert (tmp_path / "out.nxs").stat().st_size < 1.1 * (tmp_path / "scan.nxs").stat().st_size


REQUIRED = {
    "entry": "NXentry",
    "entry/instrument": "NXinstrument",
    "entry/instrument/detector": "NXdetector",
    "entry/sample": "NXsample",
    "entry/data": "NXdata",
}
"""Groups that the definition of NXtomo (nexusformat.org) does not call optional."""


@pytest.mark.parametrize("make", [full_scan, lambda path: least_scan(path)])
def test_output_has_what_nxtomo_requires(tmp_path, make):
    make(tmp_path / "scan.nxs")
    corrected(tmp_path / "scan.nxs", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        for name, nexus in REQUIRED.items():
            assert file[name].attrs["NX_class"] == nexus
        entry, n_frames = file["entry"], len(PROJECTIONS)
        assert entry["definition"].asstr()[()] == "NXtomo"
        detector, data = entry["instrument/detector"], entry["data"]
        assert detector["data"].shape == (n_frames, *SHAPE)
        assert detector["image_key"].shape == entry["sample/rotation_angle"].shape == (n_frames,)
        assert detector["image_key"].dtype.kind in "iu"
        assert data["data"] == detector["data"]
        assert data["image_key"] == detector["image_key"]
        assert data["rotation_angle"] == entry["sample/rotation_angle"]
        assert data.attrs["signal"] == "data"
    with open_frames(tmp_path / "out.nxs") as again:
        np.testing.assert_array_equal(again.angles, ANGLES[PROJECTIONS])
        assert (again.flats, again.darks, again.layout) == (None, None, "nxtomo")


def least_scan(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = FRAMES
        file["entry/data/image_key"] = KEY
        file["entry/data/rotation_angle"] = ANGLES


def test_part_of_a_scan(tmp_path):
    """Frames and pixels that are chosen, and what there is one of for each."""
    full_scan(tmp_path / "scan.nxs")
    rows, columns, run = slice(1, 4), slice(0, 7, 2), slice(1, None, 2)
    frames = corrected(
        tmp_path / "scan.nxs", tmp_path / "out.nxs", lambda scan: scan.part(run).window(rows, columns)
    )
    chosen = PROJECTIONS[run]
    np.testing.assert_array_equal(frames, np.float32(FRAMES[chosen, rows, columns]) / 4096)
    with h5py.File(tmp_path / "out.nxs") as file:
        for name, values in PER_FRAME.items():
            check_equal(file["entry"][name], values[chosen])
        check_equal(file["entry/instrument/detector/pixel_mask"], MASK[rows, columns])
        np.testing.assert_array_equal(file["entry/data/data"], frames)


@pytest.mark.parametrize("resumed", [False, True])
def test_frames_apart_are_replaced_and_never_copied(apart, tmp_path, resumed):
    out = tmp_path / "out.nxs"
    with open_frames(apart) as scan:
        frames = np.asarray(scan[:], np.float32)
        how = {"source": scan, "settings": {}} if resumed else {}
        with (resume_frames if resumed else create_frames)(out, scan.shape, "f4", like=scan, **how) as writer:
            writer[:] = frames
    shutil.rmtree(apart.parent)  # needed no more
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["entry/instrument/detector/data"], frames)
        np.testing.assert_array_equal(file["entry/data/data"], frames)
        assert not isinstance(file.get("entry/instrument/detector/data", getlink=True), h5py.ExternalLink)


def test_named_entry_is_copied_alone(tmp_path):
    full_scan(tmp_path / "scan.nxs", "first")
    with h5py.File(tmp_path / "scan.nxs", "a") as file:
        lay_out(file, "second", FRAMES[::-1])
        file["second/instrument/name"] = h5py.SoftLink("/first/instrument/name")
    corrected(f"{tmp_path / 'scan.nxs'}:/second", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        assert list(file) == ["second"]
        assert file["second/instrument/name"].asstr()[()] == "I99"
        assert file.attrs["creator"] == "GDA"
    with open_frames(tmp_path / "out.nxs") as again:
        np.testing.assert_array_equal(again[:], np.float32(FRAMES[::-1][PROJECTIONS]) / 4096)


def test_large_datasets_are_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(_rest, "LARGEST", 2**16)
    (tmp_path / "raw").mkdir()
    full_scan(tmp_path / "raw" / "scan.nxs")
    corrected(tmp_path / "raw" / "scan.nxs", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        detector = file["entry/instrument/detector"]
        link = detector.get("flatfield_of_the_factory", getlink=True)
        assert link.filename == os.path.join("raw", "scan.nxs")  # noqa: PTH118 as the link holds it
        check_equal(
            detector["flatfield_of_the_factory"], ALONE["instrument/detector/flatfield_of_the_factory"]
        )
        check_equal(
            detector["spectra"], PER_FRAME["instrument/detector/spectra"][PROJECTIONS]
        )  # one per frame


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.lists(st.integers(0, 3), min_size=1, max_size=20).filter(lambda key: 0 in key),
    step=st.integers(1, 3),
    in_radians=st.booleans(),
)
def test_any_order_of_frames(tmp_path, key, step, in_radians):
    """Whatever the scan, lists, frames and angles of the output belong together."""
    path, out = tmp_path / f"{uuid4()}.nxs", tmp_path / f"{uuid4()}.nxs"
    numbers = np.arange(len(key))
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = numbers[:, None, None] + np.zeros((2, 3), "u2")
        file["entry/instrument/detector/image_key"] = key
        file["entry/control/data"] = numbers
        file["entry/sample/rotation_angle"] = np.radians(numbers) if in_radians else 1.0 * numbers
        file["entry/sample/rotation_angle"].attrs["units"] = "rad" if in_radians else "degree"
    wanted = np.flatnonzero(np.array(key) == 0)[::step]
    corrected(path, out, lambda scan: scan.part(slice(None, None, step)))
    with open_frames(out) as again:
        np.testing.assert_array_equal(again[:, 0, 0] * 4096, wanted)
        np.testing.assert_allclose(again.angles, wanted, rtol=1e-14)
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["entry/control/data"], wanted)
        np.testing.assert_array_equal(file["entry/instrument/detector/image_key"], 0 * wanted)


def test_attributes_of_any_size(tmp_path):
    """Newer files may have such, and the layout of old ones cannot keep them."""
    with h5py.File(tmp_path / "scan.nxs", "w", libver="latest") as file:
        lay_out(file).attrs["positions"] = np.arange(20_000.0)
    corrected(tmp_path / "scan.nxs", tmp_path / "out.nxs")
    with h5py.File(tmp_path / "out.nxs") as file:
        np.testing.assert_array_equal(file["entry"].attrs["positions"], np.arange(20_000.0))


def test_links_to_other_files(tmp_path):
    """What is there is taken, what is not stays a link, told from where the output is."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir(), out.mkdir()
    with h5py.File(raw / "log.h5", "w") as file:
        file["motors/x"] = np.arange(len(KEY))
        file["motors/loop"] = h5py.SoftLink("/motors")
        file["motors/speed"] = 3
    with h5py.File(raw / "scan.nxs", "w") as file:
        lay_out(file)
        file["entry/log"] = h5py.ExternalLink("log.h5", "motors")
        file["entry/again"] = h5py.ExternalLink("log.h5", "motors/x")
        file["entry/gone"] = h5py.ExternalLink("gone.h5", "x")
        file["entry/nowhere"] = h5py.SoftLink("/no/such")
        file["entry/itself"] = h5py.ExternalLink("scan.nxs", "entry/sample")
    corrected(raw / "scan.nxs", out / "out.nxs")
    with h5py.File(out / "out.nxs") as file:
        entry = file["entry"]
        np.testing.assert_array_equal(entry["log/x"], PROJECTIONS)
        assert entry["again"] == entry["log/x"]
        assert entry["log/loop"] == entry["log"]
        assert entry["log/speed"][()] == 3
        assert entry["itself"] == entry["sample"]
        assert entry.get("nowhere", getlink=True).path == "/no/such"
        link = entry.get("gone", getlink=True)
        assert (out / link.filename).resolve() == raw / "gone.h5"
        assert link.path == "x"


def test_dxchange(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = FRAMES
        file["exchange/data_white"] = FRAMES[:3]
        file["exchange/data_dark"] = FRAMES[3:5]
        file["exchange/theta"] = np.radians(ANGLES)
        file["exchange/theta"].attrs["units"] = "rad"
        file["exchange/title"] = "tooth"
        file["measurement/instrument/monitor/current"] = 1.0 + np.arange(len(KEY))
        file["measurement/sample/name"] = "tooth"
        file["implements"] = "exchange:measurement"
    frames = corrected(tmp_path / "scan.h5", tmp_path / "out.h5", lambda scan: scan.part(slice(2, 9, 3)))
    with h5py.File(tmp_path / "out.h5") as file:
        check_equal(file["exchange/data"], frames)
        np.testing.assert_array_equal(file["exchange/data_white"], np.ones((1, *SHAPE)))
        np.testing.assert_array_equal(file["exchange/data_dark"], np.zeros((1, *SHAPE)))
        np.testing.assert_array_equal(file["exchange/theta"], np.radians(ANGLES[2:9:3]))
        assert file["exchange/theta"].attrs["units"] == "rad"
        np.testing.assert_array_equal(file["measurement/instrument/monitor/current"], [3, 6, 9])
        assert file["implements"].asstr()[()] == "exchange:measurement"
        assert file["measurement/sample/name"].asstr()[()] == file["exchange/title"].asstr()[()] == "tooth"


def test_tooth(shared_data, tmp_path):
    """A file of the Advanced Photon Source."""
    source = shared_data / "tomopy_tooth" / "tooth.h5"
    frames = corrected(source, tmp_path / "out.h5")
    with h5py.File(source) as raw, h5py.File(tmp_path / "out.h5") as file:
        names: list[str] = []
        raw.visit(names.append)
        for name in names:
            assert name in file
            if name.split("/")[-1] not in ("data", "data_white", "data_dark") and hasattr(raw[name], "shape"):
                np.testing.assert_array_equal(raw[name][()], file[name][()])
                assert dict(raw[name].attrs) == dict(file[name].attrs)
        np.testing.assert_array_equal(file["exchange/data"], frames)
        assert file["exchange/data"].attrs["axes"] == "theta:y:x"


def test_like_must_be_the_scan(tmp_path):
    full_scan(tmp_path / "scan.nxs")
    with open_frames(tmp_path / "scan.nxs") as scan:
        for other, shape in ((scan, (3, *SHAPE)), (scan.flats, scan.shape)):
            with pytest.raises(ValueError, match="`like` must be a scan"):
                create_frames(tmp_path / "out.nxs", shape, "f4", like=other).__enter__()
        with pytest.raises(ValueError, match="is for area frames in an HDF5 file"):
            create_frames(tmp_path / "out.zarr", scan.shape, "f4", like=scan).__enter__()
    named = f"{tmp_path / 'scan.nxs'}:/entry/data/data"
    with open_frames(named) as plain, pytest.raises(ValueError, match="`like` must be a scan"):
        create_frames(tmp_path / "out.nxs", plain.shape, "f4", like=plain).__enter__()
    assert [item.name for item in tmp_path.iterdir()] == ["scan.nxs"]


def test_damage_beside_the_frames_is_named(tmp_path):
    full_scan(tmp_path / "scan.nxs")
    with h5py.File(tmp_path / "scan.nxs", "a") as file:
        values = np.random.default_rng(0).random(len(KEY))
        file.create_dataset("entry/log", data=values, chunks=(len(KEY),), fletcher32=True)
        spoilt = file["entry/log"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "scan.nxs").read_bytes())
    content[spoilt] ^= 255
    (tmp_path / "scan.nxs").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"scan\.nxs:/entry/log` is truncated or corrupted"):
        corrected(tmp_path / "scan.nxs", tmp_path / "out.nxs")
    assert [item.name for item in tmp_path.iterdir()] == ["scan.nxs"]


def test_large_lists_are_copied_in_little_memory(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        lay_out(file)
        spectra = file.create_dataset("entry/spectra", (len(KEY), 500_000), "f8")  # 48 MB
        spectra[3] = np.arange(500_000.0)
    tracemalloc.start()
    try:
        corrected(tmp_path / "scan.nxs", tmp_path / "out.nxs")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    with h5py.File(tmp_path / "out.nxs") as file:
        assert file["entry/spectra"].shape == (len(PROJECTIONS), 500_000)
        np.testing.assert_array_equal(file["entry/spectra"][0], np.arange(500_000.0))


def test_stopped_and_gone_on_with(tmp_path):
    """What is beside the frames is in the partial output from the beginning, and stays."""
    full_scan(tmp_path / "scan.nxs")
    out, partial = tmp_path / "out.nxs", tmp_path / "out.nxs.partial"
    with open_frames(tmp_path / "scan.nxs") as scan:
        frames = np.asarray(scan[:], np.float32)
        how = {"source": scan, "settings": {}, "like": scan, "resume": True}
        with pytest.raises(RuntimeError), resume_frames(out, scan.shape, "f4", **how) as writer:
            writer[:2] = frames[:2]
            raise RuntimeError
        with h5py.File(partial) as file:
            for name, values in PER_FRAME.items():
                check_equal(file["entry"][name], values[PROJECTIONS])
        with resume_frames(out, scan.shape, "f4", **how) as writer:
            assert writer.missing() == [slice(2, len(PROJECTIONS))]
            writer[2:] = frames[2:]
        with create_frames(tmp_path / "at_once.nxs", scan.shape, "f4", like=scan) as writer:
            writer[:] = frames
    assert out.read_bytes() == (tmp_path / "at_once.nxs").read_bytes()


def test_written_from_other_processes(tmp_path):
    """What carries a worker's frames finds their place in a file with much else in it."""
    full_scan(tmp_path / "scan.nxs")
    with open_frames(tmp_path / "scan.nxs") as scan:
        frames = np.asarray(scan[:], np.float32)
        with resume_frames(
            tmp_path / "out.nxs", scan.shape, "f4", source=scan, settings={}, like=scan
        ) as writer:
            carrier = pickle.loads(pickle.dumps(writer.carrier()))
            for start in (2, 0):
                carrier(start, frames[start : start + 2 + start])
                writer.carried(start, start + 2 + start)
    with h5py.File(tmp_path / "out.nxs") as file:
        np.testing.assert_array_equal(file["entry/data/data"], frames)
        check_equal(file["entry/control/data"], PER_FRAME["control/data"][PROJECTIONS])


@pytest.mark.parametrize("options", [[], ["--compression", "gzip"]])
def test_command(tmp_path, options):
    """Frames in other files, from the command line to plain h5py."""
    full_scan(tmp_path / "scan.nxs")
    with h5py.File(tmp_path / "scan.nxs", "a") as file:
        with h5py.File(tmp_path / "scan_data.h5", "w") as other:
            other["frames"] = np.where(KEY == 2, 10, np.where(KEY == 1, 110, 60))[:, None, None] + np.zeros(
                SHAPE
            )
        del file["entry/instrument/detector/data"]
        file["entry/instrument/detector/data"] = h5py.ExternalLink("scan_data.h5", "frames")
    sweep = np.linspace(100, 1000, 5)[:, None, None] + np.zeros(SHAPE)
    DetectorCalibrator(sigma=1).fit(sweep).save(tmp_path / "cal.h5")
    words = ["correct", tmp_path / "scan.nxs", "-c", tmp_path / "cal.h5", "-o", tmp_path / "out.nxs", "-q"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in [*words, *options]])
    assert not stop.value.code
    with h5py.File(tmp_path / "out.nxs") as file:
        np.testing.assert_allclose(file["entry/data/data"][:], np.full((len(PROJECTIONS), *SHAPE), 0.5))
        check_equal(file["entry/control/data"], PER_FRAME["control/data"][PROJECTIONS])
        assert file["entry/sample/name"][()] == b"bamboo"
        told = json.loads(file["entry/data/data"].attrs["provenance"])
        assert told["inputs"]["image"]["path"].endswith("scan.nxs")


def test_files_that_hold_frames_are_never_written_over(apart, capsys):
    """Whatever `--overwrite` says; and that they are other ones is seen when a correction is gone on with."""
    sweep = np.linspace(100, 1000, 5)[:, None, None] + np.zeros(SHAPE)
    DetectorCalibrator(sigma=1).fit(sweep).save("cal.h5")
    with open_frames(apart) as scan:
        before = identity(scan)
        assert scan.files == {item.resolve() for item in apart.parent.iterdir()}
    link = Path("raw.h5")
    link.symlink_to(apart.parent / "scan_data.h5")
    for output in ("raw/scan_data.h5", str(link)):
        with pytest.raises(SystemExit) as stop:
            main(["correct", str(apart), "-c", "cal.h5", "-o", output, "--overwrite"])
        assert stop.value.code == 2
        assert f"the output `{output}` is also an input" in capsys.readouterr().err
    later = before["modified"] / 1e9 + 100
    os.utime(apart.parent / "scan_data.h5", (later, later))
    with open_frames(apart) as scan:
        assert identity(scan)["modified"] > before["modified"]
        assert identity(scan)["bytes"] == before["bytes"] > apart.stat().st_size
