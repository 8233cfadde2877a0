"""Questions that draw costly answers, and how often each node may ask them (P23)."""

from p2pledger.engine.agenda import Agenda
from p2pledger.messages import RangeRequest, Status
from p2pledger.primitives.ids import NodeId

ASK_MS = 20
"""Between two costly answers to one node: an honest one asks every few hundred milliseconds, or range by range."""


class Questions:
    """When each node last drew an answer of each kind."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._answered_ms: dict[tuple[NodeId, type], int] = {}

    def may_ask(self, node: NodeId, message: Status | RangeRequest) -> bool:
        """Whether a node may draw another costly answer of this kind already; a flood of questions goes unanswered."""
        key = (node, type(message))
        now = self._agenda.monotonic_ms
        if now - self._answered_ms.get(key, -ASK_MS) < ASK_MS:
            return False
        self._answered_ms[key] = now
        return True
