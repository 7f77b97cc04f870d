"""The estimator and its correction against the loops of `reference`, option by option.

The tolerance on coefficients is 1e-6 in float64, what the Gaussian by products errs (test_smoothing.py), and
1e-5 in float32, to which uint16 belongs: of float32 frames that Gaussian keeps 5 digits.
"""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detectorcal import Correction, DetectorCalibrator, DetectorcalWarning
from detectorcal.simulate import Detector, beam_profile, drifting_darks, exposure_ladder, moved_beam
from tests import reference

METHODS = ("croton", "photon")
MODES = ("nearest", "reflect", "mirror", "wrap", "constant", "grid-constant", "grid-mirror", "grid-wrap")
TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "uint16": 1e-5}
LINE, SMALL, WIDE, LARGE = (300,), (24, 31), (12, 96), (90, 100)
SIGMA = {LINE: 12.0, SMALL: 3.0, WIDE: 20.0, LARGE: 20.0}
"""SMALL is multiplied with whole matrices, LARGE with factors of low rank, WIDE with both."""
shapes = pytest.mark.parametrize("shape", [LINE, SMALL, WIDE], ids=str)
methods = pytest.mark.parametrize("method", METHODS)


def recorded(shape, dtype="float64", n_frames=11, seed=1):
    """Sweep and darks of a detector; 11 frames are one run of 8 and a part of the next."""
    bits = 16 if dtype == "uint16" else None
    detector = Detector.random(shape, dsnu=15.0, bits=bits, seed=seed)
    sweep = detector.record(exposure_ladder(beam_profile(shape), n_frames, lowest=150.0), seed=seed + 1)
    return sweep.astype(dtype), detector.darks(4, seed=seed + 2).astype(dtype)


LOST = 1 + 2 + 32
"""The causes for which a pixel has no coefficient."""

pytestmark = pytest.mark.filterwarnings("ignore:.*not to be relied on:detectorcal.DetectorcalWarning")
# sweeps with few frames and offsets; test_defects.py asks who is named


def assert_same_line(cal, line, dtype):
    """Coefficients and standard errors of a calibrator against those of the reference."""
    solved = ~np.isnan(line.coef)
    np.testing.assert_allclose(cal.coef_[solved], line.coef[solved], rtol=TOLERANCE[dtype])
    assert cal.coef_.dtype == cal.coef_std_.dtype == np.float64
    assert np.all(cal.coef_[~solved] == 1)
    assert np.all((cal.defects_ & LOST != 0) == ~solved)
    np.testing.assert_array_equal(cal.sums_["frames"], np.sum(line.takes_part, axis=0))
    assert_same_std(cal, line)


def assert_same_std(cal, line):
    relative = reference.relative_std(line, cal.system_gain_, cal.method)
    found = cal.coef_std_ / cal.coef_
    solved = ~np.isnan(line.coef)
    assert np.isnan(found[~solved]).all()
    # croton takes c^2 sum m^2 for sum s^2, and the sweep's course from a row up to 15 above: some percent,
    # more where a constant beyond the edge gives the first and the last row a course of their own
    tolerance = 1e-4 if cal.method == "photon" else 0.15 if "constant" in cal.mode else 0.05
    np.testing.assert_allclose(found[solved], relative[solved], rtol=tolerance)


# --- the fit ------------------------------------------------------------------------------------------


@methods
@shapes
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dark", ["none", "number", "frame", "stack"])
def test_fit_equals_lstsq(shape, method, dtype, dark):
    sweep, darks = recorded(shape, dtype)
    mean_dark = darks.astype(float).mean(axis=0)
    given, truth = {
        "none": (None, 0.0),
        "number": (90.0, 90.0),
        "frame": (mean_dark, mean_dark),
        "stack": (darks, mean_dark),
    }[dark]
    cal = DetectorCalibrator(sigma=SIGMA[shape], method=method).fit(sweep, dark=given)
    assert_same_line(cal, reference.fit(sweep, truth, sigma=SIGMA[shape], method=method), dtype)
    np.testing.assert_allclose(cal.dark_, np.broadcast_to(truth, shape), rtol=1e-15)
    assert cal.n_frames_seen_ == 11
    assert cal.detector_shape_ == shape


