"""P19, P20, P21, P22, P23, P24: journals, rolled-back disks, bounds, and primaries that favour somebody."""

import pytest

from p2pledger.chain.validators import quorum
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import Commit, Message, Prepare, ViewChange
from p2pledger.engine.events import Now
from p2pledger.engine.ports import PutJournal
from p2pledger.primitives.errors import Divergence, StoreError
from p2pledger.primitives.ids import Height, View
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.world import World
from tests.scenarios.stage import Stage, parameters


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


# P19


def test_votes_survive_a_crash_and_are_repeated_not_changed(stage: Stage) -> None:
    """P19: after a restart the same statements are said again, and no other ones for their places."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.proposal(block), *stage.prepares("ab", block))
    said = list(dict.fromkeys(stage.sent))
    stage.restarts()
    stage.hears_nothing_of_itself()
    stage.sees(stage.proposal(rival), *stage.prepares("abc", rival))
    assert list(dict.fromkeys(stage.sent)) == said


def test_the_store_itself_refuses_a_contradicting_vote(stage: Stage) -> None:
    """P19: guard and journal are one."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.proposal(block))
    with pytest.raises(StoreError, match="contradicts"):
        stage.store.apply([PutJournal(VoteRecord(stage.prepare("d", rival)))])


def test_what_is_committed_is_a_floor(stage: Stage) -> None:
    """P19, P2, found unsafe otherwise: votes at heights ≤ c are pruned, and never cast again there."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.proposal(block), *stage.commits("abc", block))
    assert not any(isinstance(record, VoteRecord) for record in stage.store.journal())
    stage.restarts()
    stage.hears_nothing_of_itself()
    stage.sees(stage.proposal(rival), *stage.prepares("abc", rival))
    assert stage.sent == []


def test_a_failed_write_stops_the_node_and_is_never_taken_for_success() -> None:
    """P19: what was to be said with it is not said."""
    world = World(1)
    world.run_until(100)
    node = world.nodes[0]
    dead = node.ledger
    dead.fail_next_apply = True
    world.submit(0)
    while node.engine is not None:
        world.step()
    assert world.observer.reached["failed write, lost"] == 1
    assert dead.tip() == 0
    assert dead.journal() == []
    with pytest.raises(StoreError, match="takes no more writes"):
        dead.apply([])


# P20


def test_nothing_is_signed_before_q_minus_one_have_answered(stage: Stage) -> None:
    """P20: it listens meanwhile, and takes up what it heard afterwards."""
    block = stage.block()
    stage.restarts()
    stage.sees(stage.proposal(block))
    stage.happens(on.InquiryAnswered(stage.id("a"), ()))
    stage.happens(on.InquiryAnswered(stage.id("a"), ()))
    assert stage.sent == []
    assert not any(isinstance(effect, do.SetTimer) and effect.timer == "progress" for effect in stage.effects)
    stage.happens(on.InquiryAnswered(stage.id("b"), ()))
    assert stage.sent == [stage.prepare("d", block)]


def _lose_the_disk(stage: Stage, forgotten: Message) -> None:
    stage.restarts(with_empty_disk=True)
    stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(stage.signed(forgotten)),)))
    stage.happens(on.InquiryAnswered(stage.id("b"), ()))


def test_an_emptied_journal_would_let_it_vote_twice(stage: Stage) -> None:
    """P20: the attack, when nobody remembers for it."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.proposal(block))
    stage.restarts(with_empty_disk=True)
    stage.hears_nothing_of_itself()
    stage.sees(stage.proposal(rival))
    assert stage.said(Prepare) == [stage.prepare("d", rival)]


@pytest.mark.parametrize("kind", ["prepare", "commit", "view-change"])
def test_an_emptied_journal_silences_it(stage: Stage, kind: str) -> None:
    """P20: one answer with a statement of its own above its journal is enough."""
    block, rival = stage.block(), stage.block(variant=1)
    forgotten: Message = {
        "prepare": stage.prepare("d", block),
        "commit": stage.commit("d", block),
        "view-change": stage.view_change("d", 1),
    }[kind]
    _lose_the_disk(stage, forgotten)
    assert len(stage.asked(do.ReportRollback)) == 1
    stage.sees(stage.proposal(rival), *stage.prepares("abc", rival))
    stage.sees(stage.view_change("a", 2), stage.view_change("b", 2))
    assert stage.sent == []


