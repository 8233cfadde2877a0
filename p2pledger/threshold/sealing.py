"""Sealing to an X25519 key for one purpose: what is opened in another place than it was sealed for does not open.

1. An ephemeral pair (e, E) is made; S = X25519(e, reader).
2. key = BLAKE2b(E ‖ reader ‖ context, keyed by S), 32 bytes.
3. sealed = E ‖ XChaCha20-Poly1305(key, nonce 0, data): each key is used once. 48 bytes more than the data.

Who seals much to one reader at a time makes 1 once (`Sealer`): the contexts differ, and so do the keys.

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
_SENDERS_MAX = 64
"""Whose S a key remembers: more than there are validators."""
_ANY_SECRET = b"\x01" * 32


class BoxSecret:
    """An X25519 key pair; its text form never shows the secret."""

    __slots__ = ("_secret", "_shared", "public")

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == 32, "an X25519 secret has 32 bytes"
        self._secret = secret
        self._shared: dict[bytes, bytes] = {}
        self.public: bytes = crypto_scalarmult_base(secret)

    def __repr__(self) -> str:
        return f"BoxSecret(public={self.public.hex()})"

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What was sealed to this key in this context; raises InvalidInput for everything else."""
        if len(sealed) < SEALING_BYTES:
            raise InvalidInput(f"{len(sealed)} bytes are too short to be sealed; at least {SEALING_BYTES} are needed")
        ephemeral = sealed[:32]
        return decrypt_once(_key(self._shared_with(ephemeral), ephemeral, self.public, context), sealed[32:], b"")

    def _shared_with(self, ephemeral: bytes) -> bytes:
        """S, remembered: what one sender seals at a time has one E."""
        if ephemeral not in self._shared:
            if len(self._shared) == _SENDERS_MAX:
                self._shared.clear()
            self._shared[ephemeral] = _product(self._secret, ephemeral)
        return self._shared[ephemeral]


class Sealer:
    """Seals to one X25519 key, each time in another context; its text form never shows the secret."""

    __slots__ = ("_ephemeral", "_shared", "_used", "reader")

    def __init__(self, reader: bytes, random: Random) -> None:
        """Raises InvalidInput for bytes that cannot be such a key."""
        secret = random(32)
        self.reader = reader
        self._ephemeral: bytes = crypto_scalarmult_base(secret)
        self._shared = _product(secret, reader)
        self._used: set[bytes] = set()

    def __repr__(self) -> str:
        return f"Sealer(reader={self.reader.hex()})"

    def seal(self, data: bytes, context: bytes) -> bytes:
        """`data` for the owner of the key, in this context."""
        key = _key(self._shared, self._ephemeral, self.reader, context)
        assert key not in self._used, "a context that was sealed in before would use its key twice"
        self._used.add(key)
        return self._ephemeral + encrypt_once(key, data, b"")


def seal(reader: bytes, data: bytes, context: bytes, random: Random) -> bytes:
    """`data` for the owner of the X25519 key `reader`; raises InvalidInput for bytes that cannot be such a key."""
    return Sealer(reader, random).seal(data, context)


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


def _product(secret: bytes, other: bytes) -> bytes:
    try:
        return bytes(crypto_scalarmult(secret, other))
    except (SodiumError, TypeError, ValueError) as error:  # all zero, as with the points of small order
        raise InvalidInput(f"{other.hex()} is not an X25519 key to seal with") from error


def _key(shared: bytes, ephemeral: bytes, reader: bytes, context: bytes) -> bytes:
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
