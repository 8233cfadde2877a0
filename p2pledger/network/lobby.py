"""Where connections wait until they have shown who they are: few, short and small (T2, T3).

Nobody in here is known, so a flood looks like everybody else. When the lobby is full the oldest visitor of the most
crowded address has to go: whoever floods from one address throws out only itself, and a flood from many still leaves
a member the time that a handshake takes.
"""

import errno
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pledger.network.frame import HEAD_BYTES, Tag, check_length
from p2pledger.primitives import limits
from p2pledger.primitives.errors import InvalidInput, Unavailable

_CAPACITY_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_CAPACITY_PAUSE_S = 0.1


class MeteredStream(trio.abc.Stream):
    """A transport that hands over at most `HANDSHAKE_BYTES_MAX` until its user is trusted."""

    def __init__(self, transport: trio.abc.Stream, bytes_max: int = limits.HANDSHAKE_BYTES_MAX) -> None:
        self._transport = transport
        self._bytes_max = bytes_max
        self._left: int | None = bytes_max

    def trust(self) -> None:
        """Lift the meter: the other side is known now."""
        self._left = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._left is None:
            return await self._transport.receive_some(max_bytes)
        if self._left == 0:
            raise InvalidInput(f"more than {self._bytes_max} bytes before the handshake was over")
        data = await self._transport.receive_some(min(max_bytes or self._left, self._left))
        if self._left is not None:  # it may have been lifted meanwhile
            self._left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._transport.aclose()


async def receive_first(stream: trio.abc.ReceiveStream, tag: Tag) -> bytes:
    """The body of the first frame, and not a byte more. Raises InvalidInput, or Unavailable when the stream ends."""
    head = await _receive_exactly(stream, HEAD_BYTES + 1)
    length = int.from_bytes(head[:HEAD_BYTES], "big")
    check_length(length, limits.HANDSHAKE_BYTES_MAX)
    if head[HEAD_BYTES] != tag:
        raise InvalidInput(f"first frame has tag {head[HEAD_BYTES]}, not {tag.value}")
    return await _receive_exactly(stream, length - 1)


async def _receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise Unavailable("closed by the other side during the handshake")
        data += more
    return data


@dataclass(eq=False, slots=True)
class _Visitor:
    address: str
    scope: trio.CancelScope


class Lobby:
    """At most `visitors_max` at a time, each for at most `seconds`."""

    def __init__(self, visitors_max: int, seconds: float = limits.HANDSHAKE_S_MAX) -> None:
        self.visitors_max = visitors_max
        self.seconds = seconds
        self.crowded_out = 0
        self._visitors: dict[_Visitor, None] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    @asynccontextmanager
    async def visit(self, address: str) -> AsyncIterator[None]:
        """Run a handshake from `address`. Raises Unavailable when it took too long or had to make room."""
        if len(self._visitors) >= self.visitors_max:
            self._make_room(address)
        with trio.move_on_after(self.seconds) as scope:
            visitor = _Visitor(address, scope)
            self._visitors[visitor] = None
            try:
                yield
            finally:
                self._visitors.pop(visitor, None)
        if scope.cancelled_caught:
            raise Unavailable(f"no handshake within {self.seconds:g} s, or crowded out by others")

    def _make_room(self, newcomer: str) -> None:
        [(crowd, _)] = Counter([*(visitor.address for visitor in self._visitors), newcomer]).most_common(1)
        oldest = next(visitor for visitor in self._visitors if visitor.address == crowd)
        del self._visitors[oldest]
        oldest.scope.cancel()
        self.crowded_out += 1


async def accept_forever(
    listener: trio.abc.Listener[trio.abc.Stream],
    handle: Callable[[trio.abc.Stream], Awaitable[None]],
    nursery: trio.Nursery,
    on_full: Callable[[], None],
) -> None:
    """Start `handle` for every connection; without file descriptors to spare, wait a moment and go on (T3)."""
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _CAPACITY_ERRORS:
                    raise
                on_full()
                await trio.sleep(_CAPACITY_PAUSE_S)
            else:
                nursery.start_soon(handle, stream)
