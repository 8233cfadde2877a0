"""F-12, F-17, F-44 with real processes: a chart is read by shares, exported by its patient, and opened offline."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest
import trio

from p2pledger.client.health import compartments_of, grant_consent
from p2pledger.client.keyring import Persona, Wallet
from p2pledger.client.ledger import open_ledger
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health.operations import CredentialIssue
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives.ids import Bytes16, Bytes32, Millis
from tests.node.health import PATIENCE_S, until
from tests.node.readers import active_key, sharing_comes
from tests.node.test_wallet import Terminal
from tests.unit.fhir.samples import bundle

pytestmark = pytest.mark.process

HOUR_MS = 3_600_000


@dataclass
class Clinic:
    """The first member with a patient, a physician and a chart that was taken in by command."""

    cluster: Cluster
    terminal: Terminal
    folder: Path
    patient: Persona
    physician: Persona
    batch: str

    @property
    def home(self) -> list[object]:
        return ["--home", self.cluster.member(self.cluster.names[0]).home, *self.terminal.network]

    def as_person(self, wallet: str, at: int = 0) -> list[object]:
        name = self.cluster.names[at]
        home = self.cluster.member(name).home
        return ["--home", home, *self.terminal.network, "--wallet", self.folder / wallet, "--at", name]

    async def consent_to_allergies(self, reader: Persona) -> Path:
        """For a physician, to treat; the card."""
        custodian = self.cluster.wallet(self.cluster.names[0]).custodian
        vault = Vault(self.cluster.member(self.cluster.names[0]).home / "vault", custodian.box)
        part = compartments_of(vault.manifest(bytes.fromhex(self.batch)), "allergy")
        now_ms = int(time() * 1000)
        grant, card = grant_consent(self.patient, reader.did, part, ["TREAT"], now_ms - HOUR_MS, now_ms + 24 * HOUR_MS)
        async with open_ledger(self.cluster.founding, self.cluster.addresses(), self.patient.signing) as ledger:
            await ledger.submit(grant)
        path = self.folder / f"card of {reader.did.hex()}"
        path.write_text(card.dump())
        return path


async def enrolled(cluster: Cluster, path: Path, kind: IdentityKind, at: int = 0) -> Persona:
    """A new wallet whose owner is registered with a member; physicians have a credential."""
    wallet = cluster.wallet(cluster.names[at])
    persona = Wallet.create(path, None).at(wallet.organisation)
    zero = Bytes32(bytes(32))
    async with open_ledger(cluster.founding, cluster.addresses(), persona.signing) as ledger:
        await ledger.submit(persona.registration(kind, zero), cosigners=[wallet.account])
    if kind == "practitioner":
        async with open_ledger(cluster.founding, cluster.addresses(), wallet.account) as ledger:
            issue = CredentialIssue(Bytes16(persona.did), "physician", zero, Millis(0), Millis(2**50))
            await ledger.submit(issue)
    return persona


async def clinic_of(consortium: Callable[..., Cluster], folder: Path) -> Clinic:
    cluster = consortium(4, params={"checkpoint_interval": 2})
    await cluster.start()
    await cluster.wait_ready()
    await sharing_comes(cluster, cluster.names)
    await active_key(cluster, cluster.wallet(cluster.names[0]))
    folder.chmod(0o700)
    terminal = Terminal(cluster, folder)
    patient = await enrolled(cluster, folder / "patient", "patient")
    physician = await enrolled(cluster, folder / "physician", "practitioner")
    clinic = Clinic(cluster, terminal, folder, patient, physician, "")
    (folder / "fidel.json").write_bytes(bundle("Fidel_Bins"))
    owner = f"{patient.did.hex()}:{patient.box.public.hex()}"
    (taken,) = await terminal.types("record", "ingest", folder / "fidel.json", "--patient", owner, *clinic.home)
    clinic.batch = taken["batch"]
    return clinic


async def ended(clinic: Clinic, *arguments: object) -> tuple[int, str]:
    """The status and what is said on stderr."""
    command = clinic.terminal.command(*arguments)
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stderr.decode()


async def test_a_chart_is_read_exported_and_opened_offline(consortium: Callable[..., Cluster], tmp_path: Path) -> None:
    """By the commands that people type: exactly the seven allergies, with three of four, not with two."""
    with trio.fail_after(8 * PATIENCE_S):
        clinic = await clinic_of(consortium, tmp_path)
        await seven_and_no_eighth(clinic)
        await with_three_and_not_with_two(clinic)
        await from_another_house(clinic)
        await exported(clinic)
        await opened_offline(clinic)


async def seven_and_no_eighth(clinic: Clinic) -> None:
    types, folder = clinic.terminal.types, clinic.folder
    await types("record", "index", clinic.patient.did.hex(), *clinic.home, "--to", folder / "index")
    card = await clinic.consent_to_allergies(clinic.physician)
    asking: list[Any] = [
        "--index",
        folder / "index",
        "--card",
        card,
        "--purpose",
        "TREAT",
        *clinic.as_person("physician"),
    ]
    await types("record", "get", "--class", "allergy", *asking, "--to", folder / "read")
    source = [item for item in extract_bundle(bundle("Fidel_Bins")) if item.resource_type == "AllergyIntolerance"]
    assert sorted(path.read_bytes() for path in (folder / "read").iterdir()) == sorted(item.data for item in source)
    assert len(source) == 7
    status, said = await ended(clinic, "record", "get", "--record", f"{clinic.batch}/0", *asking)
    assert status == 4 and "DENIED" in said, said
    assert not list((folder / "physician.accesses").iterdir()), "no key is left behind"


async def with_three_and_not_with_two(clinic: Clinic) -> None:
    types, folder, cluster = clinic.terminal.types, clinic.folder, clinic.cluster
    asking: list[Any] = [
        "--index",
        folder / "index",
        "--card",
        folder / f"card of {clinic.physician.did.hex()}",
        "--purpose",
        "TREAT",
    ]
    await types("record", "ask", "--class", "allergy", *asking, *clinic.as_person("physician"))
    (ticket,) = (folder / "physician.accesses").iterdir()
    by_ticket = ["record", "get", "--access", ticket.name, *clinic.as_person("physician")]
    cluster.kill(cluster.names[2])
    await types(*by_ticket, "--keep", "--to", folder / "with three")
    assert len(list((folder / "with three").iterdir())) == 7
    cluster.kill(cluster.names[3])
    status, said = await ended(clinic, *by_ticket, "--to", folder / "with two")
    assert status == 75, said
    assert "E_UNAVAILABLE: 2 validators sent good shares, 3 are needed" in said or "E_STALE" in said, said
    assert cluster.names[2] in said and cluster.names[3] in said, said
    for name in cluster.names[2:]:
        await cluster.start(name)
    await cluster.wait_ready()


@asynccontextmanager
async def vault_service(clinic: Clinic) -> AsyncIterator[str]:
    """The first member's vault as a process of its own; where it listens and whose it is."""
    layout = clinic.cluster.member(clinic.cluster.names[0]).layout
    listening = {"P2PLEDGER_VAULT__LISTEN": "127.0.0.1:0", "P2PLEDGER_VAULT__OPS_LISTEN": "127.0.0.1:0"}
    with (clinic.folder / "vault.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            clinic.terminal.command("vault", "serve", *clinic.home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **listening},
        )
        try:

            async def listens() -> bool:
                assert process.poll() is None, (clinic.folder / "vault.log").read_text()
                return layout.vault_ports.exists()

            await until(listens, "the port of the vault")
            port = json.loads(layout.vault_ports.read_text())["vault"]
            yield f"127.0.0.1:{port}={clinic.cluster.names[0]}"
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def from_another_house(clinic: Clinic) -> None:
    """A physician elsewhere, whose house has no copy."""
    types, folder, cluster = clinic.terminal.types, clinic.folder, clinic.cluster
    elsewhere = await enrolled(cluster, folder / "elsewhere", "practitioner", at=1)
    card = await clinic.consent_to_allergies(elsewhere)
    reader = [*clinic.terminal.network, "--wallet", folder / "elsewhere", "--at", cluster.names[1]]
    papers: list[object] = ["--index", folder / "index", "--card", card]
    asking = [*papers, "--purpose", "TREAT", "--class", "allergy", *reader]
    async with vault_service(clinic) as place:
        await types("record", "get", *asking, "--vault", place, "--to", folder / "from elsewhere")
        assert len(list((folder / "from elsewhere").iterdir())) == 7


