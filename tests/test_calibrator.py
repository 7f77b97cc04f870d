"""The estimator: what it learns, corrects, refuses, keeps; against known truth or the formula itself."""

import json
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from detectorcal import Correction, DetectorcalError, DetectorCalibrator, DetectorcalWarning, simulate
from detectorcal._errors import FileFormatError, InputError, OutputExistsError
from detectorcal._persistence import read_calibration, write_calibration
from detectorcal._record import SINCE_THE_FIRST
from detectorcal.io import create_frames, open_frames
from detectorcal.simulate import Detector, beam_profile, exposure_ladder, true_coefficient

DATA = Path(__file__).parent / "data"
SUFFIXES = [".h5", ".zarr", ".tif"]
METHODS = ["croton", "photon"]
SHAPE = (24, 30)
SIGMA = 5.0
N_FRAMES = 20


def wide_beam(shape):
    return beam_profile(shape, width=2.0)


@pytest.fixture(scope="module")
def detector():
    return Detector.random(SHAPE, prnu=0.03, seed=1)


@pytest.fixture(scope="module")
def sweep(detector):
    frames = detector.record(exposure_ladder(wide_beam(SHAPE), N_FRAMES), seed=2)
    frames.flags.writeable = False
    return frames


@pytest.fixture(scope="module")
def dark(detector):
    frame = detector.darks(8, seed=3).mean(axis=0)
    frame.flags.writeable = False
    return frame


@pytest.fixture(scope="module")
def flat(detector):
    frame = detector.flats(np.full(SHAPE, 2000.0), 8, seed=4).mean(axis=0)
    frame[5, 7] *= 0.8  # dust that the sweep did not see
    frame.flags.writeable = False
    return frame


@pytest.fixture(scope="module")
def cal(sweep, dark):
    return DetectorCalibrator(SIGMA).fit(sweep, dark)


def smooth(image, sigma=SIGMA):
    return gaussian_filter(image, sigma, mode="nearest")


