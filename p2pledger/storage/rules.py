"""What a ledger store accepts and what it prunes, worked out before anything is touched; the same for every store.

A `Turn` takes the writes of one `apply` in order. It either raises StoreError, and nothing has happened, or says which
rows change. What it needs to know is small (votes and headers above the tip) and kept in memory as `Facts`.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from struct import Struct
from typing import Protocol, assert_never

from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Header
from p2pledger.chain.pruned import PrunedBatch
from p2pledger.consensus.journal import (
    BlockRecord,
    CommittedRecord,
    EvidenceRecord,
    HaltRecord,
    JournalRecord,
    LockRecord,
    ViewRecord,
    VoteRecord,
)
from p2pledger.consensus.messages import (
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    same_statement,
    slot,
)
from p2pledger.engine.ports import AppendBlock, LedgerWrite, LiftHalt, PutBody, PutJournal, PutPruned, StateFlush
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, BlockHash, ChainId, Epoch, Height, View

FORMAT = 5
"""Of both stores on disk; docs/state.md. A store of another format is refused, never guessed at."""

VIEW_KEY = b"view"
HALT_KEY = b"halt"
_SLOT = Struct(">BQQQ")
_HEIGHT = Struct(">Q")


def journal_key(record: JournalRecord) -> bytes:
    """The key under which a record stands; a later record with the same key takes its place (votes: never)."""
    match record:
        case ViewRecord():
            return VIEW_KEY
        case LockRecord():
            return b"lock"
        case HaltRecord():
            return HALT_KEY
        case EvidenceRecord():
            return b"f" + record.first.message.author
        case BlockRecord():
            return b"b" + _HEIGHT.pack(record.header.height) + record.header.hash
        case VoteRecord():
            return b"s" + _SLOT.pack(*slot(record.message))
        case _:
            assert_never(record)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store knows without reading: durable, and replaced as a whole."""

    tip: Height
    tip_hash: BlockHash
    records: Mapping[bytes, JournalRecord]
    """The journal by key."""
    loose: AbstractSet[BatchId]
    """Bodies that are kept and belong to no committed block."""

    @property
    def journal(self) -> list[JournalRecord]:
        """The records in the order of their keys."""
        return [self.records[key] for key in sorted(self.records)]


class Held(Protocol):
    """What only the store itself can answer."""

    def committed_hash(self, height: Height) -> BlockHash:
        """Of a block that is committed."""

    def has_body(self, batch: BatchId) -> bool:
        """Whether a body is kept."""


