"""The validators of one stage: real daemons with their homes, ports, relays and counters."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
import trio

from bench.lanes import end
from bench.procfs import Usage, confine, map_bytes, usage
from bench.scenario import Stage
from p2pledger.client.keyring import OrganisationWallet
from p2pledger.demo.cluster import Cluster, Member
from p2pledger.node.ceremony import render_config
from p2pledger.node.config import ENV_PREFIX, Address
from p2pledger.primitives.errors import InvalidInput, Unavailable

NAMESPACE = "BENCH_NAMESPACE"
"""In the environment of a run that has a network namespace of its own."""
READY_S_MAX = 300.0
"""A node with millions of keys reads them all before it is ready; sixteen of them share the processors."""
SETTLE_S = 0.7
"""A node brings its counters up to date every half second."""


class Counters(msgspec.Struct, frozen=True):
    """What one validator has counted since it began; those that it exports, and those of the kernel."""

    cpu_s: float
    phases_s: dict[str, float]
    signatures: dict[str, int]
    executed: int
    sent_bytes: int
    written_bytes: int | None
    rss_bytes: int
    height: int
    is_primary: bool
    unflushed: int = 0
    """Transactions executed that its state store does not hold yet."""
    map_bytes: int | None = None
    """Of the resident bytes, those of LMDB's maps."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The validators at one moment, by seat; None for those that do not run."""

    at: float
    """On the machine's monotonic clock."""
    usages: tuple[Usage | None, ...]


def verify_threads(stage: Stage, n: int) -> int:
    """What an operator gives a validator that has so much of a machine: a thread for each processor beyond its first.

    Validators that share one processor check signatures on the spot: threads would only wait for each other.
    """
    processors = len(stage.validator_cores) or len(os.sched_getaffinity(0))
    return max(0, processors // n - 1)


class Validators:
    """Founds them, starts them, hurts them, reads them. Entered as a context, nothing outlives it."""

    def __init__(self, folder: Path, stage: Stage, n: int, seed: int) -> None:
        parameters = {"heartbeat_ms": 1_000, **stage.parameters}
        self.cluster = Cluster.create(folder, n, params=parameters, name="Bench consortium")
        self.stage = stage
        self.names = self.cluster.names
        settings = {"verify.threads": verify_threads(stage, n), **stage.settings}
        self._environ = {f"{ENV_PREFIX}{_variable(name)}": str(value) for name, value in settings.items()}
        self._seed = seed
        self._relay: trio.Process | None = None
        self.distance = distance_of(stage)
        self._links = self._routed() if self.distance == "relay" else []
        self._slow: dict[int, trio.CancelScope] = {}

    def __enter__(self) -> "Validators":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.cluster.members.values():
            _continue(member)  # a stopped process cannot be waited for in peace
        self.cluster.kill(*self.names)
        if self._relay is not None and self._relay.returncode is None:
            self._relay.kill()

    @property
    def n(self) -> int:
        return len(self.names)

    @property
    def f(self) -> int:
        return self.cluster.founding.tolerated_faults

    def wallets(self) -> list[OrganisationWallet]:
        """The founding members' keys."""
        return [self.cluster.wallet(name) for name in self.names]

    # Life and death

    async def start(self) -> None:
        """Start relays and validators; returns when all are ready."""
        if self.distance:
            await self._start_relay()
        await self.start_some(range(self.n))

    async def start_some(self, seats: Sequence[int]) -> None:
        """Start these and wait until they are ready."""
        names = [self.names[seat] for seat in seats]
        await self.cluster.start(*names, environ=self._environ)
        for name in names:
            process = self.cluster.member(name).process
            assert process is not None
            confine(process.pid, self.stage.validator_cores)
        await self.cluster.wait_ready(*names, timeout_s=READY_S_MAX)

    async def stop(self) -> None:
        """In order; raises ProcessFailed unless each ends with status 0."""
        await self.cluster.stop(timeout_s=60)
        if self._relay is not None:
            await end(self._relay)

    def crash(self, seats: Sequence[int]) -> None:
        """SIGKILL."""
        self.cluster.kill(*(self.names[seat] for seat in seats))

    async def stop_some(self, seats: Sequence[int]) -> None:
        """SIGTERM, and wait."""
        await self.cluster.stop(*(self.names[seat] for seat in seats), timeout_s=60)

    def pause(self, seat: int) -> None:
        """SIGSTOP: it neither hears nor answers, and its connections stand."""
        process = self.cluster.member(self.names[seat]).process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGSTOP)

    def resume(self, seat: int) -> None:
        """End a pause, or slowness."""
        scope = self._slow.pop(seat, None)
        if scope is not None:
            scope.cancel()
        _continue(self.cluster.member(self.names[seat]))

    async def slow(self, seat: int) -> None:
        """Stopped for half of every 100 ms, until cancelled or resumed."""
        with trio.CancelScope() as scope:
            self._slow[seat] = scope
            while True:
                self.pause(seat)
                await trio.sleep(0.05)
                _continue(self.cluster.member(self.names[seat]))
                await trio.sleep(0.05)

    # Relays

    def _routed(self) -> list[tuple[int, int, int, int]]:
        """(who dials, whom, relay's port, the other's own port); homes are told the relays' ports."""
        links = []
        members = list(self.cluster.members.values())
        for dialing, member in enumerate(members):
            peers = {}
            for dialled, other in enumerate(members):
                if other is member:
                    continue
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    port = int(probe.getsockname()[1])
                links.append((dialing, dialled, port, other.created.p2p.port))
                peers[other.name] = Address("127.0.0.1", port)
            own = member.created
            member.layout.config.write_text(render_config((own.p2p, own.client, own.ops), peers))
        return links

    async def _start_relay(self) -> None:
        module = "bench.relay" if self.distance == "relay" else "bench.delay"
        command = [sys.executable, "-m", module]
        pipe = subprocess.PIPE
        self._relay = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, start_new_session=True)
        wan = self.stage.wan
        await self._tell_relay(
            {
                "links": [(listen, target) for _, _, listen, target in self._links],
                "ports": [member.created.p2p.port for member in self.cluster.members.values()],
                "one_way_ms": wan.one_way_ms if wan else 0.0,
                "jitter_ms": wan.jitter_ms if wan else 0.0,
                "seed": self._seed,
            }
        )
        assert self._relay.stdout is not None
        if not await self._relay.stdout.receive_some(200):
            raise Unavailable(f"{module} ended before it was ready")

    async def _tell_relay(self, order: dict[str, object]) -> None:
        if self._relay is None:
            raise InvalidInput("links are cut at relays; the stage needs relays = true or wan")
        assert self._relay.stdin is not None
        await self._relay.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def cut(self, seat: int) -> None:
        """All links of this validator, in both directions."""
        indexes = [i for i, (one, other, _, _) in enumerate(self._links) if seat in (one, other)]
        await self._tell_relay({"cut": indexes})

    async def heal(self) -> None:
        """All links work again."""
        await self._tell_relay({"heal": True})

    def relay_cpu_s(self) -> float:
        """Processor time of the relays; 0 without."""
        seen = usage(self._relay.pid) if self._relay is not None else None
        return seen.cpu_s if seen else 0.0

    # Reading

    def sample(self) -> Sample:
        """Processor time and memory of each, now."""
        return Sample(time.monotonic(), tuple(self._usage(name) for name in self.names))

    def _usage(self, name: str) -> Usage | None:
        process = self.cluster.member(name).process
        return usage(process.pid) if process is not None and process.poll() is None else None

    async def counters(self, seat: int) -> Counters | None:
        """One validator's, None where it does not answer."""
        name = self.names[seat]
        own = self._usage(name)
        try:
            text = await self.cluster.ops(name, "/metrics")
        except Unavailable:
            return None
        process = self.cluster.member(name).process
        if own is None or process is None:
            return None
        return msgspec.structs.replace(parse_counters(text, own), map_bytes=map_bytes(process.pid))

    async def all_counters(self) -> list[Counters | None]:
        """Everybody's, once their readings are fresh."""
        await trio.sleep(SETTLE_S)
        return [await self.counters(seat) for seat in range(self.n)]

    async def primary(self) -> int:
        """The seat of the primary as the validators see themselves; raises Unavailable where nobody says so."""
        for _ in range(50):
            for seat in range(self.n):
                seen = await self.counters(seat)
                if seen is not None and seen.is_primary:
                    return seat
            await trio.sleep(0.1)
        raise Unavailable("no validator says that it is primary")


