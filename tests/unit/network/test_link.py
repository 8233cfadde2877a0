"""What a link does while nothing is said; on a clock that jumps."""

import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from p2pledger.network.frame import PING, FrameDecoder, encode_frame
from p2pledger.network.link import Frames, Link, LinkCounters, LinkEvent, LinkSettings
from p2pledger.network.outbox import Outbox
from p2pledger.primitives.ids import NodeId

NODE = NodeId(b"n" * 32)
SETTINGS = LinkSettings(ping_s=10, silence_s=30)


async def reason_of(link: Link, far: trio.abc.Stream) -> str:
    """Run a link until it ends, reading its pings away."""
    send, receive = trio.open_memory_channel[LinkEvent](10)
    async with receive, send, trio.open_nursery() as nursery:
        nursery.start_soon(swallow, far)
        reason = await link.run(send)
        nursery.cancel_scope.cancel()
    return reason


async def swallow(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


def link_over(stream: trio.abc.Stream) -> Link:
    return Link(NODE, NODE, stream, SETTINGS, LinkCounters())


async def test_two_idle_ends_keep_the_link_with_pings(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """An hour of quiet is no reason to part; pings are not delivered."""
    near, far = memory_stream_pair()
    send, receive = trio.open_memory_channel[LinkEvent](10)
    for stream in (near, far):
        nursery.start_soon(link_over(stream).run, send)
    with trio.move_on_after(3600) as hour:
        await receive.receive()
    assert hour.cancelled_caught
    nursery.cancel_scope.cancel()


async def test_silence_ends_a_link(autojump_clock: MockClock) -> None:
    """The other side takes everything and says nothing: gone after 30 s."""
    near, far = memory_stream_pair()
    assert await reason_of(link_over(near), far) == "no complete frame for 30 s"
    assert trio.current_time() >= 30


async def test_dripped_bytes_do_not_hold_a_link_open(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """T2: a frame that never ends counts as silence; one that ends in time does not."""
    near, far = memory_stream_pair()

    async def drip() -> None:
        for byte in encode_frame(bytes(1000)):
            await trio.sleep(5)
            await far.send_all(bytes([byte]))

    nursery.start_soon(drip)
    assert await reason_of(link_over(near), far) == "no complete frame for 30 s"
    nursery.cancel_scope.cancel()


async def test_our_own_slowness_is_not_the_other_sides_silence(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A driver that is busy for a minute finds the link as it was."""
    near, far = memory_stream_pair()
    send, receive = trio.open_memory_channel[LinkEvent](0)
    nursery.start_soon(link_over(near).run, send)
    await far.send_all(encode_frame(b"vote"))
    await trio.sleep(60)
    assert await receive.receive() == Frames(NODE, [b"vote"])
    await far.send_all(encode_frame(b"another"))
    assert await receive.receive() == Frames(NODE, [b"another"])
    nursery.cancel_scope.cancel()


async def test_what_is_queued_together_is_written_together() -> None:
    """One write for a hundred messages; the size counts until they are written."""
    near, far = memory_stream_pair()
    outbox = Outbox(100_000)
    frames = [encode_frame(bytes([i])) for i in range(100)]
    for frame in frames:
        assert outbox.push(frame)
    assert outbox.size == sum(map(len, frames))
    outbox.finish()
    await outbox.run(near)
    assert outbox.size == 0
    assert FrameDecoder(100).feed(bytes(await far.receive_some())) == [bytes([i]) for i in range(100)]


async def test_a_full_outbox_takes_nothing_more(nursery: trio.Nursery) -> None:
    """What is being written counts as well."""
    near, _far = trio.testing.lockstep_stream_pair()
    outbox = Outbox(10)
    assert outbox.push(b"x" * 10)
    nursery.start_soon(outbox.run, near)
    await wait_all_tasks_blocked()
    assert not outbox.push(b"y")
    nursery.cancel_scope.cancel()


async def test_quiet_is_filled_with_pings(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    near, far = memory_stream_pair()
    nursery.start_soon(Outbox(100).run, near, 10)
    await trio.sleep(25)
    assert bytes(await far.receive_some()) == PING * 2
    nursery.cancel_scope.cancel()
