"""Merkle trees as in RFC 9162, section 2.1: roots, inclusion proofs and their verification.

Leaves and inner nodes are hashed with different first bytes, so neither can stand for the other.
"""

from collections.abc import Sequence
from hashlib import sha256

from p2pledger.primitives.errors import ProofError

LEAF = b"\x00"
"""What stands before an entry when it is hashed."""
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def root(entries: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of the entries in order; of none, the hash of nothing."""
    return root_of_hashes(leaf_hashes(entries))


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """`leaf_hash` of each: there are several a transaction, so without a call for each."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def root_of_hashes(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Level by level: an odd node at the end moves up unchanged (RFC 9162 2.1.1)."""
    level = leaves
    while len(level) > 1:
        level = _level_above(level)
    return level[0] if level else EMPTY_ROOT


def _level_above(level: Sequence[bytes]) -> list[bytes]:
    paired = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    if len(level) % 2:
        paired.append(level[-1])
    return paired


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf `index` up to the root (RFC 9162 2.1.3.1)."""
    return Tree(leaves).path(index)


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf hash at `index` of `size` leaves has with this path (RFC 9162 2.1.3.2).

    Raises ProofError where the path's length does not fit.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf index {index} lies outside a tree of {size} leaves")
    value, position, last = leaf, index, size - 1
    steps = iter(path)
    while last > 0:
        if position % 2 == 1 or position < last:
            sibling = next(steps, None)
            if sibling is None:
                raise ProofError(f"inclusion path of {len(path)} hashes is too short for {size} leaves")
            value = node_hash(sibling, value) if position % 2 else node_hash(value, sibling)
        position, last = position // 2, last // 2
    if next(steps, None) is not None:
        raise ProofError(f"inclusion path of {len(path)} hashes is too long for {size} leaves")
    return value


class Tree:
    """All levels of a tree, for many inclusion paths out of one."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.size = len(leaves)
        self._levels = [list(leaves)]
        while len(self._levels[-1]) > 1:
            self._levels.append(_level_above(self._levels[-1]))

    @property
    def root(self) -> bytes:
        """The same as `root_of_hashes` of the leaves."""
        return self._levels[-1][0] if self.size else EMPTY_ROOT

    def path(self, index: int) -> tuple[bytes, ...]:
        """The inclusion path of a leaf (RFC 9162 2.1.3.1)."""
        assert 0 <= index < self.size, f"leaf {index} of a tree of {self.size}"
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index //= 2
        return tuple(path)
