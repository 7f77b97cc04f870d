"""The command line on scans as they are: the same as in Python, and resumed with the same settings only."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile

from detectorcal import DetectorCalibrator, RingSuppressor, ScanCorrection, average, simulate
from detectorcal.cli import main
from detectorcal.io import open_frames

SHAPE = (48, 40)
N = 12
KEYS = [1, 1, *[0] * 5, 1, *[0] * 7, 1, 1, 1, 2, 2]
POSITIONS = [-0.5, -0.5, 4.5, 11.5, 11.5, 11.5]


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(5)
    detector = simulate.Detector.random(SHAPE, seed=rng)
    beam = simulate.beam_profile(SHAPE, width=2)
    levels = 2000 * (1 - 0.01 * np.arange(len(KEYS)))  # the beam fades while it is scanned
    seen = np.where(np.array(KEYS) == 0, 0.5, 1.0) * (np.array(KEYS) != 2) * levels
    frames = np.concatenate([detector.record(level * beam[None], rng) for level in seen])
    monitor = np.where(np.array(KEYS) == 2, 0, levels)
    sweep = detector.record(simulate.exposure_ladder(beam, 20), rng)
    cal = DetectorCalibrator(6).fit(sweep, dark=detector.darks(10, rng))
    parts = {kind: frames[np.array(KEYS) == key] for key, kind in enumerate(("scan", "flats", "darks"))}
    return {"frames": frames, "monitor": monitor, "sweep": sweep, "cal": cal, **parts}


@pytest.fixture
def files(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene["cal"].save("cal.h5")
    for name in ("sweep", "scan", "flats", "darks"):
        tifffile.imwrite(f"{name}.tif", scene[name], photometric="minisblack")
    tifffile.imwrite("before.tif", scene["flats"][:3], photometric="minisblack")
    tifffile.imwrite("after.tif", scene["flats"][3:], photometric="minisblack")
    with h5py.File("scan.nxs", "w") as file:
        entry = file.create_group("entry")
        entry["instrument/detector/data"] = scene["frames"]
        entry["instrument/detector/image_key"] = np.array(KEYS)
        entry["sample/rotation_angle"] = np.arange(len(KEYS), dtype=float)
        entry["control/data"] = scene["monitor"]
    return tmp_path


def run(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def corrected(*words: object, image: str = "scan.nxs") -> np.ndarray:
    run("correct", image, "-c", "cal.h5", "-o", "out.h5", "--overwrite", "-q", *words)
    with open_frames("out.h5") as out:
        return out[:]


@pytest.mark.parametrize("drift", ["linear", "nearest"])
def test_flats_in_a_nxtomo_scan(files, scene, drift):
    scan = ScanCorrection(scene["cal"], scene["flats"], POSITIONS, drift=drift, dark=scene["darks"])
    np.testing.assert_array_equal(corrected("--drift", drift), scan.fit_transform(scene["scan"]))
    # what fades by 1 % a frame; flats take frames too, so it is no quite straight line in projections
    spread = np.ptp(corrected("--drift", "linear").mean(axis=(1, 2)))
    assert spread < 0.25 * np.ptp(corrected().mean(axis=(1, 2)))


def test_flats_before_and_after(files, scene):
    flats = [scene["flats"][:3], scene["flats"][3:]]
    scan = ScanCorrection(scene["cal"], flats, [-0.5, N - 0.5], dark=scene["darks"], sigma=3)
    words = ("--flat", "before.tif", "--flat", "after.tif", "--dark", "darks.tif", "--sigma", 3)
    np.testing.assert_array_equal(corrected(*words, image="scan.tif"), scan.fit_transform(scene["scan"]))


def test_averages_and_left_out_flats(files, scene):
    cal, darks = scene["cal"], scene["darks"]
    for how in ("mean", "median"):
        flat = average(scene["flats"], how, leave_out=[0, 3])
        np.testing.assert_array_equal(
            corrected("--flat-average", how, "--leave-out-flats", "0, 3"),
            cal.correction(flat, dark=darks).transform(scene["scan"]),
        )
    # of both files together: 3 is the first of the second
    scan = ScanCorrection(cal, [scene["flats"][1:3], scene["flats"][4:]], [-0.5, N - 0.5], dark=darks)
    words = ("--flat", "before.tif", "--flat", "after.tif", "--leave-out-flats", "0,3")
    np.testing.assert_array_equal(corrected(*words), scan.fit_transform(scene["scan"]))


def test_exposure(files, scene, capsys):
    plain = corrected("--dark", 0)
    np.testing.assert_allclose(corrected("--dark", 0, "--exposure", "0.1/0.25"), 2.5 * plain, rtol=1e-6)
    capsys.readouterr()
    corrected("--exposure", "0.1/0.25")
    assert "dark current" in capsys.readouterr().err


def test_monitor(files, scene):
    """Of each frame in the file, or of images and then flats: the fading is gone."""
    key = np.array(KEYS)
    scan = ScanCorrection(
        scene["cal"], scene["flats"], dark=scene["darks"], monitor=scene["monitor"][key == 0],
        flat_monitor=scene["monitor"][key == 1],
    )  # fmt: skip
    wanted = scan.fit_transform(scene["scan"])
    assert np.ptp(wanted.mean(axis=(1, 2))) < 0.004
    np.testing.assert_array_equal(corrected("--monitor", "scan.nxs:/entry/control/data"), wanted)
    np.save("monitor.npy", scene["monitor"])
    np.testing.assert_array_equal(corrected("--monitor", "monitor.npy"), wanted)
    readings = np.concatenate([scene["monitor"][key == 0], scene["monitor"][key == 1]])
    (files / "monitor.txt").write_text("\n".join(map(repr, readings.tolist())), encoding="utf-8")
    words = ("--flat", "flats.tif", "--dark", "darks.tif", "--monitor", "monitor.txt")
    np.testing.assert_array_equal(corrected(*words, image="scan.tif"), wanted)


def test_a_part_of_detector_and_scan(files, scene):
    """Of frames of the whole detector, or that are that part already; the drift is of the whole scan."""
    scan = ScanCorrection(scene["cal"].crop(slice(16, 40), slice(4, 30)), scene["flats"][:, 16:40, 4:30],
                          POSITIONS, dark=scene["darks"][:, 16:40, 4:30])  # fmt: skip
    wanted = scan.fit_transform(scene["scan"][:, 16:40, 4:30])[3:9:2]
    words = ("--roi", "16:40,4:30", "--frames", "3:9:2")
    np.testing.assert_array_equal(corrected("--drift", "linear", *words), wanted)
    with h5py.File("out.h5") as file:
        assert file["entry/sample/rotation_angle"][:].tolist() == [5, 8, 10]
    tifffile.imwrite("part.tif", scene["scan"][:, 16:40, 4:30], photometric="minisblack")
    flats = ("--flat", "flats.tif", "--dark", "darks.tif")
    np.testing.assert_array_equal(
        corrected("--roi", "16:40,4:30", *flats, image="part.tif"),
        corrected("--roi", "16:40,4:30", *flats, image="scan.tif"),
    )


def test_fit_of_a_part(files, scene):
    words = ("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 5, "-o", "part.h5", "-q")
    run(*words, "--roi", "8:40,:30", "--frames", "2:-2")
    part = DetectorCalibrator(5).fit(scene["sweep"][2:-2, 8:40, :30], dark=scene["darks"][:, 8:40, :30])
    np.testing.assert_array_equal(DetectorCalibrator.load("part.h5").coef_, part.coef_)
    run(
        "fit", "sweep.tif", "--dark", "sweep.tif", "--dark-per-frame", "--frames", "::2", "-o", "x.h5", code=2
    )
    darks = np.zeros_like(scene["sweep"])
    darks[::2] += 100
    tifffile.imwrite("each.tif", darks, photometric="minisblack")
    run(*words[:2], "--dark", "each.tif", "--dark-per-frame", "--frames", "::2", *words[4:], "--overwrite")
    each = DetectorCalibrator(5).fit(scene["sweep"][::2], dark=100.0)
    np.testing.assert_array_equal(DetectorCalibrator.load("part.h5").coef_, each.coef_)


def test_rings_of_a_drifting_scan(files, scene):
    scan = ScanCorrection(scene["cal"], scene["flats"], POSITIONS, dark=scene["darks"]).fit(scene["scan"])
    T = scan.transform(scene["scan"])
    multiplier = RingSuppressor(scan).fit(T).multiplier_
    assert np.any(multiplier != 1)
    np.testing.assert_allclose(corrected("--drift", "linear", "--rings"), T * multiplier, rtol=1e-6)


def test_without_dark_and_with_a_number(files, scene):
    """A scan with no dark is taken as free of it, or has the sweep's, or a number."""
    cal, scan, flats = scene["cal"], scene["scan"], scene["flats"]
    with h5py.File("dx.h5", "w") as file:
        file["exchange/data"], file["exchange/data_white"] = scan, flats
    np.testing.assert_array_equal(corrected(image="dx.h5"), cal.transform(scan, flats))
    number = cal.transform(scan, flats, dark=100.0)
    np.testing.assert_array_equal(corrected("--dark", 100, image="dx.h5"), number)
    run("fit", "sweep.tif", "--sigma", 6, "-o", "free.h5", "-q")
    free = DetectorCalibrator(6).fit(scene["sweep"])
    run("correct", "dx.h5", "-c", "free.h5", "-o", "free_out.h5", "-q")
    with open_frames("free_out.h5") as out:
        np.testing.assert_array_equal(out[:], free.transform(scan, flats))


