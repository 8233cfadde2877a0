"""The two stores in memory: the twins that the simulator and tests run on, held to the same suite as LMDB's.

What `apply` or `flush` returned from is durable. A crash loses the object, not its content: `reopened` hands that to a
new object and leaves the old one dead, as a killed process leaves its files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from p2pledger.chain.pruned import PrunedBatch
from p2pledger.chain.receipt import Executed
from p2pledger.consensus.journal import CommittedRecord, JournalRecord
from p2pledger.engine.ports import Forgetting, LedgerWrite, StateFlush
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, BlockHash, ChainId, Height
from p2pledger.state.ordered import OrderedMap
from p2pledger.storage.rules import Facts, Turn, check_flush


class MemoryLedgerStore:
    """A `LedgerStore` without a disk."""

    def __init__(self, chain: ChainId, genesis: BlockHash, identity: bytes = bytes(16)) -> None:
        self.identity = identity
        self.fail_next_apply = False
        """The next write fails as a full disk would: it raises, and none is taken after it."""
        self.keeps_failed_apply = False
        """Whether what failed is on the disk all the same, whole: a sync may fail after the bytes have arrived."""
        self._chain = chain
        self._genesis = genesis
        self._facts = Facts(Height(0), genesis, {}, frozenset())
        self._blocks: list[CommittedRecord] = []
        self._bodies: dict[BatchId, bytes] = {}
        self._pruned: dict[BatchId, PrunedBatch] = {}
        self._failure: str | None = None

    def apply(self, writes: Sequence[LedgerWrite]) -> None:
        """All of `writes` in order, or none of them; raises StoreError."""
        if self._failure is not None:
            raise StoreError(f"this store takes no more writes: {self._failure}")
        turn = Turn(self._facts, self, self._chain, writes)
        if self.fail_next_apply:
            self._failure = "a write failed"
        if not self.fail_next_apply or self.keeps_failed_apply:
            self._bodies.update(turn.bodies)
            self._pruned.update(turn.pruned)
            for batch in turn.pruned:
                self._bodies.pop(batch, None)
            for batch in turn.dropped:
                del self._bodies[batch]
            self._blocks += turn.blocks
            self._facts = turn.after
        if self.fail_next_apply:
            raise StoreError("writing failed, as it was told to")

    def tip(self) -> Height:
        """The last committed height; 0 for a new chain."""
        return self._facts.tip

    def block(self, height: Height) -> CommittedRecord | None:
        """The committed block at a height > 0."""
        return self._blocks[height - 1] if 1 <= height <= len(self._blocks) else None

    def certified_from(self, height: Height) -> CommittedRecord | None:
        """The first block at or above `height` that has its own commit certificate."""
        start = max(height, 1) - 1
        return next((self._blocks[i] for i in range(start, len(self._blocks)) if self._blocks[i].certificate), None)

    def body(self, batch: BatchId) -> bytes | None:
        """The bytes of a batch that is kept whole."""
        return self._bodies.get(batch)

    def pruned(self, batch: BatchId) -> PrunedBatch | None:
        """What is left of a batch that was pruned."""
        return self._pruned.get(batch)

    def journal(self) -> list[JournalRecord]:
        """All journal records above the committed floor, in the order of their keys."""
        return self._facts.journal

    def has_body(self, batch: BatchId) -> bool:
        """Whether a body is kept."""
        return batch in self._bodies or batch in self._pruned

    def committed_hash(self, height: Height) -> BlockHash:
        """The hash of the committed block at a height; the genesis header's at 0."""
        return self._genesis if height == 0 else self._blocks[height - 1].header.hash

    def close(self) -> None:
        """Take no more writes."""
        self._failure = "it is closed"

    def reopened(self) -> "MemoryLedgerStore":
        """What a process finds that starts after this one died; this object takes no more writes."""
        twin = self.copied()
        self.close()
        return twin

    def copied(self) -> "MemoryLedgerStore":
        """A backup as of now, to be restored one day where it must not be."""
        twin = MemoryLedgerStore(self._chain, self._genesis, self.identity)
        twin._facts, twin._blocks, twin._bodies = self._facts, self._blocks.copy(), self._bodies.copy()
        twin._pruned = self._pruned.copy()
        return twin


