"""The functions of detectorcal 0.0.1: its signatures, its numbers where it was right, none of its defects."""

import inspect
import sys

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from detectorcal import DetectorCalibrator, DetectorcalWarning, correct_image, fit_response
from detectorcal._errors import InputError, MissingFileError, OutputExistsError

SHAPE = (20, 26)
SIGMA = 4.0
SUFFIXES = [".h5", ".hdf5", ".zarr", ".tif", ".tiff"]


@pytest.fixture(scope="module")
def gain():
    return 1 + 0.03 * np.random.default_rng(0).standard_normal(SHAPE)


@pytest.fixture(scope="module")
def dark():
    return 100 + np.random.default_rng(1).standard_normal(SHAPE)


@pytest.fixture(scope="module")
def volume(gain, dark):
    beam = np.exp(-(((np.arange(26) - 13) / 26) ** 2))
    levels = np.linspace(250, 3000, 9)[:, None, None] * beam  # some of it below the cutoff of 300
    return np.random.default_rng(2).poisson(levels * gain) + dark


@pytest.fixture(scope="module")
def coefficients(volume, dark):
    return fit_response(volume, dark, sigma=SIGMA)


@pytest.fixture(scope="module")
def ct(gain, dark):
    return np.random.default_rng(3).poisson(1500 * gain, (5, *SHAPE)) + dark


@pytest.fixture(scope="module")
def flat(gain, dark):
    return np.random.default_rng(4).poisson(2000 * gain) + dark


def fit_of_0_0_1(volume, dark, sigma=50, mode="nearest", cutoff=300, **how):
    """Follow detectorcal 0.0.1 on floating frames: smooth each, least squares at each pixel."""
    measured = volume if dark is None else volume - dark
    expected = np.stack([gaussian_filter(frame, sigma, mode=mode, **how) for frame in measured])
    fit = np.zeros(measured.shape[1:])
    for j, i in np.ndindex(fit.shape):
        used = expected[:, j, i] > cutoff
        x, y = measured[used, j, i], expected[used, j, i]
        fit[j, i] = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
    return fit


def correction_of_0_0_1(ct, coefficients, dark, flat, sigma=None, smooth_radius=50, mode="nearest", **how):
    """Follow detectorcal 0.0.1, whose flat keeps its dark."""
    corrected = (ct - dark) * coefficients
    smooth = gaussian_filter(flat, smooth_radius, mode=mode, **how)
    if sigma is None:
        return corrected / smooth
    residuals = smooth - flat * coefficients
    residuals[np.abs(residuals) < sigma * np.std(residuals)] = 0
    return corrected / (smooth - residuals)


class TestSignatures:
    OLD = (
        (
            fit_response,
            {"volume": ..., "dark": None, "save_path": None, "sigma": 50, "mode": "nearest", "cval": 0.0,
             "truncate": 4.0, "cutoff": 300, "gpu": False, "verbose": False},
        ),
        (
            correct_image,
            {"ct_volume": ..., "coefficients": ..., "dark": None, "flat": None, "save_path": None,
             "use_dask": False, "sigma": None, "smooth_radius": 50, "mode": "nearest", "cval": 0.0,
             "truncate": 4.0, "gpu": False, "verbose": False},
        ),
    )  # fmt: skip

    @pytest.mark.parametrize(("function", "arguments"), OLD)
    def test_names_order_and_defaults(self, function, arguments):
        parameters = inspect.signature(function).parameters.values()
        old = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [p.name for p in old] == list(arguments)
        assert [... if p.default is p.empty else p.default for p in old] == list(arguments.values())
        new = [p for p in parameters if p not in old]
        assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in new)
        assert {"save", "reject"} <= {p.name for p in new}


