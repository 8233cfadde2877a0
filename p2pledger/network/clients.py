"""The client port of a node: TLS, a signed hello, then requests and replies, many in flight.

This part knows who asks and how much at once; what the answer is, is the handler's business. Whatever one session does
wrong ends that session only.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from p2pledger.network.api import (
    DETAIL_CHARS_MAX,
    Challenge,
    Failure,
    Outcomes,
    Question,
    Reply,
    Request,
    SubmitMany,
    Welcome,
)
from p2pledger.network.authentication import check_hello
from p2pledger.network.budget import Budget, Rates
from p2pledger.network.connection import ClientConnection, connect
from p2pledger.network.feed_api import Cursor, FeedReply, Subscribe
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import Lobby, MeteredStream, accept_forever, receive_first
from p2pledger.network.outbox import Outbox
from p2pledger.network.tls import tls_reason
from p2pledger.network.transport import TLS_OVER_TCP, Secured, Transport
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Shape, decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import (
    Code,
    Divergence,
    InvalidInput,
    PeerFault,
    Refused,
    Rejected,
    StoreError,
    Unavailable,
)
from p2pledger.primitives.ids import AccountKey, ChainId, NodeId

__all__ = ["ClientConnection", "ClientServer", "ClientSettings", "Session", "connect"]

_log = structlog.get_logger(__name__)

STRANGER = "stranger"
"""The role of a key without an identity: anybody can make as many of them as they like."""
MEMBER_RATES = Rates(bytes_per_s=16 * 1024 * 1024, frames_per_s=20_000)
"""One gateway may carry the load of its whole hospital."""
STRANGER_RATES = Rates(bytes_per_s=1024 * 1024, frames_per_s=200)
_FAREWELL_S = 2.0
"""Time to write the last replies to a client whose session ends."""
_RECEIVE_BYTES = 64 * 1024
_REQUEST: Shape[Request] = Shape(Request)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A client that has shown who it is; one for each connection."""

    account: AccountKey
    role: str
    """As it was at the hello."""
    address: str


Handler = Callable[[Session, Question], Awaitable[Reply]]
Decided = Callable[[Reply | Rejected], None]
Taker = Callable[[Session, Request, Decided], bool]
"""Answers what comes with every transaction: calls back once, now or later, for as long as the session is there; for
SubmitMany until the last Outcomes. False leaves a request to the handler; may raise as a handler does. Neither calls
back."""
Feeder = Callable[[Session, Subscribe, Cursor], Awaitable[FeedReply]]
"""The next reply of a subscription from a place on; waits until there is one."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Local choices about the client port."""

    sessions_max: int = 1024
    strangers_max: int = 256
    """Keys cost nothing, so strangers never get all the seats."""
    sessions_per_account_max: int = 16
    in_flight_max: int = 256
    """Unanswered requests of one session; beyond it nothing more is read from it."""
    pre_auth_max: int = 256
    silence_s: float = 120.0
    """Clients ping every 30 s; after four missed ones the seat is free again."""
    out_bytes_max: int = 16 * limits.CLIENT_FRAME_BYTES_MAX
    feeds_max: int = 4
    """Subscriptions of one session."""
    feed_bytes_max: int = 1024 * 1024
    """Waiting to be read by a subscriber, before the next reply of its feed is made."""
    feed_slow_s: float = 30.0
    """For a subscriber to read so much; then its session ends, and it goes on from its last place."""
    member_rates: Rates = MEMBER_RATES
    stranger_rates: Rates = STRANGER_RATES


@dataclass(slots=True)
class ClientCounters:
    """For metrics: plain numbers that only grow."""

    sessions: int = 0
    refused: int = 0
    requests: int = 0
    malformed: int = 0
    throttled: int = 0
    handler_errors: int = 0
    slow_readers: int = 0
    accept_pauses: int = 0


