"""consent import, proxies, reviews: what patients, custodians and officers type."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.town import NAMES, run, said

EXAMPLES = Path(__file__).parents[2] / "data" / "consents"
EVIDENCE = "e1" * 32
ALLERGY, ROOM = "a1" * 16, "c3" * 16


@pytest.fixture(scope="module")
def names(town, patient, doctor):
    """The custodian writes down its handles; the patient adds who the practitioner is."""
    made = town.file("custodian.names")
    run("consent", "names", *town.as_organisation(), "--pid", patient, "--to", made)
    document = json.loads(made.read_text())
    document["actors"] = {"Practitioner/ex-practitioner": doctor}
    return town.file("names.json", json.dumps(document))


def import_(town, example, *arguments, wallet="patient.wallet", at=NAMES[0], expect=0):
    file = EXAMPLES / "ihe-pcf" / f"Consent-ex-{example}.json"
    given = ("--patient", "Patient/ex-patient", *arguments, "--output", "json")
    return run("consent", "import", file, *given, *town.as_person(wallet, at), expect=expect)


def ask(town, *arguments, expect=0):
    reader = town.as_person("doctor.wallet", NAMES[1])
    return run("access", "request", *reader, "--output", "json", *arguments, expect=expect)


def test_a_fhir_consent_is_granted_and_its_card_lets_the_practitioner_in(town, names, patient):
    """F-05: normal data for everybody, psychiatry for one practitioner, with the document on the card."""
    cards = town.folder / "cards"
    cards.mkdir()
    done = json.loads(
        import_(
            town, "consent-advanced-normal-focused-psy", "--names", names, "--to", cards, "--pid", patient, expect=2
        ).stdout
        or "{}"
    )
    assert done == {}
    shown = json.loads(import_(town, "consent-advanced-normal-focused-psy", "--names", names, "--to", cards).stdout)
    assert (shown["base"], shown["exceptions"], shown["break-glass"]) == ("deny", 2, "policy")
    (card,) = shown["cards"]
    psychiatry = json.loads(names.read_text())["handles"]["label/PSY"]
    asked = ("--card", card, "--purpose", "TREAT", "--compartment", ALLERGY)
    assert json.loads(ask(town, *asked, "--label", psychiatry).stdout)["decision"] == "ALLOWED"
    denied = ask(town, *asked, "--label", "ff" * 16, expect=4)
    assert "E_LABEL" in json.loads(denied.stdout)["decision"]
    listed = run("consent", "show", card, *town.as_person("patient.wallet"), "--output", "json")
    (row,) = (row for row in json.loads(listed.stdout) if row["consent"] == shown["consent"])
    assert row["what"] == "nothing but exceptions in everything"


@pytest.mark.parametrize(
    ("example", "element"),
    [
        ("consent-intermediate-purpose", "Consent.provision.purpose[0]"),
        ("consent-intermediate-data", "Consent.provision.data[0].reference"),
        ("dissent-intermediate-break-glass", "Consent.policy[0].uri"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_its_element(town, names, example, element):
    """F-05: status 4, and the chain is not asked."""
    height = town.chain.height
    message = said(import_(town, example, "--names", names, expect=4))
    assert "E_UNENFORCEABLE" in message and element in message
    assert town.chain.height == height


def test_a_mother_consents_for_her_child(town, patient):
    """F-30: entered by two organisations; the document is hers, the chart the child's."""
    mother = town.enrol("mother.wallet", "patient", NAMES[0])
    draft, signed = town.file("proxy.draft"), town.file("proxy.signed")
    proxy = ("--pid", patient, "--proxy", mother)
    run(
        *("consent", "proxy", "grant", *town.as_organisation(), *proxy, "--kind", "parent", "--power", "consent"),
        *("--until", "2040-01-01T00:00:00Z", "--evidence", EVIDENCE, "--with", NAMES[1], "--to", draft),
    )
    run("tx", "sign", draft, *town.as_organisation(NAMES[1]), "--to", signed)
    assert "ProxyGranted" in run("tx", "submit", signed, *town.as_organisation()).stdout
    message = said(import_(town, "consent-basic-treat-infant", "--pid", patient, wallet="mother.wallet", expect=4))
    assert "E_CAPACITY" in message, "the document has no end, and she is a parent until the child is of age"
    granted = run(
        *("consent", "grant", *town.as_person("mother.wallet"), "--as", "proxy", "--pid", patient),
        *("--actor", "role:physician", "--purpose", "TREAT", "--for", "7d", "--nothing-sensitive", "--everything"),
        *("--months", "2022-01..2022-12", "--record", f"{ALLERGY}/3", "--author", ROOM),
    )
    card = town.file("mother.card", granted.stdout)
    listed = run("consent", "show", card, *town.as_person("patient.wallet"), "--output", "json")
    what = next(row["what"] for row in json.loads(listed.stdout) if row["who"] == "any physician")
    assert what == "everything, of 1 single records only, of 1 authors only, from 2022-01 to 2022-12, nothing sensitive"
    asked = ("--card", card, "--purpose", "TREAT", "--compartment", ALLERGY, "--months", "2022-03")
    assert json.loads(ask(town, *asked, "--author", ROOM).stdout)["decision"] == "ALLOWED"
    ask(town, *asked, "--record", f"{ALLERGY}/4", "--name-records", expect=4)
    assert json.loads(ask(town, *asked, "--record", f"{ALLERGY}/3", "--name-records").stdout)["decision"] == "ALLOWED"
    revoked = run("consent", "proxy", "revoke", *town.as_person("mother.wallet"), *proxy)
    assert "ProxyRevoked" in revoked.stdout


