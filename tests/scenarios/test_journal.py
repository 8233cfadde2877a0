"""P4, P9, P13, P19, P20: what a replica has said and where it stands is in its journal, and nothing else decides."""

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import BlockRecord, LockRecord, VoteRecord
from p2pledger.consensus.messages import Prepare, ViewChange
from p2pledger.primitives.ids import Epoch, View
from tests.scenarios.stage import Stage


@pytest.fixture
def voter() -> Stage:
    """Validator d: not a primary before view 3."""
    return Stage("d")


def test_every_statement_is_journalled_before_it_is_said(voter: Stage) -> None:
    """P19: in the order of effects; a driver that writes late would still see the record first."""
    block = voter.block()
    voter.sees(voter.proposal(block), *voter.prepares("ab", block))
    voter.fires()
    written: set[object] = set()
    said = 0
    for effect in voter.effects:
        if isinstance(effect, do.Persist) and isinstance(effect.record, VoteRecord):
            written.add(effect.record.message)
        elif isinstance(effect, do.Broadcast):
            assert effect.message in written
            said += 1
    assert said == 3


def test_a_block_found_good_after_a_view_change_gets_no_vote(voter: Stage) -> None:
    """P4, P9: the answer of the checker names view 0; the replica has left it."""
    block = voter.block()
    voter.withheld.add(block.hash)
    voter.sees(voter.proposal(block))
    voter.fires()
    voter.happens(on.ProposalChecked(Epoch(0), View(0), block.height, block.hash))
    assert voter.said(Prepare) == []
    assert [change.view for change in voter.said(ViewChange)] == [1]


def test_a_vote_that_the_journal_holds_is_not_cast_for_another_block(voter: Stage) -> None:
    """P4, P19: whatever leads the replica to another block of a slot, what it says of that slot stays the same."""
    block, rival = voter.block(), voter.block(variant=1)
    voter.sees(voter.proposal(block))
    voter.replica.accepted.blocks.clear()
    voter.replica.ballots.proposals.clear()
    voter.sees(voter.proposal(rival))
    assert voter.said(Prepare) == [voter.prepare("d", block)]


def test_a_claim_is_journalled_with_its_certificate(voter: Stage) -> None:
    """P9, P19: also where the block itself is not held and no COMMIT was cast; the next claim does not fall back."""
    block = voter.block()
    voter.withheld.add(block.hash)
    voter.sees(*voter.prepares("abc", block))
    voter.happens(on.PrimaryUnfair(View(0)))
    assert any(isinstance(record, LockRecord) for record in voter.store.journal())
    voter.restarts()
    voter.hears_nothing_of_itself()
    voter.sees(voter.view_change("a", 2), voter.view_change("b", 2))
    claims = [change.claim for change in voter.said(ViewChange) if isinstance(change, ViewChange)]
    assert [claim is not None and claim.rank for claim in claims] == [(0, 1), (0, 1)]


def test_a_view_that_was_left_stays_left_after_a_crash(voter: Stage) -> None:
    """P9, P19, P20: who has said VIEW-CHANGE does not wake up in the old view and vote there."""
    voter.happens(on.PrimaryUnfair(View(0)))
    voter.restarts()
    voter.hears_nothing_of_itself()
    assert (voter.replica.view, voter.replica.is_active) == (1, False)
    voter.sees(voter.proposal(voter.block()))
    assert voter.said(Prepare) == []


def test_the_base_is_the_journals_and_not_that_of_a_later_lock(voter: Stage) -> None:
    """P13, P20, found unsafe otherwise: a certificate above the base is held when it crashes."""
    first, second = voter.chain_of(2)
    voter.reaches_view(1, voter.certificate("prepare", first, who="abc"), (first,))
    voter.sees(voter.proposal(second, view=1), *voter.prepares("abc", second, view=1))
    voter.restarts()
    assert voter.replica.lock is not None
    assert voter.replica.lock.rank == (1, 2)
    assert voter.replica.base == (1, first.hash)


def test_a_vote_comes_with_its_block(voter: Stage) -> None:
    """P6, P16b: what was voted for can be served after a crash, by whoever voted for it."""
    block = voter.block()
    voter.sees(voter.proposal(block))
    assert BlockRecord(block) in voter.store.journal()
    voter.restarts()
    assert voter.replica.window.headers[block.hash] == block
