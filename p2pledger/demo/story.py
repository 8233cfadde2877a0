"""The demonstration, step by step; every sentence that promises something is checked before it is printed."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import trio
from rich.console import Console

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
from p2pledger.client.ingest import Origin, Prepared, prepare_bundle, prepare_ndjson
from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet
from p2pledger.client.ledger import LedgerClient, Receipt, open_ledger
from p2pledger.client.records import Manifest, Patient, open_manifest
from p2pledger.client.vault import Vault
from p2pledger.demo.autopsy import Remains, remains_of
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.forgery import forgeries
from p2pledger.demo.load import Load, quantile_ms
from p2pledger.demo.narrator import DemoFailed, Narrator
from p2pledger.health.purposes import Purpose
from p2pledger.node.home import Layout, load_keys
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis

A, B, INSURER, AGENCY = "City Hospital", "Lakeside Hospital", "Mutual Health Insurance", "Health Data Agency"
MEMBERS = ((A, "hospital"), (B, "hospital"), (INSURER, "insurer"), (AGENCY, "agency"))
DAY_MS = 24 * 3600 * 1000
IN_FLIGHT = 500
EACH = 1_000
KILLS_MAX = 5
UNPROVEN = 5
"""Exit status of a proof that does not verify."""

BULK = ("Patient", "AllergyIntolerance", "Immunization", "Condition", "Device")


@dataclass
class Stage:
    """Everybody who plays a part."""

    narrator: Narrator
    cluster: Cluster
    folder: Path
    organisations: dict[str, OrganisationWallet]
    clients: dict[str, LedgerClient] = field(default_factory=dict)
    patient: dict[str, Persona] = field(default_factory=dict)
    """The patient as each custodian knows them."""
    doctor: Persona | None = None
    researcher: Persona | None = None
    receipts: list[Receipt] = field(default_factory=list)
    """Acknowledged while the primary was being killed; to be found again in the stopped stores."""
    latencies_s: list[float] = field(default_factory=list)
    transactions: int = 0

    async def submit(self, client: LedgerClient, *operations: object, cosigners: Sequence[object] = ()) -> Receipt:
        """Submit, believe the proof, note how long it took."""
        started = time.perf_counter()
        receipt = await client.submit(*operations, cosigners=cosigners)  # type: ignore[arg-type]
        self.latencies_s.append(time.perf_counter() - started)
        self.transactions += 1
        return receipt


def now_ms() -> Millis:
    """The wall clock."""
    return Millis(time.time_ns() // 1_000_000)


async def tell(console: Console, folder: Path | None, keep: bool) -> None:
    """The whole story. Raises DemoFailed, or what went wrong; leaves nothing behind unless `keep`."""
    narrator = Narrator(console)
    root = Path(tempfile.mkdtemp(prefix="p2pledger-demo-")) if folder is None else folder
    try:
        with Cluster.create(root / "consortium", MEMBERS, params={"heartbeat_ms": 1_000}) as cluster:
            stage = Stage(narrator, cluster, root, {name: cluster.wallet(name) for name, _ in MEMBERS})
            try:
                await _play(stage)
            except Exception:
                narrator.say(cluster.last_words())
                raise
            if keep:
                await _leave_running(stage)
    finally:
        if not keep and folder is None:
            shutil.rmtree(root, ignore_errors=True)


async def _play(stage: Stage) -> None:
    narrator = stage.narrator
    await _found(stage)
    async with _clients(stage):
        await _register(stage)
        manifest = await _ingest(stage)
        await _consent(stage, manifest)
        views = await _kill_the_primary(stage)
        export = await _read_log(stage)
    await _verify_offline(stage, export)
    await _close(stage, views)
    narrator.say(f"\nAll {narrator.checked} promises held.")


# 1. The network


async def _found(stage: Stage) -> None:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(1, "Four organisations found a consortium")
    narrator.say("Demo only: one machine sees all keys. For real, each member runs `p2pledger member init` at home.")
    for name, home in cluster.homes.items():
        modes = {oct(path.stat().st_mode & 0o777) for path in (home / "keys").iterdir()}
        narrator.check(f"{name}: four separate keys, readable by their owner alone", modes == {"0o600"}, str(home))
    started = time.monotonic()
    await cluster.start()
    await cluster.wait_ready()
    narrator.check(
        "four node processes linked over mutual TLS 1.3 and ready",
        len(cluster.running) == len(MEMBERS),
        f"{time.monotonic() - started:.1f} s",
    )
    narrator.say(f"  chain {cluster.founding.chain.hex()}")


@asynccontextmanager
async def _clients(stage: Stage) -> AsyncIterator[None]:
    """A client for each organisation, its own node first."""
    async with AsyncExitStack() as stack:
        for name, _ in MEMBERS:
            stage.clients[name] = await _client(stack, stage, stage.organisations[name].account, name)
        yield


async def _client(stack: AsyncExitStack, stage: Stage, account: SigningKey, first: str) -> LedgerClient:
    names = [first, *(name for name in stage.cluster.names if name != first)]
    ledger = open_ledger(stage.cluster.founding, stage.cluster.addresses(names), account)
    return await stack.enter_async_context(ledger)


# 2. People


async def _register(stage: Stage) -> None:
    narrator, organisations = stage.narrator, stage.organisations
    narrator.step(2, "People get wallets; the chain learns their keys, not their names")
    wallets = {
        who: Wallet.create(stage.folder / "wallets" / f"{who}.key", None) for who in ("patient", "doctor", "researcher")
    }
    for name in (A, B):
        persona = wallets["patient"].at(organisations[name].organisation)
        stage.patient[name] = persona
        await _enter(stage, persona, "patient", name)
    narrator.check(
        "the patient has one pid and one key for each custodian, which nobody else can join",
        stage.patient[A].did != stage.patient[B].did and stage.patient[A].account != stage.patient[B].account,
        f"{stage.patient[A].did.hex()} at {A}, {stage.patient[B].did.hex()} at {B}",
    )
    stage.doctor = wallets["doctor"].at(organisations[B].organisation)
    stage.researcher = wallets["researcher"].at(organisations[AGENCY].organisation)
    await _enter(stage, stage.doctor, "practitioner", B)
    await _enter(stage, stage.researcher, "researcher", AGENCY)
    valid = (Millis(now_ms() - 60_000), Millis(now_ms() + 365 * DAY_MS))
    await stage.submit(stage.clients[B], issue_credential(stage.doctor.did, "physician", *valid))
    await stage.submit(stage.clients[AGENCY], issue_credential(stage.researcher.did, "researcher", *valid))
    narrator.check("the doctor's and the researcher's credentials stand on the chain", True, f"{B} and {AGENCY} signed")


async def _enter(stage: Stage, persona: Persona, kind: str, organisation: str) -> None:
    """Register a persona: signed by its own key, cosigned by the organisation."""
    sponsor = stage.organisations[organisation].account
    async with AsyncExitStack() as stack:
        client = await _client(stack, stage, persona.signing, organisation)
        registration = persona.registration(kind, b"\1" * 32)  # type: ignore[arg-type]
        await stage.submit(client, registration, cosigners=(sponsor,))


# 3. Records


async def _ingest(stage: Stage) -> Manifest:
    narrator = stage.narrator
    narrator.step(3, "A hospital takes records in: sealed at home, committed to on the chain")
    manifest = await _ingest_bundle(stage, "Fidel_Bins", 182)
    allergies = [entry for entry in manifest.entries if entry.resource_type == "AllergyIntolerance"]
    narrator.check("7 of them are allergies", len(allergies) == 7)
    await _ingest_bundle(stage, "Trenton_Turner", 173)
    await _ingest_bulk(stage)
    return manifest


async def _ingest_bundle(stage: Stage, name: str, entries: int) -> Manifest:
    custodian, patient = stage.organisations[A], stage.patient[A].patient
    if name != "Fidel_Bins":
        patient = await _another_patient(stage, name)
    bundle = next(path for path in (files("p2pledger") / "samples" / "bundles").iterdir() if path.name.startswith(name))
    with stage.narrator.progress(name) as progress:
        prepared = prepare_bundle(bundle.read_bytes(), Origin(custodian.custodian), patient, progress)
        _keep(stage, prepared)
        await stage.submit(stage.clients[A], prepared.operation)
    stage.narrator.check(
        f"{name}: every resource of the bundle is sealed, one transaction carries the root of salted commitments",
        prepared.operation.n == entries,
        f"{prepared.operation.n} resources, root {prepared.operation.root.hex()[:16]}…",
    )
    return prepared.manifest


async def _another_patient(stage: Stage, name: str) -> Patient:
    """A patient of hospital A who plays no further part."""
    wallet = Wallet.create(stage.folder / "wallets" / f"{name}.key", None)
    persona = wallet.at(stage.organisations[A].organisation)
    await _enter(stage, persona, "patient", A)
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
    with narrator.progress("bulk export") as progress:
        for done, persona in enumerate(personas.values(), start=1):
            await _enter(stage, persona, "patient", A)
            progress(done, len(personas))
    with narrator.progress("sealing") as progress:
        found = {name: persona.patient for name, persona in personas.items()}
        batches = prepare_ndjson(data, Origin(custodian.custodian), found.get, progress)
        for prepared in batches.values():
            _keep(stage, prepared)
    await stage.submit(stage.clients[A], *(prepared.operation for prepared in batches.values()))
    records = sum(prepared.operation.n for prepared in batches.values())
    narrator.check(
        "a bulk export in NDJSON became one batch for each patient, all in one transaction",
        len(batches) == len(personas),
        f"{records} resources of {len(batches)} patients",
    )


def _patient_ids(ndjson: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in ndjson.splitlines() if line.strip()]


def _keep(stage: Stage, prepared: Prepared) -> None:
    """Into the custodian's sealed store, durable before the chain commits to it."""
    vault = Vault(stage.cluster.homes[A] / "vault", stage.organisations[A].custodian.box)
    vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)


