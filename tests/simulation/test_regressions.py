"""Scenarios that once failed, each with what it found, and a liar that must find it again if it comes back."""

from pathlib import Path

import pytest

from p2pledger.consensus.window import Window
from p2pledger.sim.campaign import run_plan, run_seed
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.plan import Plan
from tests.attack import Without

SCENARIOS = Path(__file__).parent / "scenarios"
FOUND = {
    "asked-sooner-than-answered": "who caught up over one link asked sooner than it was answered, and fell behind",
    "commit-of-another-height": "a liar's COMMIT for another height was taken for a vote by the observer",
    "failed-append-is-on-the-disk": "a failed write had arrived: a restarted node has a block nobody saw it append",
    "range-without-its-end": "blocks of a range longer than a frame were applied, and then once more when COMMITs came",
    "two-new-views-of-a-twin": "the observer forgot a second NEW-VIEW and blamed those who had entered by it",
}
"""What each scenario file showed when it was saved."""


@pytest.mark.parametrize("name", sorted(path.stem for path in SCENARIOS.glob("*.json")))
def test_it_stays_fixed(name: str) -> None:
    """One alone: p2pledger sim replay tests/simulation/scenarios/NAME.json."""
    assert FOUND[name]
    run_plan(Plan.from_json((SCENARIOS / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.attack("T17")
def test_a_primary_that_builds_good_blocks_on_bad_ones_stops_a_careless_network(without: Without) -> None:
    """P3: without the rule that a parent is vouched for first, one liar makes honest nodes stop; with it, nothing."""
    with without(Window.vouches_for, "return"):
        seed = next(seed for seed in range(20, 120) if _breaks(seed))
    run_seed(seed, 4)


def _breaks(seed: int) -> bool:
    try:
        run_seed(seed, 4)
    except InvariantBroken:
        return True
    return False
