"""A custodian's vault service and its readers, over real TLS: nothing leaves that the chain does not allow now."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.reading import read_records
from p2pledger.client.tickets import Ticket
from p2pledger.client.vault import Vault, names_of
from p2pledger.client.vault_service import RecordService, VaultSource
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health import access, release
from p2pledger.health.commitments import RecordRef, scope_commit
from p2pledger.health.erasure_operations import EraseDecision, ErasedPart, EraseRequest
from p2pledger.health.operations import ConsentRevoke
from p2pledger.health.release import Moment, ReleaseRequest
from p2pledger.network.certificates import make_certificate
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, NodeId
from p2pledger.vault.connection import VaultAddress
from p2pledger.vault.copies import Copies
from p2pledger.vault.objects import DirectoryStore, Spoiled
from p2pledger.vault.replicas import Replicas
from p2pledger.vault.service import Caller, Handler, VaultService
from p2pledger.vault.wire import Answer, FetchRecords, Question
from tests.attack import Without
from tests.unit.client.readers import CUSTODIAN, Ward
from tests.unit.execution.ledger import id16, key
from tests.unit.health.world import BERG as BERG_ACCOUNT
from tests.unit.health.world import DOCTOR, NURSE, PATIENT, PID

BERG, TAL = key("vault of Berg"), key("vault of Tal")
MEMBERS = {NodeId(BERG.public): id16("Berg"), NodeId(TAL.public): id16("Tal")}
HOST = "127.0.0.1"


@dataclass
class House:
    """Berg's service over a store of its own, beside a copy at Tal; its node is the ward's chain."""

    ward: Ward
    folder: Path
    alarms: list[tuple[RecordRef, Spoiled]] = field(default_factory=list)
    port: int = 0
    copies: DirectoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.own = DirectoryStore(self.folder / "own")
        self.copies = DirectoryStore(self.folder / "copies at Tal")
        self.vault = Vault(self.own, CUSTODIAN.box)
        made = self.ward.prepared
        self.vault.put_batch(made.operation.batch_id, made.sealed_manifest, made.objects)

    async def judge(self, request: ReleaseRequest, reader: AccountKey) -> Code:
        """What the node of Berg says, as `node/release.py` does."""
        chain = self.ward.chain
        decided = access.access_of(request.access_id, chain.state)
        if decided is not None and decided.author != reader:
            return Code.E_ROLE
        parameters = chain.founding.parameters
        moment = Moment(chain.now_ms - 1_000, chain.now_ms - 1_000, parameters.drift_ms, parameters.heartbeat_ms)
        judged = release.may_release(chain.state, chain.chain, request, moment)
        return judged if isinstance(judged, Code) else Code.OK

    @asynccontextmanager
    async def serving(self, *, with_copies: bool = False) -> AsyncIterator[Callable[[SigningKey], VaultSource]]:
        """Its port; makes a source for a reader's key."""
        chain = self.ward.chain.chain
        async with trio.open_nursery() as nursery:
            holders = []
            if with_copies:
                keeper = Copies(NodeId(TAL.public), lambda owner: self.copies, lambda: True)
                service = VaultService(TAL, make_certificate(TAL), chain, MEMBERS, _for_custodians(keeper))
                port = await nursery.start(service.serve, HOST, 0)
                holders.append(VaultAddress("Tal", HOST, port, NodeId(TAL.public)))
            replicas = Replicas(self.own, holders, BERG, chain, 1, self.vault.can_open)
            await replicas.keep(self.vault.wanted())
            records = RecordService(
                self.vault, replicas, self.judge, lambda ref, found: self.alarms.append((ref, found))
            )

            async def answer(caller: Caller, question: Question) -> Answer:
                assert isinstance(question, FetchRecords)
                return await records.fetch(caller.key, question)

            service = VaultService(BERG, make_certificate(BERG), chain, MEMBERS, answer)
            port = await nursery.start(service.serve, HOST, 0)
            address = VaultAddress("Berg", HOST, port, NodeId(BERG.public))
            yield lambda reader: VaultSource(address, reader, chain)
            nursery.cancel_scope.cancel()

    def object_of(self, ref: RecordRef, store: str = "own") -> Path:
        name = names_of(self.ward.prepared.manifest.entry(ref.index))[0].hex()
        return self.folder / store / "objects" / name[:2] / name


def _for_custodians(keeper: Copies) -> Handler:
    async def answer(caller: Caller, question: Question) -> Answer:
        assert caller.organisation is not None
        return await keeper.answer(caller.organisation, question)

    return answer


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    tmp_path.chmod(0o700)
    made = Ward(tmp_path)
    made.consent(made.chart.of_classes("allergy"))
    return made


@pytest.fixture
def allergies(ward: Ward) -> ChartIndex:
    return ward.chart.of_classes("allergy")


@pytest.fixture
def house(ward: Ward, tmp_path: Path) -> House:
    return House(ward, tmp_path / "house")


async def code_of(source: VaultSource, ticket: Ticket, **changes: object) -> Code:
    """OK where records are given."""
    asked = {
        "access_id": ticket.access_id,
        "salt": ticket.salt,
        "scope": ticket.scope,
        "wanted": ticket.scope,
        **changes,
    }
    try:
        await source.fetch(**asked)  # type: ignore[arg-type]
    except Rejected as error:
        return error.code
    return Code.OK


