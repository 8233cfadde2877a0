"""How much one peer may make us read per second. A pure token bucket; the caller brings the time."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """What one side may send for ever; a burst of `burst_s` seconds' worth comes on top."""

    bytes_per_s: float
    frames_per_s: float
    burst_s: float = 2.0


class Budget:
    """The purse of one connection. Spending more than is there puts it into debt, to be waited off."""

    __slots__ = ("_bytes", "_frames", "_now", "_rates")

    def __init__(self, rates: Rates, now: float) -> None:
        self._rates = rates
        self._now = now
        self._bytes = rates.bytes_per_s * rates.burst_s
        self._frames = rates.frames_per_s * rates.burst_s

    def spend(self, size: int, frames: int, now: float) -> float:
        """Pay for what was just read; the seconds not to read any more, 0.0 within the budget."""
        rates, passed = self._rates, now - self._now
        self._now = now
        self._bytes = min(self._bytes + passed * rates.bytes_per_s, rates.bytes_per_s * rates.burst_s) - size
        self._frames = min(self._frames + passed * rates.frames_per_s, rates.frames_per_s * rates.burst_s) - frames
        return max(0.0, -self._bytes / rates.bytes_per_s, -self._frames / rates.frames_per_s)
