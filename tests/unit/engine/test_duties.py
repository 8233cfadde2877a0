"""One source of nonces for all that a validator's node sends, and what becomes of what is not taken."""

from p2pledger.engine.duties import OFFER_MS
from p2pledger.engine.events import DutiesOwed, Note
from p2pledger.mempool import Mempool
from p2pledger.sim.application import Put
from p2pledger.sim.founding import WALL_START_MS
from tests.unit.engine.test_evidence import FOUNDING, Desk, evidence_of, pair


def owed(desk: Desk, *seats: int) -> list[Note]:
    event = DutiesOwed([evidence_of(pair(seat)) for seat in seats])
    return [effect for effect in desk.duties.on_owed(event) if isinstance(effect, Note)]


def test_evidence_and_other_duties_never_take_one_nonce() -> None:
    """P14: the executor would run one of the two."""
    desk = Desk()
    desk.keep(0)
    owed(desk, 2)
    desk.wait(300)
    owed(desk, 3)
    taken = desk.mempool.take(10)
    assert [one.body.nonce for one in taken] == [1, 2, 3]
    assert {one.body.sender for one in taken} == {desk.key.public}


def test_several_words_are_one_transaction_that_expires() -> None:
    desk = Desk()
    (note,) = owed(desk, 2, 3)
    assert note.name == "duties_offered"
    (taken,) = desk.mempool.take(10)
    assert taken.body.expires_ms == WALL_START_MS + OFFER_MS + FOUNDING.parameters.drift_ms


def test_what_is_not_taken_is_noted_and_its_nonce_stays_free() -> None:
    desk = Desk(mempool=Mempool(transactions_max=1))
    owed(desk, 2)
    (note,) = owed(desk, 3)
    assert note.name == "duties_not_offered"
    assert dict(note.values)["duties"] == "ValidatorEvidence"
    desk.mempool.take(1)
    desk.mempool = Mempool()
    desk.admission.mempool = desk.mempool
    owed(desk, 3)
    assert [one.body.nonce for one in desk.mempool.take(10)] == [2]


def test_what_is_no_duty_is_refused_at_the_door() -> None:
    desk = Desk()
    (note,) = desk.duties.on_owed(DutiesOwed([Put(b"k", b"v")]))  # type: ignore[list-item]
    assert isinstance(note, Note) and note.name == "duties_not_offered"
    assert not len(desk.mempool)
