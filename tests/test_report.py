"""The report: what it says is true, it needs nothing else, and nothing in a file can speak in it."""

from __future__ import annotations

import json
import re
import sys
import time
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
import tifffile
from sklearn.base import clone

mpl.use("agg")

from detectorcal import DetectorCalibrator, DetectorcalWarning, simulate
from detectorcal._errors import InputError, MissingDependencyError, MissingFileError, OutputExistsError
from detectorcal.calibrator import DEFECTS
from detectorcal.cli import main
from detectorcal.io import create_frames, open_frames
from detectorcal.report import write_report
from detectorcal.report._evidence import _Chosen, gather, some_of
from detectorcal.report._inspector import MOST_PIXELS, MOST_POINTS, choose_pixels
from detectorcal.report._scan import look_at_scan
from detectorcal.report._verdict import judge, ring_ratio

SHAPE = (64, 80)
GAIN = 0.5  # DN per electron
LEVEL = 2000.0


class Scene:
    """A simulated detector, straight and noiseless but for photons, and sweeps of any length."""

    def __init__(self, shape=SHAPE, seed=1, **properties):
        self.rng = np.random.default_rng(seed)
        defaults = {"prnu": 0.02, "read_noise": 0.0, "system_gain": GAIN}
        self.detector = simulate.Detector.random(shape, seed=self.rng, **defaults | properties)
        self.beam = simulate.beam_profile(shape, width=3)
        self.darks = self.detector.darks(20, self.rng)

    def sweep(self, n_frames, level=LEVEL):
        levels = np.linspace(0.5, 1.5, n_frames) * level
        return self.detector.record(np.multiply.outer(levels, self.beam), self.rng)

    def fit(self, sweep, sigma=10, **params):
        return DetectorCalibrator(sigma, **params).fit(sweep, dark=self.darks)


@pytest.fixture(scope="module")
def scene():
    return Scene()


@pytest.fixture(scope="module")
def demo(scene):
    """A calibration, its sweep, and a scan it corrected."""
    sweep = scene.sweep(40)
    calibrator = scene.fit(sweep)
    angles = np.linspace(0, np.pi, 90, endpoint=False)
    scan = simulate.projections(scene.detector, LEVEL * scene.beam, simulate.ELLIPSES, angles, seed=scene.rng)
    flats = scene.detector.flats(LEVEL * scene.beam, 20, scene.rng)
    return calibrator, sweep, scan, calibrator.transform(scan, flats)


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.ids, self.links, self.unnamed, self.words = [], [], [], []
        self._silent = None
        self.feed(self.text)
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', self.text, re.DOTALL)[1])

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.links += [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
        if tag == "svg" and not attributes.get("aria-label"):
            self.unnamed.append(tag)
        if tag == "img" and not attributes.get("alt"):
            self.unnamed.append(tag)
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag):
        if tag == self._silent:
            self._silent = None

    def handle_data(self, text):
        if self._silent is None:
            self.words.append(text)

    @property
    def said(self):
        return " ".join(" ".join(self.words).replace("\xa0", " ").split())


def page_of(tmp_path, *arguments, **options):
    headline = write_report(tmp_path / "report.html", *arguments, **options)
    return headline, Page(tmp_path / "report.html")


