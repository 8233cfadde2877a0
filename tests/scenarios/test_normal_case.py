"""P1 to P7 on one replica: propose, accept, check, prepare, commit."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus.journal import BlockRecord, LockRecord, VoteRecord
from p2pledger.consensus.messages import Commit, NewView, Prepare, PrePrepare, ViewChange
from p2pledger.consensus.window import Window
from p2pledger.primitives.errors import InvalidInput
from tests.attack import Without
from tests.scenarios.stage import Stage, parameters


@pytest.fixture
def stage() -> Stage:
    return Stage("b")


@pytest.fixture
def primary() -> Stage:
    return Stage("a")


def test_a_primary_proposes_up_to_its_window_and_no_further() -> None:
    """P1: h ≤ c + W; the next one follows when a height commits."""
    stage = Stage("a", parameters=parameters(window=2))
    blocks = stage.chain_of(4)
    stage.proposes = blocks
    stage.restarts()
    stage.hears_nothing_of_itself()
    assert [message.height for message in stage.said(PrePrepare)] == [1, 2]
    stage.sees(*stage.commits("bcd", blocks[0]))
    assert [message.height for message in stage.said(PrePrepare)] == [1, 2, 3]


def test_a_primary_that_is_asked_again_shows_the_same_block() -> None:
    """P1, P19: at most one block per place, ever; after a restart the journalled one is said again."""
    stage = Stage("a")
    first, other = stage.block(), stage.block(variant=5)
    stage.proposes = [first]
    stage.restarts()
    stage.hears_nothing_of_itself()
    stage.proposes = [other]
    stage.restarts()
    stage.hears_nothing_of_itself()
    assert stage.said(PrePrepare) == [stage.proposal(first)]


def test_only_the_primary_of_the_view_can_propose(stage: Stage) -> None:
    """P2: a proposal by somebody else does not pass the door."""
    block = stage.block()
    with pytest.raises(InvalidInput, match="is not the primary of view 0"):
        stage.sees(PrePrepare(stage.replica.epoch, stage.replica.view, block, stage.id("c")))
    stage.sees(stage.proposal(block))
    assert stage.said(Prepare) == [stage.prepare("b", block)]


def test_a_block_waits_for_its_parent(stage: Stage) -> None:
    """P2: early pre-prepares are kept, and accepted once the block below is."""
    first, second = stage.chain_of(2)
    stage.sees(stage.proposal(second))
    assert stage.said(Prepare) == []
    stage.sees(stage.proposal(first))
    assert stage.said(Prepare) == [stage.prepare("b", first), stage.prepare("b", second)]


def test_a_block_on_another_parent_is_not_accepted(stage: Stage) -> None:
    """P2: the parent must be the block accepted at the height below."""
    first, stranger = stage.block(), stage.block(variant=7)
    orphan = stage.block(stranger)
    stage.sees(stage.proposal(first), stage.proposal(orphan))
    assert stage.said(Prepare) == [stage.prepare("b", first)]


def test_heights_beyond_the_window_are_not_kept(stage: Stage) -> None:
    """P2, P23: c < h ≤ c + W."""
    blocks = stage.chain_of(5)
    stage.sees(*(stage.proposal(block) for block in reversed(blocks)))
    assert [message.height for message in stage.said(Prepare)] == [1, 2, 3, 4]


def test_a_committed_height_is_never_voted_on_again(stage: Stage) -> None:
    """P2: at heights ≤ c nothing is prepared but the committed block, which needs no vote."""
    block, rival = stage.block(), stage.block(variant=3)
    stage.sees(*stage.commits("acd", block))
    stage.sees(stage.proposal(rival), *stage.prepares("acd", rival))
    assert stage.committed == 1
    assert stage.sent == []


def test_a_block_that_is_not_found_good_gets_no_vote(stage: Stage) -> None:
    """P3: bad or incomplete, it stays without our PREPARE."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(stage.proposal(block))
    assert stage.checked == [block]
    assert stage.sent == []


@pytest.mark.attack("T17")
def test_a_good_child_does_not_vouch_for_a_bad_parent(stage: Stage, without: Without) -> None:
    """P3, P7: a certificate commits all ancestors, so nothing on top of an unchecked block is checked or prepared."""
    bad, good = stage.chain_of(2)
    with without(Window.vouches_for, "return"):
        victim = Stage("b")
        victim.withheld.add(bad.hash)
        victim.sees(victim.proposal(bad), victim.proposal(good))
        assert victim.said(Prepare) == [victim.prepare("b", good)]
    stage.withheld.add(bad.hash)
    stage.sees(stage.proposal(bad), stage.proposal(good))
    assert stage.checked == [bad]
    assert stage.sent == []


def test_nothing_on_an_unchecked_block_is_checked_or_prepared(stage: Stage) -> None:
    """P3: as long as its parent's check has not come back."""
    bad, good = stage.chain_of(2)
    stage.withheld.add(bad.hash)
    stage.sees(stage.proposal(bad), stage.proposal(good))
    assert stage.checked == [bad]
    assert stage.sent == []


def test_a_certified_block_needs_no_check(stage: Stage) -> None:
    """P3, P6: q − f honest replicas have checked it; holding it is enough to COMMIT."""
    block = stage.block()
    stage.sees(*stage.prepares("acd", block))
    assert stage.said(Commit) == [stage.commit("b", block)]
    assert stage.checked == []


