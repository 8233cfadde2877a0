"""The authenticated state tree (see docs/state.md). Being written."""

from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import Bytes32


class StateProof(Record, frozen=True):
    """The complete bucket of a key, and the path from the bucket to the root."""

    leaves: tuple[tuple[Bytes32, Bytes32], ...]
    """(hash of key, hash of value) of every key in the bucket, ascending: it shows presence as well as absence."""
    path: tuple[Bytes32, ...]
    """16 sibling hashes from the bucket up."""
