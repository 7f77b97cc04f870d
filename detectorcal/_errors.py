"""The errors and warnings of the package.

Every error is a :class:`DetectorcalError` and also the built-in kind a caller would expect, so
that ``except ValueError`` or ``except FileNotFoundError`` keeps working.
"""

import sys
import warnings
from typing import Any


class DetectorcalError(Exception):
    """Anything that detectorcal refuses to do, with the reason and the cure in its text.

    Examples
    --------
    >>> from detectorcal import DetectorCalibrator, DetectorcalError, MissingFileError
    >>> try:
    ...     DetectorCalibrator(sigma=-1).fit([[1.0, 2.0], [2.0, 4.0]])
    ... except DetectorcalError as error:
    ...     print(error, isinstance(error, ValueError))
    `sigma` must be a finite number above 0, got -1. True
    >>> try:
    ...     DetectorCalibrator.load("of_last_year.h5")
    ... except MissingFileError as error:
    ...     print(isinstance(error, DetectorcalError), isinstance(error, FileNotFoundError))
    True True
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError's own forgets `errno` where it was set later
        return _rebuilt, (type(self), self.args, getattr(self, "errno", None)), vars(self)


def _rebuilt(kind: type[DetectorcalError], args: tuple[Any, ...], errno: int | None) -> DetectorcalError:
    error = kind(*args)
    if errno is not None:
        error.errno = errno  # type: ignore[attr-defined]
    return error


class InputError(DetectorcalError, ValueError):
    """An argument has the wrong shape, type or value."""


class InputTypeError(InputError, TypeError):
    """An argument holds things that are not numbers at all."""


class MissingFileError(DetectorcalError, FileNotFoundError):
    """A file or folder that was named is not there."""


class OutputExistsError(DetectorcalError, FileExistsError):
    """The output exists already and overwriting was not asked for."""


class AccessError(DetectorcalError, PermissionError):
    """A file may not be read or written: its permissions, or another program's lock, forbid it."""


class WriteError(DetectorcalError, OSError):
    """An output could not be written, for instance because the disk is full."""


class FileFormatError(DetectorcalError, ValueError):
    """A file is sound but is not what was asked for: another program's, or of another layout."""


class DamagedFileError(DetectorcalError, OSError):
    """A file is truncated or corrupted."""


class ClusterError(DetectorcalError, ConnectionError):
    """A Dask cluster cannot be reached, or was lost."""


class DeviceError(DetectorcalError, RuntimeError):
    """The device that was asked for cannot be used."""


class TooLargeError(DetectorcalError, MemoryError):
    """A batch of frames, or a result, does not fit into memory."""


class NewerProtocolError(DetectorcalError, ValueError):
    """A calibration file was written by a later version of detectorcal."""


class MissingDependencyError(DetectorcalError, ImportError):
    """An optional package is needed; the text names the extra that installs it."""


class DetectorcalWarning(UserWarning):
    """Something the user should know about the numbers that came out.

    Examples
    --------
    >>> import warnings
    >>> from detectorcal import DetectorCalibrator, DetectorcalWarning
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", DetectorcalWarning)
    ...     cal = DetectorCalibrator(sigma=1).fit([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0]])
    >>> print(caught[0].message)
    1 of 3 pixels could not be calibrated (1 dead); they keep coefficient 1 and are marked in `defects_`.
    """


_NOT_THE_CALLER = ("detectorcal.", "sklearn.callback.")
"""Modules that a call passes through: a fit with callbacks goes round through scikit-learn's."""


def warn(message: str) -> None:
    """Warn in the name of the line that called the package, however deep inside it this is.

    Parameters
    ----------
    message : str
        What the user should know.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_NOT_THE_CALLER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DetectorcalWarning, stacklevel=level)
