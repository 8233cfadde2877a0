"""A client's connection to one node: pinned, authenticated, with any number of calls under way."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec
import trio

from p2pledger.network.api import Challenge, Failure, Question, Reply, SubmitMany, Welcome
from p2pledger.network.authentication import make_hello
from p2pledger.network.feed_api import Subscribe
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import MeteredStream, receive_first
from p2pledger.network.outbox import Outbox
from p2pledger.network.tls import tls_reason
from p2pledger.network.transport import TLS_OVER_TCP, Transport
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, Rejected, Unavailable
from p2pledger.primitives.ids import ChainId, NodeId

CONNECT_S_MAX = 10.0
_PING_S = 30.0
_OUT_BYTES_MAX = 16 * limits.CLIENT_FRAME_BYTES_MAX
_RECEIVE_BYTES = 256 * 1024
_STREAM_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@asynccontextmanager
async def connect(
    host: str,
    port: int,
    server: NodeId,
    account: SigningKey,
    chain: ChainId,
    transport: Transport = TLS_OVER_TCP,
) -> "AsyncIterator[ClientConnection]":
    """A connection to the node with the key `server`, in the name of `account`.

    Raises Unavailable when the node cannot be reached or is full, PeerFault when another key or chain answers, Rejected
    when the node does not accept the account's signature. What the body raises comes out as it is.
    """
    async with _authenticated(host, port, server, account, chain, transport) as (stream, role):
        connection = ClientConnection(server, role)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection._write, stream)
            nursery.start_soon(connection._read, stream)
            try:
                yield connection
            except Exception as error:  # a nursery would wrap it into a group
                failure = error
            connection._end("this side has closed it")
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


class ClientConnection:
    """Calls to one node. Made by `connect`."""

    def __init__(self, server: NodeId, role: str) -> None:
        self.server = server
        self.role = role
        """What the node takes our account for."""
        self._outbox = Outbox(_OUT_BYTES_MAX)
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Call] = {}
        self._streams: dict[int, trio.MemorySendChannel[Reply]] = {}
        self._ended: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls still have a chance."""
        return self._ended is None

    async def call(self, request: Question) -> Reply:
        """The reply to `request`, whose id is set here; a Failure is a reply. Raises Unavailable, InvalidInput."""
        number = self._send(request)
        call = self._waiting[number] = _Call()
        try:
            await call.done.wait()
        finally:
            self._waiting.pop(number, None)
        if call.reply is None:
            raise Unavailable(f"the connection to the node broke: {self._ended}")
        return call.reply

    def _send(self, request: Question | Subscribe | SubmitMany) -> int:
        """Its id, set here. Raises Unavailable, InvalidInput."""
        if self._ended is not None:
            raise Unavailable(f"no connection to the node: {self._ended}")
        number = next(self._ids)
        frame = encode_frame(encode(msgspec.structs.replace(request, id=number)))
        if len(frame) > limits.CLIENT_FRAME_BYTES_MAX:
            raise InvalidInput(f"request of {len(frame)} bytes, the limit is {limits.CLIENT_FRAME_BYTES_MAX}")
        if not self._outbox.push(frame):
            raise Unavailable(f"{self._outbox.size} bytes wait to be sent to the node, the limit is {_OUT_BYTES_MAX}")
        return number

    @contextmanager
    def subscribe(self, request: Subscribe | SubmitMany) -> Iterator[trio.MemoryReceiveChannel[Reply]]:
        """The replies to what has many of them, its id set here; they end with the connection (`ended` says why).

        While a reply is not taken, nothing more is read from the node: for a feed, use a connection of its own.
        Raises Unavailable where there is no connection any more, and InvalidInput.
        """
        number = self._send(request)
        replies, received = trio.open_memory_channel[Reply](0)
        self._streams[number] = replies
        try:
            yield received
        finally:
            self._streams.pop(number, None)
            replies.close()
            received.close()

    @property
    def ended(self) -> str | None:
        """Why the connection is over; None while it is not."""
        return self._ended

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
        for stream in self._streams.values():
            stream.close()
        for call in self._waiting.values():
            call.done.set()

    async def _write(self, stream: trio.abc.Stream) -> None:
        try:
            await self._outbox.run(stream, _PING_S)
        except _STREAM_ENDS as error:
            self._end(tls_reason(error))

    async def _read(self, stream: trio.abc.Stream) -> None:
        decoder = FrameDecoder(limits.CLIENT_REPLY_BYTES_MAX)
        try:
            while data := await stream.receive_some(_RECEIVE_BYTES):
                for body in decoder.feed(bytes(data)):
                    await self._deliver(decode(Reply, body, limits.CLIENT_REPLY_BYTES_MAX))  # type: ignore[arg-type]
            self._end("closed by the node")
        except (*_STREAM_ENDS, InvalidInput) as error:
            self._end(tls_reason(error))

    async def _deliver(self, reply: Reply) -> None:
        if reply.id == 0:  # the last word on a session that the node ends
            self._end(f"the node ended it: {reply.detail if isinstance(reply, Failure) else 'no reason given'}")
        stream = self._streams.get(reply.id)
        if stream is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # its taker has left
                await stream.send(reply)
        call = self._waiting.get(reply.id)
        if call is not None:  # its caller may have given up
            call.reply = reply
            call.done.set()


class _Call:
    """A question under way."""

    __slots__ = ("done", "reply")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.reply: Reply | None = None


@asynccontextmanager
async def _authenticated(
    host: str, port: int, server: NodeId, account: SigningKey, chain: ChainId, transport: Transport
) -> AsyncIterator[tuple[trio.abc.Stream, str]]:
    where = f"node at {host}:{port}"
    with _as_unavailable(where), trio.fail_after(CONNECT_S_MAX):
        metered = MeteredStream(await transport.connect(host, port))
    secured = transport.to_client_port(metered, server)
    try:
        with _as_unavailable(where), trio.fail_after(CONNECT_S_MAX):
            await secured.handshake()
            nonce = transport.random_bytes(32)
            role = await _authenticate(secured.stream, server, account, chain, nonce)
        metered.trust()
        yield secured.stream, role
    finally:
        await trio.aclose_forcefully(secured.stream)


@contextmanager
def _as_unavailable(where: str) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError as error:
        raise Unavailable(f"{where}: no answer within {CONNECT_S_MAX:g} s") from error
    except _STREAM_ENDS as error:
        raise Unavailable(f"{where}: {tls_reason(error)}") from error


async def _authenticate(
    stream: trio.abc.Stream, server: NodeId, account: SigningKey, chain: ChainId, nonce: bytes
) -> str:
    challenge = decode(Challenge, await receive_first(stream, Tag.HELLO), limits.HANDSHAKE_BYTES_MAX)
    if challenge.chain != chain:
        raise PeerFault(server, f"is of chain {challenge.chain.hex()}, expected {chain.hex()}")
    hello = make_hello(challenge, server, account, nonce)
    await stream.send_all(encode_frame(encode(hello), Tag.HELLO))
    answer: Welcome | Failure = decode(
        Welcome | Failure,  # type: ignore[arg-type]
        await receive_first(stream, Tag.HELLO),
        limits.HANDSHAKE_BYTES_MAX,
    )
    if isinstance(answer, Welcome):
        return answer.role
    code = Code(answer.code) if answer.code in Code.__members__.values() else Code.E_INTERNAL
    if code is Code.E_BUSY:
        raise Unavailable(answer.detail)
    raise Rejected(code, answer.detail)
