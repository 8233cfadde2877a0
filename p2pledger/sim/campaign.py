"""Draws worlds from seeds, runs them through faults, heals them, and demands progress: one line replays a failure."""

import random
from collections import Counter
from dataclasses import dataclass, field

from p2pledger.chain.genesis import Parameters
from p2pledger.primitives import crypto
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.sim.adversaries import Adversary, Deceiver, Equivocator, Silent, Withholder
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.world import Faults, World

HEALED_BOUND_MS = 60_000
"""After healing, every correct node commits a fresh transaction within this: timeouts that had grown to their cap
run out, then f + 1 views at most are needed, each with the capped timeout, and the retransmissions of each."""


AIMS = ["PrePrepare", "Prepare", "Commit", "ViewChange", "NewView", "ViewRecord", "LockRecord", "AppendBlock"]
"""Writes at which crashes aim: before, right after, before the vote is sent, and between the sends of that turn."""


@dataclass(slots=True)
class Result:
    """What one seed showed."""

    seed: int
    heights: list[int]
    messages: int
    trace: str = ""
    """Digest of every message in order: the same for the same seed, on every machine."""
    reached: Counter[str] = field(default_factory=Counter)


def draw(seed: int, n: int) -> World:
    """The world of a seed: each kind of fault is on or off by chance, at some intensity (swarm testing)."""
    chance = random.Random(f"draw {seed} {n}")
    pick = chance.random
    faults = Faults(
        loss=pick() * 0.2 if pick() < 0.6 else 0.0,
        duplicate=pick() * 0.2 if pick() < 0.4 else 0.0,
        delay_ms=(1, chance.choice([10, 50, 200])),
        slow=pick() * 0.05 if pick() < 0.5 else 0.0,
        crash=pick() * 0.004 if pick() < 0.6 else 0.0,
        partition=pick() * 0.3 if pick() < 0.4 else 0.0,
        crash_at=chance.choice(AIMS),
        crash_aimed=pick() * 0.03 if pick() < 0.3 else 0.0,
        disk=pick() * 0.005 if pick() < 0.2 else 0.0,
        skew_ms=chance.choice([0, 50, 2_000]),
    )
    adversaries: dict[int, Adversary] = {}
    amnesiacs: set[int] = set()
    if n >= 4 and pick() < 0.7:
        for index in chance.sample(range(n), chance.randint(1, (n - 1) // 3)):
            kinds: list[type[Adversary]] = [Equivocator, Equivocator, Deceiver, Silent, Withholder]
            kind = chance.choice([*kinds, None])
            if kind is None:
                amnesiacs.add(index)
            else:
                adversaries[index] = kind()
    parameters = Parameters(
        window=chance.choice([1, 2, 4, 4, 8]),
        timeout_ms=300,
        timeout_cap_ms=2_400,
        checkpoint_interval=chance.choice([5, 10, 100]),
        term_heights=chance.choice([7, 20, 10_000]),
        heartbeat_ms=chance.choice([0, 1_000, 60_000]),
    )
    return World(seed, n, faults, adversaries, frozenset(amnesiacs), parameters)


def run_seed(seed: int, n: int, heights: int = 20) -> Result:
    """One world through faults and healing. Raises InvariantBroken with the line that replays it."""
    crypto.remember_verifications()
    world = draw(seed, n)
    try:
        _run(world, heights)
    except (AssertionError, P2PLedgerError, LookupError) as error:
        replay = f"python -m p2pledger.sim --seed {seed} --nodes {n} --heights {heights}"
        raise InvariantBroken(f"{type(error).__name__}: {error}\nreplay with: {replay}") from error
    return Result(seed, world.heights(), world.messages, world.trace.hexdigest(), world.observer.reached)


def _run(world: World, heights: int) -> None:
    world.shift_partition()
    for round_ in range(400):
        world.submit(world.random.randrange(world.n), b"refuse" if round_ % 9 == 0 else b"x")
        world.run_until(world.now + world.random.randint(5, 120))
        if round_ % 20 == 0:
            world.bound_memory()
        if round_ >= 60 and max(world.heights()) >= heights:
            break
    world.heal()
    _demand_progress(world, heights)


def _demand_progress(world: World, heights: int) -> None:
    """Invariant 7, and enough heights for the run to mean something."""
    honest = [node.index for node in world.nodes if node.is_honest]
    world.run_until(world.now + 2_500)  # deliveries from before the healing
    fresh = [key for index in honest if (key := world.submit(index)) is not None]
    limit = world.now + HEALED_BOUND_MS
    while world.now < limit:
        world.run_until(world.now + 100)
        done = all(world.observer.is_executed(key) for key in fresh)
        if done and len(set(world.heights())) == 1:
            break
        if done and max(world.heights()) - min(world.heights()) <= world.parameters.window:
            break
    else:
        missing = sum(1 for key in fresh if not world.observer.is_executed(key))
        raise InvariantBroken(
            f"7: {missing} of {len(fresh)} fresh transactions undecided {HEALED_BOUND_MS} ms after healing, "
            f"heights {world.heights()}"
        )
    while max(world.heights()) < heights:
        before = max(world.heights())
        world.submit(honest[0])
        world.run_until(world.now + 500)
        if max(world.heights()) == before and world.now > limit + HEALED_BOUND_MS:
            raise InvariantBroken(f"7: stuck at height {before} in a healed world")
    world.bound_memory()
