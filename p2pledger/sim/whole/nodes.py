"""Whole nodes in one trio run: the real driver, verifier, links, client port and LMDB, over virtual time and memory.

The world of `sim/world.py` drives engines; this one runs the tasks around them, where a cancellation, a full queue or
an await in the wrong place can do harm. Real clients submit over the memory network and believe only proven receipts.
What may go wrong is drawn from the seed; then everything heals, and every node must serve its client again.

`p2pledger sim replay S --layer node --nodes N` replays one seed.
"""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import structlog
import trio

from p2pledger.chain.genesis import Parameters
from p2pledger.network.certificates import make_certificate
from p2pledger.network.frame import Tag
from p2pledger.network.link import LinkSettings
from p2pledger.node.config import ClientSection, Config, NodeSection, P2PSection, VerifySection
from p2pledger.node.home import Home, Layout, NodeKeys
from p2pledger.primitives import crypto
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.sim.faults import AIMS
from p2pledger.sim.founding import Consortium, found
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.observer.judgement import liveness_bound_ms
from p2pledger.sim.whole import determinism
from p2pledger.sim.whole.audit import audit_stores, same_receipts, same_states
from p2pledger.sim.whole.machine import CALM, RUNNING, Hazards, Machine, name_of
from p2pledger.sim.whole.member_clients import Clients
from p2pledger.sim.whole.memory_network import MemoryNetwork, MemoryStream
from p2pledger.sim.whole.testimony import Testimony

