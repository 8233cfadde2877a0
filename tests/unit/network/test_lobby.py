"""Strangers wait in a small room for a short time."""

import errno

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from p2pledger.network.frame import Tag, encode_frame
from p2pledger.network.lobby import Lobby, MeteredStream, accept_forever, receive_first
from p2pledger.primitives.errors import InvalidInput, Unavailable


async def test_a_slow_handshake_ends_after_its_time(autojump_clock: MockClock) -> None:
    """T2: five seconds, however the bytes drip."""
    near, far = memory_stream_pair()

    async def drip() -> None:
        for byte in encode_frame(b"x" * 100, Tag.HELLO):
            await far.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(Unavailable, match="no handshake within 5 s"):
            async with Lobby(4).visit("10.0.0.1"):
                await receive_first(near, Tag.HELLO)
        assert 5 <= trio.current_time() < 6
        nursery.cancel_scope.cancel()


async def test_the_crowd_makes_room_for_others(nursery: trio.Nursery) -> None:
    """A flood from one address throws out its own oldest, never the lonely visitor from elsewhere."""
    lobby = Lobby(3, seconds=1000)
    gone: list[str] = []

    async def visit(address: str, name: str) -> None:
        try:
            async with lobby.visit(address):
                await trio.sleep_forever()
        except Unavailable:
            gone.append(name)

    for address, name in [("h", "honest"), ("f", "f1"), ("f", "f2"), ("f", "f3"), ("g", "other"), ("f", "f4")]:
        nursery.start_soon(visit, address, name)
        await wait_all_tasks_blocked()
    assert gone == ["f1", "f2", "f3"]
    assert len(lobby) == 3
    assert lobby.crowded_out == 3
    nursery.cancel_scope.cancel()


async def test_the_meter_stops_at_its_limit_and_can_be_lifted() -> None:
    """Ten bytes for strangers; the rest stays in the socket until it is trusted."""
    near, far = memory_stream_pair()
    metered = MeteredStream(near, 10)
    await far.send_all(bytes(30))
    assert len(await metered.receive_some(100)) == 10
    with pytest.raises(InvalidInput, match="more than 10 bytes"):
        await metered.receive_some(100)
    metered.trust()
    assert len(await metered.receive_some(100)) == 20


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff\x03", "longer than the limit of 4096"),
        (b"\0\0\0\0\x03", "length 0"),
        (encode_frame(b"x"), "has tag 1, not 3"),
    ],
)
async def test_a_first_frame_must_be_a_small_hello(data: bytes, why: str) -> None:
    near, far = memory_stream_pair()
    await far.send_all(data)
    with pytest.raises(InvalidInput, match=why):
        await receive_first(near, Tag.HELLO)


async def test_the_first_frame_is_read_to_its_last_byte_and_no_further() -> None:
    """What follows belongs to the link."""
    near, far = memory_stream_pair()
    await far.send_all(encode_frame(b"hello", Tag.HELLO) + b"next")
    assert await receive_first(near, Tag.HELLO) == b"hello"
    assert await near.receive_some() == b"next"


class ExhaustedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that finds no file descriptor twice, then a connection, then ends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.answers: list[Exception | trio.SocketStream] = [
            OSError(errno.EMFILE, "too many open files"),
            OSError(errno.ENFILE, "too many open files"),
            stream,
            OSError(errno.EBADF, "bad file descriptor"),
        ]

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_accepting_goes_on_when_file_descriptors_are_back(autojump_clock: MockClock) -> None:
    """T3: EMFILE is waited off, the next connection is taken; other errors are not hidden."""
    near, far = trio.socket.socketpair()
    taken: list[trio.SocketStream] = []
    pauses: list[float] = []

    async def take(stream: trio.SocketStream) -> None:
        taken.append(stream)
        await stream.aclose()

    stream = trio.SocketStream(near)
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="bad file descriptor")):
        async with trio.open_nursery() as nursery:
            await accept_forever(ExhaustedListener(stream), take, nursery, lambda: pauses.append(trio.current_time()))
    assert len(pauses) == 2
    assert pauses[1] - pauses[0] >= 0.1
    assert taken == [stream]
    far.close()
