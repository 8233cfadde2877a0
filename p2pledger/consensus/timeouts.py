"""When to lose patience (P8) and when to repeat oneself (P16), as delays; the clock is somebody else's."""

from dataclasses import dataclass


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
