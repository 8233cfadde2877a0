"""The ledger store in LMDB: blocks, certificates, batch bodies and the vote journal in one environment (P19).

One environment, because one transaction with one sync then makes a whole turn durable. `apply` belongs to one writer
thread; everything else may be called from any thread and sees what was durable when it was called.
"""

from collections.abc import Sequence
from pathlib import Path
from secrets import token_bytes

from p2pledger.chain.batch import batch_id
from p2pledger.chain.pruned import PrunedBatch
from p2pledger.consensus.journal import CommittedRecord, JournalRecord, VoteRecord
from p2pledger.engine.ports import LedgerWrite
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, BlockHash, ChainId, Height, NodeId
from p2pledger.storage.environment import MAP_SIZE, Environment, decoded, sealed_record, unseal
from p2pledger.storage.rules import FORMAT, Facts, Turn

BLOCKS, BODIES, LOOSE, JOURNAL = "blocks", "bodies", "loose", "journal"
TAIL = 100
"""Blocks whose hash chain is checked at every start: a tenth of a second even when they are full."""


class LmdbLedgerStore:
    """A `LedgerStore` on disk."""

    def __init__(
        self,
        path: Path,
        chain: ChainId,
        node: NodeId,
        genesis: BlockHash,
        map_size: int = MAP_SIZE,
        may_create: bool = True,
    ) -> None:
        """Open or create the store of one node on one chain; `genesis` is the hash of the header at height 0.

        Pass `may_create=False` when the node has signed before (T31). Raises ConfigError for a store of another
        chain, node or format, or a missing one, and StoreError when what it holds is damaged.
        """
        labels = {"kind": b"ledger", "format": str(FORMAT).encode(), "chain": chain, "node": node}
        birthmarks = {"identity": token_bytes(16)}
        tables = (BLOCKS, BODIES, LOOSE, JOURNAL)
        self._environment = Environment(path, labels, tables, birthmarks, map_size, may_create)
        self._chain = chain
        self._genesis = genesis
        try:
            identity = self._environment.meta("identity")
            if identity is None or len(identity) != 16:
                raise StoreError(f"{path} has no journal identity")
            self.identity = identity
            """Made at random with the journal; the sign floor knows it."""
            self._facts = self._load()
        except BaseException:
            self._environment.close()
            raise

    def apply(self, writes: Sequence[LedgerWrite]) -> None:
        """All of `writes` in order, durable when this returns, or none of them; raises StoreError."""
        table = self._environment.tables
        with self._environment.writing() as txn:
            turn = Turn(self._facts, self, self._chain, writes)
            after = turn.after
            for key, record in turn.changed.items():
                if record is None:
                    txn.delete(key, db=table[JOURNAL])
                elif not txn.put(key, sealed_record(record), overwrite=not _is_vote(record), db=table[JOURNAL]):
                    # The rules saw no vote here, so somebody else has written: two daemons, one journal.
                    raise StoreError(f"the journal holds a vote at {key.hex()} that this process has not written")
            for batch, data in turn.bodies.items():
                txn.put(batch, data, db=table[BODIES])
            for batch, left in turn.pruned.items():
                txn.put(batch, sealed_record(left), db=table[BODIES])
            for batch in turn.dropped:
                txn.delete(batch, db=table[BODIES])
            for batch in after.loose - self._facts.loose:
                txn.put(batch, b"", db=table[LOOSE])
            for batch in self._facts.loose - after.loose:
                txn.delete(batch, db=table[LOOSE])
            for block in turn.blocks:
                key = _height_key(block.header.height)
                if not txn.put(key, sealed_record(block), overwrite=False, db=table[BLOCKS]):
                    raise StoreError(f"block {block.header.height} is already in the store")
        self._facts = after

    def tip(self) -> Height:
        """The last committed height; 0 for a new chain."""
        return self._facts.tip

    def block(self, height: Height) -> CommittedRecord | None:
        """The committed block at a height > 0; raises StoreError when it is damaged."""
        with self._environment.reading() as txn:
            value = txn.get(_height_key(height), db=self._environment.tables[BLOCKS])
        return None if value is None else _block(height, value)

    def certified_from(self, height: Height) -> CommittedRecord | None:
        """The first block at or above `height` that has its own commit certificate."""
        tip = self._facts.tip
        for candidate in range(max(height, 1), tip + 1):
            record = self.block(Height(candidate))
            if record is not None and record.certificate is not None:
                return record
        return None

    def body(self, batch: BatchId) -> bytes | None:
        """The bytes of a batch that is kept whole; raises StoreError when they are damaged."""
        data = self._kept(batch)
        if data is not None and batch_id(data) != batch:
            self._left(batch, data)  # raises for what is no remainder either
            return None
        return data

    def pruned(self, batch: BatchId) -> PrunedBatch | None:
        """What is left of a batch that was pruned; raises StoreError when it is damaged."""
        data = self._kept(batch)
        return None if data is None or batch_id(data) == batch else self._left(batch, data)

    def _kept(self, batch: BatchId) -> bytes | None:
        with self._environment.reading() as txn:
            return txn.get(batch, db=self._environment.tables[BODIES])

    @staticmethod
    def _left(batch: BatchId, data: bytes) -> PrunedBatch:
        """What does not have the hash of its key is a sealed remainder, or damaged."""
        if sha256(data[32:]) != data[:32]:
            raise StoreError(f"the body of batch {batch.hex()} is damaged: its bytes have another hash")
        return decoded(PrunedBatch, data[32:], f"the pruned batch {batch.hex()}")

    def journal(self) -> list[JournalRecord]:
        """All journal records above the committed floor, in the order of their keys."""
        return self._facts.journal

    def has_body(self, batch: BatchId) -> bool:
        """Whether a body is kept."""
        with self._environment.reading() as txn:
            return txn.get(batch, db=self._environment.tables[BODIES]) is not None

    def committed_hash(self, height: Height) -> BlockHash:
        """The hash of the committed block at a height; the genesis header's at 0."""
        if height == 0:
            return self._genesis
        record = self.block(height)
        if record is None:
            raise StoreError(f"block {height} is missing below the tip {self._facts.tip}")
        return record.header.hash

    def room(self) -> int:
        """Bytes that can still be written."""
        return self._environment.room()

    def close(self) -> None:
        """Close the store."""
        self._environment.close()

    def _load(self) -> Facts:
        table = self._environment.tables
        with self._environment.reading() as txn:
            records = {key: _record(key, value) for key, value in txn.cursor(db=table[JOURNAL])}
            loose = {BatchId(key) for key, _ in txn.cursor(db=table[LOOSE])}
            cursor = txn.cursor(db=table[BLOCKS])
            tip = Height(int.from_bytes(cursor.key(), "big")) if cursor.last() else Height(0)
            blocks = txn.stat(db=table[BLOCKS])["entries"]
        if blocks != tip:
            raise StoreError(f"{self._environment.path} has {blocks} blocks, but its last one is {tip}")
        return Facts(tip, self._check_tail(tip), records, loose)

    def _check_tail(self, tip: Height) -> BlockHash:
        """The tip's hash, after the last blocks were found to be linked to each other and to this chain (T31)."""
        first = max(1, tip - TAIL + 1)
        parent = self._genesis if first == 1 else None
        for number in range(first, tip + 1):
            record = self.block(Height(number))
            if record is None:
                raise StoreError(f"block {number} is missing below the tip {tip}")
            header = record.header
            if header.chain != self._chain or (parent is not None and header.parent != parent):
                raise StoreError(f"block {number} of {self._environment.path} does not follow block {number - 1}")
            parent = header.hash
        return self._genesis if parent is None else parent


def _is_vote(record: JournalRecord) -> bool:
    return isinstance(record, VoteRecord)


def _height_key(height: int) -> bytes:
    return height.to_bytes(8, "big")


def _block(height: Height, value: bytes) -> CommittedRecord:
    what = f"block {height}"
    record = decoded(CommittedRecord, unseal(value, what), what)
    if record.header.height != height:
        raise StoreError(f"{what} is damaged: it says that it is block {record.header.height}")
    return record


def _record(key: bytes, value: bytes) -> JournalRecord:
    what = f"journal record {key.hex()}"
    record: JournalRecord = decoded(JournalRecord, unseal(value, what), what)  # type: ignore[arg-type]
    return record
