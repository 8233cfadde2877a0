"""Batches: the unit in which transactions are sent, stored, verified and ordered.

A batch is signed by the node that took its transactions in, and carries that node's sequence number; the chain
holds each (origin, sequence) at most once.
"""

from collections.abc import Sequence

from p2pledger.chain.transaction import Transaction, check_signatures, parse
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, SigningKey, sha256, signed_bytes, verify
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import U64, BatchId, ChainId, NodeId, Signature


class JunkBatch(InvalidInput):
    """An origin has signed a batch with malformed or badly signed transactions: its own doing, whoever brought it."""

    def __init__(self, origin: NodeId, reason: str) -> None:
        super().__init__(f"batch of {origin.hex()}: {reason}")
        self.origin = origin


class Batch(Record, frozen=True):
    """1..500 transactions from one entry node."""

    origin: NodeId
    sequence: U64
    transactions: tuple[bytes, ...]
    signature: Signature
    """By the origin's node key over (origin, sequence, hash of the transactions)."""


def batch_id(data: bytes) -> BatchId:
    """SHA-256 of the batch's wire bytes."""
    return BatchId(sha256(data))


def transactions_hash(transactions: Sequence[bytes]) -> bytes:
    """What an origin signs of its transactions."""
    return sha256(encode(tuple(transactions)))


def _statement(chain: ChainId, origin: NodeId, sequence: int, hashed: bytes) -> bytes:
    return signed_bytes(Domain.BATCH, chain, encode((origin, sequence, hashed)))


def is_by_origin(chain: ChainId, origin: NodeId, sequence: int, hashed: bytes, signature: Signature) -> bool:
    """Whether the origin has signed a batch of transactions with this hash."""
    return verify(origin, _statement(chain, origin, sequence, hashed), signature)


def seal(chain: ChainId, origin: SigningKey, sequence: int, transactions: Sequence[bytes]) -> bytes:
    """The wire bytes of a new batch."""
    assert 0 < len(transactions) <= limits.BATCH_TRANSACTIONS_MAX
    node = NodeId(origin.public)
    signature = origin.sign(_statement(chain, node, sequence, transactions_hash(transactions)))
    return encode(Batch(node, sequence, tuple(transactions), signature))


def parse_batch(data: bytes) -> Batch:
    """The batch whose wire bytes are `data`; raises InvalidInput where a structural limit is broken."""
    batch = decode(Batch, data, limits.BATCH_BYTES_MAX)
    if not 0 < len(batch.transactions) <= limits.BATCH_TRANSACTIONS_MAX:
        raise InvalidInput(
            f"batch of {len(batch.transactions)} transactions, allowed are 1 to {limits.BATCH_TRANSACTIONS_MAX}"
        )
    return batch


def check_batch(chain: ChainId, batch: Batch) -> list[Transaction]:
    """The batch's transactions, after every signature in it has been verified; the expensive step, once per node.

    Raises InvalidInput where the origin has not signed it, JunkBatch at the first thing in it that does not hold.
    """
    statement = _statement(chain, batch.origin, batch.sequence, transactions_hash(batch.transactions))
    if not verify(batch.origin, statement, batch.signature):
        raise InvalidInput(f"batch {batch.sequence} is not signed by its origin {batch.origin.hex()}")
    try:
        transactions = [parse(data) for data in batch.transactions]
        for transaction in transactions:
            if transaction.body.chain != chain:
                raise InvalidInput(
                    f"transaction {transaction.id.hex()} is for chain {transaction.body.chain.hex()}, not {chain.hex()}"
                )
            check_signatures(transaction)
    except InvalidInput as error:
        raise JunkBatch(batch.origin, str(error)) from error
    return transactions
