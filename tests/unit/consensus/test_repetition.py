"""P16, P20: what moves another validator on, and what is held of its own words."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import Message, PrePrepare
from p2pledger.consensus.repetition import answer_status, newest_by
from p2pledger.primitives.ids import Epoch, Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def ahead() -> Stage:
    """Validator d in view 2 at height 1; a block of height 2 is prepared."""
    stage = Stage("d")
    first, second = stage.chain_of(2)
    stage.reaches_view(2)
    stage.sees(stage.proposal(first, 2), *stage.commits("abc", first, 2))
    stage.sees(stage.proposal(second, 2), *stage.prepares("ab", second, 2))
    assert stage.committed == 1
    return stage


def answers(stage: Stage, who: str = "a", view: int = 2, height: int = 1, is_active: bool = True) -> list[str]:
    """To whom what kind of thing goes."""
    status = on.PeerStatus(stage.id(who), Epoch(0), View(view), is_active, Height(height))
    effects = [*answer_status(stage.replica, status)]
    assert all(effect.to == stage.id(who) for effect in effects)  # type: ignore[union-attr]
    return [
        "certificate" if isinstance(effect, do.SendCertificate) else type(effect.signed.message).__name__  # type: ignore[union-attr]
        for effect in effects
    ]


def test_whoever_is_behind_in_height_gets_the_certificate(ahead: Stage) -> None:
    """P16: and in our view what stands above its height; our votes at committed heights are gone."""
    assert answers(ahead, height=0) == ["certificate", "PrePrepare", "Prepare", "Commit"]
    assert answers(ahead, height=1) == ["PrePrepare", "Prepare", "Commit"]
    assert answers(ahead, height=2) == []


def test_whoever_has_not_entered_the_view_gets_the_new_view(ahead: Stage) -> None:
    """P16: whoever is before it, or changing to it."""
    assert answers(ahead, view=1) == answers(ahead, view=0, is_active=False) == ["NewView"]
    assert answers(ahead, is_active=False) == ["NewView", "PrePrepare", "Prepare", "Commit"]
    assert answers(ahead, view=3) == answers(ahead, view=3, is_active=False) == []


def test_who_has_left_shows_the_new_view_to_whom_it_may_help(ahead: Stage) -> None:
    """P16: not to whom asks for a later view than it opens; votes of a view that was left are not said again."""
    ahead.happens(on.WorkChanged(has_work=True))
    ahead.fires()
    assert ahead.replica.view == 3 and not ahead.replica.is_active
    assert answers(ahead, view=2, is_active=False) == ["NewView"]
    assert answers(ahead, view=2) == ["NewView"]
    ahead.sees(ahead.proposal(ahead.chain_of(2)[1], 3))
    assert len(ahead.replica.ballots.proposals_above(View(3), Height(1))) == 1, "it came early"
    assert answers(ahead, view=3) == answers(ahead, view=3, is_active=False) == []


def test_nothing_to_show_is_no_answer() -> None:
    """In the first view there is no NEW-VIEW, at the genesis no certificate."""
    stage = Stage("d")
    assert answers(stage, view=0, height=0) == answers(stage, view=0, height=0, is_active=False) == []


def test_neither_strangers_of_another_epoch_nor_oneself_are_answered(ahead: Stage) -> None:
    status = on.PeerStatus(ahead.id("a"), Epoch(1), View(0), True, Height(0))
    assert [*answer_status(ahead.replica, status)] == []
    assert answers(ahead, who="d", height=0) == []


def held(stage: Stage, who: str) -> list[Message]:
    return [signed.message for signed in newest_by(stage.replica, stage.id(who))]


def test_an_inquiry_is_answered_with_the_newest_of_each_kind(ahead: Stage) -> None:
    """P20: proposals, votes, the VIEW-CHANGE and the NEW-VIEW that are its author's."""
    second = ahead.chain_of(2)[1]
    ahead.sees(ahead.view_change("a", 3))
    assert held(ahead, "a") == [ahead.prepare("a", second, 2), ahead.view_change("a", 3)]
    proposal, new_view = held(ahead, "c")
    assert isinstance(proposal, PrePrepare) and proposal.height == 2
    assert ahead.replica.new_view is not None and new_view == ahead.replica.new_view.message
    assert ahead.replica.new_view.message not in held(ahead, "a")
