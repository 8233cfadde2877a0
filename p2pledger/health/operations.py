"""What members and patients can ask of the health layer: one record a kind, told apart by a number that never changes.

No field can hold free text: there are fixed-size bytes, numbers, codes from closed lists, and the public names of
organisations (F-29). Whatever describes a person stays outside and is named here by a hash or a random handle.
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from p2pledger.chain.genesis import OrganisationKind, PublicName
from p2pledger.execution.evidence import EVIDENCE_TAG, ValidatorEvidence
from p2pledger.health.break_glass_operations import BtgReview
from p2pledger.health.deposit_operations import DepositAck, DepositKey
from p2pledger.health.emergency_operations import EmergencyAnchor
from p2pledger.health.erasure_operations import EraseCertificate, EraseDecision, EraseRequest, HolderRegister
from p2pledger.health.guardian_operations import (
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    Unfreeze,
)
from p2pledger.health.identity_operations import (
    IdentityRekey,
    KeyRevoke,
    OrganisationKeyRotate,
    OrganisationRekey,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.health.joint_key_operations import LtsActivate, LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant, ProxyRevoke
from p2pledger.health.pruning_operations import Prune
from p2pledger.health.purposes import Purpose
from p2pledger.health.release_operations import ReleaseReceipt
from p2pledger.health.vocabulary import (
    ActorKind,
    Authors,
    BreakGlass,
    Capacity,
    Classes,
    Compartments,
    Count,
    Encounters,
    Handle,
    IdentityKind,
    Labels,
    Months,
    Records,
    RevokeReason,
    Role,
    Schema,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Shape, decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, signed_bytes, tagged_hash
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32, Bytes64, ChainId, Millis, Signature

# Directory


class OrganisationRegister(Record, frozen=True, tag=1):
    """Admit an organisation: by a majority of the active ones, sender included, and its own account."""

    organisation: Bytes16
    name: PublicName
    kind: OrganisationKind
    account: AccountKey
    box: Bytes32


class IdentityRegister(Record, frozen=True, tag=2):
    """Enter a new identity: sent by its own key, cosigned by its organisation."""

    did: Bytes16
    """For a patient this is the pid at that custodian; a wallet registers one identity with a key of its own each."""
    kind: IdentityKind
    key: AccountKey
    box: Bytes32
    """X25519: documents are sealed to it."""
    organisation: Bytes16
    """A patient's custodian, everybody else's employer."""
    attestation_commit: Bytes32
    """Of what the organisation keeps about the identity check."""


class KeyRotate(Record, frozen=True, tag=3):
    """Replace the keys of the sender's identity; the new key cosigns, the old one is dead from this block on."""

    did: Bytes16
    key: AccountKey
    box: Bytes32


class IdentitySuspend(Record, frozen=True, tag=4):
    """An employer stops one of its people."""

    did: Bytes16


class IdentityResume(Record, frozen=True, tag=5):
    """An employer lets one of its people act again."""

    did: Bytes16


class Group(Record, frozen=True):
    """Membership in a group that consents can name."""

    handle: Handle
    is_break_glass: bool
    """Whether its members may break the glass."""


class CredentialIssue(Record, frozen=True, tag=6):
    """An organisation says what one of its people may act as."""

    subject: Bytes16
    role: Role
    licence_commit: Bytes32
    valid_from_ms: Millis
    valid_to_ms: Millis
    """The first instant at which it is no longer valid."""
    groups: Annotated[tuple[Group, ...], Meta(max_length=16)] = ()


class CredentialRevoke(Record, frozen=True, tag=7):
    """An organisation takes a role back, from this block on."""

    subject: Bytes16
    role: Role


# Records


class CompartmentCount(Record, frozen=True):
    """How many records of a batch lie in a compartment."""

    handle: Handle
    count: Count


class RecordBatch(Record, frozen=True, tag=10):
    """A custodian commits to `n` records of a patient; they are named (batch_id, index) from here on."""

    batch_id: Bytes16
    pid: Bytes16
    custodian: Bytes16
    author_org: Bytes16
    n: Count
    root: Bytes32
    """Over the salted commitments."""
    compartments: Annotated[tuple[CompartmentCount, ...], Meta(max_length=256)]
    classes: Labels
    labels: Labels
    months: Months
    schema: Schema


# Consent


