"""F-26, F-27: who asks for erasure, who decides it by when, what is released no more, and when it is done."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import erasure
from p2pledger.health.commitments import RecordRef, scope_commit
from p2pledger.health.erasure import ErasedOf, Erasure
from p2pledger.health.erasure_operations import (
    EraseCertificate,
    EraseDecision,
    ErasedPart,
    EraseRequest,
    ErasureCertified,
    ErasureDecided,
    ErasureRequested,
    HolderRegister,
    HolderRegistered,
)
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.charts import Chart
from tests.unit.health.guarded import AUNT, BROTHER, Guarded
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, PATIENT, PID, SEE, TAL, World, batch

SALT = hash32("salt of the letter")
BATCH, OTHER = id16("batch"), id16("other batch")
MOTHER = key("mother")


@pytest.fixture
def world() -> World:
    return with_records(World())


def with_records(world: World) -> World:
    """Two batches of the patient, of seven and of three records."""
    assert world.submit(BERG, batch()) == Code.OK
    assert world.submit(BERG, batch(batch_id=OTHER, n=3, compartments=())) == Code.OK
    return world


def refs(*parts: ErasedPart) -> list[RecordRef]:
    sizes = {BATCH: 7, OTHER: 3}
    return [RecordRef(part.batch_id, index) for part in parts for index in part.indices or range(sizes[part.batch_id])]


def asked(*parts: ErasedPart, **changes: Any) -> EraseRequest:
    named = refs(*parts)
    made = EraseRequest(id16("erasure"), PID, "patient", scope_commit(SALT, named), len(named))
    return replace(made, **changes)


def accepted(*parts: ErasedPart, **changes: Any) -> EraseDecision:
    return replace(EraseDecision(id16("erasure"), "accept", None, parts, SALT), **changes)


def refused(**changes: Any) -> EraseDecision:
    return replace(EraseDecision(id16("erasure"), "refuse", "retention-law", (), None), **changes)


def certificate(**changes: Any) -> EraseCertificate:
    return replace(EraseCertificate(id16("erasure"), hash32("report"), 7), **changes)


def found(world: World) -> Erasure:
    there = erasure.erasure_of(id16("erasure"), world.state)
    assert there is not None
    return there


def erased(world: World, batch_id: bytes, n: int = 7) -> list[int]:
    return [index for index in range(n) if erasure.is_erased(batch_id, index, world.state)]


def ordered(*parts: ErasedPart) -> tuple[ErasedPart, ...]:
    return tuple(sorted(parts, key=lambda part: part.batch_id))


TWO = ErasedPart(BATCH, (2, 5))
WHOLE = ErasedPart(OTHER, ())


def test_from_the_request_to_the_last_certificate(world: World) -> None:
    """F-26: requested, erasing from the decision on, erased when the custodian and the replica's keeper have signed."""
    assert world.events(BERG, HolderRegister(id16("Berg"), id16("See"), True)) == [
        HolderRegistered(id16("Berg"), id16("See"), True)
    ]
    parts = ordered(TWO, WHOLE)
    (event,) = world.events(PATIENT, asked(*parts))
    due = found(world).requested_ms + limits.ERASE_DECISION_MS_DEFAULT
    assert event == ErasureRequested(id16("erasure"), PID, "patient", 5, due)
    assert (found(world).status, erased(world, BATCH)) == ("requested", [])

    (event,) = world.events(BERG, accepted(*parts))
    assert event == ErasureDecided(id16("erasure"), PID, "accept", None, 5, 2, False)
    assert (found(world).status, erased(world, BATCH), erased(world, OTHER, 3)) == ("erasing", [2, 5], [0, 1, 2])
    assert list(erasure.unfinished(world.state)) == [found(world)]

    (event,) = world.events(SEE, certificate())
    assert event == ErasureCertified(id16("erasure"), PID, id16("See"), False)
    assert (found(world).status, found(world).missing) == ("erasing", (id16("Berg"),))
    (event,) = world.events(BERG, certificate())
    assert event == ErasureCertified(id16("erasure"), PID, id16("Berg"), True)
    assert (found(world).status, found(world).missing) == ("erased", ())
    assert list(erasure.unfinished(world.state)) == []
    assert list(erasure.erasures_of(PID, world.state)) == [found(world)]
    assert erased(world, BATCH) == [2, 5]


