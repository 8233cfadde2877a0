"""P8: when the progress timer runs, and when it starts anew."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import ViewChange
from tests.scenarios.stage import Stage


@pytest.fixture
def voter() -> Stage:
    """Validator d: not a primary before view 3."""
    return Stage("d")


def generations(stage: Stage) -> list[int]:
    """Of every progress timer that was asked for."""
    return [e.generation for e in stage.effects if isinstance(e, do.SetTimer) and e.timer == "progress"]


def runs(stage: Stage) -> bool:
    """Whether the last that was heard of the progress timer is that it runs."""
    timers = [e for e in stage.effects if isinstance(e, do.SetTimer | do.StopTimer) and e.timer == "progress"]
    return bool(timers) and isinstance(timers[-1], do.SetTimer)


def test_each_committed_height_starts_the_timer_anew(voter: Stage) -> None:
    """P8: patience is for one height; a busy network that goes on is not interrupted."""
    voter.happens(on.WorkChanged(has_work=True))
    blocks = voter.chain_of(3)
    for block in blocks:
        voter.sees(*voter.commits("abc", block))
    assert len(generations(voter)) == 1 + len(blocks)
    assert runs(voter)


def test_a_certificate_that_waits_for_its_block_is_work(voter: Stage) -> None:
    """P8: whoever withholds the block must not keep its view for ever."""
    block = voter.block()
    voter.withheld.add(block.hash)
    voter.sees(*voter.commits("abc", block))
    assert voter.committed == 0
    assert runs(voter)


def test_alone_in_a_view_change_it_does_not_run_away(voter: Stage) -> None:
    """P8: the timer of a view change runs once q validators want it; before that nobody would follow."""
    voter.happens(on.WorkChanged(has_work=True))
    voter.fires()
    asked = len(generations(voter))
    voter.sees(voter.view_change("a", 1))
    assert len(generations(voter)) == asked
    voter.sees(voter.view_change("b", 1))
    assert len(generations(voter)) == asked + 1
    assert [change.view for change in voter.said(ViewChange)] == [1]
