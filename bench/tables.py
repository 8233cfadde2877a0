"""Tables of results, as text for a terminal and as Markdown for a report. Caliper's table first, for comparisons."""

from collections.abc import Sequence

from bench.goals import Verdict, floor_of, latency_unit_ms, outside_us
from bench.summary import PointResult, mean_of, mean_phases

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Heads and rows."""
MISSING = "–"
CALIPER = (
    "Name",
    "Succ",
    "Fail",
    "Send Rate (TPS)",
    "Max Latency (s)",
    "Min Latency (s)",
    "Avg Latency (s)",
    "Throughput (TPS)",
)


def number(value: float | None, digits: int = 2) -> str:
    """With thin groups of thousands; a dash for what was not measured."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def caliper(points: Sequence[PointResult]) -> Table:
    """The table that Hyperledger Caliper prints, column by column."""
    rows: list[tuple[str, ...]] = []
    for one in points:
        seen = one.latency
        latencies = (None, None, None) if seen is None else (seen.max_s, seen.min_s, seen.avg_s)
        counts = (one.name, str(one.succ), str(one.fail), number(one.send_rate, 1))
        rows.append((*counts, *(number(value) for value in latencies), number(one.throughput, 1)))
    return CALIPER, rows


def latencies(points: Sequence[PointResult]) -> Table:
    """Quantiles in milliseconds to the durable reply and to the verified proof, and how late the client itself was."""
    heads = ("Name", "p50", "p95", "p99", "p50 ÷ unit", "proof p50", "proof p99", "client late p99")
    rows: list[tuple[str, ...]] = []
    for one in points:
        durable, proof, unit = one.latency, one.proof_latency, latency_unit_ms(one)
        p50 = None if durable is None else 1000 * durable.p50_s
        rows.append(
            (
                one.name,
                number(p50, 0),
                number(None if durable is None else 1000 * durable.p95_s, 0),
                number(None if durable is None else 1000 * durable.p99_s, 0),
                number(None if p50 is None or not unit else p50 / unit, 1),
                number(None if proof is None else 1000 * proof.p50_s, 0),
                number(None if proof is None else 1000 * proof.p99_s, 0),
                number(1000 * one.client_lateness_p99_s, 0) if one.loop == "open" else MISSING,
            )
        )
    return heads, rows


def resources(points: Sequence[PointResult]) -> Table:
    """What a transaction costs each validator, beside the floor of the same run."""
    heads = (
        "Name",
        "floor tx/s",
        "÷ floor",
        "verify µs",
        "CPU µs/tx",
        "outside µs/tx",
        "checks/signature",
        "cores/validator",
        "client cores",
        "RSS MiB",
        "without map",
        "written B/tx",
        "sent B/tx",
    )
    rows: list[tuple[str, ...]] = []
    for one in points:
        floor, validators = floor_of(one), one.validators
        rss, own = mean_of(validators, "rss_max_bytes"), mean_of(validators, "own_bytes")
        rows.append(
            (
                one.name,
                number(floor.tps if floor else None, 0),
                number(one.throughput / floor.tps if floor else None),
                number(floor.verify_us if floor else None, 1),
                number(mean_of(validators, "cpu_us_per_tx"), 1),
                number(outside_us(one), 1),
                number(mean_of(validators, "checks_per_signature"), 3),
                number(mean_of(validators, "cpu_cores")),
                number(one.client_cpu_cores),
                number(None if rss is None else rss / 1024**2, 0),
                number(None if own is None else own / 1024**2, 0),
                number(mean_of(validators, "written_bytes_per_tx"), 0),
                number(mean_of(validators, "sent_bytes_per_tx"), 0),
            )
        )
    return heads, rows


def phases(points: Sequence[PointResult]) -> Table:
    """CPU microseconds per transaction and validator by phase."""
    measured = [(one.name, found) for one in points if (found := mean_phases(one.validators))]
    names = list(dict.fromkeys(name for _, found in measured for name in found))
    return ("Name", *names), [(name, *(number(found.get(one), 1) for one in names)) for name, found in measured]


def goals(verdicts: Sequence[Verdict]) -> Table:
    """Every goal with what it asks for and what this run says."""
    heads = ("Goal", "Measure", "Must", "Aim", "This run", "Verdict")
    rows: list[tuple[str, ...]] = []
    for one in verdicts:
        goal = one.goal
        sign, unit = "≥" if goal.least else "≤", f" {goal.unit}" if goal.unit else ""
        value = MISSING if one.value is None else f"{number(one.value)}{unit}"
        must = MISSING if goal.must is None else f"{sign} {goal.must:g}{unit}"
        aim = MISSING if goal.aim is None else f"{goal.aim:g}{unit}"
        rows.append((goal.id, goal.measure, must, aim, value, one.word))
    return heads, rows


def markdown(table: Table) -> str:
    """As Markdown."""
    heads, rows = table
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join([" --- ", *[" ---: "] * (len(heads) - 1)]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def plain(table: Table) -> str:
    """In columns, the first to the left and all others to the right."""
    heads, rows = table
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(heads), *map(line, rows)]) + "\n"
