"""Secrets as words that people write on paper: BIP-39, the English list.

The words are the secret itself with a checksum; no passphrase and no derivation stand between them. So a wallet that is
made anew from its 24 words is the same wallet, and a miswritten word is noticed (all but one time in 256).
"""

from functools import cache
from importlib import resources

from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import InvalidInput

_LIST_HASH = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
_LENGTHS = {12: 16, 15: 20, 18: 24, 21: 28, 24: 32}
"""Words -> bytes of the secret."""
_PREFIX = 4
"""No two words of the list begin with the same four letters."""


def phrase_of(secret: bytes) -> str:
    """The words of a secret of 16, 20, 24, 28 or 32 bytes, with spaces between them."""
    assert len(secret) in _LENGTHS.values(), f"a secret of {len(secret)} bytes has no words"
    bits_of_checksum = len(secret) // 4
    number = int.from_bytes(secret + sha256(secret)[:1], "big") >> (8 - bits_of_checksum)
    count = (8 * len(secret) + bits_of_checksum) // 11
    words = _words()
    return " ".join(words[number >> 11 * place & 0x7FF] for place in reversed(range(count)))


def secret_of(phrase: str) -> bytes:
    """The secret whose words these are, in any case; four letters of each are enough.

    Raises InvalidInput that names the place of a word that is in no list, or says that the checksum does not fit. A
    message never repeats a word: it would end in somebody's scrollback.
    """
    given = phrase.lower().split()
    if len(given) not in _LENGTHS:
        raise InvalidInput(f"a backup phrase of {len(given)} words; it has 12, 15, 18, 21 or 24")
    number = 0
    for place, word in enumerate(given, start=1):
        index = _index().get(word[:_PREFIX])
        if index is None or not _words()[index].startswith(word):
            raise InvalidInput(f"word {place} of the backup phrase is not in the English list of BIP-39")
        number = number << 11 | index
    length = _LENGTHS[len(given)]
    bits_of_checksum = length // 4
    secret = (number >> bits_of_checksum).to_bytes(length, "big")
    if phrase_of(secret).split()[-1] != _words()[number & 0x7FF]:
        raise InvalidInput(
            "the checksum of the backup phrase does not fit: a word is wrong, or two have changed places"
        )
    return secret


@cache
def _words() -> tuple[str, ...]:
    data = (resources.files("p2pledger.client") / "bip39_english.txt").read_bytes()
    assert sha256(data).hex() == _LIST_HASH, "bip39_english.txt is not the list of BIP-39"
    return tuple(data.decode("ascii").split())


@cache
def _index() -> dict[str, int]:
    return {word[:_PREFIX]: number for number, word in enumerate(_words())}
