"""Scans as they are: beams that drift, other exposure times, monitors, averages of flats."""

from __future__ import annotations

import itertools
import pickle
import warnings
from copy import copy

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from detectorcal import (
    DetectorCalibrator,
    DetectorcalWarning,
    RingSuppressor,
    ScanCorrection,
    average,
    simulate,
)
from detectorcal._errors import InputError

SHAPE = (48, 64)
N = 41
TRUTH = np.exp(-np.linspace(0.2, 1.0, SHAPE[1])) * np.ones(SHAPE)


@pytest.fixture(scope="module", params=["croton", "photon", "curved"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def detector():
    return simulate.Detector.random(SHAPE, seed=0)


@pytest.fixture(scope="module")
def beam():
    return 2000 * simulate.beam_profile(SHAPE, width=2)


@pytest.fixture(scope="module")
def cal(detector, beam, method):
    rng = np.random.default_rng(1)
    sweep = detector.record(simulate.exposure_ladder(beam / 2000, 24), rng)
    return DetectorCalibrator(sigma=4, method=method).fit(sweep, dark=detector.darks(20, rng))


def exact(cal, intensity):
    """What pixels read that are just what the calibrator says, without noise."""
    return cal.correction().inverse_transform(intensity)


class TestDrift:
    """Each projection has the beam of its own moment."""

    def beams(self, beam, kind):
        tilt = 1 + 0.05 * np.linspace(-1, 1, SHAPE[1])  # it moves as well as fades
        if kind == "linear":
            way = np.linspace(0, 1, N)[:, None, None]
        else:
            way = (np.arange(N) >= 15)[:, None, None].astype(float)
        return beam * ((1 - way) + way * 0.9 * tilt)

    def test_linear_beats_one_flat(self, cal, beam):
        """To the error that smoothing of both flats leaves; one flat is 5 to 10 % off at the end."""
        beams = self.beams(beam, "linear")
        raw, flats = exact(cal, beams * TRUTH), exact(cal, beams[[0, -1]])
        scan = ScanCorrection(cal, list(flats), [0, N - 1]).fit(raw)
        one = cal.correction(flats[0])
        off = [np.abs(T / TRUTH - 1).max() for T in (scan.transform(raw), one.transform(raw))]
        edges = [
            np.abs(cal.correction(flat).transform(raw[i : i + 1]) / TRUTH - 1).max()
            for i, flat in ((0, flats[0]), (-1 % N, flats[1]))
        ]
        assert off[0] <= 1.0001 * max(edges)
        assert off[1] > 0.05
        assert off[1] > 10 * off[0]

    def test_nearest_for_a_jump(self, cal, beam):
        beams = self.beams(beam, "jump")
        raw, flats = exact(cal, beams * TRUTH), exact(cal, beams[[0, 14, 15, -1]])
        at = [0, 14, 15, N - 1]
        for drift in ("nearest", "linear"):  # flats on either side of the jump: both know it
            T = ScanCorrection(cal, list(flats), at, drift=drift).fit_transform(raw)
            assert np.abs(T / T[0] - 1).max() < 3e-3
        # flats at both ends only: the straight line is wrong everywhere between
        pair = list(flats[[0, -1]])
        nearest, linear = (
            ScanCorrection(cal, pair, [0, 29], drift=drift).fit_transform(raw)
            for drift in ("nearest", "linear")
        )
        assert np.abs(nearest / nearest[0] - 1).max() < 3e-3
        assert np.abs(linear / linear[0] - 1).max() > 0.03

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), sigma=st.sampled_from([None, 3.0]))
    def test_one_group_is_the_plain_correction(self, cal, detector, beam, seed, n, sigma):
        rng = np.random.default_rng(seed)
        raw, flats = (
            detector.record(np.broadcast_to(beam / 2, (n, *SHAPE)), rng),
            detector.flats(beam, 5, rng),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DetectorcalWarning)  # of pixels that have changed
            plain = cal.correction(flats, sigma).transform(raw)
            scans = [ScanCorrection(cal, given, sigma=sigma).fit(raw) for given in (flats, [flats])]
        for scan in scans:
            np.testing.assert_array_equal(scan.transform(raw), plain)

    def test_same_flats_everywhere_change_nothing(self, cal, detector, beam):
        flats = detector.flats(beam, 5, 3)
        raw = detector.record(np.broadcast_to(beam / 2, (N, *SHAPE)), 4)
        many = np.concatenate([flats] * 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DetectorcalWarning)  # noise that repeats is taken for change
            T = ScanCorrection(cal, [flats, flats, flats], [0, 11.5, N]).fit_transform(raw)
            plain = cal.correction(many).transform(raw)
        np.testing.assert_allclose(T, plain, rtol=1e-6)

    def test_groups_of_a_stack_are_told_by_their_positions(self, cal, detector, beam):
        flats = np.concatenate([detector.flats(level * beam, 3, 3) for level in (1, 0.9)])
        raw = detector.record(np.broadcast_to(beam / 2, (N, *SHAPE)), 4)
        told = ScanCorrection(cal, [flats[3:], flats[:3]], [N - 0.5, -0.5]).fit_transform(raw)
        mixed = flats[[3, 0, 1, 4, 5, 2]]
        at = [N - 0.5, -0.5, -0.5, N - 0.5, N - 0.5, -0.5]
        np.testing.assert_array_equal(ScanCorrection(cal, mixed, at).fit_transform(raw), told)

    def test_residuals_of_each_group(self, cal, detector, beam):
        """Dust that came with the second group is divided out there, and only there."""
        flats = exact(cal, np.stack([beam, beam]))
        dark = cal.dark_
        flats[1][20, 30] = dark[20, 30] + 0.7 * (flats[1][20, 30] - dark[20, 30])
        raw = np.repeat(flats, [N - 20, 20], axis=0)
        T = ScanCorrection(cal, list(flats), [0, N - 1], drift="nearest", sigma=3).fit_transform(raw)
        assert np.abs(T[:, 20, 30] - 1).max() < 0.02
        blind = ScanCorrection(cal, list(flats), [0, N - 1], drift="nearest", sigma=1e9).fit_transform(raw)
        assert np.abs(blind[-1, 20, 30] - 0.7) < 0.02

    def test_a_flat_without_light_gives_nan(self, cal, beam):
        flats = exact(cal, np.stack([beam, beam]))
        dim = flats[1].copy()
        dim[:, :30] = cal.dark_[:, :30] - 500
        raw = np.stack([flats[0]] * 5)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            T = ScanCorrection(cal, [flats[0], dim], [0, 4]).fit_transform(raw)
        assert any("not above the dark" in str(warning.message) for warning in told)
        assert np.isnan(T[2, :, :5]).all()
        assert not np.isinf(T).any()
        assert np.isfinite(T[0]).all()  # only the first group counts there

    @pytest.mark.filterwarnings("ignore:.*have changed since the sweep")
    @pytest.mark.parametrize("invalid", ["clip", 0.5])
    def test_or_what_stands_in_for_it(self, cal, beam, invalid):
        flats = exact(cal, np.stack([beam, beam]))
        raw = np.stack([flats[0]] * 5)
        flats[1, :, :30] = cal.dark_[:, :30] - 500
        with pytest.warns(DetectorcalWarning, match="not above the dark"):
            T = ScanCorrection(cal, list(flats), [0, 4], invalid=invalid).fit_transform(raw)
        assert np.all(T[:, :, :5] == (1 if invalid == "clip" else invalid))
        assert np.isfinite(T).all()


