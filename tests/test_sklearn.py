"""The scikit-learn contract: its own suite, and every composition that users of it expect to work."""

import pickle

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from detectorcal import Correction, DetectorcalError, DetectorCalibrator, simulate
from detectorcal.kernels.model import StraightLine
from detectorcal.kernels.uncertainty import Uncertainty

ESTIMATORS = [
    DetectorCalibrator(),
    DetectorCalibrator(method="photon"),
    DetectorCalibrator(method="curved"),
    DetectorCalibrator(sigma=2.0, reject=6.0),
]
FITTED = ("coef_", "coef_std_", "dark_", "defects_")

# the suite's data are no sweeps: pixels that cannot be calibrated are expected
quietly = pytest.mark.filterwarnings("ignore::detectorcal.DetectorcalWarning")


def flatten(images):
    return images.reshape(len(images), -1)


@pytest.fixture(scope="module")
def detector():
    return simulate.Detector.random((24, 30), prnu=0.03, seed=1)


@pytest.fixture(scope="module")
def sweep(detector):
    return detector.record(simulate.exposure_ladder(simulate.beam_profile(detector.shape, width=2.0), 24), 2)


@pytest.fixture(scope="module")
def dark(detector):
    return detector.darks(8, seed=3).mean(axis=0)


@pytest.fixture(scope="module")
def flat(detector):
    return detector.flats(np.full(detector.shape, 2000.0), 8, seed=4).mean(axis=0)


@pytest.fixture(scope="module")
def cal(sweep, dark):
    return DetectorCalibrator(sigma=5).fit(sweep, dark)


def assert_same_fit(one, other):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.get_params() == other.get_params()


@quietly
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_own_check(estimator, check):
    check(estimator)


@quietly
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["croton", "photon", "curved", "reject"])
def test_the_suite_really_runs(estimator):
    # an estimator tagged for 3-D input alone is given one check, and stays green
    results = check_estimator(estimator, on_skip=None)
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert len(passed) > 40
    assert {"check_fit2d_predict1d", "check_transformer_general", "check_methods_subset_invariance"} <= passed
    assert {result["status"] for result in results} <= {"passed", "skipped"}


def test_clone_keeps_parameters_and_forgets_the_fit(cal):
    params = {
        "sigma": 3, "method": "photon", "mode": "reflect", "cval": 1.0, "truncate": 3.0, "cutoff": 5.0,
        "saturation": 4000.0, "reject": 6.0, "detector_shape": (24, 30), "batch_size": 8, "n_jobs": 2,
            "device": "cpu", "system_gain": 0.5, "read_noise": 2.0, "mask": None,
    }  # fmt: skip
    regions = np.ones((24, 30), int)
    found = clone(DetectorCalibrator(**params, regions=regions)).get_params()
    np.testing.assert_array_equal(found.pop("regions"), regions)
    assert found == params
    assert not hasattr(clone(cal), "coef_")


def test_grid_search_finds_a_sensible_sigma():
    detector = simulate.Detector.random((96, 120), prnu=0.02, seed=1)
    beam = simulate.beam_profile(detector.shape, width=2.0)
    sweep = detector.record(simulate.exposure_ladder(beam, 24, lowest=1000), seed=2)
    dark = detector.darks(8, seed=3)
    search = GridSearchCV(
        DetectorCalibrator(), {"sigma": [0.5, 2.0, 15.0, 150.0]}, cv=KFold(3), error_score="raise"
    ).fit(sweep, dark=dark)
    assert search.best_params_ == {"sigma": 15.0}
    error = {
        sigma: np.std(DetectorCalibrator(sigma).fit(sweep, dark=dark).coef_ * detector.gain)
        for sigma in (0.5, 15.0, 150.0)
    }
    assert error[15.0] < 0.6 * error[0.5]
    assert error[15.0] < 0.6 * error[150.0]
    assert np.std(search.best_estimator_.coef_ * detector.gain) == pytest.approx(error[15.0])


@pytest.mark.parametrize("method", ["croton", "photon", "curved"])
def test_score_knows_better_from_worse(detector, sweep, dark, method):
    cal = DetectorCalibrator(10, method=method).fit(sweep[::2], dark)
    untrained = clone(cal).fit(sweep[::2], dark)
    untrained.coef_ = np.ones_like(cal.coef_)
    wrong = clone(cal).fit(sweep[::2], dark)
    wrong.coef_ = 1 / cal.coef_
    assert untrained.score(sweep[1::2]) == 0
    assert wrong.score(sweep[1::2]) < -1
    assert 0.8 < cal.score(sweep[1::2]) < 1


def test_cross_validation_cuts_a_dark_and_is_told_so(dark, sweep):
    assert len(sweep) == len(dark)
    cal = DetectorCalibrator(sigma=5)
    with pytest.raises(
        ValueError, match=r"`dark` has shape \(16, 30\).*\(24, 30\).*cross-validation.*`dark\[None\]`"
    ):
        cross_validate(cal, sweep, params={"dark": dark}, cv=3, error_score="raise")
    scores = cross_validate(cal, sweep, params={"dark": dark[None]}, cv=3, error_score="raise")
    assert np.all(scores["test_score"] > 0.5)


