"""What must make no difference: to the last bit, or to 1e-7 where sums are taken in another order.

Every example is small: what cuts frames and detectors to pieces is made to cut at a few hundred pixels.
"""

import hashlib
from functools import cache
from itertools import pairwise

import dask.array
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from detectorcal import DetectorCalibrator, _execution, _streaming
from detectorcal.io import create_frames, open_frames
from detectorcal.simulate import Detector, beam_profile, exposure_ladder

few = settings(max_examples=10, derandomize=True, deadline=None, database=None)
ORDER = 1e-7  # another order of float32 sums in runs of 8, of differences that are 2 % of the frames
LINE, AREA, TALL = (130,), (24, 37), (100, 40)
shapes = st.sampled_from([LINE, AREA, TALL])
# a noisy frame of the sweep serves as flat, and may outshine the others here and there; parts span little
pytestmark = pytest.mark.filterwarnings(
    "ignore:the flat is brighter",
    "ignore:the images are brighter",
    "ignore:.* have changed since the sweep",
    "ignore:the flat is saturated",
    "ignore:the intensities of the sweep differ",
    "ignore:.*not to be relied on",  # where spots are left in
    "ignore:.*frames take no part",
)

methods = st.sampled_from(["croton", "photon", "curved"])
FITTED = ("coef_", "coef_std_", "defects_", "dark_")


