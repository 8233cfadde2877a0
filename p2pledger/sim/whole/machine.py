"""One simulated machine: a home on a real disk, a real node over real LMDB, and what can go wrong with them.

A machine keeps its node running: when it is killed, or its disk fails, it waits and starts it again from the disk.
A kill takes effect at one instant: from then on nothing leaves the machine and nothing reaches its disk, while the
cancelled tasks unwind. LMDB is then closed, which writes nothing; what was committed is what SIGKILL would have left.
"""

import shutil
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from random import Random

import trio

from p2pledger.chain.pruned import PrunedBatch
from p2pledger.consensus.journal import CommittedRecord, JournalRecord
from p2pledger.engine.events import BlockExecuted, EngineEvent, FromPeer, Now
from p2pledger.engine.ports import LedgerStore, LedgerWrite, StateFlush, StateSnapshot, StateStore
from p2pledger.network.link import RECEIVE_BYTES
from p2pledger.node.driver import INBOX_HIGH, Driver
from p2pledger.node.home import Home
from p2pledger.node.intake import SUBMISSIONS_MAX
from p2pledger.node.node import Node, opened_stores
from p2pledger.node.surroundings import Surroundings
from p2pledger.node.verifier import BATCHES_PER_NODE, VOTES_PER_NODE
from p2pledger.primitives import limits
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import BatchId, Height
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.whole.memory_network import TICK_S, MemoryNetwork, MemoryTransport
from p2pledger.sim.whole.testimony import Testimony, kind_of


@dataclass(frozen=True, slots=True)
class Hazards:
    """What may befall a machine until the world heals. Chances are per durable write."""

    aim: str = ""
    """A kind of journal record: kills aim at the writes that hold one, and at the sends that follow."""
    kill_aimed: float = 0.0
    disk_fails: float = 0.0
    disk_s: float = 0.004
    """A durable write takes up to so long."""
    loses_disk: bool = False
    """Whether a kill also empties the disk; such a machine counts among the f faulty ones."""
    down_s: tuple[float, float] = (0.05, 2.0)


CALM = Hazards()
SMALLEST_FRAME = 6
"""Bytes; so many messages one read may bring when the inbox was just below its mark."""


RUNNING: ContextVar[int | None] = ContextVar("running", default=None)
"""The node to which the task that runs belongs: how its log lines are told from the others'."""


def name_of(index: int) -> str:
    """Of the machine of a node."""
    return f"node-{index}"


