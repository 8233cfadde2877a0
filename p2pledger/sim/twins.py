"""Twins: lies made of honest code alone (Bano et al., "Twins: BFT Systems Made Robust", OPODIS 2021).

Up to f validators have two copies that share a key; each copy runs the real replica and knows nothing of the other. For
each view a scenario says who is its primary and which copies hear each other. Equivocation, forgotten locks and
conflicting votes all come from where a copy was when. Beyond the paper a view may have two partitions, one until blocks
are prepared and one for its COMMITs, so that a block may be decided where few know of it. (`run` in that paper is one
partition a view: `phases=1`.)

A scenario runs in lock step, without clocks: messages flow in order until none is left, VIEW-CHANGEs that a partition
held back arrive then, and then all progress timers fire. After its last view everybody hears everybody, and every
honest validator must commit a fresh block. The judge is that of the core simulation.

    p2pledger sim run --layer twins --seeds 1000    # drawn by chance, views 2 to 8
    p2pledger sim twins --views 2                   # all of them, up to symmetry
"""

import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from p2pledger.chain.genesis import Founding, Parameters
from p2pledger.chain.validators import ValidatorSet
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import Certificate, Commit, Signed, ViewChange
from p2pledger.engine.ports import AppendBlock, LedgerWrite
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.primitives.ids import BlockHash, Epoch, Height, ValidatorId, View
from p2pledger.sim.core.host import Door, Host, Inquiry, Wire, block_on
from p2pledger.sim.core.judge import Judge
from p2pledger.sim.core.signatures import Oracle
from p2pledger.sim.founding import found
from p2pledger.sim.observer import InvariantBroken

SETS_MAX = 3
"""Into how many sets a partition splits the copies at most."""
VIEWS_MAX = 8
Partition = tuple[int, ...]
"""The number of each copy's set; sets are numbered in the order of their first copy."""


@dataclass(frozen=True, slots=True)
class Round:
    """One view of a scenario."""

    primary: int
    """A seat."""
    prepares: Partition
    """Who hears whom until blocks are prepared: PRE-PREPARE, PREPARE, NEW-VIEW, and at first VIEW-CHANGE."""
    commits: Partition
    """Who hears whose COMMIT."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Seats 0 to n-1, of which the last `twins` have a second copy each: copies n to n+twins-1, in the same order."""

    n: int
    twins: int
    rounds: tuple[Round, ...]
    blocks: int = 1
    """Proposals of a primary in each view: a second one is pipelined on the first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario."""

    height: int
    """The highest committed height."""
    messages: int
    timeouts: int
    """How often all progress timers fired after the last view of the scenario, until everybody had a fresh block."""


# Which scenarios there are


def partitions(copies: int, sets_max: int = SETS_MAX) -> list[Partition]:
    """All partitions of so many copies into at most so many sets: 41 of 5 copies into 3."""
    found_: list[Partition] = [()]
    for _ in range(copies):
        found_ = [(*part, i) for part in found_ for i in range(min(sets_max, max(part, default=-1) + 2))]
    return found_


@lru_cache(maxsize=8)
def _rounds(n: int, twins: int, phases: int) -> tuple[list[Round], list[list[int]]]:
    """Every round there is, and for each symmetry what it makes of each round.

    Honest seats may trade places, twinned seats too, and so may the two copies of a twin.
    """
    parts = partitions(n + twins)
    pairs = [(part, part) for part in parts] if phases == 1 else list(itertools.product(parts, repeat=2))
    rounds = [Round(primary, prepares, commits) for primary in range(n) for prepares, commits in pairs]
    place = {round_: i for i, round_ in enumerate(rounds)}
    images = [
        [
            place[Round(seats[round_.primary], _moved(round_.prepares, copies), _moved(round_.commits, copies))]
            for round_ in rounds
        ]
        for seats, copies in _symmetries(n, twins)
    ]
    return rounds, images


