"""F-26, I-12: what an erasure leaves at a holder: nothing that opens the record, and a batch that still proves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client.backup import Backups, BackupSet
from p2pledger.client.erasure import (
    EraseLetter,
    House,
    Papers,
    carry_out,
    check_order,
    erase_in_replica,
    make_order,
    parts_of,
    recheck,
    sign_order,
)
from p2pledger.client.ingest import Capsules, Origin, Prepared, batch_operation, prepare_bundle
from p2pledger.client.records import Custodian, Patient, open_manifest
from p2pledger.client.sealing import BoxKey
from p2pledger.client.vault import Vault, names_of
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health import erasure
from p2pledger.health.commitments import RecordRef, check_record
from p2pledger.health.erasure import Erasure
from p2pledger.health.erasure_operations import EraseDecision, ErasedPart
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Rejected, StoreError
from p2pledger.primitives.ids import ChainId
from p2pledger.vault.objects import DirectoryStore
from tests.unit.client.joint import shared_key
from tests.unit.execution.ledger import hash32, id16
from tests.unit.fhir.samples import bundle
from tests.unit.health.world import BERG, PATIENT, PID, TAL, World

PATIENT_BOX = BoxKey(sha256(b"patient's box"))
CUSTODIAN = Custodian.of_box_seed(id16("Berg"), sha256(b"custodian's box"))
WHO = Patient(PID, PATIENT_BOX.public)
CHAIN = ChainId(hash32("chain"))
CAPSULES = Capsules.to_key(shared_key(4)[0].key, CHAIN)
ORIGIN = Origin(CUSTODIAN, received=datetime(2026, 11, 21, tzinfo=UTC), capsules=CAPSULES)
GONE = (3, 17, 181)
NOW_MS = 1_800_000_000_000


@dataclass
class Case:
    """A custodian's house with a chart of 182 records and two backups; the chain has decided to erase some."""

    root: Path
    prepared: Prepared
    world: World

    @property
    def batch_id(self) -> bytes:
        return self.prepared.operation.batch_id

    @property
    def house(self) -> House:
        vault = Vault(self.root / "vault", CUSTODIAN.box)
        return House(vault, CHAIN, CUSTODIAN, Backups(self.root / "vault-backups"), Papers(self.root / "erasures"))

    def decide(self, *indices: int, name: str = "") -> Erasure:
        """Ask and accept; none: the whole batch."""
        refs = [RecordRef(self.batch_id, index) for index in indices or range(182)]
        letter = replace(EraseLetter.of(PID, refs), erase_id=id16(f"erasure {name or indices}"))
        assert self.world.submit(PATIENT, letter.request("patient")) == Code.OK
        opened = EraseLetter.opened(letter.sealed(CUSTODIAN.box.public), CUSTODIAN.box, letter.request("patient"))
        decision = EraseDecision(letter.erase_id, "accept", None, parts_of(opened.refs, lambda _: 182), opened.salt)
        assert self.world.submit(BERG, decision) == Code.OK
        found = erasure.erasure_of(letter.erase_id, self.world.state)
        assert found is not None
        return found

    def run(self, asked: Erasure) -> list[str]:
        return list(carry_out(asked, self.house, WHO, NOW_MS))

    def secrets(self, *indices: int) -> list[bytes]:
        """Of each record: salt, ciphertext and wrapped keys in pieces, plaintext in pieces."""
        items = extract_bundle(bundle("Fidel_Bins"))
        found = []
        for index in indices or range(182):
            entry = self.prepared.manifest.entries[index]
            sealed = self.prepared.objects[entry.object]
            found += [entry.salt, entry.commitment, *pieces(sealed), *pieces(items[index].data)]
            assert entry.capsule is not None
            found += pieces(self.prepared.objects[entry.capsule])
        return found


def pieces(data: bytes) -> Iterator[bytes]:
    """24 bytes out of each 100: so much of anything that is kept is found."""
    yield from (data[start : start + 24] for start in range(0, max(1, len(data) - 24), 100))


def scan(root: Path, secrets: list[bytes]) -> list[str]:
    """Which files hold one of them."""
    return [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for data in [path.read_bytes()]
        if any(secret in data for secret in secrets)
    ]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare_bundle(bundle("Fidel_Bins"), ORIGIN, WHO)


