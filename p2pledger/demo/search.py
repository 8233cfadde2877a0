"""Looking for bytes where they must not be: in files, and in the memory of running processes."""

import mmap
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)")
_CHUNK_BYTES = 16 * 1024 * 1024
_OVERLAP_BYTES = 4096
"""Longer than whatever is looked for."""


def files_with(folders: Iterable[Path], needles: Collection[bytes]) -> set[Path]:
    """The files in and below these folders in which one of them stands."""
    return {path for folder in folders for path in folder.rglob("*") if path.is_file() and _stands_in(path, needles)}


def _stands_in(path: Path, needles: Collection[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(needle) >= 0 for needle in needles)


def memory_has(pid: int, needles: Collection[bytes]) -> list[bool]:
    """For each, whether it stands in what a process has written to its memory; raises OSError where that is not ours
    to read. Files that are mapped count as files, not as memory."""
    found = [False] * len(needles)
    for chunk in _memory(pid):
        for place, needle in enumerate(needles):
            found[place] = found[place] or needle in chunk
    return found


def _memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in _regions(pid):
            for at in range(start, end, _CHUNK_BYTES - _OVERLAP_BYTES):
                try:
                    memory.seek(at)
                    yield memory.read(min(_CHUNK_BYTES, end - at))
                except OSError:
                    break  # the region has gone meanwhile, or is the kernel's


def _regions(pid: int) -> Iterator[tuple[int, int]]:
    """Of its own pages: readable and writable, and of no data file."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = _REGION.match(line)
        if match is not None and match[3].startswith("rw") and not match[4].endswith(".mdb"):
            yield int(match[1], 16), int(match[2], 16)
