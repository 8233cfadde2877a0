"""F-09, F-36 with real processes: vaults keep copies for each other, lose their disks, are audited and mended."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pledger.client.vault import Vault, names_of
from p2pledger.demo.cluster import Cluster
from p2pledger.vault.objects import DirectoryStore
from tests.node.health import PATIENCE_S, until
from tests.node.test_records import Clinic, clinic_of, ended
from tests.unit.fhir.samples import bundle

pytestmark = pytest.mark.process


@dataclass
class VaultOf:
    """The vault service of one home, as a process."""

    home: Path
    process: "subprocess.Popen[bytes]"

    async def port(self) -> int:
        path = self.home / "vault-ports.json"

        async def there() -> bool:
            assert self.process.poll() is None, (self.home / "vault.log").read_text()
            return path.exists()

        await until(there, f"the ports of the vault in {self.home}")
        return int(json.loads(path.read_text())["vault"])


@contextmanager
def vault_of(home: Path, replicas: dict[str, str]) -> Iterator[VaultOf]:
    """It runs while the block does, with these replicas."""
    text = '\n[vault]\nlisten = "127.0.0.1:0"\nops_listen = "127.0.0.1:0"\n'
    text += "[vault.replicas]\n" + "".join(f'"{name}" = "{where}"\n' for name, where in replicas.items())
    config = home / "config.toml"
    config.write_text(config.read_text() + text)
    (home / "vault-ports.json").unlink(missing_ok=True)
    with (home / "vault.log").open("wb") as log:
        command = [sys.executable, "-m", "p2pledger", "--home", str(home), "vault", "serve"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield VaultOf(home, process)
    finally:
        process.kill()
        process.wait()


async def test_a_chart_outlives_its_vault(consortium: Callable[..., Cluster], tmp_path: Path) -> None:
    """By the commands that people type: copied, audited, lost, read all the same, mended; a changed byte is told."""
    with trio.fail_after(8 * PATIENCE_S):
        clinic = await clinic_of(consortium, tmp_path)
        first, second, third = (clinic.cluster.member(name).home for name in clinic.cluster.names[:3])
        with vault_of(second, {}) as at_second, vault_of(third, {}) as at_third:
            where = {
                name: f"127.0.0.1:{await each.port()}"
                for name, each in zip(clinic.cluster.names[1:3], (at_second, at_third), strict=True)
            }
            with vault_of(first, where) as own:
                reading = await reading_by(clinic, await own.port())
                await copied_and_audited(clinic)
                await read_without_a_disk(clinic, reading)
                await taken_in_with_copies(clinic, third)
                await mended_without_one_holder(clinic, at_second)
                await a_changed_byte_is_told(clinic, reading)
                await a_reader_tells_it_too(clinic, reading)
                at_third.process.kill()
                at_third.process.wait()
                await not_taken_in_without_copies(clinic)
                own.process.send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(own.process.wait) == 0
                assert b"vault_stopping" in (first / "vault.log").read_bytes()


async def reading_by(clinic: Clinic, port: int) -> list[Any]:
    """How the physician reads the allergies through the custodian's vault service."""
    types, folder = clinic.terminal.types, clinic.folder
    await types("record", "index", clinic.patient.did.hex(), *clinic.home, "--to", folder / "index")
    card = await clinic.consent_to_allergies(clinic.physician)
    asking = ["--index", folder / "index", "--card", card, "--purpose", "TREAT", "--class", "allergy"]
    vault = f"127.0.0.1:{port}={clinic.cluster.names[0]}"
    return ["record", "get", *asking, "--vault", vault, *clinic.as_person("physician")]


async def read(clinic: Clinic, reading: list[Any], folder: str) -> None:
    await clinic.terminal.types(*reading, "--to", clinic.folder / folder)
    assert len(list((clinic.folder / folder).iterdir())) == 7


async def copied_and_audited(clinic: Clinic) -> None:
    """182 records with their capsules, and their manifest, at both."""
    mended = await clinic.terminal.types("vault", "repair", *clinic.home)
    assert mended["wanted"] == 365 and mended["lost"] == []
    assert [mended[f"sent to {name}"] for name in clinic.cluster.names[1:3]] == [365, 365]
    findings = await clinic.terminal.types("vault", "audit", "--sample", 400, *clinic.home)
    assert [(one["asked"], one["held"]) for one in findings] == [(365, 365)] * 3