def assert_same_fit(one, other, rtol=0.0):
    """Compare all that a fit leaves; to the bit by default."""
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=rtol)
    np.testing.assert_array_equal(one.defects_, other.defects_)
    # the noise is a small difference of large sums
    np.testing.assert_allclose(one.coef_std_, other.coef_std_, rtol=10 * rtol)
    for name, values in other.sums_.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(one.sums_[name], values, rtol=10 * rtol, atol=rtol * scale, err_msg=name)
    for name in ("n_frames_seen_", "detector_shape_", "n_features_in_"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_allclose(one.system_gain_, other.system_gain_, rtol=10 * rtol)
    np.testing.assert_equal(one.dark_, other.dark_)


class TestTruth:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("shape", [(24, 30), (60,)])
    def test_without_noise_the_coefficients_are_the_truth(self, shape, method):
        perfect = Detector.random(shape, prnu=0.03, system_gain=0, read_noise=0, bits=None, seed=3)
        beam = beam_profile(shape)
        frames = perfect.record(exposure_ladder(beam, 5), seed=0)
        cal = DetectorCalibrator(4, method=method).fit(frames, dark=perfect.dark)
        np.testing.assert_allclose(cal.coef_, true_coefficient(perfect, 4, beam=beam), rtol=1e-6)
        assert np.all(cal.coef_std_ < 1e-6)
        assert cal.coef_.dtype == np.float64
        assert cal.detector_shape_ == shape
        assert cal.n_features_in_ == perfect.gain.size
        assert cal.n_frames_seen_ == 5
        assert not cal.defects_.any()
        assert cal.defects_.dtype == np.uint8

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("seed", range(6))
    def test_without_noise_the_standard_error_is_nothing(self, seed, method):
        # the estimate of the noise is then a rounding error, of either sign
        perfect = Detector.random((9, 11), prnu=0.1, system_gain=0, read_noise=0, bits=None, seed=seed)
        frames = perfect.response(exposure_ladder(np.ones((9, 11)), 3)).astype(np.float32)
        cal = DetectorCalibrator(1.5, method=method).fit(frames)
        assert 0 <= cal.system_gain_ < 1e-6
        assert np.all(cal.coef_std_ < 1e-4)

    @pytest.mark.parametrize("method", METHODS)
    def test_standard_error_is_the_error(self, method):
        noisy = Detector.random((64, 64), prnu=0.02, system_gain=0.5, read_noise=0, bits=16, seed=5)
        beam = wide_beam(noisy.shape)
        frames = noisy.record(exposure_ladder(beam, 30, lowest=500), seed=6)
        cal = DetectorCalibrator(10, method=method).fit(frames, dark=noisy.dark)
        z = (cal.coef_ - true_coefficient(noisy, 10, beam=beam)) / cal.coef_std_
        assert 0.9 < 1.4826 * np.median(np.abs(z - np.median(z))) < 1.1
        assert cal.system_gain_ == pytest.approx(0.5, rel=0.1)

    @pytest.mark.parametrize(("method", "gained"), [("croton", 5), ("photon", 2.5)])
    @pytest.mark.filterwarnings("ignore:.*take no part", "ignore:.*not to be relied on")  # under a mean dark
    def test_a_ladder_whose_darks_drift_needs_a_dark_for_each_frame(self, method, gained):
        drifting = Detector.random((32, 40), prnu=0.02, system_gain=0.05, bits=16, seed=1)
        beam = wide_beam(drifting.shape)
        darks = simulate.drifting_darks(drifting, 12, drift=600, seed=2)
        frames = drifting.record(exposure_ladder(beam, 12, lowest=100), seed=3, dark=darks)
        truth = true_coefficient(drifting, 8, beam=beam)
        averaged = DetectorCalibrator(8, method=method).fit(frames, dark=darks)
        each = DetectorCalibrator(8, method=method).fit(frames, dark=darks, dark_per_frame=True)
        assert np.std(averaged.coef_ - truth) > gained * np.std(each.coef_ - truth)
        assert np.std((each.coef_ - truth) / each.coef_std_) < 1.1
        assert np.std(each.coef_ - truth) < 0.1 * np.std(truth)


class TestSecondArgument:
    def test_a_frame_is_the_dark(self, sweep, dark, cal):
        assert_same_fit(DetectorCalibrator(SIGMA).fit(sweep, dark=dark), cal)
        np.testing.assert_array_equal(cal.dark_, dark)
        assert_same_fit(DetectorCalibrator(SIGMA).fit(sweep, dark.tolist()), cal)
        assert_same_fit(DetectorCalibrator(SIGMA).partial_fit(sweep, dark), cal)

    @pytest.mark.parametrize(
        "labels",
        [np.arange(N_FRAMES), ["a"] * N_FRAMES, np.zeros((N_FRAMES, 2)), [[1], [2, 3]] * (N_FRAMES // 2)],
        ids=["numbers", "words", "two columns", "ragged"],
    )
    def test_labels_are_ignored(self, sweep, dark, cal, labels):
        assert_same_fit(DetectorCalibrator(SIGMA).fit(sweep, labels, dark=dark), cal)

    @pytest.mark.parametrize(
        "other",
        [
            np.zeros((24, 29)),  # a dark of another detector
            np.zeros((3, *SHAPE)),  # some darks
            np.zeros((N_FRAMES, *SHAPE)),  # as many darks as frames: no labels look like that
            100.0,
        ],
        ids=lambda other: str(np.shape(other)),
    )
    def test_anything_else_is_asked_about(self, sweep, other):
        with pytest.raises(InputError, match=r"second argument.*`dark=`"):
            DetectorCalibrator(SIGMA).fit(sweep, other)

    def test_two_darks(self, sweep, dark):
        with pytest.raises(InputError, match="two darks"):
            DetectorCalibrator(SIGMA).fit(sweep, dark, dark=dark)

    def test_of_a_line_detector(self):
        line = Detector.random((40,), seed=1)
        frames = line.record(exposure_ladder(np.ones(40), 12), seed=2)
        labelled = DetectorCalibrator(SIGMA).fit(frames, np.arange(12), dark=line.dark)
        np.testing.assert_array_equal(labelled.dark_, line.dark)
        with pytest.raises(InputError, match=r"\(40,\).*`dark=`"):
            DetectorCalibrator(SIGMA).fit(frames, line.dark)


class TestDark:
    def test_number_frame_and_stack_are_the_same_dark(self, sweep):
        frame = np.full(SHAPE, 100.0)
        wanted = DetectorCalibrator(SIGMA).fit(sweep, frame)
        stack = np.stack([frame - 1, frame + 1, frame]).astype(np.uint16)
        for dark in (100, 100.0, np.float32(100), np.array(100), stack, list(stack), frame[None]):
            assert_same_fit(DetectorCalibrator(SIGMA).fit(sweep, dark=dark), wanted)
        without = DetectorCalibrator(SIGMA).fit(sweep)
        np.testing.assert_array_equal(without.dark_, np.zeros(SHAPE))
        assert np.abs(without.coef_ - wanted.coef_).max() > 0.005

    def test_one_per_frame(self, sweep, dark, cal):
        shift = 10.0 * np.arange(N_FRAMES)[:, None, None]
        shifted = sweep + shift
        each = DetectorCalibrator(SIGMA).fit(shifted, dark=dark + shift, dark_per_frame=True)
        np.testing.assert_allclose(each.coef_, cal.coef_, rtol=1e-6)
        assert each.dark_ is None
        for refused in (
            lambda: each.transform(sweep),
            lambda: each.correction(),
            lambda: each.inverse_transform(sweep),
            lambda: each.score(sweep),
            lambda: each.partial_fit(sweep),
        ):
            with pytest.raises(InputError, match="`dark=`"):
                refused()
        np.testing.assert_allclose(
            each.transform(shifted[3], dark=dark + 30), (sweep[3] - dark) * each.coef_, rtol=1e-5
        )
        assert each.score(sweep, dark=dark) > 0.5

    def test_of_the_scan_replaces_that_of_the_sweep(self, cal, sweep, dark, flat):
        got = cal.transform(sweep + 50.0, flat + 50, dark=dark + 50)
        np.testing.assert_allclose(got, cal.transform(sweep.astype(float), flat), rtol=1e-9)
        assert cal.score(sweep + 50.0, dark=dark + 50) == pytest.approx(cal.score(sweep))


class TestMoreFrames:
    @pytest.mark.parametrize("size", [1, 3, 8, N_FRAMES, 50])
    @pytest.mark.parametrize("method", METHODS)
    def test_in_parts_as_at_once(self, sweep, dark, size, method):
        whole = DetectorCalibrator(SIGMA, method=method).fit(sweep, dark)
        parts = DetectorCalibrator(SIGMA, method=method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DetectorcalWarning)  # a first part of one frame
            for start in range(0, N_FRAMES, size):
                parts.partial_fit(sweep[start : start + size], dark=dark if start == 0 else None)
        assert_same_fit(parts, whole, rtol=1e-7)

    def test_fit_begins_anew(self, sweep, dark, cal):
        again = DetectorCalibrator(SIGMA).fit(sweep[:7] // 2, dark).fit(sweep, dark)
        assert_same_fit(again, cal)
        other = again.fit(sweep[:, :, :20])
        assert other.detector_shape_ == other.coef_.shape == (24, 20)
        assert not other.dark_.any()

    @pytest.mark.parametrize("method", METHODS)
    def test_merge(self, sweep, dark, method):
        whole = DetectorCalibrator(SIGMA, method=method).fit(sweep, dark)
        parts = [
            DetectorCalibrator(SIGMA, method=method).fit(sweep[part], dark)
            for part in (slice(0, 5), slice(5, 12), slice(12, None))
        ]
        before = parts[0].coef_.copy()
        assert_same_fit(DetectorCalibrator.merge(*parts), whole, rtol=1e-7)
        assert_same_fit(DetectorCalibrator.merge(*parts[::-1]), whole, rtol=1e-7)
        assert_same_fit(DetectorCalibrator.merge(whole), whole)
        np.testing.assert_array_equal(parts[0].coef_, before)
        assert parts[0].n_frames_seen_ == 5

    def test_dark_of_a_merger(self, sweep, dark):
        one = DetectorCalibrator(SIGMA).fit(sweep[:5], dark)
        other = DetectorCalibrator(SIGMA).fit(sweep[5:20], dark + 4)
        np.testing.assert_allclose(DetectorCalibrator.merge(one, other).dark_, dark + 3)
        darks = np.broadcast_to(dark, sweep.shape)
        each = DetectorCalibrator(SIGMA).fit(sweep, dark=darks, dark_per_frame=True)
        assert DetectorCalibrator.merge(one, each).dark_ is None

    @pytest.mark.parametrize(
        ("params", "name"),
        [({"sigma": 6.0}, "sigma"), ({"method": "photon"}, "method"), ({"reject": 6.0}, "reject")],
    )
    def test_what_was_fitted_otherwise_is_not_merged(self, sweep, dark, cal, params, name):
        other = DetectorCalibrator(SIGMA).set_params(**params).fit(sweep, dark)
        with pytest.raises(InputError, match=f"agree in `{name}`"):
            DetectorCalibrator.merge(cal, other)

    def test_nor_what_is_another_detector_or_none(self, sweep, cal):
        narrow = DetectorCalibrator(SIGMA).fit(sweep[:, :, 1:])
        with pytest.raises(InputError, match=r"`detector_shape_`.*\(24, 30\).*\(24, 29\)"):
            DetectorCalibrator.merge(cal, narrow)
        with pytest.raises(InputError, match=r"\(24, 29\).*\(24, 30\)"):
            DetectorCalibrator(SIGMA).fit(sweep).partial_fit(sweep[:, :, 1:])
        with pytest.raises(InputError, match="at least one"):
            DetectorCalibrator.merge()
        with pytest.raises(InputError, match="list"):
            DetectorCalibrator.merge([cal, cal])
        with pytest.raises(ValueError, match="not fitted"):
            DetectorCalibrator.merge(cal, DetectorCalibrator(SIGMA))

    @pytest.mark.parametrize("params", [{"sigma": 6.0}, {"method": "photon"}, {"cutoff": 7.0}])
    def test_parameters_changed_on_the_way(self, sweep, params, tmp_path):
        # sums of two kinds would be added, or saved under a method they were not made for
        cal = DetectorCalibrator(SIGMA).fit(sweep).set_params(**params)
        name = next(iter(params))
        for refused in (
            lambda: cal.partial_fit(sweep),
            lambda: DetectorCalibrator.merge(cal, cal),
            lambda: cal.save(tmp_path / "cal.h5"),
        ):
            with pytest.raises(InputError, match=f"`{name}` was .* when this calibrator was fitted"):
                refused()
        assert cal.fit(sweep).n_frames_seen_ == N_FRAMES

    def test_a_failure_costs_nothing_learnt(self, sweep, dark):
        class Broken:
            shape, dtype = sweep.shape, sweep.dtype

            def __getitem__(self, index):
                if index.start > 0:
                    raise OSError("disk on fire")
                return sweep[index]

        cal = DetectorCalibrator(SIGMA, batch_size=8).fit(sweep[:9], dark)
        kept = DetectorCalibrator(SIGMA).fit(sweep[:9], dark)
        with pytest.raises(OSError, match="disk on fire"):
            cal.partial_fit(Broken())
        assert_same_fit(cal, kept)


class TestTransform:
    def test_dark_and_coefficients(self, cal, sweep, dark):
        np.testing.assert_allclose(
            cal.transform(sweep.astype(float)), (sweep - dark) * cal.coef_, rtol=1e-12, atol=1e-9
        )

    def test_flat(self, cal, sweep, dark, flat):
        images = sweep.astype(float)
        wanted = (images - dark) * cal.coef_ / smooth(flat - dark)
        np.testing.assert_allclose(cal.transform(images, flat), wanted, rtol=1e-6, atol=1e-9)
        without = (images - dark) * cal.coef_ / smooth(flat)
        np.testing.assert_allclose(
            cal.transform(images, flat, flat_has_dark=False), without, rtol=1e-6, atol=1e-9
        )
        stack = np.stack([flat - 3, flat + 3])
        np.testing.assert_allclose(cal.transform(images, stack), cal.transform(images, flat), rtol=1e-12)
        number = cal.transform(images, 2000.0, dark=100.0)
        np.testing.assert_allclose(number, (images - 100) * cal.coef_ / 1900, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("threshold", [0, 1, 3.0])
    def test_residuals_of_the_flat(self, cal, sweep, dark, flat, threshold):
        expected = smooth(flat - dark)
        residual = expected - cal.coef_ * (flat - dark)
        residual[np.abs(residual) < threshold * np.std(residual)] = 0
        wanted = (sweep - dark) * cal.coef_ / (expected - residual)
        got = cal.transform(sweep.astype(float), flat, threshold)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)
        assert np.abs(got[:, 5, 7] / cal.transform(sweep.astype(float), flat)[:, 5, 7] - 1).min() > 0.1

    def test_images_of_any_leading_axes(self, cal, sweep, flat):
        wanted = cal.transform(sweep, flat)
        for shape in ((2, 10), (1, 20), (2, 5, 2)):
            got = cal.transform(sweep.reshape(*shape, *SHAPE), flat)
            np.testing.assert_array_equal(got, wanted.reshape(*shape, *SHAPE))
        one = cal.transform(sweep[4], flat)
        assert one.shape == SHAPE
        np.testing.assert_array_equal(one, wanted[4])
        np.testing.assert_array_equal(cal.transform(list(sweep), flat), wanted)

    def test_line_detector(self):
        line = Detector.random((40,), seed=1)
        frames = line.record(exposure_ladder(np.ones(40), 12), seed=2)
        cal = DetectorCalibrator(SIGMA).fit(frames, dark=line.dark)
        got = cal.transform(frames)
        np.testing.assert_allclose(got, (frames - line.dark) * cal.coef_, rtol=1e-5, atol=1e-3)
        np.testing.assert_array_equal(cal.transform(frames[3:4]), got[3:4])
        np.testing.assert_array_equal(cal.transform(frames.reshape(3, 4, 40)), got.reshape(3, 4, 40))
        with pytest.raises(InputError, match=r"single image of a line detector is \(1, width\)"):
            cal.transform(frames[3])

    @pytest.mark.parametrize(
        ("dtype", "wanted"),
        [
            *(
                (t, "float32")
                for t in ("uint8", "int8", "uint16", "int16", "float16", "float32", ">f4", ">u2")
            ),
            *((t, "float64") for t in ("uint32", "int32", "int64", "float64", ">f8")),
        ],
    )
    def test_precision_of_the_output(self, cal, sweep, dtype, wanted):
        got = cal.transform((sweep[:2] % 100).astype(dtype))
        assert got.dtype == wanted
        assert got.dtype.isnative
        np.testing.assert_allclose(got, (sweep[:2] % 100 - cal.dark_) * cal.coef_, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("sigma", [None, 3.0])
    @pytest.mark.parametrize("flat_has_dark", [True, False])
    def test_inverse_gives_what_was_recorded(self, cal, sweep, dark, flat, sigma, flat_has_dark):
        raw = sweep.astype(float)
        how = {"flat": flat, "sigma": sigma, "dark": dark + 3, "flat_has_dark": flat_has_dark}
        np.testing.assert_allclose(cal.inverse_transform(cal.transform(raw, **how), **how), raw, rtol=1e-9)
        np.testing.assert_allclose(cal.inverse_transform(cal.transform(raw)), raw, rtol=1e-9)
        assert cal.inverse_transform(cal.transform(sweep[0])).dtype == np.float32
        ones = np.ones((2, 3, *SHAPE))
        np.testing.assert_allclose(cal.inverse_transform(ones), 1 / cal.coef_ + dark + 0 * ones, rtol=1e-12)

    def test_a_flat_that_is_dark_means_nothing(self, cal, sweep, dark):
        flat = dark + 2000.0
        flat[:, :12] = dark[:, :12] - 2000
        expected_dark = smooth(flat - dark) <= 0
        message = f"not above the dark at {expected_dark.sum()} of 720 pixels"
        with pytest.warns(DetectorcalWarning, match=message) as record:
            got = cal.transform(sweep, flat)
        assert len(record) == 1
        assert record[0].filename == __file__
        np.testing.assert_array_equal(np.isnan(got), np.broadcast_to(expected_dark, got.shape))
        assert np.isfinite(got[..., ~expected_dark]).all()

    @pytest.mark.filterwarnings("ignore:1 of 20 frames take no part")
    def test_inputs_are_never_changed(self, cal, sweep, dark, flat):
        # they are read-only too, so that an attempt would raise
        kept = [array.copy() for array in (sweep, dark, flat)]
        cal.transform(sweep, flat, 3.0, dark=dark)
        cal.inverse_transform(sweep, flat, dark=dark)
        DetectorCalibrator(SIGMA, reject=6.0, saturation=3000).fit(sweep, dark)
        for array, copy in zip((sweep, dark, flat), kept, strict=True):
            np.testing.assert_array_equal(array, copy)


class TestOut:
    @pytest.mark.parametrize("shape", [(20,), (4, 5)])
    def test_an_array(self, cal, sweep, flat, shape):
        images = sweep.reshape(*shape, *SHAPE)
        out = np.full(images.shape, -1, np.float32)
        assert cal.transform(images, flat, out=out) is out
        np.testing.assert_array_equal(out, cal.transform(images, flat))
        single = np.empty(SHAPE, np.float32)
        cal.transform(sweep[3], flat, out=single)
        np.testing.assert_array_equal(single, cal.transform(sweep[3], flat))

    @pytest.mark.parametrize("reject", [None, 6.0])
    def test_in_place(self, cal, sweep, dark, flat, reject):
        cal = DetectorCalibrator(SIGMA).fit(sweep, dark).set_params(reject=reject)
        images = sweep.astype(np.float32)
        wanted = cal.transform(images, flat)
        cal.transform(images, flat, out=images)
        np.testing.assert_array_equal(images, wanted)

    def test_a_view(self, cal, sweep):
        wide = np.zeros((20, 24, 60), np.float32)
        cal.transform(sweep, out=wide[:, :, ::2])
        np.testing.assert_array_equal(wide[:, :, ::2], cal.transform(sweep))
        assert not wide[:, :, 1::2].any()
        with pytest.raises(InputError, match="C-contiguous"):
            cal.transform(sweep.reshape(4, 5, *SHAPE), out=wide.reshape(4, 5, 24, 60)[..., ::2])

    def test_a_writer_takes_batches(self, cal, sweep, monkeypatch):
        """Frames in memory as well: what is written must not first be made as a whole."""
        monkeypatch.setattr("detectorcal._streaming.BATCH_BYTES", 2 * sweep[0].nbytes)
        written = np.zeros(sweep.shape, np.float32)

        class Writer:
            shape, dtype, runs = sweep.shape, np.dtype(np.float32), []

            def __setitem__(self, run, frames):
                self.runs.append(run)
                written[run] = frames

        cal.transform(sweep, out=Writer())
        assert [run.start for run in Writer.runs] == [0, 8, 16]
        np.testing.assert_array_equal(written, cal.transform(sweep))

    @pytest.mark.parametrize("name", ["out.h5", "out.tif", "out.zarr"])
    def test_a_file(self, cal, sweep, tmp_path, name):
        with create_frames(tmp_path / name, sweep.shape, "float32") as writer:
            cal.transform(sweep, out=writer)
        with open_frames(tmp_path / name) as written:
            np.testing.assert_array_equal(written[:], cal.transform(sweep))

    def test_of_the_wrong_kind(self, cal, sweep):
        with pytest.raises(InputError, match=r"`out`.*\(20, 24, 30\).*\(19, 24, 30\)"):
            cal.transform(sweep, out=np.empty((19, *SHAPE), np.float32))
        with pytest.raises(InputError, match=r"`out` must have dtype float32.*float64"):
            cal.transform(sweep, out=np.empty(sweep.shape))
        with pytest.raises(InputError, match=r"`out`.*\(20, 24, 30\).*is a str"):
            cal.transform(sweep, out="out.h5")


def poisoned(*args, **kwargs):
    raise AssertionError("computed")


class TestDask:
    @pytest.fixture
    def da(self):
        return pytest.importorskip("dask.array")

    @pytest.mark.parametrize("chunks", [(1, 24, 30), (7, 10, 11), (20, 24, 30)])
    def test_lazy_in_lazy_out(self, da, cal, sweep, flat, chunks):
        import dask

        lazy = da.from_array(sweep, chunks=chunks)
        with dask.config.set(scheduler=poisoned):
            got = cal.transform(lazy, flat, 3.0)
            back = cal.inverse_transform(lazy.astype("f4"))
            area = cal.transform(lazy[0])
            lead = cal.transform(lazy.reshape(4, 5, *SHAPE))
        for one, shape in ((got, sweep.shape), (back, sweep.shape), (area, SHAPE), (lead, (4, 5, *SHAPE))):
            assert isinstance(one, da.Array)
            assert one.shape == shape
            assert one.dtype == np.float32
        with dask.config.set(scheduler="synchronous"):
            np.testing.assert_array_equal(got.compute(), cal.transform(sweep, flat, 3.0))
            np.testing.assert_array_equal(back.compute(), cal.inverse_transform(sweep.astype("f4")))
            np.testing.assert_array_equal(area.compute(), cal.transform(sweep[0]))
            np.testing.assert_array_equal(lead.compute().reshape(sweep.shape), cal.transform(sweep))

    def test_reject_sees_whole_frames(self, da, sweep, dark):
        cal = DetectorCalibrator(SIGMA, reject=6.0).fit(sweep, dark)
        spotted = sweep.copy()
        spotted[:, 11, 12] = 4000
        got = cal.transform(da.from_array(spotted, chunks=(3, 12, 13)))
        np.testing.assert_array_equal(got.compute(scheduler="synchronous"), cal.transform(spotted))

    def test_out_makes_it_compute(self, da, cal, sweep):
        out = np.zeros(sweep.shape, np.float32)
        assert cal.transform(da.from_array(sweep, chunks=(8, 24, 30)), out=out) is out
        np.testing.assert_array_equal(out, cal.transform(sweep))

    def test_fit_and_score_read_it(self, da, cal, sweep, dark):
        lazy = da.from_array(sweep, chunks=(8, 24, 30))
        assert_same_fit(DetectorCalibrator(SIGMA).fit(lazy, da.from_array(dark)), cal)
        assert cal.score(lazy) == cal.score(sweep)

    def test_meaningless_values_are_counted_in_the_maps_alone(self, da, cal, sweep, flat):
        import dask

        flat = flat.copy()
        flat[2:5, 7:14] = 0.0
        lazy = da.from_array(sweep, chunks=(8, 24, 30))
        cal = deepcopy(cal).set_params(sigma=0.2)  # so narrow that the flat is hardly smoothed
        with dask.config.set(scheduler=poisoned), pytest.warns(DetectorcalWarning, match="21 of 720") as said:
            got = cal.transform(lazy, flat)
        assert len(said) == 1
        with pytest.warns(DetectorcalWarning):
            np.testing.assert_array_equal(got.compute(), cal.transform(sweep, flat))

    def test_unknown_sizes(self, da, cal, sweep):
        lazy = da.from_array(sweep, chunks=(8, 24, 30))
        unknown = lazy[lazy[:, 0, 0] > 0]
        with pytest.raises(InputError, match=r"unknown sizes.*compute_chunk_sizes"):
            cal.transform(unknown)


class Watched:
    """A stack on disk that remembers what was read."""

    def __init__(self, stack):
        self.stack, self.shape, self.dtype, self.reads = stack, stack.shape, stack.dtype, []

    def __getitem__(self, index):
        part = np.asarray(self.stack[index])
        self.reads.append((index.start, index.stop))
        return part


@pytest.fixture(params=["h5py", "zarr", "memmap", "open_frames", "tifffile"])
def on_disk(request, sweep, tmp_path):
    if request.param == "h5py":
        import h5py

        with h5py.File(tmp_path / "sweep.h5", "w") as file:
            yield file.create_dataset("sweep", data=sweep)
    elif request.param == "zarr":
        import zarr

        array = zarr.create_array(
            str(tmp_path / "sweep.zarr"), shape=sweep.shape, dtype=sweep.dtype, chunks=(4, 24, 30)
        )
        array[:] = sweep
        yield array
    elif request.param == "memmap":
        np.save(tmp_path / "sweep.npy", sweep)
        yield np.load(tmp_path / "sweep.npy", mmap_mode="r")
    else:
        name = tmp_path / ("sweep.tif" if request.param == "tifffile" else "sweep.h5")
        with create_frames(name, sweep.shape, sweep.dtype) as writer:
            writer[:] = sweep
        with open_frames(name) as frames:
            yield frames


class TestStacksOnDisk:
    BATCHES = ((0, 8), (8, 16), (16, 20))

    def test_fit_reads_each_frame_once_in_batches(self, on_disk, sweep, dark, cal):
        watched = Watched(on_disk)
        got = DetectorCalibrator(SIGMA, batch_size=5).fit(watched, dark)
        assert_same_fit(got, cal)
        looked, read = watched.reads[:16], watched.reads[16:]
        assert looked == sorted(
            set(looked)
        )  # before anything is summed, 16 frames over the sweep are looked at
        assert looked[0] == (0, 1)
        assert looked[-1] == (N_FRAMES - 1, N_FRAMES)
        assert read == [*self.BATCHES]

    def test_darks_per_frame_are_read_alongside(self, on_disk, sweep):
        frames, darks = Watched(on_disk), Watched(np.full(sweep.shape, 100, np.uint16))
        got = DetectorCalibrator(SIGMA, batch_size=8).fit(frames, dark=darks, dark_per_frame=True)
        np.testing.assert_array_equal(got.coef_, DetectorCalibrator(SIGMA).fit(sweep, dark=100).coef_)
        assert frames.reads[16:] == darks.reads[16:] == [*self.BATCHES]
        assert frames.reads[:16] == darks.reads[:16]

    def test_transform_reads_each_frame_once_in_batches(self, on_disk, sweep, dark, flat):
        cal = DetectorCalibrator(SIGMA, batch_size=8).fit(sweep, dark)
        watched = Watched(on_disk)
        np.testing.assert_array_equal(cal.transform(watched, flat), cal.transform(sweep, flat))
        assert watched.reads == [*self.BATCHES]

    def test_darks_and_flats_are_averaged_from_there(self, on_disk, sweep, cal, tmp_path):
        mean = sweep.mean(axis=0)
        bright = sweep[-1:].astype(float)
        flat = cal.transform(bright, on_disk, dark=0.0)
        np.testing.assert_allclose(flat, cal.transform(bright, mean, dark=0.0), rtol=1e-12)
        assert cal.score(on_disk) == cal.score(sweep)
        dark = DetectorCalibrator(SIGMA).fit(sweep + np.uint16(3000), dark=on_disk).dark_
        np.testing.assert_allclose(dark, mean, rtol=1e-12)

    def test_a_dark_that_is_one_frame_on_disk(self, sweep, dark, cal, tmp_path):
        import h5py
        import zarr

        stored = zarr.create_array(str(tmp_path / "dark.zarr"), shape=SHAPE, dtype="f8", chunks=SHAPE)
        stored[:] = dark
        assert_same_fit(DetectorCalibrator(SIGMA).fit(sweep, dark=stored), cal)
        with h5py.File(tmp_path / "dark.h5", "w") as file:
            assert_same_fit(
                DetectorCalibrator(SIGMA).fit(sweep, dark=file.create_dataset("d", data=dark)), cal
            )


@pytest.mark.parametrize("params", [{"n_jobs": 2}, {"batch_size": 1}, {"n_jobs": -1, "batch_size": 9}])
def test_how_the_work_is_done_changes_nothing(sweep, dark, flat, cal, params):
    other = DetectorCalibrator(SIGMA, **params).fit(sweep, dark)
    assert_same_fit(other, cal)
    np.testing.assert_array_equal(other.transform(sweep, flat), cal.transform(sweep, flat))


class TestCorrection:
    def test_it_is_what_transform_does(self, cal, sweep, dark, flat):
        for how in (
            {},
            {"flat": flat},
            {"flat": flat, "sigma": 3.0, "dark": dark + 1, "flat_has_dark": False},
        ):
            correction = cal.correction(**how)
            assert isinstance(correction, Correction)
            assert correction.detector_shape_ == SHAPE
            np.testing.assert_array_equal(correction.transform(sweep), cal.transform(sweep, **how))
            live = [correction.transform(frame) for frame in sweep]
            np.testing.assert_array_equal(live, cal.transform(sweep, **how))
            corrected = cal.transform(sweep, **how)
            np.testing.assert_array_equal(
                correction.inverse_transform(corrected), cal.inverse_transform(corrected, **how)
            )

    def test_it_outlives_its_calibrator(self, sweep, dark, flat):
        cal = DetectorCalibrator(SIGMA).fit(sweep, dark)
        correction = cal.correction(flat)
        kept = correction.transform(sweep)
        cal.fit(sweep[::2, ::-1], dark + 50)
        np.testing.assert_array_equal(correction.transform(sweep), kept)

    @pytest.mark.parametrize(
        ("scale", "dark", "match"),
        [
            (np.ones((3, 4)), np.ones((3, 5)), r"\(3, 4\).*\(3, 5\)"),
            (np.ones((2, 3, 4)), np.ones((2, 3, 4)), r"\(2, 3, 4\)"),
            (1.0, 2.0, r"\(\)"),
            (np.array([["a"]]), np.ones((1, 1)), "`scale` must hold real numbers"),
        ],
    )
    def test_maps_that_are_none(self, scale, dark, match):
        with pytest.raises(InputError, match=match):
            Correction(scale, dark).transform(np.ones((3, 4)))

    def test_wrong_images(self, cal):
        with pytest.raises(InputError, match=r"\(24, 29\).*\(24, 30\)"):
            cal.correction().transform(np.ones((24, 29)))
        with pytest.raises(InputError, match="`reject`"):
            cal.correction().set_params(reject=-1).transform(np.ones(SHAPE))


@pytest.fixture(scope="module")
def broken():
    return Detector.random((32, 40), prnu=0.02, dead=0.01, hot=0.01, seed=1)


@pytest.fixture(scope="module")
def broken_frames(broken):
    return broken.record(exposure_ladder(wide_beam(broken.shape), 16, lowest=400), seed=3)


class TestBadPixels:
    @pytest.mark.parametrize("method", METHODS)
    def test_dead(self, broken, broken_frames, method):
        dark = broken.darks(20, seed=5).mean(axis=0)
        dead = broken.defects == simulate.detector.DEAD
        with pytest.warns(DetectorcalWarning, match="13 of 1280 .*13 dead") as record:
            cal = DetectorCalibrator(8, method=method).fit(broken_frames, dark)
        assert record[0].filename == __file__
        np.testing.assert_array_equal(cal.defects_ & 1, dead)
        # those with a high and noisy dark reach the top before the others, or are noisy
        np.testing.assert_array_equal(cal.defects_ & ~np.uint8(1 + 4 + 16), 0)
        assert not cal.defects_[broken.defects == 0].any()
        np.testing.assert_array_equal(cal.coef_[dead], 1)
        assert np.isnan(cal.coef_std_[dead]).all()
        assert np.isfinite(cal.coef_std_[~dead]).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_nothing_at_all_and_far_too_much(self, sweep, method):
        frames = sweep.astype(float)
        frames[:, 3, 4] = 0  # exactly nothing
        frames[:, 10, 11] *= 30
        with pytest.warns(DetectorcalWarning, match="2 of 720 .*1 dead, 1 hot"):
            cal = DetectorCalibrator(SIGMA, method=method).fit(frames)
        assert cal.defects_[3, 4] == 1
        assert cal.defects_[10, 11] == 2
        assert cal.coef_[3, 4] == cal.coef_[10, 11] == 1

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_stays_where_it_is(self, sweep, dark, cal, method, value):
        clean = DetectorCalibrator(SIGMA, method=method).fit(sweep, dark)
        frames = sweep.astype(float)
        frames[:, 12, 15] = value
        frames[4, 3, 4] = value
        with pytest.warns(DetectorcalWarning, match="1 unsolved"):
            got = DetectorCalibrator(SIGMA, method=method).fit(frames, dark)
        assert got.defects_[12, 15] == 32
        assert got.coef_[12, 15] == 1
        assert np.count_nonzero(got.defects_) == 1
        assert got.sums_["frames"][3, 4] == N_FRAMES - 1
        others = got.defects_ == 0
        assert np.abs(got.coef_ - clean.coef_)[others].max() < 0.002
        images = got.transform(frames[4:5])
        assert np.isfinite(images).sum() == 720 - 2

    def test_masked_pixels_are_no_numbers(self, sweep, dark):
        mask = np.zeros(sweep.shape, bool)
        mask[3:, 12, 15] = True
        got = DetectorCalibrator(SIGMA).fit(np.ma.array(sweep, mask=mask), dark)
        assert got.sums_["frames"][12, 15] == 3
        assert got.sums_["frames"].sum() == sweep.size - mask.sum()
        assert np.isnan(got.transform(np.ma.array(sweep, mask=mask))).sum() == mask.sum()

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.filterwarnings("ignore:2 of 10 frames take no part")
    def test_saturated_pixels_take_no_part(self, method):
        bright = Detector.random(SHAPE, prnu=0.03, system_gain=0, read_noise=0, bits=None, seed=3)
        frames = bright.record(exposure_ladder(np.ones(SHAPE), 10, lowest=500, highest=4000), seed=0)
        level = 3500.0
        clipped = np.minimum(frames, level)
        spoilt = DetectorCalibrator(SIGMA, method=method).fit(clipped, dark=bright.dark)
        saved = DetectorCalibrator(SIGMA, method=method, saturation=level).fit(clipped, dark=bright.dark)
        truth = true_coefficient(bright, SIGMA)
        # what they are filled with is their neighbours' level, not their own
        assert np.std(saved.coef_ - truth) < 0.4 * np.std(spoilt.coef_ - truth)
        # frames that are saturated over more than half of the detector take no part
        used = np.mean(clipped >= level, axis=(1, 2)) <= 0.5
        counted = np.count_nonzero(clipped[used] < level, axis=0)
        assert 0 < np.count_nonzero(~used) < counted.min()
        np.testing.assert_array_equal(saved.sums_["frames"], counted)

    def test_saturation_beyond_the_dtype(self, sweep, dark):
        wanted = DetectorCalibrator(SIGMA).fit(sweep.astype(np.float16), dark)
        got = DetectorCalibrator(SIGMA, saturation=70000).fit(sweep.astype(np.float16), dark)
        assert_same_fit(got, wanted)
        small = (sweep // 20).astype(np.uint8)
        got = DetectorCalibrator(SIGMA, saturation=300).fit(small, dark / 20)
        assert_same_fit(got, DetectorCalibrator(SIGMA).fit(small, dark / 20))

    @pytest.mark.parametrize("method", METHODS)
    def test_cutoff(self, method):
        # below 1000 DN these pixels are not linear
        bent = Detector.random(SHAPE, prnu=0.03, system_gain=0, read_noise=0, bits=None, dsnu=0, seed=3)
        levels = exposure_ladder(np.ones(SHAPE), 10, lowest=300, highest=3000)
        frames = bent.record(levels, seed=0) + 300 * (levels < 1000) * (bent.gain > 1.01)
        cal = DetectorCalibrator(SIGMA, method=method, cutoff=1000 + 150).fit(frames, dark=bent.dark)
        np.testing.assert_allclose(cal.coef_, true_coefficient(bent, SIGMA), rtol=1e-6)
        assert set(np.unique(cal.sums_["frames"])) == {7}

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.filterwarnings("ignore:.*noisy")  # without `reject`
    def test_spots_are_rejected(self, sweep, dark, method):
        rng = np.random.default_rng(8)
        hit = rng.random(sweep.shape) < 0.005
        spotted = np.where(hit, sweep + 3000.0, sweep)
        clean = DetectorCalibrator(SIGMA, method=method).fit(sweep, dark)
        spoilt = DetectorCalibrator(SIGMA, method=method).fit(spotted, dark)
        saved = DetectorCalibrator(SIGMA, method=method, reject=6.0).fit(spotted, dark)
        assert np.std(saved.coef_ - clean.coef_) < 0.1 * np.std(spoilt.coef_ - clean.coef_)
        image = saved.transform(spotted[-1])
        assert np.abs(image[hit[-1]] / smooth(image)[hit[-1]] - 1).max() < 0.2
        np.testing.assert_allclose(image[~hit[-1]], ((sweep[-1] - dark) * saved.coef_)[~hit[-1]], rtol=1e-4)

    def test_a_dead_pixel_does_not_darken_the_flat_around_it(self, sweep, dark):
        frames, flat = sweep.copy(), dark + 2000
        frames[:, 12, 15] = dark[12, 15].round()
        flat[12, 15] = dark[12, 15]
        with pytest.warns(DetectorcalWarning, match="1 dead"):
            cal = DetectorCalibrator(SIGMA).fit(frames, dark)
        np.testing.assert_allclose(cal.correction(flat).scale, cal.coef_ / 2000, rtol=1e-6)

    def test_one_frame(self, sweep, dark, tmp_path):
        with pytest.warns(DetectorcalWarning, match="one frame") as record:
            cal = DetectorCalibrator(SIGMA).fit(sweep[-1:], dark)
        assert record[0].filename == __file__
        np.testing.assert_allclose(cal.coef_, smooth(sweep[-1] - dark) / (sweep[-1] - dark), rtol=1e-5)
        assert np.isnan(cal.coef_std_).all()
        assert np.isnan(cal.system_gain_)
        assert not cal.defects_.any()
        cal.save(tmp_path / "one.h5")
        again = DetectorCalibrator.load(tmp_path / "one.h5")
        assert np.isnan(again.system_gain_)
        assert np.isfinite(again.partial_fit(sweep[:-1]).coef_std_).all()


class TestFiles:
    @pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdf5", ".tiff"])
    @pytest.mark.parametrize("method", METHODS)
    def test_all_comes_back_to_the_bit(self, sweep, dark, flat, tmp_path, suffix, method):
        cal = DetectorCalibrator(np.float32(SIGMA), method=method, cutoff=3, reject=7, n_jobs=1, batch_size=9)
        cal.fit(sweep[:11], dark)
        cal.save(tmp_path / f"cal{suffix}")
        back = DetectorCalibrator.load(tmp_path / f"cal{suffix}")
        assert_same_fit(back, cal)
        assert back.get_params() == cal.get_params()
        assert back.provenance_ == cal.provenance_
        assert back.provenance_["n_frames"] == 11
        assert back.provenance_["method"] == method
        np.testing.assert_array_equal(back.transform(sweep, flat, 3.0), cal.transform(sweep, flat, 3.0))
        assert_same_fit(back.partial_fit(sweep[11:]), cal.partial_fit(sweep[11:]))
        back.save(tmp_path / f"cal{suffix}", overwrite=True)
        assert_same_fit(DetectorCalibrator.load(tmp_path / f"cal{suffix}"), cal)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_of_lines_of_rows_and_of_darks_per_frame(self, sweep, dark, tmp_path, suffix):
        line = DetectorCalibrator(SIGMA).fit(sweep[:, 0], dark=dark[0])
        rows = DetectorCalibrator(SIGMA, detector_shape=list(SHAPE)).fit(sweep.reshape(20, -1))
        darks = np.broadcast_to(dark, sweep.shape)
        each = DetectorCalibrator(SIGMA).fit(sweep, dark=darks, dark_per_frame=True)
        for cal in (line, rows, each):
            cal.save(tmp_path / f"cal{suffix}", overwrite=True)
            assert_same_fit(DetectorCalibrator.load(tmp_path / f"cal{suffix}"), cal)
        assert DetectorCalibrator.load(tmp_path / f"cal{suffix}").dark_ is None

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_an_earlier_file_is_not_lost(self, cal, sweep, tmp_path, suffix):
        path = tmp_path / f"cal{suffix}"
        cal.save(path)
        other = DetectorCalibrator(2).fit(sweep)
        with pytest.raises(OutputExistsError, match="overwrite=True"):
            other.save(path)
        assert_same_fit(DetectorCalibrator.load(path), cal)
        other.save(path, overwrite=True)
        assert DetectorCalibrator.load(path).sigma == 2

    def test_other_programs_find_their_way(self, cal, tmp_path):
        import h5py
        import tifffile

        cal.save(tmp_path / "cal.h5")
        with h5py.File(tmp_path / "cal.h5") as file:
            np.testing.assert_array_equal(file["coef"], cal.coef_)
            assert "dimensionless" in file["coef"].attrs["description"]
            assert "DN" in file["dark"].attrs["description"]
        cal.save(tmp_path / "cal.tif")
        with tifffile.TiffFile(tmp_path / "cal.tif") as file:
            np.testing.assert_array_equal(file.pages[0].asarray(), cal.coef_.astype(np.float32))
            assert json.loads(file.pages[0].description)["params"]["sigma"] == SIGMA

    def test_names_that_are_none(self, cal):
        for bad in (3, None, b"cal.h5"):
            with pytest.raises(InputError, match="`path` must be text or a path"):
                cal.save(bad)
            with pytest.raises(InputError, match="`path` must be text or a path"):
                DetectorCalibrator.load(bad)


PROTOCOL_1_PARAMS = {
    "sigma": 1.5, "method": "croton", "mode": "nearest", "cval": 0.0, "truncate": 4.0, "cutoff": 10.0,
    "saturation": 60000.0, "reject": None, "detector_shape": (20, 6), "batch_size": None, "n_jobs": 1,
}  # fmt: skip


class TestProtocol1:
    """The files that every later version must load; never made again."""

    # 20 rows: some sums are kept in every 16th
    GAIN = 1 + 0.1 * np.sin(np.arange(120.0)).reshape(20, 6)
    LEVELS = np.array([500.0, 1000.0, 2000.0])
    DARK = 100 + np.arange(120.0).reshape(20, 6)

    @classmethod
    def frames(cls):
        return cls.LEVELS[:, None, None] * cls.GAIN + cls.DARK

    @classmethod
    def fit(cls):
        return DetectorCalibrator(**PROTOCOL_1_PARAMS).fit(cls.frames(), dark=cls.DARK)

    @classmethod
    def make(cls, folder=DATA):
        """Make the files, once, before the first release of a protocol; then check them in.

        ``python -c "from tests.test_calibrator import TestProtocol1; TestProtocol1.make()"`` from the root.
        """
        for suffix in SUFFIXES:
            cls.fit().save(folder / f"calibration-1{suffix}", overwrite=True)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_loads_for_ever(self, suffix):
        cal = DetectorCalibrator.load(DATA / f"calibration-1{suffix}")
        # noise-free frames: the coefficient is the smoothed gain over the gain
        truth = gaussian_filter(self.GAIN, 1.5, mode="nearest") / self.GAIN
        np.testing.assert_allclose(cal.coef_, truth, rtol=1e-6)
        np.testing.assert_array_equal(cal.dark_, self.DARK)
        assert cal.coef_std_.max() < 1e-6
        assert not cal.defects_.any()
        assert cal.n_frames_seen_ == 3
        assert cal.detector_shape_ == (20, 6)
        assert cal.n_features_in_ == 120
        assert cal.provenance_["detectorcal"] == "0.1.0"
        told = {name: value for name, value in cal.get_params().items() if name in PROTOCOL_1_PARAMS}
        assert told == PROTOCOL_1_PARAMS
        # a sum that came to mean something else would need another protocol
        for name, values in self.fit().sums_.items():
            if name in SINCE_THE_FIRST:  # they tell causes, which that file does not know
                assert np.isnan(cal.sums_[name]).all() or name == "expected_cubed"
                continue
            rows = slice(None, None, 16) if name == "difference" else slice(None)  # then in some rows only
            np.testing.assert_allclose(
                cal.sums_[name][rows], values[rows], rtol=1e-6, atol=1e-9, err_msg=name
            )
        assert not cal.kept_out_.any()
        assert cal.saturation_ == 60000
        corrected = cal.transform(self.frames())
        np.testing.assert_allclose(corrected, self.LEVELS[:, None, None] * self.GAIN * truth, rtol=1e-6)
        more = cal.partial_fit(self.frames())
        assert more.n_frames_seen_ == 6
        np.testing.assert_allclose(more.coef_, truth, rtol=1e-6)


def changed(mapping, path, value):
    """Give a copy with one entry replaced, or left out where the value is ``...``."""
    name, *rest = path
    copy = dict(mapping)
    if rest:
        copy[name] = changed(copy[name], rest, value)
    elif value is ...:
        del copy[name]
    else:
        copy[name] = value
    return copy


LIES = {
    "estimator": (["RingSuppressor", 5, None, ...], ["estimator"]),
    "params": ([[], "sigma", None, ...], ["params"]),
    "unknown parameter": ([0, None], ["params", "wavelength"]),
    "method": (["cubic", 3, None, ["croton"], ...], ["params", "method"]),
    "sigma": (["50", -1, 0, None, True, [50], {}, 10**400], ["params", "sigma"]),
    "mode": (["sideways", 1, None], ["params", "mode"]),
    "saturation": (["high", [1]], ["params", "saturation"]),
    "detector_shape": ([[3, 4], 720, "24x30", [24, "30"], {}, [24, 30, 1]], ["params", "detector_shape"]),
    "n_jobs": ([0, "all", 1.5, True], ["params", "n_jobs"]),
    "batch_size": ([0, "big", 2.5], ["params", "batch_size"]),
    "state": ([None, [], ...], ["state"]),
    "n_frames_seen": ([0, -3, 2.5, "20", None, True, ...], ["state", "n_frames_seen"]),
    "system_gain": (["high", [1.0], 10**400], ["state", "system_gain"]),
    "feature_names": ([["a"], "abc", [1] * 720, {}], ["state", "feature_names"]),
    "provenance": ([None, "me", ...], ["provenance"]),
}


@pytest.fixture(scope="module")
def whole(cal, tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "cal.h5"
    cal.save(path)
    header, arrays = read_calibration(path)
    del header["protocol"]
    return header, arrays


class TestFilesThatLie:
    """Sound files, checksums and all, whose contents cannot be."""

    def refused(self, tmp_path, header, arrays, match):
        write_calibration(tmp_path / "lie.h5", header, arrays)
        with pytest.raises(FileFormatError, match=match) as caught:
            DetectorCalibrator.load(tmp_path / "lie.h5")
        assert "lie.h5` is a calibration file that cannot be believed" in str(caught.value)

    @pytest.mark.parametrize(
        ("path", "value"),
        [(path, value) for values, path in LIES.values() for value in values],
        ids=lambda x: "/".join(x) if isinstance(x, list) and all(isinstance(i, str) for i in x) else None,
    )
    def test_header(self, whole, tmp_path, path, value):
        header, arrays = whole
        wanted = "wavelength" if "wavelength" in path else "a 'RingSuppressor'|it holds|" + path[-1]
        self.refused(tmp_path, changed(header, path, value), arrays, wanted)

    @pytest.mark.parametrize(
        "name", ["coef", "coef_std", "defects", "sums/frames", "sums/expected_cubed", "sums/measured_squared"]
    )
    def test_missing_and_mistyped_arrays(self, whole, tmp_path, name):
        header, arrays = whole
        self.refused(tmp_path, header, changed(arrays, [name], ...), f"{name}' is missing")
        (tmp_path / "lie.h5").unlink()
        self.refused(tmp_path, header, changed(arrays, [name], np.zeros(SHAPE, bool)), f"{name}' is bool")

    def test_impossible_coefficients(self, whole, tmp_path):
        header, arrays = whole
        self.refused(tmp_path, header, changed(arrays, ["coef"], np.full(SHAPE, np.nan)), "not finite")

    @pytest.mark.parametrize("name", ["sums/frames", "sums/expected"])
    @pytest.mark.parametrize("value", [np.nan, -1, np.inf])
    def test_impossible_sums(self, whole, tmp_path, name, value):
        header, arrays = whole
        lie = arrays[name].copy()
        lie.flat[5] = value
        self.refused(tmp_path, header, changed(arrays, [name], lie), f"{name}' has values that are neg")

    def test_method_whose_sums_are_not_there(self, tmp_path, sweep):
        DetectorCalibrator(SIGMA, method="photon").fit(sweep).save(tmp_path / "cal.h5")
        header, arrays = read_calibration(tmp_path / "cal.h5")
        del header["protocol"]
        self.refused(tmp_path, changed(header, ["params", "method"], "croton"), arrays, "is missing")

    def test_a_file_from_before_a_parameter_was_thought_of(self, whole, tmp_path, cal):
        header, arrays = whole
        write_calibration(tmp_path / "old.h5", changed(header, ["params", "reject"], ...), arrays)
        old = DetectorCalibrator.load(tmp_path / "old.h5")
        assert old.reject is None
        assert_same_fit(old, cal)


def test_everything_wants_a_fit(sweep, tmp_path):
    new = DetectorCalibrator(SIGMA)
    for use in (
        lambda: new.transform(sweep),
        lambda: new.inverse_transform(sweep),
        lambda: new.score(sweep),
        lambda: new.correction(),
        lambda: new.save(tmp_path / "cal.h5"),
    ):
        with pytest.raises(ValueError, match="not fitted yet"):
            use()
    with pytest.raises(DetectorcalError):
        new.fit(sweep[:, 0, :], dark=np.zeros(7))
    with pytest.raises(ValueError, match="not fitted yet"):
        new.transform(sweep)  # a fit that failed is no fit
