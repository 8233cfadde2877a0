"""Who acts for a patient, until when, and what a death changes (F-30)."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import proxies
from p2pledger.health.events import DeceasedMarked, ProxyGranted, ProxyRevoked
from p2pledger.health.operations import ConsentRevoke
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant, ProxyRevoke
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.world import BERG, DAY_MS, DOCTOR, EMERGENCY, PATIENT, PID, SEE, TAL, World

MOTHER = key("mother")
MAJORITY_MS = 30 * DAY_MS
"""How long after the beginning the patient comes of age."""


@pytest.fixture
def world() -> World:
    return with_mother(World())


def with_mother(world: World) -> World:
    world.register("mother", "patient", TAL, "Tal")
    return world


def parent(world: World, **changes: Any) -> ProxyGrant:
    grant = ProxyGrant(
        pid=PID,
        proxy=id16("mother"),
        kind="parent",
        powers=("consent", "read"),
        valid_from_ms=world.now_ms,
        valid_to_ms=world.now_ms + MAJORITY_MS,
        evidence_commit=hash32("birth certificate"),
    )
    return replace(grant, **changes)


def enter(world: World, **changes: Any) -> Code:
    return world.submit(BERG, parent(world, **changes), cosigners=[TAL])


def reads(world: World, name: str, purpose: Any = "FAMRQT", **changes: Any) -> Code:
    given = {"organisation": id16("Tal"), "basis": None, "actor_opening": None, "purpose": purpose}
    return world.ask(name, MOTHER, **(given | changes))


def test_a_parent_consents_until_the_age_of_majority(world: World) -> None:
    """F-30, F-07: entered by two organisations; no consent of hers outlasts her standing, which ends by itself."""
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.E_CAPACITY
    start = world.now_ms
    (event,) = world.events(BERG, parent(world), cosigners=[TAL])
    assert event == ProxyGranted(PID, id16("mother"), "parent")
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.OK
    assert world.ask("by the mother's consent") == Code.OK
    majority = start + MAJORITY_MS
    too_long = world.consent(consent_id=id16("long"), capacity="proxy", valid_to_ms=majority + 1)
    assert world.submit(MOTHER, too_long) == Code.E_CAPACITY
    assert world.submit(MOTHER, replace(too_long, valid_to_ms=majority)) == Code.OK
    world.now_ms = majority - 1_000
    last = world.consent(consent_id=id16("last"), capacity="proxy", valid_to_ms=majority)
    assert world.submit(MOTHER, last) == Code.OK
    world.now_ms = majority
    late = world.consent(consent_id=id16("late"), capacity="proxy")
    assert world.submit(MOTHER, late) == Code.E_CAPACITY
    assert world.ask("her consents have ended, too", basis=id16("last")) == Code.E_EXPIRED
    assert world.submit(PATIENT, world.consent(consent_id=id16("own"))) == Code.OK


def test_a_proxy_does_what_the_grant_lists(world: World) -> None:
    """F-30: without the power to consent none, without that to read none, and neither in the patient's own name."""
    enter(world, powers=("read",))
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.E_CAPACITY
    assert world.submit(MOTHER, world.consent()) == Code.E_NOT_OWNER
    assert reads(world, "a") == Code.OK
    assert world.log()[-1].basis == "proxy"
    assert reads(world, "b", "PWATRNY") == Code.OK
    assert reads(world, "c", "TREAT") == Code.E_UNKNOWN_ACTOR
    assert reads(world, "d", organisation=id16("Berg")) == Code.E_UNKNOWN_ACTOR
    other = with_mother(World())
    enter(other, powers=("consent",))
    assert reads(other, "e") == Code.E_UNKNOWN_ACTOR


def test_a_guardian_is_no_parent(world: World) -> None:
    """F-07: the capacity that a consent names is the one that was registered."""
    enter(world, kind="guardian")
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.E_CAPACITY
    assert world.submit(MOTHER, world.consent(capacity="guardian")) == Code.OK


def test_who_may_revoke_a_consent(world: World) -> None:
    """F-06, F-30: the patient and whoever may consent for it, whoever of them granted it."""
    enter(world)
    world.grant()
    assert world.submit(MOTHER, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
    assert world.submit(MOTHER, world.consent(consent_id=id16("b"), capacity="proxy")) == Code.OK
    assert world.submit(PATIENT, ConsentRevoke(id16("b"), "withdrawn")) == Code.OK
    world.grant(consent_id=id16("c"))
    assert world.submit(DOCTOR, ConsentRevoke(id16("c"), "withdrawn")) == Code.E_NOT_OWNER


def test_no_single_house_enters_a_proxy(world: World) -> None:
    """F-30, F-22: the custodian and a second organisation, or the patient itself for an attorney."""
    grant = parent(world)
    assert world.submit(BERG, grant) == Code.E_COSIGNERS
    assert world.submit(BERG, grant, cosigners=[DOCTOR]) == Code.E_COSIGNERS
    assert world.submit(TAL, grant, cosigners=[SEE]) == Code.E_ROLE
    assert world.submit(MOTHER, grant, cosigners=[BERG, TAL]) == Code.E_ROLE
    assert world.submit(BERG, replace(grant, pid=id16("nobody")), cosigners=[TAL]) == Code.E_NOT_FOUND
    assert world.submit(PATIENT, grant) == Code.E_ROLE
    assert world.submit(PATIENT, replace(grant, kind="attorney")) == Code.OK
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.OK
    other = with_mother(World())
    assert other.submit(TAL, parent(other), cosigners=[BERG]) == Code.OK


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"proxy": id16("nobody")}, Code.E_NOT_FOUND),
        ({"proxy": PID}, Code.E_CONSENT_INCOMPLETE),
        ({"evidence_commit": bytes(32)}, Code.E_CONSENT_INCOMPLETE),
        ({"valid_to_ms": 1}, Code.E_CONSENT_INCOMPLETE),
        ({"valid_from_ms": 2**50}, Code.E_CONSENT_INCOMPLETE),
    ],
)
def test_a_proxy_is_somebody_with_a_term(world: World, changes: dict[str, Any], code: Code) -> None:
    assert enter(world, **changes) == code


