"""F-35, F-36, F-29: a bundle becomes sealed records and one RecordBatch; a changed byte is found; nothing leaks."""

import dataclasses
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client.ingest import Capsules, Origin, Prepared, batch_operation, prepare_bundle, prepare_ndjson
from p2pledger.client.records import Custodian, Patient, open_manifest, open_record
from p2pledger.client.sealing import BoxKey
from p2pledger.client.vault import Vault
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health.commitments import RecordRef, check_record, record_root
from p2pledger.health.release import label_of
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, ConfigError, InvalidInput, ProofError, Rejected
from p2pledger.primitives.ids import ChainId
from tests.unit.client.joint import shared_key
from tests.unit.execution.ledger import id16
from tests.unit.fhir.samples import BULK_KINDS, PATIENTS, bundle, ndjson
from tests.unit.health.world import BERG, PID, World

PATIENT_BOX = BoxKey(sha256(b"patient's box"))
STRANGER_BOX = BoxKey(sha256(b"stranger's box"))
CUSTODIAN = Custodian.of_box_seed(id16("Berg"), sha256(b"custodian's box"))
PATIENT = Patient(PID, PATIENT_BOX.public)
ORIGIN = Origin(CUSTODIAN, received=datetime(2026, 11, 21, tzinfo=UTC))


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare_bundle(bundle("Fidel_Bins"), ORIGIN, PATIENT)


@pytest.fixture
def vault(tmp_path: Path, prepared: Prepared) -> Vault:
    """A vault that holds the batch."""
    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    return vault


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_every_record_comes_back_byte_for_byte(vault: Vault, prepared: Prepared) -> None:
    """All 182, each proven to be in the root that the chain is told."""
    items = extract_bundle(bundle("Fidel_Bins"))
    assert prepared.operation.n == len(items) == 182
    for item in items:
        ref = RecordRef(prepared.operation.batch_id, item.index)
        assert vault.open_record(ref, prepared.operation.root) == item.data
    leaf = check_record(vault.prove(RecordRef(prepared.operation.batch_id, 17)), prepared.operation.root)
    assert leaf.commitment == prepared.manifest.entries[17].commitment


def test_the_chain_accepts_the_batch_once(prepared: Prepared) -> None:
    """The real contract takes the operation; the same file again is E_DUP, in the vault and on the chain."""
    world = World()
    assert world.submit(BERG, prepared.operation) == Code.OK
    again = prepare_bundle(bundle("Fidel_Bins"), ORIGIN, PATIENT)
    assert again.operation.root != prepared.operation.root  # new salts
    assert world.submit(BERG, again.operation) == Code.E_DUP


def test_a_batch_is_kept_once(vault: Vault, prepared: Prepared) -> None:
    with pytest.raises(Rejected) as refused:
        vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    assert refused.value.code is Code.E_DUP
    assert list(vault.batches()) == [prepared.operation.batch_id]


def test_after_a_crash_before_submitting_the_vault_gives_the_same_operation(vault: Vault, prepared: Prepared) -> None:
    assert batch_operation(vault.manifest(prepared.operation.batch_id)) == prepared.operation


def test_a_bad_entry_leaves_nothing_behind(tmp_path: Path) -> None:
    """One broken resource in 182: refused with its entry, and no file in the vault."""
    document = json.loads(bundle("Fidel_Bins"))
    Vault(tmp_path / "vault", CUSTODIAN.box)
    del document["entry"][100]["resource"]["resourceType"]
    with pytest.raises(Rejected, match="entry 100: its resource has no resourceType") as refused:
        prepare_bundle(json.dumps(document).encode(), ORIGIN, PATIENT)
    assert refused.value.code is Code.E_FHIR_INVALID
    assert files(tmp_path) == []


def test_a_bundle_is_about_one_patient() -> None:
    document = json.loads(bundle("Luigi_Wiegand"))
    document["entry"][5]["resource"]["subject"] = {"reference": "urn:uuid:somebody-else"}
    with pytest.raises(Rejected, match="entry 5: it is about another patient"):
        prepare_bundle(json.dumps(document).encode(), ORIGIN, PATIENT)
    with pytest.raises(Rejected, match="0 Patient resources"):
        prepare_bundle(bundle("hospitalInformation"), ORIGIN, PATIENT)


