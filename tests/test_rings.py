"""Rings: removed where they are the calibration's error, and never by more than its error bars."""

from __future__ import annotations

import pickle
import warnings

import array_api_strict
import dask.array
import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

import detectorcal
from detectorcal import (
    Correction,
    DetectorCalibrator,
    RingSuppressor,
    _execution,
    _streaming,
    metrics,
    simulate,
)
from detectorcal._errors import DetectorcalWarning, InputError
from detectorcal.cli import main
from detectorcal.io import create_frames, open_frames
from detectorcal.kernels.rings import join_scans, scan_sums
from detectorcal.rings import CorrectedFrames
from tests import reference

SHAPE = (6, 50)
N = 37
quietly = pytest.mark.filterwarnings("ignore::detectorcal.DetectorcalWarning")


def a_scan(shape=SHAPE, n=N, seed=0, stripes=0.01, noise=0.02):
    """An object that moves along the row, stripes, noise; and the stripes' variance."""
    rng = np.random.default_rng(seed)
    place = np.arange(shape[-1]) / shape[-1] - 0.5
    depth = [np.exp(-0.5 * ((place - 0.2 * np.sin(a)) / 0.15) ** 2) for a in np.linspace(0, np.pi, n)]
    depth = np.stack(depth).reshape(n, *[1] * (len(shape) - 1), shape[-1])
    log = depth + rng.normal(0, stripes, shape) + rng.normal(0, noise, (n, *shape))
    return np.exp(-log), np.full(shape, stripes**2) * rng.uniform(0.5, 2, shape)


def spoilt(scan, variance):
    scan, variance = scan.copy(), variance.copy()
    rng = np.random.default_rng(9)
    scan[rng.random(scan.shape) < 0.05] = np.nan
    scan[rng.random(scan.shape) < 0.05] = -0.1
    scan[rng.random(scan.shape) < 0.02] = 0
    scan[rng.random(scan.shape) < 0.02] = np.inf
    scan[:, 1, 7:9] = np.nan
    scan[:, 2] = 0
    scan[1::2, 3, 4] = np.nan  # no two in a row: no noise
    variance[4, 10], variance[4, 11] = np.nan, 0.0
    return scan, variance


# --- the numbers --------------------------------------------------------------------------------------


