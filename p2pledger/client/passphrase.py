"""Secrets in a file that opens with a passphrase: Argon2id makes the key, XChaCha20-Poly1305 seals (F-20).

The file says which parameters made the key. They are bounded, so that a planted file cannot take a machine's memory,
and authenticated, so that nobody makes them cheaper. A checksum over all of it tells damage from a wrong passphrase:
whoever changes a file on purpose can mend the checksum, and then the seal does not open.
"""

import json
import secrets
from pathlib import Path
from typing import Any, Literal

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from p2pledger.client.sealing import decrypt, encrypt
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import ConfigError, InvalidInput

MEMORY_MAX = 1024 * 1024 * 1024
"""A file must not make us take more memory than any level asks for."""
OPERATIONS_MAX = 16

Strength = Literal["interactive", "moderate"]
_LEVELS: dict[Strength, tuple[int, int]] = {
    "interactive": (argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE),
    "moderate": (argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE),
}
_HEADER = ("format", "kdf", "operations", "memory", "salt")
_FIELDS = (*_HEADER, "nonce", "box")


def is_sealed(text: bytes) -> bool:
    """Whether this is what `seal` wrote, and not a plain line of digits."""
    return text.startswith(b"{")


def seal(payload: bytes, passphrase: str, strength: Strength, form: str) -> bytes:
    """The text of a file of this format that opens with `passphrase`; raises InvalidInput for an empty one."""
    if not passphrase:
        raise InvalidInput("an empty passphrase protects nothing; ask for a plain key file instead")
    operations, memory = _LEVELS[strength]
    salt = secrets.token_bytes(argon2id.SALTBYTES)
    header = {"format": form, "kdf": "argon2id", "operations": operations, "memory": memory, "salt": salt.hex()}
    key = argon2id.kdf(32, passphrase.encode(), salt, opslimit=operations, memlimit=memory)
    nonce, box = encrypt(key, payload, _bytes_of(header, _HEADER))
    parts = {**header, "nonce": nonce.hex(), "box": box.hex()}
    return json.dumps({**parts, "checksum": _checksum(parts)}, indent=1).encode() + b"\n"


def unseal(path: Path, text: bytes, passphrase: str, form: str) -> bytes:
    """The payload of a sealed file.

    Raises ConfigError that says which it is: another format, parameters beyond all levels, a damaged file, or a whole
    file that this passphrase does not open.
    """
    try:
        parts = json.loads(text)
        header = _bytes_of(parts, _HEADER)
        salt, nonce, box = (bytes.fromhex(parts[name]) for name in ("salt", "nonce", "box"))
        operations, memory, checksum = int(parts["operations"]), int(parts["memory"]), parts["checksum"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"key file {path} is damaged: {error}; restore it from a backup") from error
    if parts["format"] != form or parts["kdf"] != "argon2id":
        raise ConfigError(f"key file {path} is of format {parts['format']!r}, this version reads {form!r}")
    if not 1 <= operations <= OPERATIONS_MAX or not 8192 <= memory <= MEMORY_MAX:
        raise ConfigError(f"key file {path} asks for {operations} passes over {memory} bytes, more than is ever used")
    if checksum != _checksum(parts):
        raise ConfigError(f"key file {path} is damaged: the file was changed after it was written; restore a backup")
    try:
        key = argon2id.kdf(32, passphrase.encode(), salt, opslimit=operations, memlimit=memory)
        return decrypt(key, nonce, box, header)
    except (InvalidInput, CryptoError, ValueError) as error:
        raise ConfigError(f"key file {path} is whole and does not open: wrong passphrase; try again") from error


def _checksum(parts: dict[str, Any]) -> str:
    return sha256(_bytes_of(parts, _FIELDS)).hex()


def _bytes_of(parts: dict[str, Any], names: tuple[str, ...]) -> bytes:
    return encode(tuple(parts[name] for name in names))