@methods
@shapes
@pytest.mark.parametrize("mode", MODES)
def test_fit_in_every_mode(shape, method, mode):
    sweep, darks = recorded(shape)
    dark = darks.mean(axis=0)
    options = {"sigma": SIGMA[shape], "method": method, "mode": mode, "cval": 400.0}
    cal = DetectorCalibrator(**options).fit(sweep, dark=dark)
    assert_same_line(cal, reference.fit(sweep, dark, **options), "float64")


def test_modes_differ_near_the_edge_and_agree_far_from_it():
    # or the test above would pass with a mode that is ignored, as in detectorcal 0.0.1
    sweep, _ = recorded(SMALL)
    coefs = {
        (mode, cval): DetectorCalibrator(sigma=2, mode=mode, cval=cval).fit(sweep).coef_
        for mode in ("nearest", "reflect", "mirror", "wrap", "constant")
        for cval in (0.0, 2000.0)
    }
    usual = coefs["nearest", 0.0]
    for (mode, cval), coef in coefs.items():
        np.testing.assert_allclose(coef[8:-8, 8:-8], usual[8:-8, 8:-8], rtol=1e-12)
        others = [
            c for key, c in coefs.items() if key != (mode, cval) and (mode == "constant" or key[0] != mode)
        ]
        assert all(np.max(np.abs(coef - other)) > 1e-3 for other in others)


@methods
@shapes
@pytest.mark.parametrize("truncate", [1.0, 6.0])
def test_fit_with_another_end_of_the_gaussian(shape, method, truncate):
    sweep, darks = recorded(shape)
    options = {"sigma": SIGMA[shape], "method": method, "truncate": truncate}
    cal = DetectorCalibrator(**options).fit(sweep, dark=darks)
    assert_same_line(cal, reference.fit(sweep, darks.mean(axis=0), **options), "float64")


@methods
@shapes
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fit_above_a_cutoff(shape, method, dtype):
    sweep, darks = recorded(shape, dtype)
    dark = darks.astype(float).mean(axis=0)
    # the middle of what the fifth frame expects: half of the pixels leave it out
    cutoff = float(np.median(gaussian_filter(sweep[4] - dark, SIGMA[shape], mode="nearest")))
    options = {"sigma": SIGMA[shape], "method": method, "cutoff": cutoff}
    line = reference.fit(sweep, dark, **options)
    counts = np.sum(line.takes_part, axis=0)
    assert 1 < counts.min() < counts.max() < 11
    cal = DetectorCalibrator(**options).fit(sweep, dark=dark)
    assert_same_line(cal, line, dtype)


def test_pixels_that_never_rise_above_the_cutoff_are_left_alone():
    beam = beam_profile(SMALL) * (np.arange(31) > 12)
    detector = Detector.random(SMALL, bits=None, seed=1)
    sweep = detector.record(exposure_ladder(beam, 9), seed=2)
    options = {"sigma": 1.0, "cutoff": 300.0}
    line = reference.fit(sweep, detector.dark, **options)
    unsolved = np.isnan(line.coef)
    # in the shadow near the edge light is expected and none is measured, as of a dead pixel
    dead = ~unsolved & ~((line.coef > 0) & (line.coef < 10))
    assert np.count_nonzero(unsolved) > 200
    counts = f"{np.count_nonzero(dead)} dead, {np.count_nonzero(unsolved)} unsolved"
    with pytest.warns(DetectorcalWarning, match=counts):
        cal = DetectorCalibrator(**options).fit(sweep, dark=detector.dark)
    np.testing.assert_array_equal(cal.defects_, 32 * unsolved + 1 * dead)
    solved = ~unsolved & ~dead
    np.testing.assert_allclose(cal.coef_[solved], line.coef[solved], rtol=1e-6)
    np.testing.assert_array_equal(cal.coef_[~solved], 1.0)
    assert np.isnan(cal.coef_std_[~solved]).all()


@methods
@shapes
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fit_below_saturation(shape, method, dtype):
    sweep, darks = recorded(shape, dtype)
    dark = darks.astype(float).mean(axis=0)
    # two pixels in a hundred lose their brightest frames, as a gain above the others' would make them
    greedy = np.random.default_rng(3).random(shape) < 0.02
    sweep[8:, greedy] = 4000
    options = {"sigma": SIGMA[shape], "method": method, "saturation": 4000.0}
    cal = DetectorCalibrator(**options).fit(sweep, dark=dark)
    line = reference.fit(sweep, dark, **options, kept_out=cal.kept_out_ != 0)
    np.testing.assert_array_equal(np.sum(line.takes_part, axis=0), np.where(greedy, 8, 11))
    assert_same_line(cal, line, dtype)
    # it matters: left in, they would spread through the Gaussian
    spoilt = reference.fit(sweep, dark, **options | {"saturation": None})
    assert np.max(np.abs(spoilt.coef - cal.coef_)[~greedy]) > 0.001


