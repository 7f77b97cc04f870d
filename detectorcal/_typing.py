"""Names for the types that travel through the package."""

from os import PathLike
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""An array of any library of the array API standard: NumPy, CuPy, PyTorch, ..."""

Float64: TypeAlias = NDArray[np.float64]
Path: TypeAlias = str | PathLike[str]
Shape: TypeAlias = tuple[int, ...]


class Stack(Protocol):
    """Frames that are read by slicing: an array, or h5py, zarr, memory map, Dask, ``open_frames``."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...