# 4. Consent


async def _consent(stage: Stage, manifest: Manifest) -> None:
    narrator = stage.narrator
    narrator.step(4, "The patient decides who may read what, for which purpose and until when")
    assert stage.doctor is not None and stage.researcher is not None
    patient = stage.patient[A]
    vault = Vault(stage.cluster.homes[A] / "vault", stage.organisations[A].custodian.box)
    sealed = vault.sealed_manifest(manifest.batch_id)
    own = open_manifest(sealed, manifest.batch_id, patient.box)
    allergies, medications = compartments_of(own, "allergy"), compartments_of(own, "medication")
    narrator.check("the patient's own key opens the manifest of the sealed records", len(own.entries) == 182)
    async with AsyncExitStack() as stack:
        wallet = await _client(stack, stage, patient.signing, A)
        doctor = await _client(stack, stage, stage.doctor.signing, B)
        researcher = await _client(stack, stage, stage.researcher.signing, AGENCY)

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

        until = Millis(now_ms() + 2_000)
        grant, brief = grant_consent(patient, stage.doctor.did, allergies, ("ETREAT",), now_ms(), until)
        await stage.submit(wallet, grant)
        height, block_ms = await _wait_for_block_time(wallet, until)
        narrator.check(
            "the chain's own heartbeat has passed the end of a consent of two seconds",
            block_ms >= until,
            f"block {height}, {block_ms - until} ms after its end, no transaction in between",
        )
        await _ask(stage, doctor, stage.doctor, brief, allergies, Code.E_EXPIRED, "the doctor asks under it")


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


