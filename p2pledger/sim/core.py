"""The agreement core alone through faults and back, at several times the speed of whole nodes.

Each seed draws a world of real replicas (`coreworld`), lets it suffer, heals it, and demands progress. `run_seed` is a
pure function of its arguments: a campaign is a range of seeds, and can be split and resumed at any seed.

    python -m p2pledger.sim.core --seeds 0:1000 --nodes 4
    python -m p2pledger.sim.core --seed 17 --nodes 4 --really-signed
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from p2pledger.chain.genesis import Parameters
from p2pledger.primitives.errors import P2PLedgerError
from p2pledger.sim.coreworld import Core, Faults
from p2pledger.sim.misdeeds import MISDEEDS
from p2pledger.sim.observer import InvariantBroken

HEIGHTS = 30
"""Committed heights after which a world is healed, if it gets there at all before FAULTY_MS."""
FAULTY_MS = 20_000
AIMS = ["PrePrepare", "Prepare", "Commit", "ViewChange", "NewView", "ViewRecord", "LockRecord", "AppendBlock"]
"""Writes at which crashes and isolations aim."""


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
        replay = f"python -m p2pledger.sim.core --seed {seed} --nodes {n} --heights {heights}"
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


def shown(seeds: range, what: str = "seeds") -> Iterable[int]:
    """The seeds, with a progress bar where somebody is watching."""
    if not sys.stderr.isatty() or len(seeds) < 2:
        return seeds
    return _with_bar(seeds, what)


def _with_bar(seeds: range, what: str) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    yield from track(seeds, description=what, console=Console(stderr=True))


def main() -> int:
    """Run the seeds; print what they reached, or the line that replays the first failure (status 1)."""
    parser = argparse.ArgumentParser(prog="python -m p2pledger.sim.core", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed to replay")
    parser.add_argument("--seeds", default="0:1000", help="first:last+1, when no --seed is given")
    parser.add_argument("--nodes", type=int, default=4, help="validators, 1 to 50")
    parser.add_argument("--heights", type=int, default=HEIGHTS, help="heights after which a world is healed")
    parser.add_argument("--keep-going", action="store_true", help="report failing seeds and go on")
    parser.add_argument("--really-signed", action="store_true", help="Ed25519 instead of the table of signatures")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    else:
        first, last = arguments.seeds.split(":")
        seeds = range(int(first), int(last))
    reached: Counter[str] = Counter()
    messages = failed = slowest = 0
    began = time.process_time()
    for seed in shown(seeds):
        try:
            result = run_seed(seed, arguments.nodes, arguments.heights, arguments.really_signed)
        except InvariantBroken as broken:
            failed += 1
            sys.stdout.write(f"seed {seed}: {broken}\n")
            if arguments.seed is not None:
                raise
            if not arguments.keep_going:
                return 1
            continue
        reached.update(result.reached)
        messages += result.messages
        slowest = max(slowest, result.recovery_ms)
        if arguments.seed is not None:
            sys.stdout.write(f"heights {result.heights}, trace {result.trace}\n")
    spent = time.process_time() - began
    sys.stdout.write(f"{len(seeds)} seeds, {failed} failed, {messages} messages, slowest recovery {slowest} ms\n")
    for name, count in sorted(reached.items()):
        sys.stdout.write(f"{count:8}  {name}\n")
    sys.stderr.write(f"{messages / max(spent, 0.001):.0f} messages/s of processor time\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
