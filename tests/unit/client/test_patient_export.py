"""F-12, F-44: a patient exports everything without anybody's leave, and a script of its own verifies it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from p2pledger.client import standalone_verify
from p2pledger.client.patient_export import hand_over, own_batches, write_export
from p2pledger.client.sealing import BoxKey
from p2pledger.fhir.spans import extract_bundle
from p2pledger.primitives.errors import InvalidInput
from p2pledger.vault.objects import DirectoryStore
from tests.unit.client.nodes import HonestNode, client_of
from tests.unit.client.readers import PATIENT_BOX, Ward
from tests.unit.health.world import PATIENT, PID

OTHER_BOX = BoxKey(sha256(b"another patient's box").digest())


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    folder.chmod(0o700)
    ward = Ward(folder)
    ward.consent(ward.chart.of_classes("allergy"))
    ward.chain.ask()
    ward.chain.tick()
    return ward


_made: dict[int, Path] = {}


async def exported(ward: Ward, folder: Path) -> Path:
    """An export of its own, copied from the one that is made for all."""
    if id(ward) not in _made:
        _made[id(ward)] = await _exported(ward, ward.folder)
    return shutil.copytree(_made[id(ward)], folder / "export")


async def _exported(ward: Ward, folder: Path) -> Path:
    """As the patient: from the copies that Berg hands over."""
    copies = DirectoryStore(folder / "copies")
    assert hand_over(ward.vault, PID, copies) == 182
    batches = own_batches(copies, PID, [PATIENT_BOX])
    async with client_of(ward.chain, [HonestNode(ward.chain)], PATIENT) as ledger:
        assert await write_export(ledger, folder / "export", PID, batches) == 182
    return folder / "export"


@pytest.fixture
def chain(ward: Ward) -> bytes:
    return bytes(ward.chain.chain)


async def test_the_export_verifies_by_its_own_script_alone(ward: Ward, chain: bytes, tmp_path: Path) -> None:
    """In another process, without our packages on its path."""
    folder = await exported(ward, tmp_path)
    command = [sys.executable, "-P", str(folder / "verify.py"), chain.hex(), "--log"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ""}, check=False)
    assert done.returncode == 0, done.stderr
    assert "verified: 182 records in 1 batches" in done.stdout
    assert "TREAT" in done.stdout
    source = (folder / "verify.py").read_text()
    assert "p2pledger." not in source.replace("p2pledger/", ""), "it imports nothing of ours"
    other = subprocess.run([*command[:3], "00" * 32], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "another chain" in other.stderr


async def test_every_resource_of_the_bundle_is_in_it(ward: Ward, tmp_path: Path) -> None:
    folder = await exported(ward, tmp_path)
    lines = [line for path in (folder / "records").iterdir() for line in path.read_bytes().splitlines()]
    assert all(json.loads(line) for line in lines)
    flat = [item.data.replace(b"\r", b"").replace(b"\n", b"") for item in extract_bundle(ward.source)]
    assert sorted(lines) == sorted(flat)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def summed(folder: Path) -> None:
    """What a liar does after changing a file."""
    names = sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    )
    sums = "".join(f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)


def verdict(folder: Path, chain: bytes) -> str | None:
    """None where the export verifies."""
    try:
        standalone_verify.verify(folder, chain, shows_log=False)
    except (standalone_verify.Wrong, ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        return str(error) or type(error).__name__
    return None


async def test_a_changed_byte_in_any_file_is_found(ward: Ward, chain: bytes, tmp_path: Path) -> None:
    folder = await exported(ward, tmp_path)
    assert verdict(folder, chain) is None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for part in range(8):
            path.write_bytes(flipped(data, part * (len(data) - 1) // 7))
            assert verdict(folder, chain) is not None, f"{path.name}, byte {part * (len(data) - 1) // 7}"
        path.write_bytes(data)
    (folder / "records" / "extra.ndjson").write_bytes(b"{}\n")
    assert verdict(folder, chain) is not None
    summed(folder)
    assert verdict(folder, chain) is not None


async def test_a_liar_that_makes_the_sums_anew_is_found(ward: Ward, chain: bytes, tmp_path: Path) -> None:
    """Bytes of records, of the proofs and of the log lead to the genesis, or to nothing."""
    folder = await exported(ward, tmp_path)
    evidence = [*sorted((folder / "records").iterdir()), folder / "proofs.json", folder / "access-log.json"]
    for path in evidence:
        data = path.read_bytes()
        parts = 24 if path.suffix == ".json" else 3
        for part in range(parts):
            place = part * (len(data) - 1) // (parts - 1)
            path.write_bytes(flipped(data, place))
            summed(folder)
            assert verdict(folder, chain) is not None, f"{path.name}, byte {place}"
        path.write_bytes(data)
    summed(folder)
    assert verdict(folder, chain) is None


def without_a_record(proofs: Any) -> None:
    proofs["batches"][0]["records"].pop()


def a_record_twice(proofs: Any) -> None:
    proofs["batches"][0]["records"][1] = proofs["batches"][0]["records"][0]


def hidden(proofs: Any) -> None:
    last = proofs["batches"][0]["records"].pop()
    proofs["batches"][0]["absent"] = [{"index": last["index"], "reason": "E_NOT_FOUND"}]


def of_another_patient(proofs: Any) -> None:
    proofs["pid"] = "00" * 16


def with_another_salt(proofs: Any) -> None:
    proofs["batches"][0]["records"][0]["salt"] = "00" * 32


@pytest.mark.parametrize("lie", [without_a_record, a_record_twice, hidden, of_another_patient, with_another_salt])
async def test_a_lie_in_the_proofs_is_found(
    ward: Ward, chain: bytes, tmp_path: Path, lie: Callable[[Any], None]
) -> None:
    folder = await exported(ward, tmp_path)
    proofs = json.loads((folder / "proofs.json").read_text())
    lie(proofs)
    (folder / "proofs.json").write_text(json.dumps(proofs, indent=1, ensure_ascii=False) + "\n")
    summed(folder)
    assert verdict(folder, chain) is not None


async def test_a_line_left_out_of_the_log_is_found(ward: Ward, chain: bytes, tmp_path: Path) -> None:
    folder = await exported(ward, tmp_path)
    log = json.loads((folder / "access-log.json").read_text())
    assert log["lines"]
    log["lines"].pop()
    (folder / "access-log.json").write_text(json.dumps(log, indent=1, ensure_ascii=False) + "\n")
    summed(folder)
    assert "ends elsewhere" in str(verdict(folder, chain))


def test_only_what_is_sealed_to_the_patient_is_opened(ward: Ward) -> None:
    assert own_batches(ward.vault.store, PID, [OTHER_BOX]) == []
    assert own_batches(ward.vault.store, bytes(16), [PATIENT_BOX]) == []
    (batch,) = own_batches(ward.vault.store, PID, [OTHER_BOX, PATIENT_BOX])
    assert len(batch.data) == 182


async def test_a_record_that_is_gone_is_listed_as_gone(ward: Ward, chain: bytes, tmp_path: Path) -> None:
    copies = DirectoryStore(tmp_path / "copies")
    hand_over(ward.vault, PID, copies)
    copies.delete(ward.prepared.manifest.entries[5].object)
    (batch,) = own_batches(copies, PID, [PATIENT_BOX])
    assert batch.absent == {5: "E_NOT_FOUND"}
    async with client_of(ward.chain, [HonestNode(ward.chain)], PATIENT) as ledger:
        assert await write_export(ledger, tmp_path / "export", PID, [batch]) == 181
        with pytest.raises(InvalidInput, match="not empty"):
            await write_export(ledger, tmp_path / "export", PID, [batch])
    assert verdict(tmp_path / "export", chain) is None


def test_the_scripts_numbers_and_texts_are_the_chains_spelling() -> None:
    """Its own MessagePack against the codec of the chain, at every width."""
    from p2pledger.primitives.codec import encode

    for value in (
        *(0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, None, True, False),
        *(b"", b"x" * 255, b"x" * 256, b"x" * 65536, "", "ä" * 15, "ä" * 16, "x" * 255, "x" * 256, "x" * 65536),
        *([], [1] * 15, [1] * 16, [b"a"] * 65536, [[None, [True]], "x"]),
    ):
        assert standalone_verify.pack(value) == encode(value)
        assert standalone_verify.unpack(encode(value)) == value
