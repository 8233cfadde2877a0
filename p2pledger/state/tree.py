"""The authenticated state tree: one root for the whole state, proofs that a key is there, or is not.

2^18 buckets by the first 18 bits of the hashed key, and a full tree of six levels above them, eight children a node.
Hashing keys spreads them evenly, so a proof is one bucket and 42 siblings whatever the keys look like, and absence is
shown by a complete bucket without the key. The tree holds no state: its records are kept by whoever keeps the state.

Records: `b"b" ‖ bucket` is the bucket's sorted (key hash ‖ value hash) pairs; `b"n" ‖ level ‖ row` is a row of 64
neighbouring nodes of level 1, 3 or 5, level 0 being the buckets' hashes and level 6 the root. The other levels are
made from these. What is empty has no record: docs/state.md.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, TypeAlias

from msgspec import Meta

from p2pledger.primitives import merkle
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import Domain, hash_prefix
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import Bytes32

LEVELS = 6
"""Above the buckets, with eight children a node: a checkpoint makes a quarter of the hashes of a binary tree."""
_WIDTH = 8
SIBLINGS = LEVELS * (_WIDTH - 1)
BUCKETS = _WIDTH**LEVELS
"""2^18 hold 38 keys each at ten million keys, 2.4 KB. At two million transactions a bucket has a quarter of a page, so
what changes of the tree is a page for a key and not more."""
PAIR_BYTES = 64
_UNUSED_BITS = 6
"""Of the three bytes of a key hash that have the number of its bucket."""
STORED = (1, 3, 5)
"""Levels with records. The buckets' hashes are most of all nodes, change with every bucket, and are made from eight
buckets when a proof needs them; the other levels cost a proof 16 hashes."""
ROW = 64
"""Nodes in one record, which is what one of the next stored level stands for. A checkpoint changes most nodes, so a
record for each would be a write for every transaction."""

Read: TypeAlias = Callable[[bytes], bytes | None]
"""Reads a record of the tree."""


class StateProof(Record, frozen=True):
    """The complete bucket of a key, and the path from the bucket to the root."""

    leaves: tuple[tuple[Bytes32, Bytes32], ...]
    """(hash of key, hash of value) of every key in the bucket, ascending: it shows presence as well as absence."""
    path: Annotated[tuple[Bytes32, ...], Meta(min_length=SIBLINGS, max_length=SIBLINGS)]
    """42 sibling hashes: on each level from the bucket up the seven others of the same parent, from left to right."""


def _empty_hashes() -> tuple[bytes, ...]:
    hashes = [merkle.EMPTY_ROOT]
    for _ in range(LEVELS):
        hashes.append(_node_hash(hashes[-1] * _WIDTH))
    return tuple(hashes)


def _node_hash(children: bytes) -> bytes:
    return sha256(b"\x01" + children).digest()


EMPTY = _empty_hashes()
"""Per level, the hash of a node with nothing below it; EMPTY[6] is the root of the empty state."""


_KEY_PREFIX = hash_prefix(Domain.STATE_KEY)


def key_hash(key: bytes) -> bytes:
    """Where a key stands in the tree; its first 18 bits are its bucket."""
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
    """The hashes of all buckets and inner nodes, at most 10 MB: what changes together is hashed together.

    Goes with one tree through all its changes.
    """

    def __init__(self, read: Read) -> None:
        """`read` sees the stored tree."""
        self._levels = [bytearray(32 * BUCKETS)]
        """Of the buckets only those whose parent is known; the others' memory is not used."""
        self._levels += [bytearray(EMPTY[level] * (BUCKETS // _WIDTH**level)) for level in range(1, LEVELS + 1)]
        self._is_known = bytearray(BUCKETS // _WIDTH)
        """By node of level 1: whether the buckets below it were read."""
        self._noted: dict[bytes, bytes | None] = {}
        """What has changed since the tree was settled."""
        if read(_row_key(STORED[-1], 0)) is None:
            return
        present: list[int] = []
        for row in range(len(self._is_known) // ROW):
            nodes = read(_row_key(1, row))
            if nodes is not None:
                self._levels[1][32 * ROW * row : 32 * ROW * (row + 1)] = nodes
                present += range(ROW * row, ROW * (row + 1))
        for level in range(2, LEVELS + 1):
            present = [*dict.fromkeys([index // _WIDTH for index in present])]
            self._hash_level(level, present)

    def note(self, changes: Mapping[bytes, bytes | None]) -> None:
        """State keys and their new values, None for one that is gone.

        Hashed when the tree is settled: a nonce window changes in every block, and only the last value counts.
        """
        self._noted.update(changes)

    def settle(self, read: Read) -> tuple[bytes, dict[bytes, bytes | None]]:
        """The root after all that was noted, and the records that change with it.

        `read` sees the tree's records as they were; the caller stores the new ones together with the state.
        """
        noted, self._noted = self._noted, {}
        records: dict[int, bytes] = {}
        for key, value in noted.items():
            hashed = sha256(_KEY_PREFIX + key).digest()
            bucket = int.from_bytes(hashed[:3], "big") >> _UNUSED_BITS
            record = records.get(bucket)
            if record is None:
                if not self._is_known[bucket // _WIDTH]:
                    self._learn(read, bucket // _WIDTH)
                record = read(_bucket_key(bucket)) or b""
            records[bucket] = _changed(record, hashed, None if value is None else sha256(value).digest())
        changed = [bucket for bucket in sorted(records) if self._place(bucket, records[bucket])]
        writes: dict[bytes, bytes | None] = {_bucket_key(bucket): records[bucket] or None for bucket in changed}
        for level in range(1, LEVELS + 1):
            changed = [*dict.fromkeys([index // _WIDTH for index in changed])]
            self._hash_level(level, changed)
            if level in STORED:
                writes |= self._rows(level, dict.fromkeys([index // ROW for index in changed]))
        return bytes(self._levels[LEVELS]), writes

    def _place(self, bucket: int, record: bytes) -> bool:
        """Take a bucket's hash; whether it is another than before."""
        hashes, at = self._levels[0], 32 * bucket
        digest = sha256(b"\x00" + record).digest() if record else merkle.EMPTY_ROOT
        if hashes[at : at + 32] == digest:
            return False
        hashes[at : at + 32] = digest
        return True

    def _rows(self, level: int, rows: Iterable[int]) -> dict[bytes, bytes | None]:
        nodes, size, empty = self._levels[level], 32 * ROW, _empty_row(level)
        found = {row: bytes(nodes[size * row : size * row + size]) for row in rows}
        return {_row_key(level, row): None if value == empty else value for row, value in found.items()}

    def learn(self, read: Read) -> None:
        """Read every bucket now rather than when it changes."""
        for parent, is_known in enumerate(self._is_known):
            if not is_known:
                self._learn(read, parent)

    def _learn(self, read: Read, parent: int) -> None:
        """The hashes of a node's buckets, which are not stored."""
        self._is_known[parent] = 1
        if self._levels[1][32 * parent : 32 * parent + 32] == EMPTY[1]:
            self._levels[0][256 * parent : 256 * parent + 256] = EMPTY[0] * _WIDTH
            return
        for bucket in range(_WIDTH * parent, _WIDTH * (parent + 1)):
            self._place(bucket, read(_bucket_key(bucket)) or b"")

    def _hash_level(self, level: int, indexes: Iterable[int]) -> None:
        """Anew from the level below: a node's children stand side by side there."""
        below, own = self._levels[level - 1], self._levels[level]
        for index in indexes:
            at = index << 5
            own[at : at + 32] = sha256(b"\x01" + below[at << 3 : (at + 32) << 3]).digest()


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
    return _node_hash(_row(read, STORED[-1], 0))


def bucket_pairs(read: Read, bucket: int) -> dict[bytes, bytes]:
    """(key hash to value hash) of a bucket."""
    return _as_dict(read(_bucket_key(bucket)) or b"")


def rebuilt_root(read: Read) -> bytes:
    """The root computed from the buckets alone, in which no stored node has a say: for audits."""
    nodes = b"".join([bucket_hash(read(_bucket_key(bucket)) or b"") for bucket in range(BUCKETS)])
    for _ in range(LEVELS):
        nodes = _level_above(nodes)
    return nodes


def prove(read: Read, key: bytes) -> StateProof:
    """The proof of what the stored tree says about a key, present or absent."""
    index = bucket_of(key_hash(key))
    leaves = tuple(
        (Bytes32(pair[:32]), Bytes32(pair[32:])) for pair in _split(read(_bucket_key(index)) or b"", PAIR_BYTES)
    )
    first = index - index % _WIDTH
    nodes = b"".join([bucket_hash(read(_bucket_key(bucket)) or b"") for bucket in range(first, first + _WIDTH)])
    path = _siblings(nodes, index - first)
    for level in STORED:
        row, place = divmod(index // _WIDTH**level, ROW)
        nodes = _row(read, level, row)
        path += _siblings(nodes, place)
        if level != STORED[-1]:
            path += _siblings(_level_above(nodes), place // _WIDTH)
    return StateProof(leaves, tuple(path))


def check_state_proof(proof: StateProof, key: bytes, value: bytes | None, root: bytes) -> None:
    """Whether the state under `root` has `value` at `key`; None claims that it has no such key. Raises ProofError.

    The way up is taken from the key's own hash, so the bucket of another key proves nothing about this one.
    """
    hashed = key_hash(key)
    index = bucket_of(hashed)
    if len(proof.path) != SIBLINGS:
        raise ProofError(f"state proof with a path of {len(proof.path)} hashes instead of {SIBLINGS}")
    # One value has one proof: the order also excludes a key that stands in its bucket twice.
    if any(left[0] >= right[0] for left, right in pairwise(proof.leaves)):
        raise ProofError("the leaves of the state proof are not in strictly ascending order")
    for leaf in proof.leaves:
        if len(leaf[0]) != 32 or len(leaf[1]) != 32 or bucket_of(leaf[0]) != index:
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
    for start in range(0, len(proof.path), _WIDTH - 1):
        siblings, place = proof.path[start : start + _WIDTH - 1], index % _WIDTH
        index //= _WIDTH
        value = _node_hash(b"".join([*siblings[:place], value, *siblings[place:]]))
    return value


def bucket_of(hashed: bytes) -> int:
    """The bucket of a key hash: its first 18 bits."""
    return int.from_bytes(hashed[:3], "big") >> _UNUSED_BITS


def _bucket_key(bucket: int) -> bytes:
    return b"b" + bucket.to_bytes(3, "big")


def _row_key(level: int, row: int) -> bytes:
    return b"n" + bytes([level]) + row.to_bytes(2, "big")


def _row(read: Read, level: int, row: int) -> bytes:
    """The hashes of stored nodes."""
    return read(_row_key(level, row)) or _empty_row(level)


def _empty_row(level: int) -> bytes:
    size: int = min(ROW, BUCKETS // _WIDTH**level)
    return EMPTY[level] * size


def _level_above(nodes: bytes) -> bytes:
    return b"".join([_node_hash(children) for children in _split(nodes, 32 * _WIDTH)])


def _siblings(nodes: bytes, index: int) -> list[Bytes32]:
    """The other children of the parent of a node."""
    first = index - index % _WIDTH
    children = _split(nodes, 32)[first : first + _WIDTH]
    return [Bytes32(node) for place, node in enumerate(children, first) if place != index]


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _as_dict(record: bytes) -> dict[bytes, bytes]:
    return {pair[:32]: pair[32:] for pair in _split(record, PAIR_BYTES)}
