"""Everybody who plays a part in the demonstration, and how they reach the ledger."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from p2pledger.client.keyring import OrganisationWallet, Persona
from p2pledger.client.ledger import LedgerClient, Receipt, open_ledger
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.narrator import Narrator
from p2pledger.health.joint_key import ActiveKey
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Refused, Rejected, Unavailable
from p2pledger.primitives.ids import Millis

A, B, INSURER, AGENCY = "City Hospital", "Lakeside Hospital", "Mutual Health Insurance", "Health Data Agency"
MEMBERS = ((A, "hospital"), (B, "hospital"), (INSURER, "insurer"), (AGENCY, "agency"))
DAY_MS = 24 * 3600 * 1000
PATIENCE_S = 60.0
T = TypeVar("T")


@dataclass
class Stage:
    """Everybody who plays a part."""

    narrator: Narrator
    cluster: Cluster
    folder: Path
    organisations: dict[str, OrganisationWallet]
    clients: dict[str, LedgerClient] = field(default_factory=dict)
    patient: dict[str, Persona] = field(default_factory=dict)
    """The patient as each custodian knows them."""
    doctor: Persona | None = None
    researcher: Persona | None = None
    joint_key: ActiveKey | None = None
    """Of the validators: what record keys are sealed to."""
    receipts: list[Receipt] = field(default_factory=list)
    """Acknowledged while the primary was being killed; to be found again in the stopped stores."""
    latencies_s: list[float] = field(default_factory=list)
    """Of transactions that nobody else competed with."""
    load_latencies_s: list[float] = field(default_factory=list)
    """Of those that were in flight when the primary died."""
    transactions: int = 0

    async def submit(self, client: LedgerClient, *operations: object, cosigners: Sequence[object] = ()) -> Receipt:
        """Submit, believe the proof, note how long it took."""
        started = time.perf_counter()
        receipt = await client.submit(*operations, cosigners=cosigners)  # type: ignore[arg-type]
        self.latencies_s.append(time.perf_counter() - started)
        self.transactions += 1
        return receipt

    def vault(self, name: str) -> Vault:
        """The vault in a member's home, as its custodian opens it."""
        return Vault(self.cluster.homes[name] / "vault", self.organisations[name].custodian.box)


def now_ms() -> Millis:
    """The wall clock."""
    return Millis(time.time_ns() // 1_000_000)


@asynccontextmanager
async def all_clients(stage: Stage) -> AsyncIterator[None]:
    """A client for each organisation, its own node first."""
    async with AsyncExitStack() as stack:
        for name, _ in MEMBERS:
            stage.clients[name] = await client_of(stack, stage, stage.organisations[name].account, name)
        yield


async def client_of(stack: AsyncExitStack, stage: Stage, account: SigningKey, first: str) -> LedgerClient:
    names = [first, *(name for name in stage.cluster.names if name != first)]
    ledger = open_ledger(stage.cluster.founding, stage.cluster.addresses(names), account)
    return await stack.enter_async_context(ledger)


async def enter(stage: Stage, persona: Persona, kind: str, organisation: str) -> None:
    """Register a persona: signed by its own key, cosigned by the organisation."""
    sponsor = stage.organisations[organisation].account
    async with AsyncExitStack() as stack:
        client = await client_of(stack, stage, persona.signing, organisation)
        registration = persona.registration(kind, b"\1" * 32)  # type: ignore[arg-type]
        await stage.submit(client, registration, cosigners=(sponsor,))


async def block_time_passes(client: LedgerClient, until_ms: int) -> tuple[int, int]:
    """Wait for a block of that time; (height, time) of the newest one then."""
    with trio.fail_after(PATIENCE_S):
        while True:
            status = await client.status()
            if status.block_time_ms >= until_ms:
                return status.height, status.block_time_ms
            await trio.sleep(0.1)


async def when_proven(attempt: Callable[[], Awaitable[T]]) -> T:
    """What becomes possible with the next checkpoint."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                return await attempt()
            except Unavailable:
                await trio.sleep(0.1)


async def refusal(attempt: Awaitable[object]) -> Code:
    """The code in which somebody says no to an attempt; OK where nobody does."""
    try:
        await attempt
    except (Refused, Rejected) as error:
        return error.code
    return Code.OK