@quietly
@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize(("window", "n_std"), [(4.0, 3.0), (1.5, 0.5), (30.0, 1.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
def test_equals_the_slow_reference(spoil, window, n_std, dtype, tolerance):
    scan, variance = spoilt(*a_scan()) if spoil else a_scan()
    scan = scan.astype(dtype)
    found = RingSuppressor(variance=variance, window=window, n_std=n_std).fit(scan)
    expected = reference.ring_multiplier(scan, variance, window, n_std)
    np.testing.assert_allclose(found.multiplier_, expected, rtol=tolerance)
    assert found.multiplier_.dtype == np.float64
    removed = np.log(expected)
    assert found.report_["n_changed"] == np.count_nonzero(removed)
    np.testing.assert_allclose(found.report_["largest_percent"], 100 * np.abs(expected - 1).max(), rtol=1e-4)
    in_std_errors = np.abs(removed[variance > 0]) / np.sqrt(variance[variance > 0])
    np.testing.assert_allclose(found.report_["largest_std_errors"], in_std_errors.max(), rtol=1e-4)


def test_transform_multiplies():
    scan, variance = a_scan()
    rings = RingSuppressor(variance=variance).fit(scan)
    np.testing.assert_array_equal(rings.transform(scan), scan * rings.multiplier_)
    np.testing.assert_array_equal(rings.transform(scan[3]), scan[3] * rings.multiplier_)
    np.testing.assert_allclose(rings.inverse_transform(rings.transform(scan)), scan, rtol=1e-14)
    single = scan.astype(np.float32)
    assert rings.transform(single).dtype == np.float32
    np.testing.assert_array_equal(rings.transform(single), single * rings.multiplier_.astype(np.float32))
    out = np.empty_like(scan)
    assert rings.transform(scan, out=out) is out
    np.testing.assert_array_equal(out, rings.fit_transform(scan))
    rings.transform(scan, out=scan)
    np.testing.assert_array_equal(scan, out)


def test_removes_what_is_there_and_of_the_right_sign():
    stripes = np.random.default_rng(1).normal(0, 0.01, SHAPE)
    scan = np.exp(-(0.3 + stripes)) * np.ones((N, 1, 1))
    rings = RingSuppressor(variance=np.full(SHAPE, 0.01**2), window=15).fit(scan)
    left = -np.log(rings.transform(scan)).mean(axis=0) - 0.3
    assert left.std() < 0.35 * stripes.std()


def test_a_line_detector_is_one_row():
    scan, variance = a_scan((1, 50))
    area = RingSuppressor(variance=variance).fit(scan)
    line = RingSuppressor(variance=variance[0]).fit(scan[:, 0])
    np.testing.assert_array_equal(line.multiplier_, area.multiplier_[0])
    np.testing.assert_array_equal(line.transform(scan[:, 0]), area.transform(scan)[:, 0])


values = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.floats(0, 2, width=32)


@quietly
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.data(),
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=7),
    st.just(0.0) | st.floats(1e-3, 50),
    st.sampled_from([0.5, 4.0, 40.0]),
)
def test_no_pixel_is_ever_changed_by_more_than_it_may(data, shape, n_std, window):
    scan = data.draw(hnp.arrays(np.float32, shape, elements=values))
    variances = st.floats(1e-12, 2) | st.sampled_from([0.0, np.nan, np.inf, 1e-30, 1e300])
    variance = data.draw(hnp.arrays(np.float64, shape[1:], elements=variances))
    if not np.isfinite(variance).any():
        variance[0, 0] = 0.01
    rings = RingSuppressor(variance=variance, n_std=n_std, window=window).fit(scan)
    known = np.isfinite(variance)
    change = np.abs(np.log(rings.multiplier_))
    # rounding: exp and log of a number near 1
    assert np.all(change[known] <= n_std * np.sqrt(variance[known]) * (1 + 1e-9) + 1e-15)
    assert np.all(rings.multiplier_[~known] == 1)
    assert np.all(change <= np.log(10) * (1 + 1e-9))
    assert rings.report_["largest_std_errors"] <= n_std * (1 + 1e-9)


# --- on a simulated scan ------------------------------------------------------------------------------

ANGLES = np.linspace(0, np.pi, 180, endpoint=False)
BLOB = (simulate.Ellipse(0.2, 0.1, 0.05, 0.5, 0.35, 0.3),)


def _scanned(phantom, seed):
    rng = np.random.default_rng(seed)
    detector = simulate.Detector.random((12, 128), seed=rng)
    beam = simulate.beam_profile(detector.shape, width=1.0)
    sweep = detector.record(simulate.exposure_ladder(beam, 4), rng)
    cal = DetectorCalibrator(sigma=10, method="photon").fit(sweep, dark=detector.darks(20, rng))
    flats = detector.flats(2500 * beam, 20, rng)
    return cal, flats, simulate.projections(detector, 2500 * beam, phantom, ANGLES, seed=rng)


@pytest.mark.parametrize(
    ("phantom", "at_most"), [(BLOB, 0.5), (simulate.ELLIPSES, 0.9), (simulate.CYLINDERS, 1.0)]
)
def test_rings_fall_and_true_rings_stay(phantom, at_most):
    sinogram = simulate.phantom_sinogram(phantom, ANGLES, 128)
    truth = simulate.reconstruct(sinogram, ANGLES)
    ratios = []
    for seed in range(3):
        cal, flats, scan = _scanned(phantom, seed)
        before = cal.transform(scan, flats)
        rings = RingSuppressor(cal).fit(before)
        after = rings.transform(before)
        std = cal.coef_std_ / cal.coef_
        assert np.all(np.abs(np.log(rings.multiplier_)) <= 3 * std * (1 + 1e-9))
        strengths = [
            metrics.ring_strength(simulate.reconstruct(-np.log(T[:, 6]), ANGLES), truth)
            for T in (before, after)
        ]
        ratios.append(strengths[1] / strengths[0])
    assert np.median(ratios) < at_most


def test_a_perfectly_known_detector_leaves_true_rings_alone():
    T = np.exp(-simulate.phantom_sinogram(simulate.CYLINDERS, ANGLES, 128))[:, None]
    for std in (0.0, 1e-6, 1e-3):
        rings = RingSuppressor(variance=np.full((1, 128), std**2)).fit(T)
        change = np.abs(np.log(rings.transform(T)) - np.log(T))
        assert change.max() <= 3 * std + 1e-15


def test_in_a_pipeline_behind_a_correction():
    cal, flats, scan = _scanned(BLOB, 0)
    pipeline = make_pipeline(cal.correction(flats), RingSuppressor(cal))
    expected = RingSuppressor(cal).fit_transform(cal.transform(scan, flats))
    np.testing.assert_array_equal(pipeline.fit_transform(scan), expected)
    np.testing.assert_array_equal(pipeline.transform(scan[5]), expected[5])
    np.testing.assert_array_equal(clone(pipeline).fit(scan).transform(scan), expected)


# --- what must make no difference ---------------------------------------------------------------------


@pytest.fixture
def _small_pieces(monkeypatch):
    monkeypatch.setattr(_execution, "BLOCK_PIXELS", 100)
    monkeypatch.setattr(_streaming, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(_streaming, "IN_MEMORY", 1)


@quietly
@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_and_threads_make_no_difference(spoil, dtype):
    scan, variance = spoilt(*a_scan()) if spoil else a_scan()
    scan = scan.astype(dtype)
    expected = RingSuppressor(variance=variance).fit(scan)
    for batch_size in (1, 8, 9, 16, 1000, "5 kB"):
        for n_jobs in (1, 2, 3):
            found = RingSuppressor(variance=variance, batch_size=batch_size, n_jobs=n_jobs).fit(scan)
            np.testing.assert_array_equal(found.multiplier_, expected.multiplier_)
            assert found.report_ == expected.report_
            np.testing.assert_array_equal(found.transform(scan), expected.transform(scan))


@pytest.mark.usefixtures("_small_pieces")
def test_disk_and_memory_agree(tmp_path):
    scan, variance = a_scan()
    expected = RingSuppressor(variance=variance).fit(scan)
    np.save(tmp_path / "scan.npy", scan)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=scan, chunks=(3, 6, 50))
    zarr.save(tmp_path / "scan.zarr", scan)
    with h5py.File(tmp_path / "scan.h5") as file, open_frames(tmp_path / "scan.h5") as frames:
        stacks = {
            "h5py": file["data"],
            "FrameStack": frames,
            "zarr": zarr.open(tmp_path / "scan.zarr", mode="r"),
            "memmap": np.load(tmp_path / "scan.npy", mmap_mode="r"),
            "endian": scan.astype(">f8"),
        }
        for name, stack in stacks.items():
            found = RingSuppressor(variance=variance).fit(stack)
            np.testing.assert_array_equal(found.multiplier_, expected.multiplier_, err_msg=name)
            np.testing.assert_array_equal(found.transform(stack), expected.transform(scan), err_msg=name)
        with create_frames(tmp_path / "out.h5", scan.shape, scan.dtype) as out:
            expected.transform(frames, out=out)
    with open_frames(tmp_path / "out.h5") as written:
        np.testing.assert_array_equal(written[:], expected.transform(scan))


@quietly
@pytest.mark.parametrize("chunks", [(1, 6, 50), (5, 2, 7), (37, 6, 50), ((1, 30, 6), 3, 50)])
def test_dask_agrees_and_stays_lazy(chunks):
    scan, variance = spoilt(*a_scan())
    lazy = dask.array.from_array(scan, chunks=chunks)
    expected = RingSuppressor(variance=variance).fit(scan)
    found = RingSuppressor(variance=variance).fit(lazy)
    np.testing.assert_allclose(found.multiplier_, expected.multiplier_, rtol=1e-12)
    result = found.transform(lazy)
    assert isinstance(result, dask.array.Array)
    np.testing.assert_array_equal(result.compute(), found.transform(scan))
    out = np.empty_like(scan)
    assert found.transform(lazy, out=out) is out


def test_arrays_of_another_library_stay_there():
    scan, variance = a_scan()
    expected = RingSuppressor(variance=variance).fit(scan)
    strict = array_api_strict.asarray(scan)
    found = RingSuppressor(variance=variance).fit(strict)
    np.testing.assert_allclose(found.multiplier_, expected.multiplier_, rtol=1e-12)
    result = found.transform(strict)
    assert type(result) is type(strict)
    np.testing.assert_allclose(np.asarray(result), expected.transform(scan), rtol=1e-12)


def test_parts_of_a_scan_join_to_the_whole():
    values = -np.log(a_scan()[0])
    values[[0, 9, 10, 36], 2, 3] = np.nan
    whole = scan_sums(values)
    for cuts in ([1], [10], [10, 11, 12], list(range(1, N))):
        joined = join_scans([scan_sums(part) for part in np.split(values, cuts)])
        for name, expected in whole.items():
            np.testing.assert_allclose(joined[name], expected, rtol=1e-13, err_msg=name)


# --- bad input ----------------------------------------------------------------------------------------


def test_needs_exactly_one_source_of_its_bound():
    scan, variance = a_scan()
    with pytest.raises(InputError, match=r"neither.*algotom and tomopy"):
        RingSuppressor().fit(scan)
    with pytest.raises(InputError, match="both"):
        RingSuppressor(DetectorCalibrator(), variance=variance).fit(scan)
    with pytest.raises(InputError, match="a ndarray"):
        RingSuppressor(variance).fit(scan)
    with pytest.raises(NotFittedError):
        RingSuppressor(DetectorCalibrator()).fit(scan)


def test_a_calibration_that_knows_no_error_is_refused():
    scan, _ = a_scan()
    with pytest.warns(DetectorcalWarning, match="one frame"):
        cal = DetectorCalibrator(sigma=3).fit(100 * scan[:1])
    with pytest.raises(InputError, match="sweep of more frames"):
        RingSuppressor(cal).fit(scan)


@pytest.mark.parametrize(
    ("params", "shape", "said"),
    [
        ({}, (N, 6, 49), r"\(37, 6, 49\).*\(6, 50\)"),
        ({}, SHAPE, r"\(6, 50\).*n_projections"),
        ({}, (1, *SHAPE), "at least two projections"),
        ({"window": 0}, (N, *SHAPE), "`window`"),
        ({"window": 1e9}, (N, *SHAPE), "`window`"),
        ({"n_std": -1}, (N, *SHAPE), "`n_std`"),
        ({"n_std": "many"}, (N, *SHAPE), "`n_std`"),
        ({"n_jobs": 0}, (N, *SHAPE), "`n_jobs`"),
        ({"batch_size": 0}, (N, *SHAPE), "`batch_size`"),
        ({"variance": 1e-4}, (N, *SHAPE), "np.full"),
        ({"variance": -np.ones(SHAPE)}, (N, *SHAPE), "at least 0"),
        ({"variance": np.full(SHAPE, np.nan)}, (N, *SHAPE), "no finite standard error"),
    ],
)
def test_unfit_input_is_named(params, shape, said):
    with pytest.raises(InputError, match=said):
        RingSuppressor(**({"variance": np.full(SHAPE, 1e-4)} | params)).fit(np.ones(shape))


@pytest.mark.parametrize(("level", "n_alone"), [(1.0, 0), (0.0, 300), (-0.1, 300), (np.nan, 300)])
def test_all_air_and_all_opaque_change_nothing(level, n_alone):
    rings = RingSuppressor(variance=np.full(SHAPE, 1e-4))
    scan = np.full((N, *SHAPE), level)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rings.fit(scan)
    assert [w.category for w in caught] == [DetectorcalWarning] * (n_alone > 0)
    if n_alone:
        assert "11100 of 11100 values" in str(caught[0].message)
        assert "300 of 300 pixels" in str(caught[0].message)
    np.testing.assert_array_equal(rings.multiplier_, 1)
    assert rings.report_["n_left_alone"] == n_alone
    assert rings.report_["n_changed"] == 0
    np.testing.assert_array_equal(rings.transform(scan), scan)


def test_air_with_stripes_is_levelled():
    scan, variance = a_scan()
    air = scan / np.exp(np.log(scan).mean(axis=(0, 1)))
    rings = RingSuppressor(variance=variance).fit(air)
    assert rings.report_["n_changed"] > 0.99 * air[0].size


def test_pixels_without_values_or_calibration_do_not_disturb_their_neighbours():
    scan, variance = a_scan()
    whole = RingSuppressor(variance=variance).fit(scan)
    scan[:, 2, 20] = np.nan
    scan[:, 3, 20] *= 1000  # not calibrated
    variance[3, 20] = np.nan
    with pytest.warns(DetectorcalWarning, match="37 of 11100 values.*1 of 300 pixels"):
        rings = RingSuppressor(variance=variance).fit(scan)
    assert rings.multiplier_[2, 20] == rings.multiplier_[3, 20] == 1
    assert rings.report_["n_left_alone"] == 2
    others = np.ones(SHAPE, bool)
    others[2:4, 20] = False
    assert np.abs(rings.multiplier_ - whole.multiplier_)[others].max() < 0.01


def test_defects_of_the_calibrator_are_left_alone():
    cal, flats, scan = _scanned(BLOB, 0)
    cal.coef_std_[3, 5], cal.defects_[3, 5] = np.nan, 1
    assert RingSuppressor(cal).fit(cal.transform(scan, flats)).multiplier_[3, 5] == 1


# --- scikit-learn -------------------------------------------------------------------------------------


def test_is_a_transformer_of_scikit_learn():
    cal, flats, scan = _scanned(BLOB, 0)
    T = cal.transform(scan, flats)
    rings = RingSuppressor(cal, window=5, n_std=2.0, n_jobs=2, batch_size="4 MB")
    assert rings.get_params(deep=False) == {
        "calibrator": cal, "variance": None, "window": 5, "n_std": 2.0, "n_jobs": 2, "batch_size": "4 MB",
    }  # fmt: skip
    assert rings.get_params()["calibrator__sigma"] == 10
    assert clone(rings).calibrator is cal  # and so still fitted
    assert repr(RingSuppressor(n_std=2)) == "RingSuppressor(n_std=2)"
    assert "RingSuppressor" in estimator_html_repr(rings)
    with pytest.raises(NotFittedError):
        rings.transform(T)
    assert rings.fit(T) is rings
    assert not hasattr(clone(rings), "multiplier_")
    assert rings.n_features_in_ == 12 * 128
    assert rings.n_projections_ == 180
    back = pickle.loads(pickle.dumps(rings))
    np.testing.assert_array_equal(back.transform(T), rings.transform(T))
    with pytest.raises(InputError, match=r"\(12, 128\)"):
        rings.transform(T[:, :5])


def test_is_public():
    assert "RingSuppressor" in detectorcal.__all__
    assert "Correction" in detectorcal.__all__


# --- the command line ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned():
    return _scanned(BLOB, 1)


@pytest.fixture
def files(scanned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cal, flats, scan = scanned
    cal.save("cal.h5")
    for name, frames in {"flats": flats, "scan": scan, "one": scan[:1]}.items():
        tifffile.imwrite(f"{name}.tif", frames, photometric="minisblack")
    with h5py.File("scan.h5", "w") as file:
        file["data"] = scan
    return tmp_path


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def expected_of(scanned, reject=None):
    """Give the two passes in memory."""
    cal, flats, scan = scanned
    correction = clone(cal.correction(flats)).set_params(reject=reject)
    rings = RingSuppressor(cal).fit(correction.transform(scan))
    both = Correction(correction.scale * rings.multiplier_, correction.dark, reject=reject)
    return both.transform(scan), rings


@quietly
@pytest.mark.parametrize("method", ["croton", "curved"])
@pytest.mark.parametrize(
    "options", [{}, {"reject": 8.0}, {"defects": "interpolate"}, {"defects": "nan", "invalid": "clip"}]
)
def test_raw_frames_are_corrected_on_the_way(scanned, method, options, monkeypatch):
    """Block by block, or as whole frames where neighbours count: to the last bit as if corrected before."""
    monkeypatch.setattr(_execution, "BLOCK_PIXELS", 200)  # several blocks, several frames of each
    cal, flats, scan = scanned
    sweep = np.random.default_rng(5).poisson(
        np.linspace(500, 3000, 12)[:, None, None] * np.ones(cal.coef_.shape)
    )
    mask = np.zeros(cal.coef_.shape, bool)
    mask[3, 4:6] = mask[0, 0] = True
    fitted = DetectorCalibrator(8.0, method=method, mask=mask, batch_size=8).fit(sweep, dark=0)
    correction = fitted.correction(flats).set_params(**options)
    found = RingSuppressor(correction).fit(CorrectedFrames(scan, correction))
    wanted = RingSuppressor(correction).fit(correction.transform(scan))
    np.testing.assert_array_equal(found.multiplier_, wanted.multiplier_)
    assert np.any(found.multiplier_ != 1)


@pytest.mark.parametrize("output", ["out.h5", "out.tif", "out.zarr"])
def test_command_equals_python(files, scanned, output, capsys):
    run(
        "correct",
        "scan.tif",
        "-c",
        "cal.h5",
        "--flat",
        "flats.tif",
        "--rings",
        "--batch-size",
        24,
        "-o",
        output,
    )
    expected, rings = expected_of(scanned)
    with open_frames(output) as out:
        np.testing.assert_array_equal(out[:], expected)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[-1].startswith(f"{output}: rings: {rings.report_['n_changed']} of 1536 pixels changed, by ")
    assert f"({rings.report_['median_std_errors']:.2g} standard errors) in the median" in lines[-1]
    assert printed.err == ""


def test_command_with_reject(files, scanned):
    _, flats, scan = scanned
    run(
        "correct", "scan.h5", "-c", "cal.h5", "--flat", "flats.tif", "--rings", "--reject", 8, "-o", "out.npy"
    )
    calibrator = DetectorCalibrator.load("cal.h5").set_params(reject=8.0)
    correction = calibrator.correction(flats)
    rings = RingSuppressor(calibrator).fit(correction.transform(scan))
    both = correction.set_params(scale=correction.scale * rings.multiplier_)
    np.testing.assert_array_equal(np.load("out.npy"), both.transform(scan))


def test_both_passes_show_progress(files, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    run("correct", "scan.h5", "-c", "cal.h5", "--flat", "flats.tif", "--rings", "-o", "out.h5")
    err = capsys.readouterr().err
    assert "looking for rings" in err
    assert "correcting" in err
    run("correct", "scan.h5", "-c", "cal.h5", "--flat", "flats.tif", "--rings", "-q", "-o", "quiet.h5")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [("scan.tif --rings", "`--flat`"), ("one.tif --flat flats.tif --rings", "at least two projections")],
)
def test_command_refuses_what_it_cannot_do(files, words, said, capsys):
    run("correct", *words.split(), "-c", "cal.h5", "-o", "out.h5", code=2)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not list(files.glob("out*"))


def test_command_resumes_rings_only_with_rings(files, scanned, capsys, monkeypatch):
    words = ["correct", "scan.h5", "-c", "cal.h5", "--flat", "flats.tif", "--batch-size", 8, "-o", "out.h5"]
    n_written, real = 0, _streaming.WriteBehind.write

    def stop(writer, batch, frames):
        nonlocal n_written
        n_written += 1
        if n_written > 6:
            raise KeyboardInterrupt
        real(writer, batch, frames)

    with monkeypatch.context() as patch:
        patch.setattr(_streaming.WriteBehind, "write", stop)
        run(*words, "--rings", code=130)
    assert (files / "out.h5.partial").exists()
    run(*words, "--resume", code=2)
    assert "not the same: `--rings`" in capsys.readouterr().err
    run(*words, "--resume", "--rings")
    assert "going on" in capsys.readouterr().out
    with open_frames("out.h5") as out:
        np.testing.assert_array_equal(out[:], expected_of(scanned)[0])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_command_on_a_cluster(files, scanned):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        run(
            "correct", "scan.h5", "-c", "cal.h5", "--flat", "flats.tif", "--rings", "--batch-size", 40,
            "--scheduler", cluster.scheduler_address, "-o", "out.h5",
        )  # fmt: skip
    with open_frames("out.h5") as out:
        np.testing.assert_allclose(out[:], expected_of(scanned)[0], rtol=1e-6)
