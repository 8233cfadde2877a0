"""The door for clients: what is refused before it costs anybody else anything.

Cheap rules first; signatures are checked by the driver between `preview` and `admit`, off the engine's thread.
"""

from collections.abc import Sequence

from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Body, Transaction
from p2pledger.engine.events import Answer, Now, Submitted
from p2pledger.engine.executor import Executor
from p2pledger.execution import keys, seats
from p2pledger.execution.contract import Application, Call, Duty
from p2pledger.execution.windows import Window
from p2pledger.mempool import Mempool
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, Value
from p2pledger.primitives.errors import Code, Refused, Rejected
from p2pledger.primitives.ids import AccountKey, Height, Millis, TransactionId
from p2pledger.state.view import StateView

PREVIEWED_MAX = 2 * limits.MEMPOOL_TRANSACTIONS_MAX
"""Previews remembered; beyond them a transaction is looked at twice."""
SENDERS_MAX = 10_000
"""Remembered until the next block."""


class _Sender(Value, frozen=True):
    """What all transactions of one sender are judged by."""

    window: Window
    is_validator: bool
    may_send: bool


class Admission:
    """Judges submissions against the current state and keeps what it lets in."""

    def __init__(self, founding: Founding, application: Application, executor: Executor, mempool: Mempool) -> None:
        self._chain = founding.chain
        self._drift_ms = founding.parameters.drift_ms
        self._application = application
        self._executor = executor
        self.mempool = mempool
        self._previewed: set[TransactionId] = set()
        self._senders: dict[AccountKey, _Sender] = {}
        self._senders_at = Height(0)

    def preview(self, transaction: Transaction, now: Now) -> None:
        """`precheck` of what `admit` will get: whether its nonce is free is all that it looks at then.

        Raises Rejected(E_BUSY) where there is no room for it.
        """
        self.mempool.demand_room()
        self.precheck(transaction, now)
        if len(self._previewed) >= PREVIEWED_MAX:  # of what never came back: its signatures did not hold
            self._previewed.clear()
        self._previewed.add(transaction.id)

    def precheck(self, transaction: Transaction, now: Now) -> None:
        """Everything but the signatures and the room; raises Rejected."""
        body = transaction.body
        if body.chain != self._chain:
            raise Rejected(Code.E_CHAIN, f"transaction is for chain {body.chain.hex()}, this is {self._chain.hex()}")
        if body.expires_ms < now.wall_ms:
            raise Rejected(Code.E_TX_EXPIRED, f"transaction expired at {body.expires_ms}, it is {now.wall_ms}")
        latest = now.wall_ms + limits.EXPIRY_AHEAD_MS_MAX
        if body.expires_ms > latest:
            raise Rejected(Code.E_TX_EXPIRED, f"expiry {body.expires_ms} is more than a day ahead of {now.wall_ms}")
        operations = transaction.operations_by(self._application.decode)
        state = self._executor.state
        sender = self._sender(body.sender)
        if sender is None:
            height = Height(self._executor.executed + 1)
            call = Call(self._chain, height, Millis(now.wall_ms), transaction.id, body.sender, body.cosigners)
            self._check_stranger(operations, call, state)
            return
        self._check_nonce(body, sender)
        self._check_sender(body.sender, operations, sender)
        if not self._application.has_quota(operations, body.sender, Millis(now.wall_ms), state):
            raise Rejected(Code.E_QUOTA, f"key {body.sender.hex()} has drawn too many refusals lately; try again later")

    def _sender(self, account: AccountKey) -> "_Sender | None":
        """What the state says of a key with an account; looked up once between two blocks."""
        if self._senders_at != self._executor.executed or len(self._senders) >= SENDERS_MAX:
            self._senders_at = self._executor.executed
            self._senders.clear()
        known = self._senders.get(account)
        if known is None:
            state = self._executor.state
            sender = seats.sender_of(account, state)
            if sender is None:
                return None
            window = keys.window_at(keys.nonces(sender.number), state)
            may_send = sender.is_validator or self._application.may_send(account, state)
            known = _Sender(window, sender.is_validator, may_send)
            self._senders[account] = known
        return known

    def _check_nonce(self, body: Body, sender: "_Sender") -> None:
        if sender.window.use(body.nonce) is None:
            raise Rejected(Code.E_NONCE, f"nonce {body.nonce} is used or outside the window of this sender")

    def _check_stranger(self, operations: Sequence[Record], call: Call, state: StateView) -> None:
        try:
            is_let_in = self._application.opens_account(operations, call, state)
        except Refused as refusal:
            raise Rejected(refusal.code, f"the chain would not let key {call.author.hex()} in by this") from refusal
        if not is_let_in:
            raise Rejected(Code.E_UNKNOWN_SENDER, f"key {call.author.hex()} has no account on this chain")

    def _check_sender(self, account: AccountKey, operations: Sequence[Record], sender: "_Sender") -> None:
        duties = sum([isinstance(operation, Duty) for operation in operations])
        if duties != (len(operations) if sender.is_validator else 0):
            raise Rejected(
                Code.E_ROLE,
                f"{duties} of {len(operations)} operations are a validator's duties; key {account.hex()} may send "
                + ("only such" if sender.is_validator else "none of them"),
            )
        if not sender.may_send:
            raise Rejected(Code.E_SUSPENDED, f"the identity of key {account.hex()} is suspended")

    def admit(self, transaction: Transaction, now: Now) -> None:
        """Take in a transaction whose signatures hold; raises Rejected."""
        sender = self._sender(transaction.body.sender)
        if sender is None or transaction.id not in self._previewed:
            self.precheck(transaction, now)
        else:
            self._previewed.remove(transaction.id)
            self._check_nonce(transaction.body, sender)  # what else a block has changed, execution judges
        self.mempool.add(transaction, now.monotonic_ms)

    def answer(self, event: Submitted, now: Now) -> Answer:
        """What became of a submission."""
        refusals: list[Rejected | None] = []
        for transaction in event.transactions:
            try:
                self.admit(transaction, now)
                refusals.append(None)
            except Rejected as refusal:
                refusals.append(refusal.with_traceback(None))  # it would hold the list that it stands in
        return Answer(event.ticket, refusals)