def test_a_refusal_is_written_down_with_its_basis(world: World) -> None:
    """F-27: nothing is erased, and the patient sees why."""
    world.events(PATIENT, asked(TWO))
    (event,) = world.events(BERG, refused(reason_commit=hash32("letter")))
    assert event == ErasureDecided(id16("erasure"), PID, "refuse", "retention-law", 0, 0, False)
    assert (found(world).status, erased(world, BATCH)) == ("refused", [])
    assert list(erasure.unfinished(world.state)) == []
    assert world.submit(BERG, certificate()) == Code.E_STATE


def test_part_of_what_was_asked_for(world: World) -> None:
    """F-27: the rest stays, on a basis."""
    world.events(PATIENT, asked(TWO))
    partial = EraseDecision(id16("erasure"), "partial", "legal-hold", (ErasedPart(BATCH, (5,)),), None)
    assert world.submit(BERG, replace(partial, parts=(TWO,))) == Code.E_SCOPE
    world.events(BERG, partial)
    assert (found(world).status, erased(world, BATCH)) == ("erasing", [5])


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        (accepted(TWO, salt=hash32("another salt")), Code.E_SCOPE),
        (accepted(ErasedPart(BATCH, (2, 4))), Code.E_SCOPE),
        (accepted(ErasedPart(BATCH, (2,))), Code.E_SCOPE),
        (accepted(ErasedPart(BATCH, ())), Code.E_SCOPE),
        (accepted(ErasedPart(BATCH, (5, 2))), Code.E_FORMAT),
        (accepted(ErasedPart(BATCH, (2, 2))), Code.E_FORMAT),
        (accepted(ErasedPart(BATCH, (2,)), ErasedPart(BATCH, (5,))), Code.E_FORMAT),
        (accepted(ErasedPart(BATCH, (2, 7))), Code.E_SCOPE),
        (accepted(ErasedPart(id16("nobody's"), (2, 5))), Code.E_SCOPE),
        (accepted(TWO, basis="legal-hold"), Code.E_BASIS),
        (accepted(TWO, salt=None), Code.E_FORMAT),
        (accepted(), Code.E_FORMAT),
        (refused(basis=None), Code.E_BASIS),
        (refused(parts=(TWO,)), Code.E_FORMAT),
        (refused(salt=SALT), Code.E_FORMAT),
        (refused(erase_id=id16("another")), Code.E_NOT_FOUND),
        (accepted(ErasedPart(BATCH, tuple(range(8_000)))), Code.E_SCOPE),
        (accepted(*(ErasedPart(n.to_bytes(16, "big"), tuple(range(8_000))) for n in range(2))), Code.E_TOO_LARGE),
    ],
)
def test_what_a_decision_must_be(world: World, decision: EraseDecision, code: Code) -> None:
    """F-26, F-27: it names the records of the request, each once, in order, and says why where something stays."""
    world.events(PATIENT, asked(TWO))
    assert world.submit(BERG, decision) == code
    assert (found(world).status, erased(world, BATCH)) == ("requested", [])


def test_records_of_another_patient_stay(world: World) -> None:
    """F-26: a decision is about the patient of its request, also in part and at the same custodian."""
    world.register("neighbour", "patient", BERG, "Berg")
    assert world.submit(BERG, batch(batch_id=id16("foreign"), pid=id16("neighbour"))) == Code.OK
    world.events(PATIENT, asked(TWO))
    partial = EraseDecision(id16("erasure"), "partial", "legal-hold", (ErasedPart(id16("foreign"), (2,)),), None)
    assert world.submit(BERG, partial) == Code.E_SCOPE
    assert erased(world, id16("foreign")) == []


