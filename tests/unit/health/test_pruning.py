"""Who may have old blocks pruned, and how near the tip (F-29, F-70)."""

from p2pledger.health import pruning
from p2pledger.health.application import HealthApplication
from p2pledger.health.pruning_operations import Prune, PruningApproved
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import Height
from p2pledger.primitives.limits import PRUNE_DISTANCE_HEIGHTS
from tests.unit.health.world import BERG, PATIENT, PID, SEE, TAL, World


def aged() -> World:
    """Old enough for a horizon of ten heights."""
    world = World()
    world.height = Height(PRUNE_DISTANCE_HEIGHTS + 10)
    return world


def test_most_of_the_organisations_must_sign() -> None:
    """Two of four are no majority, nor is anybody else; three are, and the next pruning has the next number."""
    world, everything = aged(), Prune(Height(5), (), None)
    assert world.submit(BERG, everything) == Code.E_ROLE
    assert world.submit(BERG, everything, cosigners=[TAL]) == Code.E_ROLE
    assert world.submit(PATIENT, everything, cosigners=[BERG, TAL, SEE]) == Code.E_ROLE
    assert pruning.count(world.state) == 0
    (event,) = world.events(BERG, everything, cosigners=[TAL, SEE])
    assert event == PruningApproved(1, Height(5))
    assert world.submit(TAL, Prune(Height(6), (2, 30), PID), cosigners=[BERG, SEE]) == Code.OK
    found = HealthApplication().pruning(2, world.state)
    assert found is not None
    assert (found.number, found.horizon, found.kinds, found.subject) == (2, 6, {2, 30}, PID)
    assert HealthApplication().pruning(3, world.state) is None


def test_a_horizon_lies_well_below_the_tip() -> None:
    """Exactly the distance is far enough, one height less is not."""
    world = aged()
    far = Height(world.header().height - PRUNE_DISTANCE_HEIGHTS)
    assert world.submit(BERG, Prune(Height(far + 1), (), None), cosigners=[TAL, SEE]) == Code.E_HORIZON
    world = aged()
    assert world.submit(BERG, Prune(far, (), None), cosigners=[TAL, SEE]) == Code.OK