class TestNumbersOf001:
    # each of these was run against the package itself, too: they agree to 3e-15
    @pytest.mark.parametrize("mode", ["nearest", "reflect", "mirror", "wrap"])
    def test_fit(self, volume, dark, mode):
        got = fit_response(volume, dark, sigma=SIGMA, mode=mode)
        np.testing.assert_allclose(got, fit_of_0_0_1(volume, dark, SIGMA, mode), rtol=1e-6)
        assert got.dtype == np.float64
        assert got.shape == SHAPE

    def test_defaults(self, volume, dark):
        np.testing.assert_allclose(fit_response(volume, dark), fit_of_0_0_1(volume, dark), rtol=1e-6)
        np.testing.assert_allclose(fit_response(volume), fit_of_0_0_1(volume, None), rtol=1e-6)

    def test_cutoff_and_truncate(self, volume, dark):
        got = fit_response(volume, dark, sigma=SIGMA, cutoff=1000, truncate=2.0)
        wanted = fit_of_0_0_1(volume, dark, SIGMA, cutoff=1000, truncate=2.0)
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        assert np.abs(got - fit_response(volume, dark, sigma=SIGMA)).max() > 1e-3

    @pytest.mark.parametrize("sigma", [None, 1, 3.0])
    @pytest.mark.parametrize("use_dask", [False, True])
    def test_correction(self, ct, coefficients, dark, flat, sigma, use_dask):
        if use_dask:
            pytest.importorskip("dask")
        got = correct_image(ct, coefficients, dark, flat, None, use_dask, sigma, flat_has_dark=False)
        wanted = correction_of_0_0_1(ct, coefficients, dark, flat, sigma)
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-6)

    def test_correction_of_parts(self, ct, coefficients, dark):
        np.testing.assert_allclose(correct_image(ct, coefficients, dark), (ct - dark) * coefficients)
        np.testing.assert_allclose(correct_image(ct, coefficients), ct * coefficients)


