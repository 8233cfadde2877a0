"""`python -m bench`: four node processes under a closed load, beside the floor that signature checks set."""

import argparse
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from p2pledger.client.keyring import Wallet
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.load import Load, quantile_ms
from p2pledger.primitives.crypto import SigningKey, verify


def verify_rate(seconds: float = 1.0) -> float:
    """Ed25519 verifications per second of one core, now: no validator can be faster than this allows."""
    key = SigningKey(bytes(32))
    message = bytes(300)
    signature = key.sign(message)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(100):
            assert verify(key.public, message, signature)
        count += 100
    return count / (time.perf_counter() - started)


async def measure(nodes: int, each: int, folder: Path) -> tuple[Load, float]:
    """Record batches of two custodians, all handed in at once, until each has a proven receipt."""
    with Cluster.create(folder / "consortium", nodes) as cluster:
        await cluster.start()
        await cluster.wait_ready()
        async with AsyncExitStack() as stack:
            custodians: list[tuple[LedgerClient, bytes, bytes]] = []
            for name in cluster.names[:2]:
                own = cluster.wallet(name)
                persona = Wallet(bytes([len(custodians) + 1]) * 32).at(own.organisation)
                addresses = cluster.addresses([name, *(other for other in cluster.names if other != name)])
                patient = await stack.enter_async_context(open_ledger(cluster.founding, addresses, persona.signing))
                await patient.submit(persona.registration("patient", b"\1" * 32), cosigners=(own.account,))
                client = await stack.enter_async_context(open_ledger(cluster.founding, addresses, own.account))
                custodians.append((client, persona.did, own.organisation))
            warm_up = Load(custodians, max(1, each // 10))
            await warm_up.run()
            load = Load(custodians, each)
            started = time.perf_counter()
            await load.run()
            elapsed = time.perf_counter() - started
        await cluster.stop()
    return load, elapsed


def main() -> int:
    """Measure, print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--nodes", type=int, default=4, help="validators, 2 to 10")
    parser.add_argument("--each", type=int, default=3_000, help="transactions of each of two organisations")
    arguments = parser.parse_args()
    before = verify_rate()
    with tempfile.TemporaryDirectory(prefix="p2pledger-bench-") as folder:
        load, elapsed = trio.run(measure, arguments.nodes, arguments.each, Path(folder))
    floor = (before + verify_rate()) / 2
    done = len(load.receipts)
    table = Table(title=f"{arguments.nodes} validators, closed load, proven receipts", title_justify="left")
    for column in ("transactions", "seconds", "tx/s", "p50", "p99", "one core verifies/s"):
        table.add_column(column, justify="right")
    table.add_row(
        str(done),
        f"{elapsed:.2f}",
        f"{done / elapsed:.0f}",
        f"{quantile_ms(load.latencies_s, 0.5):.0f} ms",
        f"{quantile_ms(load.latencies_s, 0.99):.0f} ms",
        f"{floor:.0f}",
    )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
