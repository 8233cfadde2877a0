"""F-20: a wallet on paper. The words are those of BIP-39, and a slip of the pen is noticed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.client.phrase import phrase_of, secret_of
from p2pledger.primitives.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bip39.json").read_text())["english"]


@pytest.mark.parametrize(("entropy", "words"), VECTORS)
def test_the_official_vectors(entropy: str, words: str) -> None:
    """Both ways, 24 of them, for 12, 18 and 24 words."""
    assert phrase_of(bytes.fromhex(entropy)) == words
    assert secret_of(words).hex() == entropy


@given(st.binary(min_size=32, max_size=32), st.integers(0, 23), st.integers(1, 2047))
def test_words_and_secrets_are_one(secret: bytes, place: int, shift: int) -> None:
    """There and back, written large, shortened to four letters; another word in any place is another secret or none."""
    words = phrase_of(secret).split()
    assert len(words) == 24
    assert secret_of(" ".join(words).upper()) == secret_of("\n".join(word[:4] for word in words)) == secret
    listed = VECTORS[0][1].split()[0]
    words[place] = listed if words[place] != listed else "zoo"
    try:
        assert secret_of(" ".join(words)) != secret
    except InvalidInput as error:
        assert "checksum" in str(error)


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("", "0 words"),
        ("abandon " * 23, "23 words"),
        ("abandon " * 23 + "abandonment", "word 24 of"),
        ("abandon " * 11 + "xyzzy", "word 12 of"),
        ("aband" + " abandon" * 10 + " abou", None),
        ("abandon " * 12, "checksum"),
        ("about " + "abandon " * 11, "checksum"),
    ],
)
def test_what_is_no_phrase_is_named_by_its_place(phrase: str, said: str | None) -> None:
    """And never repeated: an error must not put a secret on the screen."""
    if said is None:
        assert secret_of(phrase) == bytes(16)
        return
    with pytest.raises(InvalidInput, match=said) as raised:
        secret_of(phrase)
    assert "abandon" not in str(raised.value) and "xyzzy" not in str(raised.value)
