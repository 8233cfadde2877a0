"""Key files and wallets: secrets stay in files of mode 0600, and every organisation sees other keys of the same person.

A key file holds 32 bytes. Sealed, it is JSON with Argon2id parameters and an XChaCha20-Poly1305 box; plain, it is one
line of hexadecimal digits, as in a member's home: for daemons and the demo, where nobody could type a passphrase.

Everything else is derived from a wallet's one secret by keyed BLAKE2b over (organisation, purpose): who knows a
patient's pid and keys at one custodian cannot tell them from a stranger's at another (health rule 3.1).
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from p2pledger.client.files import create_private, make_private_folder, read_private
from p2pledger.client.records import Custodian, Patient
from p2pledger.client.sealing import BoxKey, decrypt, encrypt
from p2pledger.health.operations import IdentityRegister
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import ConfigError, InvalidInput
from p2pledger.primitives.ids import AccountKey

_FORMAT = "p2pledger/sealed-key/1"
_KEY_FILE_BYTES_MAX = 4096
_MEMORY_MAX = 1024 * 1024 * 1024
"""A file must not make us take more memory than any level asks for."""
_OPERATIONS_MAX = 16

Strength = Literal["interactive", "moderate"]
_LEVELS: dict[Strength, tuple[int, int]] = {
    "interactive": (argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE),
    "moderate": (argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE),
}
Ask = Callable[[Path], str]
"""Gives the passphrase of a sealed key file."""


def create_key(path: Path, secret: bytes, passphrase: str | None, strength: Strength = "moderate") -> None:
    """Write a 32-byte secret; sealed unless `passphrase` is None. Raises InvalidInput where a file exists already."""
    assert len(secret) == 32, "a key file holds 32 bytes"
    make_private_folder(path.parent)
    if passphrase is None:
        create_private(path, secret.hex().encode() + b"\n")
        return
    if not passphrase:
        raise InvalidInput("an empty passphrase protects nothing; ask for a plain key file instead")
    create_private(path, _sealed(secret, passphrase, strength))


def read_key(path: Path, ask: Ask | None = None) -> bytes:
    """The 32 bytes of a key file. `ask` is called for a sealed one only.

    Raises ConfigError where the file is missing, a link, another user's, open to others or malformed, where it is
    sealed and nobody can be asked, and where the passphrase is wrong.
    """
    try:
        text = read_private(path, _KEY_FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise ConfigError(f"key file {path} is missing; restore it from a backup or make a new one") from error
    if text.startswith(b"{"):
        if ask is None:
            raise ConfigError(f"key file {path} is sealed with a passphrase and nobody can be asked for it")
        return _unsealed(path, text, ask(path))
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise ConfigError(f"key file {path} does not hold hexadecimal digits") from error
    if len(secret) != 32:
        raise ConfigError(f"key file {path} holds {len(secret)} bytes, a key has 32")
    return secret


def _sealed(secret: bytes, passphrase: str, strength: Strength) -> bytes:
    operations, memory = _LEVELS[strength]
    salt = secrets.token_bytes(argon2id.SALTBYTES)
    header = {
        "format": _FORMAT,
        "kdf": "argon2id",
        "operations": operations,
        "memory": memory,
        "salt": salt.hex(),
    }
    key = argon2id.kdf(32, passphrase.encode(), salt, opslimit=operations, memlimit=memory)
    nonce, box = encrypt(key, secret, _header_bytes(header))
    return json.dumps({**header, "nonce": nonce.hex(), "box": box.hex()}, indent=1).encode() + b"\n"


def _header_bytes(header: dict[str, Any]) -> bytes:
    return encode(tuple(header[name] for name in ("format", "kdf", "operations", "memory", "salt")))


def _unsealed(path: Path, text: bytes, passphrase: str) -> bytes:
    try:
        parts = json.loads(text)
        header = _header_bytes(parts)
        salt, nonce, box = (bytes.fromhex(parts[name]) for name in ("salt", "nonce", "box"))
        operations, memory = int(parts["operations"]), int(parts["memory"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"key file {path} is damaged: {error}") from error
    if parts["format"] != _FORMAT or parts["kdf"] != "argon2id":
        raise ConfigError(f"key file {path} is of format {parts['format']!r}, this version reads {_FORMAT!r}")
    if not 1 <= operations <= _OPERATIONS_MAX or memory > _MEMORY_MAX:
        raise ConfigError(f"key file {path} asks for {operations} passes over {memory} bytes, more than is ever used")
    try:
        key = argon2id.kdf(32, passphrase.encode(), salt, opslimit=operations, memlimit=memory)
        secret = decrypt(key, nonce, box, header)
    except (InvalidInput, CryptoError, ValueError) as error:
        raise ConfigError(f"key file {path} does not open: wrong passphrase, or the file was changed") from error
    if len(secret) != 32:
        raise ConfigError(f"key file {path} holds {len(secret)} bytes, a key has 32")
    return secret


@dataclass(frozen=True, slots=True)
class Persona:
    """A person as one organisation knows it: an id, a signing key and a box key that belong together."""

    organisation: bytes
    did: bytes
    """A patient's pid, a practitioner's did."""
    signing: SigningKey
    box: BoxKey

    @property
    def account(self) -> AccountKey:
        return AccountKey(self.signing.public)

    @property
    def patient(self) -> Patient:
        """To whom the custodian seals records."""
        return Patient(self.did, self.box.public)

    def registration(self, kind: IdentityKind, attestation_commit: bytes) -> IdentityRegister:
        """The operation that enters this persona, to be sent by its own key and cosigned by the organisation."""
        return IdentityRegister(self.did, kind, self.account, self.box.public, self.organisation, attestation_commit)


class Wallet:
    """One secret of a patient or a practitioner, and all that is derived from it. Its text form shows nothing."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == 32, "a wallet's secret has 32 bytes"
        self._secret = secret

    def __repr__(self) -> str:
        return "Wallet(…)"

    @staticmethod
    def create(path: Path, passphrase: str | None, strength: Strength = "moderate") -> "Wallet":
        """A new wallet in a new key file; raises InvalidInput where the file exists already."""
        secret = secrets.token_bytes(32)
        create_key(path, secret, passphrase, strength)
        return Wallet(secret)

    @staticmethod
    def load(path: Path, ask: Ask | None = None) -> "Wallet":
        """The wallet in a key file; raises ConfigError as `read_key` does."""
        return Wallet(read_key(path, ask))

    def at(self, organisation: bytes) -> Persona:
        """Who this wallet's owner is at an organisation: the same every time, unlike at every other."""
        return Persona(
            organisation,
            self._derived(organisation, "id")[:16],
            SigningKey(self._derived(organisation, "sign")),
            BoxKey(self._derived(organisation, "box")),
        )

    def _derived(self, organisation: bytes, purpose: str) -> bytes:
        data = encode((organisation, purpose))
        return blake2b(data, key=self._secret, digest_size=32, person=b"p2pl/wallet/1").digest()


@dataclass(frozen=True, slots=True)
class OrganisationWallet:
    """An organisation's own keys: the account that signs for it, and its box key with what follows from that."""

    organisation: bytes
    account: SigningKey
    custodian: Custodian

    @staticmethod
    def of_seeds(organisation: bytes, account_seed: bytes, box_seed: bytes) -> "OrganisationWallet":
        """From the two seeds of a member's home."""
        return OrganisationWallet(organisation, SigningKey(account_seed), Custodian.of_box_seed(organisation, box_seed))

    @staticmethod
    def load(organisation: bytes, keys: Path, ask: Ask | None = None) -> "OrganisationWallet":
        """From the folder `keys` of a member's home; raises ConfigError as `read_key` does."""
        return OrganisationWallet.of_seeds(
            organisation, read_key(keys / "account.key", ask), read_key(keys / "box.key", ask)
        )
