"""The causes for which a pixel is not to be believed."""

__all__ = ["DEFECTS", "LARGEST_COEF"]

DEFECTS = {"dead": 1, "hot": 2, "unsolved": 32, "user": 64, "changed": 128}
"""Bit of ``defects_`` for each cause."""

LARGEST_COEF = 10.0
"""A pixel this many times less (dead) or more (hot) sensitive than its neighbours is not corrected."""
