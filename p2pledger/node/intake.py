"""Transactions from clients: checked, handed to the engine, and followed to their receipts where they come in bulk.

A request in bulk costs no task, closure, event or frame for each transaction: it is looked through at once, its
signatures are checked in groups, a group is one word to the engine, and whatever one block decides of a request is one
frame. Every place of it gets exactly one outcome: a durable receipt or a refusal.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Optional, TypeAlias, TypeVar

from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction, parse
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import BlockExecuted
from p2pledger.engine.ports import LedgerStore
from p2pledger.execution import keys
from p2pledger.execution.execute import NOT_INDEXED
from p2pledger.health import queries
from p2pledger.network import api
from p2pledger.network.clients import STRANGER, Decided, Session
from p2pledger.node.driver import Driver
from p2pledger.node.metrics import Metrics
from p2pledger.node.verifier import Submission, groups
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Nonce, TransactionId

K = TypeVar("K")
V = TypeVar("V")

SUBMISSIONS_MAX = 4_000
"""Unverified transactions at which the node answers busy instead of queueing."""
BULK_MAX = 40_000
"""Undecided transactions of all requests in bulk: half of what may be undecided at all."""
BULK_OF_SESSION_MAX, BULK_OF_STRANGER_MAX = 2_000, 200
"""Of one session: a gateway carries many senders, each with a nonce window of its own; a stranger registers itself."""
WAIT_MS_MAX = 60_000
REMEMBERED_MAX = 20_000


class _Bulk:
    """A request in bulk until all of its places have their outcomes."""

    __slots__ = ("counted", "decided", "id", "open", "receipts", "refusals", "sees_all", "session", "twins", "until_ms")

    def __init__(self, session: Session, number: int, decided: Decided, until_ms: int, sees_all: bool) -> None:
        self.session = session
        self.id = number
        self.decided = decided
        self.until_ms = until_ms
        self.sees_all = sees_all
        self.open: dict[int, Transaction] = {}
        """By their places."""
        self.twins: dict[int, list[int]] = {}
        """Places with the very bytes of an earlier one, by that: they share its signature and its outcome."""
        self.counted = 0
        """How many of them count against the session."""
        self.receipts: list[tuple[int, Executed]] = []
        self.refusals: list[api.Refusal] = []
        """Both not sent yet."""

    def with_twins(self, place: int) -> tuple[int, ...]:
        return (place, *self.twins[place]) if place in self.twins else (place,)

    def may_see(self, transaction: Transaction) -> bool:
        """As for AwaitReceipt: one's own receipts; members, anybody's."""
        return self.sees_all or transaction.body.sender == self.session.account

    def tell(self, place: int, executed: Executed) -> None:
        """The receipt of an open place; without its events if they are not this session's business."""
        transaction = self.open.pop(place)
        self.receipts.append((place, executed if self.may_see(transaction) else executed.pruned()))

    def refuse(self, place: int, refusal: Rejected) -> None:
        """Its last word on a place."""
        self.open.pop(place, None)
        self.refusals.append(api.Refusal(place, int(refusal.code), refusal.detail[: api.DETAIL_CHARS_MAX]))


_Awaiting: TypeAlias = tuple[_Bulk, int, Optional["_Awaiting"]]
"""Who waits for a transaction: a place of a request, and whoever else does. There is mostly one."""


