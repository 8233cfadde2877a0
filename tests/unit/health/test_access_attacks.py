"""Who reads without the right to it: each attack works without its one rule, and the rule alone refuses it."""

from collections.abc import Callable
from typing import Any

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.health import access, consent, directory, evaluator, log, operations, queries
from p2pledger.health.operations import (
    ConsentRevoke,
    CredentialRevoke,
    IdentitySuspend,
    PolicyException,
    actor_commit,
    role_handle,
)
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, ProofError
from p2pledger.primitives.ids import AccountKey
from tests.attack import Check, Without
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import (
    ALLERGY,
    BERG,
    DAY_MS,
    DOCTOR,
    EMERGENCY,
    NOTES,
    NURSE,
    PATIENT,
    PID,
    TAL,
    World,
    account,
    opening,
)

Attack = Callable[[World], Code]


def granted(**terms: Any) -> World:
    world = World()
    assert world.grant(**terms) == Code.OK
    return world


# Access in somebody else's name


def with_a_stolen_pop(world: World) -> Code:
    """The doctor shows a proof of possession that the nurse made for the same request."""
    return world.submit(DOCTOR, world.request("a", pop=world.request("a", NURSE).pop))


def with_the_pop_of_another_request(world: World) -> Code:
    return world.submit(DOCTOR, world.request("a", pop=world.request("b").pop))


def with_a_used_id(world: World) -> Code:
    world.ask("a")
    return world.submit(DOCTOR, world.request("a"))


