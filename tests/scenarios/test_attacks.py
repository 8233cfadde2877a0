"""What liars make of one replica when a single rule of the protocol is missing, and that the rule alone stops them."""

from collections.abc import Callable

import pytest

from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus import view_change as changing
from p2pledger.consensus.accepted import Accepted
from p2pledger.consensus.ballots import Ballots
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import Commit, Message, NewView, Prepare, ViewChange
from p2pledger.consensus.recovery import Recovery
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.tally import Tally
from p2pledger.consensus.view_change import ViewChanges
from p2pledger.consensus.window import Window
from p2pledger.engine.ports import PutJournal
from p2pledger.primitives.errors import StoreError
from p2pledger.storage import rules
from tests.attack import Check, Without
from tests.scenarios.stage import Stage

Attack = Callable[[], list[Message]]
"""Plays it on a replica of its own; what that was made to say."""


def on_another_parent() -> list[Message]:
    """P2: the second block stands on one that nobody proposed here."""
    stage = Stage("b")
    orphan = stage.block(stage.block(variant=7))
    stage.sees(stage.proposal(stage.block()), stage.proposal(orphan))
    return stage.said(Prepare)[1:]


def on_a_bad_parent() -> list[Message]:
    """P3: the certificate of a good child would commit a parent that nobody found good."""
    stage = Stage("b")
    bad, good = stage.chain_of(2)
    stage.withheld.add(bad.hash)
    stage.sees(stage.proposal(bad), stage.proposal(good))
    return stage.said(Prepare)


def on_what_a_later_view_committed() -> list[Message]:
    """P2, P16: the old primary goes on above a block of which it knows by certificate only."""
    stage = Stage("d")
    block = stage.block()
    stage.sees(*stage.commits("abc", block, view=3))
    stage.sees(stage.proposal(stage.block(block)))
    return stage.said(Prepare)


def below_the_tip() -> list[Message]:
    """P13, known unsafe: a certificate (v', low) would outrank (v, high) though that may be committed."""
    stage = Stage("d")
    first, second = stage.chain_of(2)
    stage.reaches_view(1, stage.certificate("prepare", second, who="abc"), (first, second))
    stage.sees(stage.proposal(stage.block(variant=6), view=1))
    return [message for message in stage.said(Prepare) if message != stage.prepare("d", second, view=1)]


