"""Certificates: what a naive check would accept, and why the real one does not."""

import msgspec
import pytest

from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.messages import Certificate, Vote, ballot_statement
from p2pledger.primitives.crypto import verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, Epoch, Height, Signature, View
from tests.scenarios.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage("a", n=7)


@pytest.fixture
def good(stage: Stage) -> Certificate:
    return stage.certificate("commit", stage.block(), who="bcdef")


def naive_check(certificate: Certificate, stage: Stage, least: int = 5) -> bool:
    """Counts right signatures of seats that exist, and nothing else."""
    members = stage.founding.validators.members
    right = 0
    for vote in certificate.votes:
        author = members[vote.seat % len(members)].id
        right += verify(author, ballot_statement(stage.chain, certificate, author), vote.signature)
    return right >= least


def refused(certificate: Certificate, stage: Stage) -> bool:
    try:
        check_certificate(certificate, stage.chain, stage.founding.validators)
    except InvalidInput:
        return True
    return False


def test_a_quorum_of_distinct_seats_is_accepted(stage: Stage, good: Certificate) -> None:
    assert naive_check(good, stage)
    check_certificate(good, stage.chain, stage.founding.validators)


def test_a_duplicate_signer_is_refused(stage: Stage, good: Certificate) -> None:
    """P5: q votes of distinct seats; one liar is not a quorum."""
    doubled = msgspec.structs.replace(good, votes=(*good.votes[:4], good.votes[3]))
    assert naive_check(doubled, stage)
    assert refused(doubled, stage)


def test_another_order_is_refused(stage: Stage, good: Certificate) -> None:
    """One certificate, one spelling: the order also makes distinctness visible."""
    turned = msgspec.structs.replace(good, votes=good.votes[::-1])
    assert naive_check(turned, stage)
    assert refused(turned, stage)


def test_a_seat_that_does_not_exist_is_refused(stage: Stage) -> None:
    """The first seat beyond the last, with a good signature of the seat that has its number modulo n."""
    good = stage.certificate("commit", stage.block(), who="abcde")
    first, *rest = good.votes
    moved = msgspec.structs.replace(good, votes=(*rest, Vote(first.seat + 7, first.signature)))
    assert naive_check(moved, stage)
    assert refused(moved, stage)


def test_one_vote_less_is_refused(stage: Stage, good: Certificate) -> None:
    """P5: f + 1 or 2f would be accepted by who counts wrongly."""
    short = msgspec.structs.replace(good, votes=good.votes[:-1])
    assert naive_check(short, stage, least=4)
    assert refused(short, stage)


def test_one_vote_more_is_refused(stage: Stage) -> None:
    block = stage.block()
    five, other = (stage.certificate("commit", block, who=who) for who in ("abcde", "cdefg"))
    six = msgspec.structs.replace(five, votes=(*five.votes, other.votes[-1]))
    assert naive_check(six, stage)
    assert refused(six, stage)


@pytest.mark.parametrize("field", ["kind", "view", "height", "block_hash", "epoch"])
def test_votes_for_something_else_do_not_mix(stage: Stage, good: Certificate, field: str) -> None:
    """P5: each of epoch, view, height, hash and kind is under the signature."""
    other = {
        "kind": "prepare",
        "view": View(3),
        "height": Height(9),
        "block_hash": stage.block(variant=4).hash,
        "epoch": Epoch(1),
    }[field]
    changed = msgspec.structs.replace(good, **{field: other})
    assert refused(changed, stage)
    assert not naive_check(changed, stage)


def test_a_certificate_of_another_chain_is_refused(stage: Stage, good: Certificate) -> None:
    with pytest.raises(InvalidInput, match="signature of seat"):
        check_certificate(good, ChainId(bytes(32)), stage.founding.validators)


def test_a_flipped_bit_is_refused(stage: Stage, good: Certificate) -> None:
    first = good.votes[0]
    bent = Signature(bytes([first.signature[0] ^ 1]) + first.signature[1:])
    assert refused(msgspec.structs.replace(good, votes=(Vote(first.seat, bent), *good.votes[1:])), stage)
