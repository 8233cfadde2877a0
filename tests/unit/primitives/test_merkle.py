"""Merkle trees against RFC 9162 written down naively, and against pymerkle."""

from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.primitives import merkle
from p2pledger.primitives.errors import ProofError

ENTRIES = st.lists(st.binary(max_size=40), min_size=1, max_size=70)


def naive_root(entries: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, as it is written: split at the largest power of two below n."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return sha256(b"\x01" + naive_root(entries[:split]) + naive_root(entries[split:])).digest()


def naive_path(entries: list[bytes], index: int) -> list[bytes]:
    """RFC 9162 2.1.3.1."""
    if len(entries) == 1:
        return []
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if index < split:
        return [*naive_path(entries[:split], index), naive_root(entries[split:])]
    return [*naive_path(entries[split:], index - split), naive_root(entries[:split])]


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_roots_are_those_of_the_rfc(entries: list[bytes]) -> None:
    assert merkle.root(entries) == naive_root(entries)


@given(ENTRIES)
def test_roots_are_those_of_pymerkle(entries: list[bytes]) -> None:
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in entries:
        other.append_entry(entry)
    assert merkle.root(entries) == other.get_root()


@given(ENTRIES, st.data())
def test_paths_are_those_of_the_rfc_and_lead_to_the_root(entries: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    path = merkle.inclusion_path(leaves, index)
    assert list(path) == naive_path(entries, index)
    assert merkle.root_from_path(leaves[index], index, len(entries), path) == merkle.root(entries)


@given(ENTRIES, st.data())
def test_no_other_leaf_place_or_path_leads_to_the_root(entries: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    path = list(merkle.inclusion_path(leaves, index))
    root = merkle.root(entries)
    assert merkle.root_from_path(merkle.leaf_hash(entries[index] + b"!"), index, len(entries), path) != root
    for wrong in ([*path, bytes(32)], path[:-1]):
        if len(wrong) != len(path):
            with pytest.raises(ProofError):
                merkle.root_from_path(leaves[index], index, len(entries), wrong)
    if path:
        bent = [bytes(32), *path[1:]]
        assert merkle.root_from_path(leaves[index], index, len(entries), bent) != root


def test_a_leaf_cannot_stand_for_an_inner_node() -> None:
    """Second preimages: without the different first bytes, two leaves' hashes would be a leaf of the same root."""
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.root([b"a", b"b"]) != merkle.root([left + right])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_a_place_outside_the_tree_is_refused(index: int) -> None:
    with pytest.raises(ProofError, match="outside a tree of 3"):
        merkle.root_from_path(bytes(32), index, 3, ())
