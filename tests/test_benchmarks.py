"""The benchmark itself, at toy size: that it runs, and that its ratios are those of its times."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as benchmark
from tests.benchmarks import beyond, growth, jobs, memory, old, smoothing, tables
from tests.benchmarks.frames import make_sweep
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.timing import MS, Job, take_turns

TOY = Sizes(
    n_frames=6,
    shape=(64, 64),
    sigma=5.0,
    turns=2,
    smoothed_widths=(64,),
    factored_widths=(64,),
    growth_frames=(2, 4),
    growth_widths=(32, 64),
    growth_width_frames=2,
    file_frames=(4, 12),
    held_frames=12,
)


class PretendedOld:
    """Stands in for 0.0.1, whose installation takes a minute."""

    def __init__(self, sweep, dark):
        self._fit = jobs.DetectorCalibrator(TOY.sigma).fit(sweep, dark=dark)

    def fit(self):
        pass

    def correct(self):
        pass

    def coefficients(self):
        return self._fit.coef_


@pytest.fixture(scope="module")
def sweep():
    return make_sweep(TOY.n_frames, TOY.shape)


def rows_by_job(table):
    # every table can be printed, and every row has the first column
    header, _, *lines = table.as_markdown().splitlines()[4:]
    assert len(lines) == len(table.rows)
    assert header.count("|") == len(table.columns) + 1
    return {row[table.columns[0]]: row for row in table.rows}


def assert_timed(rows):
    for row in rows.values():
        assert 0 < row["fastest"] <= row[MS] <= row["slowest"]
        assert row["turns"] in (1, TOY.turns)


@pytest.mark.parametrize(
    ("measure", "floor", "n_ours"),
    [(jobs.fit_in_memory, jobs.FIT_FLOOR, 4), (jobs.correct_in_memory, jobs.CORRECT_FLOOR, 3)],
)
def test_tables_with_a_floor(sweep, measure, floor, n_ours):
    rows = rows_by_job(measure(*sweep, TOY, PretendedOld(*sweep)))
    assert_timed(rows)
    assert sum(job.startswith(("fit, ", "transform")) for job in rows) == n_ours
    for row in rows.values():
        assert row[jobs.TIMES_FLOOR] == pytest.approx(row[MS] / rows[floor][MS])
        assert row[jobs.OLD_OVER_THIS] == pytest.approx(rows[old.NAME][MS] / row[MS])


def test_without_0_0_1_its_column_is_absent(sweep):
    table = jobs.fit_in_memory(*sweep, TOY, None)
    assert old.NAME not in rows_by_job(table)
    assert jobs.OLD_OVER_THIS not in table.columns


def test_fit_from_file(sweep, tmp_path):
    rows = rows_by_job(jobs.fit_from_file(*sweep, TOY, tmp_path))
    assert_timed(rows)
    for layout in ("contiguous", "chunked by frame"):
        for cores in ("1 core", "all cores"):
            row = rows[f"fit from file, {layout}, {cores}"]
            parts = rows[f"fit in memory, {cores}"][MS] + rows[f"bare read, {layout}"][MS]
            assert row[jobs.TIMES_PARTS] == pytest.approx(row[MS] / parts)
    assert not list(tmp_path.iterdir())


def test_curves_are_held_against_lines(tmp_path):
    for table, job in (
        (beyond.fit_curves(TOY), "fit, {}, {}"),
        (beyond.correct_curves(TOY, tmp_path), "transform, {}, in memory, {}"),
        (beyond.correct_curves(TOY, tmp_path), "transform, {}, file to file, {}"),
    ):
        rows = rows_by_job(table)
        assert_timed(rows)
        for cores in ("1 core", "all cores"):
            line, curve = (rows[job.format(method, cores)] for method in ("croton", "curved"))
            assert curve[beyond.TIMES_CROTON] == pytest.approx(curve[MS] / line[MS])
            assert line[beyond.TIMES_CROTON] == 1
    assert not list(tmp_path.iterdir())


def test_ring_pass_is_held_against_reading(tmp_path):
    rows = rows_by_job(beyond.ring_pass(TOY, tmp_path))
    assert_timed(rows)
    for name in ("transmissions", "raw"):
        row = rows[f"first pass, {name}, from file"]
        assert row[beyond.TIMES_READ] == pytest.approx(row[MS] / rows[f"bare read, {name}"][MS])
    assert not list(tmp_path.iterdir())


def test_smoothing():
    table = smoothing.smooth_frames(TOY)
    rows = {row["job"]: row for row in table.rows}
    assert_timed(rows)
    for cores in ("1 core", "all cores"):
        ours, scipy = rows[f"ours, {cores}"], rows[f"scipy.ndimage.gaussian_filter, {cores}"]
        assert ours[smoothing.SCIPY_OVER_THIS] == pytest.approx(scipy[MS] / ours[MS])
    (factors,) = smoothing.build_factors(TOY).rows
    assert factors["ms, first time"] > factors["ms, cached"] > 0


def test_growth():
    for table in (growth.grow_frames(TOY), growth.grow_pixels(TOY)):
        first, last = table.rows
        assert first["times the first row"] == 1
        assert_timed(rows_by_job(table))
    assert last["times the first row"] == pytest.approx(last[MS] / first[MS] / 4)


@pytest.mark.slow
def test_memory(tmp_path):
    if not memory.can_measure():
        pytest.skip("no os.wait4")
    few_fit, few_correct, many_fit, many_correct = memory.file_to_file(TOY, tmp_path).rows
    assert [few_fit["frames"], many_correct["frames"]] == list(TOY.file_frames)
    for few, many in ((few_fit, many_fit), (few_correct, many_correct)):
        assert few["job"] == many["job"]
        assert many["peak, times the fewest frames'"] == pytest.approx(many["peak, MB"] / few["peak, MB"])
        assert 10 < many["imports, MB"] < 2 * many["peak, MB"]
    assert {path.name for path in tmp_path.iterdir()} == {"dark.npy", "flat.npy"}
    held, *others = memory.in_memory(TOY).rows
    assert held["extra, MB"] == 0
    assert all(row["extra, MB"] == pytest.approx(row["peak, MB"] - held["peak, MB"]) for row in others)


def test_jobs_take_turns():
    order = []
    jobs_ = {
        "a": Job(lambda: order.append("a"), 1),
        "b": Job(lambda: order.append("b"), 1, ready=True, most_turns=1),
    }
    seconds = take_turns(jobs_, turns=3)
    assert "".join(order) == "a" + "ab" + "a" + "a"
    assert [len(times) for times in seconds.values()] == [3, 1]


def test_the_page_keeps_what_was_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{tables.BEGIN}\nold figures\n{tables.END}\n\nBy hand too.\n")
    table = tables.Table("Fit", "A note.", [{"job": "a", MS: 1.23456}, {"job": "b", MS: 1234.5, "x": 2}])
    measured = {"machine": describe_machine(), "sizes": {}, "tables": {"fit": table.as_dict()}}
    for _ in range(2):
        tables.replace_measured(page, benchmark.as_markdown(measured))
        text = page.read_text()
        assert text.startswith(f"# By hand\n\n{tables.BEGIN}\n")
        assert text.endswith(f"{tables.END}\n\nBy hand too.\n")
        assert "old figures" not in text
        assert text.count("### Fit") == 1
        assert "| a   |         1.23 |   |" in text
        assert "| b   |         1234 | 2 |" in text or "| b   |         1235 | 2 |" in text


def test_a_whole_run_writes_both_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "QUICK", TOY)
    monkeypatch.setattr(memory, "can_measure", lambda: False)
    page, figures, folder = tmp_path / "page.md", tmp_path / "figures.json", tmp_path / "files"
    page.write_text(f"By hand.\n{tables.BEGIN}\n{tables.END}\n")
    folder.mkdir()
    words = ["--quick", "--without-old", "--folder", folder, "--json", figures, "--markdown", page]
    benchmark.main([str(word) for word in words])
    measured = json.loads(figures.read_text())
    printed, written = capsys.readouterr().out, page.read_text()
    assert len(measured["tables"]) == 10
    for table in measured["tables"].values():
        assert f"### {table['title']}" in printed
        assert f"### {table['title']}" in written
    assert measured["machine"]["cores"] > 0
    assert str(tmp_path) not in figures.read_text() + written
    assert not list(folder.iterdir())


def test_a_page_without_markers_is_refused_before_anything_is_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# By hand\n")
    with pytest.raises(SystemExit, match="must have these two lines"):
        benchmark.main(["--markdown", str(page)])
    assert page.read_text() == "# By hand\n"


def test_the_page_of_the_docs_has_its_markers():
    tables.check_markers(Path(__file__).parents[1] / "docs" / "benchmarks.md")
