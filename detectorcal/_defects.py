"""The causes for which a pixel is not to be believed."""

__all__ = ["DEFECTS", "HOPELESS", "LARGEST_COEF"]

DEFECTS = {
    "dead": 1,
    "hot": 2,
    "noisy": 4,
    "nonlinear": 8,
    "saturated": 16,
    "unsolved": 32,
    "user": 64,
    "changed": 128,
}
"""Bit of ``defects_`` for each cause."""

LARGEST_COEF = 10.0
"""A pixel this many times less (dead) or more (hot) sensitive than its neighbours is not corrected."""

HOPELESS = DEFECTS["dead"] | DEFECTS["hot"] | DEFECTS["unsolved"] | DEFECTS["user"]
"""Pixels that have no coefficient of their own, but 1; all others keep what was fitted."""
