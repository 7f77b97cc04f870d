"""Every reader against the library that owns the format, every writer against every reader."""

# An interrupted block is what is tested:

import errno
import json
import pickle
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from detectorcal import io
from detectorcal._errors import (
    DamagedFileError,
    DetectorcalError,
    FileFormatError,
    InputError,
    MissingDependencyError,
    MissingFileError,
    OutputExistsError,
    TooLargeError,
    WriteError,
)
from detectorcal.io import create_frames, open_frames
from detectorcal.io._names import locate
from detectorcal.io._tiff_pages import needs_bigtiff
from detectorcal.io._writer import Plan, RawSink

STACK = np.arange(10 * 6 * 5, dtype=np.uint16).reshape(10, 6, 5)
OUTPUTS = ["a.h5", "a.hdf5", "a.nxs", "a.zarr", "a.tif", "a.npy"]


def check_same(stack: io.FrameStack, expected: np.ndarray) -> None:
    assert stack.shape == expected.shape
    assert stack.dtype == expected.dtype.newbyteorder("=")
    assert stack.dtype.isnative
    np.testing.assert_array_equal(stack[:], expected)
    np.testing.assert_array_equal(stack[-1], expected[-1])
    assert stack[:].dtype == stack.dtype


def plan(shape: tuple[int, ...], dtype: str = "uint16") -> Plan:
    return Plan(shape, np.dtype(dtype), "", None, None, {}, None)


def nxtomo(
    path: Path, key: list[int], entry: str = "entry", place: str = "instrument/detector"
) -> np.ndarray:
    """Write a scan whose frame number i is filled with i."""
    frames = np.broadcast_to(np.arange(len(key), dtype="f4")[:, None, None], (len(key), 3, 4))
    with h5py.File(path, "a") as file:
        group = file.create_group(entry)
        group["data/data"] = frames
        group[f"{place}/image_key"] = np.array(key)
        group["sample/rotation_angle"] = 2.0 * np.arange(len(key))
    return frames


# --- files of other software


@pytest.mark.parametrize(
    "name",
    [
        "formats/imagetiff_gradient-1c-32b-float.tiff",
        "formats/imagetiff_minisblack-1c-16b.tiff",
        "formats/imagetiff_minisblack-1c-i16b.tiff",
        "formats/imagetiff_predictor-3-gray-f32.tif",
        "formats/imagetiff_seq-1c-16b-tiled-68f373a0.tiff",
        "formats/imagetiff_seq-1c-8b-multipage-adeefdcc.tiff",
        "formats/ome_z-series.ome.tif",
        "neutron_wedge_left/exp5s_ob.tif",
        "physlin/detectorcaleg_stp4_200-500_500-800_CT.tif",
        "physlin/detectorcaleg_stp4_200-500_500-800_flat.tif",
        "physlin/detectorcaleg_stp4_200-500_500-800_coeff.tif",
        "sinograms/sarepy_sinogram_360_neutron_image.tif",
    ],
)
def test_real_tiff(shared_data, name):
    expected = tifffile.imread(shared_data / name)
    with open_frames(shared_data / name) as stack:
        check_same(stack, expected if expected.ndim == 3 else expected[np.newaxis])


@pytest.mark.parametrize("name", ["imagetiff_BigTIFF.tif", "imagetiff_BigTIFFLong.tif"])
def test_real_colour_bigtiff_is_refused(shared_data, name):
    with pytest.raises(FileFormatError, match=r"colour image \(3 samples per pixel\)"):
        open_frames(shared_data / "formats" / name)


def test_real_tiff_folder(shared_data):
    folder = shared_data / "formats" / "savu_tiff_folder"
    with open_frames(folder / "raw_*.tiff") as stack:
        check_same(stack, tifffile.imread(sorted(folder.glob("raw_*.tiff"))))
    with pytest.raises(FileFormatError, match=r"dark_00001\.tiff.*float32.*raw_"):
        open_frames(folder)


def test_real_hdf5(shared_data):
    folder = shared_data / "formats" / "savu_i12_lfov_hdf"
    for name in ("pc3_projections.hdf", "pco3_darks_00000.hdf", "pco3_flats_00000.hdf"):
        with h5py.File(folder / name) as file, open_frames(folder / name) as stack:
            check_same(stack, file["entry/data/data"][()])
            assert stack.layout is None


def test_real_dxchange(shared_data):
    path = shared_data / "tomopy_tooth" / "tooth.h5"
    with h5py.File(path) as file, open_frames(path) as stack:
        check_same(stack, file["exchange/data"][()])
        check_same(stack.flats, file["exchange/data_white"][()])
        check_same(stack.darks, file["exchange/data_dark"][()])
        np.testing.assert_array_equal(stack.angles, file["exchange/theta"][()])
        assert stack.layout == "dxchange"


@pytest.mark.parametrize(
    "name",
    [
        "zarrs_v2_array_blosc_C.zarr",
        "zarrs_v2_array_gzip_C.zarr",
        "zarrs_v3_array_blosc.zarr",
        "zarrs_v3_array_gzip.zarr",
        "zarrs_v3_array_none.zarr",
    ],
)
def test_real_zarr(shared_data, name):
    """The v3 ones hold the metadata of both formats, about which zarr warns; warnings are errors here."""
    expected = np.arange(100, dtype="f4").reshape(10, 10)
    with open_frames(shared_data / "formats" / name) as stack:
        check_same(stack, expected[np.newaxis])
    with open_frames(shared_data / "formats" / name, line=True) as stack:
        check_same(stack, expected)


# --- the stack


