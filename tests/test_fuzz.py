"""A slice of `python -m tests.fuzz`, and that it sees what it looks for."""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.damage import flip_bits
from tests.fuzz.forgery import forge_header, is_forged
from tests.fuzz.lookup3 import lookup3
from tests.fuzz.run import Case, Child, Fuzzer, fuzz
from tests.fuzz.samples import Sample, calibrations, stacks

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is looked up in /proc")


@pytest.mark.parametrize(("make", "n_cases"), [(calibrations, 180), (stacks, 255)])
def test_damaged_files_are_refused_or_do_no_harm(make, n_cases, tmp_path):
    cases = list(fuzz(make(tmp_path), 20190627, range(n_cases)))
    assert [case for case in cases if case.failed] == []
    outcomes = Counter(case.outcome for case in cases)
    assert outcomes["refused"] > n_cases / 3  # else nothing was damaged
    assert outcomes["equal"] > n_cases / 20  # else nothing was read


FAKE = """
import json, os, signal, sys, time
for line in sys.stdin:
    path = json.loads(line)["path"]
    content = open(path, "rb").read()
    if content == b"hang": time.sleep(60)
    if content == b"crash": os.kill(os.getpid(), signal.SIGSEGV)
    answer = {"outcome": "read", "detail": content.decode(), "grown": 0}
    if content == b"grow": answer["grown"] = 2**40
    if content == b"leak": answer["outcome"] = "leaked"
    print(json.dumps(answer), flush=True)
"""
"""A reader that misbehaves as its file says."""


@pytest.mark.parametrize(
    ("content", "outcome", "detail"),
    [
        ("sound", "equal", "sound"),
        ("other", "wrong", "other"),
        ("leak", "leaked", "leak"),
        ("grow", "memory", "grow"),
        ("crash", "crashed", "SIGSEGV"),
        ("hang", "hung", "SIGKILL"),
    ],
)
def test_what_goes_wrong_is_seen(content, outcome, detail, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(run, "DAMAGES", [lambda files, rng: files.update({"": content.encode()})])
    monkeypatch.setattr(run, "forgeries", lambda kind, suffix: run.DAMAGES)
    sample = Sample("calibration", "sample.h5", {"": b"sound"})
    with tempfile.TemporaryFile() as log, Child(log, [sys.executable, "-c", FAKE]) as child:
        fuzzer = Fuzzer([sample], 0, tmp_path, child)
        case, after = fuzzer.case(0), fuzzer.case(1)
    assert (case.outcome, case.failed) == (outcome, outcome != "equal")
    assert detail in case.detail
    assert after.outcome == outcome  # by another child where there must be one
    assert list(tmp_path.iterdir()) == []


def test_a_case_is_decided_by_seed_and_number(tmp_path):
    samples = calibrations(tmp_path)

    def made(seed: int, numbers: list[int]) -> dict[int, tuple]:
        fuzzer = Fuzzer(samples, seed, Path(), None)  # type: ignore[arg-type]
        found = {}
        for number in numbers:
            sample, damage, files = fuzzer.make(number)
            # the library notes the time when it changes a file
            found[number] = (sample.name, damage, None if is_forged(damage) else files)
        return found

    numbers = list(range(40))
    assert made(3, numbers) == made(3, numbers[::-1])
    assert made(3, numbers) != made(4, numbers)


def test_only_what_is_forged_may_be_read_as_another():
    assert is_forged(forge_header)
    assert not is_forged(flip_bits)
    assert Case("stack", 0, "", "", "altered", "", 0, 0).failed is False
    assert Case("calibration", 0, "", "", "wrong", "", 0, 0).failed is True


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)],  # of its author's own self-test
)
def test_lookup3(text, value):
    assert lookup3(text) == value


def test_bits_are_really_flipped():
    files = {"": bytes(100)}
    flip_bits(files, random.Random(1))
    assert 1 <= sum(byte.bit_count() for byte in files[""]) <= 8
