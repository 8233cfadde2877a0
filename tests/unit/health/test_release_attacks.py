"""Shares without a right to them: each way works without its one rule, and the rule alone refuses it."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.health import commitments, declared, release
from p2pledger.health.commitments import prove_record
from p2pledger.health.operations import ConsentRevoke
from p2pledger.primitives.errors import Code
from tests.attack import Check, Without
from tests.unit.execution.ledger import HOUR_MS, id16
from tests.unit.health.charts import Chart, changed
from tests.unit.health.world import ALLERGY, BERG, PATIENT, batch

NOTE = 7
Attack = Callable[[Chart], Code]


def permitted() -> Chart:
    chart = Chart()
    assert chart.world.grant() == Code.OK
    return chart


def after_a_denial(chart: Chart) -> Code:
    """Denied while the consent was not in force yet; by now it would be allowed, but nobody has asked again."""
    early = chart.world.consent(
        consent_id=id16("early"),
        valid_from_ms=chart.world.now_ms + HOUR_MS,
        valid_to_ms=chart.world.now_ms + 2 * HOUR_MS,
    )
    assert chart.world.submit(PATIENT, early) == Code.OK
    asked = chart.asked(0, basis=id16("early"))
    assert chart.world.decided(asked).decision == Code.E_NOT_YET
    later = early.valid_from_ms
    return chart.code(chart.request(0), block_ms=later, wall_ms=later)


def from_a_node_that_is_cut_off(chart: Chart) -> Code:
    """It has not heard of the revocation."""
    request = chart.allow(0)
    now = chart.moment()
    return chart.code(request, wall_ms=now.block_ms + 3 * now.heartbeat_ms)


def after_the_requests_end(chart: Chart) -> Code:
    end = chart.world.now_ms + HOUR_MS
    return chart.code(chart.allow(0, not_after_ms=end), block_ms=end, wall_ms=end)


def after_a_revocation(chart: Chart) -> Code:
    request = chart.allow(0)
    assert chart.world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    return chart.code(request)


def beyond_the_scope(chart: Chart) -> Code:
    request = chart.allow(0)
    return chart.code(replace(request, openings=(chart.opening(1),)))


def with_another_list(chart: Chart) -> Code:
    """As many records as were asked for, but others."""
    chart.allow(0)
    return chart.code(chart.request(1))


def with_a_longer_list(chart: Chart) -> Code:
    """The patient's log says one record."""
    return chart.code(chart.allow(0, 1, n_records=1))


def the_same_twice(chart: Chart) -> Code:
    request = chart.allow(0)
    return chart.code(replace(request, openings=request.openings * 2))


def of_another_patient(chart: Chart) -> Code:
    chart.world.register("other", "patient", BERG, "Berg")
    root = commitments.record_root(chart.leaves())
    foreign = batch(batch_id=id16("foreign"), pid=id16("other"), n=chart.n, root=root)
    assert chart.world.submit(BERG, foreign) == Code.OK
    chart.batch_id = id16("foreign")
    return chart.code(chart.allow(0))


def of_another_compartment(chart: Chart) -> Code:
    return chart.code(chart.allow(NOTE))


def of_another_month(chart: Chart) -> Code:
    return chart.code(chart.allow(6, months=(202001, 202112)))


def under_a_forged_leaf(chart: Chart) -> Code:
    """A note that says it is an allergy."""
    proof = prove_record(chart.leaves(), NOTE)
    return chart.code(
        changed(chart.allow(NOTE), proof=replace(proof, leaf=replace(proof.leaf, compartments=(ALLERGY,))))
    )


def with_another_capsule(chart: Chart) -> Code:
    return chart.code(changed(chart.allow(0), capsule=chart.capsules[NOTE]))


@pytest.mark.attack("T66")
@pytest.mark.parametrize(
    ("attack", "check", "code"),
    [
        (after_a_denial, Check(release._standing, "if decided.decision != Code.OK"), Code.E_NOT_YET),
        (from_a_node_that_is_cut_off, Check(release.may_release, "if now.is_stale"), Code.E_STALE),
        (
            after_the_requests_end,
            Check(release._standing, "if now.earliest_ms >= decided.request.not_after_ms"),
            Code.E_EXPIRED,
        ),
        (after_a_revocation, Check(release._standing, "if decision.code != Code.OK"), Code.E_REVOKED),
        (beyond_the_scope, Check(release._opens_scope, "scope.issuperset(asked)"), Code.E_SCOPE),
        (
            with_another_list,
            Check(release._opens_scope, "scope_commit(request.salt, request.scope) == decided.request.scope_commit"),
            Code.E_SCOPE,
        ),
        (
            with_a_longer_list,
            Check(release._opens_scope, "len(scope) == len(request.scope) == decided.request.n_records"),
            Code.E_SCOPE,
        ),
        (the_same_twice, Check(release._opens_scope, "len(set(asked)) == len(asked)"), Code.E_SCOPE),
        (of_another_patient, Check(release._entry, "if batch.terms.pid != request.pid"), Code.E_SCOPE),
        (
            of_another_compartment,
            Check(declared.check_declared, "if not set(leaf.compartments) <= set(request.compartments)"),
            Code.E_SCOPE,
        ),
        (of_another_month, Check(declared.check_declared, "if request.months is not None"), Code.E_SCOPE),
        (under_a_forged_leaf, Check(commitments.check_record, "if found != root"), Code.E_COMMIT_MISMATCH),
        (with_another_capsule, Check(release._entry, "if capsule != leaf.capsule"), Code.E_CAPSULE),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_shares_without_a_right_to_them(attack: Attack, check: Check, code: Code, without: Without) -> None:
    """I-1, I-2, I-4: what one rule alone refuses."""
    with without(*check):
        assert attack(permitted()) == Code.OK
    assert attack(permitted()) == code


@pytest.mark.attack("T66")
def test_a_record_of_a_batch_that_is_said_to_be_smaller(without: Without) -> None:
    """The size in a proof is the chain's number of records, or a path could be read as that of another place."""
    chart = permitted()
    request = chart.allow(0)
    proof = request.openings[0].proof
    smaller = changed(request, proof=replace(proof, size=proof.size - 1))
    with without(release._entry, "if opening.proof.size != batch.terms.n"):
        assert chart.code(smaller) == Code.OK
    assert chart.code(smaller) == Code.E_COMMIT_MISMATCH
