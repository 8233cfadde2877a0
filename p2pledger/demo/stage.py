"""Everybody who plays a part in the demonstration, and how they reach the ledger."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2pledger.client.keyring import OrganisationWallet, Persona
from p2pledger.client.ledger import LedgerClient, Receipt, open_ledger
from p2pledger.demo.cluster import Cluster
from p2pledger.demo.narrator import Narrator
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Millis

A, B, INSURER, AGENCY = "City Hospital", "Lakeside Hospital", "Mutual Health Insurance", "Health Data Agency"
MEMBERS = ((A, "hospital"), (B, "hospital"), (INSURER, "insurer"), (AGENCY, "agency"))
DAY_MS = 24 * 3600 * 1000


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
