"""Checks signatures off the driver's thread: votes first, then peers' batches, then clients' transactions.

libsodium releases the interpreter lock, so worker threads really run beside the driver. Queues are bounded by
what the engine asks for (votes, wanted batches) and by the client port's intake control (submissions).
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import trio

from p2pledger.chain.batch import JunkBatch, batch_id, check_batch, parse_batch
from p2pledger.chain.genesis import Founding
from p2pledger.chain.transaction import Transaction, check_signatures
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.events import BatchVerified, EngineEvent, MessageBad, MessageVerified, VerifyBatch, VerifyMessage
from p2pledger.primitives.codec import Value
from p2pledger.primitives.errors import InvalidInput, Rejected
from p2pledger.primitives.ids import Epoch, NodeId

T = TypeVar("T")
R = TypeVar("R")
SignedKind = Literal["vote", "batch", "transaction", "submission"]
"""What a signature stands under: an agreement message, a batch, a transaction in a batch, one a client hands in."""

VOTES_PER_NODE = 4_096
"""Two votes for each of W heights in 8 views of 50 validators, carried on for others, are 3,200 at the very most."""
TRANSACTION_BYTES_LEAST = 200
"""About: a body, a signature and an operation. What is shorter is not worth counting."""
BATCHES_PER_NODE = 64
"""64 MiB of one node's batches at most."""
INLINE = 4
"""Signatures that are checked on the spot, of batches by their bytes: a thread's coming and going costs as much."""
CHUNK = 64
"""Votes, signatures of submissions or batches in a job: enough to pay for the thread, too few to delay a vote."""
CHUNK_BYTES = 16 * 1024
"""Of the batches in one job, if it has more than one: some forty transactions."""


class Submission(Value, frozen=True):
    """Transactions of a client whose signatures nobody has checked yet; `groups` makes them of a good size."""

    transactions: Sequence[Transaction]
    done: Callable[[Sequence[Rejected | None]], None]
    """Called on the driver's thread with what was found of each: None, or whose signature does not hold."""


def groups(transactions: Iterable[Transaction]) -> Iterator[list[Transaction]]:
    """All of them in order, in groups of at most CHUNK signatures: each is one job."""
    group: list[Transaction] = []
    signatures = 0
    for transaction in transactions:
        signatures += len(transaction.envelope.signatures)
        if group and signatures > CHUNK:
            yield group
            group, signatures = [], len(transaction.envelope.signatures)
        group.append(transaction)
    if group:
        yield group