PEER_PORT, CLIENT_PORT = 7420, 7421
LOOK_EVERY_S = 0.25
HEALED_DELAY_S = (0.001, 0.02)
IDLE_S = 5
"""Without a frame for so long a node gives a link up."""
LINKS_S = IDLE_S + LinkSettings().backoff_s_max + CALM.down_s[1]
"""How long after healing two nodes may still be without a link: one starts, the other gives up and dials again."""
KEPT_LOG_EVENTS = frozenset({"node_stopped_itself", "contract_failed", "request_failed"})
"""What no run of honest nodes may log."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """How unkind the world is until it heals. Chances are per second; times in seconds."""

    lasts_s: float = 4.0
    delay_s: tuple[float, float] = (0.001, 0.01)
    resets: float = 0.0
    """Of some connection."""
    stalls: float = 0.0
    """Of one direction between two machines, for up to a second and a half."""
    partitions: float = 0.0
    """Of a split into two groups; half of them in one direction only."""
    kills: float = 0.0
    slow: float = 1.0
    """Factor on all latencies out of one node."""
    skew_ms: int = 0
    jumps: float = 0.0
    """Of a wall clock, by up to the skew."""
    hazards: Hazards = CALM
    lanes: int = 2
    """Transactions that each client has under way."""


@dataclass(slots=True)
class Result:
    """What one seed showed."""

    seed: int
    heights: list[int]
    frames: int
    """Between nodes, and between nodes and clients."""
    virtual_s: float
    receipts: int
    trace: str
    """Digest of every event in order."""
    reached: Counter[str] = field(default_factory=Counter)
    events: list[str] | None = None


def draw(seed: int, n: int) -> tuple[Trouble, Parameters]:
    """The trouble of a seed: each kind is on or off by chance, at some intensity (swarm testing)."""
    chance = Random(f"draw nodes {seed} {n}")
    pick = chance.random
    hazards = Hazards(
        aim=chance.choice(AIMS),
        kill_aimed=pick() * 0.06 if pick() < 0.5 else 0.0,
        disk_fails=pick() * 0.01 if pick() < 0.3 else 0.0,
        disk_s=chance.choice([0.0, 0.004, 0.02]),
    )
    trouble = Trouble(
        lasts_s=chance.uniform(1.5, 4.0),
        delay_s=(0.001, chance.choice([0.005, 0.02, 0.1])),
        resets=pick() * 3 if pick() < 0.5 else 0.0,
        stalls=pick() * 2 if pick() < 0.4 else 0.0,
        partitions=pick() * 1.5 if pick() < 0.5 else 0.0,
        kills=pick() * 2 if pick() < 0.6 else 0.0,
        slow=chance.choice([1.0, 1.0, 20.0]),
        skew_ms=chance.choice([0, 50, 3_000]),
        jumps=pick() if pick() < 0.4 else 0.0,
        hazards=hazards,
        lanes=chance.choice([1, 2, 4]),
    )
    parameters = Parameters(
        window=chance.choice([1, 2, 4, 4, 8]),
        timeout_ms=300,
        timeout_cap_ms=2_400,
        checkpoint_interval=chance.choice([5, 10, 100]),
        term_heights=chance.choice([7, 20, 10_000]),
        heartbeat_ms=chance.choice([0, 1_000, 60_000]),
    )
    return trouble, parameters


def healed_bound_s(f: int, parameters: Parameters) -> float:
    """I9: how long after healing a fresh transaction may take: as in the world of engines, once all links stand."""
    cap_ms = parameters.timeout_cap_ms
    return liveness_bound_ms(f, cap_ms, round(HEALED_DELAY_S[1] * 1000), 2 * cap_ms) / 1000 + LINKS_S


class Nodes:
    """A consortium of whole nodes in one folder."""

    def __init__(
        self, seed: int, n: int, trouble: Trouble, parameters: Parameters, folder: Path, events: list[str] | None = None
    ) -> None:
        self.n = n
        self.chance = Random(f"nodes {seed} {n}")
        self.trouble = trouble
        self.consortium = _founded(n, parameters)
        tolerated = (n - 1) // 3 if self.chance.random() < 0.3 else 0
        self.losers = frozenset(self.chance.sample(range(n), tolerated))
        """At most f machines whose disks do not survive a kill."""
        self.testimony = Testimony(self.consortium, self.losers, events)
        self.network = MemoryNetwork(self.chance, self._tap)
        self.network.delay_s = trouble.delay_s
        self.machines = [
            Machine(home, i, self.network, self.testimony, self.chance)
            for i, home in enumerate(_homes(self.consortium, folder))
        ]
        self._bound_s = healed_bound_s((n - 1) // 3, parameters)
        self._split: set[tuple[str, str]] = set()
        self._stalled: dict[tuple[str, str], float] = {}
        self._by_name = {machine.name: machine for machine in self.machines}
        self.clients = Clients(self.consortium, self.network, self.testimony, CLIENT_PORT)

    async def run(self) -> float:
        """Trouble, healing and progress; the virtual seconds that it took. Raises InvariantBroken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.network.deliver)
            for machine in self.machines:
                nursery.start_soon(machine.keep_alive)
            nursery.start_soon(self._look)
            async with trio.open_nursery() as clients:
                for i in range(self.n):
                    clients.start_soon(self.clients.work, i, self.trouble.lanes)
                await self._trouble()
                self._heal()
                with trio.move_on_after(self._bound_s):
                    await self._serve_everybody()
                clients.cancel_scope.cancel()
            if len(self.clients.served) < self.n:
                raise InvariantBroken(
                    f"7: {self._bound_s:g} s after healing, of {self.n} nodes only {sorted(self.clients.served)} have "
                    f"served their client a fresh receipt; heights {self.heights()}"
                )
            await self._agree()
            nursery.cancel_scope.cancel()
        return trio.current_time()

    # What goes wrong

    async def _trouble(self) -> None:
        trouble, chance = self.trouble, self.chance
        for machine in self.machines:
            machine.hazards = replace(trouble.hazards, loses_disk=self.machines.index(machine) in self.losers)
            machine.wall_offset_ms = chance.randint(-trouble.skew_ms, trouble.skew_ms)
        self.network.slowness = {chance.choice(self.machines).name: trouble.slow}
        end = trio.current_time() + trouble.lasts_s
        while trio.current_time() < end:
            pause_s = chance.uniform(0.01, 0.1)
            await trio.sleep(pause_s)
            for _ in range(chance.randint(0, 12)):  # so that it happens between any two steps of the tasks then awake
                await trio.lowlevel.checkpoint()
            self._befall(pause_s)

    def _befall(self, pause_s: float) -> None:
        trouble, chance = self.trouble, self.chance
        connections = self.network.connections()
        if connections and chance.random() < trouble.resets * pause_s:
            self._count("connection reset")
            self.network.reset(chance.choice(connections))
        if chance.random() < trouble.partitions * pause_s:
            self._partition()
        if connections and chance.random() < trouble.stalls * pause_s:
            self._stall(chance.choice(connections))
        if chance.random() < trouble.kills * pause_s:
            chance.choice(self.machines).kill("at some await")
        if chance.random() < trouble.jumps * pause_s:
            self._count("clock jump")
            chance.choice(self.machines).wall_offset_ms = chance.randint(-trouble.skew_ms, trouble.skew_ms)
        now = trio.current_time()
        blocked = self._split | {route for route, until in self._stalled.items() if until > now}
        if blocked != self.network.blocked:
            self.network.block(blocked)

    def _partition(self) -> None:
        if self._split:
            self._split.clear()
            return
        chance = self.chance
        side = {machine.name for machine in self.machines if chance.random() < 0.5}
        others = {machine.name for machine in self.machines} - side
        ways = {(a, b) for a in side for b in others}
        is_one_way = chance.random() < 0.5
        self._count("one-way partition" if is_one_way else "partition")
        self._split = ways if is_one_way else ways | {(b, a) for a, b in ways}

    def _stall(self, stream: MemoryStream) -> None:
        self._count("stall")
        self._stalled[stream.inward.route] = trio.current_time() + self.chance.uniform(0.1, 1.5)

    def _heal(self) -> None:
        self._note("healed")
        self.network.block(())
        self.network.slowness.clear()
        self.network.delay_s = HEALED_DELAY_S
        for machine in self.machines:
            machine.hazards = CALM
        self.testimony.observer.healed()

    # What must hold

    async def _serve_everybody(self) -> None:
        """Every node serves its client: one fresh transaction through this node alone."""
        async with trio.open_nursery() as nursery:
            for i in range(self.n):
                nursery.start_soon(self.clients.be_served, i)

    async def _agree(self) -> None:
        """Now that nobody asks for anything, all nodes come to hold all that was promised, and the same state."""
        promised = self.testimony.acknowledged
        highest = max(executed.receipt.height for executed in promised.values())
        with trio.move_on_after(self._bound_s):
            while not (self.testimony.observer.is_settled() and min(self._executed()) >= highest):
                await trio.sleep(0.1)
        nodes = [machine.node for machine in self.machines if machine.node is not None]
        same_receipts(nodes, promised)
        same_states(nodes)
        self.testimony.observer.concluded(int(trio.current_time() * 1000))

    def _executed(self) -> list[int]:
        return [0 if one.node is None else int(one.node.engine.executor.executed) for one in self.machines]

    async def _look(self) -> None:
        while True:
            for machine in self.machines:
                machine.look()
            await trio.sleep(LOOK_EVERY_S)

    def heights(self) -> list[int]:
        """Of the nodes that run, from their stores; 0 for the others."""
        return [0 if machine.node is None else int(machine.node.driver.ledger.tip()) for machine in self.machines]

    def _tap(self, source: str, target: str, tag: int, body: bytes) -> None:
        self._note(f"{source}>{target} {tag} {len(body)} {hashlib.sha256(body).hexdigest()[:16]}")
        machine, receiver = self._by_name.get(source), self._by_name.get(target)
        if tag != Tag.MESSAGE or machine is None:
            return
        if receiver is None:
            self.testimony.replied(machine.index, body)
            return
        self.testimony.observer.overheard(machine.index, receiver.index, body)
        machine.about_to_say()

    def _note(self, event: str) -> None:
        self.testimony.note(trio.current_time(), event)

    def _count(self, what: str) -> None:
        self.testimony.observer.reached[what] += 1


