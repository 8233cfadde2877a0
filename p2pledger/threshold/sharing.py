"""Shamir's secret sharing with Feldman's commitments.

1. The dealer chooses a polynomial p of degree t − 1 with p(0) the secret, and publishes C_k = p_k·B (Feldman 1987).
2. The share of index i, from 1 on, is p(i).
3. Whoever holds a share checks p(i)·B = Σ i^k·C_k, and so that it is of the same polynomial as everybody's.
4. Any t shares give p(0) = Σ λ_i·p(i) (Lagrange); the same coefficients work on points p(i)·U (Shamir 1979).

Fewer than t shares say nothing about the secret: for each value of it there is a polynomial through them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.threshold.group import (
    Point,
    Random,
    Scalar,
    add,
    as_point,
    as_point_times,
    base_times,
    divide,
    multiply,
    plus,
    public_scalar,
    random_scalar,
    subtract,
    times,
    total,
)

_ONE = public_scalar(1)


class Polynomial:
    """A secret polynomial; its text form never shows it."""

    __slots__ = ("_coefficients",)

    def __init__(self, coefficients: Sequence[Scalar]) -> None:
        assert coefficients, "a polynomial has at least one coefficient"
        self._coefficients = tuple(coefficients)

    def __repr__(self) -> str:
        return f"Polynomial(degree={len(self._coefficients) - 1})"

    @staticmethod
    def through(secret: Scalar, threshold: int, random: Random) -> "Polynomial":
        """Random but for its value at 0; `threshold` of its shares give the secret."""
        return Polynomial((secret, *(random_scalar(random) for _ in range(threshold - 1))))

    def at(self, index: int) -> Scalar:
        """The share of an index, 1 or more."""
        x = public_scalar(index)
        *rest, value = self._coefficients
        for coefficient in reversed(rest):
            value = add(multiply(value, x), coefficient)
        return value

    def commitments(self) -> tuple[Point, ...]:
        """C_0 … C_(t−1), to be published."""
        return tuple(base_times(coefficient) for coefficient in self._coefficients)


def check_commitments(data: Sequence[bytes], threshold: int) -> tuple[Point, ...]:
    """The commitments of a polynomial; raises InvalidInput unless they are `threshold` points of the group."""
    if len(data) != threshold:
        raise InvalidInput(f"{len(data)} commitments to a polynomial of threshold {threshold}")
    return tuple(as_point(point) for point in data)


def public_share(commitments: Sequence[Point], index: int) -> Point:
    """p(index)·B, from the commitments alone; raises ProofError where it is the identity."""
    x = public_scalar(index)
    *rest, value = commitments
    for commitment in reversed(rest):
        value = plus(times(x, value), commitment)
    return value


def check_share(share: Scalar, commitments: Sequence[Point], index: int) -> None:
    """Raises ProofError unless `share` is that of `index` on the committed polynomial."""
    if base_times(share) != public_share(commitments, index):
        raise ProofError(f"share {index} is not on the committed polynomial")


def lagrange(indices: Sequence[int]) -> dict[int, Scalar]:
    """λ_i for each index, so that p(0) = Σ λ_i·p(i). Raises InvalidInput for an index that stands there twice."""
    if len(set(indices)) != len(indices):
        raise InvalidInput(f"indices {sorted(indices)} are not distinct")
    return dict(_coefficients(tuple(indices)))


@lru_cache(maxsize=64)
def _coefficients(indices: tuple[int, ...]) -> tuple[tuple[int, Scalar], ...]:
    """All public, and the same for each record that the same holders open."""
    return tuple((index, _coefficient(index, indices)) for index in indices)


def _coefficient(index: int, indices: Sequence[int]) -> Scalar:
    """Π j/(j − i) over the other indices; all of it public."""
    numerator, denominator = _ONE, _ONE
    own = public_scalar(index)
    for other in indices:
        if other != index:
            x = public_scalar(other)
            numerator, denominator = multiply(numerator, x), multiply(denominator, subtract(x, own))
    return divide(numerator, denominator)


def combine(shares: Mapping[int, Scalar]) -> Scalar:
    """p(0) from exactly threshold-many shares by index; of wrong shares, something else."""
    value: Scalar | None = None
    for index, coefficient in lagrange(tuple(shares)).items():
        part = multiply(coefficient, shares[index])
        value = part if value is None else add(value, part)
    if value is None:
        raise InvalidInput("no shares to combine")
    return value


def combine_points(shares: Mapping[int, bytes]) -> Point:
    """p(0)·U from exactly threshold-many p(i)·U by index; raises InvalidInput where one is no point of the group."""
    if not shares:
        raise InvalidInput("no shares to combine")
    coefficients = lagrange(tuple(shares))
    return total(as_point_times(shares[index], coefficient)[1] for index, coefficient in coefficients.items())
