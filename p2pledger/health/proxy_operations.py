"""Who acts for a patient: operations that register and end proxies, and that mark a death (F-30)."""

from typing import Annotated

from msgspec import Meta

from p2pledger.health.vocabulary import Power, ProxyKind
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import Bytes16, Bytes32, Millis


class ProxyGrant(Record, frozen=True, tag=22):
    """Somebody may act for a patient: an attorney by the patient's own will, anybody by that of two organisations."""

    pid: Bytes16
    proxy: Bytes16
    """Did of the identity that acts."""
    kind: ProxyKind
    powers: Annotated[tuple[Power, ...], Meta(min_length=1, max_length=3)]
    valid_from_ms: Millis
    valid_to_ms: Millis
    """The first instant at which it has ended; for a parent the age of majority."""
    evidence_commit: Bytes32
    """Of the birth certificate, the power of attorney or the court's order."""


class ProxyRevoke(Record, frozen=True, tag=23):
    """It ends from this block on: by whoever registered it, or by the proxy itself."""

    pid: Bytes16
    proxy: Bytes16


class DeceasedMark(Record, frozen=True, tag=24):
    """Two organisations say that a patient has died, or that this was said by mistake."""

    pid: Bytes16
    is_deceased: bool
    evidence_commit: Bytes32
    """Of the death certificate, or of what refutes it."""
