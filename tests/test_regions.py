"""Regions: modules and tiles are each a detector of their own, and gaps are nothing."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from itertools import pairwise

import array_api_strict
import dask.array
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.base import clone

from detectorcal import DetectorCalibrator, RingSuppressor, simulate
from detectorcal._arrays import to_host
from detectorcal._errors import FileFormatError, InputError
from detectorcal._persistence import read_calibration, write_calibration
from detectorcal.cli import main
from detectorcal.kernels.regions import Regions, user_mask
from detectorcal.plot._pixels import accumulation_of
from detectorcal.plot._points import points_of
from detectorcal.report._scan import look_at_scan
from tests import reference

USER, HOPELESS = 64, 1 + 2 + 32 + 64
HEIGHTS, WIDTHS = (0, 44, 52, 96), (0, 46, 52, 98, 104, 150)
DEVICE = array_api_strict.Device("device1")


def modules(rows=HEIGHTS, columns=WIDTHS):
    """Rectangles, every second stretch of rows and columns being a gap, and their boxes by label."""
    boxes = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in list(pairwise(rows))[::2]
        for left, right in list(pairwise(columns))[::2]
    ]
    labels = np.zeros((rows[-1], columns[-1]), np.int64)
    for label, box in enumerate(boxes, 1):
        labels[box] = 7 * label
    return labels, boxes


LABELS, BOXES = modules()
SHAPE = LABELS.shape


@pytest.fixture(scope="module")
def sweep():
    """21 frames, uint16, modules of different sensitivity; what detectors write where there is nothing."""
    rng = np.random.default_rng(0)
    gain = 1 + 0.02 * rng.standard_normal(SHAPE)
    gain *= (1 + 0.05 * rng.standard_normal(LABELS.max() + 1))[LABELS]
    beam = 1 - 0.3 * ((np.arange(SHAPE[1]) - 75) / 75) ** 2
    frames = rng.poisson(np.linspace(500, 4000, 21)[:, None, None] * beam * gain) + 100
    frames[:, LABELS == 0] = 65535
    return frames.astype(np.uint16)


@pytest.fixture(scope="module")
def dark():
    return np.random.default_rng(1).uniform(90, 110, SHAPE)


def holed(sweep):
    """The same as floats, with NaN and inf in modules, over their edges, and one module off in one frame."""
    frames = sweep.astype(np.float32)
    frames[3, 40:60, 40:60] = np.nan
    frames[::2, 10, 45] = np.inf
    frames[5][BOXES[0]] = np.nan
    return frames


OPTIONS = {
    "plain": {},
    "photon": {"method": "photon"},
    "saturation": {"saturation": 3500.0},
    "reject": {"reject": 5.0},
    "cutoff": {"cutoff": 1000.0},
    "constant": {"mode": "constant", "cval": 1000.0},
    "mirror": {"mode": "mirror"},
}

# --- each region is a detector of its own -------------------------------------------------------------


@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holed"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.filterwarnings("ignore:.*take no part", "ignore:.*not to be relied on")
def test_equal_to_modules_fitted_alone_bit_for_bit(sweep, dark, options, holes):
    frames = holed(sweep) if holes else sweep
    cal = DetectorCalibrator(sigma=12, regions=LABELS, **options).fit(frames, dark=dark)
    for box in BOXES:
        alone = DetectorCalibrator(sigma=12, **options).fit(frames[:, *box], dark=dark[box])
        np.testing.assert_array_equal(cal.coef_[box], alone.coef_)
        # whether a pixel scatters or bends is judged against all around, other modules too
        np.testing.assert_array_equal(cal.defects_[box] & HOPELESS, alone.defects_ & HOPELESS)
        for name in ("frames", "expected"):
            np.testing.assert_array_equal(cal.sums_[name][box], alone.sums_[name])


@pytest.mark.parametrize("mode", ["nearest", "reflect", "wrap"])
@pytest.mark.parametrize("method", ["croton", "curved"])
def test_a_line_detector_of_modules(sweep, dark, method, mode):
    row, labels = 20, LABELS[20]
    frames = np.tile(sweep[:, row], (2, 1))
    noise = {"system_gain": 1.0, "read_noise": 2.0} if method == "curved" else {}
    make = {"sigma": 8, "method": method, "mode": mode, **noise}
    cal = DetectorCalibrator(**make, regions=labels).fit(frames, dark=dark[row])
    assert np.all(cal.defects_[labels == 0] == USER)
    for _, columns in BOXES[:3]:
        alone = DetectorCalibrator(**make).fit(frames[:, columns], dark=dark[row, columns])
        for name in alone.sums_:  # of curves the coefficients share the prior of all
            np.testing.assert_array_equal(cal.sums_[name][columns], alone.sums_[name])
        if method == "croton":
            np.testing.assert_array_equal(cal.coef_[columns], alone.coef_)


def test_curves_of_modules(sweep, dark):
    """All that is summed is that of the modules alone; what all pixels share is estimated from all."""
    make = {"sigma": 12, "method": "curved", "read_noise": 2.0, "system_gain": 1.0}
    cal = DetectorCalibrator(**make, regions=LABELS).fit(sweep, dark=dark)
    for box in BOXES:
        alone = DetectorCalibrator(**make).fit(sweep[:, *box], dark=dark[box])
        for name in ("w_s2", "w_s3", "w_s4", "w_sr", "w_s2r"):
            np.testing.assert_array_equal(cal.sums_[name][box], alone.sums_[name])
    assert np.all(cal.curvature_[LABELS == 0] == 0)


@pytest.mark.filterwarnings("ignore:.*not to be relied on")  # of so few pixels some always stand out
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_tiles_of_any_size_equal_tiles_fitted_alone(data):
    """Also with a few pixels a side, and with edges that no 16th row falls on."""
    cuts = [
        [0, *sorted(2 * k for k in data.draw(st.sets(st.integers(1, (n - 2) // 2), max_size=3))), n]
        for n in (23, 19)
    ]
    boxes = [(slice(*rows), slice(*columns)) for rows in pairwise(cuts[0]) for columns in pairwise(cuts[1])]
    labels = np.zeros((23, 19), np.uint8)
    for label, box in enumerate(boxes, 1):
        labels[box] = label
    frames = np.random.default_rng(data.draw(st.integers(0, 99))).uniform(500, 600, (9, 23, 19))
    cal = DetectorCalibrator(sigma=3, regions=labels).fit(frames)
    for box in boxes:
        np.testing.assert_array_equal(cal.coef_[box], DetectorCalibrator(sigma=3).fit(frames[:, *box]).coef_)


# --- steps and gaps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["gain", "beam"])
def test_a_step_between_tiles_leaves_no_trace(what):
    """Four tiles, one 5 % off. A plain fit takes the step for the pixels' response, half of it at the edge.

    Looked at is the smoothed error of the coefficients of 10 pixels on either side, each tile's own level
    apart: that no smoothing within it can know.
    """
    labels = np.kron([[1, 2], [3, 4]], np.ones((64, 64), int))
    step = np.where(labels == 2, 1.05, 1.0)
    detector = simulate.Detector.random((128, 128), prnu=0.01, system_gain=0.0, bits=None, seed=3)
    beam = simulate.beam_profile((128, 128), width=4)
    truth = 1 / detector.gain
    if what == "gain":
        detector = replace(detector, gain=detector.gain * step)
    else:
        beam = beam * step
    frames = detector.record(simulate.exposure_ladder(beam, 8), seed=4)

    def largest_error(regions):
        off = DetectorCalibrator(sigma=10, regions=regions).fit(frames, dark=detector.dark).coef_ / truth
        for label in range(1, 5):
            off[labels == label] /= off[labels == label].mean()
        return np.abs(gaussian_filter(off, 2) - 1)[5:-5, 54:74].max()

    assert largest_error(None) > 0.015
    assert largest_error(labels) < 0.003


def test_a_gap_of_an_eiger_leaves_no_trace():
    """Two modules 37 rows apart. What lies between may be anything, NaN too, and changes nothing."""
    labels, _ = modules((0, 90, 127, 217), (0, 80))
    detector = simulate.Detector.random(labels.shape, seed=5)
    frames = detector.record(simulate.exposure_ladder(simulate.beam_profile(labels.shape), 12), seed=6)
    gap = labels == 0
    fits = []
    for fill in (0.0, np.nan, np.inf, 4294967295.0):
        given = frames.astype(np.float64)
        given[:, gap] = fill
        fits.append(DetectorCalibrator(sigma=20, regions=labels).fit(given, dark=detector.dark))
    for cal in fits:
        np.testing.assert_array_equal(cal.coef_, fits[0].coef_)
        assert np.all(cal.coef_[gap] == 1)
        assert np.isnan(cal.coef_std_[gap]).all()
        assert np.all(cal.defects_[gap] == USER)
        assert not cal.defects_[~gap].any()
        assert all((values[gap] == 0).all() for values in cal.sums_.values())


@pytest.mark.parametrize("method", ["croton", "photon", "curved"])
def test_the_noise_is_told_by_pairs_of_one_region(method):
    """Of strips 8 pixels wide, half of the pairs 4 apart lie across an edge, where nothing is summed."""
    strips = np.kron(np.arange(1, 17)[None], np.ones((256, 8), int))
    detector = simulate.Detector.random(strips.shape, read_noise=0.0, system_gain=2.0, seed=14)
    frames = detector.record(np.linspace(500, 3500, 24)[:, None, None] * np.ones(strips.shape), seed=15)
    cal = DetectorCalibrator(sigma=20, method=method, regions=strips).fit(frames, dark=detector.dark)
    # a median over 1024 pairs of 22 degrees of freedom has a standard error of 1.2 %
    assert cal.system_gain_ == pytest.approx(2.0, rel=0.05)


def test_user_mask_joins_gaps_and_masked_pixels():
    regions, mask = Regions(np.array([[0, 1], [1, 1]])), np.array([[False, False], [True, False]])
    assert user_mask(None, None) is None
    np.testing.assert_array_equal(user_mask(mask, None), mask)
    np.testing.assert_array_equal(user_mask(None, regions), [[True, False], [False, False]])
    np.testing.assert_array_equal(user_mask(mask, regions), [[True, False], [True, False]])


# --- regions that are no rectangles -------------------------------------------------------------------


def l_shaped():
    labels = np.ones((60, 72), int)
    labels[34:, 30:] = 2
    labels[50:, 30:40] = 0
    return labels


@pytest.mark.parametrize("method", ["croton", "photon"])
def test_an_l_shaped_region_equals_the_slow_reference(method):
    labels = l_shaped()
    rng = np.random.default_rng(7)
    frames = rng.uniform(900, 1100, (6, *labels.shape)) * np.linspace(1, 3, 6)[:, None, None]
    frames[2, 30:36, 25:35] = np.nan  # over the inner corner
    cal = DetectorCalibrator(sigma=6, method=method, regions=labels).fit(frames)
    for label in (1, 2):
        inside = labels == label
        alone = np.where(inside, frames, np.nan)
        box = Regions(labels).pieces[label - 1].box
        slow = reference.fit(alone[:, *box], sigma=6, method=method)
        # 2e-6: what the low-rank products promise, see test_smoothing
        np.testing.assert_allclose(cal.coef_[box][inside[box]], slow.coef[inside[box]], rtol=2e-6)
    assert np.all(cal.defects_[labels == 0] == USER)


@pytest.mark.parametrize("sigma", [5, 15, 30])
def test_an_l_shaped_region_bends_a_beam_little_more_than_rectangles(sigma):
    """Along the edges of the missing corner the error is at most 1.3 times that at edges of rectangles."""
    labels = np.ones((120, 160), int)
    labels[70:, 90:] = 0
    rectangles = labels.copy()
    rectangles[70:, :90] = 2
    y, x = np.mgrid[-1:1:120j, -1:1:160j]
    frames = (1 - 0.05 * (x**2 + y**2)) * np.linspace(500, 4000, 6)[:, None, None]
    bent, usual = (
        np.abs(DetectorCalibrator(sigma=sigma, regions=regions).fit(frames).coef_ - 1)
        for regions in (labels, rectangles)
    )
    near = np.zeros(labels.shape, bool)
    near[55:70, 75:] = near[55:, 75:90] = True
    assert usual[near].max() > 0.003
    assert bent[near].max() < 1.3 * usual[near].max()


# --- however it is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [LABELS, np.where(LABELS > 7, 1, LABELS)], ids=["modules", "one in pieces"]
)
@pytest.mark.filterwarnings("ignore:.*not to be relied on")
def test_the_same_for_any_number_of_threads_and_any_batch(sweep, dark, labels):
    frames = holed(sweep)
    wanted = DetectorCalibrator(sigma=12, regions=labels).fit(frames, dark=dark)
    for options in ({"n_jobs": 2}, {"batch_size": 8}, {"n_jobs": 3, "batch_size": "100 kB"}):
        found = DetectorCalibrator(sigma=12, regions=labels, **options).fit(frames, dark=dark)
        for name, values in wanted.sums_.items():
            np.testing.assert_array_equal(found.sums_[name], values)
    first = DetectorCalibrator(sigma=12, regions=labels).fit(frames[:8], dark=dark)
    first.partial_fit(frames[8:])
    np.testing.assert_allclose(first.coef_, wanted.coef_, rtol=1e-7)


def test_dask_and_darks_per_frame(sweep, dark):
    wanted = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    lazy = dask.array.from_array(sweep, chunks=(8, 48, 75))
    found = DetectorCalibrator(sigma=12, regions=LABELS).fit(lazy, dark=dark)
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=1e-7)
    darks = np.broadcast_to(dark, sweep.shape)
    found = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=darks, dark_per_frame=True)
    np.testing.assert_array_equal(found.coef_, wanted.coef_)


@pytest.mark.parametrize(
    "labels", [LABELS, np.where(LABELS > 7, 1, LABELS)], ids=["modules", "one in pieces"]
)
def test_arrays_of_a_device(sweep, dark, labels):
    frames = sweep.astype(np.float64)
    wanted = DetectorCalibrator(sigma=12, regions=labels).fit(frames, dark=dark)
    on_device = (array_api_strict.asarray(values, device=DEVICE) for values in (frames, dark, labels))
    given, its_dark, its_labels = on_device
    found = DetectorCalibrator(sigma=12, regions=its_labels).fit(given, dark=its_dark)
    # products on the device, lines of scipy.ndimage here
    np.testing.assert_allclose(found.coef_, wanted.coef_, rtol=2e-6)
    flat = frames[-1]
    corrected = found.transform(array_api_strict.asarray(frames, device=DEVICE), flat)
    np.testing.assert_allclose(to_host(corrected), wanted.transform(frames, flat), rtol=4e-6)


# --- correction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [None, 3.0], ids=["plain", "residuals"])
def test_the_flat_is_smoothed_within_modules(sweep, dark, sigma):
    cal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    flat = holed(sweep)[3] if sigma is None else sweep[-1]
    corrected = cal.transform(sweep, flat, sigma)
    assert np.isfinite(corrected).all()  # gaps too are something to look at
    if sigma is None:
        for box in BOXES:
            alone = DetectorCalibrator(sigma=12).fit(sweep[:, *box], dark=dark[box])
            np.testing.assert_array_equal(corrected[:, *box], alone.transform(sweep[:, *box], flat[box]))


def test_a_flat_tells_of_changes_up_to_the_edge_of_a_module():
    labels = np.kron([[1, 2]], np.ones((60, 50), int))
    detector = simulate.Detector.random(labels.shape, bits=None, seed=8)
    beam = simulate.beam_profile(labels.shape) * np.where(labels == 1, 1.0, 0.8)
    frames = detector.record(simulate.exposure_ladder(beam, 40), seed=9)
    flat = detector.record(2000 * beam[None], seed=10)[0]
    changed = [(30, 49), (10, 50), (50, 20)]
    for place in changed:
        flat[place] = 0.6 * (flat[place] - detector.dark[place]) + detector.dark[place]
    cal = DetectorCalibrator(sigma=10, method="curved", regions=labels, read_noise=2.0)
    cal.fit(frames, dark=detector.dark)
    with pytest.warns(UserWarning, match="3 of 6000 pixels have changed"):
        defects = cal.correction(flat).defect_map
    assert sorted(zip(*np.nonzero(defects & 128), strict=True)) == sorted(changed)


def test_score_sees_no_step():
    """Tiles 20 % apart: across the step the smoothed frame is off, and would be all that is scored."""
    labels = np.kron([[1, 2]], np.ones((80, 60), int))
    detector = simulate.Detector.random(labels.shape, seed=11)
    beam = simulate.beam_profile(labels.shape, width=4) * np.where(labels == 1, 1.0, 0.8)
    train, held_out = (detector.record(simulate.exposure_ladder(beam, 60), seed=s) for s in (12, 13))
    cal = DetectorCalibrator(sigma=20, regions=labels).fit(train, dark=detector.dark)
    assert cal.score(held_out) > 0.9
    assert cal.set_params(regions=None).score(held_out) < 0.7


def test_rings_are_sought_across_modules_and_gaps_are_left_alone(sweep, dark):
    cal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    rng = np.random.default_rng(16)
    scan = np.exp(-0.5 + rng.normal(0, 0.02, (40, *SHAPE)) + rng.normal(0, 0.01, SHAPE))
    scan[:, LABELS == 0] = np.nan
    with pytest.warns(UserWarning, match="have no others and are left alone"):
        rings = RingSuppressor(cal).fit(scan)
    assert np.all(rings.multiplier_[LABELS == 0] == 1)
    assert np.isfinite(rings.multiplier_).all()
    assert np.count_nonzero(rings.multiplier_ != 1) > 0.9 * np.count_nonzero(LABELS)


@pytest.mark.filterwarnings("ignore:.*not to be relied on")
def test_plots_and_report_look_at_what_was_fitted(sweep, dark):
    cal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    frames = holed(sweep)
    everywhere = np.arange(LABELS.size)
    points = points_of(frames, dark, accumulation_of(cal, SHAPE), everywhere)
    refitted = DetectorCalibrator(sigma=12, regions=LABELS).fit(frames, dark=dark)
    np.testing.assert_array_equal(points.used.sum(axis=0).reshape(SHAPE), refitted.sums_["frames"])
    total = np.where(points.used, points.expected, 0).sum(axis=0).reshape(SHAPE)
    np.testing.assert_allclose(total, refitted.sums_["expected"], rtol=1e-6)
    flat = sweep[-1]
    seen = look_at_scan(cal, sweep, cal.transform(sweep, flat))
    assert seen.row in (43, 52)  # row 48 lies in a gap
    module = np.nan_to_num(seen.before)[:, LABELS[seen.row] > 0]
    assert module.std() > 0.1
    assert module.max() < 5


# --- kept, cloned, merged -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".tif"])
def test_a_file_keeps_regions(sweep, dark, suffix, tmp_path):
    path = tmp_path / f"cal{suffix}"
    cal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep[:16], dark=dark)
    cal.save(path)
    loaded = DetectorCalibrator.load(path)
    np.testing.assert_array_equal(loaded.regions, LABELS)
    np.testing.assert_array_equal(loaded.defects_, cal.defects_)
    flat = sweep[-1]
    np.testing.assert_array_equal(loaded.transform(sweep, flat), cal.transform(sweep, flat))
    for each in (cal, loaded):
        each.partial_fit(sweep[16:])
    np.testing.assert_array_equal(loaded.coef_, cal.coef_)


def test_a_file_that_lies_about_regions(sweep, dark, tmp_path):
    DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark).save(tmp_path / "cal.h5")
    header, arrays = read_calibration(tmp_path / "cal.h5")
    header.pop("protocol")
    for name, lie in {"float": LABELS * 1.0, "empty": np.zeros(SHAPE, np.uint16)}.items():
        write_calibration(tmp_path / f"{name}.h5", header, arrays | {"regions": lie})
        with pytest.raises(FileFormatError, match="regions"):
            DetectorCalibrator.load(tmp_path / f"{name}.h5")


def test_clone_pickle_and_repr(sweep, dark):
    cal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    again = pickle.loads(pickle.dumps(cal))
    np.testing.assert_array_equal(again.partial_fit(sweep).coef_, cal.partial_fit(sweep).coef_)
    np.testing.assert_array_equal(clone(cal).regions, LABELS)
    assert "regions=array" in repr(cal)
    assert len(repr(cal)) < 500
    regions = Regions(LABELS)
    assert pickle.loads(pickle.dumps(regions)) == regions
    assert hash(regions) == hash(Regions(LABELS.astype(np.uint8)))
    assert regions != Regions(LABELS.T)


@pytest.mark.filterwarnings("ignore:.*could not be calibrated")
def test_only_equal_regions_go_together(sweep, dark):
    other = LABELS.copy()
    other[0, 0] = 0
    sweep = np.where(LABELS == 0, 500, sweep)
    parts = [
        DetectorCalibrator(sigma=12, regions=labels).fit(frames, dark=dark)
        for labels, frames in [(LABELS, sweep[:8]), (LABELS.copy(), sweep[8:]), (other, sweep), (None, sweep)]
    ]
    merged = DetectorCalibrator.merge(*parts[:2])
    whole = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    np.testing.assert_allclose(merged.coef_, whole.coef_, rtol=1e-7)
    for unlike in parts[2:]:
        with pytest.raises(InputError, match="must agree in `regions`"):
            DetectorCalibrator.merge(parts[0], unlike)
    with pytest.raises(InputError, match="`regions` was"):
        parts[0].set_params(regions=other).partial_fit(sweep)
    mine = LABELS.copy()
    cal = DetectorCalibrator(sigma=12, regions=mine).fit(sweep, dark=dark)
    mine[:] = other  # under its hands
    with pytest.raises(InputError, match="`regions` was"):
        cal.partial_fit(sweep)
    equal = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    equal.set_params(regions=LABELS.astype(np.uint8).tolist()).partial_fit(sweep)  # the same, however told
    assert equal.n_frames_seen_ == 2 * len(sweep)


def _with(value, place=(0, 0)):
    labels = LABELS.copy()
    labels[place] = value
    return labels


UNFIT = {
    "float": (LABELS * 1.0, "`regions` must hold whole numbers"),
    "bool": (LABELS > 0, "`regions` must hold whole numbers"),
    "text": (np.full(SHAPE, "a"), "`regions` must hold real numbers"),
    "negative": (_with(-1), "from 0 to 65535, but they go from -1"),
    "large": (_with(70000), "from 0 to 65535, but they go from 0 to 70000"),
    "gap": (0 * LABELS, "`regions` is 0 everywhere"),
    "one pixel": (_with(99, (3, 5)), re.escape("region of one pixel, label 99 at (3, 5)")),
    "three axes": (LABELS[None], "`regions` must have the detector's shape"),
    "other shape": (LABELS[1:], re.escape("`regions` has shape (95, 150), but the frames of `X`")),
}


@pytest.mark.parametrize(("labels", "said"), UNFIT.values(), ids=UNFIT)
def test_unfit_regions(sweep, labels, said):
    with pytest.raises(InputError, match=said):
        DetectorCalibrator(sigma=12, regions=labels).fit(sweep)


def test_flattened_frames(sweep, dark):
    rows = sweep.reshape(len(sweep), -1)
    cal = DetectorCalibrator(sigma=12, regions=LABELS, detector_shape=SHAPE).fit(rows, dark=dark)
    wanted = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=dark)
    np.testing.assert_array_equal(cal.coef_, wanted.coef_)


# --- the command line ---------------------------------------------------------------------------------


def _run(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code or 0


def test_the_command_takes_a_label_image(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("sweep.tif", sweep, photometric="minisblack")
    tifffile.imwrite("modules.tif", LABELS.astype(np.uint8))
    assert (
        _run("fit", "sweep.tif", "--dark", 100, "--sigma", 12, "--regions", "modules.tif", "-o", "cal.h5")
        == 0
    )
    loaded = DetectorCalibrator.load("cal.h5")
    wanted = DetectorCalibrator(sigma=12, regions=LABELS).fit(sweep, dark=100.0)
    np.testing.assert_array_equal(loaded.coef_, wanted.coef_)
    assert "0 pixels not calibrated" in capsys.readouterr().out
    assert _run("inspect", "cal.h5") == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "regions 6, each smoothed alone" in told
    assert f"user {np.count_nonzero(LABELS == 0)} pixels" in told
    assert _run("fit", "sweep.tif", "--regions", "sweep.tif", "-o", "other.h5") == 2
    assert "`--regions` takes one image, but `sweep.tif` holds 21" in capsys.readouterr().err
    assert _run("fit", "sweep.tif", "--regions", "modules.tif", "-o", "modules.tif", "--overwrite") == 2


def test_spots_beside_a_gap():
    """At a module's corner most pixels around are the gap's, which hold no readings: they have no say."""
    labels = np.ones((24, 30), np.uint8)
    labels[10:14] = labels[:, 13:17] = 0
    rng = np.random.default_rng(6)
    sweep = rng.poisson(np.linspace(500, 3000, 12)[:, None, None] * np.ones(labels.shape)).astype(float)
    sweep[:, labels == 0] = -1
    cal = DetectorCalibrator(sigma=4, regions=labels, reject=8, read_noise=1.0).fit(sweep)
    image = rng.poisson(1000 * np.ones(labels.shape)).astype(float)
    image[labels == 0] = -1
    image[5, 5] = 1e5
    corrected, std = cal.transform(image, return_std=True)
    plain = cal.correction(dark=0).set_params(reject=None).transform(image)
    spot = np.zeros(labels.shape, bool)
    spot[5, 5] = True
    np.testing.assert_allclose(corrected[~spot], plain[~spot], rtol=1e-12)
    assert abs(corrected[5, 5] - 1000) < 100
    assert np.isfinite(std[labels > 0]).all()
