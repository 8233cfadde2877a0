"""The authenticated state tree: one root for the whole state, proofs that a key is there, or is not.

2^18 buckets by the first 18 bits of the hashed key, and a full tree of six levels above them, eight children a node.
Hashing keys spreads them evenly, so a proof is one bucket and 42 siblings whatever the keys look like, and absence is
shown by a complete bucket without the key. The tree holds no state: its records are kept by whoever keeps the state.

Records: `b"b" ‖ bucket` is the bucket's sorted (key hash ‖ value hash) pairs; `b"n" ‖ level ‖ row` is a row of 64
neighbouring nodes of level 1, 3 or 5, level 0 being the buckets' hashes and level 6 the root. The other levels are
made from these. What is empty has no record: docs/state.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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


_NODE = b"\x01"


def _empty_hashes() -> tuple[bytes, ...]:
    hashes = [merkle.EMPTY_ROOT]
    for _ in range(LEVELS):
        hashes.append(_node_hash(hashes[-1] * _WIDTH))
    return tuple(hashes)


def _node_hash(children: bytes) -> bytes:
    return sha256(_NODE + children).digest()


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
    """All inner nodes, at most 11 MB: what changes together is hashed together.

    Goes with one tree through all its changes.
    """

    def __init__(self, read: Read) -> None:
        """`read` sees the stored tree."""
        self._nodes = [[_NODE + EMPTY[level] * _WIDTH] * (BUCKETS >> 3 * level + 3) for level in range(LEVELS)]
        """By the level of the children: what a node's hash is taken of. No bytes where buckets were not read."""
        self._noted: dict[bytes, bytes | None] = {}
        """What has changed since the tree was settled."""
        if read(_row_key(STORED[-1], 0)) is not None:
            self._take(read)

    def _take(self, read: Read) -> None:
        changed: list[int] = []
        for row in range(BUCKETS // _WIDTH // ROW):
            nodes = read(_row_key(1, row))
            if nodes is not None:
                changed += self._put(1, enumerate(_split(nodes, 32), ROW * row))
        for index in changed:
            self._nodes[0][index] = b""
        for _ in self._rise(2, changed):
            pass

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
        parents = self._nodes[0]
        records: dict[int, bytes] = {}
        for key, value in noted.items():
            hashed = sha256(_KEY_PREFIX + key).digest()
            bucket = int.from_bytes(hashed[:3], "big") >> _UNUSED_BITS
            record = records.get(bucket)
            if record is None:
                if not parents[bucket >> 3]:
                    self._learn(read, bucket >> 3)
                record = read(b"b" + bucket.to_bytes(3, "big")) or b""
            records[bucket] = _changed(record, hashed, None if value is None else sha256(value).digest())
        changed = self._put(0, [(bucket, bucket_hash(records[bucket])) for bucket in sorted(records)])
        writes: dict[bytes, bytes | None] = {_bucket_key(bucket): records[bucket] or None for bucket in changed}
        for level, nodes in enumerate(self._rise(1, changed), 1):
            if level in STORED:
                rows = dict.fromkeys([index // ROW for index in nodes])
                writes.update((_row_key(level, row), self._row(level, row)) for row in rows)
        return sha256(self._nodes[-1][0]).digest(), writes

    def _put(self, level: int, hashes: Iterable[tuple[int, bytes]]) -> list[int]:
        """Take hashes of buckets or nodes into their parents; those that are other than before."""
        parents = self._nodes[level]
        changed = []
        for index, digest in hashes:
            parent, start = index >> 3, ((index & 7) << 5) + 1
            node, end = parents[parent], start + 32
            if node[start:end] != digest:
                parents[parent] = node[:start] + digest + node[end:]
                changed.append(index)
        return changed

    def _rise(self, level: int, changed: list[int]) -> Iterator[list[int]]:
        """Hash what lies above changed buckets or nodes; by level from `level` on, the nodes that change."""
        for nodes in range(level, LEVELS):
            own = self._nodes[nodes - 1]
            above = dict.fromkeys([index >> 3 for index in changed])
            changed = self._put(nodes, [(index, sha256(own[index]).digest()) for index in above])
            yield changed

    def _row(self, level: int, row: int) -> bytes | None:
        parents = ROW // _WIDTH
        nodes = b"".join([node[1:] for node in self._nodes[level][parents * row : parents * row + parents]])
        return None if nodes == _empty_row(level) else nodes

    def learn(self, read: Read) -> None:
        """Read every bucket now rather than when it changes."""
        for parent, node in enumerate(self._nodes[0]):
            if not node:
                self._learn(read, parent)

    def _learn(self, read: Read, parent: int) -> None:
        """The hashes of a node's buckets, which are not stored."""
        buckets = range(_WIDTH * parent, _WIDTH * (parent + 1))
        self._nodes[0][parent] = b"".join(
            [_NODE, *(bucket_hash(read(_bucket_key(bucket)) or b"") for bucket in buckets)]
        )


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
