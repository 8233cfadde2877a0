"""What validators say to each other about a block or a view, and the exact bytes they sign.

Every statement covers purpose ‖ chain ‖ epoch ‖ canonical bytes. Certificates that travel beside a VIEW-CHANGE and
headers that travel beside a NEW-VIEW prove themselves and are not part of what is signed.
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from p2pledger.chain.block import Header
from p2pledger.chain.statement import (
    BlockStatement,
    Claim,
    NewViewStatement,
    Statement,
    ViewChangeStatement,
    contradict,
    signing_bytes,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import BlockHash, ChainId, Epoch, Height, Signature, ValidatorId, View

Kind = Literal["prepare", "commit"]
"""What a certificate certifies."""


class Vote(Record, frozen=True):
    """One signature inside a certificate: the voter's seat number and its signature."""

    seat: Annotated[int, Meta(ge=0, lt=limits.VALIDATORS_MAX)]
    signature: Signature


class Certificate(Record, frozen=True):
    """A quorum of validators' signatures on the same (epoch, view, height, block hash, kind)."""

    kind: Kind
    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash
    votes: Annotated[tuple[Vote, ...], Meta(max_length=limits.VALIDATORS_MAX)]
    """In strictly ascending order of seats."""

    @property
    def rank(self) -> tuple[int, int]:
        """Locks are ordered by view, then height; never the other way round."""
        return (self.view, self.height)


class PrePrepare(Record, frozen=True, tag=1):
    """The primary proposes a block for its height."""

    epoch: Epoch
    view: View
    header: Header
    author: ValidatorId

    @property
    def height(self) -> Height:
        return self.header.height

    @property
    def block_hash(self) -> BlockHash:
        return self.header.hash


class Prepare(Record, frozen=True, tag=2):
    """A validator says: I accept this block in this view."""

    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash
    author: ValidatorId


class Commit(Record, frozen=True, tag=3):
    """A validator says: a quorum accepted this block in this view, and I hold it."""

    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash
    author: ValidatorId


class ViewChange(Record, frozen=True, tag=4):
    """A validator leaves for a later view and says what it is locked on."""

    epoch: Epoch
    view: View
    claim: Claim | None
    """None: nothing was ever prepared in this epoch."""
    author: ValidatorId
    lock: Certificate | None
    """The certificate of the claim. Beside the statement, not signed."""
    committed: Certificate | None
    """The highest commit certificate of the sender. Beside the statement, not signed."""


class SignedClaim(Record, frozen=True):
    """The signed part of a VIEW-CHANGE, as a NEW-VIEW quotes it."""

    author: ValidatorId
    claim: Claim | None
    signature: Signature


class NewView(Record, frozen=True, tag=5):
    """The primary of a later view shows a quorum that wants it, and the tip that it must build on."""

    epoch: Epoch
    view: View
    claims: Annotated[tuple[SignedClaim, ...], Meta(max_length=limits.VALIDATORS_MAX)]
    certificate: Certificate | None
    """Of the highest claim; None when all claim nothing."""
    headers: Annotated[tuple[Header, ...], Meta(max_length=limits.WINDOW_MAX)]
    """From the primary's committed height up to the tip; beside the statement, not signed."""
    author: ValidatorId

    @property
    def tip(self) -> Claim | None:
        """The highest claim by (view, height), P12."""
        claims = [signed.claim for signed in self.claims if signed.claim is not None]
        return max(claims, key=lambda claim: claim.rank, default=None)


Ballot: TypeAlias = Prepare | Commit
Message: TypeAlias = PrePrepare | Prepare | Commit | ViewChange | NewView


class Signed(Record, frozen=True):
    """A message with its author's signature: what travels, and what evidence is made of."""

    message: Message
    signature: Signature


def statement_of(message: Message) -> Statement:
    """What the author of `message` says by it; nothing of what travels beside it."""
    match message:
        case Prepare():
            return BlockStatement("prepare", message.epoch, message.view, message.height, message.block_hash)
        case Commit():
            return BlockStatement("commit", message.epoch, message.view, message.height, message.block_hash)
        case PrePrepare():
            return BlockStatement("pre-prepare", message.epoch, message.view, message.height, message.block_hash)
        case ViewChange():
            return ViewChangeStatement(message.epoch, message.view, message.claim)
        case NewView():
            return NewViewStatement(message.epoch, message.view, sha256(encode(message.claims)))


def statement(chain: ChainId, message: Message) -> bytes:
    """The bytes that the author of `message` signs."""
    return signing_bytes(statement_of(message), chain, message.author)


def view_change_statement(chain: ChainId, epoch: Epoch, view: View, claim: Claim | None, author: ValidatorId) -> bytes:
    """The bytes behind a quoted claim."""
    return statement(chain, ViewChange(epoch, view, claim, author, None, None))


def ballot_statement(chain: ChainId, certificate: Certificate, author: ValidatorId) -> bytes:
    """The bytes that one voter of a certificate signed."""
    kind = Prepare if certificate.kind == "prepare" else Commit
    return statement(
        chain,
        kind(certificate.epoch, certificate.view, certificate.height, certificate.block_hash, author),
    )


def slot(message: Message) -> tuple[int, int, int, int]:
    """(kind, epoch, view, height): an honest author signs at most one message for each."""
    match message:
        case Prepare():
            return (2, message.epoch, message.view, message.height)
        case Commit():
            return (3, message.epoch, message.view, message.height)
        case PrePrepare():
            return (1, message.epoch, message.view, message.height)
        case ViewChange():
            return (4, message.epoch, message.view, 0)
        case NewView():
            return (5, message.epoch, message.view, 0)


def same_statement(first: Message, second: Message) -> bool:
    """Whether two messages of one author and slot say the same; what travels beside them does not count."""
    if first is second:
        return True
    return first.author == second.author and statement_of(first) == statement_of(second)


def contradicts(first: Message, second: Message) -> bool:
    """Whether one author says two things at one place (P14); a statement said again says nothing new."""
    return first.author == second.author and contradict(statement_of(first), statement_of(second))
