"""The memory network keeps TCP's promises, and breaks no others than TCP does."""

import contextlib
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio

from p2pledger.network.frame import Tag, encode_frame
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import InvalidInput, PeerFault
from p2pledger.primitives.ids import NodeId
from p2pledger.sim.whole import determinism
from p2pledger.sim.whole.memory_network import WINDOW_BYTES, MemoryNetwork, MemoryStream, MemoryTransport

PORT = 7420
A, B = SigningKey(bytes([1] * 32)), SigningKey(bytes([2] * 32))
Story = Callable[[MemoryNetwork, MemoryStream, MemoryStream], Awaitable[None]]


def tell(story: Story, seed: int = 1) -> list[tuple[str, str, int, bytes]]:
    """Run a story about one connection from `a` to `b`; what the tap heard."""
    heard: list[tuple[str, str, int, bytes]] = []

    async def main() -> None:
        network = MemoryNetwork(Random(seed), lambda *frame: heard.append(frame))
        with trio.fail_after(1_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(network.deliver)
                listener = network.listen("b", PORT)
                near = await network.connect("a", "b", PORT)
                far = await listener.accept()
                assert isinstance(far, MemoryStream)
                await story(network, near, far)
                nursery.cancel_scope.cancel()

    determinism.run(seed, main)
    return heard


async def read(stream: MemoryStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some(1_000)
    return data


@pytest.mark.parametrize("seed", range(5))
def test_bytes_arrive_in_order_and_later(seed: int) -> None:
    """Whatever the pieces and delays, the reader sees the writer's bytes in the writer's order."""
    sent = [Random(seed + i).randbytes(300) for i in range(200)]

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        began = trio.current_time()
        for data in sent:
            await near.send_all(data)
        assert await read(far, 60_000) == b"".join(sent)
        assert trio.current_time() > began
        await near.aclose()
        assert await far.receive_some(10) == b""

    tell(story, seed)


def test_a_full_window_makes_the_writer_wait() -> None:
    """A reader that does not read stops the writer after a window, and starts it again by reading."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        await near.send_all(bytes(WINDOW_BYTES))
        with trio.move_on_after(100) as patience:
            await near.send_all(b"more")
        assert patience.cancelled_caught
        await read(far, WINDOW_BYTES)
        await near.send_all(b"more")
        assert await read(far, 4) == b"more"

    tell(story)


def test_a_partition_holds_back_and_loses_nothing() -> None:
    """One direction is blocked, the other is not; what was held back arrives when the partition ends."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        network.block([("a", "b")])
        await near.send_all(b"held")
        await far.send_all(b"free")
        assert await read(near, 4) == b"free"
        with trio.move_on_after(30) as patience:
            await far.receive_some(10)
        assert patience.cancelled_caught
        network.block([])
        assert await read(far, 4) == b"held"

    tell(story)


def test_nobody_connects_through_a_partition() -> None:
    """A connection attempt gets no answer, not even a refusal."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        network.block([("b", "a")])
        with trio.move_on_after(30) as patience:
            await network.connect("a", "b", PORT)
        assert patience.cancelled_caught
        network.block([])
        with pytest.raises(OSError, match="nobody listens at b:1"):
            await network.connect("a", "b", 1)

    tell(story)


@pytest.mark.parametrize("seed", range(6))
def test_a_reset_breaks_both_ends(seed: int) -> None:
    """Each reader gets a prefix of what was under way, then the end of it."""
    sent = bytes(range(200)) * 10

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        for start in range(0, 2_000, 200):
            await near.send_all(sent[start : start + 200])
        network.reset(near)
        got = b""
        try:
            while more := await far.receive_some(50):
                got += more
        except trio.BrokenResourceError:
            pass
        assert sent.startswith(got)
        with contextlib.suppress(trio.BrokenResourceError):
            assert await near.receive_some(1) == b""

    tell(story, seed)


def test_a_dead_machine_says_nothing_more() -> None:
    """After `unplug` its connections are gone, it listens nowhere, and the other end finds out."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        network.unplug("b")
        with pytest.raises(trio.ClosedResourceError):
            await far.send_all(b"ghost")
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(b"anybody?")
        with pytest.raises(OSError):
            await network.connect("a", "b", PORT)
        network.listen("b", PORT)  # its next incarnation

    tell(story)


def test_the_tap_hears_every_frame_once() -> None:
    """Frames are told apart however they were written, and told before anybody reads them."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        stream = bytes(33) + encode_frame(b"hello", Tag.HELLO) + encode_frame(b"vote") + encode_frame(b"", Tag.PING)
        for i in range(0, len(stream), 7):
            await near.send_all(stream[i : i + 7])

    assert tell(story) == [("a", "b", 3, b"hello"), ("a", "b", 1, b"vote"), ("a", "b", 2, b"")]


def test_an_end_is_who_the_network_says() -> None:
    """Nodes learn each other's key; one that was not expected, or speaks the clients' protocol, is refused."""

    async def story(network: MemoryNetwork, near: MemoryStream, far: MemoryStream) -> None:
        a, b = MemoryTransport(network, "a"), MemoryTransport(network, "b")
        dialing = a.peer_security(A, b"").dial(near, lambda node: node == B.public)
        accepting = b.peer_security(B, b"").accept(far, lambda node: node == NodeId(bytes(32)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refuses, accepting.handshake, PeerFault)
            assert await dialing.handshake() == B.public
        near2 = await network.connect("a", "b", PORT)
        await near2.send_all(b"C" + A.public)
        await _refuses(a.peer_security(A, b"").dial(near2.other, lambda node: True).handshake, InvalidInput)

    tell(story)


async def _refuses(handshake: Callable[[], Awaitable[object]], error: type[Exception]) -> None:
    with pytest.raises(error):
        await handshake()
