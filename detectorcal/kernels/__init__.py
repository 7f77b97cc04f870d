"""Arithmetic on arrays: no files, no scheduling, no scikit-learn."""
