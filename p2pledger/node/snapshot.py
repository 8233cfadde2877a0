"""A snapshot: what a member's stores hold up to a checkpoint, in one file that proves itself.

For nodes that cannot execute the chain themselves because blocks below were pruned, or whose state store is lost.
Nothing in the file is believed: headers link from the genesis to a commit certificate, batches or what is left of them
belong to their blocks, receipts are the leaves of the effects roots in headers, and the state has the root that a
header lists for the checkpoint. The one thing that is not proven is which receipt a used nonce is looked up by; it is
checked for form.

While it is checked and installed the state and all receipts are in memory.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import BinaryIO, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.chain.pruned import AnyBatch, PrunedBatch, check_batches, prunable
from p2pledger.chain.receipt import Executed, effects_leaves
from p2pledger.chain.transaction import Body
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.journal import CommittedRecord, HaltRecord, ViewRecord
from p2pledger.engine.ports import AppendBlock, LedgerStore, LedgerWrite, LiftHalt, PutBody, PutPruned, StateFlush
from p2pledger.execution import keys
from p2pledger.node.home import Home
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Shape, decode, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import ConfigError, InvalidInput, ProofError, StoreError, Unavailable
from p2pledger.primitives.ids import U64, AccountKey, ChainId, Height
from p2pledger.primitives.merkle import root_of_hashes
from p2pledger.state import tree
from p2pledger.storage.environment import sync
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.sign_floor import SignFloor
from p2pledger.storage.state_store import LmdbStateSnapshot, LmdbStateStore

FORMAT = 3
PART_BYTES_MAX = 32 * 1024 * 1024
"""A block with its bodies, or a height's receipts, is smaller by far."""
ROWS_EACH = 1_000
_LENGTH = Struct(">I")


class Head(Record, frozen=True, tag=1):
    """What the file is."""

    format: int
    chain: ChainId
    checkpoint: Height
    """The state is of this height."""
    tip: Height
    """The last block in the file; it has a commit certificate."""


class Block(Record, frozen=True, tag=2):
    """A block with each batch whole, or what is left of it."""

    record: CommittedRecord
    whole: tuple[bytes | None, ...]
    pruned: tuple[PrunedBatch | None, ...]


class Outcome(Record, frozen=True, tag=3):
    """What a height came to."""

    height: Height
    receipts: tuple[Executed, ...]
    receipt_keys: tuple[tuple[U64, U64], ...]
    leaves: bytes


class Rows(Record, frozen=True, tag=4):
    """Keys and values of the state."""

    rows: tuple[tuple[bytes, bytes], ...]


Part: TypeAlias = Head | Block | Outcome | Rows
_PART: Shape[Part] = Shape(Part)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds."""

    chain: ChainId
    checkpoint: Height
    tip: Height
    keys: int


# Saving


def save(home: Home, target: BinaryIO) -> Saved:
    """Write a stopped node's stores. Raises Unavailable where its last checkpoint is in no certified header yet."""
    founding = home.founding
    with exclusive_lock(home.layout.lock):
        map_size = home.config.node.map_gib << 30
        ledger = LmdbLedgerStore(home.ledger, founding.chain, home.node, founding.header.hash, map_size, False)
        try:
            state = LmdbStateStore(home.state, founding.chain, map_size)
            try:
                with state.snapshot() as snapshot:
                    return _save(founding, ledger, snapshot, target)
            finally:
                state.close()
        finally:
            ledger.close()


def _save(founding: Founding, ledger: LmdbLedgerStore, snapshot: LmdbStateSnapshot, target: BinaryIO) -> Saved:
    tip = next((h for h in range(ledger.tip(), 0, -1) if _record(ledger, h).certificate is not None), 0)
    checkpoint = snapshot.height
    sealed = {root.height for h in range(checkpoint + 1, tip + 1) for root in _record(ledger, h).header.state_roots}
    if checkpoint not in sealed:
        raise Unavailable(
            f"no certified header lists the state root of checkpoint {checkpoint} yet: let the node go on"
        )
    _write(target, Head(FORMAT, founding.chain, checkpoint, Height(tip)))
    for height in range(1, tip + 1):
        record = _record(ledger, height)
        whole = tuple(ledger.body(key) for key in record.header.batches)
        pruned = tuple(ledger.pruned(key) for key in record.header.batches)
        _write(target, Block(record, whole, pruned))
        if height <= checkpoint:
            _write(target, _outcome(Height(height), whole, pruned, snapshot))
    rows: list[tuple[bytes, bytes]] = []
    count = 0
    for row in snapshot.scan(b""):
        rows.append(row)
        count += 1
        if len(rows) == ROWS_EACH:
            _write(target, Rows(tuple(rows)))
            rows = []
    _write(target, Rows(tuple(rows)))
    return Saved(founding.chain, checkpoint, Height(tip), count)


