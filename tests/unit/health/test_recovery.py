"""F-23 to F-25 and I-11: guardians replace a lost key, after a delay, unless the present key objects."""

import pytest
from msgspec.structs import replace

from p2pledger.health import directory, recovery
from p2pledger.health.events import RecoveryFinalized, RecoveryStarted, RecoveryVetoed
from p2pledger.health.guardian_operations import (
    RecoveryFinalize,
    RecoveryVeto,
    approve,
    guardian_commit,
    recovery_bytes,
    sorted_commits,
    start_bytes,
)
from p2pledger.health.operations import KeyRotate
from p2pledger.health.proxy_operations import DeceasedMark
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, ChainId, Millis
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.guarded import AUNT, BROTHER, COUSIN, DELAY_MS, FRIEND, Guarded, approvals, salt
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, FOREVER_MS, PATIENT, PID, TAL, account

LONG_MS = 14 * DAY_MS


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def is_new(guarded: Guarded, name: str) -> bool:
    """Whether the patient's key is now the one of this name."""
    patient = directory.identity_of(PID, guarded.world.state)
    assert patient is not None
    return patient.key == account(name)


def test_two_of_three_guardians_replace_a_lost_key(guarded: Guarded) -> None:
    """F-23: pending, told to whom it concerns; final after the delay; the old key is dead, and consents go on."""
    world = guarded.world
    assert world.grant(valid_to_ms=FOREVER_MS) == Code.OK
    began_ms = world.now_ms
    start = guarded.asked("new", AUNT, COUSIN)
    assert world.events(key("new"), start) == [RecoveryStarted(PID, start.recovery, Millis(began_ms + DELAY_MS), False)]
    assert world.submit(key("new"), world.consent(consent_id=id16("too early"))) == Code.E_NOT_OWNER
    world.now_ms = began_ms + DELAY_MS - 1
    assert guarded.finalize("new") == Code.E_TIMELOCK
    world.now_ms = began_ms + DELAY_MS
    done = world.events(DOCTOR, RecoveryFinalize(PID, start.recovery))
    assert done == [RecoveryFinalized(PID, start.recovery, account("patient"), account("new"))]
    assert is_new(guarded, "new")
    assert world.submit(PATIENT, world.consent(consent_id=id16("of the old key"))) == Code.E_NOT_OWNER
    assert world.submit(key("new"), world.consent(consent_id=id16("of the new key"))) == Code.OK
    assert world.ask("by the consent of before") == Code.OK
    assert not world.application.may_send(AccountKey(PATIENT.public), world.state)


def test_the_chain_keeps_both_keys_with_their_heights(guarded: Guarded) -> None:
    """F-20: the DID document of a recovered patient tells since when which key counts."""
    guarded.start("new", AUNT, COUSIN)
    guarded.pass_time(DELAY_MS)
    assert guarded.finalize("new") == Code.OK
    height = guarded.world.height
    first, second = (directory.key_period(PID, number, guarded.world.state) for number in (1, 2))
    assert first is not None and second is not None
    assert (first.retired, second.key, second.box, second.since, second.retired) == (
        height,
        account("new"),
        hash32("box of new"),
        height,
        None,
    )


def test_anybody_finishes_a_recovery(guarded: Guarded) -> None:
    """Also a key that the chain does not know, whose only deed this is; the new key itself may not send before."""
    world = guarded.world
    guarded.start("new", AUNT, COUSIN)
    assert recovery.is_recovering(account("new"), world.state)
    assert not world.application.may_send(account("new"), world.state)
    assert guarded.finalize("new", sender=key("courier")) == Code.E_TIMELOCK
    guarded.pass_time(DELAY_MS)
    assert guarded.finalize("new", sender=key("another courier")) == Code.OK
    assert not world.application.may_send(account("another courier"), world.state)
    assert world.application.may_send(account("new"), world.state)
    guarded.start("other", AUNT, COUSIN)
    assert guarded.veto("other", sender=key("new")) == Code.OK
    assert not recovery.is_recovering(account("other"), world.state)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ((AUNT,), Code.E_THRESHOLD),
        ((AUNT, AUNT), Code.E_APPROVAL),
        ((AUNT, FRIEND), Code.E_APPROVAL),
        ((FRIEND, "foe"), Code.E_APPROVAL),
        ((AUNT, BROTHER, FRIEND), Code.E_APPROVAL),
    ],
)
def test_fewer_than_enough_guardians_start_nothing(guarded: Guarded, names: tuple[str, ...], code: Code) -> None:
    """F-23: not fewer, not one twice, not others; and a stranger's attempt leaves no trace."""
    assert guarded.start("new", *names) == code
    assert directory.key_owner(account("new"), guarded.world.state) is None


