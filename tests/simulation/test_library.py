"""`p2pledger.sim` as others use it: plans as data, smaller failing plans, many runs, the command."""

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from p2pledger.cli.main import root
from p2pledger.primitives.errors import InvalidInput
from p2pledger.sim import Faults, InvariantBroken, Kind, Plan, Registers, draw, run_many, run_plan
from p2pledger.sim.faults import Chance
from p2pledger.sim.plan import PROFILES
from p2pledger.sim.shrink import shrunk
from p2pledger.sim.strategies import fault_plans
from p2pledger.state.view import StateView

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Forbidden(Registers):
    """Claims that a register is never set: wrong as soon as anything is executed."""

    def check(self, state: StateView) -> None:
        assert not list(state.scan(b"\x7f")), "a register was set"


# Plans


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plan_survives_being_saved(profile: str) -> None:
    for seed in range(30):
        plan = draw(seed, 7, profile)
        assert Plan.from_json(plan.to_json()) == plan


@QUICK
@given(fault_plans(nodes=7))
def test_any_plan_survives_being_saved(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan.liars) <= 2


def test_equal_plans_are_equal_runs_and_a_log_changes_nothing() -> None:
    plan = replace(draw(3, 4), heights=5, rounds=20)
    log: list[str] = []
    first, second = run_plan(plan, log=log), run_plan(Plan.from_json(plan.to_json()))
    assert first.trace == second.trace
    assert len(log) > 100


def test_a_draw_of_one_kind_moves_none_of_another() -> None:
    """Streams by name: whatever one gives, the others give the same; and they are not the same stream."""
    undisturbed, disturbed = Chance(5), Chance(5)
    for _ in range(3):
        disturbed["clients"].random()
    assert disturbed["network"].random() == undisturbed["network"].random()
    assert Chance(5)["network"].random() != Chance(5)["clients"].random()
    assert Chance(5)["network"].random() != Chance(6)["network"].random()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "no scenario"),
        ('{"seed": "x"}', "seed"),
        ('{"seed": 1, "liars": {"0": "Judas"}}', "Judas"),
        ('{"seed": 1, "nodes": 99}', "99"),
        ('{"seed": 1, "node": 4}', "'node'"),
        ("[]", "no scenario"),
    ],
)
def test_a_bad_scenario_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Plan.from_json(text).world()


@pytest.mark.parametrize(("nodes", "byzantine"), [(4, 2), (3, 1), (7, 3)])
def test_more_liars_than_f_are_refused(nodes: int, byzantine: int) -> None:
    with pytest.raises(InvalidInput, match="at most"):
        draw(1, nodes, "nasty", byzantine=byzantine)


def test_options_that_a_layer_has_not_are_refused() -> None:
    for option in (["--byzantine", "1"], ["--profile", "nasty"]):
        done = CliRunner().invoke(root, ["sim", "run", "--layer", "core", "--seeds", "1", *option])
        assert isinstance(done.exception, InvalidInput)
        assert option[0] in str(done.exception)


# Shrinking


def test_a_failing_plan_is_made_smaller() -> None:
    """Nothing but one submission is needed to set a register: all faults and liars go."""
    plan = draw(11, 4, "nasty")
    with pytest.raises(InvariantBroken, match="a register was set"):
        run_plan(plan, Forbidden())
    small = shrunk(plan, 40, _breaks)
    assert small.faults == Faults()
    assert not small.liars
    assert small.rounds <= 2


def _breaks(plan: Plan) -> bool:
    try:
        run_plan(plan, Forbidden())
    except InvariantBroken:
        return True
    return False


def test_what_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(InvalidInput, match="nothing to shrink"):
        shrunk(Plan(1, heights=1, rounds=2), 5)


# Many runs


def test_a_long_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    kind = Kind(4, "calm", None, 1)
    whole = run_many(kind, range(40))
    part = run_many(kind, range(40), journal=journal, until=lambda total: total.seeds >= 25)
    assert part.seeds == 25
    with journal.open("a") as file:
        file.write('{"kind": "4 no')  # killed while writing
    ran: list[int] = []
    resumed = run_many(kind, range(40), journal=journal, progress=lambda tally: ran.append(tally.seeds))
    assert resumed.seeds == 40
    assert (resumed.messages, resumed.traces, resumed.reached) == (whole.messages, whole.traces, whole.reached)


def test_another_kind_of_run_does_not_use_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run_many(Kind(4, "calm", None, 2), range(5), journal=journal)
    assert run_many(Kind(4, "calm", None, 1), range(5), journal=journal).messages > 0
    assert len(journal.read_text().splitlines()) == 2


def test_workers_find_what_one_process_finds() -> None:
    kind = Kind(4, "swarm", None, 1)
    assert run_many(kind, range(30), jobs=2).traces == run_many(kind, range(30)).traces


def test_a_run_that_ends_early_leaves_no_worker_behind() -> None:
    """What was not begun is dropped."""
    ended = run_many(Kind(4, "calm", None, 1), range(100_000), jobs=2, until=lambda total: True)
    assert ended.seeds < 100_000
    assert multiprocessing.active_children() == []


# The command


def test_the_command_runs_reports_replays_and_names_bad_values(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["sim", "run", "--seeds", "2", "--heights", "3", "--profile", "nasty", "--report", str(report)]
    done = CliRunner().invoke(root, arguments)
    assert done.exit_code == 0, done.output
    assert "distinct schedules" in done.stdout
    assert json.loads(report.read_text())["seeds"] == 2
    scenario = tmp_path / "scenario.json"
    scenario.write_text(replace(draw(2, 4), heights=2, rounds=3).to_json())
    traced = CliRunner().invoke(root, ["sim", "replay", str(scenario), "--trace"])
    assert traced.exit_code == 0
    assert "heals" in traced.stdout
    missing = subprocess.run(
        [sys.executable, "-m", "p2pledger", "sim", "replay", "nowhere.json"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 2
    assert "nowhere.json" in missing.stderr