async def taken_in_with_copies(clinic: Clinic, holder: Path) -> None:
    """F-09, F-35: what is committed to lies elsewhere, too."""
    (clinic.folder / "luigi.json").write_bytes(bundle("Luigi_Wiegand"))
    (taken,) = await clinic.terminal.types(*ingest(clinic, "luigi.json"))
    owner = clinic.cluster.wallet(clinic.cluster.names[0]).organisation
    copies = DirectoryStore(holder / "vault-copies" / owner.hex())
    assert copies.has(bytes.fromhex(taken["batch"]))
    assert len(list(copies.names())) == 365 + 2 * 61 + 1


async def not_taken_in_without_copies(clinic: Clinic) -> None:
    """F-09: nothing is committed to that only one disk holds."""
    (clinic.folder / "trenton.json").write_bytes(bundle("Trenton_Turner"))
    status, said = await ended(clinic, *ingest(clinic, "trenton.json"))
    assert status == 75 and "1 of 2 copies are durable" in said, said


def ingest(clinic: Clinic, name: str) -> list[object]:
    owner = f"{clinic.patient.did.hex()}:{clinic.patient.box.public.hex()}"
    return ["record", "ingest", clinic.folder / name, "--patient", owner, *clinic.home]


async def a_reader_tells_it_too(clinic: Clinic, reading: list[Any]) -> None:
    """F-36: out of the house's own vault, in which nobody looks for copies: no record, and an alert by its reader."""
    where = reading.index("--vault")
    status, said = await ended(clinic, *reading[:where], *reading[where + 2 :], "--to", clinic.folder / "none")
    assert status == 4 and "E_COMMIT_MISMATCH" in said and "an integrity alert about record" in said, said
    assert not (clinic.folder / "none").exists()


async def read_without_a_disk(clinic: Clinic, reading: list[Any]) -> None:
    """F-09: before the loss and after it."""
    await read(clinic, reading, "before")
    shutil.rmtree(clinic.cluster.member(clinic.cluster.names[0]).home / "vault")
    await read(clinic, reading, "after")
    before, after = (
        {path.name: path.read_bytes() for path in (clinic.folder / name).iterdir()} for name in ("before", "after")
    )
    assert before == after


async def mended_without_one_holder(clinic: Clinic, killed: VaultOf) -> None:
    killed.process.kill()
    killed.process.wait()
    status, said = await ended(clinic, "vault", "repair", "--restore", *clinic.home)
    assert status == 75 and f"the vault of {clinic.cluster.names[1]}" in said, said
    status, said = await ended(clinic, "vault", "audit", *clinic.home)
    assert status == 1, said
    status, said = await ended(clinic, "record", "open", f"{clinic.batch}/5", *clinic.home)
    assert status == 0, said


async def a_changed_byte_is_told(clinic: Clinic, reading: list[Any]) -> None:
    """F-36: the record comes from a copy, and the patient hears of it."""
    name = clinic.cluster.names[0]
    home, custodian = clinic.cluster.member(name).home, clinic.cluster.wallet(name).custodian
    vault = Vault(home / "vault", custodian.box)
    manifest = vault.manifest(bytes.fromhex(clinic.batch))
    entry = next(entry for entry in manifest.entries if entry.resource_class == "allergy")
    spoiled = names_of(entry)[0].hex()
    path = home / "vault" / "objects" / spoiled[:2] / spoiled
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    await read(clinic, reading, "spoiled")
    as_patient = clinic.as_person("patient")
    told = await clinic.terminal.types("watch", "--from", "1:0", "--kinds", "integrity", "--count", 1, *as_patient)
    assert "INTEGRITY" in told["says"] and told["proven"]
    status, said = await ended(clinic, "wallet", "log", *as_patient)
    assert status == 0 and "INTEGRITY ALERT" in said and str(manifest.ref(entry.index)) in said and spoiled in said
