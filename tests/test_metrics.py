"""Each measure on something whose answer is known, and on the instruments' own frames."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, median_filter
from scipy.optimize import minimize

from detectorcal import metrics
from detectorcal._errors import InputError
from detectorcal.simulate import Detector, Ellipse, phantom_sinogram, reconstruct

DATA = Path(__file__).parents[2] / "shared" / "data"
ANGLES = np.linspace(0, np.pi, 120, endpoint=False)


def needs(folder):
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"real data `{folder}` is not here")


# --- PRNU and DSNU ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_frames", [2, 4, 32])
@pytest.mark.parametrize("given_darks", [True, False])
def test_prnu_is_the_spread_of_the_gain_with_few_frames_too(n_frames, given_darks):
    detector = Detector.random((128, 128), prnu=0.02, dsnu=5.0, system_gain=1.0, read_noise=2.0, bits=None)
    level, n = 400.0, 128 * 128
    flats = detector.flats(np.full(detector.shape, level), n_frames, seed=1)
    darks = detector.darks(n_frames, seed=2)
    signal = level * detector.gain
    truth = np.var(signal + detector.dark, ddof=1) - np.var(detector.dark, ddof=1)
    if not given_darks:
        flats, darks, truth = flats - detector.dark, None, np.var(signal, ddof=1)

    # error of the measured variance (own, and crossed with pattern and dark) and of the temporal one
    noise = (level + 2.0**2) / n_frames
    crossed = 4 * (truth + detector.dark.var()) * noise
    error = np.sqrt((2 * noise**2 + crossed + 2 * noise**2 / (n_frames - 1)) / n) / (2 * np.sqrt(truth))
    found = metrics.prnu(flats, darks)
    assert abs(found - 100 * np.sqrt(truth) / level) < 5 * 100 * error / level
    if n_frames < 32:  # without the correction it is plainly wrong
        assert 100 * np.std(flats.mean(0)) / level > found + 20 * 100 * error / level


@pytest.mark.parametrize("n_frames", [2, 8])
def test_dsnu_is_the_spread_of_the_dark(n_frames):
    detector = Detector.random((128, 128), dsnu=3.0, read_noise=10.0, bits=None)
    noise = 10.0**2 / n_frames
    error = np.sqrt((2 * noise**2 + 4 * 9 * noise + 2 * noise**2 / (n_frames - 1)) / detector.gain.size) / 6
    darks = detector.darks(n_frames, seed=1)
    assert abs(metrics.dsnu(darks) - detector.dark.std()) < 5 * error
    assert np.std(darks.mean(0)) > metrics.dsnu(darks) + 1


def test_without_a_pattern_nothing_is_left():
    detector = Detector.random((64, 64), prnu=0.0, dsnu=0.0, read_noise=2.0, bits=None)
    darks = detector.darks(4, seed=1)
    # a variance of 0 is found within 5 sqrt(2 / 4096) of the 1 that temporal noise leaves in the mean
    assert metrics.dsnu(darks) < np.sqrt(5 * np.sqrt(2 * (1 + 1 / 3) / 4096))
    same = np.broadcast_to(np.float64(7), (3, 5))
    assert metrics.dsnu(same) == 0
    assert metrics.prnu(same) == 0


@given(st.floats(1e-3, 1e3), st.permutations(range(5)))
def test_prnu_knows_neither_unit_nor_order(scale, order):
    detector = Detector.random((16, 16))
    flats, darks = detector.flats(np.full((16, 16), 1000.0), 5, seed=1), detector.darks(5, seed=2)
    expected = metrics.prnu(flats, darks)
    assert expected > 1
    assert metrics.prnu(scale * flats[order], scale * darks[order]) == pytest.approx(expected, rel=1e-9)


def test_a_stack_is_read_frame_by_frame():
    class Lazy:
        def __init__(self, frames):
            self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

        def __getitem__(self, index):
            assert isinstance(index, int)
            return self.frames[index]

    frames = Detector.random((16, 16)).flats(np.full((16, 16), 1000.0), 3, seed=1)
    assert metrics.prnu(Lazy(frames)) == metrics.prnu(frames)


# --- linearity ----------------------------------------------------------------------------------------


@given(st.floats(-20, 20), st.floats(1, 1e3), st.floats(1e-2, 1e2))
def test_a_line_with_any_offset_is_linear(offset, slope, unit):
    exposure = np.linspace(1, 10, 12)
    signal = 50 + offset + slope * exposure
    assert metrics.linearity_error(unit * exposure, signal, signal[-1] / 0.9) < 1e-9


def test_linearity_error_is_that_of_the_least_relative_line():
    exposure = np.linspace(0.2, 10, 30)
    signal = 400 * exposure * (1 - 0.01 * exposure)
    used = (signal >= 0.05 * 3800) & (signal <= 0.95 * 3800)
    assert used.sum() < 30
    h, y = exposure[used], signal[used]
    line = minimize(lambda a: np.sum(((y - a[0] - a[1] * h) / y) ** 2), (0.0, 360.0), tol=1e-12).x
    expected = 100 * np.mean(np.abs(y / (line[0] + line[1] * h) - 1))
    assert metrics.linearity_error(exposure, signal, 3800) == pytest.approx(expected, rel=1e-4)


def test_linearity_needs_two_exposures():
    with pytest.raises(InputError, match=r"`exposure` must hold two values .* but all are 1"):
        metrics.linearity_error([1, 1, 1], [100, 200, 300], 1000.0)


def test_linearity_is_judged_between_5_and_95_per_cent_only():
    exposure = np.linspace(0.2, 10, 50)
    signal = 100 * exposure
    signal[signal < 50] *= 0.5
    signal[signal > 950] *= 1.5
    assert metrics.linearity_error(exposure, signal, 1000) < 1e-9
    assert metrics.linearity_error(exposure, signal, 1600) > 1  # lets in the upper end
    assert metrics.linearity_error(exposure, signal, 300) > 1  # the lower
    assert metrics.linearity_error(exposure[5:-5], signal[5:-5], 300) < 1e-9


# --- rings and stripes --------------------------------------------------------------------------------


def planted_rings(width=128, seed=0):
    distance = np.hypot(*(np.mgrid[:width, :width] - (width - 1) / 2))
    radius = (np.rint(distance) if width % 2 else np.floor(distance)).astype(int)
    heights = np.random.default_rng(seed).standard_normal(radius.max() + 1)
    return heights, heights[radius], radius


@pytest.mark.parametrize("width", [128, 129])
def test_ring_strength_follows_its_definition(width):
    heights, image, _ = planted_rings(width)
    course = gaussian_filter(heights[:64], 6.0, mode="nearest")
    expected = np.std((heights[:64] - course)[8:49])
    assert metrics.ring_strength(image, np.zeros_like(image)) == pytest.approx(expected)
    running = np.convolve(np.pad(heights[:64], 5, mode="edge"), np.ones(11) / 11, mode="valid")
    assert metrics.ring_strength(image) == pytest.approx(np.std((heights[:64] - running)[8:49]))


@given(st.floats(1e-4, 10), st.floats(-5, 5))
def test_ring_strength_is_proportional_to_the_rings(strength, offset):
    _, image, _ = planted_rings()
    truth = np.random.default_rng(1).standard_normal(image.shape)
    one = metrics.ring_strength(truth + image, truth)
    assert metrics.ring_strength(truth + strength * image + offset, truth) == pytest.approx(strength * one)
    assert metrics.ring_strength(strength * image + offset) == pytest.approx(
        strength * metrics.ring_strength(image)
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_ring_strength_cares_for_neither_rim_nor_centre_nor_turn(axis):
    _, image, radius = planted_rings()
    strength = metrics.ring_strength(image)
    assert metrics.ring_strength(np.flip(image, axis)) == pytest.approx(strength)
    far = np.where((radius < 3) | (radius > 54), 99.0, image)  # further than the running mean reaches
    assert metrics.ring_strength(far) == pytest.approx(strength)


@pytest.mark.parametrize(
    ("with_reference", "spreads", "tolerance"),
    [(True, (0.001, 0.01, 0.03), 0.02), (False, (0.01, 0.02, 0.03), 0.1)],
)
def test_rings_of_a_scan_follow_the_fixed_pattern(with_reference, spreads, tolerance):
    sinogram = phantom_sinogram([Ellipse(0.8, a=0.85, b=0.85)], ANGLES, 128)
    reference = reconstruct(sinogram, ANGLES) if with_reference else None
    pattern = np.random.default_rng(2).standard_normal(128)

    def strength(spread):
        return metrics.ring_strength(reconstruct(sinogram - np.log1p(spread * pattern), ANGLES), reference)

    per_unit = [strength(spread) / spread for spread in spreads]
    assert np.ptp(per_unit) < tolerance * np.mean(per_unit)
    assert strength(0.0) < 0.5 * strength(spreads[0])


def test_stripe_strength_follows_its_definition():
    rng = np.random.default_rng(0)
    stripes = 0.01 * rng.standard_normal((2, 200))
    angles = rng.standard_normal((41, 1, 1))
    columns = [slice(10, 60), slice(120, 190)]
    left = stripes - np.stack([gaussian_filter(row, 8.0, mode="nearest") for row in stripes])
    judged = np.concatenate([left[:, 10:60], left[:, 120:190]], axis=1)
    assert metrics.stripe_strength(stripes + angles, columns) == pytest.approx(judged.std(axis=1).mean())
    one_row = metrics.stripe_strength((stripes + angles)[:, 0])
    assert one_row == pytest.approx(left[0].std())


def test_an_object_that_moves_through_is_no_stripe():
    stripes = 0.01 * np.random.default_rng(0).standard_normal(100)
    sinogram = np.tile(stripes, (61, 1))
    sinogram[np.arange(61), np.arange(61) + 20] += 5.0  # each column for one angle in 61
    assert metrics.stripe_strength(sinogram) == pytest.approx(metrics.stripe_strength(stripes[None]))


# --- frames -------------------------------------------------------------------------------------------


@given(st.floats(1e-2, 1e4))
def test_spreads_find_the_gain_and_know_no_unit(unit):
    gain = 1 + 0.02 * np.random.default_rng(0).standard_normal((40, 50))
    smooth = gaussian_filter(gain, 5.0, mode="nearest")
    ratio = gain / smooth - 1
    assert metrics.relative_spread(unit * gain, 1.0, 5.0) == pytest.approx(100 * ratio.std())
    assert metrics.column_profile(unit * gain, 1.0, 5.0) == pytest.approx(100 * ratio.mean(0).std())
    assert metrics.relative_spread(unit * gain, smooth / gain, 5.0) < 1e-9
    assert metrics.column_profile(unit * gain, smooth / gain, 5.0) < 1e-9


def test_a_line_detector_has_a_relative_spread():
    gain = Detector.random((400,), prnu=0.02).gain
    # the Gaussian of 20 px follows 1 - sqrt(1 - 1 / (20 sqrt(pi))) = 1.4 % of white noise
    assert metrics.relative_spread(gain, 1.0, 20.0) == pytest.approx(100 * gain.std(), rel=0.05)


@given(st.floats(-0.5, 0.5), st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3), st.sampled_from([0, 1]))
def test_a_tile_step_is_found_between_any_two_slopes(step, before, after, axis):
    place = np.arange(70) - 29.5
    line = 10 + np.where(place < 0, before * place, step + after * place)
    image = np.tile(line, (30, 1)) if axis else np.tile(line[:, None], 30)
    expected = 100 * step / line[10:50].mean()
    assert metrics.tile_step(image, 30, axis) == pytest.approx(expected, abs=1e-9)


# --- real frames: the numbers were measured once and are written in the data's own notes -----------------


@needs("physlin")
@pytest.mark.parametrize(
    ("index", "axis", "before", "after"), [(64, 0, 0.72, 0.09), (195, 0, 0.45, 0.08), (28, 1, 0.38, 0.16)]
)
def test_tile_steps_of_a_flat_panel(index, axis, before, after):
    import tifffile

    name = "detectorcaleg_stp4_200-500_500-800_{}.tif"
    flat, dark, coef = (
        tifffile.imread(DATA / "physlin" / name.format(part)).squeeze().astype(float)
        for part in ("flat", "dark", "coeff_dkrm")
    )
    assert metrics.tile_step(flat - dark, index, axis) == pytest.approx(before, abs=0.006)
    assert metrics.tile_step((flat - dark) * coef, index, axis) == pytest.approx(after, abs=0.006)


def cleaned(frame):
    middle = median_filter(frame, 5)
    off = frame - middle
    spread = 1.4826 * np.median(np.abs(off - np.median(off)))
    return np.where(np.abs(off) > 6 * spread, middle, frame)


@needs("neutron_wedge_left")
def test_spreads_of_a_neutron_camera():
    with np.load(next((DATA / "neutron_wedge_left").glob("*.npz"))) as stored:
        beams = {
            t: cleaned(stored[f"ob_{t}s"] - cleaned(stored[f"dc_{t}s"].astype(float)))
            for t in (5, 10, 20, 60, 120)
        }
    held_out = beams.pop(120)
    smooth = {t: gaussian_filter(beam, 50.0, mode="nearest") for t, beam in beams.items()}
    coef = sum(smooth[t] * beams[t] for t in beams) / sum(beam**2 for beam in beams.values())
    assert metrics.relative_spread(held_out, 1.0, 50.0) == pytest.approx(4.66, abs=0.006)
    assert metrics.relative_spread(held_out, coef, 50.0) == pytest.approx(1.86, abs=0.006)
    assert metrics.column_profile(held_out, 1.0, 50.0) == pytest.approx(2.46, abs=0.006)
    assert metrics.column_profile(held_out, coef, 50.0) == pytest.approx(0.10, abs=0.006)


@needs("tomopy_tooth")
def test_stripes_of_a_tooth():
    import h5py

    with h5py.File(next((DATA / "tomopy_tooth").glob("*.h5"))) as file:
        scan, whites, darks = (
            file[f"exchange/{n}"][:].astype(float) for n in ("data", "data_white", "data_dark")
        )
    scan, white = scan - darks.mean(0), (whites - darks.mean(0)).mean(0)
    background = [slice(10, 90), slice(560, 630)]
    course = gaussian_filter(white, (0, 50), mode="nearest")
    assert metrics.stripe_strength(-np.log(scan / course), background) == pytest.approx(0.0208, abs=1e-4)
    assert metrics.stripe_strength(-np.log(scan / white), background) == pytest.approx(0.0051, abs=1e-4)


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.prnu(np.ones((1, 4, 4))), r"`flats`.*two frames.*\(1, 4, 4\)"),
        (lambda: metrics.prnu(np.ones(4)), "`flats`"),
        (lambda: metrics.prnu(np.ones((2, 4)), np.zeros((2, 5))), r"`darks`.*\(5,\).*\(4,\)"),
        (lambda: metrics.prnu(np.ones((2, 4)), np.ones((2, 4))), "`flats` must be brighter"),
        (lambda: metrics.prnu(np.full((2, 4), np.nan)), "`flats` must be finite.*4"),
        (lambda: metrics.dsnu(np.ones((1, 4))), "`darks`"),
        (lambda: metrics.linearity_error([1, 2, 3], [1, 2], 9), r"`exposure` and `signal`.*\(3,\).*\(2,\)"),
        (lambda: metrics.linearity_error([1, 2, 3], [1, 2, 9.5], 9), "three levels.*has 2"),
        (lambda: metrics.linearity_error([1, 2, 3], [1, 2, 3], 0), "`saturation`.*0"),
        (lambda: metrics.ring_strength(np.ones((40, 41))), r"`reconstruction`.*\(40, 41\)"),
        (lambda: metrics.ring_strength(np.ones((20, 20))), "`reconstruction`.*32"),
        (lambda: metrics.ring_strength(np.ones((40, 40)), np.ones((4, 4))), r"`reference`.*\(4, 4\)"),
        (lambda: metrics.stripe_strength(np.ones((2, 30)), [slice(40, 50)]), "`columns`.*30"),
        (lambda: metrics.stripe_strength(np.ones((2, 30)), sigma=0), "`sigma`"),
        (lambda: metrics.stripe_strength(np.full((2, 30), np.inf)), "`sinogram`.*60"),
        (lambda: metrics.relative_spread(np.zeros((9, 9)), 1.0, 2.0), "`frame`.*above 0"),
        (lambda: metrics.relative_spread(np.ones((9, 9)), np.ones(9), 2.0), r"`coef`.*\(9,\)"),
        (lambda: metrics.column_profile(np.ones(9), 1.0, 2.0), "`frame`.*2 dimensions"),
        (lambda: metrics.tile_step(np.ones((50, 50)), 10, 0), "`index`.*20"),
        (lambda: metrics.tile_step(np.ones((50, 50)), 31, 1), "`index`.*31"),
        (lambda: metrics.tile_step(np.ones((50, 50)), 25, 2), "`axis`.*2"),
        (lambda: metrics.tile_step(np.zeros((50, 50)), 25, 0), "`image`.*mean"),
    ],
)
def test_nonsense_is_refused_by_name(call, message):
    with pytest.raises(InputError, match=message):
        call()
