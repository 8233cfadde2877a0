"""audit export and prove: one log in every form, opened with cards and slips, and one line alone (F-08, F-14)."""

import csv
import io
import json

import pytest

from tests.unit.cli.town import NAMES, run, said

PART = "c3" * 16
RECORD = "d4" * 16 + "/3"


@pytest.fixture(scope="module")
def papers(town, patient, doctor):
    """A consent for sensitive conditions, an access with a slip, and a denial; (card, slip)."""
    granted = run(
        *("consent", "grant", *town.as_person("patient.wallet"), "--actor", f"person:{doctor}"),
        *("--purpose", "treat", "--compartment", f"{PART}=condition/ETH+R", "--for", "24h"),
    )
    card, slip = town.file("export.card", granted.stdout), town.file("export.slip")
    asking = ("access", "request", *town.as_person("doctor.wallet", NAMES[1]), "--card", card)
    run(*asking, "--purpose", "TREAT", "--record", RECORD, "--slip", slip)
    run(*asking, "--purpose", "HRESCH", expect=4)
    town.chain.tick()
    return card, slip


def export(town, form, *arguments, expect=0):
    file = town.file(f"{form}-{len(list(town.folder.iterdir()))}")
    run("audit", "export", file, "--format", form, *town.as_person("patient.wallet"), *arguments, expect=expect)
    return file


def test_csv_has_names_and_what_the_papers_open(town, papers):
    card, slip = papers
    rows = list(csv.DictReader(io.StringIO(export(town, "csv", "--card", card, "--slip", slip).read_text())))
    assert [row["recipient"] for row in rows] == [NAMES[1]] * 2
    assert rows[0]["description"] == "1 record: condition/ETH+R" and rows[0]["records"] == RECORD
    assert rows[1]["decision"].startswith("DENIED(E_PURPOSE)")


def test_fhir_is_a_bundle_of_audit_events(town, papers):
    """Three for the permission to another organisation, one for the denial."""
    bundle = json.loads(export(town, "fhir").read_text())
    kinds = [entry["resource"]["id"].partition("-")[2] for entry in bundle["entry"]]
    assert kinds == ["authz", "read", "disclosure", "authz"]


def test_html_and_pdf_account_for_disclosures(town, papers):
    """From the patient's wallet, and from the custodian's home."""
    page = export(town, "html", "--card", papers[0]).read_text()
    assert NAMES[1] in page and "EXEMPT: treatment" in page and "42 CFR Part 2, consent" in page
    assert export(town, "pdf").read_bytes().startswith(b"%PDF-")


def test_the_custodian_accounts_for_its_patient(town, papers, patient):
    file = town.file("custodian.html")
    at = town.as_organisation(NAMES[0])
    for _ in range(2):  # a checkpoint that knows the patient
        town.chain.tick()
    run("audit", "export", file, "--format", "html", *at, "--pid", patient)
    assert f"<dd>{NAMES[0]}</dd>" in file.read_text()


def test_what_does_not_open_is_named(town, papers):
    """Status 2: a slip of another access, a suspension against the rules, addresses that are none."""
    _, slip = papers
    at = town.as_person("patient.wallet")
    forged = town.file("forged.slip", slip.read_text().replace("/3", "/4"))
    out = town.file("never")
    refused = run("audit", "export", out, "--format", "csv", *at, "--slip", forged, expect=2)
    assert "lists other records" in said(refused)
    letter = town.file("letter.json", "{}")
    assert "suspension" in said(run("audit", "export", out, "--format", "pdf", *at, "--suspension", letter, expect=2))
    wrong = town.file("addresses.json", "[1]")
    assert "addresses" in said(run("audit", "export", out, "--format", "html", *at, "--addresses", wrong, expect=2))
    assert not out.exists()


def test_one_line_verifies_alone(town, papers):
    """With the chain id and nothing else; changed, it does not."""
    file, chain = town.file("line.json"), town.founding.chain.hex()
    run("audit", "prove", 2, file, *town.as_person("patient.wallet"))
    shown = json.loads(run("verify", file, "--genesis", chain, "--output", "json").stdout)
    assert shown["line"] == 2 and shown["decision"].startswith("DENIED(E_PURPOSE)")
    forged = town.file("forged-line.json", file.read_text().replace("DENIED (E_PURPOSE)", "ALLOWED"))
    assert said(run("verify", forged, "--genesis", chain, expect=5)).startswith("text:")
    assert said(run("verify", file, "--genesis", "00" * 32, expect=5)).startswith("genesis:")


def test_a_line_that_does_not_exist_is_not_found(town, papers, monkeypatch):
    """Status 6."""

    def none(pid, sequence):
        from p2pledger.primitives.errors import Code, Rejected

        raise Rejected(Code.E_NOT_FOUND, f"no line {sequence}")

    monkeypatch.setattr(town.chain, "line_reply", none)
    run("audit", "prove", 99, town.file("none.json"), *town.as_person("patient.wallet"), expect=6)
