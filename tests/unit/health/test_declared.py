"""F-05: a validator releases nothing that the request did not speak of, whatever the chain has allowed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pledger.health.commitments import RecordLeaf, RecordRef
from p2pledger.health.declared import check_declared
from p2pledger.health.operations import AccessRequest, record_handle
from p2pledger.primitives.errors import Code
from tests.attack import Check, Without
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.world import ALLERGY, NOTES

REF = RecordRef(id16("batch"), 3)
HANDLES = [id16(f"handle {number}") for number in range(4)]
REQUEST = AccessRequest(
    access_id=id16("access"),
    organisation=id16("Tal"),
    pid=id16("patient"),
    basis=None,
    purpose="TREAT",
    actor_opening=None,
    scope_commit=hash32("scope"),
    n_records=1,
    compartments=(ALLERGY, NOTES),
    labels=(),
    months=None,
    reader_eph_x25519=hash32("ephemeral"),
    pop=bytes(64),
    not_after_ms=2**50,
)
LEAF = RecordLeaf(
    index=3,
    commitment=hash32("commitment"),
    capsule=hash32("capsule"),
    ciphertext=hash32("object"),
    author_org=id16("Berg"),
    month=202011,
    compartments=(ALLERGY,),
    resource_class=id16("class"),
    labels=(id16("PSY"), id16("R")),
    authors=(id16("Dr A"), id16("Dr B")),
    encounter=id16("visit"),
)
DECLARED: dict[str, Any] = {
    "labels": (id16("PSY"), id16("R")),
    "months": (202011, 202011),
    "records": (record_handle(REF.batch_id, 3),),
    "classes": (id16("class"),),
    "authors": (id16("Dr A"), id16("Dr B"), id16("Dr C")),
    "encounters": (id16("visit"),),
}


def test_what_was_declared_is_released() -> None:
    assert check_declared(replace(REQUEST, **DECLARED), REF, LEAF) == Code.OK
    assert check_declared(replace(REQUEST, labels=DECLARED["labels"]), REF, LEAF) == Code.OK, "nothing else was said"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"compartments": (NOTES,)}, Code.E_SCOPE),
        ({"months": (202012, 202101)}, Code.E_SCOPE),
        ({"months": (202001, 202010)}, Code.E_SCOPE),
        ({"records": (record_handle(REF.batch_id, 4),)}, Code.E_SCOPE),
        ({"classes": (id16("another class"),)}, Code.E_SCOPE),
        ({"authors": (id16("Dr A"),)}, Code.E_SCOPE),
        ({"encounters": (id16("another visit"),)}, Code.E_SCOPE),
        ({"labels": ()}, Code.E_LABEL),
        ({"labels": (id16("R"),)}, Code.E_LABEL),
    ],
)
def test_each_part_of_a_request_binds(changes: dict[str, Any], code: Code) -> None:
    """F-05: each by itself, whatever else fits."""
    assert check_declared(replace(REQUEST, **(DECLARED | changes)), REF, LEAF) == code


@pytest.mark.attack("T66")
@pytest.mark.parametrize(
    ("changes", "check", "code"),
    [
        (
            {"records": (record_handle(REF.batch_id, 4),)},
            Check(check_declared, "if request.records"),
            Code.E_SCOPE,
        ),
        ({"classes": (id16("another class"),)}, Check(check_declared, "if request.classes"), Code.E_SCOPE),
        ({"authors": (id16("Dr A"),)}, Check(check_declared, "if request.authors"), Code.E_SCOPE),
        ({"encounters": (id16("another visit"),)}, Check(check_declared, "if request.encounters"), Code.E_SCOPE),
        ({"labels": (id16("R"),)}, Check(check_declared, "if not set(leaf.labels)"), Code.E_LABEL),
    ],
)
def test_a_record_beside_what_was_declared(changes: dict[str, Any], check: Check, code: Code, without: Without) -> None:
    """Allowed for something else, and then asked for: only this one rule stands between."""
    request = replace(REQUEST, **(DECLARED | changes))
    with without(*check):
        assert check_declared(request, REF, LEAF) == Code.OK
    assert check_declared(request, REF, LEAF) == code


@pytest.mark.parametrize(
    ("unsaid", "declared"),
    [
        ({"resource_class": None}, "classes"),
        ({"authors": ()}, "authors"),
        ({"encounter": None}, "encounters"),
    ],
)
def test_what_a_leaf_does_not_say_is_not_what_was_asked_for(unsaid: dict[str, Any], declared: str) -> None:
    request = replace(REQUEST, labels=DECLARED["labels"], **{declared: DECLARED[declared]})
    assert check_declared(request, REF, LEAF) == Code.OK
    assert check_declared(request, REF, replace(LEAF, **unsaid)) == Code.E_SCOPE


few = st.lists(st.sampled_from(HANDLES), max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
some = few.filter(bool)
maybe = st.none() | st.sampled_from(HANDLES)
months = st.integers(202001, 202004)


@given(
    st.fixed_dictionaries(
        {
            "compartments": some,
            "labels": few,
            "classes": few,
            "authors": few,
            "encounters": few,
            "records": st.sampled_from([(), (record_handle(REF.batch_id, 3),), (record_handle(REF.batch_id, 4),)]),
            "months": st.none() | st.tuples(months, months),
        }
    ),
    st.fixed_dictionaries(
        {
            "compartments": some,
            "labels": few,
            "authors": few,
            "resource_class": maybe,
            "encounter": maybe,
            "month": months,
        }
    ),
)
def test_the_rule_agrees_with_counting_it_out(asked: dict[str, Any], record: dict[str, Any]) -> None:
    """The same said another way: name everything about the record, and look for anything that was not asked for."""
    facts = [("compartments", one) for one in record["compartments"]]
    facts += [("authors", one) for one in record["authors"] or (None,)]
    facts += [("classes", record["resource_class"]), ("encounters", record["encounter"])]
    facts += [("records", record_handle(REF.batch_id, 3))]
    outside = any((asked[kind] or kind == "compartments") and fact not in asked[kind] for kind, fact in facts)
    span = asked["months"]
    outside = outside or (span is not None and record["month"] not in range(span[0], span[1] + 1))
    undeclared = any(label not in asked["labels"] for label in record["labels"])
    expected = Code.E_SCOPE if outside else Code.E_LABEL if undeclared else Code.OK
    assert check_declared(replace(REQUEST, **asked), REF, replace(LEAF, **record)) == expected
