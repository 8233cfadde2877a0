"""P20: what a signed message of one's own says about the journal, and how long one stays silent."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus.messages import Message, slot
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
