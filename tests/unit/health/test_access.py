"""Access decided on the chain: consents, time, revocation, broken glass, and the line that always remains."""

from typing import Any

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.health import access, log
from p2pledger.health.operations import (
    ConsentRevoke,
    CredentialRevoke,
    IdentityResume,
    IdentitySuspend,
    PolicyException,
    actor_commit,
    role_handle,
)
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, ProofError
from tests.unit.execution.ledger import codes, hash32, id16, key
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
    opening,
)


@pytest.fixture
def world() -> World:
    return World()


def test_an_authorised_doctor_is_allowed_and_everybody_else_denied(world: World) -> None:
    """F-01: the receipt says ALLOWED or DENIED with its code, and a denial is recorded like a permission."""
    assert world.ask("early") == Code.E_NO_CONSENT
    world.grant()
    world.register("nurse", "practitioner", TAL, "Tal")
    world.credential("nurse", TAL, role="nurse")
    assert world.ask("allowed") == Code.OK
    assert world.ask("other", NURSE) == Code.E_ACTOR
    assert [line.decision for line in world.log()] == [Code.E_NO_CONSENT, Code.OK, Code.E_ACTOR]
    allowed = world.log()[1]
    assert (allowed.actor, allowed.organisation, allowed.purpose) == (id16("doctor"), id16("Tal"), "TREAT")
    assert (allowed.basis, allowed.consent_id, allowed.compartments) == ("consent", id16("consent"), (ALLERGY,))


def test_temporary_access_to_the_allergies_only(world: World) -> None:
    """F-02: actor, purposes TREAT and ETREAT, compartment allergy, 24 hours; nothing beside it."""
    assert world.grant(valid_from_ms=world.now_ms + 10_000) == Code.OK
    assert world.ask("too early") == Code.E_NOT_YET
    world.now_ms += 10_000
    assert world.ask("a") == Code.OK
    assert world.ask("b", purpose="ETREAT") == Code.OK
    assert world.ask("c", purpose="HPAYMT") == Code.E_PURPOSE
    assert world.ask("d", compartments=(ALLERGY, NOTES)) == Code.E_SCOPE


def test_access_ends_by_itself_after_24_hours(world: World) -> None:
    """F-03: at T0+24h−1s the request is ALLOWED, at T0+24h DENIED(E_EXPIRED), with no transaction in between."""
    start = world.now_ms
    world.grant()
    world.now_ms = start + DAY_MS - 1_000
    assert world.ask("last second") == Code.OK
    world.now_ms = start + DAY_MS - 1
    assert world.ask("last millisecond") == Code.OK
    world.now_ms = start + DAY_MS
    assert world.ask("a day later") == Code.E_EXPIRED
    request = world.request("earlier")
    assert access.evaluate(request, DOCTOR.public, start + DAY_MS - 1, world.state).code == Code.OK
    assert access.evaluate(request, DOCTOR.public, start + DAY_MS, world.state).code == Code.E_EXPIRED


def test_revoking_takes_effect_at_its_block(world: World) -> None:
    """F-06: from its block on everything under it is denied; only the patient can, and only once."""
    world.grant()
    revoke = ConsentRevoke(id16("consent"), "withdrawn")
    assert world.submit(DOCTOR, revoke) == Code.E_NOT_OWNER
    assert world.submit(BERG, revoke) == Code.E_NOT_OWNER
    assert world.submit(PATIENT, ConsentRevoke(id16("nothing"), "withdrawn")) == Code.E_NOT_FOUND
    assert world.ask("before") == Code.OK
    effects = world.run(
        world.signed(PATIENT, revoke),
        world.signed(DOCTOR, world.request("same block")),
    )
    assert codes(effects) == [Code.OK, Code.OK]
    assert world.log()[-1].decision == Code.E_REVOKED
    assert world.ask("without a name", basis=None) == Code.E_REVOKED
    assert world.submit(PATIENT, revoke) == Code.E_STATE


