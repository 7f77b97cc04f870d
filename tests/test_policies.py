"""What becomes of defects and of numbers that mean nothing, and the logarithm."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detectorcal import Correction, DetectorCalibrator, DetectorcalWarning, ScanCorrection, simulate
from detectorcal._errors import InputError
from detectorcal.kernels.interpolation import good_neighbours

SHAPE = (24, 30)
rows, columns = np.indices(SHAPE)
PLANE = 0.4 + 0.01 * columns - 0.005 * rows


def live(**how):
    """A correction by 1/1000 of a dark of 100 DN, whose maps are known."""
    beam = np.full(SHAPE, 1000.0)
    return Correction(1 / beam, np.full(SHAPE, 100.0), beam=beam, **how)


def raw_of(transmission):
    return 1000 * np.asarray(transmission) + 100


def scattered(seed=0, share=0.05):
    bad = np.random.default_rng(seed).random(SHAPE) < share
    bad[5:9, 10:14] = True  # a cluster
    bad[0, :3] = bad[-1, -1] = True  # an edge, a corner
    bad[:, 20] = True  # a dead column
    return bad


@pytest.fixture(scope="module")
def scene():
    detector = simulate.Detector.random(SHAPE, seed=1)
    beam = simulate.beam_profile(SHAPE, width=2)
    rng = np.random.default_rng(2)
    sweep = detector.record(simulate.exposure_ladder(beam, 20, lowest=300), rng)
    darks, flats = detector.darks(10, rng), detector.flats(2000 * beam, 8, rng)
    images = detector.record(2000 * beam * np.linspace(0.1, 0.9, 4)[:, None, None], rng)
    return DetectorCalibrator(6).fit(sweep, dark=darks), flats, images


class TestDefects:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_plane_is_interpolated_exactly(self, dtype):
        bad = scattered()
        images = np.stack([raw_of(PLANE), raw_of(2 * PLANE)]).astype(dtype)
        images[:, bad] = 1e6
        got = live(defect_map=bad.astype(np.uint8), defects="interpolate").transform(images)
        # in the middle of three at the edge a plane would be continued too far: a mean, within a pixel's step
        np.testing.assert_allclose(got[:, 0, 1], [PLANE[0, 1], 2 * PLANE[0, 1]], rtol=0.01)
        got[:, 0, 1] = PLANE[0, 1], 2 * PLANE[0, 1]
        np.testing.assert_allclose(got, [PLANE, 2 * PLANE], rtol=3e-6 if dtype == np.float32 else 1e-12)

    def test_on_a_line(self):
        line = Correction(np.ones(9), np.zeros(9), defect_map=np.uint8([0, 1, 0, 0, 1, 1, 0, 0, 0]))
        line.set_params(defects="interpolate")
        image = np.arange(9.0)[None] * 10
        broken = image.copy()
        broken[0, [1, 4, 5]] = -7
        np.testing.assert_allclose(line.transform(broken), image)

    @settings(max_examples=40, deadline=None)
    @given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(2, 7))))
    def test_weights_add_up_and_are_of_good_pixels(self, bad):
        found = good_neighbours(bad, ~bad)
        seen = np.isfinite(found.weights).all(axis=0)
        np.testing.assert_allclose(found.weights.sum(axis=0)[seen], 1)
        used = found.weights[:, seen] != 0
        assert not bad.ravel()[found.places[:, seen][used]].any()
        for pixel in found.pixels[~seen]:  # nothing good along row, column and diagonals
            y, x = np.unravel_index(pixel, bad.shape)
            dy, dx = np.indices(bad.shape) - np.array([y, x])[:, None, None]
            assert bad[(dy == 0) | (dx == 0) | (abs(dy) == abs(dx))].all()

    def test_nothing_else_is_touched_and_bad_readings_have_no_say(self):
        bad = scattered(1)
        image = raw_of(np.random.default_rng(0).random(SHAPE))
        correction = live(defect_map=bad.astype(np.uint8), defects="interpolate")
        got = correction.transform(image)
        np.testing.assert_array_equal(got[~bad], live().transform(image)[~bad])
        image[bad] = np.nan
        np.testing.assert_array_equal(correction.transform(image), got)

    def test_a_pixel_that_is_nan_in_one_image_stays_and_is_passed_over(self):
        bad = np.zeros(SHAPE, np.uint8)
        bad[10, 10] = 1
        image = raw_of(PLANE)
        image[10, 11] = np.nan
        got = live(defect_map=bad, defects="interpolate").transform(image)
        assert np.isnan(got[10, 11])
        assert got[10, 10] == pytest.approx(np.mean([PLANE[9, 10], PLANE[11, 10], PLANE[10, 9]]))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_corner_with_a_neighbour_that_is_nan(self, dtype):
        """The plane's weights there, 1, 1 and -1, may leave nothing to divide by."""
        bad = np.zeros(SHAPE, np.uint8)
        bad[0, 0] = 1
        for hidden in ((0, 1), (1, 0), (1, 1)):
            image = raw_of(PLANE).astype(dtype)
            image[hidden] = np.nan
            got = live(defect_map=bad, defects="interpolate").transform(image)[0, 0]
            others = [PLANE[place] for place in ((0, 1), (1, 0), (1, 1)) if place != hidden]
            assert min(others) <= got <= max(others)

    def test_nan(self):
        bad = scattered(2)
        got = live(defect_map=bad.astype(np.uint8), defects="nan").transform(raw_of(PLANE))
        np.testing.assert_array_equal(np.isnan(got), bad)

    def test_what_has_only_changed_was_corrected_and_stays(self):
        defect_map = np.zeros(SHAPE, np.uint8)
        defect_map[3, 4], defect_map[5, 6] = 128, 128 + 1
        got = live(defect_map=defect_map, defects="nan").transform(raw_of(PLANE))
        assert np.argwhere(np.isnan(got)).tolist() == [[5, 6]]

    def test_where_no_good_pixel_is_seen(self):
        alone = Correction(np.ones((1, 3)), np.zeros((1, 3)), defect_map=np.uint8([[1, 1, 1]]))
        alone.set_params(defects="interpolate")
        with pytest.warns(DetectorcalWarning, match="3 defective pixels see no good pixel"):
            assert np.isnan(alone.transform(np.ones((1, 3)))).all()

    @pytest.mark.parametrize("how", [{"n_jobs": 2}, {"batch_size": 3}, {"n_jobs": 2, "log": True}])
    def test_how_the_work_is_done_changes_nothing(self, how):
        shape = (200, 400)  # more than one block of rows
        rng = np.random.default_rng(0)
        images = rng.integers(150, 4000, (20, *shape)).astype(np.uint16)
        bad = (rng.random(shape) < 0.03).astype(np.uint8)
        maps = {"scale": rng.random(shape) + 0.5, "dark": rng.random(shape) + 90, "beam": np.ones(shape)}
        plain = Correction(**maps, defect_map=bad, defects="interpolate", log=how.get("log", False))
        once = Correction(**maps, defect_map=bad, defects="interpolate").set_params(**how).transform(images)
        one_by_one = [plain.transform(image) for image in images]
        np.testing.assert_array_equal(once, one_by_one)

    def test_in_place_into_a_view_and_into_a_file(self, tmp_path):
        bad = scattered(3).astype(np.uint8)
        correction = live(defect_map=bad, defects="interpolate", log=True)
        images = raw_of(np.random.default_rng(0).uniform(0.6, 1, (5, *SHAPE)))
        wanted = correction.transform(images)
        wide = np.empty((5, SHAPE[0], 2 * SHAPE[1]))
        np.testing.assert_array_equal(correction.transform(images, out=wide[..., ::2]), wanted)
        np.testing.assert_array_equal(wide[..., ::2], wanted)
        file = np.memmap(tmp_path / "out", np.float64, "w+", shape=images.shape)
        np.testing.assert_array_equal(correction.transform(images, out=file), wanted)
        np.testing.assert_array_equal(correction.transform(images, out=images), wanted)

    def test_lazily(self):
        da = pytest.importorskip("dask.array")
        correction = live(defect_map=scattered(4).astype(np.uint8), defects="interpolate", log=True)
        images = raw_of(np.random.default_rng(0).uniform(0.6, 1, (6, *SHAPE)))
        lazy = correction.transform(da.from_array(images, chunks=(2, 5, 30)))
        np.testing.assert_allclose(lazy.compute(), correction.transform(images), rtol=1e-12)

    def test_on_another_library(self):
        xp = pytest.importorskip("array_api_strict")
        correction = live(defect_map=scattered(5).astype(np.uint8), defects="interpolate", log=True)
        images = raw_of(np.random.default_rng(0).uniform(-0.1, 1, (3, *SHAPE)))
        images[0, 3, 3] = np.nan
        for invalid in ("nan", "clip"):
            correction.set_params(invalid=invalid)
            with pytest.warns(DetectorcalWarning, match="have no logarithm") as host:
                wanted = correction.transform(images)
            with pytest.warns(DetectorcalWarning) as device:
                got = correction.transform(xp.asarray(images))
            assert str(host[0].message) == str(device[0].message)
            np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-12)


