"""Forged transactions, cards and genesis documents: each is taken without the one rule that it breaks."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain import genesis as founding
from p2pledger.chain import transaction as signing
from p2pledger.chain import validators
from p2pledger.chain.genesis import Parameters, SignedCard, SignedGenesis, check_card, check_genesis, combine
from p2pledger.chain.genesis import sign_genesis as signed_by
from p2pledger.chain.transaction import Envelope, Transaction, assemble, build_body, check_signatures, parse
from p2pledger.chain.validators import Validator, ValidatorSet
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Millis, NodeId, Nonce, Signature, ValidatorId
from p2pledger.sim.application import Put
from tests.attack import Check, Without
from tests.unit.chain.test_genesis import account, card, genesis
from tests.unit.chain.test_transaction import CHAIN, GUARDIAN, SENDER, SPONSOR, signed

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of edwards25519 (RFC 8032, 5.1)."""


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except InvalidInput:
        return True
    return False


def taken(data: bytes) -> Transaction:
    transaction = parse(data)
    check_signatures(transaction)
    return transaction


# Transactions


@pytest.mark.attack("T11")
def test_a_malleated_signature_is_no_second_transaction(without: Without) -> None:
    """S + L verifies by the bare equation. The id does not cover signatures, so it would be the same transaction."""
    genuine = parse(signed())
    (signature,) = genuine.envelope.signatures
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    bent = Signature(signature[:32] + scalar.to_bytes(32, "little"))
    malleated = encode(replace(genuine.envelope, signatures=(bent,)))
    with without(signing.check_signatures, "if not verify("):
        assert taken(malleated).id == genuine.id
    assert is_refused(lambda: taken(malleated))


@pytest.mark.attack("T11")
@pytest.mark.parametrize("small", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_small_order_key_founds_nothing(without: Without, small: bytes) -> None:
    """Under such a key one signature is good for many messages."""
    weak = card(0, validator=ValidatorId(small))
    with without(founding.check_card, "if not is_public_key(key)"):
        assert check_card(weak).validator == small
    assert is_refused(lambda: check_card(weak))


@pytest.mark.attack("T12")
def test_operations_cannot_be_exchanged_under_a_signature(without: Without) -> None:
    """F-11: they travel beside the body."""
    envelope = parse(signed()).envelope
    exchanged = assemble(envelope.body, encode((Put(b"k", b"other"),)), envelope.signatures)
    with without(signing.parse, "if sha256(envelope.operations) != body.operations_hash"):
        assert taken(exchanged).envelope.operations != envelope.operations
    assert is_refused(lambda: taken(exchanged))


@pytest.mark.attack("T12")
def test_a_changed_body_is_nobodys(without: Without) -> None:
    """F-11: another nonce under the signature of the first one."""
    first, second = parse(signed(nonce=1)), parse(signed(nonce=2))
    forged = assemble(second.envelope.body, second.envelope.operations, first.envelope.signatures)
    with without(signing.check_signatures, "if not verify("):
        assert taken(forged).body.nonce == 2
    assert is_refused(lambda: taken(forged))


def swapped_cosigners() -> bytes:
    envelope = parse(signed(cosigners=(0, 1))).envelope
    first, second, third = envelope.signatures
    return encode(replace(envelope, signatures=(first, third, second)))


def cosigned(*keys: bytes, signatures: int | None = None) -> bytes:
    ordered = [AccountKey(key) for key in keys]
    body, operations = build_body(CHAIN, AccountKey(SENDER.public), Nonce(1), Millis(1), [Put(b"", b"")], ordered)
    count = 1 + len(keys) if signatures is None else signatures
    return encode(Envelope((Signature(bytes(64)),) * count, body, operations))


TOO_MANY = [number.to_bytes(32, "big") for number in range(limits.COSIGNERS_MAX + 1)]


@pytest.mark.attack("T40")
@pytest.mark.parametrize(
    ("check", "data", "code"),
    [
        (
            Check(signing._check_cosigners, "if len(cosigners) > limits.COSIGNERS_MAX"),
            cosigned(*TOO_MANY),
            Code.E_COSIGNERS,
        ),
        (
            Check(signing._check_cosigners, "if any((a >= b"),
            cosigned(GUARDIAN.public, GUARDIAN.public),
            Code.E_COSIGNERS,
        ),
        (Check(signing._check_cosigners, "if body.sender in cosigners"), cosigned(SENDER.public), Code.E_COSIGNERS),
        (
            Check(signing._check_cosigners, "if len(envelope.signatures) != 1 + len(cosigners)"),
            cosigned(SPONSOR.public, signatures=1),
            Code.E_COSIGNERS,
        ),
    ],
    ids=["too many", "one twice", "the sender itself", "one that did not sign"],
)
def test_cosigners_are_distinct_others_who_signed(without: Without, check: Check, data: bytes, code: Code) -> None:
    with without(*check):
        parse(data)
    with pytest.raises(Rejected) as refused:
        parse(data)
    assert refused.value.code is code


@pytest.mark.attack("T40")
def test_one_cosigners_signature_does_not_stand_for_anothers(without: Without) -> None:
    with without(signing.check_signatures, "if not verify("):
        taken(swapped_cosigners())
    assert is_refused(lambda: taken(swapped_cosigners()))


# Founding


def renamed() -> SignedCard:
    good = card(0)
    return replace(good, card=replace(good.card, name="Somebody else"))


@pytest.mark.attack("T44")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(founding.check_card, "if not verify("), renamed()),
        (Check(founding.check_card, "if len(set(keys)) != 3"), card(0, node=NodeId(card(0).card.validator))),
    ],
    ids=["changed on its way", "one key for two purposes"],
)
def test_a_card_is_its_owners(without: Without, check: Check, forged: SignedCard) -> None:
    with without(*check):
        check_card(forged)
    assert is_refused(lambda: check_card(forged))


