"""The errors and warnings of the package.

Every error is a :class:`DetectorcalError` and also the built-in kind a caller would expect, so
that ``except ValueError`` or ``except FileNotFoundError`` keeps working.
"""


class DetectorcalError(Exception):
    """Anything that detectorcal refuses to do, with the reason and the cure in its text."""


class InputError(DetectorcalError, ValueError):
    """An argument has the wrong shape, type or value."""


class MissingFileError(DetectorcalError, FileNotFoundError):
    """A file or folder that was named is not there."""


class OutputExistsError(DetectorcalError, FileExistsError):
    """The output exists already and overwriting was not asked for."""


class FileFormatError(DetectorcalError, ValueError):
    """A file is sound but is not what was asked for: another program's, or of another layout."""


class DamagedFileError(DetectorcalError, OSError):
    """A file is truncated or corrupted."""


class NewerProtocolError(DetectorcalError, ValueError):
    """A calibration file was written by a later version of detectorcal."""


class MissingDependencyError(DetectorcalError, ImportError):
    """An optional package is needed; the text names the extra that installs it."""


class DetectorcalWarning(UserWarning):
    """Something the user should know about the numbers that came out."""
