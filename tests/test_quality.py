"""The measures of the quality table, held against what they must be by definition."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from detectorcal import simulate
from tests.benchmarks import tables
from tests.benchmarks.quality import __main__ as benchmark
from tests.benchmarks.quality import cases, judge, methods, pages
from tests.benchmarks.quality.cases import CASES, Setup

TOY = Setup(width=64, height=8, n_angles=40, sigma=4.0)
BY_NAME = {case.name: case for case in CASES}
HARDENED = "spectrum hardens in the object"


def noiseless(world):
    """The same pixels, read without noise and without rounding."""
    exact = {"system_gain": 0.0, "light_yield": 0.0, "row_noise": 0.0, "bits": None}
    quiet = {"read_noise": np.zeros(world.at_scan.shape), **exact}
    detectors = {name: dataclasses.replace(getattr(world, name), **quiet) for name in ("at_sweep", "at_scan")}
    return dataclasses.replace(world, **detectors)


def quiet_recording(name):
    case = BY_NAME[name]
    quiet = dataclasses.replace(case, make=lambda setup, rng: noiseless(case.make(setup, rng)))
    return quiet.record(TOY, seed=1)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != HARDENED])
def test_without_noise_the_oracle_is_the_reference(name):
    recording = quiet_recording(name)
    reference = judge.reference_sinogram(recording)
    np.testing.assert_allclose(methods.oracle(recording), reference, rtol=0, atol=1e-10)
    if "curved" not in name:  # what else there is, a flat of the same day cancels
        np.testing.assert_allclose(methods.flat_field(recording), reference, rtol=0, atol=1e-10)


def test_without_noise_hardening_is_all_that_the_oracle_leaves():
    recording = quiet_recording(HARDENED)
    line_integrals = simulate.phantom_sinogram(simulate.ELLIPSES, TOY.angles, TOY.width)
    np.testing.assert_allclose(judge.reference_sinogram(recording), line_integrals, rtol=0, atol=1e-12)
    left = methods.oracle(recording) - line_integrals
    hardening = recording.world.hardening[recording.row]
    np.testing.assert_allclose(left, -np.log1p(hardening * line_integrals), rtol=0, atol=1e-10)


def test_figures_are_multiples_of_the_oracles():
    figures = judge.judge(CASES[0], TOY, seed=0)
    relative = judge.relative(figures)
    assert relative[methods.ORACLE].pop("off") == 0.0
    assert set(relative[methods.ORACLE].values()) == {1.0}
    assert set(relative[methods.ORACLE]) == {"ring", "rmse", judge.SAME_RING, judge.SAME_RMSE}
    relative = judge.relative(figures)
    flat, oracle = figures[methods.FLAT_FIELD], figures[methods.ORACLE]
    assert relative[methods.FLAT_FIELD]["ring"] == flat["ring"] / oracle["ring"] > 1
    assert relative[methods.FLAT_FIELD]["off"] == flat["off"] / oracle["rmse"]
    assert judge.medians([figures, figures]) == relative


def test_a_flat_field_is_off_by_the_noise_of_its_flats():
    # -log T of every projection is off by the same error of the mean flat and of the mean dark
    recording = CASES[0].record(TOY, seed=3)
    detector, row = recording.world.at_scan, recording.row
    off = (methods.flat_field(recording) - methods.oracle(recording)).mean(axis=0)
    flat = detector.response(recording.world.beam)[row]
    predicted = np.sqrt(detector.system_gain * flat / TOY.n_flats) / flat
    assert 0.75 < np.std(off / predicted) < 1.3


def test_the_same_photons_are_poisson_and_shared():
    # for Poisson numbers that share all they can, the covariance is the smaller mean
    rng = np.random.default_rng(4)
    mean, wanted, unit, n = np.array([60.0, 90.0]), np.array([80.0, 70.0]), 0.5, 20_000
    drawn = unit * rng.poisson(np.broadcast_to(mean / unit, (n, 2)))
    found = cases.same_photons(drawn, mean, wanted, unit, rng)
    error = np.sqrt(2 / n)  # relative, of a variance
    np.testing.assert_allclose(found.mean(axis=0), wanted, atol=4 * np.sqrt(unit * wanted.max() / n))
    np.testing.assert_allclose(found.var(axis=0), unit * wanted, rtol=4 * error)
    shared = [np.cov(drawn[:, i], found[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(shared, unit * np.minimum(mean, wanted), rtol=6 * error)


def test_against_the_same_photons_the_oracle_is_off_by_read_noise_and_the_lost_photons():
    recording = BY_NAME["linear, 60 frames"].record(TOY, seed=2)
    detector, row = recording.world.at_scan, recording.row
    measured = (recording.projections[:, row] - detector.dark[row]) / detector.gain[row]
    light = np.stack(list(cases.behind_object(recording.world, TOY)))[:, row]
    unshared = detector.system_gain * light * np.abs(1 / detector.gain[row] - 1)
    reading = (detector.read_noise[row] ** 2 + 1 / 12) / detector.gain[row] ** 2
    ratio = (measured - recording.perfect) ** 2 / (unshared + reading)
    assert ratio.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / ratio.size))
    assert quiet_recording("linear, 60 frames").perfect is not None
    assert BY_NAME["light spreads to neighbours"].record(TOY, seed=2).perfect is None


def test_rmse_is_that_inside_the_circle():
    image = np.zeros((40, 40))
    image[0, 0] = 1e6
    assert judge.rmse(image, np.full((40, 40), 0.5)) == 0.5
    image[20, 20] = 0.5
    n_inside = sum(np.hypot(x - 19.5, y - 19.5) < 20 for x in range(40) for y in range(40))
    assert judge.rmse(image, np.zeros((40, 40))) == pytest.approx(0.5 / np.sqrt(n_inside))


def test_dust_is_on_equally_many_pixels_of_every_row():
    world = BY_NAME["dust after the sweep"].world(Setup(width=500, height=4), seed=0)
    lost = 1 - world.at_scan.gain / world.at_sweep.gain
    assert ((lost > 1e-9).sum(axis=1) == 2).all()
    assert ((lost < 1e-9) | ((lost >= 0.05) & (lost <= 0.3))).all()


def test_astra_reconstructs_as_the_simulator_does():
    pytest.importorskip("astra")
    # a smooth blob far from the middle: its line integrals are a Gaussian too, and a flip would show
    angles = np.linspace(0, np.pi, 720, endpoint=False)
    x, y, sigma = 20.0, 9.0, 5.0
    positions = np.arange(128) - 63.5
    from_blob = positions - x * np.cos(angles)[:, None] - y * np.sin(angles)[:, None]
    sinogram = np.sqrt(2 * np.pi) * sigma * np.exp(-0.5 * (from_blob / sigma) ** 2)
    truth = np.exp(-0.5 * ((positions - x) ** 2 + (positions[:, None] - y) ** 2) / sigma**2)
    ours, theirs = simulate.reconstruct(sinogram, angles), judge.reconstruct_with_astra(sinogram, angles)
    signal = judge.rmse(truth, np.zeros_like(truth))
    # astra's interpolation between detector pixels (Joseph's) errs by about 1 %, the simulator's by 0.5 %
    assert judge.rmse(ours, truth) < 0.01 * signal
    assert judge.rmse(theirs, truth) < 0.02 * signal


def test_losses_are_told():
    def figures(ring):
        return {"ring": ring, "rmse": 1.0, "off": 0.2}

    of_case = {
        methods.OURS: figures(1.1),
        **{f"flat field + {name}": figures(2.0) for name in methods.FILTERS},
    }
    lost = of_case | {"flat field + all": figures(1.0)}
    sentences = pages.losses({"medians": {"won": of_case, "lost": lost}})
    assert [sentence.split(": ")[1] for sentence in sentences] == ["lost.", "no case.", "no case."]


def test_the_quick_run_writes_tables_and_pictures_and_takes_up_what_it_kept(tmp_path, capsys):
    page, figures, picture, kept = (tmp_path / name for name in ("q.md", "q.json", "q.png", "kept"))
    page.write_text(f"By hand.\n{tables.BEGIN}\n{tables.END}\n")
    words = ["--quick", "--workers", "1", "--json", figures, "--markdown", page, "--folder", kept]
    benchmark.main([str(word) for word in [*words, "--pictures", picture]])
    measured = json.loads(figures.read_text())
    printed, written = capsys.readouterr().out, page.read_text()
    for table in pages.quality_tables(measured):
        assert table.as_markdown().strip() in printed
        assert table.as_markdown().strip() in written
    assert picture.read_bytes().startswith(b"\x89PNG")
    # what was kept is believed
    file = kept / f"{CASES[0].key}-0.json"
    known = json.loads(file.read_text())
    known[methods.FLAT_FIELD]["ring"] = 1e3 * known[methods.ORACLE]["ring"]
    file.write_text(json.dumps(known))
    benchmark.main([str(word) for word in words])
    again = json.loads(figures.read_text())
    assert again["scans"][CASES[0].name][0] == known


def test_the_page_of_the_docs_has_its_markers():
    tables.check_markers(Path(__file__).parents[1] / "docs" / "quality.md")
