"""F-20, F-22: keys that were stolen and members that must be stopped; who takes a key back, who gives the next one."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.health import access, directory, keys, membership, queries, stolen_keys
from p2pledger.health.directory import KeyPeriod
from p2pledger.health.events import IdentityRekeyed, KeyRevoked, OrganisationKeyChanged
from p2pledger.health.identity_operations import (
    IdentityRekey,
    KeyRevoke,
    OrganisationKeyRotate,
    OrganisationRekey,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.health.operations import ConsentRevoke, CredentialRevoke, IdentitySuspend, KeyRotate
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from tests.attack import Check, Without
from tests.unit.execution.ledger import founding_of, hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, SEE, TAL, WALD, World, account, batch, registration

DID = id16("doctor")
STOLEN = AccountKey(DOCTOR.public)
REVOKE = KeyRevoke(DID, STOLEN)
REKEY = IdentityRekey(DID, account("doctor 2"), hash32("box 2"))
NEW = key("doctor 2")


@pytest.fixture
def world() -> World:
    return World()


def periods(world: World, identifier: bytes) -> list[KeyPeriod]:
    found = [directory.key_period(identifier, number, world.state) for number in range(1, 10)]
    return [period for period in found if period is not None]


# A practitioner


def test_an_employer_kills_a_stolen_key_at_once(world: World) -> None:
    """F-22: from this block on the thief reads nothing, registers nothing and cannot rotate to a key of its own."""
    world.grant()
    assert world.ask("before") == Code.OK
    (event,) = world.events(TAL, REVOKE)
    assert event == KeyRevoked(DID, STOLEN)
    assert world.ask("after") == Code.E_UNKNOWN_ACTOR
    rotate = KeyRotate(DID, account("thief"), hash32("box"))
    assert world.submit(DOCTOR, rotate, cosigners=[key("thief")]) == Code.E_NOT_OWNER
    assert queries.role_of(STOLEN, world.state) == queries.STRANGER
    assert not world.application.may_send(STOLEN, world.state)
    assert world.submit(TAL, REVOKE) == Code.E_STATE


def test_nobody_else_kills_it(world: World) -> None:
    """Neither another house, nor a colleague, nor a custodian the key of its patient; nor a key that is not current."""
    world.register("nurse", "practitioner", TAL, "Tal")
    assert world.submit(BERG, REVOKE) == Code.E_ROLE
    assert world.submit(key("nurse"), REVOKE) == Code.E_ROLE
    assert world.submit(BERG, KeyRevoke(PID, AccountKey(PATIENT.public))) == Code.E_ROLE
    assert world.submit(TAL, KeyRevoke(id16("nobody"), STOLEN)) == Code.E_NOT_FOUND
    assert world.submit(TAL, replace(REVOKE, key=account("nurse"))) == Code.E_STATE
    assert world.submit(DOCTOR, KeyRotate(DID, REKEY.key, REKEY.box), cosigners=[NEW]) == Code.OK
    assert world.submit(TAL, REVOKE) == Code.E_STATE, "a rotation was faster: the new key is not hit"


def test_person_and_employer_put_a_new_key_in_its_place(world: World) -> None:
    """F-20: one transaction of the new key, cosigned by employer and witness; credentials and consents go on."""
    world.grant()
    assert world.submit(NEW, REKEY, cosigners=[TAL, SEE]) == Code.E_STATE, "nothing was revoked"
    world.submit(TAL, REVOKE)
    assert world.submit(key("other"), REKEY, cosigners=[TAL, SEE]) == Code.E_UNKNOWN_SENDER
    assert world.submit(NEW, REKEY) == Code.E_UNKNOWN_SENDER
    assert world.submit(NEW, REKEY, cosigners=[BERG, SEE]) == Code.E_UNKNOWN_SENDER
    assert world.submit(NEW, REKEY, cosigners=[TAL]) == Code.E_COSIGNERS, "an employer alone becomes nobody (F-22)"
    (event,) = world.events(NEW, REKEY, cosigners=[TAL, SEE])
    assert event == IdentityRekeyed(DID, STOLEN, REKEY.key)
    assert world.ask("again", NEW) == Code.OK
    assert world.ask("thief", DOCTOR) == Code.E_UNKNOWN_ACTOR
    back = replace(REKEY, key=STOLEN)
    world.submit(TAL, KeyRevoke(DID, REKEY.key))
    assert world.submit(DOCTOR, back, cosigners=[TAL, SEE]) == Code.E_DUP, "a dead key stays dead"


def test_a_suspended_person_gets_no_new_key(world: World) -> None:
    world.submit(TAL, REVOKE)
    world.submit(TAL, IdentitySuspend(DID))
    assert world.submit(NEW, REKEY, cosigners=[TAL, SEE]) == Code.E_SUSPENDED
    assert queries.role_of(REKEY.key, world.state) == queries.STRANGER


def test_every_key_keeps_the_heights_between_which_it_counted(world: World) -> None:
    """F-20: what a DID document shows; founders' keys count from height 0."""
    (first,) = periods(world, PID)
    second_key = KeyRotate(PID, account("patient 2"), hash32("box 2"))
    world.submit(PATIENT, second_key, cosigners=[key("patient 2")])
    assert periods(world, PID) == [
        replace(first, retired=world.height),
        KeyPeriod(second_key.key, second_key.box, world.height),  # type: ignore[arg-type]
    ]
    world.submit(TAL, REVOKE)
    (gone,) = periods(world, DID)
    assert gone.retired == world.height
    world.submit(NEW, REKEY, cosigners=[TAL, SEE])
    assert [period.key for period in periods(world, DID)] == [STOLEN, REKEY.key]
    assert [period.since for period in periods(world, id16("Berg"))] == [0]


