"""What is left of a batch when operations were taken out: bodies, signatures, and the hashes that name what is gone.

A pruned batch no longer hashes to the id that its block has for it. It is held to the block by its transactions: their
ids hash up to the header's transaction root, each body names the hash of its operations, and every signature covers a
body. So a chain with pruned blocks verifies from the genesis; it only cannot be executed again.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from p2pledger.chain.batch import is_by_origin, parse_batch, transactions_hash
from p2pledger.chain.block import Header, transaction_root
from p2pledger.chain.transaction import Body, parse
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.crypto import sha256, verify
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import U64, Bytes32, ChainId, NodeId, Signature, TransactionId


class PrunedTransaction(Record, frozen=True):
    """A transaction whose operations may be gone."""

    signatures: tuple[Signature, ...]
    body: bytes
    operations: bytes | None
    """None: pruned. The body names their hash."""

    @property
    def id(self) -> TransactionId:
        """As it always was: the hash of the body."""
        return TransactionId(sha256(self.body))


class PrunedBatch(Record, frozen=True):
    """A batch some of whose transactions have lost their operations."""

    origin: NodeId
    sequence: U64
    transactions_hash: Bytes32
    """Of the transactions as they were: what the origin has signed."""
    signature: Signature
    transactions: tuple[PrunedTransaction, ...]

    def without(self, gone: AbstractSet[int]) -> "PrunedBatch":
        """This batch, the operations of these transactions taken out too."""
        kept = tuple(
            PrunedTransaction(one.signatures, one.body, None) if index in gone else one
            for index, one in enumerate(self.transactions)
        )
        return PrunedBatch(self.origin, self.sequence, self.transactions_hash, self.signature, kept)


AnyBatch: TypeAlias = bytes | PrunedBatch
"""A batch as a ledger keeps it: its wire bytes, or what is left of them."""


def prunable(data: bytes) -> PrunedBatch:
    """The batch with these wire bytes, nothing taken out yet; raises InvalidInput."""
    batch = parse_batch(data)
    envelopes = [parse(item).envelope for item in batch.transactions]
    left = tuple(PrunedTransaction(one.signatures, one.body, one.operations) for one in envelopes)
    return PrunedBatch(batch.origin, batch.sequence, transactions_hash(batch.transactions), batch.signature, left)


def decode_pruned(data: bytes) -> PrunedBatch:
    """The pruned batch with these canonical bytes; raises InvalidInput."""
    return decode(PrunedBatch, data, 2 * limits.BATCH_BYTES_MAX)


def check_batches(chain: ChainId, header: Header, batches: Sequence[AnyBatch]) -> list[PrunedTransaction]:
    """The transactions of a block, held to its header; raises InvalidInput naming what does not hold.

    Whole batches must have the ids in the header, signatures verify, and all transaction ids are under its root.
    """
    if len(batches) != len(header.batches):
        raise InvalidInput(f"{len(batches)} batches for block {header.height}, which names {len(header.batches)}")
    found: list[PrunedTransaction] = []
    for named, batch in zip(header.batches, batches, strict=True):
        if isinstance(batch, bytes) and sha256(batch) != named:
            raise InvalidInput(f"a body of block {header.height} does not hash to its batch {named.hex()}")
        left = prunable(batch) if isinstance(batch, bytes) else batch
        if not is_by_origin(chain, left.origin, left.sequence, left.transactions_hash, left.signature):
            raise InvalidInput(f"batch {left.sequence} is not signed by its origin {left.origin.hex()}")
        for transaction in left.transactions:
            _check(transaction)
        found += left.transactions
    root = transaction_root([transaction.id for transaction in found])
    if root != header.transaction_root:
        raise InvalidInput(
            f"the transactions of block {header.height} have root {root.hex()}, not {header.transaction_root.hex()}"
        )
    return found


def _check(transaction: PrunedTransaction) -> None:
    body = decode(Body, transaction.body, limits.TRANSACTION_BYTES_MAX)
    if transaction.operations is not None and sha256(transaction.operations) != body.operations_hash:
        raise Rejected(
            Code.E_FORMAT, f"operations of {transaction.id.hex()} do not hash to {body.operations_hash.hex()}"
        )
    signers = (body.sender, *body.cosigners)
    if len(signers) != len(transaction.signatures):
        raise Rejected(Code.E_COSIGNERS, f"{len(transaction.signatures)} signatures for {len(signers)} signers")
    for signer, signature in zip(signers, transaction.signatures, strict=True):
        if not verify(signer, transaction.body, signature):
            raise Rejected(Code.E_SIG, f"signature of key {signer.hex()} does not verify")
