"""Credentials that people carry: W3C Verifiable Credentials 2.0 as JWT, bound on the chain (F-21).

What a practitioner shows says more than the chain may hold: the number of a licence. The chain holds the hash of the
exact token, with role and period, and there it is revoked. So a token proves nothing by its signature alone: it is as
good as the entry that the last checkpoint proves. A random id in the token keeps its hash from being guessed.

The algorithm is Ed25519 (RFC 9864) and no other. A presentation is signed by the holder's current key for one verifier
and one nonce, and lives for minutes.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from p2pledger.client.did_documents import Resolved, base64url, resolve
from p2pledger.client.ledger import LedgerClient
from p2pledger.health import keys
from p2pledger.health.did import Did, parse_did, parse_key_url
from p2pledger.health.directory import Credential, Identity, Organisation
from p2pledger.health.vocabulary import Role
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode
from p2pledger.primitives.crypto import Domain, SigningKey, tagged_hash
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import Bytes32

T = TypeVar("T")

ALGORITHM = "Ed25519"
TOKEN_CHARACTERS_MAX = 16 * 1024
LICENCE_CHARACTERS_MAX = 200
PRESENTATION_S_MAX = 600
"""A presentation is for now; one that lives for days could be shown by others."""
_CREDENTIAL_TYP = "vc+jwt"
_PRESENTATION_TYP = "vp+jwt"
_CONTEXT = "https://www.w3.org/ns/credentials/v2"
_ENVELOPE = f"data:application/{_CREDENTIAL_TYP},"


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody's did, its signing key and the number of that key on the chain."""

    did: Did
    number: int
    key: SigningKey

    @staticmethod
    def of(found: Resolved, key: SigningKey) -> "Signer":
        """As the chain knows it; raises InvalidInput where this is not the current key of that did."""
        for number, period in found.periods:
            if period.key == key.public and period.retired is None:
                return Signer(found.did, number, key)
        raise InvalidInput(f"key {key.public.hex()} is not the current key of {found.did}")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a token says, checked against the chain."""

    issuer: Did
    subject: Did
    role: Role
    licence: str
    valid_from_ms: int
    valid_to_ms: int


def issue(issuer: Signer, subject: bytes, role: Role, licence: str, valid_from_ms: int, valid_to_ms: int) -> str:
    """The token of a credential; its `commitment` goes into the CredentialIssue of the same role and period.

    Raises InvalidInput for a licence that is empty or too long.
    """
    if not 0 < len(licence) <= LICENCE_CHARACTERS_MAX:
        raise InvalidInput(f"a licence of {len(licence)} characters; 1 to {LICENCE_CHARACTERS_MAX} are stored")
    holder = str(Did(issuer.did.chain, subject))
    claims = {
        "@context": [_CONTEXT],
        "id": f"urn:p2pledger:credential:{base64url(secrets.token_bytes(32))}",
        "type": ["VerifiableCredential", "PractitionerCredential"],
        "issuer": str(issuer.did),
        "validFrom": _instant(valid_from_ms),
        "validUntil": _instant(valid_to_ms),
        "credentialSubject": {"id": holder, "role": role, "licence": licence},
        "iss": str(issuer.did),
        "sub": holder,
    }
    return _signed(_CREDENTIAL_TYP, claims, issuer)


def commitment(token: str) -> Bytes32:
    """What the chain knows a token by."""
    return tagged_hash(Domain.CREDENTIAL, token.encode())


def present(holder: Signer, token: str, audience: str, nonce: str, now_s: int, for_s: int = 120) -> str:
    """The token, shown to one verifier that chose `nonce`; raises InvalidInput for more than ten minutes."""
    if not 0 < for_s <= PRESENTATION_S_MAX:
        raise InvalidInput(f"a presentation for {for_s} s; it lives for 1 to {PRESENTATION_S_MAX}")
    envelope = {"@context": _CONTEXT, "id": _ENVELOPE + token, "type": "EnvelopedVerifiableCredential"}
    claims = {
        "@context": [_CONTEXT],
        "type": ["VerifiablePresentation"],
        "holder": str(holder.did),
        "verifiableCredential": [envelope],
        "iss": str(holder.did),
        "aud": audience,
        "nonce": nonce,
        "iat": now_s,
        "exp": now_s + for_s,
    }
    return _signed(_PRESENTATION_TYP, claims, holder)


async def verify_credential(ledger: LedgerClient, token: str, now_ms: int) -> Statement:
    """What a token says, if the last checkpoint bears it out at `now_ms`.

    Raises Rejected with E_FORMAT (no token of this kind), E_SIG (not signed by a key of its issuer), E_NOT_FOUND or,
    for who is no member, E_ROLE (no such issuer or subject), E_SUSPENDED (one of them may not act), E_CREDENTIAL (the
    issuer is not the subject's employer), E_COMMIT_MISMATCH (the chain does not have this very token), E_REVOKED,
    E_NOT_YET, E_EXPIRED; and Unavailable.
    """
    issuer, number = _signer_of(token, _CREDENTIAL_TYP)
    house = await _of_kind(ledger, issuer, Organisation)
    claims = _verified(token, house, number)
    said = _statement(claims, issuer)
    if house.is_deactivated:
        raise Rejected(Code.E_SUSPENDED, f"issuer {issuer} is suspended")
    person = await _of_kind(ledger, said.subject, Identity)
    assert isinstance(person.subject, Identity)
    if person.subject.organisation != issuer.id or person.subject.kind == "patient":
        raise Rejected(Code.E_CREDENTIAL, f"{said.subject} does not work for {issuer}")
    if person.is_deactivated:
        raise Rejected(Code.E_SUSPENDED, f"{said.subject} is suspended, or its key is revoked")
    height, data = await ledger.state(keys.credential(said.subject.id, said.role))
    held = None if data is None else decode(Credential, data, limits.STATE_VALUE_BYTES_MAX)
    if held is None or held.licence_commit != commitment(token):
        raise Rejected(Code.E_COMMIT_MISMATCH, f"checkpoint {height} does not have this credential of {said.subject}")
    if (held.valid_from_ms, held.valid_to_ms) != (said.valid_from_ms, said.valid_to_ms):
        raise Rejected(Code.E_COMMIT_MISMATCH, f"the chain has another period for this credential of {said.subject}")
    if held.revoked is not None:
        raise Rejected(Code.E_REVOKED, f"the credential was taken back at height {held.revoked}")
    if now_ms < held.valid_from_ms:
        raise Rejected(Code.E_NOT_YET, f"the credential holds from {_instant(held.valid_from_ms)} on")
    if now_ms >= held.valid_to_ms:
        raise Rejected(Code.E_EXPIRED, f"the credential ended at {_instant(held.valid_to_ms)}")
    return said


async def verify_presentation(ledger: LedgerClient, token: str, audience: str, nonce: str, now_ms: int) -> Statement:
    """What the holder of a credential shows us, now and nobody else; raises as `verify_credential` does.

    Also Rejected with E_SIG where it is not the subject's current key that signed, E_EXPIRED for one that is over or
    lives too long, and E_POP for one that was made for another verifier or another nonce.
    """
    holder, number = _signer_of(token, _PRESENTATION_TYP)
    found = await _of_kind(ledger, holder, Identity)
    claims = _verified(token, found, number)
    period = found.key(number)
    if period is None or period.retired is not None:
        raise Rejected(Code.E_SIG, f"{holder.key_url(number)} is retired")
    if (claims.get("aud"), claims.get("nonce")) != (audience, nonce):
        raise Rejected(Code.E_POP, "the presentation was made for another verifier, or for another nonce")
    made, ends = _claim(claims, "iat", int), _claim(claims, "exp", int)
    if not 0 < ends - made <= PRESENTATION_S_MAX or now_ms >= ends * 1000:
        raise Rejected(Code.E_EXPIRED, f"the presentation ended at {_instant(ends * 1000)}, or lives too long")
    shown = _claim(claims, "verifiableCredential", list)
    if len(shown) != 1 or not isinstance(shown[0], dict) or not str(shown[0].get("id")).startswith(_ENVELOPE):
        raise Rejected(Code.E_FORMAT, f"a presentation of {len(shown)} credentials; one, enveloped, is read")
    said = await verify_credential(ledger, str(shown[0]["id"]).removeprefix(_ENVELOPE), now_ms)
    if said.subject != holder:
        raise Rejected(Code.E_SIG, f"{holder} shows the credential of {said.subject}")
    return said


# Tokens


def _signed(typ: str, claims: Mapping[str, Any], signer: Signer) -> str:
    header = {"alg": ALGORITHM, "typ": typ, "kid": signer.did.key_url(signer.number)}
    secret = Ed25519PrivateKey.from_private_bytes(signer.key.seed)
    return jwt.encode(header, dict(claims), OKPKey.import_key(secret), algorithms=[ALGORITHM])


def _signer_of(token: str, typ: str) -> tuple[Did, int]:
    """Who says to have signed, from the header; nothing is verified yet."""
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise Rejected(Code.E_FORMAT, f"a token of {len(token)} characters, the limit is {TOKEN_CHARACTERS_MAX}")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, RecursionError) as error:
        raise Rejected(Code.E_FORMAT, f"not a JWT: {type(error).__name__}") from error
    if (header.get("alg"), header.get("typ")) != (ALGORITHM, typ):
        shown = f"{str(header.get('alg'))[:20]!r} and {str(header.get('typ'))[:20]!r}"
        raise Rejected(Code.E_FORMAT, f"algorithm and type are {shown}, read are {ALGORITHM!r} and {typ!r}")
    return _parsed(parse_key_url, header.get("kid"))


def _verified(token: str, signer: Resolved, number: int) -> Mapping[str, Any]:
    """The claims, if this key of the signer has signed them."""
    period = signer.key(number)
    if period is None:
        raise Rejected(Code.E_SIG, f"{signer.did} has no key number {number}")
    try:
        public = OKPKey.import_key(Ed25519PublicKey.from_public_bytes(period.key))
        found = jwt.decode(token, public, algorithms=[ALGORITHM])
    except (JoseError, ValueError, RecursionError) as error:
        raise Rejected(Code.E_SIG, f"not signed by {signer.did.key_url(number)}: {type(error).__name__}") from error
    return found.claims


def _statement(claims: Mapping[str, Any], issuer: Did) -> Statement:
    subject = _claim(claims, "credentialSubject", dict)
    role: Role | None = next((known for known in get_args(Role) if known == subject.get("role")), None)
    if role is None:
        raise Rejected(Code.E_FORMAT, "the credential names no role that this version knows")
    if (
        claims.get("iss") != str(issuer)
        or claims.get("issuer") != str(issuer)
        or claims.get("sub") != subject.get("id")
    ):
        raise Rejected(Code.E_FORMAT, "the names in the credential disagree about issuer or subject")
    return Statement(
        issuer,
        _parsed(parse_did, subject.get("id")),
        role,
        _claim(subject, "licence", str),
        _millis(_claim(claims, "validFrom", str)),
        _millis(_claim(claims, "validUntil", str)),
    )


async def _of_kind(ledger: LedgerClient, did: Did, kind: type[Organisation | Identity]) -> Resolved:
    try:
        found = await resolve(ledger, did)
    except Rejected:
        raise
    except InvalidInput as error:
        raise Rejected(Code.E_CHAIN, str(error)) from error
    if not isinstance(found.subject, kind):
        raise Rejected(Code.E_CREDENTIAL, f"{did} is no {kind.__name__.lower()}")
    return found


def _parsed(parse: Callable[[str], T], text: object) -> T:
    try:
        return parse(text if isinstance(text, str) else "")
    except InvalidInput as error:
        raise Rejected(Code.E_FORMAT, str(error)) from error


def _claim(claims: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = claims.get(name)
    if type(value) is not kind:
        raise Rejected(Code.E_FORMAT, f"claim {name!r} is no {kind.__name__}")
    return value


def _instant(milliseconds: int) -> str:
    """To the millisecond, as the chain has it; beyond the calendar, as a number (the chain has no such end)."""
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{milliseconds} ms is no date that a credential can have") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"


def _millis(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise Rejected(Code.E_FORMAT, f"{text[:40]!r} is not a time as credentials have it") from error
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
