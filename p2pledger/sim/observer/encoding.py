"""MessagePack, hashes, Merkle trees and quorums, written anew for the observer from the documents; see reader.py."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgpack
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

NOTHING = sha256(b"").digest()
"""The root of an empty Merkle tree."""


class Unreadable(ValueError):
    """Bytes that are not what the documents describe."""


_packer = msgpack.Packer()


def pack(value: Any) -> bytes:
    """The one spelling of a value."""
    packed: bytes = _packer.pack(value)
    return packed


def unpack(data: bytes) -> Any:
    """The value of canonical bytes, arrays as tuples."""
    try:
        value = msgpack.unpackb(data, use_list=False, object_hook=_refuse_map)
        again = pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise Unreadable(f"{len(data)} bytes are no MessagePack: {error}") from error
    if again != data:
        raise Unreadable(f"{len(data)} bytes are not in their canonical spelling")
    return value


def _refuse_map(entries: Any) -> Any:
    raise Unreadable(f"a map of {len(entries)}: every record is an array")


def unframed(stream: bytes) -> list[tuple[int, bytes]]:
    """(tag, body) of each frame in a stream that ends with a whole one."""
    frames = []
    at = 0
    while at < len(stream):
        length = int.from_bytes(stream[at : at + 4], "big")
        frame = stream[at + 4 : at + 4 + length]
        if length < 1 or len(frame) != length:
            raise Unreadable(f"frame of length {length} with {len(frame)} bytes")
        frames.append((frame[0], frame[1:]))
        at += 4 + length
    return frames


def array(value: Any, size: int) -> tuple[Any, ...]:
    """`value`, if it is an array of that many."""
    if type(value) is not tuple or len(value) != size:
        raise Unreadable(f"no array of {size}: {value!r:.80}")
    return value


def listed(value: Any) -> tuple[Any, ...]:
    """`value`, if it is an array."""
    if type(value) is not tuple:
        raise Unreadable(f"no array: {value!r:.80}")
    return value


def number(value: Any) -> int:
    """`value`, if it is a number of 63 bits."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise Unreadable(f"no number: {value!r:.80}")
    return value


def sized(value: Any, size: int = 32) -> bytes:
    """`value`, if it is that many bytes."""
    if type(value) is not bytes or len(value) != size:
        raise Unreadable(f"no {size} bytes: {value!r:.80}")
    return value


# Hashes, signatures, quorums


def tagged_hash(purpose: bytes, data: bytes) -> bytes:
    """SHA-256(length of purpose ‖ purpose ‖ data)."""
    return sha256(bytes([len(purpose)]) + purpose + data).digest()


def holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the Ed25519 signature of `key` over `message` is good."""
    try:
        crypto_sign_open(signature + message, key)
    except (BadSignatureError, ValueError):
        return False
    return True


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, 2.1.1, over leaf hashes: split at the largest power of two below their number."""
    if not leaves:
        return NOTHING
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def _levels() -> list[bytes]:
    """The hash of a subtree of empty buckets, by its height."""
    empty = [NOTHING]
    for _ in range(6):
        empty.append(sha256(b"\x01" + 8 * empty[-1]).digest())
    return empty


_EMPTY = _levels()


def state_root(state: dict[bytes, bytes]) -> bytes:
    """The root of the authenticated tree over a whole state, worked out from nothing (docs/state.md)."""
    buckets: dict[int, list[bytes]] = {}
    for key, value in state.items():
        key_hash = tagged_hash(b"p2pl/state-key/1", key)
        buckets.setdefault(int.from_bytes(key_hash[:3], "big") >> 6, []).append(key_hash + sha256(value).digest())
    level = {bucket: leaf(b"".join(sorted(pairs))) for bucket, pairs in buckets.items()}
    for height in range(6):
        empty = _EMPTY[height]
        level = {
            at: sha256(b"\x01" + b"".join([level.get(8 * at + child, empty) for child in range(8)])).digest()
            for at in {child // 8 for child in level}
        }
    return level.get(0, _EMPTY[6])


def faults(n: int) -> int:
    """f: fewer than a third of n."""
    return max(0, -(-n // 3) - 1)


def quorum(n: int) -> int:
    """The smallest q of which any two sets among n share more than f members."""
    return next(q for q in range(1, n + 1) if 2 * q - n > faults(n))
