"""Goals, comparisons and tables: what is said about figures."""

import msgspec
import pytest

from bench import tables
from bench.compare import Line, compare
from bench.floor import Floor, mean_floor
from bench.goals import FIGURES, Goal, judge_all, load_goals
from bench.summary import CatchUp, FaultNote, PointResult, latency_of
from tests.unit.bench.points import FLOOR, point, validator


def changed(one: PointResult, **fields: object) -> PointResult:
    return msgspec.structs.replace(one, **fields)


def values(*points: PointResult) -> dict[str, float]:
    return {one.goal.id: one.value for one in judge_all(points) if one.value is not None}


def test_every_goal_names_a_figure_and_aims_beyond_what_it_must() -> None:
    """A wish below the gate would be met by what misses it."""
    goals = load_goals()
    assert {goal.figure for goal in goals} <= set(FIGURES)
    assert len({goal.id for goal in goals}) == len(goals)
    for goal in goals:
        assert (goal.must is None) == (goal.aim is None), goal.id
        if goal.must is not None and goal.aim is not None:
            assert goal.aim >= goal.must if goal.least else goal.aim <= goal.must


@pytest.mark.parametrize(
    ("least", "value", "word"),
    [
        (True, 0.9, "aim"),
        (True, 0.8, "met"),
        (True, 0.7, "met"),
        (True, 0.69, "missed"),
        (False, 0.7, "aim"),
        (False, 0.71, "missed"),
        (True, None, "not measured"),
    ],
)
def test_a_goal_is_met_at_its_bound(least: bool, value: float | None, word: str) -> None:
    """Lower bounds and upper ones; what was not measured is neither met nor missed."""
    must, aim = (0.7, 0.9) if least else (0.7, 0.7)
    assert Goal("B0", "x", "x", least, must, aim).judge(value) == word


def test_a_figure_without_a_gate_is_reported() -> None:
    """Milliseconds of one machine judge nothing."""
    assert Goal("B0", "x", "x", least=False).judge(0.5) == "reported"
    assert "reported" in tables.plain(tables.goals(judge_all([point(loop="open", load=0.5)])))


def test_the_main_goals_follow_from_one_peak() -> None:
    """7,000 tx/s over a floor of 10,000; 20 us outside verification by a verify of 50 us."""
    found = values(point())
    assert found["B1"] == 0.8
    assert found["B1-once"] == 1.0
    assert found["B2"] == 0.7
    assert found["B3-minimal"] == pytest.approx(0.4)
    assert found.keys() == {"B1", "B1-once", "B2", "B3-minimal"}


def test_one_validator_that_checks_twice_misses_the_goal_of_once() -> None:
    """The worst counts, not the mean."""
    assert values(point(validators=[validator()] * 3 + [validator(checks_per_signature=1.2)]))["B1-once"] == 1.2


def test_goals_that_compare_points_find_both() -> None:
    """Each by what it is: operations, load, validators, settings, faults, length of the chain."""
    peak = point(rss_idle_bytes=64 * 1024**2)
    slow = latency_of([0.05, 0.06, 0.1])
    found = values(
        peak,
        changed(peak, point="ten", operations=10, operations_per_s=35_000.0),
        changed(peak, point="quarter", loop="open", load=0.25, latency=slow),
        changed(peak, point="overload", loop="open", load=2.0, throughput=6_300.0),
        changed(peak, n=7, validators=[validator(cpu_us_per_tx=110.0)] * 7),
        changed(peak, point="crashed", throughput=6_650.0, faults=[FaultNote(0.0, "crash backup: validator 1")]),
        changed(peak, point="killed", loop="open", longest_gap_s=1.4, faults=[FaultNote(2.0, "crash primary: x")]),
        changed(peak, stage="one", n=1, settings={"verify.threads": 1}, throughput=5_000.0),
        changed(peak, stage="two", n=1, settings={"verify.threads": 2}, throughput=8_000.0),
        changed(peak, stage="away", catch_up=CatchUp(15_000, 1.0, 1.0)),
        changed(
            peak, point="late-ten", operations=10, executed_before=50_000, validators=[validator(cpu_us_per_tx=900.0)]
        ),
        changed(peak, stage="long", executed_before=50_000),
        changed(peak, stage="long", executed_before=2_000_000, validators=[validator(cpu_us_per_tx=120.0)]),
        changed(peak, stage="pysyncobj", n=0, throughput=2_000.0),
    )
    assert found["B4"] == 5.0
    assert (found["B5-25-p50"], found["B5-25-p99"]) == (pytest.approx(30), pytest.approx(50))  # of 1.5 + 10 x 0.05 ms
    assert (found["B5-25-p50-ms"], found["B5-25-p99-ms"]) == (pytest.approx(60), pytest.approx(100))
    assert found["B6"] == 0.9
    assert found["B7-n7"] == pytest.approx(1.1)
    assert (found["B8"], found["B8-bytes"]) == (pytest.approx(1.2), 1_000)
    assert (found["B9-idle"], found["B9-2M"]) == (64, 60)
    assert found["B10"] == 1.6
    assert found["B11"] == pytest.approx(0.75)
    assert (found["B12-backup"], found["B12-primary"]) == (0.95, 1.4)
    assert (found["B13"], found["B13-floor"]) == (3.5, 5.0)