def _symmetries(n: int, twins: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(where each seat goes, where each copy goes)."""
    honest = n - twins
    for first in itertools.permutations(range(honest)):
        for second in itertools.permutations(range(twins)):
            for swaps in itertools.product((False, True), repeat=twins):
                seats = (*first, *(honest + to for to in second))
                ones = [(n if swap else honest) + to for to, swap in zip(second, swaps, strict=True)]
                others = [(honest if swap else n) + to for to, swap in zip(second, swaps, strict=True)]
                yield seats, (*first, *ones, *others)


def _moved(partition: Partition, copies: tuple[int, ...]) -> Partition:
    """The partition after each copy went where it goes, its sets numbered anew."""
    there = [0] * len(copies)
    for copy, to in enumerate(copies):
        there[to] = partition[copy]
    names: dict[int, int] = {}
    return tuple(names.setdefault(part, len(names)) for part in there)


def count(n: int, twins: int, views: int, phases: int = 1) -> int:
    """How many scenarios `enumerate_scenarios` yields, by Burnside's lemma."""
    _, images = _rounds(n, twins, phases)
    fixed = (sum(1 for i, to in enumerate(image) if i == to) for image in images)
    return sum(int(same**views) for same in fixed) // len(images)


def enumerate_scenarios(n: int, twins: int, views: int, phases: int = 1) -> Iterator[Scenario]:
    """Every scenario of so many views once, of those that a symmetry makes equal the first."""
    rounds, images = _rounds(n, twins, phases)

    def extended(prefix: tuple[Round, ...], stabilising: list[list[int]]) -> Iterator[Scenario]:
        if len(prefix) == views:
            yield Scenario(n, twins, prefix)
            return
        for i, round_ in enumerate(rounds):
            if all(image[i] >= i for image in stabilising):
                yield from extended((*prefix, round_), [image for image in stabilising if image[i] == i])

    return extended((), images)


def draw(seed: int, n: int = 4, twins: int | None = None) -> Scenario:
    """A scenario by chance, always the same for a seed: 2 to 8 views; f twins unless told otherwise.

    Half of the partitions are drawn among those with a quorum on one side: others end with a timeout at once.
    """
    chance = random.Random(f"twins {seed} {n}")
    twins = (n - 1) // 3 if twins is None else twins
    copies = n + twins

    def part() -> Partition:
        sets = chance.choice([1, 2, 2, 3])
        if chance.random() < 0.5:
            raw = [chance.randrange(sets) for _ in range(copies)]
        else:
            raw = [0 if chance.random() < 0.75 else chance.randrange(sets) for _ in range(copies)]
        return _moved(tuple(raw), tuple(range(copies)))

    has_phases = chance.random() < 0.7
    rounds = []
    for _ in range(chance.randint(2, VIEWS_MAX)):
        prepares = part()
        rounds.append(Round(chance.randrange(n), prepares, part() if has_phases else prepares))
    return Scenario(n, twins, tuple(rounds), chance.choice([1, 1, 2, 3]))


# How one runs


@dataclass(frozen=True)
class _Scheduled(ValidatorSet):
    """The validators, with the primaries of the first views as a scenario wants them."""

    schedule: tuple[int, ...] = ()

    def primary(self, epoch: Epoch, view: View) -> ValidatorId:
        """The scheduled one, then in turn as ever."""
        return self.members[self.schedule[view]].id if view < len(self.schedule) else super().primary(epoch, view)


@lru_cache(maxsize=8)
def _found(n: int) -> tuple[Founding, list[SigningKey]]:
    consortium = found(n, Parameters())
    by_id = {key.public: key for key in consortium.consensus}
    return consortium.founding, [by_id[member.id] for member in consortium.founding.validators.members]


@lru_cache(maxsize=1024)
def _founding(n: int, schedule: tuple[int, ...]) -> Founding:
    founding, _ = _found(n)
    scheduled = replace(founding)
    values = {"chain": founding.chain, "header": founding.header}
    scheduled.__dict__.update(values, validators=_Scheduled(founding.validators.members, schedule))
    return scheduled


class Stage:
    """The surroundings of the copies: in-order links, and partitions by the view of a message."""

    def __init__(self, scenario: Scenario) -> None:
        n = scenario.n
        founding = _founding(n, tuple(round_.primary for round_ in scenario.rounds))
        twinned = range(n - scenario.twins, n)
        members = founding.validators.members
        self.now = 0
        self.messages = 0
        self.judge = Judge(
            founding.validators,
            founding.header,
            frozenset(members[seat].id for seat in twinned),
            founding.parameters.window,
        )
        self.door = Door(founding, Oracle(_found(n)[1]))
        self._rounds = scenario.rounds
        self._blocks = scenario.blocks
        self._is_healed = False
        self._queue: deque[tuple[Host, Host, Wire]] = deque()
        self._orders: deque[tuple[Host, do.BuildProposal]] = deque()
        self._late: deque[tuple[Host, Host, Wire]] = deque()
        self._syncs: deque[tuple[Host, Certificate]] = deque()
        self._built: dict[tuple[int, View], int] = {}
        seats = [*range(n), *twinned]
        self.hosts = [Host(index, seat, founding, self) for index, seat in enumerate(seats)]
        self._honest = [host for host in self.hosts if host.seat not in twinned]
        self._peers = [[peer for peer in self.hosts if peer.seat != host.seat] for host in self.hosts]
        for host in self.hosts:
            host.is_honest = host.seat not in twinned
            host.start()
            for member in members:  # P20: nobody has ever signed anything
                if host.replica.recovery.is_waiting and member.id != host.id:
                    host.turn(on.InquiryAnswered(member.id, ()))
            host.turn(on.WorkChanged(True))

    # The run

    def run(self) -> Outcome:
        """The scenario, then a healed end. Raises InvariantBroken."""
        last = len(self._rounds)
        for _ in range(last):
            self._drain()
            if max(host.replica.view for host in self._honest) >= last:
                break
            self._fire("progress")
        self._is_healed = True
        fresh = self.judge.height + 1
        bound = 2 * ((self.hosts[0].founding.validators.n - 1) // 3) + 4
        for timeouts in range(bound):
            self._drain()
            if self._has_all(fresh):
                return Outcome(self.judge.height, self.messages, timeouts)
            self._fire("retransmit")
            self._drain()
            if self._has_all(fresh):
                return Outcome(self.judge.height, self.messages, timeouts)
            self._fire("progress")
        tips = [int(host.store.tip()) for host in self._honest]
        raise InvariantBroken(f"7: heights {tips} after {bound} timeouts in a healed network, {fresh} is due at all")

    def _has_all(self, height: int) -> bool:
        return all(host.store.tip() >= height for host in self._honest)

    def _drain(self) -> None:
        queue, orders, late = self._queue, self._orders, self._late
        while queue or orders or late or self._syncs:
            while queue:
                host, source, wire = queue.popleft()
                if host.is_running:
                    host.receive(source.id, wire)
            if orders:
                self._build(*orders.popleft())
            elif self._syncs:
                self._sync(*self._syncs.popleft())
            elif late:
                queue.extend(late)
                late.clear()

    def _fire(self, timer: str) -> None:
        self.now += 1_000
        for host in self.hosts:
            generation = host.timers.pop(timer, None)
            if generation is not None and host.is_running:
                host.turn(on.TimerFired(timer, generation))  # type: ignore[arg-type]

    # The surroundings of a host

    def signing(self, host: Host) -> None:
        """Nobody crashes here."""

    def writing(self, host: Host, writes: list[LedgerWrite]) -> None:
        """Nobody crashes here."""

    def wrote(self, host: Host, writes: list[LedgerWrite]) -> None:
        """Nobody crashes here."""

    def broadcast(self, host: Host, wire: Wire) -> None:
        """To all within reach, but for the other copy of the same key."""
        if isinstance(wire, Inquiry):
            return  # answered at the start
        sets = self._sets(wire, host)
        for target in self._peers[host.index]:
            self._carry(host, target, wire, sets)

    def send(self, host: Host, to: ValidatorId, wire: Wire) -> None:
        """To every copy of one validator that is within reach."""
        sets = self._sets(wire, host)
        for target in self._peers[host.index]:
            if target.id == to:
                self._carry(host, target, wire, sets)

    def _sets(self, wire: Wire, host: Host) -> Partition | None:
        view = wire.message.view if isinstance(wire, Signed) else host.replica.view
        if self._is_healed or view >= len(self._rounds):
            return None
        round_ = self._rounds[view]
        is_commit = isinstance(wire, Signed) and isinstance(wire.message, Commit)
        return round_.commits if is_commit else round_.prepares

    def _carry(self, source: Host, target: Host, wire: Wire, sets: Partition | None) -> None:
        message = wire.message if isinstance(wire, Signed) else None
        if message is not None and not target.is_honest and message.author == target.id:
            return  # a liar pays no attention when others show it what its other copy said
        if sets is None or sets[source.index] == sets[target.index]:
            self.messages += 1
            self._queue.append((target, source, wire))
        elif isinstance(message, ViewChange):
            self.messages += 1
            self._late.append((target, source, wire))

    def set_timer(self, host: Host, timer: do.SetTimer) -> None:
        """The host knows which runs; they fire when nothing else can happen."""

    def build(self, host: Host, order: do.BuildProposal) -> None:
        """When no message is under way."""
        self._orders.append((host, order))

    def _build(self, host: Host, order: do.BuildProposal) -> None:
        """At most so many in a view as the scenario says."""
        key = (host.index, order.view)
        built = self._built.get(key, 0)
        if built < self._blocks:
            self._built[key] = built + 1
            header = block_on(order.parent, self.now, b"%d %d %d" % (host.index, order.view, built))
            self.judge.blocks[header.hash] = header
            host.held.add(header.hash)
            host.turn(on.ProposalBuilt(order.epoch, order.view, header))

    def obtain(self, host: Host, block_hash: BlockHash, answer: on.Event) -> bool:
        """From anybody who is within reach in this host's view."""
        sets = self._sets(do.SendStatus(Epoch(0), host.replica.view, True, Height(0)), host)
        for other in self.hosts:
            if block_hash in other.held and (sets is None or sets[other.index] == sets[host.index]):
                if not isinstance(answer, on.HeaderLearned):
                    host.held.add(block_hash)
                return True
        return False

    def sync(self, host: Host, certificate: Certificate) -> None:
        """When nothing else can happen, from the honest validator that is furthest."""
        self._syncs.append((host, certificate))

    def _sync(self, host: Host, certificate: Certificate) -> None:
        peer = max(self._honest, key=lambda other: other.store.tip())
        heights = range(host.store.tip() + 1, peer.store.tip() + 1)
        records = [record for height in heights if (record := peer.store.block(Height(height))) is not None]
        while records and records[-1].certificate is None:
            records.pop()
        if records and records[-1].certificate is not None:
            host.write([AppendBlock(record) for record in records])
            host.turn(on.CaughtUp(records[-1].header, records[-1].certificate))


def run_scenario(scenario: Scenario) -> Outcome:
    """Run it to its healed end. Raises InvariantBroken, as does anything that goes wrong inside."""
    try:
        return Stage(scenario).run()
    except (AssertionError, P2PLedgerError, LookupError) as error:
        raise InvariantBroken(f"{type(error).__name__}: {error}\nin {scenario}") from error