def test_one_guardian_under_two_commitments_counts_once() -> None:
    """A patient may have named somebody twice; it is still one key."""
    guarded = Guarded()
    twice = [hash32("one salt"), hash32("another")]
    commits = sorted_commits([guardian_commit(PID, one, account(AUNT)) for one in twice])
    assert guarded.set(guardians=commits) == Code.OK
    guarded.pass_time(DELAY_MS)
    start = guarded.asked("new")
    data = start_bytes(start, guarded.world.chain)
    start = replace(start, approvals=tuple(approve(key(AUNT), one, data) for one in twice))
    assert guarded.world.submit(key("new"), start) == Code.E_APPROVAL


def test_an_approval_is_for_these_keys_this_patient_and_this_chain(guarded: Guarded) -> None:
    """F-23, I-11: what guardians signed for something else is worth nothing, whoever brings it."""
    chain = guarded.world.chain
    start = guarded.asked("new", AUNT, BROTHER)
    common = (start.recovery, start.key, start.box, start.not_after_ms)
    others = [
        recovery_bytes(ChainId(hash32("another chain")), PID, *common),
        recovery_bytes(chain, id16("another patient"), *common),
        recovery_bytes(chain, PID, id16("another recovery"), *common[1:]),
        recovery_bytes(chain, PID, start.recovery, account("mine"), *common[2:]),
        recovery_bytes(chain, PID, start.recovery, start.key, hash32("my box"), start.not_after_ms),
        recovery_bytes(chain, PID, *common[:3], start.not_after_ms + 1),
    ]
    for data in others:
        signed = replace(start, approvals=approvals((AUNT, BROTHER), data))
        assert guarded.world.submit(key("new"), signed) == Code.E_APPROVAL
    half = (*approvals((AUNT,), start_bytes(start, chain)), *approvals((BROTHER,), others[3]))
    assert guarded.world.submit(key("new"), replace(start, approvals=half)) == Code.E_APPROVAL
    wrong_salt = (start.approvals[0], replace(start.approvals[1], salt=salt(AUNT)))
    assert guarded.world.submit(key("new"), replace(start, approvals=wrong_salt)) == Code.E_APPROVAL
    assert guarded.world.submit(key("new"), start) == Code.OK


def test_a_known_sender_is_told_what_is_wrong(guarded: Guarded) -> None:
    """Keys that have an account already are no new keys; the codes are those of the rules."""
    world = guarded.world

    def sent_by_berg(start: object) -> Code:
        return world.submit(BERG, start)  # type: ignore[arg-type]

    own = guarded.asked("Berg", AUNT, BROTHER)
    assert sent_by_berg(guarded.asked("new", AUNT, BROTHER)) == Code.E_ROLE
    assert sent_by_berg(own) == Code.E_DUP
    assert sent_by_berg(replace(own, approvals=own.approvals[:1])) == Code.E_THRESHOLD
    assert sent_by_berg(replace(own, approvals=own.approvals[:1] * 2)) == Code.E_APPROVAL
    assert sent_by_berg(replace(own, is_beyond_veto=True)) == Code.E_VETO
    assert sent_by_berg(guarded.asked("Berg", AUNT, BROTHER, pid=id16("nobody"))) == Code.E_NOT_FOUND
    assert sent_by_berg(guarded.asked("Berg", AUNT, BROTHER, not_after_ms=Millis(world.now_ms))) == Code.E_EXPIRED


