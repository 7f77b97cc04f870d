"""What the figures were measured on and with; nothing that tells whose machine it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import threadpoolctl

PACKAGES = ("detectorcal", "numpy", "scipy", "h5py", "joblib", "numexpr", "algotom", "tomopy")
"""What the benchmarks of time and memory compare or rest on."""


def describe_machine(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Give the processor, its number of cores, memory, and the versions of what took part."""
    libraries = {
        f"{info['internal_api']} {info['version']}"
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    }
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory, GB": None if (total := physical_memory()) is None else round(total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "BLAS": ", ".join(sorted(libraries)),
        **{name: version for name in packages if (version := _version(name)) is not None},
    }


def physical_memory() -> int | None:
    """Give the bytes of memory, None where the system does not say."""
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
