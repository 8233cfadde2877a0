"""What the engine reads from its stores, and what it asks to be written. Storage implements these, twice.

The *ledger store* is the truth: committed blocks, certificates, batch bodies and the vote journal in one
environment, so that one transaction with one sync makes a whole turn durable (P19). The *state store* is derived:
state, receipts and the authenticated tree, flushed with their height in the background and re-executed above
it after a crash; it could be deleted and rebuilt.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from p2pledger.chain.pruned import PrunedBatch
from p2pledger.chain.receipt import Executed
from p2pledger.consensus.journal import CommittedRecord, JournalRecord
from p2pledger.primitives.codec import Value
from p2pledger.primitives.ids import BatchId, Height
from p2pledger.state.view import StateView, Writes


class PutJournal(Value, frozen=True):
    """Write a journal record; a vote that contradicts a recorded one raises StoreError and nothing is written."""

    record: JournalRecord


class PutBody(Value, frozen=True):
    """Keep a batch body: its block is about to be prepared or committed."""

    id: BatchId
    data: bytes


class AppendBlock(Value, frozen=True):
    """Append the next committed block and prune the journal at and below it.

    Raises StoreError unless height = tip + 1, parent = tip's hash, and every body is in the store or this write.
    """

    record: CommittedRecord


class LiftHalt(Value, frozen=True):
    """Drop the halt mark: a fresh execution of the whole chain agrees with it (P22). Votes and locks stay."""


class PutPruned(Value, frozen=True):
    """Keep what is left of a batch in the place of its body, or of none: the members have approved it.

    Raises StoreError unless it is well formed; whether it is that batch is for the caller to know (`check_batches`).
    """

    id: BatchId
    left: PrunedBatch


LedgerWrite: TypeAlias = PutJournal | PutBody | PutPruned | AppendBlock | LiftHalt


class LedgerStore(Protocol):
    """Blocks, certificates, bodies and the vote journal."""

    def apply(self, writes: Sequence[LedgerWrite]) -> None:
        """All of `writes` in order, durable when this returns, or none of them. StoreError is final: stop."""

    def tip(self) -> Height:
        """The last committed height; 0 for a new chain."""

    def block(self, height: Height) -> CommittedRecord | None:
        """The committed block at a height > 0."""

    def certified_from(self, height: Height) -> CommittedRecord | None:
        """The first block at or above `height` that has its own commit certificate."""

    def body(self, batch: BatchId) -> bytes | None:
        """The bytes of a batch that is kept whole."""

    def pruned(self, batch: BatchId) -> PrunedBatch | None:
        """What is left of a batch that was pruned."""

    def journal(self) -> list[JournalRecord]:
        """All journal records above the committed floor."""


class Forgetting(Value, frozen=True):
    """A step in carrying out a pruning that was approved; docs/decisions/0021-pruning.md."""

    number: int
    """Of the pruning, from 1."""
    upto: Height
    """Done with all heights up to this one."""
    places: Sequence[tuple[Height, int]]
    """(height, index) of receipts whose events go now."""


class StateFlush(Value, frozen=True):
    """Everything executed since the last flush, to be written in one transaction with its height."""

    height: Height
    writes: Writes
    receipts: Sequence[Executed]
    receipt_keys: Sequence[tuple[int, int]]
    """(account number, nonce) of each receipt; (0, 0) for those of unknown senders, which are not indexed."""
    tree: Writes
    """Changed records of the authenticated tree."""
    effects: Sequence[tuple[Height, bytes]]
    """Per height: the concatenated 32-byte leaf hashes of its effects tree."""
    forgetting: Forgetting | None = None


class StateStore(Protocol):
    """State, receipts and the authenticated tree up to one height."""

    def height(self) -> Height:
        """The height up to which this store has executed."""

    def flush(self, flush: StateFlush) -> None:
        """Write it all or nothing; snapshots taken before keep what they saw."""

    def snapshot(self) -> "StateSnapshot":
        """A consistent read view; close it after use."""


class StateSnapshot(StateView, Protocol):
    """A read transaction over the state store."""

    @property
    def height(self) -> Height:
        """The height this snapshot shows."""

    def tree(self, key: bytes) -> bytes | None:
        """A record of the authenticated tree."""

    def receipt(self, account: int, nonce: int) -> Executed | None:
        """The receipt of a sender's transaction."""

    def receipts_at(self, height: Height) -> Iterator[Executed]:
        """All receipts of a height, in order."""

    def effects_leaves(self, height: Height) -> list[bytes]:
        """The leaf hashes of a height's effects tree; empty where nothing was executed."""

    def forgotten(self) -> tuple[int, Height]:
        """(number of the last pruning that was begun, height up to which it is done); (0, 0) where there was none."""

    def close(self) -> None:
        """End the read transaction."""
