"""The authenticated state tree: one root for the whole state, proofs that a key is there, or is not.

2^16 buckets by the first 16 bits of the hashed key, and a full binary tree of 16 levels above them. Hashing keys
spreads them evenly, so a proof is one bucket and 16 siblings whatever the keys look like, and absence is shown by
a complete bucket without the key. The tree holds no state: its records are kept by whoever keeps the state.

Records: `b"b" ‖ bucket` is the bucket's sorted (key hash ‖ value hash) pairs; `b"n" ‖ level ‖ row` is a row of
neighbouring nodes of level 4 or 8, level 0 being the buckets' hashes and level 16 the root. The other levels are made
from these. What is empty has no record: docs/state.md.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import groupby, pairwise
from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.primitives import merkle
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import Domain, hash_prefix
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import Bytes32

LEVELS = 16
"""Of the binary tree; 2^16 buckets hold 150 keys each at ten million keys, a proof of 10 KB."""
PAIR_BYTES = 64
GROUP = 4
"""The lowest level whose nodes are stored. Those below are most of all nodes, change with nearly every bucket, and are
made from sixteen buckets when a proof needs them."""
TOP = 8
ROWS = {GROUP: 16, TOP: 256}
"""By stored level, how many nodes stand in one record. A checkpoint changes most nodes of either, so a record for each
would be a write for every transaction; the levels between and above cost a proof 264 hashes."""

Read: TypeAlias = Callable[[bytes], bytes | None]
"""Reads a record of the tree."""


class StateProof(Record, frozen=True):
    """The complete bucket of a key, and the path from the bucket to the root."""

    leaves: tuple[tuple[Bytes32, Bytes32], ...]
    """(hash of key, hash of value) of every key in the bucket, ascending: it shows presence as well as absence."""
    path: Annotated[tuple[Bytes32, ...], Meta(min_length=LEVELS, max_length=LEVELS)]
    """16 sibling hashes from the bucket up."""


def _empty_hashes() -> tuple[bytes, ...]:
    hashes = [merkle.EMPTY_ROOT]
    for _ in range(LEVELS):
        hashes.append(merkle.node_hash(hashes[-1], hashes[-1]))
    return tuple(hashes)


EMPTY = _empty_hashes()
"""Per level, the hash of a node with nothing below it; EMPTY[16] is the root of the empty state."""


_KEY_PREFIX = hash_prefix(Domain.STATE_KEY)


def key_hash(key: bytes) -> bytes:
    """Where a key stands in the tree; its first 16 bits are its bucket."""
    return sha256(_KEY_PREFIX + key).digest()


def value_hash(value: bytes) -> bytes:
    """What the tree knows of a value."""
    return sha256(value).digest()


def bucket_hash(record: bytes) -> bytes:
    """Of a bucket's record as a whole, since every proof shows all of it."""
    return merkle.leaf_hash(record) if record else merkle.EMPTY_ROOT


def update(read: Read, changes: Mapping[bytes, bytes | None]) -> tuple[bytes, dict[bytes, bytes | None]]:
    """The root after `changes` (state key to new value, None deletes), and the records that change with it."""
    nodes = Nodes(read)
    nodes.note(changes)
    return nodes.settle(read)