class PolicyException(Record, frozen=True):
    """Where the opposite of a consent's base holds. What is left open is that of the base."""

    actor_commits: Annotated[tuple[Bytes32, ...], Meta(max_length=16)] = ()
    """Empty: everybody whom the base means."""
    purposes: Annotated[tuple[Purpose, ...], Meta(max_length=16)] = ()
    """Empty: all purposes of the base."""
    compartments: Annotated[tuple[Handle, ...], Meta(max_length=64)] | None = None
    """None: all compartments of the base."""
    labels: Annotated[tuple[Handle, ...], Meta(max_length=32)] | None = None
    """Sensitive labels. None: whatever they are; empty, for a permitting one only: no sensitive record."""
    months: Months | None = None
    classes: Annotated[tuple[Handle, ...], Meta(max_length=64)] | None = None
    """None: all classes of the base."""
    records: Annotated[tuple[Handle, ...], Meta(max_length=64)] = ()
    """What lies in one of the named records, authors or encounters; all three empty: whatever is asked for."""
    authors: Annotated[tuple[Handle, ...], Meta(max_length=64)] = ()
    encounters: Annotated[tuple[Handle, ...], Meta(max_length=64)] = ()


class ConsentGrant(Record, frozen=True, tag=20):
    """A patient's consent: who may read what, what for and until when."""

    consent_id: Bytes16
    pid: Bytes16
    capacity: Capacity
    base: Literal["permit", "deny"]
    actor_commits: Annotated[tuple[Bytes32, ...], Meta(max_length=64)]
    """Salted commitments, opened by who asks; empty: any reader with a valid credential."""
    purposes: Annotated[tuple[Purpose, ...], Meta(max_length=64)]
    """Empty in a denying base only: every purpose."""
    compartments: Compartments | None
    """None: all."""
    months: Months | None
    valid_from_ms: Millis
    valid_to_ms: Millis
    """The first instant at which it has expired (F-03)."""
    max_uses: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    """Accesses allowed under it; 0: any number."""
    exceptions: Annotated[tuple[PolicyException, ...], Meta(max_length=16)]
    btg: BreakGlass
    doc_commit: Bytes32
    """Of the sealed consent document."""
    evidence_commit: Bytes32
    """Of the sealed evidence of the ceremony."""
    labels: Labels | None = None
    """Sensitive labels that it extends to. None: all; empty: no sensitive record."""
    classes: Classes | None = None
    """None: all."""
    records: Records = ()
    """It extends to what lies in one of the named records, authors or encounters; all three empty: to everything."""
    authors: Authors = ()
    encounters: Encounters = ()
    btg_commits: Annotated[tuple[Bytes32, ...], Meta(max_length=16)] = ()
    """With `btg` "named": the actors who alone may break the glass."""


class ConsentRevoke(Record, frozen=True, tag=21):
    """The patient, or who acts for it, takes a consent back, from this block on (F-06)."""

    consent_id: Bytes16
    reason: RevokeReason


# Access


class ActorOpening(Record, frozen=True):
    """Opens an actor commitment: as whom the reader asks."""

    salt: Bytes32
    kind: ActorKind
    handle: Handle
    """A person's did, an organisation's id, `role_handle(role)`, or a group's handle."""


class AccessRequest(Record, frozen=True, tag=30):
    """May I read? It travels alone, and its answer is an event whichever way it goes."""

    access_id: Bytes16
    organisation: Bytes16
    """The reader's."""
    pid: Bytes16
    basis: Bytes16 | None
    """The consent to be judged by; None: any of the patient's."""
    purpose: Purpose
    actor_opening: ActorOpening | None
    scope_commit: Bytes32
    """Of the salted list of record references."""
    n_records: Count
    compartments: Annotated[tuple[Handle, ...], Meta(min_length=1, max_length=256)]
    labels: Labels
    """The sensitive labels among what is asked for."""
    months: Months | None
    """None: any month."""
    reader_eph_x25519: Bytes32
    pop: Bytes64
    """The author's signature over this key, this access and this scope: nobody else's key gets the shares."""
    not_after_ms: Millis
    """No release after this, whatever the consent says."""
    reason_commit: Bytes32 | None = None
    """Of the written reason; needed to break the glass."""
    classes: Classes = ()
    """The classes of all that is asked for; empty: not said, so possibly any."""
    records: Records = ()
    """The handles of all records that are asked for; empty: not said."""
    authors: Authors = ()
    """The authors of all that is asked for; empty: not said."""
    encounters: Encounters = ()
    """The encounters of all that is asked for; empty: not said."""


