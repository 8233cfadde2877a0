"""F-26, F-27, I-12: a record is erased by the commands that people type; no byte of it is in any home any more."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pledger.client.records import Custodian
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.primitives.codec import encode
from tests.node.health import PATIENCE_S, until
from tests.node.test_privacy import SAMPLES
from tests.node.test_records import Clinic, clinic_of, ended
from tests.node.test_wallet import Terminal

pytestmark = pytest.mark.process

BUNDLE = SAMPLES / "bundles"
GONE = 17


def pieces(data: bytes) -> Iterator[bytes]:
    """24 bytes out of each 60: so much of anything that is kept is found."""
    yield from (data[start : start + 24] for start in range(0, max(1, len(data) - 24), 60))


def files_with(folders: list[Path], secrets: list[bytes]) -> set[str]:
    """Names of the files, keys too, in which one of them stands."""
    return {
        path.name
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        for data in [path.read_bytes()]
        if any(secret in data for secret in secrets)
    }


class Hospital:
    """The custodian at its terminal, and its patient."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.terminal = Terminal(cluster, folder)
        self.name, self.other = cluster.names[:2]
        self.person = ["--wallet", folder / "wallet", "--at", self.name, *self.terminal.network]

    def at(self, name: str) -> list[Any]:
        return ["--home", self.cluster.member(name).home, *self.terminal.network]

    async def erase(self, *arguments: object, at: str | None = None, expect: int = 0) -> Any:
        return await self.terminal.types("erase", *arguments, *self.at(at or self.name), expect=expect)

    async def when_proven(self, *arguments: object, at: str | None = None) -> Any:
        """As soon as a checkpoint has the decision; each try is a transaction's time apart."""
        command = self.terminal.command("erase", *arguments, *self.at(at or self.name), "--output", "json")
        while True:
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
            if done.returncode != 75:
                assert done.returncode == 0, done.stderr.decode()
                return done.stdout
            await self.erase("holder", self.cluster.names[2], expect=0)
            await self.erase("holder", self.name, "--leave", at=self.cluster.names[2])

    @asynccontextmanager
    async def keeper(self) -> AsyncIterator[None]:
        """The other member's vault, which keeps copies for this one, as a process of its own."""
        other, own = self.cluster.member(self.other), self.cluster.member(self.name)
        listen = {"P2PLEDGER_VAULT__LISTEN": "127.0.0.1:0", "P2PLEDGER_VAULT__OPS_LISTEN": "127.0.0.1:0"}
        process = subprocess.Popen(
            self.terminal.command("vault", "serve", *self.at(self.other)),
            env={**os.environ, **listen},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:

            async def is_there() -> bool:
                assert process.poll() is None, "the vault ended"
                return other.layout.vault_ports.exists()

            await until(is_there, "the other member's vault")
            port = json.loads(other.layout.vault_ports.read_text())["vault"]
            config = own.layout.config
            before = config.read_text() if config.exists() else ""
            config.write_text(f'{before}\n[vault.replicas]\n"{self.other}" = "127.0.0.1:{port}"\n')
            with trio.fail_after(8 * PATIENCE_S):
                yield
        finally:
            process.kill()
            process.wait()

    async def ingests(self, bundle: Any, pid: str) -> Any:
        """As soon as a checkpoint has the validators' joint key."""
        command = ["record", "ingest", bundle, "--patient", pid, *self.at(self.name), "--output", "json"]
        while True:
            done = await trio.run_process(
                self.terminal.command(*command), capture_stdout=True, capture_stderr=True, check=False
            )
            if done.returncode != 75:
                assert done.returncode == 0, done.stderr.decode()
                return json.loads(done.stdout)
            await self.erase("holder", self.cluster.names[2])
            await self.erase("holder", self.name, "--leave", at=self.cluster.names[2])

    async def asks(self, name: str, *records: str) -> tuple[str, Path]:
        """The patient; the request's id and the letter."""
        letter = self.folder / f"{name}.letter"
        wanted = [word for record in records for word in ("--record", record)]
        shown = await self.terminal.types("erase", "request", *wanted, "--letter", letter, *self.person)
        return str(shown["events"][0]["erase_id"]), letter


async def test_one_record_is_erased_everywhere_and_the_chain_still_verifies(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Vault, replica, backups, LMDB, journals and logs of four real nodes, before the compacting and after it."""
    cluster = consortium(4, params={"timeout_ms": 500, "checkpoint_interval": 2})
    await cluster.start(environ={"P2PLEDGER_NODE__LOG_LEVEL": "debug"})
    await cluster.wait_ready()
    folder = tmp_path / "patient"
    folder.mkdir(mode=0o700)
    house = Hospital(cluster, folder)
    terminal, homes = house.terminal, list(cluster.homes.values())
    async with house.keeper():
        await terminal.types("wallet", "init", folder / "wallet", "--no-passphrase")
        pid = await terminal.registers(folder / "wallet", house.name)
        bundle = next(path for path in BUNDLE.iterdir() if path.name.startswith("Fidel_Bins"))
        (batch,) = await house.ingests(bundle, pid)
        tapes = tmp_path / "tapes"
        await terminal.types("backup", "make", "--to", tapes, *house.at(house.name))
        await house.erase("holder", house.other)
        own = cluster.member(house.name).home / "vault"
        copies = cluster.member(house.other).layout.vault_copies

        vault = Vault(own, cluster.wallet(house.name).custodian.box)
        batch_id = bytes.fromhex(batch["batch"])
        entry = vault.manifest(batch_id).entries[GONE]
        sealed = vault.store.get(entry.object)
        plain = vault.open_record(vault.manifest(batch_id).ref(GONE))
        assert entry.capsule is not None
        capsule = vault.store.get(entry.capsule)
        secrets = [entry.salt, entry.commitment, encode(entry), *pieces(capsule), *pieces(sealed), *pieces(plain)]
        assert files_with([own, tapes], secrets) == {entry.object.hex(), entry.capsule.hex()}
        assert files_with([copies], secrets) == {entry.object.hex(), entry.capsule.hex()}
        assert files_with([*homes, tapes], secrets) == {entry.object.hex(), entry.capsule.hex()}

        refused, _ = await house.asks("refused", f"{batch['batch']}/3")
        await house.erase("decide", refused, "--refuse", "--basis", "retention-law")
        erasure, letter = await house.asks("wanted", f"{batch['batch']}/{GONE}")
        (waiting,) = await house.erase("status")
        assert (waiting["erasure"], waiting["status"], waiting["overdue"]) == (erasure, "requested", False)
        await house.erase("decide", erasure, "--letter", letter)

        order = tmp_path / "order"
        await house.when_proven("run", erasure, "--order-to", order)
        assert files_with([copies], secrets) == set(), "its vault was told over the wire"
        await house.when_proven("replica", erasure, "--order", order, at=house.other)
        await house.erase("certify", erasure, at=house.other)
        (erasing,) = await house.erase("status")
        assert (erasing["status"], erasing["missing"]) == ("erasing", [house.name])
        await house.erase("certify", erasure)
        await house.erase("certify", erasure)  # again: the chain has it
        assert await house.erase("status") == []

        told = await terminal.types("erase", "status", *house.person)
        assert {row["erasure"]: row["status"] for row in told} == {refused: "refused", erasure: "erased"}
        log = await terminal.types("wallet", "log", *house.person)
        assert sorted(row["answer"] for row in log) == [
            "erased, as all 2 holders certify",
            "refused: the law on keeping medical records demands it",
        ]

        gone, kept = f"{batch['batch']}/{GONE}", f"{batch['batch']}/{GONE + 1}"
        await terminal.types("record", "open", gone, *house.at(house.name), expect=4)
        await terminal.types("record", "open", kept, "--to", tmp_path / "kept.json", *house.at(house.name))
        assert (tmp_path / "kept.json").read_bytes() in bundle.read_bytes()
        (fresh,) = await terminal.types("backup", "list", *house.at(house.name))
        assert (await terminal.types("backup", "check", fresh["set"], *house.at(house.name)))["whole"]

        await cluster.stop()
        places = [*homes, tapes, folder]
        assert files_with(places, secrets) == set()
        for name in cluster.names:
            await terminal.types("compact", "--home", cluster.member(name).home)
        assert files_with(places, secrets) == set()
        assert files_with([SAMPLES], secrets[3:]) != set(), "the scanner finds what is there"
        await terminal.types("resync", "--yes", "--home", cluster.member(house.name).home)


async def test_no_validator_releases_a_share_of_it_any_more(consortium: Callable[..., Cluster], tmp_path: Path) -> None:
    """F-26, by four real validators: from the decision on, while every byte is still there, and of nothing else."""
    with trio.fail_after(8 * PATIENCE_S):
        clinic = await clinic_of(consortium, tmp_path)
        types, folder = clinic.terminal.types, clinic.folder
        vault = Vault(clinic.cluster.member(clinic.cluster.names[0]).home / "vault", custodian_of(clinic).box)
        allergies = [
            str(manifest.ref(entry.index))
            for manifest in [vault.manifest(bytes.fromhex(clinic.batch))]
            for entry in manifest.entries
            if entry.resource_class == "allergy"
        ]
        await types("record", "index", clinic.patient.did.hex(), *clinic.home, "--to", folder / "index")
        card = await clinic.consent_to_allergies(clinic.physician)
        asking: list[object] = ["--index", folder / "index", "--card", card, "--purpose", "TREAT"]
        asking += clinic.as_person("physician")
        await types("record", "get", "--record", allergies[0], *asking, "--to", folder / "before")

        wanted = ["--record", allergies[0], "--letter", folder / "letter"]
        shown = await types("erase", "request", *wanted, *clinic.as_person("patient"))
        erasure = shown["events"][0]["erase_id"]
        await types("erase", "decide", erasure, "--letter", folder / "letter", *clinic.home)
        assert vault.open_record(vault.manifest(bytes.fromhex(clinic.batch)).ref(int(allergies[0].split("/")[1])))
        status, said = await ended(clinic, "record", "get", "--record", allergies[0], *asking, "--to", folder / "no")
        assert status != 0 and "E_ERASED" in said, said
        await types("record", "get", "--record", allergies[1], *asking, "--to", folder / "other")
        assert len(list((folder / "other").iterdir())) == 1


def custodian_of(clinic: Clinic) -> Custodian:
    return clinic.cluster.wallet(clinic.cluster.names[0]).custodian
