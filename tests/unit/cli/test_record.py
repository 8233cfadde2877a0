"""record: a custodian takes records in, lists them, and opens what was committed to."""

import json
from importlib.resources import files

import pytest

from p2pledger.cli.wallet import PATIENT_CARD
from tests.unit.cli.town import NAMES, Town, run, said

INGEST = ("record", "ingest", "--without-release")
BUNDLES = files("p2pledger.samples") / "bundles"
BUNDLE = next(path for path in BUNDLES.iterdir() if path.name.startswith("Fidel_Bins"))
BULK = files("p2pledger.samples") / "bulk10"


@pytest.fixture(scope="module")
def batch(town: Town, patient):
    """Fidel's chart, committed to by the first hospital."""
    taken = run(*INGEST, BUNDLE, "--patient", patient, *town.as_organisation(), "--output", "json")
    (row,) = json.loads(taken.stdout)
    assert row["pid"] == patient
    return row


def listed(town, *arguments):
    return json.loads(run("record", "list", *arguments, *town.as_organisation(), "--output", "json").stdout)


def test_the_vault_lists_what_was_committed(town, batch):
    """Batches, records, and the compartments that a consent names."""
    assert batch["batch"] in [row["batch"] for row in listed(town)]
    records = listed(town, batch["batch"])
    assert len(records) == batch["records"]
    compartments = listed(town, batch["batch"], "--compartments")
    assert sum(row["records"] for row in compartments) == batch["records"]
    assert next(row for row in compartments if row["name"] == "allergy")["records"] == 7


def test_a_record_opens_to_the_bytes_that_were_committed(town, batch):
    """With the batch's root proven by the chain, and offline against the vault."""
    ref = next(row["record"] for row in listed(town, batch["batch"]) if row["type"] == "AllergyIntolerance")
    proven = run("record", "open", ref, *town.as_organisation())
    assert proven.stdout_bytes in BUNDLE.read_bytes()
    assert "on the chain, proven" in proven.stderr
    copy = town.file("allergy.json")
    run("record", "open", ref, "--offline", "--to", copy, "--home", town.home())
    assert copy.read_bytes() == proven.stdout_bytes


def test_a_record_that_is_not_there(town, batch):
    """Status 6; a name that is none, 2."""
    run("record", "open", f"{batch['batch']}/99999", *town.as_organisation(), expect=6)
    run("record", "open", f"{'00' * 16}/0", *town.as_organisation(), expect=6)
    run("record", "open", "the first one", *town.as_organisation(), expect=2)


def test_a_changed_object_is_noticed(town, batch):
    """F-36: status 4, E_COMMIT_MISMATCH."""
    ref = f"{batch['batch']}/0"
    run("record", "open", ref, *town.as_organisation())
    objects = [path for path in (town.home() / "vault" / "objects").rglob("*") if path.is_file()]
    kept = {path: path.read_bytes() for path in objects}
    for path, data in kept.items():
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = said(run("record", "open", ref, *town.as_organisation(), expect=4))
    for path, data in kept.items():
        path.write_bytes(data)
    assert "E_COMMIT_MISMATCH" in message


def test_taking_the_same_file_in_twice_is_refused(town, batch, patient):
    """E_DUP, status 4: the chain has it."""
    ingest = (*INGEST, BUNDLE, "--patient", patient, *town.as_organisation())
    assert "E_DUP" in said(run(*ingest, expect=4))


def test_a_batch_that_was_kept_but_not_committed_is_committed_now(town):
    """F-35: a crash between the two is repaired by doing it again."""
    pid = town.enrol("crash.wallet", "patient")
    ingest = (*INGEST, BUNDLE, "--patient", pid)
    home = ("--home", str(town.home()))
    submit, failing = town.chain.run, {"on": True}

    def run_or_fail(*transactions):
        if failing.pop("on", False):
            raise ValueError("the power is cut")
        return submit(*transactions)

    town.chain.run = run_or_fail
    before = {path.name for path in (town.home() / "vault" / "manifests").iterdir()}
    run(*ingest, *home, *town.network, expect=4)
    (kept,) = {path.name for path in (town.home() / "vault" / "manifests").iterdir()} - before
    (row,) = json.loads(run(*ingest, *home, *town.network, "--output", "json").stdout)
    assert row["batch"] == kept


