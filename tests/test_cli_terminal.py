"""The command line as people, shells and programs meet it: help, completion, JSON, pipes and terminals."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from detectorcal import DetectorCalibrator, __version__, simulate
from detectorcal._defects import DEFECTS
from detectorcal.cli import _progress, cli, main
from detectorcal.cli._progress import Watched

SHAPE = (24, 32)
COMMANDS = sorted(cli.commands)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small files of one detector, its calibration, and frames corrected with it."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(1)
    detector = simulate.Detector.random(SHAPE, seed=rng)
    beam = simulate.beam_profile(SHAPE, width=2)
    sweep = detector.record(simulate.exposure_ladder(beam, 24, lowest=400), rng)
    for name, frames in {"sweep": sweep, "darks": detector.darks(6, rng)}.items():
        tifffile.imwrite(folder / f"{name}.tif", frames, photometric="minisblack")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit", "sweep.tif", "--dark", "darks.tif", "--sigma", 6, "-q", "-o", "cal.h5")
        run("correct", "sweep.tif", "-c", "cal.h5", "-q", "-o", "out.h5")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def run(*words, code=0):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert (stop.value.code or 0) == code


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | more


def process(*words, **more):
    return [sys.executable, "-m", "detectorcal", *words], environment(**more)


def on_terminal(folder, *words, **more):
    """Run on a terminal of its own and give all that is written to it."""
    pty = pytest.importorskip("pty", reason="terminals of one's own are for POSIX systems")
    ours, theirs = pty.openpty()
    command, env = process(*words, **more)
    with subprocess.Popen(command, env=env, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        written = b""
        while True:
            ready, _, _ = select.select([ours], [], [], 60)
            try:
                part = os.read(ours, 4096) if ready else b""
            except OSError:  # the other end is closed
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert child.returncode == 0, written
    return written.decode()


# ---------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run(command, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 45


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_once(command, capsys):
    run(command, "--help")
    listed = capsys.readouterr().out.partition("Example:")[2]
    told = re.findall(r"^  (?:-\w, )?(--[\w-]+)", listed, re.M)
    options = [param for param in cli.commands[command].params if param.param_type_name == "option"]
    assert len(told) == len(set(told)) == len(options) + 1  # and --help
    for option in options:
        assert {*option.opts, *option.secondary_opts} & set(told), option.name


def test_options_are_under_headings(capsys):
    run("correct", "--help")
    parts = re.split(r"^(Input|What is done|Output|Work):$", capsys.readouterr().out, flags=re.M)
    assert parts[1::2] == ["Input", "What is done", "Output", "Work"]
    under = dict(zip(parts[1::2], parts[2::2], strict=True))
    for heading, option in {
        "Input": "--flat", "What is done": "--rings", "Output": "--overwrite", "Work": "--jobs",
    }.items():  # fmt: skip
        assert f" {option} " in under[heading]


def test_without_words_the_program_tells_what_there_is(capsys):
    run()
    out = capsys.readouterr().out
    assert re.findall(r"^  ([a-z]+)  ", out, re.M) == ["fit", "correct", "inspect", "report", "demo"]
    assert "Exit codes" in out


def test_a_wrong_word_says_where_to_read_on(capsys):
    run("fit", "sweep.tif", "--sigmo", "3", "-o", "x.h5", code=2)
    err = capsys.readouterr().err
    assert "--sigma" in err
    assert err.endswith("See `detectorcal fit --help`.\n")


# ---------------------------------------------------------------------- completion


def completions(shell, words, capsys, monkeypatch):
    last = words.rpartition(" ")[2]
    monkeypatch.setenv("_DETECTORCAL_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", last if shell == "fish" else str(words.count(" ")))
    run()
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_of_words_choices_and_files(shell, capsys, monkeypatch):
    assert "photon" in completions(shell, "detectorcal fit --method ph", capsys, monkeypatch)
    assert "--sigma" in completions(shell, "detectorcal fit --sig", capsys, monkeypatch)
    assert "report" in completions(shell, "detectorcal re", capsys, monkeypatch)
    for words in ("fit sw", "correct x.tif --flat fl", "report cal.h5 --scan in.tif o", "inspect c"):
        assert completions(shell, f"detectorcal {words}", capsys, monkeypatch).startswith("file")
    assert completions(shell, "detectorcal demo -o d", capsys, monkeypatch).startswith("dir")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path):
    (tmp_path / "detectorcal").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m detectorcal "$@"\n')
    (tmp_path / "detectorcal").chmod(0o755)
    script = (
        'eval "$(_DETECTORCAL_COMPLETE=bash_source detectorcal)"\n'
        "COMP_WORDS=(detectorcal fit --mode re); COMP_CWORD=3\n"
        "_detectorcal_completion detectorcal\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    env = environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["reflect"]


# ---------------------------------------------------------------------- JSON


def test_inspect_prints_figures_as_json(here, capsys):
    run("inspect", "cal.h5", "--json", "--projections", 300)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    cal = DetectorCalibrator.load("cal.h5")
    assert printed.err == ""
    assert found["file"] == "cal.h5"
    assert found["detector_shape"] == list(SHAPE)
    assert found["n_frames"] == 24
    assert found["parameters"]["sigma"] == 6.0
    assert found["expected_prnu_percent"] == cal.expected_prnu_  # not rounded
    assert found["expected_rings"] == cal.expected_rings(300)
    assert found["system_gain"] == cal.system_gain_
    assert found["read_noise"] is None  # only curves know it
    assert found["defects"] == {
        cause: int(np.count_nonzero(cal.defects_ & bit)) for cause, bit in DEFECTS.items()
    }
    assert found["n_defects"] == np.count_nonzero(cal.defects_)
    assert found["provenance"]["detectorcal"] == __version__


def test_fit_prints_what_inspect_prints(here, tmp_path, capsys):
    run("fit", "sweep.tif", "--dark", "darks.tif", "--method", "curved", "--json", "-o", tmp_path / "c.h5")
    fitted = json.loads(capsys.readouterr().out)
    run("inspect", tmp_path / "c.h5", "--json")
    assert fitted == json.loads(capsys.readouterr().out)
    assert fitted["read_noise"] > 0


def test_what_is_not_known_is_null(here, tmp_path, capsys):
    tifffile.imwrite(tmp_path / "one.tif", tifffile.imread("sweep.tif")[-1:], photometric="minisblack")
    run("fit", tmp_path / "one.tif", "--json", "-o", tmp_path / "one.h5")
    printed = capsys.readouterr()
    found = json.loads(printed.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found["standard_error_percent"] is None
    assert "warning" in printed.err  # and not among the figures


def test_inspect_prints_the_history_of_frames_as_json(here, capsys):
    run("inspect", "out.h5", "--json")
    history = json.loads(capsys.readouterr().out)
    assert history["file"] == "out.h5"
    assert history["provenance"]["inputs"]["image"]["shape"] == [24, *SHAPE]


def test_every_key_is_in_the_docs(here, capsys):
    run("inspect", "cal.h5", "--json")
    page = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
    for key in json.loads(capsys.readouterr().out):
        assert f"`{key}`" in page, key


# ---------------------------------------------------------------------- pipes and terminals


def test_what_goes_to_a_file_has_no_control_characters(here):
    command, env = process("inspect", "cal.h5", TERM="xterm-256color", COLUMNS="60")
    done = subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, check=True)
    assert "24x32 pixels" in done.stdout
    assert not CONTROL.search(done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words", ["--help", "correct --help", "inspect out.h5", "fit sweep.tif -o {}/new.h5"]
)
def test_nor_does_what_is_piped(here, tmp_path, words, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    run(*words.format(tmp_path).split())
    printed = capsys.readouterr()
    assert not CONTROL.search(printed.out)
    assert printed.err == ""


def test_a_fact_is_a_line_where_it_goes_to_a_program(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    run("inspect", "cal.h5")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) > 60
    assert all(re.match(r"\S.*?  +\S", line) for line in lines)


def test_nothing_in_a_strangers_file_reaches_the_terminal(here, tmp_path, capsys):
    with h5py.File(tmp_path / "strange.h5", "w") as file:
        file["data"] = np.zeros((1, 3, 4))
        history = {"inputs": {"image\x1b[2J": 3.0}, "parameters": {"a": "one\nforged  line\r\x07"}}
        file["data"].attrs["provenance"] = json.dumps(history)
    run("inspect", tmp_path / "strange.h5")
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert len(out.splitlines()) == 2
    run("inspect", tmp_path / "strange.h5", "--json")
    printed = capsys.readouterr().out
    assert not CONTROL.search(printed)
    assert json.loads(printed)["provenance"] == history


def test_a_narrow_terminal_is_kept_to(here):
    out = on_terminal(here, "inspect", "cal.h5", COLUMNS="60")
    lines = out.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 60
    assert not CONTROL.search("".join(lines))
    assert "24x32 pixels" in out


def test_no_color_is_obeyed(here, tmp_path):
    words = "correct", "sweep.tif", "-c", "cal.h5", "-o", str(tmp_path / "out.h5")
    out = on_terminal(here, *words, TERM="xterm-256color", COLUMNS="60", NO_COLOR="1")
    assert "correcting" in out
    assert not re.search(r"\x1b\[[\d;]*3[0-8][\d;]*m", out)
    assert out.rstrip().endswith("by the calibration's standard errors")


def test_warnings_have_lines_of_their_own_beside_a_progress_bar(here, tmp_path):
    words = "fit", "sweep.tif", "--frames", "0:1", "--sigma", "3", "-o", str(tmp_path / "cal.h5")
    out = on_terminal(here, *words, TERM="xterm-256color", COLUMNS="60")
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out)
    assert "fitting" in plain
    before = [
        plain[:at].rstrip(" ") for at in (m.start() for m in re.finditer("detectorcal: warning", plain))
    ]
    assert before
    assert all(text == "" or text[-1] in "\r\n" for text in before)


def test_a_report_needs_no_display(here, tmp_path):
    words = "report", "cal.h5", "--sweep", "sweep.tif", "-o", str(tmp_path / "report.html")
    command, env = process(*words, MPLBACKEND="tkagg", COLUMNS="60")
    env.pop("DISPLAY", None)
    done = subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith(str(tmp_path / "report.html"))
    assert not CONTROL.search(done.stdout)


def test_a_reader_that_has_gone_is_no_error(here):
    command, env = process("inspect", "cal.h5")
    with subprocess.Popen(
        command, env=env, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stdout.close()  # as `head` does once it has its lines
        err = child.stderr.read()
    assert err == ""
    assert child.returncode == 1


def test_a_frame_counts_once_whatever_has_looked_at_it_before():
    counted = []
    stack = Watched(np.arange(20)[:, None, None], counted.append)
    for number in (0, 7, 19):
        assert stack[number : number + 1].item() == number
    for start in (0, 8, 16):
        assert len(stack[start : start + 8]) == min(8, 20 - start)
    assert sum(counted) == 20


def test_the_time_left_is_of_what_is_left_where_a_run_goes_on(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    now, bars = [0.0], []

    class Clocked(_progress.Progress):
        def __init__(self, *columns, **settings):
            super().__init__(*columns, **settings, get_time=lambda: now[0], auto_refresh=False)
            bars.append(self)

    monkeypatch.setattr(_progress, "Progress", Clocked)
    with _progress.progress_bar(1000, "correcting", quiet=False, done=900) as advance:
        for _ in range(10):
            now[0] += 1
            advance(5)
        (task,) = bars[0].tasks
        assert task.completed == 950
        assert task.time_remaining == 10  # 50 frames, 5 a second


def test_the_bar_of_a_curve_ends_with_the_last_frame(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    run("fit", "sweep.tif", "--dark", "darks.tif", "--method", "curved", "-o", tmp_path / "c.h5")
    counts = re.findall(r"(\d+)/24", capsys.readouterr().err)
    assert counts[-1] == "24"
    assert max(map(int, counts)) == 24


def test_rings_say_that_the_scan_is_read_twice(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    run("correct", "sweep.tif", "-c", "cal.h5", "--flat", "sweep.tif", "--rings", "-o", tmp_path / "r.h5")
    err = capsys.readouterr().err
    assert "1 of 2: looking for rings" in err
    assert "2 of 2: correcting" in err
