"""What is left in a reconstruction, against other corrections and against an oracle: ``docs/quality.md``."""
