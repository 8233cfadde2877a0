"""`did:p2pl`: the name of an identity or an organisation that holds outside its chain (F-20, W3C DID Core).

    did:p2pl:<chain>:<id>          chain: 64 hexadecimal digits; id: 16 bytes in base32, 26 characters
    did:p2pl:<chain>:<id>#key-2    its second signing key; #box-2 the box key that came with it

Everything is in small letters and has one spelling. The id is random, or derived from secrets: a did says nothing about
a person, and a patient has another one at each custodian.
"""

import base64
import re
from dataclasses import dataclass

from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Bytes16, ChainId

_FORM = re.compile(r"did:p2pl:([0-9a-f]{64}):([a-z2-7]{26})(?:#(key|box)-([1-9][0-9]{0,9}))?")


@dataclass(frozen=True, slots=True)
class Did:
    """An identity or an organisation, with the chain that knows it."""

    chain: ChainId
    id: Bytes16

    def __str__(self) -> str:
        return f"did:p2pl:{self.chain.hex()}:{base64.b32encode(self.id).decode().rstrip('=').lower()}"

    def key_url(self, number: int) -> str:
        """The name of its signing key number `number`, from 1."""
        return f"{self}#key-{number}"

    def box_url(self, number: int) -> str:
        """The name of the box key that came with signing key number `number`."""
        return f"{self}#box-{number}"


def parse_did(text: str) -> Did:
    """The did; raises InvalidInput for another method, a fragment, or another spelling of the same."""
    did, number = _parsed(text)
    if number:
        raise InvalidInput(f"{text!r} names a key; its did is {did}")
    return did


def parse_key_url(text: str) -> tuple[Did, int]:
    """(did, number of the signing key); raises InvalidInput."""
    did, number = _parsed(text)
    if text != did.key_url(number):
        raise InvalidInput(f"{text!r} is not the name of a signing key like {did.key_url(1)}")
    return did, number


def _parsed(text: str) -> tuple[Did, int]:
    """(did, number of the key that the fragment names, 0 without one)."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{text[:120]!r} is not a did:p2pl:<64 hexadecimal digits>:<26 characters of base32>")
    identifier = base64.b32decode(match[2].upper() + "======")
    did = Did(ChainId(bytes.fromhex(match[1])), Bytes16(identifier))
    if not text.startswith(str(did)):  # two bits of the last letter are not used, and must be zero
        raise InvalidInput(f"{text!r} spells the id of {did} in another way")
    return did, int(match[4] or 0)
