"""The simulated detector against what it promises. Tolerances are five standard errors, derived in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from detectorcal import simulate
from detectorcal._errors import InputError
from detectorcal.simulate import Detector, Ellipse

SILENT = {"read_noise": 0.0, "system_gain": 0.0, "bits": None}
PERFECT = {"prnu": 0.0, "dsnu": 0.0}
HALF_TURN = np.linspace(0, np.pi, 180, endpoint=False)


# --- signal and noise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 14])
@pytest.mark.parametrize("system_gain", [0.2, 2.0])
@pytest.mark.parametrize("level", [0.0, 100.0, 5000.0])
def test_mean_and_variance_follow_the_photon_transfer_curve(level, system_gain, bits):
    detector = Detector.random((64, 64), **PERFECT, read_noise=3.0, system_gain=system_gain, bits=bits)
    frames = detector.flats(np.full((64, 64), level), 25, seed=1).astype(float)

    # rounding adds 1/12; the excess kurtosis of K Poisson(s/K) + normal is below 1/(s/K) = 0.02
    variance = system_gain * level + 3.0**2 + (bits is not None) / 12
    assert abs(frames.mean() - 100 - level) < 5 * np.sqrt(variance / frames.size)
    assert abs(frames.var() / variance - 1) < 5 * np.sqrt(2.02 / frames.size)


def test_counts_too_large_for_a_poisson_generator_keep_mean_and_variance():
    detector = Detector.random((100, 100), **PERFECT, system_gain=0.5, bits=None)
    level = 1e25
    relative = (detector.flats(np.full((100, 100), level), 1, seed=2) - level) / np.sqrt(0.5 * level)
    assert abs(relative.mean()) < 5 / 100
    assert abs(relative.var() - 1) < 5 * np.sqrt(2) / 100


def test_response_is_the_mean_of_many_frames():
    detector = Detector.random((8, 9), prnu=0.1, curvature=-2e-5, curvature_spread=1e-5, blur=1.0, bits=None)
    beam = 3000 * simulate.beam_profile((8, 9))
    frames = detector.flats(beam, 2000, seed=3)
    error = np.sqrt((0.5 * detector.response(beam) + 4) / 2000)
    # 72 pixels: one beyond five standard errors comes up in 25,000 seeds
    assert np.all(np.abs(frames.mean(0) - detector.dark - detector.response(beam)) < 5 * error)


@given(st.floats(0, 4000), st.floats(0, 4000))
def test_curvature_is_that_of_the_documented_model(level, s0):
    detector = Detector.random((6,), curvature=-1e-5, curvature_spread=4e-6)
    g, b = detector.gain, detector.curvature
    expected = level * (g * (1 + b * s0) + g * b * (level - s0))
    np.testing.assert_allclose(detector.response(np.full(6, level)), expected, rtol=1e-12, atol=1e-300)


def test_a_row_shares_its_noise():
    detector = Detector.random((400, 64), **PERFECT, row_noise=5.0, read_noise=2.0, bits=None)
    rows = detector.darks(10, seed=4).mean(axis=-1)
    variance = 5.0**2 + 2.0**2 / 64
    assert abs(rows.var() / variance - 1) < 5 * np.sqrt(2 / rows.size)


def test_light_spreads_without_loss_and_takes_its_noise_along():
    gain, level, light_yield = 0.5, 1000.0, 4.0
    detector = Detector.random(
        (128, 128), **PERFECT, blur=0.8, light_yield=light_yield, read_noise=0.0, system_gain=gain, bits=None
    )
    point = np.zeros((128, 128))
    point[64, 64] = 1.0
    spread = detector.response(point)
    assert spread.sum() == pytest.approx(1.0)

    noise = detector.flats(np.full((128, 128), level), 10, seed=5) - 100 - level
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean()
    variance = gain * level * (1 + light_yield * (spread**2).sum())
    covariance = gain * level * light_yield * (spread[:, 1:] * spread[:, :-1]).sum()
    # correlated over about 4 pi blur^2 = 8 pixels, so an eighth of the samples count, or more
    error = 5 * variance * np.sqrt(2 / (noise.size / 8))
    assert abs(noise.var() - variance) < error
    assert abs(neighbours - covariance) < error
    assert covariance > 4 * error


@pytest.mark.parametrize(("bits", "dtype"), [(8, "uint16"), (12, "uint16"), (16, "uint16"), (20, "uint32")])
def test_readings_are_whole_numbers_that_saturate(bits, dtype):
    detector = Detector.random((30,), bits=bits, dark=0.0, read_noise=5.0)
    frames = detector.record(np.stack([np.zeros(30), np.full(30, 4.0**bits)]), seed=6)
    assert frames.dtype == dtype
    assert frames[0].min() == 0
    assert np.all(frames[1] == 2**bits - 1)


# --- the pixels ---------------------------------------------------------------------------------------


def test_maps_have_the_spread_that_was_asked_for():
    detector = Detector.random((100, 100), prnu=0.03, dsnu=4.0, curvature=-1e-5, curvature_spread=2e-6)
    for values, mean, spread in (
        (detector.gain, 1.0, 0.03),
        (detector.dark, 100.0, 4.0),
        (detector.curvature, -1e-5, 2e-6),
    ):
        assert abs(values.mean() - mean) < 5 * spread / 100
        assert abs(values.std() / spread - 1) < 5 / np.sqrt(2 * values.size)


def test_defects_are_counted_and_marked():
    detector = Detector.random((50, 40), dead=0.01, hot=0.02, **SILENT)
    dead, hot = detector.defects == 1, detector.defects == 2
    assert (dead.sum(), hot.sum()) == (20, 40)
    frame = detector.flats(np.full((50, 40), 900.0), 1, seed=0)[0]
    np.testing.assert_array_equal(frame[dead], detector.dark[dead])
    assert detector.dark[hot].min() > 1000 > 3 * detector.dark[~hot].max()


def test_a_seed_gives_the_same_pixels_whatever_else_is_asked_for():
    one = Detector.random((7, 9), seed=3)
    other = Detector.random((7, 9), dead=0.1, hot=0.1, blur=2.0, bits=None, seed=3)
    alive = other.defects == 0
    assert 0 < alive.sum() < alive.size
    np.testing.assert_array_equal(one.gain[alive], other.gain[alive])
    np.testing.assert_array_equal(one.dark[alive], other.dark[alive])
    assert np.any(one.gain != Detector.random((7, 9), seed=4).gain)


def test_recordings_repeat_with_their_seed_and_leave_the_intensity_alone():
    detector = Detector.random((8, 8))
    intensity = np.full((3, 8, 8), 500.0)
    intensity.setflags(write=False)
    frames = detector.record(intensity, 7)
    np.testing.assert_array_equal(frames, detector.record(intensity, np.random.default_rng(7)))
    assert np.any(frames != detector.record(intensity, 8))
    assert np.any(frames[0] != frames[1])


@pytest.mark.parametrize("shape", [(12,), (5, 12)])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_leading_axes(shape, leading):
    detector = Detector.random(shape, **SILENT)
    frames = detector.record(np.full(leading + shape, 100.0), seed=0)
    assert frames.shape == leading + shape
    np.testing.assert_allclose(frames - detector.dark, np.broadcast_to(100 * detector.gain, frames.shape))


# --- the coefficient ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(80,), (40, 50)])
@pytest.mark.parametrize("mode", ["nearest", "reflect"])
def test_a_sweep_without_noise_gives_the_true_coefficient(shape, mode):
    detector = Detector.random(shape, prnu=0.05, **SILENT)
    beam = simulate.beam_profile(shape)
    measured = detector.record(simulate.exposure_ladder(beam, 4), seed=0) - detector.dark
    expected = np.stack([gaussian_filter(m, 5.0, mode=mode) for m in measured])
    fitted = (expected * measured).sum(0) / (measured**2).sum(0)
    np.testing.assert_allclose(
        fitted, simulate.true_coefficient(detector, 5.0, beam=beam, mode=mode), rtol=1e-10
    )


def test_in_an_even_beam_it_is_the_smoothed_gain_over_the_gain():
    detector = Detector.random((30, 40), prnu=0.05)
    expected = gaussian_filter(detector.gain, 3.0, mode="nearest") / detector.gain
    np.testing.assert_allclose(simulate.true_coefficient(detector, 3.0), expected)


def test_dead_pixels_have_coefficient_one_and_do_not_pull_their_neighbours():
    whole = simulate.true_coefficient(Detector.random((60, 60), prnu=0.01), 3.0)
    detector = Detector.random((60, 60), prnu=0.01, dead=0.01)
    coef, dead = simulate.true_coefficient(detector, 3.0), detector.defects == 1
    assert dead.sum() == 36
    assert np.all(coef[dead] == 1)
    # a gain of 1 in its place moves the others by 1 % of the peak 1 / (2 pi 9), left at 0 by all of it
    assert np.abs(coef - whole)[~dead].max() < 0.2 / (2 * np.pi * 9)


def test_where_darks_drift_their_mean_is_plainly_wrong():
    detector = Detector.random((40, 40), **SILENT)
    darks = simulate.drifting_darks(detector, 5, drift=200.0, spread=0.3)
    np.testing.assert_array_equal(darks[0], detector.dark)
    ladder = simulate.exposure_ladder(np.ones((40, 40)), 5, lowest=100, highest=1000)
    sweep = detector.record(ladder, seed=0, dark=darks)

    def error(measured):
        expected = np.stack([gaussian_filter(m, 5.0, mode="nearest") for m in measured])
        coef = (expected * measured).sum(0) / (measured**2).sum(0)
        return np.std(coef - simulate.true_coefficient(detector, 5.0))

    assert error(sweep - darks) < 1e-12
    assert error(sweep - darks.mean(0)) > 0.01


# --- beams --------------------------------------------------------------------------------------------


def test_beams():
    bell, rough = simulate.beam_profile((63, 65)), simulate.beam_profile((63, 65), "rough", seed=1)
    assert np.all(simulate.beam_profile((4, 5), "even") == 1)
    assert bell.max() == bell[31, 32] == 1
    assert 1 - bell[31, 0] == pytest.approx(1 - np.exp(-0.5 * (32 / 65 / 0.6) ** 2))
    assert np.std(rough / bell) == pytest.approx(0.05)


def test_a_moved_beam_crosses_the_detector():
    beams = simulate.moved_beam((6, 40), 9, peak=100.0)
    brightest = beams[:, 3].argmax(axis=-1)
    assert brightest[0] == 0
    assert brightest[-1] == 39
    assert np.all(np.diff(brightest) > 0)


def test_a_drifting_beam_walks_as_far_as_it_says():
    ends = np.array([simulate.drifting_beam(np.ones(3), 3, drift=0.02, seed=s)[[0, -1]] for s in range(1000)])
    assert np.all(ends[:, 0] == 1)
    brightness, balance = ends[:, 1, 1] - 1, (ends[:, 1, 2] - ends[:, 1, 0]) / 2
    for walk in (brightness, balance):
        assert abs(walk.std() / 0.02 - 1) < 5 / np.sqrt(2 * 1000)


# --- tomography ---------------------------------------------------------------------------------------


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.2, 0.6), st.floats(0, 7))
def test_a_disc_casts_its_chords(x, y, radius, angle):
    t = (2 * np.arange(64) - 63) / 64 - (x * np.cos(angle) + y * np.sin(angle))
    chord = 2 * 1.5 * np.sqrt(np.maximum(radius**2 - t**2, 0))
    sinogram = simulate.phantom_sinogram([Ellipse(1.5, x, y, radius, radius)], [angle], 64)
    # at the rim a rounding error e of the square shows as its root, 3e-8
    np.testing.assert_allclose(sinogram[0], chord, atol=1e-7)


@given(st.floats(-4, 4), st.floats(-4, 4))
def test_every_projection_of_an_ellipse_has_its_mass(angle, tilt):
    ellipse = Ellipse(2.0, 0.1, -0.2, 0.5, 0.3, tilt)
    row = simulate.phantom_sinogram([ellipse], [angle], 1000)[0]
    # the midpoint rule leaves O(step^1.5) at the two rims
    assert row.sum() * 2 / 1000 == pytest.approx(2.0 * np.pi * 0.5 * 0.3, rel=1e-3)


def test_projections_are_the_beam_weakened_along_the_chords():
    detector = Detector.random((3, 32), **SILENT)
    beam = simulate.drifting_beam(1000 * simulate.beam_profile((3, 32)), 4, drift=0.1)
    scan = simulate.projections(detector, beam, simulate.ELLIPSES, HALF_TURN[:4], seed=0)
    chords = simulate.phantom_sinogram(simulate.ELLIPSES, HALF_TURN[:4], 32)
    np.testing.assert_allclose(scan, detector.dark + detector.gain * beam * np.exp(-chords)[:, None])


@pytest.mark.parametrize("turn", [np.pi, 2 * np.pi])
def test_a_reconstructed_disc_has_its_density(turn):
    angles = np.linspace(0, turn, 180, endpoint=False)
    disc = [Ellipse(1.0, a=0.6, b=0.6)]
    image = simulate.reconstruct(simulate.phantom_sinogram(disc, angles, 96), angles) * 96 / 2
    radius = np.hypot(*(np.mgrid[:96, :96] - 47.5)) / 48
    assert np.median(image[radius < 0.5]) == pytest.approx(1.0, rel=2e-3)
    assert abs(np.median(image[(radius > 0.7) & (radius < 0.9)])) < 2e-3


def test_a_reconstruction_is_neither_turned_nor_mirrored():
    image = simulate.reconstruct(simulate.phantom_sinogram(simulate.ELLIPSES, HALF_TURN, 128), HALF_TURN)
    truth = simulate.phantom_image(simulate.ELLIPSES, 128)
    inside = np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 60

    def error(reference):
        return np.std((image - reference)[inside]) / np.std(truth[inside])

    # what is left is the pixels that an edge crosses
    assert error(truth) < 0.15
    for wrong in (truth[::-1], truth[:, ::-1], truth.T):
        assert error(wrong) > 0.4


def test_the_cylinders_have_rings_of_their_own():
    sinogram = simulate.phantom_sinogram(simulate.CYLINDERS, HALF_TURN, 50)
    np.testing.assert_allclose(sinogram, np.broadcast_to(sinogram[0], sinogram.shape), atol=1e-7)


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Detector.random(()), "`shape`"),
        (lambda: Detector.random((4, 4, 4)), "`shape`"),
        (lambda: Detector.random((4,), dead=0.7, hot=0.7), "fractions of the pixels"),
        (lambda: Detector.random((4,), bits=0), "`bits`"),
        (lambda: Detector.random((4,), prnu=-0.1), "at least 0"),
        (lambda: Detector.random((4, 5)).record(np.ones((3, 5, 4)), 0), r"`intensity`.*\(3, 5, 4\)"),
        (lambda: Detector.random((4,)).record([1, 2, np.nan, 4], 0), "`intensity`.*finite"),
        (lambda: Detector.random((4,)).record([1, 2, np.inf, 4], 0), "`intensity`.*finite"),
        (lambda: Detector.random((4,)).record([1, 2, -1, 4], 0), "`intensity`.*-1"),
        (lambda: simulate.beam_profile((4,), "square"), "`kind`.*square"),
        (lambda: simulate.reconstruct(np.ones((3, 4)), [0.0, 1.0]), "`sinogram, angles`"),
    ],
)
def test_nonsense_is_refused_by_name(call, message):
    with pytest.raises(InputError, match=message):
        call()
