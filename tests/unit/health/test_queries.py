"""What a node's client port is told about the health state."""

import pytest

from p2pledger.health import consent, keys, log, queries
from p2pledger.health.identity_operations import OrganisationSuspend
from p2pledger.health.operations import KeyRotate
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.guarded import AUNT, BROTHER, COUSIN, FRIEND, Guarded
from tests.unit.health.guarded import salt as salt_of
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, SEE, TAL, World, account


@pytest.fixture
def world() -> World:
    return World()


def test_a_key_is_its_owners(world: World) -> None:
    """An organisation's, an identity's or nobody's, with the id that it goes by."""
    expected = {
        BERG: ("organisation", id16("Berg")),
        DOCTOR: ("practitioner", id16("doctor")),
        PATIENT: ("patient", PID),
        key("stranger"): ("stranger", None),
    }
    for asker, answer in expected.items():
        account = AccountKey(asker.public)
        assert queries.identity_of(account, world.state) == answer
        assert queries.role_of(account, world.state) == answer[0]


def test_only_a_patient_has_an_owner_and_a_custodian(world: World) -> None:
    """Neither anybody else's did nor one that nobody has."""
    assert queries.pid_owner(PID, world.state) == PATIENT.public
    assert queries.custodian_of(PID, world.state) == id16("Berg")
    for other in (id16("doctor"), id16("nobody")):
        assert queries.pid_owner(other, world.state) is None
        assert queries.custodian_of(other, world.state) is None


def test_a_log_and_consents_are_those_of_the_patient(world: World) -> None:
    """As they stand in the state, so that a proof fits them."""
    world.grant()
    for name in ("a", "b", "c"):
        world.ask(name)
    lines = queries.log_lines(PID, world.state)
    head = queries.log_head(PID, world.state)
    assert len(log.check_lines(PID, lines, head)) == head.count == 3
    assert queries.log_lines(PID, world.state, 2, 3) == lines[1:]
    assert world.state.get(queries.log_head_key(PID)) is not None
    assert queries.log_head_key(PID) == keys.log_head(PID)
    (kept,) = queries.consents_of(PID, world.state)
    assert consent.decode_consent(kept).terms.consent_id == id16("consent")


def _may(world: World, asker: SigningKey, asked: bytes) -> bool:
    return queries.may_read_state(AccountKey(asker.public), asked, world.state)


def test_who_may_ask_for_state_with_its_proof(world: World) -> None:
    """F-20, F-29: members for all; people for members, practitioners and themselves; strangers for nothing."""
    world.register("neighbour", "patient", BERG, "Berg")
    neighbour, stranger = key("neighbour"), key("stranger")
    own = [keys.identity(PID), keys.credentials(PID), keys.key_period(PID, 1), keys.key_owner(PATIENT.public)]
    public = [
        keys.organisation(id16("Tal")),
        keys.key_period(id16("Tal"), 1),
        keys.identity(id16("doctor")),
        keys.credential(id16("doctor"), "physician"),
        keys.key_period(id16("doctor"), 1),
    ]
    closed = [
        keys.log_head(PID),
        keys.consents(PID),
        keys.batch(id16("batch")),
        keys.access(id16("access")),
        keys.organisation_name("Tal"),
        keys.identity(id16("nobody")),
        b"",
    ]
    for asked in own + public + closed:
        assert _may(world, BERG, asked), "a member asks for everything"
        assert not _may(world, stranger, asked)
        assert _may(world, PATIENT, asked) == (asked in own + public)
        assert _may(world, neighbour, asked) == _may(world, DOCTOR, asked) == (asked in public)
    assert _may(world, DOCTOR, keys.key_owner(DOCTOR.public))


def test_rotating_does_not_close_ones_own_document(world: World) -> None:
    """The old key still finds out what became of it; a member that is suspended asks as little as a stranger."""
    rotate = KeyRotate(PID, AccountKey(key("patient 2").public), hash32("box"))
    world.events(PATIENT, rotate, cosigners=[key("patient 2")])
    for asker in (PATIENT, key("patient 2")):
        assert _may(world, asker, keys.identity(PID)) and _may(world, asker, keys.key_owner(asker.public))
    assert queries.is_active_member(AccountKey(TAL.public), world.state) is True
    world.events(BERG, OrganisationSuspend(id16("Tal")), cosigners=[SEE])
    assert queries.is_active_member(AccountKey(TAL.public), world.state) is False
    assert queries.is_active_member(AccountKey(DOCTOR.public), world.state) is False
    assert not _may(world, TAL, keys.log_head(PID))


def test_guardians_are_seen_by_those_whom_it_concerns() -> None:
    """F-29: the patient, members, the new key while it waits, and guardians who open their own commitment."""
    guarded = Guarded()
    state = guarded.world.state

    def sees(name: str, salt: bytes | None = None) -> bool:
        return queries.may_see_guardians(account(name), PID, salt, state)

    assert sees("patient") and sees("Tal") and not sees("doctor") and not sees("stranger")
    assert sees(AUNT, salt_of(AUNT)) and not sees(AUNT) and not sees(AUNT, salt_of(BROTHER)) and not sees(FRIEND, None)
    assert not sees("doctor", salt_of(AUNT))
    assert guarded.set(COUSIN, FRIEND) == Code.OK
    assert sees(FRIEND, salt_of(FRIEND)), "a guardian to come may look, too"
    assert not sees("new")
    assert guarded.start("new", AUNT, BROTHER) == Code.OK
    assert sees("new")
    assert guarded.veto("new") == Code.OK
    assert not sees("new")


def test_who_guards_is_told_with_the_recovery_that_waits_or_was_asked_for() -> None:
    guarded = Guarded()
    state = guarded.world.state
    assert queries.guardianship(id16("nobody"), None, state) is None
    data, recovery = queries.guardianship(PID, None, state) or (b"", b"")
    assert data == state.get(keys.guardianship(PID)) and recovery is None
    assert guarded.start("new", AUNT, BROTHER) == Code.OK
    identifier = id16("recovery to new")
    waits = state.get(keys.recovery(identifier))
    assert queries.guardianship(PID, None, state) == (state.get(keys.guardianship(PID)), waits)
    assert guarded.veto("new") == Code.OK
    assert queries.guardianship(PID, None, state) == (state.get(keys.guardianship(PID)), None)
    kept = queries.guardianship(PID, identifier, state)
    assert kept is not None and kept[1] == state.get(keys.recovery(identifier))
    assert queries.guardianship(PID, id16("unheard of"), state) == (state.get(keys.guardianship(PID)), None)