Operation: TypeAlias = (
    OrganisationRegister
    | IdentityRegister
    | KeyRotate
    | IdentitySuspend
    | IdentityResume
    | CredentialIssue
    | CredentialRevoke
    | KeyRevoke
    | IdentityRekey
    | OrganisationSuspend
    | OrganisationResume
    | OrganisationKeyRotate
    | OrganisationRekey
    | RecordBatch
    | ConsentGrant
    | ConsentRevoke
    | AccessRequest
    | ProxyGrant
    | ProxyRevoke
    | DeceasedMark
    | BtgReview
    | IntegrityAlert
    | EmergencyAnchor
    | LtsInit
    | LtsDeal
    | LtsComplaint
    | LtsJustify
    | LtsActivate
    | DepositKey
    | DepositAck
    | ReleaseReceipt
    | GuardianSet
    | RecoveryStart
    | RecoveryVeto
    | RecoveryFinalize
    | Freeze
    | Unfreeze
    | Prune
    | EraseRequest
    | EraseDecision
    | EraseCertificate
    | HolderRegister
)
AnyOperation: TypeAlias = Operation | ValidatorEvidence
"""What transactions of this chain consist of: the health layer's operations and the ledger's own."""
_OPERATIONS: Shape[tuple[AnyOperation, ...]] = Shape(tuple[AnyOperation, ...])
_TAGS = frozenset(
    {*range(1, 11), *range(12, 16), *range(20, 25), 30, 31, 36, 37, *range(40, 48), *range(50, 61), EVIDENCE_TAG}
)


def decode_operations(data: bytes) -> tuple[AnyOperation, ...]:
    """The operations whose canonical bytes are `data`.

    Raises Rejected: E_UNKNOWN_KIND (judged by the first operation), E_FORMAT, E_TOO_LARGE, E_ALONE.
    """
    try:
        operations: tuple[AnyOperation, ...] = decode(_OPERATIONS, data, limits.TRANSACTION_BYTES_MAX)
    except InvalidInput as error:
        kind = _first_tag(data)
        if kind is not None and kind not in _TAGS:
            raise Rejected(Code.E_UNKNOWN_KIND, f"no operation has the number {kind}") from error
        raise Rejected(Code.E_FORMAT, str(error)) from error
    if not operations:
        raise Rejected(Code.E_FORMAT, "a transaction without operations")
    if len(operations) > limits.OPERATIONS_MAX:
        raise Rejected(Code.E_TOO_LARGE, f"{len(operations)} operations, the limit is {limits.OPERATIONS_MAX}")
    if len(operations) > 1 and AccessRequest in map(type, operations):
        raise Rejected(Code.E_ALONE, f"an access request among {len(operations)} operations; it must travel alone")
    return operations


def _first_tag(data: bytes) -> int | None:
    """The number of the first operation, from the heads of the two arrays around it; None if it is not there."""
    rest = _after_array_head(data)
    rest = None if rest is None else _after_array_head(rest)
    return rest[0] if rest and rest[0] < 0x80 else None


def _after_array_head(data: bytes) -> bytes | None:
    if not data:
        return None
    if 0x90 <= data[0] <= 0x9F:
        return data[1:]
    return data[3:] if data[0] == 0xDC else None


# What signers and openers compute


def role_handle(role: Role) -> Handle:
    """The public handle of a role: its code, filled up with zeros."""
    return role.encode().ljust(16, b"\0")


def record_handle(batch_id: Bytes16, index: int) -> Handle:
    """What consents and requests call a single record; whoever knows the record can compute it."""
    return tagged_hash(Domain.RECORD_HANDLE, encode((batch_id, index)))[:16]


def actor_commit(opening: ActorOpening) -> Bytes32:
    """The commitment to an actor that a consent carries."""
    return tagged_hash(Domain.ACTOR, encode(opening))


def pop_bytes(chain: ChainId, ephemeral: bytes, access_id: bytes, scope_commit: bytes) -> bytes:
    """What a reader signs to bind its ephemeral key to one access (health rule 3.5.1)."""
    return signed_bytes(Domain.ACCESS_POP, chain, encode((ephemeral, access_id, scope_commit)))


def sign_pop(reader: SigningKey, chain: ChainId, ephemeral: bytes, access_id: bytes, scope_commit: bytes) -> Signature:
    """The proof of possession of an access request."""
    return reader.sign(pop_bytes(chain, ephemeral, access_id, scope_commit))
