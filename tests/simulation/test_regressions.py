"""Seeds that once failed, each with what it found, and the adversaries that must find it again if it comes back."""

import pytest

from p2pledger.consensus.window import Window
from p2pledger.sim.campaign import run_seed
from p2pledger.sim.observer import InvariantBroken
from tests.attack import Without

SEEDS = [
    (4, 1019, "a batch fell out of its origin's window within its own block: every node stopped on an assertion"),
    (4, 2027, "a body was dropped as dead because open blocks below had yet to move its origin's window up to it"),
]
EARLIER = {4: [104, 160, 203, 309, 337, 400, 461, 482, 498], 7: [19, 34, 56, 98]}
"""Failed while the engine was first built. Worlds have more kinds of faults since, so these are other runs now."""


@pytest.mark.parametrize(("n", "seed", "found"), SEEDS, ids=[f"n{n}-{seed}" for n, seed, _ in SEEDS])
def test_it_stays_fixed(n: int, seed: int, found: str) -> None:
    """The line that replays it: python -m p2pledger.sim --seed SEED --nodes N."""
    run_seed(seed, n)


@pytest.mark.attack("T17")
def test_a_primary_that_builds_good_blocks_on_bad_ones_stops_a_careless_network(without: Without) -> None:
    """P3: without the rule that a parent is vouched for first, one liar makes honest nodes stop; with it, nothing."""
    with without(Window.vouches_for, "return"):
        seed = next(seed for seed in range(20, 120) if _breaks(seed))
    run_seed(seed, 4)


def _breaks(seed: int) -> bool:
    try:
        run_seed(seed, 4)
    except InvariantBroken:
        return True
    return False


@pytest.mark.parametrize(("n", "seed"), [(n, seed) for n, seeds in EARLIER.items() for seed in seeds])
def test_numbers_that_once_failed_still_pass(n: int, seed: int) -> None:
    run_seed(seed, n)