@pytest.fixture(scope="module")
def raw(detector, beam):
    return detector.record(np.linspace(1, 0.9, N)[:, None, None] * beam * TRUTH, 5)


@pytest.fixture(scope="module")
def scan(cal, detector, beam, raw):
    flats = [detector.flats(level * beam, 4, 6) for level in (1, 0.96, 0.9)]
    counted = {"monitor": np.linspace(2, 3, N), "flat_monitor": 2.5}
    return ScanCorrection(cal, flats, [-0.5, 12.5, N - 0.5], **counted).fit(raw)


class TestWays:
    """Memory, disk, Dask, threads: the same numbers."""

    def test_batches_threads_and_disk(self, scan, raw, tmp_path):
        wanted = scan.transform(raw)
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["data"] = raw
            for n_jobs, batch_size in ((1, 8), (2, 16), (2, None)):
                out = np.empty(raw.shape, np.float32)
                correction = scan.part(slice(None)).set_params(n_jobs=n_jobs, batch_size=batch_size)
                assert correction.transform(file["data"], out=out) is out
                np.testing.assert_array_equal(out, wanted)

    @settings(max_examples=20, deadline=None)
    @given(cuts=st.sets(st.integers(1, N - 1), max_size=5), rnd=st.randoms(use_true_random=False))
    def test_parts_in_any_order(self, scan, raw, cuts, rnd):
        wanted, found = scan.transform(raw), np.empty(raw.shape, np.float32)
        edges = [0, *sorted(cuts), N]
        runs = [slice(a, b) for a, b in itertools.pairwise(edges)]
        rnd.shuffle(runs)
        for run in runs:
            found[run] = scan.part(run).transform(raw[run])
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(scan.part(slice(3, None, 4)).transform(raw[3::4]), wanted[3::4])

    def test_dask_is_lazy_and_the_same(self, scan, raw):
        da = pytest.importorskip("dask.array")
        lazy = scan.transform(da.from_array(raw, chunks=(7, 20, -1)))
        assert isinstance(lazy, da.Array)
        assert lazy.dtype == np.float32
        np.testing.assert_allclose(lazy.compute(scheduler="threads"), scan.transform(raw), rtol=1e-6)

    def test_another_array_library(self, scan, raw):
        xp = pytest.importorskip("array_api_strict")
        T = scan.transform(xp.asarray(raw))
        np.testing.assert_allclose(np.asarray(T), scan.transform(raw), rtol=1e-6)

    def test_pickle_clone_and_pipeline(self, scan, raw):
        wanted = scan.transform(raw)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan)).transform(raw), wanted)
        np.testing.assert_array_equal(clone(scan).fit_transform(raw), wanted)
        np.testing.assert_array_equal(make_pipeline(clone(scan)).fit(raw).transform(raw), wanted)

    def test_inverse(self, scan, raw):
        np.testing.assert_allclose(scan.inverse_transform(scan.transform(raw.astype(float))), raw, rtol=1e-9)

    def test_rings_know_it(self, cal, scan, raw):
        T = scan.transform(raw)
        rings = RingSuppressor(scan).fit(T)
        np.testing.assert_array_equal(rings.multiplier_, RingSuppressor(scan.correction_).fit(T).multiplier_)
        allowed = 3.001 * scan.predict_std(np.exp(np.log(T.astype(float)).mean(axis=0)))
        assert np.all(np.abs(np.log(rings.multiplier_)) <= allowed)
        assert np.any(rings.multiplier_ != 1)

    def test_other_frames_are_refused(self, scan, raw):
        with pytest.raises(InputError, match=r"40 frames, but .* 41 frames.*part"):
            scan.transform(raw[1:])


