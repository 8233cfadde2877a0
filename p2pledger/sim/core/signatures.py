"""Who signs for the validators of a virtual world: really, or by a table that nobody can forge.

Only simulated worlds may be given the table. It keeps exactly what the protocol relies on: a statement counts as
signed by a key if and only if the owner of that key signed exactly these bytes.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from p2pledger.primitives import crypto
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Signature


class Signatures(Protocol):
    """Signs for a seat; verifies as `crypto.verify` does."""

    def sign(self, seat: int, message: bytes) -> Signature:
        """The 64-byte signature of the validator in that seat; equal for equal input."""

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the owner of `public` signed exactly `message`."""


class Ed25519:
    """The real scheme, at some 20 times the price."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """`keys` in the order of the seats."""
        self._keys = keys

    def sign(self, seat: int, message: bytes) -> Signature:
        """By libsodium."""
        return self._keys[seat].sign(message)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """By libsodium."""
        return crypto.verify(public, message, signature)


class Oracle:
    """A table of what was signed: unforgeable because nothing else is ever accepted."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """`keys` in the order of the seats; only their public halves are used."""
        self._publics = [key.public for key in keys]
        self._signed: dict[tuple[bytes, bytes], Signature] = {}

    def sign(self, seat: int, message: bytes) -> Signature:
        """A digest of key and message, entered into the table."""
        key = (self._publics[seat], message)
        signature = self._signed.get(key)
        if signature is None:
            signature = self._signed[key] = Signature(blake2b(key[0] + message).digest())
        return signature

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether it stands in the table; computing the digest oneself does not put it there."""
        return self._signed.get((public, message)) == signature
