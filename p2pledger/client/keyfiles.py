"""Key files: 32 bytes that stay in a file of mode 0600.

Sealed with a passphrase (`passphrase.py`), or plain, one line of hexadecimal digits, as in a member's home: for daemons
and the demo, where nobody could type a passphrase. Wallets are files of the same two kinds (`keyring.py`).
"""

from collections.abc import Callable
from pathlib import Path

from p2pledger.client.passphrase import Strength, is_sealed, seal, unseal
from p2pledger.primitives.errors import ConfigError
from p2pledger.storage.files import create_private, make_private_folder, read_private

_FORMAT = "p2pledger/sealed-key/1"
_KEY_FILE_BYTES_MAX = 4096

Ask = Callable[[Path], str]
"""Gives the passphrase of a sealed file."""


def create_key(path: Path, secret: bytes, passphrase: str | None, strength: Strength = "moderate") -> None:
    """Write a 32-byte secret; sealed unless `passphrase` is None. Raises InvalidInput where a file exists already."""
    assert len(secret) == 32, "a key file holds 32 bytes"
    make_private_folder(path.parent)
    plain = secret.hex().encode() + b"\n"
    create_private(path, plain if passphrase is None else seal(secret, passphrase, strength, _FORMAT))


def read_key(path: Path, ask: Ask | None = None) -> bytes:
    """The 32 bytes of a key file. `ask` is called for a sealed one only.

    Raises ConfigError where the file is missing, a link, another user's, open to others or malformed, where it is
    sealed and nobody can be asked, and where the passphrase is wrong.
    """
    secret, _ = read_secret(path, _KEY_FILE_BYTES_MAX, _FORMAT, ask)
    if len(secret) != 32:
        raise ConfigError(f"key file {path} holds {len(secret)} bytes, a key has 32")
    return secret


def read_secret(path: Path, bytes_max: int, form: str, ask: Ask | None) -> tuple[bytes, str | None]:
    """(payload, passphrase or None where it lies plain) of a private file; raises ConfigError as `read_key` does."""
    try:
        text = read_private(path, bytes_max)
    except FileNotFoundError as error:
        raise ConfigError(f"key file {path} is missing; restore it from a backup or make a new one") from error
    if is_sealed(text):
        if ask is None:
            raise ConfigError(f"key file {path} is sealed with a passphrase and nobody can be asked for it")
        passphrase = ask(path)
        return unseal(path, text, passphrase, form), passphrase
    try:
        return bytes.fromhex(text.decode("ascii")), None
    except ValueError as error:
        raise ConfigError(f"key file {path} does not hold hexadecimal digits") from error
