"""Replicas in an unusual place: without a seat, alone, and told what they did not ask for."""

import pytest
from msgspec.structs import replace

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import Commit, Prepare, PrePrepare, Signed, ViewChange
from p2pledger.consensus.replica import Replica
from p2pledger.primitives.ids import Epoch, Height, Signature, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


@pytest.fixture
def observer(stage: Stage) -> Stage:
    """A replica without a seat, on the stage of validator d."""
    stage.replica = Replica(stage.founding, None)
    stage.sent, stage.effects = [], []
    stage._perform(stage.replica.start())
    return stage


def test_an_observer_asks_nobody_and_begins_at_once(observer: Stage) -> None:
    """P20: it signs nothing, so nothing of its own can be forgotten."""
    assert observer.asked(do.SendInquiry) == [] and not observer.replica.recovery.is_waiting
    assert [effect.timer for effect in observer.asked(do.SetTimer)] == ["retransmit"]  # type: ignore[union-attr]


def test_an_observer_follows_and_says_nothing(observer: Stage) -> None:
    """It checks and commits like everybody; it never votes, proposes, or loses patience."""
    first, second = observer.chain_of(2)
    observer.happens(on.WorkChanged(has_work=True))
    observer.sees(observer.proposal(first), *observer.prepares("abc", first), *observer.commits("abc", first))
    observer.reaches_view(1)
    observer.sees(observer.proposal(second, 1), *observer.commits("abc", second, 1))
    observer.sees(*(observer.view_change(who, 2) for who in "abc"))
    observer.fires("retransmit")
    assert observer.committed == 2 and observer.checked == [first, second]
    assert observer.sent == []
    assert not observer.replica.may_sign and not observer.replica.is_primary
    assert observer.replica.view == 1
    assert all(effect.timer == "retransmit" for effect in observer.asked(do.SetTimer))  # type: ignore[union-attr]


def test_who_is_alone_needs_no_answers_and_no_votes_of_others() -> None:
    """n = 1: q = 1, so nobody is asked; what it proposes it also prepares and commits."""
    stage = Stage("a", n=1, is_ready=False)
    assert stage.asked(do.SendInquiry) == [] and stage.replica.may_sign
    assert [effect.timer for effect in stage.asked(do.SetTimer)] == ["retransmit"]  # type: ignore[union-attr]
    block = stage.block()
    assert stage.asked(do.BuildProposal) == [do.BuildProposal(Epoch(0), View(0), stage.genesis)]
    stage.happens(on.ProposalBuilt(Epoch(0), View(0), block))
    assert [type(message) for message in stage.sent] == [PrePrepare, Prepare, Commit]
    assert stage.committed == 1


def test_before_anybody_has_answered_nothing_is_said(stage: Stage) -> None:
    """P20: from the start on, not only from the inquiry on."""
    fresh = Replica(stage.founding, stage.id("d"))
    assert not fresh.recovery.is_waiting, "it has not started"
    assert do.SendInquiry() in fresh.start() and not fresh.may_sign
    assert fresh.committed == Height(0)


def test_a_message_of_another_epoch_changes_nothing(stage: Stage) -> None:
    """There is one epoch."""
    votes = [replace(vote, epoch=Epoch(1)) for vote in stage.commits("abc", stage.block())]  # type: ignore[type-var]
    for vote in votes:
        stage.happens(on.Received(on.Verified(Signed(vote, Signature(bytes(64))))))
    assert stage.committed == 0 and len(stage.replica.ballots) == 0


def test_a_halted_replica_says_and_asks_nothing_more(stage: Stage) -> None:
    """P12: two certified blocks of one rank; it stops for good, not for one event."""
    fork = stage.block(variant=1)
    stage.sees(*stage.commits("abc", stage.block()))
    later = stage.block(fork)
    stage.happens(on.CertificateReceived(stage.certificate("commit", later, who="abc")))
    assert isinstance(stage.last, do.Halt)
    heard = len(stage.effects)
    stage.happens(on.WorkChanged(has_work=True))
    stage.fires("retransmit")
    assert len(stage.effects) == heard