def test_the_patient_reads_the_same_records_with_its_own_key(prepared: Prepared) -> None:
    """Manifest and records are sealed to the patient as well, and to nobody else."""
    batch_id = prepared.operation.batch_id
    manifest = open_manifest(prepared.sealed_manifest, batch_id, PATIENT_BOX)
    assert manifest == prepared.manifest
    entry = manifest.entries[3]
    item = extract_bundle(bundle("Fidel_Bins"))[3]
    assert open_record(prepared.objects[entry.object], manifest.ref(3), manifest, PATIENT_BOX) == item.data
    for attempt in (
        lambda: open_manifest(prepared.sealed_manifest, batch_id, STRANGER_BOX),
        lambda: open_record(prepared.objects[entry.object], manifest.ref(3), manifest, STRANGER_BOX),
        lambda: open_record(prepared.objects[entry.object], manifest.ref(4), manifest, PATIENT_BOX),
        lambda: open_manifest(prepared.sealed_manifest, bytes(16), PATIENT_BOX),
    ):
        with pytest.raises(InvalidInput, match=r"not sealed to|do not open"):
            attempt()


def test_a_changed_byte_names_its_record(tmp_path: Path, vault: Vault, prepared: Prepared) -> None:
    """F-36: wherever in the object the byte lies."""
    entry = prepared.manifest.entries[7]
    path = tmp_path / "vault" / "objects" / entry.object.hex()[:2] / entry.object.hex()
    original = path.read_bytes()
    ref = RecordRef(prepared.operation.batch_id, 7)
    for place in (0, 40, len(original) // 2, len(original) - 1):
        changed = bytearray(original)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(Rejected, match=f"record {ref}: ") as refused:
            vault.open_record(ref)
        assert refused.value.code is Code.E_COMMIT_MISMATCH
    path.write_bytes(original)
    vault.open_record(ref)
    path.unlink()
    with pytest.raises(Rejected, match=f"record {ref}: object .* is not in the vault"):
        vault.open_record(ref)


def test_a_custodian_who_rewrites_a_record_is_found_out_by_the_root(tmp_path: Path, prepared: Prepared) -> None:
    """With its own keys it can seal other bytes consistently; only the root on the chain tells."""
    other = prepare_bundle(bundle("Fidel_Bins").replace(b"Fidel", b"Fidal"), ORIGIN, PATIENT)
    ref = RecordRef(other.operation.batch_id, 0)
    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    vault.put_batch(other.operation.batch_id, other.sealed_manifest, other.objects)
    assert vault.open_record(ref)  # consistent in itself
    with pytest.raises(Rejected, match="does not lead to the batch's root") as refused:
        vault.open_record(ref, prepared.operation.root)
    assert refused.value.code is Code.E_COMMIT_MISMATCH


def test_a_changed_manifest_and_an_unknown_record_are_told_apart(
    tmp_path: Path, vault: Vault, prepared: Prepared
) -> None:
    batch_id = prepared.operation.batch_id
    for ref in (RecordRef(batch_id, 182), RecordRef(bytes(16), 0)):
        with pytest.raises(Rejected) as unknown:
            vault.open_record(ref)
        assert unknown.value.code is Code.E_NOT_FOUND
    path = tmp_path / "vault" / "manifests" / batch_id.hex()
    sealed = path.read_bytes()
    path.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))  # in the patient's copy of the key, too
    with pytest.raises(Rejected) as changed:
        vault.open_record(RecordRef(batch_id, 0))
    assert changed.value.code is Code.E_COMMIT_MISMATCH


def test_nothing_in_the_vault_is_readable_or_open_to_others(tmp_path: Path, vault: Vault) -> None:
    """No word of the bundle lies in it; files 0600, folders 0700; a vault in an open folder is refused."""
    kept = b"".join(path.read_bytes() for path in files(tmp_path / "vault"))
    words = _strings(json.loads(bundle("Fidel_Bins")))
    assert b"Bins" in bundle("Fidel_Bins") and len(words) > 500
    assert not [word for word in words if word.encode() in kept]
    for path in (tmp_path / "vault", *(tmp_path / "vault").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    os.chmod(tmp_path / "vault", 0o755)
    with pytest.raises(ConfigError, match="run: chmod 700"):
        Vault(tmp_path / "vault", CUSTODIAN.box)


def _strings(value: object) -> set[str]:
    """All strings of more than 6 characters in a document."""
    if isinstance(value, str):
        return {value} if len(value) > 6 else set()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_strings, items)) if items else set()


@pytest.mark.parametrize("name", PATIENTS)
def test_no_string_of_a_bundle_reaches_the_chain(name: str) -> None:
    """F-29, I-15: the operation holds random-looking handles, counts, months and a root."""
    operation = encode(prepare_bundle(bundle(name), ORIGIN, PATIENT).operation)
    leaked = [word for word in _strings(json.loads(bundle(name))) if word.encode() in operation]
    assert leaked == []


