"""The bytes on record are the bytes of today, and mean what docs/guardians.md says by an independent computation."""

import json
from hashlib import blake2b, sha256
from typing import Any

import msgpack
import pytest
from nacl.signing import SigningKey, VerifyKey

from p2pledger.health.operations import decode_operations
from tests.vectors.generate_guardians import PATH, vectors


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(PATH.read_text())
    return loaded


def purpose(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def test_signed_and_hashed_bytes_have_not_changed(kept: dict[str, Any]) -> None:
    assert kept == vectors()


def test_a_guardians_key_follows_from_its_wallet_and_the_salt(kept: dict[str, Any]) -> None:
    for one in kept["guardians"].values():
        data = msgpack.packb([bytes.fromhex(kept["pid"] + one["salt"]), "guardian"])
        seed = blake2b(data, key=bytes.fromhex(one["wallet"]), digest_size=32, person=b"p2pl/wallet/1").digest()
        assert SigningKey(seed).verify_key.encode().hex() == one["key"]


def test_a_commitment_is_a_hash_of_pid_salt_and_key(kept: dict[str, Any]) -> None:
    for one in kept["guardians"].values():
        data = msgpack.packb([bytes.fromhex(text) for text in (kept["pid"], one["salt"], one["key"])])
        assert sha256(purpose(b"p2pl/guardian/1") + data).hexdigest() == one["commitment"]


def test_guardians_sign_chain_and_content(kept: dict[str, Any]) -> None:
    pid, new = bytes.fromhex(kept["pid"]), {name: bytes.fromhex(text) for name, text in kept["new"].items()}
    contents = {
        "recover": ["recover", pid, new["recovery"], new["key"], new["box"], kept["until_ms"]],
        "freeze": ["freeze", pid, kept["until_ms"]],
        "unfreeze": ["unfreeze", pid, kept["until_ms"]],
    }
    for what, content in contents.items():
        message = purpose(b"p2pl/guardian-approval/1") + bytes.fromhex(kept["chain"]) + msgpack.packb(content)
        assert message.hex() == kept["messages"][what]
        for one, signature in zip(kept["guardians"].values(), kept["signatures"][what], strict=True):
            VerifyKey(bytes.fromhex(one["key"])).verify(message, bytes.fromhex(signature))


def test_operations_are_arrays_that_begin_with_their_number(kept: dict[str, Any]) -> None:
    numbers = {"set": 50, "start": 51, "veto": 52, "finalize": 53, "freeze": 54, "unfreeze": 55}
    for what, number in numbers.items():
        data = bytes.fromhex(kept["operations"][what])
        ((first, pid, *_),) = msgpack.unpackb(data)
        assert (first, pid.hex()) == (number, kept["pid"])
        assert len(decode_operations(data)) == 1
