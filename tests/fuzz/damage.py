"""What happens to files: bits, runs of bytes, ends and members. Each function changes `files` in place."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.samples import Files

Damage = Callable[[Files, random.Random], None]

_LONGEST_RUN = 64
_FEWEST = 50
"""Bytes that the smallest file counts as, and `_MOST` the largest, when one is chosen to be damaged."""
_MOST = 2000


def flip_bits(files: Files, rng: random.Random) -> None:
    """Flip one to eight bits of a file."""
    name, content = _choose(files, rng)
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    files[name] = bytes(content)


def truncate(files: Files, rng: random.Random) -> None:
    """Cut a file off, anywhere or after a few bytes or before the last few."""
    name, content = _choose(files, rng)
    size = len(content)
    kept = rng.choice(
        (rng.randrange(size), min(size - 1, rng.randrange(32)), max(0, size - rng.randint(1, 32)))
    )
    files[name] = bytes(content[:kept])


def overwrite_run(files: Files, rng: random.Random) -> None:
    """Overwrite consecutive bytes by zeros, ones or noise, as a lost disk block does."""
    name, content = _choose(files, rng)
    start = rng.randrange(len(content))
    length = min(rng.randint(1, _LONGEST_RUN), len(content) - start)
    content[start : start + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    files[name] = bytes(content)


def shift(files: Files, rng: random.Random) -> None:
    """Put bytes in, or take some out."""
    name, content = _choose(files, rng)
    start, length = rng.randrange(len(content)), rng.randint(1, _LONGEST_RUN)
    if rng.random() < 0.5:
        content[start:start] = rng.randbytes(length)
    else:
        del content[start : start + length]
    files[name] = bytes(content)


def append(files: Files, rng: random.Random) -> None:
    """Put bytes behind the end."""
    name, content = _choose(files, rng)
    files[name] = bytes(content) + rng.randbytes(rng.randint(1, _LONGEST_RUN))


def swap_blocks(files: Files, rng: random.Random) -> None:
    """Let two blocks of a file, or two members of a folder, change places."""
    names = _filled(files)
    if len(names) > 1 and rng.random() < 0.7:
        one, other = rng.sample(names, 2)
        files[one], files[other] = files[other], files[one]
        return
    name, content = _choose(files, rng)
    length = rng.randint(1, max(1, len(content) // 4))
    one, other = (rng.randrange(len(content) - length + 1) for _ in range(2))
    content[one : one + length], content[other : other + length] = (
        content[other : other + length],
        content[one : one + length],
    )
    files[name] = bytes(content)


def lose_member(files: Files, rng: random.Random) -> None:
    """Delete a member of a folder, empty it, or make it a folder; of a lone file, lose all."""
    name = rng.choice(_filled(files))
    if name and rng.random() < 0.5:
        del files[name]
    else:
        files[name] = None if name and rng.random() < 0.5 else b""


def _filled(files: Files) -> list[str]:
    return [name for name, content in files.items() if content]


def _choose(files: Files, rng: random.Random) -> tuple[str, bytearray]:
    names = _filled(files)
    weights = [min(max(len(files[name] or b""), _FEWEST), _MOST) for name in names]
    (name,) = rng.choices(names, weights)
    return name, bytearray(files[name] or b"")


DAMAGES: list[Damage] = [flip_bits, truncate, overwrite_run, shift, append, swap_blocks, lose_member]
