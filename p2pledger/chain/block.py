"""Blocks: a header that names everything, and the bodies of its batches.

The header contains neither view nor proposer, so the same block may be prepared again in a later view.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from msgspec import Meta

from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.ids import (
    BatchId,
    BlockHash,
    Bytes32,
    ChainId,
    Epoch,
    Height,
    Millis,
    TransactionId,
)

PROTOCOL_VERSION = 1


class StateRoot(Record, frozen=True):
    """The root of the authenticated state tree after a checkpoint height was executed."""

    height: Height
    root: Bytes32


class Header(Record, frozen=True, dict=True, gc=True):
    """A block in full but for its bodies: its hash commits to all of it.

    `dict=True` gives an immutable header a place to remember its hash; it is not part of its value.
    """

    version: int
    chain: ChainId
    epoch: Epoch
    height: Height
    parent: BlockHash
    time_ms: Millis
    validators_hash: Bytes32
    next_validators_hash: Bytes32 | None
    """At an epoch's last block only."""
    parameters_hash: Bytes32
    batches: Annotated[tuple[BatchId, ...], Meta(max_length=limits.BLOCK_BATCHES_MAX)]
    transaction_root: Bytes32
    """RFC 9162 root over the transaction ids of all batches in order."""
    executed_height: Height
    effects_roots: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.WINDOW_MAX)]
    """For each height after the parent's executed height up to `executed_height`."""
    state_roots: Annotated[tuple[StateRoot, ...], Meta(max_length=limits.WINDOW_MAX)]
    """For the checkpoints among those heights."""

    @cached_property
    def hash(self) -> BlockHash:
        """SHA-256 over the purpose and the canonical header."""
        return BlockHash(tagged_hash(Domain.BLOCK, encode(self)))

    @property
    def is_empty(self) -> bool:
        return not self.batches


def transaction_root(ids: Sequence[TransactionId]) -> bytes:
    """The RFC 9162 root over transaction ids in block order."""
    return merkle.root(ids)


def is_checkpoint(height: int, is_empty: bool, parent_is_empty: bool, interval: int) -> bool:
    """Whether the state root after `height` must be put into a header.

    Every `interval` heights, and at the first empty block after a block with transactions: the chain goes quiet.
    """
    return height % interval == 0 or (is_empty and not parent_is_empty)


@dataclass(frozen=True, slots=True)
class Block:
    """A header with the bytes of its batches, in the header's order."""

    header: Header
    bodies: tuple[bytes, ...]