def test_it_speaks_again_above_everything_it_may_have_signed(stage: Stage) -> None:
    """P20: a commit certificate of a greater height and a greater view; either alone is not enough."""
    blocks = stage.chain_of(4)
    _lose_the_disk(stage, stage.prepare("d", blocks[0]))
    stage.reaches_view(1)
    stage.sees(*stage.commits("abc", blocks[0], view=1))
    assert not stage.replica.may_sign
    stage.sees(*stage.commits("abc", blocks[1], view=0))
    assert not stage.replica.may_sign
    stage.sees(*stage.commits("abc", blocks[2], view=1))
    assert stage.replica.may_sign


def test_it_never_speaks_again_in_a_view_that_it_may_have_left(stage: Stage) -> None:
    """P20, P9, found unsafe otherwise: a certificate ends the silence, but never for views up to those.

    It stands in view 0 after the loss and has left it long ago: a COMMIT there is one after its VIEW-CHANGE.
    """
    first, second = stage.chain_of(2)
    _lose_the_disk(stage, stage.view_change("d", 1))
    stage.sees(*stage.commits("abc", first, view=2))
    assert stage.committed == 1
    stage.sees(*stage.prepares("abc", second, view=0))
    stage.fires("retransmit")
    assert stage.sent == []
    stage.reaches_view(2)
    stage.sees(*stage.prepares("abc", second, view=2))
    assert stage.sent == [stage.commit("d", second, view=2)]


def test_a_second_copy_of_its_key_silences_it_at_any_time(stage: Stage) -> None:
    """P20: its own signature on what it never said."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.prepare("d", rival))
    stage.sees(stage.proposal(block))
    assert stage.sent == []
    assert len(stage.asked(do.ReportRollback)) == 1


def test_its_own_repeated_words_are_no_rollback(stage: Stage) -> None:
    """P20: what the journal knows is not forgotten."""
    block = stage.block()
    stage.sees(stage.proposal(block))
    stage.restarts()
    stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(stage.signed(stage.prepare("d", block))),)))
    stage.happens(on.InquiryAnswered(stage.id("b"), ()))
    assert stage.replica.may_sign
    assert stage.asked(do.ReportRollback) == []


# P21


def test_a_certificate_far_ahead_starts_block_sync(stage: Stage) -> None:
    """P21: beyond the window blocks are synced; back to voting at the tip."""
    blocks = stage.chain_of(6)
    certificate = stage.certificate("commit", blocks[5], who="abc")
    stage.happens(on.CertificateReceived(certificate))
    assert stage.asked(do.SyncBlocks) == [do.SyncBlocks(certificate)]


def test_a_node_that_was_away_catches_up_and_votes_again() -> None:
    """P21: ranges of certified blocks, then the normal case."""
    world = World(5)
    world.run_until(100)
    world.crash(3)
    for _ in range(30):
        world.submit(0)
        world.run_until(world.now + 200)
    away = world.heights()
    world.restart(3)
    world.run_until(world.now + 4_000)
    assert max(away) - away[3] > 20
    assert len(set(world.heights())) == 1
    assert world.observer.reached["blocks_synced"] > 0


# P22


def test_a_node_whose_execution_differs_halts_and_stays_halted() -> None:
    """P22: the next committed header shows another root than its own."""
    world = World(7)
    world.run_until(100)
    world.submit(0)
    victim = world.nodes[3].engine
    assert victim is not None
    while victim.executor.executed < 1:
        world.step()
    victim.executor.effects_roots[Height(1)] = bytes(32)
    with pytest.raises(InvariantBroken, match="effects root"):
        world.run_until(3_000)
    world.crash(3)
    with pytest.raises(Divergence, match="halted itself"):
        world.restart(3)


# P23


def test_votes_outside_the_window_or_far_from_the_view_are_not_even_verified(stage: Stage) -> None:
    """P23: W heights above c, 8 views ahead."""
    blocks = stage.chain_of(5)
    assert is_wanted(stage.replica, stage.signed(stage.prepare("a", blocks[3])))
    assert not is_wanted(stage.replica, stage.signed(stage.prepare("a", blocks[4])))
    assert is_wanted(stage.replica, stage.signed(stage.commit("a", blocks[0], view=8)))
    assert not is_wanted(stage.replica, stage.signed(stage.commit("a", blocks[0], view=9)))


def test_of_each_author_two_differing_votes_are_kept_and_no_more(stage: Stage) -> None:
    """P23: a third costs not even its verification."""
    variants = [stage.block(variant=number) for number in range(3)]
    stage.sees(stage.prepare("a", variants[0]), stage.prepare("a", variants[1]))
    assert not is_wanted(stage.replica, stage.signed(stage.prepare("a", variants[2])))
    assert len(stage.replica.ballots) == 2


def test_votes_past_the_quorum_are_dropped_unverified(stage: Stage) -> None:
    """P23: identical and superfluous ones; a differing one is still looked at."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.sees(*stage.prepares("abc", block))
    assert not is_wanted(stage.replica, stage.signed(stage.prepare("a", block)))
    assert is_wanted(stage.replica, stage.signed(stage.prepare("a", rival)))


