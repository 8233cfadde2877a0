"""The mesh over real TCP and TLS: who gets a link, what it carries, how it ends and comes back."""

from dataclasses import replace

import pytest
import trio

from p2pledger.network.budget import Rates
from p2pledger.network.frame import Tag, encode_frame
from p2pledger.network.link import (
    Frames,
    LinkDown,
    LinkFailed,
    LinkUp,
    PeerHello,
    encode_hello,
)
from p2pledger.network.lobby import receive_first
from p2pledger.network.peers import Peer, PeerLinks, whom_to_dial
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import InvalidInput
from tests.attack import Without
from tests.network.forgery import self_signed_ca
from tests.network.stage import (
    CHAIN,
    FAST,
    HOST,
    OTHER_CHAIN,
    PATIENCE_S,
    in_order,
    is_closed,
    member,
    next_of,
    tls_to,
)

A, B, C = in_order("a", "b", "c")
MEMBERS = [A, B, C]
OUTSIDER = member("outsider")


async def listen(nursery: trio.Nursery, links: PeerLinks) -> int:
    return int(await nursery.start(links.serve, HOST, 0))


async def linked(nursery: trio.Nursery, **settings: object) -> tuple[PeerLinks, PeerLinks]:
    """A and B with a link between them, dialed by A."""
    theirs = B.links([A], settings=replace(FAST, **settings))
    ours = A.links([B], {B.node: (HOST, await listen(nursery, theirs))}, settings=replace(FAST, **settings))
    await listen(nursery, ours)
    assert await next_of(ours, LinkUp) == LinkUp(B.node)
    assert await next_of(theirs, LinkUp) == LinkUp(A.node)
    return ours, theirs


async def bodies_of(links: PeerLinks, count: int) -> list[bytes]:
    bodies: list[bytes] = []
    while len(bodies) < count:
        event = await next_of(links, Frames)
        assert isinstance(event, Frames)
        bodies += event.bodies
    return bodies


async def refusal(links: PeerLinks, count: int = 1) -> str:
    """The reason of the `count`-th refused connection, as soon as it is there."""
    with trio.fail_after(PATIENCE_S):
        while links.counters.refused < count:
            await trio.lowlevel.checkpoint()
    return links.refusals[-1].reason


async def test_a_mesh_comes_up_with_one_link_for_each_pair(nursery: trio.Nursery) -> None:
    """Nodes know each other's addresses; the smaller id dials, and everybody is linked with everybody once."""
    meshes = [each.links(MEMBERS) for each in MEMBERS]
    ports = [await listen(nursery, links) for links in meshes]
    peers = {each.node: each.peer((HOST, port)) for each, port in zip(MEMBERS, ports, strict=True)}
    for links in meshes:
        links.set_peers(peers)
    for links in meshes:
        for _ in range(2):
            await next_of(links, LinkUp)
        assert links.up() == {each.node for each in MEMBERS} - {links.node}
        assert links.counters.links_up == 2


async def test_frames_arrive_in_order_both_ways(nursery: trio.Nursery) -> None:
    """What was queued without waiting arrives complete and in order, large messages too."""
    ours, theirs = await linked(nursery)
    sent = [str(i).encode() for i in range(1000)] + [bytes(2 * 1024 * 1024)]
    for body in sent:
        assert ours.send(B.node, body)
    theirs.send_many([A.node, C.node], b"to all that are linked")
    assert await bodies_of(theirs, len(sent)) == sent
    assert await bodies_of(ours, 1) == [b"to all that are linked"]
    assert not ours.send(C.node, b"to nobody")


def test_each_pair_has_one_dialer() -> None:
    """The smaller id dials, unless nobody can dial it back anyway."""
    peers = {each.node: each.peer((HOST, 1)) for each in MEMBERS} | {OUTSIDER.node: OUTSIDER.peer(None)}
    assert set(whom_to_dial(B.node, peers)) == {C.node}
    assert set(whom_to_dial(B.node, peers, is_reachable=False)) == {A.node, B.node, C.node}