def run_seed(seed: int, n: int = 4, events: list[str] | None = None) -> Result:
    """One schedule of whole nodes. Raises InvariantBroken with the line that replays it."""
    crypto.remember_verifications()
    trouble, parameters = draw(seed, n)
    return run_trouble(seed, n, trouble, parameters, events)


def run_trouble(seed: int, n: int, trouble: Trouble, parameters: Parameters, events: list[str] | None = None) -> Result:
    """The same with chosen trouble."""
    folder = Path(tempfile.mkdtemp(prefix="p2pledger-nodes-", dir=_fast_folder()))
    try:
        nodes = Nodes(seed, n, trouble, parameters, folder, events)
        with _counted_logs(nodes):
            virtual_s = determinism.run(seed, nodes.run)
        heights = audit_stores([machine.home for machine in nodes.machines], nodes.testimony)
    except* (AssertionError, P2PLedgerError, LookupError, trio.TrioInternalError) as group:
        error = _first(group)
        replay = f"p2pledger sim replay {seed} --layer node --nodes {n}"
        raise InvariantBroken(f"{type(error).__name__}: {error}\nreplay with: {replay}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    testimony = nodes.testimony
    return Result(
        seed,
        heights,
        nodes.network.frames,
        virtual_s,
        len(testimony.acknowledged),
        testimony.digest.hexdigest(),
        testimony.observer.reached,
        events,
    )


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _counted_logs(nodes: Nodes) -> Iterator[None]:
    """What nodes log is counted as a situation reached; what no honest run may log ends it."""
    before = structlog.get_config()

    def count(_logger: Any, _method: str, event: Any) -> Any:
        name = str(event["event"])
        node = RUNNING.get()
        if node is not None:
            nodes.testimony.observer.noted(node, name)
        if name in KEPT_LOG_EVENTS:
            raise InvariantBroken(f"I12: {event}")
        raise structlog.DropEvent

    structlog.configure(processors=[count], wrapper_class=structlog.make_filtering_bound_logger(20))
    try:
        yield
    finally:
        structlog.configure(**before)


# Homes


def _fast_folder() -> str | None:
    """Memory, where the system offers it: LMDB syncs as always, it just takes no time."""
    shared = Path("/dev/shm")  # noqa: S108 - as a parent of folders that mkdtemp makes
    return str(shared) if shared.is_dir() else None


@cache
def _founded(n: int, parameters: Parameters) -> Consortium:
    return found(n, parameters, make_certificate)


def _homes(consortium: Consortium, folder: Path) -> list[Home]:
    """One home for each member, as `member init` and the ceremony would leave it, but for the files of the keys."""
    homes = []
    cards = {card.node: card for card in consortium.founding.genesis.cards}
    for i, node in enumerate(consortium.nodes):
        root = folder / name_of(i)
        root.mkdir(mode=0o700)
        others = {other.public.hex(): f"{name_of(j)}:{PEER_PORT}" for j, other in enumerate(consortium.nodes) if j != i}
        config = Config(
            node=NodeSection(map_gib=1, free_mib_min=0),
            p2p=P2PSection(listen=f"{name_of(i)}:{PEER_PORT}", peers=others, idle_s_max=IDLE_S),
            client=ClientSection(listen=f"{name_of(i)}:{CLIENT_PORT}"),
            verify=VerifySection(threads=0),
        )
        keys = NodeKeys(consortium.consensus[i], node)
        homes.append(Home(Layout(root), keys, consortium.founding, cards[node.public], config))  # type: ignore[index]
    return homes
