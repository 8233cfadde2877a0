"""The seam between the ledger and its application: what a contract is told and what it answers.

The application knows nothing of heights being agreed, stores or networks; the ledger knows nothing of health.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from p2pledger.chain.genesis import Founding
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Value, decode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import AccountKey, ChainId, Height, Millis, TransactionId
from p2pledger.state.view import StateView, Writes


class Duty(Record, frozen=True):
    """The base of operations that validators' nodes send with their own keys, and nobody else may (`seats`)."""


class Call(Value, frozen=True):
    """Who calls, and where in the chain."""

    chain: ChainId
    height: Height
    time_ms: Millis
    """Block time."""
    transaction: TransactionId
    author: AccountKey
    cosigners: tuple[AccountKey, ...]


class Outcome(Value, frozen=True):
    """What one operation changes and reports."""

    writes: Mapping[bytes, bytes | None] = {}
    events: Sequence[bytes] = ()
    """Canonical bytes; nothing personal."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What the members have approved to be taken out: operations of transactions, and the events of their receipts."""

    number: int
    """From 1, in the order of approval."""
    horizon: Height
    """The last height that it is about."""
    kinds: frozenset[int]
    """Numbers of operations; empty: all, also what is no operation at all."""
    subject: bytes | None
    """An id that operations or events contain; None: whomever they are about."""

    def covers(self, operations: bytes, events: Sequence[bytes]) -> bool:
        """Whether a transaction with these operations, and these events of its receipt, is meant as a whole."""
        if self.subject is not None and not any(self.subject in data for data in (operations, *events)):
            return False
        return not self.kinds or not self.kinds.isdisjoint(_kinds(operations))


def _kinds(operations: bytes) -> set[int]:
    """The numbers of the operations; none for bytes that are no operations."""
    try:
        found = decode(tuple[tuple[Any, ...], ...], operations, limits.TRANSACTION_BYTES_MAX)
    except InvalidInput:
        return set()
    return {operation[0] for operation in found if operation and isinstance(operation[0], int)}


class Application(Protocol):
    """The contracts of one ledger, deterministic and total."""

    def genesis_writes(self, founding: Founding) -> Writes:
        """What the application has at height 0; `seats.genesis_writes` adds what the ledger itself has."""

    def decode(self, operations: bytes) -> Sequence[Record]:
        """The operations of a transaction, the application's and the ledger's own (`evidence.ValidatorEvidence`).

        Raises Rejected(E_FORMAT, E_UNKNOWN_KIND, E_ALONE, E_TOO_LARGE).
        """

    def opens_account(self, operations: Sequence[Record], call: Call, state: StateView) -> bool:
        """Whether a sender without an account may run exactly these operations, which register it.

        Raises Refused(code) where the reason against it is of use to an honest sender.
        """

    def may_send(self, author: AccountKey, state: StateView) -> bool:
        """Whether this key belongs to an identity that is known and not suspended (admission asks).

        Never asked for validators' nodes.
        """

    def has_quota(self, operations: Sequence[Record], author: AccountKey, time_ms: Millis, state: StateView) -> bool:
        """Whether these operations of a known sender may still cost anybody anything (admission asks)."""
        return True

    def refused(self, call: Call, state: StateView) -> Writes:
        """What the application remembers of a transaction of a known sender that failed."""
        return {}

    def pruning(self, number: int, state: StateView) -> Pruning | None:
        """The approved pruning of this number, or None where there is none yet."""

    def execute(self, operation: Any, call: Call, state: StateView) -> Outcome:
        """Run one of its own operations; raises Refused(code). A `Duty` comes from a validator's node."""