def test_resume_knows_the_light(files, scene, monkeypatch, capsys):
    """A stopped run goes on with the same settings to the same numbers, and with no others."""
    from detectorcal import Correction

    whole = corrected("--drift", "linear")
    words = ["correct", "scan.nxs", "-c", "cal.h5", "-o", "again.h5", "--batch-size", "8", "-q"]
    transform = Correction.transform

    def stopping(self, X, *, out=None, **more):
        transform(self, X, out=_Until(out, 8), **more)

    with monkeypatch.context() as patched:
        patched.setattr(Correction, "transform", stopping)
        run(*words, "--drift", "linear", code=130)
    for others in ([], ["--drift", "nearest"], ["--drift", "linear", "--leave-out-flats", "0"]):
        capsys.readouterr()
        run(*words, *others, "--resume", code=2)
        assert "light of its frames" in capsys.readouterr().err
    run(*words, "--drift", "linear", "--resume")
    with open_frames("again.h5") as out:
        np.testing.assert_array_equal(out[:], whole)


class _Until:
    """An output that is interrupted after some frames."""

    def __init__(self, out, n):
        self._out, self._n, self.shape, self.dtype = out, n, out.shape, out.dtype

    def __setitem__(self, batch, frames):
        if batch.start >= self._n:
            raise KeyboardInterrupt
        self._out[batch] = frames


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--drift", "cubic"), "'cubic' is not one of"),
        (("--drift", "linear", "--flat", "flats.tif"), "needs to know when flats were taken"),
        (("--flat", "flats.tif") * 3, "names 3 files"),
        (("--leave-out-flats", "6"), "names flat 6, but there are 6 flats"),
        (("--leave-out-flats", "0,1,2,3,4,5"), "names all flats"),
        (("--leave-out-flats", "first"), "list of numbers, as in 0,3"),
        (("--leave-out-flats", "1 2,3"), "list of numbers, as in 0,3"),
        (("--exposure", "0.1"), "IMAGE/FLAT, two times"),
        (("--exposure", "0.1/0"), "above 0"),
        (("--monitor", "nothing.txt"), "there is no file `nothing.txt`"),
        (("--monitor", "scan.nxs:/entry/nothing"), "must be numbers"),
        (("--monitor", "scan.nxs:/entry/sample/rotation_angle"), "monitor` must be above 0"),
        (("--monitor", "scan.tif"), "must be numbers"),
        (("--roi", "0:10"), "`--roi 0:10` is no part of frames of shape"),
        (("--roi", "0:100,0:10"), "no part of .* which are `--roi 0:48,0:40`"),
        (("--roi", "a,b"), "TOP:BOTTOM,LEFT:RIGHT"),
        (("--frames", "5"), "START:STOP"),
        (("--frames=-:5",), "START:STOP"),
        (("--frames", "20:30"), "`--frames 20:30` chooses none of"),
    ],
)  # fmt: skip
def test_mistakes(files, words, said, capsys):
    import re

    run("correct", "scan.nxs", "-c", "cal.h5", "-o", "bad.h5", *words, code=2)
    told = capsys.readouterr().err
    assert re.search(said, told), told
    assert told.count("\n") == 1
    assert not (files / "bad.h5").exists()


