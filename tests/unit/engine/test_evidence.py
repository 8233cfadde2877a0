"""P14: when a node offers what it keeps, with which nonce, how often, and when it stops."""

import pytest
from msgspec.structs import replace

from p2pledger.chain.batch import check_batch, parse_batch, seal
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import Prepare, Signed, statement
from p2pledger.engine.admission import Admission
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.duties import OFFER_MS, Duties
from p2pledger.engine.events import Note, Now, Write
from p2pledger.engine.evidence import Contradiction, Evidence, evidence_of
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.ports import PutJournal
from p2pledger.mempool import Mempool
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import BlockHash, Epoch, Height, Millis, NodeId, Nonce, ValidatorId, View
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

CONSORTIUM = found(4, Parameters(timeout_ms=300))
FOUNDING = CONSORTIUM.founding
OFFER_EVERY_MS = OFFER_MS + FOUNDING.parameters.drift_ms
SEATS = FOUNDING.validators.members
KEYS = {key.public: key for key in (*CONSORTIUM.consensus, *CONSORTIUM.nodes)}


def pair(seat: int) -> EvidenceRecord:
    """What the validator of a seat said twice."""
    author = SEATS[seat].id
    said = [Prepare(Epoch(0), View(0), Height(5), BlockHash(bytes([i]) * 32), author) for i in range(2)]
    return EvidenceRecord(*(Signed(one, KEYS[author].sign(statement(FOUNDING.chain, one))) for one in said))


class Desk:
    """The evidence of the node at a seat, with a real executor and a clock that the test moves."""

    def __init__(self, seat: int = 1, mempool: Mempool | None = None, executor: Executor | None = None) -> None:
        self.application = RegisterApplication()
        self.key: SigningKey = KEYS[SEATS[seat].node]
        if executor is None:
            state = MemoryStateStore()
            state.flush(genesis_flush(self.application, FOUNDING))
            ledger = MemoryLedgerStore(FOUNDING.chain, FOUNDING.header.hash)
            executor = Executor(FOUNDING, self.application, ledger, state)
        self.executor = executor
        self.mempool = Mempool() if mempool is None else mempool
        self.admission = Admission(FOUNDING, self.application, self.executor, self.mempool)
        self.is_ready = True
        self.agenda = Agenda(Now(0, WALL_START_MS))
        self.duties = Duties(FOUNDING, self.key, self.executor, self.admission, self.agenda)
        me = NodeId(self.key.public)
        self.evidence = Evidence(FOUNDING, me, self.duties, self.executor, self.agenda, lambda: self.is_ready)

    def keep(self, *seats: int) -> None:
        for seat in seats:
            list(self.evidence.keep(pair(seat)))

    def wait(self, ms: int) -> list[str]:
        """Let time pass; the names of the notes that are taken on the way."""
        notes: list[str] = []
        end = self.agenda.monotonic_ms + ms
        while (due := self.agenda.next()) is not None and due <= end:
            self.agenda.now = Now(due, WALL_START_MS + due)
            assert self.agenda.take_due() == ["evidence"]
            notes += [effect.name for effect in self.evidence.offer_due() if isinstance(effect, Note)]
        self.agenda.now = Now(end, WALL_START_MS + end)
        return notes

    def offers(self) -> list[Transaction]:
        return self.mempool.take(100)

    def commits(self, *transactions: bytes) -> list[Code]:
        """A block with these; the codes of its receipts."""
        last = self.executor.last
        bodies = []
        if transactions:
            batch = parse_batch(seal(FOUNDING.chain, self.key, self.executor.executed + 1, transactions))
            bodies = [(batch, check_batch(FOUNDING.chain, batch))]
        header = replace(
            last,
            height=Height(last.height + 1),
            parent=last.hash,
            time_ms=Millis(self.agenda.now.wall_ms + 1),
            executed_height=last.executed_height,
        )
        return [Code(one.receipt.code) for one in self.executor.apply(header, bodies).receipts]


def test_what_is_kept_is_durable_and_only_the_first_pair() -> None:
    """P14, P19."""
    desk = Desk()
    assert list(desk.evidence.keep(pair(0))) == [Write(PutJournal(pair(0)))]
    assert list(desk.evidence.keep(pair(0))) == []
    assert dict(desk.evidence.kept) == {SEATS[0].id: pair(0)}


@pytest.mark.parametrize("liar", range(4))
def test_validators_take_turns_from_the_seat_after_the_liars(liar: int) -> None:
    """P14: one base timeout after the other, so that normally the first offer is the only one."""
    for turn in range(4):
        desk = Desk((liar + 1 + turn) % 4)
        desk.keep(liar)
        assert desk.agenda.next() == 300 * turn
        assert desk.wait(300 * turn) == ["evidence_offered"]


