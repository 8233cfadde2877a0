"""The three worked examples of docs/testing.md, as an engineer writes them for a contract of their own."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Parameters
from p2pledger.execution.contract import Call, Outcome
from p2pledger.execution.evidence import ValidatorEvidence
from p2pledger.primitives.codec import Record, decode
from p2pledger.primitives.errors import Code, Refused
from p2pledger.sim import Plan, Result, Rewriter, Workload, World, run_plan
from p2pledger.sim.application import RegisterApplication
from p2pledger.sim.campaign import demand_progress, go_through_faults
from p2pledger.sim.strategies import fault_plans
from p2pledger.state.view import StateView

pytest_plugins = ["p2pledger.sim.pytest_plugin"]


class Take(Record, frozen=True, tag=1):
    """Take some units out of one shared stock."""

    units: int


class StockApplication(RegisterApplication):
    """A stock of 20 units that must never run below zero."""

    def decode(self, operations: bytes) -> Sequence[Record]:
        return decode(tuple[Take | ValidatorEvidence, ...], operations, 1_000)

    def execute(self, operation: Any, call: Call, state: StateView) -> Outcome:
        left = int(state.get(b"stock") or b"20") - operation.units
        if left < 0:
            raise Refused(Code.E_STATE)
        return Outcome({b"stock": b"%d" % left})


class Stock(Workload):
    def operations(self, random: Random, round_: int) -> Sequence[Record]:
        return [Take(random.randint(1, 5))]

    def check(self, state: StateView) -> None:
        assert int(state.get(b"stock") or b"20") >= 0


# 1. With hypothesis, which makes a failing plan smaller by itself


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(fault_plans(nodes=4, heights=5))
def test_stock_never_runs_below_zero(plan: Plan) -> None:
    run_plan(plan, Stock(StockApplication()))


# 2. With the pytest plugin: --sim-seeds, --sim-nodes, --sim-profile


def test_stock_in_drawn_worlds(fault_plan: Plan, run_world: Callable[[Plan, Workload], Result]) -> None:
    assert max(run_world(fault_plan, Stock(StockApplication())).heights) >= 20


# 3. A liar of one's own, against the world itself


class Backdater(Rewriter):
    """As primary dates every block one millisecond after the genesis."""

    def spoil(self, header: Header) -> Header:
        self.acts()
        return replace(header, time_ms=self.world.consortium.founding.header.time_ms + 1)


def test_a_backdating_primary_loses_its_view() -> None:
    everybody_rules = Parameters(timeout_ms=300, timeout_cap_ms=2_400, term_heights=3)
    world = World(1, 4, adversaries={0: Backdater()}, parameters=everybody_rules, workload=Stock(StockApplication()))
    go_through_faults(world, rounds=30, heights=5)
    world.heal()
    demand_progress(world, heights=5)
    assert world.observer.reached["lie of Backdater"] > 0
    assert world.observer.reached["view_entered"] > 0
