"""What validators' nodes say about one-time secrets, and what the chain reports of it: deposit keys and good shares.

The contract is in deposits.py, the secrets themselves in threshold/one_time.py.
"""

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.execution.contract import Duty
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import U64, Bytes16, Bytes32

RecordBits: TypeAlias = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=2**32 - 1)], ...],
    Meta(min_length=1, max_length=(limits.FHIR_ENTRIES_MAX + 31) // 32),
]
"""Records of a batch: record i is bit i % 32 of number i // 32. The last one is not zero, so there is one form only."""


class DepositKey(Duty, frozen=True, tag=46):
    """Announce the X25519 key to which writers seal this validator's shares of one-time secrets."""

    box: Bytes32


class DepositAck(Duty, frozen=True, tag=47):
    """A validator has opened its boxes in the capsules of these records, and the shares are on their polynomials."""

    batch_id: Bytes16
    table: U64
    """For whose holders the capsules were made."""
    records: RecordBits


class DepositTableMade(Record, frozen=True, tag=46):
    """A validator has announced a deposit key, and the next table has it."""

    table: U64
    validator: Bytes32
    holders: U64
    """How many stand in it."""
    threshold: U64


class DepositAcknowledged(Record, frozen=True, tag=47):
    """A validator says that its shares of so many more records of a batch are good."""

    batch_id: Bytes16
    validator: Bytes32
    table: U64
    records: U64


def bits_of(indices: Iterable[int]) -> RecordBits:
    """The records of these indices."""
    words: dict[int, int] = {}
    for index in set(indices):
        words[index // 32] = words.get(index // 32, 0) | 1 << index % 32
    return tuple(words.get(place, 0) for place in range(max(words, default=-1) + 1))


def indices_of(bits: RecordBits) -> tuple[int, ...]:
    """The indices of these records, ascending."""
    return tuple(32 * place + bit for place, word in enumerate(bits) for bit in range(32) if word >> bit & 1)
