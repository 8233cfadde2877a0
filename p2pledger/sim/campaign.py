"""Runs worlds through faults, heals them, and demands progress: one line replays a failure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pledger.primitives import crypto
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.sim.network import HEALED_DELAY_MS
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.observer.judgement import liveness_bound_ms
from p2pledger.sim.plan import Plan, draw
from p2pledger.sim.workload import Workload
from p2pledger.sim.world import World

LEFTOVERS_MS = 2_500
"""After healing the world goes on for this long before anything is demanded: most deliveries from before are in."""


def healed_bound_ms(world: World) -> int:
    """I9: how long after healing a fresh transaction may take, with every node backed off to the cap.

    The slack is one capped retransmission before a node tells where it stands and hears it of others, and one for those
    that started at the healing and must be answered first (P20).
    """
    cap_ms = world.parameters.timeout_cap_ms
    return liveness_bound_ms(world.consortium.founding.validators.f, cap_ms, HEALED_DELAY_MS[1], 2 * cap_ms)


@dataclass(slots=True)
class Result:
    """What one run showed."""

    plan: Plan
    heights: list[int]
    messages: int
    simulated_ms: int
    trace: str = ""
    """Digest of the event log: the same for the same plan, on every machine."""
    reached: Counter[str] = field(default_factory=Counter)


def run_seed(seed: int, n: int, heights: int = 20, profile: str = "swarm", byzantine: int | None = None) -> Result:
    """The world of a seed through faults and healing. Raises InvariantBroken with the line that replays it."""
    try:
        return run_plan(draw(seed, n, profile, heights, byzantine))
    except InvariantBroken as broken:
        liars = "" if byzantine is None else f" --byzantine {byzantine}"
        replay = f"p2pledger sim replay {seed} --nodes {n} --heights {heights} --profile {profile}{liars}"
        raise InvariantBroken(f"{broken}\nreplay with: {replay}") from broken


def run_plan(
    plan: Plan,
    workload: Workload | None = None,
    log: list[str] | None = None,
    demands: Callable[[World], object] = lambda _: None,
) -> Result:
    """One world through its faults and healing; `log` takes the event log, line by line.

    `demands`: what is asked of the healed world beyond progress.

    Raises InvariantBroken, also for any error of our own code.
    """
    crypto.remember_verifications()
    world = plan.world(log, workload)
    try:
        go_through_faults(world, plan.rounds, plan.heights)
        world.heal()
        demand_progress(world, plan.heights)
        demands(world)
    except InvariantBroken:
        raise
    except (AssertionError, P2PLedgerError, LookupError, TypeError, ValueError) as error:
        raise InvariantBroken(f"12: {type(error).__name__}: {error}") from error
    if plan.nodes == 7 and len(plan.liars) == 2:
        world.observer.reached["two liars among seven"] += 1
    return Result(plan, world.heights(), world.messages, world.now, world.trace.hexdigest(), world.observer.reached)


def go_through_faults(world: World, rounds: int = 400, heights: int = 20) -> None:
    """Submit transactions to random nodes while everything may go wrong, until `heights` are reached."""
    for round_ in range(rounds):
        world.workload.submit(world, round_)
        world.run_until(world.now + world.random.randint(5, 120))
        if round_ % 20 == 0:
            world.bound_memory()
        if round_ >= min(rounds, 3 * heights) and max(world.heights()) >= heights:
            break


def demand_progress(world: World, heights: int = 0) -> None:
    """Invariant 7 on a healed world: fresh transactions of all are executed within the bound; then up to `heights`."""
    honest = [node.index for node in world.nodes if node.is_honest]
    world.run_until(world.now + LEFTOVERS_MS)
    fresh = [key for index in honest if (key := world.submit_fresh(index)) is not None]
    bound_ms = healed_bound_ms(world)
    limit = world.now + bound_ms
    while world.now < limit:
        world.run_until(world.now + 100)
        done = all(world.observer.is_executed(key) for key in fresh)
        if done and max(world.heights()) - min(world.heights()) <= world.parameters.window:
            break
    else:
        missing = sum(1 for key in fresh if not world.observer.is_executed(key))
        raise InvariantBroken(
            f"7: {missing} of {len(fresh)} fresh transactions undecided {bound_ms} ms after healing, "
            f"heights {world.heights()}"
        )
    while max(world.heights()) < heights:
        before = max(world.heights())
        world.submit_fresh(honest[0])
        world.run_until(world.now + 500)
        if max(world.heights()) == before and world.now > limit + bound_ms:
            raise InvariantBroken(f"7: stuck at height {before} in a healed world")
    limit = world.now + bound_ms
    while world.now < limit and not world.observer.is_settled():
        world.run_until(world.now + 100)
    world.bound_memory()
    world.observer.concluded(world.now)