@dataclass
class _Version:
    """The content at one height; not changed any more once a snapshot was taken of it."""

    done: Height | None = None
    state: OrderedMap[bytes] = field(default_factory=OrderedMap)
    tree: dict[bytes, bytes] = field(default_factory=dict)
    index: dict[tuple[int, int], Executed] = field(default_factory=dict)
    receipts: dict[Height, list[Executed]] = field(default_factory=dict)
    effects: dict[Height, bytes] = field(default_factory=dict)
    forgotten: tuple[int, Height] = (0, Height(0))
    snapshots: int = 0

    def copied(self) -> "_Version":
        return replace(
            self,
            state=self.state.copy(),
            tree=self.tree.copy(),
            index=self.index.copy(),
            receipts={height: executed.copy() for height, executed in self.receipts.items()},
            effects=self.effects.copy(),
            snapshots=0,
        )


class MemoryStateStore:
    """A `StateStore` without a disk."""

    def __init__(self) -> None:
        self.fail_next_flush = False
        self._version = _Version()
        self._failure: str | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing was flushed yet, not even the genesis at height 0."""
        return self._version.done is None

    def height(self) -> Height:
        """The height up to which this store has executed; 0 for a new one."""
        return self._version.done or Height(0)

    def flush(self, flush: StateFlush) -> None:
        """Write it all or nothing; raises StoreError."""
        if self._failure is not None:
            raise StoreError(f"this store takes no more writes: {self._failure}")
        check_flush(flush, self._version.done)
        if self.fail_next_flush:
            self._failure = "a write failed"
            raise StoreError("writing failed, as it was told to")
        version = self._version.copied() if self._version.snapshots else self._version
        for key, value in flush.writes.items():
            if value is None:
                version.state.discard(key)
            else:
                version.state.put(key, value)
        for key, value in flush.tree.items():
            if value is None:
                version.tree.pop(key, None)
            else:
                version.tree[key] = value
        for executed, (account, nonce) in zip(flush.receipts, flush.receipt_keys, strict=True):
            version.receipts.setdefault(executed.receipt.height, []).append(executed)
            if account:
                version.index.setdefault((account, nonce), executed)
        for height in {executed.receipt.height: None for executed in flush.receipts}:
            version.receipts[height].sort(key=lambda executed: executed.receipt.index)
        version.effects.update(flush.effects)
        if flush.forgetting is not None:
            _forget(version, flush.forgetting)
        version.done = flush.height
        self._version = version

    def snapshot(self) -> "MemoryStateSnapshot":
        """A consistent read view; close it after use."""
        return MemoryStateSnapshot(self._version)

    def close(self) -> None:
        """Take no more writes."""
        self._failure = "it is closed"

    def reopened(self) -> "MemoryStateStore":
        """What a process finds that starts after this one died; this object takes no more writes."""
        twin = MemoryStateStore()
        twin._version = self._version.copied()
        self.close()
        return twin


class MemoryStateSnapshot:
    """A version of the content that no later flush changes."""

    def __init__(self, version: _Version) -> None:
        version.snapshots += 1
        self._version = version
        self._is_open = True

    @property
    def height(self) -> Height:
        """The height this snapshot shows."""
        return self._version.done or Height(0)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return self._open().state.get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all keys that begin with `prefix`, from `prefix + start` on, ascending."""
        return self._open().state.scan(prefix, start)

    def tree(self, key: bytes) -> bytes | None:
        """A record of the authenticated tree."""
        return self._open().tree.get(key)

    def receipt(self, account: int, nonce: int) -> Executed | None:
        """The receipt of a sender's transaction."""
        return self._open().index.get((account, nonce))

    def receipts_at(self, height: Height) -> Iterator[Executed]:
        """All receipts of a height, in order."""
        return iter(self._open().receipts.get(height, ()))

    def effects_leaves(self, height: Height) -> list[bytes]:
        """The leaf hashes of a height's effects tree; empty where nothing was executed."""
        leaves = self._open().effects.get(height, b"")
        return [leaves[i : i + 32] for i in range(0, len(leaves), 32)]

    def forgotten(self) -> tuple[int, Height]:
        """The last pruning that was begun, and the height up to which it is done."""
        return self._open().forgotten

    def close(self) -> None:
        """End the snapshot; twice does no harm."""
        if self._is_open:
            self._is_open = False
            self._version.snapshots -= 1

    def __enter__(self) -> "MemoryStateSnapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> _Version:
        if not self._is_open:
            raise StoreError(f"the snapshot of height {self._version.done} is closed")
        return self._version


def _forget(version: _Version, step: Forgetting) -> None:
    version.forgotten = (step.number, step.upto)
    for height, index in step.places:
        kept = version.receipts.get(height, [])
        for at, executed in enumerate(kept):
            if executed.receipt.index == index:
                kept[at] = executed.pruned()
    gone = {*step.places}
    for key, executed in version.index.items():
        if (executed.receipt.height, executed.receipt.index) in gone:
            version.index[key] = executed.pruned()
