"""What each origin's batches were worth, and how much room its next ones get (P3).

A batch is *junk* when its origin has signed it and no correct node would have sealed most of it: transactions that
are malformed or badly signed, of senders whom nobody knows, expired before the batch came, or decided already through
the same origin or long ago. Junk halves the origin's share of the pool and of what is verified for it, down to one
batch at a time; good batches restore it step by step. What others can bring about does not count: a batch without its
origin's signature is nobody's, a transaction that a client also gave to another node is decided there without this
one's fault, and what is old when it is ordered may have waited for the primary. All of it is local policy:
no vote depends on it, and a batch that a block names is always taken.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

from p2pledger.chain.batch import Batch
from p2pledger.chain.transaction import Transaction
from p2pledger.execution.execute import NOT_INDEXED, BlockEffects
from p2pledger.gossip import BatchPool
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, BatchId, Millis, NodeId, Nonce, TransactionId

GOOD_PER_STEP = 8
"""Good batches that double a halved share again: whoever mixes junk with good ones gains nothing by it."""
DECIDED_REMEMBERED = 65_536
"""Transactions decided lately, and through whom; ten full blocks. An older one was known to everybody."""
_FORGOTTEN_AT_ONCE = 4_096
"""A dict that loses its first key over and over looks for it among all those that it has lost: 50 µs for each."""
_DONE = (int(Code.OK), True)
_NOTHING = (None, False)
JUNK_REMEMBERED = 1_024
"""Ids of junk that was verified, so that the same bytes are neither verified nor counted twice."""
NEVER_ADMITTED = frozenset({Code.E_TOO_LARGE, Code.E_UNKNOWN_KIND, Code.E_ALONE, Code.E_UNKNOWN_SENDER})
"""Admission refuses these by what does not change between it and the block."""
NOBODYS_FAULT = frozenset({Code.E_FORMAT, Code.E_NONCE})
"""A client can bring these about behind admission: a contract's own rules, a window moved away under what waits."""


class Standing:
    """Convicts and rehabilitates origins; the shares themselves are the pool's."""

    def __init__(self, pool: BatchPool, me: NodeId, drift_ms: int) -> None:
        self._pool = pool
        self._me = me
        self._drift_ms = drift_ms
        self._good: dict[NodeId, int] = {}
        """Good batches since the last step up."""
        self._decided: dict[tuple[AccountKey, Nonce], NodeId] = {}
        self._junk: dict[BatchId, None] = {}

    def is_known_junk(self, batch: BatchId) -> bool:
        """Whether these very bytes were convicted already; they will not get better."""
        return batch in self._junk

    def convict(self, origin: NodeId, batch: BatchId) -> None:
        """The origin has signed transactions that are malformed or badly signed."""
        if batch in self._junk:
            return
        self._junk[batch] = None
        if len(self._junk) > JUNK_REMEMBERED:
            del self._junk[next(iter(self._junk))]
        self._step_down(origin)

    def judge(
        self,
        time_ms: Millis,
        bodies: Sequence[tuple[Batch, Sequence[Transaction]]],
        came_ms: Sequence[int | None],
        effects: BlockEffects,
    ) -> None:
        """The batches of a block that was executed at `time_ms`; `came_ms`: when each came here by the wall clock."""
        results: dict[TransactionId, tuple[int | None, bool]] = {
            done.receipt.transaction: (done.receipt.code, key != NOT_INDEXED)
            for done, key in zip(effects.receipts, effects.receipt_keys, strict=True)
        }
        for (batch, transactions), came in zip(bodies, came_ms, strict=True):
            useful, junk = self._count(batch.origin, transactions, time_ms, came, results)
            if batch.origin == self._me:
                continue
            if 2 * junk > len(transactions):
                self._step_down(batch.origin)
                continue
            if 2 * useful > len(transactions):
                self._step_up(batch.origin)
        self._forget()

    def _count(
        self,
        origin: NodeId,
        transactions: Sequence[Transaction],
        time_ms: Millis,
        came_ms: int | None,
        results: Mapping[TransactionId, tuple[int | None, bool]],
    ) -> tuple[int, int]:
        """(transactions that were worth ordering, transactions that no correct origin would have sealed)."""
        useful = junk = 0
        decided = self._decided
        for transaction in transactions:
            body = transaction.body
            place = (body.sender, body.nonce)
            through = decided.get(place)
            result = results.get(transaction.id, _NOTHING)
            if result == _DONE and through is None:  # as nearly all are
                useful += 1
                decided[place] = origin
                continue
            code, has_used_nonce = result
            if through is not None:
                junk += through == origin
            elif code is None or code in NEVER_ADMITTED:
                junk += 1
            elif code == Code.E_TX_EXPIRED:
                junk += self._was_hopeless(body.expires_ms, time_ms, came_ms)
            elif code not in NOBODYS_FAULT:
                useful += 1
            if has_used_nonce and through is None:
                decided[place] = origin
        return useful, junk

    def _was_hopeless(self, expires_ms: Millis, time_ms: Millis, came_ms: int | None) -> bool:
        """Whether an expiry was wrong by more than clocks may differ when the batch came."""
        if expires_ms > time_ms + limits.EXPIRY_AHEAD_MS_MAX + self._drift_ms:
            return True
        return came_ms is not None and expires_ms + self._drift_ms < came_ms

    def _forget(self) -> None:
        if len(self._decided) > DECIDED_REMEMBERED:
            beyond = len(self._decided) - DECIDED_REMEMBERED + _FORGOTTEN_AT_ONCE
            for place in list(islice(self._decided, beyond)):
                del self._decided[place]

    def _step_down(self, origin: NodeId) -> None:
        self._good[origin] = 0
        self._pool.halve(origin)

    def _step_up(self, origin: NodeId) -> None:
        if not self._pool.halvings.get(origin):
            return
        self._good[origin] = self._good.get(origin, 0) + 1
        if self._good[origin] >= GOOD_PER_STEP:
            self._good[origin] = 0
            self._pool.double(origin)
