"""A small chain to put into stores: headers linked by hash, bodies that have their ids, votes and certificates.

Stores do not verify signatures, so none are made here.
"""

from collections.abc import Sequence

from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Header
from p2pledger.chain.receipt import Executed, executed
from p2pledger.chain.statement import Claim
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, ViewRecord, VoteRecord
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
)
from p2pledger.engine.ports import AppendBlock, LedgerStore, LedgerWrite, PutBody, PutJournal
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import (
    BatchId,
    BlockHash,
    ChainId,
    Epoch,
    Height,
    Millis,
    NodeId,
    Signature,
    TransactionId,
    ValidatorId,
    View,
)

CHAIN = ChainId(b"c" * 32)
NODE = NodeId(b"n" * 32)
ME = ValidatorId(b"v" * 32)
E0 = Epoch(0)


def header(height: int, parent: bytes, bodies: Sequence[bytes] = (), time_ms: int = 0) -> Header:
    """A header over these bodies; another `time_ms` makes another block."""
    return Header(
        version=1,
        chain=CHAIN,
        epoch=E0,
        height=Height(height),
        parent=BlockHash(parent),
        time_ms=Millis(time_ms),
        validators_hash=bytes(32),
        next_validators_hash=None,
        parameters_hash=bytes(32),
        batches=tuple(batch_id(body) for body in bodies),
        transaction_root=bytes(32),
        unsettled=0,
        executed_height=Height(0),
        effects_roots=(),
        state_roots=(),
    )


GENESIS = header(0, bytes(32)).hash


def chain_of(length: int, bodies_each: int = 1) -> list[tuple[Header, list[bytes]]]:
    """Consecutive blocks from height 1."""
    blocks = []
    parent = GENESIS
    for height in range(1, length + 1):
        bodies = [b"body %d of %d" % (i, height) for i in range(bodies_each)]
        blocks.append((header(height, parent, bodies), bodies))
        parent = blocks[-1][0].hash
    return blocks


def certificate(of: Header, view: int = 0) -> Certificate:
    """A commit certificate in form; its votes are of no interest to a store."""
    return Certificate("commit", of.epoch, View(view), of.height, of.hash, ())


def append(of: Header, is_certified: bool = True) -> AppendBlock:
    return AppendBlock(CommittedRecord(of, certificate(of) if is_certified else None))


def body(data: bytes) -> PutBody:
    return PutBody(batch_id(data), data)


def commit_of(of: Header, bodies: Sequence[bytes]) -> list[LedgerWrite]:
    """Bodies and block in one turn, as a node writes that follows or catches up."""
    return [*(body(data) for data in bodies), append(of)]


def fill(store: LedgerStore, length: int) -> list[Header]:
    """Commit a chain of this length."""
    blocks = chain_of(length)
    for block, bodies in blocks:
        store.apply(commit_of(block, bodies))
    return [block for block, _ in blocks]


def vote(message: Message) -> PutJournal:
    return PutJournal(VoteRecord(message))


def prepare(height: int, block_hash: bytes, view: int = 0) -> Prepare:
    return Prepare(E0, View(view), Height(height), BlockHash(block_hash), ME)


def commit(height: int, block_hash: bytes, view: int = 0) -> Commit:
    return Commit(E0, View(view), Height(height), BlockHash(block_hash), ME)


def pre_prepare(of: Header, view: int = 0) -> PrePrepare:
    return PrePrepare(E0, View(view), of, ME)


def view_change(view: int, claim: Claim | None = None, lock: Certificate | None = None) -> ViewChange:
    return ViewChange(E0, View(view), claim, ME, lock, None)


def new_view(view: int) -> NewView:
    return NewView(E0, View(view), (), None, (), ME)


def standing(view: int, is_active: bool = True, epoch: int = 0) -> PutJournal:
    entered = Signed(new_view(view), Signature(bytes(64))) if is_active and view else None
    return PutJournal(ViewRecord(Epoch(epoch), View(view), is_active, Height(0), GENESIS, entered))


def proposed(of: Header) -> PutJournal:
    return PutJournal(BlockRecord(of))


def ids(bodies: Sequence[bytes]) -> list[BatchId]:
    return [batch_id(data) for data in bodies]


def outcome(height: int, index: int, events: Sequence[bytes] = ()) -> Executed:
    transaction = TransactionId(height.to_bytes(16, "big") + index.to_bytes(16, "big"))
    return executed(Height(height), index, transaction, Code.OK, events)
