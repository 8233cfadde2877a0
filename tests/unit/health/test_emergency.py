"""F-17: an emergency capsule that was opened offline becomes a line of the log, in order, once, and late ones show."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.health import access, break_glass, emergency
from p2pledger.health.emergency import ANCHOR_WITHIN_MS, CLOCK_AHEAD_MS_MAX
from p2pledger.health.emergency_operations import EmergencyAnchor, OfflineOpening, sign_opening
from p2pledger.health.events import AccessDecided, BreakGlassUsed, EmergencyAnchored
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from tests.attack import Check, Without
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, PID, TAL, World, account


@pytest.fixture
def world() -> World:
    return World()


def opening(world: World, number: int = 1, **changes: Any) -> OfflineOpening:
    """The doctor of Tal opened Berg's patient's summary a moment ago."""
    made = OfflineOpening(
        organisation=id16("Tal"),
        number=number,
        previous=bytes(32),
        access_id=id16(f"opening {number}"),
        pid=PID,
        capsule=hash32("capsule"),
        opened_ms=world.now_ms - 1_000,
        reader=account("doctor"),
        reason_commit=hash32("reason"),
    )
    return replace(made, **changes)


def anchor(world: World, one: OfflineOpening, reader: SigningKey = DOCTOR) -> EmergencyAnchor:
    return EmergencyAnchor(one, sign_opening(reader, world.chain, one))


def test_an_opening_becomes_a_line_an_alert_and_a_review(world: World) -> None:
    one = opening(world)
    decided, anchored, alert = world.events(TAL, anchor(world, one))
    assert isinstance(decided, AccessDecided) and isinstance(alert, BreakGlassUsed)
    assert isinstance(anchored, EmergencyAnchored) and not anchored.is_late
    (line,) = world.log()
    assert (line.purpose, line.decision, line.basis, line.reader) == ("BTG", Code.OK, "btg", DOCTOR.public)
    assert (line.actor, line.organisation, line.reason_commit) == (id16("doctor"), id16("Tal"), one.reason_commit)
    assert line.scope_commit == one.capsule
    (pending,) = break_glass.pending(world.state)
    assert pending.access_id == one.access_id
    assert set(pending.signers) == {TAL.public, DOCTOR.public}, "neither of them reviews it"


def test_it_releases_no_shares(world: World) -> None:
    """F-17, I-1: what was opened offline is no allowed access, and its id cannot become one."""
    one = opening(world)
    assert world.submit(TAL, anchor(world, one)) == Code.OK
    kept = access.access_of(one.access_id, world.state)
    assert kept is not None and kept.decision == Code.E_OFFLINE_UNANCHORED
    assert world.submit(DOCTOR, world.request("opening 1")) == Code.E_DUP


def test_openings_come_in_their_order_each_once(world: World) -> None:
    """F-17: none is left out, exchanged or told again."""
    first = opening(world)
    second = opening(world, 2, previous=first.hash)
    assert world.submit(TAL, anchor(world, second)) == Code.E_STATE, "one is left out"
    assert world.submit(TAL, anchor(world, first)) == Code.OK
    assert world.submit(TAL, anchor(world, first)) == Code.E_DUP
    assert world.submit(TAL, anchor(world, replace(second, previous=hash32("another")))) == Code.E_STATE
    assert world.submit(TAL, anchor(world, second)) == Code.OK
    assert emergency.offline_head(id16("Tal"), world.state) == emergency.OfflineHead(2, second.hash)
    assert [line.access_id for line in world.log()] == [first.access_id, second.access_id]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"organisation": id16("Berg")}, Code.E_ROLE),
        ({"pid": id16("doctor")}, Code.E_NOT_FOUND),
        ({"pid": id16("nobody")}, Code.E_NOT_FOUND),
        ({"number": 2}, Code.E_STATE),
        ({"previous": hash32("other")}, Code.E_STATE),
        ({"reason_commit": bytes(32)}, Code.E_CONSENT_INCOMPLETE),
        ({"reader": account("patient")}, Code.E_POP),
    ],
)
def test_what_is_no_opening_of_this_house_is_refused(world: World, changes: dict[str, Any], code: Code) -> None:
    assert world.submit(TAL, anchor(world, opening(world, **changes))) == code
    assert world.log() == []


def test_only_the_reader_itself_has_signed_and_it_is_of_the_house(world: World) -> None:
    """F-17: in the log stands who opened it."""
    one = opening(world)
    assert world.submit(TAL, anchor(world, one, reader=PATIENT)) == Code.E_POP
    changed = replace(anchor(world, one), opening=replace(one, capsule=hash32("another capsule")))
    assert world.submit(TAL, changed) == Code.E_POP
    patients = replace(one, reader=account("patient"))
    assert world.submit(TAL, anchor(world, patients, reader=PATIENT)) == Code.E_UNKNOWN_ACTOR
    assert world.submit(BERG, anchor(world, one)) == Code.E_ROLE, "another member does not speak for the house"


def skipping_one(world: World) -> EmergencyAnchor:
    """The house leaves its first opening out."""
    return anchor(world, opening(world, 2, previous=opening(world).hash))


def in_anothers_name(world: World) -> EmergencyAnchor:
    """A clerk opened it, and the doctor is to have done it."""
    return anchor(world, opening(world), reader=PATIENT)


def by_nobody_of_the_house(world: World) -> EmergencyAnchor:
    world.register("nurse", "practitioner", BERG, "Berg")
    return anchor(world, opening(world, reader=account("nurse")), reader=key("nurse"))


def without_a_reason(world: World) -> EmergencyAnchor:
    return anchor(world, opening(world, reason_commit=bytes(32)))


def of_a_time_to_come(world: World) -> EmergencyAnchor:
    """It could never be late."""
    return anchor(world, opening(world, opened_ms=world.now_ms + ANCHOR_WITHIN_MS))


@pytest.mark.attack("T74")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (skipping_one, Check(emergency.anchor, "if (opening.number, opening.previous)"), Code.E_STATE),
        (in_anothers_name, Check(emergency.anchor, "if not verify("), Code.E_POP),
        (by_nobody_of_the_house, Check(emergency._reader_of, "if identity is None"), Code.E_UNKNOWN_ACTOR),
        (without_a_reason, Check(emergency.anchor, "if opening.reason_commit == _ZERO"), Code.E_CONSENT_INCOMPLETE),
        (of_a_time_to_come, Check(emergency.anchor, "if opening.opened_ms >"), Code.E_FORMAT),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_openings_that_are_not_what_they_say(
    attack: Callable[[World], EmergencyAnchor], check: Check, code: Code, without: Without
) -> None:
    for expected in (Code.OK, code):
        world = World()
        made = attack(world)
        if expected == Code.OK:
            with without(*check):
                assert world.submit(TAL, made) == expected
        else:
            assert world.submit(TAL, made) == expected


@pytest.mark.attack("T74")
def test_an_opening_that_is_anchored_twice(without: Without) -> None:
    """Its review would begin anew, and the first one be forgotten."""
    first = World()
    one = opening(first)
    assert first.submit(TAL, anchor(first, one)) == Code.OK
    again = anchor(first, replace(one, number=2, previous=one.hash))
    with without(emergency.anchor, "if access.access_of(opening.access_id, state) is not None"):
        assert first.submit(TAL, again) == Code.OK
    other = World()
    assert other.submit(TAL, anchor(other, one)) == Code.OK
    assert other.submit(TAL, again) == Code.E_DUP


def test_a_late_one_is_taken_and_said_to_be_late(world: World) -> None:
    """Better late than hidden; the chain says so for ever."""
    late = opening(world, opened_ms=world.now_ms - ANCHOR_WITHIN_MS - 1)
    events = world.events(TAL, anchor(world, late))
    assert any(isinstance(event, EmergencyAnchored) and event.is_late for event in events)


def test_a_clock_may_be_ahead_a_little(world: World) -> None:
    """F-17: not so far that an anchor would never be late."""
    ahead = opening(world, opened_ms=world.now_ms + CLOCK_AHEAD_MS_MAX + 1)
    assert world.submit(TAL, anchor(world, ahead)) == Code.E_FORMAT
    near = opening(world, opened_ms=world.now_ms + CLOCK_AHEAD_MS_MAX)
    assert world.submit(TAL, anchor(world, near)) == Code.OK


def test_a_reader_who_has_left_since_is_still_named(world: World) -> None:
    """Whose credential ended since is for the review to judge; the opening happened."""
    from p2pledger.health.operations import CredentialRevoke

    assert world.submit(TAL, CredentialRevoke(id16("doctor"), "physician")) == Code.OK
    assert world.submit(TAL, anchor(world, opening(world))) == Code.OK