def test_saturation_is_of_the_raw_reading_and_itself_out():
    sweep, _ = recorded(SMALL)
    sweep[10, 5, 6], sweep[10, 8, 9] = 5000.0, np.nextafter(5000.0, 0)
    cal = DetectorCalibrator(sigma=3, saturation=5000.0).fit(sweep, dark=200.0)
    assert cal.sums_["frames"][5, 6] == 10
    assert cal.sums_["frames"][8, 9] == 11


@methods
@shapes
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fit_leaves_out_what_is_not_finite(shape, method, dtype):
    sweep, darks = recorded(shape, dtype)
    dark = darks.astype(float).mean(axis=0)
    lost = np.random.default_rng(4).random(sweep.shape) < 0.03
    lost[:2] = False
    sweep[lost] = np.random.default_rng(5).choice([np.nan, np.inf, -np.inf], np.count_nonzero(lost))
    line = reference.fit(sweep, dark, sigma=SIGMA[shape], method=method)
    cal = DetectorCalibrator(sigma=SIGMA[shape], method=method).fit(sweep, dark=dark)
    assert_same_line(cal, line, dtype)
    np.testing.assert_array_equal(cal.sums_["frames"], 11 - np.sum(lost, axis=0))


@methods
@shapes
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fit_rejects_spots(shape, method, dtype):
    sweep, darks = recorded(shape, dtype)
    dark = darks.astype(float).mean(axis=0)
    struck = np.random.default_rng(6).random(sweep.shape) < 0.002
    sweep[struck] = np.minimum(sweep[struck].astype(float) + 20_000, 60_000).astype(dtype)
    options = {"sigma": SIGMA[shape], "method": method, "reject": 9.0}
    line = reference.fit(sweep, dark, **options)
    assert not np.any(line.takes_part & struck)
    assert np.count_nonzero(~line.takes_part) < 3 * np.count_nonzero(struck)
    cal = DetectorCalibrator(**options).fit(sweep, dark=dark)
    assert_same_line(cal, line, dtype)
    assert (
        np.max(np.abs(reference.fit(sweep, dark, sigma=SIGMA[shape], method=method).coef - cal.coef_)) > 0.1
    )


@methods
@shapes
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.filterwarnings("ignore:1 of 11 frames")  # under the mean dark
def test_fit_with_a_dark_for_each_frame(shape, method, dtype):
    detector = Detector.random(shape, bits=16 if dtype == "uint16" else None, seed=1)
    darks = drifting_darks(detector, 11, drift=400.0)
    sweep = detector.record(exposure_ladder(beam_profile(shape), 11, lowest=150.0), seed=2, dark=darks)
    sweep = sweep.astype(dtype)
    cal = DetectorCalibrator(sigma=SIGMA[shape], method=method)
    cal.fit(sweep, dark=darks, dark_per_frame=True)
    line = reference.fit(sweep, darks, sigma=SIGMA[shape], method=method)
    assert_same_line(cal, line, dtype)
    assert cal.dark_ is None
    mean_only = DetectorCalibrator(sigma=SIGMA[shape], method=method).fit(sweep, dark=darks.mean(axis=0))
    assert np.max(np.abs(mean_only.coef_ - cal.coef_)) > 0.01  # what the mean dark would cost


@methods
@pytest.mark.parametrize("shape", [LINE, LARGE], ids=str)
def test_fit_with_everything_at_once(shape, method):
    detector = Detector.random(shape, bits=16, seed=1)
    darks = drifting_darks(detector, 19, drift=100.0)
    sweep = detector.record(moved_beam(shape, 19, width=0.5), seed=2, dark=darks)
    struck = np.random.default_rng(6).random(sweep.shape) < 0.001
    struck[:, 3] = False  # what is kept out of the smoothing is not asked for spots
    sweep[struck] = 30_000
    sweep[12:, 3] = 65535
    options = {
        "sigma": SIGMA[shape], "method": method, "mode": "mirror", "truncate": 3.0, "cutoff": 150.0,
        "saturation": 65535.0, "reject": 10.0,
    }  # fmt: skip
    cal = DetectorCalibrator(**options).fit(sweep, dark=darks, dark_per_frame=True)
    line = reference.fit(sweep, darks, **options, kept_out=cal.kept_out_ != 0)
    assert np.sum(line.takes_part, axis=0).min() > 5
    # rows or pixels that see other frames than the sampled row have a course of their own: only photon's
    # standard error is asked for, whose formula has no course in it
    np.testing.assert_allclose(cal.coef_, line.coef, rtol=TOLERANCE["uint16"])
    np.testing.assert_array_equal(cal.sums_["frames"], np.sum(line.takes_part, axis=0))
    if method == "photon":
        assert_same_std(cal, line)


