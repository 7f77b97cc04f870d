"""The command line: the estimator's own words, file to file."""

from detectorcal.cli._main import cli, main

__all__ = ["cli", "main"]
