"""Parts of a stack, in frames and in pixels, against the same part of the array."""

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectorcal.io import create_frames, open_frames
from detectorcal.io._partial import identity

FRAMES = np.random.default_rng(5).integers(0, 2**16, (7, 9, 11), np.uint16)
NAMES = ["scan.tif", "scan.h5", "scan.zarr", "scan.npy"]


@pytest.fixture(scope="module", params=NAMES)
def stack(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("window") / request.param
    with create_frames(path, FRAMES.shape, FRAMES.dtype) as out:
        out[:] = FRAMES
    with open_frames(path) as opened:
        yield opened


def slices(size: int) -> st.SearchStrategy[slice]:
    """Slices that choose something, with steps."""
    edges = st.tuples(st.integers(0, size - 1), st.integers(1, size), st.integers(1, 3))
    return edges.filter(lambda e: e[0] < e[1]).map(lambda e: slice(*e))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=slices(9), columns=slices(11), again=slices(4), run=slices(7))
def test_window_of_window_is_that_of_the_array(stack, rows, columns, again, run):
    expected = FRAMES[:, rows, columns]
    part = stack.window(rows, columns)
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part[:], expected)
    np.testing.assert_array_equal(part[-1, ::-1, 0], expected[-1, ::-1, 0])
    if expected[:, again].size:
        expected, part = expected[:, again], part.window(again, slice(None))
    expected, part = expected[run], part.part(run)
    np.testing.assert_array_equal(part[:], expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part))[:], expected)


def test_frames_are_chosen_by_numbers_too(stack):
    np.testing.assert_array_equal(stack.part(np.array([5, 0, 2]))[:], FRAMES[[5, 0, 2]])
    chosen = FRAMES.mean(axis=(1, 2)) > FRAMES.mean()
    np.testing.assert_array_equal(stack.part(chosen)[1:], FRAMES[chosen][1:])


@pytest.mark.parametrize(
    "window",
    [(slice(3, 3), slice(None)), (slice(None), slice(20, 30)), (slice(None, None, -1), slice(None)),
     (slice(None),), (1, 2)],
)  # fmt: skip
def test_empty_and_backward_windows_are_refused(stack, window):
    with pytest.raises(ValueError, match="window"):
        stack.window(*window)


def test_nothing_is_chosen_by_mistake(stack):
    with pytest.raises(ValueError, match=r"has 7 frames, of which .* chooses none"):
        stack.part(slice(7, 9))


def test_only_the_window_is_read(tmp_path):
    """A chunk outside the window may even be damaged."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", data=FRAMES, chunks=(1, 9, 1), fletcher32=True)
        spoilt = dataset.id.get_chunk_info_by_coord((3, 0, 10)).byte_offset
    content = bytearray(path.read_bytes())
    content[spoilt] ^= 255
    path.write_bytes(content)
    with open_frames(path) as frames:
        np.testing.assert_array_equal(frames.window(slice(None), slice(0, 10))[:], FRAMES[:, :, :10])
        with pytest.raises(OSError, match="damaged"):
            frames[3]


def test_flats_and_darks_are_cut_alike(tmp_path):
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file["entry/instrument/detector/data"] = FRAMES
        file["entry/instrument/detector/image_key"] = [2, 1, 0, 0, 0, 1, 3]
        file["entry/sample/rotation_angle"] = np.arange(7.0)
    with open_frames(path) as frames:
        part = frames.window(slice(2, 8, 2), slice(4, None))
        np.testing.assert_array_equal(part[:], FRAMES[2:5, 2:8:2, 4:])
        np.testing.assert_array_equal(part.flats[:], FRAMES[[1, 5], 2:8:2, 4:])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(part.darks))[:], FRAMES[:1, 2:8:2, 4:])
        half = part.part(slice(None, None, 2))
        np.testing.assert_array_equal(half.angles, [2, 4])
        told = [identity(stack).get("part") for stack in (frames, part, half)]
        assert told[0] != told[1] != told[2]
        assert told[1]["pixels"] == [[2, 8, 2], [4, 11, 1]]


def test_a_whole_stack_is_told_as_before(stack):
    assert "part" not in identity(stack)
    assert identity(stack.window(slice(0, 1), slice(None)))["part"] == {"pixels": [[0, 1, 1], [0, 11, 1]]}
