"""Records with one-time secrets: deposited with validators that may lie or be away, and read like any others."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2pledger.client import depositing
from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.custody import one_time_of
from p2pledger.client.depositing import demand_enough, deposit, newest_table
from p2pledger.client.ingest import Capsules, Origin, Prepared, prepare_bundle
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.openings import PORTION_BYTES_MAX, deposit_table, portions, secret_of
from p2pledger.client.patience import Patience
from p2pledger.client.reading import read_records
from p2pledger.client.records import Patient
from p2pledger.client.vault import Vault
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health import deposit_check, release
from p2pledger.health.deposit_operations import DepositAck, bits_of
from p2pledger.health.release import Moment, RecordOpening
from p2pledger.network.api import Deposit, DepositReply, GetShares, Reply, Request, SharesReply
from p2pledger.network.clients import Session
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, Unavailable
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from tests.unit.client.chain import Chain
from tests.unit.client.readers import CUSTODIAN, PATIENT_BOX, Holder, Ward
from tests.unit.client.test_vault_service import House
from tests.unit.fhir.samples import bundle
from tests.unit.health.ceremonies import keepers_of
from tests.unit.health.one_time import announce
from tests.unit.health.one_time import secret_of as deposit_secret_of
from tests.unit.health.world import BERG, DOCTOR, PID

PATIENT_CLIENT = Patience(silence_s=60.0, busy_first_s=0.01, busy_most_s=0.05)
DepositTwist = Callable[["Depositary", DepositReply], Awaitable[DepositReply]]
"""What a validator makes of its honest answer to a deposit, before it acknowledges."""


class Depositary(Holder):
    """A node with its validator's deposit key: what `node/deposits.py` and `node/release.py` do, on this chain."""

    deposits: DepositTwist | None = None
    acknowledges = True

    @property
    def holder(self) -> OneTimeHolder:
        assert isinstance(self.ward, OneTimeWard)
        return OneTimeHolder(self.ward.table.release, deposit_secret_of(self.keeper))

    ward: "OneTimeWard"

    async def _answer(self, session: Session, request: Request) -> Reply:
        if isinstance(request, Deposit):
            return await self._deposited(session, request)
        return await super()._answer(session, request)

    async def _deposited(self, session: Session, question: Deposit) -> Reply:
        work = deposit_check.to_check(self.chain.state, self.chain.chain, session.account, question.openings)
        if isinstance(work, Code):
            raise Rejected(work, "no deposit")
        good = deposit_check.good_of(work, self.holder)
        bad = tuple(sorted({one.label.index for one in work.shown}.difference(good)))
        reply = DepositReply(question.id, self.keeper.validator, work.table.number, bad)
        if self.deposits is not None:
            reply = await self.deposits(self, reply)
        if good and self.acknowledges:
            said = DepositAck(work.batch_id, work.table.number, bits_of(good))
            self.chain.submit(self.keeper.node, said)  # again and again is refused, and does no harm
            self.chain.tick()
        return reply

    def _shares(self, session: Session, question: GetShares) -> SharesReply:
        chain, request = self.chain, question.request
        now = chain.now_ms - 1_000
        entries = release.may_release(chain.state, chain.chain, request, Moment(now, now, 0, 0))
        if isinstance(entries, Code):
            raise Rejected(entries, "no share")
        shares = release.shares_of(
            entries, [opening.capsule for opening in request.openings], self.holder, self._random
        )
        holder = self.holder
        return SharesReply(question.id, self.keeper.validator, holder.index, 0, holder.table, shares)


def small_chart() -> bytes:
    """Fidel himself, his seven allergies and his two immunisations."""
    whole = json.loads(bundle("Fidel_Bins"))
    kinds = {"Patient", "AllergyIntolerance", "Immunization"}
    whole["entry"] = [entry for entry in whole["entry"] if entry["resource"]["resourceType"] in kinds]
    return json.dumps(whole).encode()


