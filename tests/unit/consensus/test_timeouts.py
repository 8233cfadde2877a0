"""Patience: each run of a timer has a number of its own, and what happened decides what starts anew."""

import pytest

from p2pledger.chain.genesis import Parameters
from p2pledger.consensus import effects as do
from p2pledger.consensus.timeouts import Patience, Timer, progress_delay_ms, retransmit_delay_ms


def test_a_timer_fires_once_for_each_start() -> None:
    """P8: a firing names its run; an earlier one, a stopped one and a second one say nothing."""
    timer = Timer()
    assert timer.fires(0) is False, "it was never started"
    first = timer.start()
    second = timer.start()
    assert second == first + 1
    assert not timer.fires(first), "starting again voids the earlier run"
    assert timer.fires(second)
    assert not timer.fires(second), "the run is over"


def test_a_stopped_timer_never_fires() -> None:
    """P8: nor does its number come again."""
    timer = Timer()
    voided = timer.start()
    timer.stop()
    assert not timer.fires(voided)
    timer.is_running = True
    assert not timer.fires(voided), "stopping is a run of its own"
    assert timer.start() == voided + 2, "numbers only grow"


@pytest.mark.parametrize(("failures", "delay_ms"), [(0, 1_000), (1, 2_000), (2, 4_000), (3, 8_000), (4, 8_000)])
def test_the_progress_timeout_doubles_up_to_its_cap(failures: int, delay_ms: int) -> None:
    """P8: base × 2^k, capped."""
    assert progress_delay_ms(1_000, 8_000, failures) == delay_ms


@pytest.mark.parametrize(
    ("repeats", "delay_ms"), [(0, 500), (1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (5, 8_000)]
)
def test_the_pause_between_repetitions_doubles_up_to_its_cap(repeats: int, delay_ms: int) -> None:
    """P16: from half the base timeout on."""
    assert retransmit_delay_ms(1_000, 8_000, repeats) == delay_ms


def test_the_shortest_base_still_gives_a_pause() -> None:
    """P16: without one a node would do nothing but repeat itself."""
    assert [retransmit_delay_ms(1, 8_000, repeats) for repeats in range(3)] == [1, 2, 4]


def test_a_committed_height_ends_the_wait_and_both_counts() -> None:
    """P8, P16: there was progress; the pauses begin at half the base again."""
    patience = Patience(Parameters())
    [*patience.demand_progress(True)]
    patience.failures, patience.repeats = 3, 3
    assert [*patience.height_committed()] == [do.StopTimer("progress"), do.SetTimer("retransmit", 1, 500)]
    assert (patience.failures, patience.repeats) == (0, 0)


def test_a_view_in_vain_costs_patience_and_speaks_at_once() -> None:
    """P8, P16: the progress timer waits for a quorum, the first repetition comes soon, k grows by one."""
    patience = Patience(Parameters())
    [*patience.demand_progress(True)]
    patience.failures, patience.repeats = 1, 3
    assert [*patience.view_left()] == [do.StopTimer("progress"), do.SetTimer("retransmit", 1, 500)]
    assert (patience.failures, patience.repeats) == (2, 0)


def test_progress_is_demanded_exactly_while_it_is_wanted() -> None:
    """P8: asking twice starts one timer, and what does not run is not stopped."""
    patience = Patience(Parameters())
    assert [*patience.demand_progress(False)] == []
    assert [*patience.demand_progress(True)] == [do.SetTimer("progress", 1, 1_000)]
    assert [*patience.demand_progress(True)] == []
    assert [*patience.demand_progress(False)] == [do.StopTimer("progress")]
    assert [*patience.demand_progress(False)] == []
