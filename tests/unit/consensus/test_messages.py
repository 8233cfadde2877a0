"""When two messages say the same, when they contradict each other, and which claim a NEW-VIEW builds on."""

import msgspec
import pytest

from p2pledger.consensus.messages import contradicts, same_statement
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def test_what_travels_beside_a_statement_does_not_count(stage: Stage) -> None:
    """P14: certificates of a VIEW-CHANGE and headers of a NEW-VIEW are not signed."""
    block = stage.block()
    lock, committed = stage.certificate("prepare", block, who="abc"), stage.certificate("commit", block, who="abc")
    change = stage.view_change("a", 1, lock)
    shown = stage.new_view(1, [stage.view_change(who, 1, lock) for who in "abc"])
    for message, beside in (
        (change, msgspec.structs.replace(change, committed=committed)),
        (shown, msgspec.structs.replace(shown, headers=(block,))),
    ):
        assert same_statement(message, beside) is True and contradicts(message, beside) is False
        assert same_statement(message, message) is True and contradicts(message, message) is False


def test_two_authors_never_say_the_same_nor_contradict_each_other(stage: Stage) -> None:
    """P14: a statement is its author's."""
    block, rival = stage.block(), stage.block(variant=1)
    assert not same_statement(stage.prepare("a", block), stage.prepare("b", block))
    assert not contradicts(stage.prepare("a", block), stage.prepare("b", rival))
    assert not same_statement(stage.prepare("a", block), stage.prepare("a", rival))
    assert contradicts(stage.prepare("a", block), stage.prepare("a", rival))


def test_a_new_view_builds_on_its_highest_claim(stage: Stage) -> None:
    """P12: by view, then height; none where nobody claims anything."""
    chain = stage.chain_of(3)
    high = stage.certificate("prepare", chain[2], view=0, who="abc")
    late = stage.certificate("prepare", chain[0], view=1, who="abc")
    changes = [stage.view_change("a", 2, high), stage.view_change("b", 2, late), stage.view_change("c", 2)]
    tip = stage.new_view(2, changes).tip
    assert tip is not None and (tip.rank, tip.block_hash) == ((1, 1), chain[0].hash)
    assert stage.new_view(2, [stage.view_change(who, 2) for who in "abc"]).tip is None


def test_a_certificate_ranks_by_view_then_height(stage: Stage) -> None:
    chain = stage.chain_of(3)
    high, late = stage.certificate("prepare", chain[2], view=0), stage.certificate("prepare", chain[0], view=1)
    assert (high.rank, late.rank) == ((0, 3), (1, 1)) and late.rank > high.rank
