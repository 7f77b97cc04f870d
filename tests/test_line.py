"""The straight line through the origin: its formulas, its precision, its noise and its standard errors."""

import array_api_strict
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2

from detectorcal import DetectorCalibrator
from detectorcal.kernels.line import Croton, Photon, estimate_system_gain
from detectorcal.kernels.model import ROW_STEP, add_rows, add_sums, empty_sums
from detectorcal.simulate import Detector, beam_profile, exposure_ladder, moved_beam
from tests import reference

MODELS = {"croton": Croton(), "photon": Photon()}
methods = pytest.mark.parametrize("method", MODELS)


def sums_of(model, measured, expected, run=8):
    """Sum over runs of frames in their own precision, runs in float64, as a fit does."""
    totals = empty_sums(model, measured.shape[1:], measured)
    for start in range(0, len(measured), run):
        m, s = measured[start : start + run], expected[start : start + run]
        common = {"frames": np.sum(s > 0, axis=0), "expected": s.sum(axis=0)}
        add_rows(totals, common | model.accumulate(s.copy(), m.copy()), slice(None))
        some = slice(None, None, ROW_STEP if m.ndim == 3 else 1)
        add_rows(totals, model.accumulate_sampled(s[:, some].copy(), m[:, some].copy()), some)
    return totals


def random_sweep(shape, n_frames, prnu=0.02, system_gain=0.5, seed=0):
    """Measured and expected values of an even beam, DN: a ladder, photon noise, a spread of gains."""
    rng = np.random.default_rng(seed)
    expected = np.multiply.outer(np.linspace(200.0, 3000.0, n_frames), np.ones(shape))
    mean = expected * (1 + prnu * rng.standard_normal(shape))
    return mean + np.sqrt(system_gain * mean) * rng.standard_normal(mean.shape), expected


# --- formulas -----------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("shape", [(30,), (18, 20)], ids=str)
@pytest.mark.parametrize("n_frames", [1, 2, 9, 20])
def test_coefficients_are_those_of_least_squares(method, shape, n_frames):
    measured, expected = random_sweep(shape, n_frames, prnu=0.2)
    found = MODELS[method].solve(sums_of(MODELS[method], measured, expected), None).coef
    for pixel in np.ndindex(shape):
        truth = reference.METHODS[method](measured[(slice(None), *pixel)], expected[(slice(None), *pixel)])
        assert found[pixel] == pytest.approx(truth, rel=1e-12)  # float64, 20 frames


@methods
def test_frames_left_out_count_for_nothing(method):
    model = MODELS[method]
    measured, expected = random_sweep((16, 20), 12)
    used = np.random.default_rng(1).random(measured.shape) < 0.7
    used[0] = True
    response = model.solve(sums_of(model, np.where(used, measured, 0), np.where(used, expected, 0)), None)
    for pixel in np.ndindex(16, 20):
        frames = used[(slice(None), *pixel)]
        truth = reference.METHODS[method](measured[(frames, *pixel)], expected[(frames, *pixel)])
        assert response.coef[pixel] == pytest.approx(truth, rel=1e-12)


@methods
def test_without_frames_there_is_no_coefficient(method):
    model = MODELS[method]
    response = model.solve(empty_sums(model, (4, 5), np.empty(0)), None)
    assert np.isnan(response.coef).all()
    assert np.isnan(response.relative_variance).all()
    assert np.isnan(response.system_gain)


@methods
def test_a_pixel_that_reads_nothing_spoils_no_other(method):
    model = MODELS[method]
    measured, expected = random_sweep((16, 40), 12)
    usual = model.solve(sums_of(model, measured, expected), None)
    measured[:, 3, 7] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):  # the estimator flags what is not finite
        response = model.solve(sums_of(model, measured, expected), None)
    others = np.ones((16, 40), bool)
    others[3, 7] = False
    assert not np.isfinite(response.coef[3, 7])
    np.testing.assert_array_equal(response.coef[others], usual.coef[others])
    np.testing.assert_array_equal(response.relative_variance[others], usual.relative_variance[others])


@methods
@pytest.mark.parametrize("shape", [(30,), (33, 20)], ids=str)
def test_sums_merge_in_any_grouping_and_order(method, shape):
    model = MODELS[method]
    measured, expected = random_sweep(shape, 24)
    whole = sums_of(model, measured, expected)
    parts = [sums_of(model, measured[z], expected[z]) for z in (slice(0, 3), slice(3, 17), slice(17, 24))]
    before = {name: values.copy() for name, values in parts[0].items()}
    grouped = add_sums([add_sums(parts[:2]), parts[2]])
    for merged in (
        add_sums(parts),
        add_sums(parts[::-1]),
        grouped,
        add_sums([empty_sums(model, shape, np.empty(0)), *parts]),
    ):
        assert set(merged) == set(whole)
        for name, values in whole.items():
            # differences of two large numbers: their rounding, not their own size, is what counts
            np.testing.assert_allclose(merged[name], values, rtol=1e-12, atol=1e-12 * np.abs(values).max())
    for name, values in before.items():
        np.testing.assert_array_equal(parts[0][name], values)  # merging makes new sums


