"""P20: what a signed message of one's own says about the journal, and how long one stays silent."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus.journal import BlockRecord
from p2pledger.consensus.messages import Commit, Message, Prepare, slot
from p2pledger.consensus.recovery import Recovery, is_forgotten
from p2pledger.primitives.ids import Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("a")


def test_above_the_journal_is_what_it_does_not_know(stage: Stage) -> None:
    """Votes above the committed height, changes to this view or a later one."""
    chain = stage.chain_of(3)
    votes = [is_forgotten(stage.prepare("a", block), Height(2), View(4), {}) for block in chain]
    assert votes == [False, False, True]
    changes = [is_forgotten(stage.view_change("a", view), Height(2), View(4), {}) for view in (3, 4, 5)]
    assert changes == [False, True, True]
    shown = [stage.new_view(view, [stage.view_change(who, view) for who in "abc"]) for view in (3, 4)]
    assert [is_forgotten(message, Height(2), View(4), {}) for message in shown] == [False, True]


def test_what_the_journal_knows_otherwise_is_forgotten_too(stage: Stage) -> None:
    """Whatever its height: two statements for one slot under one key."""
    first, rival = (stage.prepare("a", stage.block(variant=variant)) for variant in range(2))
    journal: dict[tuple[int, int, int, int], Message] = {slot(first): first}
    assert not is_forgotten(first, Height(0), View(0), journal)
    assert is_forgotten(rival, Height(5), View(0), journal)


def test_a_rolled_back_journal_is_reported_once_and_silences(stage: Stage) -> None:
    """The silence reaches as far as anything that was signed."""
    recovery = Recovery(answers_needed=2)
    chain = stage.chain_of(3)
    assert [*recovery.compare(stage.prepare("a", chain[0]), Height(1), View(0), {})] == []
    assert not recovery.is_silent
    vote, change = stage.prepare("a", chain[2], view=2), stage.view_change("a", 7)
    assert [*recovery.compare(vote, Height(1), View(0), {})] == [do.ReportRollback(vote)]
    assert (recovery.silent_height, recovery.silent_view) == (3, 2)
    assert [*recovery.compare(change, Height(1), View(0), {})] == []
    assert recovery.is_silent and (recovery.silent_height, recovery.silent_view) == (3, 7)
    [*recovery.compare(stage.prepare("a", chain[1], view=1), Height(1), View(0), {})]
    assert (recovery.silent_height, recovery.silent_view) == (3, 7)


def test_a_change_of_view_is_about_no_height(stage: Stage) -> None:
    """A forgotten VIEW-CHANGE or NEW-VIEW says how far views went, and nothing of heights."""
    shown = stage.new_view(5, [stage.view_change(who, 5) for who in "abc"])
    for message, view in ((stage.view_change("a", 7), 7), (shown, 5)):
        recovery = Recovery(answers_needed=2)
        [*recovery.compare(message, Height(0), View(0), {})]
        assert (recovery.silent_height, recovery.silent_view) == (0, view)


def test_a_greater_height_and_a_greater_view_lift_the_silence() -> None:
    """P20: both, and neither alone."""
    recovery = Recovery(answers_needed=2)
    assert recovery.lift(Height(9), View(9)) is False, "there is none"
    recovery.stay_silent(3, 5)
    assert not any(recovery.lift(Height(height), View(view)) for height, view in ((3, 6), (4, 5), (3, 5)))
    assert recovery.is_silent
    assert recovery.lift(Height(4), View(6)) is True
    assert not recovery.is_silent


def test_before_the_first_height_and_view_it_stays_silent_too() -> None:
    """A journal that was lost before anything was committed: height and view 0 lift nothing."""
    recovery = Recovery(answers_needed=1)
    recovery.stay_silent(0, 0)
    assert (recovery.silent_height, recovery.silent_view) == (0, 0)
    assert not any(recovery.lift(Height(height), View(view)) for height, view in ((0, 0), (1, 0), (0, 1)))
    assert recovery.lift(Height(1), View(1))


def test_answers_are_counted_by_author(stage: Stage) -> None:
    """P20: q − 1 others; one who answers twice is one."""
    recovery = Recovery(answers_needed=2)
    for who, is_complete in (("b", False), ("b", False), ("c", True), ("d", True)):
        recovery.answered.add(stage.id(who))
        assert recovery.is_complete() is is_complete


# What the journal gives back


@pytest.fixture
def voter() -> Stage:
    return Stage("d")


def test_a_restart_keeps_what_others_may_need(voter: Stage) -> None:
    """P16: the commit certificate of its height and the NEW-VIEW of its view are shown to whoever is behind."""
    block = voter.block()
    voter.reaches_view(1)
    voter.sees(*voter.commits("abc", block, 1))
    entered = voter.replica.new_view
    voter.restarts()
    assert voter.replica.committed_certificate == voter.certificate("commit", block, 1, "abc")
    assert entered is not None and voter.replica.new_view == entered
    assert (voter.replica.view, voter.replica.committed) == (1, 1)


def test_whatever_certificate_is_held_is_the_lock(voter: Stage) -> None:
    """P5: that of the committed block, and that of the NEW-VIEW, whichever is higher."""
    block = voter.block()
    voter.sees(*voter.commits("abc", block))
    voter.restarts()
    assert voter.replica.lock == voter.certificate("commit", block, 0, "abc")
    tip = voter.certificate("prepare", voter.block(block), 1, "abc")
    voter.hears_nothing_of_itself()
    voter.reaches_view(2, tip)
    voter.restarts()
    assert voter.replica.lock == tip


def test_votes_that_were_left_behind_are_not_wanted_after_a_restart(voter: Stage) -> None:
    """P23: the bounds stand where height and view stand."""
    voter.reaches_view(9)
    voter.sees(*voter.commits("abc", voter.block(), 9))
    voter.restarts()
    chain = voter.chain_of(5)
    assert [voter.replica.ballots.has_room_for(voter.prepare("a", block, 9)) for block in chain] == [0, 1, 1, 1, 1]
    assert [voter.replica.ballots.has_room_for(voter.prepare("a", chain[1], view)) for view in (0, 1)] == [0, 1]


def test_a_journalled_block_is_not_journalled_again(voter: Stage) -> None:
    """P16b: it is there already."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    voter.restarts()
    voter.hears_nothing_of_itself()
    voter.sees(*voter.prepares("abc", block))
    assert voter.said(Commit) == [voter.commit("d", block)]
    assert do.Persist(BlockRecord(block)) not in voter.effects


def test_what_an_earlier_view_accepted_is_not_accepted_after_a_restart(voter: Stage) -> None:
    """P13: its votes are still there, the view is another."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    voter.reaches_view(1)
    voter.restarts()
    assert voter.replica.accepted.blocks == {}


def test_below_the_tip_nothing_is_accepted_after_a_restart(voter: Stage) -> None:
    """P13: from the tip up, without a gap."""
    chain = voter.chain_of(3)
    tip = voter.certificate("prepare", chain[1], who="abc")
    voter.reaches_view(1, tip, (chain[0], chain[1]))
    voter.sees(voter.proposal(chain[2], 1))
    assert voter.said(Prepare) == [voter.prepare("d", chain[1], 1), voter.prepare("d", chain[2], 1)]
    voter.sees(*voter.prepares("abc", chain[1], 1))
    assert voter.said(Commit) == [voter.commit("d", chain[1], 1)], "so the block below is journalled"
    voter.restarts()
    assert voter.replica.accepted.blocks == {2: chain[1], 3: chain[2]}