def test_the_same_run_on_a_machine_half_as_fast_is_the_same() -> None:
    """Throughput, latencies and processor time are judged by what each run's own machine could do."""
    slow_floor = Floor(4, 20_000, 100, 3.0)
    slow = point(
        throughput=3_500.0,
        latency=latency_of([0.2, 0.4, 0.6]),
        validators=[validator(cpu_us_per_tx=200.0)] * 4,
        floor_before=slow_floor,
        floor_after=slow_floor,
    )
    lines, single = compare([point()], [slow])
    assert [line.verdict() for line in lines] == ["same"] * 5
    assert single == []


def test_more_is_better_for_throughput_only() -> None:
    """The words follow what is good, not what is more."""
    better = point(throughput=8_000.0, latency=latency_of([0.05] * 3))
    words = {line.figure: line.verdict() for line in compare([point()], [better])[0]}
    assert words["throughput ÷ floor"] == "better"
    assert words["p50 ÷ (fsync + 10 verifies)"] == "better"
    assert words["bytes written per tx"] == "same"


@pytest.mark.parametrize(("after", "word"), [(1.09, "same"), (1.12, "better"), (0.92, "same"), (0.90, "worse")])
def test_a_margin_holds_alike_in_both_directions(after: float, word: str) -> None:
    """What A is to B, B is to A."""
    line = Line("p", "f", 1.0, after, True)
    assert line.verdict() == word
    opposite = {"same": "same", "better": "worse", "worse": "better"}[word]
    assert Line("p", "f", after, 1.0, True).verdict() == opposite
    assert line.text().startswith(word)


def test_points_of_one_run_only_are_named() -> None:
    """Nothing is silently left out."""
    lines, single = compare([point()], [point(point="other")])
    assert (lines, single) == ([], ["steady n=4 other", "steady n=4 peak"])


def test_calipers_table_has_calipers_columns() -> None:
    """So that results can stand beside published ones."""
    heads, rows = tables.caliper([point(latency=None), point()])
    assert heads[:4] == ("Name", "Succ", "Fail", "Send Rate (TPS)")
    assert rows[0][4:7] == ("–", "–", "–")
    assert rows[1] == ("steady n=4 peak", "70000", "0", "7,000.0", "0.30", "0.10", "0.20", "7,000.0")


def test_all_tables_are_written_for_results_without_validators() -> None:
    """Baselines have no floor, no phases and no goals of their own."""
    bare = point(n=0, validators=[], floor_before=None, floor_after=None, latency=None)
    every = [tables.caliper, tables.latencies, tables.resources, tables.phases]
    for text in [tables.markdown(table([bare, point()])) for table in every]:
        assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "missed" in tables.plain(tables.goals(judge_all([point(throughput=1.0)])))


def test_the_floor_of_a_load_is_the_mean_around_it() -> None:
    """Transactions a second: each is verified by every process."""
    assert FLOOR.tps == 10_000
    assert mean_floor(FLOOR, Floor(4, 20_000, 70, 2.5)) == Floor(4, 30_000, 60, 2.0)


def test_results_come_back_from_json_as_they_were() -> None:
    """What `report` and `compare` read is what `run` has written."""
    one = point(validators=[validator(), None], faults=[FaultNote(1.0, "crash backup: validator 1")])
    assert msgspec.json.decode(msgspec.json.encode(one), type=PointResult) == one
