"""Chunks and compression of outputs: read back by the libraries that own the formats, on full disks too."""

import builtins
import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from detectorcal import DetectorCalibrator, _hdf5
from detectorcal._errors import InputError, MissingDependencyError, WriteError
from detectorcal._hdf5 import Guarded
from detectorcal._streaming import batches
from detectorcal.cli import main
from detectorcal.io import create_frames, open_frames, read_attributes, resume_frames
from detectorcal.io._compression import BUILT_IN, WITH_EXTRA

FRAMES = np.random.default_rng(2).normal(100, 10, (11, 40, 50)).astype("f4")
TOLD = {"a": [1, 2], "inputs": {"image": {"shape": [7]}}}
SUFFIX = {"hdf5": ".h5", "zarr": ".zarr", "tiff": ".tif"}
WORDS = [(kind, word) for words in (BUILT_IN, WITH_EXTRA) for kind in words for word in words[kind]]
SMALLER = {"none": 1.01, "lzf": 0.97, "lz4": 0.97}
"""Of the size of the values; noise in float32 has about 8 bits of 32 that repeat."""


def size_of(path) -> int:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(item.stat().st_size for item in files)


@pytest.mark.parametrize(("kind", "word"), WORDS)
@pytest.mark.parametrize("dtype", ["float32", "uint16", "float64"])
def test_compressed_outputs(tmp_path, kind, word, dtype):
    frames = np.round(FRAMES).astype(dtype) if dtype == "uint16" else FRAMES.astype(dtype)
    path = tmp_path / f"out{SUFFIX[kind]}"
    with create_frames(path, frames.shape, dtype, compression=word, attributes=TOLD) as out:
        for start in range(0, len(frames), 4):
            out[start : start + 4] = frames[start : start + 4]
    assert read_attributes(path) == TOLD
    with open_frames(path) as stack:
        assert (stack.shape, stack.dtype) == (frames.shape, frames.dtype)
        np.testing.assert_array_equal(stack[:], frames)
    foreign = {"hdf5": read_hdf5, "zarr": lambda p: zarr.open_array(p, mode="r")[:], "tiff": tifffile.imread}
    np.testing.assert_array_equal(foreign[kind](path), frames)
    if dtype == "float32":
        assert size_of(path) < SMALLER.get(word, 0.93) * frames.nbytes + 20_000


def read_hdf5(path):
    with h5py.File(path) as file:
        return file["data"][:]


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
@pytest.mark.parametrize("chunks", [(3, 40, 50), (11, 1, 50), (4, 16, 20)])
def test_chunks_are_as_asked(tmp_path, suffix, chunks):
    path = tmp_path / f"out{suffix}"
    with create_frames(path, FRAMES.shape, "f4", chunks=chunks, compression="gzip") as out:
        assert out.step == chunks[0]
        for start in range(0, 11, 2):  # not along the chunks
            out[start : start + 2] = FRAMES[start : start + 2]
    found = h5py.File(path)["data"] if suffix == ".h5" else zarr.open_array(path, mode="r")
    assert found.chunks == chunks
    np.testing.assert_array_equal(found[:], FRAMES)


def test_hdf5_is_shuffled(tmp_path):
    with create_frames(tmp_path / "out.h5", FRAMES.shape, "f4", compression="gzip") as out:
        out[:] = FRAMES
    with h5py.File(tmp_path / "out.h5") as file:
        assert (file["data"].compression, file["data"].shuffle) == ("gzip", True)
        assert file["data"].chunks == FRAMES.shape  # small frames share one


@pytest.mark.parametrize(
    ("name", "word", "told"),
    [
        ("out.h5", "zip", r"gzip, lzf; with the extra `codecs` also zstd, .*; not 'zip'"),
        ("out.zarr", "lzf", r"gzip, zstd, blosc, none; not 'lzf'"),
        ("out.tif", "blosc", r"gzip; with the extra `codecs` also zstd, lzw; not 'blosc'"),
        ("out.npy", "gzip", "for HDF5, zarr and TIFF outputs"),
    ],
)
def test_unknown_words(tmp_path, name, word, told):
    with pytest.raises(InputError, match=told):
        create_frames(tmp_path / name, FRAMES.shape, "f4", compression=word).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "library"), [("out.h5", "hdf5plugin"), ("out.tif", "imagecodecs")])
