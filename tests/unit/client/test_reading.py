"""F-09, issue point 3: a reader opens what it was allowed, with the shares of any t validators, and blames who lies."""

import dataclasses
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from p2pledger.client import reading
from p2pledger.client.chart_index import ChartIndex
from p2pledger.client.health import decision_of
from p2pledger.client.keyring import Persona
from p2pledger.client.ledger import Patience
from p2pledger.client.reading import Blame, Changed, OwnVault, ask_for, read_records, tell
from p2pledger.client.records import SealedRecord
from p2pledger.client.tickets import Tickets
from p2pledger.fhir.spans import extract_bundle
from p2pledger.health.commitments import RecordRef
from p2pledger.health.integrity import alerts_of, decode_alert
from p2pledger.health.operations import ConsentRevoke
from p2pledger.network.api import SharesReply
from p2pledger.primitives.errors import Code, ConfigError, InvalidInput, Rejected, Unavailable
from p2pledger.threshold.dkg import CeremonyId
from tests.attack import Check, Without
from tests.unit.client.readers import PATIENT_BOX, PHYSICIAN, Holder, Ward
from tests.unit.execution.ledger import id16
from tests.unit.health.ceremonies import hold
from tests.unit.health.world import DAY_MS, EMERGENCY, PATIENT, PID, TAL

ENDLESS = Patience(silence_s=1e6, busy_first_s=0.01, busy_most_s=0.05, total_s=1e6)
"""Who waits for a straggler with this never gets anything."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    folder.chmod(0o700)
    ward = Ward(folder)
    ward.consent(ward.chart.of_classes("allergy"))
    return ward


@pytest.fixture
def ward(made: Ward) -> Ward:
    return made


@pytest.fixture
def allergies(ward: Ward) -> ChartIndex:
    return ward.chart.of_classes("allergy")


async def wrong(holder: Holder, reply: SharesReply) -> SharesReply:
    """Shares with a changed byte."""
    return replace(reply, shares=tuple(share[:-1] + bytes([share[-1] ^ 1]) for share in reply.shares))


async def silent(holder: Holder, reply: SharesReply) -> SharesReply:
    await trio.sleep_forever()
    return reply


async def busy_elsewhere(holder: Holder, reply: SharesReply) -> SharesReply:
    raise Rejected(Code.E_NO_SHARE, "this node holds no share")


async def test_the_physician_reads_exactly_the_seven_allergies(ward: Ward, allergies: ChartIndex) -> None:
    """From the request to the bytes of the bundle; a line of the log says so."""
    seen: list[tuple[int, int]] = []
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        read = await read_records(ledger, ward.own, ticket, progress=lambda *done: seen.append(done))
    source = extract_bundle(ward.source)
    assert [record.ref for record in read.records] == list(allergies.refs)
    assert [record.data for record in read.records] == [source[ref.index].data for ref in allergies.refs]
    assert {source[ref.index].resource_type for ref in allergies.refs} == {"AllergyIntolerance"}
    assert read.blamed == ()
    assert seen[-1] == (7, 7)
    assert ward.chain.log()[-1].access_id == ticket.access_id


async def test_an_eighth_record_stays_closed(ward: Ward, allergies: ChartIndex) -> None:
    """The vault may hand out its bytes; no validator gives a share of its key."""
    eighth = next(entry.ref for entry in ward.chart.entries if entry.resource_class != "allergy")
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        with pytest.raises(Rejected, match="E_SCOPE"):
            await read_records(ledger, ward.own, ticket, [eighth])
        both = dataclasses.replace(allergies, entries=(*allergies.entries, *ward.chart.of_records([eighth]).entries))
        operation, _ = ask_for(PHYSICIAN, ward.chain.chain, both, "TREAT", ward.chain.now_ms + DAY_MS)
        await ledger.submit(operation)
        assert ward.chain.log()[-1].decision == Code.E_SCOPE


async def test_a_reader_that_hides_a_record_among_others_is_refused_by_the_validators(
    ward: Ward, allergies: ChartIndex
) -> None:
    """F-05: the request speaks of allergies only, its list has something else in it; the leaf tells."""
    eighth = next(entry for entry in ward.chart.entries if entry.resource_class != "allergy")
    disguised = dataclasses.replace(eighth, compartments=allergies.entries[0].compartments, labels=())
    part = dataclasses.replace(allergies, entries=(*allergies.entries, disguised))
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, part)
        assert len((await read_records(ledger, ward.own, ticket, allergies.refs)).records) == 7
        with pytest.raises(Rejected, match="E_SCOPE"):
            await read_records(ledger, ward.own, ticket, [eighth.ref])


async def test_who_sends_wrong_shares_is_named_and_does_no_harm(ward: Ward, allergies: ChartIndex) -> None:
    async with ward.reader(ward.holders(Tal=wrong)) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        for _ in range(4):  # whether the liar is among the first three to answer is chance
            read = await read_records(ledger, ward.own, ticket)
            assert len(read.records) == 7
            assert {blame.organisation for blame in read.blamed} <= {"Tal"}
    holders = ward.holders(Tal=wrong, Wald=busy_elsewhere)
    async with ward.reader(holders) as ledger:
        with pytest.raises(Unavailable, match=r"2 validators sent good shares, 3 are needed") as failed:
            await read_records(ledger, ward.own, ticket)
        assert "Tal: sent a wrong share for record" in str(failed.value)
        assert "Wald: refuses, E_NO_SHARE" in str(failed.value)


async def test_shares_under_another_index_or_of_another_sharing_are_named(ward: Ward, allergies: ChartIndex) -> None:
    async def of_another(holder: Holder, reply: SharesReply) -> SharesReply:
        return replace(reply, index=reply.index % 4 + 1)

    async def outdated(holder: Holder, reply: SharesReply) -> SharesReply:
        return replace(reply, share_epoch=7)

    async with ward.reader(ward.holders(Tal=of_another, See=outdated)) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        with pytest.raises(Unavailable) as failed:
            await read_records(ledger, ward.own, ticket)
    assert "Tal: says to hold share" in str(failed.value)
    assert "See: sends shares of sharing 1.7, proven is 1.0" in str(failed.value)


async def test_a_key_is_asked_for_once_and_again_when_it_was_shared_anew(tmp_path: Path) -> None:
    """A reader at work asks for shares and nothing else; that there are new ones, the validators' answers tell it."""
    tmp_path.chmod(0o700)
    ward = Ward(tmp_path)
    allergies = ward.chart.of_classes("allergy")
    ward.consent(allergies)
    holders = ward.holders()
    async with ward.reader(holders) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        await read_records(ledger, ward.own, ticket)
        asked = sum(holder.states for holder in holders)
        await read_records(ledger, ward.own, ticket)
        assert sum(holder.states for holder in holders) == asked
        active = hold(ward.chain, CeremonyId(1, 1, 0), ward.keepers)
        ward.chain.tick()
        reading = await read_records(ledger, ward.own, ticket)
    assert active.key.share_epoch == 1
    assert len(reading.records) == 7
    assert not reading.blamed, "who has new shares is no liar"
    assert sum(holder.states for holder in holders) > asked


