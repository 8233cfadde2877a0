"""Shares, capsules and seals, worked out anew for the observer from docs/threshold.md; see reader.py.

Secrets are Python integers here: nobody measures how long an observer takes.
"""

from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_core_ed25519_add,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import CryptoError

from p2pledger.sim.observer.encoding import Unreadable, array, pack, sized, unpack

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group that B generates."""
Label = tuple[str, bytes, bytes, bytes, bytes, int, int]
"""(purpose, chain, custodian, pid, batch, index, key epoch)."""


def _wide(purpose: bytes, data: bytes, key: bytes) -> bytes:
    """BLAKE2b-512 with a purpose."""
    return blake2b(bytes([len(purpose)]) + purpose + data, digest_size=64, key=key).digest()


def _decrypt(key: bytes, data: bytes, context: bytes) -> bytes | None:
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(data, context, bytes(24), key))
    except (CryptoError, ValueError, TypeError):
        return None


def unseal(secret: bytes, sealed: bytes, context: bytes) -> bytes | None:
    """What was sealed to the X25519 key with this secret in this context, or None."""
    public, ephemeral = crypto_scalarmult_base(secret), sealed[:32]
    try:
        shared = crypto_scalarmult(secret, ephemeral)
    except (CryptoError, ValueError, TypeError):
        return None
    return _decrypt(_wide(b"p2pl/sealed/1", ephemeral + public + context, shared)[:32], sealed[32:], b"")


def share_context(label: Label, capsule: bytes, access: tuple[bytes, bytes], index: int, share_epoch: int) -> bytes:
    """What holder `index` binds its share to; `access` is (access id, the reader's key)."""
    return pack((label, sha256(capsule).digest(), access, index, share_epoch))


def image_in(share: bytes) -> bytes:
    """D_j of an unsealed share; raises Unreadable."""
    image, proof = array(unpack(share), 2)
    array(proof, 2)
    return sized(image)


def parts_of(capsule: bytes) -> tuple[Any, ...]:
    """(U, Ū, e, z, wrapped); raises Unreadable."""
    return array(unpack(capsule), 5)


def times(scalar: int, point: bytes) -> bytes:
    """scalar · point."""
    return bytes(crypto_scalarmult_ed25519_noclamp((scalar % ORDER).to_bytes(32, "little"), point))


def plus(point: bytes, other: bytes) -> bytes:
    """point + other."""
    return bytes(crypto_core_ed25519_add(point, other))


def base_times(scalar: int) -> bytes:
    """scalar · B."""
    return bytes(crypto_scalarmult_ed25519_base_noclamp((scalar % ORDER).to_bytes(32, "little")))


def coefficients(indices: tuple[int, ...]) -> dict[int, int]:
    """Lagrange's λ_i at 0."""
    found = {}
    for index in indices:
        top = bottom = 1
        for other in indices:
            if other != index:
                top, bottom = top * other % ORDER, bottom * (other - index) % ORDER
        found[index] = top * pow(bottom, -1, ORDER) % ORDER
    return found


def interpolated(shares: Mapping[int, bytes]) -> int:
    """p(0), if these are shares of p and enough of them."""
    weights = coefficients(tuple(shares))
    return sum(weights[index] * int.from_bytes(share, "little") for index, share in shares.items()) % ORDER


def combined(images: Mapping[int, bytes]) -> bytes:
    """Σ λ_j · D_j."""
    weights = coefficients(tuple(images))
    first, *rest = (times(weights[index], image) for index, image in images.items())
    for point in rest:
        first = plus(first, point)
    return first


def content_of(capsule: bytes, label: Label, secret: bytes) -> bytes | None:
    """The content key that x·U opens, or None."""
    try:
        wrapped = parts_of(capsule)[4]
    except Unreadable:
        return None
    return unwrapped(secret, label, wrapped, pack(label))


def unwrapped(secret: bytes, label: Label, wrapped: bytes, context: bytes) -> bytes | None:
    """The content key that a secret opens in its context, or None."""
    return _decrypt(_wide(b"p2pl/capsule-key/1", pack(label), secret)[:32], wrapped, context)