class TestMeaningless:
    def test_the_logarithm_and_back(self, scene):
        cal, flats, images = scene
        logarithms = cal.transform(images, flats, log=True)
        np.testing.assert_allclose(logarithms, -np.log(cal.transform(images, flats)), rtol=1e-6, atol=1e-7)
        back = cal.inverse_transform(logarithms, flats, log=True)
        np.testing.assert_allclose(back, images, rtol=1e-5)
        with pytest.raises(InputError, match=r"`log=True` .*needs a `flat`"):
            cal.transform(images, log=True)

    @pytest.mark.parametrize(
        ("invalid", "low", "unlit"),
        [("nan", np.nan, np.nan), ("clip", 0.5 / 1000, 1.0), (0.01, 0.01, 0.01)],
    )
    def test_what_stands_in(self, invalid, low, unlit):
        values = np.full(SHAPE, 0.5)
        values[0, :3] = -0.2, 0.0, 0.0001
        scale = np.full(SHAPE, 1e-3)
        scale[7, 7] = np.nan  # as a flat that is not positive makes it
        correction = live(invalid=invalid, log=True).set_params(scale=scale)
        n_low = 3 if invalid == "clip" else 2
        with pytest.warns(DetectorcalWarning, match=f"^{n_low} of 720 transmissions") as told:
            got = correction.transform(raw_of(values))
        assert len(told) == 1
        np.testing.assert_allclose(got[0, :2], -np.log([low, low]))
        smallest = low if invalid == "clip" else 0.0001
        assert got[0, 2] == pytest.approx(-np.log(smallest))
        np.testing.assert_allclose(got[7, 7], -np.log(unlit))
        assert not np.isinf(got).any()
        assert np.count_nonzero(np.isclose(got, -np.log(0.5))) == 720 - 4

    def test_without_a_logarithm_values_below_nothing_are_noise(self):
        values = np.full(SHAPE, -0.1)
        for invalid in ("nan", "clip", 0.5):
            np.testing.assert_allclose(live(invalid=invalid).transform(raw_of(values)), values)

    def test_nothing_is_ever_infinite(self):
        image = raw_of(np.full(SHAPE, 0.5))
        image[0, :4] = np.inf, -np.inf, np.nan, 100
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DetectorcalWarning)
            got = live(log=True).transform(image)
        assert np.isnan(got[0, :4]).all()
        assert np.isfinite(got[1:]).all()

    @pytest.mark.parametrize(("invalid", "wanted"), [("nan", np.nan), ("clip", 2e4), (7.0, 7.0)])
    def test_beyond_the_top_of_a_curve(self, invalid, wanted):
        # m = u (1 + q u / 4) has its top at u = -2 / q = 2e4, where m = -1 / q = 1e4
        curved = Correction(np.ones((1, 3)), np.zeros((1, 3)), curvature=np.full((1, 3), -1e-4))
        with pytest.warns(DetectorcalWarning, match="^1 of 3 values are readings that no intensity gives"):
            got = curved.set_params(invalid=invalid).transform(np.array([[2e4, 1e4, np.nan]]))
        np.testing.assert_allclose(got[0], [wanted, 2e4, np.nan])

    def test_a_flat_that_is_dark(self, scene):
        cal, _, images = scene
        for invalid, wanted in (("nan", np.nan), ("clip", 1.0), (0.3, 0.3)):
            dark_flat = np.full((3, *SHAPE), 2000)
            dark_flat[:, :, :15] = 0
            with pytest.warns(DetectorcalWarning, match=r"the flat is not above the dark at .*they become"):
                correction = cal.correction(dark_flat, invalid=invalid)
            unlit = ~(correction.beam > 0)
            assert unlit.any()
            np.testing.assert_allclose(correction.transform(images)[:, unlit], wanted, rtol=1e-6)

    def test_counts_are_those_of_all_batches_and_threads(self, tmp_path):
        images = raw_of(np.random.default_rng(0).normal(0.0, 1, (50, *SHAPE)))
        n_low = np.count_nonzero(images <= 100)
        for how in ({"n_jobs": 2}, {"batch_size": 8}, {"n_jobs": 2, "batch_size": 8}):
            file = np.memmap(tmp_path / "out", np.float64, "w+", shape=images.shape)
            with pytest.warns(DetectorcalWarning, match=f"^{n_low} of 36000") as told:
                live(log=True, **how).transform(images, out=file)
            assert len(told) == 1
            assert told[0].filename == __file__

    @pytest.mark.parametrize(
        ("how", "match"),
        [
            ({"defects": "mend"}, "`defects` must be one of 'keep', 'nan', 'interpolate'"),
            ({"invalid": "zero"}, '`invalid` must be "nan", "clip" or a number above 0'),
            ({"invalid": 0}, "`invalid` must be a finite number above 0"),
            ({"invalid": None}, "`invalid`"),
            ({"log": "yes"}, "`log` must be True or False"),
        ],
    )
    def test_unfit_policies(self, scene, how, match):
        cal, flats, images = scene
        with pytest.raises(InputError, match=match):
            cal.transform(images, flats, **how)
        with pytest.raises(InputError, match=match):
            live(**how).transform(raw_of(PLANE))

    def test_what_a_correction_was_not_given(self):
        with pytest.raises(InputError, match="needs the map of the defects, `defect_map`"):
            live(defects="nan").transform(raw_of(PLANE))
        with pytest.raises(InputError, match=r"`log=True`.*needs a `flat`"):
            live(log=True).set_params(beam=None).transform(raw_of(PLANE))
        with pytest.raises(InputError, match="`response` must be what a calibrator's"):
            live(response="x").predict_std()