def test_output_is_never_wrapped(cal, sweep):
    assert not hasattr(cal, "set_output")
    assert not hasattr(cal, "get_feature_names_out")
    with sklearn.config_context(transform_output="pandas"):
        assert type(cal.transform(sweep)) is np.ndarray
        assert type(cal.correction().transform(sweep)) is np.ndarray
        assert type(clone(cal).fit_transform(sweep)) is np.ndarray


class TestRouting:
    @pytest.fixture(autouse=True)
    def _routing(self):
        with sklearn.config_context(enable_metadata_routing=True):
            yield

    @pytest.fixture
    def pipeline(self):
        cal = DetectorCalibrator(sigma=5)
        cal.set_fit_request(dark=True).set_transform_request(flat=True, sigma=True, dark=True)
        return Pipeline([("cal", cal), ("flatten", FunctionTransformer(flatten))])

    def test_fit(self, pipeline, sweep, dark, cal):
        assert_same_fit(pipeline.fit(sweep, dark=dark)["cal"], cal)

    def test_fit_as_the_last_step(self, sweep, dark, cal):
        last = Pipeline([("cal", DetectorCalibrator(sigma=5).set_fit_request(dark=True))])
        assert_same_fit(last.fit(sweep, dark=dark)["cal"], cal)

    def test_fit_transform(self, pipeline, sweep, dark, flat, cal):
        got = pipeline.fit_transform(sweep, dark=dark, flat=flat, sigma=3.0)
        np.testing.assert_array_equal(got, flatten(cal.transform(sweep, flat, 3.0)))

    def test_transform(self, pipeline, sweep, dark, flat, cal):
        pipeline.fit(sweep, dark=dark)
        got = pipeline.transform(sweep, flat=flat, sigma=3.0, dark=dark + 1)
        np.testing.assert_array_equal(got, flatten(cal.transform(sweep, flat, 3.0, dark=dark + 1)))
        assert not np.array_equal(got, flatten(cal.transform(sweep, flat, 3.0)))

    def test_grid_search(self, sweep, dark):
        cal = DetectorCalibrator().set_fit_request(dark=True).set_score_request(dark=True)
        search = GridSearchCV(cal, {"sigma": [1.0, 10.0]}, cv=3, error_score="raise")
        assert search.fit(sweep, dark=dark[None]).best_params_ == {"sigma": 10.0}


def test_pipeline_without_routing(sweep, dark, flat, cal):
    pipeline = Pipeline([("cal", DetectorCalibrator(sigma=5)), ("flatten", FunctionTransformer(flatten))])
    assert_same_fit(pipeline.fit(sweep, cal__dark=dark)["cal"], cal)
    np.testing.assert_array_equal(pipeline.transform(sweep), flatten(cal.transform(sweep)))
    np.testing.assert_array_equal(
        clone(pipeline).fit_transform(sweep, cal__dark=dark, cal__flat=flat),
        flatten(cal.transform(sweep, flat)),
    )


def test_fit_transform_is_fit_then_transform(sweep, dark, flat, cal):
    np.testing.assert_array_equal(clone(cal).fit_transform(sweep, dark), cal.transform(sweep))
    np.testing.assert_array_equal(
        clone(cal).fit_transform(sweep, dark=dark, flat=flat, sigma=2.0), cal.transform(sweep, flat, 2.0)
    )


@pytest.fixture(scope="module")
def labelled(detector):
    """Images with a brighter left or right half, by no more than the pixels differ; and which."""
    labels = np.arange(40) % 2
    half = np.where(np.arange(30) < 15, 1.02, 1.0)
    levels = 1500.0 * np.where(labels[:, None, None], half, half[::-1])
    return detector.record(np.broadcast_to(levels, (40, *detector.shape)), seed=5), labels


@pytest.fixture
def classifier():
    return make_pipeline(FunctionTransformer(flatten), FunctionTransformer(np.log), LogisticRegression(C=1e4))


def test_a_frozen_calibrator_among_images_and_labels(cal, classifier, labelled):
    images, labels = labelled
    pipeline = Pipeline([("cal", FrozenEstimator(cal)), *classifier.steps]).fit(images, labels)
    assert pipeline.score(images, labels) == 1.0
    assert pipeline["cal"].estimator is cal
    np.testing.assert_array_equal(pipeline["cal"].transform(images), cal.transform(images))
    assert cal.n_frames_seen_ == 24  # it did not learn from the images


def test_a_correction_among_images_and_labels(cal, flat, classifier, labelled):
    images, labels = labelled
    correction = cal.correction(flat)
    pipeline = Pipeline([("correct", correction), *classifier.steps])
    search = GridSearchCV(pipeline, {"correct__reject": [None, 6.0]}, cv=2, error_score="raise")
    search.fit(images, labels)
    assert search.best_score_ == 1.0
    fitted = search.best_estimator_["correct"]
    assert fitted is not correction
    np.testing.assert_array_equal(fitted.scale, correction.scale)
    np.testing.assert_array_equal(
        fitted.set_params(reject=None).transform(images), cal.transform(images, flat)
    )


