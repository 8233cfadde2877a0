"""What every way of keeping a content key with n holders can do, so that vault, node and reader know one shape only.

`KeyRelease` is public: a writer wraps, anybody checks, a reader opens with the shares of any t holders. `ShareHolder`
is one holder with its secret. Two back-ends: `long_term.LongTerm` (one joint key for all records) and
`one_time.OneTime` (one sharing for each record); the same tests run on both.

Whether a share may be released is not asked here: `health/release.py` decides that, from the holder's own final state.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import InvalidInput, ProofError, Unavailable
from p2pledger.primitives.ids import Bytes16, Bytes32
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.group import Random
from p2pledger.threshold.sealing import BoxSecret, Sealer

P = TypeVar("P")
"""A share as its back-end reads it."""


class Access(Record, frozen=True):
    """For which access, and for whose key alone, a share is released."""

    access_id: Bytes16
    reader: Bytes32
    """The ephemeral X25519 key that the access request on the chain has bound to the reader."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A content key, and who sent something else than its share."""

    content_key: bytes
    wrong: tuple[int, ...]
    """Indices of the holders whose shares were found wrong, ascending; the others were enough."""


class TooFewShares(Unavailable):
    """Fewer than t shares verify; more answers may change that."""

    def __init__(self, threshold: int, good: Iterable[int], missing: Iterable[int], wrong: Iterable[int]) -> None:
        self.good, self.missing, self.wrong = tuple(good), tuple(missing), tuple(wrong)
        super().__init__(
            f"{len(self.good)} good shares, {threshold} are needed; "
            f"nothing from holders {_listed(self.missing)}, wrong ones from {_listed(self.wrong)}"
        )


class KeyRelease(Protocol):
    """The public side: no secret is in it."""

    @property
    def threshold(self) -> int:
        """How many holders open a capsule."""

    @property
    def holders(self) -> tuple[int, ...]:
        """The indices of all holders, from 1, ascending."""

    def wrap(self, content_key: bytes, label: Label, random: Random) -> bytes:
        """The capsule of a content key of 32 bytes."""

    def check(self, capsule: bytes, label: Label) -> None:
        """What anybody can check; raises InvalidInput or ProofError."""

    def open(
        self, capsule: bytes, label: Label, access: Access, reader: BoxSecret, shares: Mapping[int, bytes]
    ) -> Opened:
        """The content key from the shares that came, by index of who sent them.

        Raises TooFewShares naming who is missing and who lied, InvalidInput or ProofError for a capsule that is no
        capsule of this label. Only as many shares are looked at as are needed.
        """


class ShareHolder(Protocol):
    """One of n holders, with its secret."""

    @property
    def index(self) -> int:
        """Which one, from 1."""

    def check(self, capsule: bytes, label: Label) -> None:
        """That this holder could release its share of the capsule; raises InvalidInput or ProofError."""

    def release(
        self, capsule: bytes, label: Label, access: Access, random: Random, sealer: Sealer | None = None
    ) -> bytes:
        """Its share, proved and sealed to the reader's key. Checks the capsule first; raises like `check`.

        Who releases more for the same access passes one sealer to the reader's key.
        """


def sealer_of(access: Access, random: Random, sealer: Sealer | None) -> Sealer:
    """The one that was passed, else a new one; raises InvalidInput for a reader's key that cannot be sealed to."""
    if sealer is None:
        return Sealer(access.reader, random)
    assert sealer.reader == access.reader, "a share for one reader is not sealed to another"  # I-5
    return sealer


def share_context(capsule: bytes, label: Label, access: Access, index: int, share_epoch: int) -> bytes:
    """What a released share is bound to: all that names it. It is of no use in any other place."""
    return encode((label, sha256(capsule), access, index, share_epoch))


def open_with(
    release: KeyRelease,
    shares: Mapping[int, bytes],
    read: Callable[[int, bytes], P],
    verifier: Callable[[], Callable[[int, P], None]],
    unwrap: Callable[[dict[int, P]], bytes],
) -> Opened:
    """The content key from the first t shares that serve, in the order of their indices; raises TooFewShares.

    At first they are only read, nothing is verified: t good ones open the capsule, and what opens is authenticated, the
    label with it. Only if it does not open is the capsule checked (`verifier` raises what `check` does), and then each
    share: so that honest writers and validators cost a reader nothing, and a liar is named.
    """
    readable: dict[int, P] = {}
    wrong: list[int] = []
    for index in sorted(shares):
        try:
            readable[index] = read(_known(index, release), shares[index])
        except (InvalidInput, ProofError):
            wrong.append(index)
        if len(readable) == release.threshold:
            try:
                return Opened(unwrap(readable), tuple(wrong))
            except (InvalidInput, ProofError):
                break  # one of them lies, or the capsule does
    good, lies = _verified(release, shares, read, verifier())
    if len(good) < release.threshold:
        missing = [index for index in release.holders if index not in shares]
        raise TooFewShares(release.threshold, good, missing, lies)
    return Opened(unwrap(good), tuple(lies))


def _verified(
    release: KeyRelease,
    shares: Mapping[int, bytes],
    read: Callable[[int, bytes], P],
    verify: Callable[[int, P], None],
) -> tuple[dict[int, P], list[int]]:
    """The first t shares that verify, and the indices of those met on the way that do not."""
    good: dict[int, P] = {}
    lies: list[int] = []
    for index in sorted(shares):
        if len(good) == release.threshold:
            break
        try:
            share = read(_known(index, release), shares[index])
            verify(index, share)
            good[index] = share
        except (InvalidInput, ProofError):
            lies.append(index)
    return good, lies


def _known(index: int, release: KeyRelease) -> int:
    if index not in release.holders:
        raise InvalidInput(f"holder {index} is none of {len(release.holders)}")
    return index


def _listed(indices: tuple[int, ...]) -> str:
    return ", ".join(map(str, indices)) or "nobody"