def stored(folder: Path, kind: str) -> str:
    """Save STACK in one of the ways that are read differently."""
    path = folder / kind
    if kind == "contiguous.tif":
        tifffile.imwrite(path, STACK, photometric="minisblack")
    elif kind == "compressed.tif":
        tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib")
    elif kind == "series":
        path.mkdir()
        for i, frame in enumerate(STACK):
            tifffile.imwrite(path / f"frame_{i}.tif", frame)
    elif kind == "chunked.h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=STACK, chunks=(2, 3, 2), compression="gzip")
    elif kind == "a.zarr":
        zarr.create_array(str(path), data=STACK, chunks=(3, 4, 2))
    elif kind == "big.npy":
        np.save(path, STACK.astype(">u2"))
    elif kind == "fortran.npy":
        np.save(path, np.asfortranarray(STACK))
    elif kind == "a.npz":
        np.savez_compressed(path, STACK)
    return str(path)


KINDS = [
    "contiguous.tif",
    "compressed.tif",
    "series",
    "chunked.h5",
    "a.zarr",
    "big.npy",
    "fortran.npy",
    "a.npz",
]
INDICES = [
    0,
    -1,
    np.int64(3),
    slice(2, 7),
    slice(None, None, 3),
    slice(7, 1, -2),
    slice(4, 4),
    [0, 1, 2, 7, 5],
    [],
    np.array([9, 9, -10]),
    np.arange(10) % 3 == 1,
    ...,
    (slice(0, 8), slice(2, 4)),
    (slice(0, 8), slice(None), slice(1, 5, 2)),
    (3, 2, 1),
    (..., 2),
    ([1, 4], slice(None, None, -2), slice(4, 0, -1)),
    (slice(None), slice(3, 3)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_index_as_numpy(tmp_path, kind):
    with open_frames(stored(tmp_path, kind)) as stack:
        check_same(stack, STACK)
        for index in INDICES:
            np.testing.assert_array_equal(stack[index], STACK[index], err_msg=str(index), strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_stack_behaves_like_a_sequence(tmp_path, kind):
    with open_frames(stored(tmp_path, kind)) as stack:
        assert len(stack) == 10
        assert stack.ndim == 3
        assert kind in repr(stack)
        assert kind in stack.path
        np.testing.assert_array_equal(np.asarray(stack), STACK)
        np.testing.assert_array_equal(list(stack), STACK)
        for wrong in (10, -11, (0, 6), (0, 0, 0, 0), None, "x", [[0]], np.ones(9, bool), (0, [1, 2]), 1.5):
            with pytest.raises(IndexError):
                stack[wrong]
    with pytest.raises(InputError, match="closed"):
        stack[0]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_the_same(tmp_path, kind):
    with open_frames(stored(tmp_path, kind)) as stack:
        results = [None] * 4

        def read(i):
            results[i] = np.stack([stack[j] for j in range(10)])

        threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result in results:
        np.testing.assert_array_equal(result, STACK)


def test_large_files_are_not_read_to_open_or_slice(tmp_path):
    """Eight gigabytes, sparse: reading them whole would not fit."""
    shape = (4000, 1000, 1000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape, "u2", chunks=(1, 1000, 1000))[3999, 7] = 5
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4000 * 1000 * 1000 * 2)
    for name, value in (("a.h5", 5), ("a.npy", 0)):
        with open_frames(tmp_path / name) as stack:
            assert stack.shape == shape
            assert (stack[3998:, 7:9].max(), stack[3999, 7].min()) == (value, value)


# --- TIFF


def test_tiff_variants(tmp_path):
    path = tmp_path / "a.tif"
    cube = STACK.reshape(2, 5, 6, 5)
    writes = {
        "bigtiff": lambda: tifffile.imwrite(path, STACK, photometric="minisblack", bigtiff=True),
        "big-endian": lambda: tifffile.imwrite(path, STACK, photometric="minisblack", byteorder=">"),
        "imagej": lambda: tifffile.imwrite(path, cube, imagej=True, metadata={"axes": "TZYX"}),
        "ome": lambda: tifffile.imwrite(path, cube, ome=True, metadata={"axes": "TZYX"}),
        "4-D": lambda: tifffile.imwrite(path, cube, photometric="minisblack"),
        "4-D compressed": lambda: tifffile.imwrite(
            path, cube, photometric="minisblack", compression="lzw", predictor=True
        ),
    }
    for name, write in writes.items():
        write()
        with open_frames(path) as stack:
            assert stack.shape == STACK.shape, name
            check_same(stack, STACK)


def test_tiff_tiled(tmp_path):
    frames = np.arange(3 * 40 * 50, dtype="f4").reshape(3, 40, 50)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", tile=(16, 16))
    check_same(open_frames(tmp_path / "a.tif"), frames)


def test_tiff_appended_pages_are_one_stack(tmp_path):
    """A loop of `write` makes a series of every page."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in STACK:
            file.write(frame)
    check_same(open_frames(tmp_path / "a.tif"), STACK)


def test_tiff_that_mixes_frames_or_has_colours_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(STACK[0])
        file.write(STACK[0, :3])
    tifffile.imwrite(tmp_path / "rgba.tif", np.zeros((6, 5, 4), "u1"), photometric="rgb")
    palette = np.zeros((3, 256), "u2")
    tifffile.imwrite(tmp_path / "map.tif", np.zeros((6, 5), "u1"), photometric="palette", colormap=palette)
    for name, text in (("mixed", "one shape"), ("rgba", "4 samples"), ("map", "colour")):
        with pytest.raises(FileFormatError, match=text):
            open_frames(tmp_path / f"{name}.tif")


def test_series_is_sorted_naturally(tmp_path):
    for i in (10, 2, 1):
        tifffile.imwrite(tmp_path / f"frame_{i}.TIF", np.full((6, 5), i, "u2"))
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame_1.tif").write_text("left by another system")
    folder = tmp_path.rename(tmp_path.with_name("scan[1]"))
    for path in (folder, folder / "frame_*.TIF", folder.parent / "sca?[[]1]" / "frame_*.TIF"):
        np.testing.assert_array_equal(open_frames(path)[:, 0, 0], [1, 2, 10])


@pytest.mark.parametrize("odd", [np.zeros((6, 4), "u2"), np.zeros((6, 5), "f4"), STACK])
def test_odd_one_of_a_series_is_named(tmp_path, odd):
    for i in range(4):
        tifffile.imwrite(tmp_path / f"frame_{i}.tif", STACK[i])
    tifffile.imwrite(tmp_path / "frame_0.tif", odd, photometric="minisblack")
    with pytest.raises(FileFormatError, match=r"frame_0\.tif"):
        open_frames(tmp_path)


def test_series_changed_or_gone_after_opening(tmp_path):
    stack = open_frames(stored(tmp_path, "series"))
    (tmp_path / "series" / "frame_1.tif").unlink()
    tifffile.imwrite(tmp_path / "series" / "frame_2.tif", np.zeros((6, 5), "f4"))
    np.testing.assert_array_equal(stack[0], STACK[0])
    with pytest.raises(MissingFileError, match="frame_1"):
        stack[1]
    with pytest.raises(DamagedFileError, match=r"frame_2.*changed"):
        stack[2]


def test_series_that_is_none(tmp_path):
    with pytest.raises(FileFormatError, match="holds no"):
        open_frames(tmp_path)
    with pytest.raises(MissingFileError, match="No file matches"):
        open_frames(tmp_path / "frame_*.tif")
    (tmp_path / "frame.txt").write_text("x")
    with pytest.raises(FileFormatError, match="TIFF files only"):
        open_frames(tmp_path / "frame*")


def test_missing_codec_names_the_extra(tmp_path):
    """In a process of its own: tifffile looks for imagecodecs once."""
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", compression="lzw")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from detectorcal.io import open_frames\n"
        "try: open_frames(sys.argv[1])[0]\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith("MissingDependencyError")
    assert 'pip install "detectorcal[codecs]"' in done.stdout
    assert not done.stderr


# --- truncated and mistaken files


def truncations(folder: Path) -> dict[str, Path]:
    """Save enough frames that the ends of the files hold pixels or page headers."""
    frames = np.random.default_rng(0).integers(0, 999, (12, 32, 32), "u2")
    paths = {
        name: folder / name
        for name in ("plain.tif", "zlib.tif", "pages.tif", "ij.tif", "a.h5", "a.npy", "a.npz")
    }
    tifffile.imwrite(paths["plain.tif"], frames, photometric="minisblack")
    tifffile.imwrite(paths["zlib.tif"], frames, photometric="minisblack", compression="zlib")
    tifffile.imwrite(paths["ij.tif"], frames, imagej=True)
    with tifffile.TiffWriter(paths["pages.tif"]) as file:
        for frame in frames:
            file.write(frame, metadata=None, photometric="minisblack")
    with h5py.File(paths["a.h5"], "w") as file:
        file["data"] = frames
    np.save(paths["a.npy"], frames)
    np.savez(paths["a.npz"], frames)
    return paths


@pytest.mark.parametrize("kept", [0.0, 0.0008, 0.02, 0.3, 0.7, 0.97])
def test_truncated_files_never_read_as_fewer_frames(tmp_path, kept, caplog):
    for name, path in truncations(tmp_path).items():
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises((DamagedFileError, FileFormatError)) as caught:
            open_frames(path)[:]
        assert path.name in str(caught.value)
        assert isinstance(caught.value, DamagedFileError) or 0 < kept < 0.001, name
    assert not caplog.records


def test_damaged_chunks(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=STACK, chunks=(5, 6, 5))
    chunk = tmp_path / "a.zarr" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with open_frames(tmp_path / "a.zarr") as stack:
        np.testing.assert_array_equal(stack[:5], STACK[:5])
        with pytest.raises(DamagedFileError, match="frames 5 to 9"):
            stack[5:]
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(DamagedFileError, match="metadata"):
        open_frames(tmp_path / "a.zarr")

    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("x", data=STACK, chunks=(10, 6, 5), fletcher32=True)
        offset = data.id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[offset] ^= 1
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(DamagedFileError, match="frames 0 to 9"):
        open_frames(tmp_path / "a.h5")[:]


@pytest.mark.parametrize("suffix", [".tif", ".h5", ".npy", ".npz"])
def test_another_kind_under_our_suffix(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(FileFormatError, match=rf"a\{suffix}.*is a PNG file"):
        open_frames(path)


def test_hdf5_file_that_is_being_written(tmp_path):
    """By another process: within one, the HDF5 library would share the file."""
    code = (
        "import sys; from detectorcal.io import open_frames\n"
        "try: open_frames(sys.argv[1])\n"
        "except PermissionError as error: print(type(error).__name__, error)"
    )
    with h5py.File(tmp_path / "a.h5", "w", locking=True) as file:
        file["x"] = STACK
        file.flush()
        run = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
        done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith("AccessError")
    assert "no program is writing it" in done.stdout


def test_names_that_lead_nowhere(tmp_path):
    for name in ("a.tif", "a.h5", "a.h5:/data", "a.zarr", "a.npy", "a.npz", "folder", "*.tif"):
        with pytest.raises(MissingFileError) as caught:
            open_frames(tmp_path / name)
        assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "a.raw").touch()
    with pytest.raises(InputError, match=r"'\.raw'; known are \.tif, .*\.npz"):
        open_frames(tmp_path / "a.raw")
    with pytest.raises(InputError, match="NoneType"):
        open_frames(None)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(FileFormatError, match="no zarr metadata"):
        open_frames(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    ("text", "file", "inside"),
    [
        ("a.h5:/b/c", "a.h5", "b/c"),
        ("C:\\data\\a.H5:/b", "C:\\data\\a.H5", "b"),
        ("C:\\data\\a.nxs", "C:\\data\\a.nxs", ""),
        ("x.h5.old/a.hdf5:b.h5", "x.h5.old/a.hdf5", "b.h5"),
        ("s.zarr:/g/", "s.zarr", "g"),
        ("a.npz:key", "a.npz", "key"),
    ],
)
def test_dataset_is_split_behind_the_suffix(tmp_path, monkeypatch, text, file, inside):
    monkeypatch.chdir(tmp_path)
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).touch()
    location = locate(text)
    assert (str(location.path), location.inside) == (file, inside)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "S3", "O", "M8[s]", "i4,f4"])
def test_values_that_are_no_numbers_are_refused(tmp_path, dtype):
    array = np.zeros((3, 4, 5), dtype)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(FileFormatError, match=r"must hold real numbers"):
        open_frames(tmp_path / "a.npy")
    with pytest.raises(FileFormatError, match=r"must hold real numbers"):
        open_frames(tmp_path / "a.npz")


def test_shapes_that_are_no_stack_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    for shape, line in [((), False), ((5,), False), ((2, 2, 2, 2), False), ((2, 2, 2), True)]:
        np.save(path, np.ones(shape))
        with pytest.raises(FileFormatError, match="must have the shape"):
            open_frames(path, line=line)
    for shape in [(0, 4, 5), (3, 0, 5), (0, 5)]:
        np.save(path, np.ones(shape))
        with pytest.raises(FileFormatError, match="empty"):
            open_frames(path)


# --- lines


def test_lines(tmp_path):
    lines = np.arange(12, dtype="u2").reshape(3, 4)
    np.save(tmp_path / "a.npy", lines)
    np.save(tmp_path / "one.npy", lines[0])
    np.savez(tmp_path / "a.npz", lines)
    zarr.create_array(str(tmp_path / "a.zarr"), data=lines)
    tifffile.imwrite(tmp_path / "a.tif", lines)
    tifffile.imwrite(tmp_path / "zlib.tif", lines, compression="zlib")
    tifffile.imwrite(tmp_path / "pages.tif", lines[:, np.newaxis], photometric="minisblack")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = lines
        file["volume"] = STACK
    for name in ("a.npy", "a.npz", "a.zarr", "a.tif", "zlib.tif", "pages.tif", "a.h5"):
        with open_frames(tmp_path / name, line=True) as stack:
            check_same(stack, lines)
            np.testing.assert_array_equal(stack[[2, 0], 1:3], lines[[2, 0], 1:3])
    check_same(open_frames(tmp_path / "one.npy", line=True), lines[:1])
    tifffile.imwrite(tmp_path / "area.tif", STACK, photometric="minisblack")
    with pytest.raises(FileFormatError, match="line=True"):
        open_frames(tmp_path / "area.tif", line=True)
    with pytest.raises(InputError, match="area frames"):
        open_frames(tmp_path, line=True)


# --- HDF5


@pytest.mark.parametrize("entry", ["entry", "entry1/tomo_entry"])
@pytest.mark.parametrize("place", ["instrument/detector", "data", "elsewhere/deep"])
def test_nxtomo_with_scattered_keys(tmp_path, entry, place):
    key = [2, 1, 0, 0, 0, 1, 3, 0, 2, 1, 0]
    frames = nxtomo(tmp_path / "a.nxs", key, entry, place)
    with open_frames(tmp_path / "a.nxs") as stack:
        assert stack.layout == "nxtomo"
        check_same(stack, frames[[2, 3, 4, 7, 10]])
        check_same(stack.flats, frames[[1, 5, 9]])
        check_same(stack.darks, frames[[0, 8]])
        np.testing.assert_array_equal(stack.angles, [4.0, 6.0, 8.0, 14.0, 20.0])
        np.testing.assert_array_equal(stack[1:4, 0, 0], [3, 4, 7])
        darks = stack.darks
        stack.flats.close()
        check_same(stack, frames[[2, 3, 4, 7, 10]])
    with pytest.raises(InputError, match="closed"):
        darks[0]
    with open_frames(f"{tmp_path / 'a.nxs'}:/{entry}/data/data") as stack:
        check_same(stack, frames)
        assert (stack.layout, stack.flats, stack.darks, stack.angles) == (None, None, None, None)


def test_nxtomo_reads_runs_not_frames(tmp_path, monkeypatch):
    nxtomo(tmp_path / "a.nxs", [0] * 6 + [1] * 3 + [0] * 6)
    reads = []
    read_direct = h5py.Dataset.read_direct
    monkeypatch.setattr(
        h5py.Dataset,
        "read_direct",
        lambda self, out, source: (reads.append(source[0]), read_direct(self, out, source)),
    )
    with open_frames(tmp_path / "a.nxs") as stack:
        assert not reads
        stack[2:10]
    assert reads == [slice(2, 6), slice(9, 13)]


def test_nxtomo_that_cannot_be_meant(tmp_path):
    path = tmp_path / "a.nxs"
    nxtomo(path, [1, 1, 2])
    with pytest.raises(FileFormatError, match=r"no projection.*2 flats and 1 darks.*:/entry/data/data"):
        open_frames(path)
    frames = nxtomo(path, [0, 0], "second")
    with pytest.raises(FileFormatError, match=r"several NXtomo entries: /entry, /second"):
        open_frames(path)
    check_same(open_frames(f"{path}:/second"), frames)
    with h5py.File(path, "a") as file:
        del file["second/instrument/detector/image_key"]
        file["second/instrument/detector/image_key"] = [0]
    with pytest.raises(FileFormatError, match="2 frames, but an image_key of shape"):
        open_frames(f"{path}:/second")


def test_angles_come_in_degrees(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = STACK
        file["exchange/data_white"] = STACK[:0]
        file["exchange/theta"] = np.linspace(0, np.pi, 10)
        file["exchange/theta"].attrs["units"] = "rad"
    with open_frames(tmp_path / "a.h5") as stack:
        np.testing.assert_allclose(stack.angles, np.linspace(0, 180, 10))
        assert stack.flats is None
        assert stack.darks is None


def test_several_datasets_are_listed(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw/a"] = STACK
        file["raw/hardlink"] = file["raw/a"]
        file["image"] = STACK[0]
        file["names"] = ["x", "y"]
        file["scalar"] = 1.0
        file["loop"] = h5py.SoftLink("/")
    check_same(open_frames(path), STACK)
    with h5py.File(path, "a") as file:
        file["raw/b"] = STACK[:3].astype("f4")
    with pytest.raises(FileFormatError, match=r"/raw/a \(10, 6, 5\), /raw/b \(3, 6, 5\).*a\.h5:/raw/a"):
        open_frames(path)
    check_same(open_frames(f"{path}:raw/b"), STACK[:3].astype("f4"))
    check_same(open_frames(f"{path}:/image"), STACK[:1])
    with pytest.raises(FileFormatError, match=r"names nothing.*/raw/a \(10, 6, 5\)"):
        open_frames(f"{path}:/raw/c")
    with pytest.raises(FileFormatError, match="Python objects"):
        open_frames(f"{path}:/names")


def test_one_image_among_scalars(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = STACK[0].astype(">u2")
        file["one"] = [[1.0]]
    check_same(open_frames(tmp_path / "a.h5"), STACK[:1])


def test_links_to_other_files(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = STACK
    layout = h5py.VirtualLayout((10, 6, 5), "u2")
    layout[:] = h5py.VirtualSource("part.h5", "x", STACK.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = h5py.ExternalLink("part.h5", "x")
        file["gone"] = h5py.ExternalLink("nowhere.h5", "x")
        file["soft"] = h5py.SoftLink("/nothing")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    check_same(open_frames(tmp_path / "a.h5"), STACK)
    check_same(open_frames(tmp_path / "virtual.h5"), STACK)
    with pytest.raises(MissingFileError, match=r"links to `x` in `nowhere\.h5`"):
        open_frames(f"{tmp_path / 'a.h5'}:/gone")
    with pytest.raises(FileFormatError, match="names nothing"):
        open_frames(f"{tmp_path / 'a.h5'}:/soft")
    (tmp_path / "part.h5").unlink()
    with pytest.raises(MissingFileError, match=r"part\.h5` is missing"):
        open_frames(tmp_path / "virtual.h5")  # which HDF5 would read as zeros


def test_bitshuffle(tmp_path):
    """In processes of their own: once imported, hdf5plugin stays registered."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=STACK, chunks=(1, 6, 5), **hdf5plugin.Bitshuffle())
    code = (
        "import sys\n"
        "if sys.argv[2] == 'without': sys.modules['hdf5plugin'] = None\n"
        "from detectorcal.io import open_frames\n"
        "try: print(open_frames(sys.argv[1])[:].sum())\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    outputs = {}
    for plugin in ("with", "without"):
        run = [sys.executable, "-c", code, str(tmp_path / "a.h5"), plugin]
        environment = {"PATH": "", "HDF5_PLUGIN_PATH": str(tmp_path)}
        done = subprocess.run(
            run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1], env=environment
        )
        outputs[plugin] = done.stdout
    assert int(outputs["with"]) == STACK.sum()
    assert outputs["without"].startswith(MissingDependencyError.__name__)
    assert 'pip install "detectorcal[codecs]"' in outputs["without"]


# --- zarr and npz


@pytest.mark.parametrize("line", [False, True])
def test_a_stack_beside_a_map_is_chosen_alike_in_hdf5_and_zarr(tmp_path, line):
    stack, image = np.arange(60.0).reshape(3, 4, 5), np.ones((4, 5))
    group = zarr.open_group(str(tmp_path / "two.zarr"), mode="w")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for name, values in (("stack", stack), ("map", image)):
            file[name] = values
            group.create_array(name, shape=values.shape, dtype=values.dtype)[...] = values
    for name in ("two.h5", "two.zarr"):
        with open_frames(tmp_path / name, line=line) as frames:
            np.testing.assert_array_equal(frames[:], image if line else stack)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_groups(tmp_path, zarr_format):
    path = tmp_path / "a.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    with pytest.raises(FileFormatError, match="arrays are: none"):
        open_frames(path)
    root.create_array("scan/raw", shape=STACK.shape, dtype="u2", chunks=(5, 6, 5))[:] = STACK
    check_same(open_frames(path), STACK)
    root.create_array("angles", shape=(10,), dtype="f8")
    check_same(open_frames(path), STACK)
    root.create_array("scan/flat", shape=(2, 6, 5), dtype="u2")[:] = 7
    with pytest.raises(FileFormatError, match=r"scan/flat \(2, 6, 5\), scan/raw \(10, 6, 5\).*a\.zarr:/"):
        open_frames(path)
    for name in (f"{path}:/scan/raw", f"{path}:scan/raw", path / "scan" / "raw"):
        check_same(open_frames(name), STACK)
    with pytest.raises(FileFormatError, match="no zarr metadata"):
        open_frames(f"{path}:/scan/dark")


def test_zarr_moved_aside_by_a_dead_writer_is_found(tmp_path):
    zarr.create_array(str(tmp_path / ".a.zarr.replaced"), data=STACK)
    check_same(open_frames(tmp_path / "a.zarr"), STACK)


def test_npz_keys(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, sweep=STACK, dark=STACK[0])
    with pytest.raises(FileFormatError, match=r"holds sweep, dark.*a\.npz:sweep"):
        open_frames(path)
    check_same(open_frames(f"{path}:sweep"), STACK)
    check_same(open_frames(f"{path}:dark"), STACK[:1])
    with pytest.raises(FileFormatError, match="no array `flat`"):
        open_frames(f"{path}:flat")


# --- writing


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_written_frames_come_back(tmp_path, name, dtype):
    frames = STACK.astype(dtype)
    with create_frames(
        tmp_path / name, STACK.shape, dtype, attributes={"a": "é", "n": [1, np.int64(2)]}
    ) as out:
        assert (out.shape, out.dtype) == (STACK.shape, dtype)
        out[0] = frames[0]
        out[6:10] = frames[6:]
        out[1:6] = frames[1:6].astype(frames.dtype.newbyteorder(">"))
        assert not (tmp_path / name).exists()
    check_same(open_frames(tmp_path / name), frames)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 4, 3), (3, 1, 4), (3, 4, 1), (1, 4, 5), (4, 3), (1, 3), (4, 1)]
)
def test_small_shapes_come_back(tmp_path, name, shape):
    frames = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    with create_frames(tmp_path / name, shape, "f4") as out:
        out[...] = frames
    check_same(open_frames(tmp_path / name, line=len(shape) == 2), frames)


