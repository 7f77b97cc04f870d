"""What the rooms of the simulator share."""

from typing import TypeAlias

import numpy as np

from detectorcal._errors import InputError
from detectorcal._typing import Float64

Seed: TypeAlias = int | np.random.Generator

_REACH = 4.0  # radius, in standard deviations, at which the Gaussian is cut off


def spread(stack: Float64, sigma: float, n_axes: int) -> Float64:
    """Gaussian over the last `n_axes` axes that keeps the total."""
    if sigma == 0.0:
        return stack
    from scipy.ndimage import gaussian_filter

    axes = tuple(range(-n_axes, 0))
    blurred: Float64 = gaussian_filter(stack, sigma, mode="reflect", truncate=_REACH, axes=axes)
    return blurred


def require(met: bool | np.bool_, name: str, wanted: str, came: object) -> None:
    if not met:
        raise InputError(f"`{name}` must be {wanted}, but is {came}.")
