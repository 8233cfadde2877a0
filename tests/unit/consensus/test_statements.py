"""Own statements: journalled, then said, once for each slot, and kept while they may be asked for (P19, P16)."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus.journal import BlockRecord, VoteRecord
from p2pledger.consensus.messages import Message, slot
from p2pledger.consensus.statements import COMMIT, NEW_VIEW, PRE_PREPARE, PREPARE, VIEW_CHANGE, OwnStatements
from p2pledger.primitives.ids import Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("a")


def all_kinds(stage: Stage, height: int = 1, view: int = 0) -> dict[int, Message]:
    """One statement of each kind."""
    block = stage.chain_of(height)[-1]
    return {
        PRE_PREPARE: stage.proposal(block, view),
        PREPARE: stage.prepare("a", block, view),
        COMMIT: stage.commit("a", block, view),
        VIEW_CHANGE: stage.view_change("a", view),
        NEW_VIEW: stage.new_view(view, [stage.view_change(who, view) for who in "abc"]),
    }


def said(*messages: Message, by: Stage | None = None) -> OwnStatements:
    own = OwnStatements()
    for message in messages:
        [*own.say(message)]
        if by is not None:
            own.keep_signed(by.signed(message))
    return own


def test_every_kind_has_its_slot(stage: Stage) -> None:
    """P19: (kind, epoch, view, height); a view is changed to and shown once, at no height."""
    for kind, message in all_kinds(stage, height=3, view=2).items():
        assert slot(message) == (kind, 0, 2, 0 if kind in {VIEW_CHANGE, NEW_VIEW} else 3)


def test_what_is_said_is_journalled_first_and_once(stage: Stage) -> None:
    """P4, P6: a second statement for the slot is not even tried."""
    own, (first, rival) = OwnStatements(), (stage.prepare("a", stage.block(variant=it)) for it in range(2))
    assert slot(first) not in own
    assert [*own.say(first)] == [do.Persist(VoteRecord(first)), do.Broadcast(first)]
    assert slot(first) in own
    assert [*own.say(first), *own.say(rival)] == []


def test_a_block_is_journalled_once(stage: Stage) -> None:
    """P16b: also after a restart, until its height is committed."""
    own, other = OwnStatements(), stage.block(variant=1)
    chain = stage.chain_of(2)
    assert [*own.journal_blocks(chain[:1])] == [do.Persist(BlockRecord(chain[0]))]
    assert [*own.journal_blocks(chain)] == [do.Persist(BlockRecord(chain[1]))]
    own.restore_block(other)
    assert [*own.journal_blocks([other])] == []
    own.forget_up_to(Height(0))
    assert [*own.journal_blocks([*chain, other])] == []
    own.forget_up_to(Height(1))
    assert [*own.journal_blocks(chain)] == [do.Persist(BlockRecord(chain[0]))]


def test_the_statements_of_a_view_are_repeated_in_order(stage: Stage) -> None:
    """P16: those of its view and of no other, by kind, then height."""
    now, before = all_kinds(stage, view=1), all_kinds(stage, view=0)
    own = said(*reversed(now.values()), *before.values())
    assert [*own.repeat(View(1))] == [do.Broadcast(message) for message in now.values()]


def test_a_peer_gets_own_votes_above_its_height(stage: Stage) -> None:
    """P16: PREPAREs and COMMITs of that view, as they were signed; other kinds go their own way."""
    low, high, later = all_kinds(stage, 1), all_kinds(stage, 2), all_kinds(stage, 2, view=1)
    own = said(*high.values(), *low.values(), *later.values(), by=stage)
    votes = [stage.signed(high[PREPARE]), stage.signed(high[COMMIT])]
    assert own.votes_above(View(0), Height(1)) == votes
    lowest = [stage.signed(low[PREPARE]), votes[0], stage.signed(low[COMMIT]), votes[1]]
    assert own.votes_above(View(0), Height(0)) == lowest
    assert own.votes_above(View(0), Height(2)) == []


def test_only_what_was_said_is_kept_signed(stage: Stage) -> None:
    """P19: something else under our key is no statement of ours to be sent again."""
    own, vote = OwnStatements(), stage.prepare("a", stage.block())
    own.keep_signed(stage.signed(vote))
    assert own.votes_above(View(0), Height(0)) == []
    own.restore_vote(vote)
    own.keep_signed(stage.signed(vote))
    assert own.votes_above(View(0), Height(0)) == [stage.signed(vote)]


def test_at_a_committed_height_nothing_is_kept(stage: Stage) -> None:
    """P2: what is said about a view is not about a height, and stays."""
    low, high = all_kinds(stage, 1), all_kinds(stage, 2)
    own = said(*low.values(), high[PREPARE], high[COMMIT], by=stage)
    own.forget_up_to(Height(1))
    assert set(own.cast.values()) == {low[VIEW_CHANGE], low[NEW_VIEW], high[PREPARE], high[COMMIT]}
    assert len(own.votes_above(View(0), Height(0))) == 2


def test_what_was_said_about_earlier_views_is_forgotten(stage: Stage) -> None:
    """P20: views are compared instead; votes stay as long as their height is open."""
    before, now = all_kinds(stage, view=1), all_kinds(stage, view=2)
    own = said(*before.values(), *now.values(), by=stage)
    own.forget_views_below(View(2))
    kept = [*now.values(), before[PRE_PREPARE], before[PREPARE], before[COMMIT]]
    assert set(own.cast) == {slot(message) for message in kept}
    assert len(own.votes_above(View(1), Height(0))) == 2
