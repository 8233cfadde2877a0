"""Who enters what others have to make or to sign: works without the one rule, and the rule alone refuses it."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.health import consent, directory, keys, records
from p2pledger.health.operations import (
    CompartmentCount,
    ConsentRevoke,
    CredentialIssue,
    IdentitySuspend,
    KeyRotate,
    OrganisationRegister,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from tests.attack import Check, Without
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import (
    ALLERGY,
    BERG,
    DAY_MS,
    DOCTOR,
    PATIENT,
    PID,
    SEE,
    TAL,
    World,
    account,
    batch,
    registration,
)

Attack = Callable[[World], Code]


def with_a_foreign_key(world: World) -> Code:
    return world.submit(DOCTOR, registration("puppet", "patient", "Tal"), cosigners=[TAL])


def without_its_sponsor(world: World) -> Code:
    return world.submit(key("new"), registration("new", "practitioner", "Tal"), cosigners=[BERG])


def under_a_taken_did(world: World) -> Code:
    thief = replace(registration("thief", "patient", "Tal"), did=PID)
    return world.submit(key("thief"), thief, cosigners=[TAL])


def with_a_taken_key(world: World) -> Code:
    second = replace(registration("doctor", "patient", "Tal"), did=id16("second"))
    return world.submit(DOCTOR, second, cosigners=[TAL])


def rotated_by_another(world: World) -> Code:
    return world.submit(DOCTOR, KeyRotate(PID, account("mine"), hash32("box")), cosigners=[key("mine")])


def rotated_to_a_key_that_did_not_sign(world: World) -> Code:
    return world.submit(PATIENT, KeyRotate(PID, account("not mine"), hash32("box")))


def rotated_while_suspended(world: World) -> Code:
    world.submit(TAL, IdentitySuspend(id16("doctor")))
    return world.submit(DOCTOR, KeyRotate(id16("doctor"), account("new"), hash32("box")), cosigners=[key("new")])


def suspended_by_another_house(world: World) -> Code:
    return world.submit(BERG, IdentitySuspend(id16("doctor")))


def suspended_by_its_custodian(world: World) -> Code:
    return world.submit(BERG, IdentitySuspend(PID))


def credentials_by_another_house(world: World) -> Code:
    return world.submit(BERG, CredentialIssue(id16("doctor"), "nurse", hash32("licence"), 0, DAY_MS))


MEER = OrganisationRegister(id16("Meer"), "Meer", "pharmacy", account("Meer"), hash32("box"))


def admitted_by_half(world: World) -> Code:
    return world.submit(BERG, MEER, cosigners=[TAL, key("Meer")])


def admitted_without_its_own_signature(world: World) -> Code:
    return world.submit(BERG, MEER, cosigners=[TAL, SEE])


def admitted_under_a_taken_name(world: World) -> Code:
    return world.submit(BERG, replace(MEER, name="Tal"), cosigners=[TAL, SEE, key("Meer")])


def recorded_by_another_house(world: World) -> Code:
    return world.submit(TAL, batch(custodian=id16("Tal")))


def recorded_twice(world: World) -> Code:
    world.submit(BERG, batch())
    return world.submit(BERG, batch(root=hash32("another root")))


def recorded_with_more_than_there_is(world: World) -> Code:
    return world.submit(BERG, batch(compartments=(CompartmentCount(ALLERGY, 8),)))


def granted_by_the_custodian(world: World) -> Code:
    return world.submit(BERG, world.consent())


def granted_by_the_doctor(world: World) -> Code:
    return world.submit(DOCTOR, world.consent())


def granted_without_a_document(world: World) -> Code:
    return world.grant(doc_commit=bytes(32))


def granted_over_another(world: World) -> Code:
    world.grant()
    return world.grant(compartments=None)


def granted_without_end(world: World) -> Code:
    world.state.apply({keys.consent_count(PID): encode(consent.Holdings(limits.CONSENTS_PER_PATIENT_MAX, 0))})
    return world.grant()


def revoked_by_the_doctor(world: World) -> Code:
    world.grant(base="deny", purposes=())
    return world.submit(DOCTOR, ConsentRevoke(id16("consent"), "other"))


@pytest.mark.attack("T40")
@pytest.mark.parametrize(
    ("check", "attack", "code"),
    [
        (Check(directory.register_identity, "operation.key != call.author"), with_a_foreign_key, Code.E_ROLE),
        (
            Check(directory.has_signed, "organisation.account in call.cosigners"),
            without_its_sponsor,
            Code.E_UNKNOWN_SENDER,
        ),
        (
            Check(directory.register_identity, "identity_of(operation.did, state) is not None"),
            under_a_taken_did,
            Code.E_DUP,
        ),
        (
            Check(directory.register_identity, "key_owner(operation.key, state) is not None"),
            with_a_taken_key,
            Code.E_DUP,
        ),
        (Check(directory.rotate_key, "raise Refused(Code.E_NOT_OWNER)"), rotated_by_another, Code.E_NOT_OWNER),
        (
            Check(directory.rotate_key, "raise Refused(Code.E_COSIGNERS)"),
            rotated_to_a_key_that_did_not_sign,
            Code.E_COSIGNERS,
        ),
        (Check(directory.rotate_key, "raise Refused(Code.E_SUSPENDED)"), rotated_while_suspended, Code.E_SUSPENDED),
        (
            Check(directory.require_employer, "identity.organisation != organisation.id"),
            suspended_by_another_house,
            Code.E_ROLE,
        ),
        (
            Check(directory.require_employer, "identity.kind == 'patient'"),
            suspended_by_its_custodian,
            Code.E_ROLE,
        ),
        (
            Check(directory.require_employer, "identity.organisation != organisation.id"),
            credentials_by_another_house,
            Code.E_ROLE,
        ),
        (
            Check(directory.require_majority, "if 2 * len(in_favour) <= len(active)"),
            admitted_by_half,
            Code.E_ROLE,
        ),
        (
            Check(directory.register_organisation, "if operation.account not in"),
            admitted_without_its_own_signature,
            Code.E_ROLE,
        ),
        (
            Check(directory.register_organisation, "raise Refused(Code.E_DUP)"),
            admitted_under_a_taken_name,
            Code.E_DUP,
        ),
        (Check(records.record_batch, "raise Refused(Code.E_ROLE)"), recorded_by_another_house, Code.E_ROLE),
        (Check(records.record_batch, "raise Refused(Code.E_DUP)"), recorded_twice, Code.E_DUP),
        (
            Check(records.record_batch, "raise Refused(Code.E_FORMAT)"),
            recorded_with_more_than_there_is,
            Code.E_FORMAT,
        ),
        (
            Check(directory.require_owner, "raise Refused(Code.E_NOT_OWNER)"),
            granted_by_the_custodian,
            Code.E_NOT_OWNER,
        ),
        (
            Check(directory.require_owner, "raise Refused(Code.E_NOT_OWNER)"),
            granted_by_the_doctor,
            Code.E_NOT_OWNER,
        ),
        (Check(consent.grant, "_check_terms("), granted_without_a_document, Code.E_CONSENT_INCOMPLETE),
        (Check(consent.grant, "raise Refused(Code.E_DUP)"), granted_over_another, Code.E_DUP),
        (Check(consent.grant, "raise Refused(Code.E_QUOTA)"), granted_without_end, Code.E_QUOTA),
        (
            Check(directory.require_owner, "raise Refused(Code.E_NOT_OWNER)"),
            revoked_by_the_doctor,
            Code.E_NOT_OWNER,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_who_may_can_enter_it(without: Without, check: Check, attack: Attack, code: Code) -> None:
    """F-07, F-20, F-21: sender, sponsor, cosigners, employer, custodian and owner."""
    with without(*check):
        assert attack(World()) == Code.OK
    assert attack(World()) == code
