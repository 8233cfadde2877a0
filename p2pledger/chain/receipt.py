"""Receipts: what became of a transaction, and how a light client proves it against one header.

A receipt names the hash of its events, which travel beside it, so that personal parts can be pruned later.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256 as hashed  # in loops over transactions, without a call for each

from p2pledger.primitives import merkle
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, ProofError
from p2pledger.primitives.ids import U64, Bytes32, Height, TransactionId


class Receipt(Record, frozen=True):
    """The outcome of one transaction at its place in the chain."""

    height: Height
    index: U64
    """Among the transactions of its block."""
    transaction: TransactionId
    code: int
    """A `Code`: OK, or why it failed. A denied access is OK: the denial is in the events."""
    events_hash: Bytes32


class Executed(Record, frozen=True):
    """A receipt with its events, as stored and as answered to clients."""

    receipt: Receipt
    events: tuple[bytes, ...] | None
    """Canonical bytes of what contracts reported, in order. None: pruned, or kept back; the receipt has their hash."""

    @property
    def is_whole(self) -> bool:
        """Whether the events, if they are there, are those of the receipt."""
        return self.events is None or sha256(encode(self.events)) == self.receipt.events_hash

    @property
    def known(self) -> tuple[bytes, ...]:
        """The events that are there: none of a pruned receipt."""
        return self.events or ()

    def pruned(self) -> "Executed":
        """The receipt without its events."""
        return Executed(self.receipt, None)


_NO_EVENTS = sha256(encode(()))
_RECEIPT = merkle.LEAF + b"r"


def executed(height: Height, index: int, transaction: TransactionId, code: Code, events: Sequence[bytes]) -> Executed:
    """A receipt whose hash of events is right by construction."""
    return all_executed(height, [(transaction, int(code), tuple(events))], index)[0]


def all_executed(
    height: Height, outcomes: Sequence[tuple[TransactionId, int, tuple[bytes, ...]]], first: int = 0
) -> list[Executed]:
    """The receipts of a block, from (transaction, code, events) of each in order; `first` is the first one's index."""
    hashes = [hashed(encode(events)).digest() if events else _NO_EVENTS for _, _, events in outcomes]
    return [
        Executed(Receipt(height, index, transaction, code, events_hash), events)
        for index, ((transaction, code, events), events_hash) in enumerate(zip(outcomes, hashes, strict=True), first)
    ]


def effects_leaves(receipts: Sequence[Receipt], writes: Mapping[bytes, bytes | None]) -> list[bytes]:
    """Leaf hashes of a height's effects tree: its receipts in order, then one for all its writes, sorted by key.

    Nobody proves a single write: the state tree has the value. So they are hashed together.
    """
    leaves = [hashed(_RECEIPT + encode(receipt)).digest() for receipt in receipts]
    if writes:
        leaves.append(merkle.leaf_hash(b"w" + encode(sorted(writes.items()))))
    return leaves


class ReceiptProof(Record, frozen=True):
    """That a receipt is in the effects tree of its height."""

    size: U64
    """Leaves in that height's effects tree."""
    path: tuple[Bytes32, ...]


def effects_root_of(receipt: Receipt, proof: ReceiptProof) -> bytes:
    """The effects root that this receipt and proof amount to; raises ProofError where they cannot fit."""
    if receipt.index >= proof.size:
        raise ProofError(f"receipt {receipt.index} of an effects tree with {proof.size} leaves")
    leaf = merkle.leaf_hash(b"r" + encode(receipt))
    return merkle.root_from_path(leaf, receipt.index, proof.size, proof.path)
