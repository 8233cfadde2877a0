"""One node of a virtual world: the real engine, performed as the driver does it, and stores that outlive it.

It may crash at every boundary between two effects. What was not durable by then is gone.
"""

from collections import deque
from typing import TYPE_CHECKING

from p2pledger.chain.batch import JunkBatch, check_batch, parse_batch
from p2pledger.chain.batch import batch_id as id_of_batch
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import Prepare, Signed, statement
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import (
    Answer,
    BatchVerified,
    BlockExecuted,
    Disconnect,
    EngineEffect,
    EngineEvent,
    Flush,
    Flushed,
    FromPeer,
    MessageBad,
    MessageVerified,
    Note,
    Now,
    OwnSigned,
    SignMessage,
    Stop,
    Transmit,
    VerifyBatch,
    VerifyMessage,
    Woke,
    Write,
)
from p2pledger.engine.executor import genesis_flush
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutBody, PutJournal, StateFlush
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, StoreError
from p2pledger.primitives.ids import Height, NodeId, ValidatorId
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.situations import Situations
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

if TYPE_CHECKING:
    from p2pledger.sim.adversaries.base import Adversary
    from p2pledger.sim.world import World

TURN_EVENTS_MAX = 5_000
BOUNDARIES: dict[type, str] = {
    SignMessage: "before a vote is sent",
    Transmit: "between sends",
    VerifyMessage: "before a check",
    VerifyBatch: "before a check",
    Answer: "before an answer",
    BlockExecuted: "before receipts are told",
    Flush: "before a flush",
    Note: "before a report",
    Disconnect: "before a report",
    Stop: "before a stop",
}
"""Between which effects a crash fell."""


class _Crash(Exception):
    pass


def _kind_of(write: LedgerWrite) -> str:
    """What a write is about: the message of a vote, else the kind of record."""
    if isinstance(write, PutJournal):
        record = write.record
        return type(record.message if isinstance(record, VoteRecord) else record).__name__
    return type(write).__name__


class _WatchedState:
    """The state store as the engine sees it: what the engine itself flushes while it recovers is observed, too."""

    def __init__(self, node: "SimNode") -> None:
        self.flush = node.flush
        self.height = node.state.height
        self.snapshot = node.state.snapshot


