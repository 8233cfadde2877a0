"""access, audit and verify: the chain answers, the patient sees it, anybody can check it."""

import json
import re

import pytest
from msgspec.structs import replace

from tests.unit.cli.town import NAMES, Town, run, said

ALLERGY, NOTES = "a1" * 16, "b2" * 16


@pytest.fixture(scope="module")
def card(town: Town, patient, doctor):
    """A consent for 24 hours over the allergies, as the doctor got it."""
    granted = run(
        *("consent", "grant", *town.as_person("patient.wallet"), "--actor", f"person:{doctor}"),
        *("--purpose", "treat", "--compartment", f"{ALLERGY}=allergy", "--for", "24h"),
    )
    return town.file("consent.card", granted.stdout)


def ask(town, *arguments, expect=0):
    found = run(
        *("access", "request", *town.as_person("doctor.wallet", NAMES[1]), "--output", "json"),
        *arguments,
        expect=expect,
    )
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def asked(town, card):
    """One access allowed, one denied."""
    allowed = ask(town, "--card", card, "--purpose", "TREAT")
    denied = ask(town, "--card", card, "--purpose", "HRESCH", expect=4)
    return allowed, denied


def test_what_the_consent_covers_is_allowed(asked, card):
    """ALLOWED, proven, by the consent on the card; status 0."""
    allowed, _ = asked
    assert (allowed["decision"], allowed["proven"]) == ("ALLOWED", True)
    assert allowed["basis"] == f"consent {json.loads(card.read_text())['consent']}"


def test_a_denial_says_why_and_ends_with_status_4(asked):
    """Code and words."""
    _, denied = asked
    assert denied["decision"] == "DENIED(E_PURPOSE): not for this purpose"


def test_more_than_the_card_covers_is_denied(town, card):
    """The handle is not among those of the consent."""
    answer = ask(town, "--card", card, "--purpose", "TREAT", "--compartment", NOTES, expect=4)
    assert answer["decision"].startswith("DENIED(E_SCOPE)")


def test_a_request_needs_a_patient_and_a_compartment(town):
    """Status 2 and what to say."""
    at = town.as_person("doctor.wallet", NAMES[1])
    assert "--card" in said(run("access", "request", *at, "--purpose", "TREAT", expect=2))
    assert "--compartment" in said(run("access", "request", *at, "--purpose", "TREAT", "--pid", "00" * 16, expect=2))


def test_an_unknown_purpose_and_a_broken_card_are_named(town, card):
    """Status 2; nothing is sent."""
    at = town.as_person("doctor.wallet", NAMES[1])
    assert "'FUN'" in said(run("access", "request", *at, "--card", card, "--purpose", "FUN", expect=2))
    broken = town.file("broken.card", card.read_text().replace('"person"', '"king"'))
    assert "'king'" in said(run("access", "request", *at, "--card", broken, "--purpose", "TREAT", expect=2))


def test_an_unknown_patient_is_not_found(town, doctor):
    """Status 6."""
    at = town.as_person("doctor.wallet", NAMES[1])
    run("access", "request", *at, "--pid", "00" * 16, "--compartment", NOTES, "--purpose", "TREAT", expect=6)


def test_the_patient_sees_who_asked_in_plain_words(town, asked, doctor):
    """Who, organisation, purpose, when, decision, basis; and how far the log is complete."""
    shown = run("audit", "log", *town.as_person("patient.wallet"), "--output", "json")
    first = json.loads(shown.stdout)[0]
    assert (first["organisation"], first["person"], first["purpose"], first["decision"], first["proven"]) == (
        *(NAMES[1], doctor, "treatment (TREAT)", "ALLOWED", True),
    )
    assert re.search(r"all \d+ decisions up to height \d+", shown.stderr)
    table = run("audit", "log", *town.as_person("patient.wallet")).stdout
    assert "DENIED(E_PURPOSE)" in table


def test_an_organisation_names_whose_log_it_wants(town, asked, patient):
    """--pid; a stranger's or another patient's key gets nothing."""
    shown = run("audit", "log", *town.as_organisation(NAMES[3]), "--pid", patient, "--output", "jsonl").stdout
    assert len(shown.splitlines()) >= 2
    run("audit", "log", *town.as_person("doctor.wallet", NAMES[1]), "--pid", patient, expect=4)


def test_lines_after_the_checkpoint_are_marked(town, asked, card, patient, monkeypatch):
    """The node says them, they follow the proven ones, but more could have been left out."""
    before = town.chain.log_reply(bytes.fromhex(patient))
    ask(town, "--card", card, "--purpose", "TREAT")
    newer = town.chain.log_reply(bytes.fromhex(patient)).lines[len(before.lines) :]
    monkeypatch.setattr(town.chain, "log_reply", lambda *_: replace(before, newer=newer))
    shown = run("audit", "log", *town.as_person("patient.wallet"), "--output", "json")
    assert [row["proven"] for row in json.loads(shown.stdout)] == [True] * len(before.lines) + [False]
    assert "1 newer lines" in shown.stderr


def test_a_sealed_wallet_asks_once(town):
    """One passphrase for who asks and about whom."""
    run("wallet", "init", town.file("sealed.wallet"), input="x\nx\n")
    asked_for = run("audit", "log", *town.as_person("sealed.wallet"), input="x\n", expect=4)
    assert asked_for.stderr.count("Passphrase of") == 1


def test_whose_log_must_be_said(town):
    """An organisation is no patient; status 2."""
    assert "--pid" in said(run("audit", "log", *town.as_organisation(), expect=2))


def test_an_export_verifies_with_the_genesis_hash_alone(town, asked):
    """No node, no home; status 0 and a summary."""
    file = town.file("log.json")
    run("audit", "export", file, *town.as_person("patient.wallet"))
    shown = json.loads(run("verify", file, "--genesis", town.founding.chain.hex(), "--output", "json").stdout)
    assert shown["verified"] and shown["lines"] == shown["allowed"] + shown["denied"] >= 2
    assert run("verify", file, "--genesis", town.genesis).exit_code == 0
    assert run("verify", file, "--home", town.home()).exit_code == 0
    assert "exists" in said(run("audit", "export", file, *town.as_person("patient.wallet"), expect=2))


def test_verify_names_the_step_that_fails(town, asked):
    """Status 5; without a genesis status 78, without a file status 2."""
    file = town.file("true.json")
    run("audit", "export", file, *town.as_person("patient.wallet"))
    chain = town.founding.chain.hex()
    false = town.file("false.json", file.read_text().replace("ALLOWED", "DENIED", 1))
    assert said(run("verify", false, "--genesis", chain, expect=5)).startswith("text:")
    assert said(run("verify", file, "--genesis", "00" * 32, expect=5)).startswith("genesis:")
    run("verify", file, expect=78)
    run("verify", town.file("none"), "--genesis", chain, expect=2)
