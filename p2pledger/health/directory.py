"""Who there is: organisations, identities, their keys and their credentials (health rule 3.1)."""

from collections.abc import Iterator
from typing import Literal

from msgspec.structs import replace

from p2pledger.chain.genesis import Founding, OrganisationKind, PublicName
from p2pledger.execution import keys as ledger_keys
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import guardian_state, keys
from p2pledger.health.events import (
    CredentialIssued,
    CredentialRevoked,
    IdentityRegistered,
    IdentityResumed,
    IdentitySuspended,
    KeyRotated,
    OrganisationRegistered,
)
from p2pledger.health.operations import (
    CredentialIssue,
    CredentialRevoke,
    Group,
    IdentityRegister,
    IdentityResume,
    IdentitySuspend,
    KeyRotate,
    OrganisationRegister,
)
from p2pledger.health.vocabulary import Count, IdentityKind, Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32, Height, Millis
from p2pledger.state.memory import remembered
from p2pledger.state.view import StateView


class Organisation(Record, frozen=True):
    """A member of the consortium."""

    id: Bytes16
    name: PublicName
    kind: OrganisationKind
    account: AccountKey
    box: Bytes32
    is_active: bool
    periods: Count = 1
    """How many keys it has had; see `KeyPeriod`."""


class KeyOwner(Record, frozen=True):
    """Whose key this is; a key is never anybody else's again."""

    kind: Literal["organisation", "identity"]
    id: Bytes16
    retired: Height | None = None
    """From this height on it signs for nobody."""


class KeyPeriod(Record, frozen=True):
    """One of the keys that an identity or an organisation has had, and between which heights it counted (F-20)."""

    key: AccountKey
    box: Bytes32
    since: Height
    """Valid from this block on; 0 for a founder's first key."""
    retired: Height | None = None
    """From this height on it signs for nobody: rotated or revoked."""


class Identity(Record, frozen=True):
    """A patient at one custodian, or one of an organisation's people and services."""

    did: Bytes16
    kind: IdentityKind
    key: AccountKey
    box: Bytes32
    organisation: Bytes16
    attestation_commit: Bytes32
    is_suspended: bool
    registered: Height
    periods: Count = 1
    """How many keys it has had; see `KeyPeriod`."""
    revoked: Height | None = None
    """From this height on it has no key at all, until it is given a new one."""


class Credential(Record, frozen=True):
    """What somebody may act as."""

    subject: Bytes16
    organisation: Bytes16
    role: Role
    licence_commit: Bytes32
    valid_from_ms: Millis
    valid_to_ms: Millis
    groups: tuple[Group, ...]
    revoked: Height | None = None

    def is_valid(self, time_ms: int) -> bool:
        """Whether it holds at this block time; the last instant is out, as with consents."""
        return self.revoked is None and self.valid_from_ms <= time_ms < self.valid_to_ms


def founding_writes(founding: Founding) -> dict[bytes, bytes | None]:
    """The founding organisations with their accounts, numbered from 1 in the order of the cards."""
    writes: dict[bytes, bytes | None] = {}
    cards = founding.genesis.cards
    for number, card in enumerate(cards, start=1):
        organisation = Organisation(card.organisation, card.name, card.kind, card.account, card.box, True)
        writes |= _organisation_writes(organisation, Height(0))
        writes[ledger_keys.account(card.account)] = encode(number)
    writes[ledger_keys.NEXT_ACCOUNT] = encode(len(cards) + 1)
    return writes


def _organisation_writes(organisation: Organisation, since: Height) -> dict[bytes, bytes | None]:
    return {
        keys.organisation(organisation.id): encode(organisation),
        keys.organisation_name(organisation.name): organisation.id,
        keys.key_owner(organisation.account): encode(KeyOwner("organisation", organisation.id)),
        keys.key_period(organisation.id, 1): encode(KeyPeriod(organisation.account, organisation.box, since)),
    }


# Looking up