def parse_counters(text: str, own: Usage) -> Counters:
    """The counters in a page of metrics; what was never counted is 0."""
    plain: dict[str, float] = {}
    labelled: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("p2pledger_"):
            name, _, value = line.rpartition(" ")
            family, brace, labels = name.partition("{")
            if brace:
                labelled.setdefault(family, {})[labels.split('"')[1]] = float(value)
            else:
                plain[family] = float(value)
    signatures = labelled.get("p2pledger_verify_signatures_total", {})
    return Counters(
        cpu_s=own.cpu_s,
        phases_s=labelled.get("p2pledger_node_cpu_seconds_total", {}),
        signatures={kind: int(count) for kind, count in signatures.items()},
        executed=int(plain.get("p2pledger_execution_transactions_total", 0)),
        sent_bytes=int(plain.get("p2pledger_p2p_sent_bytes_total", 0)),
        written_bytes=own.written_bytes,
        rss_bytes=own.rss_bytes,
        height=int(plain.get("p2pledger_consensus_height", 0)),
        is_primary=plain.get("p2pledger_consensus_is_primary", 0) == 1,
        unflushed=int(plain.get("p2pledger_execution_unflushed_transactions", 0)),
    )


def distance_of(stage: Stage) -> str:
    """How links of this stage are delayed or cut: `relay`, `queue` (bench/delay.py), or not at all."""
    is_cut = any(fault.do == "cut" for point in stage.points for fault in point.faults)
    if stage.wan is not None and NAMESPACE in os.environ and not (stage.relays or is_cut):
        return "queue"
    return "relay" if stage.wan is not None or stage.relays else ""


def _variable(setting: str) -> str:
    section, dot, key = setting.partition(".")
    if not dot:
        raise InvalidInput(f"setting {setting!r} is not section.key")
    return f"{section}__{key}".upper()


def _continue(member: Member) -> None:
    if member.process is not None and member.process.poll() is None:
        with suppress(ProcessLookupError):
            member.process.send_signal(signal.SIGCONT)
