"""A network in memory for whole nodes: connections with latency, windows, stalls, resets and partitions.

It promises what TCP promises and no more. A direction of a connection delivers its bytes in order, in pieces of any
size; a partition holds them back until it ends; a reset loses what is under way; nobody is told of a dead host behind
a partition. TLS is left out: this network knows whose the two ends are, and says so. Everything random about it comes
from one generator, and everybody who asks for random bytes gets them from there.

Whatever is sent passes the `tap` first, frame by frame, as a listener on the wire would see it.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from random import Random

import trio

from p2pledger.network.frame import HEAD_BYTES
from p2pledger.network.transport import IsExpected, Listening, PeerSecurity, Secured
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, PeerFault
from p2pledger.primitives.ids import NodeId

WINDOW_BYTES = 256 * 1024
"""Bytes under way in one direction at which a sender has to wait, as for a TCP window."""
TICK_S = 0.002
"""Everything arrives on a tick. What arrives on the same one is taken in random order, so no order is lost by it, and
tasks wake up once for many messages."""
PIECES = 0.02
"""Share of writes that arrive in two pieces."""
CARD_BYTES = 33
"""What an end says first in place of a TLS handshake: one byte for the protocol, then its key."""
PEER, CLIENT = b"P", b"C"
NOBODY = NodeId(bytes(32))

Tap = Callable[[str, str, int, bytes], None]
"""Called with (source, target, frame tag, body) for every frame that is written to a connection."""


class MemoryNetwork:
    """Hosts by name, what stands between them, and all their connections."""

    def __init__(self, chance: Random, tap: Tap) -> None:
        self.chance = chance
        self.tap = tap
        self.delay_s: tuple[float, float] = (0.001, 0.01)
        self.slowness: dict[str, float] = {}
        """Factor on the latency of whatever a host sends."""
        self.blocked: set[tuple[str, str]] = set()
        """(source, target) between which nothing passes."""
        self.frames = 0
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._streams: dict[MemoryStream, None] = {}
        self._arrivals: list[tuple[float, int, Pipe]] = []
        self._order = 0
        self._next_s = math.inf
        self._earlier = trio.lowlevel.ParkingLot()

    async def deliver(self) -> None:
        """The courier: wakes the reader of a connection when something arrives there; until cancelled."""
        while True:
            now = trio.current_time()
            while self._arrivals and self._arrivals[0][0] <= now:
                heapq.heappop(self._arrivals)[2].changed.unpark_all()
            self._next_s = self._arrivals[0][0] if self._arrivals else math.inf
            with trio.move_on_at(self._next_s):
                await self._earlier.park()

    def arrives(self, at: float, pipe: "Pipe") -> None:
        """Wake the reader of `pipe` at a moment to come."""
        self._order += 1
        heapq.heappush(self._arrivals, (at, self._order, pipe))
        if at < self._next_s:
            self._next_s = at
            self._earlier.unpark()

    # What a schedule does

    def block(self, ways: Iterable[tuple[str, str]]) -> None:
        """Hold back everything on exactly these ways from now on; other ways are open."""
        self.blocked = set(ways)
        for stream in self._streams:
            stream.inward.wake()

    def reset(self, stream: "MemoryStream") -> None:
        """Break a connection at both ends: what is under way is lost, but for what arrives before the news."""
        for end in (stream, stream.other):
            end.inward.lose(self.chance)

    def unplug(self, host: str) -> None:
        """The host's process is gone at this instant: nothing more leaves it, its connections break."""
        for address in [address for address in self._listeners if address[0] == host]:
            del self._listeners[address]
        for stream in [stream for stream in self._streams if stream.host == host]:
            stream.die()

    def connections(self) -> list["MemoryStream"]:
        """The dialing ends of all that stand, in the order in which they were made."""
        return [stream for stream in self._streams if stream.is_dialer]

    # What transports do

    def listen(self, host: str, port: int) -> "MemoryListener":
        if (host, port) in self._listeners:
            raise OSError(98, f"{host}:{port} is in use")
        listener = MemoryListener(lambda: self._listeners.pop((host, port), None))
        self._listeners[host, port] = listener
        return listener

    async def connect(self, source: str, target: str, port: int) -> "MemoryStream":
        """One way there and one back; behind a partition there is no answer, only the caller's patience."""
        await trio.sleep(self.latency(source, target) + self.latency(target, source))
        if (source, target) in self.blocked or (target, source) in self.blocked:
            await trio.sleep_forever()
        listener = self._listeners.get((target, port))
        if listener is None:
            raise ConnectionRefusedError(111, f"nobody listens at {target}:{port}")
        there, back = Pipe(self, source, target), Pipe(self, target, source)
        dialing, accepting = MemoryStream(self, source, back, there), MemoryStream(self, target, there, back)
        dialing.other, accepting.other, dialing.is_dialer = accepting, dialing, True
        self._streams |= {dialing: None, accepting: None}
        listener.offer(accepting)
        return dialing

    def latency(self, source: str, target: str) -> float:
        low, high = self.delay_s
        return (low + (high - low) * self.chance.random()) * self.slowness.get(source, 1.0)

    def forget(self, stream: "MemoryStream") -> None:
        self._streams.pop(stream, None)


