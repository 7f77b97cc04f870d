"""Pixels that must not be believed: filled from their neighbours, found as spots, never spread.

Each is held against the loops of `reference`, and the array-API way against the NumPy way.
"""

import array_api_strict
import numpy as np
import pytest

from detectorcal._streaming import single_threaded_blas
from detectorcal.kernels.correction import Rejection, replace_spots
from detectorcal.kernels.masking import fill_masked, find_spots, median_of_neighbours
from detectorcal.kernels.smoothing import Smoothing, gaussian
from tests import reference

DEVICE = array_api_strict.Device("device1")  # np.asarray raises on its arrays, as on a GPU's
HOST = array_api_strict.Device("CPU_DEVICE")
SHAPES = [(600,), (40, 55)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with single_threaded_blas():
        yield


def on_numpy(function, *arrays):
    return function(*arrays)


def on_device(function, *arrays):
    found = function(*(array_api_strict.asarray(a, device=DEVICE) if np.ndim(a) else a for a in arrays))
    assert found.device == DEVICE
    return np.asarray(array_api_strict.asarray(found, device=HOST))


libraries = pytest.mark.parametrize("where", [on_numpy, on_device], ids=["numpy", "device"])


def beam(shape):
    across = np.exp(-0.5 * ((np.arange(shape[-1]) - 0.4 * shape[-1]) / (0.5 * shape[-1])) ** 2)
    return 3000 * np.broadcast_to(across, shape)


def frames_of(shape, n_frames=3, seed=0):
    spread = 1 + 0.02 * np.random.default_rng(seed).standard_normal((n_frames, *shape))
    return beam(shape) * spread


def scattered(shape, n_frames=3, share=0.05, seed=1):
    return np.random.default_rng(seed).random((n_frames, *shape)) < share


def hole(shape, n_frames=3):
    """A hole too wide for the first filling, at the edge, in all frames but the last."""
    masked = np.zeros((n_frames, *shape), bool)
    masked[(slice(None, -1), *(slice(0, 35) for _ in shape))] = True
    return masked


def half(shape, n_frames=3):
    masked = np.zeros((n_frames, *shape), bool)
    masked[..., shape[-1] // 2 :] = True
    return masked


# --- filling ------------------------------------------------------------------------------------------


def filled_by_loops(frames, masked):
    return np.stack([reference.fill(f, ~m) for f, m in zip(frames, masked, strict=True)])


@libraries
@shapes
@pytest.mark.parametrize("mask", [scattered, hole, half])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_filling_equals_the_documented_rule(shape, mask, dtype, where):
    frames, masked = frames_of(shape), mask(shape)
    frames[masked] = np.nan
    found = where(fill_masked, frames.astype(dtype), masked)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[~masked], frames.astype(dtype)[~masked])  # the rest stays, to the bit
    # a guess divides by a weight of down to 1e-3: what the Gaussian errs at the edge of a hole, 1e-6 of the
    # frame (tests/test_smoothing.py) and in float32 6e-8, may count a thousandfold deep in the hole
    tolerance = 1e-3 if mask is not scattered else 1e-6
    np.testing.assert_allclose(found, filled_by_loops(frames, masked), rtol=tolerance)


def test_a_pixel_becomes_the_mean_of_those_around_it():
    # on a ramp the neighbours on both sides average to what was there
    ramp = np.broadcast_to(np.linspace(100, 200, 61), (1, 31, 61)).copy()
    truth = ramp.copy()
    masked = np.zeros(ramp.shape, bool)
    masked[0, 15, 30] = True
    ramp[masked] = 1e9
    np.testing.assert_allclose(fill_masked(ramp, masked), truth, rtol=1e-12)


@libraries
@shapes
@pytest.mark.parametrize("mask", [scattered, hole, half])
def test_filling_keeps_a_constant(shape, mask, where):
    masked = mask(shape)
    frames = np.where(masked, np.inf, 1234.5)
    # numerator and denominator err alike, so that even products of low rank cancel
    np.testing.assert_allclose(where(fill_masked, frames, masked), 1234.5, rtol=1e-9)


@libraries
@shapes
def test_what_a_masked_pixel_holds_has_no_influence(shape, where):
    masked = scattered(shape)
    fillings = []
    for value in (0.0, -1e30, np.nan, np.inf, -np.inf):
        frames = frames_of(shape)
        frames[masked] = value
        fillings.append(where(fill_masked, frames, masked))
        np.testing.assert_array_equal(fillings[-1], fillings[0])
    assert np.isfinite(fillings[0]).all()


@shapes
def test_a_filled_beam_is_the_beam(shape):
    masked = scattered(shape)
    found = fill_masked(np.where(masked, np.nan, beam(shape)[None]), masked)
    # within 3 px this beam bends by 0.5 (3 / 0.5 n)^2, and at the edge it also falls by its slope
    assert np.max(np.abs(found / beam(shape) - 1)) < 0.06
    inside = (slice(None), *(slice(12, -12) for _ in shape))
    assert np.max(np.abs(found / beam(shape) - 1)[inside]) < 0.06 / 2


@libraries
@shapes
def test_a_frame_with_nothing_to_believe_is_zero_and_leaves_the_others_alone(shape, where):
    frames, masked = frames_of(shape), scattered(shape)
    alone = where(fill_masked, frames[[0, 2]], masked[[0, 2]])
    frames[1], masked[1] = np.nan, True
    found = where(fill_masked, frames, masked)
    assert np.all(found[1] == 0)
    # a stack of two may be multiplied in another order than one of three
    np.testing.assert_allclose(found[[0, 2]], alone, rtol=1e-12)


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1), (2, 3)], ids=str)
def test_detectors_of_a_few_pixels_are_filled(shape):
    frames = np.full((2, *shape), 7.0)
    masked = np.zeros(frames.shape, bool)
    masked[0].flat[0] = True
    masked[1] = True
    frames[masked] = np.nan
    found = fill_masked(frames, masked)
    np.testing.assert_allclose(found[0], 7.0 if frames[0].size > 1 else 0.0)
    assert np.all(found[1] == 0)