async def _wait_for_block_time(client: LedgerClient, until: Millis) -> tuple[int, int]:
    with trio.fail_after(30):
        while True:
            status = await client.status()
            if status.block_time_ms >= until:
                return status.height, status.block_time_ms
            await trio.sleep(0.1)


# 5. The primary dies


async def _kill_the_primary(stage: Stage) -> int:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(5, "The primary dies under load")
    acknowledged: list[Receipt] = []
    for _ in range(KILLS_MAX):
        load = _load(stage)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await load.enough.wait()
            status = await stage.clients[AGENCY].status()
            while load.in_flight < IN_FLIGHT or load.latencies_s == []:
                if load.is_done:
                    break
                await trio.sleep(0.001)
            cluster.kill(status.primary)
            in_flight = load.in_flight
            with remains_of(cluster.homes[status.primary]) as remains:
                prepared, tip = remains.prepared(), remains.tip
            if in_flight >= IN_FLIGHT and prepared:
                break
            await cluster.start(status.primary)
            await cluster.wait_ready(status.primary)
        acknowledged += load.receipts
        stage.transactions += len(load.receipts)
    else:
        raise DemoFailed(f"no kill out of {KILLS_MAX} hit {IN_FLIGHT} in flight and a prepared height")
    acknowledged += load.receipts
    stage.transactions += len(load.receipts)
    stage.latencies_s += load.latencies_s
    narrator.check(
        f"{status.primary}, primary of view {status.view}, was killed with SIGKILL",
        in_flight >= IN_FLIGHT,
        f"{in_flight} transactions in flight",
    )
    narrator.check(
        "its journal shows a height prepared but not committed", bool(prepared), f"{prepared} above tip {tip}"
    )
    after = await stage.clients[AGENCY].status()
    narrator.check("the other three changed view and went on", after.view > status.view, f"view {after.view}")
    narrator.check(
        "every transaction has a proven receipt; nothing acknowledged is lost",
        len(load.receipts) == EACH * len(load.clients),
        f"{len(load.receipts)} transactions, p50 {quantile_ms(load.latencies_s, 0.5):.0f} ms, "
        f"p99 {quantile_ms(load.latencies_s, 0.99):.0f} ms through the failure",
    )
    await cluster.start(status.primary)
    await cluster.wait_ready(status.primary)
    height = (await stage.clients[AGENCY].status()).height
    async with AsyncExitStack() as stack:
        address = [cluster.address(status.primary)]
        own = await stack.enter_async_context(
            open_ledger(cluster.founding, address, stage.organisations[status.primary].account)
        )
        with trio.fail_after(60):
            while (await own.status()).height < height:
                await trio.sleep(0.05)
    narrator.check(f"{status.primary} replayed its journal and caught up", True, f"height {height}")
    stage.receipts = acknowledged
    return int(after.view_changes)


