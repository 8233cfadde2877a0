"""Steps 6 and 8: a reader opens what the chain allows, nothing beside it, and nothing after the end."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from msgspec.structs import replace

from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.export import code_name
from p2pledger.client.health import ConsentCard, compartments_of, decision_of, grant_consent
from p2pledger.client.reading import OwnVault, ask_for, read_records
from p2pledger.client.records import Manifest
from p2pledger.client.tickets import Ticket
from p2pledger.client.vault_service import VaultSource
from p2pledger.demo.records import bundle_of
from p2pledger.demo.service import Served
from p2pledger.demo.stage import A, B, Stage, block_time_passes, client_of, now_ms, refusal
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Millis

CONSENT_MS = 8_000
"""Long enough to read in, also on a busy machine; short enough to wait for its end."""
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Read:
    """An access that was used, under a consent that ends soon."""

    ticket: Ticket
    index: ChartIndex
    card: ConsentCard
    ends_ms: Millis


async def read_allergies(stage: Stage, manifest: Manifest, served: Served) -> Read:
    """The doctor reads the seven allergies, and fails at an eighth record."""
    narrator, doctor, patient = stage.narrator, stage.doctor, stage.patient[A]
    narrator.step(6, "The emergency doctor reads: request, receipt, shares of three validators, record")
    assert doctor is not None
    allergies = ChartIndex.of([manifest]).of_classes("allergy")
    compartments = compartments_of(manifest, "allergy")
    async with AsyncExitStack() as stack:
        wallet = await client_of(stack, stage, patient.signing, A)
        ledger = await client_of(stack, stage, doctor.signing, B)
        service = VaultSource(await served.address(), doctor.signing, ledger.founding.chain)
        ends_ms = Millis(now_ms() + CONSENT_MS)
        grant, card = grant_consent(patient, doctor.did, compartments, ("ETREAT",), now_ms(), ends_ms)
        await stage.submit(wallet, grant)
        request, ticket = ask_for(doctor, ledger.founding.chain, allergies, "ETREAT", now_ms() + HOUR_MS, card=card)
        decided = decision_of((await stage.submit(ledger, request)).executed)
        narrator.check(
            f"the doctor asks for {len(allergies.refs)} allergies: ALLOWED",
            decided.decision == Code.OK,
            f"under a consent of {CONSENT_MS // 1000} seconds",
        )
        reading = await read_records(ledger, service, ticket)
        whole = bundle_of("Fidel_Bins")
        narrator.check(
            "7 records open, as committed to on the chain, byte for byte as the hospital got them",
            len(reading.records) == 7 and not reading.blamed and all(one.data in whole for one in reading.records),
        )
        eighth = next(ref for ref in map(manifest.ref, range(len(manifest.entries))) if ref not in allergies.refs)
        greedy = replace(ticket, scope=(*ticket.scope, eighth))
        found = await refusal(read_records(ledger, service, greedy, [eighth]))
        narrator.check(f"an eighth record: the hospital's vault refuses, {code_name(found)}", found == Code.E_SCOPE)
        found = await refusal(read_records(ledger, OwnVault(stage.vault(A)), greedy, [eighth]))
        narrator.check(
            f"with the sealed bytes of it in hand: the validators refuse, {code_name(found)}", found == Code.E_SCOPE
        )
    return Read(ticket, allergies, card, ends_ms)


async def read_after_the_end(stage: Stage, read: Read, served: Served) -> None:
    """The very same request, once the chain's time has passed the end of its consent."""
    narrator, doctor = stage.narrator, stage.doctor
    narrator.step(8, "The doctor's consent has ended by the chain's own time")
    assert doctor is not None
    async with AsyncExitStack() as stack:
        ledger = await client_of(stack, stage, doctor.signing, B)
        height, block_ms = await block_time_passes(ledger, read.ends_ms)
        narrator.check(
            "the consent is over, with no transaction of anybody",
            block_ms >= read.ends_ms,
            f"block {height}, {block_ms - read.ends_ms} ms after its end",
        )
        service = VaultSource(await served.address(), doctor.signing, ledger.founding.chain)
        found = await refusal(read_records(ledger, service, read.ticket))
        narrator.check(f"the access of step 6 again: the vault refuses, {code_name(found)}", found == Code.E_EXPIRED)
        found = await refusal(read_records(ledger, OwnVault(stage.vault(A)), read.ticket))
        narrator.check(f"and so do the validators, {code_name(found)}", found == Code.E_EXPIRED)
        request, _ = ask_for(doctor, ledger.founding.chain, read.index, "ETREAT", now_ms() + HOUR_MS, card=read.card)
        decided = decision_of((await stage.submit(ledger, request)).executed)
        narrator.check(
            f"a new request under it: DENIED({code_name(decided.decision)})", decided.decision == Code.E_EXPIRED
        )
