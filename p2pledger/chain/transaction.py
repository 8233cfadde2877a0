"""Transactions: what members and patients sign.

On the wire a transaction is `[signatures, body, operations]`. The body is signed by the sender and by each cosigner
and names the hash of the operations, which travel beside it: they can later be pruned and the signatures still
verify. The signed bytes are the truth; they are never re-encoded to be verified.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from msgspec.structs import force_setattr

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Value, decode, encode
from p2pledger.primitives.crypto import SigningKey, sha256, verify
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, Bytes32, ChainId, Millis, Nonce, Signature, TransactionId

_TAG: Literal["p2pl/tx/1"] = "p2pl/tx/1"


class Body(Record, frozen=True):
    """The signed part. It begins with its own purpose tag, so no other signature can be taken for one of these."""

    tag: Literal["p2pl/tx/1"]
    chain: ChainId
    sender: AccountKey
    nonce: Nonce
    expires_ms: Millis
    """The last block time at which it may execute."""
    cosigners: tuple[AccountKey, ...]
    """Strictly ascending; each signs the same bytes as the sender."""
    operations_hash: Bytes32


class Envelope(Record, frozen=True):
    """What travels: the sender's signature, then one by each cosigner in their order."""

    signatures: tuple[Signature, ...]
    body: bytes
    operations: bytes
    """Canonical bytes of the array of operations; the application knows their types."""


class Transaction(Value, frozen=True, eq=False):
    """A well-formed transaction with its exact bytes; whether its signatures hold is a separate question."""

    id: TransactionId
    """SHA-256 of the body: signatures do not change it."""
    body: Body
    envelope: Envelope
    data: bytes
    operations: Sequence[Record] | None = None
    """Of the envelope, once the application has read them (`operations_by`)."""

    def operations_by(self, read: Callable[[bytes], Sequence[Record]]) -> Sequence[Record]:
        """The operations as `read` has them (it is asked once, at the door or in the block); raises what it raises."""
        known = self.operations
        if known is None:
            known = read(self.envelope.operations)
            force_setattr(self, "operations", known)
        return known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transaction) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.id)


def parse(data: bytes) -> Transaction:
    """The transaction whose wire bytes are `data`, with all its structural rules checked, signatures not.

    Raises Rejected with E_TOO_LARGE, E_FORMAT or E_COSIGNERS.
    """
    if len(data) > limits.TRANSACTION_BYTES_MAX:
        raise Rejected(
            Code.E_TOO_LARGE, f"transaction of {len(data)} bytes, the limit is {limits.TRANSACTION_BYTES_MAX}"
        )
    try:
        envelope = decode(Envelope, data, limits.TRANSACTION_BYTES_MAX)
        body = decode(Body, envelope.body, limits.TRANSACTION_BYTES_MAX)
    except InvalidInput as error:
        raise Rejected(Code.E_FORMAT, str(error)) from error
    if sha256(envelope.operations) != body.operations_hash:
        raise Rejected(
            Code.E_FORMAT,
            f"operations hash to {sha256(envelope.operations).hex()}, the body says {body.operations_hash.hex()}",
        )
    _check_cosigners(body, envelope)
    return Transaction(TransactionId(sha256(envelope.body)), body, envelope, data)


def _check_cosigners(body: Body, envelope: Envelope) -> None:
    cosigners = body.cosigners
    if not cosigners and len(envelope.signatures) == 1:
        return  # as most are
    if len(cosigners) > limits.COSIGNERS_MAX:
        raise Rejected(Code.E_COSIGNERS, f"{len(cosigners)} cosigners, the limit is {limits.COSIGNERS_MAX}")
    if any(a >= b for a, b in pairwise(cosigners)):
        raise Rejected(Code.E_COSIGNERS, "cosigners must be distinct and in ascending order")
    if body.sender in cosigners:
        raise Rejected(Code.E_COSIGNERS, f"the sender {body.sender.hex()} cannot be its own cosigner")
    if len(envelope.signatures) != 1 + len(cosigners):
        raise Rejected(
            Code.E_COSIGNERS,
            f"{len(envelope.signatures)} signatures for a sender and {len(cosigners)} cosigners",
        )


def check_signatures(transaction: Transaction) -> None:
    """Raises Rejected(E_SIG) naming the first key whose signature over the body does not hold."""
    body = transaction.envelope.body
    signers = (transaction.body.sender, *transaction.body.cosigners)
    for signer, signature in zip(signers, transaction.envelope.signatures, strict=True):
        if not verify(signer, body, signature):
            raise Rejected(Code.E_SIG, f"signature of key {signer.hex()} does not verify")


def build_body(
    chain: ChainId,
    sender: AccountKey,
    nonce: Nonce,
    expires_ms: Millis,
    operations: Sequence[Record],
    cosigners: Sequence[AccountKey] = (),
) -> tuple[bytes, bytes]:
    """(body bytes to sign, operations bytes) of a new transaction."""
    operations_bytes = encode(tuple(operations))
    body = Body(_TAG, chain, sender, nonce, expires_ms, tuple(sorted(cosigners)), sha256(operations_bytes))
    return encode(body), operations_bytes


def assemble(body: bytes, operations: bytes, signatures: Sequence[Signature]) -> bytes:
    """The wire bytes from the sender's signature followed by the cosigners' in ascending order of their keys."""
    return encode(Envelope(tuple(signatures), body, operations))


def sign(
    chain: ChainId,
    sender: SigningKey,
    nonce: Nonce,
    expires_ms: Millis,
    operations: Sequence[Record],
    cosigners: Sequence[SigningKey] = (),
) -> bytes:
    """A signed transaction where all keys are at hand."""
    ordered = sorted(cosigners, key=lambda key: key.public)
    body, operations_bytes = build_body(
        chain,
        AccountKey(sender.public),
        nonce,
        expires_ms,
        operations,
        [AccountKey(key.public) for key in ordered],
    )
    return assemble(body, operations_bytes, [key.sign(body) for key in (sender, *ordered)])
