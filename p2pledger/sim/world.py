"""A virtual world: one seeded heap of events, no real time, no sockets; the real engine of every node.

Every message crosses an unreliable network, every node may crash between any two effects and start again from what its
stores held, and up to f validators lie. The same seed gives the same run.
"""

import hashlib
import heapq
import random
from dataclasses import dataclass, field
from typing import Any

from p2pledger.chain.batch import batch_id as id_of_batch
from p2pledger.chain.batch import check_batch, parse_batch
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import parse, sign
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
    LinkDown,
    LinkUp,
    MessageBad,
    MessageVerified,
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
from p2pledger.engine.executor import genesis_flush
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutJournal
from p2pledger.execution.contract import Application
from p2pledger.messages import Agreement, Relay, parse_message
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, StoreError
from p2pledger.primitives.ids import Millis, NodeId, Nonce, TransactionId, ValidatorId
from p2pledger.sim.adversaries import Adversary
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.sim.observer import InvariantBroken, Observer
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

TURN_EVENTS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class Faults:
    """How unkind the world is until it heals. Probabilities per message or per event; times in milliseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: tuple[int, int] = (1, 20)
    slow: float = 0.0
    """Share of messages delayed beyond the timeout."""
    crash: float = 0.0
    """Chance of a crash at each effect boundary."""
    partition: float = 0.0
    """Chance per 200 ms that the network splits for a while."""
    crash_at: str = ""
    """A kind of journal record (`Prepare`, `Commit`, `LockRecord`, …): crashes aim at the turns that write one."""
    crash_aimed: float = 0.0
    """Chance of a crash at each effect boundary of such a turn."""
    disk: float = 0.0
    """Chance that a write fails; the node must stop, and starts again from what was durable."""
    skew_ms: int = 0


@dataclass(slots=True)
class SimNode:
    """One node: its stores survive it, its engine does not."""

    index: int
    key: SigningKey
    consensus: SigningKey
    ledger: MemoryLedgerStore
    state: MemoryStateStore
    engine: Engine | None = None
    incarnation: int = 0
    wake_at: int | None = None
    adversary: Adversary | None = None
    is_amnesiac: bool = False
    """Starts again with an empty disk: counts among the faulty."""
    skew_ms: int = 0
    restarts: int = 0
    aimed_at: bool = False
    """This turn writes what crashes aim at."""

    @property
    def id(self) -> NodeId:
        return NodeId(self.key.public)

    @property
    def is_honest(self) -> bool:
        return self.adversary is None and not self.is_amnesiac


class _Crash(Exception):
    pass


def _kind_of(write: LedgerWrite) -> str:
    """What a write is about: the message of a vote, else the kind of record."""
    if isinstance(write, PutJournal):
        record = write.record
        return type(record.message if isinstance(record, VoteRecord) else record).__name__
    return type(write).__name__


@dataclass
class World:
    """A run. Build it, call `run`, read `observer`."""

    seed: int
    n: int = 4
    faults: Faults = field(default_factory=Faults)
    adversaries: dict[int, Adversary] = field(default_factory=dict)
    amnesiacs: frozenset[int] = frozenset()
    parameters: Parameters = field(default_factory=lambda: Parameters(timeout_ms=300, timeout_cap_ms=2_400))
    application: Application = field(default_factory=RegisterApplication)
    links: frozenset[frozenset[int]] | None = None
    """Pairs that may ever be linked; None = full mesh."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.consortium = found(self.n, self.parameters)
        founding = self.consortium.founding
        liars = frozenset(
            ValidatorId(self.consortium.consensus[i].public) for i in (*self.adversaries, *self.amnesiacs)
        )
        self.observer = Observer(founding, liars)
        self.now = 0
        self.trace = hashlib.sha256()
        self._heap: list[tuple[int, int, int, int, Any]] = []
        self._order = 0
        self._groups: list[int] = [0] * self.n
        self._healed = False
        self._nonces = [0] * self.n
        self.nodes: list[SimNode] = []
        self.messages = 0
        for i in range(self.n):
            ledger = MemoryLedgerStore(founding.chain, founding.header.hash)
            node = SimNode(i, self.consortium.nodes[i], self.consortium.consensus[i], ledger, MemoryStateStore())
            node.adversary = self.adversaries.get(i)
            node.is_amnesiac = i in self.amnesiacs
            node.skew_ms = self.random.randint(-self.faults.skew_ms, self.faults.skew_ms)
            self.nodes.append(node)
        for node in self.nodes:
            self._start(node)

    # Time

    def _at(self, delay: int, node: int, what: Any) -> None:
        self._order += 1
        incarnation = self.nodes[node].incarnation
        heapq.heappush(self._heap, (self.now + delay, self._order, node, incarnation, what))

    def _moment(self, node: SimNode) -> Now:
        return Now(self.now, WALL_START_MS + self.now + node.skew_ms)

    def step(self) -> bool:
        """The next event; False when nothing will ever happen again."""
        if not self._heap:
            return False
        at, _, index, incarnation, what = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        node = self.nodes[index]
        if callable(what):
            what()
        elif node.engine is not None and incarnation == node.incarnation:
            if isinstance(what, Woke):
                node.wake_at = None
            self._turn(node, what)
        return True

    def run_until(self, at: int) -> None:
        """Let the world go on to a moment."""
        while self._heap and self._heap[0][0] <= at:
            self.step()
        self.now = max(self.now, at)

    # Nodes

    def _start(self, node: SimNode) -> None:
        node.incarnation += 1
        validator = ValidatorId(node.consensus.public)
        if node.state.is_new:
            node.state.flush(genesis_flush(self.application, self.consortium.founding))
        node.engine = Engine(
            self.consortium.founding,
            self.application,
            node.key,
            validator,
            node.ledger,
            node.state,
            self._moment(node),
        )
        try:
            effects = node.engine.start()
            for other in self.nodes:
                if other is not node and other.engine is not None and self._may_link(node.index, other.index):
                    self._at(1, other.index, LinkUp(node.id))
                    self._at(1, node.index, LinkUp(other.id))
            self._perform(node, effects)
        except _Crash:
            self._crash_for_a_while(node)

    def _may_link(self, a: int, b: int) -> bool:
        return self.links is None or frozenset((a, b)) in self.links

    def crash(self, index: int) -> None:
        """Stop a node where it stands."""
        self._crash(self.nodes[index])

    def _crash(self, node: SimNode) -> None:
        node.engine = None
        node.incarnation += 1
        node.wake_at = None
        node.restarts += 1
        node.ledger = node.ledger.reopened()
        node.state = node.state.reopened()
        if node.is_amnesiac:
            self.observer.reached["disk lost"] += 1
            founding = self.consortium.founding
            node.ledger = MemoryLedgerStore(founding.chain, founding.header.hash)
            node.state = MemoryStateStore()
        self.observer.store_is_sound(node.ledger)
        self.observer.reached["crash"] += 1
        for other in self.nodes:
            if other is not node and other.engine is not None:
                self._at(1, other.index, LinkDown(node.id))

    def restart(self, index: int) -> None:
        """Start a crashed node again from its stores."""
        node = self.nodes[index]
        if node.engine is None:
            if node.ledger.journal():
                self.observer.reached["restart with a journal"] += 1
            self._start(node)

    def _turn(self, node: SimNode, event: EngineEvent) -> None:
        assert node.engine is not None
        try:
            self._perform(node, node.engine.handle(event, self._moment(node)))
        except _Crash:
            self._crash_for_a_while(node)

    def _crash_for_a_while(self, node: SimNode) -> None:
        self._crash(node)
        self._at(self.random.randint(50, 2_000), node.index, lambda: self.restart(node.index))

    def _perform(self, node: SimNode, effects: list[EngineEffect]) -> None:
        """As the driver does: all writes of the turn durably first, then the rest in order."""
        engine = node.engine
        assert engine is not None
        node.aimed_at = False
        queue = [effects]
        events = 0
        while queue:
            batch = queue.pop(0)
            writes = [effect.write for effect in batch if isinstance(effect, Write)]
            if writes:
                node.aimed_at = any(_kind_of(write) == self.faults.crash_at for write in writes)
                self._maybe_crash(node, "before a write")
                self._apply(node, writes)
                self._observe_appends(node, [write for write in writes if isinstance(write, AppendBlock)])
                self._maybe_crash(node, "after a write")
            for effect in batch:
                for event in self._perform_one(node, effect):
                    events += 1
                    assert events < TURN_EVENTS_MAX, "a turn that never ends"
                    queue.append(engine.handle(event, self._moment(node)))
        self._set_wake(node)

    def _apply(self, node: SimNode, writes: list[LedgerWrite]) -> None:
        if not self._healed and node.adversary is None and self.random.random() < self.faults.disk:
            node.ledger.fail_next_apply = True
        try:
            node.ledger.apply(writes)
        except StoreError as error:
            if not node.ledger.fail_next_apply:
                raise
            self.observer.reached["failed write"] += 1
            raise _Crash from error

    def _set_wake(self, node: SimNode) -> None:
        assert node.engine is not None
        wake = node.engine.next_wake()
        if wake is not None and (node.wake_at is None or wake < node.wake_at):
            node.wake_at = max(wake, self.now)
            self._at(node.wake_at - self.now, node.index, Woke())

    def _maybe_crash(self, node: SimNode, where: str) -> None:
        chance = max(self.faults.crash, self.faults.crash_aimed if node.aimed_at else 0.0)
        if not self._healed and node.adversary is None and self.random.random() < chance:
            if node.aimed_at:
                self.observer.reached[f"crash aimed at {self.faults.crash_at}"] += 1
            self.observer.reached[f"crash {where}"] += 1
            if node.engine is not None and node.engine.replica.recovery.is_waiting:
                self.observer.reached["crash during recovery"] += 1
            raise _Crash

    def _perform_one(self, node: SimNode, effect: EngineEffect) -> list[EngineEvent]:
        founding = self.consortium.founding
        match effect:
            case Write() | Answer() | Disconnect():
                return []
            case Note():
                self.observer.noted(effect.name, node.is_honest)
                return []
            case SignMessage():
                self._maybe_crash(node, "before a vote is sent")
                assert node.engine is not None
                if not node.engine.replica.may_sign:
                    raise InvariantBroken(f"P20: node {node.index} signs while it must be silent")
                signature = node.consensus.sign(statement(founding.chain, effect.message))
                if isinstance(effect.message, Prepare):
                    base = node.engine.replica.base
                    if base == (effect.message.height, effect.message.block_hash) and effect.message.view > 0:
                        self.observer.reached["tip prepared again"] += 1
                signed = Signed(effect.message, signature)
                self.observer.said(signed)
                return [OwnSigned(signed)]
            case Transmit():
                self._maybe_crash(node, "between sends")
                for receiver in effect.transmission.nodes:
                    self._send(node, receiver, effect.transmission.body)
                return []
            case VerifyMessage():
                try:
                    epoch = node.engine.replica.epoch  # type: ignore[union-attr]
                    verified = verify_message(effect.signed, founding.chain, epoch, founding.validators)
                except InvalidInput as error:
                    return [MessageBad(effect.node, str(error))]
                return [MessageVerified(effect.node, verified)]
            case VerifyBatch():
                try:
                    batch = parse_batch(effect.data)
                    transactions = check_batch(founding.chain, batch)
                except InvalidInput as error:
                    return [MessageBad(effect.node, str(error), id_of_batch(effect.data))]
                return [BatchVerified(effect.node, id_of_batch(effect.data), batch, transactions, effect.data)]
            case BlockExecuted():
                if node.is_honest:
                    self._observe_execution(effect)
                return []
            case Flush():
                node.state.flush(effect.flush)
                self._at(self.random.randint(0, 50), node.index, Flushed(effect.flush.height))
                return []
            case Stop():
                if node.is_honest:
                    raise InvariantBroken(f"an honest node stopped itself: {effect.reason}")
                return []

    # The network

    def _send(self, node: SimNode, receiver: NodeId, body: bytes) -> None:
        target = next(i for i, other in enumerate(self.nodes) if other.id == receiver)
        if node.adversary is not None:
            for changed in node.adversary.outgoing(self, node, target, self._unwrapped(node, body)):
                self._carry(node.index, target, changed)
            return
        self._carry(node.index, target, body)

    def _unwrapped(self, node: SimNode, body: bytes) -> bytes:
        """A liar lies in what it relays of its own, too; it hands that over directly."""
        message = parse_message(body)
        is_own = isinstance(message, Relay) and message.origin == node.id
        return message.body if is_own else body  # type: ignore[union-attr]

    def _carry(self, source: int, target: int, body: bytes) -> None:
        self._overhear(body)
        self.messages += 1
        if self.nodes[target].adversary is not None and self._is_echo(self.nodes[target], body):
            return
        self.trace.update(b"%d %d %d " % (self.now, source, target) + hashlib.sha256(body).digest())
        if not self._may_link(source, target):
            return
        faults = self.faults
        if not self._healed:
            if self._groups[source] != self._groups[target] or self.random.random() < faults.loss:
                return
            if self.random.random() < faults.duplicate:
                self._at(self.random.randint(*faults.delay_ms), target, FromPeer(self.nodes[source].id, body))
        low, high = faults.delay_ms if not self._healed else (1, 20)
        delay = self.random.randint(low, high)
        if not self._healed and self.random.random() < faults.slow:
            delay += self.random.randint(200, 3_000)
        self._at(delay, target, FromPeer(self.nodes[source].id, body))

    def _is_echo(self, target: SimNode, body: bytes) -> bool:
        """A liar pays no attention when others show it what it said."""
        message = parse_message(body)
        if isinstance(message, Relay):
            message = parse_message(message.body)
        return isinstance(message, Agreement) and message.signed.message.author == target.consensus.public

    def _overhear(self, body: bytes) -> None:
        message = parse_message(body)
        if isinstance(message, Relay):
            message = parse_message(message.body)
        if isinstance(message, Agreement):
            self.observer.said(message.signed)

    def shift_partition(self) -> None:
        """Split the network anew, or join it."""
        if self._healed:
            return
        if any(self._groups):
            self._groups = [0] * self.n
        elif self.random.random() < self.faults.partition:
            self._groups = [self.random.randint(0, 1) for _ in range(self.n)]
            self.observer.reached["partition"] += 1
        self._at(200, 0, self.shift_partition)

    def heal(self) -> None:
        """From now on the network is good and everybody runs."""
        self._healed = True
        self._groups = [0] * self.n
        for node in self.nodes:
            if node.engine is None:
                self.restart(node.index)

    # Clients

    def submit(self, index: int, value: bytes = b"x", sender: int | None = None) -> TransactionId | None:
        """Hand a fresh transaction to a running node; its id, or None if the node is down."""
        node = self.nodes[index]
        who = index if sender is None else sender
        if node.engine is None:
            return None
        self._nonces[who] += 1
        nonce = Nonce(self._nonces[who])
        moment = WALL_START_MS + self.now
        data = sign(
            self.consortium.founding.chain,
            self.consortium.accounts[who],
            nonce,
            Millis(moment + 3_600_000),
            [Put(b"k%d" % (nonce % 7), value)],
        )
        transaction = parse(data)
        self.observer.submitted.add(transaction.id)
        self._at(0, index, Submitted(0, transaction))
        return transaction.id

    # Watching

    def _observe_appends(self, node: SimNode, appends: list[AppendBlock]) -> None:
        if not node.is_honest:
            return
        for write in appends:
            header = write.record.header
            self.observer.committed(header.height, header.hash, header.parent)
        if appends:
            self.observer.tip_committed(appends[-1].record.header.hash)

    def _observe_execution(self, effect: BlockExecuted) -> None:
        ids = [executed.receipt.transaction for executed in effect.receipts]
        self.observer.executed(effect.height, effect.root, ids)

    def heights(self) -> list[int]:
        """The committed heights of the honest nodes, from their stores."""
        return [int(node.ledger.tip()) for node in self.nodes if node.is_honest]

    def bound_memory(self) -> None:
        """Invariant 8: what a replica keeps of others' messages has the bound that P23 names."""
        views = 2 * limits.VIEWS_AHEAD_MAX + 1
        ballots = 2 * 2 * self.n * self.parameters.window * views
        bound = ballots + self.parameters.window * (limits.VIEWS_AHEAD_MAX + 1) + self.n
        for node in self.nodes:
            if node.engine is not None:
                replica = node.engine.replica
                kept = len(replica.ballots) + len(replica.view_changes)
                if kept > bound:
                    raise InvariantBroken(f"8: a replica keeps {kept} messages, more than {bound}")
