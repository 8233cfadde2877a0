"""Wards by seed: which faults, who lies with its keys, where nodes die, how often shares are renewed."""

from dataclasses import replace
from random import Random

import msgspec

from p2pledger.sim.campaign import Result, run_plan
from p2pledger.sim.keys import liars
from p2pledger.sim.keys.ward import Ward
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.plan import Plan, draw

HEIGHTS = 90
"""Of the faulty time: enough for a key, and for releases under it."""
PROFILES = ("calm", "lossy", "crashing", "swarm", "nasty")


def draw_ward(seed: int, n: int) -> tuple[Plan, Ward]:
    """The plan and the ward of a seed. Nobody lies in the agreement: at most f lie, or have lost something, at all."""
    chance = Random(f"keys {seed} {n}")
    plan = draw(seed, n, chance.choice(PROFILES), HEIGHTS, byzantine=0)
    nodes = chance.sample(range(n), max(1, (n - 1) // 3))
    kind = chance.choice([*sorted(liars.BY_NAME), "LyingHolder", "restores", "nobody"])
    harm = chance.choice([0.0, 0.02, 0.06])
    restores = nodes[0] if kind == "restores" else None
    liar = liars.BY_NAME.get(kind)
    lying = {} if liar is None else dict.fromkeys(nodes, liar)
    return plan, Ward(lying, harm if restores is None else 0.06, restores, chance.choice([1, 1, 2]))


def run_ward(plan: Plan, ward: Ward, log: list[str] | None = None) -> Result:
    """One world through its faults and healing, and then what readers may demand; raises InvariantBroken.

    Its chain lets keys be recovered within seconds: a ward does not live for days.
    """
    rules = {"recovery_delay_min_ms": 1_000, "recovery_long_ms": 2_500}
    quick = replace(plan, parameters=msgspec.structs.replace(plan.parameters, **rules))
    return run_plan(quick, ward, log, ward.demand)


def run_seed(seed: int, nodes: int) -> Result:
    """The ward of a seed; raises InvariantBroken naming the seed."""
    try:
        return run_ward(*draw_ward(seed, nodes))
    except InvariantBroken as broken:
        raise InvariantBroken(f"{broken}\nward {seed} of {nodes} nodes") from broken
