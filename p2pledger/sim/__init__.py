"""Whole consortia in a seed: deterministic simulation with faults and liars, as a library.

    from p2pledger.sim import Workload, draw, run_plan

    class Stock(Workload): ...
    run_plan(draw(seed=7, n=4, profile="nasty"), Stock(StockApplication()))

`World` is the virtual consortium itself; `Plan` says what will happen to one; `run_plan` lets it happen, heals, and
demands progress; `Faults` and `adversaries.BY_NAME` list what can go wrong. `p2pledger.sim.strategies` (hypothesis) and
`p2pledger.sim.pytest_plugin` serve tests. docs/testing.md has three worked examples.
"""

from p2pledger.sim.adversaries import Adversary, Rewriter
from p2pledger.sim.campaign import Result, run_plan, run_seed
from p2pledger.sim.faults import Faults
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.plan import PROFILES, Plan, draw
from p2pledger.sim.runs import Kind, Tally, run_many
from p2pledger.sim.workload import Registers, Workload
from p2pledger.sim.world import World

__all__ = [
    "PROFILES",
    "Adversary",
    "Faults",
    "InvariantBroken",
    "Kind",
    "Plan",
    "Registers",
    "Result",
    "Rewriter",
    "Tally",
    "Workload",
    "World",
    "draw",
    "run_many",
    "run_plan",
    "run_seed",
]
