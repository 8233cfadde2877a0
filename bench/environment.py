"""On what a run was made: without it no figure means anything. No host names and no paths."""

import os
import platform
import re
import ssl
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lmdb

PACKAGES = ("pynacl", "lmdb", "trio", "msgspec", "cryptography", "pysyncobj", "grpcio", "asyncpg", "matplotlib")


def describe(folder: Path, seed: int) -> dict[str, Any]:
    """The machine, the software and the state of the source, as a table for environment.json."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "filesystem": _filesystem(folder),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "openssl": ssl.OPENSSL_VERSION,
        "libsodium": f"the one built into PyNaCl {_version('pynacl')}, which does not export its number",
        "lmdb": ".".join(map(str, lmdb.version())),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "commit_is_clean": _git("status", "--porcelain") == "",
        "seed": seed,
    }


def _cpu_model() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds the stores: on tmpfs a durable write costs nothing."""
    best = ("", "unknown")
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, mount, kind, *_ = line.split()
        root = mount.rstrip("/") + "/"
        if f"{folder.resolve()}/".startswith(root) and len(root) > len(best[0]):
            best = (root, kind)
    return best[1]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
