"""I13: a world in which nobody wants anything does not talk more and more."""

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.sim.world import World

SPAN_MS = 30_000


@pytest.mark.parametrize("n", [1, 4, 7])
def test_an_idle_world_rests(n: int) -> None:
    """After the last transaction only capped repetitions (P16) remain, no more in one span than in another."""
    world = World(11, n, parameters=Parameters(timeout_ms=300, timeout_cap_ms=2_400, heartbeat_ms=0))
    world.run_until(200)
    for node in range(n):
        world.submit(node)
    world.run_until(SPAN_MS)
    heights = world.heights()
    for span in range(2, 6):
        world.run_until(span * SPAN_MS)
        world.observer.quiet()
    assert world.heights() == heights
    assert world.observer.is_settled()
    world.observer.concluded(world.now)
