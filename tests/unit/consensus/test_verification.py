"""P11: what the door lets in beside what it keeps out (tests/scenarios/test_doors.py, test_door_attacks.py)."""

import msgspec
import pytest

from p2pledger.consensus.messages import Message, PrePrepare
from p2pledger.consensus.verification import verify_message
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash, Epoch, Height
from tests.scenarios.stage import Stage

replace = msgspec.structs.replace


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def taken(stage: Stage, message: Message) -> None:
    signed = stage.signed(message)
    assert verify_message(signed, stage.chain, Epoch(0), stage.founding.validators).signed is signed


def refused(stage: Stage, message: Message, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        verify_message(stage.signed(message), stage.chain, Epoch(0), stage.founding.validators)


def test_a_block_is_of_this_epoch_and_above_the_genesis(stage: Stage) -> None:
    """Every message names the epoch, and so does the header inside."""
    good = stage.block()
    taken(stage, stage.proposal(good))
    for header in (replace(good, epoch=Epoch(1)), replace(good, height=Height(0)), stage.genesis):
        refused(stage, PrePrepare(Epoch(0), stage.replica.view, header, stage.id("a")), "header of epoch")


def test_a_view_change_may_show_a_commit_certificate(stage: Stage) -> None:
    """P9: beside the lock, and also where nothing is claimed."""
    block = stage.block()
    lock, committed = stage.certificate("prepare", block, who="abc"), stage.certificate("commit", block, who="abc")
    taken(stage, stage.view_change("a", 1))
    taken(stage, stage.view_change("a", 1, lock, committed))
    taken(stage, stage.view_change("a", 1, committed, committed))


def test_a_lock_without_a_claim_is_refused(stage: Stage) -> None:
    """P11: a claim and its certificate come together; so do those of a NEW-VIEW."""
    lock = stage.certificate("prepare", stage.block(), who="abc")
    refused(stage, replace(stage.view_change("a", 1), lock=lock), "together or not at all")
    refused(stage, replace(stage.view_change("a", 1, lock), lock=None), "together or not at all")
    nothing = stage.new_view(1, [stage.view_change(who, 1) for who in "abc"])
    refused(stage, replace(nothing, certificate=lock), "together or not at all")


def test_a_new_view_may_quote_claims_of_different_ranks(stage: Stage) -> None:
    """P12: only two blocks of one rank are impossible; a lower claim for another block is ordinary."""
    low, high = stage.block(), stage.block(variant=1)
    older, newer = stage.certificate("prepare", low, who="abc"), stage.certificate("prepare", high, view=1, who="abc")
    changes = [stage.view_change("a", 2, older), stage.view_change("b", 2, newer), stage.view_change("c", 2)]
    taken(stage, stage.new_view(2, changes))


def test_two_blocks_claimed_at_one_rank_are_refused(stage: Stage) -> None:
    """P12: at most one of them can have been certified."""
    lock = stage.certificate("prepare", stage.block(), who="abc")
    rival = replace(lock, block_hash=stage.block(variant=1).hash)
    changes = [stage.view_change("a", 1, lock), stage.view_change("b", 1, rival), stage.view_change("c", 1, lock)]
    refused(stage, stage.new_view(1, changes), "two blocks are claimed as prepared")


def test_headers_end_at_the_tip_in_hash_and_height(stage: Stage) -> None:
    """P12: where there is no tip there are no headers."""
    block = stage.block()
    nothing = stage.new_view(1, [stage.view_change(who, 1) for who in "abc"])
    refused(stage, replace(nothing, headers=(block,)), "do not end at its tip")
    lock = stage.certificate("prepare", block, who="abc")
    assert lock.block_hash == BlockHash(block.hash)
    taken(stage, stage.new_view(1, [stage.view_change(who, 1, lock) for who in "abc"], (block,)))
    taken(stage, stage.new_view(1, [stage.view_change(who, 1, lock) for who in "abc"]))


def test_certificates_are_of_the_epoch_of_their_message(stage: Stage) -> None:
    """Each of those that travel along: the lock, the commit certificate, that of the tip."""
    block = stage.block()
    lock = stage.certificate("prepare", block, who="abc")
    strange = replace(lock, epoch=Epoch(1))
    refused(stage, stage.view_change("a", 1, strange), "certificate of epoch 1")
    refused(stage, stage.view_change("a", 1, lock, strange), "certificate of epoch 1")
    good = stage.new_view(1, [stage.view_change(who, 1, lock) for who in "abc"])
    refused(stage, replace(good, certificate=strange), "certificate of epoch 1")


def test_headers_of_a_new_view_rise_by_one(stage: Stage) -> None:
    """P12: a hash that fits is not enough; heights without blocks would be open for ever."""
    first = stage.block()
    leap = replace(stage.block(first), height=Height(5))
    lock = stage.certificate("prepare", leap, who="abc")
    changes = [stage.view_change(who, 1, lock) for who in "abc"]
    refused(stage, stage.new_view(1, changes, (first, leap)), "header 5 of a NEW-VIEW does not follow header 1")
