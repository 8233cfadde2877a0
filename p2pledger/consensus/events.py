"""What can happen to a replica. Answers name their question, so that a stale one can be dropped."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate, Signed
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View


@dataclass(frozen=True, slots=True)
class Verified:
    """A message whose signature, certificates and author were checked; only `verification` makes these."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class Received:
    """A message of another validator, or the replica's own after it was signed."""

    verified: Verified


@dataclass(frozen=True, slots=True)
class CertificateReceived:
    """A commit certificate that was checked, from any source."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class ProposalBuilt:
    """The answer to BuildProposal."""

    epoch: Epoch
    view: View
    header: Header


@dataclass(frozen=True, slots=True)
class ProposalChecked:
    """The answer to CheckProposal: the block is good and its bodies are held. Bad blocks get no answer."""

    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class BlockHeld:
    """A header that was asked for, or already known, with all its bodies at hand."""

    header: Header


@dataclass(frozen=True, slots=True)
class HeaderLearned:
    """A header that was asked for by its hash; its bodies may still be missing."""

    header: Header


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Block sync committed blocks up to here through the apply path; `certificate` certifies the last."""

    header: Header
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that the replica set. Another generation than the current one is stale."""

    timer: Literal["progress", "retransmit"]
    generation: int


@dataclass(frozen=True, slots=True)
class WorkChanged:
    """Whether transactions, unsealed roots or a due heartbeat wait for a block (P8)."""

    has_work: bool


@dataclass(frozen=True, slots=True)
class PrimaryUnfair:
    """The primary left a batch unordered for four timeouts while heights committed (P24)."""

    view: View


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Where another validator says it stands (P16)."""

    author: ValidatorId
    epoch: Epoch
    view: View
    is_active: bool
    committed: Height


@dataclass(frozen=True, slots=True)
class InquiryAnswered:
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
