"""The arithmetic behind every figure, without processes and clocks: quantiles, arrivals, Zipf, windows, gaps."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil

from p2pledger.primitives.errors import InvalidInput


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed (nearest rank).

    Raises InvalidInput for no values, and for a share that is none.
    """
    if not ordered:
        raise InvalidInput("a quantile of no values")
    if not 0 <= share <= 1:
        raise InvalidInput(f"quantile {share}; a share lies between 0 and 1")
    return ordered[max(0, ceil(share * len(ordered) - 1e-9) - 1)]


def cdf(ordered: Sequence[float], points: int = 200) -> list[tuple[float, float]]:
    """(value, share of the sorted values up to it) at evenly spaced shares, the largest always among them."""
    if not ordered:
        return []
    count = min(points, len(ordered))
    ranks = [ceil(k * len(ordered) / count) for k in range(1, count + 1)]
    return [(ordered[rank - 1], rank / len(ordered)) for rank in ranks]


def arrivals(rate: float, seconds: float, kind: str, rng: random.Random) -> list[float]:
    """Due times of an open loop, from 0 to `seconds`, fixed before anything is sent.

    They do not depend on when earlier transactions were answered. A latency that counts from them contains the time a
    transaction had to wait because the system, or the client, was held up: nothing is omitted in coordination with it.
    """
    if rate <= 0:
        raise InvalidInput(f"{rate:g} arrivals a second; a rate is above 0")
    if kind == "even":
        return [index / rate for index in range(ceil(rate * seconds - 1e-9))]
    if kind != "poisson":
        raise InvalidInput(f"arrivals {kind!r}; known are even, poisson")
    found: list[float] = []
    at = rng.expovariate(rate)
    while at < seconds:
        found.append(at)
        at += rng.expovariate(rate)
    return found


class Zipf:
    """Draws from 0 to count-1; the one of rank k (from 1) with a weight of 1 / k**exponent. Exponent 0: all alike."""

    def __init__(self, count: int, exponent: float) -> None:
        if count < 1 or exponent < 0:
            raise InvalidInput(f"Zipf over {count} with exponent {exponent:g}; at least 1, not negative")
        self._sums: list[float] = list(accumulate(1.0 / rank**exponent for rank in range(1, count + 1)))

    def draw(self, rng: random.Random) -> int:
        """The next one."""
        return min(bisect_right(self._sums, rng.random() * self._sums[-1]), len(self._sums) - 1)

    def share(self, index: int) -> float:
        """How likely `index` is."""
        return (self._sums[index] - (self._sums[index - 1] if index else 0.0)) / self._sums[-1]


def longest_gap(moments: Sequence[float], start: float, end: float) -> float:
    """The longest time in the window without any of these moments, its two ends counted as moments."""
    inside = [start, *sorted(moment for moment in moments if start <= moment <= end), end]
    return max(after - before for before, after in pairwise(inside))


def per_second(moments: Sequence[float], start: float, end: float, step: float = 1.0) -> list[tuple[float, float]]:
    """(seconds after `start`, moments a second) for each full step of the window."""
    counts = [0] * max(0, int((end - start) / step + 1e-9))
    for moment in moments:
        index = int((moment - start) // step)
        if 0 <= index < len(counts):
            counts[index] += 1
    return [(index * step, count / step) for index, count in enumerate(counts)]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle. InvalidInput of none."""
    if not values:
        raise InvalidInput("a median of no values")
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` as a multiple of `base`; None where either is missing or the base is 0."""
    return None if value is None or not base else value / base
