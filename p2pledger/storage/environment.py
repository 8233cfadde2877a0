"""One LMDB environment the way this program uses it: default flags, identity checked, closed for good on failure.

LMDB has no page checksums, opens a zero-length file as an empty database and kills the process by SIGBUS when a
file was shortened; `sync=False` and `metasync=False` lose commits, `writemap` dies on a full disk. So flags are
asserted, the file is measured before it is read, and values that matter carry their own hash (`seal`).
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lmdb

from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import ConfigError, InvalidInput, StoreError, Unavailable
from p2pledger.primitives.limits import FRAME_BYTES_MAX

if TYPE_CHECKING:
    from lmdb import _Database

T = TypeVar("T")

MAP_SIZE = 64 * 1024**3
"""Address space, not disk: growing a map means reopening it, so it is large from the start."""
READERS_MAX = 1024
"""Snapshots open at once; more are turned away."""
SAFE_FLAGS = {"sync": True, "metasync": True, "writemap": False, "map_async": False, "lock": True, "readonly": False}
META = "meta"


def seal(data: bytes) -> bytes:
    """`data` behind its own SHA-256, because LMDB does not notice a flipped byte."""
    return sha256(data) + data


def unseal(sealed: bytes, what: str) -> bytes:
    """The data that was sealed; raises StoreError naming `what` when a byte of it has changed."""
    data = sealed[32:]
    if sha256(data) != sealed[:32]:
        raise StoreError(f"{what} is damaged: its bytes do not have the hash stored with them")
    return data


def decoded(kind: type[T], data: bytes, what: str) -> T:
    """The stored value; raises StoreError naming `what` when the bytes are none."""
    try:
        return decode(kind, data, FRAME_BYTES_MAX)
    except InvalidInput as error:
        raise StoreError(f"{what} is damaged: {error}") from error


def sealed_record(value: object) -> bytes:
    """The canonical bytes of a Record, sealed."""
    return seal(encode(value))


class Environment:
    """An open environment with its named databases."""

    def __init__(
        self,
        path: Path,
        labels: Mapping[str, bytes],
        tables: Sequence[str],
        birthmarks: Mapping[str, bytes],
        map_size: int = MAP_SIZE,
        may_create: bool = True,
    ) -> None:
        """Open or create. `labels` must be found again as they were; `birthmarks` are written at creation only.

        Raises ConfigError for a store of something else, or none where one must be, and StoreError for damage.
        """
        self.path = path
        self._failure: str | None = None
        data = path / "data.mdb"
        if not may_create and not (data.is_file() and data.stat().st_size):
            raise ConfigError(
                f"{data} is {'empty' if data.exists() else 'missing'}, but this node has signed before (its sign floor "
                "exists): restore the file, or start once with --accept-resign-risk to begin with an empty journal"
            )
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._env = lmdb.open(
                str(path), map_size=map_size, max_dbs=len(tables) + 1, max_readers=READERS_MAX, mode=0o600
            )
        except lmdb.Error as error:
            raise StoreError(f"{data} cannot be opened: {error}") from error
        try:
            self._check_flags()
            _back_by_disk(path / "lock.mdb")
            self._check_length(data)
            self.tables = self._open_tables(labels, tables, birthmarks)
        except (lmdb.Error, OSError) as error:
            self._env.close()
            raise StoreError(f"{data} cannot be read: {error}") from error
        except BaseException:
            self._env.close()
            raise

    def _check_flags(self) -> None:
        flags: dict[str, object] = {**self._env.flags()}
        for name, wanted in SAFE_FLAGS.items():
            assert flags[name] == wanted, f"LMDB flag {name} of {self.path} is {flags[name]}, must be {wanted}"

    def _check_length(self, data: Path) -> None:
        """Reading a page that the file has lost would end the process by SIGBUS."""
        wanted = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        found = data.stat().st_size
        if found < wanted:
            raise StoreError(f"{data} was shortened: {found} bytes of {wanted}")

    def _open_tables(
        self, labels: Mapping[str, bytes], tables: Sequence[str], birthmarks: Mapping[str, bytes]
    ) -> dict[str, "_Database"]:
        """All or none exist: they are created in one transaction. Nothing is written into a foreign store."""
        if self._env.stat()["entries"] == 0:
            with self._env.begin(write=True) as txn:
                handles = {name: self._env.open_db(name.encode(), txn=txn) for name in (META, *tables)}
                for name, value in {**labels, **birthmarks}.items():
                    txn.put(name.encode(), value, db=handles[META])
            return handles
        try:
            meta = self._env.open_db(META.encode(), create=False)
            self._check_labels(meta, labels)
            return {META: meta} | {name: self._env.open_db(name.encode(), create=False) for name in tables}
        except lmdb.NotFoundError as error:
            raise ConfigError(f"{self.path} holds an LMDB database, but not one of this program's stores") from error

    def _check_labels(self, meta: "_Database", labels: Mapping[str, bytes]) -> None:
        with self._env.begin() as txn:
            for name, wanted in labels.items():
                found = txn.get(name.encode(), db=meta)
                if found != wanted:
                    raise ConfigError(f"{self.path} has {name} {_shown(found)}, not {_shown(wanted)}")

    @contextmanager
    def reading(self) -> Iterator["lmdb.Transaction[bytes]"]:
        """A read transaction for one look; StoreError when LMDB fails."""
        txn = self.snapshot()
        try:
            yield txn
        except lmdb.Error as error:
            raise StoreError(f"reading {self.path} failed: {error}") from error
        finally:
            txn.abort()

    def snapshot(self) -> "lmdb.Transaction[bytes]":
        """A read transaction for the caller to abort; Unavailable when too many are open."""
        try:
            return self._env.begin()
        except lmdb.ReadersFullError as error:
            raise Unavailable(f"{READERS_MAX} snapshots of {self.path} are open") from error
        except lmdb.Error as error:
            raise StoreError(f"reading {self.path} failed: {error}") from error

    @contextmanager
    def writing(self) -> Iterator["lmdb.Transaction[bytes]"]:
        """A write transaction: committed and durable when the block ends, undone when it raises.

        After the first failure of LMDB every later one is refused: a failed fsync must never be retried as success.
        """
        if self._failure is not None:
            raise StoreError(f"{self.path} takes no more writes, since one failed: {self._failure}")
        try:
            with self._env.begin(write=True) as txn:
                yield txn
        except lmdb.Error as error:
            self._failure = str(error)
            raise StoreError(f"writing {self.path} failed: {error}") from error

    def meta(self, name: str) -> bytes | None:
        """A value of the meta table."""
        with self.reading() as txn:
            return txn.get(name.encode(), db=self.tables[META])

    def room(self) -> int:
        """Bytes that can still be written: the smaller of what the map and the disk have left."""
        used = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        disk = os.statvfs(self.path)
        return min(self._env.info()["map_size"] - used, disk.f_bavail * disk.f_frsize)

    def close(self) -> None:
        """Close it; snapshots end with it."""
        self._env.close()


def compacted(path: Path) -> tuple[int, int]:
    """Replace the environment in a folder by a copy without free pages: (bytes before, bytes after).

    Its owner holds the home's lock and has it closed. A crash leaves the old file or the new one, whole. Raises
    ConfigError where there is none, StoreError.
    """
    data, copy = path / "data.mdb", path.with_name(path.name + ".compact")
    if not data.is_file():
        raise ConfigError(f"{data} is missing")
    before = data.stat().st_size
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o700)
    try:
        with lmdb.open(str(path), readonly=True, lock=False, map_size=max(before, 2**20)) as environment:
            environment.copy(str(copy), compact=True)
        fresh = copy / "data.mdb"
        fresh.chmod(0o600)
        sync(fresh)
        fresh.replace(data)
        sync(path)
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"{data} cannot be compacted: {error}") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return before, data.stat().st_size


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _back_by_disk(lock: Path) -> None:
    """Give every page of the reader table disk space now: a new one on a full disk would be SIGBUS (T30)."""
    with lock.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _shown(value: bytes | None) -> str:
    if value is None:
        return "unknown"
    return value.decode() if value.isascii() and value.decode().isprintable() else value.hex()