@pytest.mark.attack("T17")
@pytest.mark.parametrize(
    ("check", "attack"),
    [
        (Check(Accepted.parent_of, "parent.hash == header.parent"), on_another_parent),
        (Check(Accepted.take_due_checks, "window.vouches_for(parent)"), on_a_bad_parent),
        (Check(Accepted._may_follow, "return"), on_what_a_later_view_committed),
        (Check(Accepted.parent_of, "if below < self.base[0]"), below_the_tip),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_proposal_stands_where_it_may(without: Without, check: Check, attack: Attack) -> None:
    with without(*check):
        assert len(attack()) == 1
    assert attack() == []


@pytest.mark.attack("T18")
def test_beyond_the_window_nothing_is_kept(without: Without) -> None:
    """P2, P23: h ≤ c + W, or one liar fills the memory with heights."""

    def attack() -> list[int]:
        stage = Stage("b")
        blocks = stage.chain_of(7)
        stage.sees(*(stage.proposal(block) for block in reversed(blocks)))
        return sorted(message.height for message in stage.replica.own.cast.values() if isinstance(message, Prepare))

    with without(Ballots.has_room_for, "return"):
        assert attack() == [1, 2, 3, 4, 5, 6, 7]
    assert attack() == [1, 2, 3, 4]


@pytest.mark.attack("T18")
def test_of_one_author_and_place_two_votes_are_kept(without: Without) -> None:
    """P23: a liar signs a thousand different votes for one place."""

    def attack() -> int:
        stage, tally = Stage("b"), Tally()
        for number in range(100):
            vote = stage.prepare("a", stage.block(variant=number))
            tally.add(stage.signed(vote), vote)
        return len(tally)

    with without(Tally.add, "len(earlier) >= 2"):
        assert attack() == 100
    assert attack() == 2


@pytest.mark.attack("T18")
def test_a_third_vote_is_not_even_verified(without: Without) -> None:
    """P23: what cannot count must not cost a signature check."""

    def is_asked_for() -> bool:
        stage = Stage("b")
        stage.sees(*(stage.prepare("a", stage.block(variant=number)) for number in range(2)))
        return stage.replica.ballots.wants(stage.prepare("a", stage.block(variant=9)))

    with without(Ballots.wants, "tally.knows_equivocation(message)"):
        assert is_asked_for()
    assert not is_asked_for()


@pytest.mark.attack("T18")
def test_one_validators_large_number_moves_nobody(without: Without) -> None:
    """P10: f + 1 distinct validators, or one liar drives everybody's view to where no timer ever ends."""

    stage = Stage("d")
    collected = ViewChanges(stage.founding.validators)
    change = stage.view_change("a", 9_999)
    collected.add(stage.signed(change), change)
    with without(ViewChanges.wanted_above, "len(views) > self._validators.f"):
        assert collected.wanted_above(stage.replica.view) == 9_999
    assert collected.wanted_above(stage.replica.view) is None
    stage.sees(change)
    assert stage.said(ViewChange) == []


@pytest.mark.attack("T16")
def test_a_primary_that_shows_two_blocks_loses_its_view(without: Without) -> None:
    """P9, P14: the pair is evidence; without the comparison it goes on unnoticed."""

    def attack() -> Stage:
        stage = Stage("b")
        stage.sees(stage.proposal(stage.block()), stage.proposal(stage.block(variant=2)))
        return stage

    with without(Replica._on_pre_prepare, "if known.message != message"):
        deceived = attack()
        assert deceived.replica.is_active and deceived.asked(do.ReportEquivocation) == []
    wary = attack()
    assert not wary.replica.is_active and len(wary.asked(do.ReportEquivocation)) == 1


@pytest.mark.attack("T16")
def test_a_view_is_entered_once(without: Without) -> None:
    """P13, known unsafe: a second NEW-VIEW with another base would have two blocks prepared at one height."""

    def attack() -> Stage:
        stage = Stage("d")
        block = stage.block()
        lock = stage.certificate("prepare", block, who="abc")
        changes = [stage.view_change(who, 1) for who in "abc"]
        stage.sees(*changes, stage.new_view(1, changes))
        stage.sees(stage.new_view(1, [stage.view_change("a", 1, lock), *changes[1:]], (block,)))
        return stage

    with without(Replica._on_new_view, "if message.view < self.view or"):
        deceived = attack()
        assert deceived.replica.base[0] == 1 and len(deceived.said(Prepare)) == 1
    wary = attack()
    assert wary.replica.base[0] == 0 and wary.said(Prepare) == []


@pytest.mark.attack("T20")
def test_two_certified_blocks_of_one_rank_stop_the_primary(without: Without) -> None:
    """P12: more than f lie; whichever it chose would be signed by it."""

    def attack() -> Stage:
        stage = Stage("b")
        locks = [stage.certificate("prepare", stage.block(variant=number)) for number in range(2)]
        stage.sees(stage.view_change("a", 1, locks[0]), stage.view_change("c", 1, locks[1]), stage.view_change("d", 1))
        return stage

    with without(changing.select_tip, "if len(rivals) > 1"):
        assert len(attack().said(NewView)) == 1
    wary = attack()
    assert wary.said(NewView) == [] and isinstance(wary.last, do.Halt)


@pytest.mark.attack("T21")
def test_nothing_is_committed_that_is_not_held(without: Without) -> None:
    """P6: a primary shows headers and withholds bodies; q COMMITs would decide a block that nobody can execute."""

    def attack() -> list[Message]:
        stage = Stage("b")
        block = stage.block()
        stage.withheld.add(block.hash)
        stage.sees(stage.proposal(block), *stage.prepares("acd", block))
        return stage.said(Commit)

    with without(Window.chain_to, "if header.hash not in self.held"):
        assert len(attack()) == 1
    assert attack() == []


# A key whose journal was lost (P20)


def votes_again(by: str = "lost disk") -> list[Message]:
    """It had prepared one block; its disk is replaced and the primary shows it another."""
    stage = Stage("d")
    block, rival = stage.block(), stage.block(variant=1)
    if by == "second copy":
        stage.sees(stage.prepare("d", block))
    else:
        stage.restarts(with_empty_disk=True)
        stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(stage.signed(stage.prepare("d", block))),)))
        stage.happens(on.InquiryAnswered(stage.id("b"), ()))
    stage.sees(stage.proposal(rival))
    return stage.said(Prepare)


