"""How the documentation is built, without a network: ``sphinx-build -W --keep-going docs docs/_build``."""

from __future__ import annotations

import re
from typing import Any

import click
import sklearn
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx_gallery.sorting import ExplicitOrder

import detectorcal
from detectorcal.cli import cli

project = "detectorcal"
author = "The detectorcal developers"
project_copyright = author
version = release = detectorcal.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
default_role = "literal"
nitpicky = True
# other projects' names; their pages would have to be fetched to be linked
nitpick_ignore_regex = [(r"py:.*", r"(numpy|scipy|sklearn|matplotlib)\..*")]
suppress_warnings = ["config.cache"]  # the gallery's order is a class

myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template lists them
numpydoc_validation_checks = {"PR01", "PR02", "PR10", "RT01", "YD01", "SS01"}  # nothing left undescribed

html_theme = "furo"
html_title = f"detectorcal {release}"
html_copy_source = False

sklearn.set_config(display="text")  # in the gallery, as in a terminal

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "within_subsection_order": ExplicitOrder(
        [f"plot_{name}.py" for name in ("before_after", "neutron_sweep", "methods", "defects")] + ["*"]
    ),
    "doc_module": (),
    "backreferences_dir": None,
    "download_all_examples": False,
    "show_memory": False,
    "capture_repr": (),
    "min_reported_time": 0,
    "write_computation_times": False,
    "remove_config_comments": True,
}


class HelpPages(Directive):
    """``{help-pages}``: what ``--help`` prints, of the program and of each of its commands."""

    def run(self) -> list[nodes.Node]:
        """Make a section of each command."""
        pages = [self._page("detectorcal", cli, None)]
        parent = click.Context(cli, info_name="detectorcal")
        for name, command in cli.commands.items():
            pages.append(self._page(f"detectorcal {name}", command, parent))
        return pages

    @staticmethod
    def _page(title: str, command: click.Command, parent: click.Context | None) -> nodes.section:
        settings = {**cli.context_settings, "terminal_width": 90}
        context = click.Context(command, parent=parent, info_name=title.split()[-1], **settings)
        text = command.get_help(context)
        content = nodes.title(text=title), nodes.literal_block(text, text, language="none")
        return nodes.section("", *content, ids=[nodes.make_id(title)], names=[title])


def link_gallery(app: Any, page: str, source: list[str]) -> None:
    """Lead links to the examples, which are good where Markdown is read as it is, to their pages here."""
    up = "../" * page.count("/")
    source[0] = re.sub(r"\]\((?:\.\./)+examples/\)", f"]({up}auto_examples/index.rst)", source[0])
    source[0] = re.sub(r"\]\((?:\.\./)+examples/(\w+)\.py\)", rf"]({up}auto_examples/\1.rst)", source[0])


def skip_member(app: Any, what: str, name: str, *_: Any) -> bool | None:
    """Leave out what scikit-learn and NamedTuple add to a class."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def keep_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of ``(n_frames, *detector_shape)``, in which reStructuredText sees emphasis."""
    lines[:] = [re.sub(r"(?<=[( ])\*(?=\w*shape)", r"\\*", line) for line in lines]


def setup(app: Any) -> None:
    """Tell Sphinx of the above."""
    app.add_directive("help-pages", HelpPages)
    app.connect("source-read", link_gallery)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", keep_stars, priority=400)  # before numpydoc
