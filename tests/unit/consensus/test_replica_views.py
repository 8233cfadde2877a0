"""What a replica does far behind, between views, and on entering one (P9, P12, P13, P16, P20, P21)."""

import pytest
from msgspec.structs import replace

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import NewView, Prepare, Signed, ViewChange, slot
from p2pledger.primitives.ids import Epoch, Signature, View
from tests.scenarios.stage import Stage, parameters


@pytest.fixture
def stage() -> Stage:
    """Validator d, primary of view 3."""
    return Stage("d")


def leaves(stage: Stage) -> None:
    """It gives its view up."""
    stage.happens(on.PrimaryUnfair(stage.replica.view))


# Far behind


def test_the_highest_certificate_beyond_the_window_is_synced_to(stage: Stage) -> None:
    """P21: once; a lower one and the same again change nothing, and nothing is fetched block by block."""
    chain = stage.chain_of(8)
    seventh, sixth, eighth = (stage.certificate("commit", chain[height - 1], who="abc") for height in (7, 6, 8))
    for certificate in (seventh, sixth, seventh, eighth):
        stage.happens(on.CertificateReceived(certificate))
    assert stage.asked(do.SyncBlocks) == [do.SyncBlocks(seventh), do.SyncBlocks(eighth)]
    assert stage.replica.pending == eighth
    assert stage.asked(do.FetchHeader) == []


def test_within_the_window_blocks_are_fetched_one_by_one(stage: Stage) -> None:
    """P7, P21: up to c + W."""
    fourth = stage.chain_of(4)[3]
    stage.withheld.add(fourth.hash)
    stage.happens(on.CertificateReceived(stage.certificate("commit", fourth, who="abc")))
    stage.fires("retransmit")
    assert stage.asked(do.SyncBlocks) == []
    assert stage.asked(do.FetchHeader) == [do.FetchHeader(fourth.height, fourth.hash)] * 2


def test_block_sync_is_asked_for_again(stage: Stage) -> None:
    """P16: with every repetition, until it has come far enough."""
    chain = stage.chain_of(6)
    certificate = stage.certificate("commit", chain[5], who="abc")
    stage.happens(on.CertificateReceived(certificate))
    stage.fires("retransmit")
    assert stage.asked(do.SyncBlocks) == [do.SyncBlocks(certificate)] * 2
    stage.happens(on.CaughtUp(chain[5], certificate))
    stage.fires("retransmit")
    assert stage.asked(do.SyncBlocks) == [do.SyncBlocks(certificate)] * 2
    assert stage.replica.pending is None


def test_what_was_synced_raises_lock_and_height(stage: Stage) -> None:
    """P5, P21: its certificate is held now; another one of the same height changes nothing."""
    block = stage.chain_of(3)[2]
    first, second = (stage.certificate("commit", block, view, "abc") for view in (0, 2))
    stage.happens(on.CaughtUp(block, first))
    assert (stage.replica.committed, stage.replica.lock, stage.replica.committed_certificate) == (3, first, first)
    stage.happens(on.CaughtUp(block, second))
    assert (stage.replica.lock, stage.replica.committed_certificate) == (first, first)


def test_a_view_change_brings_who_is_behind_forward(stage: Stage) -> None:
    """P9: the commit certificate beside it counts from anybody."""
    block = stage.block()
    stage.sees(stage.view_change("a", 1, committed=stage.certificate("commit", block, who="abc")))
    assert stage.committed == 1


# Leaving


def test_a_term_that_ends_during_a_view_change_costs_no_further_view() -> None:
    """P24: the view has been given up already."""
    stage = Stage("d", parameters=parameters(term_heights=1))
    leaves(stage)
    stage.sees(*stage.commits("abc", stage.block()))
    assert (stage.committed, stage.replica.view) == (1, 1)


def test_who_may_not_sign_stays_in_its_view() -> None:
    """P20: a VIEW-CHANGE is a statement like any other."""
    stage = Stage("d", is_ready=False)
    leaves(stage)
    stage.sees(*(stage.view_change(who, 1) for who in "ab"))
    assert stage.replica.view == 0 and stage.replica.is_active and stage.sent == []