@remembered
def organisation_of(identifier: bytes, state: StateView) -> Organisation | None:
    """An organisation by id."""
    data = state.get(keys.organisation(identifier))
    return None if data is None else decode(Organisation, data, limits.STATE_VALUE_BYTES_MAX)


def organisations(state: StateView) -> Iterator[Organisation]:
    """All organisations, by id."""
    for _, data in state.scan(keys.ORGANISATION):
        yield decode(Organisation, data, limits.STATE_VALUE_BYTES_MAX)


@remembered
def key_owner(account: AccountKey, state: StateView) -> KeyOwner | None:
    """Whose key this is or was."""
    data = state.get(keys.key_owner(account))
    return None if data is None else decode(KeyOwner, data, limits.STATE_VALUE_BYTES_MAX)


@remembered
def identity_of(did: bytes, state: StateView) -> Identity | None:
    """An identity by did."""
    data = state.get(keys.identity(did))
    return None if data is None else decode(Identity, data, limits.STATE_VALUE_BYTES_MAX)


def key_period(identifier: bytes, number: int, state: StateView) -> KeyPeriod | None:
    """The key number `number`, from 1, of an identity or an organisation."""
    data = state.get(keys.key_period(identifier, number))
    return None if data is None else decode(KeyPeriod, data, limits.STATE_VALUE_BYTES_MAX)


@remembered
def identity_by_key(account: AccountKey, state: StateView) -> Identity | None:
    """The identity whose current key this is."""
    owner = key_owner(account, state)
    if owner is None or owner.kind != "identity" or owner.retired is not None:
        return None
    return identity_of(owner.id, state)


@remembered
def organisation_by_key(account: AccountKey, state: StateView) -> Organisation | None:
    """The organisation whose account this is."""
    owner = key_owner(account, state)
    if owner is None or owner.kind != "organisation" or owner.retired is not None:
        return None
    return organisation_of(owner.id, state)


@remembered
def credentials_of(did: bytes, state: StateView) -> tuple[Credential, ...]:
    """All credentials of an identity, ended ones too."""
    scan = state.scan(keys.credentials(did))
    return tuple(decode(Credential, data, limits.STATE_VALUE_BYTES_MAX) for _, data in scan)


def may_act(account: AccountKey, state: StateView) -> bool:
    """Whether this key belongs to an active organisation, or to an identity that is not suspended."""
    organisation = organisation_by_key(account, state)
    if organisation is not None:
        return organisation.is_active
    identity = identity_by_key(account, state)
    return identity is not None and not is_stopped(identity, state)


def is_stopped(identity: Identity, state: StateView) -> bool:
    """Whether it is suspended, or works for an organisation that is; a patient does not work for its custodian."""
    if identity.is_suspended or identity.kind == "patient":
        return identity.is_suspended
    organisation = organisation_of(identity.organisation, state)
    assert organisation is not None, "an identity's organisation was registered before it"
    return not organisation.is_active


# What contracts demand


def require_owner(pid: bytes, call: Call, state: StateView) -> None:
    """Demand the patient's own current key; raises Refused with E_NOT_FOUND, E_NOT_OWNER or E_SUSPENDED."""
    patient = identity_of(pid, state)
    if patient is None or patient.kind != "patient":
        raise Refused(Code.E_NOT_FOUND)
    if patient.key != call.author:
        raise Refused(Code.E_NOT_OWNER)
    if patient.is_suspended:
        raise Refused(Code.E_SUSPENDED)


def require_organisation(call: Call, state: StateView) -> Organisation:
    """The active organisation whose account is the author; raises Refused(E_ROLE)."""
    organisation = organisation_by_key(call.author, state)
    if organisation is None or not organisation.is_active:
        raise Refused(Code.E_ROLE)
    return organisation


def require_majority(call: Call, state: StateView) -> None:
    """Demand that most of the active organisations signed, the author among them; raises Refused(E_ROLE)."""
    require_organisation(call, state)
    signers = {call.author, *call.cosigners}
    active = [member for member in organisations(state) if member.is_active]
    in_favour = [member for member in active if member.account in signers]
    if 2 * len(in_favour) <= len(active):
        raise Refused(Code.E_ROLE)