async def test_a_straggler_is_not_waited_for(ward: Ward, allergies: ChartIndex) -> None:
    async with ward.reader(ward.holders(Berg=silent), ENDLESS) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        read = await read_records(ledger, ward.own, ticket)
    assert len(read.records) == 7


async def test_fewer_than_t_open_nothing_and_the_missing_are_named(ward: Ward, allergies: ChartIndex) -> None:
    async with ward.reader(ward.holders(Berg=silent, Wald=busy_elsewhere)) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        with pytest.raises(Unavailable, match="E_UNAVAILABLE") as failed:
            await read_records(ledger, ward.own, ticket)
    assert "Berg: no answer in time" in str(failed.value)
    assert "Wald: refuses, E_NO_SHARE" in str(failed.value)


@pytest.mark.parametrize("part", ["object", "capsule", "salt"])
async def test_a_changed_byte_is_found(ward: Ward, allergies: ChartIndex, part: str) -> None:
    """E_COMMIT_MISMATCH names the record, what was committed to and what was found."""
    asked: list[int] = []

    class Spoiled(OwnVault):
        async def fetch(
            self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
        ) -> tuple[SealedRecord, ...]:
            first, *others = await super().fetch(access_id, salt, scope, wanted)
            data = getattr(first, part)
            return replace(first, **{part: data[:-1] + bytes([data[-1] ^ 1])}), *others

    holders = ward.holders()
    async with ward.reader(holders) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        with pytest.raises(Changed, match="E_COMMIT_MISMATCH") as failed:
            await read_records(ledger, Spoiled(ward.vault), ticket)
        await tell(ledger, ticket, failed.value)
        await tell(ledger, ticket, failed.value)
    asked += [holder.asked for holder in holders]
    assert failed.value.ref == allergies.refs[0]
    assert failed.value.expected != failed.value.found
    assert any(asked) == (part == "salt"), "what hashes show already is found before anybody is asked"
    alerts = [decode_alert(data) for data in alerts_of(PID, ward.chain.state)]
    (told,) = (one for one in alerts if one.terms.index == failed.value.ref.index)
    assert told.author == PHYSICIAN.account, "one alert of each reader about a record is enough"