def test_compartments_are_handles_that_only_their_owner_can_read(prepared: Prepared) -> None:
    """Seven allergies under one handle; another patient and another custodian get other handles."""
    (allergies,) = prepared.manifest.compartments("allergy")
    counts = {compartment.handle: compartment.count for compartment in prepared.operation.compartments}
    assert counts[allergies] == 7
    assert sum(counts.values()) == 182
    other = Custodian.of_box_seed(id16("Tal"), sha256(b"another box"))
    again = {
        CUSTODIAN.handle(PID, "compartment", "allergy"),
        CUSTODIAN.handle(id16("somebody else"), "compartment", "allergy"),
        other.handle(PID, "compartment", "allergy"),
    }
    assert len(again) == 3 and allergies in again


def test_sensitive_records_lie_in_compartments_of_their_own() -> None:
    """A consent to `condition` does not open the overdose; what refers to it is as sensitive."""
    manifest = prepare_bundle(bundle("Trenton_Turner"), ORIGIN, PATIENT).manifest
    names = {name.handle: name.name for name in manifest.handles if name.kind == "compartment"}
    overdose = [entry for entry in manifest.entries if "ETH" in entry.labels]
    assert {names[entry.compartment] for entry in overdose} >= {"condition/ETH+R", "billing/ETH+R", "careplan/ETH+R"}
    assert all(names[entry.compartment].endswith("/ETH+R") for entry in overdose)
    plain = [entry for entry in manifest.entries if entry.resource_class == "condition" and entry.labels == ("N",)]
    assert {names[entry.compartment] for entry in plain} == {"condition"}


def test_a_bill_that_refers_to_a_sensitive_condition_is_sensitive() -> None:
    """It carries no sensitive code itself, only the reference."""
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "370143000"}]}
    document = {
        "resourceType": "Bundle",
        "entry": [
            {"fullUrl": "urn:uuid:p", "resource": {"resourceType": "Patient", "id": "p"}},
            {"fullUrl": "urn:uuid:c", "resource": {"resourceType": "Condition", "code": code}},
            {"resource": {"resourceType": "Claim", "diagnosis": [{"diagnosisReference": {"reference": "urn:uuid:c"}}]}},
            {"resource": {"resourceType": "Claim"}},
        ],
    }
    manifest = prepare_bundle(json.dumps(document).encode(), ORIGIN, PATIENT).manifest
    assert [entry.labels for entry in manifest.entries] == [("N",), ("PSY", "R"), ("PSY", "R"), ("N",)]


def test_undated_records_count_for_the_month_in_which_they_came(prepared: Prepared) -> None:
    dated = [entry.month for entry in prepared.manifest.entries if entry.clinical_date is not None]
    undated = {entry.month for entry in prepared.manifest.entries if entry.clinical_date is None}
    assert undated == {202611}
    assert prepared.operation.months == (min(dated), 202611)


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = prepare_bundle(bundle("Luigi_Wiegand"), ORIGIN, PATIENT, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 61) for i in range(1, 62)]
    kept: list[tuple[int, int]] = []
    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    vault.put_batch(
        made.operation.batch_id, made.sealed_manifest, made.objects, lambda *progress: kept.append(progress)
    )
    assert kept == seen


def test_an_interrupted_batch_is_not_there_and_can_be_taken_in_again(tmp_path: Path, prepared: Prepared) -> None:
    """The disk fails after some objects: no batch; the next attempt completes it."""

    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done == 50:
            raise Interrupted

    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    batch_id = prepared.operation.batch_id
    with pytest.raises(Interrupted):
        vault.put_batch(batch_id, prepared.sealed_manifest, prepared.objects, interrupt)
    assert not vault.has_batch(batch_id) and list(vault.batches()) == []
    vault.put_batch(batch_id, prepared.sealed_manifest, prepared.objects)
    assert vault.open_record(RecordRef(batch_id, 0), prepared.operation.root)


def test_a_bulk_export_becomes_one_batch_for_each_patient() -> None:
    """Thirteen patients; organisations, locations and practitioners belong to nobody's batch."""
    known: dict[str, Patient] = {}

    def find(name: str) -> Patient:
        return known.setdefault(name, Patient(sha256(name.encode())[:16], PATIENT_BOX.public))

    batches = prepare_ndjson([ndjson(kind) for kind in BULK_KINDS], ORIGIN, find)
    patients = {json.loads(line)["id"] for line in ndjson("Patient").splitlines()}
    assert set(batches) == patients
    total = sum(batch.operation.n for batch in batches.values())
    assert total == sum(
        len(ndjson(kind).splitlines())
        for kind in ("AllergyIntolerance", "Condition", "Device", "Immunization", "Patient")
    )
    for name, batch in batches.items():
        assert batch.operation.pid == known[name].pid
        assert batch.operation.schema == 2
        assert record_root(batch.manifest.leaves()) == batch.operation.root
    with pytest.raises(Rejected, match="file 1, line 0: not valid JSON"):
        prepare_ndjson([ndjson("Patient"), b"{"], ORIGIN, find)
    assert prepare_ndjson([ndjson("Patient")], ORIGIN, lambda name: None) == {}


