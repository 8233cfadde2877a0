"""Nodes and outsiders for network tests: real keys, real TLS, real sockets on the loopback interface."""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pledger.network.certificates import make_certificate
from p2pledger.network.link import WIRE_VERSION, LinkEvent, LinkSettings, PeerHello
from p2pledger.network.peers import Address, Peer, PeerLinks
from p2pledger.network.tls import TlsStream, peer_contexts
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.ids import ChainId, NodeId

HOST = "127.0.0.1"
CHAIN = ChainId(sha256(b"chain"))
OTHER_CHAIN = ChainId(sha256(b"another chain"))
FAST = LinkSettings(backoff_s_min=0.01, backoff_s_max=0.05, quarantine_s=0.01)
PATIENCE_S = 20.0
"""Only a test that fails waits for so long."""


@dataclass(frozen=True)
class Member:
    """A node's key with its certificate."""

    key: SigningKey
    certificate: bytes

    @property
    def node(self) -> NodeId:
        return NodeId(self.key.public)

    def peer(self, address: Address | None = None) -> Peer:
        return Peer(self.certificate, address)

    def links(
        self,
        peers: Iterable["Member"],
        dial: dict[NodeId, Address] | None = None,
        chain: ChainId = CHAIN,
        settings: LinkSettings = FAST,
    ) -> PeerLinks:
        """Links to these peers, calling those in `dial`."""
        known = {peer.node: peer.peer() for peer in peers}
        return PeerLinks(self.key, self.certificate, chain, known, dial=dial or {}, settings=settings)

    def hello(self, chain: ChainId = CHAIN, version: int = WIRE_VERSION) -> PeerHello:
        return PeerHello(version, chain, self.node)

    def dialing_context(self, members: Iterable["Member"]) -> ssl.SSLContext:
        return peer_contexts(self.key, self.certificate, [member.certificate for member in members])[1]

    def accepting_context(self, members: Iterable["Member"]) -> ssl.SSLContext:
        return peer_contexts(self.key, self.certificate, [member.certificate for member in members])[0]


def member(name: str) -> Member:
    """The member of that name; the same key every time."""
    key = SigningKey(sha256(name.encode()))
    return Member(key, make_certificate(key))


def in_order(*names: str) -> list[Member]:
    """Members sorted by node id: earlier ones dial later ones."""
    return sorted((member(name) for name in names), key=lambda each: each.node)


async def next_of(links: PeerLinks, kind: type[LinkEvent]) -> LinkEvent:
    """The next event of that kind; others in between are passed over."""
    with trio.fail_after(PATIENCE_S):
        while True:
            event = await links.events.receive()
            if isinstance(event, kind):
                return event


async def is_closed(stream: trio.abc.ReceiveStream) -> bool:
    """Whether the other side ends the stream without saying more; waits for it."""
    with trio.fail_after(PATIENCE_S):
        try:
            return not await stream.receive_some(1)
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def tls_to(port: int, context: ssl.SSLContext) -> AsyncIterator[TlsStream]:
    """A TLS stream to a local port, handshake done by this side."""
    transport = await trio.open_tcp_stream(HOST, port)
    stream: TlsStream = trio.SSLStream(transport, context, https_compatible=True)
    try:
        with trio.fail_after(PATIENCE_S):
            await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)