async def test_another_record_in_place_of_one_is_no_answer(ward: Ward, allergies: ChartIndex) -> None:
    class Swapping(OwnVault):
        async def fetch(
            self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
        ) -> tuple[SealedRecord, ...]:
            one, other, *rest = await super().fetch(access_id, salt, scope, wanted)
            return replace(one, proof=other.proof), replace(other, proof=one.proof), *rest

    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        with pytest.raises(InvalidInput, match="answered with the leaf of record"):
            await read_records(ledger, Swapping(ward.vault), ticket)


async def test_a_revocation_after_the_receipt_ends_it(tmp_path: Path) -> None:
    """I-2: the code in which the validators refuse is what the reader is told."""
    tmp_path.chmod(0o700)
    ward = Ward(tmp_path)
    allergies = ward.chart.of_classes("allergy")
    ward.consent(allergies)
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        assert ward.chain.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
        ward.chain.tick()
        with pytest.raises(Rejected, match="E_REVOKED: 4 validators refuse"):
            await read_records(ledger, ward.own, ticket)


async def test_broken_glass_opens_records_with_a_second_signature(tmp_path: Path) -> None:
    """F-15: the reason and a colleague's signature are judged again by each validator; no consent is needed."""
    tmp_path.chmod(0o700)
    ward = Ward(tmp_path)
    assert ward.chain.credential("doctor", TAL, role="paramedic", groups=(EMERGENCY,)) == Code.OK
    part = ward.chart.of_classes("medication")
    async with ward.reader(ward.holders()) as ledger:
        operation, ticket = ask_for(
            PHYSICIAN, ward.chain.chain, part, "BTG", ward.chain.now_ms + DAY_MS, reason=b"unconscious"
        )
        decided = decision_of((await ledger.submit(operation, cosigners=[TAL])).executed)
        assert decided.is_allowed and decided.basis == "btg"
        read = await read_records(ledger, ward.own, ticket)
    assert len(read.records) == len(part.entries)


async def test_a_patient_reads_its_own_by_shares_as_well(ward: Ward, allergies: ChartIndex) -> None:
    """F-12: nobody's consent is asked, though its own box key would do."""
    owner = Persona(id16("Berg"), PID, PATIENT, PATIENT_BOX)
    async with ward.reader(ward.holders(), account=PATIENT) as ledger:
        operation, ticket = ask_for(owner, ward.chain.chain, allergies, "PATRQT", ward.chain.now_ms + DAY_MS)
        assert decision_of((await ledger.submit(operation)).executed).basis == "owner"
        assert len((await read_records(ledger, ward.own, ticket)).records) == 7


# A vault that lies


class Lying(OwnVault):
    """Gives something else in place of the first record."""

    def __init__(self, ward: Ward, lie: Callable[[SealedRecord, SealedRecord], SealedRecord]) -> None:
        super().__init__(ward.vault)
        self._lie = lie

    async def fetch(
        self, access_id: bytes, salt: bytes, scope: Sequence[RecordRef], wanted: Sequence[RecordRef]
    ) -> tuple[SealedRecord, ...]:
        first, second, *others = await super().fetch(access_id, salt, scope, wanted)
        return self._lie(first, second), second, *others


def another_record(first: SealedRecord, second: SealedRecord) -> SealedRecord:
    """The second one in the first one's place, whole and opened by its own shares."""
    return replace(second, ref=first.ref)


def another_salt(first: SealedRecord, second: SealedRecord) -> SealedRecord:
    return replace(first, salt=second.salt)


