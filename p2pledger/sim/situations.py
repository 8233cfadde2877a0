"""Situations worth having been in, seen from inside a node: counted, never judged (that is the observer's part)."""

from collections import Counter

from p2pledger.consensus.messages import NewView, Signed
from p2pledger.consensus.replica import Replica


class Situations:
    """Watches one engine's replica from turn to turn; each situation counts once for each place it occurs in."""

    def __init__(self, reached: Counter[str]) -> None:
        self._reached = reached
        self._seen: set[tuple[str, int, int]] = set()

    def after_turn(self, replica: Replica) -> None:
        """What the turn has led to."""
        if replica.is_active:
            blocks = replica.accepted.blocks
            if blocks and max(blocks) == replica.committed + replica.parameters.window:
                self._count("window full", replica.view, replica.committed)
            if replica.view >= 3 and replica.committed > 0:
                self._count("committed in view 3 or later", replica.view, replica.committed)
        elif replica.is_primary and replica.may_sign and replica.view_changes.quorum_for(replica.view) is not None:
            self._count("primary lacks the tip", replica.view, 0)

    def before_check(self, replica: Replica, signed: Signed) -> None:
        """A statement is worth verifying."""
        if isinstance(signed.message, NewView) and replica.is_active and signed.message.view == replica.view:
            self._count("second new view offered", replica.view, 0)

    def _count(self, name: str, view: int, height: int) -> None:
        if (name, view, height) not in self._seen:
            self._seen.add((name, view, height))
            self._reached[name] += 1