@dataclass(slots=True)
class _Connection:
    """What belongs to one session while it lasts."""

    session: Session
    stream: trio.abc.Stream
    outbox: Outbox
    budget: Budget
    slots: trio.Semaphore
    feeds: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class ClientServer:
    """Serves clients. `handler` answers one request, `feeder` goes on with a subscription, `role_of` knows accounts.
    `taker` answers instead of the handler what there is so much of that a task for each would cost too much.

    The handler's InvalidInput, Rejected, Refused and Unavailable become a Failure; StoreError, Divergence and failed
    assertions stop the node; anything else is a bug that costs one reply and a line in the log, because no client may
    stop a validator by finding it.
    """

    def __init__(
        self,
        key: SigningKey,
        certificate: bytes,
        chain: ChainId,
        handler: Handler,
        role_of: Callable[[AccountKey], str],
        *,
        taker: Taker | None = None,
        feeder: Feeder | None = None,
        settings: ClientSettings | None = None,
        transport: Transport = TLS_OVER_TCP,
    ) -> None:
        self.node = NodeId(key.public)
        self.settings = settings or ClientSettings()
        self.counters = ClientCounters()
        self.refusals: deque[tuple[str, str]] = deque(maxlen=32)
        """(address, reason) of the last connections that did not become a session."""
        self.sessions: set[Session] = set()
        self._per_account: Counter[AccountKey] = Counter()
        self._chain = chain
        self._handler = handler
        self._taker = taker
        self._feeder = feeder
        self._role_of = role_of
        self._transport = transport
        self._secured = transport.client_port(key, certificate)
        self._lobby = Lobby(self.settings.pre_auth_max)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; reports the bound port. Raises OSError if it cannot listen."""
        listeners, bound = await self._transport.listen(host, port)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept_forever, listener, self._accept, nursery, self._on_full)
            task_status.started(bound)

    def _on_full(self) -> None:
        self.counters.accept_pauses += 1

    # From a connection to a session

    async def _accept(self, connection: trio.abc.Stream) -> None:
        address = self._transport.origin(connection)
        metered = MeteredStream(connection)
        secured = self._secured(metered)
        stream = secured.stream
        try:
            async with self._lobby.visit(address):
                session = await self._authenticate(secured, address)
            metered.trust()
            with self._seat(session):
                await stream.send_all(encode_frame(encode(Welcome(session.role)), Tag.HELLO))
                await self._run(stream, session)
        except Rejected as error:
            self._refuse(address, str(error))
            await self._say_why(stream, error)
        except (OSError, trio.BrokenResourceError, InvalidInput, PeerFault, Unavailable) as error:
            self._refuse(address, tls_reason(error))
        finally:
            await trio.aclose_forcefully(stream)

    async def _authenticate(self, secured: Secured[None], address: str) -> Session:
        await secured.handshake()
        challenge = Challenge(self._chain, self._transport.random_bytes(32))
        await secured.stream.send_all(encode_frame(encode(challenge), Tag.HELLO))
        account = check_hello(await receive_first(secured.stream, Tag.HELLO), challenge, self.node)
        return Session(account, self._role_of(account), address)

    @contextmanager
    def _seat(self, session: Session) -> Iterator[None]:
        settings = self.settings
        if len(self.sessions) >= settings.sessions_max:
            raise Rejected(Code.E_BUSY, f"this node serves {settings.sessions_max} sessions already")
        if self._per_account[session.account] >= settings.sessions_per_account_max:
            raise Rejected(Code.E_BUSY, f"this account has {settings.sessions_per_account_max} sessions already")
        if session.role == STRANGER and self._strangers() >= settings.strangers_max:
            raise Rejected(Code.E_BUSY, f"this node serves {settings.strangers_max} unregistered keys already")
        self.sessions.add(session)
        self._per_account[session.account] += 1
        self.counters.sessions += 1
        try:
            yield
        finally:
            self.sessions.remove(session)
            self._per_account.subtract([session.account])
            if not self._per_account[session.account]:
                del self._per_account[session.account]

    def _strangers(self) -> int:
        return sum(session.role == STRANGER for session in self.sessions)

    def _refuse(self, address: str, reason: str) -> None:
        self.counters.refused += 1
        self.refusals.append((address, reason))

    async def _say_why(self, stream: trio.abc.Stream, error: Rejected) -> None:
        failure = Failure(0, error.code, error.detail[:DETAIL_CHARS_MAX])
        with trio.move_on_after(_FAREWELL_S):
            try:
                await stream.send_all(encode_frame(encode(failure), Tag.HELLO))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is not there to hear it

    # A session

    async def _run(self, stream: trio.abc.Stream, session: Session) -> None:
        settings = self.settings
        rates = settings.stranger_rates if session.role == STRANGER else settings.member_rates
        connection = _Connection(
            session,
            stream,
            Outbox(settings.out_bytes_max),
            Budget(rates, trio.current_time()),
            trio.Semaphore(settings.in_flight_max),
        )
        with connection.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection)
                async with trio.open_nursery() as requests:
                    await self._read(connection, requests)
                    requests.cancel_scope.cancel()
                connection.scope.deadline = trio.current_time() + _FAREWELL_S
                connection.outbox.finish()

    async def _write(self, connection: _Connection) -> None:
        try:
            await connection.outbox.run(connection.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection.scope.cancel()

    async def _read(self, connection: _Connection, requests: trio.Nursery) -> None:
        """Start an answer for every request until the session ends. Each transaction costs as much as a frame."""
        decoder = FrameDecoder(limits.CLIENT_FRAME_BYTES_MAX)
        try:
            while data := await self._receive(connection, decoder):
                before, more = decoder.frames, 0
                for body in decoder.feed(data):
                    request = _parse_request(body)
                    if isinstance(request, SubmitMany):
                        more += len(request.transactions) - 1
                    await _take(connection.slots)
                    self.counters.requests += 1
                    if not self._is_taken(connection, request):
                        requests.start_soon(self._answer, connection, request)
                pause_s = connection.budget.spend(len(data), decoder.frames - before + more, trio.current_time())
                if pause_s:
                    self.counters.throttled += 1
                    await trio.sleep(pause_s)
        except InvalidInput as error:
            self.counters.malformed += 1
            self._reply(connection, Failure(0, Code.E_FORMAT, str(error)[:DETAIL_CHARS_MAX]))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection.scope.cancel()

    async def _receive(self, connection: _Connection, decoder: FrameDecoder) -> bytes:
        with trio.move_on_after(self.settings.silence_s):
            return bytes(await connection.stream.receive_some(_RECEIVE_BYTES))
        return b""

    async def _answer(self, connection: _Connection, request: Request) -> None:
        if isinstance(request, Subscribe):
            await self._feed(connection, request)
        elif isinstance(request, SubmitMany):
            self._reply(connection, Failure(request.id, Code.E_BUSY, "nothing is taken in in bulk here"))
        else:
            handler = self._handler
            self._reply(connection, await self._tried(request, lambda: handler(connection.session, request)))
        connection.slots.release()

    def _is_taken(self, connection: _Connection, request: Request) -> bool:
        if self._taker is None:
            return False

        def decided(reply: Reply | Rejected) -> None:
            if not isinstance(reply, Outcomes) or reply.is_last:
                connection.slots.release()
            self._reply(connection, _in_words(request, reply) if isinstance(reply, Rejected) else reply)

        try:
            return self._taker(connection.session, request, decided)
        except Exception as error:
            connection.slots.release()
            self._reply(connection, self._failure(request, error))
            return True

    async def _feed(self, connection: _Connection, request: Subscribe) -> None:
        """Reply after reply, each made when the one before has almost been read: nothing piles up here."""
        feeder, session = self._feeder, connection.session
        if feeder is None or connection.feeds >= self.settings.feeds_max:
            limit = self.settings.feeds_max if feeder else 0
            self._reply(connection, Failure(request.id, Code.E_BUSY, f"{limit} subscriptions for each session here"))
            return
        connection.feeds += 1
        place = request.start
        while True:
            reply = await self._tried(request, partial(feeder, session, request, place))
            if isinstance(reply, FeedReply):
                place = reply.next
            self._reply(connection, reply)
            if not isinstance(reply, FeedReply):
                break
            if not await self._is_read(connection):
                self._end_slow(connection, request, place)
                break
        connection.feeds -= 1

    async def _is_read(self, connection: _Connection) -> bool:
        with trio.move_on_after(self.settings.feed_slow_s):
            await connection.outbox.room(self.settings.feed_bytes_max)
            return True
        return False

    def _end_slow(self, connection: _Connection, request: Subscribe, place: Cursor) -> None:
        """The last word of a session that does not keep up; whether or not it is read, the client knows its place."""
        self.counters.slow_readers += 1
        waited = f"{self.settings.feed_slow_s:g} s"
        detail = f"the feed was not read for {waited}; subscribe anew from {place} on"
        self._reply(connection, Failure(request.id, Code.E_BUSY, detail))
        connection.scope.deadline = trio.current_time() + _FAREWELL_S
        connection.outbox.finish()

    async def _tried(self, request: Request, answer: Callable[[], Awaitable[Reply]]) -> Reply:
        try:
            return await answer()
        except Exception as error:
            return self._failure(request, error)

    def _failure(self, request: Request, error: Exception) -> Failure:
        """What the client is told; raises what stops the node."""
        match error:
            case Rejected():
                return _in_words(request, error)
            case Refused():
                return Failure(request.id, error.code, error.code.name)
            case InvalidInput():
                return Failure(request.id, Code.E_FORMAT, str(error)[:DETAIL_CHARS_MAX])
            case Unavailable():
                return Failure(request.id, Code.E_BUSY, str(error)[:DETAIL_CHARS_MAX])
            case StoreError() | Divergence() | AssertionError():
                raise error
        # Only kinds and places: the values in it could be a patient's.
        self.counters.handler_errors += 1
        _log.error("request_failed", request=type(request).__name__, error=type(error).__name__, at=_place(error))
        return Failure(request.id, Code.E_INTERNAL, "this node made a mistake")

    def _reply(self, connection: _Connection, reply: Reply) -> None:
        frame = encode_frame(encode(reply))
        if len(frame) > limits.CLIENT_REPLY_BYTES_MAX:
            if isinstance(reply, Outcomes) and len(reply.receipts) + len(reply.refusals) > 1:
                for half in _halves(reply):
                    self._reply(connection, half)
                return
            detail = f"the reply has {len(frame)} bytes, the limit is {limits.CLIENT_REPLY_BYTES_MAX}"
            frame = encode_frame(encode(Failure(reply.id, Code.E_TOO_LARGE, detail)))
        if not connection.outbox.push(frame) and not connection.scope.cancel_called:
            self.counters.slow_readers += 1
            connection.scope.cancel()


def _halves(reply: Outcomes) -> tuple[Outcomes, Outcomes]:
    receipts, refusals = len(reply.receipts) // 2, (len(reply.refusals) + 1) // 2
    return (
        Outcomes(reply.id, reply.receipts[:receipts], reply.refusals[:refusals], False),
        Outcomes(reply.id, reply.receipts[receipts:], reply.refusals[refusals:], reply.is_last),
    )


def _in_words(request: Request, error: Rejected) -> Failure:
    return Failure(request.id, error.code, error.detail[:DETAIL_CHARS_MAX])


def _parse_request(body: bytes) -> Request:
    try:
        request: Request = decode(_REQUEST, body, limits.CLIENT_FRAME_BYTES_MAX)
    except InvalidInput as error:
        raise InvalidInput(f"not a request in its canonical spelling: {error.__cause__}") from error
    return request


async def _take(slots: trio.Semaphore) -> None:
    try:
        slots.acquire_nowait()
    except trio.WouldBlock:
        await slots.acquire()  # and meanwhile nothing more is read


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "unknown"