def test_secrets_do_not_show() -> None:
    seed = sha256(b"custodian's box")
    assert seed.hex() not in repr(CUSTODIAN) + repr(CUSTODIAN.box) and repr(seed) not in repr(CUSTODIAN)


def test_another_author_is_named_in_every_leaf() -> None:
    origin = Origin(CUSTODIAN, id16("Tal"), ORIGIN.received)
    made = prepare_bundle(bundle("Luigi_Wiegand"), origin, PATIENT)
    assert made.operation.author_org == id16("Tal")
    assert {leaf.author_org for leaf in made.manifest.leaves()} == {id16("Tal")}
    assert record_root(replace(made.manifest, author_org=id16("Berg")).leaves()) != made.operation.root


# Capsules


KEY, _ = shared_key(4)
CAPSULES = Capsules.to_key(KEY.key, ChainId(b"c" * 32))


def test_with_a_joint_key_each_record_has_a_capsule_of_its_own_content_key() -> None:
    """F-09: what t validators open is the key of this record and of no other; custodian and patient still open all."""
    prepared = prepare_bundle(bundle("Fidel_Bins"), dataclasses.replace(ORIGIN, capsules=CAPSULES), PATIENT)
    manifest = prepared.manifest
    assert manifest.key_epoch == KEY.key.key_epoch
    assert record_root(manifest.leaves()) == prepared.operation.root
    for entry, leaf in zip(manifest.entries, manifest.leaves(), strict=True):
        assert entry.capsule == leaf.capsule is not None
        capsule = prepared.objects[entry.capsule]
        label = label_of(manifest.ref(entry.index), manifest.pid, manifest.custodian, CAPSULES.chain, 1)
        KEY.check(capsule, label)
        with pytest.raises(ProofError):
            KEY.check(capsule, replace(label, index=label.index + 1))
    assert len(prepared.objects) == 2 * len(manifest.entries)
    assert open_record(prepared.objects[manifest.entries[0].object], manifest.ref(0), manifest, PATIENT_BOX)


def test_the_vault_gives_what_a_reader_needs_of_a_record(tmp_path: Path) -> None:
    prepared = prepare_bundle(bundle("Fidel_Bins"), dataclasses.replace(ORIGIN, capsules=CAPSULES), PATIENT)
    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    sealed = vault.sealed_record(prepared.manifest.ref(3))
    leaf = check_record(sealed.proof, prepared.operation.root)
    assert (leaf.capsule, leaf.ciphertext) == (sha256(sealed.capsule), sha256(sealed.object))
    assert sealed.key_epoch == 1
    with pytest.raises(Rejected, match="has 182 records"):
        vault.sealed_record(prepared.manifest.ref(182))


def test_without_a_joint_key_no_reader_is_given_anything(tmp_path: Path, prepared: Prepared) -> None:
    vault = Vault(tmp_path / "vault", CUSTODIAN.box)
    vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    with pytest.raises(Rejected, match="E_CAPSULE"):
        vault.sealed_record(prepared.manifest.ref(0))


def test_a_leaf_says_what_a_request_is_compared_with(prepared: Prepared) -> None:
    """F-05: class, sensitive labels, authors and encounter, as the handles that consents name them by."""
    manifest, custodian = prepared.manifest, CUSTODIAN
    for entry, leaf in zip(manifest.entries, manifest.leaves(), strict=True):

        def handle(kind: str, name: str) -> bytes:
            return custodian.handle(manifest.pid, kind, name)

        assert leaf.resource_class == handle("class", entry.resource_class)
        assert set(leaf.labels) == {handle("label", label) for label in entry.labels if label != "N"}
        authors = {handle("author", author) for author in entry.authors} or {manifest.author_org}
        assert set(leaf.authors) == authors
        visit = entry.encounter and handle("encounter", f"Encounter/{entry.encounter}")
        assert leaf.encounter == visit
    assert any(entry.authors for entry in manifest.entries)
    assert any(entry.encounter for entry in manifest.entries)
