"""The window: what is known, what is held, and what is missing first."""

import pytest

from p2pledger.chain.block import Header
from p2pledger.consensus import effects as do
from p2pledger.consensus.window import Conflict, Missing, Window
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


@pytest.fixture
def chain(stage: Stage) -> list[Header]:
    """Heights 1 to 3."""
    return stage.chain_of(3)


def window_at(committed: Header, *held: Header) -> Window:
    window = Window(committed)
    for header in held:
        window.hold(header)
    return window


def test_only_what_is_above_the_committed_height_is_known(chain: list[Header]) -> None:
    """P2, P23: at or below it nothing is ever voted on again."""
    window = window_at(chain[1])
    for header in chain:
        window.add(header)
        window.hold(header)
    assert list(window.headers.values()) == [chain[2]]
    assert window.held == {chain[2].hash}


def test_what_is_held_is_known_as_well(stage: Stage, chain: list[Header]) -> None:
    """Its header need not have been learned before."""
    window = window_at(stage.genesis, chain[0])
    assert window.chain_to(chain[0].hash, chain[0].height) == [chain[0]]


def test_the_first_thing_that_is_missing_is_named(stage: Stage, chain: list[Header]) -> None:
    """Headers from the top down, then bodies from the bottom up: the chain is complete when all are held."""
    window = Window(stage.genesis)
    top = chain[2].hash, chain[2].height
    for header in reversed(chain):
        assert window.chain_to(*top) == Missing(header.height, header.hash, None)
        window.add(header)
    for header in chain:
        assert window.chain_to(*top) == Missing(header.height, header.hash, header)
        window.hold(header)
    assert window.chain_to(*top) == chain


def test_a_chain_beside_the_committed_block_is_a_conflict(stage: Stage, chain: list[Header]) -> None:
    """P7: it names what the chain has instead."""
    rival = stage.chain_of(2, variant=1)
    window = window_at(chain[0], *rival)
    found = window.chain_to(rival[1].hash, rival[1].height)
    assert found == Conflict(chain[0], rival[0].hash)
    assert rival[0].hash.hex() in str(found) and chain[0].hash.hex() in str(found)


def test_each_thing_is_asked_for_once_until_answers_may_be_lost(stage: Stage, chain: list[Header]) -> None:
    """P16: a header and its bodies are two things; a new height and a repetition ask anew."""
    window, first = Window(stage.genesis), chain[0]
    header, bodies = Missing(first.height, first.hash, None), Missing(first.height, first.hash, first)
    assert [*window.ask(header), *window.ask(header)] == [do.FetchHeader(first.height, first.hash)]
    assert [*window.ask(bodies), *window.ask(bodies)] == [do.FetchBodies(first)]
    window.ask_again()
    assert [*window.ask(header)] == [do.FetchHeader(first.height, first.hash)]
    window.advance(stage.genesis)
    assert [*window.ask(header)] == [do.FetchHeader(first.height, first.hash)]


def test_moving_up_forgets_what_lies_below(stage: Stage, chain: list[Header]) -> None:
    """P23: at the new height too; what is held above stays held."""
    rival = stage.block(chain[0], variant=1)
    window = window_at(stage.genesis, *chain, rival)
    window.advance(chain[1])
    assert window.committed == chain[1]
    assert list(window.headers.values()) == [chain[2]] and window.held == {chain[2].hash}
    assert window.vouches_for(chain[1]) and window.vouches_for(chain[2])
    assert not window.vouches_for(rival) and not window.vouches_for(chain[0])