def require_employer(did: bytes, call: Call, state: StateView) -> Identity:
    """One of the calling organisation's people; a custodian is no employer of its patients.

    Raises Refused(E_ROLE, E_NOT_FOUND).
    """
    organisation = require_organisation(call, state)
    identity = identity_of(did, state)
    if identity is None:
        raise Refused(Code.E_NOT_FOUND)
    if identity.organisation != organisation.id or identity.kind == "patient":
        raise Refused(Code.E_ROLE)
    return identity


def require_fresh_key(key: AccountKey, state: StateView) -> None:
    """Demand a key that was never anybody's; raises Refused(E_DUP)."""
    if key_owner(key, state) is not None or ledger_keys.account_number(key, state) is not None:
        raise Refused(Code.E_DUP)


def has_sponsor(operation: IdentityRegister, call: Call, state: StateView) -> bool:
    """Whether the identity's organisation signed its registration."""
    return has_signed(operation.organisation, call, state)


def has_signed(identifier: bytes, call: Call, state: StateView) -> bool:
    """Whether this active organisation cosigned."""
    organisation = organisation_of(identifier, state)
    return organisation is not None and organisation.is_active and organisation.account in call.cosigners


# Contracts


def register_organisation(operation: OrganisationRegister, call: Call, state: StateView) -> Outcome:
    """Admit a member. Refused: E_ROLE without a majority or without the new account's own signature, E_DUP."""
    require_majority(call, state)
    if operation.account not in {call.author, *call.cosigners}:
        raise Refused(Code.E_ROLE)
    require_fresh_key(operation.account, state)
    taken = (keys.organisation(operation.organisation), keys.organisation_name(operation.name))
    if any(state.get(key) is not None for key in taken):
        raise Refused(Code.E_DUP)
    admitted = Organisation(
        operation.organisation, operation.name, operation.kind, operation.account, operation.box, True
    )
    return Outcome(
        writes=_organisation_writes(admitted, call.height) | ledger_keys.open_account(operation.account, state),
        events=[encode(OrganisationRegistered(admitted.id))],
    )


def register_identity(operation: IdentityRegister, call: Call, state: StateView) -> Outcome:
    """Enter an identity (F-20). Refused: E_ROLE unless by its own key and with its organisation, E_DUP."""
    if operation.key != call.author or not has_sponsor(operation, call, state):
        raise Refused(Code.E_ROLE)
    if identity_of(operation.did, state) is not None or key_owner(operation.key, state) is not None:
        raise Refused(Code.E_DUP)
    identity = Identity(
        operation.did,
        operation.kind,
        operation.key,
        operation.box,
        operation.organisation,
        operation.attestation_commit,
        False,
        call.height,
    )
    return Outcome(
        writes=_put_identity(identity)
        | {
            keys.key_owner(operation.key): encode(KeyOwner("identity", operation.did)),
            keys.key_period(operation.did, 1): encode(KeyPeriod(operation.key, operation.box, call.height)),
        },
        events=[encode(IdentityRegistered(operation.did, operation.kind, operation.organisation))],
    )


def rotate_key(operation: KeyRotate, call: Call, state: StateView) -> Outcome:
    """Replace an identity's keys. Refused: E_NOT_FOUND, E_NOT_OWNER, E_SUSPENDED, E_FROZEN, E_COSIGNERS, E_DUP."""
    identity = identity_of(operation.did, state)
    if identity is None:
        raise Refused(Code.E_NOT_FOUND)
    if identity.key != call.author or identity.revoked is not None:
        raise Refused(Code.E_NOT_OWNER)
    if is_stopped(identity, state):
        raise Refused(Code.E_SUSPENDED)
    guardian_state.require_thawed(identity.did, call.time_ms, state)
    if operation.key not in call.cosigners:
        raise Refused(Code.E_COSIGNERS)
    require_fresh_key(operation.key, state)
    return Outcome(
        writes=replaced_keys(identity, operation.key, operation.box, call, state),
        events=[encode(KeyRotated(identity.did, identity.key, operation.key))],
    )