@methods
def test_arrays_of_a_device_give_the_same_sums(method):
    measured, expected = random_sweep((33, 40), 8)
    device = array_api_strict.Device("device1")
    values = expected, measured
    model = MODELS[method]

    def put():
        return [array_api_strict.asarray(a, device=device, copy=True) for a in values]

    found = model.accumulate(*put()) | model.accumulate_sampled(*put())
    wanted = model.accumulate_sampled(*values) | model.accumulate(*(a.copy() for a in values))
    for name, sums in wanted.items():
        assert found[name].device == device
        host = array_api_strict.asarray(found[name], device=array_api_strict.Device("CPU_DEVICE"))
        np.testing.assert_allclose(np.asarray(host), sums, rtol=1e-12, atol=1e-12 * np.abs(sums).max())


# --- precision ----------------------------------------------------------------------------------------


def plain_form(method, measured, expected, run):
    """What one would write first: sum s m / sum m^2, or sum s / sum m."""
    weight = measured if method == "croton" else np.ones_like(measured)
    top = bottom = 0.0
    for start in range(0, len(measured), run):
        z = slice(start, start + run)
        top = top + np.einsum("z...,z...->...", expected[z], weight[z]).astype(float)
        bottom = bottom + np.einsum("z...,z...->...", measured[z], weight[z]).astype(float)
    return top / bottom


@methods
@pytest.mark.parametrize("n_frames", [8, 64, 1000])
def test_one_plus_a_sum_of_differences_keeps_eight_digits_of_float32(method, n_frames):
    measured, expected = (a.astype(np.float32) for a in random_sweep((16, 20), n_frames))
    in_float64 = plain_form(method, measured.astype(float), expected.astype(float), n_frames)

    def error(coef):
        return np.max(np.abs(coef / in_float64 - 1))

    # float32 rounds by 6e-8; the differences are 2 % of the values, so it rounds them by 1e-9
    of_package = error(MODELS[method].solve(sums_of(MODELS[method], measured, expected), None).coef)
    assert of_package < 1e-8
    assert error(plain_form(method, measured, expected, run=8)) > 10 * of_package
    if n_frames == 1000:  # and if the runs of 8 were not added up in float64, digits would go one by one
        assert error(plain_form(method, measured, expected, run=n_frames)) > 1000 * of_package


# --- K, DN per electron -------------------------------------------------------------------------------

AREA = (160, 96)
SAMPLED_ROWS = 10  # one in sixteen


def error_of_gain(n_frames, shape=AREA):
    """Relative standard error of a median of chi-squared numbers, one per pair of pixels.

    A pixel is in two pairs, which are correlated by (1/2)^2 each: the variance grows by 1 + 2/4.
    """
    freedom = n_frames - 1
    median = chi2.median(freedom)
    n_pairs = (shape[-1] - 4) * (SAMPLED_ROWS if len(shape) == 2 else 1)
    return 1 / (2 * chi2.pdf(median, freedom) * median) * np.sqrt(1.5 / n_pairs)


def quiet_detector(shape=AREA, system_gain=0.5, seed=3):
    """All its noise is that of photons, which is what K describes."""
    return Detector.random(shape, prnu=0.02, read_noise=0.0, bits=None, system_gain=system_gain, seed=seed)


def flickering(intensity, seed=8):
    """The same frames, each with a brightness of its own: 5 % up and down."""
    flicker = 1 + 0.05 * np.random.default_rng(seed).standard_normal(len(intensity))
    return intensity * flicker.reshape(-1, *[1] * (intensity.ndim - 1))


def fitted_gain(detector, intensity, sigma, method="photon", seed=5):
    sweep = detector.record(intensity, seed=seed)
    return DetectorCalibrator(sigma=sigma, method=method).fit(sweep, dark=detector.dark).system_gain_


@methods
@pytest.mark.parametrize("true_gain", [0.1, 0.5, 4.0])
@pytest.mark.parametrize("n_frames", [2, 5, 20])
def test_gain_from_a_ladder(method, true_gain, n_frames):
    ladder = exposure_ladder(beam_profile(AREA), n_frames, lowest=600, highest=6000)  # 150 electrons or more
    for intensity in (ladder, flickering(ladder)):
        found = fitted_gain(quiet_detector(system_gain=true_gain), intensity, 10.0, method)
        assert abs(found / true_gain - 1) < 4 * error_of_gain(n_frames)