@pytest.fixture
def case(tmp_path: Path, prepared: Prepared) -> Case:
    made = Case(tmp_path / "home", prepared, World())
    made.root.mkdir(mode=0o700)
    assert made.world.submit(BERG, prepared.operation) == Code.OK
    made.house.vault.put_batch(made.batch_id, prepared.sealed_manifest, prepared.objects)
    return made


def check_erased(case: Case, *indices: int) -> None:
    """The record is in no file; the others open and prove, for the custodian and the patient: one in ten is tried."""
    vault, root = case.house.vault, case.prepared.operation.root
    for index in indices:
        with pytest.raises(Rejected) as refused:
            vault.open_record(RecordRef(case.batch_id, index), root)
        assert refused.value.code is Code.E_ERASED
        with pytest.raises(Rejected):
            vault.prove(RecordRef(case.batch_id, index))
    for item in extract_bundle(bundle("Fidel_Bins")):
        if item.index not in indices and item.index % 10 == 7:
            ref = RecordRef(case.batch_id, item.index)
            assert vault.open_record(ref, root) == item.data
    leaf = check_record(vault.prove(RecordRef(case.batch_id, 16)), root)
    assert leaf.commitment == case.prepared.manifest.entries[16].commitment
    manifest = open_manifest(vault.sealed_manifest(case.batch_id), case.batch_id, PATIENT_BOX)
    assert [one.index for one in manifest.erased] == list(indices)
    assert scan(case.root, case.secrets(*indices)) == []
    opened = encode(manifest)
    entries = [case.prepared.manifest.entries[index] for index in indices]
    told = [data for entry in entries for data in (entry.salt, entry.commitment, entry.object)]
    assert not any(secret in opened for secret in told)


def test_nothing_of_the_record_is_left_and_the_others_prove(case: Case) -> None:
    """I-12: objects, wrapped keys, salts and all that was said of it; the root on the chain is as it was."""
    assert scan(case.root, case.secrets(17)) != []
    steps = case.run(case.decide(*GONE))
    assert steps == ["order", "objects", f"manifest {case.batch_id.hex()}", "report"]
    check_erased(case, *GONE)


def test_a_whole_batch(case: Case) -> None:
    """Only leaf hashes stay, so that the same file is not taken in again."""
    asked = case.decide()
    assert asked.decided is not None and asked.decided.terms.parts[0].indices == ()
    case.run(asked)
    assert scan(case.root, case.secrets()) == []
    manifest = case.house.vault.manifest(case.batch_id)
    assert (manifest.entries, manifest.handles, manifest.root()) == ((), (), case.prepared.operation.root)
    with pytest.raises(Rejected) as refused:
        again = prepare_bundle(bundle("Fidel_Bins"), ORIGIN, WHO)
        case.house.vault.put_batch(case.batch_id, again.sealed_manifest, again.objects)
    assert refused.value.code is Code.E_DUP
    with pytest.raises(Rejected) as refused:
        batch_operation(manifest)
    assert refused.value.code is Code.E_ERASED


def test_what_a_crash_left_behind_goes_too(case: Case) -> None:
    """An attempt to take the file in that was killed: its objects open the same records, and no manifest names them."""
    crashed = prepare_bundle(bundle("Fidel_Bins"), ORIGIN, WHO)
    for name, sealed in crashed.objects.items():
        case.house.vault.store.put(name, sealed)
    left = {name for index in GONE for name in names_of(crashed.manifest.entries[index])}
    order = make_order(case.house.vault, CUSTODIAN.box, CHAIN, case.decide(*GONE))
    assert left < set(order.names) and len(order.names) == 12


