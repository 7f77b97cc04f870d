"""The Gaussian against scipy.ndimage, whichever way it is computed.

A frame is 3000 DN with a pixel spread of 2 %, as a detector's: for it the low-rank products promise 1e-6,
and a test that looks at the worst of many pixels allows twice that. float32 keeps 7 digits, of which
summing some hundred terms takes one: 1e-5.
"""

import time
from functools import lru_cache

import array_api_strict
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detectorcal._streaming import single_threaded_blas
from detectorcal.kernels import smoothing
from detectorcal.kernels.smoothing import MODES, Smoothing, gaussian, smoother_for

TOLERANCE = {np.float64: 2e-6, np.float32: 1e-5}
EDGE_ERROR = 3e-4  # what the documentation grants a hard edge, as a fraction of its height
DEVICE = array_api_strict.Device("device1")  # np.asarray raises on its arrays, as on a GPU's


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # two threads of BLAS on a busy machine spend their time waiting for each other
    with single_threaded_blas():
        yield


# --- the same numbers ---------------------------------------------------------------------------------


def spread_frames(shape, n_frames=2, seed=0):
    return 3000 * (1 + 0.02 * np.random.default_rng(seed).standard_normal((n_frames, *shape)))


def by_scipy(frames, s):
    return np.stack(
        [
            gaussian_filter(np.float64(f), s.sigma, mode=s.mode, cval=s.cval, truncate=s.truncate)
            for f in frames
        ]
    )


def _by(smoother, frames):
    return smoother.expand(smoother.project(lambda rows: frames[:, rows, ...]), slice(None))


def by_products(frames, s):
    return _by(smoothing._Products(tuple(frames.shape[1:]), s, frames), frames)


def by_filter(frames, s):
    return _by(smoothing._LineFilter(s), frames)


WAYS = {"chosen": gaussian, "products": by_products, "filter": by_filter}


@lru_cache(maxsize=256)
def truth(shape, s):
    return by_scipy(spread_frames(shape), s)


def worst(found, expected):
    assert found.shape == expected.shape
    return np.max(np.abs(found / expected - 1))


