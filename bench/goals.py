"""The goals, and whether a run meets them. A figure that a run has not measured is neither met nor missed."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.arithmetic import ratio
from bench.floor import Floor, mean_floor
from bench.summary import PointResult, mean_of

GOALS = Path(__file__).parent / "goals.toml"
N = 4
EARLY, LATE = 50_000, 2_000_000
MIB = 1024 * 1024
Points = Sequence[PointResult]


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table."""

    id: str
    measure: str
    figure: str
    least: bool
    """Whether the bounds are lower ones."""
    must: float | None = None
    """The gate; None for a figure that is only reported."""
    aim: float | None = None
    unit: str = ""

    def judge(self, value: float | None) -> str:
        """`aim`, `met`, `missed`, `reported` or `not measured`."""
        if value is None:
            return "not measured"
        if self.must is None:
            return "reported"
        if self._holds(value, self.aim):
            return "aim"
        return "met" if self._holds(value, self.must) else "missed"

    def _holds(self, value: float, bound: float | None) -> bool:
        return bound is not None and (value >= bound if self.least else value <= bound)


class Verdict(msgspec.Struct, frozen=True):
    """A goal with what a run measured."""

    goal: Goal
    value: float | None

    @property
    def word(self) -> str:
        return self.goal.judge(self.value)


def load_goals(path: Path = GOALS) -> list[Goal]:
    """The table; raises msgspec.ValidationError for one of another form."""
    return msgspec.convert(tomllib.loads(path.read_text())["goals"], list[Goal])


def judge_all(points: Points, goals: Sequence[Goal] | None = None) -> list[Verdict]:
    """Every goal with its figure from this run."""
    return [Verdict(goal, FIGURES[goal.figure](points)) for goal in (load_goals() if goals is None else goals)]


# Finding the points


def is_plain(point: PointResult) -> bool:
    """Without faults, delays and settings of its own."""
    return not (point.faults or point.settings or point.one_way_ms or point.catch_up)


def peak(points: Points, workload: str = "minimal", n: int = N, operations: int = 1) -> PointResult | None:
    """The first closed loop of this kind without faults, delays or own settings, early in a chain."""
    for one in points:
        kind = (one.workload, one.n, one.operations, one.loop)
        if kind == (workload, n, operations, "closed") and is_plain(one) and one.executed_before < EARLY:
            return one
    return None


def at_load(points: Points, load: float) -> PointResult | None:
    """The first open loop without faults and delays at this multiple of the peak, four validators, minimal workload."""
    fitting = [one for one in points if one.load == load and one.n == N and one.workload == "minimal"]
    return next((one for one in fitting if not (one.faults or one.one_way_ms)), None)


def floor_of(point: PointResult | None) -> Floor | None:
    """The floor around a point."""
    if point is None or point.floor_before is None or point.floor_after is None:
        return None
    return mean_floor(point.floor_before, point.floor_after)


def outside_us(point: PointResult | None) -> float | None:
    """Processor time per transaction and validator that is not signature checking, in microseconds."""
    values = [one.cpu_us_per_tx * (1 - one.verify_share) for one in (point.validators if point else []) if one]
    return sum(values) / len(values) if values else None


def latency_unit_ms(point: PointResult | None) -> float | None:
    """One durable write and ten verifications in the same run: what latencies can be compared by between machines."""
    floor = floor_of(point)
    return None if floor is None else floor.fsync_ms + floor.verify_us / 100


def _throughput(point: PointResult | None) -> float | None:
    return None if point is None else point.throughput


def _mean(point: PointResult | None, what: str) -> float | None:
    return None if point is None else mean_of(point.validators, what)


def _outside_by_verify(point: PointResult | None) -> float | None:
    floor = floor_of(point)
    return None if floor is None else ratio(outside_us(point), floor.verify_us)


def _worst_checks(points: Points) -> float | None:
    point = peak(points)
    return max((one.checks_per_signature for one in point.validators if one), default=None) if point else None


def _by_floor(points: Points) -> float | None:
    point = peak(points)
    floor = floor_of(point)
    return None if floor is None else ratio(_throughput(point), floor.tps)


def _ten_operations(points: Points) -> float | None:
    ten = peak(points, operations=10)
    return None if ten is None else ratio(ten.operations_per_s, _throughput(peak(points)))


def _latency_ms(load: float, what: str, is_proof: bool = False) -> Callable[[Points], float | None]:
    def figure(points: Points) -> float | None:
        point = at_load(points, load)
        seen = None if point is None else point.proof_latency if is_proof else point.latency
        return None if seen is None else 1000 * float(getattr(seen, what))

    return figure


def _latency_units(load: float, what: str) -> Callable[[Points], float | None]:
    def figure(points: Points) -> float | None:
        return ratio(_latency_ms(load, what)(points), latency_unit_ms(at_load(points, load)))

    return figure


