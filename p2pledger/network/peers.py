"""The mesh: one link to every other node that we may talk to, kept up for as long as the node runs.

One side of a pair dials, so that there is one link; where both dial, the one dialed by the smaller id stays. What
arrives goes in batches into one bounded channel whose reader is the node's driver; what leaves is queued at once.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import trio

from p2pledger.network.certificates import check_certificate
from p2pledger.network.frame import encode_frame
from p2pledger.network.link import (
    WIRE_VERSION,
    Link,
    LinkCounters,
    LinkDown,
    LinkEvent,
    LinkFailed,
    LinkSettings,
    LinkUp,
    PeerHello,
    exchange_hellos,
)
from p2pledger.network.lobby import Lobby, MeteredStream, accept_forever
from p2pledger.network.tls import tls_reason
from p2pledger.network.transport import TLS_OVER_TCP, Transport, jitter
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, PeerFault, Unavailable
from p2pledger.primitives.ids import ChainId, NodeId

Address = tuple[str, int]

_ENDS_A_CONNECTION = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    InvalidInput,
    PeerFault,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another member's node: the registered certificate, and where it listens, if we know."""

    certificate: bytes
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """A connection to us that did not become a link."""

    address: str
    reason: str


def whom_to_dial(own: NodeId, peers: Mapping[NodeId, Peer], is_reachable: bool = True) -> dict[NodeId, Address]:
    """The peers with a larger id, whose links are ours to dial; all peers, if nobody can reach us."""
    return {
        node: peer.address
        for node, peer in sorted(peers.items())
        if peer.address is not None and (node > own or not is_reachable)
    }


