"""erase and backup: who says what to whom, and what is refused before anything is destroyed (F-26, F-27)."""

import json
from importlib.resources import files

import lmdb
import pytest

from p2pledger.storage.home import exclusive_lock
from tests.unit.cli.town import NAMES, Town, run, said

BUNDLES = files("p2pledger.samples") / "bundles"
BUNDLE = next(path for path in BUNDLES.iterdir() if path.name.startswith("Fidel_Bins"))


@pytest.fixture(scope="module")
def batch(town: Town, patient: str) -> str:
    given = ["--patient", patient, "--without-release"]
    (row,) = shown("record", "ingest", BUNDLE, *given, *town.as_organisation())
    return str(row["batch"])


def shown(*arguments: object):
    return json.loads(run(*arguments, "--output", "json").stdout)


def asked(town: Town, name: str, *records: str) -> str:
    """The patient's request; its id."""
    wanted = [word for record in records for word in ("--record", record)]
    letter = town.file(f"{name}.letter")
    receipt = shown("erase", "request", *wanted, "--letter", letter, *town.as_person("patient.wallet"))
    return str(receipt["events"][0]["erase_id"])


def status(town: Town, erasure: str) -> dict[str, object]:
    rows = shown("erase", "status", *town.as_person("patient.wallet"))
    return next(row for row in rows if row["erasure"] == erasure)


def test_from_the_patients_request_to_the_certificate(town: Town, batch: str) -> None:
    """F-26: the patient's view at each step, in plain words."""
    erasure = asked(town, "wanted", f"{batch}/3-4")
    assert str(status(town, erasure)["now"]).startswith("waits for an answer, due by ")
    run("erase", "decide", erasure, "--letter", town.file("wanted.letter"), *town.as_organisation())
    now = str(status(town, erasure)["now"])
    assert now == f"released to nobody any more; 0 of 1 holders have deleted it, missing: {NAMES[0]}"
    run("erase", "certify", erasure, *town.as_organisation(), expect=6)
    report = shown("erase", "run", erasure, *town.as_organisation())
    assert report["deleted"] == 2
    assert shown("erase", "run", erasure, *town.as_organisation()) == report
    run("erase", "certify", erasure, *town.as_organisation())
    assert status(town, erasure)["now"] == "erased, as all 1 holders certify"
    gone = run("record", "open", f"{batch}/3", *town.as_organisation(), expect=4)
    assert "E_ERASED" in said(gone)
    run("record", "open", f"{batch}/5", *town.as_organisation())
    (row,) = [row for row in shown("record", "list", *town.as_organisation()) if row["batch"] == batch]
    assert (row["records"], row["erased"]) == (180, 2)
    told = shown("watch", "--from", "1:0", "--kinds", "erasure", "--count", 1, *town.as_person("patient.wallet"))
    assert str(told["says"]).startswith("the patient asked to erase 2 records; an answer by ")


def test_a_refusal_names_its_basis_to_the_patient(town: Town, batch: str) -> None:
    """F-27."""
    erasure = asked(town, "refused", f"{batch}/6")
    run("erase", "decide", erasure, "--refuse", *town.as_organisation(), expect=2)
    run("erase", "decide", erasure, "--refuse", "--basis", "art17-3-e", *town.as_organisation())
    assert status(town, erasure)["now"] == "refused: legal claims depend on it (GDPR Art. 17(3)(e))"
    run("erase", "run", erasure, *town.as_organisation(), expect=2)
    answers = [row["answer"] for row in shown("wallet", "log", *town.as_person("patient.wallet"))]
    assert "refused: legal claims depend on it (GDPR Art. 17(3)(e))" in answers


def test_part_of_it_stays(town: Town, batch: str) -> None:
    """F-27: the custodian keeps one of two records."""
    erasure = asked(town, "partly", f"{batch}/8", f"{batch}/9")
    decide = ["erase", "decide", erasure, "--letter", town.file("partly.letter"), "--keep"]
    run(*decide, f"{batch}/9", *town.as_organisation(), expect=2)
    run(*decide, f"{batch}/10", "--basis", "legal-hold", *town.as_organisation(), expect=2)
    run(*decide, f"{batch}/9", "--basis", "legal-hold", *town.as_organisation())
    assert str(status(town, erasure)["now"]).endswith(
        "; the others stay: a court or an authority has ordered that it be kept"
    )
    run("erase", "run", erasure, *town.as_organisation())
    run("erase", "certify", erasure, *town.as_organisation())
    run("record", "open", f"{batch}/8", *town.as_organisation(), expect=4)
    run("record", "open", f"{batch}/9", *town.as_organisation())


