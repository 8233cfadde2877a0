"""F-21: credentials as VC-JWT. A good signature is not enough: the chain must have the very token, and have it now."""

import base64
import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pledger.client import credentials
from p2pledger.client.credentials import Signer, Statement, commitment, issue, present
from p2pledger.client.did_documents import resolve
from p2pledger.client.ledger import LedgerClient
from p2pledger.health.did import Did
from p2pledger.health.identity_operations import KeyRevoke, OrganisationKeyRotate, OrganisationSuspend
from p2pledger.health.operations import CredentialIssue, CredentialRevoke, IdentitySuspend, KeyRotate
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import ChainId, Millis
from tests.unit.client.chain import Chain
from tests.unit.client.nodes import HonestNode, client_of
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.world import BERG, DOCTOR, PATIENT, SEE, TAL, account

DID = id16("doctor")
NONCE = "a nonce of the verifier"


class Office:
    """A chain on which Tal has issued a nurse's credential to the doctor; `token` is what the doctor carries."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.tal = Did(self.chain.chain, id16("Tal"))
        self.doctor = Did(self.chain.chain, DID)
        self.start = self.chain.now_ms
        self.end = self.start + HOUR_MS
        self.token = issue(Signer(self.tal, 1, TAL), DID, "nurse", "RN 1234", self.start, self.end)
        self.enter(self.token)

    def enter(self, token: str, sender: SigningKey = TAL, **changes: Any) -> None:
        entry = CredentialIssue(DID, "nurse", commitment(token), Millis(self.start), Millis(self.end))
        assert self.chain.submit(sender, replace(entry, **changes)) == Code.OK
        self.chain.tick()

    def does(self, sender: SigningKey, *operations: Any, cosigners: Any = ()) -> None:
        assert self.chain.submit(sender, *operations, cosigners=cosigners) == Code.OK
        self.chain.tick()

    async def verify(self, token: str | None = None, now_ms: int | None = None, by: SigningKey = PATIENT) -> Statement:
        now = self.chain.now_ms if now_ms is None else now_ms
        return await self.asked(by, lambda ledger: credentials.verify_credential(ledger, token or self.token, now))

    async def refusal(self, token: str | None = None, now_ms: int | None = None) -> Code:
        with pytest.raises(Rejected) as refused:
            await self.verify(token, now_ms)
        return refused.value.code

    async def shown(self, presentation: str, audience: str = "Berg", nonce: str = NONCE) -> Statement:
        now = self.chain.now_ms
        return await self.asked(
            BERG, lambda ledger: credentials.verify_presentation(ledger, presentation, audience, nonce, now)
        )

    async def asked(self, by: SigningKey, work: Callable[[LedgerClient], Awaitable[Statement]]) -> Statement:
        """What `work` makes of a client; what it raises comes out of the nursery as it is."""
        failure: Rejected | None = None
        async with client_of(self.chain, [HonestNode(self.chain)], by) as ledger:
            try:
                return await work(ledger)
            except Rejected as error:
                failure = error
        raise failure


@pytest.fixture
def office() -> Office:
    return Office()


async def test_a_patient_verifies_what_a_practitioner_shows(office: Office) -> None:
    """The licence is in the token and nowhere on the chain (F-29)."""
    assert await office.verify() == Statement(office.tal, office.doctor, "nurse", "RN 1234", office.start, office.end)
    written = b"".join(data for _, data in office.chain.state.scan(b""))
    assert b"RN 1234" not in written and commitment(office.token) in written


async def test_it_is_a_verifiable_credential_in_the_words_of_the_standard(office: Office) -> None:
    """VC Data Model 2.0, vc+jwt, alg Ed25519, a key id that the DID document has."""
    header, claims, _ = (json.loads(_decoded(part)) if place < 2 else part for place, part in _parts(office.token))
    assert (header["alg"], header["typ"]) == ("Ed25519", "vc+jwt")
    async with client_of(office.chain, [HonestNode(office.chain)], BERG) as ledger:
        document = (await resolve(ledger, office.tal)).document
    assert header["kid"] in document["assertionMethod"]
    assert claims["@context"][0] == "https://www.w3.org/ns/credentials/v2"
    assert claims["type"][0] == "VerifiableCredential" and claims["issuer"] == str(office.tal)
    assert claims["credentialSubject"]["id"] == str(office.doctor)


def _parts(token: str) -> list[tuple[int, str]]:
    return list(enumerate(token.split(".")))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_it_ends_with_its_entry_on_the_chain(office: Office) -> None:
    """Before and after its period to the millisecond, and from the block that takes it back."""
    assert await office.refusal(now_ms=office.start - 1) == Code.E_NOT_YET
    assert await office.verify(now_ms=office.start) == await office.verify(now_ms=office.end - 1)
    assert await office.refusal(now_ms=office.end) == Code.E_EXPIRED
    office.does(TAL, CredentialRevoke(DID, "nurse"))
    assert await office.refusal() == Code.E_REVOKED


async def test_a_suspended_issuer_or_subject_is_refused(office: Office) -> None:
    office.does(TAL, IdentitySuspend(DID))
    assert await office.refusal() == Code.E_SUSPENDED
    other = Office()
    other.does(BERG, OrganisationSuspend(id16("Tal")), cosigners=[SEE])
    assert await other.refusal() == Code.E_SUSPENDED
    third = Office()
    third.does(TAL, KeyRevoke(DID, account("doctor")))
    assert await third.refusal() == Code.E_SUSPENDED


async def test_a_signature_alone_proves_nothing(office: Office) -> None:
    """Tal's own signature under a token that the chain does not have, or has with another period."""
    signer = Signer(office.tal, 1, TAL)
    unknown = issue(signer, DID, "nurse", "RN 1234", office.start, office.end)
    assert unknown != office.token, "two tokens are never equal"
    assert await office.refusal(unknown) == Code.E_COMMIT_MISMATCH
    longer = issue(signer, DID, "nurse", "RN 1234", office.start, office.end + 1)
    office.does(TAL, CredentialRevoke(DID, "nurse"))
    office.enter(longer)
    assert await office.refusal(longer) == Code.E_COMMIT_MISMATCH


