"""A ward to read in: four real validators with a joint key, a sealed chart of 182 resources, and a physician.

Everything goes the way that a reader's client goes: request, receipt, shares over TLS, records compared with their
commitments. Only the sealed bytes come from the custodian's vault directly, not through its service.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import trio

from bench.arithmetic import median
from bench.procfs import usage
from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.custody import capsules_of, keep_and_commit
from p2pledger.client.health import ConsentCard, grant_consent, issue_credential, register_identity
from p2pledger.client.ingest import Origin, prepare_bundle
from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.client.reading import OwnVault, ask_for, read_records
from p2pledger.client.tickets import Ticket
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.health.release import RecordOpening, ReleaseRequest

T = TypeVar("T")
N = 4
HOUR_MS = 3_600_000
PATIENCE_S = 120.0
SHARES = 'p2pledger_node_cpu_seconds_total{phase="release"}'


@dataclass(frozen=True, slots=True)
class Released:
    """Of one record, at one validator: processor time, seconds."""

    whole_s: float
    """All of its process: TLS, judging, entries, the chain's own blocks beside it."""
    shares_s: float
    """Of it, the shares themselves."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A chart of 182 records, from the request for shares to the plain bytes."""

    wall_s: float
    """The median of the rounds."""
    reader_s: float
    """Processor time of the reader's process."""
    validators_s: float
    """Of all four validators' processes."""


@dataclass(frozen=True, slots=True)
class Allergies:
    """Seven records, wall time, medians of the rounds."""

    finality_s: float
    """From sending the access request to its proven receipt."""
    opening_s: float
    """From there to seven records in the clear."""


@dataclass(frozen=True, slots=True)
class Ward:
    """Everybody is there, and the consent is given."""

    cluster: Cluster
    ledger: LedgerClient
    """The physician's."""
    physician: Persona
    vault: Vault
    index: ChartIndex
    card: ConsentCard

    async def allowed(self, part: ChartIndex) -> Ticket:
        """Ask, and wait for the receipt."""
        chain, end_ms = self.cluster.founding.chain, _now_ms() + HOUR_MS
        request, ticket = ask_for(self.physician, chain, part, "TREAT", end_ms, card=self.card)
        await self.ledger.submit(request)
        return ticket

    async def release(self, rounds: int) -> Released:
        """All four release the whole chart, again and again."""
        ticket = await self.allowed(self.index)
        sealed = self.vault.sealed_records(ticket.scope)
        openings = tuple(RecordOpening(one.ref.batch_id, one.proof, one.key_epoch, one.capsule) for one in sealed)
        request = ReleaseRequest(ticket.access_id, ticket.salt, ticket.scope, openings)
        await self.ledger.shares(request)
        whole, shares = self._spent_s(), await self._computing_s()
        for _ in range(rounds):
            heard = await self.ledger.shares(request)
            assert len(heard.replies) == N, heard.failures
        each = N * rounds * len(openings)
        return Released((self._spent_s() - whole) / each, (await self._computing_s() - shares) / each)

    async def chart(self, rounds: int) -> Opened:
        """A reader opens the whole chart, again and again."""
        ticket, source, took = await self.allowed(self.index), OwnVault(self.vault), []
        await read_records(self.ledger, source, ticket)
        await self._rest()
        validators, reader = self._spent_s(), time.process_time()
        for _ in range(rounds):
            began_s = time.perf_counter()
            reading = await read_records(self.ledger, source, ticket)
            took.append(time.perf_counter() - began_s)
            assert len(reading.records) == len(ticket.scope)
            assert not reading.blamed
        reader_s = time.process_time() - reader
        await self._rest()
        return Opened(median(took), reader_s / rounds, (self._spent_s() - validators) / rounds)

    async def allergies(self, rounds: int) -> Allergies:
        """The emergency: ask for seven records, and read them."""
        part, source = self.index.of_classes("allergy"), OwnVault(self.vault)
        assert len(part.refs) == 7
        final, opened = [], []
        for _ in range(rounds):
            began_s = time.perf_counter()
            ticket = await self.allowed(part)
            final_s = time.perf_counter()
            await read_records(self.ledger, source, ticket)
            opened.append(time.perf_counter() - final_s)
            final.append(final_s - began_s)
        return Allergies(median(final), median(opened))

    async def _rest(self) -> None:
        """Until the validators that were not waited for have computed what they were asked for."""
        before = -1.0
        while (now := await self._released()) != before:
            before = now
            await trio.sleep(0.3)

    def _spent_s(self) -> float:
        found = [usage(pid) for pid in self.cluster.pids().values()]
        return sum(one.cpu_s for one in found if one is not None)

    async def _computing_s(self) -> float:
        return sum([await self.cluster.metric(name, SHARES) for name in self.cluster.names])

    async def _released(self) -> float:
        return sum([await self.cluster.metric(name, "p2pledger_release_shares_total") for name in self.cluster.names])


@asynccontextmanager
async def open_ward(folder: Path) -> AsyncIterator[Ward]:
    """Found it, wait for the joint key, seal the chart, let the physician read."""
    with Cluster.create(folder, N, params={"checkpoint_interval": 2}) as cluster:
        await cluster.start()
        await cluster.wait_ready()
        hospital = cluster.wallet(cluster.names[0])
        nodes = cluster.addresses()
        patient, physician = [Wallet(secrets.token_bytes(32)).at(hospital.organisation) for _ in range(2)]
        async with (
            open_ledger(cluster.founding, nodes, hospital.account) as custodian,
            open_ledger(cluster.founding, nodes, patient.signing) as wallet,
            open_ledger(cluster.founding, nodes, physician.signing) as ledger,
        ):
            await wallet.submit(register_identity(patient, "patient"), cosigners=[hospital.account])
            await ledger.submit(register_identity(physician, "practitioner"), cosigners=[hospital.account])
            await custodian.submit(issue_credential(physician.did, "physician", 0, 2**50))
            vault, index = await _sealed(cluster, custodian, hospital, patient, folder / "vault")
            now_ms = _now_ms()
            grant, card = grant_consent(patient, physician.did, (), ("TREAT",), now_ms, now_ms + HOUR_MS)
            await wallet.submit(grant)
            yield Ward(cluster, ledger, physician, vault, index, card)


async def _sealed(
    cluster: Cluster, custodian: LedgerClient, hospital: OrganisationWallet, patient: Persona, folder: Path
) -> tuple[Vault, ChartIndex]:
    """Fidel's chart, its keys in capsules of the joint key."""
    capsules = await _until(lambda: capsules_of(custodian), "a joint key")

    async def all_hold() -> bool:
        held = [await cluster.metric(name, "p2pledger_sharing_holds_share") for name in cluster.names]
        return sum(held) == N

    await _until(all_hold, "a share of it at each validator")
    name = next(path for path in (files("p2pledger") / "samples" / "bundles").iterdir() if "Fidel_Bins" in path.name)
    prepared = prepare_bundle(name.read_bytes(), Origin(hospital.custodian, capsules=capsules), patient.patient)
    vault = Vault(folder, hospital.custodian.box)
    await keep_and_commit(custodian, vault, prepared)
    return vault, ChartIndex.of([prepared.manifest])


async def _until(attempt: Callable[[], Awaitable[T | None]], what: str) -> T:
    """What comes in the end; AssertionError where it does not."""
    with trio.move_on_after(PATIENCE_S):
        while not (found := await attempt()):
            await trio.sleep(0.05)
        return found
    raise AssertionError(f"{what} did not come within {PATIENCE_S:g} s")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
