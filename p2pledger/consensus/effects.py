"""What a replica asks for, to be performed in order: durable before spoken."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.journal import CommittedRecord, JournalRecord
from p2pledger.consensus.messages import Certificate, Message, Signed
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


@dataclass(frozen=True, slots=True)
class Persist:
    """Make durable before performing any later effect."""

    record: JournalRecord


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Sign, send to all validators, and hand the signed message back as Received."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendSigned:
    """Send something already signed to one validator, or to all (None)."""

    to: ValidatorId | None
    signed: Signed


@dataclass(frozen=True, slots=True)
class SendCertificate:
    """Send a commit certificate to one validator."""

    to: ValidatorId
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class SendStatus:
    """Tell all validators where this replica stands (P16)."""

    epoch: Epoch
    view: View
    is_active: bool
    committed: Height


@dataclass(frozen=True, slots=True)
class SendInquiry:
    """Ask all validators what they hold that this replica signed (P20)."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire TimerFired(timer, generation) after `delay_ms`; an earlier one of that timer is void."""

    timer: Literal["progress", "retransmit"]
    generation: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class StopTimer:
    """No timer of this name is wanted now."""

    timer: Literal["progress", "retransmit"]


@dataclass(frozen=True, slots=True)
class BuildProposal:
    """Answer with ProposalBuilt as soon as there is something to propose on top of `parent`."""

    epoch: Epoch
    view: View
    parent: Header


@dataclass(frozen=True, slots=True)
class CheckProposal:
    """Answer with ProposalChecked once the block is found good (P3); stay silent if it is bad."""

    epoch: Epoch
    view: View
    header: Header
    parent: Header


@dataclass(frozen=True, slots=True)
class FetchHeader:
    """Answer with HeaderLearned: a certificate names this block and nobody here knows it."""

    height: Height
    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class FetchBodies:
    """Answer with BlockHeld once all bodies of this header are at hand."""

    header: Header


@dataclass(frozen=True, slots=True)
class CommitBlock:
    """Apply: append durably and execute. Heights come gapless and in order."""

    record: CommittedRecord


@dataclass(frozen=True, slots=True)
class SyncBlocks:
    """The chain is further on than the window (P21): fetch blocks up to this certificate, answer with CaughtUp."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class ViewEntered:
    """For logs and metrics."""

    view: View


@dataclass(frozen=True, slots=True)
class ViewLeft:
    """For logs and metrics; also the moment to push pending batches again (P9)."""

    view: View
    target: View


@dataclass(frozen=True, slots=True)
class ReportEquivocation:
    """Two different signed messages of one author for one slot (P14)."""

    first: Signed
    second: Signed


@dataclass(frozen=True, slots=True)
class ReportRollback:
    """Somebody holds a statement of ours that our journal does not know: nothing is signed for now (P20)."""

    forgotten: Message


@dataclass(frozen=True, slots=True)
class Halt:
    """What must not happen with at most f faults did happen: stop loudly."""

    reason: str


Effect: TypeAlias = (
    Persist
    | Broadcast
    | SendSigned
    | SendCertificate
    | SendStatus
    | SendInquiry
    | SetTimer
    | StopTimer
    | BuildProposal
    | CheckProposal
    | FetchHeader
    | FetchBodies
    | CommitBlock
    | SyncBlocks
    | ViewEntered
    | ViewLeft
    | ReportEquivocation
    | ReportRollback
    | Halt
)