async def test_a_dropped_link_comes_back(nursery: trio.Nursery) -> None:
    """Both sides hear that it went and that it is there again, and why it went."""
    ours, theirs = await linked(nursery)
    theirs.disconnect(A.node, "sent a forged vote")
    assert await next_of(theirs, LinkDown) == LinkDown(A.node, "sent a forged vote")
    assert isinstance(await next_of(ours, LinkDown), LinkDown)
    await next_of(ours, LinkUp)
    await next_of(theirs, LinkUp)
    ours.send(B.node, b"again")
    assert await bodies_of(theirs, 1) == [b"again"]


async def test_a_node_that_comes_later_is_found(nursery: trio.Nursery) -> None:
    """A dialer keeps trying, says the reason once, and is linked when the other side starts."""
    theirs = B.links([A])
    closed = await trio.open_tcp_listeners(0, host=HOST)
    port = closed[0].socket.getsockname()[1]
    await closed[0].aclose()
    ours = A.links([B], {B.node: (HOST, port)})
    await listen(nursery, ours)
    assert await next_of(ours, LinkFailed) == LinkFailed(B.node, "Connection refused")
    nursery.start_soon(theirs.serve, HOST, port)
    assert await next_of(ours, LinkUp) == LinkUp(B.node)
    assert not ours.failures


async def test_where_both_dial_the_smaller_ids_link_stays(nursery: trio.Nursery) -> None:
    """Two links for one pair become one, the same on both sides, and it works."""
    ours, theirs = A.links([B]), B.links([A])
    port_a, port_b = await listen(nursery, ours), await listen(nursery, theirs)
    theirs.set_peers({A.node: A.peer()}, {A.node: (HOST, port_a)})
    await next_of(theirs, LinkUp)
    await next_of(ours, LinkUp)
    # A dials as well, by hand: its link takes the other one's place at B, and B's dialing stops.
    async with tls_to(port_b, A.dialing_context([B])) as stream:
        await stream.send_all(encode_hello(A.hello()))
        await receive_first(stream, Tag.HELLO)
        assert await next_of(theirs, LinkDown) == LinkDown(A.node, "replaced by a newer link")
        assert await next_of(theirs, LinkUp) == LinkUp(A.node)
        await stream.send_all(encode_frame(b"on the newer one"))
        assert await bodies_of(theirs, 1) == [b"on the newer one"]
        assert theirs.up() == {A.node}


async def test_a_larger_ids_link_does_not_replace_a_smaller_ones(nursery: trio.Nursery) -> None:
    """While A's link to B stands, one that B dials is closed at once, and A's goes on."""
    ours, theirs = await linked(nursery)
    async with tls_to(ours.port, B.dialing_context([A])) as stream:
        await stream.send_all(encode_hello(B.hello()))
        await receive_first(stream, Tag.HELLO)
        assert await is_closed(stream)
    assert await refusal(ours) == "there is a link already, dialed by the smaller id"
    ours.send(B.node, b"still here")
    assert await bodies_of(theirs, 1) == [b"still here"]


@pytest.mark.attack("T23")
async def test_an_outsider_gets_no_link(nursery: trio.Nursery, without: Without) -> None:
    """Registered, the same node is linked; unregistered, TLS refuses it and the reason is kept."""
    open_to_it = A.links([B, OUTSIDER])
    with without.setup("peers that are the founding members"):
        async with tls_to(await listen(nursery, open_to_it), OUTSIDER.dialing_context([A])) as stream:
            await stream.send_all(encode_hello(OUTSIDER.hello()))
            assert await next_of(open_to_it, LinkUp) == LinkUp(OUTSIDER.node)

    strict = A.links([B])
    async with tls_to(await listen(nursery, strict), OUTSIDER.dialing_context([A])) as stream:
        assert await is_closed(stream)
    assert "certificate refused: self-signed certificate" in await refusal(strict)
    assert not strict.up()


