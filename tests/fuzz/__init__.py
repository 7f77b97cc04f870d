"""Damaged and forged files, read in child processes: every one loads right or is refused by our own error."""
