"""What can happen to a node's engine, and what it asks its driver to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from p2pledger.chain.batch import Batch
from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction
from p2pledger.consensus.events import Verified
from p2pledger.consensus.messages import Message, Signed
from p2pledger.engine.ports import LedgerWrite, StateFlush
from p2pledger.gossip import Transmission
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import BatchId, Height, NodeId, TransactionId


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of an event: a monotonic clock for patience, the wall clock for block time. Milliseconds."""

    monotonic_ms: int
    wall_ms: int


# Events


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A direct, authenticated link to a member stands."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class LinkDown:
    node: NodeId


@dataclass(frozen=True, slots=True)
class FromPeer:
    """One message's bytes over a direct link."""

    node: NodeId
    body: bytes


@dataclass(frozen=True, slots=True)
class MessageVerified:
    """The answer to VerifyMessage; bad ones are answered with MessageBad."""

    node: NodeId
    verified: Verified


@dataclass(frozen=True, slots=True)
class MessageBad:
    """A message or batch whose signatures do not hold."""

    node: NodeId
    reason: str
    batch: BatchId | None = None
    is_forged: bool = True
    """False: nobody looked, the queue was full."""
    junk_of: NodeId | None = None
    """The origin that has signed this batch all the same."""


@dataclass(frozen=True, slots=True)
class BatchVerified:
    """The answer to VerifyBatch; bad ones are answered with MessageBad."""

    node: NodeId
    id: BatchId
    batch: Batch
    transactions: list[Transaction]
    data: bytes


@dataclass(frozen=True, slots=True)
class OwnSigned:
    """The answer to SignMessage."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client's transaction, well formed, its signatures checked."""

    ticket: int
    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Woke:
    """A deadline that the engine asked for may have passed."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """The answer to Flush."""

    height: Height


EngineEvent: TypeAlias = (
    LinkUp | LinkDown | FromPeer | MessageVerified | MessageBad | BatchVerified | OwnSigned | Submitted | Woke | Flushed
)

# Effects, to be performed in order; all Writes of one turn are made durable together before anything else of it


@dataclass(frozen=True, slots=True)
class Write:
    """Make durable before performing any effect that is not a Write."""

    write: LedgerWrite


@dataclass(frozen=True, slots=True)
class SignMessage:
    """Sign with the consensus key and answer with OwnSigned; only after the Writes before it are durable."""

    message: Message


@dataclass(frozen=True, slots=True)
class VerifyMessage:
    """Check the signatures of an agreement message."""

    node: NodeId
    signed: Signed


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """Check every signature of a batch."""

    node: NodeId
    data: bytes


@dataclass(frozen=True, slots=True)
class Transmit:
    transmission: Transmission


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A peer broke the protocol."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a submission: taken in (OK) or turned away."""

    ticket: int
    transaction: TransactionId
    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class BlockExecuted:
    """Receipts of a durable block, for those who wait for them."""

    height: Height
    receipts: Sequence[Executed]
    keys: Sequence[tuple[int, int]]
    """(account number, nonce) of each receipt."""
    root: bytes
    """Of the effects tree."""
    alarms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Flush:
    """Write to the state store in the background and answer with Flushed."""

    flush: StateFlush


@dataclass(frozen=True, slots=True)
class Note:
    """For logs and metrics: a past-tense name and values that are never personal."""

    name: str
    values: tuple[tuple[str, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
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
