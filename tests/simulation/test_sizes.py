"""From one validator to fifty."""

import pytest

from p2pledger.sim.campaign import run_seed
from p2pledger.sim.world import World


@pytest.mark.parametrize("n", range(1, 11))
def test_small_consortia_survive_the_unkind_network(n: int) -> None:
    """n = 1..10: every fault but liars below four, with liars from four on."""
    for seed in range(2):
        result = run_seed(10_000 + seed, n)
        assert max(result.heights) >= 20


@pytest.mark.parametrize("n", [13, 25, 50])
def test_large_consortia_agree(n: int) -> None:
    """A transaction handed to each of three nodes is executed everywhere."""
    world = World(n, n)
    world.run_until(50)
    keys = [world.submit(index) for index in (0, n // 2, n - 1)]
    world.run_until(5_000)
    assert all(key is not None and world.observer.is_executed(key) for key in keys)
    assert len(set(world.heights())) == 1
