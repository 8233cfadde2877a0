"""A pytest plugin for fault-injection tests; an installed p2pledger brings it along as the entry point `p2pledger`.

A test with an argument `fault_plan` runs once for each of `--sim-seeds` seeds (default 10), drawn as `--sim-profile`
says for `--sim-nodes` validators. `run_world` runs a plan with your workload; if it fails, the event log and the
scenario are saved among pytest's temporary files and the message says how to replay them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pledger.sim.campaign import Result, run_plan
from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.plan import PROFILES, Plan, draw
from p2pledger.sim.workload import Workload


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which worlds `fault_plan` draws."""
    group = parser.getgroup("p2pledger", "simulated consortia")
    group.addoption("--sim-seeds", type=int, default=10, help="seeds for each test that takes `fault_plan`")
    group.addoption("--sim-first-seed", type=int, default=0, help="the first of them")
    group.addoption("--sim-nodes", type=int, default=4, help="validators of each world")
    group.addoption("--sim-profile", choices=PROFILES, default="swarm", help="how unkind the worlds are")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run of the test for each seed."""
    if "fault_plan" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    first = option("--sim-first-seed")
    seeds = range(first, first + option("--sim-seeds"))
    plans = [draw(seed, option("--sim-nodes"), option("--sim-profile")) for seed in seeds]
    metafunc.parametrize("fault_plan", plans, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def run_world(tmp_path: Path) -> Callable[[Plan, Workload], Result]:
    """Run a plan with a workload; a failure names the saved event log and the scenario that replays it."""

    def run(plan: Plan, workload: Workload) -> Result:
        log: list[str] = []
        try:
            return run_plan(plan, workload, log)
        except InvariantBroken as broken:
            (tmp_path / "events.log").write_text("\n".join(log) + "\n", encoding="utf-8")
            scenario = tmp_path / "scenario.json"
            scenario.write_text(plan.to_json(), encoding="utf-8")
            raise InvariantBroken(
                f"{broken}\nevent log: {tmp_path / 'events.log'}\n"
                f"replay with: run_plan(Plan.from_json(Path({str(scenario)!r}).read_text()), workload)"
            ) from broken

    return run