def test_owners_read_what_was_written(tmp_path):
    attributes = {"sigma": 50.0, "method": "croton", "history": {"steps": ["fit"]}}
    for name in ("a.h5", "b.h5:/some/data", "a.zarr", "a.tif", "a.npy"):
        with create_frames(tmp_path / name, STACK.shape, "uint16", attributes=attributes) as out:
            out[:] = STACK
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert list(a) == ["data"]
        assert a["data"].chunks is None
        np.testing.assert_array_equal(a["data"], STACK)
        np.testing.assert_array_equal(b["some/data"], STACK)
        assert a["data"].attrs["sigma"] == 50.0
        assert json.loads(a["data"].attrs["history"]) == attributes["history"]
    array = zarr.open_array(str(tmp_path / "a.zarr"), mode="r")
    assert array.metadata.zarr_format == 3
    assert dict(array.attrs) == attributes
    np.testing.assert_array_equal(array[:], STACK)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), STACK)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        np.testing.assert_array_equal(tif.asarray(), STACK)
        assert len(tif.pages) == 10
        assert not tif.is_bigtiff
        assert json.loads(tif.pages[0].description) == {"shape": [10, 6, 5], **attributes}


def test_chunks(tmp_path):
    for name in ("a.h5", "a.zarr"):
        with create_frames(tmp_path / name, STACK.shape, "uint16", chunks=(5, 6, 5)) as out:
            out[:] = STACK
        check_same(open_frames(tmp_path / name), STACK)
    assert h5py.File(tmp_path / "a.h5")["data"].chunks == (5, 6, 5)
    assert zarr.open_array(str(tmp_path / "a.zarr"), mode="r").chunks == (5, 6, 5)


