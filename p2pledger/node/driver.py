"""Performs what the engine asks for and decides nothing: durable writes first, then signatures, then sends.

One task owns the engine. Whoever has news calls `post`; the driver takes all news of a turn together, so that one
durable write serves them all.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import structlog
import trio

from p2pledger.chain.transaction import Transaction
from p2pledger.consensus.messages import Message, Signed, statement
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import (
    Answer,
    BlockExecuted,
    Disconnect,
    EngineEffect,
    EngineEvent,
    Flush,
    Flushed,
    FromPeer,
    LinkDown,
    LinkUp,
    Note,
    Now,
    OwnSigned,
    SignMessage,
    Stop,
    Submitted,
    Transmit,
    VerifyBatch,
    VerifyMessage,
    Woke,
    Write,
)
from p2pledger.engine.ports import AppendBlock, LedgerStore, LedgerWrite, StateStore
from p2pledger.network import link as link_event
from p2pledger.network.peers import PeerLinks
from p2pledger.node.metrics import Metrics
from p2pledger.node.surroundings import Surroundings
from p2pledger.node.verifier import Submission, Verifier
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Divergence, P2PLedgerError, Rejected
from p2pledger.primitives.ids import ChainId, Signature
from p2pledger.storage.sign_floor import SignFloor

EVENTS_PER_TURN = 512
INBOX_HIGH = 4_096
"""News waiting for the driver at which links are not read any further."""
FLOOR_EVERY_HEIGHTS = 64
Answered = Callable[[Sequence[Rejected | None]], None]
"""Called with what was said of each transaction of a group: None, or why not."""
_HandedIn: TypeAlias = tuple[Sequence[Transaction], Answered]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConsensusSigner:
    """Signs agreement statements with a key in memory; an HSM would take its place here."""

    key: SigningKey
    chain: ChainId

    def sign(self, message: Message) -> Signature:
        """The signature over the message's statement."""
        return self.key.sign(statement(self.chain, message))