class TestFlats:
    def test_a_number_has_no_residuals_to_follow(self, scene):
        cal, _, images = scene
        with pytest.raises(InputError, match=r"`sigma` follows what a measured flat tells.*is a number"):
            cal.transform(images, 2000.0, 3.0)

    def test_followed_levels_are_those_of_the_divisor(self, scene):
        cal, flats, _ = scene
        correction = cal.correction(flats, 0.0)
        np.testing.assert_allclose(correction.beam, cal.coef_ / correction.scale)

    def test_saturated_flats_are_no_sign_of_change(self):
        detector = simulate.Detector.random((64, 64), prnu=0.02, seed=3)
        beam = simulate.beam_profile(detector.shape, width=2)
        sweep = detector.record(simulate.exposure_ladder(beam, 24, lowest=300, highest=3000), 1)
        darks = detector.darks(20, 2)
        flats = detector.flats(2500 * beam, 10, 3)
        flats[2, 30:33, 30:33] = 4095  # a glitch of one frame
        naive = DetectorCalibrator(10, method="curved").fit(sweep, dark=darks)
        with pytest.warns(DetectorcalWarning, match="have changed since the sweep"):
            assert (naive.correction(flats).defect_map[30:33, 30:33] == 128).all()
        told = DetectorCalibrator(10, method="curved", saturation=4000).fit(sweep, dark=darks)
        with pytest.warns(DetectorcalWarning, match="the flat is saturated, .* at 9 of 4096 pixels"):
            correction = told.correction(flats)
        assert not correction.defect_map[30:33, 30:33].any()
        with pytest.raises(InputError, match=r"the flat is saturated at every pixel: it reads 4000 DN"):
            told.correction(np.full((64, 64), 4095))


def test_flats_are_held_against_the_saturation_that_was_found():
    detector = simulate.Detector.random((64, 64), prnu=0.02, seed=3)
    beam = simulate.beam_profile(detector.shape, width=2)
    sweep = detector.record(simulate.exposure_ladder(beam, 24, lowest=300, highest=4000), 1)
    darks, flats = detector.darks(20, 2), detector.flats(2500 * beam, 10, 3)
    with pytest.warns(DetectorcalWarning, match="readings from 4095 DN on"):
        cal = DetectorCalibrator(10).fit(np.minimum(sweep, 4095), dark=darks)
    plain = cal.correction(flats).scale
    flats[2, 30:33, 30:33] = 4095  # a glitch of one frame
    for correct in (cal.correction, lambda flats: ScanCorrection(cal, flats).fit(flats[:1]).correction_):
        with pytest.warns(DetectorcalWarning, match="the flat is saturated, .* at 9 of 4096 pixels"):
            scale = correct(flats).scale
        np.testing.assert_allclose(scale, plain, rtol=2e-3)