def test_an_offer_goes_the_way_of_every_transaction_until_the_chain_knows() -> None:
    """P14: signed with the node key, executed like any other; then nothing is left to do."""
    desk = Desk()
    desk.keep(0)
    assert desk.evidence.known() == [Contradiction(SEATS[0].id, ("prepare", 0, 0, 5), None)]
    desk.wait(0)
    (offer,) = desk.offers()
    assert (offer.body.sender, offer.body.nonce) == (desk.key.public, 1)
    assert desk.commits(offer.data) == [Code.OK]
    assert desk.evidence.known() == [Contradiction(SEATS[0].id, ("prepare", 0, 0, 5), Height(1))]
    assert desk.wait(10 * OFFER_EVERY_MS) == [] and desk.agenda.next() is None


def test_an_offer_that_expired_is_made_again_with_another_nonce() -> None:
    """P14: not before it has expired, and again as long as the chain knows nothing."""
    desk = Desk()
    desk.keep(0)
    assert desk.wait(OFFER_EVERY_MS - 1) == ["evidence_offered"]
    (first,) = desk.offers()
    assert desk.wait(1) == ["evidence_offered"]
    (second,) = desk.offers()
    assert first.body.expires_ms <= second.body.expires_ms - OFFER_EVERY_MS
    assert [first.body.nonce, second.body.nonce] == [1, 2]
    desk.wait(1)
    assert desk.commits(first.data, second.data) == [Code.E_TX_EXPIRED, Code.OK]


def test_whose_turn_comes_when_the_chain_knows_says_nothing() -> None:
    """P14: also when somebody else brought it."""
    desk = Desk(2)
    desk.keep(0)
    other = Desk(1, executor=desk.executor)
    other.keep(0)
    other.wait(0)
    assert desk.commits(*(offer.data for offer in other.offers())) == [Code.OK]
    assert desk.wait(OFFER_EVERY_MS) == [] and desk.offers() == []


def test_after_a_restart_it_goes_on_where_the_state_stands() -> None:
    """P14: what the journal holds and the chain does not is offered, above all nonces that the chain has seen."""
    before = Desk()
    before.keep(0)
    before.wait(0)
    assert before.commits(*(offer.data for offer in before.offers())) == [Code.OK]
    after = Desk(executor=before.executor)
    for seat in (0, 3):
        after.evidence.recall(pair(seat))
    assert after.wait(OFFER_EVERY_MS - 1) == ["evidence_offered"]
    (offer,) = after.offers()
    assert offer.body.nonce == 2
    assert after.commits(offer.data) == [Code.OK]
    assert [one.author for one in after.evidence.known()] == [SEATS[0].id, SEATS[3].id]


def test_several_liars_are_offered_side_by_side() -> None:
    """P14: each with a nonce of its own."""
    desk = Desk()
    desk.keep(0, 2, 3)
    desk.wait(1_000)
    offers = desk.offers()
    assert sorted(offer.body.nonce for offer in offers) == [1, 2, 3]
    assert desk.commits(*(offer.data for offer in offers)) == [Code.OK] * 3


def test_a_node_that_is_catching_up_or_full_offers_later() -> None:
    """P14: the chain may know already what this node's state does not show yet."""
    desk = Desk(mempool=Mempool(transactions_max=1))
    desk.keep(0)
    desk.is_ready = False
    assert desk.wait(1_000) == []
    desk.is_ready = True
    desk.admission.admit(parse(desk_transaction(CONSORTIUM.accounts[0], Put(b"x", b"1"))), desk.agenda.now)
    assert set(desk.wait(1_000)) == {"evidence_not_offered"}
    desk.offers()
    assert desk.wait(300) == ["evidence_offered"]


def test_a_node_without_a_seat_offers_nothing() -> None:
    """P14: it has no account for that."""
    desk = Desk()
    stranger = NodeId(SigningKey(bytes(32)).public)
    evidence = Evidence(FOUNDING, stranger, desk.duties, desk.executor, desk.agenda, lambda: True)
    assert len(list(evidence.keep(pair(0)))) == 1
    assert desk.agenda.next() is None


def desk_transaction(sender: SigningKey, *operations: Record) -> bytes:
    return sign(FOUNDING.chain, sender, Nonce(1), Millis(WALL_START_MS + 60_000), operations)


def test_admission_keeps_duties_and_everything_else_apart() -> None:
    """P14: refused before it costs anybody else anything."""
    desk = Desk()
    evidence, put = evidence_of(pair(0)), Put(b"x", b"1")
    wrong = [(CONSORTIUM.accounts[0], (evidence,)), (desk.key, (put,)), (desk.key, (evidence, put))]
    for sender, operations in wrong:
        with pytest.raises(Rejected) as refused:
            desk.admission.precheck(parse(desk_transaction(sender, *operations)), desk.agenda.now)
        assert refused.value.code == Code.E_ROLE
    for sender, operation in ((CONSORTIUM.accounts[0], put), (desk.key, evidence)):
        desk.admission.precheck(parse(desk_transaction(sender, operation)), desk.agenda.now)


def test_one_statement_twice_is_no_evidence() -> None:
    """P13, P14: a replica that reported it would accuse an honest validator."""
    record = pair(0)
    with pytest.raises(AssertionError):
        list(Desk().evidence.keep(EvidenceRecord(record.first, record.first)))
    assert ValidatorId(SEATS[0].id) == record.first.message.author
