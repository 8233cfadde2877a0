"""One-time secrets: one sharing for each record, among holders whom the writer picks (after CALYPSO's OTS).

1. The writer chooses a polynomial p of degree t − 1, K = H(p(0), label), wrapped = AEAD(K, content key, label).
2. The capsule is (number of the table, C_k = p_k·B, wrapped, and for each holder i the share p(i) sealed to its X25519
   key for this label and table).
3. Deposit: holder i opens its box and checks p(i)·B = Σ i^k·C_k. A record counts as deposited when t holders say so.
4. Release: holder i checks again and seals p(i) to the reader's key.
5. The reader interpolates p(0) from any t; if that opens nothing it checks each share in the same way, and names those
   that are wrong.

No ceremony is needed, and the holders can be anybody: before there is a joint key, for emergencies, and for patients
who choose their trustees. A capsule moved to another label or another table of holders opens for no holder.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, wide_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import U64, Bytes32
from p2pledger.threshold.capsule import CONTENT_KEY_BYTES, WRAPPED_BYTES, Label
from p2pledger.threshold.group import Point, Random, Scalar, as_scalar, random_scalar
from p2pledger.threshold.key_release import Access, Opened, open_with, sealer_of, share_context
from p2pledger.threshold.sealing import SEALING_BYTES, BoxSecret, Sealer, decrypt_once, encrypt_once, seal
from p2pledger.threshold.sharing import Polynomial, check_commitments, check_share, combine

_BOX_BYTES = 32 + SEALING_BYTES
ONE_TIME_BYTES_MAX = 128 + limits.VALIDATORS_MAX * (34 + _BOX_BYTES + 2)
ONE_TIME_EPOCH = 0
"""What stands for the key epoch in the labels of one-time secrets; joint keys begin at 1."""


class OneTimeCapsule(Record, frozen=True):
    """A content key with its own sharing."""

    table: U64
    """Which table of holders it was made for."""
    commitments: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=limits.VALIDATORS_MAX)]
    boxes: Annotated[
        tuple[Annotated[bytes, Meta(min_length=_BOX_BYTES, max_length=_BOX_BYTES)], ...],
        Meta(min_length=1, max_length=limits.VALIDATORS_MAX),
    ]
    """In the order of the holders."""
    wrapped: Annotated[bytes, Meta(min_length=WRAPPED_BYTES, max_length=WRAPPED_BYTES)]


class OneTime:
    """`KeyRelease` among the owners of these X25519 keys, `threshold` of whom open a capsule."""

    def __init__(self, boxes: Sequence[bytes], threshold: int, table: int = 0) -> None:
        """`table`: the number under which everybody knows these holders; 0 for holders of a writer's own choice.

        Raises InvalidInput unless 1 ≤ threshold ≤ number of holders ≤ 50, and no holder twice.
        """
        if not 1 <= threshold <= len(boxes) <= limits.VALIDATORS_MAX:
            raise InvalidInput(f"{threshold} of {len(boxes)} holders, at most {limits.VALIDATORS_MAX}")
        if len(set(boxes)) != len(boxes):
            raise InvalidInput("one key among the holders stands there twice")
        self.boxes = tuple(boxes)
        self.table = table
        self._threshold = threshold

    @property
    def threshold(self) -> int:
        return self._threshold

    @property
    def holders(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.boxes) + 1))

    def wrap(self, content_key: bytes, label: Label, random: Random) -> bytes:
        """The capsule of a content key; raises InvalidInput where a holder's key cannot be sealed to."""
        assert len(content_key) == CONTENT_KEY_BYTES, f"a content key of {len(content_key)} bytes"
        secret = random_scalar(random)
        polynomial = Polynomial.through(secret, self._threshold, random)
        boxes = tuple(
            seal(box, polynomial.at(index), _box_context(label, self.table, index), random)
            for index, box in enumerate(self.boxes, start=1)
        )
        wrapped = encrypt_once(_key(secret, label), content_key, self._wrapping(label))
        return encode(OneTimeCapsule(self.table, polynomial.commitments(), boxes, wrapped))

    def check(self, capsule: bytes, label: Label) -> None:
        """That it has the right form. That it fits the label and the shares, each holder finds for its own share."""
        self.parse(capsule)

    def open(
        self, capsule: bytes, label: Label, access: Access, reader: BoxSecret, shares: Mapping[int, bytes]
    ) -> Opened:
        """The content key; raises TooFewShares, InvalidInput or ProofError."""
        parts, commitments = self.parse(capsule)

        def read(index: int, sealed: bytes) -> Scalar:
            return as_scalar(reader.open(sealed, share_context(capsule, label, access, index, self.table)))

        def unwrap(good: dict[int, Scalar]) -> bytes:
            return decrypt_once(_key(combine(good), label), parts.wrapped, self._wrapping(label))

        def verify(index: int, share: Scalar) -> None:
            check_share(share, commitments, index)

        return open_with(self, shares, read, lambda: verify, unwrap)

    def parse(self, capsule: bytes) -> tuple[OneTimeCapsule, tuple[Point, ...]]:
        """The capsule and its commitments; raises InvalidInput where it is not for these holders."""
        parts = read_capsule(capsule)
        if parts.table != self.table:
            raise InvalidInput(f"a capsule for table {parts.table} of holders, this is table {self.table}")
        if len(parts.boxes) != len(self.boxes):
            raise InvalidInput(f"a capsule for {len(parts.boxes)} holders, here are {len(self.boxes)}")
        return parts, check_commitments(parts.commitments, self._threshold)

    def _wrapping(self, label: Label) -> bytes:
        return encode((label, self.table))


