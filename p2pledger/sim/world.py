"""A virtual world: one seeded heap of events, no real time, no sockets; the real engine of every node.

Every message crosses an unreliable network, every node may crash between any two effects and start again from what its
stores held, and up to f validators lie. The same seed gives the same run.
"""

import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import Transaction
from p2pledger.engine.events import (
    Answer,
    BlockExecuted,
    EngineEvent,
    FromPeer,
    LinkDown,
    LinkUp,
    Submitted,
)
from p2pledger.messages import Relay, parse_message
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import NodeId, TransactionId
from p2pledger.sim.adversaries import Adversary
from p2pledger.sim.application import Put
from p2pledger.sim.clients import Clients
from p2pledger.sim.faults import Chance, Faults
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.sim.network import Network
from p2pledger.sim.node import SimNode
from p2pledger.sim.observer import Observer
from p2pledger.sim.workload import Registers, Workload

SHIFT_MS = 200
"""How often partitions and clocks may change, and adversaries may speak of their own accord."""


@dataclass
class World:
    """A run. Build it, submit, let time pass, read `observer`; `campaign.run_plan` does all of it for a plan."""

    seed: int
    n: int = 4
    faults: Faults = field(default_factory=Faults)
    adversaries: Mapping[int, Adversary] = field(default_factory=dict)
    amnesiacs: frozenset[int] = frozenset()
    parameters: Parameters = field(default_factory=lambda: Parameters(timeout_ms=300, timeout_cap_ms=2_400))
    workload: Workload = field(default_factory=Registers)
    """What clients do, by which contracts, and what must be true of the state."""
    links: frozenset[frozenset[int]] | None = None
    """Pairs that may ever be linked; None = full mesh."""
    log: list[str] | None = None
    """Give a list to keep every event as a line; the digest `trace` covers the same lines either way."""

    def __post_init__(self) -> None:
        self.application = self.workload.application
        self.chance = Chance(self.seed)
        self.random = self.chance["driver"]
        """For whoever drives this world."""
        self.consortium = found(self.n, self.parameters)
        founding = self.consortium.founding
        validators = [self.consortium.validator(i) for i in range(self.n)]
        self.observer = Observer(
            encode(founding.signed), founding.chain, validators, {*self.adversaries, *self.amnesiacs}
        )
        self.network = Network(self.n, self.faults, self.chance["network"], self.links)
        self.clients = Clients(self.consortium)
        self._asked: set[tuple[int, TransactionId]] = set()
        """Which node was handed which transaction, and owes its client an answer."""
        self.now = 0
        """Milliseconds since the beginning."""
        self.ahead_ms = 0
        """How much longer it was by everybody's wall clock: time that passed in an instant."""
        self.trace = hashlib.sha256()
        self.messages = 0
        """Put on the wire so far."""
        self._heap: list[tuple[int, int, SimNode | None, int, EngineEvent | Callable[[], object]]] = []
        self._order = 0
        self.nodes = [SimNode(self, i, self.adversaries.get(i), i in self.amnesiacs) for i in range(self.n)]
        self._by_id = {node.id: node for node in self.nodes}
        self._draw_machines()
        for node in self.nodes:
            node.start()
        for adversary in self.adversaries.values():
            adversary.begin()
        self.workload.begin(self)
        if self.adversaries or self.faults.partition or self.faults.clock_jump:
            self.at(SHIFT_MS, self._shift)

    def _draw_machines(self) -> None:
        """Clocks that differ, and machines that are slow."""
        chance, faults = self.chance["machines"], self.faults
        for node in self.nodes:
            node.skew_ms = chance.randint(-faults.skew_ms, faults.skew_ms)
        for index in chance.sample(range(self.n), min(self.n, faults.slow_nodes)):
            self.nodes[index].busy_ms = faults.busy_ms

    # Time

    @property
    def wall_ms(self) -> int:
        """What a right clock says."""
        return WALL_START_MS + self.now + self.ahead_ms

    def at(self, delay: int, what: Callable[[], object]) -> None:
        """Call `what` after `delay` ms."""
        self._push(delay, None, 0, what)

    def deliver(self, delay: int, node: SimNode, event: EngineEvent) -> None:
        """Let a node have an event after `delay` ms, unless it has crashed by then."""
        self._push(delay, node, node.incarnation, event)

    def _push(
        self, delay: int, node: SimNode | None, incarnation: int, what: EngineEvent | Callable[[], object]
    ) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, node, incarnation, what))

    def step(self) -> bool:
        """The next event; False when nothing will ever happen again."""
        if not self._heap:
            return False
        at, _, node, incarnation, what = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        if callable(what):
            what()
        elif node is not None and incarnation == node.incarnation:
            node.hear(what)
        return True

    def run_until(self, at: int) -> None:
        """Let the world go on to a moment."""
        while self._heap and self._heap[0][0] <= at:
            self.step()
        self.now = max(self.now, at)

    def pass_time(self, ms: int) -> None:
        """Everybody's wall clock goes on by this much, in which nothing happened."""
        self.note(f"{ms} ms pass")
        self.ahead_ms += ms

    def note(self, line: str) -> None:
        """One line of the event log."""
        text = f"{self.now} {line}"
        self.trace.update(text.encode() + b"\n")
        if self.log is not None:
            self.log.append(text)

    # Lives

    def crash(self, index: int) -> None:
        """Stop a node where it stands."""
        self.nodes[index].crash()

    def restart(self, index: int) -> None:
        """Start a crashed node again from its stores; nothing happens to a running one."""
        node = self.nodes[index]
        if node.engine is None:
            self.note(f"{index} starts")
            node.start()

    def link_up(self, node: SimNode) -> None:
        """A node that starts is linked to all that run and may be linked to it."""
        for other in self.nodes:
            if other is not node and other.engine is not None and self.network.may_link(node.index, other.index):
                self.deliver(1, other, LinkUp(node.id))
                self.deliver(1, node, LinkUp(other.id))

    def crashed(self, node: SimNode) -> None:
        """A node is gone: its peers lose the link, and its disk must be sound."""
        self.note(f"{node.index} crashes")
        self.observer.reached["crash"] += 1
        self.observer.crashed(node.index)
        self.workload.crashed(self, node.index)
        for other in self.nodes:
            if other is not node and other.engine is not None and self.network.may_link(node.index, other.index):
                self.deliver(1, other, LinkDown(node.id))

    def heal(self) -> None:
        """From now on the network is good, disks and clocks are sound, and everybody runs."""
        self.note("heals")
        self.observer.healed()
        self.network.heal()
        for node in self.nodes:
            node.skew_ms = max(-self.faults.skew_ms, min(self.faults.skew_ms, node.skew_ms))
            if node.engine is None:
                self.restart(node.index)

    def _shift(self) -> None:
        """Partitions and clocks change, liars speak up."""
        for node in self.nodes:
            if node.adversary is not None and node.engine is not None:
                node.adversary.idle()
        if not self.network.is_healed:
            split = self.network.shift()
            if split is not None:
                self.observer.reached[split] += 1
                self.note(split)
            self._jump_clocks()
        self.at(SHIFT_MS, self._shift)

    def _jump_clocks(self) -> None:
        chance, faults = self.chance["clocks"], self.faults
        if faults.clock_jump and chance.random() < faults.clock_jump:
            node = chance.choice(self.nodes)
            node.skew_ms = chance.randint(-faults.jump_ms, faults.jump_ms)
            self.observer.reached["clock jump"] += 1
            self.note(f"{node.index} clock {node.skew_ms}")

    # Messages

    def send(self, node: SimNode, receiver: NodeId, body: bytes) -> None:
        """A node's own words, or what its adversary makes of them."""
        target = self._by_id[receiver].index
        if node.adversary is None:
            self.carry(node.index, target, body)
            return
        for changed in node.adversary.outgoing(target, _unwrapped(node, body)):
            self.carry(node.index, target, changed)

    def carry(self, source: int, target: int, body: bytes, after: int = 0) -> None:
        """Put bytes on the wire from one node to another, `after` ms late."""
        self.messages += 1
        self.observer.overheard(source, target, body)
        self.note(f"{source}>{target} {body[1]} {hashlib.sha256(body).hexdigest()[:16]}")
        receiver = self.nodes[target]
        if receiver.adversary is not None:
            hearer = receiver.adversary.hearer(source, body)
            if hearer is None:
                return
            receiver = hearer
        after += max(0, self.nodes[source].stalled_until - self.now)
        for delay in self.network.deliveries(self.now, source, target):
            self.deliver(after + delay, receiver, FromPeer(self.nodes[source].id, body))

    def delivered(self, node: SimNode, sender: NodeId, body: bytes) -> None:
        """A node is about to handle a message."""
        self.observer.delivered(self.now, self._by_id[sender].index, node.index, body)

    # Clients

    def submit(self, index: int, value: bytes = b"x", sender: int | None = None) -> TransactionId | None:
        """Hand a fresh transaction of the registers to a running node; its id, or None if the node is down."""
        who = index if sender is None else sender
        return self.submit_operations(index, [Put(b"k%d" % (self.clients.used(who) % 7), value)], who)

    def submit_fresh(self, index: int) -> TransactionId | None:
        """Hand a transaction of the workload's kind to a running node; its id, or None if the node is down."""
        return self.submit_operations(index, self.workload.operations(self.random, 1))

    def submit_operations(
        self, index: int, operations: Sequence[Record], sender: int | None = None
    ) -> TransactionId | None:
        """Sign operations with a member's account key (that of `index` itself) and hand them to a running node."""
        return self.submit_signed(index, self.consortium.accounts[index if sender is None else sender], operations)

    def submit_signed(
        self, index: int, key: SigningKey, operations: Sequence[Record], cosigners: Sequence[SigningKey] = ()
    ) -> TransactionId | None:
        """Sign operations with these keys and hand them to a running node; the transaction's id, None if it is down.

        With `faults.retries` and `faults.flood` some go to several nodes, and some bring company.
        """
        if self.nodes[index].engine is None:
            return None
        chance, faults = self.chance["clients"], self.faults
        transaction = self.clients.sign(key, operations, self.wall_ms, cosigners)
        receivers = [self.nodes[index]]
        if not self.network.is_healed and faults.retries and chance.random() < faults.retries:
            self.observer.reached["client retry"] += 1
            receivers.append(chance.choice(self.nodes))
        for node in receivers:
            self.hand_over(node.index, transaction)
        if not self.network.is_healed and faults.flood and chance.random() < faults.flood:
            self.observer.reached["client flood"] += 1
            for _ in range(50):
                extra = self.clients.sign(key, operations, self.wall_ms, cosigners)
                self.hand_over(index, extra)
        return transaction.id

    def hand_over(self, index: int, transaction: Transaction) -> None:
        """A client submits a transaction to a node and waits there for its receipt."""
        self.observer.submitted(transaction.data)
        self._asked.add((index, transaction.id))
        self.deliver(0, self.nodes[index], Submitted(0, (transaction,)))

    # Watching

    def executed(self, node: SimNode, effect: BlockExecuted) -> None:
        """A node tells receipts of a durable block; the state of a correct one must be as the workload wants it."""
        if not node.is_honest or node.engine is None:
            return
        receipts = [encode(executed) for executed in effect.receipts]
        self.observer.executed(node.index, effect.height, effect.root, receipts)
        for executed, data in zip(effect.receipts, receipts, strict=True):
            transaction = executed.receipt.transaction
            if (node.index, transaction) in self._asked:
                self.observer.answered(node.index, transaction, data)
        self.workload.check(node.engine.executor.state)

    def answered(self, node: SimNode, effect: Answer) -> None:
        """A node takes a submission in, or turns it away."""
        for refusal in effect.refusals:
            self.observer.reached[f"answer {'OK' if refusal is None else refusal.code.name}"] += 1

    def heights(self) -> list[int]:
        """The committed heights of the honest nodes, from their stores."""
        return [int(node.ledger.tip()) for node in self.nodes if node.is_honest]

    def bound_memory(self) -> None:
        """Invariant 8: what a replica keeps of others' messages has the bound that P23 names."""
        for node in self.nodes:
            if node.engine is not None:
                replica = node.engine.replica
                self.observer.remembers(node.index, len(replica.ballots) + len(replica.view_changes))


def _unwrapped(node: SimNode, body: bytes) -> bytes:
    """A liar lies in what it relays of its own, too; it hands that over directly."""
    message = parse_message(body)
    return message.body if isinstance(message, Relay) and message.origin == node.id else body