class Turn:
    """The effect of one `apply`."""

    def __init__(self, before: Facts, held: Held, chain: ChainId, writes: Sequence[LedgerWrite]) -> None:
        self.blocks: list[CommittedRecord] = []
        self.bodies: dict[BatchId, bytes] = {}
        """New ones."""
        self.dropped: dict[BatchId, None] = {}
        """Bodies that were kept and are not any more."""
        self.pruned: dict[BatchId, PrunedBatch] = {}
        """What is left of batches, in the place of their bodies."""
        self.changed: dict[bytes, JournalRecord | None] = {}
        """Journal rows; None deletes."""
        self._held = held
        self._chain = chain
        self._tip = before.tip
        self._tip_hash = before.tip_hash
        self._records = dict(before.records)
        self._loose = set(before.loose)
        self._hashes: dict[Height, BlockHash] = {}
        for write in writes:
            self._take(write)

    @property
    def after(self) -> Facts:
        """What the store knows once this turn is durable."""
        return Facts(self._tip, self._tip_hash, self._records, self._loose)

    def _take(self, write: LedgerWrite) -> None:
        match write:
            case PutJournal():
                self._journal(write.record)
            case PutBody():
                self._keep(write)
            case PutPruned():
                self._prune_body(write)
            case AppendBlock():
                self._append(write.record)
            case LiftHalt():
                if HALT_KEY in self._records:
                    self._drop_record(HALT_KEY)
            case _:
                assert_never(write)

    def _journal(self, record: JournalRecord) -> None:
        match record:
            case ViewRecord():
                self._stand(record)
            case VoteRecord():
                self._vote(record)
            case BlockRecord():
                if record.header.height > self._tip:  # at and below it the ledger is the record
                    self._put(journal_key(record), record)
            case LockRecord() | HaltRecord() | EvidenceRecord():
                self._put(journal_key(record), record)
            case _:
                assert_never(record)

    def _vote(self, record: VoteRecord) -> None:
        message = record.message
        key = journal_key(record)
        known = self._records.get(key)
        if isinstance(known, VoteRecord):
            if not same_statement(known.message, message):
                raise StoreError(f"{_named(message)} contradicts the one already in the journal")  # P19
            return
        match message:
            case PrePrepare() | Prepare() | Commit():
                if message.height <= self._tip:
                    if message.block_hash != self._hash_at(message.height):
                        raise StoreError(f"{_named(message)} is not for the block committed there (P2)")
                    return  # the floor remembers it
            case ViewChange() | NewView():
                # Those of earlier views are pruned, so a second one could no longer be compared with the first.
                standing = self._standing()
                if (message.epoch, message.view) < standing:
                    raise StoreError(f"{_named(message)} lies before epoch {standing[0]} view {standing[1]} (P9)")
            case _:
                assert_never(message)
        self._put(key, record)

    def _stand(self, record: ViewRecord) -> None:
        before, now = self._standing(), (record.epoch, record.view)
        if now < before:
            raise StoreError(f"epoch {now[0]} view {now[1]} does not follow epoch {before[0]} view {before[1]} (P9)")
        if now > before:
            for key, known in list(self._records.items()):
                if isinstance(known, VoteRecord) and _is_outgrown(known.message, now):
                    self._drop_record(key)
        self._put(VIEW_KEY, record)

    def _standing(self) -> tuple[Epoch, View]:
        record = self._records.get(VIEW_KEY)
        return (record.epoch, record.view) if isinstance(record, ViewRecord) else (Epoch(0), View(0))

    def _keep(self, body: PutBody) -> None:
        if batch_id(body.data) != body.id:
            raise StoreError(f"body for batch {body.id.hex()} has hash {batch_id(body.data).hex()}")
        if self._has_body(body.id):
            return
        if body.id in self.dropped:
            del self.dropped[body.id]
        else:
            self.bodies[body.id] = body.data
        self._loose.add(body.id)

    def _prune_body(self, write: PutPruned) -> None:
        """A batch of a committed block, or of one appended in this very turn; an open block needs its bodies."""
        if write.id in self._loose or write.id in self.bodies:
            raise StoreError(f"batch {write.id.hex()} is of no committed block, so it cannot be pruned")
        if all(one.operations is not None for one in write.left.transactions):
            raise StoreError(f"nothing of batch {write.id.hex()} was pruned")
        self.pruned[write.id] = write.left

    def _has_body(self, batch: BatchId) -> bool:
        if batch in self._loose or batch in self.bodies or batch in self.pruned:
            return True
        return batch not in self.dropped and self._held.has_body(batch)

    def _append(self, record: CommittedRecord) -> None:
        header = record.header
        self._check_follows(header)
        missing = [batch.hex() for batch in header.batches if not self._has_body(batch)]
        if missing:
            raise StoreError(f"block {header.height} lacks {len(missing)} of its bodies, first {missing[0]}")
        block_hash = header.hash
        certificate = record.certificate
        if certificate is not None and (certificate.kind, certificate.height, certificate.block_hash) != (
            "commit",
            header.height,
            block_hash,
        ):
            raise StoreError(
                f"block {header.height} {block_hash.hex()} comes with a {certificate.kind} certificate of "
                f"{certificate.height} {certificate.block_hash.hex()}"
            )
        self.blocks.append(record)
        self._tip, self._tip_hash = header.height, block_hash
        self._hashes[header.height] = block_hash
        self._loose.difference_update(header.batches)
        self._prune()

    def _check_follows(self, header: Header) -> None:
        if header.chain != self._chain:
            raise StoreError(f"block {header.height} is of chain {header.chain.hex()}, not {self._chain.hex()}")
        if header.height != self._tip + 1:
            raise StoreError(f"block {header.height} does not follow the tip {self._tip}")
        if header.parent != self._tip_hash:
            raise StoreError(f"block {header.height} has parent {header.parent.hex()}, not {self._tip_hash.hex()}")

    def _prune(self) -> None:
        """What lies at or below the new tip is a floor now (P2, P19); bodies that lost there are let go (P16b)."""
        lost: list[BatchId] = []
        wanted: set[BatchId] = set()
        for key, record in list(self._records.items()):
            if isinstance(record, BlockRecord):
                if record.header.height > self._tip:
                    wanted.update(record.header.batches)
                else:
                    lost += record.header.batches
                    self._drop_record(key)
            elif isinstance(record, VoteRecord) and _is_settled(record.message, self._tip):
                self._drop_record(key)
        for batch in lost:
            if batch in self._loose and batch not in wanted:
                self._drop_body(batch)

    def _drop_body(self, batch: BatchId) -> None:
        self._loose.discard(batch)
        if self.bodies.pop(batch, None) is None:
            self.dropped[batch] = None

    def _hash_at(self, height: Height) -> BlockHash:
        if height == self._tip:
            return self._tip_hash
        return self._hashes.get(height) or self._held.committed_hash(height)

    def _put(self, key: bytes, record: JournalRecord) -> None:
        self._records[key] = record
        self.changed[key] = record

    def _drop_record(self, key: bytes) -> None:
        del self._records[key]
        self.changed[key] = None


