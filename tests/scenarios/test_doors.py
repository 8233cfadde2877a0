"""P5, P11, P12, P21: what does not prove itself does not come in; each case breaks one thing and nothing else."""

import msgspec
import pytest

from p2pledger.consensus.messages import Message, NewView, Prepare, PrePrepare, Signed
from p2pledger.consensus.verification import verify_message
from p2pledger.messages import RangeReply, SyncBlock
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Epoch, Signature, View
from p2pledger.sync import check_range
from tests.scenarios.stage import Stage

replace = msgspec.structs.replace


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def refused(stage: Stage, message: Message, why: str, signed: Signed | None = None) -> None:
    with pytest.raises(InvalidInput, match=why):
        verify_message(signed or stage.signed(message), stage.chain, Epoch(0), stage.founding.validators)


def new_view(stage: Stage) -> NewView:
    """Good: view 2, with a tip of two headers that was prepared in view 0."""
    first, second = stage.chain_of(2)
    lock = stage.certificate("prepare", second, who="abc")
    return stage.new_view(2, [stage.view_change(who, 2, lock) for who in "abc"], (first, second))


def test_nothing_unsigned_passes_the_door(stage: Stage) -> None:
    """P5, P11: a vote counts for who signed it, and for exactly what was signed."""
    first, second = stage.chain_of(2)
    said = stage.prepare("a", first)
    own = stage.signed(said).signature
    for claimed in (stage.prepare("c", first), stage.prepare("a", second), stage.prepare("a", first, view=1)):
        refused(stage, claimed, "is not signed by", Signed(claimed, own))
    refused(stage, said, "is not signed by", Signed(said, Signature(bytes(64))))
    verify_message(Signed(said, own), stage.chain, Epoch(0), stage.founding.validators)


def test_a_new_view_quotes_only_what_was_signed(stage: Stage) -> None:
    """P11: no word is put into another's mouth, neither a claim nor none."""
    good = new_view(stage)
    first = good.claims[0]
    other = replace(first, claim=None)
    refused(stage, replace(good, claims=(other, *good.claims[1:])), "did not sign")
    borrowed = replace(first, signature=good.claims[1].signature)
    refused(stage, replace(good, claims=(borrowed, *good.claims[1:])), "did not sign")


def test_a_new_view_quotes_only_claims_of_earlier_views(stage: Stage) -> None:
    """P11: what is claimed of its own view or a later one cannot have been prepared before it."""
    lock = stage.certificate("prepare", stage.block(), view=2, who="abc")
    refused(stage, stage.new_view(2, [stage.view_change(who, 2, lock) for who in "abc"]), "quotes a claim of view 2")


def test_a_prepare_certificate_is_no_commit_certificate(stage: Stage) -> None:
    """P11, P7: prepared is not committed, also beside a VIEW-CHANGE."""
    prepared = stage.certificate("prepare", stage.block(), who="abc")
    refused(stage, stage.view_change("a", 1, committed=prepared), "is not a commit certificate")


def test_the_headers_of_a_new_view_lead_to_its_tip(stage: Stage) -> None:
    """P12: linked by hash, and ending at the tip."""
    good = new_view(stage)
    first, second = good.headers
    stranger = stage.block(variant=7)
    refused(stage, replace(good, headers=(first,)), "do not end at its tip")
    refused(stage, replace(good, headers=(stranger, second)), "does not follow")
    verify_message(stage.signed(good), stage.chain, Epoch(0), stage.founding.validators)


def test_a_synced_range_proves_itself(stage: Stage) -> None:
    """P21: linked from our tip, with its bodies, under a commit certificate of its last header."""
    first, second = stage.chain_of(2)
    blocks = (SyncBlock(first, ()), SyncBlock(second, ()))
    good = RangeReply(blocks, (), stage.certificate("commit", second))
    assert len(check_range(good, stage.genesis, stage.chain, stage.founding.validators)) == 2
    stranger = stage.block(variant=3)
    child = stage.block(stranger, variant=3)
    lone = good.certificate.votes[0]
    for bad in (
        replace(
            good, blocks=(SyncBlock(first, ()), SyncBlock(child, ())), certificate=stage.certificate("commit", child)
        ),
        replace(good, certificate=stage.certificate("prepare", second)),
        replace(good, certificate=replace(good.certificate, votes=(lone,) * 3)),
        replace(good, certificate=stage.certificate("commit", first)),
        replace(good, blocks=(SyncBlock(replace(first, batches=(bytes(32),)), (b"forged",)),)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput):
            check_range(bad, stage.genesis, stage.chain, stage.founding.validators)


def test_synced_bodies_are_those_of_their_block(stage: Stage) -> None:
    """P21: each hashes to the batch that the header names; any other would be executed here and nowhere else."""
    block = replace(stage.block(), batches=(bytes(32),))  # type: ignore[arg-type]
    reply = RangeReply((SyncBlock(block, (b"forged",)),), (), stage.certificate("commit", block))
    with pytest.raises(InvalidInput, match="do not hash"):
        check_range(reply, stage.genesis, stage.chain, stage.founding.validators)


def test_a_blocks_digest_is_the_same_in_every_view(stage: Stage) -> None:
    """P5, P12: view and proposer are outside it, so that the same block can be prepared again in a later view."""
    block = stage.block()
    proposals = [PrePrepare(Epoch(0), View(view), block, stage.id(stage.primary(view))) for view in range(3)]
    assert {proposal.block_hash for proposal in proposals} == {block.hash}
    stage.sees(proposals[0], *stage.prepares("abc", block))
    assert stage.said(Prepare) == [stage.prepare("d", block)]
    assert stage.replica.lock is not None
    assert stage.replica.lock.block_hash == proposals[1].block_hash