def test_a_proxy_is_entered_once_and_again_when_it_has_ended(world: World) -> None:
    """The second time only after the first has ended, by time or by revocation."""
    assert enter(world, valid_to_ms=world.now_ms + HOUR_MS) == Code.OK
    assert enter(world) == Code.E_DUP
    world.now_ms += 2 * HOUR_MS
    assert enter(world) == Code.OK
    world.submit(MOTHER, ProxyRevoke(PID, id16("mother")))
    assert enter(world) == Code.OK


def test_the_number_of_proxies_is_bounded(world: World) -> None:
    for number in range(limits.PROXIES_PER_PATIENT_MAX):
        world.register(f"aunt {number}", "patient", TAL, "Tal")
        assert enter(world, proxy=id16(f"aunt {number}")) == Code.OK
    assert enter(world) == Code.E_QUOTA
    assert len(proxies.proxies_of(PID, world.state)) == limits.PROXIES_PER_PATIENT_MAX


def test_who_ends_a_proxy(world: World) -> None:
    """F-30: whoever registered it, or the proxy itself; from that block on it acts no more."""
    end = ProxyRevoke(PID, id16("mother"))
    assert world.submit(MOTHER, end) == Code.E_NOT_FOUND
    enter(world)
    assert world.submit(PATIENT, end) == Code.E_ROLE
    assert world.submit(BERG, end) == Code.E_COSIGNERS
    (event,) = world.events(BERG, end, cosigners=[SEE])
    assert event == ProxyRevoked(PID, id16("mother"))
    assert world.submit(BERG, end, cosigners=[SEE]) == Code.E_STATE
    assert world.submit(MOTHER, world.consent(capacity="proxy")) == Code.E_CAPACITY
    assert reads(world, "a") == Code.E_UNKNOWN_ACTOR
    assert world.submit(PATIENT, parent(world, kind="attorney")) == Code.OK
    assert world.submit(BERG, end, cosigners=[SEE]) == Code.E_NOT_OWNER
    assert world.submit(PATIENT, end) == Code.OK


def dies(world: World, **changes: Any) -> Code:
    mark = DeceasedMark(PID, True, hash32("death certificate"))
    return world.submit(BERG, replace(mark, **changes), cosigners=[TAL])


def test_a_death_is_marked_by_two_organisations(world: World) -> None:
    """F-30: the custodian and another one, once; a mistake is taken back in the same way."""
    mark = DeceasedMark(PID, True, hash32("death certificate"))
    assert world.submit(BERG, mark) == Code.E_COSIGNERS
    assert world.submit(TAL, mark, cosigners=[SEE]) == Code.E_ROLE
    assert dies(world, is_deceased=False) == Code.E_STATE
    assert dies(world, evidence_commit=bytes(32)) == Code.E_CONSENT_INCOMPLETE
    (event,) = world.events(BERG, mark, cosigners=[TAL])
    assert event == DeceasedMarked(PID, True)
    assert dies(world) == Code.E_STATE
    assert world.grant() == Code.E_DECEASED
    assert dies(world, is_deceased=False) == Code.OK
    assert world.grant() == Code.OK


def test_a_death_switches_the_default_purposes() -> None:
    """F-30: from treatment to the affairs of the deceased; consents that were given go on, attorneys do not."""
    world = with_mother(World(Parameters(default_policy="basic-normal")))
    world.credential("doctor", TAL, role="paramedic", groups=(EMERGENCY,))
    world.submit(PATIENT, parent(world, kind="attorney"))
    unnamed: dict[str, Any] = {"basis": None, "actor_opening": None}
    emergency: dict[str, Any] = unnamed | {"purpose": "BTG", "reason_commit": hash32("reason"), "cosigners": [TAL]}
    assert world.ask("treated", **unnamed) == Code.OK
    assert world.ask("too early", **unnamed, purpose="HDECD") == Code.E_NO_CONSENT
    world.grant()
    dies(world)
    assert world.ask("given before", basis=id16("consent")) == Code.OK
    assert world.ask("treatment", **unnamed) == Code.E_NO_CONSENT
    assert world.ask("affairs of the deceased", **unnamed, purpose="HDECD") == Code.OK
    assert world.ask("emergency", **emergency) == Code.E_DECEASED
    assert reads(world, "attorney", "PWATRNY") == Code.E_UNKNOWN_ACTOR
    own: dict[str, Any] = unnamed | {"organisation": id16("Berg"), "purpose": "PATRQT"}
    assert world.ask("the patient's key", PATIENT, **own) == Code.E_DECEASED
