"""Sealed records as validators are asked about them, in portions that fit into a question; and who could open them.

A capsule of a joint key and one of a one-time secret differ in who holds the shares: `holders_of` finds out, by what a
checkpoint proves, and everything after that is the same for both (threshold/key_release.py).
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from p2pledger.client.ledger import LedgerClient
from p2pledger.client.records import SealedRecord
from p2pledger.health import joint_key, keys
from p2pledger.health.commitments import RecordRef
from p2pledger.health.deposits import DepositTable, decode_table
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.release import RecordOpening
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, Unavailable
from p2pledger.primitives.ids import Height
from p2pledger.threshold.key_release import KeyRelease
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, read_capsule

Proven: TypeAlias = Callable[[bytes], Awaitable[tuple[Height, bytes | None]]]
"""Gives the checkpoint and its value of a state key."""
PORTION_BYTES_MAX = limits.CLIENT_FRAME_BYTES_MAX // 2
"""Of openings in one question; the list of the access's whole scope stands beside them."""


def opening_of(sealed: SealedRecord) -> RecordOpening:
    """What is shown to validators of a record."""
    return RecordOpening(sealed.ref.batch_id, sealed.proof, sealed.key_epoch, sealed.capsule)


def secret_of(opening: RecordOpening) -> tuple[int, int]:
    """(key epoch, table of its holders; 0 with a joint key): shares of records of one secret can be asked for together.

    Raises Rejected(E_CAPSULE) for what is no capsule of a one-time secret and says to be one.
    """
    if opening.key_epoch != ONE_TIME_EPOCH:
        return opening.key_epoch, 0
    try:
        return ONE_TIME_EPOCH, read_capsule(opening.capsule).table
    except InvalidInput as error:
        ref = RecordRef(opening.batch_id, opening.proof.leaf.index)
        raise Rejected(Code.E_CAPSULE, f"record {ref}: no one-time capsule, {error}") from error


def portions(openings: Sequence[RecordOpening]) -> Iterator[tuple[int, ...]]:
    """The places of all of them, in portions: each of one secret, and small enough for one question.

    Raises Rejected(E_CAPSULE) as `secret_of` does.
    """
    by_secret: dict[tuple[int, int], list[int]] = {}
    for place, opening in enumerate(openings):
        by_secret.setdefault(secret_of(opening), []).append(place)
    for _, alike in sorted(by_secret.items()):
        portion: list[int] = []
        room = PORTION_BYTES_MAX
        for place in alike:
            size = len(encode(openings[place]))
            if portion and (size > room or len(portion) == limits.RELEASE_RECORDS_MAX):
                yield tuple(portion)
                portion, room = [], PORTION_BYTES_MAX
            portion.append(place)
            room -= size
        yield tuple(portion)


@dataclass(frozen=True, slots=True)
class Holders:
    """Who can open capsules of one secret together."""

    release: KeyRelease
    validators: Sequence[bytes]
    """Number i of them has share i + 1."""
    sharing: tuple[int, int]
    """Key epoch and share epoch; of one-time secrets 0 and the number of their table."""

    def index_of(self, validator: bytes) -> int | None:
        """Which share is this validator's, or None."""
        return self.validators.index(validator) + 1 if validator in self.validators else None


async def holders_of(ledger: LedgerClient, secret: tuple[int, int]) -> Holders:
    """The holders of a secret, of a joint key in the newest sharing that a checkpoint has proven to this client.

    Remembered: who holds a newer one says so with its shares, and then one asks `newest_holders_of`. Raises Unavailable
    where no checkpoint proves any yet, and what `LedgerClient.state` raises.
    """
    return await _holders(ledger, secret, ledger.once_proven)


async def newest_holders_of(ledger: LedgerClient, secret: tuple[int, int]) -> Holders:
    """As the last checkpoint proves them; raises as `holders_of` does."""
    return await _holders(ledger, secret, ledger.state)


async def _holders(ledger: LedgerClient, secret: tuple[int, int], proven: Proven) -> Holders:
    key_epoch, number = secret
    if key_epoch == ONE_TIME_EPOCH:
        table = await deposit_table(ledger, number)
        return Holders(table.release, table.holders, (ONE_TIME_EPOCH, table.number))
    active = await _active_key(key_epoch, proven)
    key = active.key
    return Holders(LongTerm(key), active.holders, (key.key_epoch, key.share_epoch))


async def _active_key(key_epoch: int, proven: Proven) -> ActiveKey:
    height, data = await proven(keys.joint_key(key_epoch))
    if data is None:
        raise Unavailable(
            f"checkpoint {height} has no joint key of epoch {key_epoch} yet; ask again after the next one"
        )
    return joint_key.decode_active_key(data)


async def deposit_table(ledger: LedgerClient, number: int) -> DepositTable:
    """A table of deposit keys that a checkpoint proves. Raises Unavailable where none does."""
    height, data = await ledger.state(keys.deposit_table(number))
    if data is None:
        raise Unavailable(f"checkpoint {height} has no deposit table {number} yet; ask again after the next one")
    return decode_table(data)