def test_without_keys_of_validators_it_says_what_else_there_is(town, patient):
    """Rule 3.6: neither a joint key nor enough deposit keys; nothing is kept meanwhile."""
    before = len(list((town.home() / "vault" / "manifests").iterdir()))
    sealing = ("record", "ingest", BUNDLE, "--patient", patient, *town.as_organisation())
    assert "--one-time, which needs none" in said(run(*sealing, expect=75))
    assert "0 validators have announced a deposit key" in said(run(*sealing, "--one-time", expect=75))
    assert "not both" in said(run(*sealing, "--one-time", "--without-release", expect=2))
    assert len(list((town.home() / "vault" / "manifests").iterdir())) == before


def test_only_one_time_secrets_are_deposited(town, batch):
    """A batch that is sealed in another way, and one that is not there."""
    assert "nothing to deposit" in said(run("record", "deposit", batch["batch"], *town.as_organisation(), expect=2))
    assert "has no batch" in said(run("record", "deposit", "00" * 16, *town.as_organisation(), expect=2))


def test_the_patient_is_who_the_chain_says(town, patient):
    """Another box key than the registered one, or no patient at all, is refused before anything is kept."""
    organisation = town.as_organisation()
    wrong = said(run(*INGEST, BUNDLE, "--patient", f"{patient}:{'00' * 32}", *organisation, expect=2))
    assert "box key" in wrong
    run(*INGEST, BUNDLE, "--patient", "00" * 16, *organisation, expect=6)


def test_the_patients_card_is_enough(town):
    """As `wallet card` prints it; a broken one is named."""
    town.enrol("carded.wallet", "patient")
    card = town.file("carded.json", run("wallet", "card", *town.as_person("carded.wallet")).stdout)
    assert json.loads(card.read_text())["format"] == PATIENT_CARD
    run(*INGEST, BUNDLE, "--patient", card, *town.as_organisation())
    broken = town.file("broken.json", card.read_text().replace(PATIENT_CARD, "x"))
    run(*INGEST, BUNDLE, "--patient", broken, *town.as_organisation(), expect=78)


def test_bulk_files_of_several_patients_need_to_know_who_is_who(town):
    """FHIR-ID=PID, each once; a batch for each."""
    lines = [json.loads(line) for line in (BULK / "Patient.000.ndjson").read_text().splitlines()][:2]
    wallets = [town.enrol(f"bulk{number}.wallet", "patient") for number in range(2)]
    given = [f"{line['id']}={pid}" for line, pid in zip(lines, wallets, strict=True)]
    named = ("--patient", given[0], "--patient", given[1])
    sources = (BULK / "Patient.000.ndjson", BULK / "Condition.000.ndjson")
    taken = run(*INGEST, *sources, *named, *town.as_organisation(), "--output", "json")
    assert {row["pid"] for row in json.loads(taken.stdout)} == set(wallets)
    assert "FHIR-ID=PID" in said(run(*INGEST, *sources, "--patient", wallets[0], *town.as_organisation(), expect=2))
    twice = ("--patient", wallets[0], "--patient", wallets[1])
    run(*INGEST, *sources, *twice, *town.as_organisation(), expect=2)
    run(*INGEST, BUNDLE, *sources, "--patient", wallets[0], *town.as_organisation(), expect=2)


def test_a_file_with_anything_wrong_leaves_nothing_behind(town, patient):
    """E_FHIR_INVALID, status 4; an absent file, 2."""
    before = sorted((town.home() / "vault").rglob("*"))
    bad = town.file("bad.json", b'{"resourceType": "Bundle", "entry": [{}]}')
    assert "E_FHIR_INVALID" in said(run(*INGEST, bad, "--patient", patient, *town.as_organisation(), expect=4))
    run(*INGEST, town.file("no.json"), "--patient", patient, *town.as_organisation(), expect=2)
    assert sorted((town.home() / "vault").rglob("*")) == before


def test_only_the_custodian_commits(town, patient):
    """Another hospital is refused by the chain."""
    other = town.as_organisation(NAMES[1])
    assert "E_ROLE" in said(run(*INGEST, BUNDLE, "--patient", patient, *other, expect=4))
