"""Step 4: a hospital takes records in."""

import json
from importlib.resources import files

import trio

from p2pledger.client.ingest import Capsules, Origin, Prepared, prepare_bundle, prepare_ndjson
from p2pledger.client.keyring import Wallet
from p2pledger.client.records import Manifest, Patient
from p2pledger.demo.stage import A, Stage, enter

BULK = ("Patient", "AllergyIntolerance", "Immunization", "Condition", "Device")
RESOURCES = {"Fidel_Bins": 182, "Trenton_Turner": 173}


async def ingest(stage: Stage) -> Manifest:
    narrator = stage.narrator
    narrator.step(4, "A hospital takes records in: sealed at home, committed to on the chain")
    charts = {"Fidel_Bins": stage.patient[A].patient, "Trenton_Turner": await _another_patient(stage, "Trenton_Turner")}
    bundles = {name: _sealed_bundle(stage, name, patient) for name, patient in charts.items()}
    bulk = await _sealed_bulk(stage)
    async with trio.open_nursery() as nursery:
        for prepared in (*bundles.values(), *bulk):
            nursery.start_soon(_keep, stage, prepared)
    for name, prepared in bundles.items():
        await stage.submit(stage.clients[A], prepared.operation)
        narrator.check(
            f"{name}: every resource is sealed, its key in a capsule; one transaction carries the salted root",
            prepared.operation.n == RESOURCES[name],
            f"{prepared.operation.n} resources, root {prepared.operation.root.hex()[:16]}…",
        )
    manifest = bundles["Fidel_Bins"].manifest
    allergies = [entry for entry in manifest.entries if entry.resource_type == "AllergyIntolerance"]
    narrator.check("7 of the first one's are allergies", len(allergies) == 7)
    await stage.submit(stage.clients[A], *(prepared.operation for prepared in bulk))
    narrator.check(
        "a bulk export in NDJSON became one batch for each patient, all in one transaction",
        len(bulk) == len({prepared.manifest.pid for prepared in bulk}) > 1,
        f"{sum(prepared.operation.n for prepared in bulk)} resources of {len(bulk)} patients",
    )
    return manifest


def _sealed_bundle(stage: Stage, name: str, patient: Patient) -> Prepared:
    """For the hospital and the patient; each key goes into a capsule of the validators, too."""
    assert stage.joint_key is not None, "the ceremony comes before the first record"
    capsules = Capsules.to_key(stage.joint_key.key, stage.cluster.founding.chain)
    with stage.narrator.progress(name) as progress:
        return prepare_bundle(
            bundle_of(name), Origin(stage.organisations[A].custodian, capsules=capsules), patient, progress
        )


async def _another_patient(stage: Stage, name: str) -> Patient:
    """A patient of hospital A who plays no further part."""
    wallet = Wallet.create(stage.folder / "wallets" / f"{name}.key", None)
    persona = wallet.at(stage.organisations[A].organisation)
    await enter(stage, persona, "patient", A)
    return persona.patient


async def _sealed_bulk(stage: Stage) -> list[Prepared]:
    """One NDJSON export: many patients, one batch for each; for hospital and patients only, without capsules."""
    custodian = stage.organisations[A]
    folder = files("p2pledger") / "samples" / "bulk10"
    data = [(folder / f"{kind}.000.ndjson").read_bytes() for kind in BULK]
    personas = {
        name: Wallet.create(stage.folder / "wallets" / f"{name}.key", None).at(custodian.organisation)
        for name in _patient_ids(data[0])
    }
    async with trio.open_nursery() as nursery:
        for persona in personas.values():
            nursery.start_soon(enter, stage, persona, "patient", A)
    with stage.narrator.progress("bulk export") as progress:
        found = {name: persona.patient for name, persona in personas.items()}
        return list(prepare_ndjson(data, Origin(custodian.custodian), found.get, progress).values())


def bundle_of(name: str) -> bytes:
    """A sample Bundle by the beginning of its name."""
    folder = files("p2pledger") / "samples" / "bundles"
    return next(path for path in folder.iterdir() if path.name.startswith(name)).read_bytes()


def _patient_ids(ndjson: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in ndjson.splitlines() if line.strip()]


async def _keep(stage: Stage, prepared: Prepared) -> None:
    """Into the custodian's sealed store, durable before the chain commits to it."""
    batch = (prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    await trio.to_thread.run_sync(stage.vault(A).put_batch, *batch)