async def exported(clinic: Clinic) -> None:
    types, folder = clinic.terminal.types, clinic.folder
    handed = await types("record", "handover", clinic.patient.did.hex(), *clinic.home, "--to", folder / "copies")
    assert handed["records"] == 182
    owner = [*clinic.terminal.network, "--wallet", folder / "patient", "--at", clinic.cluster.names[0]]
    shown = await types("record", "export", "--from", folder / "copies", "--to", folder / "export", *owner)
    assert shown["records"] == 182
    chain = clinic.cluster.founding.chain.hex()
    command = [sys.executable, "-P", str(folder / "export" / "verify.py"), chain]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"verified: 182 records in 1 batches" in done.stdout
    await released_keys_are_seen(clinic, owner)


async def released_keys_are_seen(clinic: Clinic, owner: list[object]) -> None:
    """F-08: what the validators report of the first reading, and nothing of the reading that was denied."""
    shown: list[Any] = []

    async def told() -> bool:
        shown[:] = await clinic.terminal.types("wallet", "log", *owner)
        return str(shown[0]["released"]).startswith("yes: 7 records, ")

    await until(told, f"the reports about the seven allergies; the log says {shown}")
    assert {row["released"] for row in shown if row["answer"] != "ALLOWED" and row["proven"]} == {"-"}


async def opened_offline(clinic: Clinic) -> None:
    """At another member, with every node stopped; the line is in the log once they are back."""
    types, folder, cluster = clinic.terminal.types, clinic.folder, clinic.cluster
    await enrolled(cluster, folder / "paramedic", "practitioner", at=1)
    house = ["--home", cluster.member(cluster.names[1]).home, *clinic.terminal.network]
    (folder / "summary").write_bytes(b"penicillin: anaphylaxis")
    owner = [*clinic.terminal.network, "--wallet", folder / "patient", "--at", cluster.names[0]]
    await types("emergency", "seal", folder / "summary", "--for", cluster.names[1], *owner, "--to", folder / "capsule")
    await types("emergency", "keep", folder / "capsule", *house)
    await cluster.stop()
    pid = clinic.patient.did.hex()
    command = ["emergency", "open", pid, "--reason", "no quorum", *clinic.as_person("paramedic", 1)]
    shown = await trio.run_process(
        clinic.terminal.command(*command), capture_stdout=True, capture_stderr=True, stdin=subprocess.DEVNULL
    )
    assert shown.stdout == b"penicillin: anaphylaxis"
    await cluster.start()
    await cluster.wait_ready()
    assert (await types("emergency", "anchor", *house))["anchored"] == 1
    (row,) = await types("emergency", "status", *house)
    assert row["anchored"] is True
    log = await types("audit", "log", *owner)
    assert any(line["purpose"].startswith("broken glass") or "BTG" in line["purpose"] for line in log), log