def test_the_present_key_vetoes_until_the_last_block(guarded: Guarded) -> None:
    """F-24: in the block before it is final, and after the delay as long as nobody has made it so."""
    world = guarded.world
    start = guarded.asked("new", AUNT, BROTHER)
    assert world.submit(key("new"), start) == Code.OK
    guarded.pass_time(DELAY_MS)
    veto, finalize = (
        world.signed(PATIENT, RecoveryVeto(PID, start.recovery)),
        world.signed(BERG, RecoveryFinalize(PID, start.recovery)),
    )
    effects = world.run(veto, finalize)
    assert [Code(done.receipt.code) for done in effects.receipts] == [Code.OK, Code.E_STATE]
    assert is_new(guarded, "patient")
    assert guarded.recovery("new").progress == "vetoed"


def test_a_veto_is_for_the_present_key_alone(guarded: Guarded) -> None:
    guarded.start("new", AUNT, BROTHER)
    for sender in (BERG, DOCTOR, key("new")):
        assert guarded.veto("new", sender=sender) == Code.E_NOT_OWNER
    assert guarded.world.events(PATIENT, RecoveryVeto(PID, id16("recovery to new"))) == [
        RecoveryVetoed(PID, id16("recovery to new"), 1)
    ]
    assert guarded.veto("new") == Code.E_STATE
    assert guarded.veto("unheard of") == Code.E_NOT_FOUND
    assert guarded.finalize("new") == Code.E_STATE


def test_approvals_of_a_vetoed_recovery_are_used_up(guarded: Guarded) -> None:
    """I-11: neither again, nor under another id, nor beyond veto."""
    start = guarded.asked("new", AUNT, BROTHER)
    assert guarded.world.submit(key("new"), start) == Code.OK
    assert guarded.veto("new") == Code.OK
    assert guarded.world.submit(key("new"), start) == Code.E_DUP
    assert guarded.start("newer", AUNT, BROTHER, recovery=start.recovery) == Code.E_DUP


def test_the_present_key_may_be_rotated_while_a_recovery_waits(guarded: Guarded) -> None:
    """Who has the key at the end loses it; who rotates it has not vetoed."""
    guarded.start("new", AUNT, BROTHER)
    rotate = KeyRotate(PID, account("rotated"), hash32("box"))
    assert guarded.world.submit(PATIENT, rotate, cosigners=[key("rotated")]) == Code.OK
    guarded.pass_time(DELAY_MS)
    assert guarded.finalize("new") == Code.OK
    assert is_new(guarded, "new")
    assert not guarded.world.application.may_send(account("rotated"), guarded.world.state)


def test_guardians_are_those_of_the_start(guarded: Guarded) -> None:
    """The set is changed while a recovery waits: that decides nothing, and is void once the recovery is final."""
    guarded.start("new", AUNT, BROTHER)
    assert guarded.set(COUSIN, FRIEND, delay_ms=HOUR_MS) == Code.OK
    guarded.pass_time(2 * DELAY_MS)
    assert guarded.finalize("new") == Code.OK
    assert guarded.start("newer", COUSIN, FRIEND) == Code.E_APPROVAL
    assert guarded.start("newest", AUNT, BROTHER) == Code.OK


def test_a_second_recovery_takes_the_place_of_the_first(guarded: Guarded) -> None:
    """F-23: whoever loses the new wallet, too, begins again; the delay as well."""
    guarded.start("new", AUNT, BROTHER)
    guarded.pass_time(DELAY_MS)
    assert guarded.start("newer", BROTHER, COUSIN) == Code.OK
    assert guarded.recovery("new").progress == "replaced"
    assert guarded.finalize("new") == Code.E_STATE
    assert guarded.finalize("newer") == Code.E_TIMELOCK
    guarded.pass_time(DELAY_MS)
    assert guarded.finalize("newer") == Code.OK


