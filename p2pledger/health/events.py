"""What the health layer reports in receipts. Nothing in an event says who a person is (F-29)."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from p2pledger.execution.evidence import EquivocationRecorded
from p2pledger.health.deposit_operations import DepositAcknowledged, DepositTableMade
from p2pledger.health.erasure_operations import (
    ErasureCertified,
    ErasureDecided,
    ErasureRequested,
    HolderRegistered,
)
from p2pledger.health.pruning_operations import PruningApproved
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import IdentityKind, ProxyKind, RevokeReason, Role, Verdict
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Millis

BasisKind = Literal["none", "consent", "policy", "btg", "owner", "proxy"]
"""What an access rests on: nothing, a consent, the chain's default policy, broken glass, one's own record, or that of
somebody whose proxy one is."""


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


class ProxyGranted(Record, frozen=True, tag=22):
    """Somebody may act for a patient."""

    pid: Bytes16
    proxy: Bytes16
    kind: ProxyKind


class ProxyRevoked(Record, frozen=True, tag=23):
    """Somebody acts for a patient no longer."""

    pid: Bytes16
    proxy: Bytes16


class DeceasedMarked(Record, frozen=True, tag=24):
    """A patient has died, or has not."""

    pid: Bytes16
    is_deceased: bool


class BreakGlassReviewed(Record, frozen=True, tag=31):
    """An emergency access was reviewed."""

    access_id: Bytes16
    pid: Bytes16
    verdict: Verdict
    is_late: bool


class BreakGlassUsed(Record, frozen=True, tag=32):
    """Alert: somebody read in an emergency, without a consent (F-15). The patient and its custodian should know."""

    access_id: Bytes16
    pid: Bytes16
    organisation: Bytes16
    sequence: U64
    """Of the line in the patient's log."""
    review_due_ms: Millis


class BreakGlassRateExceeded(Record, frozen=True, tag=33):
    """An organisation breaks the glass so often that the consortium should talk about it (F-16)."""

    organisation: Bytes16
    window: U64
    broken: U64
    accesses: U64


class IntegrityAlerted(Record, frozen=True, tag=36):
    """Alert: somebody was given other bytes of a record than the chain committed to (F-36)."""

    pid: Bytes16
    custodian: Bytes16
    record: Bytes16
    """Its handle."""
    author: AccountKey
    access_id: Bytes16 | None
    expected: Bytes32
    found: Bytes32


class EmergencyAnchored(Record, frozen=True, tag=37):
    """An emergency capsule that was opened without the ledger is on it now (F-17)."""

    access_id: Bytes16
    pid: Bytes16
    organisation: Bytes16
    number: U64
    """Of the house's openings."""
    sequence: U64
    """Of the line in the patient's log."""
    opened_ms: Millis
    """By the house's clock."""
    is_late: bool
    """Whether it should have been here earlier."""


class CeremonyMoved(Record, frozen=True, tag=40):
    """A key ceremony has begun, or come to its next phase."""

    key_epoch: U64
    share_epoch: U64
    attempt: U64
    phase: Annotated[int, Meta(ge=1, le=7)]
    """A `threshold.dkg.Phase`."""


class JointKeyActivated(Record, frozen=True, tag=44):
    """Capsules can be sealed to a new key, or a key has new shares."""

    key_epoch: U64
    share_epoch: U64
    public: Bytes32


class SharesReleased(Record, frozen=True, tag=45):
    """A validator says that it has released its shares of so many records of an access."""

    access_id: Bytes16
    pid: Bytes16
    validator: Bytes32
    records: U64


class GuardiansChanged(Record, frozen=True, tag=50):
    """A patient has named guardians; they stand in for it from a time on."""

    pid: Bytes16
    threshold: U64
    guardians: U64
    from_ms: Millis


class RecoveryStarted(Record, frozen=True, tag=51):
    """Guardians have approved of new keys; the present key can veto until they are in place."""

    pid: Bytes16
    recovery: Bytes16
    due_ms: Millis
    is_beyond_veto: bool


class RecoveryVetoed(Record, frozen=True, tag=52):
    """The present key has ended a recovery."""

    pid: Bytes16
    recovery: Bytes16
    vetoes: U64


class RecoveryFinalized(Record, frozen=True, tag=53):
    """A patient has a new key; the old one is dead."""

    pid: Bytes16
    recovery: Bytes16
    old: AccountKey
    new: AccountKey


class PatientFrozen(Record, frozen=True, tag=54):
    """Guardians say that a patient's key is stolen."""

    pid: Bytes16
    until_ms: Millis


class PatientUnfrozen(Record, frozen=True, tag=55):
    """Guardians have ended a freeze."""

    pid: Bytes16


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
    | ProxyGranted
    | ProxyRevoked
    | DeceasedMarked
    | BreakGlassReviewed
    | BreakGlassUsed
    | EmergencyAnchored
    | BreakGlassRateExceeded
    | IntegrityAlerted
    | CeremonyMoved
    | JointKeyActivated
    | SharesReleased
    | DepositTableMade
    | DepositAcknowledged
    | GuardiansChanged
    | RecoveryStarted
    | RecoveryVetoed
    | RecoveryFinalized
    | PatientFrozen
    | PatientUnfrozen
    | PruningApproved
    | ErasureRequested
    | ErasureDecided
    | ErasureCertified
    | HolderRegistered
)
AnyEvent: TypeAlias = Event | EquivocationRecorded
"""What receipts of this chain report: the health layer's events and the ledger's own."""


def decode_event(data: bytes) -> AnyEvent:
    """The event whose canonical bytes are `data`; raises InvalidInput."""
    event: AnyEvent = decode(AnyEvent, data, limits.STATE_VALUE_BYTES_MAX)  # type: ignore[arg-type]
    return event