def test_gain_from_a_line_detector():
    shape = (1200,)
    ladder = exposure_ladder(beam_profile(shape), 20, lowest=500, highest=5000)
    found = fitted_gain(quiet_detector(shape), flickering(ladder), 30.0)
    assert abs(found / 0.5 - 1) < 4 * error_of_gain(20, shape)


def scatter_about_line(difference, expected):
    """What K would be read from these differences alone."""
    squares = np.sum(difference**2 / expected, axis=0)
    return (squares - np.sum(difference, axis=0) ** 2 / np.sum(expected, axis=0)) / (len(expected) - 1)


@pytest.mark.parametrize(("sigma", "width", "peak"), [(5, 0.3, 3000), (10, 0.3, 3000), (10, 0.5, 10000)])
@pytest.mark.parametrize("with_flicker", [False, True])
@pytest.mark.filterwarnings("ignore:.*not to be relied on", "ignore:.*take no part")  # at the edges
def test_gain_from_a_strongly_moved_beam_that_smoothing_bends(sigma, width, peak, with_flicker):
    detector = quiet_detector()
    intensity = moved_beam(AREA, 20, peak=peak, width=width)
    intensity = flickering(intensity) if with_flicker else intensity
    silent = detector.response(intensity)
    expected = np.stack([gaussian_filter(frame, sigma, mode="nearest") for frame in silent])
    bent = expected - silent
    # a single pixel strays from its line mostly by what smoothing does to the beam ...
    of_single_pixels = np.mean(scatter_about_line(bent, expected))
    # ... of which a pair of pixels shares all but a few percent
    pair = (slice(None), slice(None, None, 16))
    of_pairs = np.mean(
        scatter_about_line(
            bent[pair][..., 4:] - bent[pair][..., :-4], expected[pair][..., 4:] + expected[pair][..., :-4]
        )
    )
    assert of_pairs < of_single_pixels / 8
    assert of_single_pixels > 0.3

    found = fitted_gain(detector, intensity, sigma)
    assert -4 * error_of_gain(20) * 0.5 < found - 0.5 < 4 * error_of_gain(20) * 0.5 + of_pairs


@methods
def test_gain_scales_with_the_unit(method):
    measured, expected = random_sweep((32, 40), 10)
    usual = estimate_system_gain(sums_of(MODELS[method], measured, expected))
    scaled = estimate_system_gain(sums_of(MODELS[method], 16 * measured, 16 * expected))
    assert scaled == pytest.approx(16 * usual, rel=1e-12)


def test_defective_pixels_do_not_move_the_gain():
    measured, expected = random_sweep((160, 40), 10)
    usual = estimate_system_gain(sums_of(Photon(), measured, expected))
    broken = np.random.default_rng(2).random((160, 40)) < 0.03
    measured[:, broken] = 1e4 * np.random.default_rng(3).random((10, np.count_nonzero(broken)))
    # 6 % of the pairs then lie above the median, which moves by the distance of the 53rd percentile
    shift = chi2.ppf(0.53, 9) / chi2.median(9) - 1
    assert abs(estimate_system_gain(sums_of(Photon(), measured, expected)) / usual - 1) < 2 * shift


