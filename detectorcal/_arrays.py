"""Which array library an array belongs to, and the way to it and back.

With the rooms that schedule the only one that knows an array library other than NumPy by name.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import array_api_compat
import numpy as np

from detectorcal._errors import DeviceError, MissingDependencyError
from detectorcal._typing import Array, Shape

__all__ = [
    "DEVICES",
    "Device",
    "as_dask",
    "device_named",
    "is_dask",
    "is_eager",
    "is_host_table",
    "is_lazy",
    "is_numpy",
    "namespace",
    "put_like",
    "reshape",
    "sum_of_products",
    "to_host",
]

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


def is_floating(array: Any) -> bool:
    """Whether an array holds floating-point numbers."""
    if is_numpy(array):
        return bool(array.dtype.kind == "f")  # at once, as in `namespace`
    return bool(namespace(array).isdtype(array.dtype, "real floating"))


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


def put_like(values: np.ndarray, like: Array) -> Array:
    """Copy a NumPy array to the library and device of ``like``; NumPy stays NumPy."""
    if is_numpy(like):
        return values
    return namespace(like).asarray(values, device=array_api_compat.device(like))


def to_host(array: Array) -> np.ndarray:
    """Copy an array of any library to NumPy; NumPy stays as it is."""
    if is_numpy(array):
        return array  # type: ignore[no-any-return]
    if array_api_compat.is_cupy_array(array):
        return array.get()  # type: ignore[no-any-return]
    if array_api_compat.is_torch_array(array):
        return array.detach().cpu().numpy()  # type: ignore[no-any-return]
    if hasattr(array, "to_device"):
        array = array.to_device(namespace(array).__array_namespace_info__().default_device())
    return np.asarray(array)


def reshape(array: Array, shape: Shape) -> Array:
    """Reshape an array of any library, lazy ones included."""
    return array.reshape(shape) if hasattr(array, "reshape") else namespace(array).reshape(array, shape)


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


class Device(Protocol):
    """Where batches of host arrays are worked on."""

    def put(self, frames: Array) -> Array:
        """Copy a batch there; called from the thread that reads."""
        ...

    def get(self, array: Array) -> Array:
        """Copy a result back; called from the thread that writes."""
        ...

    def finish(self) -> None:
        """Wait for the work on a batch, after which its memory may be used again."""
        ...


class _WhereTheyAre:
    """No transfer: host arrays are worked on by the host's cores, a device's arrays on their device."""

    def put(self, frames: Array) -> Array:
        return frames

    def get(self, array: Array) -> Array:
        return array

    def finish(self) -> None:
        pass


class _Cuda:
    """CuPy's current CUDA device.

    Each direction has a stream of its own and goes through pinned memory, which the device can read while
    the processor does something else.
    """

    def __init__(self) -> None:
        self._cupy, self._cupyx = _usable_cupy()
        self._device = self._cupy.cuda.Device()  # the current one: each thread has its own
        self._upload = self._cupy.cuda.Stream(non_blocking=True)
        self._download = self._cupy.cuda.Stream(non_blocking=True)

    def put(self, frames: Array) -> Array:
        with self._device, self._upload:
            staged = self._cupyx.empty_pinned(frames.shape, frames.dtype)
            staged[...] = frames
            array = self._cupy.empty(frames.shape, frames.dtype)
            array.set(staged, stream=self._upload)
            self._upload.synchronize()
        return array

    def get(self, array: Array) -> Array:
        with self._device, self._download:
            staged = self._cupyx.empty_pinned(array.shape, array.dtype)
            array.get(stream=self._download, out=staged)
            self._download.synchronize()
        return staged

    def finish(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()


def _usable_cupy() -> tuple[ModuleType, ModuleType]:
    try:
        import cupy
        import cupyx
    except ImportError as error:
        raise MissingDependencyError(
            f'`device="cuda"` needs CuPy, which cannot be imported ({error}): pip install "detectorcal[gpu]".'
        ) from error
    try:
        n_devices, reason = cupy.cuda.runtime.getDeviceCount(), "there is none"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        n_devices, reason = 0, str(error)
    if not n_devices:
        raise DeviceError(f'`device="cuda"`: CuPy finds no usable GPU ({reason}). Use `device=None`.')
    return cupy, cupyx


DEVICES: dict[str | None, type[Device]] = {None: _WhereTheyAre, "cpu": _WhereTheyAre, "cuda": _Cuda}
"""What ``device`` may be."""


def device_named(name: str | None) -> Device:
    """Make a device ready."""
    return DEVICES[name]()
