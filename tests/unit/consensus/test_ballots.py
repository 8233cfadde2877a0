"""P23: which votes and proposals are kept, and what they add up to."""

import pytest

from p2pledger.consensus.ballots import Ballots
from p2pledger.consensus.messages import Ballot, Message, PrePrepare
from p2pledger.primitives.ids import Epoch, Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


@pytest.fixture
def ballots(stage: Stage) -> Ballots:
    """At height 2 and view 10: between both ends of both ranges."""
    ballots = Ballots(Epoch(0), stage.founding.validators, window=4)
    ballots.move_to(Height(2), View(10))
    return ballots


def count(ballots: Ballots, stage: Stage, *votes: Ballot) -> None:
    for vote in votes:
        ballots.count(stage.signed(vote), vote)


def keep(ballots: Ballots, stage: Stage, *proposals: PrePrepare) -> None:
    for message in proposals:
        ballots.proposals[message.view, message.height] = stage.signed(message)


def test_room_is_for_w_heights_and_eight_views_either_way(stage: Stage, ballots: Ballots) -> None:
    """P23: proposals from the current view on, votes of eight views before it as well."""
    chain = stage.chain_of(7)
    heights = [ballots.has_room_for(stage.prepare("a", block, 10)) for block in chain]
    assert heights == [False, False, True, True, True, True, False]
    assert [ballots.has_room_for(stage.commit("a", chain[3], view)) for view in (1, 2, 18, 19)] == [0, 1, 1, 0]
    assert [ballots.has_room_for(stage.proposal(chain[3], view)) for view in (9, 10, 18, 19)] == [0, 1, 1, 0]


def test_a_known_proposal_is_not_wanted_again(stage: Stage, ballots: Ballots) -> None:
    """P14: another one for its place is: that is evidence."""
    chain, rival = stage.chain_of(3), stage.chain_of(3, variant=1)
    good = stage.proposal(chain[2], 10)
    assert ballots.wants(good)
    keep(ballots, stage, good)
    assert not ballots.wants(good)
    assert ballots.wants(stage.proposal(rival[2], 10)) and ballots.wants(stage.proposal(chain[2], 11))


def test_a_vote_is_wanted_until_it_is_known_or_superfluous(stage: Stage, ballots: Ballots) -> None:
    """P23: PREPAREs and COMMITs are counted apart."""
    block = stage.chain_of(3)[2]
    count(ballots, stage, *stage.prepares("ab", block, 10))  # type: ignore[arg-type]
    assert not ballots.wants(stage.prepare("a", block, 10))
    assert ballots.wants(stage.prepare("c", block, 10)) and ballots.wants(stage.commit("a", block, 10))
    count(ballots, stage, stage.prepare("c", block, 10))
    assert not ballots.wants(stage.prepare("d", block, 10)), "there are q already"


def test_a_quorum_is_a_certificate_of_its_kind(stage: Stage, ballots: Ballots) -> None:
    """P5, P7: the q-th vote makes it, with its place."""
    block = stage.chain_of(3)[2]
    for kind, votes in (("prepare", stage.prepares("abc", block, 10)), ("commit", stage.commits("abc", block, 10))):
        for vote in votes[:2]:
            assert ballots.count(stage.signed(vote), vote) == (None, None)  # type: ignore[arg-type]
        _, certificate = ballots.count(stage.signed(votes[2]), votes[2])  # type: ignore[arg-type]
        assert certificate == stage.certificate(kind, block, 10, "abc")  # type: ignore[arg-type]
    assert ballots.prepared_in(View(10)) == [(block.height, block.hash)] and ballots.prepared_in(View(11)) == []


def test_proposals_come_in_the_order_of_heights(stage: Stage, ballots: Ballots) -> None:
    """P2: those of one view above a height, whatever came first."""
    chain = stage.chain_of(6)
    keep(ballots, stage, *(stage.proposal(block, view) for block in reversed(chain[2:]) for view in (10, 11)))
    kept = ballots.proposals_above(View(10), Height(3))
    assert [signed.message for signed in kept] == [stage.proposal(block, 10) for block in chain[3:]]


def test_the_newest_of_each_kind_is_what_an_inquiry_is_answered_with(stage: Stage, ballots: Ballots) -> None:
    """P20: of that author only; by view, then height."""
    chain = stage.chain_of(4)
    said: list[Message] = [stage.proposal(block, view) for view in (14, 10) for block in chain[2:]]
    keep(ballots, stage, *said, stage.proposal(chain[2], 15))  # type: ignore[arg-type]
    count(
        ballots,
        stage,
        stage.prepare("c", chain[3], 10),
        stage.prepare("c", chain[2], 11),
        stage.commit("c", chain[2], 9),
    )
    count(ballots, stage, stage.prepare("a", chain[3], 12))
    newest = [signed.message for signed in ballots.newest_of(stage.id("c"))]
    assert newest == [stage.proposal(chain[3], 14), stage.prepare("c", chain[2], 11), stage.commit("c", chain[2], 9)]
    assert ballots.newest_of(stage.id("b")) == []


def test_in_the_early_views_no_vote_is_too_old(stage: Stage, ballots: Ballots) -> None:
    """P7: COMMITs of view 0 still commit when the view has changed."""
    ballots.move_to(Height(0), View(0))
    count(ballots, stage, stage.commit("a", stage.block(), 0))
    ballots.move_to(Height(0), View(8))
    assert len(ballots.commits) == 1
    ballots.move_to(Height(0), View(9))
    assert len(ballots.commits) == 0


def test_what_height_and_view_leave_behind_is_forgotten(stage: Stage, ballots: Ballots) -> None:
    """P23: votes at the new height and of views more than eight back; proposals of every view before."""
    chain = stage.chain_of(5)
    for view in (10, 11, 12):
        keep(ballots, stage, *(stage.proposal(block, view) for block in chain[2:]))
        for block in chain[2:]:
            count(ballots, stage, stage.prepare("a", block, view), stage.commit("a", block, view))
    assert len(ballots) == 27
    ballots.move_to(Height(3), View(11))
    assert sorted(ballots.proposals) == [(view, height) for view in (11, 12) for height in (4, 5)]
    assert (len(ballots.prepares), len(ballots.commits), len(ballots)) == (6, 6, 16)
    ballots.move_to(Height(3), View(19))
    assert (len(ballots.prepares), len(ballots.commits), len(ballots)) == (4, 4, 8)
    assert ballots.has_room_for(stage.prepare("a", chain[3], 11))
    assert not ballots.has_room_for(stage.prepare("a", chain[3], 10))
