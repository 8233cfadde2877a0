"""What this validator has released, or was about to: written down before a share leaves, for its own later audit (I-9).

One environment of its own beside ledger and state. An entry is kept under (access, batch, index), so a reader that asks
again adds nothing. What the chain has no report of yet is kept apart, so that a start need not read everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from p2pledger.health.release import ReleaseEntry
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import ChainId, NodeId
from p2pledger.storage.environment import MAP_SIZE, Environment, decoded, seal, unseal

FORMAT = b"1"
ENTRIES = "entries"
COUNTS = "counts"
UNREPORTED = "unreported"


class ReleaseEntries:
    """The entries of one validator."""

    def __init__(self, path: Path, chain: ChainId, node: NodeId, map_size: int = MAP_SIZE) -> None:
        """Open or create; raises ConfigError for another store, StoreError."""
        labels = {"kind": b"releases", "format": FORMAT, "chain": chain, "node": node}
        self._env = Environment(path, labels, (ENTRIES, COUNTS, UNREPORTED), {}, map_size)
        self._tables = self._env.tables

    def add(self, entries: Sequence[ReleaseEntry]) -> dict[bytes, int]:
        """Durable when this returns. By access: of how many different records there are entries now."""
        totals: dict[bytes, int] = {}
        with self._env.writing() as txn:
            for access_id, together in groupby(entries, key=lambda entry: entry.access.access_id):
                known = _number(txn.get(access_id, db=self._tables[COUNTS]))
                added = 0
                for entry in together:
                    key = _key(entry)
                    added += txn.get(key, db=self._tables[ENTRIES]) is None
                    txn.put(key, seal(encode(entry)), db=self._tables[ENTRIES])
                totals[access_id] = known + added
                if added:
                    data = (known + added).to_bytes(8, "big")
                    txn.put(access_id, data, db=self._tables[COUNTS])
                    txn.put(access_id, data, db=self._tables[UNREPORTED])
        return totals

    def reported(self, counts: Mapping[bytes, int]) -> None:
        """The chain knows of so many records of these accesses; what was added since then stays unreported."""
        with self._env.writing() as txn:
            for access_id, count in counts.items():
                if _number(txn.get(access_id, db=self._tables[UNREPORTED])) <= count:
                    txn.delete(access_id, db=self._tables[UNREPORTED])

    def unreported(self) -> dict[bytes, int]:
        """By access: of how many records there are entries, where the chain was not seen to know."""
        with self._env.reading() as txn:
            rows = txn.cursor(db=self._tables[UNREPORTED])
            return {bytes(key): _number(bytes(data)) for key, data in rows}

    def __iter__(self) -> Iterator[ReleaseEntry]:
        """All entries, by access, batch and index; raises StoreError at a damaged one."""
        with self._env.reading() as txn:
            for key, data in txn.cursor(db=self._tables[ENTRIES]):
                what = f"release entry {bytes(key).hex()}"
                entry = decoded(ReleaseEntry, unseal(bytes(data), what), what)
                if _key(entry) != bytes(key):
                    raise StoreError(f"{what} is that of another record")
                yield entry

    def close(self) -> None:
        """Close it."""
        self._env.close()


def _key(entry: ReleaseEntry) -> bytes:
    """Without the key epoch, which the reader names: no record of an access counts twice."""
    return entry.access.access_id + entry.label.batch_id + entry.label.index.to_bytes(8, "big")


def _number(data: bytes | None) -> int:
    return 0 if data is None else int.from_bytes(data, "big")