def test_a_reader_without_standing_is_denied_and_logged(world: World) -> None:
    """F-01, F-21: unknown actor, suspended, no valid credential; each leaves a line."""
    world.grant()
    world.register("neighbour", "patient", BERG, "Berg")
    world.register("nurse", "practitioner", TAL, "Tal")
    assert world.ask("a", key("neighbour"), organisation=id16("Berg")) == Code.E_UNKNOWN_ACTOR
    assert world.ask("b", TAL) == Code.E_UNKNOWN_ACTOR
    assert world.ask("c", organisation=id16("Berg")) == Code.E_UNKNOWN_ACTOR
    assert world.ask("d", NURSE) == Code.E_CREDENTIAL
    world.submit(TAL, IdentitySuspend(id16("doctor")))
    assert world.ask("e") == Code.E_SUSPENDED
    world.submit(TAL, IdentityResume(id16("doctor")))
    assert world.ask("f") == Code.OK
    assert [line.decision for line in world.log()] == [
        Code.E_UNKNOWN_ACTOR,
        Code.E_UNKNOWN_ACTOR,
        Code.E_UNKNOWN_ACTOR,
        Code.E_CREDENTIAL,
        Code.E_SUSPENDED,
        Code.OK,
    ]


def test_a_credential_binds_and_its_revocation_takes_effect_at_its_block(world: World) -> None:
    """F-21: outside its period, and from the block of its revocation on, the reader has no credential."""
    world.grant(actor_commits=(actor_commit(opening("role", role_handle("nurse"))),))
    world.register("nurse", "practitioner", TAL, "Tal")
    start = world.now_ms + 60_000
    world.credential("nurse", TAL, role="nurse", valid_from_ms=start, valid_to_ms=start + 60_000)
    as_nurse: dict[str, Any] = {"actor_opening": opening("role", role_handle("nurse"))}
    assert world.ask("before", NURSE, **as_nurse) == Code.E_CREDENTIAL
    world.now_ms = start
    assert world.ask("within", NURSE, **as_nurse) == Code.OK
    effects = world.run(
        world.signed(TAL, CredentialRevoke(id16("nurse"), "nurse")),
        world.signed(NURSE, world.request("same block", NURSE, **as_nurse)),
    )
    assert codes(effects) == [Code.OK, Code.OK]
    assert world.log()[-1].decision == Code.E_CREDENTIAL
    world.credential("nurse", TAL, role="nurse", valid_to_ms=world.now_ms + 5_000)
    assert world.ask("again", NURSE, **as_nurse) == Code.OK
    world.now_ms += 5_000
    assert world.ask("expired", NURSE, **as_nurse) == Code.E_CREDENTIAL


def test_nobody_opens_a_commitment_to_somebody_else(world: World) -> None:
    """An opening that is right but not true of the reader counts for nothing."""
    commits = [
        actor_commit(opening(kind, handle))
        for kind, handle in (
            ("organisation", id16("See")),
            ("role", role_handle("nurse")),
            ("group", EMERGENCY.handle),
            ("person", id16("nurse")),
        )
    ]
    world.grant(actor_commits=tuple(commits))
    for number, (kind, handle) in enumerate(
        [("organisation", id16("See")), ("role", role_handle("nurse")), ("group", EMERGENCY.handle)]
    ):
        shown = opening(kind, handle)
        assert actor_commit(shown) in commits, "the opening itself is right"
        assert world.ask(f"lie {number}", actor_opening=shown) == Code.E_ACTOR
    assert world.ask("none", actor_opening=None) == Code.E_ACTOR


def test_the_reasons_have_an_order(world: World) -> None:
    """Health rule 3.4: revoked before expired before actor before purpose before scope before label."""
    label = id16("psychiatry")
    world.grant(exceptions=(PolicyException(labels=(label,)),))
    wrong: dict[str, Any] = {
        "actor_opening": None,
        "purpose": "HMARKT",
        "compartments": (NOTES, ALLERGY),
        "labels": (label,),
    }
    for number, (code, repaired) in enumerate(
        [
            (Code.E_ACTOR, "actor_opening"),
            (Code.E_PURPOSE, "purpose"),
            (Code.E_SCOPE, "compartments"),
            (Code.E_LABEL, "labels"),
        ]
    ):
        assert world.ask(f"wrong {number}", **wrong) == code
        del wrong[repaired]
    assert world.ask("right", **wrong) == Code.OK
    world.now_ms += DAY_MS
    assert world.ask("late", actor_opening=None) == Code.E_EXPIRED
    world.submit(PATIENT, ConsentRevoke(id16("consent"), "other"))
    assert world.ask("later") == Code.E_REVOKED