@methods
def test_one_frame_can_be_fitted_but_has_no_errors(method):
    sweep, darks = recorded(SMALL)
    with pytest.warns(DetectorcalWarning, match="one frame"):
        cal = DetectorCalibrator(sigma=3, method=method).fit(sweep[:1], dark=darks)
    line = reference.fit(sweep[:1], darks.mean(axis=0), sigma=3, method=method)
    np.testing.assert_allclose(cal.coef_, line.coef, rtol=1e-6)
    assert np.isnan(cal.coef_std_).all()
    assert np.isnan(cal.system_gain_)


@methods
def test_defective_pixels_keep_one_and_are_flagged(method):
    detector = Detector.random((40, 50), dead=0.01, bits=16, seed=2)
    sweep = detector.record(exposure_ladder(beam_profile((40, 50)), 12), seed=3)
    sweep[:, 7, 8] = 60_000  # stuck: sees far more than its neighbours
    with pytest.warns(DetectorcalWarning, match="20 dead, 1 hot"):
        cal = DetectorCalibrator(sigma=8, method=method).fit(sweep, dark=detector.dark)
    flags = detector.defects.copy()  # 1 where dead
    flags[7, 8] = 2
    np.testing.assert_array_equal(cal.defects_, flags)
    np.testing.assert_array_equal(cal.coef_[flags != 0], 1.0)
    assert np.isnan(cal.coef_std_[flags != 0]).all()


# --- the correction -----------------------------------------------------------------------------------


def dust(shape):
    n = np.prod(shape)
    return slice(n // 14, None, n // 7)


@pytest.fixture(params=[LINE, LARGE], ids=str)
def calibrated(request):
    """A fitted calibrator, and flat and image of the same detector."""
    shape = request.param
    sweep, darks = recorded(shape)
    cal = DetectorCalibrator(sigma=SIGMA[shape]).fit(sweep, dark=darks)
    detector = Detector.random(shape, dsnu=15.0, bits=None, seed=1)
    beam = 2500 * beam_profile(shape)
    flat = detector.record(beam, seed=8)
    flat.flat[dust(shape)] *= 0.7
    image = detector.record(np.stack([beam * 0.8, beam * 0.3]), seed=9)
    return cal, flat, image


def by_reference(cal, image, flat=None, threshold=None, *, dark=None, flat_dark=None):
    dark = cal.dark_ if dark is None else dark
    beam = None
    if flat is not None:
        flat_dark = dark if flat_dark is None else flat_dark
        beam = reference.smooth_flat(
            flat, flat_dark, cal.coef_, sigma=cal.sigma, mode=cal.mode, cval=cal.cval,
            truncate=cal.truncate, threshold=threshold, reject=cal.reject,
        )  # fmt: skip
    return np.stack([reference.correct(i, dark, cal.coef_, beam, cal.reject) for i in image])


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
@pytest.mark.parametrize("threshold", ["no flat", None, 0.0, 3.0, 1e9])
def test_transform_follows_the_formulas(calibrated, dtype, threshold):
    cal, flat, image = calibrated
    image = image.astype(dtype)
    arguments = () if threshold == "no flat" else (flat, threshold)
    found = cal.transform(image, *arguments)
    assert found.dtype == ("float64" if dtype == "float64" else "float32")
    # the flat's Gaussian errs by 2e-6; image minus dark loses a few times 6e-8 of float32's image
    tolerance = 3e-6 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found, by_reference(cal, image, *arguments), rtol=tolerance)


