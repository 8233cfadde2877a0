"""Who has standing when the state is not the usual one: members that left, keys that were retired, ids that collide."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.health import access, consent, directory, keys, queries
from p2pledger.health.directory import Credential, KeyOwner
from p2pledger.health.operations import (
    CompartmentCount,
    ConsentRevoke,
    IdentitySuspend,
    KeyRotate,
    OrganisationRegister,
    PolicyException,
)
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Height
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import (
    ALLERGY,
    BERG,
    DOCTOR,
    EMERGENCY,
    NOTES,
    PATIENT,
    PID,
    SEE,
    TAL,
    WALD,
    World,
    account,
    batch,
    registration,
)


@pytest.fixture
def world() -> World:
    return World()


def put(world: World, name: bytes, value: Record) -> None:
    """What no operation writes yet, written directly."""
    world.state.apply({name: encode(value)})


def leaves(world: World, name: str) -> None:
    """A member that is no longer active."""
    member = directory.organisation_of(id16(name), world.state)
    assert member is not None
    put(world, keys.organisation(id16(name)), replace(member, is_active=False))


def test_a_member_that_left_does_nothing(world: World) -> None:
    """As a sender, an employer and a custodian; nor does it see patients any more."""
    assert queries.may_see_patient(AccountKey(BERG.public), PID, world.state)
    leaves(world, "Berg")
    assert not directory.may_act(AccountKey(BERG.public), world.state)
    assert not queries.may_see_patient(AccountKey(BERG.public), PID, world.state)
    assert world.submit(BERG, batch()) == Code.E_ROLE
    leaves(world, "Tal")
    assert world.submit(TAL, IdentitySuspend(id16("doctor"))) == Code.E_ROLE


def test_nobody_reads_for_a_member_that_left(world: World) -> None:
    """F-21: its people have their credentials still, and no standing."""
    world.grant()
    assert world.ask("before") == Code.OK
    leaves(world, "Tal")
    assert world.ask("after") == Code.E_SUSPENDED


def test_a_member_that_left_vouches_for_nobody(world: World) -> None:
    """F-20: nor does one that never was; who has an account already is refused by the contract itself."""
    world.register("new", "practitioner", TAL, "Tal")
    again = replace(registration("new", "practitioner", "Tal"), did=id16("again"))
    assert world.submit(key("new"), replace(again, organisation=id16("nowhere")), cosigners=[TAL]) == Code.E_ROLE
    assert world.submit(key("new"), again, cosigners=[BERG]) == Code.E_ROLE
    leaves(world, "Tal")
    assert world.submit(key("new"), again, cosigners=[TAL]) == Code.E_ROLE


def test_a_majority_is_of_those_who_are_active(world: World) -> None:
    """Two of three, once a fourth has left; its own signature does not count."""
    meer = key("Meer")
    admit = OrganisationRegister(id16("Meer"), "Meer", "pharmacy", account("Meer"), hash32("box"))
    assert world.submit(BERG, admit, cosigners=[TAL, meer]) == Code.E_ROLE
    leaves(world, "Wald")
    assert world.submit(BERG, admit, cosigners=[WALD, meer]) == Code.E_ROLE
    assert world.submit(BERG, admit, cosigners=[TAL, meer]) == Code.OK


def test_a_suspended_patient_decides_nothing(world: World) -> None:
    """Neither to grant nor to revoke: the key may be in wrong hands."""
    world.grant()
    patient = directory.identity_of(PID, world.state)
    assert patient is not None
    put(world, keys.identity(PID), replace(patient, is_suspended=True))
    assert world.grant(consent_id=id16("another")) == Code.E_SUSPENDED
    assert world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.E_SUSPENDED


def test_ids_of_organisations_and_of_identities_do_not_meet(world: World) -> None:
    """Anybody's did may be chosen to be an organisation's id: its key is still only what it was registered as."""
    twin = replace(registration("twin", "practitioner", "Tal"), did=id16("Berg"))
    assert world.submit(key("twin"), twin, cosigners=[TAL]) == Code.OK
    assert directory.identity_by_key(AccountKey(BERG.public), world.state) is None
    assert directory.organisation_by_key(account("twin"), world.state) is None
    assert queries.role_of(account("twin"), world.state) == "practitioner"
    assert queries.identity_of(account("twin"), world.state) == ("practitioner", id16("Berg"))
    assert queries.identity_of(AccountKey(BERG.public), world.state) == ("organisation", id16("Berg"))


def test_a_retired_account_of_an_organisation_signs_for_nobody(world: World) -> None:
    """As a rotated key of an identity does."""
    put(world, keys.key_owner(AccountKey(BERG.public)), KeyOwner("organisation", id16("Berg"), Height(1)))
    assert directory.organisation_by_key(AccountKey(BERG.public), world.state) is None
    assert world.submit(BERG, batch()) == Code.E_ROLE


def test_the_key_of_a_node_is_nobodys_new_key(world: World) -> None:
    """A node has an account and belongs to nobody in the directory; nobody may become it."""
    node = key("node of Wald")
    rotate = KeyRotate(PID, AccountKey(node.public), hash32("box"))
    assert world.submit(PATIENT, rotate, cosigners=[node]) == Code.E_DUP
    admit = OrganisationRegister(id16("Meer"), "Meer", "pharmacy", AccountKey(node.public), hash32("box"))
    assert world.submit(BERG, admit, cosigners=[TAL, SEE, node]) == Code.E_DUP


@pytest.mark.parametrize(("time_ms", "is_valid"), [(9, False), (10, True), (19, True), (20, False)])
def test_the_last_instant_of_a_credential_is_out(time_ms: int, is_valid: bool) -> None:
    """F-21, as with consents: the first is in."""
    credential = Credential(id16("doctor"), id16("Tal"), "nurse", hash32("licence"), 10, 20, ())
    assert credential.is_valid(time_ms) is is_valid
    assert not replace(credential, revoked=Height(1)).is_valid(time_ms)


def test_a_request_for_one_month_is_judged(world: World) -> None:
    """First and last month are both included, so they may be the same."""
    world.grant(months=(202601, 202603))
    assert world.ask("one", months=(202602, 202602)) == Code.OK
    assert world.ask("some", months=(202601, 202603)) == Code.OK
    assert world.ask("more", months=(202601, 202604)) == Code.E_SCOPE


def test_a_named_consent_does_not_hide_one_that_says_never(world: World) -> None:
    """F-15: whoever breaks the glass is judged by all consents, whichever the request names."""
    world.credential("doctor", TAL, role="paramedic", groups=(EMERGENCY,))
    emergency: dict[str, Any] = {"purpose": "BTG", "reason_commit": hash32("reason"), "actor_opening": None}
    emergency["cosigners"] = [TAL]
    world.grant()
    assert world.ask("a", **emergency) == Code.OK
    world.grant(consent_id=id16("never"), btg="never")
    assert world.ask("b", **emergency) == Code.E_BTG_FORBIDDEN


def test_an_unknown_patient_has_no_consents(world: World) -> None:
    """Who only asks what the answer would be gets one; the contract refuses such a request."""
    request = world.request(pid=id16("nobody"), basis=None)
    decided = access.evaluate(request, AccountKey(DOCTOR.public), world.now_ms, world.state)
    assert (decided.code, decided.consent_id) == (Code.E_NO_CONSENT, None)


def test_a_rotated_key_is_on_record_as_retired(world: World) -> None:
    """Whose it was, and from which height on it signs for nobody."""
    rotate = KeyRotate(PID, account("patient 2"), hash32("box 2"))
    assert world.submit(PATIENT, rotate, cosigners=[key("patient 2")]) == Code.OK
    retired = directory.key_owner(AccountKey(PATIENT.public), world.state)
    assert retired == KeyOwner("identity", PID, Height(world.height))
    assert directory.key_owner(account("patient 2"), world.state) == KeyOwner("identity", PID)


def test_a_credential_is_issued_again_once_it_has_ended(world: World) -> None:
    """F-21: not while it holds, from its first invalid instant on."""
    end = world.now_ms + 60_000
    assert world.credential("doctor", TAL, role="nurse", valid_to_ms=end) == Code.OK
    world.now_ms = end - 1
    assert world.credential("doctor", TAL, role="nurse") == Code.E_DUP
    world.now_ms = end
    assert world.credential("doctor", TAL, role="nurse") == Code.OK


def test_who_is_unknown_opens_an_account_by_registering_and_by_nothing_else(world: World) -> None:
    """F-20: whatever else the first operation is, also one that names a key."""
    stranger = key("stranger")
    rotate = KeyRotate(PID, AccountKey(stranger.public), hash32("box"))
    for operation in (world.consent(), rotate, IdentitySuspend(PID)):
        assert world.submit(stranger, operation, cosigners=[TAL]) == Code.E_UNKNOWN_SENDER


@pytest.mark.parametrize("months", [(202601, 202601), (202601, 202612)])
def test_a_batch_may_be_of_one_month(world: World, months: tuple[int, int]) -> None:
    """First and last are both included."""
    assert world.submit(BERG, batch(months=months)) == Code.OK


def test_no_compartment_has_more_records_than_the_batch(world: World) -> None:
    """Each of them."""
    good, bad = CompartmentCount(ALLERGY, 7), CompartmentCount(NOTES, 8)
    for compartments in ((good, bad), (bad, good)):
        assert world.submit(BERG, batch(compartments=compartments)) == Code.E_FORMAT
    assert world.submit(BERG, batch()) == Code.OK


def test_an_event_says_whether_the_access_was_allowed(world: World) -> None:
    assert world.decided(world.request("a")).is_allowed is False
    world.grant()
    assert world.decided(world.request("b")).is_allowed is True


def test_each_consent_counts_once(world: World) -> None:
    """Towards the number that a patient may have; ended ones too."""
    assert consent.holdings_of(PID, world.state).count == 0
    for number in (1, 2):
        world.grant(consent_id=id16(f"consent {number}"))
        assert consent.holdings_of(PID, world.state).count == number
    world.submit(PATIENT, ConsentRevoke(id16("consent 1"), "withdrawn"))
    assert consent.holdings_of(PID, world.state).count == 2


def test_a_consent_may_be_of_one_month_and_refuse_some_purposes_only(world: World) -> None:
    """F-07: neither is incomplete; an exception may leave the purposes to a base that names them."""
    assert world.grant(months=(202601, 202601)) == Code.OK
    exception = PolicyException(compartments=(ALLERGY,), months=(202601, 202601))
    assert world.grant(consent_id=id16("a"), exceptions=(exception,)) == Code.OK
    assert world.grant(consent_id=id16("b"), base="deny", exceptions=(exception,)) == Code.OK
    incomplete = world.grant(consent_id=id16("c"), base="deny", purposes=(), exceptions=(exception,))
    assert incomplete == Code.E_CONSENT_INCOMPLETE