def replaced_keys(
    identity: Identity, key: AccountKey, box: Bytes32, call: Call, state: StateView
) -> dict[bytes, bytes | None]:
    """New keys in place of those that an identity has; the old one signs for nobody from this block on."""
    period = key_period(identity.did, identity.periods, state)
    assert period is not None, "every key of an identity has its period"
    number = identity.periods + 1
    rotated = replace(identity, key=key, box=box, periods=number)
    has_account = ledger_keys.account_number(key, state) is not None
    return (
        _put_identity(rotated)
        | {
            keys.key_owner(identity.key): encode(KeyOwner("identity", identity.did, call.height)),
            keys.key_owner(key): encode(KeyOwner("identity", identity.did)),
            keys.key_period(identity.did, identity.periods): encode(replace(period, retired=call.height)),
            keys.key_period(identity.did, number): encode(KeyPeriod(key, box, call.height)),
        }
        | ({} if has_account else ledger_keys.open_account(key, state))
    )


def suspend(operation: IdentitySuspend, call: Call, state: StateView) -> Outcome:
    """Stop one of one's people. Refused: E_ROLE, E_NOT_FOUND, E_STATE."""
    identity = require_employer(operation.did, call, state)
    if identity.is_suspended:
        raise Refused(Code.E_STATE)
    return Outcome(_put_identity(replace(identity, is_suspended=True)), [encode(IdentitySuspended(identity.did))])


def resume(operation: IdentityResume, call: Call, state: StateView) -> Outcome:
    """Let one of one's people act again. Refused: E_ROLE, E_NOT_FOUND, E_STATE."""
    identity = require_employer(operation.did, call, state)
    if not identity.is_suspended:
        raise Refused(Code.E_STATE)
    return Outcome(_put_identity(replace(identity, is_suspended=False)), [encode(IdentityResumed(identity.did))])


def issue_credential(operation: CredentialIssue, call: Call, state: StateView) -> Outcome:
    """Say what one of one's people may act as (F-21). Refused: E_ROLE, E_NOT_FOUND, E_CREDENTIAL, E_DUP."""
    subject = require_employer(operation.subject, call, state)
    if operation.valid_to_ms <= operation.valid_from_ms:
        raise Refused(Code.E_CREDENTIAL)
    before = _credential(operation.subject, operation.role, state)
    if before is not None and before.revoked is None and call.time_ms < before.valid_to_ms:
        raise Refused(Code.E_DUP)
    credential = Credential(
        operation.subject,
        subject.organisation,
        operation.role,
        operation.licence_commit,
        operation.valid_from_ms,
        operation.valid_to_ms,
        operation.groups,
    )
    return Outcome(
        writes={keys.credential(operation.subject, operation.role): encode(credential)},
        events=[encode(CredentialIssued(operation.subject, subject.organisation, operation.role))],
    )


def revoke_credential(operation: CredentialRevoke, call: Call, state: StateView) -> Outcome:
    """Take a role back from this block on. Refused: E_ROLE, E_NOT_FOUND, E_STATE."""
    subject = require_employer(operation.subject, call, state)
    credential = _credential(operation.subject, operation.role, state)
    if credential is None:
        raise Refused(Code.E_NOT_FOUND)
    if credential.revoked is not None:
        raise Refused(Code.E_STATE)
    ended = replace(credential, revoked=call.height)
    return Outcome(
        writes={keys.credential(operation.subject, operation.role): encode(ended)},
        events=[encode(CredentialRevoked(operation.subject, subject.organisation, operation.role))],
    )


def _credential(did: bytes, role: Role, state: StateView) -> Credential | None:
    data = state.get(keys.credential(did, role))
    return None if data is None else decode(Credential, data, limits.STATE_VALUE_BYTES_MAX)


def _put_identity(identity: Identity) -> dict[bytes, bytes | None]:
    return {keys.identity(identity.did): encode(identity)}