def test_who_may_ask(world: World) -> None:
    """The patient, its custodian, and a proxy with that power; in no other's name."""
    strange: list[tuple[SigningKey, EraseRequest, Code]] = [
        (DOCTOR, asked(TWO), Code.E_NOT_OWNER),
        (TAL, asked(TWO, asker="custodian"), Code.E_ROLE),
        (PATIENT, asked(TWO, asker="custodian"), Code.E_ROLE),
        (DOCTOR, asked(TWO, asker="proxy"), Code.E_CAPACITY),
        (PATIENT, asked(TWO, asker="proxy"), Code.E_CAPACITY),
        (BERG, asked(TWO, asker="patient"), Code.E_NOT_OWNER),
        (PATIENT, asked(TWO, pid=id16("nobody")), Code.E_NOT_FOUND),
        (DOCTOR, asked(TWO, pid=id16("doctor")), Code.E_NOT_FOUND),
    ]
    for sender, request, code in strange:
        assert world.submit(sender, request) == code
    assert world.submit(BERG, asked(TWO, asker="custodian", erase_id=id16("of the custodian"))) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.OK


def test_a_proxy_asks_with_that_power_only(world: World) -> None:
    """F-30."""
    world.register("mother", "patient", TAL, "Tal")
    end = world.now_ms + DAY_MS
    grant = ProxyGrant(PID, id16("mother"), "attorney", ("consent", "read"), world.now_ms, end, hash32("paper"))
    assert world.submit(PATIENT, grant) == Code.OK
    assert world.submit(MOTHER, asked(TWO, asker="proxy")) == Code.E_CAPACITY
    world.register("aunt", "patient", TAL, "Tal")
    assert world.submit(PATIENT, replace(grant, proxy=id16("aunt"), powers=("erase",))) == Code.OK
    assert world.submit(key("aunt"), asked(TWO, asker="proxy")) == Code.OK
    world.now_ms += DAY_MS
    again = asked(TWO, asker="proxy", erase_id=id16("later"))
    assert world.submit(key("aunt"), again) == Code.E_CAPACITY


def test_a_thief_erases_nothing_while_the_patient_is_frozen() -> None:
    """F-25: erasing cannot be taken back, so it waits; the custodian's own duty does not."""
    guarded = Guarded()
    world = with_records(guarded.world)
    assert guarded.freeze(AUNT, BROTHER, until_ms=world.now_ms + DAY_MS) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.E_FROZEN
    assert world.submit(BERG, asked(TWO, asker="custodian", erase_id=id16("of the custodian"))) == Code.OK
    world.now_ms += DAY_MS
    assert world.submit(PATIENT, asked(TWO)) == Code.OK


def test_the_dead_ask_no_more(world: World) -> None:
    assert world.submit(BERG, DeceasedMark(PID, True, hash32("certificate")), cosigners=[TAL]) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.E_DECEASED


def test_nothing_happens_twice(world: World) -> None:
    """F-26: an id, a decision and a certificate are used once, each by whom it is for."""
    assert world.submit(BERG, certificate()) == Code.E_NOT_FOUND
    world.events(PATIENT, asked(TWO))
    assert world.submit(PATIENT, asked(TWO)) == Code.E_DUP
    assert world.submit(BERG, certificate()) == Code.E_STATE
    assert world.submit(TAL, accepted(TWO)) == Code.E_ROLE
    assert world.submit(PATIENT, accepted(TWO)) == Code.E_ROLE
    world.events(BERG, accepted(TWO))
    assert world.submit(BERG, accepted(TWO)) == Code.E_STATE
    assert world.submit(BERG, refused()) == Code.E_STATE
    assert world.submit(TAL, certificate()) == Code.E_HOLDER
    assert world.submit(PATIENT, certificate()) == Code.E_ROLE
    world.events(BERG, certificate())
    assert world.submit(BERG, certificate()) == Code.E_DUP


