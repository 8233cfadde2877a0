"""Signing transactions: what a signature covers, and what nobody can change afterwards (F-11)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.chain.batch import check_batch, parse_batch, seal
from p2pledger.chain.transaction import Envelope, Transaction, assemble, build_body, check_signatures, parse, sign
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, ChainId, Millis, Nonce, Signature
from p2pledger.sim.application import Put
from p2pledger.sim.founding import seeded_key
from p2pledger.sim.world import World

CHAIN = ChainId(bytes([7]) * 32)
SENDER, GUARDIAN, SPONSOR = (seeded_key("person", i) for i in range(3))


def signed(nonce: int = 1, cosigners: tuple[int, ...] = (), chain: ChainId = CHAIN) -> bytes:
    others = [[GUARDIAN, SPONSOR][i] for i in cosigners]
    return sign(chain, SENDER, Nonce(nonce), Millis(10_000), [Put(b"k", b"v")], others)


def accepted(data: bytes) -> Transaction | None:
    try:
        transaction = parse(data)
        check_signatures(transaction)
    except InvalidInput:
        return None
    return transaction


@pytest.mark.parametrize("cosigners", [(), (0,), (0, 1)])
def test_what_was_signed_is_accepted(cosigners: tuple[int, ...]) -> None:
    transaction = accepted(signed(cosigners=cosigners))
    assert transaction is not None
    assert transaction.body.sender == SENDER.public
    assert len(transaction.body.cosigners) == len(cosigners)


@given(st.data())
def test_no_flipped_bit_is_accepted_as_another_transaction(data: st.DataObject) -> None:
    """Every bit is under a signature, or is one."""
    raw = bytearray(signed(cosigners=(0,)))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    assert accepted(bytes(raw)) is None


def test_operations_cannot_be_exchanged_under_a_signature() -> None:
    """They travel beside the body; its hash of them holds them."""
    envelope = parse(signed()).envelope
    other = encode((Put(b"k", b"other"),))
    with pytest.raises(Rejected, match="operations hash to"):
        parse(assemble(envelope.body, other, envelope.signatures))


def test_a_signature_for_one_chain_is_worth_nothing_on_another() -> None:
    """F-11: the very bytes that one chain accepts are refused by the other."""
    transaction = parse(signed())
    origin = seeded_key("node")
    data = seal(CHAIN, origin, 1, [transaction.data])
    assert check_batch(CHAIN, parse_batch(data))[0].id == transaction.id
    elsewhere = ChainId(bytes([8]) * 32)
    with pytest.raises(InvalidInput, match="is for chain"):
        check_batch(elsewhere, parse_batch(seal(elsewhere, origin, 1, [transaction.data])))


def test_a_nonce_runs_at_most_once() -> None:
    """F-11: the same transaction handed to every node runs once; another with its nonce is turned away."""
    world = World(5)
    world.run_until(100)
    key = world.submit(0)
    world.run_until(1_000)
    world.clients.reuse(0)
    again = world.submit(1, value=b"other", sender=0)
    world.run_until(3_000)
    assert key is not None and world.observer.is_executed(key)
    assert again is not None and not world.observer.is_executed(again)


@pytest.mark.parametrize(
    ("code", "cosigners", "signatures"),
    [
        (Code.E_COSIGNERS, [GUARDIAN.public, SPONSOR.public], 2),
        (Code.E_COSIGNERS, [], 2),
        (Code.E_COSIGNERS, [SENDER.public], 2),
        (Code.E_COSIGNERS, [GUARDIAN.public, GUARDIAN.public], 3),
        (Code.E_COSIGNERS, [bytes([i]) * 32 for i in range(limits.COSIGNERS_MAX + 1)], limits.COSIGNERS_MAX + 2),
    ],
)
def test_signers_are_distinct_sorted_counted_and_bounded(code: Code, cosigners: list[bytes], signatures: int) -> None:
    body, operations = build_body(
        CHAIN, AccountKey(SENDER.public), Nonce(1), Millis(1), [Put(b"", b"")], [AccountKey(key) for key in cosigners]
    )
    with pytest.raises(Rejected) as refused:
        parse(encode(Envelope(tuple([Signature(bytes(64))] * signatures), body, operations)))
    assert refused.value.code == code


def test_a_cosigner_cannot_be_replaced() -> None:
    """One's signature does not stand for another's."""
    transaction = parse(signed(cosigners=(0, 1)))
    first, second, third = transaction.envelope.signatures
    swapped = msgspec.structs.replace(transaction.envelope, signatures=(first, third, second))
    with pytest.raises(Rejected, match="does not verify"):
        check_signatures(parse(encode(swapped)))


def test_what_is_too_large_says_so() -> None:
    with pytest.raises(Rejected) as refused:
        parse(bytes(limits.TRANSACTION_BYTES_MAX + 1))
    assert refused.value.code == Code.E_TOO_LARGE
