"""Plots of one run, as SVG and PNG. Needs matplotlib (the `bench` extra); everything else works without it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.goals import is_plain, outside_us, peak
from bench.summary import PointResult, mean_of, mean_phases

Points = Sequence[PointResult]
Draw = Callable[[Any, Points], bool]
"""Draws into axes; False where the run has nothing of this kind."""


def draw_all(points: Points, folder: Path) -> list[str]:
    """The names of the plots that this run has data for. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    folder.mkdir(exist_ok=True)
    for name, (size, draw) in PLOTS.items():
        figure, axes = pyplot.subplots(figsize=size, layout="constrained")
        if draw(axes, points):
            for kind in ("svg", "png"):
                figure.savefig(folder / f"{name}.{kind}", dpi=120)
            drawn.append(name)
        pyplot.close(figure)
    return drawn


def latency_throughput(axes: Any, points: Points) -> bool:
    """Open loops of each stage: how long answers take at which throughput."""
    found = False
    for stage in dict.fromkeys((one.stage, one.n) for one in points if one.loop == "open" and not one.faults):
        mine = [one for one in points if (one.stage, one.n) == stage and one.loop == "open" and not one.faults]
        mine = sorted((one for one in mine if one.latency is not None), key=lambda one: one.wanted_rate or 0.0)
        for what, style in (("p50_s", "o-"), ("p99_s", "s--")):
            values = [1000 * getattr(one.latency, what) for one in mine]
            axes.plot([one.throughput for one in mine], values, style, label=f"{stage[0]} n={stage[1]} {what[:3]}")
        found = found or bool(mine)
    _label(axes, "Latency and throughput", "throughput, tx/s", "ms from due time to durable reply")
    axes.set_yscale("log")
    return found


def latency_cdf(axes: Any, points: Points) -> bool:
    """The whole distribution of each open loop without faults: closed ones show their own queue."""
    mine = [one for one in points if one.loop == "open" and not one.faults and one.latency is not None]
    for one in mine:
        assert one.latency is not None
        axes.plot(
            [1000 * value for value, _ in one.latency.cdf], [share for _, share in one.latency.cdf], label=one.name
        )
    _label(axes, "Distribution of latencies", "ms to durable reply", "share of transactions")
    axes.set_xscale("log")
    return bool(mine)


def scaling(axes: Any, points: Points) -> bool:
    """The peak by number of validators: throughput, and processor time of each validator."""
    found = False
    other = None
    for workload in dict.fromkeys(one.workload for one in points):
        sizes = sorted({one.n for one in points if one.n})
        mine = [one for n in sizes if (one := peak(points, workload, n)) is not None]
        if len(mine) < 2:
            continue
        other = axes.twinx() if other is None else other
        axes.plot([one.n for one in mine], [one.throughput for one in mine], "o-", label=f"{workload} tx/s")
        cpu = [(one.n, value) for one in mine if (value := mean_of(one.validators, "cpu_us_per_tx")) is not None]
        other.plot([n for n, _ in cpu], [value for _, value in cpu], "s--", label=f"{workload} CPU µs/tx")
        found = True
    if other is not None:
        other.set_ylabel("CPU per transaction and validator, µs")
        other.set_ylim(bottom=0)
        other.legend(loc="upper right", fontsize=8)
    _label(axes, "Scaling in validators on one machine", "validators", "throughput, tx/s")
    axes.set_ylim(bottom=0)
    return found


def fault_time_line(axes: Any, points: Points) -> bool:
    """Throughput second by second, with what was done to whom; one below the other."""
    mine = [one for one in points if one.faults]
    if not mine:
        return False
    figure = axes.get_figure()
    axes.remove()
    figure.set_size_inches(9, 1 + 2.2 * len(mine))
    for place, one in zip(figure.subplots(len(mine), 1, squeeze=False)[:, 0], mine, strict=True):
        place.step([at for at, _ in one.timeline], [rate for _, rate in one.timeline], where="post")
        _label(place, one.name, "s after the window began" if one is mine[-1] else "", "done, tx/s")
        place.set_ylim(bottom=0)
        place.set_xlim(min(0.0, *(note.at_s for note in one.faults)), one.window_s)
        for note in one.faults:
            place.axvline(note.at_s, color="tab:red", linestyle=":")
            place.annotate(
                note.text, (note.at_s, 0.05), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, ha="right"
            )
    return True


def growth(axes: Any, points: Points) -> bool:
    """What a transaction costs as the chain grows: closed loops of one kind that began at different lengths."""
    found = False
    plain = [one for one in points if one.loop == "closed" and one.operations == 1 and is_plain(one)]
    for workload, n in dict.fromkeys((one.workload, one.n) for one in plain):
        mine = [one for one in plain if (one.workload, one.n) == (workload, n)]
        chain = sorted((one.executed_before, cost) for one in mine if (cost := outside_us(one)) is not None)
        if len(chain) > 1 and chain[-1][0] > 10 * max(1, chain[0][0]):
            axes.plot([length for length, _ in chain], [cost for _, cost in chain], "o-", label=f"{workload} n={n}")
            found = True
    _label(axes, "Growth", "transactions on the chain", "CPU outside verification, µs per transaction and validator")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    return found


def cpu_phases(axes: Any, points: Points) -> bool:
    """Where the processor time of a validator goes at the peak."""
    closed = [one for one in points if one.loop == "closed" and not one.faults]
    mine = [(one.name, found) for one in closed if (found := mean_phases(one.validators))]
    names = list(dict.fromkeys(name for _, found in mine for name in found))
    left = [0.0] * len(mine)
    for name in names:
        values = [found.get(name, 0.0) for _, found in mine]
        axes.barh([label for label, _ in mine], values, left=left, label=name)
        left = [one + value for one, value in zip(left, values, strict=True)]
    axes.invert_yaxis()
    _label(axes, "CPU per transaction and validator, closed loops", "µs", "")
    return bool(mine)


def systems(axes: Any, points: Points) -> bool:
    """The peak of this ledger beside other systems of the same run."""
    others = [one for one in points if not one.n]
    own = [one for one in points if one.n and one.loop == "closed" and not one.faults][:1]
    axes.bar([one.name for one in (*own, *others)], [one.throughput for one in (*own, *others)])
    axes.tick_params(axis="x", rotation=20)
    _label(axes, "Peak throughput; the other systems check no signatures", "", "tx/s")
    return bool(others)


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)


PLOTS: dict[str, tuple[tuple[float, float], Draw]] = {
    "latency-throughput": ((7, 4.5), latency_throughput),
    "latency-cdf": ((7, 4.5), latency_cdf),
    "scaling": ((7, 4.5), scaling),
    "fault-time-line": ((9, 4.5), fault_time_line),
    "growth": ((7, 4.5), growth),
    "cpu-phases": ((9, 5), cpu_phases),
    "systems": ((7, 4.5), systems),
}
