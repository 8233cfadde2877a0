"""F-35, F-36: commitments and the batch tree, against an independent reading of health rule 3.3 and RFC 9162."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pymerkle import InmemoryTree

from p2pledger.health.commitments import (
    FHIR_JSON,
    MEDIA_TYPES,
    RecordLeaf,
    RecordRef,
    check_commitment,
    check_record,
    commit,
    prove_record,
    record_root,
)
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Rejected

SALT = bytes(range(32))
REF = RecordRef(b"b" * 16, 3)


def leaves(n: int) -> list[RecordLeaf]:
    return [
        RecordLeaf(i, hashlib.sha256(b"c%d" % i).digest(), None, hashlib.sha256(b"o%d" % i).digest(), b"a" * 16, 202001,
                   (b"h" * 16,))
        for i in range(n)
    ]  # fmt: skip


def naive_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word by word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def test_a_commitment_is_the_hash_that_the_rule_says() -> None:
    data = b'{"resourceType":"Observation","valueQuantity":{"value":1.50}}'
    expected = hashlib.sha256(b"p2pl/c1" + SALT + b"application/fhir+json" + data).digest()
    assert commit(SALT, FHIR_JSON, data) == expected
    check_commitment(REF, expected, SALT, FHIR_JSON, data)


def test_the_precision_of_a_number_is_committed_to() -> None:
    """1.50 is not 1.5; who re-serialises a resource cannot open its commitment."""
    commitment = commit(SALT, FHIR_JSON, b'{"value":1.50}')
    with pytest.raises(Rejected) as refused:
        check_commitment(REF, commitment, SALT, FHIR_JSON, b'{"value":1.5}')
    assert refused.value.code is Code.E_COMMIT_MISMATCH
    assert str(REF) in refused.value.detail


def test_no_media_type_is_the_beginning_of_another() -> None:
    """Else `type` and `type + first bytes` would open one commitment in two ways."""
    assert not [(a, b) for a in MEDIA_TYPES for b in MEDIA_TYPES if a != b and b.startswith(a)]
    with pytest.raises(InvalidInput, match="media type 'text/html'"):
        commit(SALT, "text/html", b"")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.data())
def test_roots_and_proofs_agree_with_two_oracles(n: int, data: st.DataObject) -> None:
    """The recursive definition of the RFC, and pymerkle."""
    made = leaves(n)
    oracle = InmemoryTree(algorithm="sha256")
    for leaf in made:
        oracle.append_entry(encode(leaf))
    root = record_root(made)
    assert root == naive_root([encode(leaf) for leaf in made]) == oracle.get_root()
    index = data.draw(st.integers(0, n - 1))
    assert check_record(prove_record(made, index), root) == made[index]


def test_a_proof_shows_its_own_record_only() -> None:
    """Another index, month, compartment, commitment or length: with the path left as it is, none leads to the root."""
    made = leaves(7)
    root = record_root(made)
    proof = prove_record(made, 3)
    assert check_record(proof, root).index == 3
    for leaf in (
        replace(proof.leaf, index=2),
        replace(proof.leaf, month=202002),
        replace(proof.leaf, compartments=(b"i" * 16,)),
        replace(proof.leaf, commitment=bytes(32)),
        replace(proof.leaf, author_org=b"z" * 16),
    ):
        with pytest.raises(ProofError):
            check_record(replace(proof, leaf=leaf), root)
    for changed in (replace(proof, size=3), replace(proof, path=proof.path[:-1]), replace(proof, path=())):
        with pytest.raises(ProofError):
            check_record(changed, root)
    with pytest.raises(ProofError, match="not in the batch with root"):
        check_record(proof, bytes(32))
