"""Pixels not to believe: named by the right cause, and kept from spoiling their neighbours."""

import warnings
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detectorcal import DetectorCalibrator
from detectorcal._defects import DEFECTS
from detectorcal._errors import DetectorcalWarning, InputError
from detectorcal.cli import main
from detectorcal.io import create_frames
from detectorcal.kernels.filling import filling_for
from tests.scenes import damaged_scene

CAUSES = {"hot": 0.99, "dead": 0.99, "saturated": 0.99, "unsolved": 1.0, "nonlinear": 0.9, "noisy": 0.9}
"""Share of the pixels of each kind that must be named."""

METHODS = ["croton", "photon", "curved"]


@cache
def scene_of(seed, **options):
    return damaged_scene(seed=seed, **options)


def fitted(frames, scene, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DetectorcalWarning)
        return DetectorCalibrator(**options).fit(frames, dark=scene.dark)


def errors(scene, sigma, coef, wanted):
    """Largest difference of good pixels: further than 2 sigma from the edge, and nearer."""
    off = np.abs(coef - wanted)
    margin = 2 * sigma
    inner = np.zeros(off.shape, bool)
    inner[margin:-margin, margin:-margin] = True
    return off[scene.good & inner].max(), off[scene.good & ~inner].max()


def check_scene(scene, sigma, method):
    damaged = fitted(scene.sweep, scene, sigma=sigma, method=method)
    undamaged = fitted(scene.undamaged, scene, sigma=sigma, method=method)
    inner, outer = errors(scene, sigma, damaged.coef_, undamaged.coef_)
    assert inner < 1e-3
    assert outer < 1e-2
    for cause, share in CAUSES.items():
        assert np.mean((damaged.defects_[scene.kinds[cause]] & DEFECTS[cause]) != 0) >= share, cause
    assert np.mean(damaged.defects_[scene.good] != 0) <= 1e-3
    assert damaged.saturation_ == scene.top