@methods
def test_gain_is_not_known_from_too_little(method):
    model = MODELS[method]
    measured, expected = random_sweep((20, 40), 5)
    assert np.isnan(
        estimate_system_gain(sums_of(model, measured[:1], expected[:1]))
    )  # one frame has no scatter
    assert np.isnan(
        estimate_system_gain(sums_of(model, measured[..., :1], expected[..., :1]))
    )  # nor has one column

    # the pixels of a pair, 4 px apart, must have been seen in equally many frames
    apart = (np.arange(40) // 4 % 2 == 0) | (np.arange(5) < 3)[:, None, None]
    assert np.isnan(estimate_system_gain(sums_of(model, measured * apart, expected * apart)))


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_narrow_detectors_have_a_gain_too(width):
    measured, expected = random_sweep((1600, width), 12)
    n_pairs = 100 * (width - min(4, width - 1))
    error = error_of_gain(12) * np.sqrt(SAMPLED_ROWS * 92 / n_pairs)
    assert abs(estimate_system_gain(sums_of(Photon(), measured, expected)) / 0.5 - 1) < 4 * error


# --- standard errors under photon noise ---------------------------------------------------------------
#
# (coef_ - truth) / coef_std_ must spread by 1. The truth is what infinitely many photons would give: the same
# fit of the same sweep without noise. So neither the bend of a beam nor that of a ladder's profile, which
# smoothing turns into a coefficient of its own, is mistaken for an error of the fit; and sigma is small
# against the beam, so that the bend does not enter K, which the tests above look at.

SHAPE, SIGMA, N_FRAMES = (64, 96), 5.0, 20


def robust_spread(values):
    low, high = np.percentile(values, [25, 75])
    return (high - low) / 1.349


def sweep_of(kind, peak):
    if kind == "ladder":
        return exposure_ladder(beam_profile(SHAPE), N_FRAMES, lowest=0.1 * peak, highest=peak)
    return moved_beam(SHAPE, N_FRAMES, peak=peak, width=0.4)


def truth_and_fit(kind, peak, method):
    detector = quiet_detector(SHAPE)
    intensity = sweep_of(kind, peak)
    silent = detector.response(intensity)
    expected = np.stack([gaussian_filter(frame, SIGMA, mode="nearest") for frame in silent])
    weight = silent if method == "croton" else np.ones_like(silent)
    truth = np.sum(expected * weight, axis=0) / np.sum(silent * weight, axis=0)
    sweep = detector.record(intensity, seed=7)
    return truth, silent, DetectorCalibrator(sigma=SIGMA, method=method).fit(sweep, dark=detector.dark), sweep


kinds = pytest.mark.parametrize("kind", ["ladder", "moved"])
peaks = pytest.mark.parametrize("peak", [10_000.0, 100.0], ids=["20,000 electrons", "200 electrons"])
moved = pytest.mark.filterwarnings("ignore:[1-3] of 6144 pixels are calibrated, but not to be relied on")
# where smoothing bends the moved beam most, at the detector's edges


@methods
@kinds
@peaks
@moved
def test_standard_errors_are_true(kind, peak, method):
    truth, _, cal, _ = truth_and_fit(kind, peak, method)
    # 6144 pixels tell the spread to 1.3 %, the pairs tell K to 3 % and its root to 1.5 %
    assert 0.9 < robust_spread((cal.coef_ - truth) / cal.coef_std_) < 1.1
    assert cal.coef_std_.shape == SHAPE
    assert np.all(cal.coef_std_ > 0)


@peaks
def test_the_textbook_formula_is_plainly_too_small_on_a_ladder(peak):
    truth, silent, _, sweep = truth_and_fit("ladder", peak, "croton")
    line = reference.fit(sweep, quiet_detector(SHAPE).dark, sigma=SIGMA)
    found = robust_spread((line.coef - truth) / (line.coef * reference.textbook_relative_std(line)))
    # it takes the mean variance K mean(s) for that of every frame, but bright frames have both more noise and
    # more weight: variance K sum s^3 / (sum s^2)^2 against K mean(s) / sum s^2
    s1, s2, s3 = (np.sum(silent**power, axis=0) for power in (1, 2, 3))
    derived = np.median(np.sqrt(s3 * N_FRAMES / (s2 * s1)))
    assert derived > 1.15
    assert found == pytest.approx(
        derived, rel=0.06
    )  # spread of the spread, and its own 19 degrees of freedom
    assert found > 1.1


@kinds
@peaks
@moved
def test_photon_weights_have_no_bias(kind, peak):
    truth, _, cal, _ = truth_and_fit(kind, peak, "photon")
    # the median of 6144 numbers of spread 1 errs by 1.25 / sqrt(6144) = 0.016
    assert abs(np.median((cal.coef_ - truth) / cal.coef_std_)) < 4 * 0.016


@kinds
def test_least_squares_reads_low_by_what_noise_adds_to_the_squares(kind):
    # "regression dilution": sum m^2 is too large by K sum m
    truth, silent, cal, _ = truth_and_fit(kind, 100.0, "croton")
    derived = -0.5 * np.sum(silent, axis=0) / np.sum(silent**2, axis=0)
    assert np.median(derived) < -0.005
    error = 1.25 * np.median(cal.coef_std_) / np.sqrt(truth.size)
    assert np.median(cal.coef_ / truth - 1) == pytest.approx(np.median(derived), abs=4 * error + 1e-3)


@methods
def test_standard_errors_are_in_the_unit_of_the_coefficient(method):
    # a pixel of twice the gain has half the coefficient, and 1 / sqrt(2) of the relative error
    detector = quiet_detector(SHAPE)
    gain = detector.gain.copy()
    gain[20, 30] = 2.0
    doubled = Detector(
        gain=gain, dark=detector.dark, curvature=detector.curvature, read_noise=detector.read_noise,
        defects=detector.defects, system_gain=0.5, bits=None,
    )  # fmt: skip
    cal = DetectorCalibrator(sigma=20, method=method).fit(
        doubled.record(sweep_of("ladder", 10_000.0), seed=9), dark=doubled.dark
    )
    ratio = cal.coef_std_[20, 30] / np.median(cal.coef_std_[18:23, 28:33])
    assert ratio == pytest.approx(0.5 / np.sqrt(2), rel=0.05)  # gains spread by 2 %
