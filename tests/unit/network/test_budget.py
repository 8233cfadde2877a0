"""A peer can send at its rate for ever, and a burst on top."""

from p2pledger.network.budget import Budget, Rates

RATES = Rates(bytes_per_s=100, frames_per_s=10, burst_s=2)


def test_within_the_burst_nothing_has_to_wait() -> None:
    """Two seconds' worth may come at once."""
    assert Budget(RATES, 0.0).spend(200, 20, 0.0) == 0.0


def test_a_debt_is_waited_off() -> None:
    """Who sends one second's worth too much is not read for one second."""
    assert Budget(RATES, 0.0).spend(300, 1, 0.0) == 1.0
    assert Budget(RATES, 0.0).spend(1, 30, 0.0) == 1.0


def test_the_purse_fills_with_time_and_not_beyond_the_burst() -> None:
    """After any silence the purse holds the burst, no more."""
    budget = Budget(RATES, 0.0)
    budget.spend(200, 0, 0.0)
    assert budget.spend(100, 0, 1.0) == 0.0
    assert budget.spend(300, 0, 1000.0) == 1.0