def test_a_stranger_is_not_listened_to(stage: Stage) -> None:
    """P23: only validators of the epoch have a quota at all."""
    stranger = Commit(stage.replica.epoch, View(0), Height(1), stage.block().hash, stage.founding.genesis.cards[0].node)  # type: ignore[arg-type]
    signed = stage.signed(stage.commit("a", stage.block()))
    assert not is_wanted(stage.replica, type(signed)(stranger, signed.signature))


# P24


def test_an_unfair_primary_loses_its_view(stage: Stage) -> None:
    """P24: four timeouts without ordering a batch that it was told of, though heights commit."""
    stage.happens(on.PrimaryUnfair(View(0)))
    assert [message.view for message in stage.said(ViewChange)] == [1]


def test_a_stale_complaint_changes_nothing(stage: Stage) -> None:
    """P24: complaints name their view."""
    stage.happens(on.PrimaryUnfair(View(3)))
    assert stage.sent == []


def test_nobody_rules_for_ever() -> None:
    """P24: the view changes after every R committed heights."""
    stage = Stage("d", parameters=parameters(term_heights=2))
    blocks = stage.chain_of(2)
    stage.sees(*stage.commits("abc", blocks[0]))
    assert stage.said(ViewChange) == []
    stage.sees(*stage.commits("abc", blocks[1]))
    assert [message.view for message in stage.said(ViewChange)] == [1]


# P15


def test_the_chain_settles_after_the_last_transaction_and_then_rests() -> None:
    """P15: empty blocks until every root is in a committed header; then none but heartbeats."""
    world = World(3, parameters=parameters(timeout_ms=300, timeout_cap_ms=2_400, heartbeat_ms=0))
    world.run_until(100)
    world.submit(1)
    world.run_until(2_000)
    settled = world.heights()
    engine = world.nodes[0].engine
    assert engine is not None
    assert not engine.executor.has_unsealed(engine.executor.last.executed_height)
    world.run_until(60_000)
    assert world.heights() == settled


def test_a_quiet_chain_has_a_heartbeat() -> None:
    """P15: one empty block per heartbeat, so that block time moves."""
    world = World(3, parameters=parameters(timeout_ms=300, timeout_cap_ms=2_400, heartbeat_ms=1_000))
    world.run_until(10_500)
    assert 9 <= max(world.heights()) <= 11
    engine = world.nodes[0].engine
    assert engine is not None
    assert engine.executor.last.time_ms >= WALL_START_MS + 9_000


def test_an_engine_survives_a_wake_that_nobody_asked_for() -> None:
    """P8: waking early does nothing."""
    world = World(3)
    world.run_until(100)
    engine = world.nodes[0].engine
    assert engine is not None
    from p2pledger.engine.events import Woke

    assert engine.handle(Woke(), Now(world.now, WALL_START_MS + world.now)) == []


# q = 2


@pytest.mark.parametrize("n", range(1, 51))
def test_two_quorums_share_a_correct_validator(n: int) -> None:
    """P5, found unsafe otherwise: q = 2 at n = 4, and 2f+1 at n = 5."""
    f, q = (n - 1) // 3, quorum(n)
    assert 2 * q - n >= f + 1
    assert q <= n - f
    assert 2 * (q - 1) - n < f + 1, "no larger than needed"
