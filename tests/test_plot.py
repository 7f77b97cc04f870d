"""Figures: what is drawn is what was measured and fitted."""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

import matplotlib.pyplot as plt
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from scipy.ndimage import gaussian_filter

from detectorcal import DetectorCalibrator, RingSuppressor, plot, simulate
from detectorcal._errors import InputError, MissingDependencyError
from detectorcal.calibrator import DEFECTS
from detectorcal.plot import plot_pixel_calibrations
from detectorcal.plot._common import DISPLAY_PIXELS, reduced
from detectorcal.plot._pixels import _fitted, accumulation_of
from detectorcal.plot._points import points_of


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


def without_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)


def test_calibrator_draws_its_own_line_and_leaves_out_what_it_left_out(sweep):
    struck = sweep.copy()
    struck[3, 5, 6], struck[7, 5, 6] = 60000, 5000
    cal = DetectorCalibrator(sigma=6, cutoff=500, saturation=50000, reject=8).fit(struck, dark=50)
    figure = plot_pixel_calibrations(struck, coords=[(5, 6)], show=False, calibrator=cal)
    (ax,) = figure.axes
    (x0, x1), (y0, y1) = ax.lines[0].get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(cal.coef_[5, 6], rel=1e-12)
    left_out, used = (c.get_offsets() for c in ax.collections if isinstance(c, PathCollection))
    assert len(used) == cal.sums_["frames"][5, 6] == 12 - len(left_out)
    assert {60000 - 50, 5000 - 50} <= set(left_out[:, 0])


def test_band_is_two_standard_errors_wide(sweep):
    ax = plot.plot_pixel([100.0, 200.0], [101.0, 202.0], 1.01, 0.005)
    (band,) = (c for c in ax.collections if not isinstance(c, PathCollection))
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(200 * (1.01 + 2 * 0.005))
    assert sorted(set(heights.round(6)))[-2] == pytest.approx(200 * (1.01 - 2 * 0.005))


def test_own_errors_of_a_pixel_cover_the_truth(sweep):
    """Of 400 pixels of equal sensitivity, two sandwich errors cover the true coefficient 1 in about 95 %."""
    rng = np.random.default_rng(3)
    expected = np.linspace(200, 2000, 40)
    covered = []
    for _ in range(400):
        coef, std = _fitted(rng.poisson(expected).astype(float), expected)
        covered.append(abs(coef - 1) < 2 * std)
    assert 0.91 < np.mean(covered) < 0.985


def fitted(shape=(64, 64), n_frames=30, seed=0, method="croton", **properties):
    rng = np.random.default_rng(seed)
    detector = simulate.Detector.random(shape, prnu=0.02, seed=rng, **properties)
    sweep = detector.record(simulate.exposure_ladder(simulate.beam_profile(shape, width=2), n_frames), rng)
    darks = detector.darks(20, rng)
    return DetectorCalibrator(sigma=8, method=method).fit(sweep, dark=darks), sweep


class TestPoints:
    """The values that figures show are those that a fit sums."""

    @pytest.mark.parametrize("shape", [(20, 30), (60,)])
    def test_as_the_slow_way(self, shape):
        rng = np.random.default_rng(1)
        frames = rng.poisson(1000, (11, *shape)).astype(np.uint16)
        dark = rng.uniform(50, 60, shape)
        cal = DetectorCalibrator(sigma=3).fit(frames, dark=dark)
        pixels = np.array([0, 7, 59])
        points = points_of(frames, dark, accumulation_of(cal, shape), pixels, np.array([1, 10, 4]))
        measured = frames[[1, 10, 4]] - dark
        expected = gaussian_filter(measured, (0, *[3] * len(shape)), mode="nearest")
        np.testing.assert_allclose(points.measured, measured.reshape(3, -1)[:, pixels], rtol=1e-6)
        np.testing.assert_allclose(points.expected, expected.reshape(3, -1)[:, pixels], rtol=1e-5)
        assert points.used.all()

    def test_dark_for_each_frame(self):
        frames = np.full((3, 8, 8), 100, np.uint16)
        darks = np.arange(3.0)[:, None, None] * np.ones((3, 8, 8))
        cal = DetectorCalibrator(sigma=2).fit(frames, dark=darks, dark_per_frame=True)
        points = points_of(frames, darks, accumulation_of(cal, (8, 8)), np.array([9]))
        np.testing.assert_allclose(points.measured[:, 0], [100, 99, 98])