def test_correction_clones(cal, flat, sweep):
    correction = cal.correction(flat, 3.0)
    copy = clone(correction)
    assert copy.scale is not correction.scale
    np.testing.assert_array_equal(copy.transform(sweep), cal.transform(sweep, flat, 3.0))
    np.testing.assert_array_equal(copy.fit(sweep).transform(sweep), correction.fit_transform(sweep))


def skops_round_trip(estimator):
    from skops import io

    data = io.dumps(estimator)
    trusted = io.get_untrusted_types(data=data)
    own = [type(estimator), *([StraightLine, Uncertainty] if isinstance(estimator, Correction) else [])]
    assert trusted == [f"{kind.__module__}.{kind.__name__}" for kind in own]
    return io.loads(data, trusted=trusted)


def joblib_round_trip(estimator, path):
    joblib.dump(estimator, path)
    return joblib.load(path)


@pytest.mark.parametrize("way", ["pickle", "joblib", "skops"])
def test_round_trips(cal, flat, sweep, way, tmp_path):
    trip = {
        "pickle": lambda e: pickle.loads(pickle.dumps(e)),
        "joblib": lambda e: joblib_round_trip(e, tmp_path / "cal.joblib"),
        "skops": skops_round_trip,
    }[way]
    back = trip(cal)
    assert type(back) is DetectorCalibrator
    assert_same_fit(back, cal)
    more = back.partial_fit(sweep[:3])
    assert more.n_frames_seen_ == cal.n_frames_seen_ + 3
    correction = cal.correction(flat)
    again = trip(correction)
    assert type(again) is Correction
    np.testing.assert_array_equal(again.transform(sweep), correction.transform(sweep))


def test_html_representation(cal, flat):
    new, fitted = DetectorCalibrator(sigma=7.25), cal
    assert "DetectorCalibrator" in new._repr_html_()
    assert "7.25" in new._repr_html_()
    assert "Not fitted" in estimator_html_repr(new)
    assert "Not fitted" not in estimator_html_repr(fitted)
    assert "Correction" in estimator_html_repr(make_pipeline(cal.correction(flat)))
    assert repr(new) == "DetectorCalibrator(sigma=7.25)"


class TestFlattenedRows:
    def test_rows_are_frames(self, sweep, dark, flat, cal):
        rows = DetectorCalibrator(sigma=5, detector_shape=(24, 30))
        pipeline = make_pipeline(rows).fit(flatten(sweep), detectorcalibrator__dark=dark.ravel())
        for name in FITTED:
            np.testing.assert_array_equal(getattr(rows, name), getattr(cal, name))
        assert rows.n_features_in_ == 720
        np.testing.assert_array_equal(pipeline.transform(flatten(sweep)), flatten(cal.transform(sweep)))
        np.testing.assert_array_equal(rows.transform(sweep, flat), cal.transform(sweep, flat))
        np.testing.assert_array_equal(
            rows.correction(flat.ravel()).transform(flatten(sweep)), flatten(cal.transform(sweep, flat))
        )
        assert rows.score(flatten(sweep)) == cal.score(sweep)

    def test_darks_per_frame(self, sweep, dark):
        darks = np.broadcast_to(dark, sweep.shape) + np.arange(len(sweep))[:, None, None]
        area = DetectorCalibrator(5).fit(sweep, dark=darks, dark_per_frame=True)
        rows = DetectorCalibrator(5, detector_shape=(24, 30))
        rows.fit(flatten(sweep), dark=flatten(darks), dark_per_frame=True)
        np.testing.assert_array_equal(rows.coef_, area.coef_)

    def test_wrong_rows_are_named_with_both_shapes(self, sweep):
        rows = DetectorCalibrator(sigma=5, detector_shape=(24, 30))
        with pytest.raises(DetectorcalError, match=r"\(719,\).*\(24, 30\).*720 pixels"):
            rows.fit(flatten(sweep)[:, 1:])
        rows.fit(flatten(sweep))
        with pytest.raises(DetectorcalError, match=r"\(24, 719\).*\(24, 30\).*719 features"):
            rows.transform(flatten(sweep)[:, 1:])

    def test_column_names_of_a_data_frame(self, sweep, cal, tmp_path):
        pandas = pytest.importorskip("pandas")
        names = [f"pixel {i}" for i in range(720)]
        table = pandas.DataFrame(flatten(sweep), columns=names)
        rows = DetectorCalibrator(sigma=5, detector_shape=(24, 30)).fit(table)
        assert list(rows.feature_names_in_) == names
        np.testing.assert_allclose(rows.coef_, DetectorCalibrator(sigma=5).fit(sweep).coef_, rtol=1e-6)
        rows.save(tmp_path / "cal.h5")
        for one in (rows, DetectorCalibrator.load(tmp_path / "cal.h5")):
            assert type(one.transform(table)) is np.ndarray
            with pytest.raises(DetectorcalError, match="feature names"):
                one.transform(table[names[::-1]])
            with pytest.warns(UserWarning, match="valid feature names"):
                one.transform(flatten(sweep))
        rows.fit(flatten(sweep))
        assert not hasattr(rows, "feature_names_in_")
