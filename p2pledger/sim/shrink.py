"""Makes a failing plan smaller: hypothesis leaves out faults, liars and length while it still fails."""

from collections.abc import Callable
from dataclasses import fields, replace

from p2pledger.primitives.errors import InvalidInput
from p2pledger.sim.campaign import run_plan
from p2pledger.sim.faults import Faults
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.plan import Plan
from p2pledger.sim.workload import Workload


def fails(plan: Plan, workload: Callable[[], Workload] | None = None) -> bool:
    """Whether a run of this plan breaks an invariant."""
    try:
        run_plan(plan, workload() if workload else None)
    except InvariantBroken:
        return True
    return False


def shrunk(plan: Plan, attempts: int = 150, still_fails: Callable[[Plan], bool] = fails) -> Plan:
    """The smallest failing plan found below `plan` in so many runs. Raises InvalidInput if `plan` does not fail.

    Needs hypothesis (`pip install p2pledger[testing]`).
    """
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    if not still_fails(plan):
        raise InvalidInput(f"the plan of seed {plan.seed} breaks no invariant: there is nothing to shrink")
    standard = Faults()
    active = [item.name for item in fields(Faults) if getattr(plan.faults, item.name) != getattr(standard, item.name)]
    liars = sorted(plan.liars)

    def smaller(keep_faults: list[bool], keep_liars: list[bool], keep_cut: bool, rounds: int, heights: int) -> Plan:
        kept = {name: getattr(plan.faults, name) for name, keep in zip(active, keep_faults, strict=True) if keep}
        return replace(
            plan,
            faults=Faults(**kept),
            liars={index: plan.liars[index] for index, keep in zip(liars, keep_liars, strict=True) if keep},
            cut=plan.cut if keep_cut else (),
            rounds=rounds,
            heights=heights,
        )

    plans = st.builds(
        smaller,
        st.tuples(*(st.booleans() for _ in active)).map(list),
        st.tuples(*(st.booleans() for _ in liars)).map(list),
        st.booleans() if plan.cut else st.just(False),
        st.integers(1, plan.rounds),
        st.integers(0, plan.heights),
    )
    phases = (Phase.generate, Phase.shrink)
    rules = settings(
        max_examples=attempts,
        phases=phases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        return find(plans, still_fails, settings=rules)
    except NoSuchExample:
        return plan
