"""Shamir and Feldman: any t shares give the secret, fewer give nothing, and a wrong share is seen."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.threshold.group import as_scalar, base_times, divide, multiply, random_scalar, subtract, times
from p2pledger.threshold.sharing import (
    Polynomial,
    check_commitments,
    check_share,
    combine,
    combine_points,
    lagrange,
    public_share,
)
from tests.unit.threshold.stage import random_of

RANDOM = random_of("sharing")
SECRET = random_scalar(RANDOM)


@pytest.mark.parametrize(("threshold", "n"), [(1, 1), (1, 3), (2, 3), (3, 4), (4, 5), (5, 7)])
def test_any_t_shares_give_the_secret(threshold: int, n: int) -> None:
    polynomial = Polynomial.through(SECRET, threshold, RANDOM)
    base = base_times(random_scalar(RANDOM))
    for chosen in combinations(range(1, n + 1), threshold):
        shares = {index: polynomial.at(index) for index in chosen}
        assert combine(shares) == SECRET
        assert combine_points({index: times(share, base) for index, share in shares.items()}) == times(SECRET, base)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 50), min_size=2, max_size=4))
def test_fewer_than_t_shares_fit_every_secret(indices: set[int]) -> None:
    """I-3: with t − 1 shares in hand, each of two candidates has a polynomial that goes through all of them."""
    polynomial = Polynomial.through(SECRET, len(indices) + 1, RANDOM)
    held = {index: polynomial.at(index) for index in indices}
    for candidate in (SECRET, random_scalar(RANDOM)):
        # the share of index 51 that makes `candidate` the secret: solve the interpolation at 0 for it
        coefficients = lagrange((*held, 51))
        missing = as_scalar(candidate)
        for index, share in held.items():
            missing = subtract(missing, multiply(coefficients[index], share))
        last = divide(missing, coefficients[51])
        assert combine({**held, 51: last}) == candidate


def test_a_share_that_is_not_on_the_polynomial_is_seen() -> None:
    polynomial = Polynomial.through(SECRET, 3, RANDOM)
    commitments = check_commitments(polynomial.commitments(), 3)
    for index in range(1, 6):
        check_share(polynomial.at(index), commitments, index)
        assert public_share(commitments, index) == base_times(polynomial.at(index))
        with pytest.raises(ProofError, match=f"share {index}"):
            check_share(polynomial.at(index + 1), commitments, index)


def test_commitments_are_as_many_as_shares_are_needed() -> None:
    commitments = Polynomial.through(SECRET, 3, RANDOM).commitments()
    for wrong in (commitments[:2], (*commitments, commitments[0]), (*commitments[:2], bytes(32))):
        with pytest.raises(InvalidInput):
            check_commitments(wrong, 3)


def test_a_repeated_index_and_no_shares_are_no_input() -> None:
    with pytest.raises(InvalidInput, match="distinct"):
        lagrange((1, 2, 1))
    with pytest.raises(InvalidInput):
        combine({})
    with pytest.raises(InvalidInput):
        combine_points({})


def test_no_secret_in_its_text() -> None:
    assert SECRET.hex() not in repr(Polynomial.through(SECRET, 2, RANDOM))
