"""DID documents from proven state: the keys of an identity, and between which heights each one counted (F-20).

A document is written from values whose proofs a client has verified; nobody signs it. Retired and revoked keys stay in
it, so that an old signature can be judged by the height at which it was made, and may authenticate nobody any more.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from p2pledger.client.ledger import LedgerClient
from p2pledger.health import keys
from p2pledger.health.did import Did
from p2pledger.health.directory import Identity, KeyPeriod, Organisation
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey, Bytes32, Height

R = TypeVar("R", bound=Record)

KEYS_SHOWN_MAX = 64
"""A document shows the newest; each one is a proof to fetch."""
_ATTEMPTS = 5
_CONTEXT = [
    "https://www.w3.org/ns/did/v1",
    "https://w3id.org/security/suites/jws-2020/v1",
    {
        "validFromHeight": "urn:p2pledger:validFromHeight",
        "revokedAtHeight": "urn:p2pledger:revokedAtHeight",
        "provenAtHeight": "urn:p2pledger:provenAtHeight",
    },
]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a checkpoint proves about a did."""

    did: Did
    height: Height
    """Of the checkpoint."""
    subject: Identity | Organisation
    periods: Sequence[tuple[int, KeyPeriod]]
    """(number, key), the oldest first."""

    @property
    def is_deactivated(self) -> bool:
        """Whether it may act at all: suspended or without a key it may not."""
        if isinstance(self.subject, Organisation):
            return not self.subject.is_active
        return self.subject.is_suspended or self.subject.revoked is not None

    def key(self, number: int) -> KeyPeriod | None:
        """Its signing key of this number."""
        return dict(self.periods).get(number)

    @property
    def document(self) -> dict[str, Any]:
        """The DID document in the words of DID Core; `revokedAtHeight` stands beside a key that counts no more."""
        did = self.did
        current = [number for number, period in self.periods if period.retired is None]
        methods = [_method(did, number, period) for number, period in self.periods]
        boxes = [_box(did, number, period) for number, period in self.periods if period.retired is None]
        document: dict[str, Any] = {"@context": _CONTEXT, "id": str(did)}
        if isinstance(self.subject, Identity):
            document["controller"] = str(did)
        document["verificationMethod"] = methods
        for relation in ("authentication", "assertionMethod"):
            document[relation] = [did.key_url(number) for number in current]
        document["keyAgreement"] = boxes
        document["provenAtHeight"] = self.height
        return document


async def resolve(ledger: LedgerClient, did: Did) -> Resolved:
    """What the last checkpoint proves about a did; every value of one and the same checkpoint.

    Raises InvalidInput for a did of another chain, Rejected(E_NOT_FOUND) for one that nobody has there,
    Rejected(E_ROLE) for a patient's of which the asker is not the owner, and Unavailable.
    """
    if did.chain != ledger.founding.chain:
        raise InvalidInput(f"{did} is of another chain than {ledger.founding.chain.hex()}")
    for _ in range(_ATTEMPTS):
        found = await _resolve_once(ledger, did)
        if found is not None:
            return found
    raise Unavailable(f"checkpoints pass faster than the keys of {did} can be fetched; try again")


async def _resolve_once(ledger: LedgerClient, did: Did) -> Resolved | None:
    """None where the chain has passed a checkpoint meanwhile."""
    height, subject = await _read(ledger, keys.identity(did.id), Identity)
    if subject is None:
        second, subject = await _read(ledger, keys.organisation(did.id), Organisation)  # type: ignore[assignment]
        if second != height:
            return None
    if subject is None:
        raise Rejected(Code.E_NOT_FOUND, f"nobody is called {did} at checkpoint {height}")
    periods = []
    for number in range(max(1, subject.periods - KEYS_SHOWN_MAX + 1), subject.periods + 1):
        at, period = await _read(ledger, keys.key_period(did.id, number), KeyPeriod)
        if at != height or period is None:
            return None
        periods.append((number, period))
    return Resolved(did, height, subject, periods)


async def _read(ledger: LedgerClient, key: bytes, kind: type[R]) -> tuple[Height, R | None]:
    height, data = await ledger.state(key)
    return height, None if data is None else decode(kind, data, limits.STATE_VALUE_BYTES_MAX)


def _method(did: Did, number: int, period: KeyPeriod) -> dict[str, Any]:
    return {
        "id": did.key_url(number),
        "type": "JsonWebKey2020",
        "controller": str(did),
        "publicKeyJwk": jwk_of(period.key),
        **_heights(period),
    }


def _box(did: Did, number: int, period: KeyPeriod) -> dict[str, Any]:
    jwk = {"kty": "OKP", "crv": "X25519", "x": base64url(period.box)}
    return {"id": did.box_url(number), "type": "JsonWebKey2020", "controller": str(did), "publicKeyJwk": jwk}


def _heights(period: KeyPeriod) -> dict[str, int]:
    heights = {"validFromHeight": int(period.since)}
    return heights if period.retired is None else {**heights, "revokedAtHeight": int(period.retired)}


def jwk_of(key: AccountKey | Bytes32) -> dict[str, str]:
    """An Ed25519 public key as a JSON Web Key (RFC 8037)."""
    return {"kty": "OKP", "crv": "Ed25519", "x": base64url(key)}


def base64url(data: bytes) -> str:
    """Base64 for URLs without padding, as in all of JOSE."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
