"""What a view accepts stands on its base, without a gap (P1, P2, P3, P13)."""

import pytest
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.consensus.accepted import Accepted
from p2pledger.consensus.messages import Certificate
from p2pledger.consensus.window import Window
from p2pledger.primitives.ids import Height, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


@pytest.fixture
def chain(stage: Stage) -> list[Header]:
    """Heights 1 to 3."""
    return stage.chain_of(3)


def place(header: Header) -> tuple[Height, bytes]:
    return header.height, header.hash


def accepting(base: Header, *blocks: Header, view: int = 0) -> Accepted:
    return Accepted(place(base), View(view), {block.height: block for block in blocks})


def committed_in(stage: Stage, view: int, header: Header) -> Certificate:
    return stage.certificate("commit", header, view=view)


def test_the_next_block_stands_on_the_highest_accepted(stage: Stage, chain: list[Header]) -> None:
    """P1: else on the committed one, if it is the base or was committed by this view at the latest."""
    window = Window(stage.genesis)
    assert accepting(stage.genesis, *chain).head(window, None) == chain[2]
    assert accepting(stage.genesis).head(window, None) == stage.genesis
    window.advance(chain[0])
    for view, head in ((0, chain[0]), (1, chain[0]), (2, None)):
        assert accepting(stage.genesis, view=1).head(window, committed_in(stage, view, chain[0])) == head
    assert accepting(chain[0], view=1).head(window, committed_in(stage, 2, chain[0])) == chain[0]


def test_while_the_tip_is_missing_there_is_nothing_to_stand_on(stage: Stage, chain: list[Header]) -> None:
    """P13: no fresh block before the tip."""
    assert accepting(chain[0], view=1).head(Window(stage.genesis), None) is None
    window = Window(chain[0])
    assert accepting(chain[0], view=1).head(window, committed_in(stage, 0, chain[0])) == chain[0]


def test_the_parent_is_accepted_or_committed_just_below(stage: Stage, chain: list[Header]) -> None:
    """P2: by its hash, and under a certificate that this view may build on."""
    window, none = Window(stage.genesis), None
    assert accepting(stage.genesis).parent_of(chain[0], window, none) == stage.genesis
    assert accepting(stage.genesis).parent_of(chain[1], window, none) is None, "its parent is not accepted"
    assert accepting(stage.genesis, chain[0]).parent_of(chain[1], window, none) == chain[0]
    leap = replace(chain[1], parent=stage.genesis.hash)
    assert accepting(stage.genesis).parent_of(leap, window, none) is None, "a height is left out"
    rival = stage.block(variant=1)
    assert accepting(stage.genesis, rival).parent_of(chain[1], window, none) is None, "another one is"
    window.advance(chain[0])
    for view, parent in ((1, chain[0]), (2, None)):
        certified = committed_in(stage, view, chain[0])
        assert accepting(stage.genesis, view=1).parent_of(chain[1], window, certified) == parent
        assert accepting(stage.genesis, view=1).parent_of(chain[2], window, certified) is None


def test_nothing_is_accepted_at_or_below_the_base(stage: Stage, chain: list[Header]) -> None:
    """P13: neither below the tip nor beside it; the first block of the view stands on it."""
    accepted, window = accepting(chain[1], chain[0], chain[1], view=1), Window(stage.genesis)
    beside = stage.block(chain[0], variant=1)
    assert accepted.parent_of(chain[0], window, None) is None
    assert accepted.parent_of(beside, window, None) is None
    assert accepted.parent_of(chain[2], window, None) == chain[1]


def test_what_lost_its_own_parent_carries_nothing(stage: Stage, chain: list[Header]) -> None:
    """P2: something else was committed below an accepted block; neither it nor its children go on."""
    rival = stage.block(variant=1)
    window, certified = Window(rival), committed_in(stage, 0, rival)
    accepted = accepting(stage.genesis, chain[1], chain[2])
    assert accepted.parent_of(chain[1], window, certified) is None
    assert accepted.parent_of(chain[2], window, certified) is None
    assert accepted.parent_of(stage.block(chain[2]), window, certified) is None
    assert [*accepted.take_due_checks(window, certified)] == []
    above_its_base = accepting(chain[1], chain[1], chain[2], view=1)
    assert above_its_base.parent_of(chain[2], window, certified) == chain[1], "the tip needs no parent"
    assert above_its_base.parent_of(stage.block(chain[2]), window, certified) == chain[2]


def test_a_vote_says_yes_to_everything_below_it(stage: Stage, chain: list[Header]) -> None:
    """P19: lowest first, with its own height, and nothing above."""
    accepted = accepting(stage.genesis, *reversed(chain))
    assert [accepted.up_to(block.height) for block in chain] == [chain[:1], chain[:2], chain]


def test_a_block_is_checked_once_and_after_its_parent(stage: Stage, chain: list[Header]) -> None:
    """P3: lowest first; a child only when its parent was found good."""
    accepted, window = accepting(stage.genesis, *reversed(chain)), Window(stage.genesis)
    assert [*accepted.take_due_checks(window, None)] == [(chain[0], stage.genesis)]
    assert [*accepted.take_due_checks(window, None)] == []
    window.hold(chain[0])
    window.hold(chain[1])
    assert [*accepted.take_due_checks(window, None)] == [(chain[1], chain[0]), (chain[2], chain[1])]


def test_the_tip_is_not_checked_again(stage: Stage, chain: list[Header]) -> None:
    """P3: what is certified was checked by others; what stands on it is checked as ever."""
    accepted, window = accepting(chain[0], chain[0], chain[1], view=1), Window(stage.genesis)
    window.hold(chain[0])
    assert [*accepted.take_due_checks(window, None)] == [(chain[1], chain[0])]


def test_a_repetition_asks_for_what_was_not_found_good(stage: Stage, chain: list[Header]) -> None:
    """P16."""
    accepted, window = accepting(stage.genesis, *chain), Window(stage.genesis)
    window.hold(chain[0])
    assert len([*accepted.take_due_checks(window, None)]) == 2
    accepted.check_again(window)
    assert [*accepted.take_due_checks(window, None)] == [(chain[1], chain[0])]


def test_another_view_begins_with_nothing_but_its_base(stage: Stage, chain: list[Header]) -> None:
    """P13: what the view before accepted or had checked does not count in it."""
    accepted, window = accepting(stage.genesis, *chain), Window(stage.genesis)
    window.hold(chain[0])
    [*accepted.take_due_checks(window, None)]
    accepted.reset(View(1), place(chain[0]))
    assert (accepted.view, accepted.base) == (1, place(chain[0]))
    assert (accepted.blocks, accepted.checking) == ({}, set())


def test_what_is_committed_is_no_longer_open(stage: Stage, chain: list[Header]) -> None:
    """P2: at that height and below."""
    accepted = accepting(stage.genesis, *chain)
    accepted.forget_up_to(chain[1].height)
    assert accepted.blocks == {chain[2].height: chain[2]}