def _cpu_at(n: int) -> Callable[[Points], float | None]:
    def figure(points: Points) -> float | None:
        return ratio(_mean(peak(points, n=n), "cpu_us_per_tx"), _mean(peak(points), "cpu_us_per_tx"))

    return figure


def _grown(points: Points, least: int, most: float = float("inf")) -> PointResult | None:
    """The first closed loop of single minimal operations on a chain of this many transactions."""
    fitting = [one for one in points if least <= one.executed_before < most and is_plain(one)]
    kind = ("minimal", N, 1, "closed")
    return next((one for one in fitting if (one.workload, one.n, one.operations, one.loop) == kind), None)


def _growth_cpu(points: Points) -> float | None:
    early, late = _grown(points, EARLY, 2 * EARLY), _grown(points, LATE)
    return ratio(outside_us(late), outside_us(early))


def _rss_idle(points: Points) -> float | None:
    point = peak(points)
    return None if point is None or point.rss_idle_bytes is None else point.rss_idle_bytes / MIB


def _rss_grown(points: Points) -> float | None:
    return ratio(_mean(_grown(points, LATE), "own_bytes"), MIB)


def _threads(points: Points) -> float | None:
    def with_threads(count: int) -> PointResult | None:
        wanted = {"verify.threads": count}
        return next((one for one in points if one.n == 1 and one.settings == wanted and one.loop == "closed"), None)

    return ratio(_throughput(with_threads(2)), _throughput(with_threads(1)))


def _catch_up(points: Points) -> float | None:
    point = next((one for one in points if one.catch_up is not None), None)
    floor = floor_of(point)
    if point is None or point.catch_up is None or floor is None:
        return None
    return ratio(point.catch_up.tx_per_cpu_s, 1e6 / floor.verify_us)


def _with_fault(points: Points, word: str, loop: str) -> PointResult | None:
    """The first with this fault, without relays between its validators."""
    fitting = [one for one in points if one.loop == loop and not one.one_way_ms]
    return next((one for one in fitting if any(note.text.startswith(word) for note in one.faults)), None)


def _crashed_backup(points: Points) -> float | None:
    crashed = _with_fault(points, "crash backup", "closed")
    if crashed is None:
        return None
    return ratio(crashed.throughput, _throughput(peak(points, crashed.workload, crashed.n, crashed.operations)))


def _primary_gap(points: Points) -> float | None:
    crashed = _with_fault(points, "crash primary", "open") or _with_fault(points, "crash primary", "closed")
    return None if crashed is None else crashed.longest_gap_s


def _by_baseline(name: str) -> Callable[[Points], float | None]:
    def figure(points: Points) -> float | None:
        return ratio(_throughput(peak(points)), _throughput(next((one for one in points if one.stage == name), None)))

    return figure


def _floor_by_pysyncobj(points: Points) -> float | None:
    floor = floor_of(peak(points))
    baseline = _throughput(next((one for one in points if one.stage == "pysyncobj"), None))
    return None if floor is None else ratio(floor.tps, baseline)


FIGURES: dict[str, Callable[[Points], float | None]] = {
    "verify_share": lambda points: _mean(peak(points), "verify_share"),
    "checks_per_signature": _worst_checks,
    "throughput_by_floor": _by_floor,
    "outside_minimal": lambda points: _outside_by_verify(peak(points)),
    "outside_health": lambda points: _outside_by_verify(peak(points, "health")),
    "ten_operations": _ten_operations,
    **{
        f"{what}_{name}_{kind}": figure
        for name, load in (("quarter", 0.25), ("half", 0.5))
        for what in ("p50", "p99")
        for kind, figure in (
            ("units", _latency_units(load, f"{what}_s")),
            ("ms", _latency_ms(load, f"{what}_s")),
            ("proof_ms", _latency_ms(load, f"{what}_s", is_proof=True)),
        )
    },
    "overload": lambda points: ratio(_throughput(at_load(points, 2.0)), _throughput(peak(points))),
    "cpu_n7": _cpu_at(7),
    "cpu_n10": _cpu_at(10),
    "growth_cpu": _growth_cpu,
    "growth_bytes": lambda points: _mean(_grown(points, LATE), "written_bytes_per_tx"),
    "rss_idle_mib": _rss_idle,
    "rss_grown_mib": _rss_grown,
    "threads": _threads,
    "catch_up": _catch_up,
    "crashed_backup": _crashed_backup,
    "primary_gap_s": _primary_gap,
    "by_pysyncobj": _by_baseline("pysyncobj"),
    "floor_by_pysyncobj": _floor_by_pysyncobj,
    "by_etcd": _by_baseline("etcd"),
}
"""What goals are judged by."""
