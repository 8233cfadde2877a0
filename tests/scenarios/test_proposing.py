"""P1: who asks for a block to propose, when, and what becomes of the answer."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import PrePrepare
from p2pledger.primitives.ids import Epoch, View
from tests.scenarios.stage import Stage, parameters


@pytest.fixture
def primary() -> Stage:
    """The primary of view 0; nobody answers its questions for a block but the test."""
    return Stage("a")


def questions(stage: Stage) -> list[tuple[int, int]]:
    """(view, height of the parent) of each."""
    return [(effect.view, effect.parent.height) for effect in stage.asked(do.BuildProposal)]  # type: ignore[union-attr]


def work_arrives(stage: Stage) -> None:
    """Something happens that lets the normal case go on."""
    stage.happens(on.WorkChanged(has_work=True))
    stage.fires("retransmit")


def test_only_the_primary_asks_for_a_block(primary: Stage) -> None:
    """P1: in its own view."""
    assert questions(primary) == [(0, 0)]
    other = Stage("b")
    work_arrives(other)
    assert questions(other) == []
    other.reaches_view(1)
    assert questions(other) == [(1, 0)]


def test_nobody_asks_for_a_block_while_views_change() -> None:
    """P9: also who will be the primary of the view that is asked for waits until it was entered."""
    stage = Stage("b")
    stage.happens(on.WorkChanged(has_work=True))
    stage.fires()
    work_arrives(stage)
    assert stage.replica.view == 1 and questions(stage) == []


def test_who_may_not_sign_asks_for_no_block() -> None:
    """P20: nor does it propose what it was given before."""
    stage = Stage("a", is_ready=False)
    work_arrives(stage)
    assert questions(stage) == []


def test_each_block_is_asked_for_once(primary: Stage) -> None:
    """Until it comes: the answer names its question, and a second one would only be thrown away."""
    for _ in range(3):
        work_arrives(primary)
    assert questions(primary) == [(0, 0)]
    first, second = primary.chain_of(2)
    primary.happens(on.ProposalBuilt(Epoch(0), View(0), first))
    assert questions(primary) == [(0, 0), (0, 1)]
    primary.happens(on.ProposalBuilt(Epoch(0), View(0), second))
    assert questions(primary) == [(0, 0), (0, 1), (0, 2)]
    assert primary.said(PrePrepare) == [primary.proposal(first), primary.proposal(second)]


def test_what_was_proposed_is_not_asked_for_again(primary: Stage) -> None:
    """P1, P19: nor after a restart, when the own proposal has not come back from the signer yet."""
    block = primary.block()
    primary.happens(on.ProposalBuilt(Epoch(0), View(0), block))
    primary.restarts()
    primary.hears_nothing_of_itself()
    assert (0, 0) not in questions(primary)
    assert primary.said(PrePrepare) == [primary.proposal(block)]


def test_a_full_window_asks_for_nothing() -> None:
    """P1: h ≤ c + W, and the next one as soon as a height commits."""
    stage = Stage("a", parameters=parameters(window=2))
    chain = stage.chain_of(3)
    for block in chain[:2]:
        stage.happens(on.ProposalBuilt(Epoch(0), View(0), block))
    assert questions(stage) == [(0, 0), (0, 1)]
    stage.sees(*stage.commits("bcd", chain[0]))
    assert questions(stage) == [(0, 0), (0, 1), (0, 2)]


def test_a_block_that_no_longer_fits_is_asked_for_anew(primary: Stage) -> None:
    """The answer stands on another parent: it is dropped, and the right one asked for."""
    stranger = primary.block(primary.block(variant=1))
    primary.happens(on.ProposalBuilt(Epoch(0), View(0), stranger))
    assert primary.said(PrePrepare) == [] and questions(primary) == [(0, 0), (0, 0)]
    good = primary.block()
    primary.happens(on.ProposalBuilt(Epoch(0), View(0), good))
    assert primary.said(PrePrepare) == [primary.proposal(good)]


def test_an_answer_for_another_view_or_epoch_is_dropped(primary: Stage) -> None:
    """An answer names its question."""
    block = primary.block()
    for epoch, view in ((0, 4), (1, 0)):
        primary.happens(on.ProposalBuilt(Epoch(epoch), View(view), block))
    assert primary.said(PrePrepare) == [] and questions(primary) == [(0, 0)]


def test_only_an_active_primary_says_what_was_built() -> None:
    """P1, P9: not who was never asked, nor who is changing to the view that it will lead."""
    stage = Stage("b")
    block = stage.block()
    stage.happens(on.ProposalBuilt(Epoch(0), View(0), block))
    assert stage.said(PrePrepare) == []
    stage.happens(on.WorkChanged(has_work=True))
    stage.fires()
    stage.happens(on.ProposalBuilt(Epoch(0), View(1), block))
    assert stage.replica.view == 1 and stage.said(PrePrepare) == []


def test_after_a_height_or_a_view_it_asks_anew(primary: Stage) -> None:
    """What was being built stands on a parent that is gone."""
    block = primary.block()
    primary.sees(*primary.commits("bcd", block))
    assert questions(primary) == [(0, 0), (0, 1)]
    primary.reaches_view(4)
    assert questions(primary)[-1] == (4, 1)


def test_while_its_own_proposal_is_being_signed_it_asks_for_no_other(primary: Stage) -> None:
    """P19: said is said, before it has come back and been accepted like everybody's."""
    primary.replica.handle(on.ProposalBuilt(Epoch(0), View(0), primary.block()))
    effects = primary.replica.handle(on.HeaderLearned(primary.block()))
    assert not any(isinstance(effect, do.BuildProposal) for effect in effects)
