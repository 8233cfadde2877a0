"""Ed25519 (RFC 8032, as libsodium accepts it) and SHA-256, always with the purpose in the signed bytes.

libsodium's accepted set of signatures is the rule of the chain; no other verifier may judge inside it.
Keys are made elsewhere: this part has no randomness.
"""

from collections.abc import Callable
from enum import Enum
from hashlib import blake2b
from hashlib import sha256 as _sha256
from typing import TypeAlias

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from p2pledger.primitives.ids import ChainId, Signature


class Domain(Enum):
    """What a signature or a hash is for; no bytes signed for one purpose are valid for another."""

    GENESIS = b"p2pl/genesis/1"
    CARD = b"p2pl/card/1"
    BLOCK = b"p2pl/block/1"
    PRE_PREPARE = b"p2pl/pre-prepare/1"
    PREPARE = b"p2pl/prepare/1"
    COMMIT = b"p2pl/commit/1"
    VIEW_CHANGE = b"p2pl/view-change/1"
    NEW_VIEW = b"p2pl/new-view/1"
    BATCH = b"p2pl/batch/1"
    RELAY = b"p2pl/relay/1"
    CLIENT_HELLO = b"p2pl/client-hello/1"
    ACCESS_POP = b"p2pl/access-pop/1"
    IDENTITY_POP = b"p2pl/identity-pop/1"
    LOG_LINE = b"p2pl/log-line/1"
    RELEASE_LINE = b"p2pl/release-line/1"
    ACTOR = b"p2pl/actor/1"
    CREDENTIAL = b"p2pl/credential/1"
    RECORD_COMMITMENT = b"p2pl/c1"
    RECORD_HANDLE = b"p2pl/record-handle/1"
    STATE_KEY = b"p2pl/state-key/1"
    GENERATOR = b"p2pl/generator/1"
    SECRET_NONCE = b"p2pl/secret-nonce/1"
    SEALED = b"p2pl/sealed/1"
    DLEQ = b"p2pl/dleq/1"
    CAPSULE_KEY = b"p2pl/capsule-key/1"
    CAPSULE_PROOF = b"p2pl/capsule-proof/1"
    CEREMONY = b"p2pl/ceremony/1"
    CEREMONY_SEED = b"p2pl/ceremony-seed/1"
    JOINT_KEY = b"p2pl/joint-key/1"
    ERASE_ORDER = b"p2pl/erase-order/1"
    GUARDIAN = b"p2pl/guardian/1"
    GUARDIAN_APPROVAL = b"p2pl/guardian-approval/1"
    OFFLINE_OPENING = b"p2pl/offline-opening/1"
    EMERGENCY_CAPSULE = b"p2pl/emergency-capsule/1"

    __hash__ = object.__hash__  # members are one of a kind; the default hashes their names, and slowly


_PREFIXES: dict[Domain, bytes] = {domain: bytes([len(domain.value)]) + domain.value for domain in Domain}
"""The purpose as it stands before what is hashed or signed, its length first."""


def sha256(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes."""
    return _sha256(data).digest()


def hash_prefix(domain: Domain) -> bytes:
    """What `tagged_hash` puts before the data: for loops over so many keys that a call for each would cost too much."""
    return _PREFIXES[domain]


def tagged_hash(domain: Domain, data: bytes) -> bytes:
    """SHA-256 over the purpose, its length and `data`."""
    return _sha256(_PREFIXES[domain] + data).digest()


def wide_hash(domain: Domain, data: bytes, key: bytes = b"") -> bytes:
    """64 bytes of BLAKE2b over the purpose, its length and `data`: enough to be reduced to a uniform scalar.

    `key`: up to 64 secret bytes; with it, who does not know them cannot compute the hash.
    """
    return blake2b(_PREFIXES[domain] + data, digest_size=64, key=key).digest()


def signed_bytes(domain: Domain, chain: ChainId, message: bytes) -> bytes:
    """The exact bytes that an agreement signature covers: purpose ‖ chain ‖ message."""
    return _PREFIXES[domain] + chain + message


class SigningKey:
    """An Ed25519 key pair made from a 32-byte seed; its text form never shows the secret."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32, "an Ed25519 seed has 32 bytes"
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"

    def sign(self, message: bytes) -> Signature:
        """The 64-byte detached signature over `message`; equal for equal input."""
        return Signature(crypto_sign(message, self._secret)[:64])

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the one who stores them."""
        return self._secret[:32]


Verifier: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""`verify` below, or what stands in for it in a simulation: (public key, message, signature) -> whether it is good."""

_memory: dict[tuple[bytes, bytes, bytes], bool] | None = None


def remember_verifications() -> None:
    """Keep every verdict of `verify` from now on: in a simulation n nodes check the same bytes."""
    global _memory  # noqa: PLW0603
    _memory = {}


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` by `public` over `message` is one that libsodium accepts."""
    if _memory is None:
        return _verify(public, message, signature)
    key = (public, message, signature)
    if key not in _memory:
        if len(_memory) > 100_000:
            _memory.clear()
        _memory[key] = _verify(public, message, signature)
    return _memory[key]


def _verify(public: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64 or len(public) != 32:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except (BadSignatureError, ValueError):
        return False
    return True


def is_public_key(public: bytes) -> bool:
    """Whether `public` is a canonical point of the prime-order group, as keys of members must be."""
    return len(public) == 32 and bool(crypto_core_ed25519_is_valid_point(public))
