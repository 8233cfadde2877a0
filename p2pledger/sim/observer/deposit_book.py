"""Whether shares of one-time secrets left as they may (I-1, I-3), judged from outside.

A writer deals a secret of its own to the validators of a table. Until t of them have said on the chain that their
shares of a record are good, none of them lets any go: a reader could collect shares that open nothing. It keeps its own
account of deposit keys, tables and what was said, checks shares against the capsule's commitments, and tries to open.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from p2pledger.sim.observer import curve
from p2pledger.sim.observer.blocks import Receipt, Transaction
from p2pledger.sim.observer.curve import Label
from p2pledger.sim.observer.encoding import Unreadable, array, listed, pack, unpack
from p2pledger.sim.observer.judgement import InvariantBroken

KEY, SAID = 46, 47
"""Numbers of the operations that matter; the event of a new table has that of the key."""

Place = tuple[int, int]
"""(height, number in the block)."""


class DepositBook:
    """All tables of deposit keys of one run."""

    def __init__(self, seats: Mapping[bytes, bytes], threshold: int) -> None:
        """`seats`: node key to validator."""
        self._seats = dict(seats)
        self._threshold = threshold
        self._announced: list[tuple[Place, bytes]] = []
        """Each place at which a validator has announced a key, the validator."""
        self._tables: dict[int, Place] = {}
        self._said: dict[tuple[bytes, bytes], list[tuple[int, int, tuple[int, ...]]]] = defaultdict(list)
        """By batch and validator: (height, table, records)."""
        self._spoiled: dict[tuple[bytes, int], frozenset[bytes]] = {}

    def take(self, operation: tuple[Any, ...], transaction: Transaction, receipt: Receipt) -> None:
        """One operation that was executed well; heights may come out of order."""
        validator = self._seats.get(transaction.sender)
        match operation:
            case (tag, _) if tag == KEY and validator is not None:
                self._announced.append(((receipt.height, receipt.index), validator))
            case (tag, batch_id, table, words) if tag == SAID and validator is not None:
                indices = tuple(32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1)
                self._said[batch_id, validator].append((receipt.height, table, indices))
            case _:
                pass

    def table_made(self, number: int, receipt: Receipt) -> None:
        """The chain has told of a table."""
        self._tables[number] = (receipt.height, receipt.index)

    def knows_spoiled(self, ref: tuple[bytes, int], victims: frozenset[bytes]) -> None:
        """A writer has dealt to these validators what is no share of this record."""
        self._spoiled[ref] = victims

    def members(self, table: int) -> list[bytes]:
        """The validators that stand in a table, in the order of their shares."""
        made = self._tables.get(table)
        if made is None:
            return []
        return sorted({validator for place, validator in self._announced if place <= made})

    def judge(self, who: str, ref: tuple[bytes, int], table: int, height: int) -> None:
        """A share of a record leaves at this height. Raises InvariantBroken (I-1) before t have found theirs good."""
        good = [
            validator
            for validator in self.members(table)
            if any(
                at <= height and number == table and ref[1] in indices
                for at, number, indices in self._said[ref[0], validator]
            )
        ]
        if len(good) < self._threshold:
            raise InvariantBroken(f"I-1: {who} though {len(good)} validators have seen that their shares are good")

    def concluded(self, liars: frozenset[bytes]) -> None:
        """Raises InvariantBroken (I-1) where somebody honest has vouched for a share that it has not got."""
        for (batch_id, index), victims in self._spoiled.items():
            for validator in victims - liars:
                if any(index in indices for _, _, indices in self._said[batch_id, validator]):
                    raise InvariantBroken(f"I-1: validator {validator.hex()[:8]} vouches for a share that does not fit")

    def index_of(self, validator: bytes, table: int) -> int:
        """Which share of a table is this validator's; raises Unreadable where none is."""
        members = self.members(table)
        if validator not in members:
            raise Unreadable(f"a share of somebody who is not in table {table}")
        return members.index(validator) + 1

    def share_in(self, opened: bytes | None, capsule: bytes, index: int) -> bytes:
        """p(index), which a holder sealed; raises Unreadable unless it is on the capsule's polynomial."""
        _, commitments, _, _ = array(unpack(capsule), 4)
        value, power = bytes(listed(commitments)[0]), 1
        for commitment in listed(commitments)[1:]:
            power *= index
            value = curve.plus(value, curve.times(power, commitment))
        if opened is None or len(opened) != 32 or curve.base_times(int.from_bytes(opened, "little")) != value:
            raise Unreadable(f"no share of holder {index}")
        return opened


def content_of(capsule: bytes, label: Label, shares: Mapping[int, bytes]) -> bytes | None:
    """The content key that these shares open, or None."""
    table, _, _, wrapped = array(unpack(capsule), 4)
    secret = curve.interpolated(shares).to_bytes(32, "little")
    return curve.unwrapped(secret, label, wrapped, pack((label, table)))
