"""The founding ceremony: who may found, and what all of them must have signed."""

import hashlib

import msgspec
import pytest

from p2pledger.chain.genesis import (
    Card,
    Genesis,
    Parameters,
    SignedCard,
    assemble,
    check_card,
    check_genesis,
    combine,
    parse_genesis,
    sign_card,
    sign_genesis,
)
from p2pledger.chain.validators import Validator, ValidatorSet
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import AccountKey, Millis, NodeId, ValidatorId
from p2pledger.sim.founding import seeded_key


def account(i: int) -> SigningKey:
    return seeded_key("account", i)


def card(i: int, **changes: object) -> SignedCard:
    plain = Card(
        hashlib.sha256(b"organisation %d" % i).digest()[:16],
        f"Member {i}",
        "hospital",
        AccountKey(account(i).public),
        bytes(32),
        ValidatorId(seeded_key("consensus", i).public),
        NodeId(seeded_key("node", i).public),
        b"",
    )
    return sign_card(msgspec.structs.replace(plain, **changes), account(i))


def genesis(n: int = 4, parameters: Parameters | None = None) -> Genesis:
    return assemble("Test", Millis(1_000), parameters or Parameters(), [card(i) for i in range(n)])


def test_a_genesis_signed_by_all_is_accepted() -> None:
    founded = genesis()
    signed = combine(founded, {AccountKey(account(i).public): sign_genesis(founded, account(i)) for i in range(4)})
    assert parse_genesis(encode(signed)) == signed


def test_one_missing_or_wrong_signature_founds_nothing() -> None:
    founded = genesis()
    signatures = {AccountKey(account(i).public): sign_genesis(founded, account(i)) for i in range(4)}
    with pytest.raises(InvalidInput, match="lacks the signature of Member 2"):
        combine(founded, {key: value for key, value in signatures.items() if key != account(2).public})
    with pytest.raises(InvalidInput, match="is not signed by 'Member 2'"):
        combine(founded, {**signatures, AccountKey(account(2).public): sign_genesis(founded, account(1))})


def test_whatever_is_changed_is_another_chain_that_nobody_signed() -> None:
    founded = genesis()
    signed = combine(founded, {AccountKey(account(i).public): sign_genesis(founded, account(i)) for i in range(4)})
    other = msgspec.structs.replace(founded, parameters=Parameters(window=8))
    assert other.chain != founded.chain
    with pytest.raises(InvalidInput, match="is not signed by"):
        check_genesis(msgspec.structs.replace(signed, genesis=other))


def test_a_card_needs_its_owners_signature_and_three_different_real_keys() -> None:
    good = card(0)
    assert check_card(good) == good.card
    with pytest.raises(InvalidInput, match="not signed by its account key"):
        check_card(msgspec.structs.replace(good, card=msgspec.structs.replace(good.card, name="Somebody else")))
    with pytest.raises(InvalidInput, match="one key for two purposes"):
        check_card(card(0, node=NodeId(good.card.validator)))
    with pytest.raises(InvalidInput, match="is not an Ed25519 public key"):
        check_card(card(0, node=NodeId(bytes(32))))


@pytest.mark.parametrize(
    ("what", "cards"),
    [
        ("distinct", [card(0), card(0)]),
        ("share one name", [card(0), card(1, name="Member 0")]),
        ("share one key", [card(0), card(1, validator=card(0).card.validator)]),
        ("share one key", [card(0), card(1, node=card(0).card.node)]),
        ("share one key", [card(0), card(1, node=NodeId(card(0).card.account))]),
        ("share one key", [card(0), card(1, validator=ValidatorId(card(0).card.node))]),
    ],
)
def test_members_share_nothing(what: str, cards: list[SignedCard]) -> None:
    with pytest.raises(InvalidInput, match=what):
        assemble("Test", Millis(1), Parameters(), cards)


def test_a_cap_below_the_timeout_is_refused() -> None:
    with pytest.raises(InvalidInput, match="below the timeout"):
        genesis(parameters=Parameters(timeout_ms=2_000, timeout_cap_ms=1_000))


def test_no_organisation_holds_more_than_f_seats() -> None:
    """More than f seats in one hand could stop or fork the chain."""
    seats = [
        Validator(ValidatorId(bytes([i]) * 32), NodeId(bytes([i + 100]) * 32), bytes([min(i, 5)]) * 16)
        for i in range(7)
    ]
    assert ValidatorSet.of(seats).f == 2
    greedy = [
        msgspec.structs.replace(seat, organisation=bytes([9]) * 16) if i < 3 else seat for i, seat in enumerate(seats)
    ]
    with pytest.raises(InvalidInput, match="holds 3 of 7 seats, allowed are 2"):
        ValidatorSet.of(greedy)
