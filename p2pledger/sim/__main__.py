"""`python -m p2pledger.sim --seed S --nodes N` replays one seed; `--seeds A:B` runs a range."""

import argparse
import sys
from collections import Counter

from p2pledger.sim.campaign import run_seed


def main() -> int:
    """Run the seeds, print what they reached."""
    parser = argparse.ArgumentParser(prog="python -m p2pledger.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed to replay")
    parser.add_argument("--seeds", default="0:100", help="first:last+1, when no --seed is given")
    parser.add_argument("--nodes", type=int, default=4, help="validators, 1 to 50")
    parser.add_argument("--heights", type=int, default=20, help="heights that each run must reach")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    else:
        first, last = arguments.seeds.split(":")
        seeds = range(int(first), int(last))
    reached: Counter[str] = Counter()
    messages = 0
    for seed in seeds:
        result = run_seed(seed, arguments.nodes, arguments.heights)
        reached.update(result.reached)
        messages += result.messages
    sys.stdout.write(f"{len(seeds)} seeds, {messages} messages\n")
    for name, count in sorted(reached.items()):
        sys.stdout.write(f"{count:8}  {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
