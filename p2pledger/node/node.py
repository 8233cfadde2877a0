"""The node on one page: open the stores, put the parts together in order, run a handful of tasks in one nursery.

If one part fails the process ends with a clear status; restart is replay.
"""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from p2pledger import __version__
from p2pledger.consensus.journal import ViewRecord
from p2pledger.engine.engine import Engine
from p2pledger.engine.executor import genesis_flush
from p2pledger.engine.ports import LedgerStore, StateStore
from p2pledger.health.application import HealthApplication
from p2pledger.mempool import Mempool
from p2pledger.network.budget import Rates
from p2pledger.network.clients import ClientServer, ClientSettings
from p2pledger.network.link import LinkSettings
from p2pledger.network.peers import Peer, PeerLinks
from p2pledger.node.config import Address, Config
from p2pledger.node.deposits import Depositing
from p2pledger.node.driver import ConsensusSigner, Driver
from p2pledger.node.home import Home
from p2pledger.node.metrics import Metrics, make_metrics
from p2pledger.node.ops import Board, OpsServer
from p2pledger.node.readings import Readings
from p2pledger.node.release import Releasing
from p2pledger.node.resync import halt_mark
from p2pledger.node.server import Server
from p2pledger.node.sharing import Sharing
from p2pledger.node.surroundings import Surroundings
from p2pledger.primitives.errors import ConfigError
from p2pledger.storage.deposit_files import DepositFiles
from p2pledger.storage.home import exclusive_lock
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.release_entries import ReleaseEntries
from p2pledger.storage.share_files import ShareFiles
from p2pledger.storage.sign_floor import SignFloor
from p2pledger.storage.state_store import LmdbStateStore

POST_EVERY_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stores:
    """What outlives the process."""

    ledger: LedgerStore
    state: StateStore
    floor: SignFloor
    releases: ReleaseEntries
    shares: ShareFiles
    deposits: DepositFiles