def test_leaving_forgets_what_was_accepted_and_asked(stage: Stage) -> None:
    """P9, P16: the next view begins with nothing; what is still missing is asked for anew."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(*stage.commits("abc", block))
    stage.sees(stage.proposal(block))
    for _ in range(2):
        stage.happens(on.HeaderLearned(block))
    asked = len(stage.asked(do.FetchBodies))
    assert asked == 1
    leaves(stage)
    assert stage.replica.accepted.blocks == {} and stage.replica.accepted.view == 1
    stage.happens(on.HeaderLearned(block))
    assert len(stage.asked(do.FetchBodies)) == asked + 1


def test_the_tip_is_not_prepared_in_a_view_that_was_not_entered(stage: Stage) -> None:
    """P13: after leaving, the base is still that of the last view; nothing stands on it in the next one."""
    tip = stage.block()
    stage.reaches_view(1, stage.certificate("prepare", tip, who="abc"), (tip,))
    leaves(stage)
    stage.fires("retransmit")
    assert stage.replica.view == 2
    assert stage.said(Prepare) == [stage.prepare("d", tip, 1)]


def test_views_that_were_left_are_forgotten(stage: Stage) -> None:
    """P20, P23: own VIEW-CHANGEs for them, and the votes of more than eight views back."""
    leaves(stage)
    change = stage.said(ViewChange)[0]
    assert slot(change) in stage.replica.own
    stage.reaches_view(9)
    assert slot(change) not in stage.replica.own
    block = stage.block()
    assert not stage.replica.ballots.has_room_for(stage.prepare("a", block, 0))
    assert stage.replica.ballots.has_room_for(stage.prepare("a", block, 1))


# Showing a NEW-VIEW


def shown(tip_at: int, committed: int = 0) -> Stage:
    """Validator b, whom all others ask to lead view 5 from a tip at this height, prepared in view 1."""
    stage = Stage("b")
    chain = stage.chain_of(max(tip_at, committed))
    if committed:
        stage.happens(on.CertificateReceived(stage.certificate("commit", chain[committed - 1])))
    lock = stage.certificate("prepare", chain[tip_at - 1], 1)
    stage.sees(*(stage.view_change(who, 5, lock) for who in "acd"))
    return stage


@pytest.mark.parametrize(("tip_at", "committed", "headers"), [(1, 2, 0), (2, 2, 0), (3, 2, 1), (4, 0, 4)])
def test_headers_lead_from_its_own_height_to_the_tip(tip_at: int, committed: int, headers: int) -> None:
    """P12: what is committed needs none, and a tip at c + W is still within reach."""
    (said,) = shown(tip_at, committed).said(NewView)
    assert isinstance(said, NewView) and said.tip is not None
    assert (said.tip.height, len(said.headers)) == (tip_at, headers)


def test_a_tip_beyond_the_window_is_waited_for() -> None:
    """P12, P21: sync brings it; it is not fetched header by header."""
    stage = shown(5)
    assert stage.said(NewView) == [] and stage.asked(do.FetchHeader) == []


# Entering


def test_entering_takes_over_what_the_new_view_shows(stage: Stage) -> None:
    """P5, P13: the tip's certificate is held, its headers are known, only bodies are missing."""
    chain = stage.chain_of(2)
    stage.withheld.update(block.hash for block in chain)
    lock = stage.certificate("prepare", chain[1], who="abc")
    changes = [stage.view_change(who, 1, lock) for who in "abc"]
    stage.sees(stage.new_view(1, changes, tuple(chain)))
    assert stage.asked(do.ViewEntered) == [do.ViewEntered(View(1))]
    assert stage.replica.lock == lock
    assert stage.asked(do.FetchHeader) == [] and stage.asked(do.FetchBodies) == [do.FetchBodies(chain[0])]


def test_each_view_has_its_own_patience(stage: Stage) -> None:
    """P8: a timer of the view before does not run on in the next one."""
    stage.happens(on.WorkChanged(has_work=True))
    stage.reaches_view(1)
    timers = [effect for effect in stage.effects if getattr(effect, "timer", "") == "progress"]
    assert isinstance(timers[-1], do.SetTimer) and isinstance(timers[-2], do.StopTimer)
    entered = stage.effects.index(do.ViewEntered(View(1)))
    assert stage.effects.index(timers[-1]) > entered


# Repetition and inquiry


def test_what_was_not_found_good_is_checked_again(stage: Stage) -> None:
    """P16: the answer may have been that it cannot be judged yet."""
    block = stage.block()
    stage.withheld.add(block.hash)
    stage.sees(stage.proposal(block))
    stage.fires("retransmit")
    assert stage.checked == [block, block]


def test_the_inquiry_is_repeated_until_enough_have_answered() -> None:
    """P20: q − 1 others; one's own answer is none."""
    stage = Stage("d", is_ready=False)
    stage.fires("retransmit")
    assert len(stage.asked(do.SendInquiry)) == 2
    for who in "da":
        stage.happens(on.InquiryAnswered(stage.id(who), ()))
    assert stage.replica.recovery.is_waiting
    stage.happens(on.InquiryAnswered(stage.id("b"), ()))
    assert not stage.replica.recovery.is_waiting
    stage.fires("retransmit")
    assert len(stage.asked(do.SendInquiry)) == 2


def test_only_own_statements_of_this_epoch_tell_of_a_lost_journal(stage: Stage) -> None:
    """P20: whoever answers may add whatever it likes."""
    block = stage.block()
    other, mine = stage.signed(stage.prepare("c", block)), stage.prepare("d", block)
    stranger = Signed(replace(mine, epoch=Epoch(1)), Signature(bytes(64)))
    stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(other), on.Verified(stranger))))
    assert not stage.replica.recovery.is_silent
    stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(stage.signed(mine)),)))
    assert stage.replica.recovery.is_silent


def test_in_a_view_that_it_may_have_left_nothing_is_said_after_a_silence(stage: Stage) -> None:
    """P20, P9: the certificate lifts the silence, but a VIEW-CHANGE out of that very view may be forgotten."""
    chain = stage.chain_of(2)
    forgotten = on.Verified(stage.signed(stage.prepare("d", chain[0])))
    stage.happens(on.InquiryAnswered(stage.id("a"), (forgotten,)))
    stage.happens(on.CertificateReceived(stage.certificate("commit", chain[1], 1, "abc")))
    assert not stage.replica.recovery.is_silent and stage.replica.view == 0
    assert not stage.replica.may_sign
    stage.reaches_view(1)
    assert stage.replica.may_sign