@pytest.fixture(scope="module", autouse=True)
def _small_pieces():
    """Blocks of 16 rows, parts of a frame or two, batches of 8 frames: all that large detectors meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_execution, "BLOCK_PIXELS", 1000)
        patch.setattr(_streaming, "BATCH_BYTES", 20_000)
        patch.setattr(_streaming, "IN_MEMORY", 1)
        yield


@cache
def _recorded(shape, n_frames, dtype):
    bits = {"uint8": 8, "uint16": 14}.get(dtype)
    detector = Detector.random(shape, dark=20.0, read_noise=1.0, system_gain=0.05, bits=bits, seed=1)
    highest = 210.0 if dtype == "uint8" else 3000.0
    ladder = exposure_ladder(beam_profile(shape), n_frames, lowest=0.1 * highest, highest=highest)
    sweep, darks = detector.record(ladder, seed=2).astype(dtype), detector.darks(5, seed=3).astype(dtype)
    for array in (sweep, darks):
        array.flags.writeable = False  # so every test here is one of read-only input
    return sweep, darks


def recorded(shape, n_frames=19, dtype="float64"):
    """A sweep and darks, read-only."""
    return _recorded(shape, n_frames, dtype)


def fit(sweep, dark, *, dark_per_frame=False, **options):
    return DetectorCalibrator(**{"sigma": 4.0} | options).fit(sweep, dark=dark, dark_per_frame=dark_per_frame)


def any_order(method):
    """Options with which the weights of curves do not come from the first frames, which differ here."""
    return {"method": method, "read_noise": 0.0}


def assert_same_bits(found, expected):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name, values in expected.sums_.items():
        np.testing.assert_array_equal(found.sums_[name], values, err_msg=name)
    assert found.n_frames_seen_ == expected.n_frames_seen_
    np.testing.assert_equal(found.system_gain_, expected.system_gain_)  # NaN equals NaN


def assert_same(found, expected, rtol):
    for name in ("coef_", "dark_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, err_msg=name)
    # K is a median of squares of differences, which have lost some digits more
    np.testing.assert_allclose(found.coef_std_, expected.coef_std_, rtol=1e3 * rtol)
    np.testing.assert_array_equal(found.defects_, expected.defects_)
    np.testing.assert_array_equal(found.sums_["frames"], expected.sums_["frames"])
    assert found.n_frames_seen_ == expected.n_frames_seen_


def spoilt(sweep):
    """A copy with some pixels saturated, lost and struck."""
    sweep = sweep.copy()
    rng = np.random.default_rng(7)
    sweep[rng.random(sweep.shape) < 0.01] = sweep.max()
    sweep[rng.random(sweep.shape) < 0.005] = sweep.max() * 0.7
    if sweep.dtype.kind == "f":
        sweep[rng.random(sweep.shape) < 0.01] = np.nan
    return sweep


ALL_OPTIONS = {"cutoff": 30.0, "reject": 15.0}


def all_options(sweep):
    return ALL_OPTIONS | {"saturation": float(np.nanmax(sweep))}


# --- execution: to the last bit -----------------------------------------------------------------------


@few
@given(shapes, methods, st.integers(2, 41), st.integers(1, 50), st.sampled_from([1, 2, 3, -1]), st.booleans())
def test_batches_and_threads_make_no_difference(shape, method, n_frames, batch_size, n_jobs, everything):
    dtype = "float32" if everything else "uint16"
    sweep, darks = recorded(shape, n_frames, dtype)
    sweep = spoilt(sweep) if everything else sweep
    options = {"method": method, **(all_options(sweep) if everything else {})}
    one_by_one = fit(sweep, darks, **options)
    at_once = fit(sweep, darks, batch_size=batch_size, n_jobs=n_jobs, **options)
    assert_same_bits(at_once, one_by_one)
    for flat in (None, sweep[-1]):
        with np.errstate(invalid="ignore"):
            expected = one_by_one.transform(sweep, flat)
        np.testing.assert_array_equal(at_once.transform(sweep, flat), expected)


@few
@given(shapes, st.integers(2, 20), st.integers(1, 25), st.sampled_from([1, 2]))
def test_batches_and_threads_make_no_difference_to_darks_per_frame(shape, n_frames, batch_size, n_jobs):
    sweep, _ = recorded(shape, n_frames, "uint16")
    darks = np.linspace(0, 20, n_frames).reshape(-1, *[1] * len(shape)) + np.zeros(shape)
    expected = fit(sweep, darks, dark_per_frame=True)
    found = fit(sweep, darks, dark_per_frame=True, batch_size=batch_size, n_jobs=n_jobs)
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    np.testing.assert_array_equal(found.coef_std_, expected.coef_std_)


def test_pieces_are_really_made():
    # the tests above would prove nothing on detectors that are never cut
    frames = recorded(TALL)[0]
    assert len(_execution.row_blocks(frames)) > 3
    assert len(_streaming.batches(frames, None)) > 2
    assert _execution._frames_per_part(frames) == 1


def test_blocks_of_rows_make_no_difference():
    sweep, darks = recorded(TALL)
    cut = fit(sweep, darks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_execution, "BLOCK_PIXELS", 2**20)
        whole = fit(sweep, darks)
    # products of other shapes are rounded otherwise, in float64
    assert_same(cut, whole, rtol=1e-12)


# --- order and grouping of frames: to 1e-7 ------------------------------------------------------------


@few
@given(shapes, methods, st.sampled_from(["float64", "float32", "uint16"]), st.randoms(use_true_random=False))
def test_the_order_of_frames_makes_no_difference(shape, method, dtype, random):
    sweep, darks = recorded(shape, dtype=dtype)
    order = random.sample(range(len(sweep)), len(sweep))
    found = fit(sweep[order], darks, **any_order(method))
    assert_same(found, fit(sweep, darks, **any_order(method)), ORDER)


@few
@given(
    shapes,
    methods,
    st.sampled_from(["float64", "uint16"]),
    st.sets(st.integers(2, 17), min_size=1, max_size=3),
)
def test_split_sweeps_meet_again(shape, method, dtype, cuts):
    sweep, darks = recorded(shape, dtype=dtype)
    whole = fit(sweep, darks, **any_order(method))
    edges = [0, *sorted(cuts), len(sweep)]
    parts = [sweep[a:b] for a, b in pairwise(edges) if b - a > 1]
    left_over = [sweep[a:b] for a, b in pairwise(edges) if b - a == 1]
    for frame in left_over:  # a sweep of one frame warns, which is told elsewhere
        parts[-1] = np.concatenate([parts[-1], frame])

    fitted = [fit(part, darks, **any_order(method)) for part in parts]
    for order in (fitted, fitted[::-1]):
        assert_same(DetectorCalibrator.merge(*order), whole, ORDER)
    one_by_one = fitted[0]
    for other in fitted[1:]:
        one_by_one = DetectorCalibrator.merge(one_by_one, other)
    assert_same(one_by_one, whole, ORDER)

    gone_on = DetectorCalibrator(sigma=4.0, **any_order(method))
    for number, part in enumerate(parts):
        gone_on.partial_fit(part, dark=darks if number == 0 else None)  # the dark is remembered
    assert_same(gone_on, whole, ORDER)


def test_runs_that_coincide_meet_to_the_last_bit():
    # 8 frames are a run: cut there, the same sums are added, only in another order of float64
    sweep, darks = recorded(AREA, 16, "uint16")
    halves = [fit(sweep[:8], darks), fit(sweep[8:], darks)]
    assert_same(DetectorCalibrator.merge(*halves), fit(sweep, darks), 1e-15)


def test_fitting_again_forgets_what_was_before():
    sweep, darks = recorded(AREA)
    cal = fit(sweep[:9], darks + 5)
    cal.fit(sweep, dark=darks)
    assert_same_bits(cal, fit(sweep, darks))


# --- units and zero -----------------------------------------------------------------------------------


@few
@given(shapes, methods, st.floats(1e-3, 1e3))
def test_the_unit_of_intensity_makes_no_difference(shape, method, factor):
    sweep, darks = recorded(shape)
    sweep = spoilt(sweep)
    options = {"method": method, "reject": 15.0}
    limits = {"cutoff": 30.0, "saturation": float(np.nanmax(sweep)) * (1 - 1e-9)}
    scaled = {name: factor * value for name, value in limits.items()}
    usual = fit(sweep, darks, **options, **limits)
    found = fit(factor * sweep, factor * darks, **options, **scaled)
    np.testing.assert_allclose(found.coef_, usual.coef_, rtol=1e-9)  # float64, some digits to spare
    np.testing.assert_allclose(found.coef_std_, usual.coef_std_, rtol=1e-6)
    assert found.system_gain_ == pytest.approx(factor * usual.system_gain_, rel=1e-6)
    for flat, unit in ((None, factor), (sweep[-1], 1.0)):  # DN scale, transmissions do not
        expected = unit * usual.transform(sweep, flat)
        np.testing.assert_allclose(
            found.transform(factor * sweep, None if flat is None else factor * flat), expected, rtol=1e-8
        )


@few
@given(shapes, methods, st.floats(-1e4, 1e4))
def test_an_offset_of_sweep_and_dark_makes_no_difference(shape, method, offset):
    sweep, darks = recorded(shape)
    usual = fit(sweep, darks, method=method)
    found = fit(sweep + offset, darks + offset, method=method)
    # 1e4 DN + a signal of 100 loses 2 of float64's 16 digits; the difference of two such some more
    np.testing.assert_allclose(found.coef_, usual.coef_, rtol=1e-9)
    np.testing.assert_allclose(found.coef_std_, usual.coef_std_, rtol=1e-6)
    expected = usual.transform(sweep, sweep[-1], 3.0)
    np.testing.assert_allclose(found.transform(sweep + offset, sweep[-1] + offset, 3.0), expected, rtol=1e-8)


@few
@given(shapes, st.sampled_from([(0, 1), (1, 0), (0, 1, 1)]))
def test_mirrored_detectors_have_mirrored_coefficients(shape, flips):
    axes = tuple(axis + 1 for axis, flip in enumerate(flips[: len(shape)]) if flip) or (1,)
    sweep, darks = recorded(shape)
    found = fit(np.flip(sweep, axes), np.flip(darks, axes))
    expected = np.flip(fit(sweep, darks).coef_, tuple(axis - 1 for axis in axes))
    np.testing.assert_allclose(
        found.coef_, expected, rtol=1e-6
    )  # what the products err, which is not mirrored


# --- how the numbers lie in memory, or not: to the last bit -------------------------------------------


def fortran(array):
    return np.asfortranarray(array)


def every_second(array):
    wide = np.zeros([2 * n for n in array.shape], array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def backwards(array):
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def rows_last(array):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 0, -1)), -1, 0)


def big_endian(array):
    return array.astype(array.dtype.newbyteorder(">"))


@pytest.mark.parametrize("lay", [fortran, every_second, backwards, rows_last, big_endian])
@pytest.mark.parametrize("shape", [LINE, TALL], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
def test_memory_layout_makes_no_difference(shape, dtype, lay):
    sweep, darks = recorded(shape, dtype=dtype)
    laid_out = lay(sweep)
    np.testing.assert_array_equal(laid_out, sweep)
    usual = fit(sweep, darks)
    found = fit(laid_out, lay(darks))
    if lay in (fortran, rows_last):  # products of transposed frames are summed in another order
        assert_same(found, usual, ORDER)
        assert_same_bits(fit(laid_out, lay(darks), batch_size=8, n_jobs=2), found)
    else:
        assert_same_bits(found, usual)
    expected = usual.transform(sweep, sweep[-1], 3.0)
    found = usual.transform(laid_out, lay(sweep[-1]), 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-15 if dtype == "float64" else 1e-6)
    assert found.dtype == expected.dtype
    assert found.dtype.isnative


def test_lists_are_arrays():
    sweep, darks = recorded(AREA)
    usual = fit(sweep, darks)
    assert_same_bits(fit(sweep.tolist(), darks.tolist()), usual)
    np.testing.assert_array_equal(usual.transform(sweep.tolist()), usual.transform(sweep))


def on_disk(kind, array, folder):
    """Put an array on disk and open it as a stack that is read by slicing."""
    path = folder / {"memmap": "a.dat", "h5py": "a.h5", "zarr": "a.zarr"}.get(kind, f"a.{kind}")
    if kind == "memmap":
        array.tofile(path)
        return np.memmap(path, array.dtype, "r", shape=array.shape)
    if kind == "h5py":
        with h5py.File(path, "w") as file:
            file["frames"] = array
        return h5py.File(path)["frames"]
    if kind == "zarr":
        chunks = (3, *(max(1, n // 2) for n in array.shape[1:]))  # that split frames and runs
        stored = zarr.create_array(path, shape=array.shape, dtype=array.dtype, chunks=chunks)
        stored[:] = array
        return zarr.open_array(path, mode="r")
    with create_frames(path, array.shape, array.dtype) as out:
        out[:] = array
    return open_frames(path)


@pytest.mark.parametrize("kind", ["memmap", "h5py", "zarr", "tif", "nxs", "npy"])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_stacks_on_disk_are_as_good_as_arrays(kind, dtype, tmp_path):
    sweep, darks = recorded(AREA, dtype=dtype)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "darks").mkdir()
    stored = on_disk(kind, sweep, tmp_path / "sweep")
    usual = fit(sweep, darks)
    assert_same_bits(fit(stored, on_disk(kind, darks, tmp_path / "darks")), usual)
    np.testing.assert_array_equal(usual.transform(stored), usual.transform(sweep))
    np.testing.assert_array_equal(usual.inverse_transform(stored), usual.inverse_transform(sweep))
    pairs = np.zeros_like(sweep) + sweep // 16
    per_frame = fit(sweep, pairs, dark_per_frame=True)
    (tmp_path / "pairs").mkdir()
    found = fit(stored, on_disk(kind, pairs, tmp_path / "pairs"), dark_per_frame=True)
    np.testing.assert_array_equal(found.coef_, per_frame.coef_)


@few
@given(shapes, methods, st.integers(1, 20), st.integers(3, 40), st.booleans())
def test_dask_arrays_agree_however_they_are_cut(shape, method, frames_per_chunk, pixels_per_chunk, per_frame):
    sweep, darks = recorded(shape, dtype="uint16")
    darks = np.broadcast_to(darks[:1], sweep.shape) if per_frame else darks
    chunks = (frames_per_chunk, *[pixels_per_chunk] * len(shape))
    lazy, lazy_darks = (dask.array.from_array(a, chunks=chunks) for a in (sweep, darks))
    usual = fit(sweep, darks, method=method, dark_per_frame=per_frame)
    found = fit(lazy, lazy_darks, method=method, dark_per_frame=per_frame)
    np.testing.assert_allclose(found.coef_, usual.coef_, rtol=ORDER)
    np.testing.assert_allclose(found.coef_std_, usual.coef_std_, rtol=1e3 * ORDER)
    np.testing.assert_array_equal(found.sums_["frames"], usual.sums_["frames"])

    corrected = usual.transform(lazy, sweep[-1], dark=darks[0])
    assert isinstance(corrected, dask.array.Array)
    expected = usual.transform(sweep, sweep[-1], dark=darks[0])
    assert corrected.dtype == expected.dtype
    np.testing.assert_array_equal(corrected.compute(), expected)


# --- dtypes -------------------------------------------------------------------------------------------

DTYPES = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [LINE, AREA], ids=str)
@pytest.mark.parametrize("method", ["croton", "photon", "curved"])
def test_the_same_numbers_in_any_dtype_give_the_same(dtype, shape, method):
    sweep, darks = recorded(shape, dtype="uint8")  # whole numbers below 256, which every type here holds
    usual = fit(sweep.astype("float64"), darks.astype("float64"), method=method)
    sweep, darks = sweep.astype(dtype), darks.astype(dtype)
    found = fit(sweep, darks, method=method)
    narrow = np.dtype(dtype).itemsize <= (4 if dtype.startswith("float") else 2)
    np.testing.assert_allclose(found.coef_, usual.coef_, rtol=1e-6 if narrow else 1e-15)
    assert found.coef_.dtype == found.dark_.dtype == np.float64
    corrected = found.transform(sweep)
    assert corrected.dtype == ("float32" if narrow else "float64")
    expected = (sweep.astype(float) - usual.dark_) * usual.coef_
    np.testing.assert_allclose(
        corrected, expected, rtol=1e-5 if narrow else 1e-12, atol=1e-5 if narrow else 1e-12
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_unsigned_numbers_never_wrap_round(dtype):
    sweep, _ = recorded(AREA, dtype="uint8")
    sweep = sweep.astype(dtype)
    dark = np.full(AREA, 60, dtype)
    assert np.any(sweep < dark)  # 50 - 60 would be 246, or 65526
    signed = sweep.astype(float)
    for options in ({}, {"cutoff": 5.0}):
        expected = fit(signed, dark.astype(float), **options)
        found = fit(sweep, dark, **options)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
        darks = np.broadcast_to(dark, sweep.shape)
        found = fit(sweep, darks, dark_per_frame=True, **options)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-6)
    corrected = found.transform(sweep, dark=dark)
    assert corrected.min() < 0
    np.testing.assert_allclose(corrected, (signed - 60) * found.coef_, rtol=1e-6)
    flat = sweep[-1]
    transmission = found.transform(sweep, flat, 0.0, dark=dark)
    np.testing.assert_allclose(transmission, (signed - 60) / (flat.astype(float) - 60), rtol=1e-5)


# --- what is not a number stays where it is -----------------------------------------------------------

FILLED = 0.2
"""By how much a filled pixel may be off: its spread of 2 %, and in a corner the beam's slope within 3 px."""


