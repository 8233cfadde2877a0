"""What nodes say to each other, apart from the statements inside: one tagged union, each kind with its bound."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.chain.block import Header
from p2pledger.consensus.messages import Certificate, Signed
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Shape, decode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import U64, BatchId, BlockHash, Epoch, Height, NodeId, Signature, View

BatchIds = Annotated[tuple[BatchId, ...], Meta(max_length=limits.BLOCK_BATCHES_MAX)]


class Agreement(Record, frozen=True, tag=1):
    """A signed statement of the agreement protocol."""

    signed: Signed


class Certified(Record, frozen=True, tag=2):
    """A commit certificate that moves the other on (P16)."""

    certificate: Certificate


class Status(Record, frozen=True, tag=3):
    """Where the sender stands (P16)."""

    epoch: Epoch
    view: View
    is_active: bool
    committed: Height


class Inquiry(Record, frozen=True, tag=4):
    """What do you hold that I signed? (P20)"""

    serial: U64


class InquiryAnswer(Record, frozen=True, tag=5):
    """The newest messages of each kind by the asker that the answerer holds."""

    serial: U64
    own: Annotated[tuple[Signed, ...], Meta(max_length=8)]


class BatchPush(Record, frozen=True, tag=6):
    """A batch in full, from its origin or on request."""

    data: bytes


class BatchAnnounce(Record, frozen=True, tag=7):
    """Batches that the sender holds and that are not yet ordered."""

    ids: BatchIds


class BatchRequest(Record, frozen=True, tag=8):
    """Please push these."""

    ids: BatchIds


class HeaderRequest(Record, frozen=True, tag=9):
    """Which header has this hash?"""

    height: Height
    block_hash: BlockHash


class HeaderReply(Record, frozen=True, tag=10):
    """The header that was asked for."""

    header: Header


class RangeRequest(Record, frozen=True, tag=11):
    """Committed blocks from this height on, please."""

    start: Height


class SyncBlock(Record, frozen=True):
    """One committed block with its bodies."""

    header: Header
    bodies: tuple[bytes, ...]


class RangeReply(Record, frozen=True, tag=12):
    """Consecutive blocks, committed by a certificate on the last one or on a descendant."""

    blocks: Annotated[tuple[SyncBlock, ...], Meta(min_length=1, max_length=limits.SYNC_RANGE_BLOCKS_MAX)]
    tail: Annotated[tuple[Header, ...], Meta(max_length=limits.WINDOW_MAX)]
    """The headers after the last block up to the one that the certificate names; their bodies are asked for next."""
    certificate: Certificate


class Links(Record, frozen=True, tag=13):
    """The nodes to which the sender has a live link now."""

    nodes: Annotated[tuple[NodeId, ...], Meta(max_length=4 * limits.VALIDATORS_MAX)]


class Relay(Record, frozen=True, tag=14):
    """A message carried on for a node without a direct link, signed by its origin."""

    origin: NodeId
    destination: NodeId | None
    """None: for everybody."""
    serial: U64
    """Strictly growing per origin, also across restarts; what was seen is not carried again."""
    body: bytes
    signature: Signature


PeerMessage: TypeAlias = (
    Agreement
    | Certified
    | Status
    | Inquiry
    | InquiryAnswer
    | BatchPush
    | BatchAnnounce
    | BatchRequest
    | HeaderRequest
    | HeaderReply
    | RangeRequest
    | RangeReply
    | Links
    | Relay
)

_MESSAGE: Shape[PeerMessage] = Shape(PeerMessage)


def parse_message(data: bytes) -> PeerMessage:
    """The message whose canonical bytes are `data`; raises InvalidInput."""
    if not data:
        raise InvalidInput("empty message")
    message: PeerMessage = decode(_MESSAGE, data, limits.FRAME_BYTES_MAX)
    return message
