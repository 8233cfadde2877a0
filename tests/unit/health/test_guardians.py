"""F-23 to F-25: who guards a patient, and how guardians freeze a key that was stolen."""

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.health.events import GuardiansChanged, PatientFrozen, PatientUnfrozen
from p2pledger.health.guardian_operations import (
    Freeze,
    GuardianSet,
    Unfreeze,
    freeze_bytes,
    sorted_commits,
    unfreeze_bytes,
)
from p2pledger.health.operations import ConsentRevoke, KeyRotate
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.guarded import (
    AUNT,
    BROTHER,
    COUSIN,
    DELAY_MS,
    FRIEND,
    Guarded,
    approvals,
    commit,
)
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, FOREVER_MS, PATIENT, PID, TAL, World, account


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


# Naming them


def test_the_first_guardians_stand_at_once() -> None:
    world = World(Parameters(recovery_delay_min_ms=HOUR_MS))
    guardians = GuardianSet(PID, 2, sorted_commits([commit(AUNT), commit(BROTHER)]), DELAY_MS, None, 0)
    now_ms = world.now_ms
    assert world.events(PATIENT, guardians) == [GuardiansChanged(PID, 2, 2, now_ms)]


def test_other_guardians_stand_after_the_delay_of_those_before(guarded: Guarded) -> None:
    """F-23: a thief who names its own friends gives the guardians as much time as for a recovery."""
    began_ms = guarded.world.now_ms
    assert guarded.set(COUSIN, FRIEND, delay_ms=HOUR_MS) == Code.OK
    assert guarded.start("new", COUSIN, FRIEND) == Code.E_APPROVAL
    guarded.world.now_ms = began_ms + DELAY_MS - 1
    assert guarded.start("new", COUSIN, FRIEND) == Code.E_APPROVAL
    guarded.world.now_ms = began_ms + DELAY_MS
    assert guarded.start("other", AUNT, BROTHER) == Code.E_APPROVAL
    assert guarded.start("new", COUSIN, FRIEND) == Code.OK


def test_the_last_of_two_changes_counts(guarded: Guarded) -> None:
    assert guarded.set(COUSIN, FRIEND) == Code.OK
    assert guarded.set(AUNT, FRIEND) == Code.OK
    guarded.pass_time(DELAY_MS)
    assert guarded.start("new", AUNT, FRIEND) == Code.OK


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"threshold": 1}, Code.E_GUARDIANS),  # F-22: no single key
        ({"threshold": 4}, Code.E_GUARDIANS),
        ({"guardians": (commit(AUNT), commit(AUNT))}, Code.E_GUARDIANS),
        ({"guardians": tuple(reversed(sorted_commits([commit(AUNT), commit(BROTHER)])))}, Code.E_GUARDIANS),
        ({"capsule": hash32("capsule")}, Code.E_GUARDIANS),
        ({"key_epoch": 1}, Code.E_GUARDIANS),
        ({"delay_ms": HOUR_MS - 1}, Code.E_TIMELOCK),
        ({"delay_ms": limits.RECOVERY_DELAY_MS_MAX + 1}, Code.E_TIMELOCK),
        ({"pid": id16("nobody")}, Code.E_NOT_FOUND),
        ({"pid": id16("doctor")}, Code.E_NOT_FOUND),
        ({"delay_ms": HOUR_MS}, Code.OK),
        ({"capsule": hash32("capsule"), "key_epoch": 1}, Code.OK),
    ],
)
def test_terms_that_cannot_be(guarded: Guarded, changes: dict[str, object], code: Code) -> None:
    """F-22: one guardian alone is never enough; and a delay is neither too short nor endless."""
    assert guarded.set(AUNT, BROTHER, COUSIN, **changes) == code


def test_a_day_is_the_shortest_delay_where_the_genesis_says_nothing() -> None:
    world = World()
    guardians = GuardianSet(PID, 2, sorted_commits([commit(AUNT), commit(BROTHER)]), DAY_MS - 1, None, 0)
    assert world.submit(PATIENT, guardians) == Code.E_TIMELOCK


def test_nobody_but_the_patient_names_guardians(guarded: Guarded) -> None:
    for sender in (BERG, DOCTOR):
        assert guarded.set(COUSIN, FRIEND, sender=sender) == Code.E_NOT_OWNER
    mark = DeceasedMark(PID, True, hash32("evidence"))
    assert guarded.world.submit(BERG, mark, cosigners=[TAL]) == Code.OK
    assert guarded.set(COUSIN, FRIEND) == Code.E_DECEASED


# Freezing


