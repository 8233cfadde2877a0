"""The port of a vault: TLS with the organisation's node key, a signed hello, then one question after the other.

Whoever proves a member's node key is that custodian; any other key is a reader's. Whatever a session does wrong ends
that session only; nothing is read from it while its last answer has not been taken.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import trio

from p2pledger.network.api import Challenge, Failure, Welcome
from p2pledger.network.authentication import check_hello
from p2pledger.network.budget import Budget, Rates
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import Lobby, MeteredStream, accept_forever, receive_first
from p2pledger.network.tls import ALPN_VAULT, TlsStream, client_port_context, tls_reason
from p2pledger.network.transport import TLS_OVER_TCP
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, Refused, Rejected, StoreError, Unavailable
from p2pledger.primitives.ids import AccountKey, Bytes16, ChainId, NodeId
from p2pledger.vault.wire import (
    MEMBER_FRAME_BYTES_MAX,
    QUESTION,
    READER_FRAME_BYTES_MAX,
    Answer,
    Failed,
    Question,
)

_log = structlog.get_logger(__name__)

READER_RATES = Rates(bytes_per_s=1024 * 1024, frames_per_s=20)
"""A question costs us a manifest and our node a judgement; a whole chart is one question."""
MEMBER_RATES = Rates(bytes_per_s=64 * 1024 * 1024, frames_per_s=5_000)
_DETAIL_CHARS_MAX = 500
_RECEIVE_BYTES = 256 * 1024
_FAREWELL_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who asks; one for each connection."""

    key: AccountKey
    organisation: Bytes16 | None
    """Of a custodian; None for a reader."""
    address: str