def test_without_a_name_any_fitting_consent_serves(world: World) -> None:
    """Several candidates: a permit wins over those that do not fit; a matching deny exception wins over it."""
    world.grant(compartments=(NOTES,))
    world.grant(consent_id=id16("second"))
    assert world.decided(world.request("a", basis=None)).consent_id == id16("second")
    assert world.ask("b", basis=None, compartments=(NOTES, ALLERGY)) == Code.E_SCOPE
    psychiatry = id16("psychiatry")
    world.grant(consent_id=id16("third"), exceptions=(PolicyException(labels=(psychiatry,)),))
    assert world.ask("c", basis=None, labels=(psychiatry,)) == Code.E_LABEL
    assert world.ask("d", labels=(psychiatry,), basis=id16("second")) == Code.OK, "a named one is judged alone"


def test_another_patient_s_consent_is_no_consent(world: World) -> None:
    """A basis must be this pid's own."""
    world.register("neighbour", "patient", BERG, "Berg")
    foreign = world.consent(consent_id=id16("foreign"), pid=id16("neighbour"))
    assert world.submit(key("neighbour"), foreign) == Code.OK
    assert world.ask("own", basis=id16("foreign"), pid=id16("neighbour")) == Code.OK
    assert world.ask("foreign", basis=id16("foreign")) == Code.E_NO_CONSENT


def test_uses_are_counted(world: World) -> None:
    """A consent for two accesses allows two, and denials use none."""
    world.grant(max_uses=2)
    decisions = [
        world.ask(name, **changes)
        for name, changes in (("a", {}), ("b", {"compartments": (NOTES,)}), ("c", {}), ("d", {}))
    ]
    assert decisions == [Code.OK, Code.E_SCOPE, Code.OK, Code.E_USES]


def test_a_denying_consent_with_a_permitting_exception(world: World) -> None:
    """PCF's opt-out with an exception: closed, but for one purpose and one compartment."""
    only = PolicyException(purposes=("TREAT",), compartments=(ALLERGY,))
    assert world.grant(base="deny", purposes=(), compartments=None, exceptions=(only,)) == Code.OK
    assert world.ask("a") == Code.OK
    assert world.ask("b", compartments=(NOTES,)) == Code.E_SCOPE
    assert world.ask("c", purpose="HPAYMT") == Code.E_SCOPE


def test_requests_about_nothing_are_refused_without_a_line(world: World) -> None:
    """I-5. Unknown pid, used id, foreign proof of possession, months backwards: a failed receipt, and no log line."""
    world.grant()
    assert world.ask("used") == Code.OK
    for request, code in (
        (world.request("a", pid=id16("nobody")), Code.E_NOT_FOUND),
        (world.request("a", pid=id16("doctor")), Code.E_NOT_FOUND),
        (world.request("used"), Code.E_DUP),
        (world.request("a", pop=world.request("b").pop), Code.E_POP),
        (world.request("a", pop=world.request("a", NURSE).pop), Code.E_POP),
        (world.request("a", months=(202612, 202601)), Code.E_FORMAT),
    ):
        assert world.submit(DOCTOR, request) == code
    assert len(world.log()) == 1


