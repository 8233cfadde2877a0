"""One validator's part in a ceremony, computed from one secret seed.

Everything that it says in a ceremony follows from the seed and from the chain. So the seed is all that has to be
durable before the first word: after a crash at any moment the same words come out again, and no deal is ever made
twice. When the ceremony is over, whoever keeps the seed deletes it; the share alone is kept.
"""

from collections.abc import Mapping
from itertools import count

from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import Domain, wide_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import ChainId
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Deal, SealedShare, outcome
from p2pledger.threshold.group import Random, Scalar, as_scalar, random_scalar
from p2pledger.threshold.long_term import LongTerm, LongTermHolder
from p2pledger.threshold.reshare import added_scalars, new_share
from p2pledger.threshold.sealing import BoxSecret, seal
from p2pledger.threshold.sharing import Polynomial, check_commitments, check_share

Justifications = Mapping[tuple[int, int], bytes]
"""The sub-shares that dealers had to show to all, by (dealer, receiver)."""


class Participant:
    """A seat's secrets in one ceremony; its text form never shows them."""

    __slots__ = ("_seed", "_share")

    def __init__(self, chain: ChainId, identifier: CeremonyId, seed: bytes, share: bytes | None = None) -> None:
        """`share`: the seat's share of the source, if it deals in a resharing. Raises InvalidInput for no scalar."""
        assert len(seed) == 32, "a seed has 32 bytes"
        self._seed = wide_hash(Domain.CEREMONY_SEED, encode((chain, identifier)), key=seed)
        self._share = None if share is None else as_scalar(share)

    def __repr__(self) -> str:
        return "Participant()"

    def can_deal(self, ceremony: Ceremony) -> bool:
        """Whether there is something to deal: of a resharing, the old share. Without it the seat still receives."""
        return ceremony.source is None or self._share is not None

    @property
    def box(self) -> BoxSecret:
        """The key pair to which sub-shares are sealed; its public half is what the seat joins with."""
        return BoxSecret(self._random("box")(32))

    def deal(self, ceremony: Ceremony, seat: bytes) -> Deal:
        """The deal of this seat: equal for equal ceremonies."""
        dealer, polynomial = ceremony.dealer(seat), self._polynomial(ceremony)
        boxes = tuple(
            None if box is None else self._sealed(ceremony, polynomial, dealer, receiver, box)
            for receiver, box in enumerate(ceremony.boxes, start=1)
        )
        return Deal(polynomial.commitments(), boxes)

    def _sealed(
        self, ceremony: Ceremony, polynomial: Polynomial, dealer: int, receiver: int, box: bytes
    ) -> SealedShare:
        random = self._random("seal", encode((receiver, box)))
        return SealedShare.of(seal(box, polynomial.at(receiver), ceremony.box_context(dealer, receiver), random))

    def cheats(self, ceremony: Ceremony, seat: bytes, deals: Mapping[int, Deal]) -> tuple[int, ...]:
        """The dealers whose sub-share for this seat does not open, or is not on their polynomial."""
        return tuple(dealer for dealer in ceremony.dealt if self._opened(ceremony, seat, dealer, deals[dealer]) is None)

    def justification(self, ceremony: Ceremony, receiver: int) -> bytes:
        """The sub-share of a receiver that accuses this seat, to be shown to all."""
        return self._polynomial(ceremony).at(receiver)

    def holder(
        self, ceremony: Ceremony, seat: bytes, deals: Mapping[int, Deal], shown: Justifications
    ) -> tuple[LongTermHolder, bytes]:
        """The seat as a holder of the new key, and its secret share, which must be durable before it is confirmed.

        Raises ProofError where the sub-shares do not make the share that the chain says this seat has.
        """
        receiver = ceremony.receiver(seat)
        parts: dict[int, Scalar] = {}
        for dealer in ceremony.contributors:
            opened = self._opened(ceremony, seat, dealer, deals[dealer])
            if opened is None and (dealer, receiver) in shown:
                opened = as_scalar(shown[dealer, receiver])
            if opened is None:
                raise ProofError(f"no good sub-share of dealer {dealer} for receiver {receiver}, and none was shown")
            parts[dealer] = opened
        share = added_scalars(list(parts.values())) if ceremony.source is None else new_share(parts)
        return LongTermHolder(LongTerm(outcome(ceremony, deals)), receiver, share), share

    def _opened(self, ceremony: Ceremony, seat: bytes, dealer: int, dealt: Deal) -> Scalar | None:
        """A sub-share that is what it should be, or None."""
        receiver = ceremony.receiver(seat)
        sealed = dealt.boxes[receiver - 1]
        try:
            if sealed is None:
                return None
            share = as_scalar(self.box.open(sealed.sealed, ceremony.box_context(dealer, receiver)))
            check_share(share, check_commitments(dealt.commitments, ceremony.threshold), receiver)
        except (InvalidInput, ProofError):
            return None
        return share

    def _polynomial(self, ceremony: Ceremony) -> Polynomial:
        random = self._random("polynomial")
        secret = random_scalar(random) if ceremony.source is None else self._share
        if secret is None:
            raise InvalidInput(f"no share of key epoch {ceremony.id.key_epoch} to deal anew")
        return Polynomial.through(secret, ceremony.threshold, random)

    def _random(self, use: str, detail: bytes = b"") -> Random:
        return seeded(wide_hash(Domain.CEREMONY_SEED, encode((use, detail)), key=self._seed))


def seeded(seed: bytes) -> Random:
    """A stream of bytes from up to 64 secret ones, the same each time it is made."""
    numbers = count()

    def take(size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += wide_hash(Domain.CEREMONY_SEED, next(numbers).to_bytes(8, "big"), key=seed)
        return data[:size]

    return take
