"""scikit-learn's callbacks are told of each batch of a fit, and cost nothing where there are none."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from detectorcal import DetectorCalibrator, DetectorcalWarning
from detectorcal._errors import MissingDependencyError

SWEEP = np.random.default_rng(0).poisson(np.linspace(500, 3000, 20)[:, None, None] * np.ones((12, 16)))


class Recorder:
    """A callback that keeps what it is told, in order."""

    def __init__(self, stop=False):
        self.told = []
        self.stop = stop

    def setup(self, estimator, context):
        self.told.append(("setup", context.max_subtasks))

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.told.append(("end", context.task_name))
        if fitted_estimator is not None:
            self.corrected = fitted_estimator.transform(X)
        return self.stop

    def teardown(self, estimator, context):
        self.told.append(("teardown", context.task_name))


class Propagated(Recorder):
    max_propagation_depth = None


def fit_of(n_batches: int) -> list[tuple[str, str]]:
    return [("begin", "fit"), *[("begin", "batch"), ("end", "batch")] * n_batches, ("end", "fit")]


@pytest.fixture
def callback():
    return pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")


@pytest.mark.parametrize("stop", [False, True])  # half a sweep would be another sweep
def test_each_batch_is_told_and_nothing_changes(callback, stop):
    recorder = Recorder(stop)
    cal = DetectorCalibrator(sigma=4, batch_size=8).set_callbacks(recorder).fit(SWEEP)
    assert recorder.told == [("setup", 3), *fit_of(3), ("teardown", "fit")]
    plain = DetectorCalibrator(sigma=4, batch_size=8).fit(SWEEP)
    np.testing.assert_array_equal(cal.coef_, plain.coef_)
    np.testing.assert_array_equal(recorder.corrected, plain.transform(SWEEP))
    cal.set_callbacks().fit(SWEEP)
    assert len(recorder.told) == 10  # removed: told nothing more


def test_batches_are_those_that_are_summed_whatever_a_curve_looks_at_before(callback):
    recorder = Recorder()
    cal = DetectorCalibrator(sigma=4, method="curved", read_noise=5.0, batch_size=16)
    cal.set_callbacks(recorder).fit(SWEEP)
    assert recorder.told[1:-1] == fit_of(2)


def test_a_dask_array_is_one_task(callback):
    array = pytest.importorskip("dask.array")
    recorder = Recorder()
    DetectorCalibrator(sigma=4).set_callbacks(recorder).fit(array.from_array(SWEEP, chunks=(5, -1, -1)))
    assert recorder.told == [("setup", 0), *fit_of(0), ("teardown", "fit")]


def test_a_fit_that_fails_is_torn_down(callback):
    class Torn:
        shape, dtype = SWEEP.shape, SWEEP.dtype

        def __getitem__(self, batch):
            if batch.start >= 8 and batch.stop - batch.start > 1:  # not while single frames are looked at
                raise OSError("the file ends here")
            return SWEEP[batch]

    recorder = Recorder()
    cal = DetectorCalibrator(sigma=4, batch_size=8).set_callbacks(recorder)
    with pytest.raises(OSError, match="ends here"):
        cal.fit(Torn())
    assert recorder.told[-1] == ("teardown", "fit")
    assert cal.fit(SWEEP).n_frames_seen_ == len(SWEEP)


def test_a_warning_names_the_line_that_called_fit(callback):
    with pytest.warns(DetectorcalWarning, match="one frame") as caught:
        DetectorCalibrator(sigma=4).set_callbacks(Recorder()).fit(SWEEP[:1])
    assert caught[0].filename == __file__


def test_a_search_over_calibrators_tells_of_the_batches_of_each(callback):
    from sklearn.model_selection import GridSearchCV

    recorder = Propagated()
    search = GridSearchCV(DetectorCalibrator(batch_size=8), {"sigma": [2, 4]}, cv=2)
    search.set_callbacks(recorder).fit(SWEEP)
    n_batches = 4 * 2 + 3  # two fits of each half of the sweep, then one of the whole
    assert recorder.told.count(("end", "batch")) == n_batches


def test_the_bar_of_scikit_learn_shows_a_fit(callback, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    DetectorCalibrator(sigma=4).set_callbacks(callback.ProgressBar()).fit(SWEEP)
    out = capsys.readouterr().out
    assert "DetectorCalibrator - fit" in out
    assert "100%" in out


def test_what_is_no_callback_is_refused(callback):
    with pytest.raises(TypeError, match="callbacks must be"):
        DetectorCalibrator().set_callbacks(print)


def test_an_older_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn 1\.9"):
        DetectorCalibrator().set_callbacks()
    assert DetectorCalibrator(sigma=4).fit(SWEEP).n_frames_seen_ == len(SWEEP)


def test_a_fit_without_callbacks_does_not_load_them():
    code = (
        "import sys, numpy; from detectorcal import DetectorCalibrator; "
        "DetectorCalibrator(2).fit(numpy.full((3, 8, 8), 9.0)); "
        "print([m for m in ('sklearn.callback', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
