"""Scenario files: those that come with the source are good, and mistakes are named."""

from pathlib import Path

import pytest

from bench.scenario import SCENARIOS, load, parse, scaled
from bench.validators import verify_threads
from p2pledger.primitives.errors import InvalidInput

STAGE = 'name = "x"\n[[stages]]\nname = "s"\n[[stages.points]]\nname = "p"\n'


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_shipped_scenario_is_good_and_has_its_files_name(path: Path) -> None:
    """So `python -m bench run NAME` finds it, and so does a path from any folder that ends with it."""
    assert load(Path(path.stem)).name == load(Path("scenarios", path.name)).name == path.stem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"', "at least one"),
        (STAGE + "colour = 1\n", "colour"),
        (STAGE + 'loop = "open"\n', "either rate or load"),
        (STAGE + 'loop = "open"\nrate = 1\nload = 1\n', "either rate or load"),
        (STAGE + "rate = 5\n", "closed loop"),
        (STAGE + 'loop = "open"\nload = 0.5\n', "none stands before"),
        (STAGE + '[[stages.points]]\nname = "p"\n', "each name once"),
        (STAGE + 'faults = [{ at_s = 1, do = "cut" }]\n', "relays"),
        (STAGE + 'faults = [{ at_s = 1, do = "crash", who = "everybody" }]\n', "everybody"),
        (STAGE + 'warm_up_s = 2\nfaults = [{ at_s = -3, do = "crash" }]\n', "before the load"),
        (STAGE.replace('"s"', '"s"\nn = [17]'), "<= 16"),
        ("name = ", "x.toml"),
    ],
)
def test_a_mistake_is_refused_with_its_place(text: str, words: str) -> None:
    """The rule and the value, as everywhere."""
    with pytest.raises(InvalidInput, match=words):
        parse(text, "x.toml")


def test_a_missing_file_is_named() -> None:
    """Neither a path nor a shipped name."""
    with pytest.raises(InvalidInput, match="no-such"):
        load(Path("no-such"))


def test_scaling_shortens_everything_that_takes_time() -> None:
    """Durations, prefill and the moments of faults, in proportion."""
    fault = 'faults = [{ at_s = 4, do = "crash" }]\nduration_s = 8\n'
    scenario = scaled(parse(STAGE.replace('"s"', '"s"\nprefill = 100') + fault, "x"), 0.5)
    (stage,) = scenario.stages
    (point,) = stage.points
    assert (point.warm_up_s, point.duration_s, stage.prefill, point.faults[0].at_s) == (1.5, 4, 50, 2)
    assert scenario.floor_seconds == 1
    with pytest.raises(InvalidInput, match="above 0"):
        scaled(scenario, 0)


@pytest.mark.parametrize(("n", "processors", "threads"), [(4, 2, 0), (1, 2, 1), (2, 4, 1), (4, 16, 3)])
def test_validators_get_verify_threads_for_their_share(n: int, processors: int, threads: int) -> None:
    """A thread for each processor beyond a validator's first, and none where several share one."""
    cores = list(range(processors))
    (stage,) = parse(STAGE.replace('"s"', f'"s"\nvalidator_cores = {cores}'), "x").stages
    assert verify_threads(stage, n) == threads