@pytest.mark.attack("T39")
@pytest.mark.parametrize(
    ("check", "attack", "code"),
    [
        (Check(access.request_access, "raise Refused(Code.E_POP)"), with_a_stolen_pop, Code.E_POP),
        (Check(access.request_access, "raise Refused(Code.E_POP)"), with_the_pop_of_another_request, Code.E_POP),
        (Check(access.request_access, "raise Refused(Code.E_DUP)"), with_a_used_id, Code.E_DUP),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_request_proves_its_key_and_is_made_once(without: Without, check: Check, attack: Attack, code: Code) -> None:
    with without(*check):
        assert attack(granted()) == Code.OK
    assert attack(granted()) == code


@pytest.mark.attack("T39")
@pytest.mark.parametrize(
    ("kind", "handle"),
    [
        ("person", id16("nurse")),
        ("organisation", id16("See")),
        ("role", role_handle("nurse")),
        ("group", EMERGENCY.handle),
    ],
)
def test_nobody_opens_a_commitment_to_somebody_else(without: Without, kind: str, handle: bytes) -> None:
    """The salt has leaked: the opening is right, only not true of who shows it."""
    shown = opening(kind, handle)
    terms: dict[str, Any] = {"actor_commits": (actor_commit(shown),)}
    with without(evaluator.presented_actor, "is_true"):
        assert granted(**terms).ask(actor_opening=shown) == Code.OK
    assert granted(**terms).ask(actor_opening=shown) == Code.E_ACTOR


def from_another_house(world: World) -> Code:
    return world.ask(organisation=id16("Berg"))


def while_suspended(world: World) -> Code:
    world.submit(TAL, IdentitySuspend(id16("doctor")))
    return world.ask()


def without_a_credential(world: World) -> Code:
    world.register("nurse", "practitioner", TAL, "Tal")
    return world.ask(reader=NURSE)


def with_a_revoked_credential(world: World) -> Code:
    world.submit(TAL, CredentialRevoke(id16("doctor"), "physician"))
    return world.ask()


def with_a_credential_that_ended(world: World) -> Code:
    world.register("nurse", "practitioner", TAL, "Tal")
    world.credential("nurse", TAL, role="nurse", valid_to_ms=world.now_ms)
    return world.ask(reader=NURSE)


def as_the_neighbour(world: World) -> Code:
    world.register("neighbour", "patient", BERG, "Berg")
    return world.ask(reader=key("neighbour"), purpose="PATRQT", organisation=id16("Berg"))


@pytest.mark.attack("T39")
@pytest.mark.parametrize(
    ("check", "attack", "code"),
    [
        (
            Check(access.reader_of, "identity.organisation != request.organisation"),
            from_another_house,
            Code.E_UNKNOWN_ACTOR,
        ),
        (Check(access.reader_of, "identity.is_suspended"), while_suspended, Code.E_SUSPENDED),
        (Check(access.reader_of, "if not valid"), without_a_credential, Code.E_CREDENTIAL),
        (
            Check(directory.Credential.is_valid, "self.revoked is None"),
            with_a_revoked_credential,
            Code.E_CREDENTIAL,
        ),
        (
            Check(directory.Credential.is_valid, "self.valid_from_ms <= time_ms < self.valid_to_ms"),
            with_a_credential_that_ended,
            Code.E_CREDENTIAL,
        ),
        (Check(access.evaluate, "patient.key == author"), as_the_neighbour, Code.E_UNKNOWN_ACTOR),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_reader_has_standing(without: Without, check: Check, attack: Attack, code: Code) -> None:
    """F-01, F-12, F-21: the consent means any reader with a credential; each of these has none that holds."""
    anybody: dict[str, Any] = {"actor_commits": ()}
    with without(*check):
        assert attack(granted(**anybody)) == Code.OK
    assert attack(granted(**anybody)) == code


# Beyond what the consent says


def after_its_end(world: World) -> Code:
    world.now_ms += DAY_MS
    return world.ask()


def after_it_was_revoked(world: World) -> Code:
    world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn"))
    return world.ask()


@pytest.mark.attack("T43")
@pytest.mark.parametrize(
    ("check", "terms", "attack", "code"),
    [
        (Check(evaluator.judge, "if consent.revoked is not None"), {}, after_it_was_revoked, Code.E_REVOKED),
        (Check(evaluator.judge, "if time_ms >= terms.valid_to_ms"), {}, after_its_end, Code.E_EXPIRED),
        (
            Check(evaluator.judge, "if time_ms < terms.valid_from_ms"),
            {"valid_from_ms": World().now_ms + DAY_MS // 2},
            World.ask,
            Code.E_NOT_YET,
        ),
        (Check(evaluator.judge, "if not _means("), {}, lambda world: world.ask(actor_opening=None), Code.E_ACTOR),
        (Check(evaluator.judge, "if not _serves("), {}, lambda world: world.ask(purpose="HMARKT"), Code.E_PURPOSE),
        (
            Check(evaluator.judge, "if not _holds("),
            {},
            lambda world: world.ask(compartments=(ALLERGY, NOTES)),
            Code.E_SCOPE,
        ),
        (
            Check(evaluator.judge, "if refusal is not None"),
            {"exceptions": (PolicyException(labels=(id16("psychiatry"),)),)},
            lambda world: world.ask(labels=(id16("psychiatry"),)),
            Code.E_LABEL,
        ),
        (
            Check(evaluator.judge, "if terms.max_uses and"),
            {"max_uses": 1},
            lambda world: (world.ask("a"), world.ask("b"))[1],
            Code.E_USES,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "",
)
def test_a_consent_means_what_it_says(
    without: Without, check: Check, terms: dict[str, Any], attack: Attack, code: Code
) -> None:
    """F-02, F-03, F-06: time, revocation, actor, purpose, scope, label and uses."""
    with without(*check):
        assert attack(granted(**terms)) == Code.OK
    assert attack(granted(**terms)) == code


@pytest.mark.attack("T43")
def test_another_patients_consent_is_no_consent(without: Without) -> None:
    """The neighbour, a friend of the doctor, has permitted everything; looking it up by pid is a rule of its own."""

    def attack() -> Code:
        world = World()
        world.register("neighbour", "patient", BERG, "Berg")
        foreign = world.consent(consent_id=id16("foreign"), pid=id16("neighbour"))
        assert world.submit(key("neighbour"), foreign) == Code.OK
        request = world.request(basis=id16("foreign"))
        reader = access.reader_of(request, AccountKey(DOCTOR.public), world.now_ms, world.state)
        assert isinstance(reader, evaluator.Reader)
        everybodys = consent.load_all(id16("neighbour"), world.state)
        return evaluator.decide(request, reader, everybodys, evaluator.Setting("deny", world.now_ms)).code

    with without(evaluator.decide, "consent.terms.pid == request.pid"):
        assert attack() == Code.OK
    assert attack() == Code.E_NO_CONSENT


def broken_glass(**changes: Any) -> Code:
    world = World()
    groups = changes.pop("groups", (EMERGENCY,))
    if btg := changes.pop("btg", None):
        world.grant(btg=btg)
    world.credential("doctor", TAL, role="paramedic", groups=groups)
    given = {"purpose": "BTG", "basis": None, "actor_opening": None, "reason_commit": hash32("reason")}
    return world.ask(**({"cosigners": [TAL]} | given | changes))


@pytest.mark.attack("T43")
@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (Check(evaluator._break_glass, "reader.may_break_glass"), {"groups": ()}),
        (Check(evaluator._break_glass, "request.reason_commit != _ZERO"), {"reason_commit": bytes(32)}),
        (
            Check(evaluator._break_glass, "request.n_records <= limits.BREAK_GLASS_RECORDS_MAX"),
            {"n_records": limits.BREAK_GLASS_RECORDS_MAX + 1},
        ),
        (
            Check(
                evaluator._break_glass,
                "not any((terms.btg == 'never' for terms in said))",
            ),
            {"btg": "never"},
        ),
    ],
)
def test_the_glass_is_broken_by_its_rules(without: Without, check: Check, changes: dict[str, Any]) -> None:
    """F-15: group, reason, a bounded number of records, and no consent that says never."""
    with without(*check):
        assert broken_glass(**changes) == Code.OK
    assert broken_glass(**changes) == Code.E_BTG_FORBIDDEN


@pytest.mark.attack("T43")
def test_nobody_breaks_the_glass_alone(without: Without) -> None:
    """F-15: a stolen key is not enough; a colleague of the same house signs, too."""
    with without(evaluator._break_glass, "if not reader.has_second_factor"):
        assert broken_glass(cosigners=[]) == Code.OK
    for others in ([], [BERG], [PATIENT]):
        assert broken_glass(cosigners=others) == Code.E_COSIGNERS


@pytest.mark.attack("T43")
def test_a_lax_default_policy_opens_nothing_that_is_labelled(without: Without) -> None:
    def attack() -> Code:
        world = World(Parameters(default_policy="all-normal"))
        return world.ask(basis=None, labels=(id16("psychiatry"),))

    with without(evaluator._by_default, "is_normal"):
        assert attack() == Code.OK
    assert attack() == Code.E_NO_CONSENT


@pytest.mark.attack("T43")
def test_an_access_request_travels_alone(without: Without) -> None:
    """Beside an operation that fails, the line of a decision that the reader has seen would be undone."""

    def attack() -> Code:
        world = granted()
        return world.submit(DOCTOR, world.request(), world.request("second"))

    with without(operations.decode_operations, "raise Rejected(Code.E_ALONE"):
        assert attack() == Code.OK
    assert attack() == Code.E_ALONE


@pytest.mark.attack("T41")
@pytest.mark.parametrize("asker", ["doctor", "neighbour", "stranger"])
def test_a_log_is_shown_to_its_patient_and_to_members_only(without: Without, asker: str) -> None:
    """F-08."""
    world = World()
    world.register("neighbour", "patient", BERG, "Berg")
    with without(queries.may_see_patient, "return may_see_all"):
        assert queries.may_see_patient(account(asker), PID, world.state)
    assert not queries.may_see_patient(account(asker), PID, world.state)


# A node that shows a log with something missing


def two_accesses() -> tuple[World, list[bytes]]:
    world = granted()
    for name in ("first", "second", "third"):
        world.ask(name)
    return world, log.lines(PID, world.state)


@pytest.mark.attack("T38")
@pytest.mark.parametrize(
    ("check", "shown"),
    [
        (Check(log.check_lines, "if (line.sequence, line.previous) !="), [0, 2]),
        (Check(log.check_lines, "if (count, previous) !="), [0, 1]),
    ],
)
def test_no_line_can_be_left_out(without: Without, check: Check, shown: list[int]) -> None:
    """I-9: from the middle it breaks the chain of hashes, at the end it does not lead to the head."""
    world, lines = two_accesses()
    left, head = [lines[place] for place in shown], log.head(PID, world.state)
    with without(*check):
        assert len(log.check_lines(PID, left, head)) == 2
    with pytest.raises(ProofError):
        log.check_lines(PID, left, head)


@pytest.mark.attack("T38")
def test_another_patients_log_is_not_this_ones(without: Without) -> None:
    world, lines = two_accesses()
    with without(log.check_lines, "if line.pid != pid"):
        assert len(log.check_lines(id16("neighbour"), lines, log.head(PID, world.state))) == 3
    with pytest.raises(ProofError, match="is of the log of"):
        log.check_lines(id16("neighbour"), lines, log.head(PID, world.state))