def uses_low_rank(n, s):
    return smoothing._factors((n, n), s.sigma, s.mode, s.truncate)[0].B.shape[1] < n


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(61,), (256,), (33, 20), (96, 131)], ids=str)
def test_equals_scipy(shape, mode, way, dtype):
    frames = spread_frames(shape).astype(dtype)
    for sigma in (0.3, 3.0, 12.5, 50.0):
        s = Smoothing(sigma, mode, 1000.0, 4.0)
        found = WAYS[way](frames, s)
        assert found.dtype == dtype
        assert worst(found, truth(shape, s)) < TOLERANCE[dtype], sigma


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(7,), (128,), (40, 61), (3, 90), (90, 3), (1, 50), (50, 1), (1, 1)], ids=str
)
def test_equals_scipy_where_the_gaussian_is_wider_than_the_detector(shape, mode, way):
    s = Smoothing(300.0, mode, 1000.0, 4.0)
    assert worst(WAYS[way](spread_frames(shape), s), truth(shape, s)) < TOLERANCE[np.float64]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("truncate", [0.5, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("shape", [(255,), (80, 130)], ids=str)
def test_equals_scipy_wherever_the_gaussian_is_cut_off(shape, truncate, way):
    for sigma in (1.3, 20.0):
        s = Smoothing(sigma, "nearest", 0.0, truncate)
        assert worst(WAYS[way](spread_frames(shape), s), truth(shape, s)) < TOLERANCE[np.float64], sigma


def test_the_tests_above_see_low_ranks_and_high_ones():
    assert uses_low_rank(256, Smoothing(12.5, "wrap", 0.0, 4.0))
    assert uses_low_rank(130, Smoothing(50.0, "nearest", 0.0, 4.0))
    assert not uses_low_rank(61, Smoothing(12.5, "nearest", 0.0, 4.0))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_scipy_on_a_line_of_2048_pixels(dtype):
    s = Smoothing(50.0, "nearest", 0.0, 4.0)
    frames = spread_frames((2048,), 8)
    assert worst(by_products(frames.astype(dtype), s), by_scipy(frames, s)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("n", "sigma", "mode"), [(700, 20.0, "constant"), (2048, 50.0, "wrap")])
def test_equals_scipy_on_a_long_line_whatever_the_mode(n, sigma, mode):
    s = Smoothing(sigma, mode, 0.0, 4.0)
    frames = spread_frames((n,), 8)
    assert worst(by_products(frames, s), by_scipy(frames, s)) < TOLERANCE[np.float64]


def test_equals_scipy_on_a_beam():
    # a real beam bends over the frame; the wedge of the design page errs by 7.5e-6
    beam = np.exp(-0.5 * ((np.arange(160) - 60) / 90) ** 2)
    frames = spread_frames((120, 160)) * beam
    s = Smoothing(15.0, "nearest", 0.0, 4.0)
    assert worst(by_products(frames, s), by_scipy(frames, s)) < 7.5e-6


# --- what the error of the products is bound by -------------------------------------------------------


def smoothing_matrices(n, s):
    """The matrix that scipy applies along an axis of n pixels, and what the products' one lacks."""
    exact = by_scipy(np.eye(n), s).T
    A, B = smoothing._factors((n, n), s.sigma, s.mode, s.truncate)[0]
    means = np.full((n, n), 1 / n)
    products = A[:, :-1] @ B[:, :-1].T @ (np.eye(n) - means) + A[:, -1:] * means
    return exact, products - exact


@pytest.mark.parametrize("mode", ["nearest", "reflect", "mirror", "wrap", "constant"])
@pytest.mark.parametrize(("n", "sigma"), [(200, 8.0), (300, 50.0), (600, 20.0)])
def test_the_rank_is_sufficient_for_the_documented_rule(n, sigma, mode):
    # random pixels of spread t give a line of an area the error t |G_i| |E_i|, rows i of both axes' matrices;
    # the rule takes t = 0.2 and 1e-6. That t is ten times what detectors have is what makes it safe.
    exact, missing = smoothing_matrices(n, Smoothing(sigma, mode, 0.0, 4.0))
    row_norms = np.linalg.norm(exact, axis=1), np.linalg.norm(missing, axis=1)
    assert 0.2 * row_norms[0].max() * row_norms[1].max() <= 1e-6 * (1 + 1e-6)
    assert np.abs(missing.sum(axis=1)).max() < 1e-12  # the mean of a frame has no error at all


def test_a_hard_edge_errs_by_no_more_than_documented():
    # every place of a collimator's edge at once: the errors of steps are the running sums over a row
    worst_step = 0.0
    for mode in ("nearest", "reflect", "wrap", "constant"):
        for n, sigma in ((700, 20.0), (1032, 50.0)):
            _, missing = smoothing_matrices(n, Smoothing(sigma, mode, 0.0, 4.0))
            worst_step = max(worst_step, np.abs(np.cumsum(missing, axis=1)).max())
    # measured: 2.0e-5, and 7.7e-5 along 4096 pixels; the lower bound keeps this test from looking at nothing
    assert 1e-6 < worst_step < EDGE_ERROR


@pytest.mark.parametrize("mode", ["nearest", "wrap"])
def test_a_collimated_frame_errs_by_no_more_than_documented(mode):
    frame = np.full((1, 300, 420), 60.0)
    frame[:, 70:201, 99:333] = 3000.0
    s = Smoothing(25.0, mode, 0.0, 4.0)
    assert uses_low_rank(300, s)
    assert uses_low_rank(420, s)
    error = np.abs(by_products(frame, s) - by_scipy(frame, s)).max() / (3000 - 60)
    assert 1e-8 < error < EDGE_ERROR


# --- properties of a Gaussian -------------------------------------------------------------------------

CASES = [((300,), 20.0), ((120, 140), 15.0), ((40, 50), 2.0)]
cases = pytest.mark.parametrize(("shape", "sigma"), CASES, ids=str)
ways = pytest.mark.parametrize("way", ["products", "filter"])


@cases
@ways
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_constant_stays_what_it_is(shape, sigma, way, dtype):
    for mode in MODES:  # beyond the edge of "constant" lies the same constant
        found = WAYS[way](np.full((1, *shape), 4000, dtype), Smoothing(sigma, mode, 4000.0, 4.0))
        # rounding of the weights, which scipy takes in float64 and the products in the frames' precision
        np.testing.assert_allclose(found, 4000, rtol=20 * np.sqrt(max(shape)) * np.finfo(dtype).eps / 4)


@cases
@ways
def test_frames_are_never_smoothed_into_each_other(shape, sigma, way):
    frames = spread_frames(shape, 4)
    frames[1] = 0.0
    frames[2] *= 100
    s = Smoothing(sigma, "constant", 0.0, 4.0)
    found = WAYS[way](frames, s)
    assert np.all(found[1] == 0)
    for frame, smooth in zip(frames, found, strict=True):
        alone = WAYS[way](frame[None], s)[0]
        np.testing.assert_allclose(smooth, alone, rtol=1e-12)  # another order of the same float64 sums


@cases
@ways
@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 10), slice(17, 33), slice(30, None), slice(None)])
def test_rows_of_the_smoothed_frames_equal_the_whole(shape, sigma, way, rows):
    frames = spread_frames(shape, 3)
    s = Smoothing(sigma, "reflect", 0.0, 4.0)
    smoother = smoothing._Products(shape, s, frames) if way == "products" else smoothing._LineFilter(s)
    condensed = smoother.project(lambda r: frames[:, r, ...])
    whole = smoother.expand(condensed, slice(None))
    np.testing.assert_allclose(smoother.expand(condensed, rows), whole[:, rows], rtol=1e-13)


