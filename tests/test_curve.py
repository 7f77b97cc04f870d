"""Responses that curve: what is known of them, how well, and what a flat adds."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detectorcal import Correction, DetectorCalibrator, DetectorcalWarning, RingSuppressor
from detectorcal._errors import InputError
from detectorcal.kernels.correction import Inverse
from detectorcal.kernels.curve import Curved, Noise, posterior
from detectorcal.kernels.model import EXTREMES, add_rows, add_sums, empty_sums
from detectorcal.simulate import Detector, beam_profile, exposure_ladder, moved_beam
from tests import reference

SHAPE = (160, 160)
SIGMA = 20
BORDER = 4
"""Outermost pixels, whose expected value hangs on few others: docs/curved.md says how much that is."""

evenly_lit = pytest.mark.filterwarnings("ignore:the images are brighter")
"""An even image of a high level is brighter than a bell of that height, away from its middle."""

BENT = {"curvature": -1.3e-5, "curvature_spread": 4e-6}
"""4 % at 3000 DN, and 1.2 % of spread."""


def simulated(seed=1, moved=False, n_frames=60, shape=SHAPE, **properties):
    """A detector, its sweep and its darks."""
    detector = Detector.random(shape, prnu=0.02, seed=seed, **properties)
    beams = moved_beam(shape, n_frames, width=0.3) if moved else ladder(shape, n_frames)
    return detector, detector.record(beams, seed + 100), detector.darks(50, seed + 200)


def ladder(shape, n_frames):
    return exposure_ladder(beam_profile(shape, width=0.6), n_frames)


def fitted(sweep, darks, sigma=SIGMA, **params):
    return DetectorCalibrator(sigma, method="curved", n_jobs=2, **params).fit(sweep, dark=darks)


def random_sweep(shape, n_frames, seed=0):
    """Measured and expected frames of curved pixels in a beam that has a slope."""
    rng = np.random.default_rng(seed)
    across = np.linspace(0.8, 1.2, shape[-1])
    expected = np.linspace(300, 3000, n_frames).reshape(-1, *[1] * len(shape)) * np.ones(shape) * across
    gain, curvature = 1 + 0.02 * rng.standard_normal(shape), 1e-5 * rng.standard_normal(shape)
    noise = np.sqrt(0.5 * expected + 9) * rng.standard_normal(expected.shape)
    return expected * (gain + curvature * (expected - 1500)) + noise, expected


def sums_of(model, measured, expected):
    totals = empty_sums(model, measured.shape[1:], measured)
    common = {"frames": np.sum(expected > 0, axis=0), "expected": expected.sum(axis=0)}
    add_rows(totals, common | model.accumulate(expected.copy(), measured.copy()), slice(None))
    add_rows(totals, model.accumulate_sampled(expected, measured), slice(None))
    return totals


# --- the posterior ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior_std", [0.0, 1e-6, 1e-5, 1.0])
@pytest.mark.parametrize("read_noise", [0.0, 3.0])
def test_posterior_is_that_of_the_normal_equations(prior_std, read_noise):
    measured, expected = random_sweep((5, 7), 20)
    takes_part = np.random.default_rng(1).random(expected.shape) < 0.8
    K, centre = 0.5, 1400.0
    model = Curved(read_noise**2 / K)
    sums = sums_of(model, np.where(takes_part, measured, 0), np.where(takes_part, expected, 0))
    found = posterior(sums, Noise(K, centre, prior_std))
    for pixel in np.ndindex(5, 7):
        series = (slice(None), *pixel)
        mean, covariance = reference.curve(
            measured[series], expected[series], takes_part[series], K, read_noise, centre, prior_std
        )
        assert found.gain[pixel] == pytest.approx(mean[0], rel=1e-9)
        assert found.curvature[pixel] == pytest.approx(mean[1] if prior_std else 0.0, rel=1e-6, abs=1e-16)
        assert found.gain_variance[pixel] == pytest.approx(covariance[0, 0], rel=1e-8)
        assert found.covariance[pixel] == pytest.approx(covariance[0, 1], rel=1e-6, abs=1e-16)
        assert found.curvature_variance[pixel] == pytest.approx(covariance[1, 1], rel=1e-8, abs=1e-20)


def test_a_detector_without_noise_is_known_exactly():
    detector = Detector.random(
        (60, 70), prnu=0.02, curvature_spread=4e-6, read_noise=0, system_gain=0, bits=None, dsnu=0, seed=2
    )
    even = exposure_ladder(np.ones(detector.shape), 12, lowest=200, highest=3000)
    # the mean over the detector is what a Gaussian that reaches everywhere expects
    cal = DetectorCalibrator(1e4, method="curved", mode="wrap").fit(
        detector.record(even, 0), dark=detector.dark
    )
    level = np.full(detector.shape, 1234.0)
    measured = detector.response(level)
    expected = np.mean(measured) * np.ones(detector.shape)
    np.testing.assert_allclose(cal.transform(measured + detector.dark), expected, rtol=2e-6)


def test_curvature_can_be_told_from_pixels_that_only_differ():
    _, bent, darks = simulated(**BENT)
    _, straight, _ = simulated()
    assert fitted(bent, darks).prior_std_ == pytest.approx(BENT["curvature_spread"], rel=0.15)
    # 0, or too little to matter: a tenth of what was found above
    assert fitted(straight, darks).prior_std_ < 0.1 * BENT["curvature_spread"]


@pytest.mark.parametrize("moved", [False, True], ids=["ladder", "moved"])
@pytest.mark.parametrize("read_noise", [2.0, 6.0])
def test_noise_constants(moved, read_noise):
    for seed in range(3):
        _, sweep, darks = simulated(seed, moved, read_noise=read_noise)
        cal = fitted(sweep, darks)
        assert cal.system_gain_ == pytest.approx(0.5, rel=0.05)
        # a reading is rounded to whole DN, whose variance is 1/12
        assert cal.read_noise_ == pytest.approx(np.sqrt(read_noise**2 + 1 / 12), rel=0.05)
        # from the first frames; it only sets weights, of which a fifth changes nothing
        assert cal.read_noise_level_ == pytest.approx(cal.read_noise_**2 / 0.5, rel=0.2)


@evenly_lit
@pytest.mark.parametrize("moved", [False, True], ids=["ladder", "moved"])
@pytest.mark.parametrize("curved", [False, True], ids=["straight", "bent"])
def test_the_standard_error_is_that_of_the_corrected_value_at_every_level(moved, curved):
    detector, sweep, darks = simulated(3, moved, **(BENT if curved else {}))
    cal = fitted(sweep, darks)
    inner = (slice(BORDER, -BORDER),) * 2
    for level in (300.0, 800.0, 1500.0, 2200.0, 2800.0):
        truth = np.full(SHAPE, level)
        corrected = cal.transform(detector.response(truth) + detector.dark)
        # what varies smoothly is the beam that a Gaussian bends, and the curvature that all pixels share
        off = corrected / gaussian_filter(corrected, 4, mode="mirror") - 1
        kept = 1 - 1 / (4 * np.pi * 4**2)  # of the variance, by that Gaussian of 4 px
        ratio = off / np.sqrt(kept) / cal.predict_std(level)
        assert 0.9 < ratio[inner].std() < 1.1


@evenly_lit
def test_what_the_sweep_cannot_tell_costs_nothing():
    """Straight pixels, few counts: no worse than a straight line, within 2 %, at every level."""
    excess = []
    for seed in range(5):
        detector, sweep, darks = simulated(seed, n_frames=20, system_gain=5.0)
        cal = fitted(sweep, darks)
        for level in (300.0, 2800.0):
            raw = detector.response(np.full(SHAPE, level)) + detector.dark
            curve = fine_spread(cal.transform(raw))
            line = fine_spread((raw - cal.dark_) * (1 + cal.sums_["w_sr"] / cal.sums_["w_s2"]) ** -1)
            excess.append(curve / line)
    assert np.median(excess) < 1.005
    assert np.max(excess) < 1.02


def fine_spread(image):
    inner = (slice(BORDER, -BORDER),) * 2
    return np.std((image / gaussian_filter(image, 4, mode="mirror"))[inner])


def test_where_a_flat_field_fails_and_a_line():
    """2 % of curvature spread at 20 ke-: at 20 % transmission at most 0.35 of a flat field's error."""
    top = 10_000.0  # DN: 20 ke- at 0.5 DN per electron
    detector = Detector.random(SHAPE, prnu=0.02, curvature_spread=0.02 / top, bits=16, seed=4)
    profile = beam_profile(SHAPE, width=1.5)
    sweep = detector.record(exposure_ladder(profile, 60, lowest=200, highest=1.02 * top), 5)
    darks, flats = detector.darks(50, 6), detector.flats(top * profile, 20, 7)
    behind = detector.response(0.2 * top * profile) + detector.dark
    by_flat = fine_spread((behind - detector.dark) / (detector.response(top * profile)))
    cal = fitted(sweep, darks)
    assert fine_spread(cal.transform(behind, flats)) < 0.35 * by_flat
    line = DetectorCalibrator(SIGMA, method="photon").fit(sweep, dark=darks)
    assert fine_spread(line.transform(behind, flats)) > 0.35 * by_flat


