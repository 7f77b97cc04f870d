"""Where a detector's pieces lie: modules with gaps between them, tiles with a step from one to the next."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import ndimage

from detectorcal._typing import Shape

__all__ = ["LARGEST_LABEL", "Piece", "Regions", "user_mask"]

LARGEST_LABEL = np.iinfo(np.uint16).max
"""A label image is kept in 16 bits."""


class Piece(NamedTuple):
    """One region."""

    box: tuple[slice, ...]
    """Its bounding box."""
    inside: np.ndarray | None
    """Which pixels of the box are of the region; None if all are."""


class Regions:
    """A label image: each label above 0 is a region, 0 a gap in which there is nothing.

    Equal images are equal and hash alike, so that what is made for regions can be kept.

    Parameters
    ----------
    labels : array of shape detector_shape, integer
        From 0 to :data:`LARGEST_LABEL`; copied.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels.astype(np.uint16, order="C")
        self.labels.flags.writeable = False
        self._key = self.labels.shape, self.labels.tobytes()
        self._hash = hash(self._key)
        boxes = ndimage.find_objects(self.labels.astype(np.int32))
        self.pieces = tuple(self._piece(number, box) for number, box in enumerate(boxes, 1) if box)

    @classmethod
    def of(cls, labels: np.ndarray) -> Regions:
        """Give the regions of a label image; those of the last ones are kept."""
        return _cached(labels.shape, labels.astype(np.uint16).tobytes())

    def _piece(self, label: int, box: tuple[slice, ...]) -> Piece:
        inside = self.labels[box] == label
        return Piece(box, None if inside.all() else inside)

    @property
    def shape(self) -> Shape:
        """Shape of the detector."""
        return self.labels.shape

    @property
    def gaps(self) -> np.ndarray:
        """Where there is nothing: an array of the detector's shape, bool."""
        gaps: np.ndarray = self.labels == 0
        return gaps

    def part(self, *where: Any) -> Regions:
        """Give the regions of a part of the detector, indexed as an array is."""
        return Regions(self.labels[where])

    def __repr__(self) -> str:
        return f"<{len(self.pieces)} regions and {np.count_nonzero(self.gaps)} pixels of gaps, {self.shape}>"

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Regions) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Self], tuple[np.ndarray]]:
        return type(self), (self.labels,)  # the hash of bytes differs from process to process


@lru_cache(maxsize=2)
def _cached(shape: Shape, labels: bytes) -> Regions:
    return Regions(np.frombuffer(labels, np.uint16).reshape(shape))


def user_mask(mask: np.ndarray | None, regions: Regions | None) -> np.ndarray | None:
    """Give the pixels that the user does not want believed: those of a mask, and all gaps.

    Parameters
    ----------
    mask : array of shape detector_shape, bool, or None
        True where a pixel is not to be believed.
    regions : Regions or None
        Of the same detector.

    Returns
    -------
    array of shape detector_shape, bool, or None
        None if there are none.
    """
    if regions is None:
        return mask
    return regions.gaps if mask is None else mask | regions.gaps
