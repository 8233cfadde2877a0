"""A client's connections to several nodes, made when needed and made again when they broke.

A node reads nothing more from a session that has too many questions open, so many calls go over several sessions.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pledger.network.api import Question, Reply, SubmitMany
from p2pledger.network.connection import ClientConnection, connect
from p2pledger.network.transport import TLS_OVER_TCP, Transport
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import ChainId, NodeId

_CALLS_MAX = 192
"""Open calls on one session before the next one is opened; nodes stop reading at 256."""
_SESSIONS_MAX = 6
"""To one node; it takes 16 of one account."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where a node's client port is, and the key that must answer there."""

    host: str
    port: int
    key: NodeId

    def __str__(self) -> str:
        return f"node {self.key[:4].hex()} at {self.host}:{self.port}"


@dataclass(slots=True, eq=False)
class _Lane:
    connection: ClientConnection
    scope: trio.CancelScope
    calls: int = 0


class Links:
    """Sessions with the nodes of one ledger in the name of one account."""

    def __init__(
        self,
        nursery: trio.Nursery,
        chain: ChainId,
        nodes: Sequence[Node],
        account: SigningKey,
        transport: Transport = TLS_OVER_TCP,
    ) -> None:
        """Raises InvalidInput without nodes, or with one twice."""
        if not nodes or len({node.key for node in nodes}) != len(nodes):
            raise InvalidInput(f"{len(nodes)} nodes to connect to; at least one, and each once, is needed")
        self._nursery = nursery
        self._chain = chain
        self._nodes = tuple(nodes)
        self._account = account
        self._transport = transport
        self._first = 0
        self._lanes: dict[NodeId, list[_Lane]] = {node.key: [] for node in nodes}
        self._opening = {node.key: trio.Lock() for node in nodes}

    @property
    def preferred(self) -> Node:
        """Whom to ask first."""
        return self._nodes[self._first]

    def in_order(self) -> Iterator[Node]:
        """All nodes, the preferred one first."""
        first = self._first
        for offset in range(len(self._nodes)):
            yield self._nodes[(first + offset) % len(self._nodes)]

    def pass_over(self) -> None:
        """Prefer the next node from now on."""
        self._first = (self._first + 1) % len(self._nodes)

    async def call(self, node: Node, request: Question) -> Reply:
        """The node's reply. Raises Unavailable, PeerFault, Rejected and InvalidInput, as a connection does."""
        lane = await self._lane(node)
        lane.calls += 1
        try:
            return await lane.connection.call(request)
        finally:
            lane.calls -= 1

    @asynccontextmanager
    async def submit_many(self, node: Node, request: SubmitMany) -> AsyncIterator[trio.MemoryReceiveChannel[Reply]]:
        """The node's replies, which are to be taken as they come; they end early where the connection breaks.

        Raises what `call` does.
        """
        lane = await self._lane(node)
        lane.calls += 1
        try:
            with lane.connection.subscribe(request) as replies:
                yield replies
        finally:
            lane.calls -= 1

    async def _lane(self, node: Node) -> _Lane:
        lane = self._free_lane(node)
        if lane is not None:
            return lane
        async with self._opening[node.key]:
            lane = self._free_lane(node)  # another call may have opened one while we waited
            if lane is None:
                lane = await self._nursery.start(self._hold, node)
                self._lanes[node.key].append(lane)
        return lane

    def _free_lane(self, node: Node) -> _Lane | None:
        lanes = self._lanes[node.key]
        for broken in [lane for lane in lanes if not lane.connection.is_open]:
            broken.scope.cancel()
            lanes.remove(broken)
        least = min(lanes, key=lambda lane: lane.calls, default=None)
        if least is None or (least.calls >= _CALLS_MAX and len(lanes) < _SESSIONS_MAX):
            return None
        return least

    async def _hold(self, node: Node, task_status: trio.TaskStatus[_Lane]) -> None:
        with trio.CancelScope() as scope:
            account, transport = self._account, self._transport
            async with connect(node.host, node.port, node.key, account, self._chain, transport) as connection:
                task_status.started(_Lane(connection, scope))
                await trio.sleep_forever()
