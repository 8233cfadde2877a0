"""What a replica asks for, to be performed in order: durable before spoken."""

from typing import Literal, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.journal import CommittedRecord, JournalRecord
from p2pledger.consensus.messages import Certificate, Message, Signed
from p2pledger.primitives.codec import Value
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


class Persist(Value, frozen=True):
    """Make durable before performing any later effect."""

    record: JournalRecord


class Broadcast(Value, frozen=True):
    """Sign, send to all validators, and hand the signed message back as Received."""

    message: Message


class SendSigned(Value, frozen=True):
    """Send something already signed to one validator, or to all (None)."""

    to: ValidatorId | None
    signed: Signed


class SendCertificate(Value, frozen=True):
    """Send a commit certificate to one validator."""

    to: ValidatorId
    certificate: Certificate


class SendStatus(Value, frozen=True):
    """Tell all validators where this replica stands (P16)."""

    epoch: Epoch
    view: View
    is_active: bool
    committed: Height


class SendInquiry(Value, frozen=True):
    """Ask all validators what they hold that this replica signed (P20)."""


class SetTimer(Value, frozen=True):
    """Fire TimerFired(timer, generation) after `delay_ms`; an earlier one of that timer is void."""

    timer: Literal["progress", "retransmit"]
    generation: int
    delay_ms: int


class StopTimer(Value, frozen=True):
    """No timer of this name is wanted now."""

    timer: Literal["progress", "retransmit"]


class BuildProposal(Value, frozen=True):
    """Answer with ProposalBuilt as soon as there is something to propose on top of `parent`."""

    epoch: Epoch
    view: View
    parent: Header


class CheckProposal(Value, frozen=True):
    """Answer with ProposalChecked once the block is found good (P3); stay silent if it is bad."""

    epoch: Epoch
    view: View
    header: Header
    parent: Header


class FetchHeader(Value, frozen=True):
    """Answer with HeaderLearned: a certificate names this block and nobody here knows it."""

    height: Height
    block_hash: BlockHash


class FetchBodies(Value, frozen=True):
    """Answer with BlockHeld once all bodies of this header are at hand."""

    header: Header


class CommitBlock(Value, frozen=True):
    """Apply: append durably and execute. Heights come gapless and in order."""

    record: CommittedRecord


class SyncBlocks(Value, frozen=True):
    """The chain is further on than the window (P21): fetch blocks up to this certificate, answer with CaughtUp."""

    certificate: Certificate


class ViewEntered(Value, frozen=True):
    """For logs and metrics."""

    view: View


class ViewLeft(Value, frozen=True):
    """For logs and metrics; also the moment to push pending batches again (P9)."""

    view: View
    target: View


class ReportEquivocation(Value, frozen=True):
    """Two different signed messages of one author for one slot (P14)."""

    first: Signed
    second: Signed


class ReportRollback(Value, frozen=True):
    """Somebody holds a statement of ours that our journal does not know: nothing is signed for now (P20)."""

    forgotten: Message


class Halt(Value, frozen=True):
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