@evenly_lit
def test_expectations_come_true():
    detector, sweep, darks = simulated(7, n_frames=8)
    cal = fitted(sweep, darks)
    level = cal.reference_level_
    raw = detector.response(np.full(SHAPE, level)) + detector.dark
    assert 100 * fine_spread(cal.transform(raw)) == pytest.approx(cal.expected_prnu_, rel=0.1)
    # N frames of one level: the pattern of their mean over the noise of it
    frames = detector.flats(np.full(SHAPE, level), 100, 8)
    corrected = cal.transform(frames)
    noise = np.std(np.diff(corrected, axis=0)) / np.sqrt(2 * 100)
    pattern = fine_spread(cal.transform(raw)) * level
    assert cal.expected_rings(100) == pytest.approx(pattern / noise, rel=0.1)


# --- sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params", [{}, {"read_noise": 2.0, "system_gain": 0.5}], ids=["photons", "read noise"]
)
def test_halves_of_a_sweep_add_up(params):
    _, sweep, darks = simulated(shape=(48, 56), **BENT)
    dark = darks.mean(axis=0)
    whole = fitted(sweep, dark, **params)
    merged = DetectorCalibrator.merge(fitted(sweep[:24], dark, **params), fitted(sweep[24:], dark, **params))
    further = fitted(sweep[:24], dark, **params).partial_fit(sweep[24:])
    for other in (merged, further):
        for name in ("coef_", "curvature_", "covariance_", "reference_level_", "prior_std_", "system_gain_"):
            np.testing.assert_allclose(getattr(other, name), getattr(whole, name), rtol=1e-7, atol=1e-13)


