"""Frames on disk: opened lazily as stacks, written as streams. TIFF, HDF5, zarr and NumPy files."""

from detectorcal.io._open import create_frames, open_frames, read_attributes
from detectorcal.io._partial import resume_frames
from detectorcal.io._stack import FrameStack
from detectorcal.io._writer import FrameWriter

__all__ = ["FrameStack", "FrameWriter", "create_frames", "open_frames", "read_attributes", "resume_frames"]
