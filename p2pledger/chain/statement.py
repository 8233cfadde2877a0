"""What a validator signs, without what travels beside it: a statement's place, what it says there, its exact bytes.

The messages of agreement (`consensus/messages.py`) are these with their bodies: a PRE-PREPARE carries its header, a
VIEW-CHANGE its certificates, a NEW-VIEW its claims. A statement is small whatever its message carries, and enough to
check a signature and to see that two signatures contradict each other, so evidence is made of statements (P14).
"""

from typing import Literal, TypeAlias

from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, signed_bytes
from p2pledger.primitives.ids import BlockHash, Bytes32, ChainId, Epoch, Height, ValidatorId, View

BlockKind = Literal["pre-prepare", "prepare", "commit"]
StatementKind = Literal["pre-prepare", "prepare", "commit", "view-change", "new-view"]
Place: TypeAlias = tuple[StatementKind, int, int, int]
"""(kind, epoch, view, height): an honest validator says at most one thing at each. Height 0 where a view has one."""


class Claim(Record, frozen=True):
    """(view, height, hash) of the highest certificate that a replica has held."""

    view: View
    height: Height
    block_hash: BlockHash

    @property
    def rank(self) -> tuple[int, int]:
        return (self.view, self.height)


class BlockStatement(Record, frozen=True, tag=1):
    """What a PRE-PREPARE, a PREPARE or a COMMIT says: this block, in this view."""

    kind: BlockKind
    epoch: Epoch
    view: View
    height: Height
    block_hash: BlockHash


class ViewChangeStatement(Record, frozen=True, tag=2):
    """What a VIEW-CHANGE says: this is what I am locked on."""

    epoch: Epoch
    view: View
    claim: Claim | None


class NewViewStatement(Record, frozen=True, tag=3):
    """What a NEW-VIEW says: these are the claims, by their SHA-256."""

    epoch: Epoch
    view: View
    claims_hash: Bytes32


Statement: TypeAlias = BlockStatement | ViewChangeStatement | NewViewStatement

_DOMAINS: dict[StatementKind, Domain] = {
    "pre-prepare": Domain.PRE_PREPARE,
    "prepare": Domain.PREPARE,
    "commit": Domain.COMMIT,
    "view-change": Domain.VIEW_CHANGE,
    "new-view": Domain.NEW_VIEW,
}


def place_of(statement: Statement) -> Place:
    """Where it stands."""
    match statement:
        case BlockStatement():
            return (statement.kind, statement.epoch, statement.view, statement.height)
        case ViewChangeStatement():
            return ("view-change", statement.epoch, statement.view, 0)
        case NewViewStatement():
            return ("new-view", statement.epoch, statement.view, 0)


def contradict(first: Statement, second: Statement) -> bool:
    """Whether no honest validator signs both: they stand at one place and differ."""
    return place_of(first) == place_of(second) and first != second


def signing_bytes(statement: Statement, chain: ChainId, author: ValidatorId) -> bytes:
    """The bytes that `author` signs to say it: purpose ‖ chain ‖ epoch ‖ canonical content."""
    match statement:
        case BlockStatement():
            kind: StatementKind = statement.kind
            content = encode((statement.view, statement.height, statement.block_hash, author))
        case ViewChangeStatement():
            kind, content = "view-change", encode((statement.view, statement.claim, author))
        case NewViewStatement():
            kind, content = "new-view", encode((statement.view, statement.claims_hash, author))
    return signed_bytes(_DOMAINS[kind], chain, statement.epoch.to_bytes(8, "big") + content)
