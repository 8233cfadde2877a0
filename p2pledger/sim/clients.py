"""Those who submit: the founding members' accounts and whoever else has a key, with nonces that never repeat."""

from collections.abc import Sequence

from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Millis, Nonce
from p2pledger.sim.founding import Consortium

VALID_MS = 3_600_000
"""Transactions outlive every run."""


class Clients:
    """Signs for everybody in a virtual consortium."""

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self._nonces: dict[bytes, int] = {}

    def used(self, sender: int) -> int:
        """How many nonces this account has used."""
        return self._nonces.get(self._consortium.accounts[sender].public, 0)

    def reuse(self, sender: int) -> None:
        """The next transaction of this account takes the nonce of the last one, as a double spender would."""
        self._nonces[self._consortium.accounts[sender].public] -= 1

    def sign(
        self, key: SigningKey, operations: Sequence[Record], wall_ms: int, cosigners: Sequence[SigningKey] = ()
    ) -> Transaction:
        """A fresh transaction of the account with this key, valid for an hour from this time on."""
        nonce = self._nonces[key.public] = self._nonces.get(key.public, 0) + 1
        until = Millis(wall_ms + VALID_MS)
        return parse(sign(self._consortium.founding.chain, key, Nonce(nonce), until, list(operations), cosigners))