def influence(shape, pixel):
    """Largest weight of one pixel in the smoothed frame: 0.01 amid an area, 0.3 in its corner."""
    alone = np.zeros(shape)
    alone[pixel] = 1.0
    return gaussian_filter(alone, 4.0, mode="nearest").max()


@few
@given(
    shapes,
    methods,
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from(["float64", "float32"]),
    st.data(),
)
def test_bad_pixels_never_spread(shape, method, bad, dtype, data):
    sweep, darks = recorded(shape, dtype=dtype)
    pixel = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    frames = sorted(data.draw(st.sets(st.integers(0, len(sweep) - 1), min_size=1, max_size=15)))
    usual = fit(sweep, darks, method=method)
    hurt = sweep.copy()
    hurt[(frames, *pixel)] = bad
    found = fit(hurt, darks, method=method)

    assert np.isfinite(found.coef_).all()
    assert np.isfinite(found.coef_std_).all()
    assert np.all(found.defects_ == 0)
    assert found.sums_["frames"][pixel] == len(sweep) - len(frames)
    change = np.abs(found.coef_ / usual.coef_ - 1)
    allowed = FILLED * influence(shape, pixel)
    assert change[pixel] < allowed + 5 * found.coef_std_[pixel]  # it has fewer photons than before
    change[pixel] = 0.0
    assert change.max() < allowed

    corrected = usual.transform(hurt, sweep[-1])
    lost = np.zeros(sweep.shape, bool)
    lost[(frames, *pixel)] = True
    np.testing.assert_array_equal(np.isfinite(corrected), ~lost)
    np.testing.assert_array_equal(corrected[~lost], usual.transform(sweep, sweep[-1])[~lost])


