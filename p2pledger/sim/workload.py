"""What clients do in a run, and what must be true of the state they share: the part a user of the simulator writes."""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from p2pledger.execution.contract import Application
from p2pledger.primitives.codec import Record
from p2pledger.sim.application import Put, RegisterApplication

if TYPE_CHECKING:
    from p2pledger.sim.world import World
    from p2pledger.state.view import StateView


class Workload:
    """One instance drives one run. Override `operations`, and `check` for an invariant of your contract."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def operations(self, random: Random, round_: int) -> Sequence[Record]:
        """One transaction's operations, such as any founding member may send. Draw from `random` only."""
        raise AssertionError(f"{type(self).__name__} must say what clients submit")

    def begin(self, world: "World") -> None:
        """All nodes run for the first time."""

    def crashed(self, world: "World", index: int) -> None:
        """A node is gone for a while."""

    def submit(self, world: "World", round_: int) -> None:
        """Called again and again while the world is unkind; by default a random member submits at its own node."""
        world.submit_operations(world.random.randrange(world.n), self.operations(world.random, round_))

    def check(self, state: "StateView") -> None:
        """Asked after every block at every correct node; raise AssertionError if the state is not as it must be."""


class Registers(Workload):
    """Members set registers; every ninth transaction is one that the contract refuses."""

    def __init__(self) -> None:
        super().__init__(RegisterApplication())

    def operations(self, random: Random, round_: int) -> Sequence[Record]:
        return [Put(b"k%d" % random.randrange(7), b"refuse" if round_ % 9 == 0 else b"x")]
