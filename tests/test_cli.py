"""The command line: file to file, one line on stderr and exit code 2 after a mistake."""

from __future__ import annotations

import errno
import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from detectorcal import DetectorCalibrator, _streaming, simulate
from detectorcal.cli import main
from detectorcal.io import open_frames

SHAPE = (40, 48)


@pytest.fixture(scope="module")
def scene():
    """A detector, its sweep, darks, flats and images."""
    rng = np.random.default_rng(5)
    detector = simulate.Detector.random(SHAPE, seed=rng)
    beam = simulate.beam_profile(SHAPE, width=1.5)
    return {
        "sweep": detector.record(simulate.exposure_ladder(beam, 20), rng),
        "darks": detector.darks(10, rng),
        "flats": detector.flats(2000 * beam, 10, rng),
        "scan": detector.record(np.stack([1000 * beam] * 6), rng),
    }


@pytest.fixture
def files(scene, tmp_path, monkeypatch):
    """The same as TIFF files in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, frames in scene.items():
        tifffile.imwrite(f"{name}.tif", frames, photometric="minisblack")
    return tmp_path


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def fitted(scene) -> DetectorCalibrator:
    return DetectorCalibrator(sigma=8).fit(scene["sweep"], dark=scene["darks"])


@pytest.mark.parametrize("suffix", [".h5", ".zarr", ".tif"])
def test_fit_and_correct_equal_python(files, scene, suffix, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", f"cal{suffix}")
    cal = fitted(scene)
    np.testing.assert_array_equal(DetectorCalibrator.load(f"cal{suffix}").coef_, cal.coef_)
    run(
        "correct", "scan.tif", "-c", f"cal{suffix}", "--flat", "flats.tif", "--sigma", 3, "-o", f"out{suffix}"
    )
    with open_frames(f"out{suffix}") as out:
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out[:], cal.transform(scene["scan"], scene["flats"], 3))
    printed = capsys.readouterr()
    assert "20 frames of 40x48 pixels" in printed.out
    assert printed.err == ""  # not a terminal: no progress bar


def test_options_reach_the_estimator(files, scene):
    run(
        "fit", "sweep.tif", "--dark", 100, "--sigma", 5, "--method", "photon", "--cutoff", 300,
        "--saturation", 4000, "--reject", 7, "--mode", "reflect", "--batch-size", 8, "--jobs", 1,
        "-o", "cal.h5",
    )  # fmt: skip
    expected = DetectorCalibrator(
        5, method="photon", cutoff=300, saturation=4000, reject=7, mode="reflect", batch_size=8, n_jobs=1
    )
    assert DetectorCalibrator.load("cal.h5").get_params() == expected.get_params()
    np.testing.assert_array_equal(
        DetectorCalibrator.load("cal.h5").coef_, expected.fit(scene["sweep"], dark=100).coef_
    )


def test_dark_per_frame(files, scene):
    darks = np.linspace(50, 150, 20)[:, None, None] + np.zeros((20, *SHAPE), np.float32)
    np.save("each.npy", darks)
    run("fit", "sweep.tif", "--dark", "each.npy", "--dark-per-frame", "-o", "cal.h5")
    cal = DetectorCalibrator.load("cal.h5")
    assert cal.dark_ is None
    np.testing.assert_array_equal(
        cal.coef_, DetectorCalibrator().fit(scene["sweep"], dark=darks, dark_per_frame=True).coef_
    )
    run("correct", "scan.tif", "-c", "cal.h5", "-o", "out.h5", code=2)
    run("correct", "scan.tif", "-c", "cal.h5", "--dark", "darks.tif", "-o", "out.h5")


def test_flat_without_dark(files, scene):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    run("correct", "scan.tif", "-c", "cal.h5", "--flat", "flats.tif", "--flat-without-dark", "-o", "out.npy")
    expected = fitted(scene).transform(scene["scan"], scene["flats"], flat_has_dark=False)
    np.testing.assert_array_equal(np.load("out.npy"), expected)


def test_reject_replaces_spots(files, scene):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    struck = scene["scan"].copy()
    struck[2, 20, 20] = 4095
    tifffile.imwrite("struck.tif", struck, photometric="minisblack")
    run("correct", "struck.tif", "-c", "cal.h5", "--reject", 8, "-o", "out.npy")
    clean = fitted(scene).transform(scene["scan"])
    assert abs(np.load("out.npy")[2, 20, 20] / clean[2, 20, 20] - 1) < 0.1
    run("correct", "struck.tif", "-c", "cal.h5", "-o", "kept.npy")
    assert np.load("kept.npy")[2, 20, 20] > 3 * clean[2, 20, 20]


def _write_nxtomo(path, scene):
    frames = np.concatenate([scene["darks"], scene["flats"], scene["scan"]])
    keys = np.repeat([2, 1, 0], [10, 10, 6])
    with h5py.File(path, "w") as f:
        entry = f.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        entry["instrument/detector/data"] = frames
        entry["instrument/detector/image_key"] = keys
        entry["data/data"] = entry["instrument/detector/data"]
        entry["data/image_key"] = entry["instrument/detector/image_key"]
        entry["sample/rotation_angle"] = np.where(keys == 0, np.arange(26.0), 0.0)


def _write_dxchange(path, scene):
    with h5py.File(path, "w") as f:
        f["exchange/data"] = scene["scan"]
        f["exchange/data_white"] = scene["flats"]
        f["exchange/data_dark"] = scene["darks"]
        f["exchange/theta"] = np.arange(6.0)


def test_nxtomo_brings_its_flats_and_darks_and_keeps_its_layout(files, scene):
    run("fit", "sweep.tif", "--dark", 90, "--sigma", 8, "-o", "cal.h5")
    _write_nxtomo("scan.nxs", scene)
    run("correct", "scan.nxs", "-c", "cal.h5", "-o", "out.nxs")
    cal = DetectorCalibrator(sigma=8).fit(scene["sweep"], dark=90)
    expected = cal.transform(scene["scan"], scene["flats"], dark=scene["darks"])
    with h5py.File("out.nxs") as f:
        np.testing.assert_array_equal(f["entry/data/data"][:], expected)
        assert set(f["entry/instrument/detector/image_key"][:]) == {0}
        np.testing.assert_array_equal(f["entry/sample/rotation_angle"][:], 20.0 + np.arange(6))


def test_dxchange_can_be_normalised_again_without_harm(files, scene):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    _write_dxchange("scan.h5", scene)
    run("correct", "scan.h5", "-c", "cal.h5", "-o", "out.h5")
    expected = fitted(scene).transform(scene["scan"], scene["flats"], dark=scene["darks"])
    with h5py.File("out.h5") as f:
        exchange = f["exchange"]
        white, dark = exchange["data_white"][:].mean(axis=0), exchange["data_dark"][:].mean(axis=0)
        np.testing.assert_array_equal((exchange["data"][:] - dark) / (white - dark), expected)
        np.testing.assert_array_equal(exchange["theta"][:], np.arange(6.0))


def test_own_flat_wins_over_the_file_s(files, scene):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    _write_dxchange("scan.h5", scene)
    tifffile.imwrite("other.tif", 2 * scene["flats"], photometric="minisblack")
    run("correct", "scan.h5", "-c", "cal.h5", "--flat", "other.tif", "--dark", 0, "-o", "out.npy")
    expected = fitted(scene).transform(scene["scan"], 2 * scene["flats"], dark=0)
    np.testing.assert_array_equal(np.load("out.npy"), expected)


def test_a_scan_is_no_sweep(files, scene, capsys):
    _write_dxchange("scan.h5", scene)
    run("fit", "scan.h5", "-o", "cal.h5", code=2)
    assert "scan.h5:/path" in capsys.readouterr().err
    run("fit", "scan.h5:/exchange/data_white", "-o", "cal.h5")
    assert DetectorCalibrator.load("cal.h5").n_frames_seen_ == 10


def test_inspect_tells_what_was_fitted(files, scene, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    capsys.readouterr()
    run("inspect", "cal.h5")
    out = capsys.readouterr().out
    for fact in ("40x48 pixels", "20 frames", "croton, sigma 8 px", "DN per electron", "unsolved"):
        assert fact in out


def test_version_and_help(capsys):
    run("--version")
    from detectorcal import __version__

    assert capsys.readouterr().out == f"detectorcal {__version__}\n"
    for command in ("fit", "correct", "inspect", "demo"):
        run(command, "--help")
        lines = capsys.readouterr().out.splitlines()
        assert lines[lines.index("  Example:") + 1].startswith(f"    detectorcal {command}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit nowhere.tif -o x.h5", "nowhere.tif"),
        ("fit sweep.tif -o x.png", ".png"),
        ("fit sweep.tif -o nowhere/x.h5", "nowhere"),
        ("fit sweep.tif", "--output"),
        ("fit sweep.tif --sigma -1 -o x.h5", "`--sigma`"),
        ("fit sweep.tif --sigma wide -o x.h5", "--sigma"),
        ("fit sweep.tif --dark scan.tif --dark-per-frame -o x.h5", "`--dark`"),
        ("fit sweep.tif --dark small.tif -o x.h5", "`--dark`"),
        ("fit text.tif -o x.h5", "text.tif"),
        ("fit cut.tif -o x.h5", "cut.tif"),
        ("fit sweep.tif -o sweep.tif", "sweep.tif"),
        ("correct scan.tif -c sweep.tif -o x.h5", "sweep.tif"),
        ("correct scan.tif -c cal.h5 --sigma 3 -o x.h5", "`--sigma`"),
        ("fit sweep.tif --batch-size x -o x.h5", "`--batch-size`"),
        ("fit sweep.tif --dark darks.tif -o cal.h5", "Pass `--overwrite`"),
        ("correct small.tif -c cal.h5 -o x.h5", "`IMAGE`"),
        ("correct scan.tif -c cal.h5 --flat small.tif -o x.h5", "`--flat`"),
        ("inspect text.tif", "text.tif"),
        ("inspect scan.tif", "`inspect` shows what"),
        ("inspect cal.h5 --projections 0", "--projections"),
        ("inspect .", "'.'"),
        ("polish scan.tif", "polish"),
        ("fit sweep.tif --dark -o x.h5", "Invalid value for '--dark': it takes the name of a file, but '-o'"),
        ("report cal.h5 --scan scan.tif -o x.html", "'--scan': it takes two names, IN and OUT, but '-o'"),
        ("correct out.h5 -c cal.h5 -o x.h5", "`out.h5:/data` was written by detectorcal"),
        ("correct scan.tif -c cal.h5 --flat out.tif -o x.h5", "`out.tif` was written by detectorcal"),
        ("fit out.tif -o x.h5", "`out.tif` was written by detectorcal"),
        ("report cal.h5 --scan out.tif scan.tif -o x.html", "`out.tif` is corrected already"),
        ("fit dark -o x.h5", "The folder `dark` holds no .tif"),
    ],
)
def test_mistakes_take_one_line_and_exit_code_2(files, scene, words, said, capsys):
    tifffile.imwrite("small.tif", scene["scan"][:, :10, :10], photometric="minisblack")
    (files / "text.tif").write_text("no picture at all")
    (files / "cut.tif").write_bytes((files / "sweep.tif").read_bytes()[:-5000])
    (files / "dark").mkdir()
    fitted(scene).save("cal.h5")
    for name in ("out.h5", "out.tif"):
        run("correct", "scan.tif", "-c", "cal.h5", "-o", name, "-q")
    before = {path: path.stat().st_mtime_ns for path in files.iterdir()}
    run(*words.split(), code=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("detectorcal: ")
    assert said in err
    assert {path: path.stat().st_mtime_ns for path in files.iterdir()} == before


def test_an_existing_output_is_kept_unless_told(files, scene, capsys):
    (files / "cal.h5").write_text("precious")
    run("fit", "sweep.tif", "-o", "cal.h5", code=2)
    assert (files / "cal.h5").read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5", "--overwrite")
    np.testing.assert_array_equal(DetectorCalibrator.load("cal.h5").coef_, fitted(scene).coef_)


def test_another_bit_depth_is_noticed(files, scene, capsys):
    """In 8 bits nearly all readings are below a dark of 12 bits."""
    fitted(scene).save("cal.h5")
    tifffile.imwrite("small.tif", (scene["scan"] // 64).astype(np.uint8), photometric="minisblack")
    run("correct", "small.tif", "-c", "cal.h5", "-o", "out.h5")
    assert "`small.tif`, uint8, read less than the dark" in capsys.readouterr().err
    run("correct", "scan.tif", "-c", "cal.h5", "-o", "out.tif")
    assert not capsys.readouterr().err


def test_the_files_of_the_demo_are_raw_but_for_the_corrected(files, capsys):
    run("demo", "--output", "demo", "-q")
    raw = "-c", "demo/calibration.h5", "--flat", "demo/flats.h5", "-o", "again.h5"
    run("correct", "demo/scan.h5", *raw)
    run("report", "demo/calibration.h5", "--scan", "demo/scan.h5", "demo/corrected.h5", "-o", "page.html")
    capsys.readouterr()
    run("correct", "demo/corrected.h5", *raw, "--overwrite", code=2)
    assert "frames are corrected already" in capsys.readouterr().err


def test_report_notices_another_sweep(files, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "-o", "cal.h5")
    capsys.readouterr()
    run("report", "cal.h5", "--sweep", "sweep.tif", "-o", "one.html")
    assert not capsys.readouterr().err
    run("report", "cal.h5", "--sweep", "scan.tif", "-o", "other.html")
    n_frames = len(tifffile.imread("scan.tif"))
    assert (
        f"`scan.tif` has {n_frames} frames, but this calibration was fitted to 20" in capsys.readouterr().err
    )


def test_frames_beyond_the_last_are_told_of(files, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--frames", "3:50", "-o", "cal.h5")
    assert "`--frames 3:50` goes beyond the 20 frames there are" in capsys.readouterr().err
    assert DetectorCalibrator.load("cal.h5").n_frames_seen_ == 17


def test_quiet_prints_nothing(files, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "-q", "-o", "cal.h5")
    run("correct", "scan.tif", "-c", "cal.h5", "-q", "-o", "out.h5")
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_progress_is_shown_on_a_terminal_unless_quiet(files, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    run("fit", "sweep.tif", "--dark", "darks.tif", "-o", "cal.h5")
    err = capsys.readouterr().err
    assert "fitting" in err
    assert "20/20" in err
    run("correct", "scan.tif", "-c", "cal.h5", "-o", "out.h5", "--quiet")
    assert capsys.readouterr().err == ""


def test_warnings_are_one_line(files, scene, capsys):
    tifffile.imwrite("one.tif", scene["sweep"][-1:], photometric="minisblack")
    run("fit", "one.tif", "-o", "cal.h5")
    err = capsys.readouterr().err
    assert err.startswith("detectorcal: warning: the sweep has one frame")
    assert "by `--line`." in err
    assert err.count("\n") == 1


def test_what_made_the_file_is_in_it(files):
    run("fit", "sweep.tif", "--dark", "darks.tif", "-o", "cal.h5")
    for suffix in (".h5", ".zarr", ".tif"):
        run("correct", "scan.tif", "-c", "cal.h5", "-o", f"out{suffix}")
    with h5py.File("out.h5") as f:
        assert f["data"].attrs["calibration"] == "cal.h5"
    assert zarr.open("out.zarr", mode="r").attrs["image"] == "scan.tif"
    with tifffile.TiffFile("out.tif") as tif:
        assert json.loads(tif.pages[0].description)["calibration"] == "cal.h5"


@pytest.mark.parametrize(
    "words",
    [
        "correct scan.tif -c cal.h5 -o scan.tif --overwrite",
        "correct scan.tif -c cal.h5 -o cal.h5 --overwrite",
        "correct scan.tif -c cal.h5 --flat flats.tif -o flats.tif --overwrite",
        "correct all.h5:/scan -c cal.h5 -o all.h5:/corrected --overwrite",
        "correct scan.tif -c cal.h5 -o all.h5:/corrected --overwrite",
        "correct scan.tif -c cal.h5 --flat all.h5:scan -o all.h5 --overwrite",
        "correct one_*.tif -c cal.h5 -o one_1.tif --overwrite",
        "correct scan.tif -c cal.h5 --flat one_*.tif -o one_0.tif --overwrite",
        "fit sweep.tif --dark one_*.tif -o one_0.tif --overwrite",
        "fit sweep.tif --dark darks.tif -o darks.tif --overwrite",
    ],
)
def test_no_input_and_no_neighbour_is_ever_overwritten(files, scene, words, capsys):
    fitted(scene).save("cal.h5")
    with h5py.File("all.h5", "w") as f:
        f["scan"] = scene["scan"]
    for number, frame in enumerate(scene["scan"][:2]):
        tifffile.imwrite(f"one_{number}.tif", frame, photometric="minisblack")
    before = {path: path.read_bytes() for path in files.iterdir()}
    run(*words.split(), code=2)
    assert {path: path.read_bytes() for path in files.iterdir()} == before
    assert "\n" not in capsys.readouterr().err.strip()


def test_a_scan_given_as_flat_or_dark_lends_its_own(files, scene):
    fitted(scene).save("cal.h5")
    _write_dxchange("dx.h5", scene)
    run("correct", "scan.tif", "-c", "cal.h5", "--flat", "dx.h5", "--dark", "dx.h5", "-o", "out.npy")
    expected = fitted(scene).transform(scene["scan"], scene["flats"], dark=scene["darks"])
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    with h5py.File("bare.h5", "w") as f:
        f["exchange/data"] = scene["scan"]
    run("correct", "scan.tif", "-c", "cal.h5", "--flat", "bare.h5", "-o", "no.npy", code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit darks.tif --dark sweep.tif -o x.h5", "no pixel"),
        ("fit sweep.tif --dark darks.tif --cutoff 1e9 -o x.h5", "no pixel"),
        ("correct scan.tif -c cal.h5 --flat darks.tif --dark flats.tif -o x.h5", "mixed up"),
    ],
)
def test_nothing_useful_is_not_written(files, scene, words, said, capsys):
    fitted(scene).save("cal.h5")
    run(*words.split(), code=2)
    assert said in capsys.readouterr().err
    assert not (files / "x.h5").exists()


@pytest.mark.parametrize("suffix", [".zarr", ".tif", ".npy"])  # zarr has written no whole chunk then
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stop_half_way_leaves_nothing_behind(files, scene, suffix, stop, capsys, monkeypatch):
    fitted(scene).save("cal.h5")
    n_read = 0
    real = _streaming.read

    def read_then_stop(stack, batch):
        nonlocal n_read
        n_read += 1
        if n_read > 2:
            raise stop
        return real(stack, batch)

    before = sorted(files.iterdir())
    monkeypatch.setattr(_streaming, "read", read_then_stop)
    code = 130 if isinstance(stop, KeyboardInterrupt) else 2
    run("correct", "sweep.tif", "-c", "cal.h5", "--batch-size", 8, "-o", f"out{suffix}", code=code)
    assert n_read == 3
    err = capsys.readouterr().err
    assert "\n" not in err.strip()
    assert ("interrupted" if code == 130 else "No space left") in err
    assert sorted(files.iterdir()) == before


def test_demo_makes_its_files_and_wins(tmp_path, capsys):
    from detectorcal import demo

    run("demo", "-o", tmp_path / "demo")
    out = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(demo.FILES)
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    figures = {
        name: [float(cell.strip(" %")) for cell in line.split("│")[2:4]] for name, line in lines.items()
    }
    for column in (0, 1):
        assert (
            figures["detectorcal"][column]
            < 0.7 * figures["flat field"][column]
            < figures["dark only"][column]
        )
    cal = DetectorCalibrator.load(tmp_path / "demo" / "calibration.h5")
    with (
        open_frames(tmp_path / "demo" / "scan.h5") as scan,
        open_frames(tmp_path / "demo" / "flats.h5") as flats,
        open_frames(tmp_path / "demo" / "corrected.h5") as corrected,
    ):
        np.testing.assert_array_equal(cal.transform(scan, flats), corrected[:])


def test_policies_and_logarithm_equal_python(files, scene):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    cal = fitted(scene)
    cal.defects_[3, 4] = 1
    cal.save("cal.h5", overwrite=True)
    name = next(name for name in scene if name not in ("sweep", "darks", "flats"))
    words = ["correct", f"{name}.tif", "-c", "cal.h5", "--flat", "flats.tif"]
    run(*words, "--defects", "interpolate", "--invalid", "clip", "--log", "-o", "out.tif")
    wanted = cal.transform(scene[name], scene["flats"], defects="interpolate", invalid="clip", log=True)
    np.testing.assert_array_equal(tifffile.imread("out.tif"), wanted)
    run(*words, "--defects", "nan", "--invalid", "0.25", "-o", "out.h5")
    with open_frames("out.h5") as out:
        np.testing.assert_array_equal(out[:], cal.transform(scene[name], scene["flats"], defects="nan"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log"], "`--log` takes the logarithm of a transmission, which needs a flat"),
        (["--flat", "flats.tif", "--invalid", "zero"], '`--invalid` must be "nan", "clip" or a number'),
        (["--flat", "flats.tif", "--defects", "mend"], "--defects"),
    ],
)
def test_unfit_policies(files, words, said, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 8, "-o", "cal.h5")
    capsys.readouterr()
    run("correct", "sweep.tif", "-c", "cal.h5", *words, "-o", "out.tif", code=2)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not list(files.glob("out*"))
