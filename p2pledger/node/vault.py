"""The vault of a home: where its records lie, who keeps copies, and the process that serves both.

It is a process of its own: what it reads and sends must not hold up votes, and it may run on another machine than the
node, with the same keys. It asks its own node before it hands anything to a reader.
"""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import fields

import structlog
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pledger import __version__
from p2pledger.client.vault import Vault
from p2pledger.node.home import Home
from p2pledger.node.ops import Board, Facts, OpsServer
from p2pledger.primitives.errors import Code, ConfigError, Rejected
from p2pledger.primitives.ids import Bytes16, NodeId
from p2pledger.storage.home import exclusive_lock
from p2pledger.vault.bucket import BucketStore
from p2pledger.vault.connection import VaultAddress
from p2pledger.vault.copies import Copies
from p2pledger.vault.objects import DirectoryStore, ObjectStore
from p2pledger.vault.replicas import Replicas
from p2pledger.vault.service import Caller, ServiceSettings, VaultService
from p2pledger.vault.wire import Answer, Question

POST_EVERY_S = 0.5
JUDGE_S_MAX = 10.0
ALARMS_MAX = 256
RETRY_S = 5.0
FETCHES_MAX = 4
"""Readers whose records are gathered at the same time; others wait."""

log = structlog.get_logger()


def own_store(home: Home) -> ObjectStore:
    """Where the home's own records lie; raises ConfigError."""
    vault = home.config.vault
    if vault.store:
        return BucketStore.at(vault.store, vault.s3_endpoint, vault.s3_region)
    return DirectoryStore(home.layout.vault)


def copies_of(home: Home, owner: Bytes16) -> ObjectStore:
    """Where the copies for another custodian lie, beside our own records; raises ConfigError."""
    vault = home.config.vault
    if vault.store:
        url = f"{vault.store.rstrip('/')}/copies/{owner.hex()}"
        return BucketStore.at(url, vault.s3_endpoint, vault.s3_region)
    return DirectoryStore(home.layout.vault_copies / owner.hex())


def holders_of(home: Home) -> list[VaultAddress]:
    """Who keeps copies for this home; raises ConfigError."""
    names = {card.node: card.name for card in home.founding.genesis.cards}
    return [
        VaultAddress(names[node], address.host, address.port, node) for node, address in home.vault_replicas().items()
    ]


def replicas_of(home: Home, vault: Vault) -> Replicas:
    """The home's own store with the copies elsewhere; raises ConfigError."""
    return Replicas(
        vault.store,
        holders_of(home),
        home.keys.node,
        home.founding.chain,
        home.config.vault_copies,
        vault.can_open,
    )


class VaultProcess:
    """The vault service of one home."""

    def __init__(self, home: Home) -> None:
        """Raises ConfigError."""
        self.home = home
        cards = home.founding.genesis.cards
        members = {card.node: Bytes16(card.organisation) for card in cards if card.node != home.node}
        self._copies = Copies(NodeId(home.node), lambda owner: copies_of(home, owner), self._has_room)
        sessions_max = home.config.vault.sessions_max
        self.service = VaultService(
            home.keys.node,
            home.card.certificate,
            home.founding.chain,
            members,
            self._answer,
            ServiceSettings(sessions_max=sessions_max, readers_max=sessions_max * 3 // 4),
        )
        self.board = Board()

    async def run(self, *, task_status: trio.TaskStatus[dict[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the bound ports. Raises ConfigError, StoreError."""
        registry = CollectorRegistry()
        registry.register(_Counters(self.service))
        listen = self.home.config.vault_listen
        with OpsServer(self.home.config.vault_ops_listen, self.board, registry) as ops:
            async with trio.open_nursery() as nursery:
                try:
                    port: int = await nursery.start(self.service.serve, listen.host, listen.port)
                except OSError as error:
                    raise ConfigError(
                        f"vault.listen = {str(listen)!r} cannot be listened on: {error.strerror or error}"
                    ) from error
                ports = {"vault": port, "ops": ops.port}
                _write_ports(self.home, ports)
                log.info("vault_started", version=__version__, **ports)
                task_status.started(ports)
                while True:
                    self.board.post(Facts({"listening": True, "room": self._has_room()}, {"version": __version__}))
                    await trio.sleep(POST_EVERY_S)

    async def _answer(self, caller: Caller, question: Question) -> Answer:
        if caller.organisation is None:
            raise Rejected(Code.E_ROLE, f"{type(question).__name__} is for custodians, who show their node key")
        return await self._copies.answer(caller.organisation, question)

    def _has_room(self) -> bool:
        if self.home.config.vault.store:
            return True
        usage = os.statvfs(self.home.layout.root)
        return usage.f_bavail * usage.f_frsize >> 20 >= self.home.config.node.free_mib_min


class _Counters(Collector):
    """The service's counters as metrics, read when they are asked for."""

    def __init__(self, service: VaultService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        counters = self._service.counters
        for name in (field.name for field in fields(counters)):
            yield CounterMetricFamily(
                f"p2pledger_vault_{name}", f"Vault service: {name.replace('_', ' ')}.", value=getattr(counters, name)
            )
        yield GaugeMetricFamily(
            "p2pledger_vault_callers", "Sessions of the vault service now.", value=len(self._service.callers)
        )


def _write_ports(home: Home, ports: dict[str, int]) -> None:
    path = home.layout.vault_ports
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({**ports, "pid": os.getpid()}) + "\n")
    temporary.replace(path)


async def serve_vault(home: Home) -> None:
    """Run the home's vault service until SIGTERM or SIGINT, one for each home. Raises ConfigError, StoreError."""
    with exclusive_lock(home.layout.vault_lock), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(VaultProcess(home).run)
            async for number in signals:
                log.info("vault_stopping", signal=int(number))
                nursery.cancel_scope.cancel()
                return
