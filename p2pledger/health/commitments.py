"""Salted commitments to records, and the tree whose root a RecordBatch puts on the chain (health rule 3.3).

Pure. The salt makes a commitment say nothing about a small, guessable resource; who holds salt and bytes can show
to everybody that exactly these bytes were committed to.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

from msgspec import Meta

from p2pledger.health.vocabulary import Month
from p2pledger.primitives import merkle
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Rejected
from p2pledger.primitives.ids import U64, Bytes16, Bytes32

SALT_BYTES = 32
AUTHORS_MAX = 16
"""Of one record."""
FHIR_JSON = "application/fhir+json"
MEDIA_TYPES = (
    FHIR_JSON,
    "application/dicom",
    "application/json",
    "application/octet-stream",
    "application/pdf",
    "image/jpeg",
    "image/png",
    "text/plain",
)
"""None is the beginning of another: so no two pairs of type and bytes hash the same input."""


class RecordRef(Record, frozen=True):
    """The name of a record."""

    batch_id: Bytes16
    index: U64

    def __str__(self) -> str:
        return f"{self.batch_id.hex()}/{self.index}"


class RecordLeaf(Record, frozen=True):
    """What the batch's tree says about one record."""

    index: U64
    commitment: Bytes32
    capsule: Bytes32 | None
    """Hash of the key capsule; None where the key is sealed to custodian and patient only."""
    ciphertext: Bytes32
    """SHA-256 of the sealed object in the vault."""
    author_org: Bytes16
    month: Month
    compartments: Annotated[tuple[Bytes16, ...], Meta(min_length=1, max_length=16)]
    """Ascending."""
    resource_class: Bytes16 | None = None
    """The handle of its class; None: the custodian does not say, and no request that is limited to classes has it."""
    labels: Annotated[tuple[Bytes16, ...], Meta(max_length=16)] = ()
    """The handles of its sensitive labels, ascending."""
    authors: Annotated[tuple[Bytes16, ...], Meta(max_length=AUTHORS_MAX)] = ()
    """The handles of all its authors, ascending; of one without, the organisation that it comes from."""
    encounter: Bytes16 | None = None
    """The handle of the encounter in which it came about."""


class RecordProof(Record, frozen=True):
    """That a leaf is in the tree of a batch."""

    leaf: RecordLeaf
    size: U64
    path: tuple[Bytes32, ...]


def commit(salt: bytes, media_type: str, data: bytes) -> bytes:
    """SHA-256("p2pl/c1" ‖ salt ‖ media type ‖ exact bytes); raises InvalidInput for a type that is not listed."""
    assert len(salt) == SALT_BYTES, f"a salt of {len(salt)} bytes"
    if media_type not in MEDIA_TYPES:
        raise InvalidInput(f"media type {media_type!r} is none of {', '.join(MEDIA_TYPES)}")
    return sha256(Domain.RECORD_COMMITMENT.value + salt + media_type.encode() + data).digest()


def check_commitment(ref: RecordRef, commitment: bytes, salt: bytes, media_type: str, data: bytes) -> None:
    """Raises Rejected(E_COMMIT_MISMATCH) naming the record unless it was these bytes that were committed to."""
    if commit(salt, media_type, data) != commitment:
        raise Rejected(
            Code.E_COMMIT_MISMATCH, f"record {ref}: {len(data)} bytes are not those of commitment {commitment.hex()}"
        )


def scope_commit(salt: bytes, records: Sequence[RecordRef]) -> bytes:
    """The commitment to a list of records, whatever their order (health rule 3.5.2)."""
    assert len(salt) == SALT_BYTES, f"a salt of {len(salt)} bytes"
    return sha256(salt + encode(tuple(sorted((ref.batch_id, ref.index) for ref in records)))).digest()


def record_root(leaves: Sequence[RecordLeaf]) -> bytes:
    """The RFC 9162 root over the leaves in order."""
    return merkle.root([encode(leaf) for leaf in leaves])


def prove_record(leaves: Sequence[RecordLeaf], index: int) -> RecordProof:
    """The inclusion proof of one record."""
    hashes = [merkle.leaf_hash(encode(leaf)) for leaf in leaves]
    return RecordProof(leaves[index], len(leaves), merkle.inclusion_path(hashes, index))


def check_record(proof: RecordProof, root: bytes) -> RecordLeaf:
    """The leaf, now known to be in the batch with this root; raises ProofError."""
    leaf = proof.leaf
    found = merkle.root_from_path(merkle.leaf_hash(encode(leaf)), leaf.index, proof.size, proof.path)
    if found != root:
        raise ProofError(f"record {leaf.index} is not in the batch with root {root.hex()}")
    return leaf