class OneTimeWard(Ward):
    """Some of Fidel's records at Berg, committed to, and not yet deposited."""

    def __post_init__(self) -> None:
        self.keepers = keepers_of(self.chain)
        self.table = announce(self.chain, self.keepers)
        self.take_in(self.table.release)

    def take_in(self, among: OneTime) -> None:
        """Seal, keep, commit."""
        origin = Origin(CUSTODIAN, capsules=Capsules(among, 0, self.chain.chain))
        self.source = small_chart()
        self.prepared: Prepared = prepare_bundle(self.source, origin, Patient(PID, PATIENT_BOX.public))
        self.vault = Vault(self.folder / "vault", CUSTODIAN.box)
        self.vault.put_batch(self.prepared.operation.batch_id, self.prepared.sealed_manifest, self.prepared.objects)
        assert self.chain.submit(BERG, self.prepared.operation) == Code.OK
        self.chart = ChartIndex.of([self.prepared.manifest])
        self.chain.tick()

    @property
    def records(self) -> int:
        return len(self.prepared.manifest.entries)

    @property
    def batch_id(self) -> bytes:
        return self.prepared.operation.batch_id

    def depositaries(self, **twists: Callable[[Holder, SharesReply], Awaitable[SharesReply]]) -> dict[str, Depositary]:
        """A node of each validator by name; some release what they are told."""
        by_validator = {card.validator: card.name for card in self.chain.founding.genesis.cards}
        found = {}
        for keeper in self.keepers:
            name = by_validator[keeper.validator]
            found[name] = Depositary(self.chain, keeper, name, twists.get(name))
            found[name].ward = self
        return found

    async def deposited(self, ledger: LedgerClient, wait_s: float = 20.0) -> depositing.Deposited:
        return await deposit(ledger, self.vault, self.batch_id, wait_s)


