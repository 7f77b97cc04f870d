"""Bad input: every message names the argument, what was wanted and what came. Odd but good input works."""

import warnings

import numpy as np
import pytest

from detectorcal import (
    DetectorcalError,
    DetectorCalibrator,
    DetectorcalWarning,
    correct_image,
    fit_response,
)
from detectorcal._errors import (
    FileFormatError,
    InputError,
    InputTypeError,
    MissingFileError,
    OutputExistsError,
)
from detectorcal.io import open_frames

SHAPE = (6, 7)
N_FRAMES = 9


@pytest.fixture(scope="module")
def sweep():
    rng = np.random.default_rng(0)
    gain = 1 + 0.05 * rng.standard_normal(SHAPE)
    return rng.poisson(np.linspace(300, 3000, N_FRAMES)[:, None, None] * gain).astype(np.uint16)


@pytest.fixture(scope="module")
def cal(sweep):
    return DetectorCalibrator(2).fit(sweep)


def fit(sweep, **params):
    return DetectorCalibrator(2).set_params(**params).fit(sweep)


class Lazy:
    """Something that is read by slicing, but must not be."""

    def __init__(self, shape, dtype="u2"):
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, index):
        raise AssertionError("read")


@pytest.mark.parametrize("kind", [np.zeros, Lazy], ids=["array", "stack on disk"])
@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((9, 6, 7, 1), "must be a sweep"),
        ((7,), r"must be a sweep.*`frame\[None\]`"),
        ((), "must be a sweep"),
        ((0, 6, 7), "is empty"),
        ((9, 0, 7), "is empty"),
        ((9, 6, 0), "is empty"),
        ((9, 0), "is empty"),
    ],
    ids=str,
)
def test_shape_of_a_sweep(kind, shape, wanted):
    with pytest.raises(InputError, match=f"`X` {wanted}") as caught:
        DetectorCalibrator(2).fit(kind(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("kind", [np.zeros, Lazy], ids=["array", "stack on disk"])
@pytest.mark.parametrize("shape", [(5, 7), (9, 5, 7), (9, 6, 8), (2, 9, 7, 6), (42,), (9, 42), (7,)], ids=str)
@pytest.mark.parametrize("use", ["transform", "inverse_transform", "score", "correction"])
def test_shape_of_images(cal, kind, shape, use):
    do = cal.correction().transform if use == "correction" else getattr(cal, use)
    with pytest.raises(InputError) as caught:
        do(kind(shape))
    for part in (f"`X` has shape {shape}", "detector of shape (6, 7)", "(..., 6, 7)"):
        assert part in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 6, 7), (9, 6, 0)])
def test_no_images(cal, shape):
    with pytest.raises(InputError, match="`X` is empty"):
        cal.transform(np.zeros(shape))


@pytest.mark.parametrize("name", ["dark", "flat"])
@pytest.mark.parametrize("kind", [np.zeros, Lazy], ids=["array", "stack on disk"])
@pytest.mark.parametrize("shape", [(6, 8), (7, 6), (3, 6, 8), (2, 3, 6, 7), (7,), (42,)], ids=str)
def test_shape_of_dark_and_flat(cal, sweep, name, kind, shape):
    with pytest.raises(InputError) as caught:
        cal.transform(sweep, **{name: kind(shape)})
    for part in (f"`{name}` has shape {shape}", "this calibration", "(6, 7)"):
        assert part in str(caught.value)
    if name == "dark":
        with pytest.raises(InputError) as caught:
            DetectorCalibrator(2).fit(sweep, dark=kind(shape))
        assert str(caught.value).startswith(
            f"`dark` has shape {shape}, but the frames of `X` have shape (6, 7)."
        )


@pytest.mark.parametrize("shape", [(6, 7), (8, 6, 7), (9, 6, 8), (9, 42)], ids=str)
def test_shape_of_darks_per_frame(sweep, shape):
    with pytest.raises(InputError) as caught:
        DetectorCalibrator(2).fit(sweep, dark=np.zeros(shape), dark_per_frame=True)
    for part in ("`dark`", str(shape), "(9, 6, 7)", "`dark_per_frame=True`"):
        assert part in str(caught.value)