class Pipe:
    """One direction of a connection: what is under way, and when each piece arrives."""

    __slots__ = ("_network", "_skip", "_unparsed", "arrived", "changed", "is_lost", "reader_is_gone", "room", "route",
                 "size", "under_way")  # fmt: skip

    def __init__(self, network: MemoryNetwork, source: str, target: str) -> None:
        self.route = (source, target)
        self.under_way: deque[tuple[float, bytes]] = deque()
        """(moment of arrival, bytes); empty bytes are the end of the stream."""
        self.arrived = b""
        self.size = 0
        self.is_lost = False
        self.reader_is_gone = False
        self.changed = trio.lowlevel.ParkingLot()
        self.room = trio.lowlevel.ParkingLot()
        self._network = network
        self._skip = CARD_BYTES
        self._unparsed = b""

    @property
    def is_blocked(self) -> bool:
        return self.route in self._network.blocked

    def put(self, data: bytes) -> None:
        """Send bytes on their way, none of them before what was sent earlier; empty for the end of the stream."""
        network = self._network
        if data and network.chance.random() < PIECES and len(data) > 1:
            cut = network.chance.randrange(1, len(data))
            self._put(data[:cut])
            data = data[cut:]
        self._put(data)

    def _put(self, data: bytes) -> None:
        at = math.ceil((trio.current_time() + self._network.latency(*self.route)) / TICK_S) * TICK_S
        if self.under_way:
            at = max(at, self.under_way[-1][0])
        self.under_way.append((at, data))
        self.size += len(data)
        self._network.arrives(at, self)

    def listen_in(self, data: bytes) -> None:
        """Tell the tap of every frame that `data` completes."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._unparsed:
            data = self._unparsed + data
        start, end = 0, len(data)
        while end - start > HEAD_BYTES:
            stop = start + HEAD_BYTES + int.from_bytes(data[start : start + HEAD_BYTES], "big")
            if stop > end:
                break
            self._network.frames += 1
            body = data[start + HEAD_BYTES + 1 : stop]
            self._network.tap(self.route[0], self.route[1], data[start + HEAD_BYTES], body)
            start = stop
        self._unparsed = data[start:]

    async def take(self, most: int) -> bytes:
        """Bytes that have arrived, at least one, waiting for them; empty at the end of the stream."""
        while True:
            if self.is_lost:
                raise trio.BrokenResourceError("connection reset by the other side")
            if self.reader_is_gone:
                raise trio.ClosedResourceError("closed on this side")
            if not self.arrived and not self.is_blocked:
                self._collect()
            if self.arrived:
                data, self.arrived = self.arrived[:most], self.arrived[most:]
                self.size -= len(data)
                if self.size < WINDOW_BYTES:
                    self.room.unpark_all()
                return data
            if self.under_way and not self.is_blocked:
                at, first = self.under_way[0]
                if at <= trio.current_time() and not first:
                    return b""
            await self.changed.park()

    def _collect(self) -> None:
        now, pieces = trio.current_time(), []
        while self.under_way and self.under_way[0][0] <= now and self.under_way[0][1]:
            pieces.append(self.under_way.popleft()[1])
        self.arrived = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def lose(self, chance: Random) -> None:
        """The reader finds the connection broken: now, or after some more of what was under way."""
        if chance.random() < 0.5:
            self.is_lost = True
            self.wake()
            return
        keep = chance.randint(0, len(self.under_way))
        while len(self.under_way) > keep:
            self.under_way.pop()
        if self.under_way and not self.under_way[-1][1]:
            self.under_way.pop()
        self._put(b"")

    def wake(self) -> None:
        self.changed.unpark_all()
        self.room.unpark_all()


class MemoryStream(trio.abc.Stream):
    """One end of a connection."""

    other: "MemoryStream"

    def __init__(self, network: MemoryNetwork, host: str, inward: Pipe, outward: Pipe) -> None:
        self.host = host
        self.inward = inward
        self.outward = outward
        self.is_dialer = False
        self._network = network
        self._is_closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await self._wait_for_room()
        sent = bytes(data)
        self.outward.put(sent)
        self.outward.listen_in(sent)  # after it is on its way, for who listens may kill this host for it

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while True:
            if self._is_closed:
                raise trio.ClosedResourceError("closed on this side")
            if self.outward.reader_is_gone and not self.outward.is_blocked:
                raise trio.BrokenResourceError("the other side is gone")
            if self.outward.size < WINDOW_BYTES:
                return
            await self.outward.room.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return await self.inward.take(max_bytes or WINDOW_BYTES)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End it in order: what was written still arrives."""
        if not self._is_closed:
            self.outward.put(b"")
            self._leave()

    def die(self) -> None:
        """End it as a dead process does: some of what was written still arrives."""
        if not self._is_closed:
            self.outward.lose(self._network.chance)
            self._leave()

    def _leave(self) -> None:
        self._is_closed = True
        self.inward.reader_is_gone = True
        self.inward.wake()
        self.outward.wake()
        self._network.forget(self)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Where connections to one address arrive."""

    def __init__(self, on_close: Callable[[], object]) -> None:
        self._on_close = on_close
        self._is_closed = False
        self._send, self._arrivals = trio.open_memory_channel[MemoryStream](1024)

    def offer(self, stream: MemoryStream) -> None:
        self._send.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._on_close()
            self._arrivals.close()
        await trio.lowlevel.checkpoint()


class MemoryTransport:
    """A host's access to the network. It shows the key `own`; a client has none."""

    def __init__(self, network: MemoryNetwork, host: str, own: NodeId = NOBODY) -> None:
        self._network = network
        self._host = host
        self._own = own

    async def listen(self, host: str, port: int) -> Listening:
        return Listening([self._network.listen(host, port)], port)

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        return await self._network.connect(self._host, host, port)

    def origin(self, stream: trio.abc.Stream) -> str:
        assert isinstance(stream, MemoryStream)
        return stream.other.host

    def peer_security(self, key: SigningKey, certificate: bytes) -> PeerSecurity:
        return _Introductions(NodeId(key.public))

    def client_port(self, key: SigningKey, certificate: bytes) -> Callable[[trio.abc.Stream], Secured[None]]:
        own = NodeId(key.public)

        def secured(stream: trio.abc.Stream) -> Secured[None]:
            async def shake() -> None:
                await _introduce(stream, CLIENT, own)

            return Secured(stream, shake)

        return secured

    def to_client_port(self, stream: trio.abc.Stream, server: NodeId) -> Secured[NodeId]:
        return _introduction(stream, CLIENT, self._own, lambda shown: shown == server)

    def random_bytes(self, size: int) -> bytes:
        return self._network.chance.randbytes(size)