def test_it_prepares_once_whatever_the_primary_shows_later(stage: Stage) -> None:
    """P4, P9, P14: one PREPARE per place; the second proposal is evidence and costs the primary its view."""
    block, rival = stage.block(), stage.block(variant=2)
    stage.sees(stage.proposal(block), stage.proposal(rival))
    assert stage.said(Prepare) == [stage.prepare("b", block)]
    assert len(stage.asked(do.ReportEquivocation)) == 1
    assert [message.view for message in stage.said(ViewChange)] == [1]


def test_the_primary_prepares_its_own_block_like_everybody(primary: Stage) -> None:
    """P4: certificates are uniform."""
    block = primary.block()
    primary.proposes = [block]
    primary.restarts()
    primary.hears_nothing_of_itself()
    assert primary.sent == [primary.proposal(block), primary.prepare("a", block)]


def test_a_quorum_of_prepares_locks_the_block(stage: Stage) -> None:
    """P5, P6: with q PREPAREs it commits to that block; with q − 1 it does not."""
    block = stage.block()
    stage.sees(stage.proposal(block), stage.prepare("a", block))
    assert stage.replica.lock is None
    assert stage.sent == [stage.prepare("b", block)]
    stage.sees(stage.prepare("c", block))
    assert stage.replica.lock is not None
    assert stage.replica.lock.rank == (0, 1)
    assert stage.sent == [stage.prepare("b", block), stage.commit("b", block)]


def test_a_lower_certificate_does_not_replace_the_lock(stage: Stage) -> None:
    """P5: the lock is the highest certificate ever held."""
    first, second = stage.chain_of(2)
    stage.sees(stage.proposal(first), stage.proposal(second), *stage.prepares("acd", second))
    stage.sees(*stage.prepares("acd", first))
    assert stage.replica.lock is not None
    assert stage.replica.lock.rank == (0, 2)


def test_votes_for_different_blocks_or_views_are_no_quorum(stage: Stage) -> None:
    """P5: the same epoch, view, height and hash."""
    block, rival = stage.block(), stage.block(variant=9)
    stage.sees(stage.prepare("a", block), stage.prepare("c", rival), stage.prepare("d", block, view=1))
    assert stage.replica.lock is None


def test_a_commit_is_journalled_with_its_certificate_and_block_first(stage: Stage) -> None:
    """P6, P16b, P19: certificate, block and vote are durable in one write before the COMMIT is said."""
    block = stage.block()
    stage.sees(stage.proposal(block), stage.prepare("a", block), stage.prepare("c", block))
    journal = stage.store.journal()
    assert BlockRecord(block) in journal
    assert any(isinstance(record, LockRecord) and record.certificate.block_hash == block.hash for record in journal)
    assert VoteRecord(stage.commit("b", block)) in journal


def test_it_does_not_commit_to_a_block_it_does_not_hold(stage: Stage) -> None:
    """P6: a COMMIT promises that the block with its ancestors and bodies is here."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(stage.proposal(block), *stage.prepares("acd", block))
    assert stage.said(Commit) == []
    stage.withheld.clear()
    stage.fires("retransmit")
    assert stage.said(Commit) == [stage.commit("b", block)]


def test_a_commit_certificate_commits_all_ancestors_in_order(stage: Stage) -> None:
    """P7: through the single apply path, lowest first; only the last carries the certificate."""
    blocks = stage.chain_of(3)
    stage.sees(*stage.commits("acd", blocks[2]))
    appended = [effect.record for effect in stage.asked(do.CommitBlock) if isinstance(effect, do.CommitBlock)]
    assert [record.header for record in appended] == blocks
    assert [record.certificate is not None for record in appended] == [False, False, True]


def test_it_commits_from_an_old_view_and_while_changing_view(stage: Stage) -> None:
    """P7: any view, any mode."""
    block = stage.block()
    stage.replica.has_work = True
    stage.sees(stage.proposal(block))
    stage.fires()
    assert not stage.replica.is_active
    stage.sees(*stage.commits("acd", block))
    assert stage.committed == 1


def test_missing_blocks_are_fetched_before_they_are_committed(stage: Stage) -> None:
    """P7: nothing is appended over a gap."""
    first, second = stage.chain_of(2)
    stage.withheld.add(first.hash)
    stage.sees(*stage.commits("acd", second))
    assert stage.committed == 0
    assert stage.asked(do.FetchHeader)[-1] == do.FetchHeader(first.height, first.hash)
    stage.withheld.clear()
    stage.fires("retransmit")
    assert stage.committed == 2


def test_two_commit_certificates_that_contradict_each_other_stop_the_replica(stage: Stage) -> None:
    """P7: more than f lie; it halts loudly and stays halted rather than choose."""
    block, rival = stage.block(), stage.block(variant=4)
    child = stage.block(rival)
    stage.sees(*stage.commits("acd", block))
    stage.sees(*stage.commits("acd", child, view=1))
    assert isinstance(stage.last, do.Halt)
    stage.restarts()
    stage.hears_nothing_of_itself()
    stage.sees(stage.proposal(stage.block(block)))
    assert stage.sent == []


def test_nothing_is_said_in_a_new_view_that_was_not_entered(stage: Stage) -> None:
    """P2: pre-prepares of a later view wait for its NEW-VIEW."""
    block = stage.block()
    stage.sees(stage.proposal(block, view=2))
    assert stage.sent == []
    assert stage.said(NewView) == []