class PeerLinks:
    """All links of one node.

    `peers` are the nodes we talk to, in both directions; leave some out to cut links. `dial` are those of them that
    we call (default: `whom_to_dial`). `events` has one reader; while it is full, nothing more is read from any peer.
    """

    def __init__(
        self,
        key: SigningKey,
        certificate: bytes,
        chain: ChainId,
        peers: Mapping[NodeId, Peer],
        *,
        dial: Mapping[NodeId, Address] | None = None,
        settings: LinkSettings | None = None,
        transport: Transport = TLS_OVER_TCP,
    ) -> None:
        self.node = NodeId(key.public)
        self.port = 0
        """Where we listen; 0 before `serve` has reported it."""
        self.settings = settings or LinkSettings()
        self.counters = LinkCounters()
        self.refusals: deque[LinkRefused] = deque(maxlen=32)
        """The last connections that were turned away, for people who look for the reason."""
        self.failures: dict[NodeId, str] = {}
        """Why a dialed node is not linked, while it is not."""
        self._transport = transport
        self._hello = PeerHello(WIRE_VERSION, chain, self.node)
        self._send_events, self.events = trio.open_memory_channel[LinkEvent](self.settings.inbox_batches)
        self._lobby = Lobby(self.settings.pre_auth_max)
        self._links: dict[NodeId, Link] = {}
        self._quarantined: dict[NodeId, float] = {}
        self._dialers: set[tuple[NodeId, Address]] = set()
        self._nursery: trio.Nursery | None = None
        check_certificate(certificate, self.node)
        self._security = transport.peer_security(key, certificate)
        self._peers: dict[NodeId, Peer] = {}
        self.set_peers(peers, dial)

    def set_peers(self, peers: Mapping[NodeId, Peer], dial: Mapping[NodeId, Address] | None = None) -> None:
        """From now on talk to exactly these nodes; links to others end. Raises InvalidInput for a bad certificate."""
        others = {node: peer for node, peer in peers.items() if node != self.node}
        for node, peer in others.items():
            check_certificate(peer.certificate, node)
        self._peers = others
        self._security.trust([peer.certificate for peer in others.values()])
        self._dial = {
            node: address
            for node, address in (whom_to_dial(self.node, others) if dial is None else dial).items()
            if node in others
        }
        for node in self._links.keys() - others.keys():
            self._links[node].drop("no longer a peer")
        self._start_dialers()

    # What the driver calls

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and keep dialing until cancelled; reports the bound port. Raises OSError if it cannot listen."""
        listeners, bound = await self._transport.listen(host, port)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for listener in listeners:
                    nursery.start_soon(accept_forever, listener, self._accept, nursery, self._on_full)
                self._start_dialers()
                self.port = bound
                task_status.started(self.port)
        finally:
            self._nursery = None
            self._dialers.clear()

    def up(self) -> frozenset[NodeId]:
        """The nodes with a live link."""
        return frozenset(node for node, link in self._links.items() if link.is_up)

    @property
    def unsent_bytes(self) -> int:
        """What waits to be written to all nodes together."""
        return sum(link.unsent_bytes for link in self._links.values())

    def send(self, node: NodeId, body: bytes) -> bool:
        """Queue a message; False if there is no link or its queue was full, which ends it (see Link.push)."""
        link = self._links.get(node)
        return link is not None and self._fits(body) and link.push(encode_frame(body))

    def send_many(self, nodes: Iterable[NodeId], body: bytes) -> None:
        """Queue one message for several nodes; those without a link miss it."""
        if not self._fits(body):
            return
        frame = encode_frame(body)
        for node in nodes:
            link = self._links.get(node)
            if link is not None:
                link.push(frame)

    def _fits(self, body: bytes) -> bool:
        """A message that no frame can carry is dropped and counted: what peers ask for must not end this process."""
        fits = 0 < len(body) < limits.FRAME_BYTES_MAX
        if not fits:
            self.counters.oversized += 1
        return fits

    def disconnect(self, node: NodeId, reason: str) -> None:
        """End the link to a node that broke the protocol, and do not talk to it for `quarantine_s`."""
        self._quarantined[node] = trio.current_time() + self.settings.quarantine_s
        link = self._links.get(node)
        if link is not None:
            link.drop(reason)

    # Accepting

    def _on_full(self) -> None:
        self.counters.accept_pauses += 1

    async def _accept(self, connection: trio.abc.Stream) -> None:
        address = self._transport.origin(connection)
        metered = MeteredStream(connection)
        secured = self._security.accept(metered, self._peers.__contains__)
        try:
            async with self._lobby.visit(address):
                node = await secured.handshake()
                self._check_quarantine(node)
                await exchange_hellos(secured.stream, self._hello, node)
            metered.trust()
        except _ENDS_A_CONNECTION as error:
            self._refuse(address, tls_reason(error))
        else:
            await self._run_link(secured.stream, node, dialer=node)
        finally:
            await trio.aclose_forcefully(secured.stream)

    def _refuse(self, address: str, reason: str) -> None:
        self.counters.refused += 1
        self.refusals.append(LinkRefused(address, reason))

    def _check_quarantine(self, node: NodeId) -> None:
        if self._quarantined.get(node, 0.0) > trio.current_time():
            raise PeerFault(node, "broke the protocol a moment ago")
        self._quarantined.pop(node, None)

    # Dialing

    def _start_dialers(self) -> None:
        if self._nursery is None:
            return
        for node, address in self._dial.items():
            if (node, address) not in self._dialers:
                self._dialers.add((node, address))
                self._nursery.start_soon(self._keep_dialing, node, address)

    async def _keep_dialing(self, node: NodeId, address: Address) -> None:
        """Hold a link to `node`: at once, then with growing pauses; a link that held ends the growth."""
        settings = self.settings
        pause_s = settings.backoff_s_min
        while self._dial.get(node) == address:
            since = trio.current_time()
            if node not in self._links:
                await self._dial_once(node, address)
            if (link := self._links.get(node)) is not None:  # the other side dialed us
                await link.closed.wait()
            if node not in self.failures and trio.current_time() - since >= settings.backoff_s_max:
                pause_s = settings.backoff_s_min
            # Jitter, so that a consortium does not come back all at once after a power cut
            await trio.sleep(pause_s * jitter(self._transport))
            pause_s = min(pause_s * 2, settings.backoff_s_max)
        self._dialers.discard((node, address))

    async def _dial_once(self, node: NodeId, address: Address) -> None:
        try:
            with trio.fail_after(limits.HANDSHAKE_S_MAX):
                self._check_quarantine(node)
                metered = MeteredStream(await self._transport.connect(*address))
                secured = self._security.dial(metered, lambda proven: proven == node)
                try:
                    await secured.handshake()
                    await exchange_hellos(secured.stream, self._hello, node)
                except BaseException:
                    await trio.aclose_forcefully(secured.stream)
                    raise
        except (*_ENDS_A_CONNECTION, trio.TooSlowError) as error:
            too_slow = isinstance(error, trio.TooSlowError)
            await self._fail(node, f"no link within {limits.HANDSHAKE_S_MAX:g} s" if too_slow else tls_reason(error))
            return
        metered.trust()
        try:
            await self._run_link(secured.stream, node, dialer=self.node)
        finally:
            await trio.aclose_forcefully(secured.stream)

    async def _fail(self, node: NodeId, reason: str) -> None:
        self.counters.handshakes_failed += 1
        if self.failures.get(node) != reason:
            self.failures[node] = reason
            await self._send_events.send(LinkFailed(node, reason))

    # Standing links

    async def _run_link(self, stream: trio.abc.Stream, node: NodeId, dialer: NodeId) -> None:
        link = Link(node, dialer, stream, self.settings, self.counters)
        if not await self._takes_its_place(link):
            return
        try:
            await self._send_events.send(LinkUp(node))
            reason = await link.run(self._send_events)
            await self._send_events.send(LinkDown(node, reason))
        finally:
            del self._links[node]  # only now may another take its place, so that its LinkUp comes after our LinkDown
            self.counters.links_down += 1
            link.closed.set()

    async def _takes_its_place(self, link: Link) -> bool:
        """Whether `link` becomes the one link to its node.

        Of two, the one dialed by the smaller id stays, so that both sides keep the same one; of two by the same
        dialer, the newer, because nobody dials while its own end of the older one lives.
        """
        node = link.node
        while (rival := self._links.get(node)) is not None:
            if rival.dialer < link.dialer:
                self._refuse(node.hex(), "there is a link already, dialed by the smaller id")
                return False
            rival.drop("replaced by a newer link")
            await rival.closed.wait()
        if node not in self._peers:  # removed during the handshake
            return False
        self.failures.pop(node, None)
        self._links[node] = link
        self.counters.links_up += 1
        return True
