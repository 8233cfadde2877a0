"""A connection to somebody's vault service: its node key pinned, ours proven, one question at a time."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from p2pledger.network.api import Challenge, Failure, Welcome
from p2pledger.network.authentication import make_hello
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import MeteredStream, receive_first
from p2pledger.network.tls import ALPN_VAULT, TlsStream, handshake, pinning_client_context, tls_reason
from p2pledger.network.transport import TLS_OVER_TCP
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, Rejected, Unavailable
from p2pledger.primitives.ids import ChainId, NodeId
from p2pledger.vault.wire import ANSWER, MEMBER_FRAME_BYTES_MAX, Answer, Failed, Question

R = TypeVar("R", bound=Answer)

CONNECT_S_MAX = 10.0
ANSWER_S_MAX = 90.0
"""A vault has a minute to find an answer."""
_RECEIVE_BYTES = 256 * 1024
_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class VaultAddress:
    """Where a vault service listens, and the node key that must answer there."""

    name: str
    """What people call its organisation."""
    host: str
    port: int
    node: NodeId

    def __str__(self) -> str:
        return f"the vault of {self.name} at {self.host}:{self.port}"


@asynccontextmanager
async def open_vault(address: VaultAddress, key: SigningKey, chain: ChainId) -> "AsyncIterator[VaultConnection]":
    """A connection in the name of `key`: a reader's account key, or a custodian's node key.

    Raises Unavailable where it cannot be reached or is full, PeerFault where another key or chain answers, Rejected
    where it does not accept us.
    """
    with _as_unavailable(address), trio.fail_after(CONNECT_S_MAX):
        metered = MeteredStream(await TLS_OVER_TCP.connect(address.host, address.port))
    stream: TlsStream = trio.SSLStream(metered, pinning_client_context(ALPN_VAULT), https_compatible=True)
    try:
        with _as_unavailable(address), trio.fail_after(CONNECT_S_MAX):
            await handshake(stream, lambda proven: proven == address.node, ALPN_VAULT)
            await _introduce(stream, address, key, chain)
        metered.trust()
        yield VaultConnection(address, stream)
    finally:
        await trio.aclose_forcefully(stream)


async def _introduce(stream: TlsStream, address: VaultAddress, key: SigningKey, chain: ChainId) -> None:
    challenge = decode(Challenge, await receive_first(stream, Tag.HELLO), limits.HANDSHAKE_BYTES_MAX)
    if challenge.chain != chain:
        raise PeerFault(address.node, f"is of chain {challenge.chain.hex()}, expected {chain.hex()}")
    hello = make_hello(challenge, address.node, key, TLS_OVER_TCP.random_bytes(32))
    await stream.send_all(encode_frame(encode(hello), Tag.HELLO))
    answer: Welcome | Failure = decode(
        Welcome | Failure,  # type: ignore[arg-type]
        await receive_first(stream, Tag.HELLO),
        limits.HANDSHAKE_BYTES_MAX,
    )
    if isinstance(answer, Failure):
        raise _refusal(answer.code, answer.detail, address)


class VaultConnection:
    """Questions to one vault. Made by `open_vault`; of one task at a time."""

    def __init__(self, address: VaultAddress, stream: TlsStream) -> None:
        self.address = address
        self._stream = stream
        self._decoder = FrameDecoder(MEMBER_FRAME_BYTES_MAX)

    async def ask(self, question: Question, kind: type[R]) -> R:
        """The answer; raises Rejected for what was refused, Unavailable, PeerFault for what is no answer."""
        frame = encode_frame(encode(question))
        if len(frame) > MEMBER_FRAME_BYTES_MAX:
            raise InvalidInput(f"question of {len(frame)} bytes, the limit is {MEMBER_FRAME_BYTES_MAX}")
        with _as_unavailable(self.address), trio.fail_after(ANSWER_S_MAX):
            await self._stream.send_all(frame)
            body = await self._receive()
        try:
            answer: Answer = decode(ANSWER, body, MEMBER_FRAME_BYTES_MAX)
        except InvalidInput as error:
            raise PeerFault(self.address.node, str(error)) from error
        if isinstance(answer, Failed):
            raise _refusal(answer.code, answer.detail, self.address)
        if not isinstance(answer, kind):
            raise PeerFault(self.address.node, f"answered {type(question).__name__} with {type(answer).__name__}")
        return answer

    async def _receive(self) -> bytes:
        while data := await self._stream.receive_some(_RECEIVE_BYTES):
            try:
                bodies = self._decoder.feed(bytes(data))
            except InvalidInput as error:
                raise PeerFault(self.address.node, str(error)) from error
            if len(bodies) > 1:
                raise PeerFault(self.address.node, f"gave {len(bodies)} answers to one question")
            if bodies:
                return bodies[0]
        raise Unavailable(f"{self.address}: closed the connection")


def _refusal(number: int, detail: str, address: VaultAddress) -> Rejected | Unavailable:
    code = Code(number) if number in Code.__members__.values() else Code.E_INTERNAL
    if code in (Code.E_BUSY, Code.E_UNAVAILABLE):
        return Unavailable(f"{address}: {detail}")
    return Rejected(code, detail)


@contextmanager
def _as_unavailable(address: VaultAddress) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError as error:
        raise Unavailable(f"{address}: no answer in time") from error
    except _ENDS as error:
        raise Unavailable(f"{address}: {tls_reason(error)}") from error
    except InvalidInput as error:
        if isinstance(error, Rejected):
            raise
        raise PeerFault(address.node, str(error)) from error