@pytest.fixture
def ward(tmp_path: Path) -> OneTimeWard:
    made = OneTimeWard(tmp_path, Chain())
    made.consent(made.chart.of_classes("allergy"))
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stragglers are waited for as long as in life; a test need not watch."""
    monkeypatch.setattr(depositing, "STRAGGLERS_S", 0.2)
    monkeypatch.setattr(depositing, "POLL_S", 0.02)


def nodes(found: dict[str, Depositary]) -> list[Depositary]:
    return list(found.values())


async def wrong(holder: Holder, reply: SharesReply) -> SharesReply:
    """Shares with a changed byte."""
    return replace(reply, shares=tuple(share[:-1] + bytes([share[-1] ^ 1]) for share in reply.shares))


async def behind(holder: Depositary, reply: DepositReply) -> DepositReply:
    raise Rejected(Code.E_NOT_FOUND, "no such batch here")


async def test_a_chart_is_deposited_and_read(ward: OneTimeWard) -> None:
    found = ward.depositaries()
    async with ward.reader(nodes(found), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
        demand_enough(done)
        assert (done.records, done.threshold, done.open) == (ward.records, 3, 0)
        assert [(one.acknowledged, one.reason) for one in done.custody] == [(ward.records, "")] * 4
        assert {one.organisation for one in done.custody} == {"Berg", "Tal", "See", "Wald"}
        again = await ward.deposited(ledger)
        assert again == done, "doing it again changes nothing"
    allergies = ward.chart.of_classes("allergy")
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        read = await read_records(ledger, ward.own, ticket)
    source = extract_bundle(ward.source)
    assert [record.data for record in read.records] == [source[ref.index].data for ref in allergies.refs]
    assert read.blamed == ()


async def test_before_the_deposit_no_reader_gets_anything(ward: OneTimeWard) -> None:
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT) as ledger:
        ticket = await ward.allowed(ledger, ward.chart.of_classes("allergy"))
        with pytest.raises(Rejected, match="E_DEAL"):
            await read_records(ledger, ward.own, ticket)


async def test_a_vault_service_hands_out_what_is_deposited(ward: OneTimeWard, tmp_path: Path) -> None:
    """Its own node judges as the validators do: sealed bytes, too, wait for the acknowledgements."""
    allergies = ward.chart.of_classes("allergy")
    async with House(ward, tmp_path).serving() as source_of:
        async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT) as ledger:
            ticket = await ward.allowed(ledger, allergies)
            with pytest.raises(Rejected, match="E_DEAL"):
                await source_of(DOCTOR).fetch(ticket.access_id, ticket.salt, ticket.scope, ticket.scope)
        async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT, BERG) as ledger:
            demand_enough(await ward.deposited(ledger))
        async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT) as ledger:
            read = await read_records(ledger, source_of(DOCTOR), ticket)
    assert [record.ref for record in read.records] == list(allergies.refs)


async def test_a_lying_holder_is_named_and_the_others_are_enough(ward: OneTimeWard) -> None:
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT, BERG) as ledger:
        demand_enough(await ward.deposited(ledger))
    async with ward.reader(nodes(ward.depositaries(Tal=wrong)), PATIENT_CLIENT) as ledger:
        ticket = await ward.allowed(ledger, ward.chart.of_classes("allergy"))
        for _ in range(4):  # whether the liar is among the first three to answer is chance
            read = await read_records(ledger, ward.own, ticket)
            assert len(read.records) == 7
            assert {blame.organisation for blame in read.blamed} <= {"Tal"}
    async with ward.reader(nodes(ward.depositaries(Tal=wrong, Wald=wrong)), PATIENT_CLIENT) as ledger:
        with pytest.raises(Unavailable, match=r"2 validators sent good shares, 3 are needed") as failed:
            await read_records(ledger, ward.own, ticket)
    for name in ("Tal", "Wald"):
        assert f"{name}: sent a wrong share for record" in str(failed.value)


async def test_one_who_is_away_is_named_and_not_needed(ward: OneTimeWard) -> None:
    found = ward.depositaries()
    found["Wald"].deposits = behind
    async with ward.reader(nodes(found), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
    demand_enough(done)
    assert [(one.organisation, one.acknowledged, one.reason) for one in done.custody if one.reason] == [
        ("Wald", 0, "E_NOT_FOUND: no such batch here")
    ]


async def test_with_two_away_it_is_not_enough_and_goes_on_later(ward: OneTimeWard) -> None:
    found = ward.depositaries()
    found["Tal"].deposits = found["Wald"].deposits = behind
    async with ward.reader(nodes(found), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
        assert done.open == ward.records
        with pytest.raises(Unavailable, match=f"record deposit {ward.batch_id.hex()}") as failed:
            demand_enough(done)
        assert f"E_DEAL: {ward.records} of {ward.records}" in str(failed.value)
        for name in ("Tal", "Wald"):
            assert f"{name}: E_NOT_FOUND: no such batch here" in str(failed.value)
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT, BERG) as ledger:
        demand_enough(await ward.deposited(ledger))


async def test_who_accepts_and_never_acknowledges_is_named(ward: OneTimeWard) -> None:
    found = ward.depositaries()
    found["See"].acknowledges = False
    async with ward.reader(nodes(found), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
    demand_enough(done)
    (late,) = [one for one in done.custody if one.reason]
    assert (late.organisation, late.reason) == ("See", "took them, and the chain has no acknowledgement yet")


async def test_who_answers_for_another_validator_is_named(ward: OneTimeWard) -> None:
    async def as_another(holder: Depositary, reply: DepositReply) -> DepositReply:
        return replace(reply, validator=bytes(32))

    found = ward.depositaries()
    found["See"].deposits = as_another
    found["See"].acknowledges = False
    async with ward.reader(nodes(found), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
    (liar,) = [one for one in done.custody if one.reason]
    assert liar.organisation == "See" and "which is not its own" in liar.reason


class BadlyDealt(OneTimeWard):
    """Sealed to keys of which some are not those of their validators."""

    bad = 1

    def take_in(self, among: OneTime) -> None:
        strange = [deposit_secret_of(keeper, "another").public for keeper in self.keepers[: self.bad]]
        super().take_in(OneTime([*strange, *among.boxes[self.bad :]], among.threshold, among.table))


class WorseDealt(BadlyDealt):
    bad = 2


async def test_boxes_that_do_not_open_are_told_to_the_writer(tmp_path: Path) -> None:
    """f of them do no harm; with more nothing is acknowledged by t, and no reader is let down later."""
    ward = BadlyDealt(tmp_path, Chain())
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
    demand_enough(done)
    assert [(one.acknowledged, one.reason) for one in done.custody] == [
        (0, f"its shares of {ward.records} records do not fit"),
        *[(ward.records, "")] * 3,
    ]


async def test_boxes_of_more_than_f_that_do_not_open(tmp_path: Path) -> None:
    ward = WorseDealt(tmp_path, Chain())
    ward.consent(ward.chart.of_classes("allergy"))
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT, BERG) as ledger:
        done = await ward.deposited(ledger)
    assert done.open == ward.records
    with pytest.raises(Unavailable, match="do not fit"):
        demand_enough(done)
    async with ward.reader(nodes(ward.depositaries()), PATIENT_CLIENT) as ledger:
        ticket = await ward.allowed(ledger, ward.chart.of_classes("allergy"))
        with pytest.raises(Rejected, match="E_DEAL"):
            await read_records(ledger, ward.own, ticket)


async def test_a_batch_for_the_joint_key_has_nothing_to_deposit(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    async with ward.reader(ward.holders(), PATIENT_CLIENT, BERG) as ledger:
        with pytest.raises(InvalidInput, match="nothing to deposit"):
            await deposit(ledger, ward.vault, ward.prepared.operation.batch_id)


async def test_nothing_is_sealed_before_enough_have_announced(tmp_path: Path) -> None:
    """And what is proven says how many."""
    chain = Chain()
    ward = Ward(tmp_path, chain)
    async with ward.reader(ward.holders(), PATIENT_CLIENT, BERG) as ledger:
        with pytest.raises(Unavailable, match="0 validators have announced a deposit key"):
            await one_time_of(ledger)
        announce(chain, ward.keepers[:2])
        chain.tick()
        with pytest.raises(Unavailable, match=r"2 validators have announced .* 3 are needed"):
            await one_time_of(ledger)
        announce(chain, ward.keepers[2:3])
        chain.tick()
        capsules = await one_time_of(ledger)
        assert (capsules.key_epoch, capsules.is_one_time) == (0, True)
        with pytest.raises(Unavailable, match="no deposit table 9 yet"):
            await deposit_table(ledger, 9)
    async with ward.reader(ward.holders()[:2], PATIENT_CLIENT, BERG) as ledger:
        with pytest.raises(InvalidInput, match=r"3 validators must be shown .* Wald are not known .* --node"):
            await one_time_of(ledger)
    async with ward.reader(ward.holders(), PATIENT_CLIENT, DOCTOR) as ledger:
        table = await newest_table(ledger)
        assert table is not None and table.number == 3, "readers may ask for tables, too"


def test_portions_fit_into_a_question_and_lose_nothing(ward: OneTimeWard) -> None:
    openings = ward.vault.openings(ward.batch_id)
    large = [replace(opening, capsule=opening.capsule.ljust(6_000, b"\0"), key_epoch=2) for opening in openings]
    mixed: list[RecordOpening] = [*openings, *large * 30, *openings * 30]
    found = list(portions(mixed))
    assert sorted(place for portion in found for place in portion) == list(range(len(mixed)))
    for portion in found:
        assert len(portion) <= limits.RELEASE_RECORDS_MAX
        assert sum(len(encode(mixed[place])) for place in portion) <= PORTION_BYTES_MAX
        assert len({secret_of(mixed[place]) for place in portion}) == 1
    assert len(found) > 2, "large ones and one-time ones are asked for apart"


def test_what_is_no_one_time_capsule_is_named(ward: OneTimeWard) -> None:
    spoiled = replace(ward.vault.openings(ward.batch_id)[3], capsule=b"nothing")
    with pytest.raises(Rejected, match=f"E_CAPSULE: record {ward.batch_id.hex()}/3: no one-time capsule"):
        list(portions([spoiled]))
