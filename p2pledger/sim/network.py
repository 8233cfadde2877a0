"""The unreliable network of a virtual world: who hears whom, how late, how often. It knows no bytes."""

import random

from p2pledger.sim.faults import Faults

TAIL_CAP_MS = 10_000
LATE_MS = (200, 3_000)
HEALED_DELAY_MS = (1, 20)


class Network:
    """Delays and cuts between n nodes, drawn from one stream."""

    def __init__(self, n: int, faults: Faults, chance: random.Random, links: frozenset[frozenset[int]] | None) -> None:
        self._n = n
        self._faults = faults
        self._chance = chance
        self._links = links
        self._cut: set[tuple[int, int]] = set()
        self._isolated: dict[int, int] = {}
        self.is_healed = False

    def may_link(self, a: int, b: int) -> bool:
        """Whether these two are ever linked."""
        return self._links is None or frozenset((a, b)) in self._links

    def deliveries(self, now: int, source: int, target: int) -> list[int]:
        """The delays in ms after which one message arrives: none if it is lost, two if it is doubled."""
        if not self.may_link(source, target):
            return []
        if self.is_healed:
            return [self._chance.randint(*HEALED_DELAY_MS)]
        if (source, target) in self._cut or self._is_isolated(now, source) or self._is_isolated(now, target):
            return []
        faults, chance = self._faults, self._chance
        if faults.loss and chance.random() < faults.loss:
            return []
        delays = [self._delay()]
        if faults.duplicate and chance.random() < faults.duplicate:
            delays.append(self._delay())
        return delays

    def _delay(self) -> int:
        faults, chance = self._faults, self._chance
        low, high = faults.delay_ms
        delay = chance.randint(low, high)
        if faults.heavy_tail and chance.random() < faults.heavy_tail:
            delay += min(TAIL_CAP_MS, int(high * chance.paretovariate(1.1)))
        if faults.slow and chance.random() < faults.slow:
            delay += chance.randint(*LATE_MS)
        return delay

    def isolate(self, node: int, until: int) -> None:
        """Cut one node off, both ways, until a moment."""
        self._isolated[node] = until

    def _is_isolated(self, now: int, node: int) -> bool:
        return self._isolated.get(node, 0) > now

    def shift(self) -> str | None:
        """Join a split network, or split it by chance; the name of what was done."""
        if self._cut:
            self._cut.clear()
            return None
        if self._chance.random() >= self._faults.partition:
            return None
        side = [self._chance.randint(0, 1) for _ in range(self._n)]
        is_one_way = self._chance.random() < self._faults.one_way
        for a in range(self._n):
            for b in range(self._n):
                if side[a] < side[b] or (side[a] > side[b] and not is_one_way):
                    self._cut.add((a, b))
        return "one-way partition" if is_one_way else "partition"

    def heal(self) -> None:
        """From now on everything that may be linked is, and delays are short."""
        self.is_healed = True
        self._cut.clear()
        self._isolated.clear()