def test_a_late_decision_counts_and_is_marked(world: World) -> None:
    """F-26: by block time, the first instant after the period is late; it stands in front of what is unfinished."""
    world = with_records(World(Parameters(erase_decision_ms=60_000)))
    world.events(PATIENT, asked(TWO))
    world.now_ms = found(world).due_ms
    assert list(erasure.unfinished(world.state)) == [found(world)]
    (event,) = world.events(BERG, refused())
    assert isinstance(event, ErasureDecided) and event.is_late


def test_requests_of_one_patient_have_a_bound(world: World) -> None:
    for number in range(limits.ERASURES_WAITING_MAX):
        assert world.submit(PATIENT, asked(TWO, erase_id=number.to_bytes(16, "big"))) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.E_QUOTA
    assert world.submit(BERG, refused(erase_id=bytes(16))) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.OK


def test_only_who_keeps_replicas_says_that_it_keeps_none(world: World) -> None:
    """F-26: a custodian cannot drop a holder to be done sooner; nobody is entered by another."""
    see = HolderRegister(id16("Berg"), id16("See"), True)
    leave = replace(see, is_holding=False)
    tried: Sequence[tuple[SigningKey, Record, Code]] = [
        (SEE, see, Code.E_ROLE),
        (BERG, replace(see, holder=id16("Berg")), Code.E_FORMAT),
        (BERG, replace(see, holder=id16("nobody")), Code.E_NOT_FOUND),
        (SEE, leave, Code.E_NOT_FOUND),
        (BERG, see, Code.OK),
        (BERG, see, Code.E_DUP),
        (BERG, leave, Code.E_ROLE),
        (PATIENT, see, Code.E_ROLE),
        (SEE, leave, Code.OK),
        (SEE, leave, Code.E_NOT_FOUND),
    ]
    for sender, operation, code in tried:
        assert world.submit(sender, operation) == code
    assert erasure.holders_of(id16("Berg"), world.state) == []


def test_who_leaves_during_an_erasure_still_certifies(world: World) -> None:
    """The holders of an erasure are those of the moment of its decision."""
    world.events(BERG, HolderRegister(id16("Berg"), id16("See"), True))
    world.events(PATIENT, asked(TWO))
    world.events(BERG, accepted(TWO))
    world.events(SEE, HolderRegister(id16("Berg"), id16("See"), False))
    world.events(BERG, certificate())
    assert found(world).missing == (id16("See"),)


def test_no_share_of_what_is_being_erased() -> None:
    """F-26, I-2: an access that was allowed releases nothing of it from the decision on; of the rest it does."""
    chart = Chart()
    assert chart.world.grant() == Code.OK
    request = chart.allow(0, 1)
    assert chart.code(request) == Code.OK
    part = ErasedPart(chart.batch_id, (1,))
    chart.world.events(PATIENT, asked(part))
    assert chart.code(request) == Code.OK
    chart.world.events(BERG, accepted(part))
    assert chart.code(request) == Code.E_ERASED
    assert chart.code(replace(request, openings=request.openings[:1])) == Code.OK
    assert chart.code(replace(request, openings=request.openings[1:])) == Code.E_ERASED
    chart.world.events(BERG, certificate())
    assert chart.code(request) == Code.E_ERASED


@given(st.lists(st.lists(st.integers(0, limits.FHIR_ENTRIES_MAX - 1), max_size=20), max_size=5))
def test_a_batch_remembers_exactly_what_was_erased(parts: list[list[int]]) -> None:
    """F-26: whatever is added in whatever order; nothing comes back, and no index at all means all of it."""
    kept = erasure.NOTHING
    wanted: set[int] = set()
    for part in parts:
        kept = kept.joined(sorted(set(part)))
        wanted |= set(part) if part else set(range(limits.FHIR_ENTRIES_MAX))
    assert all(kept.has(index) == (index in wanted) for index in (*range(200), *wanted))
    assert kept.joined(()) == ErasedOf(True, b"")


