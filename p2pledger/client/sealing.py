"""Encryption for one reader: X25519 sealed boxes around keys, XChaCha20-Poly1305 around content (health rule 3.3)."""

import secrets

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
NONCE_BYTES = 24


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


def encrypt(key: bytes, data: bytes, context: bytes) -> tuple[bytes, bytes]:
    """(nonce, ciphertext) of `data`, bound to `context`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce, crypto_aead_xchacha20poly1305_ietf_encrypt(data, context, nonce, key)


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, context: bytes) -> bytes:
    """The data; raises InvalidInput where key, nonce, context or a byte is another."""
    try:
        data: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, context, nonce, key)
    except (CryptoError, ValueError, TypeError) as error:
        raise InvalidInput(f"{len(ciphertext)} encrypted bytes do not open with this key and context") from error
    return data
