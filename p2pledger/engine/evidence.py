"""Proof against validators that contradicted themselves: kept in the journal, offered to the chain (P14).

The node offers it with its own key, in a transaction like any other. Validators take turns, beginning with the seat
after the liar's: whose turn comes when the chain has the evidence already says nothing, so normally one is sent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from p2pledger.chain.genesis import Founding
from p2pledger.chain.statement import Place, place_of
from p2pledger.chain.transaction import parse, sign
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import contradicts, statement_of
from p2pledger.engine.admission import Admission
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.events import EngineEffect, Note, Write
from p2pledger.engine.executor import Executor
from p2pledger.engine.ports import PutJournal
from p2pledger.execution import keys
from p2pledger.execution.evidence import ValidatorEvidence, all_caught, caught
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import AccountKey, Height, Millis, NodeId, Nonce, ValidatorId

DEADLINE = "evidence"
"""The name of its entry on the agenda."""
OFFER_MS = 60_000
"""An offer expires after this, and the drift of clocks; if the chain still knows nothing, another one is made."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """That a validator said two things at one place."""

    author: ValidatorId
    place: Place
    recorded: Height | None
    """The height of the block that put it onto the chain; None: this node has proof, the chain has none yet."""


class Evidence:
    """The first pair of statements of each liar that this node has seen, and whether the chain knows."""

    def __init__(
        self,
        founding: Founding,
        node_key: SigningKey,
        executor: Executor,
        admission: Admission,
        agenda: Agenda,
        is_ready: Callable[[], bool],
    ) -> None:
        """`is_ready`: whether the state here is that of the chain's tip, or nearly."""
        self._validators = founding.validators
        own = founding.validators.of_node(NodeId(node_key.public))
        self._seat = None if own is None else founding.validators.index(own)
        self._chain = founding.chain
        self._timeout_ms = founding.parameters.timeout_ms
        self._offer_ms = OFFER_MS + founding.parameters.drift_ms
        self._key = node_key
        self._executor = executor
        self._admission = admission
        self._agenda = agenda
        self._is_ready = is_ready
        self._kept: dict[ValidatorId, EvidenceRecord] = {}
        self._due_ms: dict[ValidatorId, int] = {}
        """When to offer what the chain was not seen to hold."""
        self._nonce = 0
        """The last one used since the start; what is older stands in the state."""

    @property
    def kept(self) -> Mapping[ValidatorId, EvidenceRecord]:
        """By author."""
        return self._kept

    def known(self) -> list[Contradiction]:
        """What the chain holds, and what only this node does, by validator."""
        found = {
            author: Contradiction(author, place_of(statement_of(record.first.message)), None)
            for author, record in self._kept.items()
        }
        for held in all_caught(self._executor.state):
            author = held.evidence.validator
            found[author] = Contradiction(author, place_of(held.evidence.first), held.height)
        return [found[author] for author in sorted(found)]

    def recall(self, record: EvidenceRecord) -> None:
        """Take up what the journal holds, after a start."""
        author = record.first.message.author
        self._kept[author] = record
        seat = self._validators.index(author)
        if self._seat is None or seat is None or self._is_on_chain(author):
            return
        turns = (self._seat - seat - 1) % self._validators.n
        self._due_ms[author] = self._agenda.monotonic_ms + turns * self._timeout_ms
        self._set_deadline()

    def keep(self, record: EvidenceRecord) -> Iterator[EngineEffect]:
        """One pair of an author is proof enough; more would be a way to fill our disk."""
        assert contradicts(record.first.message, record.second.message), "evidence of nothing"
        if record.first.message.author not in self._kept:
            yield Write(PutJournal(record))
            self.recall(record)

    def offer_due(self) -> Iterator[EngineEffect]:
        """Offer what nobody has brought onto the chain by our turn."""
        self._due_ms = {author: due for author, due in self._due_ms.items() if not self._is_on_chain(author)}
        now = self._agenda.monotonic_ms
        for author in sorted(author for author, due in self._due_ms.items() if due <= now):
            if self._is_ready():
                self._due_ms[author] = now + self._timeout_ms
                yield from self._offer(author)
            else:  # looked at more often than turns change, so that whose turn it is keeps its lead after a start
                self._due_ms[author] = now + self._timeout_ms // 4
        self._set_deadline()

    def _offer(self, author: ValidatorId) -> Iterator[EngineEffect]:
        """Into our own mempool, from where it goes the way of every transaction; later if that is full."""
        now = self._agenda.now
        expires_ms = Millis(now.wall_ms + self._offer_ms)
        nonce = self._next_nonce()
        operation = evidence_of(self._kept[author])
        transaction = parse(sign(self._chain, self._key, nonce, expires_ms, [operation]))
        try:
            self._admission.admit(transaction, now)
        except Rejected as refusal:
            yield Note("evidence_not_offered", (("author", author.hex()), ("reason", str(refusal))))
            return
        self._nonce = nonce
        self._due_ms[author] = now.monotonic_ms + self._offer_ms
        yield Note("evidence_offered", (("author", author.hex()), ("transaction", transaction.id.hex())))

    def _next_nonce(self) -> Nonce:
        """Above all that the chain has seen and all that we have used since we started.

        What an earlier life has used and the chain has not seen may come to be used twice: then one of the two is
        executed, and either says the same or is said again.
        """
        state = self._executor.state
        number = keys.account_number(AccountKey(self._key.public), state)
        assert number is not None, "the genesis opens an account for the node of each validator"
        return Nonce(max(self._nonce, keys.window_at(keys.nonces(number), state).highest) + 1)

    def _is_on_chain(self, author: ValidatorId) -> bool:
        return caught(author, self._executor.state) is not None

    def _set_deadline(self) -> None:
        if self._due_ms:
            self._agenda.at(DEADLINE, min(self._due_ms.values()))


def evidence_of(record: EvidenceRecord) -> ValidatorEvidence:
    """The operation that shows what was kept: the statements without what travelled beside them."""
    first, second = record.first, record.second
    return ValidatorEvidence(
        first.message.author,
        statement_of(first.message),
        first.signature,
        statement_of(second.message),
        second.signature,
    )