Handler = Callable[[Caller, Question], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Local choices about the port of a vault."""

    sessions_max: int = 64
    readers_max: int = 48
    """Keys cost nothing, so readers never get all the seats."""
    sessions_per_key_max: int = 4
    pre_auth_max: int = 64
    silence_s: float = 60.0
    """For the next whole question; a dripped one ends the session as silence does."""
    reply_s: float = 60.0
    """For the caller to take an answer."""
    work_s: float = 60.0
    """For an answer to be found."""
    reader_rates: Rates = READER_RATES
    member_rates: Rates = MEMBER_RATES


@dataclass(slots=True)
class ServiceCounters:
    """For metrics: plain numbers that only grow."""

    sessions: int = 0
    refused: int = 0
    questions: int = 0
    failures: int = 0
    malformed: int = 0
    slow: int = 0
    throttled: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class VaultService:
    """Serves readers and custodians. The handler's Rejected, Refused, InvalidInput, Unavailable and StoreError become a
    Failed; anything else ends the process."""

    def __init__(
        self,
        key: SigningKey,
        certificate: bytes,
        chain: ChainId,
        members: Mapping[NodeId, Bytes16],
        handler: Handler,
        settings: ServiceSettings | None = None,
    ) -> None:
        """`members`: node key → organisation."""
        self.node = NodeId(key.public)
        self.settings = settings or ServiceSettings()
        self.counters = ServiceCounters()
        self.callers: set[Caller] = set()
        self.refusals: deque[tuple[str, str]] = deque(maxlen=32)
        """(address, reason) of the last connections that did not become a session."""
        self._chain = chain
        self._members = dict(members)
        self._handler = handler
        self._context = client_port_context(key, certificate, ALPN_VAULT)
        self._per_key: Counter[AccountKey] = Counter()
        self._lobby = Lobby(self.settings.pre_auth_max)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; reports the bound port. Raises OSError if it cannot listen."""
        listeners, bound = await TLS_OVER_TCP.listen(host, port)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept_forever, listener, self._accept, nursery, lambda: None)
            task_status.started(bound)

    # From a connection to a session

    async def _accept(self, connection: trio.abc.Stream) -> None:
        address = TLS_OVER_TCP.origin(connection)
        metered = MeteredStream(connection)
        stream: TlsStream = trio.SSLStream(metered, self._context, server_side=True, https_compatible=True)
        try:
            async with self._lobby.visit(address):
                caller = await self._authenticate(stream, address)
            metered.trust()
            with self._seat(caller):
                role = "reader" if caller.organisation is None else "custodian"
                await stream.send_all(encode_frame(encode(Welcome(role)), Tag.HELLO))
                await self._run(stream, caller)
        except Rejected as error:
            self._refuse(address, str(error))
            await self._say_why(stream, error)
        except (OSError, trio.BrokenResourceError, InvalidInput, PeerFault, Unavailable) as error:
            self._refuse(address, tls_reason(error))
        finally:
            await trio.aclose_forcefully(stream)

    async def _authenticate(self, stream: TlsStream, address: str) -> Caller:
        await stream.do_handshake()
        if stream.selected_alpn_protocol() != ALPN_VAULT:
            raise InvalidInput(f"caller speaks {stream.selected_alpn_protocol()!r}, not {ALPN_VAULT!r}")
        challenge = Challenge(self._chain, TLS_OVER_TCP.random_bytes(32))
        await stream.send_all(encode_frame(encode(challenge), Tag.HELLO))
        key = check_hello(await receive_first(stream, Tag.HELLO), challenge, self.node)
        return Caller(key, self._members.get(NodeId(key)), address)

    @contextmanager
    def _seat(self, caller: Caller) -> Iterator[None]:
        settings = self.settings
        if len(self.callers) >= settings.sessions_max:
            raise Rejected(Code.E_BUSY, f"this vault serves {settings.sessions_max} sessions already")
        if self._per_key[caller.key] >= settings.sessions_per_key_max:
            raise Rejected(Code.E_BUSY, f"this key has {settings.sessions_per_key_max} sessions already")
        readers = sum(other.organisation is None for other in self.callers)
        if caller.organisation is None and readers >= settings.readers_max:
            raise Rejected(Code.E_BUSY, f"this vault serves {settings.readers_max} readers already")
        self.callers.add(caller)
        self._per_key[caller.key] += 1
        self.counters.sessions += 1
        try:
            yield
        finally:
            self.callers.remove(caller)
            self._per_key.subtract([caller.key])
            if not self._per_key[caller.key]:
                del self._per_key[caller.key]

    def _refuse(self, address: str, reason: str) -> None:
        self.counters.refused += 1
        self.refusals.append((address, reason))

    async def _say_why(self, stream: TlsStream, error: Rejected) -> None:
        failure = Failure(0, error.code, error.detail[:_DETAIL_CHARS_MAX])
        with trio.move_on_after(_FAREWELL_S):
            try:
                await stream.send_all(encode_frame(encode(failure), Tag.HELLO))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is not there to hear it

    # A session

    async def _run(self, stream: TlsStream, caller: Caller) -> None:
        is_reader = caller.organisation is None
        frame_max = READER_FRAME_BYTES_MAX if is_reader else MEMBER_FRAME_BYTES_MAX
        rates = self.settings.reader_rates if is_reader else self.settings.member_rates
        budget = Budget(rates, trio.current_time())
        decoder = FrameDecoder(frame_max)
        try:
            while bodies := await self._receive(stream, decoder, budget):
                for body in bodies:
                    if not await self._send(stream, await self._answered(caller, body, frame_max)):
                        return
        except InvalidInput as error:
            self.counters.malformed += 1
            await self._send(stream, Failed(Code.E_FORMAT, str(error)[:_DETAIL_CHARS_MAX]))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _receive(self, stream: TlsStream, decoder: FrameDecoder, budget: Budget) -> list[bytes]:
        """The next whole questions; none: the session is over."""
        with trio.move_on_after(self.settings.silence_s):
            while data := await stream.receive_some(_RECEIVE_BYTES):
                before = decoder.frames
                bodies = decoder.feed(bytes(data))
                self.counters.bytes_in += len(data)
                pause_s = budget.spend(len(data), decoder.frames - before, trio.current_time())
                if pause_s:
                    self.counters.throttled += 1
                    await trio.sleep(pause_s)
                if bodies:
                    return bodies
            return []
        self.counters.slow += 1
        return []

    async def _send(self, stream: TlsStream, reply: Answer) -> bool:
        frame = encode_frame(encode(reply))
        with trio.move_on_after(self.settings.reply_s):
            try:
                await stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            self.counters.bytes_out += len(frame)
            return True
        self.counters.slow += 1
        return False

    async def _answered(self, caller: Caller, body: bytes, bytes_max: int) -> Answer:
        question: Question = decode(QUESTION, body, bytes_max)
        self.counters.questions += 1
        with trio.move_on_after(self.settings.work_s):
            reply = await self._tried(caller, question)
            if isinstance(reply, Failed):
                self.counters.failures += 1
                _log.info("question_refused", question=type(question).__name__, code=reply.code)
            return reply
        self.counters.failures += 1
        return Failed(Code.E_BUSY, f"no answer within {self.settings.work_s:g} s; try again later")

    async def _tried(self, caller: Caller, question: Question) -> Answer:
        try:
            return await self._handler(caller, question)
        except Rejected as error:
            return Failed(error.code, error.detail[:_DETAIL_CHARS_MAX])
        except Refused as error:
            return Failed(error.code, error.code.name)
        except InvalidInput as error:
            return Failed(Code.E_FORMAT, str(error)[:_DETAIL_CHARS_MAX])
        except StoreError as error:
            _log.error("store_failed", error=str(error))
            return Failed(Code.E_UNAVAILABLE, "this vault's store does not answer as it should")
        except Unavailable as error:
            return Failed(Code.E_UNAVAILABLE, str(error)[:_DETAIL_CHARS_MAX])