def _outcome(
    height: Height, whole: tuple[bytes | None, ...], pruned: tuple[PrunedBatch | None, ...], snapshot: LmdbStateSnapshot
) -> Outcome:
    senders: dict[bytes, Body] = {}
    for data, left in zip(whole, pruned, strict=True):
        batch = left if data is None else prunable(data)
        assert batch is not None, "a committed block has all its batches, whole or pruned"
        senders |= {one.id: decode(Body, one.body, limits.TRANSACTION_BYTES_MAX) for one in batch.transactions}
    receipts = tuple(snapshot.receipts_at(height))
    indexed = tuple(_receipt_key(executed, senders[executed.receipt.transaction], snapshot) for executed in receipts)
    return Outcome(height, receipts, indexed, b"".join(snapshot.effects_leaves(height)))


def _receipt_key(executed: Executed, body: Body, snapshot: LmdbStateSnapshot) -> tuple[int, int]:
    number = keys.account_number(body.sender, snapshot)
    if number is None or snapshot.receipt(number, body.nonce) != executed:
        return (0, 0)
    return (number, body.nonce)


def _record(ledger: LedgerStore, height: int) -> CommittedRecord:
    record = ledger.block(Height(height))
    if record is None:
        raise StoreError(f"ledger has no block {height} below its tip {ledger.tip()}")
    return record


def _write(target: BinaryIO, part: Part) -> None:
    data = encode(part)
    target.write(_LENGTH.pack(len(data)) + data)


# Checking


@dataclass(slots=True)
class Checked:
    """A file that holds: everything that is to be written, but for the blocks, of which only the hashes are here."""

    saved: Saved
    hashes: list[bytes]
    """Of the headers, by height."""
    parts: list[bytes]
    """SHA-256 of every part, in order: the second reading must find the same."""
    flush: StateFlush


def parts(source: BinaryIO) -> Iterator[tuple[bytes, Part]]:
    """(bytes, value) of the parts of a file; raises ProofError where it is none, or is cut short."""
    while head := source.read(_LENGTH.size):
        size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else PART_BYTES_MAX + 1
        if size > PART_BYTES_MAX:
            raise ProofError(f"no snapshot: a part of {size} bytes, the limit is {PART_BYTES_MAX}")
        data = source.read(size)
        if len(data) != size:
            raise ProofError(f"the snapshot was cut short: {len(data)} bytes of a part of {size}")
        try:
            yield data, decode(_PART, data, PART_BYTES_MAX)
        except InvalidInput as error:
            raise ProofError(f"no snapshot: {error}") from error


def check(founding: Founding, source: BinaryIO) -> Checked:
    """Everything that a snapshot of this chain claims; raises ProofError naming what does not hold."""
    reading = _Reading(founding)
    for data, part in parts(source):
        reading.digests.append(sha256(data))
        try:
            reading.take(part)
        except InvalidInput as error:
            raise ProofError(f"the snapshot does not hold: {error}") from error
    return reading.finish()


