"""A patient's guardians and recoveries as they stand in the state, and whether a patient is frozen just now.

A change of guardians takes effect by block time: nobody has to send anything. It waits while the patient is frozen,
since guardians have then said that whoever asked for it may be a thief.
"""

from typing import Literal

from msgspec.structs import replace

from p2pledger.health import keys
from p2pledger.health.guardian_operations import GuardianSet
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Height, Millis
from p2pledger.state.view import StateView

Progress = Literal["pending", "vetoed", "replaced", "final"]
"""`replaced`: by another recovery that guardians started before this one was final."""


class Proposed(Record, frozen=True):
    """Guardians that the patient wants in place of those it has."""

    terms: GuardianSet
    from_ms: Millis
    """Not before this."""


class Guardianship(Record, frozen=True):
    """Who guards a patient, and what they are at."""

    terms: GuardianSet
    since: Height
    proposed: Proposed | None = None
    pending: Bytes16 | None = None
    """The recovery that waits for its end."""
    vetoes: U64 = 0
    """By the present key, of recoveries that these guardians started."""
    frozen_ms: Millis = Millis(0)
    """The end of the last freeze, as the guardians said it."""
    is_frozen: bool = False
    """Whether no guardian has ended it before."""

    def frozen_at(self, time_ms: int) -> bool:
        """Whether the patient is frozen at this block time: the first instant is in, the last is out."""
        return self.is_frozen and time_ms < self.frozen_ms

    def at(self, time_ms: int, height: Height) -> "Guardianship":
        """As of this block time: a change whose time has come has taken effect, and vetoes of others are over."""
        if self.proposed is None or time_ms < self.proposed.from_ms or self.frozen_at(time_ms):
            return self
        return replace(self, terms=self.proposed.terms, since=height, proposed=None, vetoes=0)


class Recovery(Record, frozen=True):
    """A recovery, from its start on."""

    pid: Bytes16
    key: AccountKey
    box: Bytes32
    started_ms: Millis
    due_ms: Millis
    """The first instant at which it can be made final."""
    is_beyond_veto: bool
    progress: Progress
    terms: GuardianSet
    """The guardians by whom it is judged: those of its start, whoever is named in between."""


def guardianship_of(pid: bytes, state: StateView) -> Guardianship | None:
    """Who guards a patient, as last written; `Guardianship.at` says how it stands now."""
    data = state.get(keys.guardianship(pid))
    return None if data is None else decode(Guardianship, data, limits.STATE_VALUE_BYTES_MAX)


def recovery_of(identifier: bytes, state: StateView) -> Recovery | None:
    """A recovery by its id."""
    data = state.get(keys.recovery(identifier))
    return None if data is None else decode_recovery(data)


def decode_recovery(data: bytes) -> Recovery:
    """A recovery from its state value; raises InvalidInput."""
    return decode(Recovery, data, limits.STATE_VALUE_BYTES_MAX)


def is_frozen(pid: bytes, time_ms: int, state: StateView) -> bool:
    """Whether guardians have frozen a patient at this block time (F-25)."""
    held = guardianship_of(pid, state)
    return held is not None and held.frozen_at(time_ms)


def require_thawed(pid: bytes, time_ms: int, state: StateView) -> None:
    """Demand that the patient is not frozen; raises Refused(E_FROZEN)."""
    if is_frozen(pid, time_ms, state):
        raise Refused(Code.E_FROZEN)


def writes_of(pid: bytes, held: Guardianship) -> dict[bytes, bytes | None]:
    return {keys.guardianship(pid): encode(held)}


def recovery_writes(identifier: bytes, recovery: Recovery) -> dict[bytes, bytes | None]:
    return {keys.recovery(identifier): encode(recovery)}
