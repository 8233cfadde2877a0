"""The bytes on record are the bytes of today, and mean what the protocol says by an independent computation."""

import json
from hashlib import blake2b
from typing import Any

import msgpack
import pytest
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from p2pledger.threshold.group import SECOND_GENERATOR
from tests.vectors import edwards
from tests.vectors.edwards import BASE, ORDER, Pair
from tests.vectors.generate_threshold import PATH, vectors


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(PATH.read_text())
    return loaded


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def hashed(purpose: bytes, data: bytes, key: bytes = b"") -> bytes:
    """64 bytes of BLAKE2b over length of purpose ‖ purpose ‖ data."""
    return blake2b(bytes([len(purpose)]) + purpose + data, digest_size=64, key=key).digest()


def interpolated(shares: dict[int, int]) -> int:
    """Lagrange at 0."""
    value = 0
    for i, share in shares.items():
        part = share
        for j in shares:
            if j != i:
                part = part * j * pow(j - i, -1, ORDER) % ORDER
        value = (value + part) % ORDER
    return value


def commitments(deal: str) -> list[Pair]:
    return [edwards.decode(point) for point in msgpack.unpackb(bytes.fromhex(deal))[0]]


def test_the_bytes_have_not_changed(kept: dict[str, Any]) -> None:
    assert kept == vectors()


@pytest.mark.parametrize("name", ["ceremony", "resharing"])
def test_shares_are_those_of_the_joint_key(kept: dict[str, Any], name: str) -> None:
    """Any three interpolate to the x of X = x·B, and each is p(i) of the joint commitments."""
    made = kept[name]
    key_epoch, share_epoch, holders, joint = msgpack.unpackb(bytes.fromhex(made["key"]))
    assert (key_epoch, share_epoch, holders, len(joint)) == (1, name == "resharing", 4, 3)
    shares = {i: number(bytes.fromhex(share)) for i, share in enumerate(made["shares"], start=1)}
    for left_out in shares:
        three = {i: share for i, share in shares.items() if i != left_out}
        assert edwards.encode(edwards.times(interpolated(three), BASE)) == joint[0]
    for i, share in shares.items():
        expected = edwards.IDENTITY
        for power, point in enumerate(joint):
            expected = edwards.add(expected, edwards.times(i**power, edwards.decode(point)))
        assert edwards.times(share, BASE) == expected


def test_the_joint_key_is_the_sum_of_the_deals(kept: dict[str, Any]) -> None:
    made = kept["ceremony"]
    total = edwards.IDENTITY
    for deal in made["deals"].values():
        total = edwards.add(total, commitments(deal)[0])
    assert edwards.encode(total) == msgpack.unpackb(bytes.fromhex(made["key"]))[3][0]


def test_a_resharing_keeps_the_joint_key(kept: dict[str, Any]) -> None:
    """I-10."""
    before, after = (msgpack.unpackb(bytes.fromhex(kept[name]["key"]))[3] for name in ("ceremony", "resharing"))
    assert before[0] == after[0]
    assert before[1:] != after[1:]
    assert not set(kept["ceremony"]["shares"]) & set(kept["resharing"]["shares"])


def test_the_capsule_proves_its_label_and_opens_with_three_shares(kept: dict[str, Any]) -> None:
    u, u_bar, e, z, wrapped = msgpack.unpackb(bytes.fromhex(kept["long_term"]["capsule"]))
    label = bytes.fromhex(kept["label"])
    second = edwards.decode(SECOND_GENERATOR)
    points = []
    for generator, point in ((BASE, u), (second, u_bar)):
        shown = edwards.negative(edwards.times(number(e), edwards.decode(point)))
        points.append(edwards.encode(edwards.add(edwards.times(number(z), generator), shown)))
    data = msgpack.packb([msgpack.unpackb(label), wrapped, u, u_bar, *points])
    assert number(hashed(b"p2pl/capsule-proof/1", data)) % ORDER == number(e)
    shares = [number(bytes.fromhex(share)) for share in kept["ceremony"]["shares"]]
    x = interpolated(dict(enumerate(shares[:3], start=1)))
    secret = edwards.encode(edwards.times(x, edwards.decode(u)))
    key = hashed(b"p2pl/capsule-key/1", label, secret)[:32]
    opened = crypto_aead_xchacha20poly1305_ietf_decrypt(wrapped, label, bytes(24), key)
    assert opened.hex() == kept["content_key"]


def test_the_second_generator_is_in_the_group_and_is_no_known_multiple() -> None:
    second = edwards.decode(SECOND_GENERATOR)
    assert edwards.times(ORDER, second) == edwards.IDENTITY
    assert all(edwards.encode(edwards.times(factor, BASE)) != SECOND_GENERATOR for factor in range(1, 50))
