"""Step 4: a hospital takes records in."""

import json
from importlib.resources import files

import trio

from p2pledger.client.ingest import Capsules, Origin, Prepared, prepare_bundle, prepare_ndjson
from p2pledger.client.keyring import Wallet
from p2pledger.client.records import Manifest, Patient
from p2pledger.demo.stage import A, Stage, enter

BULK = ("Patient", "AllergyIntolerance", "Immunization", "Condition", "Device")


async def ingest(stage: Stage) -> Manifest:
    narrator = stage.narrator
    narrator.step(4, "A hospital takes records in: sealed at home, committed to on the chain")
    manifest = await _ingest_bundle(stage, "Fidel_Bins", 182)
    allergies = [entry for entry in manifest.entries if entry.resource_type == "AllergyIntolerance"]
    narrator.check("7 of them are allergies", len(allergies) == 7)
    await _ingest_bundle(stage, "Trenton_Turner", 173)
    await _ingest_bulk(stage)
    return manifest


async def _ingest_bundle(stage: Stage, name: str, entries: int) -> Manifest:
    patient = stage.patient[A].patient
    if name != "Fidel_Bins":
        patient = await _another_patient(stage, name)
    with stage.narrator.progress(name) as progress:
        prepared = prepare_bundle(bundle_of(name), _origin(stage), patient, progress)
        await _keep(stage, prepared)
        await stage.submit(stage.clients[A], prepared.operation)
    stage.narrator.check(
        f"{name}: every resource is sealed, its key in a capsule; one transaction carries the salted root",
        prepared.operation.n == entries,
        f"{prepared.operation.n} resources, root {prepared.operation.root.hex()[:16]}…",
    )
    return prepared.manifest


async def _another_patient(stage: Stage, name: str) -> Patient:
    """A patient of hospital A who plays no further part."""
    wallet = Wallet.create(stage.folder / "wallets" / f"{name}.key", None)
    persona = wallet.at(stage.organisations[A].organisation)
    await enter(stage, persona, "patient", A)
    return persona.patient


async def _ingest_bulk(stage: Stage) -> None:
    """One NDJSON export: many patients, one batch for each."""
    narrator, custodian = stage.narrator, stage.organisations[A]
    folder = files("p2pledger") / "samples" / "bulk10"
    data = [(folder / f"{kind}.000.ndjson").read_bytes() for kind in BULK]
    ids = _patient_ids(data[0])
    personas = {
        name: Wallet.create(stage.folder / "wallets" / f"{name}.key", None).at(custodian.organisation) for name in ids
    }
    async with trio.open_nursery() as nursery:
        for persona in personas.values():
            nursery.start_soon(enter, stage, persona, "patient", A)
    with narrator.progress("sealing") as progress:
        found = {name: persona.patient for name, persona in personas.items()}
        batches = prepare_ndjson(data, Origin(custodian.custodian), found.get, progress)
    async with trio.open_nursery() as nursery:
        for prepared in batches.values():
            nursery.start_soon(_keep, stage, prepared)
    await stage.submit(stage.clients[A], *(prepared.operation for prepared in batches.values()))
    records = sum(prepared.operation.n for prepared in batches.values())
    narrator.check(
        "a bulk export in NDJSON became one batch for each patient, all in one transaction",
        len(batches) == len(personas),
        f"{records} resources of {len(batches)} patients, sealed to hospital and patient only",
    )


def bundle_of(name: str) -> bytes:
    """A sample Bundle by the beginning of its name."""
    folder = files("p2pledger") / "samples" / "bundles"
    return next(path for path in folder.iterdir() if path.name.startswith(name)).read_bytes()


def _origin(stage: Stage) -> Origin:
    """From hospital A, which puts each record's key into a capsule of the validators, too."""
    assert stage.joint_key is not None, "the ceremony comes before the first record"
    capsules = Capsules(stage.joint_key.key, stage.cluster.founding.chain)
    return Origin(stage.organisations[A].custodian, capsules=capsules)


def _patient_ids(ndjson: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in ndjson.splitlines() if line.strip()]


async def _keep(stage: Stage, prepared: Prepared) -> None:
    """Into the custodian's sealed store, durable before the chain commits to it."""
    batch = (prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)
    await trio.to_thread.run_sync(stage.vault(A).put_batch, *batch)
