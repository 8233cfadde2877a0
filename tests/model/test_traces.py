"""The model speaks of this code: its runs are runs of real replicas, its counterexamples are not (docs/model.md)."""

import json
from typing import Any

import pytest

from tests.model.case import FOLDER, SAFE, load_all
from tests.model.replay import Replay
from tests.model.run import SIMULATED

TRACES = FOLDER / "traces"
NOT_IN_FORCE = {"unsafe-carried-lock"}
"""There are no epochs yet (P17), so nothing real can be shown one."""
UNSAFE = sorted(case.name for case in load_all() if case.name.startswith("unsafe-") and case.name not in NOT_IN_FORCE)


def load(name: str) -> tuple[int, list[list[Any]]]:
    stored = json.loads((TRACES / f"{name}.json").read_text())
    return stored["fork"], stored["traces"]


@pytest.mark.parametrize("name", UNSAFE)
def test_real_replicas_refuse_the_unlawful_step_of_a_counterexample_and_no_other(name: str) -> None:
    """P2 to P20: up to there they do what the model does; where a broken rule was needed they do not."""
    fork, (steps,) = load(name)
    for step, refused in Replay(name.removeprefix("unsafe-"), fork, steps).run():
        if not step[1]:
            assert refused, f"{step} breaks a rule and is done all the same"
            return
        assert refused == [], step
    pytest.fail("no step of the counterexample breaks a rule")


SAMPLE = load("sample")[1]


@pytest.mark.parametrize("number", range(len(SAMPLE)))
def test_real_replicas_do_whatever_the_safe_model_does(number: int) -> None:
    """P2 to P13: random behaviours, with hidden certificates, lying NEW-VIEWs and equivocation."""
    for step, refused in Replay(SAFE, 1, SAMPLE[number]).run():
        assert step[1] is True
        assert refused == [], step


def test_there_are_enough_behaviours_and_they_differ() -> None:
    assert len(SAMPLE) == SIMULATED >= 50
    assert len({json.dumps(steps) for steps in SAMPLE}) == len(SAMPLE)
    assert sum(step[0] == "Change" for steps in SAMPLE for step in steps) >= 2 * 50


def test_every_unsafe_variant_has_its_trace() -> None:
    assert {path.stem for path in TRACES.glob("unsafe-*.json")} == {*UNSAFE, *NOT_IN_FORCE}
