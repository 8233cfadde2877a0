"""P2, P3, P19: a height where a lying primary shows several blocks, on one replica. Found by the model (docs/model.md).

A block that was certified in an earlier view and hidden is vouched for without being found good in this one: its time
may be too old by now. So a replica may have prepared a child and not the block itself.
"""

import pytest

from p2pledger.chain.block import Header
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import BlockRecord
from p2pledger.consensus.messages import Prepare
from p2pledger.primitives.ids import Epoch, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """Validator d: not a primary before view 3."""
    return Stage("d")


def _certified_and_hidden(stage: Stage) -> Header:
    """A block that d holds a certificate of view 0 for; the NEW-VIEW of view 1 knows nothing of it."""
    hidden = stage.block()
    stage.sees(*stage.prepares("abc", hidden))
    stage.reaches_view(1)
    assert stage.replica.base == (0, stage.genesis.hash)
    stage.withheld.add(hidden.hash)  # not found good any more
    return hidden


def test_the_accepted_parent_of_a_vote_survives_a_crash(stage: Stage) -> None:
    """P2, P19: a PREPARE says yes to every block below it; after a crash nothing else is prepared at their heights."""
    hidden = _certified_and_hidden(stage)
    child = stage.block(hidden)
    stage.sees(stage.proposal(hidden, 1), stage.proposal(child, 1))
    assert stage.said(Prepare) == [stage.prepare("d", child, view=1)]
    stage.restarts()
    stage.hears_nothing_of_itself()
    rival = stage.block(variant=1)
    stage.sees(stage.proposal(rival, 1))
    assert stage.said(Prepare) == [stage.prepare("d", child, view=1)]


def test_the_blocks_below_a_vote_are_journalled_with_it(stage: Stage) -> None:
    """P2, P16b, P19: all that was accepted up to it, not the prepared block alone."""
    hidden = _certified_and_hidden(stage)
    child, grandchild = stage.chain_of(2, hidden)
    stage.sees(*(stage.proposal(block, 1) for block in (hidden, child, grandchild)))
    journalled = {record.header.height for record in stage.store.journal() if isinstance(record, BlockRecord)}
    assert journalled == {1, 2, 3}


def test_a_block_that_lost_its_parent_meanwhile_gets_no_vote(stage: Stage) -> None:
    """P2, P3: when it is found good at last, another block is committed at its parent's height."""
    hidden = _certified_and_hidden(stage)
    child = stage.block(hidden)
    stage.withheld.add(child.hash)  # its time has not come yet
    stage.sees(stage.proposal(hidden, 1), stage.proposal(child, 1))
    assert stage.asked(do.CheckProposal)[-1] == do.CheckProposal(Epoch(0), View(1), child, hidden)
    stage.sees(*stage.commits("abc", stage.block(variant=1), view=1))
    assert stage.committed == 1
    stage.happens(on.ProposalChecked(Epoch(0), View(1), child.height, child.hash))
    assert stage.said(Prepare) == []


def test_nothing_is_checked_on_top_of_a_block_that_lost_its_parent(stage: Stage) -> None:
    """P2: nor is a grandchild, though its own parent was accepted and is held."""
    hidden = _certified_and_hidden(stage)
    child = stage.block(hidden)
    stage.sees(stage.proposal(hidden, 1), stage.proposal(child, 1))
    stage.sees(*stage.commits("abc", stage.block(variant=1), view=1))
    asked = len(stage.checked)
    stage.sees(stage.proposal(stage.block(child), 1))
    assert stage.said(Prepare) == [stage.prepare("d", child, view=1)]
    assert len(stage.checked) == asked
