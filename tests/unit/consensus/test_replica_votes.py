"""What a replica does with checks, votes and certificates that come late, twice, or from elsewhere (P3 to P7)."""

import pytest
from msgspec.structs import replace

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import BlockRecord, LockRecord, VoteRecord
from p2pledger.consensus.messages import Commit, Message, Prepare
from p2pledger.primitives.ids import Epoch, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def hears(stage: Stage, *messages: Message) -> None:
    """Whatever the bounds say: they are asked at the door, and may have moved since."""
    for message in messages:
        stage.happens(on.Received(on.Verified(stage.signed(message))))


def journalled(stage: Stage, kind: type) -> list[object]:
    records = [effect.record for effect in stage.effects if isinstance(effect, do.Persist)]
    return [record for record in records if isinstance(record, kind)]


def test_a_check_speaks_for_its_own_block_only(stage: Stage) -> None:
    """P3: the answer names the block; one about another block of that height says nothing."""
    block, rival = stage.block(), stage.block(variant=1)
    stage.withheld.add(block.hash)
    stage.sees(stage.proposal(block))
    stage.happens(on.ProposalChecked(Epoch(0), View(0), rival.height, rival.hash))
    assert stage.said(Prepare) == [] and not stage.replica.window.held
    stage.happens(on.ProposalChecked(Epoch(0), View(0), block.height, block.hash))
    assert stage.said(Prepare) == [stage.prepare("d", block)]


def test_a_check_that_an_earlier_view_asked_for_draws_no_vote(stage: Stage) -> None:
    """P4: the block is known to be good; the vote waits for the check that this view asks for."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.reaches_view(1)
    stage.sees(stage.proposal(block, 1))
    stage.happens(on.ProposalChecked(Epoch(0), View(0), block.height, block.hash))
    assert stage.said(Prepare) == [] and stage.replica.window.held == {block.hash}


def test_a_proposal_is_journalled_with_its_block_first() -> None:
    """P1, P16b: in the very write that journals the statement."""
    stage = Stage("a")
    block = stage.block()
    first, second, *_ = stage.replica.handle(on.ProposalBuilt(Epoch(0), View(0), block))
    assert [first, second] == [do.Persist(BlockRecord(block)), do.Persist(VoteRecord(stage.proposal(block)))]


def test_a_block_that_was_only_fetched_is_journalled_before_its_commit(stage: Stage) -> None:
    """P6: with its ancestors, though no PREPARE of its own has journalled any of them."""
    first, second = stage.chain_of(2)
    stage.sees(*stage.prepares("abc", second))
    assert stage.said(Prepare) == [] and stage.said(Commit) == [stage.commit("d", second)]
    assert journalled(stage, BlockRecord) == [BlockRecord(first), BlockRecord(second)]


def test_votes_out_of_bounds_are_not_counted(stage: Stage) -> None:
    """P23: also those that the door let in before the bounds moved."""
    hears(stage, *stage.prepares("abc", stage.chain_of(5)[4]), *stage.commits("abc", stage.block(), 9))
    assert len(stage.replica.ballots) == 0 and stage.committed == 0


def test_a_lock_of_the_same_rank_stays(stage: Stage) -> None:
    """P5: only a higher certificate becomes the lock; the COMMITs of the same place are not higher."""
    block = stage.block()
    stage.sees(stage.proposal(block), *stage.prepares("abc", block), *stage.commits("abc", block))
    assert stage.committed == 1
    assert stage.replica.lock is not None and stage.replica.lock.kind == "prepare"


def test_nothing_is_committed_in_a_view_that_was_not_entered(stage: Stage) -> None:
    """P6, P9: PREPAREs of the view that is asked for may come before its NEW-VIEW."""
    block = stage.block()
    stage.happens(on.PrimaryUnfair(View(0)))
    stage.sees(*stage.prepares("abc", block, 1))
    assert stage.said(Commit) == []
    stage.reaches_view(1)
    assert stage.said(Commit) == [stage.commit("d", block, 1)]


def test_a_commit_is_said_and_its_lock_journalled_once(stage: Stage) -> None:
    """P6: further votes and repetitions add nothing."""
    block = stage.block()
    stage.sees(stage.proposal(block), *stage.prepares("abc", block))
    before = len(journalled(stage, LockRecord))
    hears(stage, stage.prepare("c", block))
    stage.happens(on.BlockHeld(block))
    assert before == len(journalled(stage, LockRecord)) == 1
    assert stage.said(Commit) == [stage.commit("d", block)]


def test_one_height_does_not_wait_for_the_commit_of_another(stage: Stage) -> None:
    """P6: several heights are open at a time."""
    first, second = stage.chain_of(2)
    stage.sees(stage.proposal(first), stage.proposal(second), *stage.prepares("abc", first))
    stage.sees(*stage.prepares("abc", second))
    assert stage.said(Commit) == [stage.commit("d", first), stage.commit("d", second)]
    assert stage.committed == 0


@pytest.mark.parametrize(("committed_in", "is_fork"), [(0, True), (1, True), (2, False)])
def test_a_prepared_chain_beside_the_committed_one(committed_in: int, is_fork: bool) -> None:
    """P13: more than f lie, unless a later view than this one has committed what stands there."""
    stage = Stage("d")
    stage.reaches_view(1)
    block = stage.block()
    stage.happens(on.CertificateReceived(stage.certificate("commit", block, committed_in, "abc")))
    assert stage.committed == 1
    rival = stage.block(stage.block(variant=1))
    stage.sees(*stage.prepares("abc", rival, 1))
    assert stage.replica.is_halted is is_fork
    assert stage.said(Commit) == []


def test_a_prepared_chain_beside_the_genesis_is_a_fork(stage: Stage) -> None:
    """P7: nothing is committed yet, but the chain has a beginning."""
    stranger = replace(stage.block(), parent=bytes(32))
    stage.library[stranger.hash] = stranger
    stage.sees(*stage.prepares("abc", stranger))
    assert stage.replica.is_halted


def test_a_certificate_of_what_is_committed_changes_nothing(stage: Stage) -> None:
    """P2, P7: nor does one of another epoch."""
    first, second = stage.chain_of(2)
    stage.sees(*stage.commits("abc", first))
    lock = stage.replica.lock
    stage.happens(on.CertificateReceived(stage.certificate("commit", first, 3, "abc")))
    strange = replace(stage.certificate("commit", second, 3, "abc"), epoch=Epoch(1))
    stage.happens(on.CertificateReceived(strange))
    assert (stage.replica.lock, stage.replica.pending, stage.committed) == (lock, None, 1)