@dataclass(slots=True)
class _Reading:
    founding: Founding
    head: Head | None = None
    digests: list[bytes] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    is_certified: bool = False
    effects: dict[int, bytes] = field(default_factory=dict)
    """Roots as headers list them."""
    states: dict[int, bytes] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    bodies: dict[bytes, Body] = field(default_factory=dict)
    """Of the block before, by transaction."""
    decided: set[tuple[AccountKey, int]] = field(default_factory=set)
    senders: list[tuple[AccountKey, int]] = field(default_factory=list)
    """Of each receipt, in order."""
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def take(self, part: Part) -> None:
        if (self.head is None) != isinstance(part, Head):
            raise ProofError("a snapshot begins with its head, and has one")
        match part:
            case Head():
                if part.format != FORMAT or part.chain != self.founding.chain:
                    raise ProofError(f"a snapshot of format {part.format} and chain {part.chain.hex()}")
                self.head = part
                self.headers.append(self.founding.header)
            case Block():
                self._block(part)
            case Outcome():
                self._outcome(part)
            case Rows():
                self.rows.update(part.rows)

    def _block(self, block: Block) -> None:
        header, parent = block.record.header, self.headers[-1]
        if header.height != parent.height + 1 or header.parent != parent.hash:
            raise ProofError(f"block {header.height} does not follow block {parent.height}")
        certificate = block.record.certificate
        if certificate is not None:
            if (certificate.kind, certificate.height, certificate.block_hash) != ("commit", header.height, header.hash):
                raise ProofError(f"the certificate of block {header.height} is of another one")
            check_certificate(certificate, self.founding.chain, self.founding.validators)
        self.is_certified = certificate is not None
        kept: list[AnyBatch] = []
        for whole, pruned in zip(block.whole, block.pruned, strict=False):
            if (whole is None) == (pruned is None):
                raise ProofError(f"a batch of block {header.height} is there twice, or not at all")
            kept.append(whole if pruned is None else pruned)  # type: ignore[arg-type]
        found = check_batches(self.founding.chain, header, kept)
        self.bodies = {one.id: decode(Body, one.body, limits.TRANSACTION_BYTES_MAX) for one in found}
        first = parent.executed_height + 1
        self.effects |= {first + place: root for place, root in enumerate(header.effects_roots)}
        self.states |= {listed.height: listed.root for listed in header.state_roots}
        self.headers.append(header)

    def _outcome(self, outcome: Outcome) -> None:
        height = outcome.height
        if height != self.headers[-1].height or height != len(self.outcomes) + 1 or len(outcome.leaves) % 32:
            raise ProofError(f"what height {height} came to stands in the wrong place")
        leaves = [outcome.leaves[i : i + 32] for i in range(0, len(outcome.leaves), 32)]
        receipts = [executed.receipt for executed in outcome.receipts]
        if effects_leaves(receipts, {}) != leaves[: len(receipts)] or len(receipts) != len(outcome.receipt_keys):
            raise ProofError(f"the receipts of height {height} are not the leaves of its effects")
        for place, executed in enumerate(outcome.receipts):
            receipt = executed.receipt
            if (receipt.height, receipt.index) != (height, place) or not executed.is_whole:
                raise ProofError(f"receipt {place} of height {height} has another place or other events")
            body = self.bodies.get(receipt.transaction)
            if body is None:
                raise ProofError(f"receipt {place} of height {height} is of no transaction of its block")
            self.senders.append((body.sender, body.nonce))
        self.decided.update(self.senders[len(self.senders) - len(receipts) :])
        missing = [key.hex() for key, body in self.bodies.items() if (body.sender, body.nonce) not in self.decided]
        if missing:
            raise ProofError(f"block {height} lacks the receipt of transaction {missing[0]}")
        self.outcomes.append(outcome)

    def finish(self) -> Checked:
        head, tip = self.head, self.headers[-1].height if self.headers else Height(0)
        if head is None or head.tip != tip or not self.is_certified or len(self.outcomes) != head.checkpoint:
            raise ProofError("the snapshot is not whole: its last block must be certified, its checkpoint below it")
        for outcome in self.outcomes:
            leaves = [outcome.leaves[i : i + 32] for i in range(0, len(outcome.leaves), 32)]
            if self.effects.get(outcome.height) != root_of_hashes(leaves):
                raise ProofError(f"no header lists these effects of height {outcome.height}")
        root, records = tree.update(lambda key: None, dict(self.rows))
        if self.states.get(head.checkpoint) != root:
            raise ProofError(f"the state has root {root.hex()}, which no header lists for checkpoint {head.checkpoint}")
        records |= {_root_key(height): listed for height, listed in self.states.items() if height <= head.checkpoint}
        saved = Saved(head.chain, head.checkpoint, tip, len(self.rows))
        return Checked(saved, [header.hash for header in self.headers], self.digests, self._flush(head, records))

    def _flush(self, head: Head, records: Mapping[bytes, bytes | None]) -> StateFlush:
        receipts = [executed for outcome in self.outcomes for executed in outcome.receipts]
        named = [key for outcome in self.outcomes for key in outcome.receipt_keys]
        for (account, nonce), (sender, used) in zip(named, self.senders, strict=True):
            number = self.rows.get(keys.account(sender))
            if (account, nonce) != (0, 0) and (number != encode(account) or nonce != used):
                raise ProofError(f"a receipt is indexed as nonce {nonce} of account {account}, which it is not")
        effects = [(outcome.height, outcome.leaves) for outcome in self.outcomes]
        return StateFlush(head.checkpoint, dict(self.rows), receipts, named, records, effects)