class TestMaps:
    @settings(max_examples=30, deadline=None)
    @given(height=st.integers(1, 40), width=st.integers(1, 40), limit=st.integers(1, 45))
    def test_reduced_is_the_mean_of_blocks(self, height, width, limit):
        image = np.random.default_rng(height * 100 + width).standard_normal((height, width))
        image.flat[::7] = np.nan
        small = reduced(image, limit)
        assert max(small.shape) <= limit
        steps = [-(-n // limit) for n in image.shape]
        for i, j in np.ndindex(small.shape):
            block = image[i * steps[0] : (i + 1) * steps[0], j * steps[1] : (j + 1) * steps[1]]
            rows = [np.nanmean(row) for row in block.T if np.isfinite(row).any()]
            wanted = np.mean(rows) if rows else np.nan
            np.testing.assert_allclose(small[i, j], wanted, rtol=1e-9, atol=1e-12)

    def test_every_pixel_is_in_the_histogram(self):
        coef = 1 + 0.02 * np.random.default_rng(0).standard_normal((300, 700))
        coef[3, 4] = 9.0
        map_ax, histogram = plot.plot_coefficients(coef)
        assert sum(patch.get_height() for patch in histogram.patches) == coef.size - 1
        assert "1 pixel outside" in histogram.get_xlabel()
        (drawn,) = map_ax.images
        assert max(drawn.get_array().shape) <= DISPLAY_PIXELS
        assert tuple(drawn.get_extent()) == (-0.5, 699.5, 299.5, -0.5)

    def test_line_detector_has_its_error_band(self):
        cal, _ = fitted((300,))
        line, _ = plot.plot_coefficients(cal)
        np.testing.assert_array_equal(line.lines[0].get_ydata(), cal.coef_)
        top = line.collections[0].get_paths()[0].vertices[:, 1].max()
        assert top == pytest.approx((cal.coef_ + cal.coef_std_).max())

    def test_defects_are_drawn_where_they_are_whatever_the_causes(self):
        defects = np.zeros((40, 60), np.uint8)
        rng = np.random.default_rng(2)
        for bit in DEFECTS.values():
            defects.flat[rng.choice(defects.size, 5, replace=False)] |= bit
        ax = plot.plot_defects(defects)
        assert len(ax.collections) == len(DEFECTS)
        for collection, (cause, bit) in zip(ax.collections, DEFECTS.items(), strict=True):
            rows, columns = np.nonzero(defects & bit)
            assert {tuple(o) for o in collection.get_offsets()} == set(zip(columns, rows, strict=True))
            assert collection.get_label() == f"{cause}: {len(rows)} pixels"
        markers = {c.get_paths()[0].vertices.tobytes() for c in ax.collections}
        assert len(markers) == len(DEFECTS)  # told apart without colour

    def test_all_defective(self):
        ax = plot.plot_defects(np.full((100, 100), DEFECTS["dead"], np.uint8))
        assert "10000 pixels" in ax.get_legend().get_texts()[0].get_text()
        assert len(ax.collections[0].get_offsets()) == 2000


class TestResponse:
    """What figures say of a detector is what is true of it."""

    @staticmethod
    def band(ax, label):
        (found,) = (c for c in ax.collections if c.get_label() == label)
        x, y = found.get_paths()[0].vertices.T
        return x, y

    def test_straight_pixels_scatter_as_photons_do(self):
        cal, sweep = fitted(read_noise=0.0)
        ax = plot.plot_residuals(cal, sweep)
        level, residual = self.band(ax, "68 %")
        noise = 100 * np.sqrt(0.5 / level)  # K = 0.5
        np.testing.assert_allclose(np.abs(residual), noise, rtol=0.15)

    @pytest.mark.parametrize(("method", "opened"), [("croton", True), ("curved", False)])
    def test_pixels_that_curve_open_the_bands_until_they_are_fitted(self, method, opened):
        curving = {"curvature": -2e-5, "curvature_spread": 4e-5}
        cal, sweep = fitted(read_noise=0.0, method=method, **curving)
        level, residual = self.band(plot.plot_residuals(cal, sweep), "68 %")
        bright = level > 0.9 * level.max()
        in_noise = np.abs(residual[bright]) / (100 * np.sqrt(0.5 / level[bright]))
        assert np.all(in_noise > 1.3) if opened else np.all(in_noise < 1.2)

    def test_spectrum_adds_up_to_the_variance(self):
        noise = np.random.default_rng(0).standard_normal((200, 160))
        before = 1000 + 20 * noise
        ax = plot.plot_pattern_spectrum(before, 1000 + 5 * noise)
        for line, std in zip(ax.lines, (2.0, 0.5), strict=True):
            assert np.sqrt(np.sum(line.get_ydata() ** 2)) == pytest.approx(std, rel=0.05)
            np.testing.assert_allclose(ax.lines[0].get_ydata() / ax.lines[1].get_ydata(), 4.0, rtol=0.02)

    def test_spectrum_finds_a_frequency(self):
        wave = 1000 + 10 * np.cos(2 * np.pi * 0.125 * np.arange(256)) * np.ones((256, 1))
        line = plot.plot_pattern_spectrum(wave, wave).lines[0]
        at = line.get_xdata()[np.argmax(line.get_ydata())]
        assert 0.125 * 2 ** (-1 / 3) < at < 0.125 * 2 ** (1 / 3)

    @pytest.mark.filterwarnings("ignore:.*pixels could not be calibrated:detectorcal.DetectorcalWarning")
    def test_defects_are_no_pattern(self):
        cal, sweep = fitted(dead=0.01)
        frame = sweep[-8:].mean(axis=0) - cal.dark_
        label = plot.plot_pattern_spectrum(frame, cal).get_legend().get_texts()[0].get_text()
        assert float(label.split()[1]) < 3.0  # 1 % of dead pixels alone would make it 10 %


class TestScans:
    def test_pairs_share_one_scale(self):
        rng = np.random.default_rng(0)
        before, after = rng.standard_normal((2, 50, 60))
        for function in (plot.plot_sinogram, plot.plot_reconstruction):
            one, other = function(3 * before, after)
            assert one.images[0].get_clim() == other.images[0].get_clim()
            np.testing.assert_allclose(one.images[0].get_array(), 3 * before)

    def test_removed_rings_in_standard_errors(self):
        rng = np.random.default_rng(0)
        std = np.full((5, 100), 0.01)
        scan = 0.5 * np.exp(rng.normal(0, 0.01, (5, 100))) * np.exp(rng.normal(0, 0.02, (60, 5, 100)))
        rings = RingSuppressor(variance=std**2).fit(scan)
        _, histogram = plot.plot_removed_rings(rings)
        assert sum(p.get_height() for p in histogram.patches) == rings.report_["n_changed"]
        assert max(p.get_x() + p.get_width() for p in histogram.patches) <= 3.0 + 1e-9

    def test_removed_rings_in_the_standard_errors_of_the_fit(self):
        """Which are those at the scan's own brightness, and not at the sweep's."""
        rng = np.random.default_rng(1)
        sweep = rng.poisson(np.linspace(300, 3000, 12)[:, None, None] * np.ones((32, 100)))
        flats = rng.poisson(2000, (10, 32, 100))
        cal = DetectorCalibrator(sigma=8, method="curved", system_gain=1.0).fit(sweep, dark=0)
        correction = cal.correction(flats)
        rings = RingSuppressor(correction).fit(correction.transform(rng.poisson(200, (60, 32, 100))))
        _, histogram = plot.plot_removed_rings(rings)
        assert max(p.get_x() + p.get_width() for p in histogram.patches) <= 3.0 + 1e-9
        assert np.nanmax(np.abs(np.log(rings.multiplier_)) / np.sqrt(rings.variance_)) <= 3.0 + 1e-9


ARRAY = np.ones((20, 30))
CALLS = [
    (plot.plot_coefficients, (ARRAY,), 2),
    (plot.plot_defects, (np.zeros((20, 30), np.uint8),), 1),
    (plot.plot_pattern_spectrum, (ARRAY, ARRAY), 1),
    (plot.plot_pixel, (np.arange(1.0, 5.0), np.arange(1.0, 5.0), 1.0, 0.1), 1),
    (plot.plot_sinogram, (ARRAY, ARRAY), 2),
    (plot.plot_reconstruction, (ARRAY, ARRAY), 2),
    (plot.plot_removed_rings, (np.exp(0.01 * ARRAY),), 2),
]


@pytest.mark.parametrize(
    ("function", "arguments", "n"), CALLS, ids=lambda value: getattr(value, "__name__", "")
)
def test_given_axes_are_drawn_on_labelled_and_returned(function, arguments, n, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown without being asked"))
    given = plt.subplots(1, n, squeeze=False)[1][0]
    returned = function(*arguments, **({"ax": given[0]} if n == 1 else {"axes": given}))
    assert np.all(np.atleast_1d(returned) == given)
    assert len(plt.get_fignums()) == 1
    for ax in given:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    function(*arguments, show=True)  # no screen: nothing is shown
    with pytest.raises(InputError, match="ax"):
        function(*arguments, **({"ax": 3} if n == 1 else {"axes": given[:1]}))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plot.plot_coefficients("map"), "`coef`"),
        (lambda: plot.plot_coefficients(ARRAY, ARRAY[:3]), "`coef_std`"),
        (lambda: plot.plot_defects(ARRAY), "`defects`"),
        (lambda: plot.plot_pixel([1.0], [1.0, 2.0]), "`measured`"),
        (lambda: plot.plot_pattern_spectrum(ARRAY, ARRAY[:5]), "`before`"),
        (lambda: plot.plot_pattern_spectrum(-ARRAY, -ARRAY), "above 0"),
        (lambda: plot.plot_sinogram(ARRAY, ARRAY[:5]), "`after`"),
        (lambda: plot.plot_sinogram(ARRAY[0], ARRAY[0]), "`before`"),
        (lambda: plot.plot_removed_rings(ARRAY, ARRAY[:5]), "`std`"),
        (lambda: plot.plot_residuals(DetectorCalibrator(), np.ones((3, 4, 4))), "fitted"),
        (lambda: plot.plot_residuals(fitted((8, 8))[0], np.ones((3, 4, 4))), "shape"),
    ],
)
def test_mistakes_with_maps_are_named(call, said):
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize(
    ("function", "arguments", "n"), CALLS, ids=lambda value: getattr(value, "__name__", "")
)
def test_missing_matplotlib_names_the_extra_everywhere(function, arguments, n, monkeypatch):
    without_matplotlib(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"detectorcal\[plot\]"):
        function(*arguments)


def test_missing_matplotlib_names_the_extra(sweep, monkeypatch):
    without_matplotlib(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"detectorcal\[plot\]"):
        plot_pixel_calibrations(sweep, show=False)


@pytest.mark.slow
def test_large_detectors_are_drawn(tmp_path):
    """4096x4096: what is handed to matplotlib is what a screen can show."""
    rng = np.random.default_rng(0)
    coef = 1 + 0.02 * rng.standard_normal((4096, 4096), dtype=np.float32)
    axes = plot.plot_coefficients(coef)
    assert sum(p.get_height() for p in axes[1].patches) == pytest.approx(coef.size, abs=10)
    axes[0].figure.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size < 1e6
    ax = plot.plot_pattern_spectrum(1 / coef, np.ones_like(coef) + 1e-4 * rng.standard_normal(coef.shape))
    assert ax.get_legend().get_texts()[0].get_text() == "before: 2.0 %"
