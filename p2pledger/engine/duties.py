"""What a validator's node sends with its own key; the one source of nonces for all who owe the chain something.

Evidence (evidence.py) and the words of key ceremonies and release reports (health/key_keeper.py) go out here, into the
node's own mempool, from where they go the way of every transaction. Nothing is promised: who is owed says it again.
"""

from collections.abc import Iterator, Sequence

from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.engine.admission import Admission
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.events import DutiesOwed, EngineEffect, Note
from p2pledger.engine.executor import Executor
from p2pledger.execution import keys
from p2pledger.execution.contract import Duty
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import AccountKey, Millis, Nonce

OFFER_MS = 60_000
"""An offer expires after this, and the drift of clocks."""


class Duties:
    """The account of this validator's node."""

    def __init__(
        self, founding: Founding, node_key: SigningKey, executor: Executor, admission: Admission, agenda: Agenda
    ) -> None:
        self.offer_ms = OFFER_MS + founding.parameters.drift_ms
        """After so long, what the chain has not executed it never will."""
        self._chain = founding.chain
        self._key = node_key
        self._executor = executor
        self._admission = admission
        self._agenda = agenda
        self._nonce = 0
        """The last one used since the start; what is older stands in the state."""

    def offer(self, operations: Sequence[Duty]) -> Transaction:
        """Into our own mempool, as one transaction; raises Rejected where that is full or a rule is broken."""
        now = self._agenda.now
        nonce = self._next_nonce()
        expires_ms = Millis(now.wall_ms + self.offer_ms)
        transaction = parse(sign(self._chain, self._key, nonce, expires_ms, operations))
        self._admission.admit(transaction, now)
        self._nonce = nonce
        return transaction

    def on_owed(self, event: DutiesOwed) -> Iterator[EngineEffect]:
        """Offer what somebody beside the engine owes; a refusal is only noted."""
        names = ", ".join(type(operation).__name__ for operation in event.operations)
        try:
            transaction = self.offer(event.operations)
        except Rejected as refusal:
            yield Note("duties_not_offered", (("duties", names), ("reason", str(refusal))))
            return
        yield Note("duties_offered", (("duties", names), ("transaction", transaction.id.hex())))

    def _next_nonce(self) -> Nonce:
        """Above all that the chain has seen and all that we have used since we started.

        What an earlier life has used and the chain has not seen may come to be used twice: then one of the two is
        executed, and either says the same or is said again.
        """
        state = self._executor.state
        number = keys.account_number(AccountKey(self._key.public), state)
        assert number is not None, "the genesis opens an account for the node of each validator"
        return Nonce(max(self._nonce, keys.window_at(keys.nonces(number), state).highest) + 1)
