"""watch: what happened to a patient's data, line by line, with the place to go on from (F-08)."""

import json

import pytest

from tests.unit.cli.town import NAMES, run, said

ALLERGY = "a1" * 16


@pytest.fixture(scope="module")
def history(town, patient, doctor):
    """A consent, an access allowed and one denied."""
    granted = run(
        *("consent", "grant", *town.as_person("patient.wallet"), "--actor", f"person:{doctor}"),
        *("--purpose", "treat", "--compartment", f"{ALLERGY}=allergy", "--for", "24h"),
    )
    card = town.file("watched.card", granted.stdout)
    for purpose, status in (("TREAT", 0), ("HRESCH", 4)):
        run(
            *("access", "request", *town.as_person("doctor.wallet", NAMES[1]), "--card", card),
            *("--purpose", purpose),
            expect=status,
        )
    town.chain.tick()


def watch(town, *arguments):
    shown = run("watch", *town.as_person("patient.wallet"), "--json", *arguments).stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_a_patient_hears_what_happened_in_plain_words(town, history, patient):
    """Consent, permission, denial; all proven, all about the patient."""
    lines = watch(town, "--from", "1:0", "--count", "3")
    assert [line["what"] for line in lines] == ["ConsentGranted", "AccessDecided", "AccessDecided"]
    assert lines[1]["says"].startswith("ALLOWED; treatment (TREAT); by consent ")
    assert "DENIED(E_PURPOSE)" in lines[2]["says"]
    assert all(line["proven"] and line["about"] == patient for line in lines)


def test_it_goes_on_from_any_line(town, history):
    """The place in a line is where the next one is."""
    lines = watch(town, "--from", "1:0", "--count", "3")
    assert watch(town, "--from", lines[0]["next"], "--count", "2") == lines[1:]


def test_kinds_are_chosen(town, history):
    lines = watch(town, "--from", "1:0", "--count", "1", "--kinds", "access")
    assert lines[0]["kinds"] == ["access"]


def test_an_organisation_watches_one_patient_as_a_table(town, history, patient):
    shown = run("watch", *town.as_organisation(NAMES[3]), "--pid", patient, "--from", "1:0", "--count", "2").stdout
    assert patient in shown and len(shown.splitlines()) == 2


def test_mistakes_are_named(town, history):
    """Status 2 for what cannot be meant, 4 for what one may not hear."""
    at = town.as_person("patient.wallet")
    assert "'gossip'" in said(run("watch", *at, "--kinds", "gossip", expect=2))
    assert "'seven'" in said(run("watch", *at, "--from", "seven", expect=2))
    run("watch", *town.as_person("doctor.wallet", NAMES[1]), "--from", "1:0", expect=4)