def test_a_thiefs_vetoes_do_not_last(guarded: Guarded) -> None:
    """F-25: after two, one guardian more and the custodian, two weeks, and no veto."""
    everybody = (AUNT, BROTHER, COUSIN)
    for number in range(recovery.VETOES):
        assert guarded.beyond_veto(f"early {number}", *everybody) == Code.E_VETO
        guarded.start(f"new {number}", AUNT, BROTHER)
        assert guarded.veto(f"new {number}") == Code.OK
    assert guarded.beyond_veto("new", AUNT, BROTHER) == Code.E_THRESHOLD
    assert guarded.beyond_veto("new", *everybody, cosigners=()) == Code.E_COSIGNERS
    assert guarded.beyond_veto("new", *everybody, cosigners=[TAL]) == Code.E_COSIGNERS
    began_ms = guarded.world.now_ms
    assert guarded.beyond_veto("new", *everybody) == Code.OK
    assert guarded.veto("new") == Code.E_VETO
    assert guarded.start("weaker", AUNT, BROTHER) == Code.E_STATE, "it cannot take the other's place"
    guarded.world.now_ms = began_ms + LONG_MS - 1
    assert guarded.finalize("new") == Code.E_TIMELOCK
    guarded.world.now_ms = began_ms + LONG_MS
    assert guarded.finalize("new") == Code.OK
    assert guarded.held.vetoes == 0


def test_all_are_enough_where_all_are_needed() -> None:
    """One more than all there are cannot be asked for."""
    guarded = Guarded()
    assert guarded.set(AUNT, BROTHER) == Code.OK
    guarded.pass_time(DELAY_MS)
    for number in range(recovery.VETOES):
        assert guarded.start(f"new {number}", AUNT, BROTHER) == Code.OK
        assert guarded.veto(f"new {number}") == Code.OK
    assert guarded.beyond_veto("new", AUNT, BROTHER) == Code.OK


def test_a_long_delay_of_the_patients_own_stays_long() -> None:
    guarded = Guarded()
    assert guarded.set(AUNT, BROTHER, delay_ms=30 * DAY_MS) == Code.OK
    guarded.pass_time(DELAY_MS)
    for number in range(recovery.VETOES):
        guarded.start(f"new {number}", AUNT, BROTHER)
        guarded.veto(f"new {number}")
    guarded.beyond_veto("new", AUNT, BROTHER)
    found = guarded.recovery("new")
    assert found.due_ms - found.started_ms == 30 * DAY_MS


def test_vetoes_against_former_guardians_do_not_count(guarded: Guarded) -> None:
    for number in range(recovery.VETOES):
        guarded.start(f"new {number}", AUNT, BROTHER)
        assert guarded.veto(f"new {number}") == Code.OK
    assert guarded.set(COUSIN, FRIEND) == Code.OK
    guarded.pass_time(DELAY_MS)
    assert guarded.beyond_veto("new", COUSIN, FRIEND) == Code.E_VETO


def test_a_frozen_patient_is_recovered_and_thawed(guarded: Guarded) -> None:
    """F-25: a freeze gives time for a recovery, ends with it, and takes no veto away (F-24)."""
    until_ms = guarded.world.now_ms + 20 * DAY_MS
    assert guarded.freeze(AUNT, BROTHER, until_ms=until_ms) == Code.OK
    assert guarded.start("new", AUNT, BROTHER) == Code.OK
    assert guarded.veto("new") == Code.OK
    assert guarded.start("newer", AUNT, BROTHER) == Code.OK
    guarded.pass_time(DELAY_MS)
    assert guarded.finalize("newer") == Code.OK
    world = guarded.world
    assert world.submit(key("newer"), world.consent()) == Code.OK


def test_the_dead_are_not_recovered(guarded: Guarded) -> None:
    guarded.start("new", AUNT, BROTHER)
    guarded.pass_time(DELAY_MS)
    mark = DeceasedMark(PID, True, hash32("evidence"))
    assert guarded.world.submit(BERG, mark, cosigners=[TAL]) == Code.OK
    assert guarded.finalize("new") == Code.E_DECEASED
    assert guarded.start("newer", AUNT, BROTHER) == Code.E_DECEASED


def test_admission_lets_a_new_key_in_with_its_approvals_only(guarded: Guarded) -> None:
    """Strangers must not be able to make the chain carry anything."""
    start = guarded.asked("new", AUNT, BROTHER)
    assert guarded.start("new", AUNT, BROTHER, key=account("somebody else")) == Code.E_UNKNOWN_SENDER
    assert guarded.world.submit(key("stranger"), start) == Code.E_UNKNOWN_SENDER
    assert guarded.finalize("new", sender=key("stranger")) == Code.E_NOT_FOUND
