"""Which events a feed tells, and whose they are (F-08, F-15)."""

from typing import get_args

import pytest
from msgspec.structs import replace

from p2pledger.health.erasure_operations import ErasureCertified
from p2pledger.health.events import (
    AccessDecided,
    ConsentRevoked,
    CredentialIssued,
    IntegrityAlerted,
    KeyRotated,
    SharesReleased,
)
from p2pledger.health.topics import Topic, person_of, topics_of
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import PID, account

DECIDED = AccessDecided(id16("access"), PID, 0, "policy", None, "TREAT", 1, hash32("line"))
CASES = [
    (DECIDED, {"access"}, PID),
    (replace(DECIDED, purpose="BTG"), {"access", "break-glass"}, PID),
    (ConsentRevoked(id16("consent"), PID, "withdrawn"), {"consent"}, PID),
    (ErasureCertified(id16("erasure"), PID, id16("Berg"), True), {"erasure"}, PID),
    (SharesReleased(id16("access"), PID, hash32("validator"), 3), {"release"}, PID),
    (
        IntegrityAlerted(PID, id16("Berg"), id16("record"), account("doctor"), None, hash32("one"), hash32("other")),
        {"integrity"},
        PID,
    ),
    (KeyRotated(PID, account("old"), account("new")), {"recovery"}, PID),
    (CredentialIssued(id16("doctor"), id16("Tal"), "physician"), set(), id16("doctor")),
]


@pytest.mark.parametrize(("event", "topics", "person"), CASES, ids=lambda case: type(case).__name__)
def test_an_event_has_its_topics_and_its_person(event, topics, person) -> None:
    assert (topics_of(event), person_of(event)) == (topics, person)


def test_every_topic_is_told_of_by_some_event() -> None:
    assert set().union(*(topics for _, topics, _ in CASES)) == set(get_args(Topic))