@pytest.mark.attack("T75")
@pytest.mark.parametrize(
    ("lie", "check", "says"),
    [
        (another_salt, Check(reading._as_committed, "if found != expected"), "its content"),
        (another_record, Check(reading._check_answer, "if leaf.index != one.ref.index"), "the leaf of record"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_vault_that_gives_something_else(
    ward: Ward,
    allergies: ChartIndex,
    lie: Callable[[SealedRecord, SealedRecord], SealedRecord],
    check: Check,
    says: str,
    without: Without,
) -> None:
    """Without its one check the reader takes what it is given, or asks validators about it."""

    async def read() -> int:
        async with ward.reader(ward.holders()) as ledger:
            ticket = await ward.allowed(ledger, allergies)
            try:
                found = await read_records(ledger, Lying(ward, lie), ticket)
            except Rejected as error:
                assert error.code in (Code.E_COMMIT_MISMATCH, Code.E_SCOPE, Code.E_CAPSULE)
                return 0
            return len(found.records)

    with without(*check):
        trio.run(read)
    with pytest.raises(InvalidInput, match=says):
        trio.run(refused, ward, allergies, lie)


async def refused(ward: Ward, allergies: ChartIndex, lie: Callable[[SealedRecord, SealedRecord], SealedRecord]) -> None:
    async with ward.reader(ward.holders()) as ledger:
        ticket = await ward.allowed(ledger, allergies)
        try:
            await read_records(ledger, Lying(ward, lie), ticket)
        except InvalidInput as error:
            said = error
        else:
            return
    raise said


# Tickets and tables of contents


async def test_a_ticket_is_kept_for_its_reader_alone_and_is_gone_afterwards(
    ward: Ward, allergies: ChartIndex, tmp_path: Path
) -> None:
    tickets = Tickets(tmp_path / "accesses")
    _, ticket = ask_for(PHYSICIAN, ward.chain.chain, allergies, "TREAT", 1)
    tickets.keep(ticket)
    (path,) = (tmp_path / "accesses").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tickets.load(ticket.access_id) == ticket
    assert tickets.all() == [ticket]
    assert ticket.secret.hex() not in repr(ticket)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        tickets.load(ticket.access_id)
    tickets.forget(ticket.access_id)
    tickets.forget(ticket.access_id)
    with pytest.raises(Rejected, match="E_NOT_FOUND"):
        tickets.load(ticket.access_id)


def test_a_table_of_contents_is_written_and_read(ward: Ward) -> None:
    text = ward.chart.dump()
    assert ChartIndex.load(text) == ward.chart
    assert len(ward.chart.entries) == 182
    entry = ward.prepared.manifest.entries[0]
    assert entry.resource_id is not None and entry.resource_id not in text
    assert entry.salt.hex() not in text
    for broken in ("{", "[]", "{}", text.replace("chart-index/1", "chart-index/2"), text.replace("/0", "/x", 1)):
        with pytest.raises(InvalidInput, match="not a chart index"):
            ChartIndex.load(broken)
    with pytest.raises(InvalidInput, match="no record of class fairy-tale"):
        ward.chart.of_classes("fairy-tale")
    with pytest.raises(InvalidInput, match="does not list record"):
        ward.chart.of_records([RecordRef(id16("other"), 0)])


def test_a_request_declares_what_it_is_told_to(ward: Ward, allergies: ChartIndex) -> None:
    chain = ward.chain.chain
    short, _ = ask_for(PHYSICIAN, chain, allergies, "TREAT", 1)
    assert (short.classes, short.months, short.authors, short.records, short.encounters) == ((), None, (), (), ())
    full, ticket = ask_for(PHYSICIAN, chain, allergies, "TREAT", 1, declared=True, by_name=True)
    assert full.classes == (allergies.entries[0].class_handle,)
    assert full.months is not None and full.months[0] <= full.months[1]
    assert len(full.records) == 7 and full.authors
    assert ticket.access.reader == full.reader_eph_x25519
    with pytest.raises(InvalidInput, match="no record"):
        ask_for(PHYSICIAN, chain, dataclasses.replace(allergies, entries=()), "TREAT", 1)


def test_a_blame_reads_as_a_sentence() -> None:
    assert str(Blame("Tal", "sent a wrong share")) == "Tal: sent a wrong share"
