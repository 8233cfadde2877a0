"""A consortium of real node processes on this machine, for the demonstration and for tests of processes.

    with Cluster.create(folder, 4) as cluster:
        await cluster.start()
        await cluster.wait_ready()
        cluster.kill("City Hospital")          # as a power cut would
        await cluster.start("City Hospital")

Whatever happens inside the block, no process outlives it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import TracebackType

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.client.keyring import OrganisationWallet
from p2pledger.client.links import Node as NodeAddress
from p2pledger.node.ceremony import CreatedMember, create_consortium, default_members, render_config
from p2pledger.node.config import ENV_PREFIX
from p2pledger.node.home import Layout, load_founding
from p2pledger.primitives.errors import InvalidInput, P2PLedgerError, Unavailable

POLL_S = 0.05
READY_S_MAX = 60.0
STOP_S_MAX = 30.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024

Links = Iterable[tuple[str, str]]
"""Pairs of member names."""


@dataclass
class Member:
    """One member: its home and, while it runs, its process."""

    name: str
    home: Path
    created: CreatedMember = field(repr=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def layout(self) -> Layout:
        return Layout(self.home, self.created.organisation_keys)

    @property
    def log(self) -> Path:
        """Everything that its processes have said, the first ones first."""
        return self.home / "node.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ports(self) -> Mapping[str, int]:
        """The ports that the running process has bound; empty while it has not got so far."""
        try:
            ports: dict[str, int] = json.loads(self.layout.ports.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return ports

    def last_words(self, lines: int = 15) -> str:
        """The end of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class ProcessFailed(P2PLedgerError):
    """A node's process ended when it should not have, or with another status than it should have."""


