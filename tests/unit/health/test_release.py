"""F-04: when a validator releases its shares; I-1 to I-5, each rule by itself, from the validator's own final state."""

import pytest
from msgspec.structs import replace

from p2pledger.health import consent, release
from p2pledger.health.commitments import RecordRef, prove_record, record_root
from p2pledger.health.identity_operations import KeyRevoke
from p2pledger.health.operations import ConsentRevoke, CredentialRevoke, IdentitySuspend, sign_pop
from p2pledger.health.release import ReleaseEntry
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import AccountKey
from p2pledger.threshold import key_release
from tests.unit.execution.ledger import HOUR_MS, hash32, id16
from tests.unit.health.charts import READER, Chart, changed
from tests.unit.health.world import ALLERGY, BERG, DAY_MS, DOCTOR, EMERGENCY, NOTES, PATIENT, PID, TAL, batch

SEVEN = tuple(range(7))
NOTE = 7


@pytest.fixture
def chart() -> Chart:
    made = Chart()
    assert made.world.grant() == Code.OK
    return made


def entries_of(chart: Chart, *indices: int) -> tuple[ReleaseEntry, ...]:
    answer = chart.may_release(chart.allow(*indices))
    assert not isinstance(answer, Code), answer
    return answer


def test_the_doctor_opens_exactly_the_seven_allergies(chart: Chart) -> None:
    """From the request to the content keys, with the shares of t validators."""
    entries = entries_of(chart, *SEVEN)
    assert [entry.label.index for entry in entries] == list(SEVEN)
    for index, entry in zip(SEVEN, entries, strict=True):
        capsule = chart.capsules[index]
        shares = chart.shares(entry, capsule)
        opened = chart.release.open(capsule, entry.label, entry.access, READER, shares)
        assert opened == key_release.Opened(chart.content_keys[index], ())


def test_an_entry_says_what_is_released_to_whom(chart: Chart) -> None:
    (entry,) = entries_of(chart, 0)
    assert entry.access == key_release.Access(id16("access"), READER.public)
    assert entry.label == chart.label(0)


def test_part_of_the_scope_can_be_asked_for(chart: Chart) -> None:
    request = chart.allow(*SEVEN)
    part = replace(request, openings=request.openings[2:4])
    answer = chart.may_release(part)
    assert not isinstance(answer, Code)
    assert [entry.label.index for entry in answer] == [2, 3]


# I-1: no share without a final permission at this node


def test_nothing_without_an_access_on_this_nodes_chain(chart: Chart) -> None:
    assert chart.code(chart.request(0)) == Code.E_NOT_FOUND


def test_nothing_for_a_denied_access(chart: Chart) -> None:
    assert chart.world.ask(purpose="CLINTRCH") == Code.E_PURPOSE
    assert chart.code(chart.request(0)) == Code.E_PURPOSE


def test_a_denial_stays_one_when_it_would_be_allowed_by_now(chart: Chart) -> None:
    """I-1: the consent was not in force yet, and nobody has asked again."""
    later = chart.world.now_ms + HOUR_MS
    early = chart.world.consent(consent_id=id16("early"), valid_from_ms=later, valid_to_ms=later + HOUR_MS)
    assert chart.world.submit(PATIENT, early) == Code.OK
    assert chart.world.decided(chart.asked(0, basis=id16("early"))).decision == Code.E_NOT_YET
    assert chart.code(chart.request(0), block_ms=later, wall_ms=later) == Code.E_NOT_YET


# I-2: no share after the end of what permitted it


def test_nothing_after_the_consent_has_expired(chart: Chart) -> None:
    request = chart.allow(0)
    end = consent_end(chart)
    assert chart.code(request, block_ms=end - 1, wall_ms=end - 1) == Code.OK
    assert chart.code(request, block_ms=end, wall_ms=end) == Code.E_EXPIRED


def test_the_own_clock_refuses_where_the_chain_stands_still(chart: Chart) -> None:
    """I-2. Less the drift that honest clocks may have; and it never permits what block time refuses."""
    request = chart.allow(0)
    now = chart.moment()
    end = consent_end(chart)
    assert chart.code(request, wall_ms=end + now.drift_ms - 1, heartbeat_ms=0) == Code.OK
    assert chart.code(request, wall_ms=end + now.drift_ms, heartbeat_ms=0) == Code.E_EXPIRED
    assert chart.code(request, block_ms=end, wall_ms=now.wall_ms) == Code.E_EXPIRED


def consent_end(chart: Chart) -> int:
    kept = consent.load(PID, id16("consent"), chart.world.state)
    assert kept is not None
    return kept.terms.valid_to_ms


