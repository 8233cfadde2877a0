"""Custodians with their vault services on the loopback interface: real keys, real TLS, real folders."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.ids import Bytes16
from p2pledger.vault.connection import VaultAddress
from p2pledger.vault.copies import Copies
from p2pledger.vault.objects import DirectoryStore, ObjectStore
from p2pledger.vault.replicas import Replicas
from p2pledger.vault.service import Caller, ServiceSettings, VaultService
from p2pledger.vault.wire import Answer, Question
from tests.network.stage import CHAIN, HOST, Member, member

NAMES = ("Berg", "Tal", "See")
OWNER = member("Berg")


def organisation(name: str) -> Bytes16:
    return sha256(name.encode())[:16]


BERG = organisation("Berg")
MEMBERS = {member(name).node: organisation(name) for name in NAMES}


@dataclass
class Holder:
    """One custodian's service; it keeps copies for the others and has nothing for readers."""

    name: str
    folder: Path
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    has_room: bool = True
    port: int = 0

    def __post_init__(self) -> None:
        self.member: Member = member(self.name)
        self.copies = Copies(self.member.node, self.store, lambda: self.has_room)
        self.service = VaultService(
            self.member.key, self.member.certificate, CHAIN, MEMBERS, self.answer, self.settings
        )

    def store(self, owner: Bytes16 = BERG) -> ObjectStore:
        return DirectoryStore(self.folder / self.name / owner.hex())

    async def answer(self, caller: Caller, question: Question) -> Answer:
        assert caller.organisation is not None, "no reader asks here"
        return await self.copies.answer(caller.organisation, question)

    @property
    def address(self) -> VaultAddress:
        return VaultAddress(self.name, HOST, self.port, self.member.node)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[VaultAddress]:
        """Its service runs; again at the same port."""
        async with trio.open_nursery() as nursery:
            self.port = await nursery.start(self.service.serve, HOST, self.port)
            yield self.address
            nursery.cancel_scope.cancel()


def any_manifest(name: bytes, data: bytes) -> bool:
    """The seal of a test's manifests: they begin with their batch."""
    return data.startswith(name)


def replicas(
    own: ObjectStore, *holders: Holder, copies: int = 2, check: Callable[[bytes, bytes], bool] = any_manifest
) -> Replicas:
    """Berg's own store and its copies at these holders."""
    return Replicas(own, [holder.address for holder in holders], OWNER.key, CHAIN, copies, check)
