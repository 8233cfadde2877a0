"""The ceremony that makes a joint key, or new shares of one, with the chain as broadcast channel.

Everything is a function of the ordered messages and of block time, so it comes out the same for all (Pedersen 1991; the
complaints as in Gennaro, Jarecki, Krawczyk and Rabin 2007):

1. Join: each receiver shows a fresh X25519 key. It is deleted at the end: sealed sub-shares stay on the chain for ever.
2. Deal: each dealer commits to a polynomial and seals f(j) to every receiver j that has joined. For a new key the
   secret is random; for a resharing it is the dealer's old share (reshare.py).
3. Report: each receiver opens what it got, checks it against the commitments, and names the dealers that cheated it.
4. Justify: an accused dealer shows f(j) to all. Whoever does not, or is accused by more than n − t, is excluded.
5. QUAL, the dealers left, gives the joint commitments. A receiver stores its share, then confirms their digest; t
   confirmations make the key active.

A step ends when all have spoken, or after `phase_ms` of block time if enough have. t = n − f of n: f liars can
neither read nor stop it. A false accusation only shows the liar's own sub-share. The last dealer to speak can
influence some bits of X (Gennaro et al.); capsules do not need X to be uniform, only nobody to know x. It does not,
as long as one of QUAL is honest.

A message is accepted once from each seat, and never twice: everything else is Refused.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused
from p2pledger.primitives.ids import U64, Bytes32, ChainId, Millis
from p2pledger.threshold.group import Point, as_scalar
from p2pledger.threshold.long_term import JointKey, LongTerm
from p2pledger.threshold.reshare import added, check_origin, new_commitments, selected
from p2pledger.threshold.sealing import SEALING_BYTES, is_box_key
from p2pledger.threshold.sharing import check_commitments, check_share

Index = Annotated[int, Meta(ge=1, le=limits.VALIDATORS_MAX)]
Indices = Annotated[tuple[Index, ...], Meta(max_length=limits.VALIDATORS_MAX)]
Seats = Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=limits.VALIDATORS_MAX)]


class Phase(IntEnum):
    """What a ceremony waits for."""

    JOIN = 1
    DEAL = 2
    REPORT = 3
    JUSTIFY = 4
    CONFIRM = 5
    ACTIVE = 6
    FAILED = 7


class CeremonyId(Record, frozen=True):
    """Which ceremony: every message names it, and everything sealed in it is bound to it."""

    key_epoch: U64
    share_epoch: U64
    """0: a new key."""
    attempt: U64
    """From 0 on; one more after each failure."""


class SealedShare(Record, frozen=True):
    """A sub-share as `sealing.seal` seals it, in two fields of known size (F-29: nothing free fits into them)."""

    ephemeral: Bytes32
    body: Annotated[bytes, Meta(min_length=SEALING_BYTES, max_length=SEALING_BYTES)]

    @property
    def sealed(self) -> bytes:
        return self.ephemeral + self.body

    @staticmethod
    def of(sealed: bytes) -> "SealedShare":
        return SealedShare(sealed[:32], sealed[32:])


class Deal(Record, frozen=True):
    """What one dealer puts onto the chain."""

    commitments: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=limits.VALIDATORS_MAX)]
    boxes: Annotated[tuple[SealedShare | None, ...], Meta(min_length=1, max_length=limits.VALIDATORS_MAX)]
    """For each receiver its sub-share; None for those who have not joined."""


class Ceremony(Record, frozen=True):
    """How far it has come. Deals are kept beside it: they are large."""

    chain: ChainId
    id: CeremonyId
    receivers: Seats
    """Who gets a share; number i of them has index i + 1."""
    dealers: Seats
    """Who deals; for a resharing the holders of the source."""
    threshold: Index
    """How many shares will be needed."""
    source: JointKey | None
    """The key that is shared anew; None for a new one."""
    phase_ms: U64
    since_ms: Millis
    """Block time at which the phase began."""
    phase: Phase = Phase.JOIN
    boxes: tuple[Bytes32 | None, ...] = ()
    """The keys of those who have joined, in the order of the receivers."""
    dealt: Indices = ()
    reported: Indices = ()
    complaints: tuple[tuple[Index, Index], ...] = ()
    """(dealer, receiver), ascending."""
    justified: tuple[tuple[Index, Index], ...] = ()
    confirmed: Indices = ()

    @property
    def joined(self) -> tuple[int, ...]:
        """The indices of the receivers that have joined."""
        return tuple(index for index, box in enumerate(self.boxes, start=1) if box is not None)

    @property
    def dealers_needed(self) -> int:
        """Of a new key as many as will open it, so that one of them is honest; of an old one its threshold."""
        return self.threshold if self.source is None else self.source.threshold

    @property
    def excluded(self) -> tuple[int, ...]:
        """Dealers with an accusation that nothing answers, or with more of them than there can be liars."""
        return tuple(dealer for dealer in self.dealt if self._is_guilty(dealer))

    def _is_guilty(self, dealer: int) -> bool:
        accusations = [pair for pair in self.complaints if pair[0] == dealer]
        liars_max = len(self.receivers) - self.threshold
        return len(accusations) > liars_max or any(pair not in self.justified for pair in accusations)

    @property
    def qualified(self) -> tuple[int, ...]:
        """QUAL, once nobody is waited for any more."""
        return tuple(dealer for dealer in self.dealt if dealer not in self.excluded)

    @property
    def contributors(self) -> tuple[int, ...]:
        """Whose deals make the key: all of QUAL for a new one, the set S for a resharing."""
        return self.qualified if self.source is None else selected(self.qualified, self.source.threshold)

    def receiver(self, seat: bytes) -> int:
        """The index of a receiver; raises Refused(E_ROLE)."""
        return _index(self.receivers, seat)

    def dealer(self, seat: bytes) -> int:
        """The index of a dealer; raises Refused(E_ROLE)."""
        return _index(self.dealers, seat)

    def at(self, time_ms: int) -> "Ceremony":
        """The ceremony as it stands at this block time, with every phase closed that is over."""
        ceremony = self
        while (closed := _closed(ceremony, time_ms)) is not None:
            ceremony = closed
        return ceremony

    def box_context(self, dealer: int, receiver: int) -> bytes:
        """What a sub-share is sealed for: this chain, ceremony, dealer and receiver."""
        return tagged_hash(Domain.CEREMONY, encode((self.chain, self.id, dealer, receiver)))


def _index(seats: Seats, seat: bytes) -> int:
    if seat not in seats:
        raise Refused(Code.E_ROLE)
    return seats.index(seat) + 1


def begin(
    chain: ChainId,
    identifier: CeremonyId,
    receivers: Seats,
    threshold: int,
    time_ms: Millis,
    source: tuple[JointKey, Seats] | None = None,
    phase_ms: int = limits.CEREMONY_PHASE_MS,
) -> Ceremony:
    """A ceremony in which nobody has spoken; `source` is the key to be shared anew, with its holders."""
    key, dealers = (None, receivers) if source is None else source
    assert 1 <= threshold <= len(receivers), f"{threshold} of {len(receivers)}"
    assert (key is None) == (identifier.share_epoch == 0), "the first sharing of a key is that of a new one"
    return Ceremony(
        chain, identifier, receivers, dealers, threshold, key, phase_ms, time_ms, boxes=(None,) * len(receivers)
    )


def join(ceremony: Ceremony, seat: bytes, box: bytes) -> Ceremony:
    """A receiver shows its key.

    Refused: E_STATE, E_ROLE, E_DUP, also for a key that another one has shown, E_FORMAT for one of small order.
    """
    _require(ceremony, Phase.JOIN)
    place = ceremony.receiver(seat) - 1
    if not is_box_key(box):
        raise Refused(Code.E_FORMAT)
    if ceremony.boxes[place] is not None or box in ceremony.boxes:
        raise Refused(Code.E_DUP)
    return replace(ceremony, boxes=(*ceremony.boxes[:place], box, *ceremony.boxes[place + 1 :]))


def deal(ceremony: Ceremony, seat: bytes, dealt: Deal) -> Ceremony:
    """A dealer commits. Refused: E_STATE, E_ROLE, E_DUP, E_DEAL for what could be no honest deal."""
    _require(ceremony, Phase.DEAL)
    dealer = ceremony.dealer(seat)
    if dealer in ceremony.dealt:
        raise Refused(Code.E_DUP)
    if dealer not in _expected_dealers(ceremony):
        raise Refused(Code.E_ROLE)
    _check_deal(ceremony, dealer, dealt)
    return replace(ceremony, dealt=tuple(sorted((*ceremony.dealt, dealer))))


def _check_deal(ceremony: Ceremony, dealer: int, dealt: Deal) -> None:
    sealed = tuple(index for index, box in enumerate(dealt.boxes, start=1) if box is not None)
    if len(dealt.boxes) != len(ceremony.receivers) or sealed != ceremony.joined:
        raise Refused(Code.E_DEAL)
    try:
        commitments = check_commitments(dealt.commitments, ceremony.threshold)
        if ceremony.source is not None:
            check_origin(LongTerm(ceremony.source), dealer, commitments)
    except (InvalidInput, ProofError) as error:
        raise Refused(Code.E_DEAL) from error


def report(ceremony: Ceremony, seat: bytes, cheats: Indices) -> Ceremony:
    """A receiver has looked at all it got. Refused: E_STATE, E_ROLE, E_DUP, E_FORMAT for a list that is none."""
    _require(ceremony, Phase.REPORT)
    receiver = ceremony.receiver(seat)
    if receiver not in ceremony.joined:
        raise Refused(Code.E_ROLE)
    if receiver in ceremony.reported:
        raise Refused(Code.E_DUP)
    if tuple(sorted(set(cheats))) != cheats or not set(cheats) <= set(ceremony.dealt):
        raise Refused(Code.E_FORMAT)
    return replace(
        ceremony,
        reported=tuple(sorted((*ceremony.reported, receiver))),
        complaints=tuple(sorted((*ceremony.complaints, *((dealer, receiver) for dealer in cheats)))),
    )


def justify(ceremony: Ceremony, seat: bytes, receiver: int, share: bytes, dealt: Deal) -> Ceremony:
    """An accused dealer shows a sub-share to all; `dealt` is its own deal.

    Refused: E_STATE, E_ROLE, E_NOT_FOUND without that accusation, E_DUP, E_DEAL for what is not on its polynomial.
    """
    _require(ceremony, Phase.JUSTIFY)
    pair = (ceremony.dealer(seat), receiver)
    if pair not in ceremony.complaints:
        raise Refused(Code.E_NOT_FOUND)
    if pair in ceremony.justified:
        raise Refused(Code.E_DUP)
    try:
        check_share(as_scalar(share), check_commitments(dealt.commitments, ceremony.threshold), receiver)
    except (InvalidInput, ProofError) as error:
        raise Refused(Code.E_DEAL) from error
    return replace(ceremony, justified=tuple(sorted((*ceremony.justified, pair))))


def confirm(ceremony: Ceremony, seat: bytes, digest: bytes, key: JointKey) -> Ceremony:
    """A receiver has its share on disk; `key` is the outcome. Refused: E_STATE, E_ROLE, E_DUP, E_DEAL for another."""
    _require(ceremony, Phase.CONFIRM)
    receiver = ceremony.receiver(seat)
    if receiver not in ceremony.joined:
        raise Refused(Code.E_ROLE)
    if receiver in ceremony.confirmed:
        raise Refused(Code.E_DUP)
    if digest != key.digest:
        raise Refused(Code.E_DEAL)
    confirmed = tuple(sorted((*ceremony.confirmed, receiver)))
    is_active = len(confirmed) >= ceremony.threshold
    return replace(ceremony, confirmed=confirmed, phase=Phase.ACTIVE if is_active else Phase.CONFIRM)


def outcome(ceremony: Ceremony, deals: Mapping[int, Deal]) -> JointKey:
    """The key that QUAL makes. Raises ProofError where their commitments cancel out, which honest ones do not."""
    dealt = {
        dealer: check_commitments(deals[dealer].commitments, ceremony.threshold) for dealer in ceremony.contributors
    }
    joint: tuple[Point, ...] = added(list(dealt.values())) if ceremony.source is None else new_commitments(dealt)
    if ceremony.source is not None and joint[0] != ceremony.source.public:
        raise ProofError("a resharing that changes the joint key")
    return JointKey(ceremony.id.key_epoch, ceremony.id.share_epoch, len(ceremony.receivers), joint)


def _require(ceremony: Ceremony, phase: Phase) -> None:
    if ceremony.phase != phase:
        raise Refused(Code.E_STATE)


def _expected_dealers(ceremony: Ceremony) -> tuple[int, ...]:
    """Those who may deal: of a new key the receivers that have joined, of an old one all its holders."""
    return ceremony.joined if ceremony.source is None else tuple(range(1, len(ceremony.dealers) + 1))


def _closed(ceremony: Ceremony, time_ms: int) -> Ceremony | None:
    """The next phase if this one is over, else None.

    It begins at the block time of the message that finds the last one over, not at the deadline: on a quiet chain
    nobody may have had the occasion to speak in between.
    """
    is_late = time_ms >= ceremony.since_ms + ceremony.phase_ms
    match ceremony.phase:
        case Phase.JOIN:
            is_over, following = len(ceremony.joined) == len(ceremony.receivers), Phase.DEAL
            has_enough = len(ceremony.joined) >= ceremony.threshold
        case Phase.DEAL:
            is_over, following = ceremony.dealt == _expected_dealers(ceremony), Phase.REPORT
            has_enough = len(ceremony.dealt) >= ceremony.dealers_needed
        case Phase.REPORT:
            is_over, has_enough = ceremony.reported == ceremony.joined, True
            following = Phase.JUSTIFY if ceremony.complaints else _after_justification(ceremony)
        case Phase.JUSTIFY:
            is_over, has_enough = ceremony.justified == ceremony.complaints, True
            following = _after_justification(ceremony)
        case Phase.CONFIRM:
            is_over, has_enough, following = False, False, Phase.FAILED
        case _:
            return None
    if not (is_over or is_late):
        return None
    return replace(ceremony, phase=following if has_enough else Phase.FAILED, since_ms=Millis(time_ms))


def _after_justification(ceremony: Ceremony) -> Phase:
    return Phase.CONFIRM if len(ceremony.qualified) >= ceremony.dealers_needed else Phase.FAILED