@pytest.mark.parametrize("layout", ["nxtomo", "dxchange"])
@pytest.mark.parametrize("angles", [None, np.linspace(0, 180, 10)])
def test_layouts_come_back(tmp_path, layout, angles):
    path = tmp_path / "a.nxs"
    with create_frames(path, STACK.shape, "uint16", layout=layout, angles=angles) as out:
        out[:] = STACK
    with open_frames(path) as stack:
        check_same(stack, STACK)
        assert stack.layout == layout
        if angles is None:
            assert stack.angles is None
        else:
            np.testing.assert_array_equal(stack.angles, angles)
        if layout == "dxchange":  # normalising again changes nothing
            flat, dark = stack.flats[0].astype(float), stack.darks[0]
            np.testing.assert_array_equal((stack[:] - dark) / (flat - dark), STACK)
        else:
            assert stack.flats is None
            assert stack.darks is None


def test_nxtomo_is_as_nexus_defines_it(tmp_path):
    with create_frames(
        tmp_path / "a.nxs", STACK.shape, "uint16", layout="nxtomo", angles=np.arange(10)
    ) as out:
        out[:] = STACK
    with h5py.File(tmp_path / "a.nxs") as file:
        entry = file["entry"]
        assert entry.attrs["NX_class"] == "NXentry"
        assert entry["definition"].asstr()[()] == "NXtomo"
        assert entry["instrument/detector"].attrs["NX_class"] == "NXdetector"
        assert entry["data/data"] == entry["instrument/detector/data"]
        assert not entry["instrument/detector/image_key"][()].any()
        for place in ("data", "sample"):
            np.testing.assert_array_equal(entry[f"{place}/rotation_angle"], np.arange(10))


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_interrupted_writing_leaves_no_trace(tmp_path, name, failure):
    path = tmp_path / name
    with pytest.raises(failure), create_frames(path, STACK.shape, "uint16") as out:
        out[0:5] = STACK[:5]
        raise failure
    assert not list(tmp_path.iterdir())
    with create_frames(path, STACK.shape, "uint16") as out:
        out[:] = STACK
    with pytest.raises(failure), create_frames(path, (1, 2, 2), "uint16", overwrite=True) as out:
        raise failure
    check_same(open_frames(path), STACK)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_missing_frames_and_existing_outputs(tmp_path, name):
    path = tmp_path / name
    message = r"Only 9 of 10 frames.*missing one is 4"
    with pytest.raises(InputError, match=message), create_frames(path, STACK.shape, "uint16") as out:
        out[:4] = STACK[:4]
        out[5:] = STACK[5:]
    assert not list(tmp_path.iterdir())
    for value in (0, 1):
        with create_frames(path, (1, 6, 5), "uint16", overwrite=bool(value)) as out:
            out[0] = np.full((6, 5), value, "uint16")
    assert open_frames(path)[0, 0, 0] == 1
    with pytest.raises(OutputExistsError, match="overwrite=True"), create_frames(path, (1, 6, 5), "uint16"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("name", ["a.h5", "a.tif", "a.npy", "a.zarr"])
def test_full_disk(tmp_path, monkeypatch, name):
    path = tmp_path / name
    with create_frames(path, STACK.shape, "uint16") as out:
        out[:] = STACK

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(WriteError, match="Free some space") as caught,
        create_frames(path, STACK.shape, "uint16", overwrite=True) as out,
    ):
        out[0:5] = STACK[:5] + 1
        monkeypatch.setattr(zarr.Array, "__setitem__", full)
        monkeypatch.setattr(RawSink, "put", full)
        out[5:10] = STACK[5:]
    assert path.name in str(caught.value)
    assert isinstance(caught.value, DetectorcalError)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    check_same(open_frames(path), STACK)


