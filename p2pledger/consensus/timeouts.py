"""When to lose patience (P8) and when to repeat oneself (P16), as timers asked for; the clock is somebody else's."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from p2pledger.chain.genesis import Parameters
from p2pledger.consensus import effects as do
from p2pledger.consensus.effects import Effect


@dataclass(slots=True)
class Timer:
    """One named timer: setting it again voids the earlier one."""

    generation: int = 0
    is_running: bool = False

    def start(self) -> int:
        """The generation of a new run."""
        self.generation += 1
        self.is_running = True
        return self.generation

    def stop(self) -> None:
        self.generation += 1
        self.is_running = False

    def fires(self, generation: int) -> bool:
        """Whether this firing is of the current run; the run is over then."""
        if not self.is_running or generation != self.generation:
            return False
        self.is_running = False
        return True


def progress_delay_ms(base_ms: int, cap_ms: int, failures: int) -> int:
    """base × 2^k, capped; k = consecutive views without a commit."""
    return int(min(cap_ms, base_ms * 2 ** min(failures, 32)))


def retransmit_delay_ms(base_ms: int, cap_ms: int, repeats: int) -> int:
    """Half the base timeout at first, doubling, capped."""
    return int(min(cap_ms, max(1, base_ms // 2) * 2 ** min(repeats, 32)))


@dataclass(slots=True)
class Patience:
    """The two timers of a replica and how often each was in vain."""

    parameters: Parameters
    progress: Timer = field(default_factory=Timer)
    retransmit: Timer = field(default_factory=Timer)
    failures: int = 0
    """Consecutive views without a commit."""
    repeats: int = 0

    def demand_progress(self, is_wanted: bool) -> Iterator[Effect]:
        """The progress timer runs exactly while it is wanted (P8)."""
        if is_wanted and not self.progress.is_running:
            base_ms, cap_ms = self.parameters.timeout_ms, self.parameters.timeout_cap_ms
            yield do.SetTimer("progress", self.progress.start(), progress_delay_ms(base_ms, cap_ms, self.failures))
        elif not is_wanted:
            yield from self.stop_progress()

    def stop_progress(self) -> Iterator[Effect]:
        """What it waited for has happened, or is another matter now."""
        if self.progress.is_running:
            self.progress.stop()
            yield do.StopTimer("progress")

    def rearm(self) -> Iterator[Effect]:
        """The next repetition, later each time (P16)."""
        base_ms, cap_ms = self.parameters.timeout_ms, self.parameters.timeout_cap_ms
        yield do.SetTimer("retransmit", self.retransmit.start(), retransmit_delay_ms(base_ms, cap_ms, self.repeats))

    def height_committed(self) -> Iterator[Effect]:
        """There was progress: everything starts anew."""
        self.failures = self.repeats = 0
        yield from self.stop_progress()
        yield from self.rearm()

    def view_left(self) -> Iterator[Effect]:
        """A view ended without success."""
        self.failures += 1
        self.repeats = 0
        yield from self.stop_progress()
        yield from self.rearm()
