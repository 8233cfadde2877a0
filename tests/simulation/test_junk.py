"""P3: an origin whose batches are mostly junk loses its room, and the others keep theirs."""

import pytest

from p2pledger.engine.engine import Engine
from p2pledger.engine.standing import Standing
from p2pledger.primitives import limits
from p2pledger.primitives.ids import Height, NodeId, TransactionId
from p2pledger.sim.adversaries import Junker
from p2pledger.sim.world import World
from tests.attack import Without

JUNKER = 3
FILL_MS = 700
"""The junk of three turns, which takes the room away."""


def engine_of(world: World, index: int) -> Engine:
    engine = world.nodes[index].engine
    assert engine is not None
    return engine


def has_executed(engine: Engine, wanted: TransactionId, above: int) -> bool:
    """Whether a transaction was executed above a height."""
    heights = range(above + 1, engine.executor.executed + 1)
    executed = [done for height in heights for done in engine.executor.receipts_at(Height(height))]
    return any(done.receipt.transaction == wanted for done in executed)


def waits(world: World) -> list[int]:
    """How many heights each of some honest transactions waits for, while one node sends all the junk it can."""
    world.run_until(FILL_MS)
    found = []
    for number in range(2):
        engine = engine_of(world, number % 3)
        before = engine.executor.executed
        wanted = world.submit(number % 3)
        assert wanted is not None
        height = before
        while not has_executed(engine, wanted, height):
            height = engine.executor.executed
            while engine.executor.executed == height:
                assert world.step()
        found.append(engine.executor.executed - before)
    return found


@pytest.mark.attack("T44")
def test_junk_does_not_keep_the_others_waiting(without: Without) -> None:
    """Without the penalty honest transactions wait behind a backlog of full batches that lead to nothing."""
    with without(Standing.judge, "if 2 * junk > len(transactions)"):
        suffered = waits(World(1, adversaries={JUNKER: Junker(burst=16)}))
    world = World(1, adversaries={JUNKER: Junker(burst=16)})
    spared = waits(world)
    calm = waits(World(1))
    assert max(spared) <= max(calm) + 1
    assert sum(suffered) > 2 * sum(spared)
    junker = NodeId(world.nodes[JUNKER].id)
    for index in range(3):
        pool = engine_of(world, index).pool
        assert pool.share(junker) == limits.BATCH_BYTES_MAX
        assert pool.bytes_of[junker] <= 4 * limits.BATCH_BYTES_MAX  # what open blocks name is held all the same