@pytest.mark.parametrize("name", ["a.h5", "a.tif", "a.npy", "a.zarr"])
def test_file_system_that_refuses_more(tmp_path, name):
    """A real refusal, by a limit on the size of files, in a process that must end in good order."""
    code = (
        "import resource, signal, sys\n"
        "import numpy as np\n"
        "from detectorcal.io import create_frames\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "frames = np.random.default_rng(0).random((4, 300, 300))\n"
        "try:\n"
        "    with create_frames(sys.argv[1], frames.shape, 'f8', chunks=None) as out:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "        for i in range(4): out[i] = frames[i]\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    pytest.importorskip("resource")
    run = [sys.executable, "-c", code, str(tmp_path / name)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.startswith("WriteError")
    assert name in done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_fit_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match="Only 0 of 10"),
        create_frames(tmp_path / "a.npy", STACK.shape, "u2") as out,
    ):
        for index, frames, text in [
            (0, STACK[:1], r"must have the shape \(6, 5\)"),
            (slice(0, 4), STACK[:3], r"must have the shape \(4, 6, 5\)"),
            (slice(8, 12), STACK[:4], r"must have the shape \(2, 6, 5\)"),
            (slice(0, 4, 2), STACK[:2], "step 1"),
            (10, STACK[0], "no frame number"),
            (0, STACK[0].astype("f4"), "float32, but .* uint16"),
        ]:
            with pytest.raises(InputError, match=text):
                out[index] = frames


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("a.raw", {}, "suffix"),
        ("a.npz", {}, "reading only"),
        ("a.zarr:/x", {}, "only HDF5"),
        ("a.tif", {"layout": "nxtomo"}, "HDF5"),
        ("a.h5:/x", {"layout": "nxtomo"}, "without a dataset name"),
        ("a.h5", {"layout": "nexus"}, "'nxtomo', 'dxchange'"),
        ("a.h5", {"layout": "nxtomo", "shape": (3, 4)}, "area frames"),
        ("a.h5", {"angles": [1, 2, 3]}, "only with layout"),
        ("a.h5", {"layout": "dxchange", "angles": [1, 2]}, r"\(3,\)"),
        ("a.npy", {"chunks": (1, 4, 5)}, "`chunks`"),
        ("a.h5", {"chunks": (1, 4)}, "`chunks`"),
        ("a.h5", {"chunks": (9, 4, 5)}, "cannot hold"),
        ("a.h5", {"shape": (3, 0, 5)}, "positive"),
        ("a.h5", {"shape": (3, 4.5, 5)}, "positive"),
        ("a.h5", {"shape": 3}, "positive"),
        ("a.h5", {"dtype": "complex64"}, "`dtype`"),
        ("a.tif", {"dtype": bool}, "uint8"),
        ("a.tif", {"attributes": {"shape": 1}}, "rename"),
        ("a.h5", {"attributes": {"x": object()}}, "`attributes`"),
    ],
)
def test_contradictory_requests(tmp_path, name, changes, text):
    arguments = {"shape": (3, 4, 5), "dtype": "uint16", **changes}
    with pytest.raises(InputError, match=text), create_frames(tmp_path / name, **arguments):
        pytest.fail("the block must not run")
    assert not list(tmp_path.iterdir())


