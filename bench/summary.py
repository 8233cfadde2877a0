"""From what clients and validators wrote down to the figures of a point. README.md says what each means."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from bench.arithmetic import cdf, longest_gap, per_second, quantile, ratio
from bench.book import NEVER, OPEN_CODE, TARGET_CODE, ClientReport, Row
from bench.floor import Floor
from bench.procfs import Usage
from bench.scenario import Point
from bench.validators import Counters, Sample
from p2pledger.primitives.errors import Code

REST = "rest"
"""The phase of what no counter covers: TLS, framing, the client port, signing, the event loop."""


class Latency(msgspec.Struct, frozen=True):
    """Of one kind of answer, in seconds."""

    count: int
    min_s: float
    avg_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    cdf: list[tuple[float, float]] = []


class ValidatorFigures(msgspec.Struct, frozen=True):
    """One validator over a whole load, from quiet to quiet; None where it did not live through it."""

    executed: int
    cpu_us_per_tx: float
    phases_us_per_tx: dict[str, float]
    checks_per_signature: float
    """Checks of transactions' signatures by the signatures of what it executed; exactly 1 is the aim."""
    verify_share: float
    """Checked signatures of all kinds times the bare cost of one in this run, by all its processor time."""
    cpu_cores: float | None
    """Processors in use during the window."""
    rss_max_bytes: int
    own_bytes: int | None
    """Resident after the load, without LMDB's maps."""
    sent_bytes_per_tx: float
    written_bytes_per_tx: float | None


class CatchUp(msgspec.Struct, frozen=True):
    """A validator that had been away."""

    executed: int
    seconds: float
    cpu_s: float

    @property
    def tx_per_cpu_s(self) -> float | None:
        return ratio(self.executed, self.cpu_s)


class FaultNote(msgspec.Struct, frozen=True):
    """What was done to whom, seconds after the window began."""

    at_s: float
    text: str


class PointResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one point, as it stands in results.json."""

    stage: str
    n: int
    point: str
    workload: str
    operations: int
    loop: str
    wanted_rate: float | None
    load: float | None
    """As a multiple of another point's throughput."""
    window_s: float
    succ: int
    fail: int
    fail_reasons: dict[str, int]
    retries: int
    send_rate: float
    throughput: float
    operations_per_s: float
    latency: Latency | None
    proof_latency: Latency | None
    by_kind: dict[str, int]
    timeline: list[tuple[float, float]]
    longest_gap_s: float
    faults: list[FaultNote]
    validators: list[ValidatorFigures | None]
    floor_before: Floor | None
    floor_after: Floor | None
    client_cpu_cores: float
    client_lateness_p99_s: float
    ran_dry: bool
    relay_cpu_s: float
    executed_before: int
    """Transactions on the chain when the load began."""
    rss_idle_bytes: int | None = None
    catch_up: CatchUp | None = None
    settings: dict[str, str | int] = {}
    one_way_ms: float = 0.0
    """Delay of the links between validators."""
    distance: str = ""
    """How it was made, or how links were cut: `relay` or `queue`; empty where links are direct."""
    caveat: str = ""

    @property
    def name(self) -> str:
        """For tables: stage, validators, point."""
        return f"{self.stage} n={self.n} {self.point}" if self.n else f"{self.stage} {self.point}"


def latency_of(values: Sequence[float]) -> Latency | None:
    """Of these latencies; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return Latency(
        len(ordered),
        ordered[0],
        sum(ordered) / len(ordered),
        quantile(ordered, 0.5),
        quantile(ordered, 0.95),
        quantile(ordered, 0.99),
        ordered[-1],
        cdf(ordered),
    )


class Window(msgspec.Struct, frozen=True):
    """The measured part of a load, in seconds after its start."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    def holds(self, moment_s: float) -> bool:
        """Its end is out."""
        return self.start_s <= moment_s < self.end_s


def window_of(point: Point, reports: Sequence[ClientReport]) -> tuple[Window, bool]:
    """After the warm-up; shorter where a closed loop had nothing left to send, which the second value says."""
    start, end = point.warm_up_s, point.warm_up_s + point.duration_s
    dry = min((report.ran_dry_s for report in reports if report.ran_dry_s != NEVER), default=None)
    if dry is None or dry >= end:
        return Window(start, end), False
    return (Window(start, dry) if dry > start else Window(0.0, max(dry, 1e-3))), True


def began(row: Row, is_open: bool) -> float:
    """From when a transaction's latency counts: its due time, or in a closed loop when it was sent."""
    return row.due_s if is_open else row.sent_s