class Machine:
    """A computer with a node of the consortium on it."""

    def __init__(self, home: Home, index: int, network: MemoryNetwork, testimony: Testimony, chance: Random) -> None:
        self.home = home
        self.index = index
        self.name = name_of(index)
        self.hazards = CALM
        self.wall_offset_ms = 0
        self.node: Node | None = None
        """While it runs."""
        self.is_dead = False
        """The process was killed and is still unwinding."""
        self._network = network
        self._testimony = testimony
        self._chance = chance
        self._scope = trio.CancelScope()
        self._aimed_at = False
        self._has_failed = False
        self._seats = {card.node: seat for seat, card in enumerate(home.founding.genesis.cards)}
        transport = MemoryTransport(network, self.name, home.node)
        self._surroundings = Surroundings(self._now, self._disk, transport)

    # What a node sees of its machine

    def _now(self) -> Now:
        elapsed_ms = int(trio.current_time() * 1000)
        return Now(elapsed_ms, WALL_START_MS + elapsed_ms + self.wall_offset_ms)

    async def _disk(self, write: Callable[[], None]) -> None:
        await self._seek()
        write()
        await self._seek()

    async def _seek(self) -> None:
        ticks = int(self._chance.random() * self.hazards.disk_s / 2 / TICK_S)
        if ticks:
            await trio.sleep(ticks * TICK_S)
        else:
            await trio.lowlevel.checkpoint()

    def apply(self, store: LedgerStore, writes: Sequence[LedgerWrite]) -> None:
        """A durable write of the node's ledger store; it may fail, and the machine may die before or after it."""
        if self.is_dead or self._has_failed:
            raise StoreError(f"{self.name} takes no more writes")
        hazards, roll = self.hazards, self._chance.random
        self._aimed_at = any(kind_of(write) == hazards.aim for write in writes)
        if self._aimed_at and roll() < hazards.kill_aimed:
            self.kill("before a write")
            raise StoreError(f"{self.name} was killed")
        fails = roll() < hazards.disk_fails
        if fails and roll() < 0.5:
            self._fail("no space left")
        store.apply(writes)
        self._testimony.wrote(trio.current_time(), self.index, writes)
        if fails:
            self._fail("written, but reported as failed")
        if self._aimed_at and roll() < hazards.kill_aimed:
            self.kill("after a write")

    def _fail(self, how: str) -> None:
        """The node must stop itself, and whatever it still says meanwhile is judged like everything else."""
        self._has_failed = True
        self._testimony.observer.reached[f"failed write, {how}"] += 1
        raise StoreError(f"a write of {self.name} failed: {how}")

    def about_to_say(self) -> None:
        """A statement of this machine's validator went out: one of several sends of a turn that may be aimed at."""
        if self._aimed_at and self._chance.random() < self.hazards.kill_aimed:
            self.kill("between sends")

    # A life after the other

    def kill(self, why: str) -> None:
        """End the process where it stands; no await of it goes on."""
        if self.node is None or self.is_dead:
            return
        self.is_dead = True
        self._testimony.note(trio.current_time(), f"{self.name} killed: {why}")
        self._testimony.observer.reached[f"kill {why}"] += 1
        if self.node.engine.replica.recovery.is_waiting:
            self._testimony.observer.reached["kill during recovery"] += 1
        self._testimony.observer.crashed(self.index)
        self._network.unplug(self.name)
        self._scope.cancel()

    async def keep_alive(self) -> None:
        """Start the node again whenever it has ended. Raises InvariantBroken if it ends of itself."""
        RUNNING.set(self.index)
        while True:
            await self._live()
            self._testimony.observer.reached["restart"] += 1
            await trio.sleep(self._chance.uniform(*self.hazards.down_s))

    async def _live(self) -> None:
        has_lost = self.hazards.loses_disk and self._chance.random() < 0.5 and self.home.data.exists()
        if has_lost:
            self._lose_disk()
        with opened_stores(self.home, accept_resign_risk=has_lost) as stores:
            self._testimony.started(self.index, stores.ledger, stores.state.height())
            self.is_dead = self._aimed_at = self._has_failed = False
            ledger, state = _WatchedLedger(stores.ledger, self), _WatchedState(stores.state, self)
            watched = replace(stores, ledger=ledger, state=state)
            node = Node(self.home, watched, self._surroundings)
            self._listen_in(node.driver)
            self.node = node
            self._testimony.note(trio.current_time(), f"{self.name} starts at {stores.ledger.tip()}")
            try:
                with trio.CancelScope() as self._scope:
                    await node.take_part()
            except* StoreError:
                if not (self.is_dead or self._has_failed):
                    raise
            finally:
                self.node = None
                self._testimony.observer.crashed(self.index)
                self._network.unplug(self.name)
                node.engine.executor.close()
        if not (self.is_dead or self._has_failed):
            raise InvariantBroken(f"I12: the tasks of {self.name} ended, and nobody had killed it")

    def _listen_in(self, driver: Driver) -> None:
        """Hear what the driver hands over: messages to its engine, executed blocks to the client port."""
        post, on_executed = driver.post, driver.on_executed

        def posted(event: EngineEvent) -> None:
            if isinstance(event, FromPeer):
                self._delivered(event)
            post(event)

        def executed(block: BlockExecuted) -> None:
            self._testimony.executed(self.index, block)
            on_executed(block)

        driver.post, driver.on_executed = posted, executed  # type: ignore[method-assign]

    def _delivered(self, event: FromPeer) -> None:
        now_ms = int(trio.current_time() * 1000)
        self._testimony.observer.delivered(now_ms, self._seats[event.node], self.index, event.body)

    def flushed(self, flush: StateFlush) -> None:
        """The state store has made this durable."""
        if not self.is_dead:
            self._testimony.flushed(self.index, flush)

    def _lose_disk(self) -> None:
        """Everything but the keys and the sign floor is gone; without the operator's word the node must not start."""
        shutil.rmtree(self.home.data)
        self._testimony.observer.reached["disk lost"] += 1
        try:
            with opened_stores(self.home):
                raise InvariantBroken(f"P19: {self.name} would sign with an empty journal")
        except ConfigError:
            shutil.rmtree(self.home.data)

    # Watching

    def look(self) -> None:
        """The queues and the memory of the node are within their bounds (8)."""
        if self.node is None or self.is_dead:
            return
        node, n = self.node, len(self.home.founding.genesis.cards)
        verifier = node.driver.verifier
        bounds = {
            "events for the driver": (node.driver.news_waiting, INBOX_HIGH + RECEIVE_BYTES // SMALLEST_FRAME),
            "votes to check": (verifier.votes_waiting, n * VOTES_PER_NODE),
            "batches to check": (verifier.batches_waiting, n * BATCHES_PER_NODE),
            "submissions to check": (verifier.submissions_waiting, SUBMISSIONS_MAX),
            "transactions": (len(node.engine.admission.mempool), limits.MEMPOOL_TRANSACTIONS_MAX),
            "unsent bytes": (node.links.unsent_bytes, (n - 1) * self.home.config.p2p.queue_bytes_max),
        }
        for what, (found, most) in bounds.items():
            if found > most:
                raise InvariantBroken(f"8: {found} {what} at {self.name}, the bound is {most}")
        replica = node.engine.replica
        self._testimony.observer.remembers(self.index, len(replica.ballots) + len(replica.view_changes))


class _WatchedState:
    """The LMDB state store, with the machine between it and the node."""

    def __init__(self, store: StateStore, machine: Machine) -> None:
        self._store = store
        self._machine = machine

    def height(self) -> Height:
        return self._store.height()

    def flush(self, flush: StateFlush) -> None:
        self._store.flush(flush)
        self._machine.flushed(flush)

    def snapshot(self) -> StateSnapshot:
        return self._store.snapshot()


class _WatchedLedger:
    """The LMDB store, with the machine between it and the node."""

    def __init__(self, store: LedgerStore, machine: Machine) -> None:
        self._store = store
        self._host = machine

    def apply(self, writes: Sequence[LedgerWrite]) -> None:
        self._host.apply(self._store, writes)

    def tip(self) -> Height:
        return self._store.tip()

    def block(self, height: Height) -> CommittedRecord | None:
        return self._store.block(height)

    def certified_from(self, height: Height) -> CommittedRecord | None:
        return self._store.certified_from(height)

    def body(self, batch: BatchId) -> bytes | None:
        return self._store.body(batch)

    def pruned(self, batch: BatchId) -> PrunedBatch | None:
        return self._store.pruned(batch)

    def journal(self) -> list[JournalRecord]:
        return self._store.journal()