@pytest.mark.attack("T32")
@pytest.mark.parametrize("by", ["lost disk", "second copy"])
def test_a_key_with_a_lost_journal_is_silent(without: Without, by: str) -> None:
    """P20: two PREPAREs of one key for one place, and f is used up."""
    with without(Replica.may_sign.fget, "not self.recovery.is_silent"):  # type: ignore[attr-defined]
        assert len(votes_again(by)) == 1
    assert votes_again(by) == []


@pytest.mark.attack("T32")
def test_nothing_is_signed_before_the_others_have_answered(without: Without) -> None:
    """P20: the only one who remembers may be the last to answer."""

    def attack() -> list[Message]:
        stage = Stage("d")
        stage.restarts(with_empty_disk=True)
        stage.sees(stage.proposal(stage.block(variant=1)))
        return stage.said(Prepare)

    with without(Replica.may_sign.fget, "not self.recovery.is_waiting"):  # type: ignore[attr-defined]
        assert len(attack()) == 1
    assert attack() == []


@pytest.mark.attack("T32")
@pytest.mark.parametrize(
    ("check", "view", "height"),
    [
        (Check(Recovery.lift, "height > self.silent_height"), 1, 1),
        (Check(Recovery.lift, "view > self.silent_view"), 0, 2),
    ],
)
def test_silence_ends_above_everything_that_may_have_been_signed(
    without: Without, check: Check, view: int, height: int
) -> None:
    """P20: a greater height and a greater view; either alone is not enough."""

    def may_sign() -> bool:
        stage = Stage("d")
        blocks = stage.chain_of(2)
        stage.restarts(with_empty_disk=True)
        forgotten = stage.signed(stage.prepare("d", blocks[0]))
        stage.happens(on.InquiryAnswered(stage.id("a"), (on.Verified(forgotten),)))
        stage.happens(on.InquiryAnswered(stage.id("b"), ()))
        stage.sees(*stage.commits("abc", blocks[height - 1], view=view))
        stage.reaches_view(2)  # in those that it may have left it stays silent anyway
        return stage.replica.may_sign

    with without(*check):
        assert may_sign()
    assert not may_sign()


@pytest.mark.attack("T32")
def test_the_journal_itself_refuses_a_contradicting_vote(without: Without) -> None:
    """P19: the last guard, should everything above it be wrong."""

    def attack() -> None:
        stage = Stage("d")
        votes = [stage.prepare("d", stage.block(variant=number)) for number in range(2)]
        for message in votes:
            stage.store.apply([PutJournal(VoteRecord(message))])

    with without(rules.Turn._vote, "if not same_statement("):
        attack()
    with pytest.raises(StoreError, match="contradicts"):
        attack()


@pytest.mark.attack("T32")
def test_at_and_below_the_tip_only_the_committed_block_gets_votes(without: Without) -> None:
    """P2, known unsafe: votes are pruned when a height commits; the floor remembers them."""

    def attack() -> None:
        stage = Stage("d")
        block = stage.block()
        stage.sees(*stage.commits("abc", block))
        stage.store.apply([PutJournal(VoteRecord(stage.prepare("d", stage.block(variant=1), view=5)))])

    with without(rules.Turn._vote, "if message.block_hash != self._hash_at(message.height)"):
        attack()
    with pytest.raises(StoreError, match="not for the block committed there"):
        attack()
