"""The demonstration, step by step; every sentence that promises something is checked before it is printed."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from p2pledger.client.export import code_name
from p2pledger.client.health import (
    Compartment,
    ConsentCard,
    compartments_of,
    decision_of,
    grant_consent,
    issue_credential,
    request_access,
    revoke_consent,
)
from p2pledger.client.keyring import Persona, Wallet
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.records import Manifest, SealedRecord, open_manifest
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.erasing import erase
from p2pledger.demo.failure import kill_the_primary
from p2pledger.demo.keys import make_joint_key, try_stolen_homes
from p2pledger.demo.narrator import Narrator
from p2pledger.demo.proof import close_books, read_log, verify_offline
from p2pledger.demo.reading import Read, read_after_the_end, read_allergies
from p2pledger.demo.records import ingest
from p2pledger.demo.recovering import recover
from p2pledger.demo.service import vault_service
from p2pledger.demo.stage import AGENCY, DAY_MS, MEMBERS, A, B, Stage, all_clients, client_of, enter, now_ms
from p2pledger.health.commitments import RecordRef
from p2pledger.health.purposes import Purpose
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis

RULES = {"heartbeat_ms": 1_000, "checkpoint_interval": 2, "recovery_delay_min_ms": 1_000}
"""Everything that is waited for comes in seconds; the defaults are for a year."""


async def tell(console: Console, folder: Path | None, keep: bool) -> None:
    """The whole story. Raises DemoFailed, or what went wrong; leaves nothing behind unless `keep`."""
    narrator = Narrator(console)
    root = Path(tempfile.mkdtemp(prefix="p2pledger-demo-")) if folder is None else folder
    try:
        with Cluster.create(root / "consortium", MEMBERS, params=RULES, keys_apart=True) as cluster:
            stage = Stage(narrator, cluster, root, {name: cluster.wallet(name) for name, _ in MEMBERS})
            try:
                await _play(stage)
            except Exception:
                narrator.say(escape(cluster.last_words()))
                raise
            if keep:
                await _leave_running(stage)
    finally:
        if not keep and folder is None:
            shutil.rmtree(root, ignore_errors=True)


async def _play(stage: Stage) -> None:
    narrator = stage.narrator
    await _found(stage)
    with vault_service(stage.cluster, A) as served:
        async with all_clients(stage):
            await make_joint_key(stage)
            await _register(stage)
            manifest = await ingest(stage)
            await _consent(stage, manifest)
            read = await read_allergies(stage, manifest, served)
            await recover(stage, manifest)
            await read_after_the_end(stage, read, served)
            gone = await erase(stage, manifest)
            views = await kill_the_primary(stage)
            export = await read_log(stage)
            processes = {**stage.cluster.pids(), f"the vault of {A}": served.process.pid}
            await try_stolen_homes(stage, _closed_record(stage, manifest, read, gone), gone, processes)
    await verify_offline(stage, export)
    await close_books(stage, views)
    narrator.say(f"\nAll {narrator.checked} promises held.")


# 1. The network


async def _found(stage: Stage) -> None:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(1, "Four organisations found a consortium")
    narrator.say("Demo only: one machine sees all keys. For real, each member runs `p2pledger member init` at home.")
    for name, member in cluster.members.items():
        keys = [path for folder in (member.layout.keys, member.layout.office) for path in folder.iterdir()]
        modes = {oct(path.stat().st_mode & 0o777) for path in keys}
        narrator.check(
            f"{name}: four separate keys, for its owner's eyes; two, to act and read with, not in its node's home",
            (modes, len(keys), len(list(member.layout.keys.iterdir()))) == ({"0o600"}, 4, 2),
            str(member.home),
        )
    started = time.monotonic()
    await cluster.start()
    await cluster.wait_ready()
    narrator.check(
        "four node processes linked over mutual TLS 1.3 and ready",
        len(cluster.running) == len(MEMBERS),
        f"{time.monotonic() - started:.1f} s",
    )
    narrator.say(f"  chain {cluster.founding.chain.hex()}")


# 3. People


async def _register(stage: Stage) -> None:
    narrator, organisations = stage.narrator, stage.organisations
    narrator.step(3, "People get wallets; the chain learns their keys, not their names")
    wallets = {
        who: Wallet.create(stage.folder / "wallets" / f"{who}.key", None) for who in ("patient", "doctor", "researcher")
    }
    for name in (A, B):
        persona = wallets["patient"].at(organisations[name].organisation)
        stage.patient[name] = persona
        await enter(stage, persona, "patient", name)
    narrator.check(
        "the patient has one pid and one key for each custodian, which nobody else can join",
        stage.patient[A].did != stage.patient[B].did and stage.patient[A].account != stage.patient[B].account,
        f"{stage.patient[A].did.hex()} at {A}, {stage.patient[B].did.hex()} at {B}",
    )
    stage.doctor = wallets["doctor"].at(organisations[B].organisation)
    stage.researcher = wallets["researcher"].at(organisations[AGENCY].organisation)
    await enter(stage, stage.doctor, "practitioner", B)
    await enter(stage, stage.researcher, "researcher", AGENCY)
    valid = (Millis(now_ms() - 60_000), Millis(now_ms() + 365 * DAY_MS))
    await stage.submit(stage.clients[B], issue_credential(stage.doctor.did, "physician", *valid))
    await stage.submit(stage.clients[AGENCY], issue_credential(stage.researcher.did, "researcher", *valid))
    narrator.check("the doctor's and the researcher's credentials stand on the chain", True, f"{B} and {AGENCY} signed")


# 5. Consent


async def _consent(stage: Stage, manifest: Manifest) -> None:
    narrator = stage.narrator
    narrator.step(5, "The patient decides who may read what, for which purpose and until when")
    assert stage.doctor is not None and stage.researcher is not None
    patient = stage.patient[A]
    sealed = stage.vault(A).sealed_manifest(manifest.batch_id)
    own = open_manifest(sealed, manifest.batch_id, patient.box)
    allergies, medications = compartments_of(own, "allergy"), compartments_of(own, "medication")
    narrator.check("the patient's own key opens the manifest of the sealed records", len(own.entries) == 182)
    async with AsyncExitStack() as stack:
        wallet = await client_of(stack, stage, patient.signing, A)
        doctor = await client_of(stack, stage, stage.doctor.signing, B)
        researcher = await client_of(stack, stage, stage.researcher.signing, AGENCY)

        grant, card = grant_consent(patient, stage.doctor.did, allergies, ("ETREAT",), now_ms(), now_ms() + DAY_MS)
        await stage.submit(wallet, grant)
        narrator.say("  granted: the emergency doctor may read the allergies for 24 hours, purpose ETREAT")
        await _ask(stage, doctor, stage.doctor, card, allergies, Code.OK, "the doctor asks for the allergies")
        await _ask(stage, doctor, stage.doctor, card, medications, Code.E_SCOPE, "the doctor asks for the medications")
        await _ask(
            stage, researcher, stage.researcher, None, allergies, Code.E_NO_CONSENT, "a researcher asks", "HRESCH"
        )
        await stage.submit(wallet, revoke_consent(card.consent_id))
        narrator.say("  revoked by the patient")
        await _ask(stage, doctor, stage.doctor, card, allergies, Code.E_REVOKED, "the doctor asks again")


async def _ask(
    stage: Stage,
    client: LedgerClient,
    reader: Persona,
    card: ConsentCard | None,
    compartments: Sequence[Compartment],
    expected: Code,
    what: str,
    purpose: Purpose = "ETREAT",
) -> None:
    """One access request with a final, proven answer."""
    request = request_access(
        reader,
        stage.cluster.founding.chain,
        pid=stage.patient[A].did,
        compartments=[compartment.handle for compartment in compartments],
        purpose=purpose,
        not_after_ms=now_ms() + 3_600_000,
        card=card,
    )
    decided = decision_of((await stage.submit(client, request)).executed)
    answer = "ALLOWED" if decided.decision == Code.OK else f"DENIED({code_name(decided.decision)})"
    stage.narrator.check(f"{what}: {answer}", decided.decision == expected, "final, proven to the reader")


def _closed_record(stage: Stage, manifest: Manifest, read: Read, gone: RecordRef) -> SealedRecord:
    """A record that nobody has ever asked for."""
    refs = (manifest.ref(entry.index) for entry in manifest.entries)
    return stage.vault(A).sealed_record(next(ref for ref in refs if ref not in (*read.index.refs, gone)))


async def _leave_running(stage: Stage) -> None:
    """`--keep`: start everything again and let it outlive this program."""
    narrator, cluster = stage.narrator, stage.cluster
    await cluster.start()
    await cluster.wait_ready()
    narrator.say("\nThe network is running. Talk to it:")
    for name, member in cluster.members.items():
        office = f"--organisation-keys {member.layout.office}"
        narrator.say(f"  p2pledger --home {member.home} {office} status      # {name}")
    first = cluster.member(A)
    narrator.say(f"  p2pledger --home {first.home} --organisation-keys {first.layout.office} block tail")
    pids = " ".join(str(pid) for pid in cluster.let_go())
    narrator.say(f"Stop it: kill {pids}; then remove {stage.folder}")
