"""Results as a run would leave them, with only what a test is about filled in."""

from bench.book import NEVER, Row
from bench.floor import Floor
from bench.summary import PointResult, ValidatorFigures, latency_of

FLOOR = Floor(processes=4, verifies_per_s=40_000, verify_us=50, fsync_ms=1.5)


def row(number: int, due: float, sent: float, done: float, code: int = 0, kind: str = "record") -> Row:
    """A transaction without proof."""
    return Row(number, kind, 0, due, sent, done, NEVER, code, 0)


def validator(**changed: object) -> ValidatorFigures:
    """One that spends 80 of 100 us on signatures."""
    figures: dict[str, object] = {
        "executed": 1_000,
        "cpu_us_per_tx": 100.0,
        "phases_us_per_tx": {"engine": 20.0, "rest": 80.0},
        "checks_per_signature": 1.0,
        "verify_share": 0.8,
        "cpu_cores": 0.5,
        "rss_max_bytes": 80 * 1024**2,
        "own_bytes": 60 * 1024**2,
        "sent_bytes_per_tx": 300.0,
        "written_bytes_per_tx": 1_000.0,
    }
    return ValidatorFigures(**{**figures, **changed})  # type: ignore[arg-type]


def point(**changed: object) -> PointResult:
    """A peak of four validators at 7,000 tx/s over a floor of 10,000."""
    fields: dict[str, object] = {
        "stage": "steady",
        "n": 4,
        "point": "peak",
        "workload": "minimal",
        "operations": 1,
        "loop": "closed",
        "wanted_rate": None,
        "load": None,
        "window_s": 10.0,
        "succ": 70_000,
        "fail": 0,
        "fail_reasons": {},
        "retries": 0,
        "send_rate": 7_000.0,
        "throughput": 7_000.0,
        "operations_per_s": 7_000.0,
        "latency": latency_of([0.1, 0.2, 0.3]),
        "proof_latency": None,
        "by_kind": {"record": 70_000},
        "timeline": [(0.0, 7_000.0)],
        "longest_gap_s": 0.1,
        "faults": [],
        "validators": [validator()] * 4,
        "floor_before": FLOOR,
        "floor_after": FLOOR,
        "client_cpu_cores": 0.4,
        "client_lateness_p99_s": 0.0,
        "ran_dry": False,
        "relay_cpu_s": 0.0,
        "executed_before": 2_000,
    }
    return PointResult(**{**fields, **changed})  # type: ignore[arg-type]
