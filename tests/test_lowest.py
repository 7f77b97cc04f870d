"""The lowest supported versions, on which CI runs the suite."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def test_lowest_versions_are_those_of_pyproject():
    """The versions that the suite is run on are the bounds of every dependency: none is passed over."""
    root = Path(__file__).parents[1]
    if not (root / ".ci").is_dir():
        pytest.skip("a source distribution has no .ci")
    run = [sys.executable, str(root / ".ci" / "lowest.py")]
    lines = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [word for words in project["optional-dependencies"].values() for word in words]
    names = {re.split(r"\W*>=", word)[0].partition("[")[0] for word in [*project["dependencies"], *wanted]}
    assert {line.partition("==")[0] for line in lines} == names - {"detectorcal"}
    assert "numpy==2.0" in lines
    assert "dask==2024.11.2" in lines
