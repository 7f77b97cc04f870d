"""Names of outputs that are on their way, and what killed processes have left of them."""

import hashlib
import os
import re
import secrets
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

_STEM_LENGTH = 40
"""Characters of the final name kept in the temporary one, which must fit the file system's 255 bytes."""
_UNKNOWN_MACHINE = "unknown"


def beside(target: Path) -> Path:
    """Return a hidden name in the same folder, with who writes it; the suffix stays, for libraries."""
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.stem[:_STEM_LENGTH]}.{writer}.part{target.suffix}")


def remove_stale(target: Path) -> None:
    """Remove what killed processes have left of an output, where it is certain that they are gone.

    That is, those of this machine, since it was started: another one's processes cannot be seen.
    """
    if _machine() == _UNKNOWN_MACHINE:
        return
    stem, suffix = re.escape(target.stem[:_STEM_LENGTH]), re.escape(target.suffix)
    left = re.compile(rf"\.{stem}\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.part{suffix}")
    with suppress(OSError):
        for name in os.listdir(target.parent):  # noqa: PTH208 many files, of which names do
            found = left.fullmatch(name)
            if found is not None and not Path("/proc", found[1]).exists():
                remove(target.with_name(name))


@cache
def _machine() -> str:
    """Give what is the same for all processes that see each other's numbers, and for no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 containers number theirs anew
    except OSError:
        return _UNKNOWN_MACHINE
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:8]


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def aside_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")