def test_sums_with_other_weights_are_not_added():
    _, sweep, darks = simulated(shape=(48, 56))
    a, b = fitted(sweep[:30], darks), fitted(sweep[30:], darks)
    assert a.read_noise_level_ != b.read_noise_level_
    with pytest.raises(InputError, match=r"`read_noise_level_`.*Fit all with `system_gain="):
        DetectorCalibrator.merge(a, b)
    again = fitted(sweep[30:], darks, system_gain=a.system_gain_, read_noise=a.read_noise_)
    first = fitted(sweep[:30], darks, system_gain=a.system_gain_, read_noise=a.read_noise_)
    assert DetectorCalibrator.merge(first, again).n_frames_seen_ == 60


def test_the_brightest_of_parts_is_that_of_the_whole():
    parts = [sums_of(Curved(), *random_sweep((4, 9), n, seed=n)) for n in (3, 8)]
    merged = add_sums(parts)
    assert {"highest"} == EXTREMES
    np.testing.assert_array_equal(merged["highest"], np.maximum(parts[0]["highest"], parts[1]["highest"]))
    np.testing.assert_allclose(merged["w_s2"], parts[0]["w_s2"] + parts[1]["w_s2"])


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".tif"])
def test_saved_and_loaded(tmp_path, suffix):
    _, sweep, darks = simulated(shape=(48, 56), **BENT)
    cal = fitted(sweep, darks)
    cal.save(tmp_path / f"cal{suffix}")
    back = DetectorCalibrator.load(tmp_path / f"cal{suffix}")
    image, flat = sweep[10], sweep[-1]
    np.testing.assert_array_equal(back.transform(image, flat), cal.transform(image, flat))
    np.testing.assert_array_equal(back.predict_std(500), cal.predict_std(500))
    assert (back.read_noise_, back.prior_std_) == (cal.read_noise_, cal.prior_std_)
    more = back.partial_fit(sweep[:5])
    np.testing.assert_array_equal(more.coef_, cal.partial_fit(sweep[:5]).coef_)