# --- everything wrong at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_good_pixels_are_as_in_the_undamaged_sweep_and_bad_ones_named(method):
    check_scene(scene_of(0), 20, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sigma", [15, 30])
@pytest.mark.parametrize(
    "options", [{"prnu": 0.01}, {"prnu": 0.03}, {"K": 4.0}, {"bits": 12, "K": 0.25}], ids=str
)
def test_other_detectors(options, sigma, method):
    check_scene(scene_of(sigma, **options), sigma, method)


def test_the_plain_method_is_spoilt():
    """What detectorcal 0.0.1 does: smooth all, least squares of all frames above 300 DN."""
    scene = scene_of(0)

    def plain(frames):
        measured = frames - scene.dark
        expected = gaussian_filter(measured, (0, 20, 20), mode="nearest")
        used = expected > 300
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sum(expected * measured * used, axis=0) / np.sum(measured**2 * used, axis=0)

    wanted = plain(scene.undamaged.astype(np.float64))
    with_nan = plain(scene.sweep.astype(np.float64))
    assert np.mean(np.isnan(with_nan[scene.good])) > 0.5  # the row spreads over the Gaussian's reach
    without = np.where(np.isnan(scene.sweep), scene.dark + 1000, scene.sweep).astype(np.float64)
    inner, _ = errors(scene, 20, plain(without), wanted)
    assert inner > 30 * 1e-3  # what check_scene allows, thirty times


def test_the_warnings_count_each_cause():
    scene = scene_of(0)
    with pytest.warns(DetectorcalWarning) as caught:
        cal = DetectorCalibrator(sigma=20).fit(scene.sweep, dark=scene.dark)
    told = " ".join(str(warning.message) for warning in caught)
    for cause in CAUSES:
        number = np.count_nonzero(cal.defects_ & DEFECTS[cause])
        assert f"{number} {cause}" in told
    assert "2 of 64 frames take no part" in told


def test_a_second_fit_leaves_out_what_the_first_flagged():
    scene = scene_of(0)
    first = fitted(scene.sweep, scene, sigma=20)
    second = fitted(scene.sweep, scene, sigma=20, mask=first.defects_ != 0)
    np.testing.assert_array_equal(second.defects_ == DEFECTS["user"], first.defects_ != 0)
    undamaged = fitted(scene.undamaged, scene, sigma=20)
    inner, outer = errors(scene, 20, second.coef_, undamaged.coef_)
    assert inner < 1e-3
    assert outer < 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_a_clean_sweep_has_no_defects(method):
    """100,000 pixels of a ladder from 30 to 3000 electrons, and 20 frames of one level."""
    rng = np.random.default_rng(3)
    gain = 1 + 0.02 * rng.standard_normal((250, 400))
    for levels in (np.geomspace(30, 3000, 20), np.full(20, 1000.0)):
        sweep = rng.poisson(levels[:, None, None] * gain) + 100
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*relied on")
            warnings.filterwarnings("ignore", message="the intensities of the sweep differ")
            cal = DetectorCalibrator(sigma=15, method=method).fit(sweep.astype(np.uint16), dark=100)
        assert not cal.defects_.any()
        assert not cal.kept_out_.any()


@pytest.mark.parametrize("method", ["croton", "photon"])
def test_the_same_for_any_threads_batches_and_files(tmp_path, method):
    scene = scene_of(0)
    wanted = fitted(scene.sweep, scene, sigma=20, method=method, mask=scene.kinds["strong"])
    for options in ({"n_jobs": 3}, {"batch_size": 8}, {"n_jobs": 2, "batch_size": "2 MB"}):
        found = fitted(scene.sweep, scene, sigma=20, method=method, mask=scene.kinds["strong"], **options)
        for name in ("coef_", "coef_std_", "defects_", "kept_out_"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for suffix in (".h5", ".zarr", ".tif"):
        wanted.save(tmp_path / f"cal{suffix}")
        loaded = DetectorCalibrator.load(tmp_path / f"cal{suffix}")
        for name in ("coef_", "defects_", "kept_out_", "mask"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(wanted, name))
        assert loaded.saturation_ == scene.top


# --- the user's mask --------------------------------------------------------------------------------------


def small(mask=None, frames=None, **options):
    rng = np.random.default_rng(5)
    sweep = rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones((40, 50))) + 100.0
    return DetectorCalibrator(sigma=6, mask=mask, **options).fit(
        sweep if frames is None else sweep[frames], dark=100
    )


def test_a_masked_pixel_has_no_say():
    mask = np.zeros((40, 50), bool)
    mask[10:14, 20:30] = True
    rng = np.random.default_rng(5)
    sweep = rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones((40, 50))) + 100.0
    wild = sweep.copy()
    wild[:, mask] = rng.uniform(0, 1e6, (12, mask.sum()))
    found, wanted = (DetectorCalibrator(sigma=6, mask=mask).fit(frames, dark=100) for frames in (wild, sweep))
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    np.testing.assert_array_equal(found.defects_, 64 * mask)
    assert np.all(found.coef_[mask] == 1)
    assert np.isnan(found.coef_std_[mask]).all()


def test_merging_needs_equal_masks():
    mask = np.zeros((40, 50), np.uint8)
    mask[3, 4] = 1
    parts = [small(mask, slice(0, 6)), small(mask.astype(bool).tolist(), slice(6, 12))]
    merged, whole = DetectorCalibrator.merge(*parts), small(mask)
    np.testing.assert_allclose(merged.coef_, whole.coef_, rtol=1e-7)
    np.testing.assert_array_equal(merged.defects_, whole.defects_)
    with pytest.raises(InputError, match=r"must agree in `mask`.*marks 1 pixels"):
        DetectorCalibrator.merge(whole, small())
    mask[3, 5] = 1  # under its hands
    with pytest.raises(InputError, match="`mask` was an array that marks 1 pixels"):
        whole.partial_fit(np.ones((2, 40, 50)))


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros((40, 51), bool), r"`mask` has shape \(40, 51\)"),
        (np.full((40, 50), 2), "`mask` must be True .or 1. where a pixel is not to be believed"),
        (np.full((40, 50), 0.5), "`mask` must be True"),
        ("bad.tif", "`mask` must be an array"),
    ],
)
def test_unfit_masks_are_named(mask, told):
    with pytest.raises((InputError, TypeError), match=told):
        small(mask)