class _Introductions:
    """Nodes that tell each other who they are, and are believed: nobody lies at this seam."""

    def __init__(self, own: NodeId) -> None:
        self._own = own

    def trust(self, members: Iterable[bytes]) -> None:
        """Certificates are TLS's business."""

    def accept(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        return _introduction(stream, PEER, self._own, is_expected)

    def dial(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        return _introduction(stream, PEER, self._own, is_expected)


def _introduction(stream: trio.abc.Stream, protocol: bytes, own: NodeId, is_expected: IsExpected) -> Secured[NodeId]:
    async def shake() -> NodeId:
        shown = await _introduce(stream, protocol, own)
        if not is_expected(shown):
            raise PeerFault(shown, f"is not who was expected: its key is {shown.hex()}")
        return shown

    return Secured(stream, shake)


async def _introduce(stream: trio.abc.Stream, protocol: bytes, own: NodeId) -> NodeId:
    await stream.send_all(protocol + own)
    card = b""
    while len(card) < CARD_BYTES:
        more = await stream.receive_some(CARD_BYTES - len(card))
        if not more:
            raise trio.BrokenResourceError("closed by the other side during the handshake")
        card += bytes(more)
    if card[:1] != protocol:
        raise InvalidInput(f"the other side speaks {card[:1]!r}, not {protocol!r}")
    return NodeId(card[1:])