def test_bigtiff_only_where_needed():
    assert not needs_bigtiff(plan((100, 2048, 2048)))
    assert not needs_bigtiff(plan((500, 2048, 2048)))
    assert needs_bigtiff(plan((512, 2048, 2048)))
    assert needs_bigtiff(plan((256, 2048, 2048), "float32"))
    assert needs_bigtiff(plan((10**7, 1, 1)))  # many headers
    assert needs_bigtiff(plan((10**6, 2048), "float32"))


def test_big_output_is_a_bigtiff_that_imagej_and_we_read(tmp_path):
    """Sparse: only its last frame is ever filled."""
    from detectorcal.io import tiff

    big = plan((1100, 2000, 1000))
    sink = tiff.create(tmp_path / "a.tif", big)
    sink.put(1099, np.full((1, 2000, 1000), 7, "u2"))
    sink.close()
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert len(tif.pages) == 1100
        assert tif.pages[1099].asarray().min() == 7
    with open_frames(tmp_path / "a.tif") as stack:
        assert stack.shape == big.shape
        assert (stack[1098].max(), stack[1099].min()) == (0, 7)


def test_import_is_light():
    code = (
        "import sys, detectorcal.io\n"
        "print([m for m in ('h5py', 'zarr', 'tifffile', 'dask', 'hdf5plugin') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]"


def test_no_warnings_are_left_over(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in OUTPUTS:
            with create_frames(tmp_path / name, STACK.shape, "uint16") as out:
                out[:] = STACK
            open_frames(tmp_path / name)[:]
    assert not [str(w.message) for w in caught if not issubclass(w.category, ResourceWarning)]


class Trap:
    """Unpickled, it makes a folder: proof that code of the file was run."""

    def __reduce__(self):
        return Path.mkdir, (Path("trap"),)


@pytest.mark.parametrize("place", ["filters", "compressor", "object", "v3"])
def test_no_code_of_a_zarr_store_is_run(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    codec = {"id": "pickle"}
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 2, 3]}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    meta = {"zarr_format": 2, "shape": [1, 2, 3], "chunks": [1, 2, 3], "dtype": "<u2", "compressor": None,
            "fill_value": 0, "order": "C", "filters": None}  # fmt: skip
    meta |= {
        "filters": {"filters": [codec]},
        "compressor": {"compressor": codec},
        "object": {"dtype": "|O", "filters": [codec]},
        "v3": {"zarr_format": 3, "node_type": "array", "data_type": "uint16", "chunk_grid": grid,
               "chunk_key_encoding": keys, "codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    }[place]  # fmt: skip
    store = tmp_path / "s.zarr"
    chunk = store / ("c/0/0/0" if place == "v3" else "0.0.0")
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(pickle.dumps(Trap()))
    (store / ("zarr.json" if place == "v3" else ".zarray")).write_text(json.dumps(meta))
    with pytest.raises(DetectorcalError, match=r"s\.zarr"), open_frames(store) as stack:
        stack[:]
    assert not Path("trap").exists()
    pickle.loads(chunk.read_bytes())
    assert Path("trap").exists()  # it would have snapped


def test_frames_that_fit_into_no_memory(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file.create_dataset("data", (2**40, 4, 5), "u2", chunks=(1, 4, 5))
        file["data"][2**39] = 7
    with open_frames(tmp_path / "many.h5") as stack:  # which counts no frames one by one
        assert stack.shape == (2**40, 4, 5)
        assert stack[2**39 - 1 : 2**39 + 1].max(axis=(1, 2)).tolist() == [0, 7]
        assert stack[-1].sum() == 0
        with pytest.raises(TooLargeError, match=r"many\.h5.*Read less at once"):
            stack[:]
    with h5py.File(tmp_path / "more.h5", "w") as file:
        file.create_dataset("data", (2**30, 2**30, 5), "u2", chunks=(1, 4, 5))
    with pytest.raises(DamagedFileError, match="no file holds the shape"):
        open_frames(tmp_path / "more.h5")


def test_keys_and_angles_are_counted_before_they_are_read(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        file["entry/data/data"] = np.ones((3, 4, 5), np.uint16)
        file["entry/data/image_key"] = np.zeros(3, int)
        file.create_dataset("entry/sample/rotation_angle", (2**40,), "f4", chunks=(1000,))
    with open_frames(tmp_path / "scan.nxs") as stack:
        assert stack.angles is None
    with h5py.File(tmp_path / "scan.nxs", "r+") as file:
        del file["entry/data/image_key"]
        file.create_dataset("entry/data/image_key", (2**40,), "u1", chunks=(1000,))
    with pytest.raises(FileFormatError, match="3 frames, but an image_key of shape"):
        open_frames(tmp_path / "scan.nxs")


def test_tiff_pages_in_a_circle(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        pages = [file.pages[i] for i in (0, 2)]
        first, last = (page.offset for page in pages)
        n_tags = len(pages[1].tags)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<I", content, last + 2 + 12 * n_tags, first)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DamagedFileError, match="page 3 leads back"):
        open_frames(tmp_path / "a.tif")


def test_hdf5_chunk_shorter_than_its_checksum(tmp_path):
    """The library would read what lies before it, and crash."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("data", data=STACK, chunks=(2, 6, 5), fletcher32=True)
        dataset.id.write_direct_chunk((4, 0, 0), b"ab")
    with pytest.raises(DamagedFileError, match="a chunk of it has 2 bytes"):
        open_frames(tmp_path / "a.h5")


def test_zarr_in_crumbs(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(3, 2**12, 2**12), chunks=(1, 16, 16), dtype="u2")
    with pytest.raises(FileFormatError, match=r"65536 chunks of \(1, 16, 16\).*larger chunks"):
        open_frames(tmp_path / "a.zarr")