async def test_a_wrong_node_at_the_address_gets_no_link(nursery: trio.Nursery) -> None:
    """A dials C's address and B answers, a member: it is still not C."""
    theirs = B.links(MEMBERS)
    ours = A.links(MEMBERS, {C.node: (HOST, await listen(nursery, theirs))})
    await listen(nursery, ours)
    failed = await next_of(ours, LinkFailed)
    assert isinstance(failed, LinkFailed)
    assert failed.node == C.node
    assert f"its key is {B.node.hex()}" in failed.reason
    assert not ours.up()


async def test_a_node_does_not_link_with_itself(nursery: trio.Nursery) -> None:
    """Its own address under another member's name leads nowhere, and it is no peer of itself."""
    ours = A.links(MEMBERS)
    port = await listen(nursery, ours)
    ours.set_peers({each.node: each.peer() for each in MEMBERS}, {B.node: (HOST, port), A.node: (HOST, port)})
    failed = await next_of(ours, LinkFailed)
    assert isinstance(failed, LinkFailed)
    assert failed.node == B.node
    assert not ours.up()


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (A.hello(chain=OTHER_CHAIN), f"is of chain {OTHER_CHAIN.hex()}, this is {CHAIN.hex()}"),
        (A.hello(version=0), "speaks wire version 0, this is 1"),
        (A.hello(version=999), "speaks wire version 999, this is 1"),
        (B.hello(), f"calls itself {B.node.hex()}, its key is {A.node.hex()}"),  # our own hello, reflected
    ],
)
async def test_a_wrong_hello_is_refused_by_name(nursery: trio.Nursery, hello: PeerHello, reason: str) -> None:
    """T4: the same connection with a right hello becomes a link."""
    links = B.links([A])
    port = await listen(nursery, links)
    async with tls_to(port, A.dialing_context([B])) as stream:
        await stream.send_all(encode_hello(A.hello()))
        await next_of(links, LinkUp)
    await next_of(links, LinkDown)
    async with tls_to(port, A.dialing_context([B])) as stream:
        await stream.send_all(encode_hello(hello))
        await receive_first(stream, Tag.HELLO)
        assert await is_closed(stream)
    assert reason in await refusal(links)


async def test_both_sides_of_two_chains_say_so(nursery: trio.Nursery) -> None:
    """The dialer too learns which chain the other side is of."""
    theirs = B.links([A], chain=OTHER_CHAIN)
    ours = A.links([B], {B.node: (HOST, await listen(nursery, theirs))})
    await listen(nursery, ours)
    failed = await next_of(ours, LinkFailed)
    assert isinstance(failed, LinkFailed)
    assert f"is of chain {OTHER_CHAIN.hex()}, this is {CHAIN.hex()}" in failed.reason


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\xff\xff\xff\xff\x03", "frame of 4294967295 bytes is longer than the limit of 4096"),
        (b"\0\0\0\0\x03", "frame of length 0"),
        (encode_frame(b"x"), "first frame has tag 1, not 3"),
        (encode_frame(b"\xc1" * 99, Tag.HELLO), "not a PeerHello"),
        (encode_frame(encode((1, CHAIN)), Tag.HELLO), "not a PeerHello"),
    ],
)
async def test_what_is_no_hello_is_refused(nursery: trio.Nursery, start: bytes, reason: str) -> None:
    links = B.links([A])
    async with tls_to(await listen(nursery, links), A.dialing_context([B])) as stream:
        await stream.send_all(start)
        await receive_first(stream, Tag.HELLO)
        assert await is_closed(stream)
    assert reason in await refusal(links)


async def test_an_oversized_prefix_ends_the_link(nursery: trio.Nursery) -> None:
    """T1 on a standing link: from the four bytes, and the reason names length and limit."""
    links = B.links([A])
    async with tls_to(await listen(nursery, links), A.dialing_context([B])) as stream:
        await stream.send_all(encode_hello(A.hello()))
        await next_of(links, LinkUp)
        await stream.send_all(b"\xff\xff\xff\xff")
        down = await next_of(links, LinkDown)
    reason = f"frame of 4294967295 bytes is longer than the limit of {limits.FRAME_BYTES_MAX}"
    assert down == LinkDown(A.node, reason)