@shapes
def test_filling_leaves_its_arguments_as_they_were(shape):
    frames, masked = frames_of(shape), scattered(shape)
    frames[masked] = np.nan
    before = frames.copy(), masked.copy()
    for array in (frames, masked):
        array.flags.writeable = False
    fill_masked(frames, masked)
    np.testing.assert_array_equal(frames, before[0])
    np.testing.assert_array_equal(masked, before[1])


@libraries
@shapes
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_pixel_does_not_spread(shape, bad, where):
    frames = frames_of(shape)
    s = Smoothing(10.0, "nearest", 0.0, 4.0)
    clean = gaussian(frames, s)
    pixel = (1, *(n // 3 for n in shape))
    frames[pixel] = bad
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(gaussian(frames, s)).all()  # what would happen without the filling

    found = gaussian(where(fill_masked, frames, ~np.isfinite(frames)), s)
    # one pixel has the weight 1 / (sqrt(2 pi) sigma) per axis; it was off by some spreads of 2 %
    weight = (1 / (np.sqrt(2 * np.pi) * 10)) ** len(shape)
    assert np.max(np.abs(found / clean - 1)) < 5 * 0.02 * weight
    np.testing.assert_allclose(found[[0, 2]], clean[[0, 2]], rtol=1e-14)  # rounding of a product


# --- medians ------------------------------------------------------------------------------------------


def medians_by_loops(frame):
    side = 25 if frame.ndim == 1 else 5
    padded = np.pad(frame, side // 2, mode="reflect")
    found = np.empty_like(frame)
    for pixel in np.ndindex(frame.shape):
        found[pixel] = np.median(padded[tuple(slice(i, i + side) for i in pixel)])
    return found


@libraries
@pytest.mark.parametrize("shape", [(1,), (2,), (30,), (1, 1), (1, 9), (2, 3), (17, 23)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_medians_are_those_of_the_25_pixels_around(shape, dtype, where):
    frames = frames_of(shape).astype(dtype)
    expected = np.stack([medians_by_loops(frame) for frame in frames])
    found = where(median_of_neighbours, frames)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)  # a median is one of the values: no rounding
    np.testing.assert_array_equal(expected, np.stack([reference.medians(frame) for frame in frames]))


# --- spots --------------------------------------------------------------------------------------------


def with_spots(shape, height, seed=2):
    """Frames with single bright and dark pixels, far from each other, `height` pixel spreads strong.

    The beam is even: one that bends within 25 pixels of a line has no spread of its own to be judged by.
    """
    frames = 3000 * (1 + 0.02 * np.random.default_rng(seed).standard_normal((3, *shape)))
    struck = np.zeros(frames.shape, bool)
    struck[(slice(None), *(slice(4, None, 9) for _ in shape))] = True
    sign = np.random.default_rng(seed + 1).choice([-1, 1], frames.shape)
    frames[struck] = (3000 * (1 + 0.02 * height * sign))[struck]
    return frames, struck


@libraries
@shapes
def test_spots_are_found_and_little_else(shape, where):
    frames, struck = with_spots(shape, 12.0)
    found = where(find_spots, frames, median_of_neighbours(frames), 6.0)
    assert np.all(found[struck])
    # beyond 6 spreads lie 2e-9 of normal noise
    assert not np.any(found[~struck])


@libraries
@shapes
@pytest.mark.parametrize("n_spreads", [2.0, 4.5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_spots_are_those_of_the_documented_rule(shape, n_spreads, dtype, where):
    frames, _ = with_spots(shape, 5.0)
    frames = frames.astype(dtype)
    found = where(find_spots, frames, median_of_neighbours(frames), n_spreads)
    expected = np.stack([reference.spots(frame.astype(np.float64), n_spreads) for frame in frames])
    assert 0 < np.count_nonzero(expected) < expected.size / 3
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(40, 55), (2200,)], ids=str)
def test_the_spread_is_that_of_normal_noise(shape):
    # what "robust standard deviations" means. Distances from a median are nearly normal: 5 % are beyond 2
    # of theirs, and a little more as one pixel in 25 is itself the median. 88,000 pixels tell 0.1 %
    frames = np.random.default_rng(3).standard_normal((40, *shape))
    share = np.mean(find_spots(frames, median_of_neighbours(frames), 2.0))
    assert share == pytest.approx(0.05, abs=0.02)


@shapes
def test_each_frame_is_judged_by_its_own_spread(shape):
    rng = np.random.default_rng(4)
    frames = np.stack([rng.normal(0, 1, shape), rng.normal(0, 1000, shape)])
    pixel = tuple(n // 2 for n in shape)
    frames[(0, *pixel)] = 100.0
    both = find_spots(frames, median_of_neighbours(frames), 8.0)
    assert both[(0, *pixel)]
    for frame, spots in zip(frames, both, strict=True):
        alone = find_spots(frame[None], median_of_neighbours(frame[None]), 8.0)[0]
        np.testing.assert_array_equal(spots, alone)


@shapes
@pytest.mark.parametrize(("factor", "offset"), [(4.0, 0.0), (1.0, 1024.0), (0.25, -512.0)])
def test_spots_do_not_depend_on_unit_or_zero(shape, factor, offset):
    # powers of two, so that no rounding decides at the threshold
    frames = np.rint(with_spots(shape, 5.0)[0])
    usual = find_spots(frames, median_of_neighbours(frames), 3.3)
    other = frames * factor + offset
    np.testing.assert_array_equal(find_spots(other, median_of_neighbours(other), 3.3), usual)


@libraries
@shapes
def test_a_frame_without_spread_has_no_spots(shape, where):
    frames = np.full((2, *shape), 100.0)
    frames[(0, *(n // 2 for n in shape))] = 1e6  # nothing to judge by, as the docstring says
    frames[1] = 0.0
    assert not np.any(where(find_spots, frames, median_of_neighbours(frames), 6.0))


@pytest.mark.parametrize(
    ("shape", "pixel"),
    [((40, 55), (0, 0)), ((40, 55), (0, 20)), ((40, 55), (39, 54)), ((40, 55), (1, 1)), ((150,), (1,))]
    + [((150,), (n,)) for n in (0, 149)],
    ids=str,
)
def test_a_spot_at_the_edge_is_found(shape, pixel):
    frames = 3000 * (1 + 0.02 * np.random.default_rng(0).standard_normal((1, *shape)))
    frames[(0, *pixel)] *= 3
    assert find_spots(frames, median_of_neighbours(frames), 8.0)[(0, *pixel)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_many_spots_do_not_hide_each_other(share):
    # a standard deviation would be blown up to 6e3 by a tenth of such spots; the robust spread is not
    rng = np.random.default_rng(5)
    frames = 1000 + 20 * rng.standard_normal((1, 60, 60))
    struck = rng.random(frames.shape) < share
    frames[struck] += 20_000
    assert np.all(find_spots(frames, median_of_neighbours(frames), 8.0)[struck])


@libraries
@shapes
def test_replacing_spots_leaves_what_is_not_finite_and_everything_else(shape, where):
    frames, struck = with_spots(shape, 15.0)
    nan = np.zeros(frames.shape, bool)
    nan[(1, *(slice(8, None, 13) for _ in shape))] = True
    frames[nan] = np.nan
    found = where(lambda f: replace_spots(f, Rejection(7.0)), frames)
    np.testing.assert_array_equal(np.isnan(found), nan)
    same = ~struck & ~nan
    np.testing.assert_array_equal(found[same], frames[same])
    medians = np.stack([reference.medians(reference.fill(f, ~n)) for f, n in zip(frames, nan, strict=True)])
    replaced = struck & ~nan
    # single pixels may be filled ones, which float64 sums in another order
    np.testing.assert_allclose(found[replaced], medians[replaced], rtol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "device"])
def test_no_spot_and_no_nan_changes_nothing(library):
    frames = frames_of((20, 30))
    where = {"numpy": on_numpy, "device": on_device}[library]
    np.testing.assert_array_equal(where(lambda f: replace_spots(f, Rejection(50.0)), frames), frames)


@libraries
def test_one_believable_pixel_fills_its_frame_and_none_leaves_zeros(where):
    frames = np.full((2, 64, 80), 100.0)
    masked = np.ones(frames.shape, bool)
    masked[0, 20, 30] = False
    found = where(fill_masked, frames, masked)
    np.testing.assert_allclose(found[0], 100.0, rtol=1e-6)
    assert not np.any(found[1])