def test_no_darks_per_frame(sweep):
    with pytest.raises(InputError, match=r"`dark_per_frame=True`.*\(9, 6, 7\).*`dark=`"):
        DetectorCalibrator(2).fit(sweep, dark_per_frame=True)
    with pytest.raises(InputError, match=r"`dark`.*\(\).*\(9, 6, 7\)"):
        DetectorCalibrator(2).fit(sweep, dark=100, dark_per_frame=True)


def test_a_dark_cut_by_cross_validation_is_told_so(sweep):
    # cross-validation is proved in test_sklearn.py; here, that other mistakes are not blamed on it
    fit = DetectorCalibrator(2).fit
    with pytest.raises(InputError, match=r"cut to 4 rows by cross-validation.*`dark\[None\]`"):
        fit(sweep, dark=np.zeros((4, 7)))
    for shape in ((8, 7), (4, 8), (4, 4, 7)):
        with pytest.raises(InputError, match="frames of `X`") as caught:
            fit(sweep, dark=np.zeros(shape))
        assert "cross-validation" not in str(caught.value)


NOT_NUMBERS = {
    "text": (lambda shape: np.full(shape, "a"), "<U1"),
    "bytes": (lambda shape: np.full(shape, b"a"), "S1"),
    "complex": (lambda shape: np.ones(shape, complex), "complex128"),
    "times": (lambda shape: np.zeros(shape, "M8[s]"), r"datetime64\[s\]"),
    "records": (lambda shape: np.zeros(shape, [("a", "u2")]), r"\('a', '<u2'\)"),
    "dicts": (lambda shape: np.full(shape, {}), "dict"),
    "texts as objects": (lambda shape: np.full(shape, "a", object), "string"),
    "lists of text": (lambda shape: np.full(shape, "a").tolist(), "strings|U1"),
    "lists of complex": (lambda shape: np.ones(shape, complex).tolist(), "[Cc]omplex"),
    "on disk": (lambda shape: Lazy(shape, "c8"), "complex64"),
    "ragged": (lambda shape: [[1, 2], [3]], "inhomogeneous|regular"),
    "a set": (lambda shape: {1, 2}, "object"),
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
def test_what_is_no_number(cal, sweep, kind):
    make, came = NOT_NUMBERS[kind]
    with pytest.raises(InputError, match=f"`X` must hold real numbers.*({came})"):
        DetectorCalibrator(2).fit(make(sweep.shape))
    with pytest.raises(InputError, match=f"`X` must hold real numbers.*({came})"):
        cal.transform(make(sweep.shape))
    for name in ("dark", "flat"):
        with pytest.raises(InputError, match=f"`{name}` must hold real numbers.*({came})"):
            cal.transform(sweep, **{name: make(SHAPE)})
    with pytest.raises(InputError, match=f"`dark` must hold real numbers.*({came})"):
        DetectorCalibrator(2).fit(sweep, dark=make(sweep.shape), dark_per_frame=True)


def test_a_sparse_matrix():
    from scipy import sparse

    with pytest.raises(InputError, match=r"`X` must hold real numbers.*[Ss]parse"):
        DetectorCalibrator(2).fit(sparse.csr_matrix(np.eye(5)))


@pytest.mark.parametrize("name", ["dark", "flat"])
@pytest.mark.parametrize("number", [True, np.True_, np.nan, np.inf, 1j, "100", np.array(np.nan)], ids=repr)
def test_a_number_that_is_none(cal, sweep, name, number):
    with pytest.raises(InputError, match=f"`{name}` must"):
        cal.transform(sweep, **{name: number})


POSITIVE = [0, -1.5, np.nan, np.inf, -np.inf, "50", None, True, [50], 1j, 10**400]
PARAMS = [
    *(("sigma", value, "a finite number above 0") for value in POSITIVE),
    *(("truncate", value, "a finite number above 0") for value in POSITIVE),
    *(("cutoff", value, "a finite number of at least 0") for value in POSITIVE[1:]),
    *(("cval", value, "a finite number") for value in POSITIVE[2:]),
    *(("saturation", value, "a finite number or None") for value in POSITIVE[2:] if value is not None),
    *(("reject", value, "a finite number above 0 or None") for value in POSITIVE if value is not None),
    *(("method", value, "'croton', 'photon'") for value in ("Croton", "line", None, 1, ["croton"])),
    *(("mode", value, "'nearest', 'reflect'") for value in ("edge", "", None, 0)),
    *(("n_jobs", value, "a number of threads") for value in (0, 1.5, "2", True)),
    *(
        ("batch_size", value, "a whole number of at least 1")
        for value in (0, -8, 2.5, "8", "8 TB", "0 MB", "-1 MB", True)
    ),
    *(("device", value, "None, 'cpu', 'cuda'") for value in ("gpu", "cuda:0", "", 0, True, ["cuda"])),
    *(
        ("detector_shape", value, r"\(width,\) or \(height, width\)")
        for value in (7, (6.0, 7), (0, 7), (), (9, 6, 7), "67", (True, 7), {6, 7}, np.array(6))
    ),
]


@pytest.mark.parametrize(("name", "value", "wanted"), PARAMS, ids=str)
def test_parameters(sweep, name, value, wanted):
    with pytest.raises(
        InputError, match=f"^`{name}` must be .*{wanted}.*, got|`{name}`.*{wanted}.*; got"
    ) as e:
        fit(sweep, **{name: value})
    assert repr(value) in str(e.value)


@pytest.mark.parametrize("value", [np.float32(2), np.int64(2), np.array(2.0), 2], ids=repr)
def test_numbers_of_numpy_are_numbers(sweep, cal, value):
    np.testing.assert_allclose(fit(sweep, sigma=value).coef_, cal.coef_)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "3", True])
