"""What the node shows of itself on the ops port: gauges, counters and the checks behind /readyz."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import Counter

from p2pledger import __version__
from p2pledger.chain.block import PROTOCOL_VERSION
from p2pledger.engine.engine import Engine
from p2pledger.health import erasure
from p2pledger.network.clients import ClientServer
from p2pledger.network.peers import PeerLinks
from p2pledger.node.home import Home
from p2pledger.node.metrics import Metrics
from p2pledger.node.ops import Facts
from p2pledger.node.verifier import Verifier

ERASURES_EVERY = 60
"""Takes between two looks at the erasures: they have weeks, and the look takes time of the node's thread."""
ERASURES_MAX = 1_000
"""Counted at most, the first due first."""


@dataclass
class Readings:
    """Reads the parts of a node, on the node's own thread; the parts know nothing of it."""

    home: Home
    engine: Engine
    links: PeerLinks
    clients: ClientServer
    verifier: Verifier
    metrics: Metrics
    driver_cpu_s: Mapping[str, float]
    """Of the driver, by phase."""
    _counted: dict[Counter, float] = field(default_factory=dict)

    _takes: int = 0
    _links_needed: int = 0
    """Ourselves included: a quorum, or all that our settings name, where others carry our messages on."""

    def __post_init__(self) -> None:
        named = len(self.home.peers())
        quorum = self.home.founding.validators.q
        self._links_needed = min(quorum, 1 + named) if named else quorum
        self.metrics.node_info.labels(__version__, str(PROTOCOL_VERSION), self.engine.chain.hex()).set(1)

    def take(self) -> Facts:
        """Bring all metrics up to date; the facts for the board."""
        linked = self._linked()
        self._read_engine(linked)
        self._read_network()
        self._read_stores()
        self._read_work()
        if self._takes % ERASURES_EVERY == 0:
            self._read_erasures()
        self._takes += 1
        engine = self.engine
        recovery = engine.replica.recovery
        checks = {
            "voting": not recovery.is_waiting and not recovery.is_silent,
            "caught_up": not engine.syncer.is_active,
            "quorum_linked": linked >= self._links_needed,
        }
        return Facts(checks, {"version": __version__, "chain": engine.chain.hex(), "node": engine.me.hex()})

    def _linked(self) -> int:
        """Validators that we can talk to, ourselves included."""
        links = self.engine.router.links
        return 1 + sum(1 for member in self.home.founding.validators.members if member.node in links)

    def _read_engine(self, linked: int) -> None:
        engine, metrics = self.engine, self.metrics
        replica = engine.replica
        validators = self.home.founding.validators
        metrics.node_ready.set(1 if engine.is_ready else 0)
        metrics.consensus_epoch.set(replica.epoch)
        metrics.consensus_view.set(replica.view)
        metrics.consensus_height.set(replica.committed)
        metrics.consensus_validators.set(validators.n)
        metrics.consensus_missing_validators.set(validators.n - linked)
        metrics.consensus_is_primary.set(1 if replica.is_primary else 0)
        metrics.consensus_block_time_seconds.set(engine.executor.last.time_ms / 1000)
        metrics.execution_height.set(engine.executor.executed)
        metrics.execution_unflushed_transactions.set(engine.executor.unflushed)
        metrics.mempool_transactions.set(len(engine.admission.mempool))
        metrics.mempool_bytes.set(engine.admission.mempool.bytes_waiting)
        metrics.mempool_batches.set(len(engine.pool))

    def _read_network(self) -> None:
        metrics, links, clients = self.metrics, self.links.counters, self.clients.counters
        metrics.p2p_links.set(len(self.engine.router.links))
        metrics.client_connections.set(len(self.clients.sessions))
        self._count(metrics.p2p_received_bytes, links.bytes_in)
        self._count(metrics.p2p_sent_bytes, links.bytes_out)
        self._count(metrics.p2p_dropped, links.out_queue_full)
        self._count(metrics.p2p_handshakes_refused, links.refused)
        self._count(metrics.client_requests, clients.requests)
        self._count(metrics.client_malformed, clients.malformed)
        self._count(metrics.client_refused, clients.refused)
        self._count(metrics.client_throttled, clients.throttled)
        self._count(metrics.verify_bad_signatures, self.verifier.bad)

    def _read_work(self) -> None:
        metrics = self.metrics
        for kind, counter in metrics.verify_signatures.items():
            self._count(counter, self.verifier.checked[kind])  # type: ignore[index]  # the same kinds
        for kind, spent_s in self.verifier.cpu_s.items():
            self._count(metrics.node_cpu_seconds[f"verify_{kind}"], spent_s)
        for phase, spent_s in self.driver_cpu_s.items():
            self._count(metrics.node_cpu_seconds[phase], spent_s)

    def _read_erasures(self) -> None:
        metrics, executor = self.metrics, self.engine.executor
        owed = erasure.owed(self.home.card.organisation, executor.last.time_ms, executor.state, ERASURES_MAX)
        metrics.erasure_unfinished.set(owed.unfinished)
        metrics.erasure_overdue.set(owed.overdue)
        metrics.erasure_uncertified.set(owed.uncertified)

    def _read_stores(self) -> None:
        data = self.home.data
        self.metrics.store_free_bytes.set(shutil.disk_usage(data).free)
        files = [store / "data.mdb" for store in (self.home.ledger, self.home.state)]
        self.metrics.store_used_bytes.set(sum(file.stat().st_blocks * 512 for file in files))

    def _count(self, counter: Counter, total: float) -> None:
        """Carry a plain number that only grows into its metric."""
        counter.inc(total - self._counted.get(counter, 0))
        self._counted[counter] = total