def client_figures(
    rows: Sequence[Row], window: Window, is_open: bool, operations: Mapping[int, int]
) -> dict[str, object]:
    """The clients' side of a PointResult. Latencies are of transactions that began in the window; throughput counts
    those done in it."""
    mine = [row for row in rows if window.holds(began(row, is_open)) and (is_open or row.sent_s != NEVER)]
    good = [row for row in mine if row.is_done]
    failed = [row for row in mine if not row.is_done]
    done = [row for row in rows if row.is_done and window.holds(row.done_s)]
    sent = [row for row in rows if row.sent_s != NEVER and window.holds(row.sent_s)]
    return {
        "window_s": window.length_s,
        "succ": len(good),
        "fail": len(failed),
        "fail_reasons": dict(Counter(_reason(row) for row in failed)),
        "retries": sum(row.retries for row in mine),
        "send_rate": len(sent) / window.length_s,
        "throughput": len(done) / window.length_s,
        "operations_per_s": sum(operations.get(row.number, 1) for row in done) / window.length_s,
        "latency": latency_of([row.done_s - began(row, is_open) for row in good]),
        "proof_latency": latency_of([row.proven_s - began(row, is_open) for row in good if row.proven_s != NEVER]),
        "by_kind": dict(Counter(row.kind for row in done)),
        "timeline": per_second([row.done_s for row in rows if row.is_done], window.start_s, window.end_s),
        "longest_gap_s": longest_gap([row.done_s for row in rows if row.is_done], window.start_s, window.end_s),
    }


def _reason(row: Row) -> str:
    if row.code == OPEN_CODE:
        return "unanswered"
    if row.code == TARGET_CODE:
        return "refused"
    return Code(row.code).name if row.code in Code.__members__.values() else f"code {row.code}"


def validator_figures(
    before: Sequence[Counters | None],
    after: Sequence[Counters | None],
    samples: Sequence[Sample],
    signatures: float,
    verify_us: float,
) -> list[ValidatorFigures | None]:
    """For each seat; `signatures` is how many a transaction of this load carries on average."""
    found: list[ValidatorFigures | None] = []
    for seat, (one, other) in enumerate(zip(before, after, strict=True)):
        seen = [sample.usages[seat] for sample in samples]
        found.append(
            None if one is None or other is None else _figures(one, other, samples, seen, signatures, verify_us)
        )
    return found


def _figures(
    before: Counters,
    after: Counters,
    samples: Sequence[Sample],
    seen: Sequence[Usage | None],
    signatures: float,
    verify_us: float,
) -> ValidatorFigures | None:
    executed = after.executed - before.executed
    cpu_s = after.cpu_s - before.cpu_s
    if executed <= 0 or cpu_s <= 0:  # it was started again meanwhile, or took no part
        return None
    phases = {name: after.phases_s.get(name, 0.0) - before.phases_s.get(name, 0.0) for name in after.phases_s}
    checked = {kind: after.signatures[kind] - before.signatures.get(kind, 0) for kind in after.signatures}
    written = None
    if before.written_bytes is not None and after.written_bytes is not None:
        written = (after.written_bytes - before.written_bytes) / executed
    phases[REST] = max(0.0, cpu_s - sum(phases.values()))
    return ValidatorFigures(
        executed=executed,
        cpu_us_per_tx=1e6 * cpu_s / executed,
        phases_us_per_tx={name: 1e6 * spent / executed for name, spent in phases.items()},
        checks_per_signature=(checked.get("transaction", 0) + checked.get("submission", 0)) / (executed * signatures),
        verify_share=sum(checked.values()) * verify_us / 1e6 / cpu_s,
        cpu_cores=_cores(samples, seen),
        rss_max_bytes=max([after.rss_bytes, *(one.rss_bytes for one in seen if one is not None)]),
        own_bytes=None if after.map_bytes is None else after.rss_bytes - after.map_bytes,
        sent_bytes_per_tx=(after.sent_bytes - before.sent_bytes) / executed,
        written_bytes_per_tx=written,
    )


def _cores(samples: Sequence[Sample], seen: Sequence[Usage | None]) -> float | None:
    alive = [(sample.at, one.cpu_s) for sample, one in zip(samples, seen, strict=True) if one is not None]
    if len(alive) < 2 or len(alive) < len(samples) or alive[-1][0] <= alive[0][0]:
        return None
    return (alive[-1][1] - alive[0][1]) / (alive[-1][0] - alive[0][0])


def mean_of(figures: Sequence[ValidatorFigures | None], what: str) -> float | None:
    """The mean of a figure over the validators that have it."""
    values = [getattr(one, what) for one in figures if one is not None and getattr(one, what) is not None]
    return sum(values) / len(values) if values else None


def mean_phases(figures: Sequence[ValidatorFigures | None]) -> dict[str, float]:
    """Microseconds a transaction by phase, the mean over the validators."""
    present = [one for one in figures if one is not None]
    names = list(dict.fromkeys(name for one in present for name in one.phases_us_per_tx))
    return {name: sum(one.phases_us_per_tx.get(name, 0.0) for one in present) / len(present) for name in names}