class TestDefectsOf001:
    """One test for each of what 0.0.1 gets wrong."""

    def test_unsigned_frames_do_not_wrap_round(self, volume, ct, coefficients, flat):
        dark = np.full(SHAPE, 400, np.uint16)  # above some readings
        counts, images, white = (np.rint(a).astype(np.uint16) for a in (volume, ct, flat))
        counts[:, 3, 4] = 390
        with pytest.warns(DetectorcalWarning, match="1 dead"):
            got = fit_response(counts, dark, sigma=SIGMA)
        assert np.abs(got - coefficients).max() < 0.5
        images[0] = 390
        got = correct_image(images, coefficients, dark, white, flat_has_dark=True)
        np.testing.assert_allclose(
            got, correction_of_0_0_1(images.astype(float), coefficients, 400.0, white - 400.0), rtol=1e-6
        )
        assert got[0].max() < 0

    def test_integer_frames_are_not_smoothed_in_integers(self, gain):
        few = np.random.default_rng(5).poisson(np.arange(2, 30)[:, None, None] * gain)
        wanted = fit_response(few.astype(float), sigma=SIGMA, cutoff=0)
        np.testing.assert_allclose(fit_response(few.astype("u2"), sigma=SIGMA, cutoff=0), wanted, rtol=1e-5)
        np.testing.assert_allclose(wanted, fit_of_0_0_1(few.astype(float), None, SIGMA, cutoff=0), rtol=1e-6)

    @pytest.mark.parametrize(
        "how",
        [{"smooth_radius": 2.0}, {"mode": "wrap"}, {"mode": "constant", "cval": 500.0}, {"truncate": 0.5}],
        ids=str,
    )
    def test_the_smoothing_of_the_flat_is_what_was_asked_for(self, ct, coefficients, dark, flat, how):
        got = correct_image(ct, coefficients, dark, flat, flat_has_dark=False, **{"smooth_radius": 8.0} | how)
        wanted = correction_of_0_0_1(ct, coefficients, dark, flat, **{"smooth_radius": 8.0} | how)
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        plain = correct_image(ct, coefficients, dark, flat, flat_has_dark=False)
        assert np.abs(got / plain - 1).max() > 1e-4

    def test_constant_mode_leaves_the_frame_axis_alone(self, volume, dark):
        got = fit_response(volume, dark, sigma=SIGMA, mode="constant", cval=50.0)
        np.testing.assert_allclose(got, fit_of_0_0_1(volume, dark, SIGMA, "constant", cval=50.0), rtol=1e-6)

    @pytest.mark.parametrize("chunks", [(4, 20, 26), (9, 7, 11), (1, 20, 13)], ids=str)
    def test_chunks_are_not_seen(self, volume, ct, coefficients, dark, flat, chunks):
        da = pytest.importorskip("dask.array")
        lazy = da.from_array(volume, chunks=chunks)
        np.testing.assert_allclose(fit_response(lazy, dark, sigma=SIGMA), coefficients, rtol=1e-7)
        images = da.from_array(ct, chunks=chunks)
        got = correct_image(images, coefficients, dark, flat, sigma=3, flat_has_dark=True)
        wanted = correct_image(ct, coefficients, dark, flat, sigma=3, flat_has_dark=True)
        np.testing.assert_allclose(got.compute(scheduler="synchronous"), wanted, rtol=1e-12)

    def test_a_dead_pixel_is_left_as_it_is(self, volume, dark):
        broken = volume.copy()
        broken[:, 6, 7] = dark[6, 7]
        with pytest.warns(DetectorcalWarning, match="1 of 520 pixels"):
            assert fit_response(broken, dark, sigma=SIGMA)[6, 7] == 1

    def test_the_dark_is_in_the_flat_too(self, ct, coefficients, dark, flat):
        got = correct_image(ct, coefficients, dark, flat, flat_has_dark=True)
        wanted = (ct - dark) * coefficients / gaussian_filter(flat - dark, 50, mode="nearest")
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        old = correct_image(ct, coefficients, dark, flat, flat_has_dark=False)
        assert got.mean() / old.mean() == pytest.approx(2100 / 2000, rel=0.01)

    @pytest.mark.parametrize("suffix", [".tif", ".tiff"])
    def test_tiff_files_are_written(self, volume, dark, coefficients, tmp_path, suffix):
        fit_response(volume, dark, tmp_path / f"c{suffix}", SIGMA)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"c{suffix}"), coefficients)

    def test_no_dask_client_is_started(self, volume, ct, coefficients, dark, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        monkeypatch.setitem(sys.modules, "dask.distributed", None)
        fit_response(volume, dark, sigma=SIGMA)
        correct_image(ct, coefficients, dark)

    def test_nothing_is_printed_unasked(self, volume, ct, coefficients, dark, tmp_path, capfd):
        fit_response(volume, dark, tmp_path / "c.h5", SIGMA)
        correct_image(ct, coefficients, dark, save_path=tmp_path / "i.h5")
        assert capfd.readouterr() == ("", "")
        fit_response(volume, dark, sigma=SIGMA, verbose=True)
        correct_image(ct, coefficients, dark, verbose=True)
        fitted, corrected = capfd.readouterr().out.splitlines()
        assert "9 frames of (20, 26) pixels" in fitted
        assert "(5, 20, 26)" in corrected

    def test_an_image_comes_back_as_an_image(self, ct, coefficients, dark, flat):
        got = correct_image(ct[2], coefficients, dark, flat, flat_has_dark=True)
        assert got.shape == SHAPE
        stack = correct_image(ct, coefficients, dark, flat, flat_has_dark=True)
        np.testing.assert_array_equal(got, stack[2])

    @pytest.mark.parametrize(("value", "how"), [(np.nan, {}), (np.inf, {}), (1e5, {"reject": 6.0})])
    def test_a_bad_value_does_not_spread(self, volume, ct, coefficients, dark, flat, value, how):
        broken, white = volume.copy(), flat.copy()
        broken[-1, 6, 7] = white[6, 7] = value
        got = fit_response(broken, dark, sigma=SIGMA, **how)
        here = np.zeros(SHAPE, bool)
        here[6, 7] = True
        np.testing.assert_allclose(
            got[~here], fit_response(volume, dark, sigma=SIGMA, **how)[~here], rtol=1e-3
        )
        assert abs(got[6, 7] - coefficients[6, 7]) < 0.02  # from the frames that are left
        image = correct_image(ct, coefficients, dark, white, smooth_radius=SIGMA, flat_has_dark=True, **how)
        clean = correct_image(ct, coefficients, dark, flat, smooth_radius=SIGMA, flat_has_dark=True, **how)
        np.testing.assert_allclose(image, clean, rtol=2e-3)

    def test_a_hot_pixel_spreads_where_nothing_is_rejected(self, volume, coefficients, dark):
        # what the test above would not notice if rejecting did nothing
        broken = volume.copy()
        broken[-1, 6, 7] = 1e5
        with pytest.warns(DetectorcalWarning, match="1 hot"):
            got = fit_response(broken, dark, sigma=SIGMA)
        assert np.count_nonzero(np.abs(got / coefficients - 1) > 0.01) > 100

    @pytest.mark.parametrize("sigma", ["50", "a"])
    def test_text_is_no_width(self, volume, ct, coefficients, sigma):
        with pytest.raises(InputError, match="`sigma` must be a finite number above 0, got '"):
            fit_response(volume, sigma=sigma)
        with pytest.raises(InputError, match="`smooth_radius` must be a finite number above 0, got '"):
            correct_image(ct, coefficients, flat=2000.0, smooth_radius=sigma)


class TestWarnings:
    def test_of_the_flats_dark_exactly_once(self, ct, coefficients, dark, flat):
        with pytest.warns(DetectorcalWarning, match=r"0\.0\.1") as record:
            got = correct_image(ct, coefficients, dark, flat)
        assert len(record) == 1
        assert record[0].filename == __file__
        message = str(record[0].message)
        assert "`flat_has_dark=False`" in message  # how to get the old numbers
        assert "`flat_has_dark=True`" in message  # how to silence it
        # any warning is an error here: these are silent
        np.testing.assert_array_equal(got, correct_image(ct, coefficients, dark, flat, flat_has_dark=True))
        correct_image(ct, coefficients, dark, flat, flat_has_dark=False)
        correct_image(ct, coefficients, dark)
        correct_image(ct, coefficients, flat=flat)

    def test_of_a_threshold_for_nothing(self, ct, coefficients, dark):
        with pytest.warns(DetectorcalWarning, match="`sigma` .* without a `flat`"):
            got = correct_image(ct, coefficients, dark, sigma=3)
        np.testing.assert_array_equal(got, correct_image(ct, coefficients, dark))


class TestKinds:
    @pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
    def test_the_result_is_float64(self, ct, coefficients, dtype):
        images = (ct // 10).astype(dtype)
        got = correct_image(images, coefficients, 10.0)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, (images.astype(float) - 10) * coefficients, rtol=1e-12)
        assert images.dtype == np.dtype(dtype)

    def test_lists_and_stacks_on_disk(self, ct, coefficients, dark, tmp_path):
        wanted = correct_image(ct, coefficients, dark)
        np.testing.assert_array_equal(
            correct_image(ct.tolist(), coefficients.tolist(), dark.tolist()), wanted
        )
        with h5py.File(tmp_path / "ct.h5", "w") as file:
            stored = file.create_dataset("ct", data=ct)
            np.testing.assert_array_equal(correct_image(stored, coefficients, dark), wanted)

    def test_darks_and_flats_may_be_stacks(self, ct, coefficients, dark, flat):
        got = correct_image(
            ct,
            coefficients,
            np.stack([dark - 2, dark + 2]),
            np.stack([flat - 9, flat + 9]),
            flat_has_dark=True,
        )
        wanted = correct_image(ct, coefficients, dark, flat, flat_has_dark=True)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)

    def test_inputs_are_not_changed(self, volume, ct, coefficients, dark, flat):
        inputs = (volume, ct, coefficients, dark, flat)
        kept = [array.copy() for array in inputs]
        fit_response(volume, dark, sigma=SIGMA)
        correct_image(ct, coefficients, dark, flat, sigma=3, flat_has_dark=True)
        for array, copy in zip(inputs, kept, strict=True):
            np.testing.assert_array_equal(array, copy)

    @pytest.mark.parametrize("lazily", ["use_dask", "dask input"])
    @pytest.mark.parametrize("image", [False, True])
    @pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
    def test_dask(self, ct, coefficients, dark, flat, lazily, image, dtype):
        import dask
        import dask.array as da

        def poisoned(*args, **kwargs):
            raise AssertionError("computed")

        images = (ct[1] if image else ct).astype(dtype)
        with dask.config.set(scheduler=poisoned):
            if lazily == "use_dask":
                got = correct_image(images, coefficients, dark, flat, use_dask=True, flat_has_dark=True)
            else:
                got = correct_image(da.from_array(images), coefficients, dark, flat, flat_has_dark=True)
        assert isinstance(got, da.Array)
        assert got.dtype == np.float64
        assert got.shape == images.shape
        np.testing.assert_array_equal(
            got.compute(scheduler="synchronous"),
            correct_image(images, coefficients, dark, flat, flat_has_dark=True),
        )


