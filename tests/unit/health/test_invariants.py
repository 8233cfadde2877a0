"""I-6 to I-8 over the real contracts: consents that were granted on a chain, requests that were decided on it."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pledger.health import access
from p2pledger.health.operations import ConsentRevoke, PolicyException
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey
from tests.unit.execution.ledger import HOUR_MS, id16
from tests.unit.health.world import ALLERGY, DOCTOR, NOTES, PATIENT, World

PURPOSES = ("TREAT", "ETREAT", "HRESCH", "HPAYMT", "CLINTRL", "COVERAGE")
ASKED = (*PURPOSES, "BTG", "PATRQT")
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def terms(bases: tuple[str, ...] = ("permit", "deny"), purposes: tuple[str, ...] = PURPOSES) -> Any:
    """What is drawn of a consent; the rest is the usual one."""
    compartments = st.sampled_from([None, (ALLERGY,), (NOTES,), (ALLERGY, NOTES)])
    exception = st.builds(
        PolicyException,
        purposes=st.lists(st.sampled_from(purposes), max_size=2, unique=True).map(tuple),
        compartments=compartments,
    )
    return st.fixed_dictionaries(
        {
            "base": st.sampled_from(bases),
            "purposes": st.lists(st.sampled_from(purposes), min_size=1, max_size=3, unique=True).map(tuple),
            "compartments": compartments,
            "exceptions": st.lists(exception, max_size=2).map(tuple),
            "max_uses": st.sampled_from([0, 0, 1, 5]),
        }
    )


REQUESTS = st.fixed_dictionaries(
    {
        "purpose": st.sampled_from(ASKED),
        "compartments": st.sampled_from([(ALLERGY,), (NOTES,), (ALLERGY, NOTES)]),
        "n_records": st.sampled_from([1, 256]),
    }
)


def granted(world: World, number: int, drawn: dict[str, Any]) -> bool:
    """Whether the chain took the consent; some of what is drawn is no consent."""
    return world.grant(consent_id=id16(f"consent {number}"), **drawn) == Code.OK


def world_of(consents: list[dict[str, Any]]) -> World:
    world = World()
    for number, drawn in enumerate(consents):
        granted(world, number, drawn)
    return world


def decision(world: World, name: str, asked: dict[str, Any]) -> Code:
    return world.ask(name, basis=None, **asked)


@SOME
@given(st.lists(terms(), max_size=4), REQUESTS)
def test_every_node_decides_alike_and_as_the_evaluator_says(
    consents: list[dict[str, Any]], asked: dict[str, Any]
) -> None:
    """I-6: the receipt's decision is that of the pure function, and equal blocks give equal effects on any node."""
    world, twin = world_of(consents), world_of(consents)
    request = world.request("one", DOCTOR, basis=None, **asked)
    expected = access.evaluate(request, AccountKey(DOCTOR.public), world.now_ms, world.state).code
    assert Code(world.decided(request).decision) == expected == Code(twin.decided(request).decision)
    assert dict(world.state.scan(b"")) == dict(twin.state.scan(b""))


@SOME
@given(st.lists(terms(), max_size=3), terms(("deny",)), REQUESTS)
def test_a_deny_that_is_added_permits_nothing_new(
    consents: list[dict[str, Any]], denied: dict[str, Any], asked: dict[str, Any]
) -> None:
    """I-7, without exceptions to it: what was denied before the patient said no is denied after it."""
    world = world_of(consents)
    before = decision(world, "before", asked)
    granted(world, 99, {**denied, "exceptions": ()})
    after = decision(world, "after", asked)
    assert before == Code.OK or after != Code.OK


@SOME
@given(st.lists(terms(), min_size=1, max_size=3), st.integers(1, 23), REQUESTS)
def test_a_shorter_or_revoked_consent_permits_nothing_new(
    consents: list[dict[str, Any]], hours: int, asked: dict[str, Any]
) -> None:
    """I-7: of bare permissions, once by ending earlier, once by being taken back. (An exception is a denial to all
    consents too, and goes with its consent; one judged alone is in test_evaluator.)"""
    permits = [{**drawn, "base": "permit", "exceptions": ()} for drawn in consents]
    long = world_of(permits)
    short = world_of([{**drawn, "valid_to_ms": long.now_ms + 6 * HOUR_MS} for drawn in permits])
    revoked = world_of(permits)
    revoked.submit(PATIENT, ConsentRevoke(id16("consent 0"), "withdrawn"))
    for world in (long, short, revoked):
        world.now_ms += hours * HOUR_MS
    if decision(long, "asked", asked) != Code.OK:
        assert decision(short, "asked", asked) != Code.OK
        assert decision(revoked, "asked", asked) != Code.OK


@SOME
@given(st.lists(terms(("permit",), ("TREAT",)), min_size=1, max_size=4), st.sampled_from(["BTG", "CLINTRL", "ETREAT"]))
def test_consents_to_treat_never_yield_what_is_not_treatment(consents: list[dict[str, Any]], purpose: str) -> None:
    """I-8: neither broken glass nor a trial nor an emergency, for a reader whom only the consents let in."""
    world = world_of(consents)
    asked = {"purpose": purpose, "compartments": (ALLERGY,), "n_records": 1}
    assert decision(world, "asked", asked) != Code.OK
