"""The moment of the event at hand, and the moments at which the engine wants to be called again."""

from p2pledger.engine.events import Now


class Agenda:
    """Named deadlines on the monotonic clock; setting one again replaces it."""

    def __init__(self, now: Now) -> None:
        self.now = now
        self._deadlines: dict[str, int] = {}

    @property
    def monotonic_ms(self) -> int:
        return self.now.monotonic_ms

    def at(self, name: str, monotonic_ms: int) -> None:
        self._deadlines[name] = monotonic_ms

    def after(self, name: str, delay_ms: int) -> None:
        self._deadlines[name] = self.now.monotonic_ms + delay_ms

    def cancel(self, name: str) -> None:
        self._deadlines.pop(name, None)

    def next(self) -> int | None:
        """The earliest deadline, or None."""
        return min(self._deadlines.values(), default=None)

    def take_due(self) -> list[str]:
        """The names whose moment has come, in a fixed order; they are off the agenda now."""
        due = sorted(name for name, at in self._deadlines.items() if at <= self.now.monotonic_ms)
        for name in due:
            del self._deadlines[name]
        return due