def test_everything_masked_is_told():
    with pytest.warns(DetectorcalWarning, match="12 of 12 frames take no part"):
        cal = small(np.ones((40, 50), bool))
    assert np.all(cal.defects_ == DEFECTS["user"])


def test_mask_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    sweep = (rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones((40, 50))) + 100).astype("u2")
    mask = np.zeros((1, 40, 50), np.uint8)
    mask[0, 5, 6:9] = 1
    for name, frames in (("sweep.tif", sweep), ("mask.tif", mask)):
        with create_frames(name, frames.shape, frames.dtype) as file:
            file[:] = frames
    command = ["fit", "sweep.tif", "--dark", "100", "--sigma", "6", "--mask", "mask.tif", "-o", "cal.h5"]
    with pytest.raises(SystemExit) as done:
        main(command)
    assert not done.value.code
    with pytest.raises(SystemExit):
        main(["inspect", "cal.h5"])
    assert "user" in (shown := capsys.readouterr().out)
    assert "3 pixels" in shown
    cal = DetectorCalibrator.load("cal.h5")
    np.testing.assert_array_equal(cal.defects_, 64 * mask[0])


# --- saturation -------------------------------------------------------------------------------------------


def test_a_pile_at_the_top_is_found_and_told():
    """A 12-bit camera whose brightest frames are clipped in the middle of the beam."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:80, :100]
    beam = np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / (2 * 60**2))
    gain = 1 + 0.02 * rng.standard_normal(beam.shape)
    true = rng.poisson(np.linspace(500, 4600, 24)[:, None, None] * beam * gain)
    sweep = np.minimum(true + 100, 4095).astype(np.uint16)
    with pytest.warns(DetectorcalWarning, match="readings from 4095 DN on"):
        cal = DetectorCalibrator(sigma=15).fit(sweep, dark=100)
    assert cal.saturation_ == 4095
    wanted = DetectorCalibrator(sigma=15).fit(true + 100.0, dark=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DetectorcalWarning)
        greedy = DetectorCalibrator(sigma=15, saturation=5000.0).fit(sweep, dark=100)

    def spread(other):
        return np.std(other.coef_ / wanted.coef_ - 1)

    assert spread(cal) < 0.6 * spread(greedy)  # fewer frames, but none that lie


def test_a_sweep_saturated_from_end_to_end_is_no_perfect_detector():
    sweep = np.full((10, 40, 50), 4095, np.uint16)
    with pytest.warns(DetectorcalWarning) as caught:
        cal = DetectorCalibrator(sigma=5).fit(sweep, dark=100)
    assert np.all(cal.defects_ != 0)
    told = " ".join(str(warning.message) for warning in caught)
    assert "2000 of 2000 pixels could not be calibrated" in told
    assert "10 of 10 frames take no part" in told


# --- the filling ------------------------------------------------------------------------------------------


def test_a_sloping_frame_is_filled_exactly_inside():
    """A plane through neighbours on all sides; drawn towards a level one where they are on one side."""
    rng = np.random.default_rng(2)
    bad = rng.random((60, 70)) < 0.03
    y, x = np.mgrid[:60, :70].astype(float)
    frame = 100 + 2 * y - 3 * x
    filling = filling_for(bad, bad)
    broken = np.where(bad, np.nan, frame)[None]
    filled = filling.placed(broken, np.dtype(np.float64)).fill(broken.copy())[0]
    np.testing.assert_array_equal(filled[~bad], frame[~bad])
    inner = bad.copy()
    inner[:4] = inner[-4:] = inner[:, :4] = inner[:, -4:] = False
    assert np.abs(filled - frame)[inner].max() < 2.0  # steps of 2 and 3 from pixel to pixel
    assert np.median(np.abs(filled - frame)[inner]) < 0.05


# --- what once went wrong ---------------------------------------------------------------------------------


def clipped(order, **options):
    """A 12-bit ladder beyond the top, with a pixel that always reads it."""
    rng = np.random.default_rng(8)
    gain = 1 + 0.02 * rng.standard_normal((64, 96))
    sweep = np.minimum(rng.poisson(np.linspace(500, 4300, 24)[:, None, None] * gain) + 100, 4095)
    sweep[:, 5, 5] = 4095
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DetectorcalWarning)
        return DetectorCalibrator(sigma=10, **options).fit(sweep[order].astype(np.uint16), dark=100)


def test_a_stuck_pixel_does_not_hide_the_pile():
    rising, falling = clipped(slice(None)), clipped(slice(None, None, -1))
    assert rising.saturation_ == falling.saturation_ == 4095
    np.testing.assert_allclose(falling.coef_, rising.coef_, rtol=1e-6)


def test_merged_in_any_order():
    dim, bright = small(), clipped(slice(None), mask=np.zeros((64, 96), bool))
    assert dim.saturation_ is None
    parts = [clipped(slice(0, 12)), bright]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DetectorcalWarning)
        found = [DetectorCalibrator.merge(*order).saturation_ for order in (parts, parts[::-1])]
    assert found == [4095, 4095]


def test_readings_that_each_pixel_missed_are_no_lost_frames():
    rng = np.random.default_rng(9)
    sweep = rng.poisson(np.linspace(500, 3000, 400)[:, None, None] * np.ones((16, 16))) + 100.0
    sweep[rng.random(sweep.shape) < 0.05] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*take no part")
        warnings.filterwarnings("ignore", message=".*not to be relied on")
        cal = DetectorCalibrator(sigma=4).fit(sweep, dark=100)
    assert 350 < cal.sums_["frames"].mean() < 390


def test_a_sensitive_pixel_is_not_noisy():
    rng = np.random.default_rng(10)
    gain = np.ones((64, 64))
    gain[10, 10], gain[30, 40] = 5, 9  # more light
    sweep = rng.poisson(np.linspace(500, 3000, 40)[:, None, None] * gain) + 100.0
    sweep[:, 50, 20] = 3 * (sweep[:, 50, 20] - 100) + 100  # more DN for an electron
    for method in METHODS:
        cal = DetectorCalibrator(sigma=8, method=method).fit(sweep, dark=100)
        assert not cal.defects_.any()


def test_a_dark_of_another_region_is_no_yardstick():
    labels = np.ones((64, 64), np.uint8)
    labels[20:, 20:] = 2
    dark = np.where(labels == 2, 2100.0, 100.0)
    rng = np.random.default_rng(11)
    sweep = rng.poisson(np.linspace(500, 3000, 20)[:, None, None] * np.ones(labels.shape)) + dark
    cal = DetectorCalibrator(sigma=6, regions=labels).fit(sweep, dark=dark + rng.standard_normal(dark.shape))
    assert not cal.kept_out_.any()


@pytest.mark.parametrize("what", ["dark", "flat"])
def test_a_stack_with_a_frame_of_nan_is_refused(what):
    """Its mean is NaN everywhere: nothing could be calibrated or corrected, and no one would know why."""
    frames = np.full((5, 40, 50), 100.0)
    frames[2] = np.nan
    rng = np.random.default_rng(5)
    sweep = rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones((40, 50))) + 100.0
    with pytest.raises(InputError, match=f"`{what}`: the mean of its 5 frames is, .* NaN"):
        if what == "dark":
            DetectorCalibrator(sigma=6).fit(sweep, dark=frames)
        else:
            small().transform(sweep, frames)


def test_a_sigma_that_reaches_no_neighbour_is_told():
    rng = np.random.default_rng(5)
    sweep = rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones((40, 50))) + 100.0
    with pytest.warns(DetectorcalWarning, match="each pixel is compared with itself"):
        cal = DetectorCalibrator(sigma=0.1).fit(sweep, dark=100)
    assert np.all(cal.coef_ == 1)