def test_nothing_from_a_node_that_is_behind(chart: Chart) -> None:
    """I-2: what it has not heard of it must not overlook."""
    request = chart.allow(0)
    now = chart.moment()
    oldest = now.block_ms + 2 * now.heartbeat_ms + now.drift_ms
    assert chart.code(request, wall_ms=oldest) == Code.OK
    assert chart.code(request, wall_ms=oldest + 1) == Code.E_STALE
    assert chart.code(request, wall_ms=oldest + 1, heartbeat_ms=0) == Code.OK, "a chain without heartbeats"


def test_nothing_after_the_consent_was_revoked(chart: Chart) -> None:
    """I-2, F-06: from its block on."""
    request = chart.allow(0)
    assert chart.world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    assert chart.code(request) == Code.E_REVOKED


def test_nothing_after_the_requests_own_end(chart: Chart) -> None:
    """I-2, F-10: whatever the consent says; and with a reader's stolen key nobody gets anything then."""
    end = chart.world.now_ms + HOUR_MS
    request = chart.allow(0, not_after_ms=end)
    drift_ms = chart.moment().drift_ms
    assert chart.code(request, block_ms=end - 1) == Code.OK
    assert chart.code(request, block_ms=end) == Code.E_EXPIRED
    assert chart.code(request, wall_ms=end + drift_ms, heartbeat_ms=0) == Code.E_EXPIRED


def test_nothing_after_the_reader_was_suspended(chart: Chart) -> None:
    request = chart.allow(0)
    assert chart.world.submit(TAL, IdentitySuspend(id16("doctor"))) == Code.OK
    assert chart.code(request) == Code.E_SUSPENDED


def test_nothing_after_the_credential_was_revoked(chart: Chart) -> None:
    request = chart.allow(0)
    assert chart.world.submit(TAL, CredentialRevoke(id16("doctor"), "physician")) == Code.OK
    assert chart.code(request) == Code.E_CREDENTIAL


def test_nothing_after_the_readers_key_was_revoked(chart: Chart) -> None:
    request = chart.allow(0)
    assert chart.world.submit(TAL, KeyRevoke(id16("doctor"), AccountKey(DOCTOR.public))) == Code.OK
    assert chart.code(request) == Code.E_UNKNOWN_ACTOR


def test_a_deny_that_came_later_wins(chart: Chart) -> None:
    """I-7, for what was allowed already: the request named no consent, so all of the patient's count."""
    request = chart.allow(0, basis=None)
    deny = chart.world.consent(
        consent_id=id16("deny"), base="deny", valid_from_ms=chart.world.now_ms, valid_to_ms=chart.world.now_ms + DAY_MS
    )
    assert chart.code(request) == Code.OK
    assert chart.world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn"), deny) == Code.OK
    assert chart.code(request) != Code.OK


def test_one_use_is_one_use_however_often_shares_are_asked_for() -> None:
    chart = Chart()
    assert chart.world.grant(max_uses=1) == Code.OK
    request = chart.allow(0)
    assert chart.code(request) == Code.OK
    assert chart.world.ask("second") == Code.E_USES
    assert chart.code(request) == Code.OK, "the first access is still the one that was allowed"


def test_the_patient_reads_without_anybodys_leave() -> None:
    """F-12, to the keys."""
    chart = Chart()
    request = chart.allow(
        0, NOTE, reader=PATIENT, purpose="PATRQT", basis=None, actor_opening=None, organisation=id16("Berg"),
        compartments=tuple(sorted((ALLERGY, NOTES))), pop=_pop(chart, 0, NOTE),
    )  # fmt: skip
    assert chart.code(request) == Code.OK


def _pop(chart: Chart, *indices: int) -> bytes:
    asked = chart.asked(*indices)
    return sign_pop(PATIENT, chart.world.chain, asked.reader_eph_x25519, asked.access_id, asked.scope_commit)


def test_broken_glass_is_judged_with_its_second_factor() -> None:
    """F-15: who has signed too is remembered with the access, or no share could follow."""
    chart = Chart()
    world = chart.world
    assert world.submit(TAL, CredentialRevoke(id16("doctor"), "physician")) == Code.OK
    assert world.credential("doctor", TAL, groups=(EMERGENCY,)) == Code.OK
    asked = chart.asked(0, purpose="BTG", basis=None, actor_opening=None, reason_commit=hash32("reason"))
    (event, *_) = world.events(DOCTOR, asked, cosigners=[TAL])
    assert getattr(event, "decision", None) == Code.OK
    assert chart.code(chart.request(0)) == Code.OK


# I-4, I-5 and the scope


def test_an_eighth_record_is_not_released(chart: Chart) -> None:
    """I-1. Not one outside the scope, and not one whose compartment was not asked for, scope or no scope."""
    request = chart.allow(*SEVEN)
    more = replace(request, openings=(*request.openings, chart.opening(NOTE)))
    assert chart.code(more) == Code.E_SCOPE
    longer = replace(more, scope=(*request.scope, RecordRef(chart.batch_id, NOTE)))
    assert chart.code(longer) == Code.E_SCOPE
    assert chart.code(chart.allow(NOTE, name="note")) == Code.E_SCOPE


