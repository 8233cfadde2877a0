"""Who holds only the genesis believes a header that leads to a commit certificate, and nothing else."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.consensus.anchor import Anchor, check_anchor, check_receipt, effects_root_in
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import ChainId, Epoch, Height
from tests.scenarios.stage import Stage
from tests.unit.client.chain import Chain
from tests.unit.health.world import PATIENT

FIRST, SECOND = b"1" * 32, b"2" * 32


@pytest.fixture
def stage() -> Stage:
    return Stage("d")


def anchor_of(stage: Stage, *headers: Header, **changes: Any) -> Anchor:
    """With a good certificate of the last header, changed."""
    return Anchor(headers, replace(stage.certificate("commit", headers[-1], who="abc"), **changes))


def refused(stage: Stage, anchor: Anchor, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        check_anchor(anchor, stage.chain, stage.founding.validators)


def test_the_first_header_is_believed(stage: Stage) -> None:
    chain = stage.chain_of(3)
    assert check_anchor(anchor_of(stage, *chain), stage.chain, stage.founding.validators) == chain[0]
    assert check_anchor(anchor_of(stage, chain[0]), stage.chain, stage.founding.validators) == chain[0]


def test_headers_are_linked_by_hash_and_rise_by_one(stage: Stage) -> None:
    """Each link; one that has the right height, and one that names the right parent."""
    first, second, _ = stage.chain_of(3)
    stranger = stage.block(stage.block(variant=1))
    refused(stage, anchor_of(stage, first, stranger), "header 2 does not follow header 1")
    leap = replace(second, height=Height(7))
    refused(stage, anchor_of(stage, first, leap), "header 7 does not follow header 1")


def test_every_header_is_of_this_chain(stage: Stage) -> None:
    """And the validators are those that the genesis names."""
    elsewhere = replace(stage.block(), chain=ChainId(bytes(32)))
    refused(stage, anchor_of(stage, elsewhere), "of another chain")
    ours = replace(stage.block(elsewhere), chain=stage.chain)
    refused(stage, anchor_of(stage, elsewhere, ours), "of another chain")
    refused(stage, anchor_of(stage, replace(stage.block(), validators_hash=bytes(32))), "validators")


def test_the_certificate_commits_the_last_header(stage: Stage) -> None:
    """In each of kind, height, hash and epoch, with good signatures."""
    first, second = stage.chain_of(2)
    prepared = Anchor((first,), stage.certificate("prepare", first, who="abc"))
    refused(stage, prepared, "is not a commit certificate")
    refused(
        stage, Anchor((first, second), stage.certificate("commit", first, who="abc")), "not the proof's last header"
    )
    for change in ({"height": Height(9)}, {"block_hash": second.hash}, {"epoch": Epoch(1)}):
        refused(stage, anchor_of(stage, first, **change), "not the proof's last header")
    good = stage.certificate("commit", first, who="abc")
    refused(stage, anchor_of(stage, first, votes=good.votes[:2]), "the quorum is 3")


def test_a_header_carries_the_roots_of_the_heights_since_its_parents(stage: Stage) -> None:
    """The first is of the height after the parent's executed height; before and beyond there is none."""
    header = replace(stage.block(), effects_roots=(FIRST, SECOND))
    assert [effects_root_in(header, Height(4), Height(height)) for height in (5, 6)] == [FIRST, SECOND]
    for height in (3, 4, 7):
        with pytest.raises(ProofError, match=f"no effects root of height {height}"):
            effects_root_in(header, Height(4), Height(height))


def test_a_receipt_is_believed_with_its_events_and_its_anchor() -> None:
    """Each of them; who has checked this very anchor before need not check it again."""
    chain = Chain()
    chain.grant()
    executed = chain.receipts[PATIENT.public, chain.nonces[PATIENT.public]]
    chain.tick()
    chain.tick()
    good = chain.evidence(executed)
    validators = chain.founding.validators
    for is_anchored in (False, True):
        assert check_receipt(good, chain.chain, validators, is_anchored) == executed
    unproven = replace(good, anchor=replace(good.anchor, certificate=replace(good.anchor.certificate, votes=())))
    assert check_receipt(unproven, chain.chain, validators, is_anchored=True) == executed
    with pytest.raises(ProofError, match="quorum"):
        check_receipt(unproven, chain.chain, validators)
    other = replace(good, executed=replace(executed, events=(*executed.events, b"")))
    with pytest.raises(ProofError, match="events"):
        check_receipt(other, chain.chain, validators)