def test_missing_extra(tmp_path, monkeypatch, name, library):
    plain = builtins.__import__

    def without(module, *rest):
        if module == library:
            raise ImportError(module)
        return plain(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    told = rf"'zstd' needs {library}: pip install \"detectorcal\[codecs\]\". Without it there is gzip"
    with pytest.raises(MissingDependencyError, match=told):
        create_frames(tmp_path / name, FRAMES.shape, "f4", compression="zstd").__enter__()


def test_gzip_tiff_needs_no_extra(tmp_path):
    """In a process that has no imagecodecs."""
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "import numpy as np\n"
        "from detectorcal.io import create_frames, open_frames\n"
        f"path = {str(tmp_path / 'out.tif')!r}\n"
        "with create_frames(path, (2, 30, 40), 'f4', compression='gzip') as out:\n"
        "    out[:] = np.arange(2400, dtype='f4').reshape(2, 30, 40)\n"
        "assert open_frames(path)[1, 29, 39] == 2399\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif").ravel(), np.arange(2400))


def test_compressed_tiff_is_written_in_order(tmp_path):
    with create_frames(tmp_path / "out.tif", FRAMES.shape, "f4", compression="gzip") as out:
        out[:4] = FRAMES[:4]
        with pytest.raises(InputError, match="written in order: 4 is next, not 6"):
            out[6] = FRAMES[6]
        out[4:] = FRAMES[4:]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), FRAMES)
    with pytest.raises(InputError, match="for area frames"):
        create_frames(tmp_path / "line.tif", (11, 50), "f4", compression="gzip").__enter__()


# --- to go on with


@pytest.fixture
def scan(tmp_path):
    np.save(tmp_path / "scan.npy", FRAMES)
    with open_frames(tmp_path / "scan.npy") as stack:
        yield stack


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"chunks": (3, 40, 50)}])
def test_hdf5_in_chunks_is_not_resumed(tmp_path, scan, options):
    with pytest.raises(InputError, match=r"cannot be resumed.*name a \.zarr output"):
        resume_frames(tmp_path / "out.h5", scan.shape, "f4", source=scan, settings={}, **options).__enter__()
    assert [item.name for item in tmp_path.iterdir()] == ["scan.npy"]


@pytest.mark.parametrize("word", BUILT_IN["zarr"])
def test_compressed_zarr_is_resumed(tmp_path, scan, word):
    options = {"source": scan, "settings": {}, "compression": word, "chunks": (3, 20, 50)}
    with (
        pytest.raises(RuntimeError),
        resume_frames(tmp_path / "out.zarr", scan.shape, "f4", **options) as out,
    ):
        out[:7] = FRAMES[:7]
        raise RuntimeError
    torn = tmp_path / "out.zarr.partial" / "c" / "2" / "0" / "0"
    torn.write_bytes(torn.read_bytes()[:10])
    with pytest.raises(InputError, match="not the same: output"):
        other = options | {"compression": "none" if word != "none" else "gzip"}
        resume_frames(tmp_path / "out.zarr", scan.shape, "f4", resume=True, **other).__enter__()
    with resume_frames(tmp_path / "out.zarr", scan.shape, "f4", resume=True, **options) as out:
        assert out.missing() == [slice(6, 11)]  # of the third chunk there was a part
        out[6:] = FRAMES[6:]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr", mode="r")[:], FRAMES)


# --- full disks


class Full:
    """A disk with room for so many bytes of HDF5."""

    def __init__(self, monkeypatch, room: int) -> None:
        self.room = room
        original = _hdf5.write_at

        def write_at(file, offset, values):
            self.room -= values.nbytes
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(file, offset, values)

        monkeypatch.setattr(_hdf5, "write_at", write_at)


@pytest.mark.parametrize("room", [2_000, 40_000, 70_000])
@pytest.mark.parametrize("options", [{"chunks": (1, 40, 50)}, {"compression": "gzip", "chunks": (2, 20, 50)}])
def test_full_disk_leaves_one_error_and_no_file(tmp_path, monkeypatch, room, options):
    Full(monkeypatch, room)
    with (
        pytest.raises(WriteError, match=r"out\.h5` could not be written \(No space left on device\)"),
        create_frames(tmp_path / "out.h5", FRAMES.shape, "f4", **options) as out,
    ):
        for start in range(11):
            out[start] = FRAMES[start]
    assert list(tmp_path.iterdir()) == []