def test_block_sync_moves_it_on(stage: Stage) -> None:
    """P21: what was committed on its behalf counts like what it committed itself; an older answer changes nothing."""
    chain = stage.chain_of(6)
    certificates = [stage.certificate("commit", block, who="abc") for block in chain]
    stage.happens(on.CertificateReceived(certificates[5]))
    assert stage.asked(do.SyncBlocks) == [do.SyncBlocks(certificates[5])]
    stage.happens(on.CaughtUp(chain[5], certificates[5]))
    assert stage.replica.committed == 6 and stage.replica.committed_certificate == certificates[5]
    stage.happens(on.CaughtUp(chain[2], certificates[2]))
    assert stage.replica.committed == 6 and stage.replica.lock == certificates[5]


def test_a_complaint_moves_it_once(stage: Stage) -> None:
    """P24: only about the view that it is in, and while it is in it."""
    stage.happens(on.PrimaryUnfair(View(3)))
    assert stage.replica.view == 0
    stage.happens(on.PrimaryUnfair(View(0)))
    assert stage.replica.view == 1 and len(stage.said(ViewChange)) == 1
    stage.happens(on.PrimaryUnfair(View(1)))
    assert stage.replica.view == 1, "that view has no primary yet"


def test_a_commit_certificate_that_waited_is_taken_up_after_a_restart(stage: Stage) -> None:
    """P5, P7: it was journalled as the lock; the block is fetched and committed."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(*stage.commits("abc", block))
    stage.fires()
    assert stage.committed == 0 and stage.replica.lock == stage.certificate("commit", block, who="abc")
    stage.restarts()
    stage.withheld.clear()
    stage.hears_nothing_of_itself()
    assert stage.committed == 1


# Pre-prepares


def kept(stage: Stage) -> list[PrePrepare]:
    return [signed.message for signed in stage.replica.ballots.proposals.values()]  # type: ignore[misc]


def test_a_proposal_out_of_bounds_is_not_kept(stage: Stage) -> None:
    """P23: also when the door has let it in, because bounds move."""
    for message in (stage.proposal(stage.chain_of(5)[4]), stage.proposal(stage.block(), 9)):
        stage.happens(on.Received(on.Verified(stage.signed(message))))
    assert kept(stage) == []


def test_a_primary_that_lies_about_another_view_costs_no_view_now(stage: Stage) -> None:
    """P9, P14: it is evidence, and nothing more while that view is not the one that is followed."""
    first, rival = stage.block(), stage.block(variant=1)
    stage.sees(stage.proposal(first, 2), stage.proposal(rival, 2))
    assert len(stage.asked(do.ReportEquivocation)) == 1 and stage.replica.view == 0
    stage.happens(on.PrimaryUnfair(View(0)))
    stage.sees(stage.proposal(first, 1), stage.proposal(rival, 1))
    assert len(stage.asked(do.ReportEquivocation)) == 2 and stage.replica.view == 1
    assert kept(stage) == [stage.proposal(first, 2), stage.proposal(first, 1)]


def test_nothing_is_accepted_before_the_view_is_entered(stage: Stage) -> None:
    """P2: what its primary proposed early is kept until then."""
    block = stage.block()
    stage.happens(on.PrimaryUnfair(View(0)))
    stage.sees(stage.proposal(block, 1))
    assert stage.replica.accepted.blocks == {} and stage.checked == []
    stage.reaches_view(1)
    assert stage.replica.accepted.blocks == {1: block} and stage.checked == [block]


def test_a_block_without_its_parent_is_not_accepted(stage: Stage) -> None:
    """P2: nor does it hold the place of the one that comes."""
    orphan = stage.block(stage.block(variant=1))
    stage.sees(stage.proposal(orphan))
    assert stage.replica.accepted.blocks == {} and kept(stage) == [stage.proposal(orphan)]


def test_the_bodies_of_a_prepared_block_are_fetched_as_soon_as_it_is_known(stage: Stage) -> None:
    """P6: q − f correct validators have found it good, so its own check is not waited for."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(*stage.prepares("abc", block))
    assert stage.asked(do.FetchHeader) == [do.FetchHeader(block.height, block.hash)]
    stage.sees(stage.proposal(block))
    assert stage.asked(do.FetchBodies) == [do.FetchBodies(block)]
