"""Clones for scikit-learn of estimators that hold what another one has learnt."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sklearn.base import clone

__all__ = ["clone_with"]


def clone_with(estimator: Any, *kept: str) -> Any:
    """Clone an estimator, but for some parameters, which the clone shares with it.

    A fitted calibrator without its fit would be of no use to it; data need no copy.

    Parameters
    ----------
    estimator : estimator
        As it is.
    *kept : str
        Names of the shared parameters.

    Returns
    -------
    estimator
        Not fitted.
    """
    params = estimator.get_params(deep=False)
    copied = {name: value if name in kept else clone(value, safe=False) for name, value in params.items()}
    copy = type(estimator)(**copied)
    if hasattr(estimator, "_metadata_request"):
        copy._metadata_request = deepcopy(estimator._metadata_request)
    return copy
