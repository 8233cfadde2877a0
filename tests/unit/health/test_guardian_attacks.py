"""Taking a patient's key, or keeping a stolen one: each way works without its one rule, which alone refuses it."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.health import directory, guardian_state, guardians, recovery, recovery_release
from p2pledger.health.guardian_operations import RecoveryStart, recovery_bytes, start_bytes
from p2pledger.health.guardian_state import Guardianship
from p2pledger.health.operations import KeyRotate
from p2pledger.health.recovery_release import RecoverRequest, RecoveryOpening
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import ChainId
from p2pledger.threshold.long_term import LongTerm
from tests.attack import Check, Without
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.guarded import AUNT, BROTHER, COUSIN, DELAY_MS, FRIEND, Guarded, approvals
from tests.unit.health.test_recovery_release import RECOVERY, Kept
from tests.unit.health.world import DAY_MS, PATIENT, PID, account

Attack = Callable[[Guarded], Code]


# T100: without enough guardians, or with what they have signed for something else


def one_guardian_alone(guarded: Guarded) -> Code:
    return guarded.start("new", AUNT)


def one_guardian_twice(guarded: Guarded) -> Code:
    return guarded.start("new", AUNT, AUNT)


def a_guardian_and_a_friend_of_its_own(guarded: Guarded) -> Code:
    return guarded.start("new", AUNT, FRIEND)


def _signed_for(guarded: Guarded, **changes: object) -> RecoveryStart:
    """Rightly approved, with the signatures that were made for something else."""
    start = guarded.asked("new", AUNT, BROTHER)
    fields = {"chain": guarded.world.chain, "pid": PID, "recovery": start.recovery, "key": start.key}
    data = recovery_bytes(**{**fields, "box": start.box, "not_after_ms": start.not_after_ms, **changes})  # type: ignore[arg-type]
    return replace(start, approvals=approvals((AUNT, BROTHER), data))


def approvals_for_other_keys(guarded: Guarded) -> Code:
    return guarded.world.submit(key("new"), _signed_for(guarded, key=account("what they were shown")))


def approvals_of_another_chain(guarded: Guarded) -> Code:
    return guarded.world.submit(key("new"), _signed_for(guarded, chain=ChainId(hash32("another chain"))))


def approvals_for_another_patient(guarded: Guarded) -> Code:
    return guarded.world.submit(key("new"), _signed_for(guarded, pid=id16("another patient")))


def approvals_that_are_too_old(guarded: Guarded) -> Code:
    asked = guarded.asked("new", AUNT, BROTHER, not_after_ms=guarded.world.now_ms + HOUR_MS)
    guarded.pass_time(HOUR_MS)
    return guarded.world.submit(key("new"), asked)


def approvals_that_were_used(guarded: Guarded) -> Code:
    """After the veto the same approvals once more, under another id that they do not name."""
    start = guarded.asked("new", AUNT, BROTHER)
    assert guarded.world.submit(key("new"), start) == Code.OK
    assert guarded.veto("new") == Code.OK
    again = replace(start, recovery=id16("once more"))
    data = start_bytes(again, guarded.world.chain)
    return guarded.world.submit(key("new"), replace(again, approvals=approvals((AUNT, BROTHER), data)))


def one_guardian_is_all_there_are(guarded: Guarded) -> Code:
    """A patient is talked into guardians of whom one is enough."""
    return guarded.set(AUNT, BROTHER, threshold=1)


@pytest.mark.attack("T100")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (one_guardian_alone, Check(guardians.require_approvals, "if len(approvals) < needed"), Code.E_THRESHOLD),
        (
            one_guardian_twice,
            Check(guardians.require_approvals, "if not opened <= set(terms.guardians)"),
            Code.E_APPROVAL,
        ),
        (
            a_guardian_and_a_friend_of_its_own,
            Check(guardians.require_approvals, "if not opened <= set(terms.guardians)"),
            Code.E_APPROVAL,
        ),
        (approvals_for_other_keys, Check(guardians.require_approvals, "if not all("), Code.E_APPROVAL),
        (approvals_of_another_chain, Check(guardians.require_approvals, "if not all("), Code.E_APPROVAL),
        (approvals_for_another_patient, Check(guardians.require_approvals, "if not all("), Code.E_APPROVAL),
        (approvals_that_are_too_old, Check(recovery._require_approved, "if operation.not_after_ms"), Code.E_EXPIRED),
        (approvals_that_were_used, Check(recovery.start, "if directory.key_owner("), Code.E_DUP),
        (one_guardian_is_all_there_are, Check(guardians._check_terms, "if not is_sorted"), Code.E_GUARDIANS),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_nobody_takes_a_key_without_enough_guardians(
    without: Without, attack: Attack, check: Check, code: Code
) -> None:
    with without(*check):
        assert attack(Guarded()) == Code.OK
    assert attack(Guarded()) == code


# T101: guardians who go behind the patient's back


def finish_before_the_delay(guarded: Guarded) -> Code:
    guarded.start("new", AUNT, BROTHER)
    guarded.pass_time(DELAY_MS - 10_000)
    return guarded.finalize("new")


def finish_after_the_veto(guarded: Guarded) -> Code:
    guarded.start("new", AUNT, BROTHER)
    assert guarded.veto("new") == Code.OK
    guarded.pass_time(DELAY_MS)
    return guarded.finalize("new")


def beyond_a_veto_that_nobody_made(guarded: Guarded) -> Code:
    return guarded.beyond_veto("new", AUNT, BROTHER, COUSIN)


def beyond_veto_without_the_custodian(guarded: Guarded) -> Code:
    for number in range(recovery.VETOES):
        guarded.start(f"new {number}", AUNT, BROTHER)
        guarded.veto(f"new {number}")
    return guarded.beyond_veto("new", AUNT, BROTHER, COUSIN, cosigners=())


def freeze_for_ever(guarded: Guarded) -> Code:
    return guarded.freeze(AUNT, BROTHER, until_ms=2**50)


def freeze_again_with_the_same_approvals(guarded: Guarded) -> Code:
    """They are public; anybody has them."""
    until_ms = guarded.world.now_ms + DAY_MS
    guarded.freeze(AUNT, BROTHER, until_ms=until_ms)
    guarded.unfreeze(AUNT, BROTHER, until_ms=until_ms)
    return guarded.freeze(AUNT, BROTHER, until_ms=until_ms)


def prolong_a_freeze(guarded: Guarded) -> Code:
    guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + DAY_MS)
    return guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + 2 * DAY_MS)


@pytest.mark.attack("T101")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (finish_before_the_delay, Check(recovery.finalize, "if call.time_ms < recovery.due_ms"), Code.E_TIMELOCK),
        (finish_after_the_veto, Check(recovery._require_pending, "if held.pending != identifier"), Code.E_STATE),
        (beyond_a_veto_that_nobody_made, Check(recovery._require_beyond_veto, "if held.vetoes"), Code.E_VETO),
        (
            beyond_veto_without_the_custodian,
            Check(recovery._require_beyond_veto, "if not directory.has_signed("),
            Code.E_COSIGNERS,
        ),
        (freeze_for_ever, Check(guardians.freeze, "if operation.until_ms > call.time_ms"), Code.E_TIMELOCK),
        (
            freeze_again_with_the_same_approvals,
            Check(guardians.freeze, "if operation.until_ms <= max("),
            Code.E_EXPIRED,
        ),
        (prolong_a_freeze, Check(guardians.freeze, "if held.frozen_at("), Code.E_STATE),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_guardians_do_not_go_past_the_patient(without: Without, attack: Attack, check: Check, code: Code) -> None:
    with without(*check):
        assert attack(Guarded()) == Code.OK
    assert attack(Guarded()) == code


# T102: a thief who has the patient's key


def _frozen(guarded: Guarded) -> Guarded:
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + DAY_MS) == Code.OK
    return guarded


def consent_while_frozen(guarded: Guarded) -> Code:
    return _frozen(guarded).world.grant()


def another_key_while_frozen(guarded: Guarded) -> Code:
    rotate = KeyRotate(PID, account("mine"), hash32("box"))
    return _frozen(guarded).world.submit(PATIENT, rotate, cosigners=[key("mine")])


def guardians_of_its_own_at_once(guarded: Guarded) -> Code:
    assert guarded.set(FRIEND, "foe") == Code.OK
    return guarded.start("new", FRIEND, "foe")


def guardians_of_its_own_while_frozen(guarded: Guarded) -> Code:
    """Named in time, they would stand in the middle of the freeze, in which the others recover."""
    assert guarded.set(FRIEND, "foe") == Code.OK
    assert guarded.freeze(AUNT, BROTHER, until_ms=guarded.world.now_ms + 20 * DAY_MS) == Code.OK
    guarded.pass_time(DELAY_MS)
    return guarded.start("new", FRIEND, "foe")


def vetoes_without_end(guarded: Guarded) -> Code:
    for number in range(recovery.VETOES):
        guarded.start(f"new {number}", AUNT, BROTHER)
        guarded.veto(f"new {number}")
    assert guarded.beyond_veto("new", AUNT, BROTHER, COUSIN) == Code.OK
    return guarded.veto("new")


@pytest.mark.attack("T102")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (consent_while_frozen, Check(guardian_state.require_thawed, "if is_frozen("), Code.E_FROZEN),
        (another_key_while_frozen, Check(directory.rotate_key, "guardian_state.require_thawed("), Code.E_FROZEN),
        (guardians_of_its_own_at_once, Check(Guardianship.at, "time_ms < self.proposed.from_ms"), Code.E_APPROVAL),
        (guardians_of_its_own_while_frozen, Check(Guardianship.at, "self.frozen_at(time_ms)"), Code.E_APPROVAL),
        (vetoes_without_end, Check(recovery.veto, "if recovery.is_beyond_veto"), Code.E_VETO),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_thief_does_not_keep_a_stolen_key(without: Without, attack: Attack, check: Check, code: Code) -> None:
    with without(*check):
        assert attack(Guarded()) == Code.OK
    assert attack(Guarded()) == code


# T103: old box keys without a right to them


def _judged(kept: Kept, request: RecoverRequest | None = None) -> Code:
    answer = kept.judged(request)
    return answer if isinstance(answer, Code) else Code.OK


def before_it_is_final(kept: Kept) -> Code:
    kept.start()
    return _judged(kept)


def with_a_key_that_was_replaced(kept: Kept) -> Code:
    kept.recover()
    kept.guarded.start("newer", AUNT, COUSIN)
    kept.guarded.pass_time(DELAY_MS)
    assert kept.guarded.finalize("newer") == Code.OK
    return _judged(kept)


def of_another_patients_capsule(kept: Kept) -> Code:
    kept.recover()
    label = replace(kept.label, pid=id16("another patient"))
    foreign = LongTerm(kept.active.key).wrap(hash32("secret"), label, kept.random)
    return _judged(kept, RecoverRequest(RECOVERY, (RecoveryOpening(foreign, 1),)))


def with_a_key_that_guardians_froze(kept: Kept) -> Code:
    kept.recover()
    kept.guarded.freeze(AUNT, COUSIN, until_ms=kept.world.now_ms + DAY_MS)
    return _judged(kept)


@pytest.mark.attack("T103")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (before_it_is_final, Check(recovery_release.may_recover, "if recovery.progress !="), Code.E_STATE),
        (with_a_key_that_was_replaced, Check(recovery_release.may_recover, "if recovery.progress !="), Code.E_STATE),
        (
            of_another_patients_capsule,
            Check(recovery_release.may_recover, "if capsule != recovery.terms.capsule"),
            Code.E_CAPSULE,
        ),
        (
            with_a_key_that_guardians_froze,
            Check(recovery_release.may_recover, "if guardian_state.is_frozen("),
            Code.E_FROZEN,
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_old_box_keys_open_for_the_recovered_patient_alone(
    without: Without, attack: Callable[[Kept], Code], check: Check, code: Code
) -> None:
    with without(*check):
        assert attack(Kept()) == Code.OK
    assert attack(Kept()) == code
