"""Steps 11, 13 and 14: the access log convinces without any node, and four stopped stores say the same."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import trio

from p2pledger.client.export import code_name
from p2pledger.client.joint_keys import Audited, audit_releases
from p2pledger.client.ledger import Receipt
from p2pledger.demo.autopsy import Remains, remains_of
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.forgery import forgeries
from p2pledger.demo.load import quantile_ms
from p2pledger.demo.stage import MEMBERS, A, Stage, client_of
from p2pledger.node.home import Home, Layout, load_node_keys
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code
from p2pledger.storage.release_entries import ReleaseEntries

UNPROVEN = 5
"""Exit status of a proof that does not verify."""
EXPECTED = (Code.OK, Code.E_SCOPE, Code.E_NO_CONSENT, Code.E_REVOKED, Code.OK, Code.E_EXPIRED)
"""What has been answered to whoever asked, in the steps before."""


async def read_log(stage: Stage) -> bytes:
    narrator = stage.narrator
    narrator.step(11, "The patient sees who asked, when and why, and can prove it to anybody")
    patient = stage.patient[A]
    names = {card.organisation: card.name for card in stage.cluster.founding.genesis.cards}
    async with AsyncExitStack() as stack:
        wallet = await client_of(stack, stage, patient.signing, A)
        with trio.fail_after(30):
            log = await wallet.log(patient.did)
            while log.newer or len(log.lines) < len(EXPECTED):
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
    narrator.check(
        f"verified by the patient's own program alone, complete up to checkpoint {log.height}",
        decisions == [int(code) for code in EXPECTED],
        f"{len(log.lines)} lines",
    )
    await _audit_shares(stage)
    return export


async def _audit_shares(stage: Stage) -> None:
    """What every validator has written down before a share left it, against what it told the chain (I-9)."""
    audited: list[Audited] = []
    for name, folder in stage.cluster.homes.items():
        home = Home.load(folder, {})
        with closing(ReleaseEntries(home.releases, home.founding.chain, home.node)) as entries:
            counts = Counter(entry.access.access_id for entry in entries)
        audited += await audit_releases(stage.clients[name], counts, home.validator)
    stage.narrator.check(
        "every share that left a validator is on the chain, under an access or a recovery that was allowed",
        bool(audited) and all(one.verdict == "reported" for one in audited),
        f"{sum(one.reported for one in audited)} shares, {len({one.access_id for one in audited})} occasions",
    )


async def verify_offline(stage: Stage, export: bytes) -> None:
    """The file convinces without any node; no falsified one does."""
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(13, "Everybody goes home; the access log still convinces")
    await cluster.stop()
    narrator.say("  all nodes are stopped now")
    chain = cluster.founding.chain.hex()
    path = stage.folder / "access-log.json"
    path.write_bytes(export)
    lookalike = Cluster.create(stage.folder / "lookalike", MEMBERS)
    keys = [_consensus_key(home) for home in lookalike.homes.values()]
    forged = forgeries(export, lookalike.founding, keys)
    statuses: dict[str, int] = {}

    async def judge(name: str, path: Path) -> None:
        statuses[name] = await _verify(path, chain)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(judge, "", path)
        for number, (misdeed, data) in enumerate(forged.items()):
            one = stage.folder / f"forged-{number}.json"
            one.write_bytes(data)
            nursery.start_soon(judge, misdeed, one)
    narrator.check(f"`p2pledger verify {path.name} --genesis {chain[:8]}…` believes the exported log", not statuses[""])
    for misdeed in forged:
        status = statuses[misdeed]
        narrator.check(f"refused with exit status {UNPROVEN}: {misdeed}", status == UNPROVEN, f"status {status}")


def _consensus_key(home: Path) -> SigningKey:
    return load_node_keys(Layout(home)).consensus


async def _verify(path: Path, chain: str) -> int:
    command = [sys.executable, "-m", "p2pledger", "verify", str(path), "--genesis", chain]
    done = await trio.run_process(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode


# 14. The balance


async def close_books(stage: Stage, view_changes: int) -> None:
    narrator, cluster = stage.narrator, stage.cluster
    narrator.step(14, "The balance, read from the four stopped stores")
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
            digest = remains.state_digest() if len(set(tips.values())) == 1 else b""
            digests[name] = (block, state, roots, digest)
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
    quiet, loaded = stage.latencies_s, stage.load_latencies_s
    narrator.table(
        "Run",
        ("blocks", "transactions", "finality p50 / p99", "with 2,000 in flight and a dying primary", "view changes"),
        [(common, stage.transactions, _quantiles(quiet), _quantiles(loaded), view_changes)],
    )
    narrator.say("  finality: from handing a transaction in to a verified proof")


def _quantiles(latencies_s: Sequence[float]) -> str:
    return f"{quantile_ms(latencies_s, 0.5):.0f} / {quantile_ms(latencies_s, 0.99):.0f} ms"


def _lost(receipts: Sequence[Receipt], remains: Remains) -> int:
    """How many acknowledged receipts a stopped store does not hold with the same content."""
    held = {
        executed
        for height in {receipt.executed.receipt.height for receipt in receipts}
        for executed in remains.receipts(height)
    }
    return sum(1 for receipt in receipts if receipt.executed not in held)
