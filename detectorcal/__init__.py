"""Telling what a detector saw from what it recorded.

>>> from detectorcal import DetectorCalibrator
>>> DetectorCalibrator(sigma=20)
DetectorCalibrator(sigma=20)
"""

from importlib import import_module
from typing import Any

from detectorcal._average import average
from detectorcal._errors import (
    AccessError,
    ClusterError,
    DamagedFileError,
    DetectorcalError,
    DetectorcalWarning,
    DeviceError,
    FileFormatError,
    InputError,
    InputTypeError,
    MissingDependencyError,
    MissingFileError,
    NewerProtocolError,
    OutputExistsError,
    TooLargeError,
    WriteError,
)
from detectorcal._version import __version__
from detectorcal.calibrator import DetectorCalibrator
from detectorcal.correction import Correction
from detectorcal.functional import correct_image, fit_response
from detectorcal.rings import RingSuppressor
from detectorcal.scan import ScanCorrection

__all__ = [
    "AccessError",
    "ClusterError",
    "Correction",
    "DamagedFileError",
    "DetectorCalibrator",
    "DetectorcalError",
    "DetectorcalWarning",
    "DeviceError",
    "FileFormatError",
    "InputError",
    "InputTypeError",
    "MissingDependencyError",
    "MissingFileError",
    "NewerProtocolError",
    "OutputExistsError",
    "RingSuppressor",
    "ScanCorrection",
    "TooLargeError",
    "WriteError",
    "__version__",
    "average",
    "correct_image",
    "fit_response",
]

_SUBMODULES = ("io", "metrics", "plot", "report", "simulate")


def __getattr__(name: str) -> Any:
    # `import detectorcal` stays quick, and `detectorcal.plot.plot_pixel_calibrations` works after it
    if name in _SUBMODULES:
        return import_module(f"detectorcal.{name}")
    raise AttributeError(f"module 'detectorcal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