@pytest.mark.parametrize(
    ("policy", "treat", "pay", "labelled"),
    [
        ("deny", Code.E_NO_CONSENT, Code.E_NO_CONSENT, Code.E_NO_CONSENT),
        ("break-glass-only", Code.E_NO_CONSENT, Code.E_NO_CONSENT, Code.E_NO_CONSENT),
        ("basic-normal", Code.OK, Code.E_NO_CONSENT, Code.E_NO_CONSENT),
        ("all-normal", Code.OK, Code.OK, Code.E_NO_CONSENT),
    ],
)
def test_the_default_policy_judges_where_no_consent_fits(policy: Any, treat: Code, pay: Code, labelled: Code) -> None:
    """PCF's four policies, a parameter of the chain."""
    world = World(Parameters(default_policy=policy))
    assert world.ask("a", basis=None) == treat
    assert world.ask("b", basis=None, purpose="HPAYMT") == pay
    assert world.ask("c", basis=None, labels=(id16("psychiatry"),)) == labelled
    assert world.ask("d") == Code.E_NO_CONSENT, "a name that leads nowhere is no consent under any policy"
    world.grant(compartments=(NOTES,))
    assert world.ask("e", basis=None) == Code.E_SCOPE, "a consent that means the actor replaces the policy"


def test_breaking_the_glass(world: World) -> None:
    """F-15: group, reason, a bounded number of records and a colleague; a consent in force that says never forbids."""
    reason = hash32("reason")
    emergency: dict[str, Any] = {"purpose": "BTG", "basis": None, "reason_commit": reason, "actor_opening": None}
    together: dict[str, Any] = emergency | {"cosigners": [TAL]}
    assert world.ask("not in the group", **together) == Code.E_BTG_FORBIDDEN
    world.credential("doctor", TAL, role="paramedic", groups=(EMERGENCY,))
    assert world.decided(world.request("a", **emergency), cosigners=[TAL]).basis == "btg"
    assert world.ask("alone", **emergency) == Code.E_COSIGNERS
    assert world.ask("no reason", **(together | {"reason_commit": None})) == Code.E_BTG_FORBIDDEN
    assert world.ask("empty reason", **(together | {"reason_commit": bytes(32)})) == Code.E_BTG_FORBIDDEN
    assert world.ask("an archive", **together, n_records=257) == Code.E_BTG_FORBIDDEN
    world.grant(btg="never")
    assert world.ask("never", **together) == Code.E_BTG_FORBIDDEN
    world.now_ms += DAY_MS
    assert world.ask("the consent ended", **together) == Code.OK


def test_patients_read_their_own(world: World) -> None:
    """F-12: PATRQT with one's own key needs nobody's leave; other purposes and other people's records do."""
    own: dict[str, Any] = {"organisation": id16("Berg"), "actor_opening": None, "basis": None}
    decided = world.decided(world.request("a", PATIENT, purpose="PATRQT", **own), PATIENT)
    assert (decided.decision, decided.basis) == (Code.OK, "owner")
    assert world.ask("b", PATIENT, **own) == Code.E_PURPOSE
    world.register("neighbour", "patient", BERG, "Berg")
    assert world.ask("c", key("neighbour"), purpose="PATRQT", **own) == Code.E_UNKNOWN_ACTOR


def test_the_log_is_complete(world: World) -> None:
    """I-9: the head in the state is that of exactly these lines; none can be left out, added or changed."""
    world.grant()
    decided = [world.decided(world.request(f"access {number}")) for number in range(4)]
    lines, head = log.lines(PID, world.state), log.head(PID, world.state)
    checked = log.check_lines(PID, lines, head)
    assert [log.line_hash(line) for line in checked] == [event.line_hash for event in decided]
    assert log.lines(PID, world.state, first=2, last=3) == lines[1:3]
    middle = log.LogHead(2, log.line_hash(checked[1]))
    assert log.check_lines(PID, lines[2:], head, after=middle) == checked[2:]
    forged = encode(log.decode_line(lines[1]).__class__(*[*_fields(lines[1])[:-1], 99]))
    for bad in (lines[:-1], lines[1:], [lines[0], *lines[2:]], [*lines, lines[-1]], [lines[0], forged, *lines[2:]]):
        with pytest.raises(ProofError):
            log.check_lines(PID, bad, head)
    with pytest.raises(ProofError):
        log.check_lines(id16("neighbour"), lines, head)
    with pytest.raises(ProofError):
        log.check_lines(PID, [b"\x00"], head)
    assert log.check_lines(id16("neighbour"), [], log.head(id16("neighbour"), world.state)) == []


def _fields(data: bytes) -> list[Any]:
    line = log.decode_line(data)
    return [getattr(line, name) for name in line.__struct_fields__]
