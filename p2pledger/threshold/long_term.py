"""Long-term secrets: one joint key for all records of a key epoch, its secret never in one place (after CALYPSO's LTS).

1. A ceremony (dkg.py) leaves X = x·B on the chain, with X_i = x_i·B of each holder, and x_i with holder i alone.
2. A writer seals content keys to X (capsule.py).
3. Holder i checks the capsule, computes D_i = x_i·U, proves log_B X_i = log_U D_i for this access, and seals both
   to the reader's key. Nothing is added to U: a reader's key that is chosen to cancel something has nothing to cancel.
4. The reader opens with x·U = Σ λ_i·D_i of any t; if that fails it verifies the proofs, names those that do not hold,
   and opens with others.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

from msgspec import Meta

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import U64, Bytes32
from p2pledger.threshold.capsule import Label, check_capsule, open_capsule, seal_capsule
from p2pledger.threshold.group import Point, Random, Scalar, as_point, as_scalar, base_times, times
from p2pledger.threshold.key_release import Access, Opened, open_with, sealer_of, share_context
from p2pledger.threshold.proofs import EqualLogs, check_equal_logs, prove_equal_logs
from p2pledger.threshold.sealing import BoxSecret, Sealer
from p2pledger.threshold.sharing import check_commitments, combine_points, public_share

_SHARE_BYTES_MAX = 128


class JointKey(Record, frozen=True):
    """A joint key as the chain holds it: everything about it but the secret."""

    key_epoch: U64
    """New with each new X."""
    share_epoch: U64
    """New with each new sharing of the same x."""
    holders: Annotated[int, Meta(ge=1, le=limits.VALIDATORS_MAX)]
    """n; they have the indices 1 to n."""
    commitments: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=limits.VALIDATORS_MAX)]
    """To the joint polynomial; the first one is X. As many as shares are needed."""

    @property
    def threshold(self) -> int:
        return len(self.commitments)

    @property
    def public(self) -> bytes:
        """X, to which capsules are sealed."""
        return self.commitments[0]

    @property
    def digest(self) -> bytes:
        """What validators confirm when they activate the key."""
        return tagged_hash(Domain.JOINT_KEY, encode(self))


class ReleasedShare(Record, frozen=True):
    """What a holder seals to the reader."""

    image: Bytes32
    """D_i = x_i·U."""
    proof: EqualLogs


class LongTerm:
    """`KeyRelease` with a joint key."""

    def __init__(self, key: JointKey) -> None:
        """Raises InvalidInput where a commitment is no point of the group, or more are needed than there are."""
        if key.threshold > key.holders:
            raise InvalidInput(f"{key.threshold} of {key.holders} shares can never be had")
        self.key = key
        self._commitments = check_commitments(key.commitments, key.threshold)
        self._public_shares: dict[int, Point] = {}

    @property
    def threshold(self) -> int:
        return self.key.threshold

    @property
    def holders(self) -> tuple[int, ...]:
        return tuple(range(1, self.key.holders + 1))

    def public_share(self, index: int) -> Point:
        """X_i; computed once, since it costs t multiplications."""
        if index not in self._public_shares:
            self._public_shares[index] = public_share(self._commitments, index)
        return self._public_shares[index]

    def wrap(self, content_key: bytes, label: Label, random: Random) -> bytes:
        """The capsule of a content key; raises InvalidInput for a label of another key epoch."""
        _check_epoch(label, self.key)
        return seal_capsule(content_key, label, self._commitments[0], random)

    def check(self, capsule: bytes, label: Label) -> None:
        """That it was made for this label and this key epoch; raises InvalidInput or ProofError."""
        _check_epoch(label, self.key)
        check_capsule(capsule, label)

    def open(
        self, capsule: bytes, label: Label, access: Access, reader: BoxSecret, shares: Mapping[int, bytes]
    ) -> Opened:
        """The content key; raises TooFewShares, InvalidInput or ProofError."""
        _check_epoch(label, self.key)

        def context(index: int) -> bytes:
            return share_context(capsule, label, access, index, self.key.share_epoch)

        def read(index: int, sealed: bytes) -> ReleasedShare:
            return decode(ReleasedShare, reader.open(sealed, context(index)), _SHARE_BYTES_MAX)

        def verifier() -> Callable[[int, ReleasedShare], None]:
            u = check_capsule(capsule, label)

            def verify(index: int, share: ReleasedShare) -> None:
                check_equal_logs(share.proof, self.public_share(index), u, as_point(share.image), context(index))

            return verify

        def unwrap(good: dict[int, ReleasedShare]) -> bytes:
            secret = combine_points({index: share.image for index, share in good.items()})
            return open_capsule(capsule, label, secret)

        return open_with(self, shares, read, verifier, unwrap)


class LongTermHolder:
    """`ShareHolder` with one share of a joint key; its text form never shows it."""

    __slots__ = ("_index", "_public", "_release", "_secret")

    def __init__(self, release: LongTerm, index: int, secret: bytes) -> None:
        """Raises ProofError where the secret is not the share of this index, InvalidInput where it is no scalar."""
        self._secret: Scalar = as_scalar(secret)
        self._release, self._index = release, index
        self._public = base_times(self._secret)
        if index not in release.holders or self._public != release.public_share(index):
            raise ProofError(f"not the secret of share {index} of key epoch {release.key.key_epoch}")

    def __repr__(self) -> str:
        return f"LongTermHolder(index={self._index})"

    @property
    def index(self) -> int:
        return self._index

    @property
    def key(self) -> JointKey:
        """Of which it holds a share."""
        return self._release.key

    def check(self, capsule: bytes, label: Label) -> None:
        """Like everybody's check; raises InvalidInput or ProofError."""
        self._release.check(capsule, label)

    def release(
        self, capsule: bytes, label: Label, access: Access, random: Random, sealer: Sealer | None = None
    ) -> bytes:
        """D_i with its proof, sealed to the reader's key; raises InvalidInput or ProofError."""
        _check_epoch(label, self._release.key)
        u = check_capsule(capsule, label)
        context = share_context(capsule, label, access, self._index, self._release.key.share_epoch)
        image = times(self._secret, u)
        proof = prove_equal_logs(self._secret, self._public, u, image, context, random)
        return sealer_of(access, random, sealer).seal(encode(ReleasedShare(image, proof)), context)


def _check_epoch(label: Label, key: JointKey) -> None:
    if label.key_epoch != key.key_epoch:
        raise InvalidInput(f"a label of key epoch {label.key_epoch}, this is the key of epoch {key.key_epoch}")