class OneTimeHolder:
    """`ShareHolder` with one of the holders' X25519 keys."""

    __slots__ = ("_box", "_index", "_release")

    def __init__(self, release: OneTime, box: BoxSecret) -> None:
        """Raises InvalidInput where the key is none of the holders'."""
        if box.public not in release.boxes:
            raise InvalidInput(f"key {box.public.hex()} is no holder's")
        self._release, self._box = release, box
        self._index = release.boxes.index(box.public) + 1

    def __repr__(self) -> str:
        return f"OneTimeHolder(index={self._index})"

    @property
    def index(self) -> int:
        return self._index

    @property
    def table(self) -> int:
        """Of which table of holders it is one."""
        return self._release.table

    def check(self, capsule: bytes, label: Label) -> None:
        """The deposit check; raises InvalidInput or ProofError."""
        self._share(capsule, label)

    def release(
        self, capsule: bytes, label: Label, access: Access, random: Random, sealer: Sealer | None = None
    ) -> bytes:
        """The share, sealed to the reader's key; raises InvalidInput or ProofError."""
        share = self._share(capsule, label)
        context = share_context(capsule, label, access, self._index, self.table)
        return sealer_of(access, random, sealer).seal(share, context)

    def _share(self, capsule: bytes, label: Label) -> Scalar:
        parts, commitments = self._release.parse(capsule)
        try:
            opened = self._box.open(parts.boxes[self._index - 1], _box_context(label, self.table, self._index))
        except InvalidInput as error:
            raise ProofError(
                f"box {self._index} was not sealed for record {label.batch_id.hex()}/{label.index}"
            ) from error
        share = as_scalar(opened)
        check_share(share, commitments, self._index)
        return share


def read_capsule(capsule: bytes) -> OneTimeCapsule:
    """Its parts, not checked yet against any holders; raises InvalidInput where it is no one-time capsule."""
    return decode(OneTimeCapsule, capsule, ONE_TIME_BYTES_MAX)


def _box_context(label: Label, table: int, index: int) -> bytes:
    return encode(("one-time", label, table, index))


def _key(secret: Scalar, label: Label) -> bytes:
    return wide_hash(Domain.CAPSULE_KEY, encode(label), key=secret)[:32]
