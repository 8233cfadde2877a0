"""The watch on the primary: whether it orders what waits, or passes something over (P24)."""

from p2pledger.chain.genesis import Founding
from p2pledger.consensus.events import PrimaryUnfair
from p2pledger.consensus.replica import Replica
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.dissemination import Dissemination

PATIENCE_TIMEOUTS = 4
"""For so many base timeouts of one view a batch may be left unordered."""


class PrimaryWatch:
    """Since when the present primary has had its chance, and what it did with it."""

    def __init__(self, founding: Founding, replica: Replica, batches: Dissemination, agenda: Agenda) -> None:
        self._patience_ms = PATIENCE_TIMEOUTS * founding.parameters.timeout_ms
        self._replica = replica
        self._batches = batches
        self._agenda = agenda
        self._view_since_ms = agenda.monotonic_ms

    def view_changed(self) -> None:
        """The view was left or entered: patience starts anew."""
        self._view_since_ms = self._agenda.monotonic_ms

    def complaint(self) -> PrimaryUnfair | None:
        """A batch was left unordered for four timeouts although the primary could order it."""
        oldest = self._batches.oldest_neglected_ms()
        if oldest is None or not self._replica.is_active:
            return None
        if self._agenda.monotonic_ms - max(oldest, self._view_since_ms) <= self._patience_ms:
            return None
        return PrimaryUnfair(self._replica.view)