class Cluster:
    """The members of one consortium, by name. Entered as a context, it kills what is left at the end."""

    def __init__(self, members: Sequence[Member], founding: Founding) -> None:
        self.members = {member.name: member for member in members}
        self.founding = founding
        self._cards = {card.name: card for card in founding.genesis.cards}

    @staticmethod
    def create(
        folder: Path,
        members: Sequence[tuple[str, str]] | int = 4,
        *,
        params: Mapping[str, object] | None = None,
        links: Links | None = None,
        name: str = "Demo consortium",
        keys_apart: bool = False,
    ) -> "Cluster":
        """Homes of all members (name, kind) in a new folder; `links` None: everybody knows everybody.

        `keys_apart`: no home holds its organisation's keys.

        Raises InvalidInput.
        """
        named = default_members(members) if isinstance(members, int) else list(members)
        created = create_consortium(
            folder,
            named,
            name=name,
            created_ms=time.time_ns() // 1_000_000,
            base_port=0,
            parameters={key: str(value) for key, value in (params or {}).items()},
            keys_apart=keys_apart,
        )
        founding = load_founding(Layout(created[0].home))
        cluster = Cluster([Member(one.name, one.home, one) for one in created], founding)
        if links is not None:
            cluster.connect(links)
        return cluster

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill(*self.members)

    # Who and where

    @property
    def names(self) -> tuple[str, ...]:
        """All members, in the order they were given."""
        return tuple(self.members)

    @property
    def homes(self) -> dict[str, Path]:
        return {name: member.home for name, member in self.members.items()}

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(name for name, member in self.members.items() if member.is_running)

    def member(self, name: str) -> Member:
        """Raises InvalidInput for a name that no member has."""
        if name not in self.members:
            raise InvalidInput(f"no member is called {name!r}; there are {', '.join(self.members)}")
        return self.members[name]

    def address(self, name: str) -> NodeAddress:
        """Where clients reach a member's node; known before it runs."""
        client = self.member(name).created.client
        return NodeAddress(client.host, client.port, self._cards[name].node)

    def addresses(self, names: Iterable[str] | None = None) -> list[NodeAddress]:
        """Of these members, or of all, in order."""
        return [self.address(name) for name in (self.names if names is None else names)]

    def wallet(self, name: str) -> OrganisationWallet:
        """The member's own keys, as the operator of its home has them."""
        return OrganisationWallet.load(self._cards[name].organisation, self.member(name).layout.office)

    def name_of(self, node: bytes) -> str:
        """The member that runs a node."""
        return next(card.name for card in self.founding.genesis.cards if card.node == node)

    def connect(self, links: Links) -> None:
        """From their next start on, members know only those they are paired with."""
        peers: dict[str, set[str]] = {name: set() for name in self.names}
        for one, other in links:
            peers[self.member(one).name].add(self.member(other).name)
            peers[other].add(one)
        for name, member in self.members.items():
            own = member.created
            others = {peer: self.members[peer].created.p2p for peer in self.names if peer in peers[name]}
            member.layout.config.write_text(render_config((own.p2p, own.client, own.ops), others))

    def line(self) -> list[tuple[str, str]]:
        """Links of each member with the next one only."""
        return list(zip(self.names, self.names[1:], strict=False))

    def mesh(self, without: Links = ()) -> list[tuple[str, str]]:
        """Links of each member with each other, except those in `without`."""
        cut = {frozenset(pair) for pair in without}
        return [pair for pair in combinations(self.names, 2) if frozenset(pair) not in cut]

    # Life and death

    async def start(self, *names: str, environ: Mapping[str, str] | None = None) -> None:
        """Start these members' nodes, or all that do not run; `wait_ready` waits for them."""
        for name in names or [name for name in self.names if name not in self.running]:
            member = self.member(name)
            if member.is_running:
                raise InvalidInput(f"{name!r} runs already")
            member.layout.ports.unlink(missing_ok=True)
            member.process = self._spawn(member, environ or {})

    def _spawn(self, member: Member, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
        with member.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 -- this very interpreter, with arguments of our own
                [sys.executable, "-m", "p2pledger", "start", "--home", str(member.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**own, **environ},
                start_new_session=True,  # Ctrl-C in the terminal is for the one who made us; it stops them in order
            )

    async def wait_ready(self, *names: str, timeout_s: float = READY_S_MAX) -> None:
        """Wait until these members, or all that run, say on the ops port that they are ready.

        Raises ProcessFailed with its last words when one ends instead, Unavailable when it takes too long.
        """
        for name in names or self.running:
            member = self.member(name)
            with trio.move_on_after(timeout_s):
                while not await self._is_ready(member):
                    await trio.sleep(POLL_S)
                continue
            checks = await self._tell(member, "/readyz?verbose")
            raise Unavailable(
                f"{name!r} is not ready after {timeout_s:g} s:\n{checks or 'no answer'}\n{member.last_words()}"
            )

    async def _is_ready(self, member: Member) -> bool:
        if not member.is_running:
            status = None if member.process is None else member.process.returncode
            raise ProcessFailed(f"{member.name!r} ended with status {status}:\n{member.last_words()}")
        return await self._tell(member, "/readyz") == "ok\n"

    async def ops(self, name: str, target: str) -> str:
        """The body that a member's ops port answers to GET `target`; raises Unavailable where nobody listens."""
        body = await self._tell(self.member(name), target)
        if body is None:
            raise Unavailable(f"the ops port of {name!r} does not answer")
        return body

    async def metric(self, name: str, metric: str) -> float:
        """The sum of a metric over its labels; 0 where it was never counted."""
        found = 0.0
        for line in (await self.ops(name, "/metrics")).splitlines():
            if line.startswith((f"{metric} ", f"{metric}{{")):
                found += float(line.rsplit(" ", 1)[1])
        return found

    @staticmethod
    async def _tell(member: Member, target: str) -> str | None:
        port = member.ports().get("ops")
        if port is None:
            return None
        data = b""
        with trio.move_on_after(5.0):
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                    while len(data) < ANSWER_BYTES_MAX and (chunk := await stream.receive_some(65_536)):
                        data += chunk
            except (OSError, trio.BrokenResourceError):
                return None
            return data.partition(b"\r\n\r\n")[2].decode(errors="replace")
        return None

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once: the processes are gone when this returns, wherever they were."""
        running = [member for member in map(self.member, names) if member.is_running]
        for member in running:
            assert member.process is not None
            member.process.kill()
        for member in running:
            assert member.process is not None
            member.process.wait()

    async def stop(self, *names: str, timeout_s: float = STOP_S_MAX) -> None:
        """SIGTERM these members, or all that run, and wait; raises ProcessFailed unless they end with status 0."""
        chosen = [self.member(name) for name in names or self.running]
        for member in chosen:
            if member.process is not None:
                member.process.send_signal(signal.SIGTERM)
        for member in chosen:
            status = await self.wait_end(member.name, timeout_s)
            if status != 0:
                raise ProcessFailed(f"{member.name!r} ended with status {status} on SIGTERM:\n{member.last_words()}")

    def pids(self) -> dict[str, int]:
        """The process ids of those that run, by name."""
        return {
            name: member.process.pid for name, member in self.members.items() if member.process and member.is_running
        }

    def let_go(self) -> list[int]:
        """The running processes are no longer ours and outlive this object; their process ids."""
        pids = [member.process.pid for member in self.members.values() if member.process and member.is_running]
        for member in self.members.values():
            member.process = None
        return pids

    async def wait_end(self, name: str, timeout_s: float = STOP_S_MAX) -> int:
        """The exit status of a member's process (minus the signal that killed it); raises Unavailable if it lives."""
        process = self.member(name).process
        if process is None:
            raise InvalidInput(f"{name!r} was never started")
        with trio.move_on_after(timeout_s):
            while process.poll() is None:
                await trio.sleep(POLL_S)
        if process.returncode is None:
            raise Unavailable(f"{name!r} still runs after {timeout_s:g} s:\n{self.member(name).last_words()}")
        return process.returncode

    def last_words(self) -> str:
        """The end of every member's log, for the one who has to find out what happened."""
        return "\n\n".join(f"--- {name}\n{member.last_words()}" for name, member in self.members.items())

    def events(self, name: str) -> Iterator[Mapping[str, object]]:
        """The events in a member's log."""
        log = self.member(name).log
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
