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
    U64,
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
    unsettled: U64
    """Transactions since the last checkpoint, this block's included: headers alone tell where checkpoints are."""
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


def is_checkpoint(header: Header, parent_is_empty: bool, interval: int) -> bool:
    """Whether the state root after this block must be put into a header.

    Every `interval` heights, with so many transactions that a flush of more would take too much memory, and at the
    first empty block after a block with transactions: the chain goes quiet.
    """
    return _is_full(header, interval) or (header.is_empty and not parent_is_empty)


def unsettled_after(parent: Header, interval: int) -> int:
    """The transactions since the last checkpoint after `parent`, for the block on it to go on from.

    Behind an empty block there are none: it is a checkpoint itself, or only empty blocks lie between it and one.
    """
    return 0 if parent.is_empty or _is_full(parent, interval) else parent.unsettled


def _is_full(header: Header, interval: int) -> bool:
    return header.height % interval == 0 or header.unsettled >= limits.CHECKPOINT_TRANSACTIONS


@dataclass(frozen=True, slots=True)
class Block:
    """A header with the bytes of its batches, in the header's order."""

    header: Header
    bodies: tuple[bytes, ...]
