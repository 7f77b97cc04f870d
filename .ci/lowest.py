"""Print the lowest supported version of every dependency, as constraints for pip.

    python .ci/lowest.py > lowest.txt && python -m pip install --constraint lowest.txt ".[test]"

They are the lower bounds in `pyproject.toml`, of the package itself and of its extras.
"""

import re
import tomllib
from pathlib import Path

_BOUND = re.compile(r"([A-Za-z0-9-]+)(?:\[\w+\])?>=([0-9.]+)")


def lowest(pyproject: Path) -> list[str]:
    """Give a line `name==version` for each dependency."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [word for words in (project["dependencies"], *extras) for word in words]
    bounds = [_BOUND.fullmatch(word) for word in wanted if not word.startswith(f"{project['name']}[")]
    return sorted({f"{bound[1]}=={bound[2]}" for bound in bounds if bound is not None})


if __name__ == "__main__":
    print("\n".join(lowest(Path(__file__).parents[1] / "pyproject.toml")))
