"""Where connections come from, and who is proven to be at their other end: the one seam below the network layer.

Everything above it (frames, hellos, lobby, links, budgets, sessions) is the same over any transport. In production it
is TLS 1.3 over TCP and the system's randomness. The whole-node simulation puts a memory network in its place, whose
connections know their two ends, so that a run depends on nothing but its seed.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import trio

from p2pledger.network.tls import (
    ALPN_CLIENT,
    ALPN_PEER,
    TlsStream,
    client_port_context,
    handshake,
    peer_contexts,
    pinning_client_context,
)
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import NodeId

Proof = TypeVar("Proof")
IsExpected = Callable[[NodeId], bool]


@dataclass(frozen=True, slots=True)
class Secured(Generic[Proof]):
    """A connection whose other end is nobody yet; `handshake` says who it has proven to be, or raises.

    It raises PeerFault for somebody else, InvalidInput for an unusable key, trio.BrokenResourceError otherwise.
    """

    stream: trio.abc.Stream
    handshake: Callable[[], Awaitable[Proof]]


class Listening(NamedTuple):
    """Listeners of one address, and the port that was bound."""

    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]]
    port: int


class PeerSecurity(Protocol):
    """How the connections between nodes are secured, for one node."""

    def trust(self, members: Iterable[bytes]) -> None:
        """From now on believe exactly these certificates (DER)."""

    def accept(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        """The accepting end of a connection."""

    def dial(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        """The dialing end of a connection."""


class Transport(Protocol):
    """Listens, connects and secures, and knows no more than that."""

    async def listen(self, host: str, port: int) -> Listening:
        """Listen at an address, port 0 for any free one; raises OSError."""

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """A connection to an address; raises OSError."""

    def origin(self, stream: trio.abc.Stream) -> str:
        """The host at the other end of a connection that a listener gave, as far as it is still there."""

    def peer_security(self, key: SigningKey, certificate: bytes) -> PeerSecurity:
        """For the links of the node with this key; raises InvalidInput where the certificate is not the key's."""

    def client_port(self, key: SigningKey, certificate: bytes) -> Callable[[trio.abc.Stream], Secured[None]]:
        """For the client port of the node with this key: clients say who they are inside."""

    def to_client_port(self, stream: trio.abc.Stream, server: NodeId) -> Secured[NodeId]:
        """For a client that knows the key of its node."""

    def random_bytes(self, size: int) -> bytes:
        """Bytes that nobody can guess: for nonces, and for spreading what should not happen all at once."""


class TlsOverTcp:
    """The transport of every real node and client."""

    async def listen(self, host: str, port: int) -> Listening:
        listeners = await trio.open_tcp_listeners(port, host=host)
        return Listening(listeners, int(listeners[0].socket.getsockname()[1]))

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        return await trio.open_tcp_stream(host, port)

    def origin(self, stream: trio.abc.Stream) -> str:
        assert isinstance(stream, trio.SocketStream)
        try:
            return str(stream.socket.getpeername()[0])
        except OSError:
            return "gone"

    def peer_security(self, key: SigningKey, certificate: bytes) -> PeerSecurity:
        return _MutualTls(key, certificate)

    def client_port(self, key: SigningKey, certificate: bytes) -> Callable[[trio.abc.Stream], Secured[None]]:
        context = client_port_context(key, certificate)

        def secured(stream: trio.abc.Stream) -> Secured[None]:
            tls: TlsStream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)

            async def shake() -> None:
                await tls.do_handshake()
                if tls.selected_alpn_protocol() != ALPN_CLIENT:
                    raise InvalidInput(f"client speaks {tls.selected_alpn_protocol()!r}, not {ALPN_CLIENT!r}")

            return Secured(tls, shake)

        return secured

    def to_client_port(self, stream: trio.abc.Stream, server: NodeId) -> Secured[NodeId]:
        tls: TlsStream = trio.SSLStream(stream, pinning_client_context(), https_compatible=True)
        return Secured(tls, lambda: handshake(tls, lambda proven: proven == server, ALPN_CLIENT))

    def random_bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)


class _MutualTls:
    """Both sides show a certificate out of those that are trusted."""

    def __init__(self, key: SigningKey, certificate: bytes) -> None:
        self._key = key
        self._certificate = certificate
        self._accepting, self._dialing = peer_contexts(key, certificate, ())

    def trust(self, members: Iterable[bytes]) -> None:
        self._accepting, self._dialing = peer_contexts(self._key, self._certificate, members)

    def accept(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        return _peer_end(trio.SSLStream(stream, self._accepting, server_side=True, https_compatible=True), is_expected)

    def dial(self, stream: trio.abc.Stream, is_expected: IsExpected) -> Secured[NodeId]:
        return _peer_end(trio.SSLStream(stream, self._dialing, https_compatible=True), is_expected)


def _peer_end(tls: TlsStream, is_expected: IsExpected) -> Secured[NodeId]:
    return Secured(tls, lambda: handshake(tls, is_expected, ALPN_PEER))


def jitter(transport: Transport) -> float:
    """A factor between a half and one."""
    return 0.5 + int.from_bytes(transport.random_bytes(2), "big") / 131_070


TLS_OVER_TCP: Transport = TlsOverTcp()
