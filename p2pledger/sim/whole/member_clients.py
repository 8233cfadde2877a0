"""The clients of a simulated consortium of whole nodes: real ones, over the memory network.

Each member's client works through its own node first and through others when that one is silent, as `LedgerClient`
does. It enrols one practitioner and then issues and revokes credentials without end; refusals are receipts too.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pledger.chain.transaction import parse
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.client.links import Node
from p2pledger.client.patience import Patience
from p2pledger.health.operations import CredentialIssue, CredentialRevoke, IdentityRegister
from p2pledger.health.vocabulary import Role
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Rejected, Unavailable
from p2pledger.primitives.ids import Millis, NodeId
from p2pledger.sim.founding import WALL_START_MS, Consortium, seeded_key
from p2pledger.sim.whole.memory_network import MemoryNetwork, MemoryTransport
from p2pledger.sim.whole.testimony import Testimony

PATIENCE = Patience(silence_s=1.5, busy_first_s=0.05, busy_most_s=1.0, total_s=120.0)
ROLES: tuple[Role, ...] = ("physician", "nurse", "pharmacist", "paramedic")
CENTURY_MS = 3_155_760_000_000


class Clients:
    """One client for each member."""

    def __init__(self, consortium: Consortium, network: MemoryNetwork, testimony: Testimony, port: int) -> None:
        self.served: set[int] = set()
        """Members whose client got a fresh receipt from its own node after healing."""
        self._consortium = consortium
        self._network = network
        self._testimony = testimony
        self._nodes = [Node(f"node-{i}", port, NodeId(key.public)) for i, key in enumerate(consortium.nodes)]

    async def work(self, member: int, lanes: int) -> None:
        """Submit without end, `lanes` transactions at a time."""
        own_first = self._nodes[member:] + self._nodes[:member]
        enrolment = self._enrolment(member)
        async with self._ledger(self._practitioner(member), own_first, f"client-{member}") as ledger:
            organisation = self._consortium.accounts[member]
            data = await self._signed(ledger, enrolment, organisation)
            await self._decided(ledger, data)
        async with (
            self._ledger(organisation, own_first, f"client-{member}") as ledger,
            trio.open_nursery() as nursery,
        ):
            for lane in range(lanes):
                nursery.start_soon(self._keep_submitting, ledger, enrolment.did, lane)

    async def be_served(self, member: int) -> None:
        """One fresh transaction, decided and proven through the member's own node and no other."""
        node = self._nodes[member]
        key = seeded_key("fresh practitioner", member)
        async with self._ledger(key, [node], f"visitor-{member}") as ledger:
            register = self._enrolment(member, key)
            await self._decided(ledger, await self._signed(ledger, register, self._consortium.accounts[member]))
        self.served.add(member)

    async def _keep_submitting(self, ledger: LedgerClient, subject: bytes, lane: int) -> None:
        turn = lane
        while True:
            role = ROLES[turn % len(ROLES)]
            operation = _issue(subject, role) if turn % 3 else CredentialRevoke(subject, role)
            await self._decided(ledger, await self._signed(ledger, operation))
            turn += 1
            await trio.sleep(0.01 + 0.02 * (turn % 4))

    async def _signed(self, ledger: LedgerClient, operation: Record, *cosigners: SigningKey) -> bytes:
        while True:
            try:
                return await ledger.sign(operation, cosigners=cosigners)
            except (Unavailable, Rejected):  # no node to ask for a nonce, yet
                await trio.sleep(0.1)

    async def _decided(self, ledger: LedgerClient, data: bytes) -> None:
        """Submit until there is a proven receipt."""
        transaction = parse(data)
        self._testimony.submitted(transaction)
        while True:
            try:
                receipt = await ledger.send(data)
            except (Unavailable, Rejected) as error:
                self._testimony.observer.reached[f"client: {type(error).__name__}"] += 1
                await trio.sleep(0.1)
                continue
            self._testimony.acknowledge(transaction.body.sender, transaction.body.nonce, receipt.executed)
            return

    def _practitioner(self, member: int) -> SigningKey:
        return seeded_key("practitioner", member)

    def _enrolment(self, member: int, key: SigningKey | None = None) -> IdentityRegister:
        key = key or self._practitioner(member)
        did = hashlib.sha256(key.public).digest()[:16]
        cards = {bytes(card.account): card.organisation for card in self._consortium.founding.genesis.cards}
        organisation = cards[self._consortium.accounts[member].public]
        return IdentityRegister(did, "practitioner", key.public, bytes(32), organisation, bytes(32))  # type: ignore[arg-type]

    @asynccontextmanager
    async def _ledger(self, account: SigningKey, nodes: list[Node], host: str) -> AsyncIterator[LedgerClient]:
        transport = MemoryTransport(self._network, host)
        async with open_ledger(self._consortium.founding, nodes, account, PATIENCE, _now_s, transport) as ledger:
            yield ledger


def _now_s() -> float:
    return WALL_START_MS / 1000 + trio.current_time()


def _issue(subject: bytes, role: Role) -> CredentialIssue:
    return CredentialIssue(subject, role, bytes(32), Millis(WALL_START_MS), Millis(WALL_START_MS + CENTURY_MS))
