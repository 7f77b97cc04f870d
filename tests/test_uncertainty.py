"""Standard deviations of corrected values, held against what repeated experiments scatter."""

from __future__ import annotations

from math import gamma, sqrt

import numpy as np
import pytest

from detectorcal import Correction, DetectorCalibrator, DetectorcalWarning, simulate
from detectorcal._errors import InputError
from detectorcal.kernels.smoothing import Smoothing, gaussian
from detectorcal.kernels.uncertainty import noise_let_through

SHAPE = (40, 40)
LEVELS = np.linspace(0.03, 1, 6)
BEAM = 2200 * simulate.beam_profile(SHAPE, width=2)
STRAIGHT = simulate.Detector.random(SHAPE, seed=1)
BENT = simulate.Detector.random(SHAPE, curvature_spread=8e-6, seed=1)
CASES = {
    "no flat": {},
    "flat": {"with_flats": True},
    "followed": {"with_flats": True, "sigma": 0.0},
    "threshold": {"with_flats": True, "sigma": 3.0},
    "log": {"with_flats": True, "log": True},
}


def experiment(detector, seed, method, *, with_flats=False, sigma=None, log=False):
    """Everything anew: sweep, darks, flats and images; give corrected values and stated deviations."""
    rng = np.random.default_rng(seed)
    ladder = simulate.exposure_ladder(BEAM / BEAM.max(), 16, lowest=200, highest=2500)
    sweep, darks = detector.record(ladder, rng), detector.darks(5, rng)
    flats = detector.flats(BEAM, 4, rng)
    images = detector.record(BEAM * LEVELS[:, None, None], rng)
    cal = DetectorCalibrator(8, method=method).fit(sweep, dark=darks)
    return cal.transform(images, flats if with_flats else None, sigma, log=log, return_std=True)


def stated_over_observed(detector, n, method, **how):
    """Ratio of standard deviations: the median over pixels and, of all pixels together, at each level."""
    both = [experiment(detector, 1000 + seed, method, **how) for seed in range(n)]
    values, stds = (np.array(part, np.float64) for part in zip(*both, strict=True))
    observed, stated = values.std(axis=0, ddof=1), np.sqrt(np.mean(stds**2, axis=0))
    # the standard deviation of n normal numbers is low by this factor on average
    c4 = sqrt(2 / (n - 1)) * gamma(n / 2) / gamma((n - 1) / 2)
    pooled = np.sqrt(np.mean(stated**2, axis=(1, 2)) / np.mean(observed**2, axis=(1, 2)))
    return c4 * np.median(stated / observed), pooled


@pytest.mark.parametrize("case", CASES)
def test_stated_over_observed(case):
    median, pooled = stated_over_observed(STRAIGHT, 24, "croton", **CASES[case])
    assert 0.95 <= median <= 1.05
    assert pooled.min() >= 0.95
    assert pooled.max() <= 1.05


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("method", "detector"), [("photon", STRAIGHT), ("curved", STRAIGHT), ("curved", BENT)]
)
def test_stated_over_observed_of_other_methods(case, method, detector):
    median, pooled = stated_over_observed(detector, 60, method, **CASES[case])
    assert 0.95 <= median <= 1.05
    assert pooled.min() >= 0.95
    assert pooled.max() <= 1.05