def _load(stage: Stage) -> Load:
    custodians = [
        (stage.clients[name], stage.patient[name].did, stage.organisations[name].organisation) for name in (A, B)
    ]
    return Load(custodians, EACH, IN_FLIGHT)


# 6. The log


async def _read_log(stage: Stage) -> bytes:
    narrator = stage.narrator
    narrator.step(6, "The patient sees who asked, when and why, and can prove it to anybody")
    patient = stage.patient[A]
    names = {card.organisation: card.name for card in stage.cluster.founding.genesis.cards}
    async with AsyncExitStack() as stack:
        wallet = await _client(stack, stage, patient.signing, A)
        with trio.fail_after(30):
            log = await wallet.log(patient.did)
            while log.newer or len(log.lines) < 5:
                await trio.sleep(0.2)
                log = await wallet.log(patient.did)
        export = await wallet.export_log(patient.did)
    rows = [
        (
            line.sequence,
            time.strftime("%H:%M:%S", time.gmtime(line.time_ms / 1000)),
            "-" if line.actor is None else line.actor.hex()[:8],
            names.get(line.organisation, "?"),
            line.purpose,
            "ALLOWED" if line.decision == Code.OK else f"DENIED({code_name(line.decision)})",
            line.basis if line.consent_id is None else f"{line.basis} {line.consent_id.hex()[:8]}",
        )
        for line in log.lines
    ]
    narrator.table("Access log", ("#", "UTC", "who", "organisation", "purpose", "decision", "basis"), rows)
    decisions = [line.decision for line in log.lines]
    expected = [Code.OK, Code.E_SCOPE, Code.E_NO_CONSENT, Code.E_REVOKED, Code.E_EXPIRED]
    narrator.check(
        f"verified by the patient's own program alone, complete up to checkpoint {log.height}",
        decisions == [int(code) for code in expected],
        f"{len(log.lines)} lines",
    )
    return export