def _root_key(height: int) -> bytes:
    return b"r" + height.to_bytes(8, "big")


# Installing


def install(home: Home, source: BinaryIO) -> Saved:
    """Take a snapshot into the home of a stopped node, whose own blocks, votes and sign floor stay.

    Blocks that it lacks are appended, its state store is replaced; a halt over a header of the file is lifted. What the
    members have pruned and this node still holds goes as soon as it runs. Raises ProofError for a file that does not
    hold, with nothing changed, ConfigError for a node that runs or has signed with another journal, StoreError for a
    ledger of other blocks.
    """
    founding, layout = home.founding, home.layout
    home.data.mkdir(mode=0o700, exist_ok=True)
    with exclusive_lock(layout.lock):
        checked = check(founding, source)
        floor = SignFloor(layout.sign_floor)
        is_new = not home.ledger.exists()
        if is_new and floor.exists:
            raise ConfigError(
                f"this key has signed before and its journal {home.ledger} is gone: start once with "
                "--accept-resign-risk, stop the node, and install then"
            )
        map_size = home.config.node.map_gib << 30
        ledger = LmdbLedgerStore(home.ledger, founding.chain, home.node, founding.header.hash, map_size)
        try:
            if is_new:
                floor.adopt(ledger.identity, ledger.tip())
            else:
                standing = next((record for record in ledger.journal() if isinstance(record, ViewRecord)), None)
                floor.check(ledger.identity, ledger.tip(), standing)
            source.seek(0)
            _append(ledger, checked, source)
            _replace_state(home, checked.flush)
            _lift(ledger, checked)
        finally:
            ledger.close()
    return checked.saved


def _append(ledger: LmdbLedgerStore, checked: Checked, source: BinaryIO) -> None:
    common = min(ledger.tip(), checked.saved.tip)
    if ledger.committed_hash(common) != checked.hashes[common]:
        raise StoreError(f"block {common} of this node's ledger is not that of the snapshot: the chain has forked")
    for digest, (data, part) in zip(checked.parts, parts(source), strict=False):
        if sha256(data) != digest:
            raise ProofError("the snapshot has changed while it was read")
        if isinstance(part, Block) and part.record.header.height > ledger.tip():
            ledger.apply(_writes(part))


def _writes(block: Block) -> list[LedgerWrite]:
    writes: list[LedgerWrite] = []
    for key, whole, left in zip(block.record.header.batches, block.whole, block.pruned, strict=True):
        if whole is not None:
            writes.append(PutBody(key, whole))
        elif left is not None:
            writes.append(PutPruned(key, left))
    return [*writes, AppendBlock(block.record)]


def _replace_state(home: Home, flush: StateFlush) -> None:
    fresh, old = home.state.with_name("state.install"), home.state.with_name("state.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    store = LmdbStateStore(fresh, home.founding.chain, home.config.node.map_gib << 30)
    try:
        store.flush(flush)
    finally:
        store.close()
    if home.state.exists():
        home.state.rename(old)
    fresh.rename(home.state)
    sync(home.data)
    shutil.rmtree(old, ignore_errors=True)


def _lift(ledger: LmdbLedgerStore, checked: Checked) -> None:
    """Only a halt over a header that the certified chain has: then it was our own execution that was wrong."""
    for record in ledger.journal():
        if isinstance(record, HaltRecord) and record.disputed is not None:
            height = record.disputed.height
            if height < len(checked.hashes) and checked.hashes[height] == record.disputed.hash:
                ledger.apply([LiftHalt()])


def saved_to(home: Home, path: Path) -> Saved:
    """Write a new file; raises InvalidInput where there is one, and leaves none behind when it fails."""
    try:
        with path.open("xb") as target:
            return save(home, target)
    except FileExistsError as error:
        raise InvalidInput(f"{path} exists") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
