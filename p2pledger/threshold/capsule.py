"""The key capsule of one record: opened by x·U alone, good for its label alone.

This is TDH2 (Shoup and Gennaro 1998) as a key encapsulation:

1. The writer chooses r; U = r·B, Ū = r·B̄ (B̄: the second generator), S = r·X with X the joint key.
2. K = H(S, label); wrapped = AEAD(K, content key, label).
3. e = H(label, wrapped, U, Ū, w·B, w·B̄) and z = w + e·r with a secret nonce w. The capsule is (U, Ū, e, z, wrapped).
4. Everybody checks e = H(label, wrapped, U, Ū, z·B − e·U, z·B̄ − e·Ū): the writer knew r, for this label and content.
5. S = x·U opens it.

Without 4 a reader could put a foreign U into a record of its own and have it opened there: S says nothing about labels.
CALYPSO binds its write transactions to their policies for the same reason (Kokoris-Kogias et al. 2021).
"""

from typing import Annotated, Literal

from msgspec import Meta

from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, wide_hash
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import U64, Bytes16, Bytes32, ChainId
from p2pledger.threshold.group import (
    SECOND_GENERATOR,
    Point,
    Random,
    Scalar,
    add,
    as_point_times,
    as_scalar,
    base_times,
    challenge,
    minus,
    multiply,
    random_scalar,
    secret_nonce,
    times,
)
from p2pledger.threshold.sealing import decrypt_once, encrypt_once

CONTENT_KEY_BYTES = 32
WRAPPED_BYTES = CONTENT_KEY_BYTES + 16
CAPSULE_BYTES_MAX = 200


class Label(Record, frozen=True):
    """What a capsule is for. Whoever releases a share has seen that the record on the chain has this very label."""

    purpose: Literal["record", "recovery"]
    """`recovery`: a patient's root key; batch and index are zero."""
    chain: ChainId
    custodian: Bytes16
    pid: Bytes16
    batch_id: Bytes16
    index: U64
    key_epoch: U64
    """Of the joint key that it is sealed to, from 1; a refresh of its shares changes nothing here. 0: none, one-time
    secrets.
    """


class Capsule(Record, frozen=True):
    """A content key that the holders of shares can open together."""

    u: Bytes32
    u_bar: Bytes32
    e: Bytes32
    z: Bytes32
    wrapped: Annotated[bytes, Meta(min_length=WRAPPED_BYTES, max_length=WRAPPED_BYTES)]


def seal_capsule(content_key: bytes, label: Label, joint_key: Point, random: Random) -> bytes:
    """The capsule's bytes, which everybody can check against the label and nobody can change or move."""
    assert len(content_key) == CONTENT_KEY_BYTES, f"a content key of {len(content_key)} bytes"
    r = random_scalar(random)
    u, u_bar = base_times(r), times(r, SECOND_GENERATOR)
    wrapped = encrypt_once(_key(times(r, joint_key), label), content_key, encode(label))
    w = secret_nonce(r, encode((label, u, wrapped)), random)
    e = _challenge(label, wrapped, u, u_bar, base_times(w), times(w, SECOND_GENERATOR))
    return encode(Capsule(u, u_bar, e, add(w, multiply(e, r)), wrapped))


def check_capsule(data: bytes, label: Label) -> Point:
    """Its U, now known to be made for this label by somebody who knew what it seals.

    Raises InvalidInput for bytes that are no capsule, ProofError for a capsule of another label or a changed one.
    """
    capsule = decode(Capsule, data, CAPSULE_BYTES_MAX)
    e, z = as_scalar(capsule.e), as_scalar(capsule.z)
    (u, e_u), (u_bar, e_u_bar) = as_point_times(capsule.u, e), as_point_times(capsule.u_bar, e)
    first, second = minus(base_times(z), e_u), minus(times(z, SECOND_GENERATOR), e_u_bar)
    if _challenge(label, capsule.wrapped, u, u_bar, first, second) != e:
        raise ProofError(f"the capsule was not made for record {label.batch_id.hex()}/{label.index} of this label")
    return u


def open_capsule(data: bytes, label: Label, secret: Point) -> bytes:
    """The content key, with `secret` = x·U. Raises InvalidInput where secret, label or a byte is another."""
    return decrypt_once(_key(secret, label), decode(Capsule, data, CAPSULE_BYTES_MAX).wrapped, encode(label))


def _key(secret: Point, label: Label) -> bytes:
    return wide_hash(Domain.CAPSULE_KEY, encode(label), key=secret)[:32]


def _challenge(label: Label, wrapped: bytes, u: Point, u_bar: Point, first: Point, second: Point) -> Scalar:
    return challenge(Domain.CAPSULE_PROOF, encode((label, wrapped, u, u_bar, first, second)))
