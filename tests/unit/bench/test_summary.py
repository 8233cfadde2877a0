"""From rows to figures: windows, failures, and no coordinated omission."""

import pytest

from bench.book import NEVER, OPEN_CODE, ClientReport
from bench.procfs import Usage
from bench.scenario import Point
from bench.summary import Window, client_figures, mean_phases, validator_figures, window_of
from bench.validators import Counters, Sample, parse_counters
from p2pledger.primitives.errors import Code
from tests.unit.bench.points import row, validator

WINDOW = Window(0.0, 10.0)


def test_a_stall_of_the_system_is_in_the_latency_of_all_that_were_due_meanwhile() -> None:
    """Ten a second are due; nothing is answered from 2 s to 7 s. From sending on, none would be slow."""
    rows = []
    for number in range(100):
        due = number / 10
        sent = 7.0 if 2 <= due < 7 else due  # the client, too, was held up
        rows.append(row(number, due, sent, sent + 0.01))
    found = client_figures(rows, WINDOW, True, {})["latency"]
    assert found.p95_s == pytest.approx(4.51)  # type: ignore[attr-defined]
    assert found.max_s == pytest.approx(5.01)  # type: ignore[attr-defined]
    assert client_figures(rows, WINDOW, False, {})["latency"].max_s == pytest.approx(0.01)  # type: ignore[attr-defined]


def test_what_was_due_and_never_sent_has_failed() -> None:
    """An open loop counts it, under its reason."""
    rows = [row(0, 1, 1, 2), row(1, 2, NEVER, NEVER, OPEN_CODE), row(2, 3, 3, 4, int(Code.E_NONCE))]
    figures = client_figures(rows, WINDOW, True, {})
    assert (figures["succ"], figures["fail"]) == (1, 2)
    assert figures["fail_reasons"] == {"unanswered": 1, "E_NONCE": 1}


def test_warm_up_is_in_no_figure() -> None:
    """Latencies are of what began in the window, throughput of what was done in it."""
    rows = [row(0, 0.5, 0.5, 1.5), row(1, 1.5, 1.5, 2.5), row(2, 2.9, 2.9, 3.5)]
    figures = client_figures(rows, Window(1.0, 3.0), True, {1: 10})
    assert figures["succ"] == 2
    assert figures["throughput"] == 1.0
    assert figures["operations_per_s"] == 5.5
    assert figures["send_rate"] == 1.0


def test_a_window_ends_where_there_was_nothing_left_to_send() -> None:
    """A closed loop that ran dry is measured up to there, and says so."""
    point = Point(name="peak", warm_up_s=2, duration_s=8)
    full, dry = ClientReport(1.0, 0.0, NEVER), ClientReport(1.0, 0.0, 5.0)
    assert window_of(point, [full, full]) == (Window(2, 10), False)
    assert window_of(point, [full, dry]) == (Window(2, 5), True)


def counters(cpu_s: float, executed: int, signatures: dict[str, int], **changed: object) -> Counters:
    fields: dict[str, object] = {
        "cpu_s": cpu_s,
        "phases_s": {"engine": cpu_s / 4},
        "signatures": signatures,
        "executed": executed,
        "sent_bytes": 10 * executed,
        "written_bytes": 100 * executed,
        "rss_bytes": 1_000,
        "height": 1,
        "is_primary": False,
    }
    return Counters(**{**fields, **changed})  # type: ignore[arg-type]


def test_figures_of_a_validator_are_differences_by_what_it_executed() -> None:
    """1,000 transactions of one signature, each checked twice, in 0.2 s of processor time."""
    before = counters(1.0, 50, {"transaction": 50, "submission": 0, "vote": 10})
    after = counters(1.2, 1_050, {"transaction": 1_050, "submission": 1_000, "vote": 60})
    samples = [Sample(0.0, (Usage(1.0, 900, 0),)), Sample(1.0, (Usage(1.1, 2_000, 0),))]
    (found,) = validator_figures([before], [after], samples, 1.0, 50.0)
    assert found is not None
    assert found.cpu_us_per_tx == pytest.approx(200)
    assert found.checks_per_signature == 2.0
    assert found.verify_share == pytest.approx(2_050 * 50e-6 / 0.2)
    assert found.phases_us_per_tx == pytest.approx({"engine": 50, "rest": 150})
    assert (found.sent_bytes_per_tx, found.written_bytes_per_tx) == (10, 100)
    assert (found.cpu_cores, found.rss_max_bytes) == (pytest.approx(0.1), 2_000)


def test_a_validator_that_was_away_has_no_figures() -> None:
    """It counts from 0 again, or does not answer; nothing is made up."""
    alive = counters(1.0, 50, {})
    assert validator_figures([alive, alive], [None, counters(0.1, 3, {})], [], 1.0, 50.0) == [None, None]


def test_phases_are_the_mean_over_those_that_have_them() -> None:
    """A crashed one does not pull it down."""
    two = validator(phases_us_per_tx={"engine": 40.0, "rest": 60.0})
    assert mean_phases([validator(), None, two]) == {"engine": 30.0, "rest": 70.0}


def test_counters_are_read_from_a_page_of_metrics() -> None:
    """Labelled families by their label, plain ones by name, comments and strangers left out."""
    text = """# HELP p2pledger_node_cpu_seconds_total Processor time
p2pledger_node_cpu_seconds_total{phase="engine"} 1.5
p2pledger_verify_signatures_total{kind="transaction"} 12.0
p2pledger_execution_transactions_total 7.0
p2pledger_p2p_sent_bytes_total 900.0
p2pledger_consensus_height 4.0
p2pledger_consensus_is_primary 1.0
other_total 3
"""
    found = parse_counters(text, Usage(2.0, 100, None))
    assert (found.phases_s, found.signatures) == ({"engine": 1.5}, {"transaction": 12})
    assert (found.executed, found.sent_bytes, found.height, found.is_primary) == (7, 900, 4, True)
    assert (found.cpu_s, found.rss_bytes, found.written_bytes) == (2.0, 100, None)
