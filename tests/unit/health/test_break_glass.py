"""Broken glass: its alert, its review, how often, and the quotas that never stop an emergency (F-15, F-16)."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import break_glass, keys, quotas
from p2pledger.health.break_glass_operations import BtgReview
from p2pledger.health.events import AccessDecided, BreakGlassRateExceeded, BreakGlassReviewed, BreakGlassUsed
from p2pledger.health.operations import ConsentRevoke, actor_commit
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, EMERGENCY, PATIENT, PID, SEE, TAL, World, opening

BROKEN: dict[str, Any] = {"purpose": "BTG", "basis": None, "actor_opening": None, "reason_commit": hash32("reason")}
AUDITOR, NURSE = key("auditor"), key("nurse")


def ward(**parameters: Any) -> World:
    """The doctor is of the emergency room; a nurse and an auditor work at Tal, too."""
    world = World(Parameters(**parameters))
    world.credential("doctor", TAL, role="paramedic", groups=(EMERGENCY,))
    for name, role in (("nurse", "nurse"), ("auditor", "auditor")):
        world.register(name, "practitioner", TAL, "Tal")
        world.credential(name, TAL, role=role)
    return world


def breaks(world: World, name: str, **changes: Any) -> Code:
    return world.ask(name, **({"cosigners": [NURSE]} | BROKEN | changes))


def finding(name: str, **changes: Any) -> BtgReview:
    return replace(BtgReview(id16(name), "justified", hash32("note")), **changes)


def test_an_emergency_access_raises_an_alert() -> None:
    """F-15: beside the decision an event for the patient and its custodian, with the time by which to review."""
    world = ward()
    now = world.now_ms
    decided, alert = world.events(DOCTOR, world.request("a", **BROKEN), cosigners=[NURSE])
    assert isinstance(decided, AccessDecided) and decided.basis == "btg"
    assert alert == BreakGlassUsed(id16("a"), PID, id16("Tal"), decided.sequence, now + 3 * DAY_MS)
    assert breaks(world, "denied", cosigners=[]) == Code.E_COSIGNERS
    assert [used.access_id for used in break_glass.pending(world.state)] == [id16("a")]


@pytest.mark.parametrize(
    ("cosigner", "code"),
    [
        (NURSE, Code.OK),
        (TAL, Code.OK),
        (SEE, Code.E_COSIGNERS),
        (PATIENT, Code.E_COSIGNERS),
        (key("porter"), Code.E_COSIGNERS),
        (key("stranger"), Code.E_COSIGNERS),
    ],
)
def test_the_second_factor_is_a_colleague_with_a_credential(cosigner: Any, code: Code) -> None:
    """F-15: the reader's house itself or another of its people; nobody of another house, nobody without credential."""
    world = ward()
    world.register("porter", "practitioner", TAL, "Tal")
    assert breaks(world, "a", cosigners=[cosigner]) == code


def test_a_patient_may_name_who_breaks_the_glass() -> None:
    """F-15, F-05: `named` leaves it to a group or a person, and to nobody else of those who may."""
    world = ward()
    room = opening("group", EMERGENCY.handle)
    assert world.grant(btg="named") == Code.E_CONSENT_INCOMPLETE
    assert world.grant(btg_commits=(actor_commit(room),)) == Code.E_CONSENT_INCOMPLETE
    assert world.grant(btg="named", btg_commits=(actor_commit(room),)) == Code.OK
    assert breaks(world, "a") == Code.E_BTG_FORBIDDEN
    assert breaks(world, "b", actor_opening=opening("person", id16("doctor"))) == Code.E_BTG_FORBIDDEN
    assert breaks(world, "c", actor_opening=room) == Code.OK


def test_a_review_closes_it_within_its_time() -> None:
    """F-15: by the reader's house, the custodian or an auditor of either; once; never by who was there."""
    world = ward()
    breaks(world, "a")
    assert world.submit(TAL, finding("nothing")) == Code.E_NOT_FOUND
    assert world.submit(TAL, finding("a", note_commit=bytes(32))) == Code.E_CONSENT_INCOMPLETE
    for stranger in (SEE, PATIENT, DOCTOR, NURSE):
        assert world.submit(stranger, finding("a")) == Code.E_ROLE
    (event,) = world.events(AUDITOR, finding("a", verdict="unjustified"))
    assert event == BreakGlassReviewed(id16("a"), PID, "unjustified", False)
    assert list(break_glass.pending(world.state)) == []
    assert world.submit(TAL, finding("a")) == Code.E_STATE
    used = break_glass.broken_glass_of(id16("a"), world.state)
    assert used is not None and used.review is not None and used.review.verdict == "unjustified"


def test_who_signed_does_not_review() -> None:
    """F-15: where the house itself was the second factor, the custodian reviews."""
    world = ward()
    breaks(world, "a", cosigners=[TAL])
    assert world.submit(TAL, finding("a")) == Code.E_ROLE
    assert world.submit(BERG, finding("a")) == Code.OK


