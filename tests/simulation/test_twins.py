"""Two copies of up to f validators, under every arrangement of who hears whom that there is time for."""

import itertools
import os
import re
import subprocess
import sys

import pytest

from p2pledger.sim.observer import InvariantBroken
from p2pledger.sim.twins import Round, Scenario, count, draw, enumerate_scenarios, partitions, run_scenario

ALONE: tuple[int, ...] = (0, 0, 1, 1, 2)
TOGETHER: tuple[int, ...] = (0, 0, 0, 0, 0)


def test_partitions_are_counted_as_stirling_says() -> None:
    """S(5,1) + S(5,2) + S(5,3) = 1 + 15 + 25, each once."""
    assert len(partitions(5)) == len(set(partitions(5))) == 41
    assert len(partitions(4, 2)) == 8


@pytest.mark.parametrize(("n", "twins", "views", "phases"), [(4, 1, 1, 1), (4, 1, 2, 1), (4, 1, 1, 2), (3, 0, 2, 1)])
def test_the_enumeration_has_as_many_scenarios_as_burnside_counts(n: int, twins: int, views: int, phases: int) -> None:
    scenarios = list(enumerate_scenarios(n, twins, views, phases))
    assert len(set(scenarios)) == len(scenarios) == count(n, twins, views, phases)


def test_all_arrangements_of_one_view_agree_and_recover() -> None:
    for scenario in enumerate_scenarios(4, 1, 1, 2):
        run_scenario(scenario)


def test_every_ninth_arrangement_of_two_views_agrees_and_recovers() -> None:
    for scenario in itertools.islice(enumerate_scenarios(4, 1, 2), 0, None, 9):
        run_scenario(scenario)


@pytest.mark.parametrize(("n", "seeds"), [(4, range(300)), (5, range(40)), (7, range(25))])
def test_drawn_scenarios_agree_and_recover(n: int, seeds: range) -> None:
    """Two to eight views; at seven validators two of them have two copies."""
    height = max(run_scenario(draw(seed, n)).height for seed in seeds)
    assert height >= 8


def test_where_nobody_hears_a_quorum_nothing_is_decided_before_the_healing() -> None:
    outcome = run_scenario(Scenario(4, 1, (Round(0, ALONE, ALONE),) * 3))
    assert outcome.height == 1
    assert run_scenario(Scenario(4, 1, (Round(0, TOGETHER, TOGETHER),) * 3)).height == 4


def test_a_forgotten_lock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: with a primary that builds on nothing, twins fork the chain, and the judge says so."""
    monkeypatch.setattr("p2pledger.consensus.replica.select_tip", lambda quorum: (None, None))
    with pytest.raises(InvariantBroken):
        for seed in range(50):
            run_scenario(draw(seed))


def test_the_same_scenarios_give_the_same_runs_in_another_process() -> None:
    command = [sys.executable, "-m", "p2pledger", "sim", "twins", "--scenarios", "30", "--first", "500"]
    runs = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        ).stdout
        for hashes in ("1", "4242")
    ]
    assert re.search(r"^scenarios +30$", runs[0], re.MULTILINE)
    assert runs[0] == runs[1]