class TestLight:
    """Exposure times and monitors."""

    def test_exposure(self, cal, beam):
        """Flats of half a second, projections of a tenth, darks that grow with time: exact."""
        rng = np.random.default_rng(0)
        bias, rate = 90 + rng.random(SHAPE), 40 * rng.random(SHAPE)
        pixels = cal.correction(dark=0.0)
        flat = pixels.inverse_transform(beam) + bias + 0.5 * rate
        raw = pixels.inverse_transform(np.stack([beam * TRUTH] * 3) / 5) + bias + 0.1 * rate
        of_one = {"exposure": (0.1, 0.5, 2.0), "bias": bias, "dark": bias + 2 * rate}
        T = ScanCorrection(cal, flat, **of_one).fit_transform(raw)
        wanted = cal.correction(flat, dark=bias + 0.5 * rate).transform(
            pixels.inverse_transform(beam * TRUTH)[None] + bias + 0.5 * rate
        )
        # a curve that heeds the flat is another one, a little, than that which made the readings
        rtol = 1e-5 if cal.method == "curved" else 1e-9
        np.testing.assert_allclose(T, np.repeat(wanted, 3, axis=0), rtol=rtol)

    def test_exposure_alone_scales(self, cal, beam, detector):
        raw, flats = detector.record(beam[None] / 2, 0), detector.flats(beam, 4, 1)
        plain = cal.correction(flats).transform(raw)
        with pytest.warns(DetectorcalWarning, match="dark current"):
            scan = ScanCorrection(cal, flats, exposure=(0.1, 0.25)).fit(raw)
        np.testing.assert_allclose(scan.transform(raw), 2.5 * plain, rtol=1e-6)
        np.testing.assert_array_equal(ScanCorrection(cal, flats, exposure=(1, 1)).fit_transform(raw), plain)

    def test_monitor(self, cal, beam):
        """Light that flickers from frame to frame and flat to flat, exactly undone."""
        rng = np.random.default_rng(0)
        flicker, of_flats = rng.uniform(0.5, 1.5, N), np.array([1.2, 0.8])
        raw = exact(cal, flicker[:, None, None] * beam * TRUTH)
        flats = exact(cal, of_flats[:, None, None] * beam)
        T = ScanCorrection(
            cal, list(flats), [0, N - 1], monitor=1000 * flicker, flat_monitor=1000 * of_flats
        ).fit_transform(raw)
        assert np.abs(T / T[0] - 1).max() < (1e-4 if cal.method == "curved" else 1e-9)
        turned = ScanCorrection(
            cal, list(flats[::-1]), [N - 1, 0], monitor=1000 * flicker, flat_monitor=1000 * of_flats[::-1]
        )
        np.testing.assert_array_equal(turned.fit_transform(raw), T)  # in any order
        off = ScanCorrection(cal, list(flats), [0, N - 1]).fit_transform(raw)
        assert np.abs(off / off[0] - 1).max() > 0.3
        # one reading for each frame of a group is as good as their mean
        group = np.concatenate([flats, flats[:1]])
        each = ScanCorrection(cal, group, monitor=flicker, flat_monitor=[1.2, 0.8, 1.2]).fit(raw)
        mean = ScanCorrection(cal, [group], monitor=flicker, flat_monitor=3.2 / 3).fit(raw)
        np.testing.assert_allclose(each.transform(raw), mean.transform(raw), rtol=1e-12)

    def test_the_median_is_of_flats_in_the_same_light(self, cal, beam):
        light = np.array([2.0, 2.0, 2.0, 4.0, 4.0])
        flats = exact(cal, light[:, None, None] / 2 * beam)
        raw = exact(cal, beam[None] / 2)
        T = ScanCorrection(cal, flats, average="median", monitor=[1.0], flat_monitor=light).fit_transform(raw)
        np.testing.assert_allclose(T[0, 8:-8, 8:-8], 1, rtol=4e-3)  # half the reading, half the light

    def test_groups_of_a_stack_are_numbered_as_they_come(self, cal, beam):
        flats = exact(cal, np.array([1, 1, 2, 2])[:, None, None] * beam)
        raw = exact(cal, np.stack([beam, beam]))
        scan = ScanCorrection(cal, flats, [1, 1, 0, 0], monitor=[1, 1], flat_monitor=[1, 2])
        np.testing.assert_allclose(scan.fit_transform(raw)[:, 8:-8, 8:-8], 1, rtol=4e-3)

    def test_a_bias_leaves_what_darks_tell_of_the_noise(self, detector, beam):
        rng = np.random.default_rng(3)
        sweep, darks = (
            detector.record(simulate.exposure_ladder(beam / 2000, 24), rng),
            detector.darks(20, rng),
        )
        cal = DetectorCalibrator(4).fit(sweep, dark=darks)
        raw, flats = detector.record(beam[None] / 100, rng), detector.flats(beam, 10, rng)
        of_one = {"exposure": (1, 1, 1), "dark": darks}
        _, wanted = ScanCorrection(cal, flats, **of_one).fit(raw).transform(raw, return_std=True)
        _, std = (
            ScanCorrection(cal, flats, bias=90.0 + 0 * beam, **of_one)
            .fit(raw)
            .transform(raw, return_std=True)
        )
        np.testing.assert_allclose(std, wanted, rtol=2e-3)


