"""Proof against validators that contradicted themselves: kept in the journal, offered to the chain (P14).

The node offers it with its own key, in a transaction like any other. Validators take turns, beginning with the seat
after the liar's: whose turn comes when the chain has the evidence already says nothing, so normally one is sent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from p2pledger.chain.genesis import Founding
from p2pledger.chain.statement import Place, place_of
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import contradicts, statement_of
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.duties import Duties
from p2pledger.engine.events import EngineEffect, Note, Write
from p2pledger.engine.executor import Executor
from p2pledger.engine.ports import PutJournal
from p2pledger.execution.evidence import ValidatorEvidence, all_caught, caught
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import Height, NodeId, ValidatorId

DEADLINE = "evidence"
"""The name of its entry on the agenda."""


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
        me: NodeId,
        duties: Duties,
        executor: Executor,
        agenda: Agenda,
        is_ready: Callable[[], bool],
    ) -> None:
        """`is_ready`: whether the state here is that of the chain's tip, or nearly."""
        self._validators = founding.validators
        own = founding.validators.of_node(me)
        self._seat = None if own is None else founding.validators.index(own)
        self._timeout_ms = founding.parameters.timeout_ms
        self._duties = duties
        self._executor = executor
        self._agenda = agenda
        self._is_ready = is_ready
        self._kept: dict[ValidatorId, EvidenceRecord] = {}
        self._due_ms: dict[ValidatorId, int] = {}
        """When to offer what the chain was not seen to hold."""

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
        """Later, if the mempool is full; again, if the offer expires and the chain still knows nothing."""
        try:
            transaction = self._duties.offer([evidence_of(self._kept[author])])
        except Rejected as refusal:
            yield Note("evidence_not_offered", (("author", author.hex()), ("reason", str(refusal))))
            return
        self._due_ms[author] = self._agenda.monotonic_ms + self._duties.offer_ms
        yield Note("evidence_offered", (("author", author.hex()), ("transaction", transaction.id.hex())))

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
