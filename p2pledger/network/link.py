"""One link between two nodes: who is there, what it sends, what it is sent.

Both sides say Hello as their first frame; after that a link carries messages both ways until one side drops it.
"""

import math
from dataclasses import dataclass

import trio

from p2pledger.network.budget import Budget, Rates
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import receive_first
from p2pledger.network.outbox import Outbox
from p2pledger.network.tls import tls_reason
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import InvalidInput, PeerFault
from p2pledger.primitives.ids import U64, ChainId, NodeId, short

WIRE_VERSION = 1
"""Of everything in docs/wire.md; nodes of different versions do not talk, so that none has to guess."""
RECEIVE_BYTES = 256 * 1024


class PeerHello(Record, frozen=True):
    """The first frame of either side: which language, which chain, who."""

    version: U64
    chain: ChainId
    node: NodeId


def encode_hello(hello: PeerHello) -> bytes:
    """The frame of a hello."""
    return encode_frame(encode(hello), Tag.HELLO)


def check_hello(data: bytes, chain: ChainId, proven: NodeId) -> PeerHello:
    """The other side's hello. Raises PeerFault naming what differs; `proven` is the key that TLS has proven (T4)."""
    try:
        hello = decode(PeerHello, data, limits.HANDSHAKE_BYTES_MAX)
    except InvalidInput as error:
        raise PeerFault(proven, str(error)) from error
    if hello.version != WIRE_VERSION:
        raise PeerFault(proven, f"speaks wire version {hello.version}, this is {WIRE_VERSION}")
    if hello.chain != chain:
        raise PeerFault(proven, f"is of chain {hello.chain.hex()}, this is {chain.hex()}")
    if hello.node != proven:
        raise PeerFault(proven, f"calls itself {hello.node.hex()}, its key is {proven.hex()}")
    return hello


async def exchange_hellos(stream: trio.abc.Stream, own: PeerHello, proven: NodeId) -> PeerHello:
    """Say hello and hear the other side's. Raises PeerFault, Unavailable or what the stream raises."""
    await stream.send_all(encode_hello(own))
    try:
        return check_hello(await receive_first(stream, Tag.HELLO), own.chain, proven)
    except InvalidInput as error:
        raise PeerFault(proven, str(error)) from error


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link stands; what was said on an earlier one may be lost."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is gone."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """A dialed node could not be reached or was not who it should be; said once until the reason changes."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Frames:
    """The bodies of all messages that one read completed, in order."""

    node: NodeId
    bodies: list[bytes]


LinkEvent = LinkUp | LinkDown | LinkFailed | Frames


PEER_RATES = Rates(bytes_per_s=32 * 1024 * 1024, frames_per_s=20_000)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Local choices about links; none of them is agreed on with anybody."""

    rates: Rates = PEER_RATES
    """Far above what an honest node sends; one validator alone must not fill the others' processors."""
    out_bytes_max: int = 2 * limits.FRAME_BYTES_MAX
    inbox_batches: int = 64
    ping_s: float = 10.0
    silence_s: float = 30.0
    """Without a complete frame for so long a link is dropped, so a dripped frame cannot hold it open (T2)."""
    backoff_s_min: float = 0.1
    backoff_s_max: float = 5.0
    quarantine_s: float = 2.0
    """A node that was disconnected for a fault is not talked to for so long."""
    pre_auth_max: int = 64


@dataclass(slots=True)
class LinkCounters:
    """For metrics: plain numbers that only grow."""

    links_up: int = 0
    links_down: int = 0
    handshakes_failed: int = 0
    refused: int = 0
    """Connections to us that did not become a link."""
    out_queue_full: int = 0
    throttled: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    accept_pauses: int = 0
    oversized: int = 0
    """Messages of ours that were longer than a frame and not sent: a defect on this side."""
    """Times the accept loop had no file descriptor."""


class Link:
    """A link that stands, from the first message to its end."""

    def __init__(
        self, node: NodeId, dialer: NodeId, stream: trio.abc.Stream, settings: LinkSettings, counters: LinkCounters
    ) -> None:
        self.node = node
        self.dialer = dialer
        self.closed = trio.Event()
        self._stream = stream
        self._settings = settings
        self._counters = counters
        self._outbox = Outbox(settings.out_bytes_max)
        self._scope = trio.CancelScope()
        self._reason = "closed by the other side"
        self.is_up = True
        """Nobody has dropped it yet."""

    @property
    def unsent_bytes(self) -> int:
        """What waits to be written."""
        return self._outbox.size

    def push(self, frame: bytes) -> bool:
        """Queue a frame. A full queue drops the link instead.

        To leave out frames in the middle would be a gap that nobody notices, and to keep them all would let one slow
        peer take our memory. On a new link both sides say where they stand (P16, P20), so nothing stays lost.
        """
        if not self.is_up:
            return False
        if not self._outbox.push(frame):
            self._counters.out_queue_full += 1
            self.drop(f"read too slowly: {self._outbox.size} bytes waiting, the limit is {self._outbox.bytes_max}")
            return False
        self._counters.bytes_out += len(frame)
        self._counters.messages_out += 1
        return True

    def drop(self, reason: str) -> None:
        """End the link; the first reason stands."""
        if self.is_up:
            self.is_up = False
            self._reason = reason
            self._scope.cancel()

    async def run(self, events: trio.MemorySendChannel[LinkEvent]) -> str:
        """Carry messages until the link ends; why it ended."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read(events)
        return self._reason

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._stream, self._settings.ping_s)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.drop(f"broken: {tls_reason(error)}")

    async def _read(self, events: trio.MemorySendChannel[LinkEvent]) -> None:
        decoder = FrameDecoder(limits.FRAME_BYTES_MAX)
        budget = Budget(self._settings.rates, trio.current_time())
        with trio.CancelScope() as silence:
            try:
                await self._read_until_end(decoder, budget, silence, events)
            except InvalidInput as error:
                self.drop(str(error))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.drop(f"broken: {tls_reason(error)}")
        if silence.cancelled_caught:
            self.drop(f"no complete frame for {self._settings.silence_s:g} s")
        self.drop(self._reason)

    async def _read_until_end(
        self,
        decoder: FrameDecoder,
        budget: Budget,
        silence: trio.CancelScope,
        events: trio.MemorySendChannel[LinkEvent],
    ) -> None:
        counters = self._counters
        unpaid = 0
        silence.deadline = trio.current_time() + self._settings.silence_s
        while data := await self._stream.receive_some(RECEIVE_BYTES):
            before = decoder.frames
            bodies = decoder.feed(bytes(data))
            counters.bytes_in += len(data)
            unpaid += len(data)
            if decoder.frames == before:
                continue
            counters.messages_in += len(bodies)
            silence.deadline = math.inf  # while we do not read, the silence is ours
            pause_s = budget.spend(unpaid, decoder.frames - before, trio.current_time())
            unpaid = 0
            if bodies:
                batch = Frames(self.node, bodies)
                try:
                    events.send_nowait(batch)
                except trio.WouldBlock:
                    await events.send(batch)  # a full inbox stops the reading, and so the other side
            if pause_s:
                counters.throttled += 1
                await trio.sleep(pause_s)
            silence.deadline = trio.current_time() + self._settings.silence_s

    def __repr__(self) -> str:
        return f"Link({short(self.node)}, dialed by {short(self.dialer)})"
