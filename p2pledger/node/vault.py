"""The vault of a home: where its records lie, who keeps copies, and the process that serves both.

It is a process of its own: what it reads and sends must not hold up votes, and it may run on another machine than the
node, with the same keys. It asks its own node before it hands anything to a reader.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import structlog
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pledger import __version__
from p2pledger.client.integrity import alert
from p2pledger.client.ledger import open_ledger
from p2pledger.client.links import Node as NodeAddress
from p2pledger.client.vault import Vault
from p2pledger.client.vault_service import RecordService
from p2pledger.health.commitments import RecordRef
from p2pledger.health.integrity_operations import IntegrityAlert
from p2pledger.health.release import ReleaseRequest
from p2pledger.network.api import Failure, Judge, JudgeReply
from p2pledger.network.connection import connect
from p2pledger.node.home import Home
from p2pledger.node.ops import Board, Facts, OpsServer
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, ConfigError, PeerFault, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, Bytes16, NodeId
from p2pledger.storage.home import exclusive_lock
from p2pledger.vault.bucket import BucketStore
from p2pledger.vault.connection import VaultAddress
from p2pledger.vault.copies import Copies
from p2pledger.vault.objects import DirectoryStore, ObjectStore, Spoiled
from p2pledger.vault.replicas import Finding, Replicas
from p2pledger.vault.service import Caller, ServiceCounters, ServiceSettings, VaultService
from p2pledger.vault.wire import Answer, FetchRecords, Question

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


def keepers_of(home: Home) -> dict[Bytes16, str]:
    """The same as organisations: id and name. Raises ConfigError."""
    cards = {card.node: card for card in home.founding.genesis.cards}
    return {Bytes16(cards[node].organisation): cards[node].name for node in home.vault_replicas()}


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


@dataclass(frozen=True, slots=True)
class OwnNode:
    """The home's own node, asked in the name of its organisation."""

    home: Home
    where: Callable[[], NodeAddress]
    """It may come back at another port than it left."""
    account: SigningKey

    async def judge(self, request: ReleaseRequest, reader: AccountKey) -> Code:
        """What it says of a request by this reader; raises Rejected, Unavailable."""
        address, chain = self.where(), self.home.founding.chain
        try:
            with trio.fail_after(JUDGE_S_MAX):
                async with connect(address.host, address.port, address.key, self.account, chain) as connection:
                    reply = await connection.call(Judge(0, request, reader))
        except trio.TooSlowError as error:
            raise Unavailable(f"our own {address} has not answered within {JUDGE_S_MAX:g} s") from error
        match reply:
            case JudgeReply():
                return Code(reply.code) if reply.code in Code.__members__.values() else Code.E_INTERNAL
            case Failure():
                raise Unavailable(f"our own {address} does not judge: {reply.detail}")
            case _:
                raise PeerFault(address.key, f"answered Judge with {type(reply).__name__}")