def test_a_record_of_the_same_kind_that_was_not_asked_for_is_not_released(chart: Chart) -> None:
    """I-1: the consent covers it, the access was not about it."""
    request = chart.allow(0)
    assert chart.code(replace(request, openings=(chart.opening(1),))) == Code.E_SCOPE


def test_the_scope_is_opened_with_its_salt_and_its_number(chart: Chart) -> None:
    """I-1: the access that was allowed is about these records."""
    request = chart.allow(0, 1)
    assert chart.code(replace(request, salt=hash32("another salt"))) == Code.E_SCOPE
    assert chart.code(replace(request, scope=request.scope[:1])) == Code.E_SCOPE
    assert chart.code(replace(request, scope=(*request.scope, request.scope[0]))) == Code.E_SCOPE
    assert chart.code(chart.allow(2, name="lied", n_records=3)) == Code.E_SCOPE


def test_a_record_is_asked_for_once(chart: Chart) -> None:
    request = chart.allow(0, 1)
    assert chart.code(replace(request, openings=(request.openings[0],) * 2)) == Code.E_SCOPE


def test_a_record_outside_the_months_is_not_released(chart: Chart) -> None:
    """I-1: the months are a part of what was allowed."""
    assert chart.code(chart.allow(0, months=(202001, 202112))) == Code.OK
    assert chart.code(chart.allow(6, name="later", months=(202001, 202112))) == Code.E_SCOPE


def test_a_record_is_that_of_the_chain(chart: Chart) -> None:
    """I-4: nothing that a leaf says is believed without its path."""
    request = chart.allow(0)
    leaf = request.openings[0].proof.leaf
    proof = request.openings[0].proof
    for forged in (
        replace(proof, leaf=replace(leaf, compartments=(ALLERGY, NOTES))),
        replace(proof, leaf=replace(leaf, capsule=hash32("another"))),
        replace(proof, path=proof.path[1:]),
        replace(proof, size=proof.size + 1),
    ):
        assert chart.code(changed(request, proof=forged)) == Code.E_COMMIT_MISMATCH
    unknown = replace(request, scope=(RecordRef(id16("unknown"), 0),))
    assert chart.code(changed(unknown, batch_id=id16("unknown"))) == Code.E_SCOPE


def test_another_patients_record_is_not_released(chart: Chart) -> None:
    """I-4. The scope is a commitment: nobody saw which records it names until now."""
    world = chart.world
    world.register("other", "patient", BERG, "Berg")
    foreign = batch(batch_id=id16("foreign"), pid=id16("other"), n=chart.n, root=_root(chart))
    assert world.submit(BERG, foreign) == Code.OK
    mine = chart.batch_id
    chart.batch_id = id16("foreign")
    request = chart.allow(0)
    assert chart.code(request) == Code.E_SCOPE
    chart.batch_id = mine


def _root(chart: Chart) -> bytes:
    return record_root(chart.leaves())


def test_another_capsule_than_the_committed_one_is_refused(chart: Chart) -> None:
    """I-4."""
    request = chart.allow(0)
    assert chart.code(changed(request, capsule=chart.capsules[1])) == Code.E_CAPSULE
    assert chart.code(changed(request, capsule=b"")) == Code.E_CAPSULE


def test_a_record_whose_key_is_in_no_capsule_is_refused() -> None:
    chart = Chart()
    bare = [replace(leaf, capsule=None) for leaf in chart.leaves()]

    assert chart.world.grant() == Code.OK
    assert chart.world.submit(BERG, batch(batch_id=id16("bare"), n=chart.n, root=record_root(bare))) == Code.OK
    chart.batch_id = id16("bare")
    request = changed(chart.allow(0), proof=prove_record(bare, 0))
    assert chart.code(request) == Code.E_CAPSULE


def test_a_key_epoch_without_a_key_is_not_found(chart: Chart) -> None:
    assert chart.code(changed(chart.allow(0), key_epoch=2)) == Code.E_NOT_FOUND


def test_a_capsule_in_the_place_of_another_releases_nothing(chart: Chart) -> None:
    """I-4: a custodian that commits to a foreign capsule under its own record has the chain's leave and no share."""
    chart.capsules[0], chart.batch_id = chart.capsules[NOTE], id16("own")
    chart.commit()
    (entry,) = entries_of(chart, 0)
    for keeper in chart.keepers[:3]:
        with pytest.raises(Refused) as refused:
            release.share_of(entry, chart.capsules[0], keeper.holder(), chart.random)
        assert refused.value.code == Code.E_CAPSULE


def test_the_state_alone_decides(chart: Chart) -> None:
    """Two nodes at one height answer alike; one that has not seen the access refuses."""
    request = chart.asked(0)
    asking = chart.request(0)
    assert chart.code(asking) == Code.E_NOT_FOUND
    chart.world.decided(request)
    assert chart.code(asking) == chart.code(asking) == Code.OK
