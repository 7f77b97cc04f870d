"""Telling scikit-learn's callbacks (1.9 and later) how far a fit is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Self, TypeVar, cast

from detectorcal._errors import MissingDependencyError

__all__ = ["FitTask", "Watchable", "watched"]

T = TypeVar("T")
Fit = TypeVar("Fit", bound=Callable[..., Any])

CALLBACKS = "sklearn.callback"
"""Nobody has set a callback before this module was imported, which takes its time and loads rich: what
needs it here begins by looking whether it is there."""


class Watchable:
    """Mixin of estimators; it loads :class:`sklearn.callback.CallbackSupportMixin` when that is needed."""

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Have callbacks told how far a fit is, scikit-learn's ``ProgressBar`` for example.

        Parameters
        ----------
        *callbacks : callbacks as :class:`sklearn.callback.FitCallback` describes them
            Instead of those set before; none removes them. They are told of each batch of frames; that one
            asks to stop early changes nothing, as half a sweep is another sweep.

        Returns
        -------
        estimator
            Itself.

        Raises
        ------
        MissingDependencyError
            If scikit-learn is older than 1.9.
        """
        try:
            from sklearn.callback import CallbackSupportMixin
        except ImportError as error:
            raise MissingDependencyError(
                "callbacks need scikit-learn 1.9 or later: python -m pip install 'scikit-learn>=1.9'"
            ) from error
        CallbackSupportMixin.set_callbacks(self, *callbacks)
        return self


def watched(fit: Fit) -> Fit:
    """Have callbacks torn down after a method, as :func:`sklearn.callback.with_callbacks` does."""

    @wraps(fit)
    def fit_and_tear_down(*args: Any, **kwargs: Any) -> Any:
        callback = sys.modules.get(CALLBACKS)
        return (fit if callback is None else callback.with_callbacks(fit))(*args, **kwargs)

    return cast("Fit", fit_and_tear_down)


class FitTask:
    """A fit as scikit-learn's callbacks see it: one task, and each batch one in it.

    Parameters
    ----------
    estimator : Watchable
        What is fitted, inside a method that is :func:`watched`.
    X, y : array or stack
        What it is fitted to.
    """

    def __init__(self, estimator: Watchable, X: Any, y: Any) -> None:
        self._told = {"estimator": estimator, "X": X, "y": y}
        self._context: Any = None

    def begin(self, n_batches: int) -> None:
        """Tell that the work begins, and of how many batches it consists."""
        callback = sys.modules.get(CALLBACKS)
        if callback is None:
            return
        begin = callback.CallbackSupportMixin._init_callback_context  # public, says its documentation
        self._context = begin(self._told["estimator"], max_subtasks=n_batches)
        self._context.call_on_fit_task_begin(**self._told)

    def each(self, batches: Iterable[T]) -> Iterator[T]:
        """Give the batches on, and tell of each when it is taken and when the next is wanted."""
        for batch in batches:
            if self._context is None:
                yield batch
                continue
            task = self._context.subcontext(task_name="batch")
            task.call_on_fit_task_begin(**self._told)
            yield batch
            task.call_on_fit_task_end(**self._told)

    def end(self) -> None:
        """Tell that the estimator is fitted."""
        if self._context is not None:
            self._context.call_on_fit_task_end(**self._told, reconstruction_attributes={})