def test_what_is_refused_before_anything_is_destroyed(town: Town, batch: str, patient: str) -> None:
    """A stranger's letter, a letter of another request, another house, records in no order, nobody's request."""
    erasure, other = asked(town, "one", f"{batch}/20"), asked(town, "two", f"{batch}/21")
    letter = town.file("one.letter")
    run("erase", "decide", other, "--letter", letter, *town.as_organisation(), expect=2)
    run("erase", "decide", erasure, *town.as_organisation(), expect=2)
    run("erase", "decide", erasure, "--letter", letter, *town.as_organisation(NAMES[1]), expect=2)
    run("erase", "decide", "00" * 16, "--letter", letter, *town.as_organisation(), expect=6)
    run("erase", "run", erasure, *town.as_organisation(), expect=75)
    for wrong in (f"{batch}/7-3", "the first one", batch):
        wanted = ["--record", wrong, "--letter", town.file("three.letter")]
        run("erase", "request", *wanted, *town.as_person("patient.wallet"), expect=2)
    wanted = ["--record", batch, "--letter", town.file("four.letter")]
    run("erase", "request", *wanted, *town.as_organisation(), expect=2)
    receipt = shown("erase", "request", *wanted, "--pid", patient, *town.as_organisation())
    assert (receipt["events"][0]["asker"], receipt["events"][0]["n_records"]) == ("custodian", 182)
    run("erase", "status", "--pid", patient, *town.as_person("patient.wallet", NAMES[1]), expect=4)


def test_backups_are_made_listed_checked_and_restored(town: Town, batch: str) -> None:
    """Status 5 for one that was changed, 6 without its key."""
    house = town.as_organisation()
    made = shown("backup", "make", "--to", town.file("tapes"), *house)
    assert [row["set"] for row in shown("backup", "list", *house)] == [made["set"]]
    assert shown("backup", "check", made["set"], *house)["whole"]
    vault = town.home() / "vault"
    vault.rename(town.file("lost vault"))
    run("record", "open", f"{batch}/5", *house, expect=6)
    run("backup", "restore", made["set"], *house)
    run("record", "open", f"{batch}/5", *house)
    assert shown("erase", "recheck", *house)["deleted again"] == 0
    run("backup", "check", "00" * 16, *house, expect=6)
    path = next(town.file("tapes").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    run("backup", "check", made["set"], *house, expect=5)


def test_an_erasure_ends_with_the_compacting_copy(town: Town, batch: str) -> None:
    """F-26: by the same command where the node is stopped; while it runs, nothing of its stores is touched."""
    erasure = asked(town, "compacted", f"{batch}/30")
    run("erase", "decide", erasure, "--letter", town.file("compacted.letter"), *town.as_organisation())
    home = town.homes[0]
    for store in (home.ledger, home.state):
        store.mkdir(parents=True)
        with lmdb.open(str(store)) as environment, environment.begin(write=True) as txn:
            txn.put(b"freed", bytes(500_000))
        with lmdb.open(str(store)) as environment, environment.begin(write=True) as txn:
            txn.delete(b"freed")
    sizes = [(store / "data.mdb").stat().st_size for store in (home.ledger, home.state)]
    with exclusive_lock(home.layout.lock):
        held = run("erase", "run", erasure, "--compact", *town.as_organisation(), expect=78)
        assert "is held by process" in said(held)
    assert [(store / "data.mdb").stat().st_size for store in (home.ledger, home.state)] == sizes
    cards = town.home() / "guardian-cards"
    cards.mkdir(mode=0o700)
    kept = cards / f"{status(town, erasure)['pid']}.card"
    kept.touch(mode=0o600)
    done = run("erase", "run", erasure, "--compact", *town.as_organisation())
    assert f"guardians' card of this patient lies in {kept}" in done.stderr and kept.exists()
    assert "ledger compacted" in done.stderr and "state compacted" in done.stderr
    assert all((store / "data.mdb").stat().st_size < 100_000 for store in (home.ledger, home.state))
    run("erase", "certify", erasure, *town.as_organisation())


def test_who_keeps_copies_has_to_certify(town: Town, batch: str) -> None:
    """F-26: a replica that stands in the settings is entered as a holder before the decision, and once."""
    config = town.home() / "config.toml"
    before = config.read_text() if config.exists() else ""
    config.write_text(f'{before}\n[vault]\ncopies = 1\n[vault.replicas]\n"{NAMES[1]}" = "127.0.0.1:9"\n')
    try:
        erasure = asked(town, "kept", f"{batch}/40")
        decided = run("erase", "decide", erasure, "--letter", town.file("kept.letter"), *town.as_organisation())
        assert f"{NAMES[1]} is entered as a holder of replicas" in decided.stderr
        assert sorted(status(town, erasure)["missing"]) == sorted(NAMES[:2])
        again = run("erase", "holder", NAMES[1], *town.as_organisation())
        assert f"{NAMES[1]} is registered already" in again.stderr
        mended = run("vault", "repair", *town.as_organisation(), expect=75)
        assert "1 replicas were not completed" in said(mended) and "is entered" not in mended.stderr
    finally:
        config.write_text(before)