@dataclass
class Driver:
    """The one owner of an engine."""

    engine: Engine
    ledger: LedgerStore
    state: StateStore
    links: PeerLinks
    signer: ConsensusSigner
    floor: SignFloor
    metrics: Metrics
    verify_threads: int
    on_executed: Callable[[BlockExecuted], None]
    surroundings: Surroundings = field(default_factory=Surroundings)
    verifier: Verifier = field(init=False)
    cpu_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("engine", "store", "flush"), 0.0))
    """Processor time by phase, for the metrics; taken once a turn and once a write."""
    _inbox: deque[EngineEvent] = field(default_factory=deque)
    _wake: trio.Event = field(default_factory=trio.Event)
    _room: trio.Event = field(default_factory=trio.Event)
    _handed_in: list[_HandedIn] = field(default_factory=list)
    """Since the last turn."""
    _answers: dict[int, list[_HandedIn]] = field(default_factory=dict)
    _ticket: int = 0
    _floor_at: int = 0
    _block_at: float = 0.0
    """When the last block was executed; 0 before the first."""
    _flushes: deque[Flush] = field(default_factory=deque)
    _flush_wake: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.verifier = Verifier(self.engine.founding, self.post, self.verify_threads)

    @property
    def news_waiting(self) -> int:
        """Events not yet handled."""
        return len(self._inbox)

    @property
    def now(self) -> Now:
        """The moment, on both clocks of the machine."""
        return self.surroundings.now()

    # Called by others on this thread

    def post(self, event: EngineEvent) -> None:
        """News for the engine; taken up in the next turn."""
        self._inbox.append(event)
        self._wake.set()

    def submit(self, job: Submission) -> None:
        """Check a client's signatures, then call its `done`."""
        self.verifier.ask_submission(job)

    def hand_in(self, transactions: Sequence[Transaction], answered: Answered) -> None:
        """Give checked transactions to the engine; `answered` is called with what it says of each."""
        self._handed_in.append((transactions, answered))
        self._wake.set()

    # Tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, then serve until cancelled. Raises what stops a node: StoreError, Divergence."""
        await self._perform(self.engine.start())
        self.engine.executor.learn_tree()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_links)
            nursery.start_soon(self.verifier.run)
            nursery.start_soon(self._flush_in_background)
            task_status.started()
            await self._turns()

    async def _turns(self) -> None:
        while True:
            if not (self._inbox or self._handed_in):
                self._wake = trio.Event()
                wake = self.engine.next_wake()
                if wake is None:
                    await self._wake.wait()
                else:
                    with trio.move_on_after(max(0.0, (wake - self.now.monotonic_ms) / 1000)):
                        await self._wake.wait()
            effects: list[EngineEffect] = []
            began_s = time.thread_time()
            if self._handed_in:
                effects += self.engine.handle(self._all_handed_in(), self.now)
            for _ in range(min(EVENTS_PER_TURN, len(self._inbox))):
                effects += self.engine.handle(self._inbox.popleft(), self.now)
            wake = self.engine.next_wake()
            if wake is not None and wake <= self.now.monotonic_ms:
                effects += self.engine.handle(Woke(), self.now)
            self.cpu_s["engine"] += time.thread_time() - began_s
            if len(self._inbox) < INBOX_HIGH:
                self._room.set()
            await self._perform(effects)
            await trio.lowlevel.checkpoint()

    def _all_handed_in(self) -> Submitted:
        """All of a turn is one event: what any event may make possible is looked at once for them."""
        self._ticket += 1
        self._answers[self._ticket], self._handed_in = self._handed_in, []
        together = [one for transactions, _ in self._answers[self._ticket] for one in transactions]
        return Submitted(self._ticket, together)

    def _answer(self, answer: Answer) -> None:
        start = 0
        for transactions, answered in self._answers.pop(answer.ticket, ()):
            end = start + len(transactions)
            answered(answer.refusals[start:end])
            start = end

    async def _perform(self, effects: list[EngineEffect]) -> None:
        """One turn: what the engine's own statements lead to belongs to it, until nothing more follows."""
        while effects:
            writes = [effect.write for effect in effects if isinstance(effect, Write)]
            if writes:
                await self._write(writes)
            follow: list[EngineEffect] = []
            for effect in effects:
                follow += self._perform_one(effect)
            effects = follow

    async def _write(self, writes: list[LedgerWrite]) -> None:
        started = time.perf_counter()
        await self._disk("store", partial(self.ledger.apply, writes))
        self.metrics.store_commits.inc()
        self.metrics.store_commit_seconds.observe(time.perf_counter() - started)
        if any(isinstance(write, AppendBlock) for write in writes):
            tip = self.ledger.tip()
            if tip >= self._floor_at + FLOOR_EVERY_HEIGHTS:
                self._floor_at = int(tip)
                replica = self.engine.replica
                await self.surroundings.disk(partial(self.floor.raise_to, tip, replica.view, replica.epoch))

    async def _disk(self, phase: str, write: Callable[[], None]) -> None:
        def timed() -> None:
            began_s = time.thread_time()
            write()
            self.cpu_s[phase] += time.thread_time() - began_s  # one writer a phase, so nobody else adds to it

        await self.surroundings.disk(timed)

    def _perform_one(self, effect: EngineEffect) -> Iterable[EngineEffect]:
        match effect:
            case Write():
                pass
            case SignMessage():
                signed = Signed(effect.message, self.signer.sign(effect.message))
                began_s = time.thread_time()
                follow = self.engine.handle(OwnSigned(signed), self.now)  # a node's own commit executes the block
                self.cpu_s["engine"] += time.thread_time() - began_s
                return follow
            case VerifyMessage():
                self.verifier.ask_message(effect)
            case VerifyBatch():
                self.verifier.ask_batch(effect)
            case Transmit():
                self.links.send_many(effect.transmission.nodes, effect.transmission.body)
            case Disconnect():
                self.metrics.p2p_faults.inc()
                log.warning("peer_disconnected", node=effect.node, reason=effect.reason)
                self.links.disconnect(effect.node, effect.reason)
            case Answer():
                self._answer(effect)
            case BlockExecuted():
                self._note_block(effect)
                self.on_executed(effect)
            case Flush():
                self._flushes.append(effect)
                self._flush_wake.set()
            case Note():
                self._note(effect)
            case Stop():
                log.critical("node_stopped_itself", reason=effect.reason, is_divergence=effect.is_divergence)
                self.metrics.consensus_diverged.set(1 if effect.is_divergence else 0)
                raise Divergence(effect.reason) if effect.is_divergence else P2PLedgerError(effect.reason)
        return ()

    async def _flush_in_background(self) -> None:
        while True:
            while self._flushes:
                flush = self._flushes.popleft()
                await self._disk("flush", partial(self.state.flush, flush.flush))
                log.debug("state_flushed", height=flush.flush.height, keys=len(flush.flush.writes))
                self.post(Flushed(flush.flush.height))
            self._flush_wake = trio.Event()
            await self._flush_wake.wait()

    async def _read_links(self) -> None:
        async for event in self.links.events:
            match event:
                case link_event.LinkUp():
                    log.info("link_came_up", node=event.node)
                    self.post(LinkUp(event.node))
                case link_event.LinkDown():
                    log.info("link_went_down", node=event.node, reason=event.reason)
                    self.post(LinkDown(event.node))
                case link_event.LinkFailed():
                    log.info("link_failed", node=event.node, reason=event.reason)
                case link_event.Frames():
                    for body in event.bodies:
                        self.post(FromPeer(event.node, body))
            while len(self._inbox) >= INBOX_HIGH:
                self._room = trio.Event()
                await self._room.wait()

    # Counting

    def _note_block(self, effect: BlockExecuted) -> None:
        at = time.perf_counter()
        if self._block_at:
            self.metrics.consensus_block_interval_seconds.observe(at - self._block_at)
        self._block_at = at
        self.metrics.consensus_block_transactions.observe(len(effect.receipts))
        self.metrics.execution_transactions.inc(len(effect.receipts))
        for code, count in Counter(executed.receipt.code for executed in effect.receipts).items():
            refused = self.metrics.execution_refused.get(code)  # type: ignore[call-overload]
            if refused is not None:
                refused.inc(count)
        for alarm in effect.alarms:
            self.metrics.execution_internal_errors.inc()
            log.critical("contract_failed", alarm=alarm)
        if effect.receipts:
            log.debug("block_executed", height=effect.height, receipts=len(effect.receipts))

    def _note(self, note: Note) -> None:
        match note.name:
            case "view_left":
                self.metrics.consensus_view_changes.inc()
            case "equivocation_seen":
                self.metrics.consensus_equivocations.inc()
            case "message_rejected":
                self.metrics.consensus_dropped.inc()
            case _:
                pass
        log.info(note.name, **dict(note.values))