def whole() -> SignedGenesis:
    made = genesis()
    return combine(made, {AccountKey(account(i).public): signed_by(made, account(i)) for i in range(4)})


def without_one_signature() -> SignedGenesis:
    good = whole()
    return replace(good, signatures=(good.signatures[1], *good.signatures[1:]))


def with_other_parameters() -> SignedGenesis:
    good = whole()
    return replace(good, genesis=replace(good.genesis, parameters=Parameters(window=8)))


def of_another_version() -> SignedGenesis:
    other = replace(genesis(), version=2)
    cards = other.cards
    keys = {account(i).public: account(i) for i in range(4)}
    return SignedGenesis(other, tuple(signed_by(other, keys[card.account]) for card in cards))


@pytest.mark.attack("T44")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(founding.check_genesis, "if not verify("), without_one_signature),
        (Check(founding.check_genesis, "if not verify("), with_other_parameters),
        (Check(founding.check_genesis, "if genesis.version != PROTOCOL_VERSION"), of_another_version),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_genesis_is_what_all_have_signed(without: Without, check: Check, forged: Callable[[], SignedGenesis]) -> None:
    with without(*check):
        check_genesis(forged())
    assert is_refused(lambda: check_genesis(forged()))


@pytest.mark.attack("T44")
@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (
            Check(founding._check_members, "raise InvalidInput('members of a genesis"),
            {"organisation": card(0).card.organisation},
        ),
        (Check(founding._check_members, "raise InvalidInput(f'two members share one"), {"name": "Member 0"}),
        (
            Check(founding._check_members, "raise InvalidInput(f'two members share one"),
            {"account": card(0).card.account},
        ),
    ],
    ids=["organisation", "name", "account"],
)
def test_members_share_nothing(without: Without, check: Check, changes: dict[str, Any]) -> None:
    """Who stands there twice has twice the say; of seven seats, two in one hand would be few enough."""
    cards = [signed.card for signed in (card(i) for i in range(7))]
    doubled = sorted([cards[0], replace(cards[1], **changes), *cards[2:]], key=lambda each: each.organisation)
    forged = replace(genesis(2), cards=tuple(doubled))
    with without(*check):
        founding._check_members(forged)
    assert is_refused(lambda: founding._check_members(forged))


def seats(n: int, of_one: int) -> list[Validator]:
    """n seats, of which one organisation holds so many."""
    return [
        Validator(ValidatorId(bytes([i]) * 32), NodeId(bytes([i + 100]) * 32), bytes([0 if i < of_one else i]) * 16)
        for i in range(n)
    ]


@pytest.mark.attack("T44")
@pytest.mark.parametrize(("n", "of_one"), [(4, 2), (7, 3)])
def test_no_organisation_holds_more_than_f_seats(without: Without, n: int, of_one: int) -> None:
    """It could stop or fork the chain all by itself."""
    with without(validators.ValidatorSet.of, "if held > seats_max"):
        assert ValidatorSet.of(seats(n, of_one)).n == n
    assert is_refused(lambda: ValidatorSet.of(seats(n, of_one)))


@pytest.mark.attack("T44")
@pytest.mark.parametrize("shared", ["id", "node"])
def test_no_key_holds_two_seats(without: Without, shared: str) -> None:
    """One key, two votes: the quorum would not be what it says."""
    four = seats(4, 1)
    doubled = [*four[:3], replace(four[3], **{shared: getattr(four[0], shared)})]
    with without(validators.ValidatorSet.of, "raise InvalidInput('two validators share"):
        assert ValidatorSet.of(doubled).n == 4
    assert is_refused(lambda: ValidatorSet.of(doubled))
