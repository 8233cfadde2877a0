"""P10 to P12: the newest VIEW-CHANGE of each validator, and what a quorum of them obliges to."""

from itertools import permutations

import pytest

from p2pledger.consensus.messages import Signed, ViewChange
from p2pledger.consensus.view_change import RivalClaims, ViewChanges, quoted, select_tip
from p2pledger.primitives.ids import View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


@pytest.fixture
def changes(stage: Stage) -> ViewChanges:
    return ViewChanges(stage.founding.validators)


def add(changes: ViewChanges, stage: Stage, message: ViewChange) -> Signed | None:
    return changes.add(stage.signed(message), message)


def test_the_newest_of_each_validator_is_kept(stage: Stage, changes: ViewChanges) -> None:
    """P11: validators are counted, not messages; an older one changes nothing."""
    for view in (2, 3, 1):
        assert add(changes, stage, stage.view_change("a", view)) is None
    assert len(changes) == 1
    newest = changes.newest_of(stage.id("a"))
    assert newest is not None and newest == stage.signed(stage.view_change("a", 3))
    assert changes.newest_of(stage.id("b")) is None


def test_another_one_for_the_same_view_is_evidence(stage: Stage, changes: ViewChanges) -> None:
    """P14: what was signed first comes back; the same one again, with something else beside it, does not."""
    block = stage.block()
    lock, committed = stage.certificate("prepare", block, who="abc"), stage.certificate("commit", block, who="abc")
    first = stage.view_change("a", 1)
    add(changes, stage, first)
    assert add(changes, stage, stage.view_change("a", 1, committed=committed)) is None
    assert add(changes, stage, stage.view_change("a", 1, lock)) == stage.signed(first)
    assert changes.newest_of(stage.id("a")) == stage.signed(first), "the first one is kept"


def test_what_is_known_is_this_one_or_a_newer_one(stage: Stage, changes: ViewChanges) -> None:
    """P23."""
    lock = stage.certificate("prepare", stage.block(), who="abc")
    assert not changes.has(stage.view_change("a", 2))
    add(changes, stage, stage.view_change("a", 2))
    assert changes.has(stage.view_change("a", 2)) and changes.has(stage.view_change("a", 1))
    assert changes.has(stage.view_change("a", 1, lock)), "an older one, whatever it says"
    assert not changes.has(stage.view_change("a", 2, lock)), "it says something else"
    assert not changes.has(stage.view_change("a", 3)) and not changes.has(stage.view_change("b", 2))


def test_f_plus_one_move_to_the_smallest_view_above(stage: Stage, changes: ViewChanges) -> None:
    """P10: one large number moves nobody, and views at or below one's own do not count."""
    add(changes, stage, stage.view_change("a", 9))
    assert changes.wanted_above(View(0)) is None
    add(changes, stage, stage.view_change("b", 2))
    assert [changes.wanted_above(View(view)) for view in (0, 1, 2)] == [2, 2, None]
    add(changes, stage, stage.view_change("c", 5))
    assert [changes.wanted_above(View(view)) for view in (2, 4, 5)] == [5, 5, None]


def test_who_asks_for_a_later_view_counts_for_the_earlier_one(stage: Stage, changes: ViewChanges) -> None:
    """P9: the timer of a view change runs once q validators want that view or a later one."""
    for who, view in (("a", 1), ("b", 2), ("c", 3)):
        add(changes, stage, stage.view_change(who, view))
    assert [changes.count_at_least(View(view)) for view in range(5)] == [3, 3, 2, 1, 0]


def test_a_quorum_is_for_exactly_one_view(stage: Stage, changes: ViewChanges) -> None:
    """P12: q of them, by author."""
    for who in "cb":
        add(changes, stage, stage.view_change(who, 1))
    add(changes, stage, stage.view_change("d", 2))
    assert changes.quorum_for(View(1)) is None
    add(changes, stage, stage.view_change("a", 1))
    quorum = changes.quorum_for(View(1))
    assert quorum is not None
    assert [message.author for message, _ in quorum] == sorted(stage.id(who) for who in "abc")


def test_of_more_than_a_quorum_the_highest_claims_are_shown(stage: Stage, changes: ViewChanges) -> None:
    """P12: by view, then height; who claims nothing comes last, of equals the later seat comes first."""
    blocks = stage.chain_of(2)
    locks = {
        "a": None,
        "b": stage.certificate("prepare", blocks[1], view=0, who="abc"),
        "c": stage.certificate("prepare", blocks[0], view=1, who="abc"),
        "d": stage.certificate("prepare", blocks[0], view=0, who="abc"),
    }
    for order in permutations(locks):
        changes = ViewChanges(stage.founding.validators)
        for who in order:
            add(changes, stage, stage.view_change(who, 2, locks[who]))
        quorum = changes.quorum_for(View(2))
        assert quorum is not None
        assert [message.author for message, _ in quorum] == sorted(stage.id(who) for who in "bcd")
        tip, certificate = select_tip(quorum)
        assert tip is not None and tip.rank == (1, 1) and certificate == locks["c"]
        assert [(claim.author, claim.claim) for claim in quoted(quorum)] == [(m.author, m.claim) for m, _ in quorum]
        assert [claim.signature for claim in quoted(quorum)] == [signed.signature for _, signed in quorum]
    same = ViewChanges(stage.founding.validators)
    for who in "abcd":
        add(same, stage, stage.view_change(who, 2))
    quorum = same.quorum_for(View(2))
    assert quorum is not None and [m.author for m, _ in quorum] == sorted(stage.id(who) for who in "bcd")
    assert select_tip(quorum) == (None, None)


def test_two_blocks_of_one_rank_are_impossible(stage: Stage) -> None:
    """P12: then more than f lie; two blocks of different ranks are ordinary."""
    pairs = []
    for who, variant, view in (("a", 0, 0), ("b", 1, 0), ("c", 0, 1)):
        lock = stage.certificate("prepare", stage.block(variant=variant), view=view, who="abc")
        message = stage.view_change(who, 2, lock)
        pairs.append((message, stage.signed(message)))
    with pytest.raises(RivalClaims):
        select_tip(pairs[:2])
    tip, _ = select_tip(pairs)
    assert tip is not None and tip.rank == (1, 1)


def test_those_for_an_entered_view_are_forgotten(stage: Stage, changes: ViewChanges) -> None:
    """P13, P23: at or below it; who asks for a later view still does."""
    for who, view in (("a", 1), ("b", 2), ("c", 3)):
        add(changes, stage, stage.view_change(who, view))
    changes.forget_up_to(View(2))
    assert len(changes) == 1 and changes.newest_of(stage.id("c")) is not None
