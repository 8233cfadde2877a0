"""Transactions that several people sign, each at home: a draft goes round, signatures come together (F-20).

A draft is text without secrets: JSON with the exact body and operations and the signatures so far. Whoever gets one
reads the operations from it, signs the body, and passes it on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import asdict

from p2pledger.chain.transaction import Body, Transaction, assemble, build_body, check_signatures, parse
from p2pledger.health.operations import AnyOperation, decode_operations
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.crypto import SigningKey, sha256, verify
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import AccountKey, ChainId, Millis, Nonce, Signature

_FORMAT = "p2pledger/draft/1"
_TEXT_BYTES_MAX = 4 * limits.TRANSACTION_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Draft:
    """A transaction on its way round: what is signed, and by whom already."""

    body_bytes: bytes
    operations_bytes: bytes
    signatures: Mapping[AccountKey, Signature]

    @staticmethod
    def new(
        chain: ChainId,
        sender: AccountKey,
        nonce: Nonce,
        expires_ms: Millis,
        operations: Sequence[Record],
        cosigners: Sequence[AccountKey] = (),
    ) -> "Draft":
        """An unsigned transaction; the sender and all cosigners are named from the start."""
        body, operations_bytes = build_body(chain, sender, nonce, expires_ms, operations, cosigners)
        return Draft(body, operations_bytes, {})

    @property
    def body(self) -> Body:
        return decode(Body, self.body_bytes, limits.TRANSACTION_BYTES_MAX)

    @property
    def operations(self) -> tuple[AnyOperation, ...]:
        """What a signer agrees to."""
        return decode_operations(self.operations_bytes)

    @property
    def signers(self) -> tuple[AccountKey, ...]:
        """The sender, then the cosigners in their order."""
        body = self.body
        return (body.sender, *body.cosigners)

    @property
    def missing(self) -> tuple[AccountKey, ...]:
        """Who has not signed yet."""
        return tuple(signer for signer in self.signers if signer not in self.signatures)

    def signed(self, key: SigningKey) -> "Draft":
        """The draft with one more signature; raises InvalidInput where this key has no part in it."""
        account = AccountKey(key.public)
        if account not in self.signers:
            raise InvalidInput(f"key {account.hex()} is neither the sender nor a cosigner of this transaction")
        return self.joined({account: key.sign(self.body_bytes)})

    def joined(self, signatures: Mapping[AccountKey, Signature]) -> "Draft":
        """The draft with signatures that others made of the same body."""
        return Draft(self.body_bytes, self.operations_bytes, {**self.signatures, **signatures})

    def transaction(self) -> Transaction:
        """The finished transaction, its signatures verified; raises Rejected(E_COSIGNERS) naming who is missing."""
        if self.missing:
            names = ", ".join(key.hex() for key in self.missing)
            raise Rejected(Code.E_COSIGNERS, f"the transaction lacks the signature of {names}")
        ordered = [self.signatures[signer] for signer in self.signers]
        transaction = parse(assemble(self.body_bytes, self.operations_bytes, ordered))
        check_signatures(transaction)
        return transaction

    def dump(self) -> str:
        """The draft as text; what can be read in it besides the bytes is for people and is not read back."""
        return json.dumps(
            {
                "format": _FORMAT,
                "reads": [_readable(operation) for operation in self.operations],
                "body": self.body_bytes.hex(),
                "operations": self.operations_bytes.hex(),
                "signatures": {key.hex(): signature.hex() for key, signature in self.signatures.items()},
            },
            indent=1,
        )

    @staticmethod
    def load(text: str) -> "Draft":
        """A draft from its text, structure and signatures checked; raises InvalidInput or Rejected."""
        if len(text) > _TEXT_BYTES_MAX:
            raise InvalidInput(f"draft of {len(text)} characters, the limit is {_TEXT_BYTES_MAX}")
        try:
            parts = json.loads(text)
            if parts["format"] != _FORMAT:
                raise InvalidInput(f"draft of format {parts['format']!r}, this version reads {_FORMAT!r}")
            draft = Draft(
                bytes.fromhex(parts["body"]),
                bytes.fromhex(parts["operations"]),
                {AccountKey(bytes.fromhex(k)): Signature(bytes.fromhex(s)) for k, s in parts["signatures"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"not a draft of a transaction: {error}") from error
        draft._check()
        return draft

    def _check(self) -> None:
        body = self.body
        decode_operations(self.operations_bytes)
        if sha256(self.operations_bytes) != body.operations_hash:
            raise InvalidInput("the draft's operations are not those that its body names")
        for account, signature in self.signatures.items():
            if account not in self.signers:
                raise InvalidInput(f"key {account.hex()} is neither the sender nor a cosigner of this transaction")
            if not verify(account, self.body_bytes, signature):
                raise Rejected(Code.E_SIG, f"signature of key {account.hex()} does not verify")


def _readable(operation: Record) -> dict[str, object]:
    return {"operation": type(operation).__name__, **{name: _shown(value) for name, value in asdict(operation).items()}}


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return _readable(value) if isinstance(value, Record) else value