SENDERS = {"patient": PATIENT, "custodian": BERG, "holder": SEE, "stranger": TAL}
IDS = (id16("one"), id16("two"))
PARTS = (ErasedPart(BATCH, (0,)), ErasedPart(BATCH, (1, 3)), ErasedPart(BATCH, ()))
STEPS = st.tuples(
    st.sampled_from(sorted(SENDERS)),
    st.sampled_from(("ask", "accept", "partial", "refuse", "certify", "enter", "leave", "wait")),
    st.sampled_from(IDS),
    st.sampled_from(PARTS),
)
FORWARD = {
    "": {"", "requested"},
    "requested": {"requested", "refused", "erasing"},
    "refused": {"refused"},
    "erasing": {"erasing", "erased"},
    "erased": {"erased"},
}
"""What may follow what; "": nobody has asked."""


def order_of(kind: str, erase_id: bytes, part: ErasedPart) -> Record:
    match kind:
        case "ask":
            return asked(part, erase_id=erase_id)
        case "accept":
            return accepted(part, erase_id=erase_id)
        case "partial":
            return accepted(part, erase_id=erase_id, verdict="partial", basis="legal-hold", salt=None)
        case "refuse":
            return refused(erase_id=erase_id)
        case "certify":
            return certificate(erase_id=erase_id)
    return HolderRegister(id16("Berg"), id16("See"), kind == "enter")


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=25))
def test_whatever_anybody_sends_erasures_only_go_forward(steps: list[tuple[str, str, bytes, ErasedPart]]) -> None:
    """States, who may, twice, late: nothing comes back, nothing is erased but by the custodian's decision, and what is
    unfinished is exactly what is listed."""
    world = with_records(World(Parameters(erase_decision_ms=60_000)))
    may: dict[str, set[str]] = {
        "ask": {"patient"},
        "certify": {"custodian", "holder"},
        "leave": {"holder"},
        **{kind: {"custodian"} for kind in ("accept", "partial", "refuse", "enter")},
    }
    gone: set[int] = set()
    before = dict.fromkeys(IDS, "")
    for sender, kind, erase_id, part in steps:
        if kind == "wait":
            world.now_ms += 61_000
            continue
        code = world.submit(SENDERS[sender], order_of(kind, erase_id, part))
        assert code != Code.OK or sender in may[kind]
        there = {one: erasure.erasure_of(one, world.state) for one in IDS}
        after = {one: "" if kept is None else kept.status for one, kept in there.items()}
        assert all(after[one] in FORWARD[before[one]] for one in IDS)
        if kind in ("accept", "partial") and code == Code.OK:
            gone |= set(part.indices or range(7))
            kept = there[erase_id]
            assert kept is not None and kept.decided is not None
            assert kept.decided.is_late == (kept.decided.time_ms >= kept.due_ms)
            assert id16("Berg") in kept.holders
        assert set(erased(world, BATCH)) == gone
        waiting = {one.request.erase_id for one in erasure.unfinished(world.state)}
        assert waiting == {one for one in IDS if after[one] in ("requested", "erasing")}
        before = after


def test_who_owes_what_about_erasures_is_counted(world: World) -> None:
    """F-26: overdue for the custodian alone; after the decision each holder owes its certificate until it is there."""

    def owed(name: str) -> tuple[int, int, int]:
        counted = erasure.owed(id16(name), world.now_ms, world.state, 10)
        return counted.unfinished, counted.overdue, counted.uncertified

    assert world.submit(BERG, HolderRegister(id16("Berg"), id16("See"), True)) == Code.OK
    assert world.submit(PATIENT, asked(TWO)) == Code.OK
    assert owed("Berg") == owed("See") == (1, 0, 0)
    world.now_ms = found(world).due_ms
    assert (owed("Berg"), owed("See")) == ((1, 1, 0), (1, 0, 0))
    assert world.submit(BERG, accepted(TWO)) == Code.OK
    assert (owed("Berg"), owed("See"), owed("Tal")) == ((1, 0, 1), (1, 0, 1), (1, 0, 0))
    assert world.submit(BERG, certificate()) == Code.OK
    assert (owed("Berg"), owed("See")) == ((1, 0, 0), (1, 0, 1))
    assert world.submit(SEE, certificate()) == Code.OK
    assert owed("See") == (0, 0, 0)