@dataclass
class Verifier:
    """`threads` workers; with 0, everything is checked on the spot."""

    founding: Founding
    post: Callable[[EngineEvent], None]
    threads: int
    checked: Counter[SignedKind] = field(default_factory=Counter)
    """Signatures of finished jobs, for the metrics; counted on the driver's thread, so none is lost."""
    bad: int = 0
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("vote", "batch", "submission"), 0.0))
    """Processor time of jobs by what they checked (`vote`, `batch`, `submission`), parsing included."""
    _votes: deque[VerifyMessage] = field(default_factory=deque)
    _batches: deque[VerifyBatch] = field(default_factory=deque)
    _queued: Counter[NodeId] = field(default_factory=Counter)
    _batches_queued: Counter[NodeId] = field(default_factory=Counter)
    _submissions: deque[Submission] = field(default_factory=deque)
    submissions_waiting: int = 0
    """Transactions in them."""
    _idle: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Workers without work: each new job wakes one of them."""

    @property
    def votes_waiting(self) -> int:
        return len(self._votes)

    @property
    def batches_waiting(self) -> int:
        return len(self._batches)

    def ask_message(self, job: VerifyMessage) -> None:
        """Queue an agreement message; one too many of a node is not looked at, it will be sent again."""
        if self._queued[job.node] >= VOTES_PER_NODE:
            self.post(MessageBad(job.node, "too many messages wait to be checked", is_forged=False))
            return
        self._queued[job.node] += 1
        self._votes.append(job)
        self._idle.unpark()

    def ask_batch(self, job: VerifyBatch) -> None:
        """Queue a batch; one too many of a node is not looked at, it is pulled again when a block names it."""
        if self._batches_queued[job.node] >= BATCHES_PER_NODE:
            reason = "too many batches wait to be checked"
            self.post(MessageBad(job.node, reason, batch_id(job.data), is_forged=False))
            return
        self._batches_queued[job.node] += 1
        self._batches.append(job)
        self._idle.unpark()

    def ask_submission(self, job: Submission) -> None:
        """Queue a client's transactions."""
        self._submissions.append(job)
        self.submissions_waiting += len(job.transactions)
        if self._idle:
            self._idle.unpark()

    async def run(self) -> None:
        """The workers, until cancelled."""
        limiter = trio.CapacityLimiter(max(1, self.threads))
        async with trio.open_nursery() as nursery:
            for _ in range(max(1, self.threads)):
                nursery.start_soon(self._work, limiter)

    async def _work(self, limiter: trio.CapacityLimiter) -> None:
        """Votes first, but one job of each kind in turn: a flood of one kind delays the others, and starves none."""
        while True:
            if not (self._votes or self._batches or self._submissions):
                await self._idle.park()
            if self._votes:
                votes = [self._votes.popleft() for _ in range(min(CHUNK, len(self._votes)))]
                self._queued.subtract(job.node for job in votes)
                events = await self._call(limiter, "vote", self._check_votes, votes, len(votes))
                self.checked["vote"] += len(votes)
                for event in events:
                    self._tell(event)
            if self._batches:
                batches = self._next_batches()
                signatures = sum(len(job.data) for job in batches) // TRANSACTION_BYTES_LEAST
                for event in await self._call(limiter, "batch", self._check_batches, batches, signatures):
                    self._tell(event)
            if self._submissions:
                jobs = self._next_submissions()
                signatures = sum(len(one.envelope.signatures) for job in jobs for one in job.transactions)
                verdicts = await self._call(limiter, "submission", self._check_all, jobs, signatures)
                self.checked["submission"] += signatures
                for job, refusals in zip(jobs, verdicts, strict=True):
                    self.bad += sum(refusal is not None for refusal in refusals)
                    job.done(refusals)

    def _next_submissions(self) -> list[Submission]:
        """What came in bulk is a job by itself; what came one by one is gathered, each with a signature or two."""
        chosen: list[Submission] = []
        room = CHUNK
        while self._submissions and (not chosen or len(self._submissions[0].transactions) <= room):
            chosen.append(self._submissions.popleft())
            room -= len(chosen[-1].transactions)
        self.submissions_waiting -= CHUNK - room
        return chosen

    def _next_batches(self) -> list[VerifyBatch]:
        """One large batch, or several small ones: at low load every transaction is a batch, and a job costs more."""
        chosen = [self._batches.popleft()]
        size = len(chosen[0].data)
        while self._batches and len(chosen) < CHUNK and size + len(self._batches[0].data) <= CHUNK_BYTES:
            chosen.append(self._batches.popleft())
            size += len(chosen[-1].data)
        self._batches_queued.subtract(job.node for job in chosen)
        return chosen

    def _tell(self, event: EngineEvent) -> None:
        match event:
            case BatchVerified():
                self.checked["batch"] += 1
                self.checked["transaction"] += sum(len(item.envelope.signatures) for item in event.transactions)
            case MessageBad():
                self.bad += 1
            case _:
                pass
        self.post(event)

    async def _call(
        self, limiter: trio.CapacityLimiter, kind: str, check: Callable[[T], R], job: T, signatures: int
    ) -> R:
        if self.threads == 0 or signatures <= INLINE:
            await trio.lowlevel.checkpoint()
            spent_s, result = _timed(check, job)
        else:
            spent_s, result = await trio.to_thread.run_sync(_timed, check, job, limiter=limiter)
        self.cpu_s[kind] += spent_s
        return result

    def _check_votes(self, jobs: list[VerifyMessage]) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for job in jobs:
            try:
                verified = verify_message(job.signed, self.founding.chain, Epoch(0), self.founding.validators)
                events.append(MessageVerified(job.node, verified))
            except InvalidInput as error:
                events.append(MessageBad(job.node, str(error)))
        return events

    def _check_batches(self, jobs: list[VerifyBatch]) -> list[EngineEvent]:
        return [self._check_batch(job) for job in jobs]

    def _check_batch(self, job: VerifyBatch) -> EngineEvent:
        key = batch_id(job.data)
        try:
            batch = parse_batch(job.data)
            transactions = check_batch(self.founding.chain, batch)
        except JunkBatch as error:
            return MessageBad(job.node, str(error), key, junk_of=error.origin)
        except InvalidInput as error:
            return MessageBad(job.node, str(error), key)
        return BatchVerified(job.node, key, batch, transactions, job.data)

    def _check_all(self, jobs: list[Submission]) -> list[list[Rejected | None]]:
        """What was found of each transaction of each job."""
        return [[_refusal_of(one) for one in job.transactions] for job in jobs]


def _refusal_of(transaction: Transaction) -> Rejected | None:
    try:
        check_signatures(transaction)
    except Rejected as refusal:
        return refusal.with_traceback(None)
    return None


def _timed(check: Callable[[T], R], job: T) -> tuple[float, R]:
    """(processor seconds of this thread, the result)."""
    started = time.thread_time()
    result = check(job)
    return time.thread_time() - started, result
