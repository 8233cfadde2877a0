"""What keys in shares cost, counted in the library's products and not in time: those are nearly all of it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from msgspec.structs import replace

from p2pledger.primitives.codec import decode, encode
from p2pledger.threshold.group import base_times, public_scalar
from p2pledger.threshold.key_release import share_context
from p2pledger.threshold.long_term import ReleasedShare
from p2pledger.threshold.sealing import BoxSecret, Sealer, seal
from tests.unit.threshold.stage import ACCESS, CONTENT_KEY, LABEL, READER, long_term, random_of

POINT, POINT_CHECK, X25519 = (
    "crypto_scalarmult_ed25519_noclamp",
    "crypto_core_ed25519_is_valid_point",
    "crypto_scalarmult",
)
RECORDS = 5


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Calls of functions, by name, while the block runs."""
    calls: Counter[str] = Counter()

    def saw(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    before: Callable[..., object] | None = sys.getprofile()
    sys.setprofile(saw)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("n", [4, 16])
def test_a_share_costs_five_products_and_a_request_one_more(n: int) -> None:
    """However many holders there are: three for the capsule's proof, one for the share, one for its own proof."""
    keepers = long_term(n)
    labels = [replace(LABEL, index=index) for index in range(RECORDS)]
    capsules = [keepers.release.wrap(CONTENT_KEY, label, random_of("writer")) for label in labels]
    random = random_of("release")
    with counted() as calls:
        sealer = Sealer(READER.public, random)
        for capsule, label in zip(capsules, labels, strict=True):
            keepers.holders[0].release(capsule, label, ACCESS, random, sealer)
    assert (calls[POINT], calls[POINT_CHECK], calls[X25519]) == (5 * RECORDS, 0, 1)


@pytest.mark.parametrize("n", [4, 16])
def test_an_honest_record_costs_its_reader_one_product_a_share(n: int) -> None:
    """Nothing is verified that opens: t products, and one with each sender's ephemeral key for all its shares."""
    keepers = long_term(n)
    labels = [replace(LABEL, index=index) for index in range(RECORDS)]
    capsules = [keepers.release.wrap(CONTENT_KEY, label, random_of("writer")) for label in labels]
    shares: list[dict[int, bytes]] = [{} for _ in labels]
    for holder in keepers.holders:
        random = random_of(f"release {holder.index}")
        sealer = Sealer(READER.public, random)
        for place, label in enumerate(labels):
            shares[place][holder.index] = holder.release(capsules[place], label, ACCESS, random, sealer)
    reader = BoxSecret(READER._secret)
    with counted() as calls:
        for place, label in enumerate(labels):
            assert keepers.release.open(capsules[place], label, ACCESS, reader, shares[place]).wrong == ()
    t = keepers.release.threshold
    assert (calls[POINT], calls[POINT_CHECK], calls[X25519]) == (t * RECORDS, 0, t)


@pytest.mark.parametrize("n", [4, 16])
def test_a_liar_costs_a_reader_five_products_a_share_and_six(n: int) -> None:
    """A sum that opens nothing, the capsule's proof, t + 1 shares' proofs, and the sum without the liar."""
    keepers = long_term(n)
    capsule = keepers.release.wrap(CONTENT_KEY, LABEL, random_of("writer"))
    shares = {
        holder.index: holder.release(capsule, LABEL, ACCESS, random_of(f"release {holder.index}"))
        for holder in keepers.holders
    }
    context = share_context(capsule, LABEL, ACCESS, 1, 0)
    told = decode(ReleasedShare, READER.open(shares[1], context), 128)
    lie = encode(replace(told, image=base_times(public_scalar(7))))
    shares[1] = seal(READER.public, lie, context, random_of("liar"))
    keepers.release.open(capsule, LABEL, ACCESS, READER, shares)  # public shares are computed once a sharing
    with counted() as calls:
        assert keepers.release.open(capsule, LABEL, ACCESS, READER, shares).wrong == (1,)
    assert calls[POINT] == 5 * keepers.release.threshold + 6