def test_the_threshold_decides_whose_pattern_is_believed(calibrated):
    # the paper's two ends: at 0 every pixel follows the flat, at infinity none; dust is followed at 3
    cal, flat, image = calibrated
    corrected = {sigma: cal.transform(image, flat, sigma) for sigma in (None, 0.0, 3.0, 1e9)}
    plain = (image - cal.dark_) / (flat - cal.dark_)
    np.testing.assert_allclose(corrected[0.0], plain, rtol=1e-12)
    np.testing.assert_array_equal(corrected[1e9], corrected[None])
    dusty = np.zeros(flat.shape, bool)
    dusty.flat[dust(flat.shape)] = True
    np.testing.assert_allclose(corrected[3.0][:, dusty], plain[:, dusty], rtol=1e-12)
    kept = np.mean(corrected[3.0][:, ~dusty] == corrected[None][:, ~dusty])
    assert kept > 0.98  # 0.3 % of normal noise is beyond 3


def test_darks_and_flats_may_be_stacks_numbers_or_of_the_image(calibrated):
    cal, flat, image = calibrated
    other = cal.dark_ + 30
    flats = np.stack([flat - 5, flat + 5])
    expected = by_reference(cal, image, flat, dark=other)
    for dark in (other, np.stack([other - 1, other + 1])):
        for given in (flat, flats):
            np.testing.assert_allclose(cal.transform(image, given, dark=dark), expected, rtol=3e-6)
    np.testing.assert_allclose(
        cal.transform(image, flat, dark=50), by_reference(cal, image, flat, dark=50.0), rtol=3e-6
    )


def test_the_flat_loses_its_dark_unless_it_has_none(calibrated):
    cal, flat, image = calibrated
    without = cal.transform(image, flat - cal.dark_, flat_has_dark=False)
    np.testing.assert_allclose(without, cal.transform(image, flat), rtol=1e-12)
    as_in_0_0_1 = by_reference(cal, image, flat, flat_dark=0.0)
    np.testing.assert_allclose(cal.transform(image, flat, flat_has_dark=False), as_in_0_0_1, rtol=3e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
@pytest.mark.parametrize("with_flat", [False, True])
def test_correction_replaces_spots(calibrated, dtype, with_flat):
    cal, flat, image = calibrated
    struck = np.random.default_rng(6).random(image.shape) < 0.002
    assert struck.any()
    image[struck] += 30_000
    image, flat = np.rint(image).astype(dtype), np.rint(flat)
    cal.set_params(reject=12.0)
    arguments = (flat,) if with_flat else ()
    expected = by_reference(cal, image, *arguments)
    found = cal.transform(image, *arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    cal.set_params(reject=None)
    changed = cal.transform(image, *arguments) != found
    assert np.all(changed[struck])


def test_where_the_flat_is_not_above_the_dark_there_is_no_transmission(calibrated):
    cal, flat, image = calibrated
    count = np.count_nonzero(flat < np.median(flat))
    beam = np.where(flat < np.median(flat), -1e5, flat)
    with pytest.warns(DetectorcalWarning, match=f"at {count} of {flat.size} pixels"):
        found = cal.transform(image, beam, 0.0)  # threshold 0 follows the flat pixel by pixel
    np.testing.assert_array_equal(np.isnan(found[0]), flat < np.median(flat))
    assert not np.isinf(found).any()


def test_a_prepared_correction_is_the_transform(calibrated):
    cal, flat, image = calibrated
    prepared = cal.correction(flat, 3.0)
    assert isinstance(prepared, Correction)
    np.testing.assert_array_equal(prepared.transform(image), cal.transform(image, flat, 3.0))
    np.testing.assert_array_equal(prepared.scale.shape, cal.coef_.shape)
    by_hand = (image - prepared.dark) * prepared.scale
    np.testing.assert_allclose(prepared.transform(image), by_hand, rtol=1e-15)


def test_correction_takes_the_pattern_out():
    # the purpose of it all, on the simulated truth
    detector = Detector.random((64, 80), bits=None, seed=1)
    sweep = detector.record(exposure_ladder(np.ones((64, 80)), 60), seed=2)
    cal = DetectorCalibrator(sigma=8).fit(sweep, dark=detector.dark)
    signal = detector.response(np.full((64, 80), 2000.0))
    before = np.std(signal) / 2000
    after = np.std(cal.transform(signal + detector.dark)) / 2000
    assert before == pytest.approx(0.02, rel=0.1)
    # photon noise of 60 frames of 3200 electrons, and the part of the pattern that a Gaussian of 8 px keeps
    kept = 0.02 / (2 * np.sqrt(np.pi) * 8)
    assert after == pytest.approx(np.hypot(np.median(cal.coef_std_), kept), rel=0.15)
    assert after < before / 6
