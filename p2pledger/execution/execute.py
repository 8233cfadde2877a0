"""Running a committed block: the same writes and receipts, byte for byte, on every node.

Transactions run one after the other, each on what the ones before it left. What a transaction may do is the
application's business; whether it may run at all, and that it runs once, is decided here. Nothing here trusts
that admission has checked anything but the signatures: whoever proposes can put any signed bytes into a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pledger.chain.batch import Batch
from p2pledger.chain.block import Header
from p2pledger.chain.receipt import Executed, all_executed, effects_leaves
from p2pledger.chain.transaction import Transaction
from p2pledger.execution import evidence, keys, seats
from p2pledger.execution.contract import Application, Call, Duty, Outcome
from p2pledger.execution.evidence import ValidatorEvidence
from p2pledger.execution.windows import EMPTY, Window
from p2pledger.primitives import limits, merkle
from p2pledger.primitives.codec import Record
from p2pledger.primitives.errors import Code, Refused, Rejected
from p2pledger.primitives.ids import ChainId, TransactionId
from p2pledger.state.memory import Memory
from p2pledger.state.overlay import Draft
from p2pledger.state.view import StateView, Writes

_OK, _E_NONCE = int(Code.OK), int(Code.E_NONCE)
NOT_INDEXED = (0, 0)
"""The receipt key of a transaction that used no nonce of any account."""


@dataclass(frozen=True, slots=True)
class BlockEffects:
    """All that a block changed and reported."""

    receipts: list[Executed]
    """In block order; a duplicate has none, so there may be fewer than transactions."""
    receipt_keys: list[tuple[int, int]]
    """(account number, nonce) of each receipt; (0, 0) where no nonce was used."""
    writes: dict[bytes, bytes | None]
    leaves: list[bytes]
    """Leaf hashes of the effects tree."""
    root: bytes
    alarms: list[str]
    """Contracts that broke their own promises; for a log and a metric, never for the chain."""
    memory: Memory | None = field(default=None, compare=False)
    """What was read and written of the state; goes back to the overlay with the writes (`Overlay.apply`)."""


def execute_block(
    application: Application,
    chain: ChainId,
    header: Header,
    batches: Sequence[tuple[Batch, Sequence[Transaction]]],
    state: StateView,
) -> BlockEffects:
    """What this block does to `state`, which is left as it is.

    MemoryError, RecursionError and OSError of a contract come through: they may differ between machines, so the
    node stops rather than write down a result that others do not have.
    """
    run = _Run(application, chain, header, Draft(state))
    for batch, transactions in batches:
        run.use_sequence(batch)
        for transaction in transactions:
            run.execute(transaction)
    return run.effects()


@dataclass(slots=True)
class _Run:
    application: Application
    chain: ChainId
    header: Header
    state: Draft
    outcomes: list[tuple[TransactionId, int, tuple[bytes, ...]]] = field(default_factory=list)
    receipt_keys: list[tuple[int, int]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    windows: dict[int, Window] = field(default_factory=dict)
    """Nonces of the senders so far; contracts never see them, so they are written once, at the end."""

    def use_sequence(self, batch: Batch) -> None:
        """Note that this batch stands in the chain; proposals with it twice were refused before PREPARE."""
        key = keys.origin(batch.origin)
        window = keys.window_at(key, self.state).use(batch.sequence)
        assert window is not None, f"batch {batch.sequence} of {batch.origin.hex()} stands in the chain twice"
        self.state.apply({key: window.encode()})

    def execute(self, transaction: Transaction) -> None:
        """Run one transaction and write its receipt."""
        body = transaction.body
        assert body.chain == self.chain, f"transaction {transaction.id.hex()} is for another chain"
        sender = seats.sender_of(body.sender, self.state)
        if sender is None:
            self._execute_of_stranger(transaction)
            return
        number, nonce = sender.number, body.nonce
        window = self.windows.get(number)
        if window is None:
            window = keys.window_at(keys.nonces(number), self.state)
        used = window.use(nonce)
        if used is None:
            if not window.is_used(nonce):  # else the first receipt stays the only one
                self._receipt(transaction.id, _E_NONCE, (), NOT_INDEXED)
            return
        self.windows[number] = used  # failing consumes the nonce too
        code, events = self._outcome(transaction, sender.is_validator)
        if code:
            writes = self.application.refused(self._call(transaction), self.state)
            if writes:
                _check_writes(writes)
                self.state.apply(writes)
        self.outcomes.append((transaction.id, code, events))
        self.receipt_keys.append((number, nonce))

    def _execute_of_stranger(self, transaction: Transaction) -> None:
        """A sender without an account may only register itself, and leaves no trace unless it succeeds.

        So a failed registration uses no nonce; the same transaction may be ordered again until it expires.
        """
        body = transaction.body
        window = EMPTY.use(body.nonce)
        if window is None:
            self._receipt(transaction.id, _E_NONCE, (), NOT_INDEXED)
            return
        is_validator = seats.validator_of(body.sender, self.state) is not None
        code, events = self._outcome(transaction, is_validator, is_stranger=True)
        if code:
            self._receipt(transaction.id, code, (), NOT_INDEXED)
            return
        number = self._open_account(transaction, window)
        self._receipt(transaction.id, code, events, (number, body.nonce))

    def _open_account(self, transaction: Transaction, window: Window) -> int:
        sender = transaction.body.sender
        if keys.account_number(sender, self.state) is None:
            self.state.apply(keys.open_account(sender, self.state))
        number = keys.account_number(sender, self.state)
        assert number is not None
        self.windows[number] = window
        return number

    def _outcome(
        self, transaction: Transaction, is_validator: bool, is_stranger: bool = False
    ) -> tuple[int, tuple[bytes, ...]]:
        """Code and events; events, and changes of the state, only where the code is OK."""
        if not self._is_in_time(transaction):
            return int(Code.E_TX_EXPIRED), ()
        try:
            return _OK, self._operate(transaction, is_validator, is_stranger)
        except (Refused, Rejected) as refusal:
            return int(refusal.code), ()
        except (MemoryError, RecursionError, OSError):
            raise
        except Exception as error:  # a contract must not stop the chain; every node gets the same receipt
            self.alarms.append(
                f"height {self.header.height} transaction {transaction.id.hex()}: {type(error).__name__}: {error}"
            )
            return int(Code.E_INTERNAL), ()

    def _is_in_time(self, transaction: Transaction) -> bool:
        """Beyond a day ahead would ask replay protection to remember for longer than it does."""
        now = self.header.time_ms
        return now <= transaction.body.expires_ms <= now + limits.EXPIRY_AHEAD_MS_MAX

    def _operate(self, transaction: Transaction, is_validator: bool, is_stranger: bool) -> tuple[bytes, ...]:
        """Change the state, all of it or, where this raises, nothing; the events."""
        operations = transaction.operations_by(self.application.decode)
        call = self._call(transaction)
        if is_stranger and not self.application.opens_account(operations, call, self.state):
            raise Refused(Code.E_UNKNOWN_SENDER)
        if len(operations) != 1:
            return self._attempt(operations, call, is_validator)
        outcome = self._outcome_of(operations[0], call, is_validator)
        events = tuple(outcome.events)
        self.state.apply(outcome.writes)
        return events

    def _attempt(self, operations: Sequence[Record], call: Call, is_validator: bool) -> tuple[bytes, ...]:
        """Several operations, of which each sees what the ones before it left: all of them or none."""
        events: list[bytes] = []
        self.state.attempt()
        try:
            for operation in operations:
                outcome = self._outcome_of(operation, call, is_validator)
                self.state.apply(outcome.writes)
                events += outcome.events
        except BaseException:
            self.state.revert()
            raise
        self.state.keep()
        return tuple(events)

    def _outcome_of(self, operation: Record, call: Call, is_validator: bool) -> Outcome:
        """Duties are for validators' nodes, and everything else is for everybody else."""
        if isinstance(operation, ValidatorEvidence):
            return evidence.record(operation, call, self.state)
        if isinstance(operation, Duty) != is_validator:
            raise Refused(Code.E_ROLE)
        outcome = self.application.execute(operation, call, self.state)
        _check_writes(outcome.writes)
        return outcome

    def _call(self, transaction: Transaction) -> Call:
        body, header = transaction.body, self.header
        return Call(self.chain, header.height, header.time_ms, transaction.id, body.sender, body.cosigners)

    def _receipt(self, transaction: TransactionId, code: int, events: tuple[bytes, ...], key: tuple[int, int]) -> None:
        self.outcomes.append((transaction, code, events))
        self.receipt_keys.append(key)

    def effects(self) -> BlockEffects:
        """Everything, with its root."""
        self.state.apply({keys.nonces(number): window.encode() for number, window in self.windows.items()})
        writes = self.state.writes()
        receipts = all_executed(self.header.height, self.outcomes)
        leaves = effects_leaves([done.receipt for done in receipts], writes)
        root = merkle.root_of_hashes(leaves)
        return BlockEffects(receipts, self.receipt_keys, writes, leaves, root, self.alarms, self.state.memory)


def _check_writes(writes: Writes) -> None:
    for key, value in writes.items():
        if (
            not 0 < len(key) <= limits.STATE_KEY_BYTES_MAX
            or key[0] < keys.APPLICATION_FIRST
            or (value is not None and len(value) > limits.STATE_VALUE_BYTES_MAX)
        ):
            _check_write(key, value)


def _check_write(key: bytes, value: bytes | None) -> None:
    assert 0 < len(key) <= limits.STATE_KEY_BYTES_MAX, f"a contract wrote a key of {len(key)} bytes"
    assert value is None or len(value) <= limits.STATE_VALUE_BYTES_MAX, (
        f"a contract wrote a value of {len(value)} bytes"
    )
    assert key[0] >= keys.APPLICATION_FIRST or key[:1] in (keys.ACCOUNT, keys.NEXT_ACCOUNT), (
        f"a contract wrote the ledger's own key {key.hex()}"
    )