def test_a_death_is_marked_by_two(town):
    """F-30: a draft by the custodian that a second organisation cosigns."""
    pid = town.enrol("old.wallet", "patient", NAMES[0])
    draft, signed = town.file("death.draft"), town.file("death.signed")
    mark = ("consent", "deceased", *town.as_organisation(), "--pid", pid, "--evidence", EVIDENCE)
    assert "E_COSIGNERS" in said(run(*mark, expect=4))
    run(*mark, "--with", NAMES[2], "--to", draft)
    run("tx", "sign", draft, *town.as_organisation(NAMES[2]), "--to", signed)
    assert "DeceasedMarked" in run("tx", "submit", signed, *town.as_organisation()).stdout


def test_broken_glass_is_signed_by_two_listed_and_reviewed(town, patient, doctor):
    """F-15: request, second signature, review within 72 hours."""
    room = ("--role", "paramedic", "--break-glass-group", ROOM)
    run("identity", "credential", *town.as_organisation(NAMES[1]), "--subject", doctor, *room)
    emergency = ("--pid", patient, "--purpose", "BTG", "--compartment", ALLERGY, "--reason", "unconscious")
    assert "E_COSIGNERS" in json.loads(ask(town, *emergency, expect=4).stdout)["decision"]
    draft, signed = town.file("btg.draft"), town.file("btg.signed")
    ask(town, *emergency, "--with", NAMES[1], "--to", draft)
    run("tx", "sign", draft, *town.as_organisation(NAMES[1]), "--to", signed)
    events = json.loads(run("tx", "submit", signed, *town.as_organisation(NAMES[1]), "--output", "json").stdout)[
        "events"
    ]
    assert [event["event"] for event in events] == ["AccessDecided", "BreakGlassUsed"]
    custodian = town.as_organisation()
    (row,) = json.loads(run("access", "reviews", *custodian, "--output", "json").stdout)
    assert (row["access"], row["organisation"], row["overdue"]) == (events[0]["access_id"], NAMES[1], False)
    assert json.loads(run("access", "reviews", "--overdue", *custodian, "--output", "json").stdout) == []
    verdict = ("access", "review", row["access"], "--verdict", "justified", "--note", "was alone")
    assert "E_ROLE" in said(run(*verdict, *town.as_organisation(NAMES[1]), expect=4)), "it was the second signature"
    done = run(*verdict, *custodian)
    assert "BreakGlassReviewed" in done.stdout and "salt" in done.stderr
    assert json.loads(run("access", "reviews", *custodian, "--output", "json").stdout) == []


@pytest.mark.parametrize("months", ["2022", "2022-13", "2022-02..2022-01", "2022-01..2022-02..2022-03", "x"])
def test_months_are_spelled_by_year_and_month(town, patient, months):
    """Status 2."""
    given = ("--actor", "role:nurse", "--purpose", "TREAT", "--for", "1h", "--everything", "--months", months)
    run("consent", "grant", *town.as_person("patient.wallet"), *given, expect=2)
