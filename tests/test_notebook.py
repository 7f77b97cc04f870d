"""What a notebook shows of a calibrator: scikit-learn's diagram, and below it what was fitted."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import sklearn
from sklearn.pipeline import make_pipeline

from detectorcal import DetectorCalibrator
from detectorcal._notebook import summary
from detectorcal.calibrator import DEFECTS


@pytest.fixture(scope="module")
def calibrator():
    sweep = np.random.default_rng(0).poisson(1000, (12, 40, 50)).astype(float)
    sweep[:, 3, 4] = 0.0
    with pytest.warns(match="1 dead"):
        return DetectorCalibrator(6, method="photon").fit(sweep)


def test_facts_follow_the_diagram(calibrator):
    html = calibrator._repr_mimebundle_()["text/html"]
    for shown in (html, calibrator._repr_html_()):
        assert shown.endswith(summary(calibrator, DEFECTS))
    diagram, _, facts = html.rpartition("<table>")
    assert "sk-top-container" in diagram
    for said in ("40 x 50 pixels", "photon, sigma 6 px", "12 frames", "1 of 2000 pixels: 1 dead"):
        assert said in facts
    error = 100 * np.nanmedian(calibrator.coef_std_ / calibrator.coef_)
    assert f"{error:.2g} % (median)" in facts
    assert 'alt="Map of the coefficients' in facts


def test_nothing_is_added_before_a_fit():
    unfitted = DetectorCalibrator()
    assert summary(unfitted, DEFECTS) == ""
    assert "<table>" not in unfitted._repr_html_().rpartition("</body>")[2]


def test_text_where_scikit_learn_is_set_to_text(calibrator):
    with sklearn.config_context(display="text"):
        assert not hasattr(calibrator, "_repr_html_")
        assert list(calibrator._repr_mimebundle_()) == ["text/plain"]


def test_pipelines_still_show_their_diagram(calibrator):
    assert "DetectorCalibrator" in make_pipeline(calibrator)._repr_html_()


def test_no_thumbnail_without_matplotlib(calibrator, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    html = summary(calibrator, DEFECTS)
    assert "<table>" in html
    assert "<img" not in html


@pytest.mark.parametrize("shape", [(1,), (500,), (1, 1), (2000, 3)])
def test_thumbnails_are_small_whatever_the_detector(shape):
    calibrator = DetectorCalibrator(2).fit(np.random.default_rng(0).poisson(1000, (6, *shape)))
    assert len(summary(calibrator, DEFECTS)) < 60_000
