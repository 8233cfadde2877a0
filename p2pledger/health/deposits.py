"""One-time secrets on the chain: the validators' deposit keys, and who has seen that its shares of a record are good.

A deposit key is long-lived: it is made once, announced, and opens its owner's box in every capsule that was ever sealed
to it. Each announcement makes a new *deposit table*, all keys that stand at that height, and old tables stay: a capsule
names the one that it was made for. A table is of use once n − f validators stand in it.

The chain never sees a capsule. A custodian shows it to the validators beside the record's leaf; each opens its own box,
checks its share and acknowledges. A record counts as deposited when t members of its capsule's table have done so
(CALYPSO's OTS): before that a writer may have dealt shares that open nothing, and no validator releases any.
"""

from collections.abc import Mapping

from p2pledger.execution import seats
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import joint_key, keys, records
from p2pledger.health.deposit_operations import (
    DepositAck,
    DepositAcknowledged,
    DepositKey,
    DepositTableMade,
    RecordBits,
    bits_of,
    indices_of,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, Bytes32, Height, Millis, ValidatorId
from p2pledger.state.view import StateView
from p2pledger.threshold.dkg import Seats
from p2pledger.threshold.one_time import OneTime
from p2pledger.threshold.sealing import is_box_key, is_canonical

_SMALL_BYTES_MAX = 64


class Announced(Record, frozen=True):
    """A validator's deposit key."""

    box: Bytes32
    count: U64
    """How many it has announced in its life, this one included."""


class DepositTable(Record, frozen=True):
    """The deposit keys as they stood after an announcement."""

    number: U64
    """From 1; what capsules name."""
    holders: Seats
    """Validators, ascending; number i of them has share i + 1."""
    boxes: Seats
    """Their keys, in the same order."""
    threshold: U64
    """t = n − f of all who have a seat, whether or not they stand in the table."""
    height: Height
    time_ms: Millis

    @property
    def is_usable(self) -> bool:
        """Whether enough validators stand in it to open anything."""
        return len(self.holders) >= self.threshold

    def index_of(self, validator: bytes) -> int | None:
        """Which share is this validator's, or None."""
        return self.holders.index(validator) + 1 if validator in self.holders else None

    @property
    def release(self) -> OneTime:
        """What writers, holders and readers compute with. Raises InvalidInput where too few stand in the table."""
        return OneTime(self.boxes, self.threshold, self.number)


class Deposited(Record, frozen=True):
    """What a validator has acknowledged of a batch."""

    table: U64
    records: RecordBits
    height: Height
    """Of its latest word."""

    def has(self, index: int) -> bool:
        """Whether it has acknowledged this record."""
        return index // 32 < len(self.records) and bool(self.records[index // 32] >> index % 32 & 1)


def announce(operation: DepositKey, call: Call, state: StateView) -> Outcome:
    """Take a deposit key, and make the next table.

    Refused: E_ROLE for anybody but a validator's node, E_FORMAT for a key that nothing can be sealed to, E_DUP for one
    that is announced already, whoever's it is, E_QUOTA for a validator that has had its keys.
    """
    validator = _validator(call, state)
    if not is_canonical(operation.box) or not is_box_key(operation.box):
        raise Refused(Code.E_FORMAT)
    present = announced(state)
    if operation.box in (one.box for one in present.values()):
        raise Refused(Code.E_DUP)
    count = present[validator].count + 1 if validator in present else 1
    if count > limits.DEPOSIT_KEYS_MAX:
        raise Refused(Code.E_QUOTA)
    own = Announced(operation.box, count)
    table = _table({**present, validator: own}, call, state)
    return Outcome(
        {
            keys.deposit_key(validator): encode(own),
            keys.deposit_table(table.number): encode(table),
            keys.NEWEST_TABLE: encode(table.number),
        },
        [encode(DepositTableMade(table.number, validator, len(table.holders), table.threshold))],
    )


def _table(present: Mapping[ValidatorId, Announced], call: Call, state: StateView) -> DepositTable:
    """The next table: whoever has a seat and a key, in the order of the seats."""
    members = seats.members(state)
    holders = tuple(member for member in members if member in present)
    return DepositTable(
        number=newest_number(state) + 1,
        holders=holders,
        boxes=tuple(present[holder].box for holder in holders),
        threshold=joint_key.threshold_of(len(members)),
        height=call.height,
        time_ms=call.time_ms,
    )


def acknowledge(operation: DepositAck, call: Call, state: StateView) -> Outcome:
    """Take a validator's word that its shares of these records are good; added to what it has said of the batch.

    Refused: E_ROLE for anybody but a member of the table, E_NOT_FOUND for a batch or table that is not there, E_FORMAT
    for records that the batch does not have or bits in another form than theirs, E_STATE where it has spoken of
    another table before, E_DUP where it has said all of this before.
    """
    validator = _validator(call, state)
    batch = records.batch_of(operation.batch_id, state)
    table = table_of(operation.table, state)
    if batch is None or table is None:
        raise Refused(Code.E_NOT_FOUND)
    if table.index_of(validator) is None:
        raise Refused(Code.E_ROLE)
    indices = indices_of(operation.records)
    if bits_of(indices) != operation.records or not indices or indices[-1] >= batch.terms.n:
        raise Refused(Code.E_FORMAT)
    before = deposited_by(validator, operation.batch_id, state)
    if before is not None and before.table != operation.table:
        raise Refused(Code.E_STATE)
    known = set() if before is None else set(indices_of(before.records))
    added = set(indices) - known
    if not added:
        raise Refused(Code.E_DUP)
    kept = Deposited(operation.table, bits_of(known | added), call.height)
    event = DepositAcknowledged(operation.batch_id, validator, operation.table, len(added))
    return Outcome({keys.deposited(operation.batch_id, validator): encode(kept)}, [encode(event)])


def _validator(call: Call, state: StateView) -> ValidatorId:
    validator = seats.validator_of(call.author, state)
    if validator is None:
        raise Refused(Code.E_ROLE)
    return validator


# What the state knows


def announced(state: StateView) -> dict[ValidatorId, Announced]:
    """The present deposit key of each validator that has one."""
    prefix = keys.DEPOSIT_KEY
    return {
        ValidatorId(key[len(prefix) :]): decode(Announced, data, _SMALL_BYTES_MAX) for key, data in state.scan(prefix)
    }


def announced_by(validator: bytes, state: StateView) -> Announced | None:
    """A validator's present deposit key."""
    data = state.get(keys.deposit_key(validator))
    return None if data is None else decode(Announced, data, _SMALL_BYTES_MAX)


def newest_number(state: StateView) -> int:
    """Of the newest table; 0: nobody has announced a key."""
    return decode_number(state.get(keys.NEWEST_TABLE))


def decode_number(data: bytes | None) -> int:
    """The state value under `keys.NEWEST_TABLE`."""
    return 0 if data is None else decode(int, data, 9)


def table_of(number: int, state: StateView) -> DepositTable | None:
    """A table by its number."""
    data = state.get(keys.deposit_table(number))
    return None if data is None else decode_table(data)


def decode_table(data: bytes) -> DepositTable:
    """The state value under `keys.deposit_table`."""
    return decode(DepositTable, data, limits.STATE_VALUE_BYTES_MAX)


def newest_table(state: StateView) -> DepositTable | None:
    """What writers of one-time secrets seal to, once it is usable; None: nobody has announced a key."""
    return table_of(newest_number(state), state)


def deposited_by(validator: bytes, batch_id: bytes, state: StateView) -> Deposited | None:
    """What a validator has acknowledged of a batch."""
    data = state.get(keys.deposited(batch_id, validator))
    return None if data is None else decode_deposited(data)


def decode_deposited(data: bytes) -> Deposited:
    """The state value under `keys.deposited`."""
    return decode(Deposited, data, limits.STATE_VALUE_BYTES_MAX)


def is_deposited(table: DepositTable, batch_id: bytes, index: int, state: StateView) -> bool:
    """Whether t members of this table have seen that their shares of this record are good."""
    said = (deposited_by(holder, batch_id, state) for holder in table.holders)
    good = sum(one is not None and one.table == table.number and one.has(index) for one in said)
    return good >= table.threshold
