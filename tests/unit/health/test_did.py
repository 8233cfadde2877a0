"""F-20: dids have one spelling, and name a chain and 16 bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.health.did import Did, parse_did, parse_key_url
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId

CHAIN = ChainId(bytes(range(32)))
TEXT = str(Did(CHAIN, bytes(range(16))))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.integers(1, 10**9))
def test_there_and_back(chain: bytes, identifier: bytes, number: int) -> None:
    did = Did(ChainId(chain), identifier)
    assert parse_did(str(did)) == did
    assert parse_key_url(did.key_url(number)) == (did, number)


def test_how_one_looks() -> None:
    assert f"did:p2pl:{CHAIN.hex()}:aaaqeayeaudaocajbifqydiob4" == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:web:example.org",
        TEXT.upper(),
        TEXT[:-1],
        TEXT + "a",
        TEXT[:-1] + "5",
        TEXT + "#key-0",
        TEXT + "#key-01",
        TEXT + "#key-1",
        TEXT + "#",
        TEXT + "\n",
        TEXT.replace("did:p2pl:", "did:p2pl:ff"),
        "x" * 100_000,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """Other methods and lengths, capitals, fragments, and the unused bits of the last letter."""
    with pytest.raises(InvalidInput) as raised:
        parse_did(text)
    assert len(str(raised.value)) < 500


def test_a_box_key_signs_nothing() -> None:
    for text in (TEXT, Did(CHAIN, bytes(16)).box_url(1)):
        with pytest.raises(InvalidInput, match="signing key"):
            parse_key_url(text)