@few
@given(shapes, st.sampled_from([np.nan, np.inf]), st.data())
def test_a_bad_pixel_of_dark_or_flat_costs_that_pixel_alone(shape, bad, data):
    sweep, darks = recorded(shape)
    pixel = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    here = np.zeros(shape, bool)
    here[pixel] = True
    usual = fit(sweep, darks)

    flat = sweep[-1].copy()
    flat[pixel] = bad
    found = usual.transform(sweep, flat)
    expected = usual.transform(sweep, sweep[-1])
    np.testing.assert_allclose(found, expected, rtol=FILLED * influence(shape, pixel))

    dark = darks[0].copy()
    dark[pixel] = bad
    corrected = usual.transform(sweep, dark=dark)
    np.testing.assert_array_equal(np.isfinite(corrected), np.broadcast_to(~here, sweep.shape))
    with pytest.warns(UserWarning, match="1 of .* unsolved"):
        cal = fit(sweep, dark)
    np.testing.assert_array_equal(cal.defects_ != 0, here)
    np.testing.assert_allclose(
        cal.coef_, np.where(here, 1.0, fit(sweep, darks[0]).coef_), rtol=FILLED * influence(shape, pixel)
    )


# --- nothing that is given is changed -----------------------------------------------------------------


def checksum(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
@pytest.mark.parametrize("shape", [LINE, AREA], ids=str)
@pytest.mark.parametrize("everything", [False, True])
def test_arguments_are_never_changed(dtype, shape, everything):
    sweep, darks = (
        array.copy() for array in recorded(shape, dtype=dtype)
    )  # writeable, so that it could happen
    sweep = spoilt(sweep) if everything else sweep
    flat = sweep[-1].copy()
    per_frame = np.broadcast_to(darks[0], sweep.shape).copy()
    given_arrays = (sweep, darks, flat, per_frame)
    before = [checksum(array) for array in given_arrays]

    options = all_options(sweep) if everything else {}
    cal = fit(sweep, darks, n_jobs=2, **options)
    cal.partial_fit(sweep)
    fit(sweep, per_frame, dark_per_frame=True, **options)
    fitted = [checksum(getattr(cal, name)) for name in FITTED]
    corrected = cal.transform(sweep, flat, 3.0, dark=darks)
    cal.inverse_transform(corrected, flat, 3.0)
    cal.correction(flat, 3.0).transform(sweep)
    cal.transform(flat[None])
    cal.score(sweep[:3])
    DetectorCalibrator.merge(cal, cal)
    assert [checksum(array) for array in given_arrays] == before
    assert [checksum(getattr(cal, name)) for name in FITTED] == fitted
    assert not np.shares_memory(corrected, sweep)


def test_what_is_fitted_does_not_hang_on_the_arguments():
    sweep, darks = (array.copy() for array in recorded(AREA))
    dark = darks[0]
    cal = fit(sweep, dark)
    before = [checksum(getattr(cal, name)) for name in FITTED]
    sweep[...] = 0
    dark[...] = 0
    assert [checksum(getattr(cal, name)) for name in FITTED] == before


# --- the correction is linear and can be undone -------------------------------------------------------


@few
@given(shapes, st.floats(-5, 5), st.floats(-5, 5), st.booleans())
def test_transform_is_linear_above_the_dark(shape, a, b, with_flat):
    sweep, darks = recorded(shape)
    cal = fit(sweep, darks)
    arguments = (sweep[-1], 3.0) if with_flat else ()
    x, y = sweep[3:5] - cal.dark_, sweep[7:9] - cal.dark_
    together = cal.transform(a * x + b * y + cal.dark_, *arguments)
    apart = [cal.transform(part + cal.dark_, *arguments) for part in (x, y)]
    scale = np.abs(apart).max()
    np.testing.assert_allclose(together, a * apart[0] + b * apart[1], rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_array_equal(cal.transform(cal.dark_[None], *arguments), 0.0)


@few
@given(shapes, st.sampled_from(["float64", "float32", "uint16"]), st.booleans())
def test_inverse_transform_undoes_transform(shape, dtype, with_flat):
    sweep, darks = recorded(shape, dtype=dtype)
    cal = fit(sweep, darks)
    arguments = (sweep[-1], 3.0) if with_flat else ()
    back = cal.inverse_transform(cal.transform(sweep, *arguments), *arguments)
    tolerance = 1e-12 if dtype == "float64" else 1e-5  # float32: 6e-8 of up to 3000 DN, back at 20
    np.testing.assert_allclose(back, sweep.astype(float), rtol=tolerance)
    assert back.dtype == ("float64" if dtype == "float64" else "float32")
    corrected = np.linspace(0.1, 2.0, sweep.size).reshape(sweep.shape)
    there = cal.transform(cal.inverse_transform(corrected, *arguments), *arguments)
    np.testing.assert_allclose(there, corrected, rtol=1e-9)  # DN over a dark of 20, from 0.1


@few
@given(shapes, st.integers(1, 3), st.integers(1, 3))
def test_leading_axes_and_single_images_make_no_difference(shape, n, m):
    sweep, darks = recorded(shape)
    cal = fit(sweep, darks)
    images = sweep[: n * m]
    expected = cal.transform(images)
    stacked = cal.transform(images.reshape(n, m, *shape))
    np.testing.assert_array_equal(stacked, expected.reshape(n, m, *shape))
    for image, corrected in zip(images, expected, strict=True):
        alone = image if len(shape) == 2 else image[None]
        np.testing.assert_array_equal(cal.transform(alone).reshape(shape), corrected)


def test_rows_of_pixels_are_frames_if_the_detector_is_known():
    sweep, darks = recorded(AREA)
    usual = fit(sweep, darks)
    rows = sweep.reshape(len(sweep), -1)
    assert_same_bits(fit(rows, darks.reshape(len(darks), -1), detector_shape=AREA), usual)
    cal = fit(rows, darks, detector_shape=AREA)
    np.testing.assert_array_equal(cal.transform(rows), usual.transform(sweep).reshape(rows.shape))


@pytest.mark.parametrize("dtype", ["float64", "uint16"])
def test_a_given_output_receives_the_same(dtype):
    sweep, darks = recorded(AREA, dtype=dtype)
    cal = fit(sweep, darks)
    expected = cal.transform(sweep, sweep[-1])
    out = np.full(sweep.shape, np.nan, expected.dtype)
    assert cal.transform(sweep, sweep[-1], out=out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.full((*sweep.shape[:-1], 2 * AREA[1]), np.nan, expected.dtype)
    cal.transform(sweep, sweep[-1], out=wide[..., ::2])
    np.testing.assert_array_equal(wide[..., ::2], expected)
    assert np.isnan(wide[..., 1::2]).all()
