"""The authenticated tree against one that is built from scratch each time, and proofs against those who bend them."""

from collections.abc import Mapping
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger.primitives import merkle
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.state.tree import (
    EMPTY,
    Nodes,
    StateProof,
    bucket_of,
    check_state_proof,
    key_hash,
    proof_root,
    prove,
    root,
    update,
)

KEYS = st.binary(min_size=1, max_size=2)
STATES = st.dictionaries(KEYS, st.binary(max_size=3), max_size=20)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=20)


def naive_root(state: Mapping[bytes, bytes]) -> bytes:
    """From the definition and hashlib alone: every bucket hash, then level by level."""
    tag = b"p2pl/state-key/1"
    buckets: dict[int, list[bytes]] = {}
    for key, value in state.items():
        hashed = sha256(bytes([len(tag)]) + tag + key).digest()
        pair = hashed + sha256(value).digest()
        buckets.setdefault(int.from_bytes(hashed, "big") >> 238, []).append(pair)

    def bucket(pairs: list[bytes]) -> bytes:
        return sha256(b"\0" + b"".join(sorted(pairs))).digest() if pairs else sha256(b"").digest()

    def node(level: int, index: int) -> bytes:
        if not any(number >> 3 * level == index for number in buckets):
            return _naive_empty(level)
        if level == 0:
            return bucket(buckets[index])
        return sha256(b"\1" + b"".join(node(level - 1, 8 * index + child) for child in range(8))).digest()

    return node(6, 0)


def _naive_empty(level: int) -> bytes:
    value = sha256(b"").digest()
    for _ in range(level):
        value = sha256(b"\1" + 8 * value).digest()
    return value