def test_backups_with_the_record_end(case: Case, tmp_path: Path) -> None:
    """A new set without it is there before the keys of the old ones go; a copy of an old file stays shut."""
    tapes, copies = tmp_path / "tapes", tmp_path / "copies"
    house = case.house
    old = house.backups.make(house.vault.store, tapes, NOW_MS - 2)
    house.backups.make(house.vault.store, tapes, NOW_MS - 1)
    copies.mkdir()
    (copies / old.path.name).write_bytes(old.path.read_bytes())
    case.run(case.decide(*GONE))
    (fresh,) = house.backups.sets()
    assert [path.name for path in tapes.iterdir()] == [fresh.path.name]
    keys = b"".join(path.read_bytes() for path in (case.root / "vault-backups").iterdir())
    assert old.key not in keys and fresh.key in keys
    restored = Vault(tmp_path / "restored", CUSTODIAN.box)
    assert house.backups.restore(fresh, restored.store) == 2 * (182 - len(GONE)) + 1
    check_erased(replaced(case, tmp_path), *GONE)
    assert scan(tmp_path / "restored", case.secrets(*GONE)) == []
    with pytest.raises(Rejected) as refused:
        house.backups.set_of(old.set_id)
    assert refused.value.code is Code.E_NOT_FOUND


def replaced(case: Case, tmp_path: Path) -> Case:
    """The house with the restored vault in place of its own."""
    (case.root / "vault").rename(tmp_path / "aside")
    (tmp_path / "restored").rename(case.root / "vault")
    return case


def test_what_an_old_copy_brings_back_goes_again(case: Case) -> None:
    """A restore from a copy that has not heard of it; the chain says what is erased, whatever the vault says."""
    asked = case.decide(*GONE)
    case.run(asked)
    vault = case.house.vault
    vault.store.replace(case.batch_id, case.prepared.sealed_manifest)
    for name, sealed in case.prepared.objects.items():
        vault.store.put(name, sealed)
    gone = erasure.erased_of(case.batch_id, case.world.state)
    part = ErasedPart(case.batch_id, tuple(gone.indices()))
    assert recheck(case.house, {part: WHO}) == 2 * len(GONE)
    check_erased(case, *GONE)
    stray = case.prepared.manifest.entries[17].object
    vault.store.put(stray, case.prepared.objects[stray])
    assert recheck(case.house, {part: WHO}) == 1
    assert recheck(case.house, {part: WHO}) == 0
    check_erased(case, *GONE)


def test_an_unaffected_backup_stays(case: Case, tmp_path: Path) -> None:
    """A set from before the batch was there has nothing of it."""
    empty = Vault(tmp_path / "empty", CUSTODIAN.box)
    early = case.house.backups.make(empty.store, tmp_path / "tapes", NOW_MS - 9)
    case.run(case.decide(*GONE))
    assert case.house.backups.sets() == [early]


def test_a_backup_whose_file_is_away_loses_its_key(case: Case, tmp_path: Path) -> None:
    """Tapes in a vault need not be fetched."""
    house = case.house
    old = house.backups.make(house.vault.store, tmp_path / "tapes", NOW_MS - 1)
    old.path.unlink()
    steps = case.run(case.decide(*GONE))
    assert any("its file was not there" in step for step in steps)
    assert old not in house.backups.sets()