def test_enough_guardians_freeze_at_once(guarded: Guarded) -> None:
    """F-25: no new consents, proxies or keys, and no reading as the patient; what stands goes on."""
    world = guarded.world
    assert world.grant() == Code.OK
    until_ms = world.now_ms + DAY_MS
    attempts = [guarded.freeze(AUNT, until_ms=until_ms), guarded.freeze(AUNT, FRIEND, until_ms=until_ms)]
    assert attempts == [Code.E_THRESHOLD, Code.E_APPROVAL]
    data = freeze_bytes(world.chain, PID, until_ms)
    assert world.events(BERG, Freeze(PID, Millis(until_ms), approvals((AUNT, BROTHER), data))) == [
        PatientFrozen(PID, Millis(until_ms))
    ]
    attorney = ProxyGrant(PID, id16("doctor"), "attorney", ("read",), Millis(0), Millis(FOREVER_MS), hash32("evidence"))
    rotate = KeyRotate(PID, account("mine"), hash32("box"))
    own = {"basis": None, "actor_opening": None, "purpose": "PATRQT"}
    assert world.submit(PATIENT, world.consent(consent_id=id16("of a thief"))) == Code.E_FROZEN
    assert world.submit(PATIENT, attorney) == Code.E_FROZEN
    assert world.submit(PATIENT, rotate, cosigners=[key("mine")]) == Code.E_FROZEN
    assert world.ask("own", PATIENT, **own) == Code.E_FROZEN
    assert world.ask("the doctor by the consent") == Code.OK
    assert world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    world.now_ms = until_ms - 1
    assert world.submit(PATIENT, rotate, cosigners=[key("mine")]) == Code.E_FROZEN
    world.now_ms = until_ms
    assert world.ask("own again", PATIENT, **own) == Code.OK
    assert world.submit(PATIENT, rotate, cosigners=[key("mine")]) == Code.OK


def test_guardians_end_a_freeze(guarded: Guarded) -> None:
    world = guarded.world
    until_ms = world.now_ms + DAY_MS
    assert guarded.unfreeze(AUNT, COUSIN, until_ms=until_ms) == Code.E_STATE
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK
    assert guarded.unfreeze(AUNT, until_ms=until_ms) == Code.E_THRESHOLD
    assert guarded.unfreeze(AUNT, COUSIN, until_ms=until_ms + 1) == Code.E_STATE
    assert guarded.unfreeze(AUNT, COUSIN, until_ms=until_ms) == Code.OK
    assert world.grant() == Code.OK


def test_no_approval_freezes_twice(guarded: Guarded) -> None:
    """What was approved is public afterwards: neither an ended freeze nor an old end comes back with it."""
    until_ms = guarded.world.now_ms + DAY_MS
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms + 1) == Code.E_STATE, "a freeze is not prolonged"
    assert guarded.unfreeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.E_EXPIRED
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms + 1) == Code.OK
    assert guarded.unfreeze(AUNT, BROTHER, until_ms=until_ms) == Code.E_STATE


def test_approvals_to_freeze_do_not_unfreeze(guarded: Guarded) -> None:
    world = guarded.world
    until_ms = world.now_ms + DAY_MS
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK

    data = freeze_bytes(world.chain, PID, until_ms)
    assert world.submit(BERG, Unfreeze(PID, Millis(until_ms), approvals((AUNT, BROTHER), data))) == Code.E_APPROVAL


def test_a_freeze_has_an_end(guarded: Guarded) -> None:
    """F-25: guardians give a patient time, they do not lock it out."""
    most = limits.FREEZE_MAX_MS_DEFAULT
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + most + 1) == Code.E_TIMELOCK
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms) == Code.E_EXPIRED
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + most) == Code.OK


def test_guardians_cannot_keep_their_place_by_freezing(guarded: Guarded) -> None:
    """F-24: a change that the patient asks for while frozen takes effect when the freeze ends, before another one."""
    until_ms = guarded.world.now_ms + 2 * DELAY_MS
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK
    assert guarded.set(COUSIN, FRIEND) == Code.OK
    guarded.world.now_ms = until_ms - 1
    assert guarded.start("new", COUSIN, FRIEND) == Code.E_APPROVAL
    guarded.world.now_ms = until_ms
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms + DAY_MS) == Code.E_APPROVAL
    assert guarded.freeze(COUSIN, FRIEND, until_ms=until_ms + DAY_MS) == Code.OK


def test_the_event_of_a_thaw(guarded: Guarded) -> None:

    until_ms = guarded.world.now_ms + DAY_MS
    guarded.freeze(AUNT, BROTHER, until_ms=until_ms)
    data = unfreeze_bytes(guarded.world.chain, PID, until_ms)
    thaw = Unfreeze(PID, Millis(until_ms), approvals((AUNT, BROTHER), data))
    assert guarded.world.events(BERG, thaw) == [PatientUnfrozen(PID)]


def test_a_patient_without_guardians_is_frozen_by_nobody() -> None:
    guarded = Guarded.__new__(Guarded)
    guarded.world = World()
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + DAY_MS) == Code.E_GUARDIANS