async def test_another_house_vouches_for_nobody_elses_people(office: Office) -> None:
    """Neither under its own name nor, without the key, under the employer's."""
    own = issue(Signer(Did(office.chain.chain, id16("Berg")), 1, BERG), DID, "nurse", "x", office.start, office.end)
    assert await office.refusal(own) == Code.E_CREDENTIAL
    forged = issue(Signer(office.tal, 1, BERG), DID, "nurse", "x", office.start, office.end)
    assert await office.refusal(forged) == Code.E_SIG
    later = issue(Signer(office.tal, 2, TAL), DID, "nurse", "x", office.start, office.end)
    assert await office.refusal(later) == Code.E_SIG, "Tal has had one key"


async def test_an_older_key_of_the_issuer_still_vouches(office: Office) -> None:
    """What the chain has entered stays good when the organisation rotates."""
    office.does(TAL, OrganisationKeyRotate(account("Tal 2"), hash32("box")), cosigners=[key("Tal 2")])
    assert (await office.verify()).licence == "RN 1234"


async def test_dids_of_elsewhere(office: Office) -> None:
    elsewhere = Signer(Did(ChainId(bytes(32)), id16("Tal")), 1, TAL)
    assert await office.refusal(issue(elsewhere, DID, "nurse", "x", office.start, office.end)) == Code.E_CHAIN
    nobody = Signer(Did(office.chain.chain, id16("Nowhere")), 1, TAL)
    assert await office.refusal(issue(nobody, DID, "nurse", "x", office.start, office.end)) == Code.E_ROLE, (
        "a patient does not learn whether there is somebody of that name"
    )
    person = Signer(office.doctor, 1, DOCTOR)
    assert await office.refusal(issue(person, DID, "nurse", "x", office.start, office.end)) == Code.E_CREDENTIAL