def test_guarded_file_reads_what_was_written(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(b"0123456789")
    guard = Guarded(path)
    guard.seek(8)
    guard.write(b"abcd")
    guard.truncate(20)
    guard.seek(6)
    content = bytearray(20)
    assert guard.readinto(content) == 14
    assert content[:14] == b"67abcd" + bytes(8)
    guard.close()
    assert path.read_bytes() == b"01234567abcd" + bytes(8)


TMPFS = """
import sys
import numpy as np
from detectorcal._errors import DetectorcalError
from detectorcal.io import create_frames
try:
    with create_frames(sys.argv[1], (96, 128, 128), "f4", compression="gzip") as out:
        for number in range(96):
            out[number] = np.random.default_rng(number).random((128, 128), np.float32)
except DetectorcalError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("name", ["out.h5", "out.zarr", "out.tif"])
def test_a_disk_that_is_really_full(small_disk, name):
    """To the end of the process, in which libhdf5 would try again to close its files."""
    command = [sys.executable, "-c", TMPFS, small_disk / name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "could not be written (No space left on device)" in done.stdout
    assert done.stderr == ""
    assert list(small_disk.iterdir()) == []


# --- the command line


@pytest.fixture
def command(tmp_path, capsys):
    """Run `correct` on a scan; give the line on stderr that it fails with."""
    sweep = np.random.default_rng(4).normal(1, 0.02, (40, 50)) * np.linspace(200, 3000, 6)[:, None, None]
    DetectorCalibrator(sigma=3).fit(sweep).save(tmp_path / "cal.h5")
    np.save(tmp_path / "scan.npy", sweep.astype("f4"))

    def run(output: str, *words: str) -> str:
        told = [
            "correct",
            tmp_path / "scan.npy",
            "-c",
            tmp_path / "cal.h5",
            "-o",
            tmp_path / output,
            "-q",
            *words,
        ]
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in told])
        error = capsys.readouterr().err
        assert (stop.value.code or 0, error.count("\n")) in ((0, 0), (2, 1))
        return error

    return run


@pytest.mark.parametrize(
    ("output", "words", "chunks"),
    [
        ("out.h5", ["--compression", "gzip"], (6, 40, 50)),
        ("out.h5", ["--chunks", "2", "--compression", "bitshuffle"], (2, 40, 50)),
        ("out.h5", ["--chunks", "6x1x50"], (6, 1, 50)),
        ("out.zarr", ["--chunks", "50", "--compression", "blosc", "--resume"], (6, 40, 50)),
        ("out.tif", ["--compression", "zstd"], None),
    ],
)
def test_command(command, tmp_path, output, words, chunks):
    assert command("plain.npy") == command(output, *words) == ""
    with open_frames(tmp_path / output) as stack:
        np.testing.assert_array_equal(stack[:], np.load(tmp_path / "plain.npy"))
    if chunks is not None:
        found = (
            h5py.File(tmp_path / output)["data"] if output == "out.h5" else zarr.open_array(tmp_path / output)
        )
        assert found.chunks == chunks


@pytest.mark.parametrize(
    ("output", "words", "told"),
    [
        ("out.h5", ["--compression", "zip"], "gzip, lzf; with the extra `codecs` also"),
        ("out.npy", ["--compression", "gzip"], "for HDF5, zarr and TIFF outputs"),
        ("out.tif", ["--chunks", "2"], "`--chunks` are for HDF5 and zarr outputs"),
        ("out.h5", ["--chunks", "2x0x3"], "a shape as in 8x256x256, not '2x0x3'"),
        ("out.h5", ["--chunks", "2x3"], "`--chunks` must be 3 positive integers"),
        ("out.h5", ["--chunks", "60x40x50"], "as asked"),
        (
            "out.h5",
            ["--compression", "gzip", "--resume"],
            "which is written as a whole. Name an output .zarr",
        ),
        ("out.h5", ["--chunks", "2", "--scheduler", "local"], "`--scheduler` is not for an HDF5 output with"),
    ],
)
def test_command_refuses(command, tmp_path, output, words, told):
    assert told in command(output, *words)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cal.h5", "scan.npy"]


def test_parts_go_along_the_chunks_of_the_output(scan):
    """So that none is compressed twice."""
    assert scan.part(slice(0, 8), step=3).step == 3
    assert [batch.stop for batch in batches(scan.part(slice(0, 11), step=3), 20)] == [11]
    assert batches(scan.part(slice(0, 11), step=3), 1)[0].stop == 8  # not at any price
