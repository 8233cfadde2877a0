"""Encryption for one reader: X25519 sealed boxes around keys, and one of two ciphers around content (health rule 3.3).

XChaCha20-Poly1305 unless a custodian must use approved algorithms: then AES-256-GCM, whose nonces are short. Under one
key only a few things may be sealed with it, and each record has a key of its own.
"""

import secrets
from enum import IntEnum
from typing import assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from p2pledger.primitives.errors import InvalidInput

KEY_BYTES = 32


class Algorithm(IntEnum):
    """What content is encrypted with; the number stands before the ciphertext."""

    XCHACHA20_POLY1305 = 1
    AES_256_GCM = 2


_NONCE_BYTES = {Algorithm.XCHACHA20_POLY1305: 24, Algorithm.AES_256_GCM: 12}


class BoxKey:
    """An X25519 key pair; its text form never shows the secret."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32, "an X25519 secret has 32 bytes"
        self._secret = seed
        self.public: bytes = crypto_scalarmult_base(seed)

    def __repr__(self) -> str:
        return f"BoxKey(public={self.public.hex()})"

    def open(self, sealed: bytes) -> bytes:
        """What was sealed to this key; raises InvalidInput where it was sealed to another or changed since."""
        try:
            opened: bytes = crypto_box_seal_open(sealed, self.public, self._secret)
        except (CryptoError, ValueError, TypeError) as error:
            raise InvalidInput(f"{len(sealed)} bytes are not sealed to key {self.public.hex()}") from error
        return opened


def seal_to(public: bytes, data: bytes) -> bytes:
    """`data` for the owner of an X25519 key alone; raises InvalidInput for bytes that cannot be a key."""
    try:
        sealed: bytes = crypto_box_seal(data, public)
    except (CryptoError, ValueError, TypeError) as error:
        raise InvalidInput(f"{public.hex()} is not an X25519 key to seal to") from error
    return sealed


def new_key() -> bytes:
    """A random content key."""
    return secrets.token_bytes(KEY_BYTES)


def encrypt(
    key: bytes, data: bytes, context: bytes, algorithm: Algorithm = Algorithm.XCHACHA20_POLY1305
) -> tuple[bytes, bytes]:
    """(nonce, ciphertext) of `data`, bound to `context`. A key for AES-256-GCM seals few things."""
    nonce = secrets.token_bytes(_NONCE_BYTES[algorithm])
    match algorithm:
        case Algorithm.XCHACHA20_POLY1305:
            return nonce, crypto_aead_xchacha20poly1305_ietf_encrypt(data, context, nonce, key)
        case Algorithm.AES_256_GCM:
            return nonce, AESGCM(key).encrypt(nonce, data, context)
    assert_never(algorithm)


def decrypt(
    key: bytes,
    nonce: bytes,
    ciphertext: bytes,
    context: bytes,
    algorithm: Algorithm = Algorithm.XCHACHA20_POLY1305,
) -> bytes:
    """The data; raises InvalidInput where key, nonce, context, algorithm or a byte is another."""
    if len(nonce) != _NONCE_BYTES[algorithm]:
        raise InvalidInput(f"a nonce of {len(nonce)} bytes; {algorithm.name} has {_NONCE_BYTES[algorithm]}")
    try:
        match algorithm:
            case Algorithm.XCHACHA20_POLY1305:
                opened: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, context, nonce, key)
                return opened
            case Algorithm.AES_256_GCM:
                return AESGCM(key).decrypt(nonce, ciphertext, context)
    except (CryptoError, InvalidTag, ValueError, TypeError) as error:
        raise InvalidInput(f"{len(ciphertext)} encrypted bytes do not open with this key and context") from error
    assert_never(algorithm)
