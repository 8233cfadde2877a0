"""What can happen to a node's engine, and what it asks its driver to do."""

from collections.abc import Sequence
from typing import TypeAlias

from p2pledger.chain.batch import Batch
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction
from p2pledger.consensus.events import Verified
from p2pledger.consensus.messages import Message, Signed
from p2pledger.engine.ports import LedgerWrite, StateFlush
from p2pledger.execution.contract import Duty
from p2pledger.gossip import Transmission
from p2pledger.primitives.codec import Value
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import BatchId, Height, NodeId


class Now(Value, frozen=True):
    """The moment of an event: a monotonic clock for patience, the wall clock for block time. Milliseconds."""

    monotonic_ms: int
    wall_ms: int


# Events


class LinkUp(Value, frozen=True):
    """A direct, authenticated link to a member stands."""

    node: NodeId


class LinkDown(Value, frozen=True):
    node: NodeId


class FromPeer(Value, frozen=True):
    """One message's bytes over a direct link."""

    node: NodeId
    body: bytes


class MessageVerified(Value, frozen=True):
    """The answer to VerifyMessage; bad ones are answered with MessageBad."""

    node: NodeId
    verified: Verified


class MessageBad(Value, frozen=True):
    """A message or batch whose signatures do not hold."""

    node: NodeId
    reason: str
    batch: BatchId | None = None
    is_forged: bool = True
    """False: nobody looked, the queue was full."""
    junk_of: NodeId | None = None
    """The origin that has signed this batch all the same."""


class BatchVerified(Value, frozen=True):
    """The answer to VerifyBatch; bad ones are answered with MessageBad."""

    node: NodeId
    id: BatchId
    batch: Batch
    transactions: list[Transaction]
    data: bytes


class OwnSigned(Value, frozen=True):
    """The answer to SignMessage."""

    signed: Signed


class Submitted(Value, frozen=True):
    """Clients' transactions, well formed, their signatures checked: all since the last turn, whoever sent them."""

    ticket: int
    transactions: Sequence[Transaction]


class DutiesOwed(Value, frozen=True):
    """This validator owes the chain these operations: to be sent with the node's own key, as one transaction."""

    operations: Sequence[Duty]


class Woke(Value, frozen=True):
    """A deadline that the engine asked for may have passed."""


class Flushed(Value, frozen=True):
    """The answer to Flush."""

    height: Height


EngineEvent: TypeAlias = (
    LinkUp
    | LinkDown
    | FromPeer
    | MessageVerified
    | MessageBad
    | BatchVerified
    | OwnSigned
    | Submitted
    | DutiesOwed
    | Woke
    | Flushed
)

# Effects, to be performed in order; all Writes of one turn are made durable together before anything else of it


class Write(Value, frozen=True):
    """Make durable before performing any effect that is not a Write."""

    write: LedgerWrite


class SignMessage(Value, frozen=True):
    """Sign with the consensus key and answer with OwnSigned; only after the Writes before it are durable."""

    message: Message


class VerifyMessage(Value, frozen=True):
    """Check the signatures of an agreement message."""

    node: NodeId
    signed: Signed


class VerifyBatch(Value, frozen=True):
    """Check every signature of a batch."""

    node: NodeId
    data: bytes


class Transmit(Value, frozen=True):
    transmission: Transmission


class Disconnect(Value, frozen=True):
    """A peer broke the protocol."""

    node: NodeId
    reason: str


class Answer(Value, frozen=True):
    """What became of a submission: each of its transactions was taken in (None) or turned away."""

    ticket: int
    refusals: Sequence[Rejected | None]


class BlockExecuted(Value, frozen=True):
    """Receipts of a durable block, for those who wait for them."""

    height: Height
    receipts: Sequence[Executed]
    keys: Sequence[tuple[int, int]]
    """(account number, nonce) of each receipt."""
    root: bytes
    """Of the effects tree."""
    alarms: Sequence[str]


class Flush(Value, frozen=True):
    """Write to the state store in the background and answer with Flushed."""

    flush: StateFlush


class Note(Value, frozen=True):
    """For logs and metrics: a past-tense name and values that are never personal."""

    name: str
    values: tuple[tuple[str, str | int], ...] = ()


class Stop(Value, frozen=True):
    """Go down loudly; `is_divergence` is P22."""

    reason: str
    is_divergence: bool


EngineEffect: TypeAlias = (
    Write
    | SignMessage
    | VerifyMessage
    | VerifyBatch
    | Transmit
    | Disconnect
    | Answer
    | BlockExecuted
    | Flush
    | Note
    | Stop
)
