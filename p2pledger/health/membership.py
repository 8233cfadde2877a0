"""Members that must be stopped, and members whose keys were stolen: what the others decide together (F-22).

A majority is counted over all other organisations, suspended ones too, and has at least two members. So no single key
stops anybody, and stopping one member does not make it easier to stop the next; and those who suspended a member are
always enough to resume it.
"""

from msgspec.structs import replace

from p2pledger.execution import keys as ledger_keys
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import directory, keys
from p2pledger.health.directory import KeyOwner, KeyPeriod, Organisation
from p2pledger.health.events import OrganisationKeyChanged, OrganisationResumed, OrganisationSuspended
from p2pledger.health.identity_operations import (
    OrganisationKeyRotate,
    OrganisationRekey,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey, Bytes32
from p2pledger.state.view import StateView

OTHERS_MIN = 2
"""One organisation's stolen key must not stop another, even where there are only two."""


def suspend(operation: OrganisationSuspend, call: Call, state: StateView) -> Outcome:
    """Stop a member and its people. Refused: E_ROLE without the others' majority, E_NOT_FOUND, E_STATE."""
    organisation = _decided_by_others(operation.organisation, call, state)
    if not organisation.is_active:
        raise Refused(Code.E_STATE)
    stopped = replace(organisation, is_active=False)
    return Outcome(_put(stopped), [encode(OrganisationSuspended(organisation.id))])


def resume(operation: OrganisationResume, call: Call, state: StateView) -> Outcome:
    """Let a member act again. Refused: E_ROLE without the others' majority, E_NOT_FOUND, E_STATE."""
    organisation = _decided_by_others(operation.organisation, call, state)
    if organisation.is_active:
        raise Refused(Code.E_STATE)
    active = replace(organisation, is_active=True)
    return Outcome(_put(active), [encode(OrganisationResumed(organisation.id))])


def rotate_key(operation: OrganisationKeyRotate, call: Call, state: StateView) -> Outcome:
    """Replace one's own keys. Refused: E_ROLE, E_COSIGNERS without the new key's signature, E_DUP."""
    organisation = directory.require_organisation(call, state)
    return _with_keys(organisation, operation.account, operation.box, call, state)


def rekey(operation: OrganisationRekey, call: Call, state: StateView) -> Outcome:
    """New keys for a suspended member. Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_COSIGNERS, E_DUP."""
    organisation = _decided_by_others(operation.organisation, call, state)
    if organisation.is_active:  # first everybody sees it stopped
        raise Refused(Code.E_STATE)
    return _with_keys(organisation, operation.account, operation.box, call, state)


def _decided_by_others(identifier: bytes, call: Call, state: StateView) -> Organisation:
    """The organisation, if more than half of the others agree; a suspended one counts and cannot agree."""
    directory.require_organisation(call, state)
    organisation = directory.organisation_of(identifier, state)
    if organisation is None:
        raise Refused(Code.E_NOT_FOUND)
    signers = {call.author, *call.cosigners}
    others = [member for member in directory.organisations(state) if member.id != identifier]
    in_favour = [member for member in others if member.is_active and member.account in signers]
    if len(in_favour) < OTHERS_MIN or 2 * len(in_favour) <= len(others):
        raise Refused(Code.E_ROLE)
    return organisation


def _with_keys(organisation: Organisation, account: AccountKey, box: Bytes32, call: Call, state: StateView) -> Outcome:
    if account not in call.cosigners:
        raise Refused(Code.E_COSIGNERS)
    directory.require_fresh_key(account, state)
    old = directory.key_period(organisation.id, organisation.periods, state)
    assert old is not None, "every key of an organisation has its period"
    renewed = replace(organisation, account=account, box=box, periods=organisation.periods + 1)
    return Outcome(
        writes=_put(renewed)
        | {
            keys.key_owner(old.key): encode(KeyOwner("organisation", organisation.id, call.height)),
            keys.key_owner(account): encode(KeyOwner("organisation", organisation.id)),
            keys.key_period(organisation.id, organisation.periods): encode(replace(old, retired=call.height)),
            keys.key_period(organisation.id, renewed.periods): encode(KeyPeriod(account, box, call.height)),
        }
        | ledger_keys.open_account(account, state),
        events=[encode(OrganisationKeyChanged(organisation.id, old.key, account))],
    )


def _put(organisation: Organisation) -> dict[bytes, bytes | None]:
    return {keys.organisation(organisation.id): encode(organisation)}
