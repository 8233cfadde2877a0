"""What can happen to a replica. Answers name their question, so that a stale one can be dropped."""

from typing import Literal, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate, Signed
from p2pledger.primitives.codec import Value
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


class Verified(Value, frozen=True):
    """A message whose signature, certificates and author were checked; only `verification` makes these."""

    signed: Signed


class Received(Value, frozen=True):
    """A message of another validator, or the replica's own after it was signed."""

    verified: Verified


class CertificateReceived(Value, frozen=True):
    """A commit certificate that was checked, from any source."""

    certificate: Certificate


class ProposalBuilt(Value, frozen=True):
    """The answer to BuildProposal."""

    epoch: Epoch
    view: View
    header: Header


class ProposalChecked(Value, frozen=True):
    """The answer to CheckProposal: the block is good and its bodies are held. Bad blocks get no answer."""

    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash


class BlockHeld(Value, frozen=True):
    """A header that was asked for, or already known, with all its bodies at hand."""

    header: Header


class HeaderLearned(Value, frozen=True):
    """A header that was asked for by its hash; its bodies may still be missing."""

    header: Header


class CaughtUp(Value, frozen=True):
    """Block sync committed blocks up to here through the apply path; `certificate` certifies the last."""

    header: Header
    certificate: Certificate


class TimerFired(Value, frozen=True):
    """A timer that the replica set. Another generation than the current one is stale."""

    timer: Literal["progress", "retransmit"]
    generation: int


class WorkChanged(Value, frozen=True):
    """Whether transactions, unsealed roots or a due heartbeat wait for a block (P8)."""

    has_work: bool


class PrimaryUnfair(Value, frozen=True):
    """The primary left a batch unordered for four timeouts while heights committed (P24)."""

    view: View


class PeerStatus(Value, frozen=True):
    """Where another validator says it stands (P16)."""

    author: ValidatorId
    epoch: Epoch
    view: View
    is_active: bool
    committed: Height


class InquiryAnswered(Value, frozen=True):
    """What another validator knows of us (P20): the newest messages it holds that we signed, verified."""

    author: ValidatorId
    own: tuple[Verified, ...]


Event: TypeAlias = (
    Received
    | CertificateReceived
    | ProposalBuilt
    | ProposalChecked
    | BlockHeld
    | HeaderLearned
    | CaughtUp
    | TimerFired
    | WorkChanged
    | PrimaryUnfair
    | PeerStatus
    | InquiryAnswered
)
