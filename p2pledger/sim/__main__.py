"""`python -m p2pledger.sim --seed S --nodes N` replays one seed; `--seeds A:B` runs a range."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from p2pledger.sim.campaign import run_seed
from p2pledger.sim.observer import InvariantBroken


def _shown(seeds: range) -> Iterable[int]:
    """The seeds, with a progress bar where somebody is watching."""
    if not sys.stderr.isatty() or len(seeds) < 2:
        return seeds
    return _with_bar(seeds)


def _with_bar(seeds: range) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    yield from track(seeds, description="seeds", console=Console(stderr=True))


def main() -> int:
    """Run the seeds; print what they reached, or the line that replays the first failure (status 1)."""
    parser = argparse.ArgumentParser(prog="python -m p2pledger.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed to replay")
    parser.add_argument("--seeds", default="0:100", help="first:last+1, when no --seed is given")
    parser.add_argument("--nodes", type=int, default=4, help="validators, 1 to 50")
    parser.add_argument("--heights", type=int, default=20, help="heights that each run must reach")
    parser.add_argument("--keep-going", action="store_true", help="report failing seeds and go on")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    else:
        first, last = arguments.seeds.split(":")
        seeds = range(int(first), int(last))
    reached: Counter[str] = Counter()
    messages = failed = 0
    for seed in _shown(seeds):
        try:
            result = run_seed(seed, arguments.nodes, arguments.heights)
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
        if arguments.seed is not None:
            sys.stdout.write(f"heights {result.heights}, trace {result.trace}\n")
    sys.stdout.write(f"{len(seeds)} seeds, {failed} failed, {messages} messages\n")
    for name, count in sorted(reached.items()):
        sys.stdout.write(f"{count:8}  {name}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