class Tree:
    """A tree in a dict."""

    def __init__(self, state: Mapping[bytes, bytes] | None = None) -> None:
        self.records: dict[bytes, bytes] = {}
        self.change(state or {})

    def change(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        new_root, writes = update(self.records.get, changes)
        self.store(writes)
        assert root(self.records.get) == new_root
        return new_root

    def store(self, writes: Mapping[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value

    @property
    def root(self) -> bytes:
        return root(self.records.get)

    def prove(self, key: bytes) -> StateProof:
        return prove(self.records.get, key)


def keys_of_one_bucket(count: int) -> list[bytes]:
    """Keys whose hashes share 18 bits, found by trying: what an attacker can do as well."""
    buckets: dict[int, list[bytes]] = {}
    number = 0
    while True:
        key = b"%d" % number
        bucket = buckets.setdefault(bucket_of(key_hash(key)), [])
        bucket.append(key)
        if len(bucket) == count:
            return bucket
        number += 1


NEIGHBOURS = keys_of_one_bucket(4)
FULL = {key: b"v" + key for key in NEIGHBOURS[:3]} | {b"other": b"1", b"more": b"2"}


def test_the_empty_tree_has_a_fixed_root_and_no_records() -> None:
    """What is empty is not stored."""
    assert Tree().root == EMPTY[6] == _naive_empty(6)
    assert Tree().records == {}


@settings(max_examples=60, deadline=None)
@given(STATES, st.lists(CHANGES, max_size=4))
def test_the_root_is_that_of_a_tree_built_from_scratch(
    state: dict[bytes, bytes], history: list[dict[bytes, bytes | None]]
) -> None:
    """The way to a state leaves no trace, neither in the root nor in the records."""
    tree = Tree(state)
    now = dict(state)
    for changes in history:
        tree.change(changes)
        now.update({key: value for key, value in changes.items() if value is not None})
        now = {key: value for key, value in now.items() if changes.get(key, value) is not None}
        assert tree.root == naive_root(now)
    assert tree.records == Tree(now).records


def test_neighbours_in_one_bucket() -> None:
    """Added, changed and removed one by one."""
    tree, now = Tree(), dict[bytes, bytes]()
    steps: list[tuple[bytes, bytes | None]] = [(key, b"1") for key in NEIGHBOURS]
    steps += [(NEIGHBOURS[2], b"2"), *((key, None) for key in NEIGHBOURS)]
    for key, value in steps:
        if value is None:
            now.pop(key)
        else:
            now[key] = value
        assert tree.change({key: value}) == naive_root(now)
    assert tree.records == {}


def test_only_what_changes_is_written() -> None:
    """One changed key: its bucket and its row of nodes of each stored level; nothing for no change."""
    tree = Tree({b"%d" % number: b"1" for number in range(500)})
    _, writes = update(tree.records.get, {b"7": b"2"})
    assert len(writes) == 4
    assert update(tree.records.get, {b"7": b"1", b"absent": None}) == (tree.root, {})


@settings(deadline=None, max_examples=30)
@given(st.lists(CHANGES, max_size=4), st.integers(0, 3))
def test_nodes_that_go_along_agree_with_nodes_that_are_read_again(
    changes: list[dict[bytes, bytes | None]], at: int
) -> None:
    """A node that restarts in between has the same root and the same records as one that never stopped."""
    tree = Tree({b"%d" % number: b"1" for number in range(50)})
    nodes = Nodes(tree.records.get)
    for number, change in enumerate(changes):
        if number == at:
            nodes = Nodes(tree.records.get)
        nodes.note(change)
        assert nodes.settle(tree.records.get) == update(tree.records.get, change)
        tree.change(change)


@settings(deadline=None, max_examples=30)
@given(STATES, st.lists(CHANGES, max_size=4))
def test_changes_that_are_noted_one_after_the_other_count_once(
    state: dict[bytes, bytes], changes: list[dict[bytes, bytes | None]]
) -> None:
    """The blocks of an interval lead to the tree of the state after them, whatever a key was in between."""
    tree = Tree(state)
    nodes = Nodes(tree.records.get)
    together: dict[bytes, bytes | None] = {}
    for change in changes:
        nodes.note(change)
        together.update(change)
    assert nodes.settle(tree.records.get) == update(tree.records.get, together)


@settings(max_examples=60, deadline=None)
@given(STATES, KEYS)
def test_every_key_can_be_proved_present_or_absent(state: dict[bytes, bytes], key: bytes) -> None:
    """Completeness, and no proof shows anything else."""
    tree = Tree(state)
    proof = tree.prove(key)
    assert decode(StateProof, encode(proof), 100_000) == proof
    check_state_proof(proof, key, state.get(key), tree.root)
    for lie in (None, b"", b"a lie"):
        if lie != state.get(key):
            with pytest.raises(ProofError, match="shows that the key"):
                check_state_proof(proof, key, lie, tree.root)


def test_a_key_without_neighbours_is_proved_absent_by_an_empty_bucket() -> None:
    """Absence is a bucket without the key, empty or not."""
    tree = Tree(FULL)
    assert tree.prove(b"nobody").leaves == ()
    check_state_proof(tree.prove(b"nobody"), b"nobody", None, tree.root)
    assert len(tree.prove(NEIGHBOURS[3]).leaves) == 3
    check_state_proof(tree.prove(NEIGHBOURS[3]), NEIGHBOURS[3], None, tree.root)


def test_another_root_refuses_the_proof() -> None:
    """A proof belongs to one state."""
    tree = Tree(FULL)
    proof = tree.prove(b"other")
    after = tree.change({b"unrelated": b"1"})
    with pytest.raises(ProofError, match="does not lead to root"):
        check_state_proof(proof, b"other", b"1", after)


def test_an_absent_key_is_not_proved_by_the_bucket_of_another() -> None:
    """The attack: show an honest empty bucket from elsewhere. The path itself leads to the root; the key does not."""
    tree = Tree(FULL)
    elsewhere = tree.prove(b"nobody")
    assert proof_root(elsewhere, bucket_of(key_hash(b"nobody"))) == tree.root
    with pytest.raises(ProofError, match="does not lead to root"):
        check_state_proof(elsewhere, b"other", None, tree.root)
    occupied = tree.prove(NEIGHBOURS[0])
    with pytest.raises(ProofError, match="does not belong into bucket"):
        check_state_proof(occupied, b"other", None, tree.root)


def test_leaves_cannot_be_left_out_or_added() -> None:
    """The bucket's hash covers all of them, so a key cannot be hidden by dropping its leaf."""
    tree = Tree(FULL)
    proof = tree.prove(NEIGHBOURS[0])
    hashed = key_hash(NEIGHBOURS[0])
    hidden = StateProof(tuple(leaf for leaf in proof.leaves if leaf[0] != hashed), proof.path)
    with pytest.raises(ProofError, match="does not lead to root"):
        check_state_proof(hidden, NEIGHBOURS[0], None, tree.root)
    added = tuple(sorted([*proof.leaves, (key_hash(NEIGHBOURS[3]), sha256(b"x").digest())]))
    with pytest.raises(ProofError, match="does not lead to root"):
        check_state_proof(StateProof(added, proof.path), NEIGHBOURS[3], b"x", tree.root)


def test_one_bucket_has_one_order() -> None:
    """The attack: a bucket that was hashed in another order, or with a key twice, so that both values can be shown.

    The root of such a bucket is easily made; what refuses it is the order.
    """
    proof = Tree(FULL).prove(NEIGHBOURS[0])
    index = bucket_of(key_hash(NEIGHBOURS[0]))
    first = proof.leaves[0]
    twice = (first, (first[0], sha256(b"second value").digest()), *proof.leaves[1:])
    for leaves in (proof.leaves[::-1], twice):
        bent = StateProof(leaves, proof.path)
        with pytest.raises(ProofError, match="not in strictly ascending order"):
            check_state_proof(bent, NEIGHBOURS[0], FULL[NEIGHBOURS[0]], proof_root(bent, index))


@pytest.mark.parametrize("length", [0, 35, 41, 43])
def test_a_path_has_42_siblings(length: int) -> None:
    """The attack: stop early and offer an inner node as root, or begin below a bucket.

    The computed root fits by construction; what refuses it is the length, and on the wire the type already does.
    """
    proof = Tree(FULL).prove(b"other")
    bent = StateProof(proof.leaves, (*proof.path, bytes(32))[:length])
    index = bucket_of(key_hash(b"other"))
    with pytest.raises(ProofError, match=f"path of {length} hashes"):
        check_state_proof(bent, b"other", b"1", proof_root(bent, index))
    with pytest.raises(InvalidInput):
        decode(StateProof, encode(bent), 100_000)


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    """Two bucket leaves hash to the same bytes as no single leaf: leaves and nodes are hashed apart."""
    tree = Tree(dict.fromkeys(NEIGHBOURS[:2], b"v"))
    proof = tree.prove(NEIGHBOURS[0])
    left, right = (merkle.leaf_hash(hashed + digest) for hashed, digest in proof.leaves)
    bent = StateProof(((left, right),), proof.path)
    index = bucket_of(key_hash(NEIGHBOURS[0]))
    assert proof_root(proof, index) == tree.root
    assert proof_root(bent, index) != tree.root
    with pytest.raises(ProofError):
        check_state_proof(bent, NEIGHBOURS[0], None, tree.root)


@settings(max_examples=40, deadline=None)
@given(STATES.filter(bool), st.data())
def test_no_flipped_bit_of_a_proof_goes_unnoticed(state: dict[bytes, bytes], data: st.DataObject) -> None:
    """Whatever bit, the proof of a key is then a proof of nothing."""
    tree = Tree(state)
    key = data.draw(st.sampled_from(sorted(state)))
    proof = tree.prove(key)
    spot = data.draw(st.integers(0, len(proof.path) + 2 * len(proof.leaves) - 1))
    hashes = [*proof.path, *(part for leaf in proof.leaves for part in leaf)]
    bit = data.draw(st.integers(0, 255))
    hashes[spot] = (int.from_bytes(hashes[spot], "big") ^ 1 << bit).to_bytes(32, "big")
    rest = hashes[42:]
    bent = StateProof(tuple(zip(rest[::2], rest[1::2], strict=True)), tuple(hashes[:42]))
    with pytest.raises(ProofError):
        check_state_proof(bent, key, state[key], tree.root)


@settings(max_examples=60, deadline=None)
@given(STATES, st.lists(CHANGES, max_size=5), st.sets(st.integers(0, 4)))
def test_checkpoints_leave_no_trace(
    state: dict[bytes, bytes], blocks: list[dict[bytes, bytes | None]], settled: set[int]
) -> None:
    """However blocks are gathered into checkpoints, the tree after the last one is the tree of the state."""
    tree, now = Tree(), dict[bytes, bytes | None](state)
    nodes = Nodes(tree.records.get)
    nodes.note(state)
    for number, changes in enumerate(blocks):
        nodes.note(changes)
        now.update(changes)
        if number in settled:
            tree.store(nodes.settle(tree.records.get)[1])
    found, writes = nodes.settle(tree.records.get)
    tree.store(writes)
    left = {key: value for key, value in now.items() if value is not None}
    assert found == tree.root == naive_root(left)
    assert tree.records == Tree(left).records