def test_threshold_of_transform(cal, sweep, value):
    with pytest.raises(InputError, match="`sigma` must be a finite number of at least 0 or None, got"):
        cal.transform(sweep, 2000.0, value)


def test_threshold_without_a_flat(cal, sweep):
    with pytest.raises(InputError, match=r"`sigma` .* needs a `flat`"):
        cal.transform(sweep, sigma=3)


def test_files(cal, sweep, tmp_path):
    missing = tmp_path / "none.h5"
    with pytest.raises(MissingFileError, match=r"none\.h5"):
        DetectorCalibrator.load(missing)
    with pytest.raises(MissingFileError, match="nowhere"):
        cal.save(tmp_path / "nowhere" / "cal.h5")
    for name in ("cal.npy", "cal", "cal.h6"):
        for use in (cal.save, DetectorCalibrator.load):
            with pytest.raises(InputError, match=r"\.h5, \.hdf5, \.zarr, \.tif, \.tiff.*cal"):
                use(tmp_path / name)
    folder = tmp_path / "folder.h5"
    folder.mkdir()
    with pytest.raises(FileFormatError, match=r"folder\.h5 is a folder"):
        DetectorCalibrator.load(folder)
    with pytest.raises((InputError, OutputExistsError), match=r"folder\.h5"):
        cal.save(folder, overwrite=True)
    text = tmp_path / "text.h5"
    text.write_text("no calibration")
    with pytest.raises(FileFormatError, match=r"text\.h5"):
        DetectorCalibrator.load(text)
    with pytest.raises(OutputExistsError, match=r"text\.h5.*`overwrite=True`"):
        cal.save(text)
    assert text.read_text() == "no calibration"
    np.save(tmp_path / "sweep.npy", sweep)
    with pytest.raises(MissingFileError, match="none"), open_frames(missing) as frames:
        fit(frames)


def test_every_error_is_also_the_builtin_one():
    with pytest.raises(ValueError, match="sigma"):
        fit(np.ones((2, 3, 4)), sigma=-1)
    with pytest.raises(FileNotFoundError):
        DetectorCalibrator.load("no such file.h5")
    with pytest.raises(TypeError, match="dict"):
        fit(np.full((2, 3, 4), {}))
    assert issubclass(InputError, DetectorcalError)


@pytest.mark.parametrize("name", ["volume", "dark", "sigma", "mode", "cutoff", "truncate", "cval"])
def test_fit_response_names_its_own_arguments(sweep, name):
    with pytest.raises(InputError, match=f"`{name}`") as caught:
        fit_response(**{"volume": sweep, "sigma": 2, name: "a"})
    assert "`X`" not in str(caught.value)
    with pytest.raises(InputError, match=r"`dark` has shape \(7, 6\).*frames of `volume` .*\(6, 7\)"):
        fit_response(sweep, np.zeros((7, 6)))


@pytest.mark.parametrize(
    "name",
    ["ct_volume", "coefficients", "dark", "flat", "sigma", "smooth_radius", "mode", "truncate", "cval"],
)
def test_correct_image_names_its_own_arguments(cal, sweep, name):
    arguments = {"ct_volume": sweep, "coefficients": cal.coef_, "flat": 2000.0, "flat_has_dark": True}
    for bad in ("a", 1j):
        with pytest.raises(InputError, match=f"`{name}`") as caught:
            correct_image(**{**arguments, name: np.full((2, *SHAPE), bad) if "_vol" in name else bad})
        assert "`X`" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [("ct_volume", (3, 6, 8)), ("dark", (7, 6)), ("flat", (3, 3))])
