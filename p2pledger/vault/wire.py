"""What a vault service is asked, and what it answers: one question at a time on a connection.

Readers ask for records of an allowed access. Custodians keep copies at each other and ask only about their own.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.health.commitments import RecordRef
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Shape
from p2pledger.primitives.ids import Bytes16, Bytes32

READER_FRAME_BYTES_MAX = limits.CLIENT_FRAME_BYTES_MAX
"""A scope of 10,000 records takes 210 KB."""
MEMBER_FRAME_BYTES_MAX = 24 * 1024 * 1024
"""The largest sealed object, and the largest manifest."""
NAMES_MAX = 4_096
"""Names in one reply or one challenge."""

Name = Annotated[bytes, Meta(min_length=16, max_length=32)]


class FetchRecords(Record, frozen=True, tag=1):
    """Records of an allowed access, for its reader. Reply: RecordsReply; as many of the first ones as fit."""

    access_id: Bytes16
    salt: Bytes32
    """Opens the scope of the access."""
    scope: Annotated[tuple[RecordRef, ...], Meta(max_length=limits.FHIR_ENTRIES_MAX)]
    wanted: Annotated[tuple[RecordRef, ...], Meta(min_length=1, max_length=limits.RELEASE_RECORDS_MAX)]


class PutObject(Record, frozen=True, tag=2):
    """Keep a copy of the asking custodian's object or manifest. Reply: Done, once durable."""

    name: Name
    data: bytes


class GetObject(Record, frozen=True, tag=3):
    """The copy of an object or manifest. Reply: ObjectReply, or Failed(E_NOT_FOUND, E_COMMIT_MISMATCH)."""

    name: Name


class ListNames(Record, frozen=True, tag=4):
    """The names of the copies after one of them, in the order of a store. Reply: NamesReply."""

    after: Annotated[bytes, Meta(max_length=32)]


class Prove(Record, frozen=True, tag=5):
    """Show that these are held, by `possession.answer`. Reply: ProofsReply."""

    nonce: Bytes32
    names: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=NAMES_MAX)]


class DeleteObject(Record, frozen=True, tag=6):
    """Keep no copy any longer. Reply: Done, also where there was none."""

    name: Name


Question: TypeAlias = FetchRecords | PutObject | GetObject | ListNames | Prove | DeleteObject


class Failed(Record, frozen=True, tag=21):
    """Refused: the code, and words that name the value and the rule (never personal data)."""

    code: int
    detail: str


class RecordsReply(Record, frozen=True, tag=22):
    """The canonical bytes of the first wanted records, in their order; ask again for the rest."""

    records: Annotated[tuple[bytes, ...], Meta(min_length=1)]


class Done(Record, frozen=True, tag=23):
    """It is done."""


class ObjectReply(Record, frozen=True, tag=24):
    data: bytes


class NamesReply(Record, frozen=True, tag=25):
    names: tuple[Name, ...]
    """At most NAMES_MAX; fewer: these were the last ones."""


class ProofsReply(Record, frozen=True, tag=26):
    """One for each name; None: not held, or spoiled."""

    proofs: tuple[Bytes32 | None, ...]


Answer: TypeAlias = Failed | RecordsReply | Done | ObjectReply | NamesReply | ProofsReply

QUESTION: Shape[Question] = Shape(Question)
ANSWER: Shape[Answer] = Shape(Answer)