def test_a_rekey_is_refused_to_those_who_have_accounts_too(world: World) -> None:
    """A colleague who sends it, a house that is no employer, nobody's id, a patient, a witness that is suspended."""
    world.register("nurse", "practitioner", TAL, "Tal")
    world.submit(TAL, REVOKE)
    nurse, own = key("nurse"), replace(REKEY, key=account("nurse"))
    assert world.submit(nurse, REKEY, cosigners=[TAL, SEE]) == Code.E_ROLE
    assert world.submit(nurse, own, cosigners=[BERG, SEE]) == Code.E_ROLE
    assert world.submit(nurse, own, cosigners=[TAL, SEE]) == Code.E_DUP
    assert world.submit(nurse, replace(own, did=id16("nobody")), cosigners=[TAL, SEE]) == Code.E_NOT_FOUND
    assert world.submit(NEW, replace(REKEY, did=id16("nobody")), cosigners=[TAL, SEE]) == Code.E_UNKNOWN_SENDER

    patient = directory.identity_of(PID, world.state)
    assert patient is not None
    world.state.apply({keys.identity(PID): encode(replace(patient, revoked=patient.registered))})
    for sender, operation in ((nurse, replace(own, did=PID)), (NEW, replace(REKEY, did=PID))):
        assert world.submit(sender, operation, cosigners=[BERG, SEE]) in (Code.E_ROLE, Code.E_UNKNOWN_SENDER)

    world.submit(BERG, OrganisationSuspend(id16("See")), cosigners=[WALD])
    assert world.submit(NEW, REKEY, cosigners=[TAL, SEE]) == Code.E_COSIGNERS
    assert world.submit(NEW, REKEY, cosigners=[TAL, BERG]) == Code.OK


def test_keys_are_numbered_without_gaps(world: World) -> None:
    """A document asks for each number from 1 on: rotations, replacements, people and members alike."""
    third = key("doctor 3")
    world.submit(TAL, REVOKE)
    world.submit(NEW, REKEY, cosigners=[TAL, SEE])
    assert world.submit(NEW, KeyRotate(DID, account("doctor 3"), hash32("box 3")), cosigners=[third]) == Code.OK
    world.submit(BERG, OrganisationKeyRotate(account("Berg 2"), hash32("b")), cosigners=[key("Berg 2")])
    again = OrganisationKeyRotate(account("Berg 3"), hash32("c"))
    assert world.submit(key("Berg 2"), again, cosigners=[key("Berg 3")]) == Code.OK
    person, house = directory.identity_of(DID, world.state), directory.organisation_of(id16("Berg"), world.state)
    assert person is not None and house is not None
    assert [period.key for period in periods(world, DID)] == [STOLEN, account("doctor 2"), person.key]
    assert [period.key for period in periods(world, house.id)] == [BERG.public, account("Berg 2"), house.account]
    assert person.periods == house.periods == 3


# A member


