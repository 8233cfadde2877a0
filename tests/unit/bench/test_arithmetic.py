"""Quantiles, arrivals, Zipf and gaps against definitions and simple models."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arithmetic import Zipf, arrivals, cdf, longest_gap, median, per_second, quantile, ratio
from p2pledger.primitives.errors import InvalidInput

FLOATS = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@given(FLOATS, st.floats(0, 1))
def test_a_quantile_is_the_smallest_value_that_covers_its_share(values: list[float], share: float) -> None:
    """Nearest rank: at least that share lies at or below it, and less than that share below it."""
    found = quantile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) <= share * len(values) + 1e-6


def test_quantiles_of_a_hundred_are_the_numbers_themselves() -> None:
    """p50 of 1..100 is 50, p99 is 99, p100 the largest; the smallest is where the share is 0."""
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0, 0.5, 0.95, 0.99, 1)] == [1, 50, 95, 99, 100]


def test_no_values_have_no_quantile() -> None:
    """Nothing is not 0 ms."""
    with pytest.raises(InvalidInput, match="no values"):
        quantile([], 0.5)


@given(FLOATS)
def test_a_distribution_rises_to_its_largest_value(values: list[float]) -> None:
    """Values and shares never fall, and the last point is (largest, 1)."""
    found = cdf(sorted(values), 20)
    assert found == sorted(found)
    assert found[-1] == (max(values), 1.0)
    assert len(found) <= 20


def test_even_arrivals_are_fixed_before_anything_is_sent() -> None:
    """Four a second for a second, the first at once."""
    assert arrivals(4, 1, "even", random.Random(1)) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_keep_the_rate_and_the_seed() -> None:
    """20,000 expected ones come within four standard deviations; the same seed gives the same moments."""
    found = arrivals(1_000, 20, "poisson", random.Random(3))
    assert abs(len(found) - 20_000) < 4 * 20_000**0.5
    assert found == sorted(found) == arrivals(1_000, 20, "poisson", random.Random(3))
    assert found[0] >= 0 and found[-1] < 20


@pytest.mark.parametrize(("rate", "kind"), [(0, "even"), (-1, "poisson"), (1, "bursts")])
def test_arrivals_refuse_what_is_no_rate_or_kind(rate: float, kind: str) -> None:
    """Named with its value."""
    with pytest.raises(InvalidInput):
        arrivals(rate, 1, kind, random.Random(1))


def test_zipf_gives_rank_k_the_weight_of_one_by_k() -> None:
    """Of 3 with exponent 1 the shares are 6/11, 3/11 and 2/11, and draws follow them."""
    law = Zipf(3, 1.0)
    assert [law.share(index) for index in range(3)] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    rng = random.Random(5)
    counts = Counter(law.draw(rng) for _ in range(22_000))
    for index, expected in enumerate((12_000, 6_000, 4_000)):
        assert abs(counts[index] - expected) < 4 * expected**0.5


def test_zipf_with_exponent_0_draws_all_alike() -> None:
    """No favourites."""
    law = Zipf(4, 0.0)
    assert {round(law.share(index), 9) for index in range(4)} == {0.25}


def test_the_longest_gap_counts_the_ends_of_the_window() -> None:
    """A system that never came back has a gap up to the end."""
    assert longest_gap([1, 2, 2.5], 0, 10) == 7.5
    assert longest_gap([], 3, 5) == 2
    assert longest_gap([0.5, 9], 4, 6) == 2


def test_seconds_are_counted_in_full_steps() -> None:
    """What lies outside the window, or in its last broken second, is not shown."""
    assert per_second([0.5, 1.1, 1.2, 2.9, 3.4], 1, 3.5) == [(0, 2), (1, 1)]


def test_medians_and_ratios() -> None:
    """The mean of the two in the middle; a ratio to nothing is no number."""
    assert (median([3, 1, 2]), median([4, 1, 2, 3])) == (2, 2.5)
    assert (ratio(1, 2), ratio(None, 2), ratio(1, 0), ratio(1, None)) == (0.5, None, None, None)
