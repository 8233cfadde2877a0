"""consent: granted with a card, shown in plain words, revoked."""

import json

import pytest

from p2pledger.client.health import ConsentCard
from tests.unit.cli.town import NAMES, Town, run, said

ALLERGY = "a1" * 16
TREAT = ("--purpose", "TREAT", "--for", "24h")


def grant(town: Town, *arguments, expect=0):
    return run("consent", "grant", *town.as_person("patient.wallet"), *arguments, expect=expect)


@pytest.fixture(scope="module")
def granted(town, patient, doctor):
    """A card for the doctor, on stdout; the consent stands."""
    done = grant(town, "--actor", f"person:{doctor}", *TREAT, "--compartment", f"{ALLERGY}=allergy", "--pid", patient)
    return town.file("granted.card", done.stdout)


def shown(town, *cards):
    found = run("consent", "show", *cards, *town.as_person("patient.wallet"), "--output", "json")
    return {row["consent"]: row for row in json.loads(found.stdout)}


def test_the_card_opens_what_the_chain_holds(town, granted, patient, doctor):
    """Whom, what and until when: 24 hours from now; the reader's clock may be behind ours."""
    card = ConsentCard.load(granted.read_text())
    assert (card.pid.hex(), card.actor.handle.hex(), card.actor.kind) == (patient, doctor, "person")
    drift_ms = town.founding.parameters.drift_ms
    assert card.valid_to_ms - card.valid_from_ms == 24 * 3_600_000 + drift_ms
    assert [str(one) for one in card.compartments] == ["allergy"]


def test_with_the_card_consents_are_shown_in_words(town, granted, doctor):
    """Without it, by commitments and handles only."""
    identifier = json.loads(granted.read_text())["consent"]
    opened, closed = shown(town, granted)[identifier], shown(town)[identifier]
    assert (opened["who"], opened["what"]) == (f"person {doctor}", "allergy")
    assert opened["purposes"] == ["treatment (TREAT)"]
    assert (opened["state"], opened["uses"]) == ("in force", "unlimited")
    assert closed["who"].startswith("commitment ") and closed["what"] == ALLERGY
    assert "without their card" in run("consent", "show", *town.as_person("patient.wallet")).stderr


def test_a_card_that_was_changed_is_not_believed(town, granted):
    """Its commitment stands on the chain; status 4."""
    forged = town.file("forged.card", granted.read_text().replace('"allergy"', '"nothing much"'))
    message = said(run("consent", "show", forged, *town.as_person("patient.wallet"), expect=4))
    assert "E_COMMIT_MISMATCH" in message


@pytest.mark.parametrize(
    ("actor", "who"),
    [
        ("role:physician", "any physician"),
        (f"organisation:{NAMES[2]}", f"anybody of {NAMES[2]}"),
        (f"group:{ALLERGY}", f"any member of group {ALLERGY}"),
    ],
)
def test_readers_of_every_kind(town, patient, actor, who):
    """Roles, organisations and groups, over the whole chart."""
    card = town.file(f"{actor.partition(':')[0]}.card")
    grant(town, "--actor", actor, *TREAT, "--everything", "--max-uses", 2, "--to", card)
    row = shown(town, card)[json.loads(card.read_text())["consent"]]
    assert (row["who"], row["what"], row["uses"]) == (who, "everything", "0 of 2")


def test_a_revoked_consent_says_so(town, doctor, patient):
    """From its block on; revoking twice is refused with status 4."""
    card = town.file("revoked.card")
    grant(town, "--actor", f"person:{doctor}", *TREAT, "--everything", "--to", card)
    identifier = json.loads(card.read_text())["consent"]
    revoke = ["consent", "revoke", identifier, *town.as_person("patient.wallet")]
    assert "ConsentRevoked" in run(*revoke).stdout
    assert shown(town, card)[identifier]["state"].startswith("revoked at height ")
    assert "E_STATE" in said(run(*revoke, expect=4))


def test_expired_and_coming_consents_say_so(town, doctor, patient):
    """By the clock of whoever looks."""
    early, late = town.file("early.card"), town.file("late.card")
    reader = ("--actor", f"person:{doctor}", "--purpose", "TREAT", "--everything")
    grant(town, *reader, "--from", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00+01:00", "--to", early)
    grant(town, *reader, "--from", "2090-01-01T00:00:00Z", "--for", "1d", "--to", late)
    rows = shown(town)
    states = [rows[json.loads(card.read_text())["consent"]]["state"] for card in (early, late)]
    assert states == ["expired", "not yet in force"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--actor", "king:x", *TREAT, "--everything"), "king:x"),
        (("--actor", "role:king", *TREAT, "--everything"), "'king'"),
        (("--actor", "organisation:Nowhere", *TREAT, "--everything"), "'Nowhere'"),
        (("--actor", "role:nurse", *TREAT), "--compartment"),
        (("--actor", "role:nurse", *TREAT, "--everything", "--compartment", ALLERGY), "--everything"),
        (("--actor", "role:nurse", "--purpose", "TREAT", "--everything"), "--until"),
        (("--actor", "role:nurse", "--purpose", "FUN", "--for", "1h", "--everything"), "'FUN'"),
        (("--actor", "role:nurse", *TREAT, "--everything", "--pid", "00" * 16), "--pid"),
        (("--actor", "role:nurse", *TREAT, "--everything", "--purpose", "TREAT"), "each once"),
    ],
)
def test_what_cannot_be_granted_is_named(town, patient, wrong, named):
    """Status 2; the chain is not asked."""
    height = town.chain.height
    assert named in said(grant(town, *wrong, expect=2))
    assert town.chain.height == height


@pytest.mark.parametrize(
    "wrong", [("--for", "1y"), ("--for", "0h"), ("--until", "tomorrow"), ("--until", "2030-01-01")]
)
def test_times_are_spelled_with_unit_or_zone(town, patient, wrong):
    """Status 2."""
    grant(town, "--actor", "role:nurse", "--purpose", "TREAT", "--everything", *wrong, expect=2)


def test_a_refused_consent_leaves_no_card(town, patient):
    """Breaking the glass is no consent's matter (F-15): status 4, and no file that says otherwise."""
    card = town.file("btg.card")
    message = said(
        grant(town, "--actor", "role:nurse", "--purpose", "BTG", "--for", "1h", "--everything", "--to", card, expect=4)
    )
    assert "E_BTG_FORBIDDEN" in message
    assert not card.exists()
