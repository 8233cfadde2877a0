"""Those who submit: one account for each founding member, with nonces that never repeat."""

from collections.abc import Sequence

from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.primitives.codec import Record
from p2pledger.primitives.ids import Millis, Nonce
from p2pledger.sim.founding import WALL_START_MS, Consortium

VALID_MS = 3_600_000
"""Transactions outlive every run."""


class Clients:
    """The members' accounts of a virtual consortium."""

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self._nonces = [0] * len(consortium.accounts)

    def used(self, sender: int) -> int:
        """How many nonces this account has used."""
        return self._nonces[sender]

    def reuse(self, sender: int) -> None:
        """The next transaction of this account takes the nonce of the last one, as a double spender would."""
        self._nonces[sender] -= 1

    def sign(self, sender: int, operations: Sequence[Record], now: int) -> Transaction:
        """A fresh transaction of the account, valid for an hour from `now` ms on."""
        self._nonces[sender] += 1
        until = Millis(WALL_START_MS + now + VALID_MS)
        key = self._consortium.accounts[sender]
        nonce = Nonce(self._nonces[sender])
        return parse(sign(self._consortium.founding.chain, key, nonce, until, list(operations)))