class VaultProcess:
    """The vault service of one home."""

    def __init__(self, home: Home, vault: Vault, node: OwnNode) -> None:
        """Raises ConfigError."""
        self.home = home
        cards = home.founding.genesis.cards
        members = {card.node: Bytes16(card.organisation) for card in cards if card.node != home.node}
        self._node = node
        self._records = RecordService(vault, replicas_of(home, vault), node.judge, self._note)
        self._tell, self._alarms = trio.open_memory_channel[IntegrityAlert](ALARMS_MAX)
        self._told: set[tuple[bytes, int]] = set()
        self._copies = Copies(NodeId(home.node), lambda owner: copies_of(home, owner), self._has_room)
        self._gathering = trio.Semaphore(FETCHES_MAX)
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
        service = self.service
        registry.register(VaultMetrics(service.counters, lambda: len(service.callers), self.home.layout.vault_audit))
        listen = self.home.config.vault_listen
        with OpsServer(self.home.config.vault_ops_listen, self.board, registry) as ops:
            async with trio.open_nursery() as nursery:
                try:
                    port: int = await nursery.start(self.service.serve, listen.host, listen.port)
                except OSError as error:
                    raise ConfigError(
                        f"vault.listen = {str(listen)!r} cannot be listened on: {error.strerror or error}"
                    ) from error
                nursery.start_soon(self._raise_alarms)
                ports = {"vault": port, "ops": ops.port}
                _write_ports(self.home, ports)
                log.info("vault_started", version=__version__, **ports)
                task_status.started(ports)
                while True:
                    self.board.post(Facts({"listening": True, "room": self._has_room()}, {"version": __version__}))
                    await trio.sleep(POST_EVERY_S)

    async def _answer(self, caller: Caller, question: Question) -> Answer:
        if caller.organisation is not None:
            return await self._copies.answer(caller.organisation, question)
        if not isinstance(question, FetchRecords):
            raise Rejected(Code.E_ROLE, f"{type(question).__name__} is for custodians, who show their node key")
        async with self._gathering:
            return await self._records.fetch(caller.key, question)

    def _note(self, ref: RecordRef, spoiled: Spoiled) -> None:
        """A changed byte in our own store: the chain is told, once for each record (F-36)."""
        if (ref.batch_id, ref.index) in self._told:
            return
        self._told.add((ref.batch_id, ref.index))
        log.error("object_spoiled", batch=ref.batch_id[:4].hex(), index=ref.index)
        alarm = alert(ref, spoiled.name, spoiled.found)
        with suppress(trio.WouldBlock):  # the store is in ruins: it has been told often enough
            trio.from_thread.run_sync(self._tell.send_nowait, alarm)

    async def _raise_alarms(self) -> None:
        """One after the other: while the node cannot take an alert, it waits."""
        async for alarm in self._alarms:
            while not await self._submitted(alarm):
                await trio.sleep(RETRY_S)

    async def _submitted(self, alarm: IntegrityAlert) -> bool:
        founding, node = self.home.founding, self._node
        try:
            async with open_ledger(founding, [node.where()], node.account) as ledger:
                await ledger.submit(alarm)
        except Refused as error:
            log.info("alert_refused", code=int(error.code))  # told before this process started
        except (Unavailable, PeerFault, Rejected) as error:  # or our account was used elsewhere at the same time
            log.warning("alert_waits", reason=str(error))
            return False
        return True

    def _has_room(self) -> bool:
        if self.home.config.vault.store:
            return True
        usage = os.statvfs(self.home.layout.root)
        return usage.f_bavail * usage.f_frsize >> 20 >= self.home.config.node.free_mib_min


@dataclass(frozen=True, eq=False)  # a registry finds its collectors by identity
class VaultMetrics(Collector):
    """The service's counters and the last audit as metrics, read when they are asked for."""

    counters: ServiceCounters
    callers: Callable[[], int]
    audit: Path

    def collect(self) -> Iterator[Metric]:
        for name in (field.name for field in fields(self.counters)):
            yield CounterMetricFamily(
                f"p2pledger_vault_{name}",
                f"Vault service: {name.replace('_', ' ')}.",
                value=getattr(self.counters, name),
            )
        yield GaugeMetricFamily("p2pledger_vault_callers", "Sessions of the vault service now.", value=self.callers())
        at_s, failed = last_audit(self.audit)
        yield GaugeMetricFamily(
            "p2pledger_vault_audit_timestamp_seconds", "When 'vault audit' ran last; 0: never.", value=at_s
        )
        yield GaugeMetricFamily(
            "p2pledger_vault_audit_failed_holders", "Holders that did not prove what they hold then.", value=failed
        )


def note_audit(home: Home, findings: Sequence[Finding], now_ms: int) -> None:
    """Leave for the service's metrics what an audit has found."""
    failed = sum(not one.is_good for one in findings)
    _replace(home.layout.vault_audit, {"time_ms": now_ms, "holders": len(findings), "failed": failed})


def last_audit(path: Path) -> tuple[float, int]:
    """(time in seconds, holders that failed) of the last audit; zeros where there was none, or its note is damaged."""
    try:
        parts = json.loads(path.read_text())
        return parts["time_ms"] / 1000, int(parts["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0


def _write_ports(home: Home, ports: dict[str, int]) -> None:
    _replace(home.layout.vault_ports, {**ports, "pid": os.getpid()})


def _replace(path: Path, document: Mapping[str, int]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(document) + "\n")
    temporary.replace(path)


async def serve_vault(home: Home, vault: Vault, node: OwnNode) -> None:
    """Run the home's vault service until SIGTERM or SIGINT, one for each home. Raises ConfigError, StoreError."""
    with exclusive_lock(home.layout.vault_lock), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(VaultProcess(home, vault, node).run)
            async for number in signals:
                log.info("vault_stopping", signal=int(number))
                nursery.cancel_scope.cancel()
                return