def test_the_others_stop_a_member_and_its_people(world: World) -> None:
    """A suspended member's people read nothing and send nothing; its patients keep their rights (F-06)."""
    world.grant()
    world.register("clerk", "practitioner", BERG, "Berg")
    stop = OrganisationSuspend(id16("Tal"))
    assert world.submit(BERG, stop, cosigners=[SEE]) == Code.OK
    assert world.ask("stopped") == Code.E_SUSPENDED
    assert not world.application.may_send(STOLEN, world.state)
    assert not world.application.may_send(AccountKey(TAL.public), world.state)
    assert world.submit(TAL, CredentialRevoke(DID, "physician")) == Code.E_ROLE
    assert world.submit(DOCTOR, KeyRotate(DID, REKEY.key, REKEY.box), cosigners=[NEW]) == Code.E_SUSPENDED
    assert world.submit(key("x"), registration("x", "patient", "Tal"), cosigners=[TAL]) == Code.E_UNKNOWN_SENDER
    assert world.submit(TAL, OrganisationResume(id16("Tal")), cosigners=[BERG, SEE]) == Code.E_ROLE
    assert world.submit(SEE, OrganisationResume(id16("Tal")), cosigners=[BERG]) == Code.OK
    assert world.ask("resumed") == Code.OK
    assert world.submit(BERG, OrganisationResume(id16("Tal")), cosigners=[SEE]) == Code.E_STATE

    assert world.submit(TAL, OrganisationSuspend(id16("Berg")), cosigners=[SEE]) == Code.OK
    assert world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    assert world.application.may_send(AccountKey(PATIENT.public), world.state)
    assert not world.application.may_send(account("clerk"), world.state)


def test_a_majority_of_all_others_is_needed(world: World) -> None:
    """One of three is none, the one concerned has no voice, a suspended one counts and cannot agree."""
    stop = OrganisationSuspend(id16("Tal"))
    assert world.submit(BERG, stop) == Code.E_ROLE
    assert world.submit(BERG, stop, cosigners=[TAL]) == Code.E_ROLE
    assert world.submit(DOCTOR, stop, cosigners=[BERG, SEE]) == Code.E_ROLE
    assert world.submit(BERG, OrganisationSuspend(id16("Nowhere")), cosigners=[SEE]) == Code.E_NOT_FOUND
    assert world.submit(BERG, stop, cosigners=[SEE]) == Code.OK
    assert world.submit(BERG, stop, cosigners=[SEE]) == Code.E_STATE
    third = OrganisationSuspend(id16("Wald"))
    assert world.submit(BERG, third, cosigners=[TAL]) == Code.E_ROLE
    assert world.submit(BERG, third, cosigners=[SEE]) == Code.OK
    assert world.submit(BERG, OrganisationSuspend(id16("See"))) == Code.E_ROLE, "two are left, and stay"
    assert world.submit(BERG, OrganisationResume(id16("Wald")), cosigners=[SEE]) == Code.OK


def test_of_two_members_neither_stops_the_other(world: World) -> None:
    """F-22: a single key of two would otherwise do."""
    pair = World.__new__(World)
    super(World, pair).__init__(world.application, founding_of(["Berg", "Tal"]))
    assert pair.submit(BERG, OrganisationSuspend(id16("Tal"))) == Code.E_ROLE


def test_a_member_rotates_its_own_keys(world: World) -> None:
    """The new account signs too; what it registers and records goes on under the same id."""
    new = key("Berg 2")
    rotate = OrganisationKeyRotate(account("Berg 2"), hash32("box of Berg 2"))
    assert world.submit(BERG, rotate) == Code.E_COSIGNERS
    assert world.submit(DOCTOR, rotate, cosigners=[new]) == Code.E_ROLE
    assert world.submit(BERG, replace(rotate, account=AccountKey(TAL.public)), cosigners=[TAL]) == Code.E_DUP
    (event,) = world.events(BERG, rotate, cosigners=[new])
    assert event == OrganisationKeyChanged(id16("Berg"), AccountKey(BERG.public), rotate.account)
    assert world.submit(BERG, batch()) == Code.E_ROLE
    assert world.submit(new, batch()) == Code.OK
    assert [period.retired for period in periods(world, id16("Berg"))] == [world.height - 2, None]


def test_a_member_whose_key_was_stolen_gets_another_from_the_others(world: World) -> None:
    """First it is suspended, for all to see; the new account signs for itself; then it is resumed."""
    new = key("Tal 2")
    given = OrganisationRekey(id16("Tal"), account("Tal 2"), hash32("box of Tal 2"))
    assert world.submit(BERG, given, cosigners=[SEE, new]) == Code.E_STATE
    world.submit(BERG, OrganisationSuspend(id16("Tal")), cosigners=[SEE])
    assert world.submit(BERG, given, cosigners=[SEE]) == Code.E_COSIGNERS
    assert world.submit(BERG, given, cosigners=[new]) == Code.E_ROLE
    assert world.submit(BERG, given, cosigners=[SEE, new]) == Code.OK
    assert queries.role_of(account("Tal 2"), world.state) == "organisation"
    assert world.submit(new, IdentitySuspend(DID)) == Code.E_ROLE, "not yet resumed"
    assert world.submit(BERG, OrganisationResume(id16("Tal")), cosigners=[SEE]) == Code.OK
    assert world.submit(new, IdentitySuspend(DID)) == Code.OK
    assert world.submit(TAL, IdentitySuspend(DID)) == Code.E_ROLE, "the thief's key is dead"


