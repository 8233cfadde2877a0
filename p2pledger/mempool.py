"""Transactions that this node took in and has not sealed into a batch yet, bounded in number and bytes."""

from collections import deque

from p2pledger.chain.transaction import Transaction
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Nonce, TransactionId

UNDECIDED_S = 2
"""So much work is taken in ahead: what waits longer is not served sooner by being checked earlier."""
UNDECIDED_LEAST = 1_000
"""What is taken in ahead however slow the chain is, or how long nobody has sent anything."""
_RATE_MS = 500


class Mempool:
    """First in, first sealed. What was sealed stays remembered until the chain has decided it."""

    def __init__(
        self,
        transactions_max: int = limits.MEMPOOL_TRANSACTIONS_MAX,
        bytes_max: int = limits.MEMPOOL_BYTES_MAX,
    ) -> None:
        self._transactions_max = transactions_max
        self._bytes_max = bytes_max
        self._waiting: deque[Transaction] = deque()
        self._taken: dict[tuple[AccountKey, Nonce], TransactionId] = {}
        """Waiting or sealed here, not yet decided."""
        self._bytes = 0
        self._undecided_max = 4 * transactions_max
        self._decided = 0
        """Since the rate was last taken."""
        self._rate_at_ms = 0
        self._undecided_now_max = UNDECIDED_LEAST
        self.oldest_ms = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def bytes_waiting(self) -> int:
        return self._bytes

    def add(self, transaction: Transaction, now_ms: int) -> bool:
        """Take in a checked transaction; False if this very one is here already.

        Raises Rejected: E_BUSY when full, E_NONCE when another transaction of this sender has its nonce.
        """
        body = transaction.body
        key = (body.sender, body.nonce)
        known = self._taken.get(key)
        if known == transaction.id:
            return False
        if known is not None:
            raise Rejected(
                Code.E_NONCE, f"nonce {body.nonce} is taken by transaction {known.hex()}, which is not decided yet"
            )
        if len(self._waiting) >= self._transactions_max or self._bytes + len(transaction.data) > self._bytes_max:
            raise Rejected(Code.E_BUSY, f"{len(self._waiting)} transactions wait already; try again later")
        if len(self._taken) >= self._undecided_max:
            raise Rejected(Code.E_BUSY, f"{len(self._taken)} transactions are undecided; try again later")
        if not self._waiting:
            self.oldest_ms = now_ms
        self._waiting.append(transaction)
        self._taken[key] = transaction.id
        self._bytes += len(transaction.data)
        return True

    @property
    def room(self) -> int:
        """How many more the chain is going to decide soon; below 0 where it has slowed down."""
        return self._undecided_now_max - len(self._taken)

    @property
    def bulk_room(self) -> int:
        """The same for who sends many at once: a quarter is left to those who send one, as in an emergency."""
        return self._undecided_now_max * 3 // 4 - len(self._taken)

    def demand_room(self) -> None:
        """Raises Rejected(E_BUSY) where as much is taken in as the chain decides in two seconds.

        To be asked before signatures are checked: else overload spends on what waits the time that it waits for.
        """
        if self.room <= 0:
            raise Rejected(Code.E_BUSY, f"{len(self._taken)} transactions are undecided; try again later")

    def take(self, count_max: int) -> list[Transaction]:
        """The next transactions for one batch, within its limits."""
        taken: list[Transaction] = []
        size = 0
        while self._waiting and len(taken) < count_max:
            size += len(self._waiting[0].data) + 5
            if taken and size > limits.BATCH_BYTES_MAX - 1024:
                break
            transaction = self._waiting.popleft()
            self._bytes -= len(transaction.data)
            taken.append(transaction)
        return taken

    def decided(self, sender: AccountKey, nonce: Nonce) -> None:
        """The chain has decided this nonce: the sender may use its memory for another."""
        if self._taken.pop((sender, nonce), None) is not None:
            self._decided += 1

    def block_decided(self, now_ms: int) -> None:
        """All of a block was decided: how much may be taken in follows from how fast that goes."""
        passed_ms = now_ms - self._rate_at_ms
        if passed_ms >= _RATE_MS:
            ahead = UNDECIDED_S * 1000 * self._decided // passed_ms
            self._undecided_now_max = min(max(ahead, UNDECIDED_LEAST), self._undecided_max)
            self._decided, self._rate_at_ms = 0, now_ms

    def put_back(self, transactions: list[Transaction]) -> None:
        """A sealed batch will never be ordered: those not decided meanwhile wait again, first in line."""
        for transaction in reversed(transactions):
            if self._taken.get((transaction.body.sender, transaction.body.nonce)) == transaction.id:
                self._waiting.appendleft(transaction)
                self._bytes += len(transaction.data)