@cases
@ways
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_is_not_finite_shows_in_the_condensed_frames(shape, sigma, way, bad, dtype):
    # the fit relies on it: it looks for NaN there, where there is less to look at
    s = Smoothing(sigma, "nearest", 0.0, 4.0)
    smoother = smoothing._Products(shape, s, np.empty(0, dtype)) if way == "products" else None
    smoother = smoother or smoothing._LineFilter(s)
    for pixel in (tuple(n // 2 for n in shape), (0,) * len(shape), tuple(n - 1 for n in shape)):
        frames = spread_frames(shape).astype(dtype)
        frames[(1, *pixel)] = bad
        with np.errstate(invalid="ignore"):
            condensed = smoother.project(lambda rows, frames=frames: frames[:, rows, ...])
        assert np.isfinite(condensed[0]).all()
        assert not np.isfinite(condensed[1]).all()


@ways
def test_frames_are_left_as_they_were(way):
    frames = spread_frames((60, 70))
    before = frames.copy()
    frames.flags.writeable = False
    WAYS[way](frames, Smoothing(9.0, "constant", 5.0, 4.0))
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_gaussian_narrower_than_a_pixel_does_nothing(way):
    frames = spread_frames((30, 40))
    np.testing.assert_allclose(WAYS[way](frames, Smoothing(0.1, "nearest", 0.0, 4.0)), frames, rtol=1e-15)


# --- other array libraries ----------------------------------------------------------------------------


def on_device(values):
    return array_api_strict.asarray(values, device=DEVICE)


def to_host(array):
    assert array.device == DEVICE  # it never left
    return np.asarray(array_api_strict.asarray(array, device=array_api_strict.Device("CPU_DEVICE")))


def test_the_device_refuses_to_be_read_by_numpy():
    with pytest.raises(RuntimeError, match="device"):
        np.asarray(on_device(np.ones(3)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "sigma"), [((200,), 20.0), ((90, 120), 15.0), ((40, 50), 0.8)], ids=str)
def test_arrays_of_a_device_give_the_same(shape, sigma, mode, dtype):
    frames = spread_frames(shape).astype(dtype)
    s = Smoothing(sigma, mode, 700.0, 4.0)
    found = to_host(gaussian(on_device(frames), s))
    assert found.dtype == dtype
    assert worst(found, truth(shape, s)) < TOLERANCE[dtype]


# --- which way is chosen, and what is kept ------------------------------------------------------------


def chosen(shape, sigma, dtype=np.float32):
    return type(smoother_for(shape, Smoothing(sigma, "nearest", 0.0, 4.0), np.empty(0, dtype)))


def test_products_are_chosen_for_wide_gaussians_and_filters_for_narrow_ones():
    assert chosen((500, 500), 50.0) is smoothing._Products
    assert chosen((500, 500), 0.5) is smoothing._LineFilter
    assert chosen((500, 500), 0.1) is smoothing._LineFilter
    assert chosen((1000,), 50.0) is smoothing._Products
    assert chosen((1000,), 1.0) is smoothing._LineFilter


def test_the_choice_never_looks_at_a_clock(monkeypatch):
    shapes_and_sigmas = [((n, n + 10), sigma) for n in (50, 130) for sigma in (0.5, 2.0, 20.0)]
    usual = [chosen(*case) for case in shapes_and_sigmas]
    assert len(set(usual)) == 2

    def no_clock():
        raise AssertionError("a clock was read")

    for name in (
        "time",
        "time_ns",
        "perf_counter",
        "perf_counter_ns",
        "monotonic",
        "process_time",
        "thread_time",
    ):
        monkeypatch.setattr(time, name, no_clock)
    clear_caches()
    again = [chosen(*case, dtype) for case in shapes_and_sigmas for dtype in (np.float32, np.float64)]
    assert again[::2] == again[1::2] == usual  # nor does the choice depend on the precision


def clear_caches():
    smoothing._cached_smoother.cache_clear()
    smoothing._axis_factors.cache_clear()


def test_the_factors_come_out_the_same_to_the_last_bit_every_time():
    # they are found with random vectors, so the generator must be seeded
    frames = spread_frames((150, 200))
    s = Smoothing(20.0, "nearest", 0.0, 4.0)
    first = gaussian(frames, s)
    clear_caches()
    np.random.default_rng().standard_normal(5)
    np.testing.assert_array_equal(gaussian(frames, s), first)


def test_no_more_than_a_few_factors_are_kept():
    for cache in (smoothing._cached_smoother, smoothing._axis_factors):
        limit = cache.cache_info().maxsize
        assert limit is not None
        for n in range(20, 20 + 2 * limit + 2):
            gaussian(np.ones((1, n)), Smoothing(20.0, "nearest", 0.0, 4.0))
        assert 0 < cache.cache_info().currsize <= limit


def test_factors_are_found_once_for_all_frames_of_a_shape():
    clear_caches()
    s = Smoothing(20.0, "nearest", 0.0, 4.0)
    for _ in range(5):
        gaussian(spread_frames((100, 100)), s)
    assert smoothing._axis_factors.cache_info().misses == 1  # both axes are alike
    assert smoothing._cached_smoother.cache_info().hits == 4
