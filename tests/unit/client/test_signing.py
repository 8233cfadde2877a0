"""F-20, F-11: a registration is signed by the patient and by the organisation, each with a key that stays at home."""

import json

import pytest

from p2pledger.chain.transaction import check_signatures
from p2pledger.client.keyring import Wallet
from p2pledger.client.signing import Draft
from p2pledger.health.operations import IdentityRegister
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Millis, Nonce
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import BERG, World

PERSON = Wallet(bytes(range(32))).at(id16("Berg"))


def draft(world: World) -> Draft:
    registration = PERSON.registration("patient", hash32("identity check"))
    expires = Millis(world.now_ms + 60_000)
    return Draft.new(world.chain, PERSON.account, Nonce(1), expires, [registration], [AccountKey(BERG.public)])


def test_two_signatures_made_apart_register_a_patient() -> None:
    """The wallet signs, the text travels, the hospital reads and cosigns; the chain registers."""
    world = World()
    sent = draft(world).signed(PERSON.signing).dump()
    received = Draft.load(sent)
    assert received.missing == (BERG.public,)
    (operation,) = received.operations
    assert isinstance(operation, IdentityRegister) and operation.did == PERSON.did
    transaction = Draft.load(received.signed(BERG).dump()).transaction()
    check_signatures(transaction)
    (receipt,) = world.run(transaction.data).receipts
    assert receipt.receipt.code == Code.OK


def test_signatures_may_come_in_any_order() -> None:
    world = World()
    base = draft(world)
    first = base.signed(BERG).signed(PERSON.signing).transaction()
    second = base.signed(PERSON.signing).joined(base.signed(BERG).signatures).transaction()
    assert first.data == second.data


def test_a_draft_holds_no_secrets_and_reads_plainly() -> None:
    text = draft(World()).signed(PERSON.signing).dump()
    assert PERSON.signing.seed.hex() not in text
    (reads,) = json.loads(text)["reads"]
    assert (reads["operation"], reads["kind"], reads["did"]) == ("IdentityRegister", "patient", PERSON.did.hex())


def test_an_unfinished_draft_is_no_transaction() -> None:
    with pytest.raises(Rejected, match=BERG.public.hex()) as refused:
        draft(World()).signed(PERSON.signing).transaction()
    assert refused.value.code is Code.E_COSIGNERS


def test_who_has_no_part_cannot_sign() -> None:
    with pytest.raises(InvalidInput, match="neither the sender nor a cosigner"):
        draft(World()).signed(key("Tal"))


def test_drafts_that_were_tampered_with_are_refused() -> None:
    """Other operations beside the body that was signed, a stranger's or a wrong signature, noise."""
    world = World()
    made = draft(world).signed(PERSON.signing)
    other = Draft.new(world.chain, PERSON.account, Nonce(2), Millis(5), [PERSON.registration("patient", hash32("x"))])
    parts = json.loads(made.dump())
    stranger = SigningKey(bytes(32))
    for changes, words in (
        ({"operations": other.operations_bytes.hex()}, "not those that its body names"),
        ({"body": other.body_bytes.hex()}, "not those that its body names"),
        ({"signatures": {stranger.public.hex(): "00" * 64}}, "neither the sender nor a cosigner"),
        ({"signatures": {PERSON.account.hex(): "00" * 64}}, "does not verify"),
        ({"format": "p2pledger/draft/9"}, "this version reads"),
        ({"body": "zz"}, "not a draft"),
        ({"signatures": []}, "not a draft"),
    ):
        with pytest.raises(InvalidInput, match=words):
            Draft.load(json.dumps({**parts, **changes}))
    for text in ("", "[]", "{}", "[" * 10_000, " " * 10**6):
        with pytest.raises(InvalidInput):
            Draft.load(text)
