"""One process cannot see that a root depends on the order of a set: two can."""

import os
import subprocess
import sys

PROGRAM = """
from p2pledger.primitives.ids import Height
from p2pledger.sim.world import World

world = World(3, 1)
for number in range(12):
    world.submit(0)
world.run_until(3_000)
ledger = world.nodes[0].ledger
for height in range(1, ledger.tip() + 1):
    header = ledger.block(Height(height)).header
    print(height, len(header.batches), *(root.hex() for root in header.effects_roots), header.state_roots)
"""


def test_roots_do_not_depend_on_how_a_process_hashes() -> None:
    """P22: nodes that execute the same blocks have the same roots, whatever PYTHONHASHSEED is."""
    chains = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }
    assert len(chains) == 1
    assert len(chains.pop().splitlines()) >= 2