def _is_settled(message: Message, tip: Height) -> bool:
    return isinstance(message, PrePrepare | Prepare | Commit) and message.height <= tip


def _is_outgrown(message: Message, standing: tuple[Epoch, View]) -> bool:
    return isinstance(message, ViewChange | NewView) and (message.epoch, message.view) < standing


def _named(message: Message) -> str:
    kind, epoch, view, height = slot(message)
    at = f" height {height}" if kind <= 3 else ""
    return f"{type(message).__name__} of epoch {epoch} view {view}{at}"


def check_flush(flush: StateFlush, done: Height | None) -> None:
    """Raises StoreError unless the flush goes on from `done` (None: a new store) and fits together."""
    if done is not None and flush.height <= done:
        raise StoreError(f"flush to height {flush.height}, but the state is already at {done}")
    _check_forgetting(flush, done)
    if len(flush.receipts) != len(flush.receipt_keys):
        raise StoreError(f"flush of {len(flush.receipts)} receipts with {len(flush.receipt_keys)} keys")
    floor = -1 if done is None else done
    places = [(executed.receipt.height, executed.receipt.index) for executed in flush.receipts]
    heights = [height for height, _ in flush.effects]
    for named, rows in (("receipts", places), ("effects", [(height, 0) for height in heights])):
        if rows and not (floor < min(rows)[0] and max(rows)[0] <= flush.height and len(set(rows)) == len(rows)):
            raise StoreError(f"{named} of a flush from {floor} to {flush.height} repeat or lie outside it")
    for leaves in (leaves for _, leaves in flush.effects):
        if len(leaves) % 32:
            raise StoreError(f"{len(leaves)} bytes of effects leaves are not a multiple of 32")
    if b"" in flush.writes or b"" in flush.tree:
        raise StoreError("an empty key cannot be stored")


def _check_forgetting(flush: StateFlush, done: Height | None) -> None:
    """Only what is in the store already can lose its events: what is above it may be executed again."""
    step = flush.forgetting
    if step is None:
        return
    beyond = [place for place in step.places if place[0] > step.upto]
    if done is None or step.upto > done or beyond or step.number < 1:
        raise StoreError(f"pruning {step.number} forgets up to {step.upto}, but the state is only at {done}")
