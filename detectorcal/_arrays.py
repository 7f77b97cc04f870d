"""Which array library an array belongs to, and the way to it and back.

With :mod:`detectorcal._execution` the only room that knows an array library other than NumPy by name.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from detectorcal._errors import MissingDependencyError
from detectorcal._typing import Array

__all__ = ["as_dask", "is_dask", "is_lazy", "is_numpy", "namespace", "put_like", "sum_of_products"]

_NUMPY: ModuleType = array_api_compat.array_namespace(np.empty(0))


def namespace(*arrays: Array) -> ModuleType:
    """Return the array API namespace that all the arrays share."""
    if all(type(array) is np.ndarray for array in arrays):
        return _NUMPY  # asked for thousands of times a second, where the full search would show
    found: ModuleType = array_api_compat.array_namespace(*arrays)
    return found


def is_numpy(array: Any) -> bool:
    """Whether this is a NumPy array."""
    return isinstance(array, np.ndarray)


def is_dask(array: Any) -> bool:
    """Whether this is a Dask array; does not import Dask."""
    return bool(array_api_compat.is_dask_array(array))


def is_lazy(array: Any) -> bool:
    """Whether this is a stack read by slicing: it has a shape, a dtype and ``[]`` but no array API."""
    if isinstance(array, np.memmap):
        return True
    has_metadata = all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__"))
    return has_metadata and not is_host_table(array) and not is_eager(array)


def is_eager(array: Any) -> bool:
    """Whether this is an array in memory, of the host or of a device."""
    return bool(array_api_compat.is_array_api_obj(array)) and not is_dask(array)


def is_host_table(array: Any) -> bool:
    """Whether this is a data frame or a sparse matrix, which scikit-learn's own validation reads."""
    return hasattr(array, "iloc") or hasattr(array, "tocsr") or hasattr(array, "__dataframe__")


def put_like(values: np.ndarray, like: Array, dtype: Any = None) -> Array:
    """Copy a NumPy array to the library and device of ``like``; NumPy stays NumPy."""
    if is_numpy(like):
        return values if dtype is None else values.astype(dtype, copy=False)
    xp = namespace(like)
    return xp.asarray(values, dtype=dtype, device=array_api_compat.device(like))


def sum_of_products(*arrays: Array) -> Array:
    """Multiply arrays elementwise and sum over their first axis; on NumPy in one pass over memory."""
    first, *others = arrays
    if is_numpy(first) and others:
        return np.einsum(",".join(["z..."] * len(arrays)) + "->...", *arrays)
    product = first
    for array in others:
        product = product * array
    return namespace(first).sum(product, axis=0, dtype=first.dtype)


def as_dask(array: Any) -> Any:
    """See an array as a Dask array with whole frames in its chunks."""
    try:
        import dask.array
    except ImportError as error:
        raise MissingDependencyError(
            'Dask is needed for this and is not installed: `pip install "detectorcal[dask]"`.'
        ) from error
    frame_axes = dict.fromkeys(range(max(array.ndim - 2, 0), array.ndim), -1)
    return dask.array.from_array(
        array, chunks={axis: frame_axes.get(axis, "auto") for axis in range(array.ndim)}
    )
