"""P2, P5, P7, P9, P12, P13, P23: late, rival and leftover statements, and what they must not bring about."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import Commit, NewView, Prepare, ViewChange
from p2pledger.primitives.ids import Epoch, Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def voter() -> Stage:
    """Validator d: not a primary before view 3."""
    return Stage("d")


def test_late_votes_for_a_committed_height_draw_none_of_its_own(voter: Stage) -> None:
    """P2: at heights ≤ c it says nothing more, not even for the committed block, and is not led to think of a fork."""
    block, rival = voter.block(), voter.block(variant=3)
    voter.sees(*voter.commits("abc", block))
    voter.happens(on.WorkChanged(has_work=True))
    for late in (block, rival):
        for vote in voter.prepares("abc", late):
            voter.happens(on.Received(on.Verified(voter.signed(vote))))
    assert voter.said(Commit) == []
    assert voter.asked(do.Halt) == []


def test_votes_for_rival_blocks_do_not_add_up(voter: Stage) -> None:
    """P5: two for one block and one for its rival are no quorum for either."""
    block, rival = voter.block(), voter.block(variant=9)
    voter.withheld.update((block.hash, rival.hash))
    voter.sees(voter.prepare("a", block), voter.prepare("b", block), voter.prepare("c", rival))
    assert voter.replica.lock is None


def test_votes_of_two_views_do_not_add_up(voter: Stage) -> None:
    """P5: two of view 0 and one of view 1 are no quorum of either."""
    block = voter.block()
    voter.withheld.add(block.hash)
    voter.sees(voter.prepare("a", block), voter.prepare("b", block), voter.prepare("c", block, view=1))
    assert voter.replica.lock is None


def test_votes_that_name_another_height_do_not_add_up(voter: Stage) -> None:
    """P5: a hash says which block it is, and still a vote that names another height is for nothing."""
    block = voter.block()
    voter.withheld.add(block.hash)
    lying = Prepare(Epoch(0), View(0), Height(2), block.hash, voter.id("c"))
    voter.sees(voter.prepare("a", block), voter.prepare("b", block), lying)
    assert voter.replica.lock is None


def test_a_higher_certificate_raises_the_lock(voter: Stage) -> None:
    """P5: by height within a view, and by view before height."""
    first, second = voter.chain_of(2)
    voter.sees(*voter.prepares("abc", first))
    ranks = []
    for block, view in ((second, 0), (first, 1)):
        voter.sees(*voter.prepares("abc", block, view))
        assert voter.replica.lock is not None
        ranks.append(voter.replica.lock.rank)
    assert ranks == [(0, 2), (1, 1)]


def test_a_certificate_of_a_committed_height_is_not_applied_again(voter: Stage) -> None:
    """P7: whatever comes again, late or from another view, each height is applied once."""
    first, second = voter.chain_of(2)
    voter.sees(*voter.commits("abc", second))
    for certificate in (voter.certificate("commit", first), voter.certificate("commit", second, view=1)):
        voter.happens(on.CertificateReceived(certificate))
    assert voter.committed == 2
    assert len(voter.asked(do.CommitBlock)) == 2
    assert voter.asked(do.Halt) == []


def test_it_leaves_for_a_view_above_that_of_its_lock(voter: Stage) -> None:
    """P9, P11: a certificate of view 3 was heard in view 0; a claim of it is good in a VIEW-CHANGE for 4, not for 1."""
    block = voter.block()
    voter.withheld.add(block.hash)
    voter.sees(*voter.commits("abc", block, view=3))
    voter.fires()
    (change,) = voter.said(ViewChange)
    assert isinstance(change, ViewChange)
    assert change.claim is not None
    assert (change.view, change.claim.view) == (4, 3)


def test_view_changes_for_other_views_do_not_count() -> None:
    """P12: exactly v'; two for 1 and one for 5 are no quorum for 1."""
    primary = Stage("b")
    primary.sees(primary.view_change("a", 1), primary.view_change("c", 5))
    assert [change.view for change in primary.said(ViewChange)] == [1]
    assert primary.said(NewView) == []
    primary.sees(primary.view_change("d", 1))
    assert len(primary.said(NewView)) == 1


def test_the_tip_comes_with_its_own_certificate() -> None:
    """P12: claim and certificate of a NEW-VIEW are of one block, the highest by (view, height)."""
    primary = Stage("b")
    tall, short = primary.chain_of(3)[2], primary.block(variant=8)
    old, new = primary.certificate("prepare", tall, view=0), primary.certificate("prepare", short, view=2)
    primary.sees(primary.view_change("a", 5, old), primary.view_change("c", 5, new), primary.view_change("d", 5))
    (shown,) = primary.said(NewView)
    assert isinstance(shown, NewView)
    assert shown.certificate == new


def test_a_new_view_of_a_view_that_was_left_is_not_entered(voter: Stage) -> None:
    """P9, P13: who asked for view 2 says nothing in view 1 any more."""
    changes = [voter.view_change(who, 1) for who in "abc"]
    voter.sees(voter.view_change("a", 2), voter.view_change("b", 2))
    assert voter.replica.view == 2
    voter.happens(on.Received(on.Verified(voter.signed(voter.new_view(1, changes)))))
    assert (voter.replica.view, voter.replica.is_active) == (2, False)
    voter.sees(voter.proposal(voter.block(), view=1))
    assert [type(message) for message in voter.sent] == [ViewChange]


def test_what_is_committed_leaves_the_tallies(voter: Stage) -> None:
    """P2, P23: of all that was kept for a height nothing is left once it is committed."""
    block, rival = voter.block(), voter.block(variant=1)
    voter.sees(voter.proposal(block), voter.prepare("a", rival), voter.prepare("c", block), voter.commit("a", rival, 3))
    voter.sees(*voter.commits("abc", block))
    assert voter.committed == 1
    assert len(voter.replica.ballots) == 0


def test_everybody_agrees_on_the_primary_whatever_is_committed(voter: Stage) -> None:
    """P2: validators[(e + v) mod n]; what a replica has committed has no part in it."""
    before = voter.replica.primary
    voter.sees(*voter.commits("abc", voter.block()))
    assert voter.replica.primary == before == voter.founding.validators.primary(voter.replica.epoch, View(0))