async def _verify_offline(stage: Stage, export: bytes) -> None:
    """The file convinces without any node; no falsified one does."""
    narrator, cluster = stage.narrator, stage.cluster
    await cluster.stop()
    narrator.say("  all nodes are stopped now")
    chain = cluster.founding.chain.hex()
    path = stage.folder / "access-log.json"
    path.write_bytes(export)
    status = await _verify(path, chain)
    narrator.check(f"`p2pledger verify {path.name} --genesis {chain[:8]}…` believes the exported log", status == 0)
    lookalike = Cluster.create(stage.folder / "lookalike", MEMBERS)
    keys = [_consensus_key(home) for home in lookalike.homes.values()]
    for misdeed, data in forgeries(export, lookalike.founding, keys).items():
        forged = stage.folder / "forged.json"
        forged.write_bytes(data)
        status = await _verify(forged, chain)
        narrator.check(f"refused with exit status {UNPROVEN}: {misdeed}", status == UNPROVEN, f"status {status}")


def _consensus_key(home: Path) -> SigningKey:
    return load_keys(Layout(home)).consensus


async def _verify(path: Path, chain: str) -> int:
    command = [sys.executable, "-m", "p2pledger", "verify", str(path), "--genesis", chain]
    done = await trio.run_process(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode


# 7. The balance


async def _close(stage: Stage, view_changes: int) -> None:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(7, "The balance, read from the four stopped stores")
    tips: dict[str, int] = {}
    rows: list[Sequence[object]] = []
    digests: dict[str, tuple[object, ...]] = {}
    for name, home in cluster.homes.items():
        with remains_of(home) as remains:
            tips[name] = int(remains.tip)
    common = min(tips.values())
    for name, home in cluster.homes.items():
        with remains_of(home) as remains:
            checkpoint = remains.last_checkpoint(common)
            roots = tuple(remains.effects_root(height) for height in range(1, common + 1))
            block, state = remains.block_hash(common), remains.state_root(checkpoint)
            digests[name] = (block, state, roots)
            lost = _lost(stage.receipts, remains)
        disk = sum(path.stat().st_blocks * 512 for path in (home / "data").rglob("*") if path.is_file())
        shown = "-" if state is None else state.hex()[:16]
        rows.append((name, tips[name], block.hex()[:16], shown, f"{disk / 2**20:.1f} MiB"))
        narrator.check(f"{name} holds every acknowledged receipt", lost == 0, f"{len(stage.receipts)} looked up")
    narrator.table("Stores", ("node", "height", f"block {common}", f"state root {checkpoint}", "on disk"), rows)
    narrator.check(
        f"equal blocks, effects roots and state roots up to height {common} in all four, the killed node included",
        len(set(digests.values())) == 1,
    )
    narrator.table(
        "Run",
        ("blocks", "transactions", "finality p50", "finality p99", "view changes"),
        [
            (
                common,
                stage.transactions,
                f"{quantile_ms(stage.latencies_s, 0.5):.0f} ms",
                f"{quantile_ms(stage.latencies_s, 0.99):.0f} ms",
                view_changes,
            )
        ],
    )
    narrator.say("  finality: from handing a transaction in to a verified proof, the killed primary included")


def _lost(receipts: Sequence[Receipt], remains: Remains) -> int:
    """How many acknowledged receipts a stopped store does not hold with the same content."""
    held = {
        executed
        for height in {receipt.executed.receipt.height for receipt in receipts}
        for executed in remains.receipts(height)
    }
    return sum(1 for receipt in receipts if receipt.executed not in held)


async def _leave_running(stage: Stage) -> None:
    """`--keep`: start everything again and let it outlive this program."""
    narrator, cluster = stage.narrator, stage.cluster
    await cluster.start()
    await cluster.wait_ready()
    narrator.say("\nThe network is running. Talk to it:")
    for name, home in cluster.homes.items():
        narrator.say(f"  p2pledger --home {home} status      # {name}")
    narrator.say(f"  p2pledger --home {cluster.homes[A]} block tail")
    narrator.say(f"stop it: pkill -f 'p2pledger start --home {stage.folder}'; then remove {stage.folder}")
    cluster.let_go()