class TestPolicies:
    """Defects, the logarithm and standard deviations, of a beam that drifts."""

    @pytest.fixture
    def flats(self, detector, beam):
        return [detector.flats(level * beam, 4, 6) for level in (1, 0.9)]

    @pytest.mark.parametrize("defects", ["keep", "nan", "interpolate"])
    def test_as_of_the_plain_correction(self, cal, flats, raw, defects):
        """With every projection in the light of the first group, all is as with that group alone."""
        marked = copy(cal)
        marked.defects_ = cal.defects_.copy()
        marked.defects_[10, 20:22] = 1
        how = {"defects": defects, "log": True, "invalid": "clip", "sigma": 3}
        bright = raw.copy()
        bright[3, 5, 5] = 0
        scan, plain = ScanCorrection(marked, flats, [1e6, 2e6], **how), marked.correction(flats[0], **how)
        with pytest.warns(DetectorcalWarning, match="have no logarithm"):
            T = scan.fit_transform(bright)
        with pytest.warns(DetectorcalWarning, match="have no logarithm"):
            plain = plain.transform(bright)
        apart = np.zeros(T.shape, bool)
        apart[3, 5, 5] = True  # half a DN is another transmission in the light of all flats
        np.testing.assert_allclose(T[~apart], plain[~apart], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(np.isnan(T), np.isnan(plain))

    def test_standard_deviations(self, detector, beam):
        """Stated over observed, by Monte Carlo: sweep, darks, flats and scan, all drawn anew."""
        rng, trials = np.random.default_rng(0), 60
        beams = beam * np.linspace(1, 0.8, 9)[:, None, None]
        seen, stated = [], []
        for _ in range(trials):
            sweep = detector.record(simulate.exposure_ladder(beam / 2000, 16, lowest=1000), rng)
            cal = DetectorCalibrator(4, method="photon").fit(sweep, dark=detector.darks(8, rng))
            flats = [detector.flats(b, 2, rng) for b in beams[[0, -1]]]
            scan = ScanCorrection(cal, flats, [0, 8], log=True)
            values, std = scan.fit(sweep[:9]).transform(detector.record(beams * TRUTH, rng), return_std=True)
            seen.append(values)
            stated.append(std.astype(float) ** 2)
        inner = (slice(None), slice(8, -8), slice(8, -8))
        variances = [
            v[inner].mean(axis=(1, 2)) for v in (np.mean(stated, axis=0), np.var(seen, axis=0, ddof=1))
        ]
        ratio = np.sqrt(variances[0] / variances[1])  # of each projection
        assert np.all(np.abs(ratio - 1) < 0.05), ratio


class TestAverage:
    def test_a_bad_frame(self, detector, beam):
        flats = detector.flats(beam, 9, 0)
        flats[4] //= 3  # the shutter was closing
        good = np.delete(flats, 4, axis=0).mean(axis=0)
        np.testing.assert_array_equal(average(flats, leave_out=[4]), good)
        np.testing.assert_array_equal(average(flats, leave_out=[-5, 4]), good)
        np.testing.assert_array_equal(average(flats, "median"), np.median(flats, axis=0))
        off = [np.abs(average(flats, how) / good - 1).max() for how in ("median", "mean")]
        assert off[0] < 0.05
        assert off[1] > 0.05

    def test_blocks_of_rows_and_disk(self, detector, beam, tmp_path, monkeypatch):
        flats = detector.flats(beam, 7, 0)
        monkeypatch.setattr("detectorcal._average.MEDIAN_BYTES", 7 * SHAPE[1] * 8 * 5)
        with h5py.File(tmp_path / "flats.h5", "w") as file:
            file["data"] = flats
            for stack in (flats, file["data"]):
                np.testing.assert_array_equal(average(stack, "median"), np.median(flats, axis=0))
                left = average(stack, "median", leave_out=[1, 5])
                np.testing.assert_array_equal(left, np.median(flats[[0, 2, 3, 4, 6]], axis=0))

    def test_other_libraries(self, detector, beam):
        da, xp = (pytest.importorskip(name) for name in ("dask.array", "array_api_strict"))
        flats = detector.flats(beam, 7, 0)
        for stack in (da.from_array(flats, chunks=(2, 20, -1)), xp.asarray(flats)):
            for how in ("mean", "median"):
                wanted = average(flats, how, leave_out=[0, 3])
                np.testing.assert_array_equal(average(stack, how, leave_out=[0, 3]), wanted)

    def test_weight_of_a_median(self):
        """Its variance is pi / 2 that of the mean: what `n_flats` counts is what the noise shows."""
        from detectorcal._average import weight_of

        noise = np.random.default_rng(0).standard_normal((25, 200, 200))
        variance = average(noise, "median").var()
        assert variance * weight_of(25, "median") == pytest.approx(1, abs=0.05)
        assert average(noise).var() * weight_of(25, "mean") == pytest.approx(1, abs=0.05)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((np.ones((3, 4, 4)), "mode"), "`how` must be one of 'mean', 'median'"),
            ((np.ones((3, 4, 4)), "mean", [3]), "names frame 3, but there are 3 frames"),
            ((np.ones((3, 4, 4)), "mean", [0, 1, 2]), "all 3 frames"),
            ((np.ones((3, 4, 4)), "mean", [0.5]), "numbers of frames"),
            ((np.ones(4),), "must have shape"),
        ],
    )
    def test_bad_input(self, arguments, message):
        stack, *how = arguments
        with pytest.raises(InputError, match=message):
            average(stack, *how[:1], **({"leave_out": how[1]} if len(how) > 1 else {}))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"drift": "cubic"}, "`drift` must be one of"),
        ({"average": "max"}, "`average` must be one of"),
        ({"flat_positions": None}, "2 groups, so `flat_positions`"),
        ({"flat_positions": [0]}, "2 finite numbers"),
        ({"flat_positions": [0, np.nan]}, "2 finite numbers"),
        ({"flat_positions": [3, 3]}, "a position twice"),
        ({"flats": []}, "`flats` is empty"),
        ({"flats": [5.0, 6.0]}, r"`flats\[0\]` must be a frame"),
        ({"flats": [np.ones((2, 2)), np.ones((2, 2))]}, r"`flats\[0\]` has shape \(2, 2\)"),
        ({"monitor": np.ones(N)}, "of no use without `flat_monitor`"),
        ({"monitor": np.ones(N - 1), "flat_monitor": 1.0}, f"{N}, one for each of the projections"),
        ({"monitor": np.arange(N), "flat_monitor": 1.0}, "the first being 0 at number 0"),
        ({"monitor": np.full(N, np.nan), "flat_monitor": 1.0}, f"{N} of {N} readings"),
        ({"monitor": np.ones(N), "flat_monitor": [1.0, 2.0, 3.0]}, "groups of flats"),
        ({"monitor": np.ones(N), "flat_monitor": -1.0}, "`flat_monitor` must be above 0"),
        ({"exposure": 0.1}, r"must be \(image, flat\)"),
        ({"exposure": (0.1, 0)}, "`exposure` must be a finite number above 0"),
        ({"bias": 90.0}, "needs the exposure times"),
        ({"bias": 90.0, "exposure": (1.0, 2.0)}, "needs the exposure times"),
        ({"n_flats": [1, 2, 3]}, "`n_flats` has 3 numbers"),
    ],
)
def test_bad_parameters(detector, beam, parameters, message):
    cal = DetectorCalibrator(sigma=5).fit(np.stack([beam, 2 * beam]))
    given = {"flats": [beam, beam], "flat_positions": [0, N], **parameters}
    with pytest.raises(InputError, match=message):
        ScanCorrection(cal, **given).fit(np.broadcast_to(beam, (N, *SHAPE)))


