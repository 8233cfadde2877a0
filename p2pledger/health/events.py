"""What the health layer reports in receipts. Nothing in an event says who a person is (F-29)."""

from typing import Literal, TypeAlias

from p2pledger.execution.evidence import EquivocationRecorded
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import IdentityKind, RevokeReason, Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32

BasisKind = Literal["none", "consent", "policy", "btg", "owner"]
"""What an access rests on: nothing, a consent, the chain's default policy, broken glass, or one's own record."""


class OrganisationRegistered(Record, frozen=True, tag=1):
    """An organisation was admitted."""

    organisation: Bytes16


class IdentityRegistered(Record, frozen=True, tag=2):
    """An identity was entered."""

    did: Bytes16
    kind: IdentityKind
    organisation: Bytes16


class KeyRotated(Record, frozen=True, tag=3):
    """An identity has a new key; the old one is dead."""

    did: Bytes16
    old: AccountKey
    new: AccountKey


class IdentitySuspended(Record, frozen=True, tag=4):
    """An identity may not act."""

    did: Bytes16


class IdentityResumed(Record, frozen=True, tag=5):
    """An identity may act again."""

    did: Bytes16


class CredentialIssued(Record, frozen=True, tag=6):
    """An identity has a role."""

    subject: Bytes16
    organisation: Bytes16
    role: Role


class CredentialRevoked(Record, frozen=True, tag=7):
    """An identity has a role no longer."""

    subject: Bytes16
    organisation: Bytes16
    role: Role


class KeyRevoked(Record, frozen=True, tag=8):
    """An employer declared a key stolen; its owner has none until it is given another."""

    did: Bytes16
    key: AccountKey


class IdentityRekeyed(Record, frozen=True, tag=9):
    """An identity has a new key in place of a revoked one."""

    did: Bytes16
    old: AccountKey
    new: AccountKey


class OrganisationSuspended(Record, frozen=True, tag=12):
    """An organisation and its people may not act."""

    organisation: Bytes16


class OrganisationResumed(Record, frozen=True, tag=13):
    """An organisation and its people may act again."""

    organisation: Bytes16


class OrganisationKeyChanged(Record, frozen=True, tag=14):
    """An organisation has a new key; the old one is dead."""

    organisation: Bytes16
    old: AccountKey
    new: AccountKey


class BatchRecorded(Record, frozen=True, tag=10):
    """Records were committed to."""

    batch_id: Bytes16
    pid: Bytes16
    custodian: Bytes16
    n: U64


class ConsentGranted(Record, frozen=True, tag=20):
    """A consent stands."""

    consent_id: Bytes16
    pid: Bytes16


class ConsentRevoked(Record, frozen=True, tag=21):
    """A consent was taken back."""

    consent_id: Bytes16
    pid: Bytes16
    reason: RevokeReason


class AccessDecided(Record, frozen=True, tag=30):
    """An access was allowed or denied; either way the patient's log has a line about it (F-01)."""

    access_id: Bytes16
    pid: Bytes16
    decision: int
    """A `Code`: OK = ALLOWED; any other: DENIED for that reason."""
    basis: BasisKind
    consent_id: Bytes16 | None
    purpose: Purpose
    sequence: U64
    """Of the line in the patient's log."""
    line_hash: Bytes32

    @property
    def is_allowed(self) -> bool:
        return self.decision == 0


Event: TypeAlias = (
    OrganisationRegistered
    | IdentityRegistered
    | KeyRotated
    | IdentitySuspended
    | IdentityResumed
    | CredentialIssued
    | CredentialRevoked
    | KeyRevoked
    | IdentityRekeyed
    | OrganisationSuspended
    | OrganisationResumed
    | OrganisationKeyChanged
    | BatchRecorded
    | ConsentGranted
    | ConsentRevoked
    | AccessDecided
)
AnyEvent: TypeAlias = Event | EquivocationRecorded
"""What receipts of this chain report: the health layer's events and the ledger's own."""


def decode_event(data: bytes) -> AnyEvent:
    """The event whose canonical bytes are `data`; raises InvalidInput."""
    event: AnyEvent = decode(AnyEvent, data, limits.STATE_VALUE_BYTES_MAX)  # type: ignore[arg-type]
    return event