async def test_a_peer_that_does_not_read_is_dropped(nursery: trio.Nursery) -> None:
    """The out-queue is bounded: a peer that takes nothing loses its link, and only that peer."""
    links = B.links([A, C], settings=replace(FAST, out_bytes_max=1_000_000))
    port = await listen(nursery, links)
    async with tls_to(port, A.dialing_context([B])) as deaf, tls_to(port, C.dialing_context([B])) as other:
        for stream, each in ((deaf, A), (other, C)):
            await stream.send_all(encode_hello(each.hello()))
            await next_of(links, LinkUp)
        while links.send(A.node, bytes(300_000)):
            await trio.lowlevel.checkpoint()
        down = await next_of(links, LinkDown)
        assert isinstance(down, LinkDown)
        assert down.node == A.node
        assert "read too slowly" in down.reason
        assert links.counters.out_queue_full == 1
        assert links.up() == {C.node}


async def test_a_flooder_is_read_at_its_rate(nursery: trio.Nursery) -> None:
    """Beyond its budget a peer is not read for a while; nothing is lost and the link stands."""
    rates = Rates(bytes_per_s=1e9, frames_per_s=2000, burst_s=0.05)
    ours, theirs = await linked(nursery, rates=rates)
    for _ in range(200):
        ours.send(B.node, b"flood")
    assert len(await bodies_of(theirs, 200)) == 200
    assert theirs.counters.throttled > 0
    assert theirs.up() == {A.node}


async def test_a_full_inbox_stops_the_reading_and_loses_nothing(nursery: trio.Nursery) -> None:
    """While the driver is busy the sender's queue fills; when it goes on, everything is there."""
    ours, theirs = await linked(nursery, inbox_batches=1)
    sent = [bytes([i]) * 20_000 for i in range(200)]
    for body in sent:
        assert ours.send(B.node, body)
        await trio.lowlevel.checkpoint()
    assert await bodies_of(theirs, len(sent)) == sent


async def test_a_flood_of_strangers_leaves_room_for_a_member(nursery: trio.Nursery) -> None:
    """T3: silent connections fill the lobby; the oldest make room, and a member still gets its link."""
    links = B.links([A], settings=replace(FAST, pre_auth_max=4))
    port = await listen(nursery, links)
    silent = [await trio.open_tcp_stream(HOST, port) for _ in range(20)]
    for stream in silent[:16]:
        assert await is_closed(stream)
    async with tls_to(port, A.dialing_context([B])) as stream:
        await stream.send_all(encode_hello(A.hello()))
        assert await next_of(links, LinkUp) == LinkUp(A.node)
    for stream in silent:
        await stream.aclose()


async def test_too_many_bytes_before_the_hello_are_refused(nursery: trio.Nursery) -> None:
    """Nobody may send more than 4 KiB before it is known, whatever it looks like."""
    links = B.links([A])
    stream = await trio.open_tcp_stream(HOST, await listen(nursery, links))
    record = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03"  # a ClientHello that claims 16 KiB
    await stream.send_all(record + bytes(8192))
    assert await is_closed(stream)
    assert await refusal(links) == "more than 4096 bytes before the handshake was over"


async def test_a_removed_peer_loses_its_link_and_does_not_come_back(nursery: trio.Nursery) -> None:
    """Peers can be taken out while the node runs: the link ends, and TLS knows the certificate no more."""
    ours, theirs = await linked(nursery)
    theirs.set_peers({})
    assert await next_of(theirs, LinkDown) == LinkDown(A.node, "no longer a peer")
    assert "certificate refused" in await refusal(theirs)
    theirs.set_peers({A.node: A.peer()})
    assert await next_of(ours, LinkDown)
    assert await next_of(ours, LinkUp) == LinkUp(B.node)


def test_a_peer_with_a_bad_certificate_is_a_wrong_configuration() -> None:
    """A CA or another node's certificate in a trust store stops the start."""
    for certificate in (self_signed_ca(B.key), C.certificate):
        with pytest.raises(InvalidInput, match="certificate of"):
            PeerLinks(A.key, A.certificate, CHAIN, {B.node: Peer(certificate)})