class Node:
    """One member's node over an opened home."""

    def __init__(self, home: Home, stores: Stores, surroundings: Surroundings | None = None) -> None:
        self.home = home
        founding = home.founding
        ledger, state, floor = stores.ledger, stores.state, stores.floor
        surroundings = surroundings or Surroundings()
        self.metrics: Metrics = make_metrics()
        self.board = Board()
        lost = None if floor.lost is None else (floor.lost.height, floor.lost.view)
        mempool = Mempool(home.config.mempool.transactions_max, home.config.mempool.bytes_max)
        self.engine = Engine(
            founding,
            HealthApplication(),
            home.keys.node,
            home.validator,
            ledger,
            state,
            surroundings.now(),
            mempool,
            lost,
        )
        self.server = Server(self.engine, ledger, state, self.metrics)
        addresses = home.peers()
        peers = {
            card.node: Peer(card.certificate, _pair(addresses.get(card.node)))
            for card in founding.genesis.cards
            if card.node != home.node and (not addresses or card.node in addresses)
        }
        config = home.config
        self.links = PeerLinks(
            home.keys.node,
            home.card.certificate,
            founding.chain,
            peers,
            settings=_link_settings(config),
            transport=surroundings.transport,
        )
        self.driver = Driver(
            engine=self.engine,
            ledger=ledger,
            state=state,
            links=self.links,
            signer=ConsensusSigner(home.keys.consensus, founding.chain),
            floor=floor,
            metrics=self.metrics,
            verify_threads=config.verify_threads(os.cpu_count() or 1),
            on_executed=self.server.on_executed,
            surroundings=surroundings,
        )
        self.server.driver = self.driver
        self.sharing = Sharing(
            self.engine,
            stores.shares,
            stores.releases,
            surroundings,
            self.metrics,
            post=self.driver.post,
            next_block=self.server.next_block,
            begins=config.release.begin == "auto",
            peers=frozenset(peers),
        )
        self.depositing = Depositing(
            self.engine,
            stores.deposits,
            surroundings,
            self.metrics,
            post=self.driver.post,
            next_block=self.server.next_block,
            threads=self.driver.verify_threads,
        )
        self.server.depositing = self.depositing
        self.server.releasing = Releasing(
            self.engine,
            holder_of=self.sharing.holder_of,
            one_time_holder_of=self.depositing.holder_of,
            write_down=self.sharing.write_down,
            next_block=self.server.next_block,
            now=surroundings.now,
            random=surroundings.transport.random_bytes,
            metrics=self.metrics,
            started_at=ledger.tip(),
            threads=self.driver.verify_threads,
        )
        self.clients = ClientServer(
            home.keys.node,
            home.card.certificate,
            founding.chain,
            self.server.handle,
            self.server.role_of,
            taker=self.server.take,
            feeder=self.server.next_page,
            settings=_client_settings(config),
            transport=surroundings.transport,
        )
        self._readings = Readings(
            home, self.engine, self.links, self.clients, self.driver.verifier, self.metrics, self.driver.cpu_s
        )
        self.ports: dict[str, int] = {}

    async def run(self, *, task_status: trio.TaskStatus[dict[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """The daemon: take part, answer on the ops port and to signals, until cancelled. Reports the bound ports."""
        with OpsServer(self.home.config.ops_listen, self.board, self.metrics.registry) as ops:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.take_part)
                self.ports["ops"] = ops.port
                self._write_ports()
                nursery.start_soon(_dump_on_signal, self)
                log.info("node_started", height=self.engine.executor.executed, version=__version__, **self.ports)
                task_status.started(self.ports)

    async def take_part(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The node itself, whatever surrounds it: driver, links and client port until cancelled.

        Started once everything listens. Raises what stops a node: StoreError, Divergence, ConfigError.
        """
        config = self.home.config
        async with trio.open_nursery() as nursery:
            await nursery.start(self.driver.run)
            self.ports["p2p"] = await _listen(nursery, self.links.serve, "p2p.listen", config.p2p_listen)
            self.ports["client"] = await _listen(nursery, self.clients.serve, "client.listen", config.client_listen)
            nursery.start_soon(self.sharing.run)
            nursery.start_soon(self.depositing.run)
            nursery.start_soon(self._keep_posting)
            task_status.started()

    def _write_ports(self) -> None:
        path = self.home.layout.ports
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps({**self.ports, "pid": os.getpid()}) + "\n")
        temporary.replace(path)

    async def _keep_posting(self) -> None:
        """Signs of life and gauges for the ops port; and the time of those who wait for receipts passes."""
        while True:
            self.board.post(self._readings.take())
            self.server.expire(self.clients.sessions)
            await trio.sleep(POST_EVERY_S)


async def _listen(nursery: trio.Nursery, serve: Callable[..., Awaitable[object]], what: str, address: Address) -> int:
    """The port that `serve` has bound; raises ConfigError where it cannot."""
    try:
        port: int = await nursery.start(serve, address.host, address.port)
    except OSError as error:
        raise ConfigError(f"{what} = {str(address)!r} cannot be listened on: {error.strerror or error}") from error
    return port


def _link_settings(config: Config) -> LinkSettings:
    p2p = config.p2p
    return LinkSettings(
        rates=Rates(p2p.bytes_per_s_max, p2p.messages_per_s_max),
        out_bytes_max=p2p.queue_bytes_max,
        ping_s=min(10.0, p2p.idle_s_max / 3),  # a quiet peer that is well is heard three times before it is given up
        silence_s=float(p2p.idle_s_max),
        pre_auth_max=p2p.handshakes_max,
    )


def _client_settings(config: Config) -> ClientSettings:
    client = config.client
    return ClientSettings(
        sessions_max=client.connections_max,
        strangers_max=max(1, client.connections_max // 2),
        in_flight_max=client.requests_max,
        out_bytes_max=client.pending_bytes_max,
    )


def _pair(address: Any) -> tuple[str, int] | None:
    return None if address is None else (address.host, address.port)


async def _dump_on_signal(node: Node) -> None:
    """SIGUSR1: the task tree and the sizes of all queues, on stderr."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            sys.stderr.write(_report(node))


def _report(node: Node) -> str:
    verifier = node.driver.verifier
    lines = [
        f"engine: height {node.engine.executor.executed}, pool {len(node.engine.pool)} batches, "
        f"mempool {len(node.engine.admission.mempool)} transactions, links {len(node.engine.router.links)}",
        f"driver: {node.driver.news_waiting} events waiting, {node.links.unsent_bytes} bytes not yet sent to peers",
        f"verifier: {verifier.votes_waiting} votes, {verifier.batches_waiting} batches and "
        f"{verifier.submissions_waiting} submissions waiting",
    ]

    def walk(task: trio.lowlevel.Task, depth: int) -> None:
        lines.append("  " * depth + task.name)
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                walk(child, depth + 1)

    root = trio.lowlevel.current_root_task()
    if root is not None:
        walk(root, 0)
    return "\n".join(lines) + "\n"


@contextmanager
def opened(home: Home, accept_resign_risk: bool = False) -> Iterator[Node]:
    """The node over its stores, under the home's exclusive lock. Raises ConfigError, StoreError, Divergence."""
    with opened_stores(home, accept_resign_risk) as stores:
        node = Node(home, stores)
        try:
            yield node
        finally:
            node.engine.executor.close()


@contextmanager
def opened_stores(home: Home, accept_resign_risk: bool = False) -> Iterator[Stores]:
    """What a home keeps, under its exclusive lock: checked against its sign floor, or adopted by it.

    Raises ConfigError and StoreError.
    """
    founding = home.founding
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(home.layout.lock))
        home.data.mkdir(mode=0o700, exist_ok=True)
        floor = SignFloor(home.layout.sign_floor)
        map_size = home.config.node.map_gib << 30
        _check_room(home)
        ledger = LmdbLedgerStore(
            home.ledger,
            founding.chain,
            home.node,
            founding.header.hash,
            map_size,
            may_create=not floor.exists or accept_resign_risk,
        )
        stack.callback(ledger.close)
        _check_not_halted(home, ledger)
        state = LmdbStateStore(home.state, founding.chain, map_size)
        stack.callback(state.close)
        if state.is_new:
            state.flush(genesis_flush(HealthApplication(), founding))
        standing = next((record for record in ledger.journal() if isinstance(record, ViewRecord)), None)
        if (not floor.exists and ledger.tip() == 0) or accept_resign_risk:
            floor.adopt(ledger.identity, ledger.tip(), standing)
        else:
            floor.check(ledger.identity, ledger.tip(), standing)
        releases = ReleaseEntries(home.releases, founding.chain, home.node, map_size)
        stack.callback(releases.close)
        shares = ShareFiles(home.layout.shares, founding.chain, home.node)
        deposits = DepositFiles(home.layout.deposits, founding.chain, home.node)
        yield Stores(ledger, state, floor, releases, shares, deposits)


def _check_not_halted(home: Home, ledger: LmdbLedgerStore) -> None:
    """P22: a halt needs a person; starting again would only halt again."""
    halt = halt_mark(ledger)
    if halt is not None:
        raise ConfigError(
            f"this node halted itself and stays halted: {halt.reason}; "
            f"'p2pledger resync --home {home.layout.root}' finds out whether it may run again"
        )


def _check_room(home: Home) -> None:
    usage = os.statvfs(home.data)
    free_mib = usage.f_bavail * usage.f_frsize >> 20
    if free_mib < home.config.node.free_mib_min:
        raise ConfigError(
            f"{home.data} has {free_mib} MiB free, node.free_mib_min asks for {home.config.node.free_mib_min}"
        )


async def serve(node: Node) -> None:
    """Run until SIGTERM or SIGINT; the commit under way is finished first."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            async for number in signals:
                log.info("node_stopping", signal=int(number))
                nursery.cancel_scope.cancel()
                return