class Intake:
    """What a node does with Submit and SubmitMany, on the driver's thread."""

    def __init__(self, engine: Engine, ledger: LedgerStore, metrics: Metrics, driver: Callable[[], Driver]) -> None:
        self._engine = engine
        self._ledger = ledger
        self._metrics = metrics
        self._driver = driver
        self._submitted: OrderedDict[TransactionId, tuple[AccountKey, Nonce]] = OrderedDict()
        """Of transactions that came one by one."""
        self.unindexed: OrderedDict[tuple[AccountKey, Nonce], Executed] = OrderedDict()
        """Receipts that used no nonce (a refused registration), of transactions handed in here."""
        self._bulks: set[_Bulk] = set()
        self._awaited: dict[TransactionId, _Awaiting] = {}
        self._under_way: Counter[Session] = Counter()
        """Open places in bulk of each session."""
        self._all_under_way = 0

    # One

    def take_one(self, request: api.Submit, decided: Decided) -> None:
        """Cheap rules first, then room, then signatures in the verifier's threads, then the engine's own word.

        Calls `decided` once. Raises Rejected where the cheap rules refuse, and then does not.
        """
        driver = self._driver()
        try:
            transaction = self._previewed(request.transaction)
            if driver.verifier.submissions_waiting >= SUBMISSIONS_MAX:
                raise _too_many(SUBMISSIONS_MAX)
        except Rejected as refusal:
            self._metrics.admission_rejected[refusal.code].inc()
            raise

        def answered(refusals: Sequence[Rejected | None]) -> None:
            if refusals[0] is not None:
                self._metrics.admission_rejected[refusals[0].code].inc()
                decided(refusals[0])
                return
            self._metrics.admission_accepted.inc()
            remember(self._submitted, transaction.id, (transaction.body.sender, transaction.body.nonce))
            decided(api.Accepted(request.id, transaction.id))

        def verified(refusals: Sequence[Rejected | None]) -> None:
            if refusals[0] is None:
                driver.hand_in((transaction,), answered)
            else:
                answered(refusals)

        driver.submit(Submission((transaction,), verified))

    def _previewed(self, data: bytes) -> Transaction:
        """Raises Rejected where the cheap rules refuse."""
        transaction = parse(data)
        self._engine.admission.preview(transaction, self._driver().now)
        return transaction

    # Many

    def take_many(self, session: Session, request: api.SubmitMany, decided: Decided) -> None:
        """As `take_one` for each place; calls `decided` with Outcomes until all places have one."""
        driver = self._driver()
        until_ms = driver.now.monotonic_ms + min(request.timeout_ms, WAIT_MS_MAX)
        sees_all = queries.may_see_all(session.account, self._engine.executor.state)
        bulk = _Bulk(session, request.id, decided, until_ms, sees_all)
        fresh = self._look_through(bulk, request.transactions)
        bulk.counted = len(bulk.open)
        self._under_way[session] += bulk.counted
        self._all_under_way += bulk.counted
        self._bulks.add(bulk)
        places = list(fresh)
        for group in groups(fresh.values()):
            of_group, places = places[: len(group)], places[len(group) :]
            driver.submit(Submission(group, partial(self._on_verified, bulk, of_group, group)))
        self._send(bulk)

    def _look_through(self, bulk: _Bulk, transactions: Sequence[bytes]) -> dict[int, Transaction]:
        """The places whose signatures are to be checked. The others are refused, or wait for those or for a block."""
        room, now, preview = self._room(bulk.session), self._driver().now, self._engine.admission.preview
        fresh: dict[int, Transaction] = {}
        first: dict[bytes, int] = {}
        for place, data in enumerate(transactions):
            if len(bulk.open) >= room:  # busy, before it costs anything
                self._refuse_rest(bulk, range(place, len(transactions)), _too_many(room))
                break
            transaction = None
            try:
                transaction = parse(data)
                preview(transaction, now)
            except Rejected as refusal:
                self._refuse(bulk, place, transaction, refusal)
                continue
            bulk.open[place] = transaction
            twin = first.setdefault(data, place)
            if twin != place:
                bulk.twins.setdefault(twin, []).append(place)
            else:
                fresh[place] = transaction
        return fresh

    def _room(self, session: Session) -> int:
        of_session = BULK_OF_STRANGER_MAX if session.role == STRANGER else BULK_OF_SESSION_MAX
        most = min(SUBMISSIONS_MAX, self._engine.admission.mempool.bulk_room)
        return min(
            of_session - self._under_way[session],
            BULK_MAX - self._all_under_way,
            most - self._driver().verifier.submissions_waiting,
        )

    def _refuse_rest(self, bulk: _Bulk, places: range, refusal: Rejected) -> None:
        for place in places:
            bulk.refuse(place, refusal)
        self._metrics.admission_rejected[refusal.code].inc(len(places))

    def _refuse(self, bulk: _Bulk, place: int, transaction: Transaction | None, refusal: Rejected) -> None:
        """Unless it is this very transaction that stands in the chain already."""
        if transaction is not None and refusal.code in (Code.E_NONCE, Code.E_TX_EXPIRED) and bulk.may_see(transaction):
            executed = self._decided_by(transaction)
            if executed is not None and executed.receipt.transaction == transaction.id:
                bulk.open[place] = transaction
                if executed.receipt.height <= self._ledger.tip():
                    bulk.tell(place, executed)
                else:
                    self._await(bulk, place, transaction.id)  # its block is being written
                return
        self._metrics.admission_rejected[refusal.code].inc()
        bulk.refuse(place, refusal)

    def _decided_by(self, transaction: Transaction) -> Executed | None:
        """The receipt of its nonce, durable or not: of this transaction or of another."""
        executor = self._engine.executor
        number = keys.account_number(transaction.body.sender, executor.state)
        return None if number is None else executor.receipt(number, transaction.body.nonce)

    def _on_verified(
        self, bulk: _Bulk, places: list[int], group: list[Transaction], refusals: Sequence[Rejected | None]
    ) -> None:
        if any(refusals):
            for place, transaction, refusal in zip(places, group, refusals, strict=True):
                if refusal is not None:
                    self._turn_away(bulk, place, transaction, refusal)
            self._send(bulk)
            kept = [one for one, refusal in enumerate(refusals) if refusal is None]
            places, group = [places[one] for one in kept], [group[one] for one in kept]
        if group:
            self._driver().hand_in(group, partial(self._on_answered, bulk, places, group))

    def _on_answered(
        self, bulk: _Bulk, places: list[int], group: list[Transaction], refusals: Sequence[Rejected | None]
    ) -> None:
        for place, transaction, refusal in zip(places, group, refusals, strict=True):
            if refusal is not None:
                self._turn_away(bulk, place, transaction, refusal)
                continue
            for each in bulk.with_twins(place):
                self._await(bulk, each, transaction.id)
        self._metrics.admission_accepted.inc(refusals.count(None))
        self._send(bulk)

    def _turn_away(self, bulk: _Bulk, place: int, transaction: Transaction, refusal: Rejected) -> None:
        for each in bulk.with_twins(place):
            if each in bulk.open:  # else it has been told already that its time was over
                self._refuse(bulk, each, transaction, refusal)

    def _await(self, bulk: _Bulk, place: int, transaction: TransactionId) -> None:
        if place in bulk.open:  # else the session has ended, or its time was over
            self._awaited[transaction] = (bulk, place, self._awaited.get(transaction))

    # What becomes of them

    def on_executed(self, block: BlockExecuted) -> None:
        """A durable block: all that it decides of a request goes out as one reply."""
        if not (self._awaited or self._submitted):
            return
        told: list[_Bulk] = []
        for executed, key in zip(block.receipts, block.keys, strict=True):
            transaction = executed.receipt.transaction
            waiting = self._awaited.pop(transaction, None)
            if key == NOT_INDEXED:
                self._remember_unindexed(executed, waiting)
            elif self._submitted:
                self._submitted.pop(transaction, None)
            while waiting is not None:
                bulk, place, waiting = waiting
                if not bulk.receipts:
                    told.append(bulk)
                bulk.tell(place, executed)
        for bulk in told:
            self._send(bulk)

    def _remember_unindexed(self, executed: Executed, waiting: "_Awaiting | None") -> None:
        who = self._submitted.pop(executed.receipt.transaction, None)
        if waiting is not None:
            body = waiting[0].open[waiting[1]].body
            who = body.sender, body.nonce
        if who is not None:
            remember(self.unindexed, who, executed)

    def expire(self, live: Container[Session], now_ms: int) -> None:
        """Called now and then: whose time is over is told so, and what a session that is gone waited for is freed."""
        for bulk in list(self._bulks):
            if bulk.session in live and bulk.until_ms > now_ms:
                continue
            for place, transaction in list(bulk.open.items()):
                self._forget(bulk, transaction.id)
                bulk.refuse(place, self._not_yet(transaction))
            self._send(bulk)

    def _forget(self, bulk: _Bulk, transaction: TransactionId) -> None:
        kept: _Awaiting | None = None
        waiting = self._awaited.pop(transaction, None)
        while waiting is not None:
            other, place, waiting = waiting
            if other is not bulk:
                kept = (other, place, kept)
        if kept is not None:
            self._awaited[transaction] = kept

    def _not_yet(self, transaction: Transaction) -> Rejected:
        nonce, executed = transaction.body.nonce, self._decided_by(transaction)
        if executed is not None and executed.receipt.transaction != transaction.id:
            return Rejected(Code.E_NONCE, f"nonce {nonce} is used by another transaction")
        return Rejected(Code.E_BUSY, f"no receipt of nonce {nonce} yet")

    def _send(self, bulk: _Bulk) -> None:
        """What was found out since the last reply, if anything was."""
        if not (bulk.receipts or bulk.refusals):
            return
        is_last = not bulk.open
        answered = bulk.counted - len(bulk.open)
        bulk.counted -= answered
        self._all_under_way -= answered
        self._under_way[bulk.session] -= answered
        if not self._under_way[bulk.session]:
            del self._under_way[bulk.session]
        if is_last:
            self._bulks.discard(bulk)
        reply = api.Outcomes(bulk.id, tuple(bulk.receipts), tuple(bulk.refusals), is_last)
        bulk.receipts, bulk.refusals = [], []
        bulk.decided(reply)


def remember(memory: "OrderedDict[K, V]", key: K, value: V, most: int = REMEMBERED_MAX) -> None:
    """Keep a value, and of all at most so many: the oldest goes."""
    memory[key] = value
    if len(memory) > most:
        memory.popitem(last=False)


def _too_many(room: int) -> Rejected:
    return Rejected(Code.E_BUSY, f"room for {max(0, room)} more transactions to check; try again later")