def test_overdue_reviews_are_listed_in_the_order_of_their_time() -> None:
    """F-15: after 72 hours; a late review is accepted and called late."""
    world = ward()
    breaks(world, "a")
    world.now_ms += HOUR_MS
    breaks(world, "b")
    pending = list(break_glass.pending(world.state))
    assert [used.access_id for used in pending] == [id16("a"), id16("b")]
    world.now_ms = pending[0].due_ms
    overdue = break_glass.overdue(world.now_ms, world.state)
    assert [used.access_id for used in overdue] == [id16("a")]
    assert list(break_glass.overdue(world.now_ms - 1, world.state)) == []
    (event,) = world.events(BERG, finding("a"))
    assert isinstance(event, BreakGlassReviewed) and event.is_late
    world.now_ms = pending[1].due_ms - 1
    (event,) = world.events(BERG, finding("b"))
    assert isinstance(event, BreakGlassReviewed) and not event.is_late


def test_breaking_the_glass_too_often_is_reported_once_a_window() -> None:
    """F-16: at the threshold of uses and of their share, and again in the next window."""
    world = ward(break_glass_alarm_uses=2, break_glass_alarm_permille=500, break_glass_window_ms=DAY_MS)
    world.now_ms = (world.now_ms // DAY_MS + 1) * DAY_MS
    world.grant(valid_to_ms=2**50)
    window = world.now_ms // DAY_MS
    for name in ("x", "y"):
        assert world.ask(name) == Code.OK

    def reported(name: str) -> list[Any]:
        events = world.events(DOCTOR, world.request(name, **BROKEN), cosigners=[NURSE])
        return [event for event in events if isinstance(event, BreakGlassRateExceeded)]

    assert reported("a") == []  # one use of three
    assert reported("b") == [BreakGlassRateExceeded(id16("Tal"), window, 2, 4)]
    assert reported("c") == []
    for account in (keys.organisation_rate(id16("Tal")), keys.person_rate(id16("doctor"))):
        rate = break_glass.rate_of(account, world.now_ms, world.state)
        assert (rate.accesses, rate.broken) == (5, 3)
    world.now_ms += DAY_MS
    assert break_glass.rate_of(keys.organisation_rate(id16("Tal")), world.now_ms, world.state).accesses == 0
    assert (reported("d"), reported("e")) == ([], [BreakGlassRateExceeded(id16("Tal"), window + 1, 2, 2)])


def test_a_rare_emergency_among_many_accesses_is_no_alarm() -> None:
    """F-16: enough uses, but too small a share."""
    world = ward(break_glass_alarm_uses=1, break_glass_alarm_permille=500)
    world.grant()
    for name in ("x", "y"):
        world.ask(name)
    assert len(world.events(DOCTOR, world.request("a", **BROKEN), cosigners=[NURSE])) == 2


# Quotas


def test_refusals_are_limited_by_key_and_window() -> None:
    """F-16, F-73: denied accesses and failed transactions count; then everything is refused without a line."""
    world = ward(refusals_max=3, refusals_window_ms=HOUR_MS)
    world.now_ms = (world.now_ms // HOUR_MS + 1) * HOUR_MS
    assert world.ask("denied") == Code.E_NO_CONSENT
    assert world.submit(DOCTOR, world.request("junk", pid=id16("nobody"))) == Code.E_NOT_FOUND
    assert world.submit(DOCTOR, ConsentRevoke(id16("none"), "other")) == Code.E_NOT_FOUND
    world.grant()
    lines = len(world.log())
    assert world.submit(DOCTOR, world.request("allowed otherwise")) == Code.E_QUOTA
    assert len(world.log()) == lines
    as_nurse: dict[str, Any] = {"actor_opening": opening("person", id16("nurse"))}
    assert world.ask("others are not touched", NURSE, **as_nurse) == Code.E_ACTOR
    world.now_ms += HOUR_MS
    assert world.ask("the next window") == Code.OK


def test_a_used_up_quota_stops_no_emergency() -> None:
    """F-15, F-16: whoever may break the glass still may; whoever may not is stopped."""
    world = ward(refusals_max=1)
    for name, reader in (("a", DOCTOR), ("b", NURSE)):
        assert world.ask(name, reader) == Code.E_NO_CONSENT
    assert breaks(world, "c") == Code.OK
    emergency = world.request("d", NURSE, **BROKEN)
    effects = world.run(world.signed(NURSE, emergency, cosigners=[DOCTOR]))
    assert effects.receipts[0].receipt.code == Code.E_QUOTA


def test_admission_turns_away_who_has_used_up_its_quota() -> None:
    """F-73: before it costs a block; organisations answer with their name and are not counted."""
    world = ward(refusals_max=1)
    application = world.application
    doctor, house = AccountKey(DOCTOR.public), AccountKey(TAL.public)

    def has_quota(account: AccountKey, **changes: Any) -> bool:
        return application.has_quota([world.request("a", **changes)], account, world.now_ms, world.state)

    assert has_quota(doctor)
    world.ask("denied")
    world.submit(TAL, ConsentRevoke(id16("none"), "other"))
    assert (has_quota(doctor), has_quota(doctor, **BROKEN)) == (False, True)
    assert has_quota(house)
    assert quotas.refusals_of(doctor, world.now_ms, world.state).count == 1
