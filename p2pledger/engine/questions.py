"""Questions that draw costly answers, and how often each node may ask them (P23).

Who asks range by range asks again as soon as it has an answer, and no sooner than `ASK_MS` after its last question. On
their way two questions may come closer together than they were asked, so a few at once are answered; a flood is not.
"""

from p2pledger.engine.agenda import Agenda
from p2pledger.messages import RangeRequest, Status
from p2pledger.primitives.ids import NodeId

ASK_MS = 20
"""Between two costly answers to one node, in the long run."""
BURST = 8
"""Answered at once to who has not asked for a while."""


class Questions:
    """When each node last drew an answer of each kind."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._paid_ms: dict[tuple[NodeId, type], int] = {}
        """Until when the answers of each kind count that a node has had: `ASK_MS` each."""

    def may_ask(self, node: NodeId, message: Status | RangeRequest) -> bool:
        """Whether a node may draw another costly answer of this kind already; a flood of questions goes unanswered."""
        key = (node, type(message))
        now = self._agenda.monotonic_ms
        paid_ms = max(now, self._paid_ms.get(key, now)) + ASK_MS
        if paid_ms > now + BURST * ASK_MS:
            return False
        self._paid_ms[key] = paid_ms
        return True