class SimNode:
    """Its stores survive it, its engine does not."""

    def __init__(self, world: "World", index: int, adversary: "Adversary | None", is_amnesiac: bool) -> None:
        consortium = world.consortium
        self.index = index
        self.key: SigningKey = consortium.nodes[index]
        self.consensus: SigningKey = consortium.consensus[index]
        self.id = NodeId(self.key.public)
        self.validator = ValidatorId(self.consensus.public)
        self.adversary = adversary
        self.is_amnesiac = is_amnesiac
        """Starts again with an empty disk: counts among the faulty."""
        self.engine: Engine | None = None
        self.incarnation = 0
        """What was meant for an earlier one does not arrive any more."""
        self.skew_ms = 0
        self.busy_ms = 0
        self.stalled_until = 0
        """No event is handled, and nothing leaves, before this moment: a slow machine or a slow sync."""
        self.wake_at: int | None = None
        self._backlog: deque[EngineEvent] = deque()
        self._full_until = 0
        self._flushes: list[StateFlush] = []
        self._is_aimed_at = False
        self._world = world
        self._founding = consortium.founding
        self._observer = world.observer
        self._situations = Situations(world.observer.reached)
        self._chance = world.chance[f"node {index}"]
        self.ledger = MemoryLedgerStore(self._founding.chain, self._founding.header.hash)
        self.state = MemoryStateStore()
        if adversary is not None:
            adversary.join(world, self)

    @property
    def is_honest(self) -> bool:
        return self.adversary is None and not self.is_amnesiac

    def moment(self) -> Now:
        """Monotonic time is everybody's; wall clocks differ."""
        return Now(self._world.now, self._world.wall_ms + self.skew_ms)

    # Life

    def start(self) -> None:
        """Run a new engine on the stores."""
        self.incarnation += 1
        if self.state.is_new:
            self.flush(genesis_flush(self._world.application, self._founding))
        if self.ledger.journal():
            self._observer.reached["restart with a journal"] += 1
        self._observer.started(self.index, self._headers(), [encode(record) for record in self.ledger.journal()])
        self.engine = Engine(
            self._founding,
            self._world.application,
            self.key,
            self.validator,
            self.ledger,
            _WatchedState(self),
            self.moment(),
        )
        try:
            effects = self.engine.start()
            self._world.link_up(self)
            self._perform(effects)
        except _Crash:
            self.crash_for_a_while()

    def _headers(self) -> list[bytes]:
        records = (self.ledger.block(Height(height)) for height in range(1, self.ledger.tip() + 1))
        return [encode(record.header) for record in records if record is not None]

    def flush(self, flush: StateFlush) -> None:
        """Make a state durable."""
        self.state.flush(flush)
        root = flush.tree.get(b"r" + flush.height.to_bytes(8, "big"))
        self._observer.flushed(self.index, flush.height, root, flush.writes, flush.effects)

    def crash(self) -> None:
        """Die where it stands: what was not durable is gone, what was being flushed is there or not."""
        self.engine = None
        self.incarnation += 1
        self.wake_at = None
        self.stalled_until = 0
        self._backlog.clear()
        for flush in self._flushes:
            if self._chance.random() < 0.5:
                self.flush(flush)
        self._flushes.clear()
        self.ledger = self.ledger.reopened()
        self.state = self.state.reopened()
        if self.is_amnesiac:
            self._observer.reached["disk lost"] += 1
            self.ledger = MemoryLedgerStore(self._founding.chain, self._founding.header.hash)
            self.state = MemoryStateStore()
        self._world.crashed(self)

    def crash_for_a_while(self) -> None:
        """Die, and start again some time later."""
        self.crash()
        pause = max(self._chance.randint(50, 2_000), self._full_until - self._world.now)
        self._world.at(pause, lambda: self._world.restart(self.index))

    # Turns

    def hear(self, event: EngineEvent) -> None:
        """Handle an event, or keep it in order while the node is busy."""
        if self.stalled_until <= self._world.now and not self._backlog:
            self.handle(event)
            return
        if not self._backlog:
            self._world.at(max(0, self.stalled_until - self._world.now), self._catch_up)
        self._backlog.append(event)

    def _catch_up(self) -> None:
        """Work the backlog off until the node is busy again."""
        while self._backlog and self.stalled_until <= self._world.now:
            self.handle(self._backlog.popleft())
        if self._backlog:
            self._world.at(self.stalled_until - self._world.now, self._catch_up)

    def handle(self, event: EngineEvent) -> None:
        """One turn of the engine and everything that follows from it at once."""
        if isinstance(event, Woke):
            self.wake_at = None
        engine = self.engine
        if engine is None:
            return
        try:
            if isinstance(event, Flushed):
                self.flush(self._flushes.pop(0))
            elif isinstance(event, FromPeer):
                self._world.delivered(self, event.node, event.body)
            self._perform(engine.handle(event, self.moment()))
        except _Crash:
            self.crash_for_a_while()
            return
        if self.busy_ms and not self._world.network.is_healed:
            self.stalled_until = max(self.stalled_until, self._world.now + self.busy_ms)

    def _perform(self, effects: list[EngineEffect]) -> None:
        """As the driver does: all writes of the turn durably first, then the rest in order."""
        engine = self.engine
        assert engine is not None
        moment = self.moment()
        self._is_aimed_at = False
        queue = deque([effects])
        events = 0
        while queue:
            turn = queue.popleft()
            writes = [effect.write for effect in turn if isinstance(effect, Write)]
            if writes:
                self._write(writes)
            for effect in turn:
                if isinstance(effect, Write):
                    continue
                self._maybe_crash(BOUNDARIES[type(effect)])
                event = self._perform_one(engine, effect)
                if event is not None:
                    events += 1
                    assert events < TURN_EVENTS_MAX, "a turn that never ends"
                    queue.append(engine.handle(event, moment))
        self._situations.after_turn(engine.replica)
        wake = engine.next_wake()
        if wake is not None and (self.wake_at is None or wake < self.wake_at):
            self.wake_at = max(wake, self._world.now)
            self._world.deliver(self.wake_at - self._world.now, self, Woke())

    def _write(self, writes: list[LedgerWrite]) -> None:
        faults = self._world.faults
        kinds = {_kind_of(write) for write in writes}
        self._is_aimed_at = faults.crash_at in kinds
        self._maybe_crash("before a write")
        self._apply(writes)
        self._became_durable(writes)
        self._maybe_crash("after a write")
        if faults.isolate_at in kinds and self._may_fail() and self._chance.random() < faults.isolate:
            self._observer.reached[f"isolated at {faults.isolate_at}"] += 1
            self._world.note(f"{self.index} isolated")
            self._world.network.isolate(self.index, self._world.now + faults.isolate_ms)

    def _apply(self, writes: list[LedgerWrite]) -> None:
        faults, now = self._world.faults, self._world.now
        if self._may_fail():
            if faults.disk_full and self._chance.random() < faults.disk_full:
                self._full_until = now + self._chance.randint(500, 5_000)
                self._observer.reached["disk full"] += 1
            if now < self._full_until or (faults.disk and self._chance.random() < faults.disk):
                self.ledger.fail_next_apply = True
                self.ledger.keeps_failed_apply = now >= self._full_until and self._chance.random() < 0.5
            if faults.stall and self._chance.random() < faults.stall:
                self._observer.reached["stalled sync"] += 1
                self.stalled_until = now + self._chance.randint(1, faults.stall_ms)
        try:
            self.ledger.apply(writes)
        except StoreError as error:
            if not self.ledger.fail_next_apply:
                raise
            kept = "kept" if self.ledger.keeps_failed_apply else "lost"
            self._observer.reached[f"failed write, {kept}"] += 1
            if self.ledger.keeps_failed_apply:
                self._became_durable(writes)
            raise _Crash from error

    def _became_durable(self, writes: list[LedgerWrite]) -> None:
        if not self.is_honest:
            return
        blocks = []
        for write in writes:
            match write:
                case PutJournal():
                    self._observer.wrote(self.index, encode(write.record))
                case PutBody():
                    self._observer.stored(self.index, write.data)
                case AppendBlock():
                    certificate = write.record.certificate
                    blocks.append((encode(write.record.header), encode(certificate) if certificate else None))
        self._observer.appended(self.index, blocks)

    def _may_fail(self) -> bool:
        return self.adversary is None and not self._world.network.is_healed

    def _maybe_crash(self, where: str) -> None:
        faults = self._world.faults
        chance = max(faults.crash, faults.crash_aimed) if self._is_aimed_at else faults.crash
        if not chance or not self._may_fail() or self._chance.random() >= chance:
            return
        reached = self._observer.reached
        if self._is_aimed_at:
            reached[f"crash aimed at {faults.crash_at}"] += 1
        reached[f"crash {where}"] += 1
        if self.engine is not None and self.engine.replica.recovery.is_waiting:
            reached["crash during recovery"] += 1
        raise _Crash

    def _perform_one(self, engine: Engine, effect: EngineEffect) -> EngineEvent | None:
        """Do it; the event that answers at once, if one does."""
        match effect:
            case Transmit():
                for receiver in effect.transmission.nodes:
                    self._world.send(self, receiver, effect.transmission.body)
            case VerifyMessage():
                self._situations.before_check(engine.replica, effect.signed)
                try:
                    validators = self._founding.validators
                    verified = verify_message(effect.signed, self._founding.chain, engine.replica.epoch, validators)
                except InvalidInput as error:
                    return MessageBad(effect.node, str(error))
                return MessageVerified(effect.node, verified)
            case VerifyBatch():
                try:
                    batch = parse_batch(effect.data)
                    transactions = check_batch(self._founding.chain, batch)
                except JunkBatch as error:
                    return MessageBad(effect.node, str(error), id_of_batch(effect.data), junk_of=error.origin)
                except InvalidInput as error:
                    return MessageBad(effect.node, str(error), id_of_batch(effect.data))
                return BatchVerified(effect.node, id_of_batch(effect.data), batch, transactions, effect.data)
            case SignMessage():
                return OwnSigned(self._sign(engine, effect))
            case BlockExecuted():
                self._world.executed(self, effect)
            case Flush():
                self._flushes.append(effect.flush)
                self._world.deliver(self._chance.randint(0, 50), self, Flushed(effect.flush.height))
            case Note():
                self._observer.noted(self.index, effect.name)
            case Answer():
                self._world.answered(self, effect)
            case Disconnect():
                self._observer.reached["disconnect"] += 1
            case Stop():
                self._observer.stopped(self.index, effect.reason)
            case Write():
                raise AssertionError("writes are performed before everything else")
        return None

    def _sign(self, engine: Engine, effect: SignMessage) -> Signed:
        if not engine.replica.may_sign:
            raise InvariantBroken(f"P20: node {self.index} signs while it must be silent")
        message = effect.message
        match message:
            case Prepare(view=view) if view > 0 and engine.replica.base == (message.height, message.block_hash):
                self._observer.reached["tip prepared again"] += 1
        return Signed(message, self.consensus.sign(statement(self._founding.chain, message)))