# --- correction ---------------------------------------------------------------------------------------


def test_the_root_is_that_of_the_quadratic():
    rng = np.random.default_rng(9)
    s = rng.uniform(10, 4000, (50, 60))
    a, b, s0 = 1 + 0.05 * rng.standard_normal(s.shape), 2e-5 * rng.standard_normal(s.shape), 1500.0
    b[::7] = 0.0
    alpha = a - b * s0
    inverse = Inverse(1 / alpha, 4 * b / alpha**2)
    np.testing.assert_allclose(inverse.apply(s * (a + b * (s - s0))), s, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_the_inverse_of_a_correction(dtype):
    _, sweep, darks = simulated(shape=(48, 56), **BENT)
    cal = fitted(sweep, darks)
    raw = sweep[::9].astype(dtype)
    corrected = cal.transform(raw, sweep[-1], n_flats=1)
    recorded = cal.inverse_transform(corrected, sweep[-1], n_flats=1)
    np.testing.assert_allclose(recorded, raw, rtol=1e-9 if dtype == np.float64 else 2e-6)


def test_a_reading_that_no_intensity_gives_is_nan():
    live = Correction(np.ones((1, 2)), np.zeros((1, 2)), curvature=np.array([[-1e-4, 1e-4]]))
    with pytest.warns(DetectorcalWarning, match="1 of 2 values are readings that no intensity gives.* NaN"):
        np.testing.assert_array_equal(np.isnan(live.transform(np.array([[2e4, 2e4]]))), [[True, False]])


def test_dust_and_changed_pixels_are_found_and_followed():
    detector, sweep, darks = simulated(5)
    hit = np.random.default_rng(8).random(SHAPE) < 0.004
    hit[100:105, 40:45] = True  # a grain that covers more than the median of 25 pixels sees
    changed = dataclasses.replace(detector, gain=np.where(hit, 0.95 * detector.gain, detector.gain))
    profile = beam_profile(SHAPE, width=0.6)
    flats = changed.flats(2500 * profile, 20, 9)
    cal = fitted(sweep, darks)
    with pytest.warns(DetectorcalWarning, match=r"^\d+ of 25600 pixels have changed since the sweep"):
        correction = cal.correction(flats)
    found = correction.defect_map == 128
    assert found[hit].mean() >= 0.99
    assert found[~hit].mean() <= 0.001
    image = changed.response(1000 * profile) + changed.dark
    after = correction.transform(image)
    assert np.std(after[hit]) < 2.5 * np.std(after[~hit])  # as well as 20 flats know it, and not 5 % off
    assert abs(np.mean(after[hit]) / np.mean(after[~hit]) - 1) < 0.005


@pytest.mark.filterwarnings("ignore:the flat is brighter", "ignore:. of 40000 pixels have changed")
def test_nothing_has_changed_where_smoothing_bends_a_beam_that_moves():
    detector, sweep, darks = simulated(5, moved=True, shape=(200, 200))
    flats = detector.flats(2500 * beam_profile(detector.shape, width=0.6), 20, 9)
    defects = fitted(sweep, darks, sigma=50).correction(flats).defect_map  # sigma nearly as wide as the beam
    assert np.mean(defects == 128) <= 0.001


def test_a_flat_refines_what_is_known_as_frames_of_the_sweep_would():
    detector, sweep, darks = simulated(6, n_frames=6)
    flats = detector.flats(2500 * beam_profile(SHAPE, width=0.6), 40, 9)
    cal = fitted(sweep, darks)
    heeded = cal.correction(flats)
    assert np.all(heeded.predict_std(1.0) < 0.6 * cal.predict_std(2500.0))
    more = fitted(np.concatenate([sweep, flats]), darks, system_gain=0.5, read_noise=2.0)
    few = fitted(sweep, darks, system_gain=0.5, read_noise=2.0).correction(flats)
    inner = (slice(BORDER, -BORDER),) * 2
    np.testing.assert_allclose(1 / few.response.gain[inner], more.coef_[inner], atol=5e-4)
    mean = cal.correction(flats.mean(axis=0), n_flats=40)
    np.testing.assert_allclose(mean.scale, heeded.scale, rtol=1e-9)


def test_sigma_follows_residuals_as_in_the_paper():
    detector, sweep, darks = simulated(6, n_frames=12, **BENT)
    flat = detector.flats(2500 * beam_profile(SHAPE, width=0.6), 1, 9)[0]
    cal = fitted(sweep, darks)
    measured = flat - cal.dark_
    smooth = gaussian_filter(measured, SIGMA, mode="nearest")
    smooth += gaussian_filter(measured - smooth, SIGMA, mode="nearest")
    inverse = Inverse.of(cal._response())
    residual = smooth - inverse.apply(measured)
    kept = np.where(np.abs(residual) >= 3 * residual.std(), residual, 0)
    wanted = inverse.apply(measured) / (smooth - kept)
    np.testing.assert_allclose(cal.transform(flat, flat, 3.0), wanted, rtol=2e-5)


def test_a_number_is_no_evidence():
    detector, sweep, darks = simulated(6, n_frames=12)
    cal = fitted(sweep, darks)
    image = detector.response(np.full(SHAPE, 1000.0)) + detector.dark
    given = cal.correction(1600.0 + cal.dark_.mean(), n_flats=20)
    np.testing.assert_allclose(given.response.gain, 1 / cal.coef_)
    assert fine_spread(given.transform(image)) == pytest.approx(fine_spread(cal.transform(image)), rel=1e-4)


def test_a_pixel_that_is_stuck_spoils_none_of_its_neighbours():
    detector, sweep, darks = simulated(6)
    profile = beam_profile(SHAPE, width=0.6)
    flats = detector.flats(2500 * profile, 20, 9)
    flats[:, 80, 80] = 4095
    flats[:, 40, 40] = np.round(detector.dark[40, 40]).astype(int)  # and one that has died
    with pytest.warns(DetectorcalWarning, match="^2 of 25600 pixels have changed"):
        correction = fitted(sweep, darks).correction(flats)
    assert {tuple(pixel) for pixel in np.argwhere(correction.defect_map)} == {(80, 80), (40, 40)}
    assert correction.defect_map[40, 40] == 128 + 1
    assert np.isnan(correction.predict_std(0.5)[40, 40])
    near = correction.transform(detector.response(1000 * profile) + detector.dark)[75:86, 75:86].copy()
    near[5, 5] = 0.4
    assert np.abs(near / 0.4 - 1).max() < 0.02  # five standard errors


def test_read_noise_of_darks_with_a_hole():
    _, sweep, darks = simulated(6, n_frames=12)
    holed = darks.astype(float)
    holed[3, 5, 5] = np.nan
    whole = fitted(sweep, darks).read_noise_
    with pytest.warns(DetectorcalWarning, match="1 of 25600 pixels could not"):
        assert fitted(sweep, holed).read_noise_ == pytest.approx(whole, rel=1e-3)


@evenly_lit
def test_the_score_is_that_of_what_transform_does():
    detector, sweep, darks = simulated(7, **BENT)
    cal = fitted(sweep, darks)
    dim = detector.flats(np.full(SHAPE, 400.0), 30, 8)
    mean = cal.transform(dim).mean(axis=0)
    smooth = gaussian_filter((dim - cal.dark_).mean(axis=0), 20, mode="nearest")
    before = np.var((dim - cal.dark_).mean(axis=0) / smooth)
    assert cal.score(dim) == pytest.approx(1 - np.var(mean / smooth) / before, abs=1e-4)


def test_another_method_set_after_the_fit_changes_nothing_fitted():
    _, sweep, darks = simulated(shape=(48, 56), **BENT)
    cal = fitted(sweep, darks)
    bent = cal.transform(sweep[20])
    np.testing.assert_array_equal(cal.set_params(method="croton").predict_std(500), cal.predict_std(500))
    with pytest.raises(InputError, match="`method` was 'curved'"):
        cal.partial_fit(sweep[:4])
    line = DetectorCalibrator(SIGMA).fit(sweep, dark=darks).set_params(method="curved")
    assert np.all(np.isfinite(line.predict_std(500)))
    assert not np.allclose(bent, line.transform(sweep[20]), rtol=1e-3)


@pytest.mark.parametrize("read_noise", [8.0, 30.0])
def test_the_gain_is_known_beside_much_read_noise(read_noise):
    _, sweep, darks = simulated(9, read_noise=read_noise)
    cal = fitted(sweep, darks)
    assert cal.system_gain_ == pytest.approx(0.5, rel=0.1)
    assert cal.read_noise_level_ == pytest.approx(read_noise**2 / 0.5, rel=0.25)


# --- what is told the user ----------------------------------------------------------------------------


def test_levels_that_hardly_differ_make_straight_lines_and_a_warning():
    detector = Detector.random((64, 72), prnu=0.02, seed=1, **BENT)
    beams = exposure_ladder(beam_profile(detector.shape), 20, lowest=1960, highest=2040)
    with pytest.warns(DetectorcalWarning, match=r"differ by 1\.\d+ % at a pixel.*straight line"):
        cal = fitted(detector.record(beams, 2), detector.darks(20, 3))
    assert cal.prior_std_ == 0.0
    np.testing.assert_array_equal(cal.curvature_, 0.0)
    assert np.ptp([np.median(cal.predict_std(level)) for level in (100.0, 2000.0, 3000.0)]) < 1e-12


def test_levels_beyond_the_sweep_are_counted():
    detector, sweep, darks = simulated(shape=(48, 56), **BENT)
    cal = fitted(sweep, darks)
    profile = beam_profile(detector.shape, width=0.6)
    with pytest.warns(DetectorcalWarning, match=r"brighter than every frame of the sweep at 2688 of 2688"):
        cal.correction(detector.flats(3500 * profile, 4, 5))


def test_images_beyond_the_sweep_are_counted():
    detector, sweep, darks = simulated(shape=(48, 56), **BENT)
    cal = fitted(sweep, darks)
    profile = beam_profile(detector.shape, width=0.6)
    cal.transform(detector.flats(2950 * profile, 4, 5))  # noisy, but within
    with pytest.warns(DetectorcalWarning, match=r"images are brighter than every frame .* at 2688 of 2688"):
        cal.transform(detector.flats(3800 * profile, 4, 5))


@pytest.mark.parametrize("n_flats", [0, -1, 2.5, True, "3"])
def test_unfit_numbers_of_flats(n_flats):
    _, sweep, darks = simulated(shape=(48, 56))
    with pytest.raises(InputError, match="`n_flats` must be a whole number of at least 1"):
        fitted(sweep, darks).transform(sweep, sweep[-1], n_flats=n_flats)


def test_flats_are_no_evidence_to_the_straight_methods():
    _, sweep, darks = simulated(shape=(48, 56))
    cal = DetectorCalibrator(SIGMA).fit(sweep, dark=darks)
    one, many = (cal.transform(sweep, sweep[-1], n_flats=n) for n in (1, 400))
    np.testing.assert_array_equal(one, many)
    with pytest.raises(InputError, match="`n_flats` is the number of frames and needs a `flat`"):
        fitted(sweep, darks).transform(sweep, n_flats=4)


@pytest.mark.parametrize(("name", "value"), [("system_gain", 0), ("system_gain", -1), ("read_noise", -0.1)])
def test_unfit_noise_constants(name, value):
    _, sweep, darks = simulated(shape=(16, 17), n_frames=4)
    with pytest.raises(InputError, match=f"`{name}` must be a finite number"):
        fitted(sweep, darks, **{name: value})


@pytest.mark.filterwarnings("ignore:the flat is brighter")  # than the last of noisy frames it may be
@pytest.mark.parametrize("n_frames", [1, 2])
def test_too_few_frames_make_straight_lines(n_frames):
    _, sweep, darks = simulated(shape=(32, 40), n_frames=n_frames)
    with pytest.warns(DetectorcalWarning) if n_frames == 1 else np.errstate():
        cal = fitted(sweep, darks)
    assert cal.prior_std_ == 0.0
    assert np.isnan(cal.coef_std_).all()
    assert np.all(np.isfinite(cal.coef_))
    assert np.isfinite(cal.transform(sweep, sweep[-1])).all()


# --- rings --------------------------------------------------------------------------------------------


def test_rings_are_bounded_by_what_is_known_at_the_level_behind_the_sample():
    detector, sweep, darks = simulated(8, n_frames=8, **BENT)
    profile = beam_profile(SHAPE, width=0.6)
    behind = np.exp(-np.linspace(0.0, 2.5, SHAPE[1])) * np.ones(SHAPE)
    correction = fitted(sweep, darks).correction(detector.flats(2500 * profile, 20, 9))
    scan = correction.transform(detector.flats(2500 * profile * behind, 200, 10))
    rings = RingSuppressor(correction, n_std=2.0).fit(scan)
    mean = np.exp(np.log(scan).mean(axis=0))
    bound = 2.0 * correction.predict_std(mean)
    removed = np.abs(np.log(rings.multiplier_))
    assert np.all(removed <= bound * (1 + 1e-5))
    assert np.count_nonzero(removed > 0.9 * bound) > 100  # so that the bound is the one of this level
    assert rings.report_["n_beyond"] > 100
    before, after = (fine_spread(s.mean(axis=0)) for s in (scan, rings.transform(scan)))
    assert after < 0.8 * before


def test_every_pixel_is_summed_once_whatever_the_batches():
    _, sweep, darks = simulated(shape=(48, 56), **BENT)
    fits = [
        DetectorCalibrator(SIGMA, method="curved", n_jobs=n_jobs, batch_size=batch).fit(sweep, dark=darks)
        for n_jobs, batch in itertools.product((1, 2), (8, 24, None))
    ]
    for other in fits[1:]:
        for name, values in fits[0].sums_.items():
            np.testing.assert_array_equal(other.sums_[name], values)


def test_another_read_noise_is_refused_once_there_are_sums():
    scene = np.linspace(200, 2000, 12)[:, None, None] * np.ones((12, 16, 24))
    sweep = np.random.default_rng(5).poisson(scene).astype(float)
    cal = DetectorCalibrator(2, method="curved", read_noise=3.0, system_gain=1.0).fit(sweep)
    assert cal.read_noise_level_ == 9.0
    cal.set_params(read_noise=30.0)
    with pytest.raises(InputError, match=r"`read_noise` is 30\.0, but .* weighed by 3\.0 DN"):
        cal.partial_fit(sweep)
    assert cal.set_params(read_noise=3.0).partial_fit(sweep).n_frames_seen_ == 24
