"""README and docs: their code runs, their links lead somewhere, every public name has an example."""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

import detectorcal
from detectorcal import DetectorCalibrator, demo, simulate
from detectorcal.cli import main
from tests.benchmarks import readme

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n)?^(?P<indent> *)```(?P<kind>python|sh)\n(?P<code>.*?)```", re.M | re.S
)
SHAPE = (64, 80)


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def named(pages: list[Path]) -> list[object]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


@pytest.fixture(scope="module")
def scene():
    """Frames of one detector, and what the text calls by a name without making it."""
    rng = np.random.default_rng(0)
    detector = simulate.Detector.random(SHAPE, seed=rng)
    beam = simulate.beam_profile(SHAPE, width=2)
    labels = np.array([0, 1] * 6)
    frames = {
        "sweep": detector.record(simulate.exposure_ladder(beam, 24, lowest=400), rng),
        "darks": detector.darks(6, rng),
        "flats": detector.flats(2000 * beam, 6, rng),
        "scan": detector.record(2000 * beam * np.exp(-0.7 * np.ones((4, 1, 1))), rng),
        "images": detector.record((1000 + 500 * labels)[:, None, None] * beam, rng),
    }
    cal = DetectorCalibrator(sigma=10).fit(frames["sweep"], dark=frames["darks"])
    return {
        **frames, "labels": labels, "cal": cal, "dark": frames["darks"].mean(axis=0),
        "flat": frames["flats"].mean(axis=0), "projections": cal.transform(frames["scan"], frames["flats"]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def prepared(scene, tmp_path_factory):
    """A folder with the files of which the text speaks."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("sweep", "darks", "flats", "scan"):
        frames = scene[name]
        tifffile.imwrite(folder / f"{name}.tif", frames, photometric="minisblack")
        (folder / name).mkdir()
        for i, frame in enumerate(frames):
            tifffile.imwrite(folder / name / f"{name}_{i}.tif", frame)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["data"] = frames
    store = zarr.create_array(
        folder / "sweep.zarr", shape=scene["sweep"].shape, chunks=(8, *SHAPE), dtype="u2"
    )
    store[:] = scene["sweep"]
    for name, kinds in {"scan": ("darks", "flats", "scan"), "sweep": ("sweep",)}.items():
        write_nxtomo(folder / f"{name}.nxs", [scene[kind] for kind in kinds])
    tifffile.imwrite(folder / "bad_pixels.tif", np.eye(*SHAPE, dtype=np.uint8))
    return folder


def write_nxtomo(path: Path, stacks: list[np.ndarray]) -> None:
    keys = np.repeat([2, 1, 0][-len(stacks) :], [len(frames) for frames in stacks])
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry["definition"] = "NXentry", "NXtomo"
        entry["instrument/detector/data"] = np.concatenate(stacks)
        entry["instrument/detector/image_key"] = keys
        entry["data/data"] = entry["instrument/detector/data"]
        entry["sample/rotation_angle"] = np.arange(len(keys), dtype=float)


def shell(code: str) -> None:
    """Run the lines of a block, all of which must be `detectorcal` commands, in this process."""
    for line in code.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if not program:
            continue
        assert program == "detectorcal", f"not run, and not marked so: {line}"
        output = Path(words[words.index("-o") + 1]) if "-o" in words else Path()
        if output.is_file():  # an earlier block of the page has made it
            output.unlink()
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert not stop.value.code, line
        assert output.exists(), line


@pytest.mark.parametrize("page", named([page for page in PAGES if blocks(page)]))
def test_code_runs(page, scene, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(demo, "N_SWEEP", 20)
    monkeypatch.setattr(demo, "N_ANGLES", 40)
    names, text = dict(scene), page.read_text(encoding="utf-8")
    if "-o detector.h5" not in text:
        names["cal"].save("detector.h5")
    for block in blocks(page):
        if block["skip"]:
            continue
        if block["kind"] == "sh":
            shell(block["code"])
        else:
            exec(compile(inspect.cleandoc(block["code"]), page.name, "exec"), names)
    if page.name == "README.md":
        assert abs(names["transmission"].mean() - np.exp(-0.7)) < 0.01
        assert names["model"].score(scene["images"], scene["labels"]) == 1.0


def test_the_figures_of_the_readme_are_those_that_were_measured():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    between = text.split(readme.BEGIN)[1].split(readme.END)[0]
    assert between.strip() == readme.measured(), "python -m tests.benchmarks.readme writes them anew"


@pytest.mark.slow  # it also runs when the pages are built
def test_the_classifier_loses_and_wins_back(monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    names = runpy.run_path("plot_classifier.py")
    assert names["lost"] >= 5
    assert names["won_back"] >= 2 / 3 * names["lost"]
    assert 90 < names["clean"] < 100


@pytest.mark.parametrize("page", named(PAGES))
def test_no_block_escapes(page):
    kinds = re.findall(r"^ *```(\S+)", page.read_text(encoding="utf-8"), re.M)
    directives = {"{toctree}", "{include}", "{eval-rst}", "{help-pages}"}
    assert {kind for kind in kinds if kind not in directives} <= {"python", "sh"}
    assert len(blocks(page)) == kinds.count("python") + kinds.count("sh")


LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Places of a page that a link may name: its headings, as GitHub and MyST spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", named([*PAGES, ROOT / "CHANGELOG.md"]))
def test_links_between_files_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, place = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not place or place in anchors(target), link


def test_the_check_of_the_built_pages_finds_dead_links(tmp_path):
    dead_links = runpy.run_path(str(ROOT / "docs" / "check_links.py"))["dead_links"]
    (tmp_path / "a.html").write_text('<h1 id="here">A</h1><a href="b.html#there">b</a> <a href="#here">A</a>')
    (tmp_path / "b.html").write_text(
        '<p id="there"></p><a href="a.html?x#here">A</a> <a href="https://x">x</a>'
    )
    assert dead_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#gone">A</a><img src="gone.png">')
    assert dead_links(tmp_path) == ["a.html: b.html#there", "b.html: a.html#gone", "b.html: gone.png"]


PUBLIC = [
    (f"{module.__name__}.{name}", getattr(module, name))
    for module in (detectorcal, detectorcal.io, detectorcal.metrics, detectorcal.plot, detectorcal.simulate)
    for name in module.__all__
]
DESCRIBED = [(name, thing) for name, thing in PUBLIC if inspect.isclass(thing) or inspect.isroutine(thing)]


CLASSES = [thing for _, thing in DESCRIBED if inspect.isclass(thing)]
ERRORS = [kind for kind in CLASSES if issubclass(kind, detectorcal.DetectorcalError)]


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for name, thing in DESCRIBED])
def test_every_public_name_has_an_example(thing):
    # --doctest-modules runs it; all errors are caught alike, so that one example shows it
    thing = detectorcal.DetectorcalError if thing in ERRORS else thing
    _, title, example = inspect.getdoc(thing).partition("Examples\n--------\n")
    assert title, "no section of examples"
    assert ">>> " in example


@pytest.mark.parametrize("name", [name for name, _ in PUBLIC if "__" not in name])
def test_every_public_name_is_in_the_reference(name):
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.split(f"## {name.rpartition('.')[0]}\n")[1].split("\n## ")[0]
    assert re.search(rf"^   {name.rpartition('.')[2]}$", section, re.M)
