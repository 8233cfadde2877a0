"""Hypothesis strategies: plans of unkind worlds, for a fault-injection test of your own contract.

    @given(fault_plans(nodes=4))
    def test_stock_never_runs_below_zero(plan):
        run_plan(plan, Stock())

Hypothesis shrinks a failing plan by itself: fewer faults, fewer liars, a shorter run. Needs `p2pledger[testing]`.
"""

from dataclasses import replace

from hypothesis import strategies as st

from p2pledger.sim.adversaries import BY_NAME
from p2pledger.sim.faults import AIMS, Faults
from p2pledger.sim.plan import AMNESIAC, Plan


def _share(most: float) -> st.SearchStrategy[float]:
    """Off, or in steps up to `most`: shares that shrink to zero and read well."""
    return st.integers(0, 4).map(lambda step: most * step / 4)


@st.composite
def fault_sets(draw: st.DrawFn) -> Faults:
    """Any mix of network, machine and client faults of bearable intensity."""
    return Faults(
        loss=draw(_share(0.2)),
        duplicate=draw(_share(0.2)),
        delay_ms=(1, draw(st.sampled_from([10, 50, 200]))),
        heavy_tail=draw(_share(0.1)),
        slow=draw(_share(0.04)),
        partition=draw(_share(0.3)),
        one_way=draw(_share(1.0)),
        isolate_at=draw(st.sampled_from(AIMS)),
        isolate=draw(_share(0.1)),
        crash=draw(_share(0.004)),
        crash_at=draw(st.sampled_from(AIMS)),
        crash_aimed=draw(_share(0.03)),
        disk=draw(_share(0.004)),
        disk_full=draw(_share(0.003)),
        stall=draw(_share(0.02)),
        skew_ms=draw(st.sampled_from([0, 50, 2_000])),
        clock_jump=draw(_share(0.2)),
        retries=draw(_share(0.5)),
        flood=draw(_share(0.02)),
    )


@st.composite
def fault_plans(draw: st.DrawFn, nodes: int = 4, heights: int = 10, byzantine: int | None = None) -> Plan:
    """Plans for `nodes` validators that must reach `heights`; up to f liars, or at most `byzantine`."""
    most = (nodes - 1) // 3 if byzantine is None else min(byzantine, (nodes - 1) // 3)
    names = st.sampled_from([*sorted(BY_NAME), AMNESIAC])
    liars = draw(st.dictionaries(st.integers(0, nodes - 1), names, max_size=most))
    plan = Plan(draw(st.integers(0, 2**32 - 1)), nodes, heights, 60, draw(fault_sets()), liars)
    window = draw(st.sampled_from([4, 1, 2, 8]))
    interval = draw(st.sampled_from([10, 5, 100]))
    parameters = type(plan.parameters)(
        window=window, timeout_ms=300, timeout_cap_ms=2_400, checkpoint_interval=interval
    )
    return replace(plan, parameters=parameters)
