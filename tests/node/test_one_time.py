"""Rule 3.6 with real processes: records sealed with one-time secrets, before there is any joint key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pledger.client.depositing import newest_table
from p2pledger.client.ledger import open_ledger
from p2pledger.demo.cluster import Cluster
from p2pledger.fhir.spans import extract_bundle
from p2pledger.primitives.errors import Unavailable
from tests.node.health import PATIENCE_S, quiet, until
from tests.node.test_records import Clinic, ended, enrolled
from tests.node.test_wallet import Terminal
from tests.unit.fhir.samples import bundle

pytestmark = pytest.mark.process

UNAVAILABLE = 75


async def clinic_without_a_joint_key(consortium: Callable[..., Cluster], folder: Path) -> Clinic:
    """Nobody begins a ceremony; the nodes announce deposit keys by themselves."""
    cluster = consortium(4, params={"checkpoint_interval": 2})
    await cluster.start(environ={"P2PLEDGER_RELEASE__BEGIN": "manual"})
    await cluster.wait_ready()
    folder.chmod(0o700)
    patient = await enrolled(cluster, folder / "patient", "patient")
    physician = await enrolled(cluster, folder / "physician", "practitioner")
    (folder / "fidel.json").write_bytes(bundle("Fidel_Bins"))

    async def all_announced() -> bool:
        async with open_ledger(cluster.founding, cluster.addresses(), cluster.wallet(cluster.names[0]).account) as own:
            try:
                table = await newest_table(own)
            except Unavailable:
                return False
            return table is not None and len(table.holders) == 4

    await until(all_announced, "a deposit table of four")
    return Clinic(cluster, Terminal(cluster, folder), folder, patient, physician, "")


async def test_a_chart_is_deposited_and_read_without_a_joint_key(
    consortium: Callable[..., Cluster], tmp_path: Path
) -> None:
    """By the commands that people type: with one validator down, too, and with two nobody gets anything."""
    with trio.fail_after(4 * PATIENCE_S):
        clinic = await clinic_without_a_joint_key(consortium, tmp_path)
        owner = f"{clinic.patient.did.hex()}:{clinic.patient.box.public.hex()}"
        ingest = ["record", "ingest", tmp_path / "fidel.json", "--patient", owner, *clinic.home]
        status, said = await ended(clinic, *ingest)
        assert (status, "--one-time" in said) == (UNAVAILABLE, True), said
        (taken,) = await clinic.terminal.types(*ingest, "--one-time")
        clinic.batch = taken["batch"]
        await everybody_has_its_shares(clinic)
        await read(clinic)


async def everybody_has_its_shares(clinic: Clinic) -> None:
    """Depositing again finds that all is done."""
    rows = await clinic.terminal.types("record", "deposit", clinic.batch, *clinic.home)
    assert [(row["acknowledged"], row["of"], row["reason"]) for row in rows] == [(182, 182, "")] * 4
    names = clinic.cluster.names
    status = await clinic.terminal.types("sharing", "status", "--home", clinic.cluster.member(names[0]).home)
    assert (status["deposit_table"], status["deposit_keys"]) == (4, "4, 3 are needed")
    for name in names:
        assert [path.name for path in (clinic.cluster.member(name).home / "deposits").iterdir()] == ["deposit-1"]


async def read(clinic: Clinic) -> None:
    types, folder, cluster = clinic.terminal.types, clinic.folder, clinic.cluster
    await types("record", "index", clinic.patient.did.hex(), *clinic.home, "--to", folder / "index")
    card = await clinic.consent_to_allergies(clinic.physician)
    asking: list[Any] = ["--index", folder / "index", "--card", card, "--purpose", "TREAT"]
    person = clinic.as_person("physician")
    source = [item for item in extract_bundle(bundle("Fidel_Bins")) if item.resource_type == "AllergyIntolerance"]
    cluster.kill(cluster.names[3])
    await types("record", "get", "--class", "allergy", *asking, *person, "--to", folder / "read")
    assert sorted(path.read_bytes() for path in (folder / "read").iterdir()) == sorted(item.data for item in source)
    _, said = await ended(clinic, "record", "ask", "--class", "allergy", *asking, *person)
    access = said.split("--access ")[1].split()[0]
    await quiet(cluster, cluster.names[:3])
    cluster.kill(cluster.names[2])
    status, said = await ended(clinic, "record", "get", "--access", access, *person)
    assert status == UNAVAILABLE, said
    for name in cluster.names[2:]:
        assert name in said
