"""A node of one in memory, driven by hand: what a driver and a verifier would do for its client port."""

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import Transaction, check_signatures, parse, sign
from p2pledger.consensus.messages import Signed
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import (
    Answer,
    BlockExecuted,
    EngineEffect,
    Flush,
    Flushed,
    Now,
    OwnSigned,
    SignMessage,
    Submitted,
    Woke,
    Write,
)
from p2pledger.engine.executor import genesis_flush
from p2pledger.network import api
from p2pledger.network.clients import Session
from p2pledger.node.driver import Answered, ConsensusSigner
from p2pledger.node.metrics import make_metrics
from p2pledger.node.server import Server
from p2pledger.node.verifier import Submission
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Rejected
from p2pledger.primitives.ids import AccountKey, Millis, Nonce, ValidatorId
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

CONSORTIUM = found(1, Parameters(heartbeat_ms=0))
ACCOUNT = CONSORTIUM.accounts[0]
STEP_MS, STEPS = 20, 12


def transaction(nonce: int, value: bytes = b"v", sender: SigningKey = ACCOUNT, expires_ms: int = 60_000) -> bytes:
    """A signed one; the application refuses the value `refuse`."""
    expires = Millis(WALL_START_MS + expires_ms)
    return sign(CONSORTIUM.founding.chain, sender, Nonce(nonce), expires, [Put(b"%d" % nonce, value)])


def session(account: SigningKey = ACCOUNT, role: str = "patient") -> Session:
    return Session(AccountKey(account.public), role, "127.0.0.1")


@dataclass
class Counterpart:
    """Stands where the driver does. Signatures are checked when `check` is called, time passes when `settle` is."""

    engine: Engine
    ledger: MemoryLedgerStore
    state: MemoryStateStore
    now: Now
    jobs: list[Submission] = field(default_factory=list)
    handed_in: list[tuple[list[Transaction], Answered]] = field(default_factory=list)
    checked: Counter[bytes] = field(default_factory=Counter)
    """How often the signatures of these bytes were checked."""
    verifier: Any = field(default_factory=lambda: SimpleNamespace(submissions_waiting=0))
    server: Server = field(init=False)

    def submit(self, job: Submission) -> None:
        self.jobs.append(job)
        self.verifier.submissions_waiting += len(job.transactions)

    def hand_in(self, transactions: list[Transaction], answered: Answered) -> None:
        self.handed_in.append((transactions, answered))

    def check(self) -> None:
        """What the verifier would do with all jobs that wait."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            self.verifier.submissions_waiting -= len(job.transactions)
            job.done([self._refusal_of(one) for one in job.transactions])

    def _refusal_of(self, one: Transaction) -> Rejected | None:
        self.checked[one.data] += 1
        try:
            check_signatures(one)
        except Rejected as refusal:
            return refusal
        return None

    def turn(self) -> None:
        """One turn of the driver with all that was handed in."""
        groups, self.handed_in = self.handed_in, []
        together = [one for transactions, _ in groups for one in transactions]
        effects = self.engine.handle(Submitted(1, together), self.now) if groups else []
        self._perform([*effects, *self.engine.handle(Woke(), self.now)], groups)

    def take_in(self) -> None:
        """The engine's word on all that was handed in, and no block yet."""
        groups, self.handed_in = self.handed_in, []
        for transactions, answered in groups:
            answered(self.engine.admission.answer(Submitted(1, transactions), self.now).refusals)

    def settle(self) -> None:
        """Everything that was taken in is decided."""
        self.check()
        for _ in range(STEPS):
            self.turn()
            self.pass_ms(STEP_MS)

    def pass_ms(self, passed: int) -> None:
        self.now = Now(self.now.monotonic_ms + passed, self.now.wall_ms + passed)

    def _perform(self, effects: list[EngineEffect], groups: list[tuple[list[Transaction], Answered]]) -> None:
        while effects:
            self.ledger.apply([effect.write for effect in effects if isinstance(effect, Write)])
            follow: list[EngineEffect] = []
            for effect in effects:
                match effect:
                    case SignMessage():
                        signer = ConsensusSigner(CONSORTIUM.consensus[0], CONSORTIUM.founding.chain)
                        signed = Signed(effect.message, signer.sign(effect.message))
                        follow += self.engine.handle(OwnSigned(signed), self.now)
                    case Flush():
                        self.state.flush(effect.flush)
                        follow += self.engine.handle(Flushed(effect.flush.height), self.now)
                    case Answer():
                        start = 0
                        for transactions, answered in groups:
                            answered(effect.refusals[start : start + len(transactions)])
                            start += len(transactions)
                    case BlockExecuted():
                        self.server.on_executed(effect)
            effects = follow


def counterpart() -> Counterpart:
    """A new chain."""
    founding, application = CONSORTIUM.founding, RegisterApplication()
    ledger, state = MemoryLedgerStore(founding.chain, founding.header.hash), MemoryStateStore()
    state.flush(genesis_flush(application, founding))
    now = Now(0, WALL_START_MS)
    validator = ValidatorId(CONSORTIUM.consensus[0].public)
    engine = Engine(founding, application, CONSORTIUM.nodes[0], validator, ledger, state, now)
    made = Counterpart(engine, ledger, state, now)
    made.server = Server(engine, ledger, state, make_metrics())
    made.server.driver = made  # type: ignore[assignment]
    made._perform(engine.start(), [])
    return made


@dataclass
class Asked:
    """A request in bulk, and what was answered."""

    at: Counterpart
    transactions: list[bytes]
    by: Session = field(default_factory=session)
    timeout_ms: int = 30_000
    replies: list[api.Outcomes] = field(default_factory=list)

    def send(self) -> "Asked":
        request = api.SubmitMany(7, tuple(self.transactions), self.timeout_ms)
        assert self.at.server.take(self.by, request, self._decided)
        return self

    def _decided(self, reply: api.Reply | Rejected) -> None:
        assert isinstance(reply, api.Outcomes) and reply.id == 7 and not self.is_over
        assert all(executed.receipt.height <= self.at.ledger.tip() for _, executed in reply.receipts)
        self.replies.append(reply)

    @property
    def is_over(self) -> bool:
        return bool(self.replies) and self.replies[-1].is_last

    @property
    def codes(self) -> dict[int, int]:
        """By places; each was answered once."""
        found = [(place, executed.receipt.code) for reply in self.replies for place, executed in reply.receipts]
        found += [(refusal.place, refusal.code) for reply in self.replies for refusal in reply.refusals]
        assert len(dict(found)) == len(found)
        for reply in self.replies:
            for place, executed in reply.receipts:
                assert executed.receipt.transaction == parse(self.transactions[place]).id
        return dict(sorted(found))
