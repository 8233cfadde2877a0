"""The agreement core alone through faults and back, at several times the speed of whole nodes.

Each seed draws a world of real replicas (`core.world`), lets it suffer, heals it, and demands progress. `run_seed` is a
pure function of its arguments: a campaign is a range of seeds, and can be split and resumed at any seed.

    p2pledger sim run --layer core --seeds 1000 --nodes 4
    p2pledger sim replay 17 --layer core
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

from p2pledger.chain.genesis import Parameters
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.sim.core.misdeeds import MISDEEDS
from p2pledger.sim.core.world import Core, Faults
from p2pledger.sim.faults import AIMS
from p2pledger.sim.observer import InvariantBroken

HEIGHTS = 30
"""Committed heights after which a world is healed, if it gets there at all before FAULTY_MS."""
FAULTY_MS = 20_000


@dataclass(slots=True)
class Result:
    """What one seed showed."""

    seed: int
    heights: list[int]
    """Committed heights of the honest validators."""
    messages: int
    """Handed to a link whose receiver ran, as `world` counts them."""
    simulated_ms: int
    delivered: int
    """Those that were not lost."""
    recovery_ms: int
    """Virtual time from healing until every honest validator had committed two fresh heights."""
    trace: str
    """Digest of every delivery in order and of the chain: the same for the same seed, on every machine."""
    reached: Counter[str] = field(default_factory=Counter)


def recovery_bound_ms(n: int, parameters: Parameters) -> int:
    """How long a healed world may take until everybody commits afresh, with timeouts that had grown to their cap.

    Whatever was under way ends within one capped timeout: crashed validators start and are answered, repetitions bring
    certificates, NEW-VIEWs and VIEW-CHANGEs to those behind. Then at most f faulty primaries rule in turn, and one
    honest validator's view change may be overtaken by another's; each of these f + 2 views costs a timeout and, for
    what it said before the healing, a repetition.
    """
    f = (n - 1) // 3
    return parameters.timeout_cap_ms * (1 + 2 * (f + 2))


def draw(seed: int, n: int, is_really_signed: bool = False) -> Core:
    """The world of a seed: each kind of fault is on or off by chance, at some intensity (swarm testing)."""
    chance = random.Random(f"draw core {seed} {n}")
    pick = chance.random
    faults = Faults(
        loss=pick() * 0.25 if pick() < 0.5 else 0.0,
        duplicate=pick() * 0.2 if pick() < 0.3 else 0.0,
        delay_ms=chance.choice([5, 20, 100, 250]),
        tail=pick() * 0.1 if pick() < 0.5 else 0.0,
        bodies_late=pick() if pick() < 0.4 else 0.0,
        crash=pick() * 0.003 if pick() < 0.4 else 0.0,
        crash_at=chance.choice(AIMS),
        crash_aimed=pick() * 0.05 if pick() < 0.3 else 0.0,
        disk=pick() * 0.005 if pick() < 0.2 else 0.0,
        partition=pick() * 0.7 if pick() < 0.5 else 0.0,
        partition_ms=chance.choice([200, 400, 1_000]),
        isolate_at=chance.choice(AIMS),
        isolate=pick() * 0.3 if pick() < 0.6 else 0.0,
        isolate_ms=chance.choice([300, 1_000, 3_000]),
        idle=0.2 if pick() < 0.2 else 0.0,
        unfair=0.2 if pick() < 0.2 else 0.0,
    )
    liars: dict[int, str] = {}
    if n >= 4 and pick() < 0.75:
        kinds = [*MISDEEDS, "twin", "equivocator", "amnesiac"]
        liars = {seat: chance.choice(kinds) for seat in chance.sample(range(n), chance.randint(1, (n - 1) // 3))}
    parameters = Parameters(
        window=chance.choice([1, 2, 4, 4, 8]),
        timeout_ms=300,
        timeout_cap_ms=2_400,
        term_heights=chance.choice([7, 20, 10_000]),
    )
    return Core(seed, n, faults, liars, parameters, is_really_signed)


def run_seed(seed: int, n: int, heights: int = HEIGHTS, is_really_signed: bool = False) -> Result:
    """One world through faults and healing. Raises InvariantBroken with the line that replays it."""
    core: Core | None = None
    try:
        core = draw(seed, n, is_really_signed)
        recovery_ms = _run(core, heights)
    except (AssertionError, P2PLedgerError, LookupError) as error:
        replay = f"p2pledger sim replay {seed} --layer core --nodes {n}"
        raise InvariantBroken(f"{type(error).__name__}: {error}\nreplay with: {replay}") from error
    chain = sha256(b"".join(core.judge.chain.values())).hexdigest()
    return Result(
        seed,
        core.tips(),
        core.sent,
        core.now,
        core.delivered,
        recovery_ms,
        f"{core.trace:08x}{chain[:24]}",
        core.judge.reached,
    )


def _run(core: Core, heights: int) -> int:
    while core.now < FAULTY_MS and core.judge.height < heights:
        core.run_until(core.now + 1_000, heights)
        core.bound_memory()
    core.heal()
    healed_at, fresh = core.now, core.judge.height + 2
    limit = healed_at + recovery_bound_ms(core.n, core.founding.parameters)
    while min(core.tips()) < fresh:  # invariant 7
        if core.now >= limit:
            raise InvariantBroken(
                f"7: heights {core.tips()} {core.now - healed_at} ms after healing, {fresh} is due at all"
            )
        core.run_until(core.now + 50)
    core.bound_memory()
    return core.now - healed_at
