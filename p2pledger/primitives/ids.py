"""The names of things, each a type of its own, so that a View cannot be passed for a Height."""

from typing import Annotated, NewType

from msgspec import Meta

U64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""An unsigned counter. 63 bits, so that every language and LMDB key packing can hold it."""

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]

Height = NewType("Height", U64)
View = NewType("View", U64)
Epoch = NewType("Epoch", U64)
Nonce = NewType("Nonce", U64)
Millis = NewType("Millis", U64)
"""Milliseconds since 1970-01-01T00:00:00Z."""

ChainId = NewType("ChainId", Bytes32)
"""SHA-256 of the canonical genesis that every founding member signed."""
BlockHash = NewType("BlockHash", Bytes32)
BatchId = NewType("BatchId", Bytes32)
TransactionId = NewType("TransactionId", Bytes32)

ValidatorId = NewType("ValidatorId", Bytes32)
"""A validator's Ed25519 consensus public key."""
NodeId = NewType("NodeId", Bytes32)
"""A node's Ed25519 transport public key: what its TLS certificate carries."""
AccountKey = NewType("AccountKey", Bytes32)
"""An Ed25519 public key that signs transactions."""
Signature = NewType("Signature", Bytes64)


def short(identifier: bytes) -> str:
    """The first eight hexadecimal digits: enough to tell ids apart in a log line."""
    return identifier[:4].hex()
