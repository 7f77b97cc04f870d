"""Calibration files: what goes in comes out to the bit, and nothing else ever comes out."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectorcal._errors import (
    AccessError,
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingFileError,
    NewerProtocolError,
    OutputExistsError,
)
from detectorcal._persistence import PROTOCOL, read_calibration, write_calibration
from detectorcal._persistence.header import TYPES, _header_sha256

SUFFIXES = [".h5", ".zarr", ".tif"]
DATA = Path(__file__).parent / "data"

HEADER = {
    "estimator": "DetectorCalibrator",
    "params": {"sigma": 50.0, "method": "croton", "saturation": None, "detector_shape": [3, 4]},
    "state": {"n_frames_seen": 20, "K": 0.1 + 0.2},
    "provenance": {"note": "<script>alert('Größe 探测器')</script>"},
}


def example_arrays():
    coef = 1 + np.arange(12.0).reshape(3, 4) / 100
    coef_std = np.full((3, 4), np.nan)
    defects = np.zeros((3, 4), np.uint8)
    defects[1, 2] = 32
    return {
        "coef": coef,
        "coef_std": coef_std,
        "sums/expected": (coef * 1e300),
        "sums/count": np.arange(12).reshape(3, 4) + 2**53,
        "dark": np.float32(240) + coef.astype(np.float32),
        "defects": defects,
        "all_zero": np.zeros((3, 4), bool),
    }


def make_examples(folder=DATA):
    """Make the files of the current protocol that later versions must load for ever.

    Run once per protocol, before its first release, and check the files in:
    ``python -c "from test_persistence import make_examples; make_examples()"`` in this folder.
    """
    for suffix in SUFFIXES:
        path = folder / f"protocol-{PROTOCOL}{suffix}"
        write_calibration(path, HEADER, example_arrays(), overwrite=True)


def assert_same(arrays, wanted):
    assert list(arrays) == list(wanted)
    for name, array in arrays.items():
        assert array.dtype == np.asarray(wanted[name]).dtype.newbyteorder("="), name
        assert array.dtype.isnative
        assert array.shape == wanted[name].shape
        assert array.tobytes() == wanted[name].astype(array.dtype).tobytes(), name


def assert_example(path):
    header, arrays = read_calibration(path)
    assert header == {"protocol": 1, **HEADER}
    assert_same(arrays, example_arrays())


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"calibration{request.param}"


@pytest.fixture
def example(path):
    write_calibration(path, HEADER, example_arrays())
    return path


# ---- what goes in comes out --------------------------------------------------------------------


def test_example_round_trip(example):
    assert_example(example)


@pytest.mark.parametrize("name", ["c.hdf5", "c.tiff", "c.H5", "größe 探测器.tif", "a.b.zarr"])
def test_suffix_decides(tmp_path, name):
    write_calibration(str(tmp_path / name), HEADER, example_arrays())
    assert_example(str(tmp_path / name))


def floats_as_bits(dtype):
    """Floats by their bits: every NaN there is, signalling ones and negative ones too."""
    bits = np.dtype(f"u{dtype.itemsize}")
    return lambda shape: hnp.arrays(bits, shape).map(lambda array: array.view(dtype))


@st.composite
def several_arrays(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=5))
    word = st.from_regex(r"[A-Za-z0-9_]{1,8}(/[a-z]{1,3})?", fullmatch=True)
    names = draw(st.lists(word, min_size=1, max_size=4, unique_by=lambda name: name.lower().split("/")[0]))
    arrays = {}
    for name in names:
        dtype = np.dtype(draw(st.sampled_from(TYPES))).newbyteorder(draw(st.sampled_from("<>")))
        drawn = floats_as_bits(dtype)(shape) if dtype.kind == "f" else hnp.arrays(dtype, shape)
        arrays[name] = draw(drawn)
    return arrays


text = st.text(max_size=8) | st.sampled_from(["<script>", "\ud800", "\0", '"shape":', "ImageJ=", "OME>"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several_arrays(), st.fixed_dictionaries({"params": json_values, "state": json_values}))
def test_any_round_trip_is_exact(path, arrays, header):
    write_calibration(path, header, arrays, overwrite=True)
    came, back = read_calibration(path)
    assert json.dumps(came) == json.dumps({"protocol": 1, **header})
    assert_same(back, arrays)


def test_a_round_trip_changes_no_argument_and_gives_fresh_arrays(path):
    arrays = {"coef": np.arange(24.0).reshape(4, 6)[::2, ::2]}
    arrays["coef"].flags.writeable = False
    header = {"params": {"shape": (2, 3)}}
    write_calibration(path, header, arrays)
    came, back = read_calibration(path)
    assert header == {"params": {"shape": (2, 3)}}
    assert came["params"] == {"shape": [2, 3]}
    back["coef"] += 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_protocol_1_loads_for_ever(suffix):
    assert_example(DATA / f"protocol-1{suffix}")


# ---- what a stranger sees with the library of the format alone -------------------------------------


def test_hdf5_alone(tmp_path):
    path = tmp_path / "c.h5"
    write_calibration(path, HEADER, example_arrays(), descriptions={"coef": "µ", "unknown": "passed over"})
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"detectorcal calibration"
        assert file.attrs["protocol"] == 1
        header = json.loads(file.attrs["detectorcal"])
        assert_same({name: file[name][...] for name in header["arrays"]}, example_arrays())
        assert file["coef"].attrs["description"] == "µ"
        assert file["coef"].chunks is None
    assert header["params"] == HEADER["params"]
    assert header["arrays"]["coef"]["shape"] == [3, 4]
    assert header["arrays"]["defects"]["dtype"] == "uint8"


def test_zarr_alone(tmp_path):
    path = tmp_path / "c.zarr"
    write_calibration(path, HEADER, example_arrays(), descriptions={"coef": "µ"})
    group = zarr.open_group(path, mode="r")
    header = group.attrs["detectorcal"]
    assert header["state"] == HEADER["state"]
    assert_same({name: group[name][...] for name in header["arrays"]}, example_arrays())
    assert group["coef"].attrs["description"] == "µ"
    assert (path / "all_zero" / "c" / "0" / "0").stat().st_size == 12


def test_tiff_alone(tmp_path):
    path = tmp_path / "c.tif"
    arrays = example_arrays()
    write_calibration(path, HEADER, arrays, descriptions={"dark": "µ"})
    with np.errstate(over="ignore"):
        shown = np.stack([array.astype(np.float32) for array in arrays.values()])
    # One stack of 32-bit floats, which is what ImageJ opens, the coefficients first.
    np.testing.assert_array_equal(tifffile.imread(path), shown)
    with tifffile.TiffFile(path) as file:
        header = json.loads(file.pages[0].description)
        assert not file.is_bigtiff
        assert not file.is_shaped
        assert [page.tags["PageName"].value for page in file.pages] == list(arrays)
        assert {page.compression for page in file.pages} == {1}
        for page, array in zip(file.pages, arrays.values(), strict=True):
            exact = page if array.dtype == np.float32 else page.pages[0]
            np.testing.assert_array_equal(exact.asarray(), array)
        assert file.pages[0].pages[0].dtype == np.float64
    assert header["params"] == HEADER["params"]


def test_tiff_of_a_line_detector_is_one_row(tmp_path):
    write_calibration(tmp_path / "c.tif", {}, {"coef": np.ones(7)})
    assert tifffile.imread(tmp_path / "c.tif").shape == (1, 7)


# ---- what is refused on writing ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "have one shape"),
        ({"a": np.ones(3), "b": np.ones(4)}, "have one shape"),
        ({"a": np.ones((2, 3, 4))}, r"'a' has shape \(2, 3, 4\)"),
        ({"a": np.ones(())}, r"'a' has shape \(\)"),
        ({"a": np.ones((0, 3))}, r"'a' has shape \(0, 3\)"),
        ({"a": np.array([None])}, "'a' has type object"),
        ({"a": np.array(["x"])}, "'a' has type <U1"),
        ({"a": np.ones(3, complex)}, "'a' has type complex128"),
        ({"../a": np.ones(3)}, "'../a'"),
        ({"": np.ones(3)}, "''"),
        ({"ä": np.ones(3)}, "'ä'"),
        ({"a\n": np.ones(3)}, "named"),
        ({"a": np.ones(3), "a/b": np.ones(3)}, "named 'a'"),
    ],
)
def test_arrays_that_cannot_be_stored(path, arrays, says):
    with pytest.raises(InputError, match=says):
        write_calibration(path, {}, arrays)
    assert not path.exists()


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"params": {"sigma": np.inf}}, r"`header.params.sigma` is inf"),
        ({"params": [1.0, np.nan]}, r"`header.params\[1\]` is nan"),
        ({"state": {"n": np.int64(3)}}, "`header.state.n` .*int64"),
        ({"state": {1: 2}}, "`header.state` has the key 1"),
        ({"state": {"a": {1}}}, "type set"),
        ({"protocol": 2, "sha256": ""}, r"the keys \['protocol', 'sha256'\]"),
    ],
)
def test_headers_that_cannot_be_stored(path, header, says):
    with pytest.raises(InputError, match=says):
        write_calibration(path, header, {"coef": np.ones(3)})
    assert not path.exists()


@pytest.mark.parametrize("name", ["c.npy", "c", "c.h5.gz", "c.pkl"])
def test_unknown_suffix(tmp_path, name):
    for call in (lambda p: write_calibration(p, {}, {"coef": np.ones(3)}), read_calibration):
        with pytest.raises(InputError, match=r"\.h5, \.hdf5, \.zarr, \.tif, \.tiff"):
            call(tmp_path / name)


def test_overwriting_is_asked_for(example):
    with pytest.raises(OutputExistsError):
        write_calibration(example, {}, {"coef": np.ones(3)})
    assert_example(example)
    write_calibration(example, {}, {"coef": np.ones(3)}, overwrite=True)
    assert read_calibration(example)[0] == {"protocol": 1}


def test_a_write_that_fails_leaves_the_old_file(example, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    monkeypatch.setattr(zarr.Group, "create_array", fail)
    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_calibration(example, {}, {"coef": np.ones(3)}, overwrite=True)
    assert_example(example)
    assert list(example.parent.iterdir()) == [example]


# ---- what is refused on reading ----------------------------------------------------------------


def test_missing(path):
    with pytest.raises(MissingFileError, match="calibration"):
        read_calibration(path)


def test_folder_for_file_and_file_for_folder(path):
    if path.suffix == ".zarr":
        path.write_bytes(b"")
    else:
        path.mkdir()
    with pytest.raises(FileFormatError, match=r"is a (file|folder), but"):
        read_calibration(path)


def write_foreign(path):
    """Write a sound file of the same format by somebody else."""
    match path.suffix:
        case ".h5":
            with h5py.File(path, "w") as file:
                file["data"] = np.ones(3)
        case ".zarr":
            zarr.create_group(path)
        case ".tif":
            tifffile.imwrite(path, np.ones((3, 4)))


def test_foreign_file_of_the_format(path):
    write_foreign(path)
    with pytest.raises(FileFormatError, match="but not a detectorcal calibration"):
        read_calibration(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\x80\x04\x95pickle", b"II*"])
def test_another_format_under_our_suffix(path, content):
    if path.suffix == ".zarr":
        path.mkdir()
        (path / ".zgroup").write_bytes(content)
    else:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"is not a.* although its name ends in"):
        read_calibration(path)


def rewrite_header(path, change):
    """Change the stored header, and make its checksum right again: what a malicious stranger can do."""

    def changed(header):
        del header["sha256"]
        change(header)
        return header | {"sha256": _header_sha256(header)}

    match path.suffix:
        case ".h5":
            with h5py.File(path, "r+") as file:
                header = changed(json.loads(file.attrs["detectorcal"]))
                file.attrs["detectorcal"] = np.bytes_(json.dumps(header))
        case ".zarr":
            group = zarr.open_group(path, mode="r+")
            group.attrs["detectorcal"] = changed(group.attrs["detectorcal"])
        case ".tif":
            with tifffile.TiffFile(path) as file:
                header = changed(json.loads(file.pages[0].description))
            tifffile.tiffcomment(path, json.dumps(header))


def test_protocol_from_the_future(example):
    rewrite_header(example, lambda header: header.update(protocol=7))
    with pytest.raises(NewerProtocolError, match=r"of protocol 7, .* reads up to 1\. Upgrade"):
        read_calibration(example)


@pytest.mark.parametrize("protocol", [0, -1, True, "1", 1.0, None])
def test_protocol_that_is_none(example, protocol):
    rewrite_header(example, lambda header: header.update(protocol=protocol))
    with pytest.raises(DamagedFileError, match="protocol"):
        read_calibration(example)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"shape": [2**31, 2**31]}, "different shapes"),
        ({"shape": [-3, -4]}, "cannot be"),
        ({"shape": [True, 4]}, "cannot be"),
        ({"shape": [3, 4, 1]}, "cannot be"),
        ({"shape": "34"}, "cannot be"),
        ({"shape": [4, 3]}, "different shapes"),
        ({"dtype": "object"}, "cannot be"),
        ({"dtype": "U999999999"}, "cannot be"),
        ({"dtype": "int64"}, "is stored as"),
        ({"sha256": 64 * "0"}, "checksum"),
    ],
)
def test_header_that_lies_about_an_array(example, entry, says):
    rewrite_header(example, lambda header: header["arrays"]["coef"].update(entry))
    with pytest.raises(DamagedFileError, match=says):
        read_calibration(example)


def test_huge_arrays_are_refused_before_they_are_allocated(example):
    def change(header):
        for entry in header["arrays"].values():
            entry["shape"] = [2**40, 2**40]

    rewrite_header(example, change)
    with pytest.raises(DamagedFileError, match=r"announces .* bytes of arrays, but .* bytes are on disk"):
        read_calibration(example)


def test_array_of_a_name_that_leads_elsewhere(example):
    rewrite_header(example, lambda h: h["arrays"].update({"../coef": h["arrays"].pop("coef")}))
    with pytest.raises(DamagedFileError, match="cannot be"):
        read_calibration(example)


@pytest.mark.parametrize("arrays", [{}, [], None, {"coef": None}, {"coef": {}}])
def test_header_without_arrays(example, arrays):
    rewrite_header(example, lambda header: header.update(arrays=arrays))
    with pytest.raises(DamagedFileError):
        read_calibration(example)


def test_array_that_is_missing(example):
    rewrite_header(example, lambda h: h["arrays"].update(extra=h["arrays"]["coef"]))
    with pytest.raises(DamagedFileError, match=f"{example.name} is damaged"):
        read_calibration(example)


@pytest.mark.parametrize("header", [b"{", b"[1]", b"3", b'{"format": "detectorcal calibration"}'])
def test_hdf5_header_that_is_none(tmp_path, header):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.attrs["detectorcal"] = np.bytes_(header)
    with pytest.raises(DamagedFileError, match=r"Restore it from a copy"):
        read_calibration(tmp_path / "c.h5")


def test_a_file_that_another_program_writes(tmp_path, monkeypatch):
    write_calibration(tmp_path / "c.h5", HEADER, example_arrays())

    def locked(*args, **kwargs):
        raise BlockingIOError("unable to lock file")

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(AccessError, match="may not be read"):
        read_calibration(tmp_path / "c.h5")


def test_importing_is_quick():
    code = "import sys, detectorcal._persistence; print({'h5py', 'zarr', 'tifffile'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- HDF5 and zarr can point out of the file ------------------------------------------------------


@pytest.fixture
def hdf5_without_coef(tmp_path):
    path = tmp_path / "c.h5"
    write_calibration(path, HEADER, example_arrays())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["coef"] = example_arrays()["coef"]
    (tmp_path / "raw").write_bytes(example_arrays()["coef"].tobytes())
    with h5py.File(path, "r+") as file:
        del file["coef"]
    return path


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/coef"), h5py.SoftLink("/sums/expected")])
def test_hdf5_links_are_not_followed(hdf5_without_coef, link):
    with h5py.File(hdf5_without_coef, "r+") as file:
        file["coef"] = link
    with pytest.raises(FileFormatError, match=r"'coef' .* is a link"):
        read_calibration(hdf5_without_coef)


def test_hdf5_links_among_groups_are_not_followed(hdf5_without_coef):
    with h5py.File(hdf5_without_coef, "r+") as file:
        file["coef"] = example_arrays()["coef"]
        file.move("sums", "elsewhere")
        file["sums"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(FileFormatError, match=r"'sums/expected' .* is a link"):
        read_calibration(hdf5_without_coef)


def test_hdf5_storage_elsewhere_is_not_read(hdf5_without_coef):
    with h5py.File(hdf5_without_coef, "r+") as file:
        raw = str(hdf5_without_coef.with_name("raw"))
        file.create_dataset("coef", (3, 4), float, external=[(raw, 0, 96)])
    with pytest.raises(DamagedFileError, match="do not lie in the file"):
        read_calibration(hdf5_without_coef)


def test_hdf5_virtual_dataset_is_not_read(hdf5_without_coef):
    layout = h5py.VirtualLayout((3, 4), float)
    layout[...] = h5py.VirtualSource(hdf5_without_coef.with_name("other.h5"), "coef", (3, 4))
    with h5py.File(hdf5_without_coef, "r+") as file:
        file.create_virtual_dataset("coef", layout)
    with pytest.raises(DamagedFileError, match="do not lie in the file"):
        read_calibration(hdf5_without_coef)


def test_hdf5_compressed_dataset_is_not_read(hdf5_without_coef):
    with h5py.File(hdf5_without_coef, "r+") as file:
        file.create_dataset("coef", data=example_arrays()["coef"], compression="gzip")
    with pytest.raises(DamagedFileError, match="do not lie in the file"):
        read_calibration(hdf5_without_coef)


def test_zarr_links_are_not_followed(tmp_path):
    write_calibration(tmp_path / "c.zarr", HEADER, example_arrays())
    shutil.move(tmp_path / "c.zarr/coef", tmp_path / "coef")
    (tmp_path / "c.zarr/coef").symlink_to(tmp_path / "coef")
    with pytest.raises(FileFormatError, match="coef is a link"):
        read_calibration(tmp_path / "c.zarr")


def test_zarr_of_other_codecs_is_not_read(tmp_path):
    path = tmp_path / "c.zarr"
    write_calibration(path, HEADER, example_arrays())
    group = zarr.open_group(path, mode="r+")
    group.create_array("coef", shape=(3, 4), dtype="float64", overwrite=True)[...] = example_arrays()["coef"]
    with pytest.raises(DamagedFileError, match="'coef' is stored as"):
        read_calibration(path)


# ---- damage ----------------------------------------------------------------------------------


def flip_a_bit(content, rng):
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def overwrite_some_bytes(content, rng):
    for _ in range(rng.randint(2, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def truncate(content, rng):
    del content[rng.randrange(len(content)) :]


@pytest.mark.parametrize("damage", [flip_a_bit, overwrite_some_bytes, truncate])
def test_damage_is_found_or_does_no_harm(example, damage, caplog):
    rng = random.Random(20190627)
    files = [file for file in [example, *example.rglob("*")] if file.is_file()]
    sizes = [file.stat().st_size for file in files]
    for _ in range(40 if example.is_dir() else 120):
        (file,) = rng.choices(files, sizes)
        sound = file.read_bytes()
        content = bytearray(sound)
        damage(content, rng)
        file.write_bytes(content)
        try:
            assert_example(example)
        except DetectorcalError as error:
            assert str(example) in str(error)  # noqa: PT017  (not raising is as good)
        file.write_bytes(sound)
    assert not caplog.records


def test_every_byte_of_every_array_is_checked(example):
    for name, array in example_arrays().items():
        match example.suffix:
            case ".h5":
                file = example
                with h5py.File(file) as opened:
                    offset = opened[name].id.get_offset()
            case ".zarr":
                file, offset = example / name / "c/0/0", 0
            case ".tif":
                file = example
                with tifffile.TiffFile(file) as opened:
                    (page,) = (p for p in opened.pages if p.tags["PageName"].value == name)
                    exact = page if array.dtype == np.float32 else page.pages[0]
                    (offset,) = exact.dataoffsets
        sound = file.read_bytes()
        for at in {0, array.nbytes // 2, array.nbytes - 1}:
            content = bytearray(sound)
            content[offset + at] ^= 2
            file.write_bytes(content)
            with pytest.raises(DamagedFileError, match=f"'{name}' does not match its checksum"):
                read_calibration(example)
        file.write_bytes(sound)


def test_a_part_of_a_zarr_that_is_gone(tmp_path):
    write_calibration(tmp_path / "c.zarr", HEADER, example_arrays())
    for part in ["zarr.json", "coef/zarr.json", "coef/c/0/0", "coef_std/c/0/0"]:
        shutil.copytree(tmp_path / "c.zarr", tmp_path / "d.zarr")
        (tmp_path / "d.zarr" / part).unlink()
        with pytest.raises(FileFormatError if part == "zarr.json" else DamagedFileError):
            read_calibration(tmp_path / "d.zarr")
        shutil.rmtree(tmp_path / "d.zarr")
