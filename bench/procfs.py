"""What Linux knows about processes: processor time, memory, bytes written. Where a figure is not given, it is None."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process since it began."""

    cpu_s: float
    """User and system, all threads."""
    rss_bytes: int
    written_bytes: int | None
    """In calls that write files, `wchar` of /proc/PID/io: for a validator LMDB's pages, each as often as it is synced.

    Not `write_bytes`: a kernel whose page cache has large folios charges a folio of up to 2 MiB for one page of it.
    """


def usage(pid: int) -> Usage | None:
    """None for a process that is gone."""
    root = Path(f"/proc/{pid}")
    try:
        fields = (root / "stat").read_text().rpartition(")")[2].split()
        resident = int((root / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    written = None
    with suppress(OSError, ValueError):
        lines = (root / "io").read_text().splitlines()
        written = next((int(line.split()[1]) for line in lines if line.startswith("wchar:")), None)
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, resident * _PAGE, written)


def map_bytes(pid: int) -> int | None:
    """Resident pages of LMDB's maps: the page cache's, which the kernel takes back when it needs them.

    None where this process may not look. Walks all pages, so never during a load.
    """
    found, is_map = 0, False
    try:
        with Path(f"/proc/{pid}/smaps").open() as file:
            for line in file:
                name, *values = line.split()
                if not name.endswith(":"):
                    is_map = line.rstrip().endswith(".mdb")
                elif is_map and name == "Rss:":
                    found += 1024 * int(values[0])
    except OSError:
        return None
    return found


def confine(pid: int, cores: tuple[int, ...]) -> None:
    """Let a process, and the threads that it will start, run on these processors only; empty: as it is."""
    if cores:
        os.sched_setaffinity(pid, cores)


def cores_of(cores: tuple[int, ...]) -> int:
    """How many processors these are; empty: all that this process may use."""
    return len(cores) or len(os.sched_getaffinity(0))