class TestRealFlats:
    """Ten flats of a beamline's scan, tomopy's tooth."""

    @pytest.fixture(scope="class")
    @classmethod
    def tooth(cls, shared_data):
        with h5py.File(shared_data / "tomopy_tooth" / "tooth.h5") as file:
            return {name: file[f"exchange/data{name}"][:] for name in ("", "_white", "_dark")}

    def test_one_spoiled(self, tooth):
        flats = tooth["_white"].copy()
        good = average(flats)
        flats[3] //= 2
        off = [
            np.abs(flat / good - 1).mean()
            for flat in (average(flats), average(flats, "median"), average(flats, leave_out=[3]))
        ]
        assert off[0] == pytest.approx(0.05, abs=1e-3)  # half of a tenth
        assert off[1] < 2e-3
        assert off[2] < off[1]

    def test_noise_of_a_median(self, tooth):
        """Of five: its standard deviation is sqrt(1.43) = 1.20 times that of the mean, for normal noise."""
        halves = [[average(tooth["_white"][k::2], how) for k in (0, 1)] for how in ("mean", "median")]
        mean, median = (np.std((a - b) / a) for a, b in halves)
        assert 1.1 < median / mean < 1.25

    def test_median_corrects_as_the_mean_does(self, tooth):
        cal = DetectorCalibrator(50).fit(tooth["_white"], dark=tooth["_dark"])
        T = [
            ScanCorrection(cal, tooth["_white"], average=how, dark=tooth["_dark"]).fit_transform(tooth[""])
            for how in ("mean", "median")
        ]
        background = [t[:, :, 10:90].mean() for t in T]
        assert background[0] == pytest.approx(0.995, abs=1e-3)
        assert background[1] == pytest.approx(background[0], abs=3e-4)
