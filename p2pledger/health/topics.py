"""Which events concern a patient enough to be told, and whose they are (F-08, F-15): pure functions over events.

What is not named here is not told to anybody: who registered whom at which organisation is no news for a feed.
"""

from collections.abc import Mapping
from typing import Literal

from p2pledger.health.erasure_operations import ErasureCertified, ErasureDecided, ErasureRequested
from p2pledger.health.events import (
    AccessDecided,
    AnyEvent,
    BreakGlassRateExceeded,
    BreakGlassReviewed,
    BreakGlassUsed,
    ConsentGranted,
    ConsentRevoked,
    DeceasedMarked,
    EmergencyAnchored,
    GuardiansChanged,
    IdentityRekeyed,
    IntegrityAlerted,
    KeyRevoked,
    KeyRotated,
    PatientFrozen,
    PatientUnfrozen,
    ProxyGranted,
    ProxyRevoked,
    RecoveryFinalized,
    RecoveryStarted,
    RecoveryVetoed,
    SharesReleased,
)
from p2pledger.primitives.ids import Bytes16

Topic = Literal["access", "consent", "break-glass", "recovery", "release", "erasure", "integrity"]
"""`access`: every decision, broken glass too; `consent`: proxies and deaths too, as they change who may; `recovery`:
whatever gives a person another key, and whatever its guardians do; `release`: a validator says that its shares of a
permitted access have left; `erasure`: what is to be erased, what the custodian says to it, and who has certified it;
`integrity`: somebody was given other bytes of a record than were committed to."""

_TOPICS: Mapping[type, frozenset[Topic]] = {
    AccessDecided: frozenset({"access"}),
    ConsentGranted: frozenset({"consent"}),
    ConsentRevoked: frozenset({"consent"}),
    ProxyGranted: frozenset({"consent"}),
    ProxyRevoked: frozenset({"consent"}),
    DeceasedMarked: frozenset({"consent"}),
    BreakGlassUsed: frozenset({"break-glass"}),
    EmergencyAnchored: frozenset({"break-glass"}),
    BreakGlassReviewed: frozenset({"break-glass"}),
    BreakGlassRateExceeded: frozenset({"break-glass"}),
    SharesReleased: frozenset({"release"}),
    ErasureRequested: frozenset({"erasure"}),
    ErasureDecided: frozenset({"erasure"}),
    ErasureCertified: frozenset({"erasure"}),
    IntegrityAlerted: frozenset({"integrity"}),
    KeyRotated: frozenset({"recovery"}),
    KeyRevoked: frozenset({"recovery"}),
    IdentityRekeyed: frozenset({"recovery"}),
    GuardiansChanged: frozenset({"recovery"}),
    RecoveryStarted: frozenset({"recovery"}),
    RecoveryVetoed: frozenset({"recovery"}),
    RecoveryFinalized: frozenset({"recovery"}),
    PatientFrozen: frozenset({"recovery"}),
    PatientUnfrozen: frozenset({"recovery"}),
}
_NONE: frozenset[Topic] = frozenset()


def topics_of(event: AnyEvent) -> frozenset[Topic]:
    """What an event is about; empty for what no feed tells."""
    found = _TOPICS.get(type(event), _NONE)
    if isinstance(event, AccessDecided) and event.purpose == "BTG":
        return found | {"break-glass"}
    return found


def person_of(event: AnyEvent) -> Bytes16 | None:
    """The patient (or other person) whom an event is about; None where it is about no person."""
    for name in ("pid", "did", "subject"):
        found = getattr(event, name, None)
        if found is not None:
            return Bytes16(found)
    return None