def test_a_calibration_of_the_part_itself(files, scene):
    """Fitted with --roi, it corrects that part of whole frames, and frames of that part."""
    how = ("--roi", "16:40,4:30", "--dark", "darks.tif")
    run("fit", "sweep.tif", *how, "--sigma", 6, "-o", "part.h5", "-q")
    run("correct", "scan.tif", "-c", "part.h5", *how, "--flat", "flats.tif", "-o", "whole.h5", "-q")
    tifffile.imwrite("cut.tif", scene["scan"][:, 16:40, 4:30], photometric="minisblack")
    tifffile.imwrite("flats_cut.tif", scene["flats"][:, 16:40, 4:30], photometric="minisblack")
    run("correct", "cut.tif", "-c", "part.h5", "--flat", "flats_cut.tif", "-o", "cut.h5", "-q")
    with open_frames("whole.h5") as whole, open_frames("cut.h5") as cut:
        np.testing.assert_array_equal(whole[:], cut[:])


def test_regions_and_mask_of_a_part(files, scene):
    mask, labels = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    mask[20, 10], labels[:, 25:] = 1, 2
    for name, values in (("mask.tif", mask), ("labels.tif", labels)):
        tifffile.imwrite(name, values)
    part = (slice(16, 40), slice(4, 30))
    run("fit", "sweep.tif", "--dark", "darks.tif", "--roi", "16:40,4:30", "--sigma", 6, "--mask", "mask.tif",
        "--regions", "labels.tif", "-o", "part.h5", "-q")  # fmt: skip
    here = {"mask": mask[part], "regions": labels[part]}
    wanted = DetectorCalibrator(6, **here).fit(scene["sweep"][:, *part], dark=scene["darks"][:, *part])
    found = DetectorCalibrator.load("part.h5")
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    np.testing.assert_array_equal(found.defects_, wanted.defects_)
    assert found.defects_[4, 6] == 64