class Nodes:
    """The hashes of all buckets and inner nodes, at most 12 MB: what changes together is hashed together.

    Goes with one tree through all its changes.
    """

    def __init__(self, read: Read) -> None:
        """`read` sees the stored tree."""
        self._levels = [[EMPTY[level]] * 2 ** (LEVELS - level) for level in range(LEVELS + 1)]
        self._is_known = bytearray(2**LEVELS >> GROUP)
        """By group of buckets below a stored node: whether they were read. A new tree has nothing to read."""
        self._noted: dict[bytes, bytes | None] = {}
        """Key hash to value hash, or None, of what has changed since the tree was settled."""
        if read(_row_key(TOP, 0)) is None:
            self._is_known[:] = bytes([1]) * len(self._is_known)
            return
        rows = range(len(self._is_known) // ROWS[GROUP])
        self._levels[GROUP] = [node for row in rows for node in _row(read, GROUP, row)]
        for level in range(GROUP + 1, LEVELS + 1):
            self._hash_level(level, range(2 ** (LEVELS - level)))

    def note(self, changes: Mapping[bytes, bytes | None]) -> None:
        """State keys and their new values, None for one that is gone. Hashed at once: less is left for `settle`."""
        noted = self._noted
        for key, value in changes.items():
            noted[sha256(_KEY_PREFIX + key).digest()] = None if value is None else sha256(value).digest()

    def settle(self, read: Read) -> tuple[bytes, dict[bytes, bytes | None]]:
        """The root after all that was noted, and the records that change with it.

        `read` sees the tree's records as they were; the caller stores the new ones together with the state.
        """
        noted, self._noted = self._noted, {}
        writes: dict[bytes, bytes | None] = {}
        changed: set[int] = set()
        hashes = self._levels[0]
        for prefix, group in groupby(sorted(noted), key=_bucket_prefix):
            bucket = int.from_bytes(prefix, "big")
            if not self._is_known[bucket >> GROUP]:
                self._learn(read, bucket >> GROUP)
            record = read(b"b" + prefix) or b""
            for hashed in group:
                record = _changed(record, hashed, noted[hashed])
            digest = bucket_hash(record)
            if hashes[bucket] != digest:
                hashes[bucket] = digest
                writes[b"b" + prefix] = record or None
                changed.add(bucket)
        for level in range(1, LEVELS + 1):
            changed = {index >> 1 for index in changed}
            self._hash_level(level, changed)
            if level in ROWS:
                writes |= self._rows(level, {index // ROWS[level] for index in changed})
        return self._levels[LEVELS][0], writes

    def _rows(self, level: int, rows: Iterable[int]) -> dict[bytes, bytes | None]:
        size, nodes = ROWS[level], self._levels[level]
        found = {row: b"".join(nodes[size * row : size * row + size]) for row in rows}
        return {_row_key(level, row): None if value == EMPTY[level] * size else value for row, value in found.items()}

    def learn(self, read: Read) -> None:
        """Read every bucket now rather than when it changes."""
        for group, is_known in enumerate(self._is_known):
            if not is_known:
                self._learn(read, group)

    def _hash_level(self, level: int, indexes: Iterable[int]) -> None:
        """Anew from the level below: two siblings stand side by side there."""
        below, own = self._levels[level - 1], self._levels[level]
        for index in indexes:
            own[index] = sha256(b"\x01" + below[2 * index] + below[2 * index + 1]).digest()

    def _learn(self, read: Read, group: int) -> None:
        """The levels that are not stored, from the buckets."""
        first, size = group << GROUP, 1 << GROUP
        self._is_known[group] = 1
        if self._levels[GROUP][group] == EMPTY[GROUP]:
            return
        for bucket in range(first, first + size):
            record = read(_bucket_key(bucket))
            if record:
                self._levels[0][bucket] = bucket_hash(record)
        for level in range(1, GROUP):
            self._hash_level(level, range(first >> level, (first + size) >> level))


def _bucket_prefix(hashed: bytes) -> bytes:
    return hashed[:2]


def _changed(record: bytes, hashed: bytes, value: bytes | None) -> bytes:
    """The bucket record after this pair of hashes was set or removed."""
    place, end = 0, len(record)
    while place < end:  # bisect would need a call for each look
        middle = (place + end) // (2 * PAIR_BYTES) * PAIR_BYTES
        if record[middle : middle + 32] < hashed:
            place = middle + PAIR_BYTES
        else:
            end = middle
    after = place + PAIR_BYTES if record[place : place + 32] == hashed else place
    return record[:place] + (b"" if value is None else hashed + value) + record[after:]


def root(read: Read) -> bytes:
    """The root of the stored tree."""
    return merkle.root_of_hashes(_row(read, TOP, 0))


def bucket_pairs(read: Read, hashed: bytes) -> dict[bytes, bytes]:
    """(key hash to value hash) of the bucket into which a key hash belongs."""
    return _as_dict(read(_bucket_key(_bucket_of(hashed))) or b"")


def rebuilt_root(read: Read) -> bytes:
    """The root computed from the buckets alone, in which no stored node has a say: for audits."""
    return merkle.root_of_hashes([bucket_hash(read(_bucket_key(bucket)) or b"") for bucket in range(2**LEVELS)])


def prove(read: Read, key: bytes) -> StateProof:
    """The proof of what the stored tree says about a key, present or absent."""
    index = _bucket_of(key_hash(key))
    leaves = tuple((Bytes32(pair[:32]), Bytes32(pair[32:])) for pair in _pairs(read(_bucket_key(index)) or b""))
    group, above = index >> GROUP, index >> TOP
    around = range(group << GROUP, (group + 1) << GROUP)
    path = merkle.inclusion_path([bucket_hash(read(_bucket_key(one)) or b"") for one in around], index & 15)
    path += merkle.inclusion_path(_row(read, GROUP, above), group & 15)
    path += merkle.inclusion_path(_row(read, TOP, 0), above)
    return StateProof(leaves, tuple(Bytes32(node) for node in path))


def check_state_proof(proof: StateProof, key: bytes, value: bytes | None, root: bytes) -> None:
    """Whether the state under `root` has `value` at `key`; None claims that it has no such key. Raises ProofError.

    The way up is taken from the key's own hash, so the bucket of another key proves nothing about this one.
    """
    hashed = key_hash(key)
    index = _bucket_of(hashed)
    if len(proof.path) != LEVELS:
        raise ProofError(f"state proof with a path of {len(proof.path)} hashes instead of {LEVELS}")
    # One value has one proof: the order also excludes a key that stands in its bucket twice.
    if any(left[0] >= right[0] for left, right in pairwise(proof.leaves)):
        raise ProofError("the leaves of the state proof are not in strictly ascending order")
    for leaf in proof.leaves:
        if len(leaf[0]) != 32 or len(leaf[1]) != 32 or _bucket_of(leaf[0]) != index:
            raise ProofError(f"a leaf of the state proof does not belong into bucket {index}")
    if proof_root(proof, index) != root:
        raise ProofError(f"the state proof does not lead to root {root.hex()}")
    found = dict(proof.leaves).get(hashed)
    wanted = None if value is None else value_hash(value)
    if found != wanted:
        said = "is absent" if found is None else f"has a value with hash {found.hex()}"
        claimed = "absence" if wanted is None else f"a value with hash {wanted.hex()}"
        raise ProofError(f"the state proof shows that the key {said}, not {claimed}")


def proof_root(proof: StateProof, index: int) -> bytes:
    """The root that the proof's bucket has when it stands at `index`."""
    value = bucket_hash(b"".join(hashed + digest for hashed, digest in proof.leaves))
    for level, sibling in enumerate(proof.path):
        is_right = (index >> level) & 1
        value = merkle.node_hash(sibling, value) if is_right else merkle.node_hash(value, sibling)
    return value


def _bucket_of(hashed: bytes) -> int:
    return int.from_bytes(hashed[:2], "big")


def _bucket_key(bucket: int) -> bytes:
    return b"b" + bucket.to_bytes(2, "big")


def _row_key(level: int, row: int) -> bytes:
    return b"n" + bytes([level, row])


def _row(read: Read, level: int, row: int) -> list[bytes]:
    nodes = read(_row_key(level, row)) or EMPTY[level] * ROWS[level]
    return [nodes[start : start + 32] for start in range(0, len(nodes), 32)]


def _pairs(record: bytes) -> list[bytes]:
    return [record[i : i + PAIR_BYTES] for i in range(0, len(record), PAIR_BYTES)]


def _as_dict(record: bytes) -> dict[bytes, bytes]:
    return {pair[:32]: pair[32:] for pair in _pairs(record)}