class TestEvidence:
    """Each figure against a truth that the simulation knows."""

    def test_spread_of_the_pixels_without_noise(self):
        # so little light that noise is as large as the pattern
        scene = Scene((200, 200))
        sweep = scene.sweep(4, level=300)
        evidence = gather(scene.fit(sweep), sweep)
        assert evidence.error == pytest.approx(0.02, rel=0.1)
        assert evidence.pattern_std == pytest.approx(0.02, rel=0.05)
        assert evidence.electrons == pytest.approx(4 * 300 / GAIN, rel=0.1)

    @pytest.mark.parametrize("method", ["croton", "photon"])
    @pytest.mark.parametrize("levels", [[1000] * 20, [300, 3000, 300, 3000, 300], [500, 500, 3000]])
    def test_halves_tell_the_error_of_the_whole(self, levels, method):
        """However uneven the halves: against the true coefficients."""
        scene = Scene((200, 200))
        frames = np.multiply.outer(np.array(levels, float), scene.beam)
        sweep = scene.detector.record(frames, scene.rng)
        calibrator = scene.fit(sweep, method=method)
        truth = simulate.true_coefficient(scene.detector, 10, beam=scene.beam)
        error = np.std(calibrator.coef_ / truth - 1)
        evidence = gather(calibrator, sweep)
        assert evidence.measured_error == pytest.approx(error, rel=0.1)
        assert evidence.error == pytest.approx(error, rel=0.1)

    def test_dark_for_each_frame(self, scene):
        sweep = scene.sweep(6)
        darks = simulate.drifting_darks(scene.detector, 6) - scene.detector.dark
        drifted, whole_darks = sweep + darks, scene.detector.dark + darks
        calibrator = DetectorCalibrator(10).fit(drifted, dark=whole_darks, dark_per_frame=True)
        evidence = gather(calibrator, drifted, whole_darks, dark_per_frame=True)
        assert evidence.measured_error == pytest.approx(evidence.error, rel=0.15)
        with pytest.raises(InputError, match="`dark="):
            gather(calibrator, drifted)

    def test_chosen_frames_of_a_file(self, tmp_path):
        frames = np.random.default_rng(0).integers(0, 99, (11, 5, 6)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "sweep.tif", frames, photometric="minisblack")
        numbers = np.array([0, 3, 4, 10])
        with open_frames(tmp_path / "sweep.tif") as stack:
            chosen = _Chosen(stack, numbers, (slice(1, 4), slice(0, 5)))
            assert chosen.shape == (4, 3, 5)
            for part in (slice(0, 2), slice(1, 4), slice(0, 9)):
                np.testing.assert_array_equal(chosen[part], frames[numbers][part][:, 1:4, :5])

    def test_a_part_of_the_frames_tells_the_error_of_all(self, monkeypatch):
        scene = Scene((100, 100))
        sweep = scene.sweep(60)
        calibrator = scene.fit(sweep)
        whole = gather(calibrator, sweep).measured_error
        monkeypatch.setattr("detectorcal.report._evidence.FITTED_PIXELS", 0)
        assert gather(calibrator, sweep).measured_error == pytest.approx(whole, rel=0.05)

    def test_a_window_and_some_pixels_of_a_large_detector_tell_the_same(self, monkeypatch, tmp_path):
        scene = Scene((120, 150))
        sweep = scene.sweep(20)
        calibrator = scene.fit(sweep)
        whole = gather(calibrator, sweep)
        monkeypatch.setattr("detectorcal.report._evidence.MOST_PIXELS", 6000)
        part = gather(calibrator, sweep)
        shown = part.sweep.repeat[part.sweep.window]
        assert 5500 < shown.size <= 6100
        assert np.isfinite(part.sweep.repeat).sum() == np.isfinite(shown).sum() > 0.95 * shown.size
        for name in ("pattern_std", "error", "error_95", "measured_error", "electrons", "level"):
            assert getattr(part, name) == pytest.approx(getattr(whole, name), rel=0.05), name
        # where both looked they saw the same: smoothing at the window's edge is the same in both halves
        inner = np.s_[50:70, 60:90]
        np.testing.assert_allclose(part.sweep.repeat[inner], whole.sweep.repeat[inner], atol=2e-4)
        _, page = page_of(tmp_path, calibrator, sweep=sweep)
        assert "the middle, 70 x 87 pixels" in page.said

    @pytest.mark.parametrize("shape", [(64, 64), (60, 90), (7, 1), (500,), (96, 60)])
    def test_some_pixels_are_of_every_column(self, shape, monkeypatch):
        size = int(np.prod(shape))
        monkeypatch.setattr("detectorcal.report._evidence.MOST_PIXELS", max(1, size // 3))
        columns = np.broadcast_to(np.arange(shape[-1]), shape)
        chosen = columns % 5 != 1
        taken = some_of(chosen)(columns)
        assert 0 < taken.size <= -(-size // 3) + 1
        if len(shape) == 2:
            assert set(taken.tolist()) == set(np.unique(columns[chosen]).tolist())

    def test_rings_over_noise_are_what_a_scan_shows(self):
        """In the mean of N corrected frames: pattern left and noise add in squares."""
        scene = Scene((150, 150))
        sweep = scene.sweep(25)
        calibrator = scene.fit(sweep)
        n = 50
        flats = scene.detector.flats(LEVEL * scene.beam, n, scene.rng)
        mean = calibrator.transform(flats.astype(float)).mean(axis=0)
        truth = scene.detector.response(LEVEL * scene.beam) * simulate.true_coefficient(
            scene.detector, 10, beam=scene.beam
        )
        noise = np.sqrt(GAIN / (LEVEL * n))
        measured = np.std(mean / truth - 1) / noise
        ratio = ring_ratio(gather(calibrator, sweep), None, n)
        assert ratio == pytest.approx(np.sqrt(n / 25), rel=0.1)
        assert measured == pytest.approx(np.sqrt(1 + ratio**2), rel=0.05)

    def test_scan_before_differs_by_the_pixels_alone(self, demo, scene):
        calibrator, _, scan, corrected = demo
        seen = look_at_scan(calibrator, scan, corrected)
        row = SHAPE[0] // 2
        assert seen.row == row
        gain = np.log(scene.detector.gain[row])
        left = (seen.before - seen.after).mean(axis=0)
        assert np.corrcoef(left, -gain)[0, 1] > 0.95
        assert seen.stripes[0] == pytest.approx(0.02, rel=0.3)
        assert seen.stripes[1] < 0.3 * seen.stripes[0]

    @pytest.mark.parametrize("method", ["croton", "curved"])
    def test_what_the_calibration_does_is_not_taken_for_ring_suppression(self, scene, method):
        calibrator = scene.fit(scene.sweep(20), method=method)
        scan = scene.detector.flats(LEVEL * scene.beam, 8, scene.rng)
        for corrected in (calibrator.transform(scan), calibrator.transform(scan, LEVEL * scene.beam)):
            if method == "croton":  # the flat of a curve is evidence, and shows in what is done
                assert look_at_scan(calibrator, scan, corrected).beyond is None
        assert look_at_scan(calibrator, scan, calibrator.transform(scan)).beyond is None

    def test_what_was_removed_beyond_it_is_found(self, demo, scene, tmp_path):
        calibrator, _, scan, corrected = demo
        multiplier = np.ones(SHAPE)
        multiplier[:, 7::11] = 1.004
        seen = look_at_scan(calibrator, scan, corrected * multiplier)
        good = calibrator.defects_[seen.row] == 0
        np.testing.assert_allclose(seen.beyond[good], multiplier[seen.row][good], atol=6e-4)
        _, page = page_of(tmp_path, calibrator, scan=scan, corrected=corrected * multiplier)
        assert "What was removed beyond the calibration" in page.said

    def test_slices_show_the_rings_that_are_gone(self, demo, tmp_path, monkeypatch):
        calibrator, _, scan, corrected = demo
        turned = scan.view(Turned)
        turned.angles = np.linspace(0, 180, len(scan), endpoint=False)
        before, after = look_at_scan(calibrator, turned, corrected).slices()
        assert before.shape == after.shape == (SHAPE[1], SHAPE[1])
        radians = np.radians(turned.angles)
        wanted = simulate.reconstruct(
            simulate.phantom_sinogram(simulate.ELLIPSES, radians, SHAPE[1]), radians
        )
        monkeypatch.setattr("detectorcal.report._scan.SLICE_PIXELS", 45)
        _, halved = look_at_scan(calibrator, turned, corrected).slices()
        assert halved.shape == (40, 40)  # of the same density per pixel of the detector
        assert halved[10:30, 10:30].mean() == pytest.approx(after[20:60, 20:60].mean(), rel=0.02)
        monkeypatch.undo()
        middle = np.s_[SHAPE[1] // 4 : -SHAPE[1] // 4, SHAPE[1] // 4 : -SHAPE[1] // 4]
        errors = [np.std((image - wanted)[middle]) for image in (before, after)]
        assert errors[1] < 0.7 * errors[0]
        _, page = page_of(tmp_path, calibrator, scan=turned, corrected=corrected)
        assert "Slice after" in page.said
        _, page = page_of(tmp_path, calibrator, scan=scan, corrected=corrected, overwrite=True)
        assert "Slice" not in page.said  # the angles are not known


class Turned(np.ndarray):
    """A scan with its angles, as `open_frames` gives it."""


class TestVerdict:
    def test_turns_from_good_to_record_more_light(self, scene, tmp_path):
        sweep = scene.sweep(80)
        long, short = (scene.fit(sweep[::step]) for step in (1, 16))
        good, page = page_of(tmp_path, long, sweep=sweep, n_projections=60)
        assert good.grade == "good"
        assert "Good enough for 60 projections." in page.said
        bad, page = page_of(tmp_path, short, sweep=sweep[::16], n_projections=60, overwrite=True)
        assert bad.grade == "poor"
        assert "Record more light" in page.said
        # 16 times less light, and so 4 times stronger rings; 60 projections want 60 frames
        assert re.search(r"about 6\d frames like these", page.said)

    @pytest.mark.filterwarnings("ignore:1 of 470400 pixels .* not to be relied on")
    def test_too_little_light_on_a_real_camera(self, shared_data, tmp_path):
        """Two flats of one level, sigma 5: correcting makes held-out flats no better (0.716 -> 0.734 %)."""
        with np.load(next((shared_data / "msfc_ccd_led").glob("*.npz"))) as file:
            sweep = np.stack([file[name] for name in file if name.startswith("led")])
            darks = np.stack([file[name] for name in file if name.startswith("dark")])
        calibrator = DetectorCalibrator(5).fit(sweep, dark=darks)
        headline, page = page_of(tmp_path, calibrator, sweep=sweep)
        assert headline.grade == "poor"
        assert (
            "Record more light: the calibration errs by more than half of what the pixels differ by."
            in page.said
        )
        assert "too little light for sigma 5" in page.said

    @pytest.mark.slow
    def test_real_neutrons(self, shared_data, tmp_path):
        path = shared_data / "neutron_wedge_left" / "stepwedge_rows100-700_cols0-750.npz"
        with np.load(path) as file:
            sweep, darks = (np.stack([file[f"{k}_{t}s"] for t in (5, 10, 20, 60, 120)]) for k in ("ob", "dc"))
        with pytest.warns(DetectorcalWarning, match="could not be calibrated"):
            calibrator = DetectorCalibrator(50, method="photon", reject=6).fit(
                sweep, dark=darks, dark_per_frame=True
            )
        headline, page = page_of(tmp_path, calibrator, sweep=sweep, dark=darks, dark_per_frame=True)
        assert headline.answer == "Record more light for 1000 projections."
        assert f"{np.count_nonzero(calibrator.defects_)} pixels of 450 000" in page.said
        assert (tmp_path / "report.html").stat().st_size < 5e6

    def test_other_noise_is_told_from_photons(self):
        """Rows that jump from frame to frame do so alike in near pixels, whose differences tell K."""
        for row_noise, grade in ((0.0, "good"), (100.0, "fair")):
            scene = Scene(row_noise=row_noise)
            sweep = scene.sweep(20)
            evidence = gather(scene.fit(sweep), sweep)
            (halves,) = (v for v in judge(evidence, None, 10)[1] if "halves" in v.question)
            assert halves.grade == grade
            assert evidence.known_error == max(evidence.error, evidence.measured_error)

    def test_perfect_pixels_want_no_correction(self):
        scene = Scene(prnu=0.0)
        headline, verdicts = judge(gather(scene.fit(scene.sweep(10))), None, 1)
        assert headline.grade == "poor"
        assert "Correction adds" in " ".join(v.answer for v in verdicts)


class TestInspector:
    def test_each_pixel_once_with_its_own_numbers(self, demo, tmp_path):
        calibrator, sweep, *_ = demo
        _, page = page_of(tmp_path, calibrator, sweep=sweep)
        pixels = page.data["pixels"]
        places = {(pixel["row"], pixel["column"]) for pixel in pixels}
        assert len(places) == len(pixels) == MOST_PIXELS
        rng = np.random.default_rng(0)
        for index in rng.choice(len(pixels), 20):
            pixel = pixels[index]
            place = pixel["row"], pixel["column"]
            assert pixel["coef"] == pytest.approx(calibrator.coef_[place], rel=1e-6)
            assert pixel["std"] == pytest.approx(calibrator.coef_std_[place], rel=1e-2)
            measured = sweep[:, *place] - calibrator.dark_[place]
            np.testing.assert_allclose(pixel["measured"], measured, rtol=1e-4)

    @pytest.mark.filterwarnings("ignore:.*pixels could not be calibrated:detectorcal.DetectorcalWarning")
    def test_worst_of_each_cause(self):
        scene = Scene(dead=0.02, hot=0.001)
        calibrator = scene.fit(scene.sweep(20))
        for number, bit in enumerate(DEFECTS.values()):
            calibrator.defects_.flat[100 * number : 100 * number + 7] = bit
        chosen = choose_pixels(gather(calibrator))
        assert chosen.names[: len(DEFECTS)] == list(DEFECTS)
        for number, bit in enumerate(DEFECTS.values()):
            places = chosen.places[chosen.groups == number]
            assert np.all(calibrator.defects_.flat[places] & bit)
            assert len(places) >= 7
        good = calibrator.defects_.ravel() == 0
        coef = np.where(good, calibrator.coef_.ravel(), np.nan)
        sensitive = chosen.places[chosen.groups == chosen.names.index("most sensitive")]
        assert np.nanargmin(coef) in sensitive
        assert chosen.names[-1] == "random"

    def test_long_sweeps_are_thinned(self, tmp_path):
        scene = Scene((20, 30))
        sweep = np.repeat(scene.sweep(50), 10, axis=0)
        _, page = page_of(tmp_path, scene.fit(sweep), sweep=sweep)
        pixels = page.data["pixels"]
        assert sum(len(pixel["measured"]) for pixel in pixels) <= MOST_POINTS
        assert pixels[0]["measured"][-1] == pytest.approx(
            sweep[-1, pixels[0]["row"], pixels[0]["column"]]
            - scene.fit(sweep).dark_[pixels[0]["row"], pixels[0]["column"]],
            rel=1e-4,
        )


class TestPage:
    def test_needs_nothing_else(self, demo, tmp_path):
        calibrator, sweep, scan, corrected = demo
        _, page = page_of(tmp_path, calibrator, sweep=sweep, scan=scan, corrected=corrected)
        assert page.links
        assert all(link.startswith(("data:", "#")) for link in page.links)
        assert "default-src 'none'" in page.text
        assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", page.text)
        assert len(page.ids) == len(set(page.ids))
        assert not page.unnamed
        assert "90 projections" in page.said
        for title in ("Coefficients", "Fixed pattern before", "Residuals against", "Sinogram after"):
            assert title in page.said

    def test_nothing_from_a_file_speaks(self, demo, tmp_path):
        calibrator, sweep, *_ = demo
        calibrator = (
            DetectorCalibrator().set_params(**calibrator.get_params()).fit(sweep, dark=calibrator.dark_)
        )
        evil = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
        calibrator.provenance_ = {"time": evil, evil: 1}
        _, page = page_of(tmp_path, calibrator, sweep=sweep, title=evil, sources={"sweep": evil, evil: evil})
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert page.said.count(evil.strip()) >= 5  # said, as it was written

    def test_without_a_sweep(self, demo, tmp_path):
        headline, page = page_of(tmp_path, demo[0], n_projections=10)
        assert headline.grade == "good"
        assert "Residuals against" not in page.said
        assert all("measured" not in pixel for pixel in page.data["pixels"])
        assert "--sweep" in page.said

    def test_pixels_that_curve(self, tmp_path):
        """What the page's script corrects with is what the calibrator corrects with."""
        scene = Scene(curvature=-2e-5, curvature_spread=4e-5)
        sweep = scene.sweep(30)
        calibrator = scene.fit(sweep, method="curved")
        _, page = page_of(tmp_path, calibrator, sweep=sweep)
        corrected = calibrator.transform(sweep)
        for pixel in page.data["pixels"][::50]:
            m = np.array(pixel["measured"])
            by_script = 2 * pixel["scale"] * m / (1 + np.sqrt(1 + pixel["curvature"] * m))
            np.testing.assert_allclose(by_script, corrected[:, pixel["row"], pixel["column"]], rtol=2e-4)

    def test_line_detector(self, tmp_path):
        scene = Scene((300,))
        sweep = scene.sweep(30)
        _, page = page_of(tmp_path, scene.fit(sweep), sweep=sweep)
        assert page.data["map"] == [512, 48]
        assert all(pixel["row"] is None for pixel in page.data["pixels"])
        assert len(page.data["pixels"]) == 300

    @pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (2, 3), (1, 50), (50, 1)])
    @pytest.mark.filterwarnings("ignore::detectorcal.DetectorcalWarning")
    def test_tiny_detectors(self, shape, tmp_path):
        sweep = np.random.default_rng(0).poisson(1000, (5, *shape)).astype(float)
        _, page = page_of(tmp_path, DetectorCalibrator(2).fit(sweep), sweep=sweep)
        assert len(page.data["pixels"]) == np.prod(shape)

    @pytest.mark.filterwarnings("ignore:.*pixels could not be calibrated:detectorcal.DetectorcalWarning")
    @pytest.mark.parametrize("with_sweep", [True, False])
    def test_no_pixel_calibrated(self, with_sweep, scene, tmp_path):
        sweep = scene.sweep(10)
        calibrator = scene.fit(sweep, cutoff=1e6)
        assert calibrator.defects_.all()
        headline, page = page_of(tmp_path, calibrator, sweep=sweep if with_sweep else None)
        assert headline.answer == "No pixel could be calibrated. Do not correct images with this."
        assert "5120 pixels of 5120" in page.said
        assert "nan" not in page.said.lower()

    @pytest.mark.filterwarnings("ignore:the sweep has one frame:detectorcal.DetectorcalWarning")
    def test_one_frame(self, scene, tmp_path):
        sweep = scene.sweep(1)
        headline, page = page_of(tmp_path, scene.fit(sweep), sweep=sweep)
        assert headline.grade == "unknown"
        assert "One frame does not tell" in page.said
        assert "nan" not in page.said.lower()

    def test_all_pixels_defective(self, demo, tmp_path):
        calibrator, sweep, scan, corrected = demo
        broken = clone(calibrator).fit(sweep, dark=100.0)
        broken.defects_ = np.full(SHAPE, 1, np.uint8)
        broken.coef_ = np.ones(SHAPE)
        broken.coef_std_ = np.full(SHAPE, np.nan)
        headline, page = page_of(tmp_path, broken, sweep=sweep, scan=scan, corrected=corrected)
        assert headline.grade in ("poor", "unknown")
        n_pixels = SHAPE[0] * SHAPE[1]
        assert f"{n_pixels} pixels of {n_pixels}. {n_pixels} of them could not be calibrated" in page.said
        assert "nan" not in page.said.lower()

    def test_noisy_pixels_keep_their_coefficient(self, demo, tmp_path):
        """They are calibrated, so that the page must not say otherwise."""
        calibrator, sweep, *_ = demo
        noisy = clone(calibrator).fit(sweep, dark=100.0)
        noisy.defects_[3, 4] |= 4
        _, page = page_of(tmp_path, noisy, sweep=sweep)
        n_lost = np.count_nonzero(noisy.defects_ & 32)
        n_marked = np.count_nonzero(noisy.defects_)
        assert f"{n_marked} pixel" in page.said
        assert f"{n_lost} of them could not be calibrated" in page.said

    def test_a_file_of_logarithms_is_read_as_transmissions(self, demo, tmp_path):
        calibrator, _, scan, corrected = demo
        for name, values, log in (("t.h5", corrected, False), ("log.h5", -np.log(corrected), True)):
            record = {"provenance": {"parameters": {"log": log}, "calibration": {}}}
            with create_frames(tmp_path / name, scan.shape, "float64", attributes=record) as out:
                out[:] = values
        plain = look_at_scan(calibrator, scan, corrected)
        for name in ("t.h5", "log.h5"):
            with open_frames(tmp_path / name) as stack:
                found = look_at_scan(calibrator, scan, stack)
            np.testing.assert_allclose(found.after, plain.after, rtol=1e-6, atol=1e-9)
            assert found.stripes == pytest.approx(plain.stripes, rel=1e-5)

    def test_a_flattened_mask(self, demo, tmp_path):
        _, sweep, *_ = demo
        mask = np.zeros(SHAPE, bool)
        mask[5, 6] = True
        flat = DetectorCalibrator(sigma=8, mask=mask.ravel(), detector_shape=SHAPE)
        flat.fit(sweep.reshape(len(sweep), -1), dark=100.0)
        headline, page = page_of(tmp_path, flat, sweep=sweep)
        assert headline.grade in ("good", "fair", "poor")
        assert "1 user" in page.said

    def test_captions_say_what_was_thinned(self, tmp_path):
        sweep = np.random.default_rng(0).poisson(
            np.linspace(200, 900, 4)[:, None, None] * np.ones((20, 1300))
        )
        calibrator = DetectorCalibrator(sigma=5).fit(sweep)
        _, page = page_of(tmp_path, calibrator, sweep=sweep)
        assert "A point of this picture is the mean of 1 x 3." in page.said
        assert "A point of this map is the mean of 1 x 3." in page.said
        assert "Of 4000 pixels, chosen at random, in 4 frames." in page.said

    def test_captions_of_a_small_detector_say_nothing_of_that(self, demo, tmp_path):
        _, page = page_of(tmp_path, demo[0])
        assert "is the mean of" not in page.said

    @pytest.mark.slow
    def test_large_detector_in_time_and_small(self, tmp_path):
        rng = np.random.default_rng(0)
        gain = 1 + 0.02 * rng.standard_normal((2048, 2048), dtype=np.float32)
        levels = np.linspace(300, 3000, 16, dtype=np.float32)
        sweep = np.stack(
            [gain * s + np.sqrt(GAIN * s) * rng.standard_normal(gain.shape, dtype=np.float32) for s in levels]
        ).astype(np.uint16)
        calibrator = DetectorCalibrator(n_jobs=2).fit(sweep)
        # seconds of processors: what the clock shows at most where nothing else runs, whatever runs here
        start = time.process_time()
        write_report(tmp_path / "report.html", calibrator, sweep=sweep)
        assert time.process_time() - start < 10
        assert (tmp_path / "report.html").stat().st_size < 5e6


def test_a_scan_keeps_to_its_own_darks(demo, scene, tmp_path):
    """As one in NXtomo layout has them: even where the calibration kept none."""
    calibrator, sweep, scan, corrected = demo

    class WithDarks(np.ndarray):
        darks = scene.darks

    own = np.repeat(scene.darks.mean(axis=0)[None], len(sweep), axis=0)
    without = clone(calibrator).fit(sweep, dark=own, dark_per_frame=True)
    given = {"scan": scan.view(WithDarks), "corrected": corrected, "n_projections": 10}
    write_report(tmp_path / "report.html", without, **given)
    _, page = page_of(tmp_path, without, overwrite=True, **given)
    seen = look_at_scan(calibrator, scan, corrected)
    assert f"mean level {seen.level:.0f} DN" in page.said
    with pytest.raises(InputError, match="`dark=`"):
        write_report(tmp_path / "other.html", without, **given | {"scan": scan})


class TestMistakes:
    def test_are_named_and_nothing_is_written(self, demo, tmp_path):
        calibrator, sweep, scan, corrected = demo
        path = tmp_path / "report.html"
        for options, said in (
            ({"scan": scan}, "`corrected`"),
            ({"scan": scan, "corrected": corrected[:5]}, "same projections"),
            ({"sweep": sweep[:, :5]}, "shape"),
            ({"sweep": "sweep"}, "`sweep`"),
            ({"dark": np.ones((3, 3)), "sweep": sweep}, "`dark`"),
            ({"n_projections": 0}, "`n_projections`"),
        ):
            with pytest.raises(InputError, match=said):
                write_report(path, calibrator, **options)
        with pytest.raises(InputError, match=r"\.html"):
            write_report(tmp_path / "report.pdf", calibrator)
        with pytest.raises(MissingFileError, match="folder"):
            write_report(tmp_path / "no folder" / "report.html", calibrator)
        assert not list(tmp_path.iterdir())

    def test_missing_matplotlib_names_the_extra(self, demo, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingDependencyError, match=r"detectorcal\[plot\]"):
            write_report(tmp_path / "report.html", demo[0])
        assert not list(tmp_path.iterdir())

    def test_an_existing_report_stays(self, demo, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("mine")
        with pytest.raises(OutputExistsError):
            write_report(path, demo[0])
        assert path.read_text() == "mine"


class TestCommand:
    @pytest.fixture
    def files(self, demo, scene, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        calibrator, sweep, scan, corrected = demo
        calibrator.save("detector <b>.h5")
        for name, frames in (
            ("sweep", sweep),
            ("scan", scan),
            ("corrected", corrected),
            ("darks", scene.darks),
        ):
            tifffile.imwrite(f"{name}.tif", frames, photometric="minisblack")
        return tmp_path

    @staticmethod
    def run(*words, code=0):
        with pytest.raises(SystemExit) as stop:
            main(["report", *map(str, words)])
        assert (stop.value.code or 0) == code

    def test_writes_the_page_and_one_line(self, files, capsys):
        self.run(
            "detector <b>.h5", "--sweep", "sweep.tif", "--dark", "darks.tif", "--scan", "scan.tif",
            "corrected.tif", "--projections", 20, "-o", "report.html",
        )  # fmt: skip
        printed = capsys.readouterr()
        assert printed.out == "report.html: Good enough for 20 projections.\n"
        assert printed.err == ""
        page = Page(files / "report.html")
        assert "detector <b>.h5" in page.said
        assert "scan.tif -> corrected.tif" in page.said
        assert "<b>" not in page.text

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("nothing.h5", "-o", "report.html"), "nothing.h5"),
            (("sweep.tif", "-o", "report.html"), "not a detectorcal calibration"),
            (("detector <b>.h5", "-o", "report.txt"), ".html"),
            (("detector <b>.h5", "-o", "nowhere/report.html"), "nowhere"),
            (("detector <b>.h5", "-o", "sweep.tif/report.html"), "sweep.tif"),
            (("detector <b>.h5", "--dark-per-frame", "-o", "report.html"), "--sweep"),
            (("detector <b>.h5", "--scan", "scan.tif", "sweep.tif", "-o", "report.html"), "same projections"),
            (("detector <b>.h5", "--projections", "0", "-o", "report.html"), "--projections"),
            (("detector <b>.h5", "--sweep", "missing.tif", "-o", "report.html"), "missing.tif"),
        ],
    )
    def test_mistakes_give_one_line(self, files, words, said, capsys):
        self.run(*words, code=2)
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.err.count("\n") == 1
        assert not (files / "report.html").exists()
