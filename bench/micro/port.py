"""`python -m bench.micro port`: what taking transactions in costs a node beside its engine, and what it costs a client.

One real validator with TLS, durable votes and LMDB in this process, and one session of the benchmark's own client in
another thread, so that the processor time of each is its thread's: `node` is the node's thread without its engine
(client port, TLS, admission's way, event loop), `client` the load's. Signatures, store and flushes have other threads.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from bench.book import Book, Item, LanePlan
from bench.floor import loop
from bench.lanes import LedgerLane
from bench.town import Planned, Town
from p2pledger.cli.start import GC_YOUNG, SWITCH_S
from p2pledger.demo.cluster import Cluster
from p2pledger.node.home import Home
from p2pledger.node.logs import configure_logs
from p2pledger.node.node import Node, opened

UNDER_WAY = 900
PATIENTS = 8


@dataclass
class Session:
    """One lane over all transactions, in order: so many under way at once."""

    plan: LanePlan
    home: Home
    book: Book
    under_way: int
    cpu_s: float = 0.0
    next: int = 0
    done: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Until everything is answered."""
        self.lane = LedgerLane(self.plan, self.home.founding, self.book, time.monotonic, self._on_done, lambda _: False)
        for place in range(len(self.book.items)):
            self.lane.prepare(place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.lane.run)
            await self.lane.connected.wait()
            began_s = time.thread_time()
            for _ in range(self.under_way):
                self._send()
            await self.done.wait()
            self.cpu_s = time.thread_time() - began_s
            nursery.cancel_scope.cancel()

    def _send(self) -> None:
        if self.next < len(self.book.items):
            self.next += 1
            self.lane.put(self.next - 1)

    def _on_done(self) -> None:
        self._send()
        if self.book.finished == len(self.book.items):
            self.done.set()


def book_of(planned: Sequence[Planned]) -> Book:
    return Book([Item(number, 0, 0, one.account, one.nonce, one.data, 0.0) for number, one in enumerate(planned)])


async def load(node: Node, plan: LanePlan, entering: Sequence[Planned], planned: Sequence[Planned]) -> list[float]:
    """Processor microseconds a transaction: (the node's thread, of those its engine, the client's thread)."""
    async with trio.open_nursery() as nursery:
        await nursery.start(node.take_part)
        host = LanePlan(plan.number, plan.seed, (("127.0.0.1", node.ports["client"], node.home.node),))
        first = Session(host, node.home, book_of(entering), 1)
        await trio.to_thread.run_sync(partial(trio.run, first.run))
        session = Session(host, node.home, book_of(planned), UNDER_WAY)
        began_s, engine_s = time.thread_time(), node.driver.cpu_s["engine"]
        await trio.to_thread.run_sync(partial(trio.run, session.run))
        spent_s, engine_s = time.thread_time() - began_s, node.driver.cpu_s["engine"] - engine_s
        nursery.cancel_scope.cancel()
    assert not any(session.book.code), "a transaction was refused"
    return [1e6 * each / len(planned) for each in (spent_s - engine_s, engine_s, session.cpu_s)]


def measure(folder: Path, transactions: int) -> list[float]:
    """What `load` has found, of a new chain in this folder."""
    cluster = Cluster.create(folder / "consortium", 1, name="Port")
    anywhere = {"P2PLEDGER_CLIENT__LISTEN": "127.0.0.1:0", "P2PLEDGER_P2P__LISTEN": "127.0.0.1:0"}
    home = Home.load(cluster.members[cluster.names[0]].home, anywhere)
    wallet = cluster.wallet(cluster.names[0])
    town = Town(cluster.founding, [wallet], 1, PATIENTS, 1, int(time.time() * 1000))
    entering = list(town.entering())
    planned = list(town.plan("minimal", transactions, 0.0))
    with opened(home) as node:
        return trio.run(load, node, LanePlan(0, wallet.account.seed, ()), entering, planned)


def main(given: Sequence[str] | None = None) -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro port", description=__doc__)
    parser.add_argument("--transactions", type=int, default=10_000)
    arguments = parser.parse_args(given)
    configure_logs("warning", "json")
    gc.set_threshold(GC_YOUNG, 20, 100)
    sys.setswitchinterval(SWITCH_S)
    before = loop(0.5)
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), arguments.transactions)
    after = loop(0.5)
    verify_us = 1e6 * (before[1] + after[1]) / (before[0] + after[0])
    print(f"{arguments.transactions} transactions, {UNDER_WAY} under way; a verification takes {verify_us:.1f} us")
    for what, spent_us in zip(("node", "engine", "client"), found, strict=True):
        print(f"  {what:8} {spent_us:8.1f} us/tx {spent_us / verify_us:6.2f} verifications")
