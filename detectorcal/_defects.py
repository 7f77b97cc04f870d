"""The causes for which a pixel is not to be believed."""

__all__ = ["DEFECTS"]

DEFECTS = {"dead": 1, "hot": 2, "unsolved": 32, "changed": 128}
"""Bit of ``defects_`` for each cause."""
