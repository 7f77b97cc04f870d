"""Calibrations for other readouts of the same detector: a part of it, or binned pixels."""

from __future__ import annotations

import numpy as np
import pytest

from detectorcal import DetectorCalibrator, simulate
from detectorcal._errors import InputError

SHAPE = (96, 120)
SIGMA = 8


@pytest.fixture(scope="module")
def detector():
    return simulate.Detector.random(SHAPE, seed=0)


@pytest.fixture(scope="module")
def beam():
    return simulate.beam_profile(SHAPE, width=3)


@pytest.fixture(scope="module")
def frames(detector, beam):
    rng = np.random.default_rng(1)
    return detector.record(simulate.exposure_ladder(beam, 30, lowest=500), rng), detector.darks(20, rng)


@pytest.fixture(scope="module", params=["croton", "photon", "curved"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def cal(frames, method):
    return DetectorCalibrator(SIGMA, method=method).fit(frames[0], dark=frames[1])


def bin_frames(stack, n, readout):
    blocks = stack.reshape(len(stack), stack.shape[1] // n, n, stack.shape[2] // n, n).astype(float)
    return blocks.mean(axis=(2, 4)) if readout == "mean" else blocks.sum(axis=(2, 4))


class TestCrop:
    WINDOW = (slice(16, 80), slice(13, 100))

    def test_is_that_part(self, cal, frames):
        part = cal.crop(*self.WINDOW)
        for name in ("coef_", "coef_std_", "dark_", "defects_"):
            np.testing.assert_array_equal(getattr(part, name), getattr(cal, name)[self.WINDOW])
        image = frames[0][:3]
        np.testing.assert_array_equal(
            part.transform(image[:, *self.WINDOW]), cal.transform(image)[:, *self.WINDOW]
        )
        np.testing.assert_array_equal(part.predict_std(1500.0), cal.predict_std(1500.0)[self.WINDOW])
        assert part.n_features_in_ == 64 * 87

    @pytest.mark.parametrize("form", ["list", "flattened"])
    def test_maps_in_any_form(self, frames, form):
        mask, labels = np.zeros(SHAPE, bool), np.ones(SHAPE, np.uint8)
        mask[20, 30], labels[:, 60:] = True, 2
        change = (lambda m: m.tolist()) if form == "list" else np.ravel
        how = {"mask": change(mask)}
        if form == "list":
            how["regions"] = change(labels)
        else:
            how["detector_shape"] = SHAPE
        X = frames[0] if form == "list" else frames[0].reshape(len(frames[0]), -1)
        cal = DetectorCalibrator(SIGMA, **how).fit(X, dark=frames[1])
        part, small = cal.crop(*self.WINDOW), cal.bin(2)
        np.testing.assert_array_equal(part.mask, mask[self.WINDOW])
        assert small.defects_[10, 15] == 64
        assert small.coef_[10, 15] == 1
        assert np.isnan(small.coef_std_[10, 15])
        assert part.correction().scale.shape == (64, 87)

    def test_a_binned_pixel_of_two_regions_is_of_none(self, frames):
        labels = np.ones(SHAPE, np.uint8)
        labels[:, 61:] = 2
        small = DetectorCalibrator(SIGMA, regions=labels).fit(frames[0], dark=frames[1]).bin(2)
        np.testing.assert_array_equal(np.argwhere(small.defects_ == 64)[:, 1], 30)
        assert np.all(small.coef_[:, 30] == 1)

    def test_equals_a_fit_of_the_part(self, cal, frames, method):
        """But for a margin of 3 sigma, where smoothing saw what was beyond: there the beam's bend shows."""
        part = cal.crop(*self.WINDOW)
        of_part = DetectorCalibrator(SIGMA, method=method).fit(
            frames[0][:, *self.WINDOW], dark=frames[1][:, *self.WINDOW]
        )
        inner = (slice(3 * SIGMA, -3 * SIGMA),) * 2
        off = np.abs(part.coef_ / of_part.coef_ - 1)
        assert off[inner].max() < 0.1 * np.median(part.coef_std_)
        assert off.max() < 0.02

    def test_goes_on_learning(self, cal, frames, detector, beam, method):
        """Half a sweep on the whole detector, half on the part: solved from both, noise and all."""
        more = detector.record(simulate.exposure_ladder(beam, 30, lowest=500), 7)[:, *self.WINDOW]
        part = cal.crop(*self.WINDOW)
        alone = DetectorCalibrator(SIGMA, method=method, system_gain=None).fit(more, dark=part.dark_)
        part.partial_fit(more)
        assert part.n_frames_seen_ == 60
        assert part.system_gain_ == pytest.approx(detector.system_gain, rel=0.05)
        expected = 1 / np.sqrt(cal.crop(*self.WINDOW).coef_std_ ** -2 + alone.coef_std_**-2)
        np.testing.assert_allclose(part.coef_std_, expected, rtol=0.05)
        if method != "curved":
            again = DetectorCalibrator.merge(cal.crop(*self.WINDOW), alone)
            np.testing.assert_allclose(again.coef_, part.coef_, rtol=1e-12)

    def test_crops_of_crops(self, cal):
        once = cal.crop(slice(32, 80), slice(20, 90))
        twice = cal.crop(slice(16, None), slice(10, -20)).crop(slice(16, 64), slice(10, 80))
        np.testing.assert_array_equal(once.coef_, twice.coef_)
        for name, values in once.sums_.items():
            np.testing.assert_array_equal(values, twice.sums_[name])

    @pytest.mark.parametrize("window", [(slice(5, 80), slice(None)), (slice(0, 80), slice(7, 10))])
    def test_other_parts_only_correct(self, cal, frames, window, tmp_path):
        part = cal.crop(*window)
        image, flat = frames[0][3:6], frames[0][-1]
        np.testing.assert_array_equal(part.transform(image[:, *window]), cal.transform(image)[:, *window])
        part.save(tmp_path / "part.h5")
        back = DetectorCalibrator.load(tmp_path / "part.h5")
        assert back.frozen_ == "cropped"
        for made in (part, back):
            with pytest.raises(InputError, match="multiple of 16"):
                made.partial_fit(frames[0][:, *window])
            with pytest.raises(InputError, match="cannot be merged"):
                DetectorCalibrator.merge(made, made)
        np.testing.assert_array_equal(
            back.transform(image[:, *window], flat[window]),
            part.transform(image[:, *window], flat[window]),
        )
        np.testing.assert_array_equal(back.crop(slice(0, 16), slice(0, 2)).coef_, part.coef_[:16, :2])
        assert not hasattr(part.fit(frames[0][:, *window]), "frozen_")  # a new fit is a whole one

    def test_line_detector(self):
        rng = np.random.default_rng(0)
        sweep = rng.poisson(np.linspace(500, 3000, 40)[:, None] * (1 + 0.02 * rng.standard_normal(100)))
        cal = DetectorCalibrator(5).fit(sweep, dark=np.zeros(100))
        part = cal.crop(slice(7, 60))
        np.testing.assert_array_equal(part.coef_, cal.coef_[7:60])
        assert part.partial_fit(sweep[:, 7:60]).n_frames_seen_ == 80

    def test_parameters_of_the_detector(self, frames):
        rows = frames[0].reshape(30, -1)
        cal = DetectorCalibrator(SIGMA, detector_shape=SHAPE).fit(rows)
        part = cal.crop(slice(0, 32), slice(0, 50))
        assert part.detector_shape == (32, 50)
        assert part.transform(rows.reshape(30, *SHAPE)[:, :32, :50].reshape(30, -1)).shape == (30, 1600)

    @pytest.mark.parametrize(
        "pixels",
        [
            (slice(0, 10),), (slice(0, 10), 5), (slice(0, 97), slice(0, 10)), (slice(10, 10), slice(0, 10)),
            (slice(0, 96, 2), slice(0, 10)), (slice(0.5, 3), slice(0, 10)),
        ],
    )  # fmt: skip
    def test_bad_parts(self, cal, pixels):
        with pytest.raises(InputError, match="part of"):
            cal.crop(*pixels)


class TestBin:
    @pytest.mark.parametrize("readout", ["mean", "sum"])
    @pytest.mark.parametrize("n", [2, 4])
    def test_equals_a_fit_of_binned_frames(self, cal, frames, method, n, readout):
        """Within 0.4 standard errors, and those themselves, and the noise, within a few per cent.

        Least squares, which dilutes single pixels more than blocks of them, needs so much.

        A margin of 2 sigma is left out: smoothing a beam that bends errs there, and does so otherwise when
        the edge is half a binned pixel further out.
        """
        made = cal.bin(n, readout=readout)
        sweep, darks = (bin_frames(stack, n, readout) for stack in frames)
        fitted = DetectorCalibrator(SIGMA / n, method=method).fit(sweep, dark=darks)
        off = (made.coef_ - fitted.coef_) / fitted.coef_std_
        inner = (slice(2 * SIGMA // n, -2 * SIGMA // n),) * 2
        assert np.sqrt(np.mean(off[inner] ** 2)) < (0.4 if method == "croton" else 0.3)
        np.testing.assert_allclose(made.dark_, fitted.dark_, rtol=1e-12)
        assert made.system_gain_ == pytest.approx(fitted.system_gain_, rel=0.06)
        assert made.reference_level_ == pytest.approx(fitted.reference_level_, rel=0.01)
        assert np.median(made.coef_std_ / fitted.coef_std_) == pytest.approx(1, abs=0.05)
        assert made.expected_prnu_ == pytest.approx(cal.expected_prnu_ / n, rel=0.1)
        assert made.sigma == SIGMA / n

    def test_curves(self, frames):
        cal = DetectorCalibrator(SIGMA, method="curved").fit(frames[0], dark=frames[1])
        cal.prior_std_ = max(cal.prior_std_, 1e-6)  # as if the pixels had bent
        cal.curvature_ = 1e-6 * np.random.default_rng(0).standard_normal(SHAPE)
        image = 1500 * np.ones((1, *SHAPE))
        recorded = cal.inverse_transform(image)
        for readout, level in (("mean", 1), ("sum", 4)):
            made = cal.bin(2, readout=readout)
            corrected = made.transform(bin_frames(recorded, 2, readout))
            np.testing.assert_allclose(corrected, level * 1500, rtol=1e-7)

    def test_a_flat_is_heeded_as_by_a_fit_of_binned_frames(self, frames, detector, beam):
        """Of a pixel that has changed since the sweep, and of the others."""
        flats = detector.flats(2500 * beam, 10, 5)
        flats[:, 40:42, 60:62] = (flats[:, 40:42, 60:62] * 0.8).astype(flats.dtype)
        cal = DetectorCalibrator(SIGMA, method="curved").fit(frames[0], dark=frames[1])
        for readout in ("mean", "sum"):
            made = cal.bin(2, readout=readout)
            sweep, darks, flat = (bin_frames(stack, 2, readout) for stack in (*frames, flats))
            fitted = DetectorCalibrator(SIGMA / 2, method="curved").fit(sweep, dark=darks)
            with pytest.warns(UserWarning, match="have changed"):
                a, b = (c.correction(flat) for c in (made, fitted))
            assert a.defect_map[20, 30] == b.defect_map[20, 30] == 128
            off = (a.scale / b.scale - 1)[8:-8, 8:-8]
            assert np.sqrt(np.mean(off**2)) < 0.1 * np.median(fitted.coef_std_)
            assert abs(off[12, 22]) < 1e-3

    def test_defects_and_remainders(self, frames):
        sweep = frames[0].astype(float)
        sweep[:, 10, 20] = frames[1].mean(axis=0)[10, 20]  # dead
        with pytest.warns(UserWarning, match="dead"):
            cal = DetectorCalibrator(SIGMA).fit(sweep, dark=frames[1])
        made = cal.bin((5, 7))
        assert made.detector_shape_ == (19, 17)
        assert np.flatnonzero(made.defects_.ravel()).tolist() == [2 * 17 + 2]
        assert made.coef_[2, 2] == 1
        assert np.isnan(made.coef_std_[2, 2])

    def test_only_corrects(self, cal, frames, tmp_path):
        made = cal.bin(2)
        for suffix in ("h5", "tif", "zarr"):
            made.save(tmp_path / f"binned.{suffix}")
            back = DetectorCalibrator.load(tmp_path / f"binned.{suffix}")
            assert back.frozen_ == "binned"
            assert back.provenance_["readout"] == [{"bin": [2, 2], "readout": "mean"}]
            np.testing.assert_array_equal(back.coef_, made.coef_)
            with pytest.raises(InputError, match="does not go on learning"):
                back.partial_fit(bin_frames(frames[0], 2, "mean"))

    def test_parameters_follow(self):
        sweep = np.linspace(500, 3000, 20)[:, None, None] * np.ones((20, 32, 32))
        params = {"cutoff": 5.0, "saturation": 9000.0, "system_gain": 2.0, "read_noise": 3.0, "cval": 1.0}
        cal = DetectorCalibrator(8.0, method="curved", **params).fit(sweep, dark=0)
        told = cal.bin(2, readout="sum").get_params()
        wanted = {"cutoff": 20, "saturation": 36000, "system_gain": 2, "read_noise": 6, "cval": 4, "sigma": 4}
        assert {name: told[name] for name in wanted} == wanted
        told = cal.bin(2).get_params()
        wanted = {"cutoff": 5, "saturation": 9000, "system_gain": 0.5, "read_noise": 1.5, "cval": 1}
        assert {name: told[name] for name in wanted} == wanted

    @pytest.mark.parametrize("factors", [0, 1.5, True, "2", (2,), (2, 2, 2), 97, (1, -2)])
    def test_bad_factors(self, cal, factors):
        with pytest.raises(InputError, match="`factors` must be a whole number"):
            cal.bin(factors)
        with pytest.raises(InputError, match="`readout` must be one of"):
            cal.bin(2, readout="max")


def test_inspect_and_report_of_a_readout(frames, tmp_path, capsys):
    """What became of the detector is told, and a page is written without a sweep."""
    from detectorcal.cli import main

    cal = DetectorCalibrator(SIGMA).fit(frames[0], dark=frames[1])
    made = cal.crop(slice(3, 83), slice(0, 100)).bin(2, readout="sum")
    made.save(tmp_path / "made.h5")
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path / "made.h5")])
    assert not stop.value.code
    told = capsys.readouterr().out
    assert "cropped to pixels [3, 83], [0, 100], then binned 2x2 (sum)" in told
    assert "40x50 pixels" in told
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "made.h5"), "-o", str(tmp_path / "made.html")])
    assert not stop.value.code
    assert "40 x 50" in (page := (tmp_path / "made.html").read_text(encoding="utf-8")) or "40x50" in page


def test_a_file_that_lies_about_it(frames, tmp_path):
    from detectorcal import _record

    header, arrays = _record.pack(DetectorCalibrator(SIGMA).fit(frames[0]).bin(2))
    header["state"]["frozen"] = "melted"
    with pytest.raises(InputError, match="`frozen` is 'melted'"):
        _record.unpack(header, arrays, parameters=DetectorCalibrator._get_param_names(), models=_models())
    header["state"].pop("frozen")  # then the sums of a whole fit are missing
    with pytest.raises(InputError, match="is missing"):
        _record.unpack(header, arrays, parameters=DetectorCalibrator._get_param_names(), models=_models())


def _models():
    from detectorcal.calibrator import METHODS

    return METHODS