def read(path):
    """Read an output by the library that owns the format, where 0.0.1 put it."""
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            assert list(file) == ["data"]
            return file["/data"][()]
    if path.suffix == ".zarr":
        return zarr.open_array(str(path), mode="r")[...]
    return tifffile.imread(path)


def write(path, array):
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            file["data"] = array
    elif path.suffix == ".zarr":
        zarr.create_array(str(path), data=array)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")


class TestOutputs:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("word", ["save_path", "save"])
    def test_coefficients(self, volume, dark, coefficients, tmp_path, suffix, word):
        path = tmp_path / f"out{suffix}"
        got = fit_response(volume, dark, sigma=SIGMA, **{word: path if word == "save" else str(path)})
        stored = read(path)
        assert stored.dtype == np.float64
        assert stored.shape == SHAPE
        np.testing.assert_array_equal(stored, got)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("image", [False, True])
    @pytest.mark.parametrize("use_dask", [False, True])
    def test_images(self, ct, coefficients, dark, tmp_path, suffix, image, use_dask):
        images = ct[0] if image else ct
        got = correct_image(images, coefficients, dark, save=tmp_path / f"out{suffix}", use_dask=use_dask)
        stored = read(tmp_path / f"out{suffix}")
        assert stored.shape == images.shape
        assert stored.dtype == np.float64
        np.testing.assert_array_equal(stored, np.asarray(got))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_an_earlier_one_is_replaced(self, volume, ct, coefficients, dark, tmp_path, suffix):
        path = tmp_path / f"out{suffix}"
        write(path, np.zeros((3, 4, 5), np.float32))  # 0.0.1 or anything else may have written it
        correct_image(ct, coefficients, dark, save=path)
        np.testing.assert_array_equal(read(path), correct_image(ct, coefficients, dark))
        fit_response(volume, dark, sigma=SIGMA, save=path)
        np.testing.assert_array_equal(read(path), coefficients)

    def test_other_datasets_are_not_destroyed(self, volume, ct, coefficients, dark, tmp_path):
        path = tmp_path / "scan.h5"
        with h5py.File(path, "w") as file:
            file["data"] = np.ones((2, 3))
            file["entry/raw"] = np.arange(5)
        before = path.read_bytes()
        for use in (
            lambda: fit_response(volume, dark, sigma=SIGMA, save_path=path),
            lambda: correct_image(ct, coefficients, dark, save=path),
        ):
            with pytest.raises(OutputExistsError, match=r"scan\.h5.*something else.*Choose another name"):
                use()
        assert path.read_bytes() == before

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_nor_is_a_calibration(self, volume, dark, tmp_path, suffix):
        path = tmp_path / f"cal{suffix}"
        cal = DetectorCalibrator(3).fit(volume, dark)
        cal.save(path)
        with pytest.raises(OutputExistsError, match="Choose another name"):
            fit_response(volume, dark, sigma=SIGMA, save=path)
        np.testing.assert_array_equal(DetectorCalibrator.load(path).coef_, cal.coef_)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_nor_what_is_no_such_file_at_all(self, volume, tmp_path, suffix):
        path = tmp_path / f"notes{suffix}"
        path.write_text("dear diary")
        with pytest.raises(OutputExistsError, match="Choose another name"):
            fit_response(volume, sigma=SIGMA, save=path)
        assert path.read_text() == "dear diary"
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        (folder / "thesis.txt").write_text("the only copy")
        with pytest.raises(OutputExistsError, match="Choose another name"):
            fit_response(volume, sigma=SIGMA, save=folder)
        assert (folder / "thesis.txt").read_text() == "the only copy"

    def test_an_unusable_name_is_refused_before_any_work(self, tmp_path):
        class Untouched:
            shape, dtype = (3, *SHAPE), np.dtype("u2")

            def __getitem__(self, index):
                raise AssertionError("read")

        ones = np.ones(SHAPE)
        for name, error, match in (
            ("out.npy", InputError, r"`save` must end in \.h5, .*out\.npy"),
            ("out", InputError, "`save` must end in"),
            (7, InputError, "`save` must be text or a path, got 7"),
            (tmp_path / "nowhere" / "out.h5", MissingFileError, "nowhere.* does not exist"),
        ):
            with pytest.raises(error, match=match):
                fit_response(Untouched(), save=name)
            with pytest.raises(error, match=match):
                correct_image(Untouched(), ones, save=name)
        with pytest.raises(InputError, match="`save_path` and `save` name the same output"):
            fit_response(Untouched(), save_path=tmp_path / "a.h5", save=tmp_path / "b.h5")
        with pytest.raises(InputError, match="`save_path` must end in"):
            fit_response(Untouched(), save_path="out.png")
