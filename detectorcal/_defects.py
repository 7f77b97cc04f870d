"""The causes for which a pixel is not to be believed."""

import numpy as np

__all__ = ["DEFECTS", "HOPELESS", "LARGEST_COEF", "is_hopeless", "not_believed"]

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

CORRECTED_ALL_THE_SAME = DEFECTS["changed"]
"""The cause for which nothing is replaced: the flat was followed there."""

LARGEST_COEF = 10.0
"""A pixel this many times less (dead) or more (hot) sensitive than its neighbours is not corrected."""

HOPELESS = DEFECTS["dead"] | DEFECTS["hot"] | DEFECTS["unsolved"] | DEFECTS["user"]
"""Pixels that have no coefficient of their own, but 1; all others keep what was fitted."""


def is_hopeless(causes: np.ndarray) -> np.ndarray:
    """Tell which pixels have no coefficient of their own."""
    found: np.ndarray = (causes & np.uint8(HOPELESS)) != 0
    return found


def not_believed(defect_map: np.ndarray) -> np.ndarray:
    """Tell which pixels are to be replaced where defects are: for any cause but having changed."""
    found: np.ndarray = (defect_map & np.uint8(0xFF ^ CORRECTED_ALL_THE_SAME)) != 0
    return found