@pytest.mark.parametrize("case", ["flat", "followed"])
def test_without_an_images_noise_what_is_left_is_that_of_dark_flat_and_coefficient(case):
    how = CASES[case]
    images = STRAIGHT.response(BEAM * LEVELS[:, None, None]) + STRAIGHT.dark
    values, left = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        ladder = simulate.exposure_ladder(BEAM / BEAM.max(), 12, lowest=200, highest=2500)
        sweep, darks, flats = (
            STRAIGHT.record(ladder, rng),
            STRAIGHT.darks(20, rng),
            STRAIGHT.flats(BEAM, 1, rng),
        )
        cal = DetectorCalibrator(8, method="photon", read_noise=2.0).fit(sweep, dark=darks)
        correction = cal.correction(flats, how.get("sigma"))
        corrected, std = correction.transform(images, return_std=True)
        of_image = correction.scale**2 * (cal.system_gain_ * (images - correction.dark) + 2.0**2)
        values.append(corrected)
        left.append(std**2 - of_image)
    ratio = np.sqrt(np.mean(left, axis=(0, 2, 3)) / np.mean(np.var(values, axis=0, ddof=1), axis=(1, 2)))
    assert ratio.min() >= 0.95
    assert ratio.max() <= 1.06  # the darks' error is in the sweep too, and cancels a little


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("shape", [(4000,), (160, 160)])
def test_what_smoothing_lets_through_of_noise(shape, twice):
    smoothing = Smoothing(3.0, "wrap", 0.0, 4.0, twice=twice)
    impulse = np.zeros(shape)
    impulse[tuple(n // 2 for n in shape)] = 1
    wanted = np.sum(gaussian(impulse[None], smoothing)[0] ** 2)  # what it makes of white noise of variance 1
    assert noise_let_through(smoothing, len(shape)) == pytest.approx(wanted, rel=0.01)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    ladder = simulate.exposure_ladder(BEAM / BEAM.max(), 16, lowest=200, highest=2500)
    sweep, darks, flats = STRAIGHT.record(ladder, rng), STRAIGHT.darks(9, rng), STRAIGHT.flats(BEAM, 4, rng)
    images = STRAIGHT.record(BEAM * LEVELS[:, None, None], rng)
    return DetectorCalibrator(8, method="photon").fit(sweep, dark=darks), darks, flats, images


def test_interpolated_values_are_as_sure_as_their_neighbours(scene):
    cal, _, flats, images = scene
    correction = cal.correction(flats)
    _, plain = correction.transform(images, return_std=True)
    bad = np.zeros(SHAPE, np.uint8)
    bad[20, 20] = 1
    correction.set_params(defect_map=bad, defects="interpolate")
    _, std = correction.transform(images, return_std=True)
    four = plain[:, [19, 21, 20, 20], [20, 20, 19, 21]].astype(np.float64)
    np.testing.assert_allclose(std[:, 20, 20], np.sqrt(np.sum(four**2, axis=1) / 16), rtol=1e-6)
    np.testing.assert_array_equal(std[:, bad == 0], plain[:, bad == 0])
    _, nothing = correction.set_params(defects="nan").transform(images, return_std=True)
    assert np.isnan(nothing[:, 20, 20]).all()


def test_what_only_stands_in_has_none(scene):
    cal, _, flats, images = scene
    images = images.copy()
    images[0, 3, 3] = 0
    with pytest.warns(DetectorcalWarning, match="^1 of 9600 transmissions"):
        logarithms, std = cal.transform(images, flats, log=True, invalid="clip", return_std=True)
    assert np.isfinite(logarithms).all()
    assert np.argwhere(np.isnan(std)).tolist() == [[0, 3, 3]]


def test_it_is_the_same_however_it_is_worked_out(scene, tmp_path):
    cal, _, flats, images = scene
    corrected, std = cal.transform(images, flats, return_std=True)
    assert std.dtype == corrected.dtype == np.float32
    np.testing.assert_array_equal(corrected, cal.transform(images, flats))
    for how in ({"n_jobs": 2}, {"batch_size": 2}):
        correction = cal.correction(flats).set_params(**how)
        out = np.memmap(tmp_path / "out", np.float32, "w+", shape=images.shape)
        written, again = correction.transform(images, return_std=True, out=out)
        assert written is out
        np.testing.assert_array_equal(again, std)
        np.testing.assert_array_equal(out, corrected)
    in_place = images.astype(np.float32)
    _, again = cal.transform(in_place, flats, return_std=True, out=in_place)
    np.testing.assert_allclose(again, std, rtol=1e-6)
    np.testing.assert_array_equal(in_place, corrected)


def test_lazily_and_on_another_library(scene):
    da, xp = pytest.importorskip("dask.array"), pytest.importorskip("array_api_strict")
    cal, _, flats, images = scene
    correction = cal.correction(flats, log=True)
    _, wanted = correction.transform(images, return_std=True)
    _, lazy = correction.transform(da.from_array(images, chunks=(2, 40, 40)), return_std=True)
    np.testing.assert_array_equal(lazy.compute(), wanted)
    _, there = correction.transform(xp.asarray(images), return_std=True)
    np.testing.assert_allclose(np.asarray(there), wanted, rtol=1e-6)


def test_where_read_noise_and_the_number_of_darks_come_from(scene, tmp_path):
    cal, darks, _, _ = scene
    assert cal.n_darks_ == 9
    assert cal.read_noise_ == pytest.approx(np.sqrt(4 + 1 / 12), rel=0.05)
    cal.save(tmp_path / "cal.h5")
    again = DetectorCalibrator.load(tmp_path / "cal.h5")
    assert (again.n_darks_, again.read_noise_) == (cal.n_darks_, cal.read_noise_)
    known = cal.correction(dark=darks[:4]).uncertainty
    assert known.n_darks == 4
    assert known.read_noise == pytest.approx(2, rel=0.1)
    assert cal.correction(dark=100.0).uncertainty.n_darks == 0


def test_rounding_is_the_least_of_whole_numbers(scene):
    cal, darks, _, _ = scene
    still = cal.correction(dark=np.repeat(darks[:1], 4, axis=0))  # nothing moves
    image = np.round(still.dark).astype(np.uint16)
    still.set_params(uncertainty=still.uncertainty._replace(read_noise=None))
    with pytest.warns(DetectorcalWarning, match="the read noise is not known"):
        _, std = still.transform(image, return_std=True)
    np.testing.assert_allclose(std / still.scale, np.sqrt((1 + 1 / 4) / 12), rtol=1e-6)


def test_what_it_needs(scene):
    _, darks, _, images = scene
    with pytest.raises(InputError, match="no `response`"):
        Correction(np.ones(SHAPE), np.zeros(SHAPE)).transform(images, return_std=True)
    with pytest.warns(DetectorcalWarning, match="one frame"):
        once = DetectorCalibrator(8).fit(images[-1:], dark=darks)
    with pytest.raises(InputError, match=r"`return_std` needs the system gain.*`system_gain`"):
        once.transform(images, return_std=True)


# --- what darks and parameters tell of the read noise ----------------------------------------------------


class Sliced:
    """The least that a stack is: a shape, a dtype, and slices."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, batch):
        return self._array[batch]


@pytest.fixture(scope="module")
def camera():
    """A sweep, 16 darks and 10 flats of a camera of 1 DN per electron and 2 DN of read noise."""
    rng = np.random.default_rng(3)
    shape = (48, 64)
    light = rng.poisson(np.linspace(300, 3000, 12)[:, None, None] * np.ones(shape))
    sweep = light + 100 + rng.normal(0, 2, (12, *shape))
    darks, flats = 100 + rng.normal(0, 2, (16, *shape)), 100.0 + rng.poisson(2000, (10, *shape))
    return sweep, darks, flats


def test_stacks_need_no_more_than_a_shape(camera):
    sweep, darks, flats = camera
    array, sliced = (
        DetectorCalibrator(sigma=8).fit(sweep, dark=kind(darks)) for kind in (np.asarray, Sliced)
    )
    assert (sliced.n_darks_, sliced.read_noise_) == (16, array.read_noise_)
    for sigma in (None, 3.0):
        one, other = (
            cal.transform(sweep[3], flat, sigma, return_std=True)
            for cal, flat in ((array, flats), (sliced, Sliced(flats)))
        )
        np.testing.assert_array_equal(one, other)


def test_one_dark_does_not_take_back_what_many_told(camera):
    sweep, darks, _ = camera
    cal = DetectorCalibrator(sigma=8).partial_fit(sweep, dark=darks)
    told = cal.read_noise_
    assert told == pytest.approx(2, rel=0.05)
    assert cal.partial_fit(sweep, dark=darks[0]).read_noise_ == told


def test_merged_darks_count_together_in_any_order(camera):
    sweep, darks, _ = camera
    a, b = (DetectorCalibrator(sigma=8).fit(sweep, dark=some) for some in (darks[:6], darks[6:]))
    for merged in (DetectorCalibrator.merge(a, b), DetectorCalibrator.merge(b, a)):
        assert merged.n_darks_ == 16
        assert merged.read_noise_**2 == pytest.approx((a.read_noise_**2 + b.read_noise_**2) / 2)
    same = DetectorCalibrator.merge(a, a)
    assert (same.n_darks_, same.read_noise_) == (a.n_darks_, a.read_noise_)


def test_read_noise_given_after_a_fit_of_lines(camera, tmp_path):
    """Their sums do not hold it, so it may be learned later; that there is none is known as well."""
    sweep, darks, flats = camera
    cal = DetectorCalibrator(sigma=8).fit(sweep, dark=darks.mean(axis=0))
    with pytest.warns(DetectorcalWarning, match="read noise is not known"):
        _, without = cal.transform(sweep[3], flats, return_std=True)
    _, none = cal.set_params(read_noise=0.0).transform(sweep[3], flats, return_std=True)
    _, much = cal.set_params(read_noise=40.0).transform(sweep[3], flats, return_std=True)
    np.testing.assert_array_equal(none, without)
    assert np.all(much > none)
    cal.save(tmp_path / "cal.h5")
    assert DetectorCalibrator.load(tmp_path / "cal.h5").read_noise == 40.0


def test_read_noise_hides_rings(camera):
    sweep, darks, _ = camera
    cal = DetectorCalibrator(sigma=8).fit(sweep, dark=darks)
    level, k, r = 100.0, cal.system_gain_, cal.read_noise_
    noise = k * (level + r**2 / k) / level**2 / 1000
    pattern = 0.01 * cal.expected_prnu_  # alike at all levels of a straight line
    assert cal.expected_rings(1000, level) == pytest.approx(pattern / np.sqrt(noise), rel=1e-6)
