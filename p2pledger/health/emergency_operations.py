"""An emergency capsule that was opened without the ledger, brought onto it afterwards (F-17)."""

from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, SigningKey, signed_bytes, tagged_hash
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, ChainId, Millis, Signature


class OfflineOpening(Record, frozen=True):
    """One opening, as it was written down before anything was shown: an entry in a house's own chain of them."""

    organisation: Bytes16
    number: U64
    """From 1, without gaps."""
    previous: Bytes32
    """Hash of the entry before; zeros for the first."""
    access_id: Bytes16
    pid: Bytes16
    capsule: Bytes32
    """Hash of the capsule that was opened."""
    opened_ms: Millis
    """By the house's own clock."""
    reader: AccountKey
    """Who opened it."""
    reason_commit: Bytes32

    @property
    def hash(self) -> Bytes32:
        """What the next entry names this one by."""
        return tagged_hash(Domain.OFFLINE_OPENING, encode(self))


class EmergencyAnchor(Record, frozen=True, tag=37):
    """The reader's organisation brings an opening onto the chain, in the order in which they happened."""

    opening: OfflineOpening
    signature: Signature
    """The reader's, over the entry."""


def opening_bytes(chain: ChainId, opening: OfflineOpening) -> bytes:
    """What a reader signs before an emergency capsule is opened."""
    return signed_bytes(Domain.OFFLINE_OPENING, chain, encode(opening))


def sign_opening(reader: SigningKey, chain: ChainId, opening: OfflineOpening) -> Signature:
    """The reader's signature over its entry."""
    return reader.sign(opening_bytes(chain, opening))
