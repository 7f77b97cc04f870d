"""Figures: what is drawn is what was measured and fitted."""

from __future__ import annotations

import builtins

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.collections import PathCollection

from detectorcal import DetectorCalibrator
from detectorcal._errors import InputError, MissingDependencyError
from detectorcal.plot import plot_pixel_calibrations


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def sweep():
    rng = np.random.default_rng(0)
    gain = 1 + 0.05 * rng.standard_normal((20, 30))
    return rng.poisson(np.linspace(100, 2000, 12)[:, None, None] * gain).astype(np.uint16) + np.uint16(50)


def test_line_has_the_estimator_s_coefficient(sweep):
    coords = [(3, 4), (10, 29), (0, 0)]
    figure = plot_pixel_calibrations(sweep, dark=50, sigma=6, cutoff=300, coords=coords, show=False)
    cal = DetectorCalibrator(sigma=6, cutoff=300).fit(sweep, dark=50)
    assert len(figure.axes) == 3
    for ax, (row, column) in zip(figure.axes, coords, strict=True):
        (x0, x1), (y0, y1) = ax.lines[0].get_data()
        # the estimator sums in float32, the figure in float64
        assert (y1 - y0) / (x1 - x0) == pytest.approx(cal.coef_[row, column], rel=1e-5)
        assert f"({row}, {column})" in ax.get_title()


def test_points_below_the_cutoff_are_drawn_apart(sweep):
    figure = plot_pixel_calibrations(sweep, dark=50, sigma=6, cutoff=1000, coords=[(5, 5)], show=False)
    left_out, used = (c.get_offsets() for c in figure.axes[0].collections if isinstance(c, PathCollection))
    assert len(left_out) + len(used) == 12
    assert left_out[:, 1].max() <= 1000 < used[:, 1].min()
    np.testing.assert_allclose(np.sort(used[:, 0]), np.sort(sweep[-len(used) :, 5, 5] - 50.0))


@pytest.mark.parametrize("n_pixels", [1, 2, 5, 7, 11])
def test_any_number_of_pixels(sweep, n_pixels):
    figure = plot_pixel_calibrations(sweep, n_pixels=n_pixels, show=False)
    titles = {ax.get_title() for ax in figure.axes}
    assert len(figure.axes) == len(titles) == n_pixels


def test_same_seed_same_pixels(sweep):
    titles = [
        [ax.get_title() for ax in plot_pixel_calibrations(sweep, n_pixels=3, show=False, seed=s).axes]
        for s in (1, 1, 2)
    ]
    assert titles[0] == titles[1] != titles[2]


def test_saves_without_showing(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown without a screen"))
    plot_pixel_calibrations(sweep, n_pixels=1, save_path=tmp_path / "pixels.png")
    assert (tmp_path / "pixels.png").read_bytes().startswith(b"\x89PNG")


def test_integer_sweeps_do_not_wrap_round(sweep):
    figure = plot_pixel_calibrations(sweep, dark=300, coords=[(5, 5)], show=False)
    assert max(c.get_offsets()[:, 0].max() for c in figure.axes[0].collections if len(c.get_offsets())) < 3000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"volume": np.ones((4, 4))}, "`volume`"),
        ({"coords": [(50, 0)]}, "`coords`"),
        ({"coords": [(1, 2, 3)]}, "`coords`"),
        ({"n_pixels": 0}, "`n_pixels`"),
        ({"sigma": -1}, "`sigma`"),
        ({"dark": np.ones((3, 3))}, "`dark`"),
    ],
)
def test_mistakes_are_named(sweep, change, said):
    with pytest.raises(InputError, match=said):
        plot_pixel_calibrations(**{"volume": sweep, "show": False} | change)


def test_missing_matplotlib_names_the_extra(sweep, monkeypatch):
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(MissingDependencyError, match=r"detectorcal\[plot\]"):
        plot_pixel_calibrations(sweep, show=False)