def test_correct_image_names_both_shapes(cal, sweep, name, shape):
    arguments = {"ct_volume": sweep, "coefficients": cal.coef_, name: np.ones(shape)}
    with pytest.raises(InputError) as caught:
        correct_image(**arguments)
    assert f"`{name}` has shape {shape}" in str(caught.value)
    assert "(6, 7)" in str(caught.value)
    with pytest.raises(InputError, match=r"`coefficients` must be a map.*\(1, 6, 7\)"):
        correct_image(sweep, cal.coef_[None])


INTEGERS = ["u1", "u2", "i4", "i8", "u8"]
FLOATS = ["f2", "f4", "f8", "g"]


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("method", ["croton", "photon", "curved"])
def test_dtypes_agree(sweep, dtype, method):
    counts = sweep // 13  # fits into 8 bits, and exactly into 16-bit floats
    dark = np.full(SHAPE, 7, np.uint8)
    wanted = DetectorCalibrator(2, method=method).fit(counts.astype(float), dark)
    got = DetectorCalibrator(2, method=method).fit(counts.astype(dtype), dark.astype(dtype))
    np.testing.assert_allclose(got.coef_, wanted.coef_, rtol=1e-5)
    np.testing.assert_array_equal(got.dark_, wanted.dark_)
    np.testing.assert_allclose(
        got.transform(counts.astype(dtype)), wanted.transform(counts.astype(float)), rtol=1e-5, atol=1e-5
    )


def test_truth_values_are_numbers(sweep):
    masks = sweep > sweep.mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DetectorcalWarning)
        got, wanted = fit(masks), fit(masks.astype(float))
    np.testing.assert_allclose(got.coef_, wanted.coef_, rtol=1e-5)


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", ">f8"])
def test_byte_orders_are_the_same_to_the_bit(sweep, dtype):
    native = np.dtype(dtype).newbyteorder("=")
    dark = np.full(SHAPE, 100, dtype)
    got = DetectorCalibrator(2).fit(sweep.astype(dtype), dark)
    wanted = DetectorCalibrator(2).fit(sweep.astype(native), dark.astype(native))
    np.testing.assert_array_equal(got.coef_, wanted.coef_)
    corrected = got.transform(sweep.astype(dtype), sweep[-1].astype(dtype))
    np.testing.assert_array_equal(corrected, wanted.transform(sweep.astype(native), sweep[-1].astype(native)))
    assert corrected.dtype.isnative


def fortran(array):
    return np.asfortranarray(array)


def reversed_view(array):
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


def every_second(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("layout", [fortran, reversed_view, every_second])
def test_memory_orders_agree(sweep, cal, layout):
    dark, flat = np.full(SHAPE, 100.0), sweep[-1]
    assert not layout(sweep).flags.c_contiguous
    got = DetectorCalibrator(2).fit(layout(sweep), layout(dark))
    wanted = DetectorCalibrator(2).fit(sweep, dark)
    np.testing.assert_allclose(got.coef_, wanted.coef_, rtol=1e-6)
    np.testing.assert_allclose(
        wanted.transform(layout(sweep), layout(flat)), wanted.transform(sweep, flat), rtol=1e-6
    )


@pytest.mark.filterwarnings("ignore:.*frames take no part")
def test_unsigned_numbers_do_not_wrap_round(sweep):
    dark = np.full(SHAPE, 400, np.uint16)  # above the dimmest frames
    assert (sweep < 400).any()
    got = DetectorCalibrator(2).fit(sweep, dark).transform(sweep)
    assert got.max() < 5000
    assert got.min() < 0


def test_a_gaussian_wider_than_any_detector_is_refused():
    with pytest.raises(InputError, match="`sigma` times `truncate`"):
        DetectorCalibrator(1e8).fit(np.ones((3, 4, 4)))


def test_a_file_name_is_no_array(tmp_path):
    for name in ("sweep.tif", tmp_path / "sweep.tif"):
        with pytest.raises(InputTypeError, match="open_frames"):
            DetectorCalibrator().fit(name)
