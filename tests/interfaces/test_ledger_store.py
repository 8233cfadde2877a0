"""What every ledger store promises; LMDB's and the one in memory keep the same promises."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from p2pledger.chain.batch import batch_id
from p2pledger.chain.statement import Claim
from p2pledger.consensus.journal import (
    BlockRecord,
    CommittedRecord,
    EvidenceRecord,
    HaltRecord,
    JournalRecord,
    LockRecord,
    ViewRecord,
    VoteRecord,
)
from p2pledger.consensus.messages import Message, Signed
from p2pledger.engine.ports import AppendBlock, LedgerStore, LiftHalt, PutBody, PutJournal
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BatchId, Height, Signature, View
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore
from tests.interfaces.chains import (
    CHAIN,
    GENESIS,
    NODE,
    append,
    body,
    certificate,
    chain_of,
    commit,
    commit_of,
    fill,
    header,
    new_view,
    pre_prepare,
    prepare,
    proposed,
    standing,
    view_change,
    vote,
)

Store: TypeAlias = LmdbLedgerStore | MemoryLedgerStore
Reopen: TypeAlias = Callable[[Store], Store]


@pytest.fixture(params=["lmdb", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Store:
    return LmdbLedgerStore(tmp_path, CHAIN, NODE, GENESIS) if kind == "lmdb" else MemoryLedgerStore(CHAIN, GENESIS)


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    def again(store: Store) -> Store:
        if isinstance(store, MemoryLedgerStore):
            return store.reopened()
        store.close()
        return LmdbLedgerStore(tmp_path, CHAIN, NODE, GENESIS)

    return again


def messages(store: LedgerStore) -> list[Message]:
    return [record.message for record in store.journal() if isinstance(record, VoteRecord)]


def content(store: LedgerStore) -> list[object]:
    """All that can be seen of a store, for comparing."""
    bodies = [(data, store.body(batch_id(data)) is not None) for data in (b"x", b"y", b"body 0 of 1", b"body 0 of 2")]
    return [store.tip(), [store.block(Height(h)) for h in range(4)], store.journal(), bodies]


def test_a_new_store_is_empty(store: Store) -> None:
    """Height 0 is the genesis, which everybody computes and nobody stores."""
    assert store.tip() == 0
    assert store.block(Height(0)) is None
    assert store.certified_from(Height(0)) is None
    assert store.journal() == []
    assert store.body(BatchId(bytes(32))) is None
    assert len(store.identity) == 16


def test_blocks_come_back_as_they_were_appended(store: Store, reopen: Reopen) -> None:
    """A committed block, its certificate and its bodies are there after a restart."""
    headers = fill(store, 3)
    store = reopen(store)
    assert store.tip() == 3
    for block in headers:
        assert store.block(block.height) == CommittedRecord(block, certificate(block))
    assert store.block(Height(4)) is None
    assert store.body(batch_id(b"body 0 of 2")) == b"body 0 of 2"


def test_several_blocks_can_be_committed_in_one_turn(store: Store) -> None:
    """A certificate commits uncommitted ancestors with it (P7); they have none of their own."""
    one, two, three = chain_of(3)
    store.apply([*(body(data) for _, bodies in (one, two, three) for data in bodies)])
    store.apply([append(one[0], is_certified=False), append(two[0], is_certified=False), append(three[0])])
    assert store.tip() == 3
    assert store.block(Height(1)) == CommittedRecord(one[0], None)
    for height in (0, 1, 2, 3):
        assert store.certified_from(Height(height)) == CommittedRecord(three[0], certificate(three[0]))
    assert store.certified_from(Height(4)) is None


def test_a_block_must_follow_the_tip(store: Store) -> None:
    """Neither a gap, nor a second block of a height, nor another parent, nor another chain."""
    (first, bodies), (second, _) = chain_of(2)
    store.apply(commit_of(first, bodies))
    for wrong, why in (
        (header(3, first.hash), "does not follow the tip 1"),
        (header(1, GENESIS, time_ms=1), "does not follow the tip 1"),
        (header(2, bytes(32)), "has parent"),
    ):
        with pytest.raises(StoreError, match=why):
            store.apply([append(wrong)])
    assert store.tip() == 1
    store.apply(commit_of(second, [b"body 0 of 2"]))
    assert store.tip() == 2


def test_the_first_block_must_follow_the_genesis(store: Store) -> None:
    """Height 1 has a parent, too."""
    with pytest.raises(StoreError, match="has parent"):
        store.apply([append(header(1, bytes(32)))])


def test_a_block_needs_its_bodies(store: Store) -> None:
    """A block whose bodies are not kept cannot be executed or served."""
    first, bodies = chain_of(1, bodies_each=2)[0]
    with pytest.raises(StoreError, match="lacks 1 of its bodies"):
        store.apply([body(bodies[0]), append(first)])
    assert store.body(batch_id(bodies[0])) is None
    store.apply(commit_of(first, bodies))
    assert store.tip() == 1


def test_a_block_needs_a_certificate_of_its_own(store: Store) -> None:
    """A certificate of another block would be served to others as proof."""
    first, other = header(1, GENESIS), header(1, GENESIS, time_ms=9)
    with pytest.raises(StoreError, match="comes with a commit certificate"):
        store.apply([AppendBlock(CommittedRecord(first, certificate(other)))])


def test_a_body_must_have_its_id(store: Store) -> None:
    """Bodies are found by their hash, so a wrong one would never be noticed but by those it is served to."""
    with pytest.raises(StoreError, match="has hash"):
        store.apply([PutBody(batch_id(b"x"), b"y")])


def test_a_journal_comes_back_in_full(store: Store, reopen: Reopen) -> None:
    """Every kind of record survives a restart."""
    first = header(1, GENESIS)
    records: list[JournalRecord] = [
        BlockRecord(first),
        EvidenceRecord(
            Signed(prepare(1, first.hash), Signature(bytes(64))), Signed(prepare(1, GENESIS), Signature(bytes(64)))
        ),
        HaltRecord("diverged at height 7", first),
        LockRecord(certificate(first)),
        VoteRecord(pre_prepare(first)),
        VoteRecord(prepare(1, first.hash)),
        VoteRecord(commit(1, first.hash)),
        VoteRecord(view_change(1)),
        VoteRecord(new_view(1)),
    ]
    last = standing(1)
    store.apply([*(PutJournal(record) for record in records), last])
    store = reopen(store)
    assert store.journal() == [*records, last.record]


def test_lifting_a_halt_leaves_everything_else(store: Store, reopen: Reopen) -> None:
    """P22: only the mark goes; a vote stays where it is and still refuses another one. Twice does no harm."""
    first = header(1, GENESIS)
    kept = vote(prepare(1, first.hash))
    store.apply([kept, PutJournal(HaltRecord("diverged at height 7", first))])
    store.apply([LiftHalt(), LiftHalt()])
    store = reopen(store)
    assert store.journal() == [kept.record]
    with pytest.raises(StoreError, match="contradicts"):
        store.apply([vote(prepare(1, GENESIS))])


def test_a_later_record_takes_the_place_of_the_earlier_one(store: Store, reopen: Reopen) -> None:
    """View and lock stand once."""
    low, high = certificate(header(1, GENESIS)), certificate(header(2, GENESIS), view=3)
    store.apply([PutJournal(LockRecord(low)), standing(1)])
    store.apply([PutJournal(LockRecord(high)), standing(3)])
    store = reopen(store)
    assert store.journal() == [LockRecord(high), standing(3).record]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (prepare(1, b"x" * 32), prepare(1, b"y" * 32)),
        (commit(1, b"x" * 32), commit(1, b"y" * 32)),
        (pre_prepare(header(1, GENESIS)), pre_prepare(header(1, GENESIS, time_ms=1))),
        (view_change(1), view_change(1, Claim(View(0), Height(1), GENESIS))),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_vote_that_contradicts_another_is_never_written(store: Store, first: Message, second: Message) -> None:
    """The guard is the journal itself (P19), and it refuses the whole turn, whatever else is in it.

    Where the guard is walked around, by a journal that knows nothing of the first vote, the second is taken.
    """
    forgetful = MemoryLedgerStore(CHAIN, GENESIS)
    forgetful.apply([vote(second)])
    assert messages(forgetful) == [second]

    store.apply([vote(first)])
    before = content(store)
    with pytest.raises(StoreError, match="contradicts the one already in the journal"):
        store.apply([body(b"x"), standing(0), vote(second)])
    assert content(store) == before
    with pytest.raises(StoreError, match="contradicts"):
        store.apply([vote(prepare(2, b"x" * 32)), vote(prepare(2, b"y" * 32))])
    assert content(store) == before


def test_the_same_vote_may_be_written_again(store: Store) -> None:
    """Sending again is not voting again; what travels beside a VIEW-CHANGE is not part of the vote."""
    bare, loaded = view_change(1), view_change(1, lock=certificate(header(1, GENESIS)))
    store.apply([vote(prepare(1, b"x" * 32)), vote(bare)])
    store.apply([vote(prepare(1, b"x" * 32)), vote(loaded)])
    assert messages(store) == [prepare(1, b"x" * 32), bare]


def test_votes_of_other_slots_do_not_meet(store: Store) -> None:
    """Kind, view and height tell slots apart."""
    votes: list[Message] = [prepare(1, b"x" * 32), prepare(1, b"y" * 32, view=1), prepare(2, b"z" * 32)]
    votes += [commit(1, b"w" * 32)]
    store.apply([vote(message) for message in votes])
    assert sorted(map(str, messages(store))) == sorted(map(str, votes))


def test_at_and_below_the_tip_only_the_committed_block_gets_votes(store: Store, reopen: Reopen) -> None:
    """Pruned votes are not forgotten: the tip is a floor (P2, P19).

    Pruning without the floor forks; a store that has not committed the height takes the same vote.
    """
    late = commit(2, b"z" * 32, view=5)
    young = MemoryLedgerStore(CHAIN, GENESIS)
    young.apply([vote(late)])
    assert messages(young) == [late]

    headers = fill(store, 3)
    store = reopen(store)
    for wrong in (late, prepare(3, b"z" * 32), prepare(1, headers[1].hash), pre_prepare(header(2, GENESIS))):
        with pytest.raises(StoreError, match="not for the block committed there"):
            store.apply([vote(wrong)])
    store.apply([vote(commit(2, headers[1].hash, view=5)), vote(prepare(3, headers[2].hash))])
    assert store.journal() == []


def test_the_floor_holds_within_a_turn(store: Store) -> None:
    """A block appended earlier in the same turn counts."""
    (first, bodies), (second, more) = chain_of(2)
    with pytest.raises(StoreError, match="not for the block committed there"):
        store.apply([*commit_of(first, bodies), *commit_of(second, more), vote(prepare(1, b"z" * 32))])
    assert store.tip() == 0
    store.apply([*commit_of(first, bodies), *commit_of(second, more), vote(prepare(1, first.hash))])
    assert store.tip() == 2


def test_committing_prunes_the_journal_up_to_the_tip(store: Store, reopen: Reopen) -> None:
    """Votes and headers at and below the tip go; those above, and where the replica stands, remain."""
    (first, bodies), (second, more) = chain_of(2)
    lock = LockRecord(certificate(first))
    store.apply([standing(0), PutJournal(lock), vote(prepare(1, first.hash)), vote(commit(1, first.hash))])
    store.apply([proposed(first), proposed(second), vote(prepare(2, second.hash)), vote(view_change(1))])
    store.apply(commit_of(first, bodies))
    kept: list[JournalRecord] = [
        BlockRecord(second),
        lock,
        VoteRecord(prepare(2, second.hash)),
        VoteRecord(view_change(1)),
        standing(0).record,
    ]
    assert store.journal() == kept
    store = reopen(store)
    assert store.journal() == kept
    store.apply([*commit_of(second, more), proposed(first)])
    assert [type(record) for record in store.journal()] == [LockRecord, VoteRecord, ViewRecord]


def test_bodies_of_blocks_that_lost_are_let_go(store: Store, reopen: Reopen) -> None:
    """Kept until the height is committed (P16b), then dropped, unless a header above or the chain needs them."""
    mine, lost, above, both = b"mine", b"lost", b"above", b"both"
    winner = header(1, GENESIS, [mine])
    loser = header(1, GENESIS, [lost, both, mine], time_ms=1)
    child = header(2, winner.hash, [above, both])
    store.apply([*(body(data) for data in (mine, lost, above, both)), *map(proposed, (winner, loser, child))])
    store.apply([append(winner)])
    store = reopen(store)
    kept = {data: store.body(batch_id(data)) is not None for data in (mine, lost, above, both)}
    assert kept == {mine: True, lost: False, above: True, both: True}
    with pytest.raises(StoreError, match="lacks 1 of its bodies"):
        store.apply([append(header(2, winner.hash, [lost]))])
    store.apply([append(child)])
    assert store.body(batch_id(both)) == both


def test_a_committed_body_is_never_let_go(store: Store, reopen: Reopen) -> None:
    """A header that lost may name a batch that an earlier block has ordered."""
    (first, bodies), (second, more) = chain_of(2)
    store.apply(commit_of(first, bodies))
    store = reopen(store)
    store.apply([*map(body, bodies), proposed(header(2, first.hash, bodies, time_ms=5))])
    store.apply(commit_of(second, more))
    assert store.body(batch_id(bodies[0])) == bodies[0]


def test_a_dropped_body_can_be_kept_again(store: Store, reopen: Reopen) -> None:
    """Also in the very turn that drops it."""
    (first, bodies), _ = chain_of(2)
    store.apply([body(b"x"), proposed(header(1, GENESIS, [b"x"], time_ms=5))])
    store.apply([*commit_of(first, bodies), body(b"x")])
    store = reopen(store)
    assert store.body(batch_id(b"x")) == b"x"
    store.apply([append(header(2, first.hash, [b"x"]))])
    assert store.tip() == 2


def test_entering_a_view_prunes_the_view_changes_before_it(store: Store, reopen: Reopen) -> None:
    """Those of the view entered and of later ones stay; votes for blocks stay whatever their view."""
    cast = prepare(1, b"x" * 32)
    store.apply([vote(cast), vote(view_change(1)), vote(view_change(2)), vote(view_change(3)), vote(new_view(1))])
    assert len(messages(store)) == 5
    store.apply([standing(2, is_active=False)])
    store = reopen(store)
    assert messages(store) == [cast, view_change(2), view_change(3)]
    store.apply([standing(2)])
    assert messages(store) == [cast, view_change(2), view_change(3)]


def test_views_never_go_back(store: Store) -> None:
    """A pruned VIEW-CHANGE could not be compared, so none is taken for a view that was left; nor is that view."""
    store.apply([standing(2)])
    for wrong in (vote(view_change(1)), vote(new_view(1)), standing(1)):
        with pytest.raises(StoreError, match="P9"):
            store.apply([wrong])
    store.apply([standing(0, epoch=1)])
    assert [record.epoch for record in store.journal() if isinstance(record, ViewRecord)] == [1]


def test_nothing_of_a_refused_turn_is_written(store: Store, reopen: Reopen) -> None:
    """All or none, wherever in the turn the refusal comes; and the store goes on, for it has not failed."""
    (first, bodies), (second, more) = chain_of(2)
    store.apply([vote(prepare(1, first.hash)), body(b"x"), proposed(header(1, GENESIS, [b"x"], time_ms=2))])
    before = content(store)
    with pytest.raises(StoreError):
        store.apply([*commit_of(first, bodies), standing(4), body(b"y"), append(second)])
    assert content(store) == before
    store = reopen(store)
    assert content(store) == before
    store.apply([*commit_of(first, bodies), *commit_of(second, more)])
    assert store.tip() == 2


def test_the_identity_lasts(store: Store, reopen: Reopen) -> None:
    """The sign floor knows the journal by it."""
    identity = store.identity
    assert reopen(store).identity == identity


def test_both_satisfy_the_port(store: Store) -> None:
    """The type checker and this line agree."""
    port: LedgerStore = store
    port.apply([])
    assert port.tip() == 0
