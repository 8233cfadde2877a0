"""What a node's client port is told about the health state."""

import pytest

from p2pledger.health import consent, keys, log, queries
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, World


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