async def test_the_physician_reads_through_the_custodians_service(
    house: House, ward: Ward, allergies: ChartIndex
) -> None:
    """F-09, F-36: seven sealed records from Berg, shares from the validators, and the bytes of the bundle."""
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        reading = await read_records(ledger, source_for(DOCTOR), ticket)
    items = extract_bundle(ward.source)
    assert [record.data for record in reading.records] == [items[ref.index].data for ref in allergies.refs]
    assert house.alarms == []


async def test_nothing_is_given_that_the_chain_does_not_allow_now(
    house: House, ward: Ward, allergies: ChartIndex
) -> None:
    """F-36: each reason by itself; ciphertext and capsule stay where they are."""
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        mine = source_for(DOCTOR)
        assert await code_of(mine, ticket) == Code.OK
        assert await code_of(source_for(NURSE), ticket) == Code.E_ROLE, "another reader's access"
        assert await code_of(source_for(TAL), ticket) == Code.E_ROLE, "its node's key is not its reader's"
        assert await code_of(mine, ticket, salt=bytes(32)) == Code.E_SCOPE
        assert await code_of(mine, ticket, access_id=id16("unknown")) == Code.E_NOT_FOUND
        eighth = next(entry.ref for entry in ward.chart.entries if entry.resource_class != "allergy")
        assert await code_of(mine, ticket, wanted=[eighth]) == Code.E_SCOPE
        assert await code_of(mine, ticket, scope=[*ticket.scope, eighth], wanted=[eighth]) == Code.E_SCOPE
        assert await code_of(mine, ticket, wanted=[ticket.scope[0]] * 2) == Code.E_SCOPE
        assert ward.chain.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
        assert await code_of(mine, ticket) == Code.E_REVOKED


async def test_nothing_of_what_is_being_erased_is_given(house: House, ward: Ward, allergies: ChartIndex) -> None:
    """F-26, F-36: every record of a question is judged; one that is given up keeps the others back."""
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        first, *others, last = ticket.scope
        erase = EraseRequest(id16("erasure"), PID, "custodian", scope_commit(bytes(32), (last,)), 1)
        parts = (ErasedPart(last.batch_id, (last.index,)),)
        assert ward.chain.submit(BERG_ACCOUNT, erase) == Code.OK
        assert (
            ward.chain.submit(BERG_ACCOUNT, EraseDecision(erase.erase_id, "accept", None, parts, bytes(32))) == Code.OK
        )
        assert await code_of(source_for(DOCTOR), ticket) == Code.E_ERASED
        assert await code_of(source_for(DOCTOR), ticket, wanted=[first, *others]) == Code.OK


async def test_an_access_that_has_ended_gives_nothing(house: House, ward: Ward, allergies: ChartIndex) -> None:
    """F-36: past its own end, whatever the consent says."""
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        ward.chain.now_ms += 400 * 24 * 3600 * 1000
        assert await code_of(source_for(DOCTOR), ticket) == Code.E_EXPIRED


async def test_a_lost_store_is_served_from_the_copies(house: House, ward: Ward, allergies: ChartIndex) -> None:
    """F-09: the custodian's own disk is empty; its reader does not notice."""
    async with ward.reader(ward.holders()) as ledger, house.serving(with_copies=True) as source_for:
        ticket = await ward.allowed(ledger, allergies)
        for name in list(house.own.names()):
            house.own.delete(name)
        reading = await read_records(ledger, source_for(DOCTOR), ticket)
        assert len(reading.records) == 7
        house.copies.delete(names_of(ward.prepared.manifest.entry(ticket.scope[0].index))[0])
        with pytest.raises(Unavailable, match=r"E_UNAVAILABLE.*our own store.*Tal"):
            await source_for(DOCTOR).fetch(ticket.access_id, ticket.salt, ticket.scope, ticket.scope)


async def test_a_changed_byte_is_told_and_not_served(house: House, ward: Ward, allergies: ChartIndex) -> None:
    """F-36: without a copy the reader gets E_COMMIT_MISMATCH, with one the record; an alert goes out either way."""
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        ref = ticket.scope[3]
        async with house.serving(with_copies=True) as source_for:
            path = house.object_of(ref)
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            reading = await read_records(ledger, source_for(DOCTOR), ticket)
            assert len(reading.records) == 7
        ((told, spoiled),) = house.alarms
        assert (told, spoiled.name.hex()) == (ref, path.name) and spoiled.found != spoiled.name
        house.own.put(spoiled.name, house.copies.get(spoiled.name))
        async with house.serving() as source_for:
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            assert await code_of(source_for(DOCTOR), ticket) == Code.E_COMMIT_MISMATCH
        assert len(house.alarms) == 2


async def test_records_come_in_as_many_answers_as_they_need(
    house: House, ward: Ward, allergies: ChartIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2pledger.client import vault_service

    monkeypatch.setattr(vault_service, "REPLY_BYTES_MAX", 4_000)
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        found = await source_for(DOCTOR).fetch(ticket.access_id, ticket.salt, ticket.scope, ticket.scope)
    assert [record.ref for record in found] == list(ticket.scope)


@pytest.mark.attack("T70")
async def test_sealed_records_of_somebody_elses_access(
    house: House, ward: Ward, allergies: ChartIndex, without: Without
) -> None:
    """F-36: without the judgement anybody who has heard of an access could have its ciphertexts."""
    async with ward.reader(ward.holders()) as ledger, house.serving() as source_for:
        ticket = await ward.allowed(ledger, allergies)
        with without(RecordService.fetch, "raise Rejected(code"):
            assert await code_of(source_for(NURSE), ticket) == Code.OK
        assert await code_of(source_for(NURSE), ticket) == Code.E_ROLE
