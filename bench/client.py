"""A load process: `python -m bench.client PLAN`. It gets signed transactions and sends them; it decides nothing.

On stdout it says in lines of JSON when it is ready, how far it is, and how it went. On stdin it is told the moment to
start; when stdin ends before that, or at any time after, the one who started it is gone and it ends as well.
"""

import gc
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import trio

from bench.arithmetic import quantile
from bench.book import NEVER, Book, ClientPlan, ClientReport, Item, read_plan
from bench.lanes import CommandLane, Lane, LedgerLane
from p2pledger.node.home import Layout, load_founding
from p2pledger.primitives.errors import InvalidInput, P2PLedgerError

PROGRESS_S = 0.25


class Client:
    """One process's share of the load."""

    def __init__(self, plan: ClientPlan, items: list[Item]) -> None:
        self.plan = plan
        self.book = Book(items)
        self.start = float("inf")
        """On the machine's monotonic clock."""
        self.next = 0
        """Place of the next transaction to send."""
        self.under_way = 0
        self.ran_dry_s = NEVER
        self.lateness: list[float] = []
        self._idle = trio.Event()
        self.lanes = self._make_lanes()
        for place, item in enumerate(items):
            self.lanes[item.lane].prepare(place)

    def _make_lanes(self) -> dict[int, Lane]:
        plan, now_s = self.plan, self.now_s
        if plan.command:
            only = CommandLane(plan.command, self.book, now_s, self.on_done)
            return {item.lane: only for item in self.book.items} or {0: only}
        founding = load_founding(Layout(Path(plan.home)))
        rng = random.Random(plan.seed)
        proven = bytes(rng.random() < plan.proofs for _ in self.book.items)
        return {
            lane.number: LedgerLane(lane, founding, self.book, now_s, self.on_done, lambda place: bool(proven[place]))
            for lane in plan.lanes
        }

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def on_done(self) -> None:
        """A transaction has its answer; in a closed loop the next one follows."""
        self.under_way -= 1
        if not self.plan.is_open and self.now_s() < self.plan.until_s:
            self._send_next()
        if not self.under_way:
            self._idle.set()

    def _send_next(self) -> None:
        place = self.next
        if place >= len(self.book.items):
            if self.ran_dry_s == NEVER:
                self.ran_dry_s = self.now_s()
            return
        self.next += 1
        self.under_way += 1
        self.lanes[self.book.items[place].lane].put(place)

    async def run(self) -> ClientReport:
        """Connect, wait for the start, send, wait for the last answers."""
        async with trio.open_nursery() as nursery:
            for lane in set(self.lanes.values()):
                nursery.start_soon(lane.run)
            for lane in set(self.lanes.values()):
                await lane.connected.wait()
            _say({"ready": len(self.book.items)})
            await self._wait_for_start(nursery)
            nursery.start_soon(self._show_progress)
            await (self._send_when_due() if self.plan.is_open else self._keep_full())
            with trio.move_on_after(self.plan.drain_s):
                while self.under_way:
                    self._idle = trio.Event()
                    await self._idle.wait()
            nursery.cancel_scope.cancel()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lateness = quantile(sorted(self.lateness), 0.99) if self.lateness else 0.0
        return ClientReport(usage.ru_utime + usage.ru_stime, lateness, self.ran_dry_s)

    async def _wait_for_start(self, nursery: trio.Nursery) -> None:
        orders = trio.lowlevel.FdStream(os.dup(0))
        line = bytes(await orders.receive_some(64))
        if not line:
            raise InvalidInput("nobody is left to say when to start")
        nursery.start_soon(self._end_with, orders, nursery.cancel_scope)
        gc.collect()
        gc.freeze()
        gc.disable()  # everything is allocated; a collection would show up as latency
        start = float(line)
        await trio.sleep(max(0.0, start - time.monotonic()))
        self.start = start

    async def _end_with(self, orders: trio.lowlevel.FdStream, scope: trio.CancelScope) -> None:
        while await orders.receive_some(64):
            pass
        scope.cancel()

    async def _show_progress(self) -> None:
        while True:
            _say({"done": self.book.finished})
            await trio.sleep(PROGRESS_S)

    async def _send_when_due(self) -> None:
        """Open loop: everything whose time has come, whatever became of what came before."""
        due = self.book.due
        while self.next < len(due):
            now_s = self.now_s()
            while self.next < len(due) and due[self.next] <= now_s:
                self.lateness.append(now_s - due[self.next])
                self._send_next()
            if self.next < len(due):
                await trio.sleep(max(0.0, due[self.next] - self.now_s()))

    async def _keep_full(self) -> None:
        """Closed loop: each answer sends the next one; ends when time is up or nothing is left."""
        for _ in range(self.plan.in_flight):
            self._send_next()
        while self.now_s() < self.plan.until_s and (self.under_way or self.ran_dry_s == NEVER):
            await trio.sleep(min(0.05, max(0.0, self.plan.until_s - self.now_s())))


def _say(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def main() -> int:
    """Do what the plan in the first argument says."""
    plan, items = read_plan(Path(sys.argv[1]))
    client = Client(plan, items)
    try:
        report = trio.run(client.run)
    except BaseException as error:
        first = _first(error)
        if not isinstance(first, P2PLedgerError | OSError):
            raise
        print(first, file=sys.stderr)
        return 1
    client.book.write(Path(plan.out))
    print(report.to_json(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