# Without the rule


def revoked_by_another_house(world: World) -> Code:
    return world.submit(BERG, REVOKE)


def rekeyed_without_a_revocation(world: World) -> Code:
    return world.submit(NEW, REKEY, cosigners=[TAL, SEE])


def rekeyed_without_the_employer(world: World) -> Code:
    world.submit(TAL, REVOKE)
    return world.submit(NEW, REKEY, cosigners=[BERG])


def rekeyed_without_a_witness(world: World) -> Code:
    world.submit(TAL, REVOKE)
    return world.submit(NEW, REKEY, cosigners=[TAL])


def rotated_after_revocation(world: World) -> Code:
    world.submit(TAL, REVOKE)
    return world.submit(DOCTOR, KeyRotate(DID, account("thief"), hash32("box")), cosigners=[key("thief")])


def stopped_by_one(world: World) -> Code:
    return world.submit(BERG, OrganisationSuspend(id16("Tal")))


def stopped_by_a_minority(world: World) -> Code:
    world.submit(BERG, OrganisationSuspend(id16("Wald")), cosigners=[SEE])
    meer = founding_of(["Meer"]).genesis.cards[0]
    member = directory.Organisation(meer.organisation, meer.name, meer.kind, meer.account, meer.box, True)
    world.state.apply({keys.organisation(member.id): encode(member)})
    return world.submit(BERG, OrganisationSuspend(id16("Tal")), cosigners=[SEE])


def rekeyed_while_it_acts(world: World) -> Code:
    given = OrganisationRekey(id16("Tal"), account("Tal 2"), hash32("box"))
    return world.submit(BERG, given, cosigners=[SEE, key("Tal 2")])


def rotated_to_a_key_of_nobody(world: World) -> Code:
    return world.submit(BERG, OrganisationKeyRotate(account("Berg 2"), hash32("box")))


@pytest.mark.attack("T40")
@pytest.mark.parametrize(
    ("check", "attack", "code"),
    [
        (
            Check(directory.require_employer, "identity.organisation != organisation.id"),
            revoked_by_another_house,
            Code.E_ROLE,
        ),
        (Check(stolen_keys.rekey, "raise Refused(Code.E_STATE)"), rekeyed_without_a_revocation, Code.E_STATE),
        (
            Check(directory.has_signed, "organisation.account in call.cosigners"),
            rekeyed_without_the_employer,
            Code.E_UNKNOWN_SENDER,
        ),
        (Check(stolen_keys.rekey, "raise Refused(Code.E_COSIGNERS)"), rekeyed_without_a_witness, Code.E_COSIGNERS),
        (Check(directory.rotate_key, "identity.revoked is not None"), rotated_after_revocation, Code.E_NOT_OWNER),
        (Check(membership._decided_by_others, "raise Refused(Code.E_ROLE)"), stopped_by_one, Code.E_ROLE),
        (
            Check(membership._decided_by_others, "2 * len(in_favour) <= len(others)"),
            stopped_by_a_minority,
            Code.E_ROLE,
        ),
        (Check(membership.rekey, "raise Refused(Code.E_STATE)"), rekeyed_while_it_acts, Code.E_STATE),
        (
            Check(membership._with_keys, "raise Refused(Code.E_COSIGNERS)"),
            rotated_to_a_key_of_nobody,
            Code.E_COSIGNERS,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_keys_and_members_are_changed_by_those_who_may(
    without: Without, check: Check, attack: Callable[[World], Code], code: Code
) -> None:
    """F-22: each rule alone refuses what works without it."""
    with without(*check):
        assert attack(World()) == Code.OK
    assert attack(World()) == code


@pytest.mark.attack("T39")
def test_people_of_a_suspended_member_are_denied(without: Without) -> None:
    """And it is written down."""

    def asked(world: World) -> Code:
        world.grant()
        world.submit(BERG, OrganisationSuspend(id16("Tal")), cosigners=[WALD])
        return world.ask()

    with without(access.reader_of, "not organisation.is_active"):
        assert asked(World()) == Code.OK
    assert asked(World()) == Code.E_SUSPENDED
