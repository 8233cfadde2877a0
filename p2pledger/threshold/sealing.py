"""Sealing to an X25519 key for one purpose: what is opened in another place than it was sealed for does not open.

1. An ephemeral pair (e, E) is made; S = X25519(e, reader).
2. key = BLAKE2b(E ‖ reader ‖ context, keyed by S), 32 bytes.
3. sealed = E ‖ XChaCha20-Poly1305(key, nonce 0, data): each key is used once. 48 bytes more than the data.

libsodium's sealed box is the same without the context, and takes its randomness from the system; here the caller
gives it.
"""

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError

from p2pledger.primitives.crypto import Domain, wide_hash
from p2pledger.primitives.errors import InvalidInput
from p2pledger.threshold.group import Random

SEALING_BYTES = 48
_NONCE = bytes(24)
_FIELD = 2**255 - 19
_ANY_SECRET = b"\x01" * 32


class BoxSecret:
    """An X25519 key pair; its text form never shows the secret."""

    __slots__ = ("_secret", "public")

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == 32, "an X25519 secret has 32 bytes"
        self._secret = secret
        self.public: bytes = crypto_scalarmult_base(secret)

    def __repr__(self) -> str:
        return f"BoxSecret(public={self.public.hex()})"

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed to this key in this context; raises InvalidInput for everything else."""
        if len(sealed) < SEALING_BYTES:
            raise InvalidInput(f"{len(sealed)} bytes are too short to be sealed; at least {SEALING_BYTES} are needed")
        ephemeral = sealed[:32]
        key = _key(self._secret, ephemeral, ephemeral, self.public, context)
        return decrypt_once(key, sealed[32:], b"")


def seal(reader: bytes, data: bytes, context: bytes, random: Random) -> bytes:
    """`data` for the owner of the X25519 key `reader`; raises InvalidInput for bytes that cannot be such a key."""
    secret = random(32)
    ephemeral: bytes = crypto_scalarmult_base(secret)
    return ephemeral + encrypt_once(_key(secret, reader, ephemeral, reader, context), data, b"")


def is_box_key(public: bytes) -> bool:
    """Whether something can be sealed to it: not one of the few points whose product is always the same."""
    try:
        crypto_scalarmult(_ANY_SECRET, public)
    except (SodiumError, TypeError, ValueError):
        return False
    return True


def is_canonical(public: bytes) -> bool:
    """Whether these bytes are the one encoding of their X25519 key: below the field's order, so that two names of one
    key cannot pass for two keys.
    """
    return len(public) == 32 and int.from_bytes(public, "little") < _FIELD


def _key(secret: bytes, other: bytes, ephemeral: bytes, reader: bytes, context: bytes) -> bytes:
    try:
        shared = crypto_scalarmult(secret, other)
    except (SodiumError, TypeError, ValueError) as error:  # all zero, as with the points of small order
        raise InvalidInput(f"{other.hex()} is not an X25519 key to seal with") from error
    return wide_hash(Domain.SEALED, ephemeral + reader + context, key=shared)[:32]


def encrypt_once(key: bytes, data: bytes, context: bytes) -> bytes:
    """Under a key that is never used again, hence without a nonce: 16 bytes longer than `data`."""
    return bytes(crypto_aead_xchacha20poly1305_ietf_encrypt(data, context, _NONCE, key))


def decrypt_once(key: bytes, data: bytes, context: bytes) -> bytes:
    """What `encrypt_once` encrypted; raises InvalidInput where key, context or a byte is another."""
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(data, context, _NONCE, key))
    except (CryptoError, TypeError, ValueError) as error:
        raise InvalidInput(f"{len(data)} sealed bytes do not open with this key in this context") from error