def test_a_backup_comes_back_whole_or_not_at_all(case: Case, tmp_path: Path) -> None:
    """Each byte counts, and the end; another key opens nothing."""
    house = case.house
    one = house.backups.make(house.vault.store, tmp_path / "tapes", NOW_MS)
    assert house.backups.check(one) == 365
    good = one.path.read_bytes()
    for place in (0, 20, 60, len(good) // 2, len(good) - 1):
        one.path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ProofError):
            house.backups.check(one)
    for spoiled in (good[:-1], good[: len(good) // 2], good[:50], b"", good + b"\0"):
        one.path.write_bytes(spoiled)
        with pytest.raises(ProofError):
            house.backups.check(one)
    one.path.write_bytes(good)
    with pytest.raises(ProofError):
        house.backups.check(replace(one, key=hash32("another key")))
    one.path.unlink()
    with pytest.raises(StoreError):
        house.backups.check(one)
    assert scan(tmp_path / "tapes", case.secrets(17)) == []
    assert str(one.key) not in repr(one) and isinstance(one, BackupSet)


def test_only_one_erasure_is_carried_out_at_a_time(case: Case) -> None:
    """The manifest that one of them seals would bring back what the other one erased."""
    first, second = case.decide(3), case.decide(4)
    steps = carry_out(first, case.house, WHO, NOW_MS)
    assert next(steps) == "order"
    with pytest.raises(InvalidInput, match="not finished here"):
        case.run(second)
    assert [*steps][-1] == "report"
    case.house.papers.finish(first.request.erase_id)
    assert case.run(second)[-1] == "report"
    check_erased(case, 3, 4)


def test_a_replica_deletes_on_its_custodians_word_alone(case: Case, tmp_path: Path) -> None:
    """The order is signed, and says what the chain says."""
    asked = case.decide(*GONE)
    replica = DirectoryStore(tmp_path / "replica")
    for name, sealed in case.prepared.objects.items():
        replica.put(name, sealed)
    replica.put(case.batch_id, case.prepared.sealed_manifest)
    case.run(asked)
    order, store = case.house.papers.order(asked.request.erase_id), case.house.vault.store
    assert order is not None
    signed = sign_order(order, store, CHAIN, BERG)
    assert check_order(encode(signed), CHAIN, BERG.public, asked) == signed
    for account, other in ((TAL.public, asked), (BERG.public, case.decide(5))):
        with pytest.raises(InvalidInput):
            check_order(encode(signed), CHAIN, account, other)
    wider = replace(order, parts=(replace(order.parts[0], indices=()),))
    with pytest.raises(InvalidInput):
        check_order(encode(sign_order(wider, store, CHAIN, BERG)), CHAIN, BERG.public, asked)
    with pytest.raises(InvalidInput):
        check_order(encode(replace(signed, manifests=())), CHAIN, BERG.public, asked)

    assert list(erase_in_replica(signed, replica)) == ["replica"]
    assert scan(tmp_path / "replica", case.secrets(*GONE)) == []
    assert len(list(replica.names())) == 2 * (182 - len(GONE))
    replica.replace(case.batch_id, store.get(case.batch_id))
    assert list(erase_in_replica(signed, replica)) == ["replica"]
    assert replica.has(case.batch_id)


def test_a_letter_is_the_custodians_alone_and_fits_its_request(case: Case) -> None:
    letter = EraseLetter.of(PID, [RecordRef(case.batch_id, 3)])
    other = EraseLetter.of(PID, [RecordRef(case.batch_id, 4)])
    sealed = letter.sealed(CUSTODIAN.box.public)
    for box, request in ((PATIENT_BOX, letter.request("patient")), (CUSTODIAN.box, other.request("patient"))):
        with pytest.raises(InvalidInput):
            EraseLetter.opened(sealed, box, request)
    for refs in ([], [RecordRef(case.batch_id, 3)] * 2):
        with pytest.raises(InvalidInput):
            EraseLetter.of(PID, refs)


STEPS = 7
"""Order, objects, manifest, new backup, two old backups, report."""

_CHILD = """
import sys
from pathlib import Path
from p2pledger.health.erasure import decode_erasure
from tests.unit.client import test_erasure as here

root, stop = Path(sys.argv[1]), int(sys.argv[2])
asked = decode_erasure(sys.stdin.buffer.read())
house = here.Case(root, None, None).house
for number, step in enumerate(here.carry_out(asked, house, here.WHO, here.NOW_MS), start=1):
    if number == stop:
        print(step, flush=True)
        import signal
        signal.pause()
"""


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_killed_after_each_step_it_ends_in_the_same(case: Case, tmp_path: Path, stop: int) -> None:
    """A real process, a real SIGKILL; run again, the record is gone and nothing else is."""
    house = case.house
    for age in (2, 1):
        house.backups.make(house.vault.store, tmp_path / "tapes", NOW_MS - age)
    asked = case.decide(*GONE)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(case.root), str(stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(encode(asked))
    child.stdin.close()
    assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    case.run(asked)
    check_erased(case, *GONE)
    (fresh,) = case.house.backups.sets()
    assert case.house.backups.check(fresh) == 2 * (182 - len(GONE)) + 1
    assert [path.name for path in (tmp_path / "tapes").iterdir()] == [fresh.path.name]
    report = case.house.papers.report(asked.request.erase_id)
    assert report is not None and report.names == 2 * len(GONE)
    certificate = report.certificate()
    assert case.world.submit(BERG, certificate) == Code.OK
    found = erasure.erasure_of(asked.request.erase_id, case.world.state)
    assert found is not None and found.status == "erased"
