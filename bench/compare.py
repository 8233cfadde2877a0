"""Two runs, by ratio. Each figure is first divided by what its own run's machine could do.

So a slower machine, or a slower hour of it, is not taken for a slower ledger.
"""

from collections.abc import Callable, Sequence

import msgspec

from bench.arithmetic import ratio
from bench.goals import floor_of, latency_unit_ms, outside_us
from bench.summary import PointResult, mean_of

MARGIN = 0.10
"""Ratios closer to 1 than this are called the same; noise of short runs on a shared machine is of that size."""


class Line(msgspec.Struct, frozen=True):
    """One figure of one point in both runs."""

    point: str
    figure: str
    before: float
    after: float
    more_is_better: bool

    @property
    def ratio(self) -> float:
        return self.after / self.before

    def verdict(self, margin: float = MARGIN) -> str:
        """`better`, `worse` or `same`."""
        gain = self.ratio if self.more_is_better else 1 / self.ratio
        return "better" if gain > 1 + margin else "worse" if gain < 1 / (1 + margin) else "same"

    def text(self, margin: float = MARGIN) -> str:
        """The line that is printed."""
        change = f"{self.before:.4g} -> {self.after:.4g} (x{self.ratio:.2f})"
        return f"{self.verdict(margin):6}  {self.point}: {self.figure} {change}"


def _throughput(point: PointResult) -> float | None:
    floor = floor_of(point)
    return point.throughput if floor is None else ratio(point.throughput, floor.tps)


def _latency(what: str) -> Callable[[PointResult], float | None]:
    def figure(point: PointResult) -> float | None:
        seen, unit = point.latency, latency_unit_ms(point)
        return None if seen is None or unit is None else 1000 * float(getattr(seen, what)) / unit

    return figure


def _outside(point: PointResult) -> float | None:
    floor = floor_of(point)
    return None if floor is None else ratio(outside_us(point), floor.verify_us)


FIGURES: tuple[tuple[str, Callable[[PointResult], float | None], bool], ...] = (
    ("throughput ÷ floor", _throughput, True),
    ("p50 ÷ (fsync + 10 verifies)", _latency("p50_s"), False),
    ("p99 ÷ (fsync + 10 verifies)", _latency("p99_s"), False),
    ("CPU outside verification ÷ verify", _outside, False),
    ("bytes written per tx", lambda point: mean_of(point.validators, "written_bytes_per_tx"), False),
)


def compare(before: Sequence[PointResult], after: Sequence[PointResult]) -> tuple[list[Line], list[str]]:
    """All figures that both runs have, and the names of points that only one has."""
    earlier = {point.name: point for point in before}
    later = {point.name: point for point in after}
    lines = []
    for name in earlier.keys() & later.keys():
        for figure, of, more_is_better in FIGURES:
            one, other = of(earlier[name]), of(later[name])
            if one and other:
                lines.append(Line(name, figure, one, other, more_is_better))
    order = {name: place for place, name in enumerate(earlier)}
    lines.sort(key=lambda line: order[line.point])
    return lines, sorted(earlier.keys() ^ later.keys())
