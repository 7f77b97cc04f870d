"""Compression of outputs: one word each, and what it means to the library that does it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from detectorcal._errors import InputError, MissingDependencyError

_GZIP_LEVEL = 4
"""Of 9; HDF5's usual one. Noise does not compress better at higher ones, only more slowly."""

BUILT_IN = {"hdf5": ("gzip", "lzf"), "zarr": ("gzip", "zstd", "blosc", "none"), "tiff": ("gzip",)}
"""Words by format that need no optional package."""

WITH_EXTRA = {"hdf5": ("zstd", "blosc", "lz4", "bitshuffle"), "tiff": ("zstd", "lzw")}
"""Words by format that need the extra `codecs`."""

_LIBRARY = {"hdf5": "hdf5plugin", "tiff": "imagecodecs"}


def check_compression(word: str | None, file_format: str) -> None:
    """Raise unless a format can be compressed in the way that is asked for, here and now.

    Parameters
    ----------
    word : str or None
        The compression.
    file_format : str
        Of the output.

    Raises
    ------
    InputError
        If the format does not have it.
    MissingDependencyError
        If an optional package is needed for it.
    """
    if word is None:
        return
    built_in, others = BUILT_IN.get(file_format, ()), WITH_EXTRA.get(file_format, ())
    if not built_in:
        raise InputError(f"`compression` is for HDF5, zarr and TIFF outputs, not .{file_format}.")
    if word in others:
        _need(_LIBRARY[file_format], word, built_in)
    elif word not in built_in:
        more = f"; with the extra `codecs` also {', '.join(others)}" if others else ""
        raise InputError(f"`compression` for {file_format} is {', '.join(built_in)}{more}; not {word!r}.")


def _need(library: str, word: str, built_in: tuple[str, ...]) -> None:
    try:
        __import__(library)
    except ImportError as error:
        raise MissingDependencyError(
            f'compression {word!r} needs {library}: pip install "detectorcal[codecs]". Without it there is '
            f"{', '.join(built_in)}."
        ) from error


def hdf5_filters(word: str | None) -> dict[str, Any]:
    """Give the arguments that make h5py compress: bytes of equal weight together, since they are alike."""
    if word is None:
        return {}
    if word in BUILT_IN["hdf5"]:
        return {
            "compression": word,
            "compression_opts": _GZIP_LEVEL if word == "gzip" else None,
            "shuffle": True,
        }
    import hdf5plugin

    filters = {
        "zstd": lambda: {**hdf5plugin.Zstd(), "shuffle": True},
        "lz4": lambda: {**hdf5plugin.LZ4(), "shuffle": True},
        "blosc": lambda: dict(hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.SHUFFLE)),
        "bitshuffle": lambda: dict(hdf5plugin.Bitshuffle()),
    }
    return filters[word]()


def zarr_compressors(word: str | None, dtype: np.dtype[Any]) -> Any:
    """Give what zarr compresses with; its own choice, zstd, if nothing is asked for."""
    from zarr import codecs

    makers: dict[str | None, Callable[[], Any]] = {
        None: lambda: "auto",
        "none": lambda: None,
        "gzip": lambda: codecs.GzipCodec(level=_GZIP_LEVEL),
        "zstd": lambda: codecs.ZstdCodec(level=3),
        "blosc": lambda: codecs.BloscCodec(
            cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize
        ),
    }
    return makers[word]()


def tiff_options(word: str) -> dict[str, Any]:
    """Give the arguments that make tifffile compress; differences of neighbours where the codecs can."""
    return {"compression": "zlib"} if word == "gzip" else {"compression": word, "predictor": True}