@pytest.mark.parametrize(
    "change",
    [
        lambda header: {**header, "alg": "none"},
        lambda header: {**header, "alg": "HS256"},
        lambda header: {**header, "alg": "EdDSA"},
        lambda header: {**header, "typ": "JWT"},
        lambda header: {name: value for name, value in header.items() if name != "kid"},
        lambda header: {**header, "kid": header["kid"].replace("#key", "#box")},
        lambda header: {**header, "kid": 7},
    ],
)
async def test_other_algorithms_and_kinds_of_token_are_refused(
    office: Office, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """No algorithm that the token chooses: `none`, and a public key as a shared secret, are the classics."""
    header, claims, signature = office.token.split(".")
    changed = base64.urlsafe_b64encode(json.dumps(change(json.loads(_decoded(header)))).encode()).rstrip(b"=").decode()
    assert await office.refusal(f"{changed}.{claims}.{signature}") == Code.E_FORMAT


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_token_is_never_taken(data: st.DataObject) -> None:
    """One letter anywhere: another format, another signature, or another hash; never an exception of a library."""
    office = _office()
    place = data.draw(st.integers(0, len(office.token) - 1))
    letter = data.draw(st.sampled_from("AZaz09-_.="))
    changed = office.token[:place] + letter + office.token[place + 1 :]
    if changed != office.token:
        code = trio.run(office.refusal, changed)
        named = (Code.E_CHAIN, Code.E_NOT_FOUND, Code.E_ROLE)  # E_ROLE: a name that is no member any more
        assert code in (Code.E_FORMAT, Code.E_SIG, Code.E_COMMIT_MISMATCH, *named)


async def test_what_is_too_long_is_not_read(office: Office) -> None:
    assert await office.refusal("x" * 100_000) == Code.E_FORMAT
    for licence in ("", "x" * 1_000):
        with pytest.raises(InvalidInput, match="licence of"):
            issue(Signer(office.tal, 1, TAL), DID, "nurse", licence, 0, 1)


@cache
def _office() -> Office:
    """One chain for all examples: nothing is entered into it."""
    return Office()


# Presentations


async def test_a_holder_shows_it_to_one_verifier(office: Office) -> None:
    """Audience and nonce are the verifier's; another one cannot show it on."""
    shown = present(Signer(office.doctor, 1, DOCTOR), office.token, "Berg", NONCE, office.chain.now_ms // 1000)
    assert (await office.shown(shown)).role == "nurse"
    for audience, nonce in (("See", NONCE), ("Berg", "another")):
        with pytest.raises(Rejected, match="E_POP"):
            await office.shown(shown, audience, nonce)


async def test_only_its_subject_shows_a_credential(office: Office) -> None:
    """A stolen token is of no use without the key, and a stolen key not after its rotation."""
    now_s = office.chain.now_ms // 1000
    office.chain.register("thief", "practitioner", BERG, "Berg")
    office.chain.tick()
    thief = Signer(Did(office.chain.chain, id16("thief")), 1, key("thief"))
    for signer in (thief, Signer(office.doctor, 1, key("thief"))):
        with pytest.raises(Rejected, match="E_SIG"):
            await office.shown(present(signer, office.token, "Berg", NONCE, now_s))
    old = present(Signer(office.doctor, 1, DOCTOR), office.token, "Berg", NONCE, now_s)
    office.does(DOCTOR, KeyRotate(DID, account("doctor 2"), hash32("box")), cosigners=[key("doctor 2")])
    with pytest.raises(Rejected, match="is retired"):
        await office.shown(old)
    new = present(Signer(office.doctor, 2, key("doctor 2")), office.token, "Berg", NONCE, now_s)
    assert (await office.shown(new)).subject == office.doctor


async def test_a_presentation_lives_for_minutes(office: Office) -> None:
    signer, now_s = Signer(office.doctor, 1, DOCTOR), office.chain.now_ms // 1000
    with pytest.raises(Rejected, match="E_EXPIRED"):
        await office.shown(present(signer, office.token, "Berg", NONCE, now_s - 500))
    with pytest.raises(InvalidInput, match="601 s"):
        present(signer, office.token, "Berg", NONCE, now_s, 601)


async def test_who_signs_uses_the_current_key(office: Office) -> None:
    async with client_of(office.chain, [HonestNode(office.chain)], BERG) as ledger:
        found = await resolve(ledger, office.doctor)
    assert Signer.of(found, DOCTOR).number == 1
    with pytest.raises(InvalidInput, match="not the current key"):
        Signer.of(found, PATIENT)
