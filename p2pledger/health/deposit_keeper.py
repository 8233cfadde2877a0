"""What one validator does about one-time secrets: which deposit keys to make and announce, what to acknowledge when.

Pure: told how things stand, it answers what must be done, in order, as `key_keeper` does for joint keys. Whoever drives
it (node/deposits.py, or a simulator)

1. makes one from the deposit keys that are durable;
2. calls `step` after each executed block and now and then, and performs the effects in their order: a key is durable
   before it is announced, or writers would seal to what a crash has taken away. Words may be lost; they are said again;
3. checks shares with `holder`, and hands what is good to `found_good`.

What is owed to the chain is forgotten in a crash: the writer still waits for it, and deposits again.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pledger.health import deposits
from p2pledger.health.deposit_operations import DepositAck, DepositKey, bits_of, indices_of
from p2pledger.health.deposits import DepositTable
from p2pledger.health.key_keeper import SAY_AGAIN_MS, Send, Tell
from p2pledger.primitives import limits
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Bytes16, ValidatorId
from p2pledger.state.view import StateView
from p2pledger.threshold.group import Random
from p2pledger.threshold.one_time import OneTimeHolder
from p2pledger.threshold.sealing import BoxSecret

TABLES_REMEMBERED_MAX = 16


@dataclass(frozen=True, slots=True, repr=False)
class WriteDepositKey:
    """Durable before anything after it."""

    number: int
    """Of this validator's keys, from 1."""
    secret: bytes

    def __repr__(self) -> str:
        return f"WriteDepositKey({self.number})"


DepositEffect: TypeAlias = WriteDepositKey | Send | Tell


@dataclass(slots=True)
class _Pace:
    """When to say something: at once, and again after a while that grows."""

    due_ms: int = 0
    wait_ms: int = 0

    def is_due(self, now_ms: int) -> bool:
        """Whether to say it now; then it is said."""
        if now_ms < self.due_ms:
            return False
        first_ms, most_ms = SAY_AGAIN_MS
        self.wait_ms = min(2 * self.wait_ms, most_ms) if self.wait_ms else first_ms
        self.due_ms = now_ms + self.wait_ms
        return True


@dataclass(slots=True)
class _Owed:
    """Records of a batch that the chain is to hear of."""

    table: int
    indices: set[int]
    pace: _Pace = field(default_factory=_Pace)


class DepositKeeper:
    """One validator's deposit keys, and what it owes to writers."""

    def __init__(self, validator: ValidatorId, secrets: Mapping[int, bytes], random: Random) -> None:
        """`secrets`: its keys by number; `random` makes new ones."""
        self._validator = validator
        self._boxes = {number: BoxSecret(secret) for number, secret in secrets.items()}
        self._random = random
        self._announcing = _Pace()
        self._owed: dict[Bytes16, _Owed] = {}
        self._holders: dict[int, OneTimeHolder | None] = {}
        self._is_told = False

    def __repr__(self) -> str:
        return f"DepositKeeper({len(self._boxes)} keys)"

    # What it knows

    @property
    def owed(self) -> int:
        """Batches of which the chain has yet to hear something."""
        return len(self._owed)

    def holder(self, table: DepositTable) -> OneTimeHolder | None:
        """This validator as a member of a table; None where it is none, or has lost the key that stands there."""
        if table.number not in self._holders:
            while len(self._holders) >= TABLES_REMEMBERED_MAX:
                del self._holders[next(iter(self._holders))]
            self._holders[table.number] = self._holder(table)
        return self._holders[table.number]

    def _holder(self, table: DepositTable) -> OneTimeHolder | None:
        index = table.index_of(self._validator)
        own = None if index is None else table.boxes[index - 1]
        box = next((box for box in self._boxes.values() if box.public == own), None)
        try:
            return None if box is None else OneTimeHolder(table.release, box)
        except InvalidInput:
            return None  # too few stood in it

    # What happens

    def has_room(self, batch_id: Bytes16) -> bool:
        """Whether it can take on to acknowledge something of this batch."""
        return batch_id in self._owed or len(self._owed) < limits.DEPOSITS_OWED_MAX

    def found_good(self, batch_id: Bytes16, table: int, indices: Collection[int]) -> None:
        """Its shares of these records are good; the chain is to hear of it. There must be room."""
        if not indices:
            return
        assert self.has_room(batch_id), f"{limits.DEPOSITS_OWED_MAX} batches are waiting already"
        owed = self._owed.setdefault(batch_id, _Owed(table, set()))
        if owed.table == table and not owed.indices.issuperset(indices):
            owed.indices.update(indices)
            owed.pace = _Pace()

    def step(self, state: StateView, now_ms: int) -> list[DepositEffect]:
        """What must be done now, in order, by the state at the tip; `now_ms` by a clock that never goes back."""
        return [*self._announce(state, now_ms), *self._acknowledge(state, now_ms)]

    def _announce(self, state: StateView, now_ms: int) -> Iterator[DepositEffect]:
        own = deposits.announced_by(self._validator, state)
        newest = max(self._boxes, default=0)
        if own is not None and newest and own.box == self._boxes[newest].public:
            return
        if own is not None and own.count >= limits.DEPOSIT_KEYS_MAX:
            if not self._is_told:
                self._is_told = True
                yield Tell("deposit_keys_used_up", {"announced": str(own.count)})
            return
        if not newest or self._is_anothers(self._boxes[newest].public, state):
            newest += 1
            secret = self._random(32)
            self._boxes[newest] = BoxSecret(secret)
            self._announcing = _Pace()
            yield WriteDepositKey(newest, secret)
        if self._announcing.is_due(now_ms):
            yield Send((DepositKey(self._boxes[newest].public),))

    def _is_anothers(self, box: bytes, state: StateView) -> bool:
        """Whether somebody has copied our key, and was faster: nothing was sealed to it for us."""
        return any(one.box == box for who, one in deposits.announced(state).items() if who != self._validator)

    def _acknowledge(self, state: StateView, now_ms: int) -> Iterator[DepositEffect]:
        for batch_id, owed in list(self._owed.items()):
            known = deposits.deposited_by(self._validator, batch_id, state)
            if known is not None:
                owed.indices.difference_update(indices_of(known.records))
            if not owed.indices or (known is not None and known.table != owed.table):
                del self._owed[batch_id]
            elif owed.pace.is_due(now_ms):
                yield Send((DepositAck(batch_id, owed.table, bits_of(owed.indices)),))
