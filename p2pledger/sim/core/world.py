"""A virtual world of replicas alone: one seeded heap of events, and everything outside of the agreement made trivial.

Blocks are empty shells in a shared library, to be had from those who hold them; messages travel as the immutable
objects they are; signatures are those of an `Oracle` unless told otherwise. What can go wrong is what can go wrong in
`world`, and more: tails of delay, links cut in one direction, and validators that are cut off exactly when they lock,
vote, commit or enter a view. The campaign over such worlds is `core`.
"""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Parameters
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import Certificate, Message, Signed, statement
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutJournal
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import BlockHash, Height, ValidatorId
from p2pledger.sim.core.host import Door, Host, InquiryAnswer, Wire, block_on
from p2pledger.sim.core.judge import Judge
from p2pledger.sim.core.misdeeds import MISDEEDS, Deceiver, Misdeed
from p2pledger.sim.core.signatures import Ed25519, Oracle
from p2pledger.sim.founding import Consortium, found

SYNC_BLOCKS_MAX = 64
BUILD_MS = 10
"""The longest a primary takes to build a block."""
DELAY_TAIL_MS = 5_000
"""No message travels for longer than this beyond its usual delay."""
HEALED_DELAY_MS = 20


@dataclass(frozen=True, slots=True)
class Faults:
    """How unkind the world is until it heals. Probabilities are for each message or event; times are milliseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: int = 20
    tail: float = 0.0
    """Share of messages whose delay has a Pareto tail, from 100 ms up to DELAY_TAIL_MS."""
    bodies_late: float = 0.0
    """Share of blocks whose bodies are not at hand when the block is first heard of."""
    crash: float = 0.0
    """At each effect boundary."""
    crash_at: str = ""
    """A kind of write (`Prepare`, `LockRecord`, `AppendBlock`, …) at whose turns crashes aim."""
    crash_aimed: float = 0.0
    disk: float = 0.0
    """For each write: it fails, the node stops, and starts again from what was durable."""
    partition: float = 0.0
    """Whenever `partition_ms` have passed: links are cut anew, in a third of the cases in one direction only."""
    partition_ms: int = 200
    isolate_at: str = ""
    """A kind of write after which its author is cut off at once, before anything of that turn is sent."""
    isolate: float = 0.0
    isolate_ms: int = 1_000
    idle: float = 0.0
    """Every 500 ms: work runs out, or comes again."""
    unfair: float = 0.0
    """Every 500 ms: somebody suspects its primary (P24)."""


class _Crash(Exception):
    pass


Action = Callable[[Host, Any, Any], None]


@lru_cache(maxsize=128)
def _found(n: int, parameters: Parameters) -> Consortium:
    return found(n, parameters)


class Core:
    """One world. Build it, `run_until` and `heal` it, read `judge`."""

    def __init__(
        self,
        seed: int,
        n: int,
        faults: Faults,
        liars: Mapping[int, str],
        parameters: Parameters,
        is_really_signed: bool = False,
    ) -> None:
        """`liars`: seat to misdeed, or to `amnesiac` for one that loses its disk with every crash."""
        consortium = _found(n, parameters)
        founding = consortium.founding
        members = founding.validators.members
        by_id = {key.public: key for key in consortium.consensus}
        keys = [by_id[member.id] for member in members]
        self.n = n
        self.faults = faults
        self.random = random.Random(f"core {seed}")
        self.now = 0
        self.sent = 0
        """Messages handed to a link of a running validator."""
        self.delivered = 0
        """Messages that reached a running validator."""
        self.trace = 0
        self.founding = founding
        self.judge = Judge(
            founding.validators, founding.header, frozenset(members[i].id for i in liars), parameters.window
        )
        self.door = Door(founding, Ed25519(keys) if is_really_signed else Oracle(keys))
        self._amnesiacs = {seat for seat, kind in liars.items() if kind == "amnesiac"}
        self._misdeeds: dict[int, Misdeed] = {}
        self._cut: set[tuple[int, int]] = set()
        self._isolated: dict[int, tuple[int, str]] = {}
        self._aimed: set[int] = set()
        self._healed = False
        self._has_work = True
        self._order = 0
        self._heap: list[tuple[int, int, Action, Host, int, Any, Any]] = []
        self.hosts = [Host(seat, seat, founding, self) for seat in range(n)]
        for seat, kind in sorted(liars.items()):
            if kind == "twin":
                self.hosts.append(Host(len(self.hosts), seat, founding, self))
        for host in self.hosts:
            host.is_honest = host.seat not in liars
            kind = liars.get(host.seat, "")
            if kind in MISDEEDS:
                self._misdeeds[host.index] = MISDEEDS[kind]()
        self._copies: dict[ValidatorId, list[Host]] = {}
        for host in self.hosts:
            self._copies.setdefault(host.id, []).append(host)
        for host in self.hosts:
            self._guarded(self._start, host)
        self._later(faults.partition_ms, self._shift, self.hosts[0], None)
        self._later(500, self._vary_work, self.hosts[0], None)

    # Time

    def _at(self, delay: int, act: Action, host: Host, a: Any, b: Any = None) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, act, host, host.incarnation, a, b))

    def _later(self, delay: int, act: Action, host: Host, a: Any) -> None:
        """Something that does not depend on whether a validator runs."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, act, host, -1, a, None))

    def run_until(self, at: int, heights: int = 1 << 62) -> None:
        """Let the world go on to a moment, or until that many heights are committed."""
        heap, pop, judge = self._heap, heapq.heappop, self.judge
        while heap and heap[0][0] <= at and judge.height < heights:
            self.now, _, act, host, incarnation, a, b = pop(heap)
            if incarnation in (host.incarnation, -1):
                self._guarded(act, host, a, b)
        if judge.height < heights:
            self.now = max(self.now, at)

    def _guarded(self, act: Action, host: Host, a: Any = None, b: Any = None) -> None:
        try:
            act(host, a, b)
        except _Crash:
            self._crash(host)
        except StoreError:
            if not host.store.fail_next_apply:
                raise
            self.judge.reached["failed write"] += 1
            self._crash(host)

    # Validators

    def _start(self, host: Host, a: Any, b: Any) -> None:
        if host.store.journal():
            self.judge.reached["restart with a journal"] += 1
        host.start()
        host.turn(on.WorkChanged(self._has_work))

    def _crash(self, host: Host) -> None:
        if host.replica.recovery.is_waiting:
            self.judge.reached["crash during recovery"] += 1
        host.stop()
        self.judge.reached["crash"] += 1
        if host.seat in self._amnesiacs:
            host.empty_disk()
            self.judge.reached["disk lost"] += 1
        elif host.is_honest:
            self.judge.store_is_sound(host.ledger())
        self._at(50 + int(self.random.random() * 2_000), self._start, host, None)

    def _maybe_crash(self, host: Host, where: str) -> None:
        faults = self.faults
        chance = faults.crash
        if host.index in self._aimed:
            chance = max(chance, faults.crash_aimed)
        if chance and not self._healed and self.random.random() < chance:
            self.judge.reached[f"crash {where}"] += 1
            if host.index in self._aimed:
                self.judge.reached[f"crash aimed at {faults.crash_at}"] += 1
            raise _Crash

    def signing(self, host: Host) -> None:
        self._maybe_crash(host, "before a vote is signed")

    def writing(self, host: Host, writes: list[LedgerWrite]) -> None:
        faults = self.faults
        if self._healed:
            return
        if faults.crash_aimed:
            if any(_kind_of(write) == faults.crash_at for write in writes):
                self._aimed.add(host.index)
            else:
                self._aimed.discard(host.index)
        if faults.disk and self.random.random() < faults.disk:
            host.store.fail_next_apply = True
        self._maybe_crash(host, "before a write")

    def wrote(self, host: Host, writes: list[LedgerWrite]) -> None:
        faults = self.faults
        if self._healed:
            return
        if faults.isolate and any(_kind_of(write) == faults.isolate_at for write in writes):
            self._maybe_isolate(host)
        self._maybe_crash(host, "after a write")

    def _maybe_isolate(self, host: Host) -> None:
        if self.random.random() < self.faults.isolate:
            how = self.random.choice(["cut off", "deaf", "mute"])
            self._isolated[host.index] = (self.now + self.faults.isolate_ms, how)
            self.judge.reached[f"isolated at {self.faults.isolate_at}"] += 1

    # The network

    def broadcast(self, host: Host, wire: Wire) -> None:
        misdeed = self._misdeeds.get(host.index)
        crash = self.faults.crash or self.faults.crash_aimed
        for target in self.hosts:
            if target is host:
                continue
            if crash:
                self._maybe_crash(host, "between sends")
            if misdeed is None:
                self._carry(host, target, wire)
            else:
                for shown in misdeed.outgoing(self, host, wire):
                    self._carry(host, target, shown)

    def send(self, host: Host, to: ValidatorId, wire: Wire) -> None:
        misdeed = self._misdeeds.get(host.index)
        for target in self._copies[to]:
            for shown in [wire] if misdeed is None else misdeed.outgoing(self, host, wire):
                self._carry(host, target, shown)

    def _carry(self, source: Host, target: Host, wire: Wire) -> None:
        if not target.is_running or (not target.is_honest and self._is_echo(source, target, wire)):
            return
        self.sent += 1
        chance = self.random.random
        if self._healed:
            delay = 1 + int(chance() * HEALED_DELAY_MS)
        else:
            faults = self.faults
            if (self._cut or self._isolated) and not self._reaches(source, target):
                return
            if faults.loss and chance() < faults.loss:
                return
            if faults.duplicate and chance() < faults.duplicate:
                self._at(1 + int(chance() * faults.delay_ms), self._deliver, target, source, wire)
            delay = 1 + int(chance() * faults.delay_ms)
            if faults.tail and chance() < faults.tail:
                delay += min(DELAY_TAIL_MS, int(100 / (chance() + 0.01)))
        self._order = order = self._order + 1
        heapq.heappush(self._heap, (self.now + delay, order, self._deliver, target, target.incarnation, source, wire))

    def _is_echo(self, source: Host, target: Host, wire: Wire) -> bool:
        """A liar pays no attention when others show it what it, or its twin, said."""
        if source.seat == target.seat:
            return True
        return isinstance(wire, Signed) and wire.message.author == target.id

    def _reaches(self, source: Host, target: Host) -> bool:
        if (source.index, target.index) in self._cut:
            return False
        for host, harmless in ((source, "deaf"), (target, "mute")):
            until, how = self._isolated.get(host.index, (0, ""))
            if until > self.now and how != harmless:
                return False
        return True

    def _deliver(self, host: Host, source: Host, wire: Wire) -> None:
        self.delivered += 1
        content = wire.signature if isinstance(wire, Signed) else type(wire).__name__.encode()
        self.trace = crc32(
            content, (self.trace ^ self.now * 2_654_435_761 ^ source.index << 8 ^ host.index) & 0xFFFFFFFF
        )
        if isinstance(wire, InquiryAnswer) and not host.is_honest:
            wire = InquiryAnswer(wire.serial, ())
        host.receive(source.id, wire)

    def _shift(self, host: Host, a: Any, b: Any) -> None:
        """Cut links anew, or join them."""
        if self._healed:
            return
        chance = self.random.random
        self._cut = set()
        if chance() < self.faults.partition:
            group = [int(chance() * 2) for _ in self.hosts]
            pairs = {(i, j) for i in range(len(group)) for j in range(len(group)) if group[i] != group[j]}
            if chance() < 1 / 3:
                pairs = {(i, j) for i, j in pairs if group[i] < group[j]}
                self.judge.reached["cut in one direction"] += 1
            self._cut = pairs
            self.judge.reached["partition"] += 1
        self._later(self.faults.partition_ms, self._shift, host, None)

    # What lies outside of the agreement

    def set_timer(self, host: Host, timer: do.SetTimer) -> None:
        self._at(timer.delay_ms, self._fire, host, timer)

    def _fire(self, host: Host, timer: do.SetTimer, b: Any) -> None:
        if host.timers.get(timer.timer) == timer.generation:
            host.turn(on.TimerFired(timer.timer, timer.generation))

    def build(self, host: Host, order: do.BuildProposal) -> None:
        if self._has_work:
            host.order = None
            self._at(1 + int(self.random.random() * BUILD_MS), self._built, host, order)
        else:
            host.order = order

    def _built(self, host: Host, order: do.BuildProposal, b: Any) -> None:
        header = self.know(block_on(order.parent, self.now, b"%d %d" % (host.index, self._order)))
        if isinstance(self._misdeeds.get(host.index), Deceiver) and self.random.random() < 0.4:
            self.judge.bad.add(header.hash)
            self.judge.reached["bad block"] += 1
        host.held.add(header.hash)
        host.turn(on.ProposalBuilt(order.epoch, order.view, header))

    def know(self, header: Header) -> Header:
        self.judge.blocks[header.hash] = header
        return header

    def sign_as(self, host: Host, message: Message) -> Signed:
        said = statement(self.founding.chain, message)
        self.judge.said(message, said)
        return Signed(message, self.door.signatures.sign(host.seat, said))

    def obtain(self, host: Host, block_hash: BlockHash, answer: on.Event) -> bool:
        late = self.faults.bodies_late
        if (self._healed or not late or self.random.random() >= late) and self._has_holder(host, block_hash):
            return self._take(host, block_hash, answer)
        self._at(1 + int(self.random.random() * 2 * self.faults.delay_ms), self._obtained, host, block_hash, answer)
        return False

    def _obtained(self, host: Host, block_hash: BlockHash, answer: on.Event) -> None:
        if block_hash in host.held or self._has_holder(host, block_hash):
            self._take(host, block_hash, answer)
            host.turn(answer)

    def _take(self, host: Host, block_hash: BlockHash, answer: on.Event) -> bool:
        if not isinstance(answer, on.HeaderLearned):
            host.held.add(block_hash)
        return True

    def _has_holder(self, host: Host, block_hash: BlockHash) -> bool:
        return any(
            other.is_running and block_hash in other.held and self._reaches(other, host) and self._reaches(host, other)
            for other in self.hosts
            if other is not host
        )

    def sync(self, host: Host, certificate: Certificate) -> None:
        self._at(1 + int(self.random.random() * 2 * self.faults.delay_ms), self._synced, host, certificate)

    def _synced(self, host: Host, certificate: Certificate, b: Any) -> None:
        """P21: blocks up to one with its own certificate, from somebody within reach, through the apply path."""
        start = host.store.tip() + 1
        peers = [
            other
            for other in self.hosts
            if other is not host and other.is_running and other.store.tip() >= start and self._reaches(other, host)
        ]
        if not peers or start > certificate.height:
            return
        peer = self.random.choice(peers)
        blocks = [peer.store.block(Height(height)) for height in range(start, start + SYNC_BLOCKS_MAX)]
        records = [record for record in blocks if record is not None]
        while records and records[-1].certificate is None:
            records.pop()
        if not records:
            return
        last = records[-1]
        assert last.certificate is not None
        assert self.door.is_good(last.certificate), "what a ledger holds is certified"
        self.judge.reached["blocks synced"] += 1
        host.write([AppendBlock(record) for record in records])
        host.turn(on.CaughtUp(last.header, last.certificate))

    def _vary_work(self, host: Host, a: Any, b: Any) -> None:
        if self._healed:
            return
        if self.random.random() < self.faults.idle:
            self._set_work(not self._has_work)
        if self.random.random() < self.faults.unfair:
            suspicious = self.random.choice(self.hosts)
            if suspicious.is_running:
                self._guarded(self._suspect, suspicious)
        self._later(500, self._vary_work, host, None)

    def _suspect(self, host: Host, a: Any, b: Any) -> None:
        host.turn(on.PrimaryUnfair(host.replica.view))

    def _set_work(self, has_work: bool) -> None:
        self._has_work = has_work
        for host in self.hosts:
            if host.is_running:
                self._guarded(self._tell_work, host)

    def _tell_work(self, host: Host, a: Any, b: Any) -> None:
        host.turn(on.WorkChanged(self._has_work))
        if self._has_work and host.order is not None:
            self.build(host, host.order)

    # The end

    def heal(self) -> None:
        """From now on the network is good, everybody runs, and there is work."""
        self._healed = True
        self._cut, self._isolated = set(), {}
        self._set_work(True)

    def tips(self) -> list[int]:
        """The committed heights of the honest validators, from their stores."""
        return [int(host.store.tip()) for host in self.hosts if host.is_honest]

    def bound_memory(self) -> None:
        """Invariant 8 for every honest replica."""
        for host in self.hosts:
            if host.is_honest:
                self.judge.is_bounded(len(host.replica.ballots) + len(host.replica.view_changes))


def _kind_of(write: LedgerWrite) -> str:
    """What a write is about: the message of a vote, else the kind of record."""
    if isinstance(write, PutJournal):
        record = write.record
        return type(record.message if isinstance(record, VoteRecord) else record).__name__
    return type(write).__name__
