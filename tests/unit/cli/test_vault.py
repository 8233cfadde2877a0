"""`p2pledger vault`: sealed objects in and out by their hash, and what lies there; audits end with a status."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pledger.cli.main import exit_status, root
from p2pledger.client.ingest import Prepared, prepare_bundle
from p2pledger.client.keyring import OrganisationWallet
from p2pledger.client.vault import names_of
from p2pledger.node.home import Home
from p2pledger.node.vault import last_audit, own_store
from p2pledger.primitives.crypto import sha256
from tests.unit.client.test_ingest import PATIENT, Origin
from tests.unit.fhir.samples import bundle
from tests.unit.node.test_home import consortium


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return consortium(tmp_path / "net")[0]


@pytest.fixture
def prepared(home: Path) -> Prepared:
    """A chart of 61 records in the home's vault."""
    loaded = Home.load(home, {})
    own = loaded.office()
    wallet = OrganisationWallet.of_seeds(loaded.card.organisation, own.account.seed, own.box.seed)
    made = prepare_bundle(bundle("Luigi_Wiegand"), Origin(wallet.custodian), PATIENT)
    store = own_store(loaded)
    for name, data in made.objects.items():
        store.put(name, data)
    store.put(made.operation.batch_id, made.sealed_manifest)
    return made


def types(home: Path, *arguments: object, status: int = 0) -> Any:
    words = ["--home", str(home), "--output", "json", "vault", *map(str, arguments)]
    done = CliRunner().invoke(root, words, prog_name="p2pledger", standalone_mode=False)
    ended = done.return_value if done.exception is None else exit_status(done.exception)
    assert (ended or 0) == status, done.output
    return json.loads(done.stdout) if done.stdout.startswith(("[", "{")) else done.output


def test_sealed_objects_go_in_and_out_by_their_hash(home: Path, tmp_path: Path) -> None:
    """F-09: as out of a backup; what is nowhere is unavailable."""
    (tmp_path / "object").write_bytes(b"a sealed record")
    (row,) = types(home, "put", tmp_path / "object")
    assert row["name"] == sha256(b"a sealed record").hex()
    types(home, "get", row["name"], "--to", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"a sealed record"
    types(home, "get", "ab" * 32, "--to", tmp_path / "nothing", status=75)
    types(home, "get", "ab" * 5, "--to", tmp_path / "nothing", status=2)
    types(home, "put", tmp_path / "nothing", status=2)


def test_a_list_says_what_is_named_and_what_is_missing(home: Path, prepared: Prepared) -> None:
    store = own_store(Home.load(home, {}))
    store.put(sha256(b"left over"), b"left over")
    lost = names_of(prepared.manifest.entries[3])[0]
    store.delete(lost)
    rows = types(home, "list")
    kinds = {row["name"]: row["kind"] for row in rows}
    assert len(rows) == 63
    assert kinds[prepared.operation.batch_id.hex()] == "manifest"
    assert kinds[lost.hex()] == "object, missing"
    assert kinds[sha256(b"left over").hex()] == "named by no manifest"


def test_an_audit_without_replicas_looks_at_our_own_store(home: Path, prepared: Prepared) -> None:
    """F-09, F-36: a changed byte ends it with status 1 and names the object; without a copy nothing mends it."""
    (finding,) = types(home, "audit", "--sample", 100)
    assert (finding["asked"], finding["held"], finding["says"]) == (62, 62, "all held")
    spoiled = names_of(prepared.manifest.entries[3])[0].hex()
    path = home / "vault" / "objects" / spoiled[:2] / spoiled
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert last_audit(Home.load(home, {}).layout.vault_audit)[1] == 0
    said = types(home, "audit", "--sample", 100, status=1)
    assert spoiled in str(said)
    at_s, failed = last_audit(Home.load(home, {}).layout.vault_audit)
    assert failed == 1 and at_s > 1.6e9, "for the metrics of the service"
    types(home, "repair", status=75)
