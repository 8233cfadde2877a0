"""Certificates stand on their own: built from a tally, checked against the validators of their epoch."""

from collections.abc import Mapping

from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus.messages import Certificate, Kind, Vote, ballot_statement
from p2pledger.primitives.crypto import Verifier, verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BlockHash, ChainId, Epoch, Height, Signature, ValidatorId, View


def build_certificate(
    kind: Kind,
    place: tuple[Epoch, View, Height],
    block_hash: BlockHash,
    signatures: Mapping[ValidatorId, Signature],
    validators: ValidatorSet,
) -> Certificate:
    """A certificate of exactly q of the verified signatures, those of the lowest seats."""
    seats: list[Vote] = []
    for author, signature in signatures.items():
        seat = validators.index(author)
        assert seat is not None, "tallies hold validators only"
        seats.append(Vote(seat, signature))
    seats.sort(key=lambda vote: vote.seat)
    assert len(seats) >= validators.q, f"{len(seats)} votes are no quorum of {validators.q}"
    epoch, view, height = place
    return Certificate(kind, epoch, view, height, block_hash, tuple(seats[: validators.q]))


def check_certificate(
    certificate: Certificate, chain: ChainId, validators: ValidatorSet, is_signed: Verifier = verify
) -> None:
    """Raises InvalidInput unless q distinct validators signed exactly this.

    The order of seats makes distinctness visible; exactly q votes, so that a certificate has few spellings.
    """
    votes = certificate.votes
    if len(votes) != validators.q:
        raise InvalidInput(f"{certificate.kind} certificate with {len(votes)} votes, the quorum is {validators.q}")
    last = -1
    for vote in votes:
        if vote.seat <= last:
            raise InvalidInput(f"certificate counts seat {vote.seat} twice or out of order")
        if vote.seat >= validators.n:
            raise InvalidInput(f"certificate names seat {vote.seat} of {validators.n}")
        last = vote.seat
        author = validators.members[vote.seat].id
        if not is_signed(author, ballot_statement(chain, certificate, author), vote.signature):
            raise InvalidInput(f"certificate at height {certificate.height}: signature of seat {vote.seat} is wrong")
