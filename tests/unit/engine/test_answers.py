"""What a node answers is bounded, whatever it is asked for; the design's T7, T17, T24 and T27."""

import msgspec
import pytest

from p2pledger.chain.block import Header
from p2pledger.engine.catchup import range_reply
from p2pledger.engine.dissemination import ANSWER_BYTES_MAX
from p2pledger.engine.events import FromPeer, Now, Transmit
from p2pledger.engine.questions import ASK_MS, BURST, Questions
from p2pledger.messages import BatchPush, BatchRequest, RangeRequest, Status, parse_message
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BatchId, Bytes32, Epoch, Height, View
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.world import World
from p2pledger.storage.memory import MemoryLedgerStore
from tests.attack import Without
from tests.interfaces.chains import CHAIN, GENESIS, append, body, header


def busy_world() -> World:
    world = World(3)
    for _ in range(10):
        world.submit(0)
        world.run_until(world.now + 100)
    return world


def test_a_header_names_no_more_than_one_request_can_ask_for() -> None:
    """A PRE-PREPARE of 1,001 batch ids once made every honest node ask for them all, and be cut off for it."""
    one = header(1, GENESIS)
    many = tuple(BatchId(Bytes32(number.to_bytes(32, "big"))) for number in range(limits.BLOCK_BATCHES_MAX + 1))
    wide = msgspec.structs.replace(one, batches=many)
    assert BatchRequest(wide.batches[:-1]) == parse_message(encode(BatchRequest(wide.batches[:-1])))
    with pytest.raises(InvalidInput):
        parse_message(encode(BatchRequest(wide.batches)))
    with pytest.raises(InvalidInput):
        decode(Header, encode(wide), limits.FRAME_BYTES_MAX)


def test_a_range_fits_into_a_frame_however_large_its_blocks_are() -> None:
    """P21: uncertified blocks up to the window's full height, each as large as a block may be, then a certificate."""
    store = MemoryLedgerStore(CHAIN, GENESIS)
    parent = GENESIS
    for height in range(1, limits.WINDOW_MAX + 1):
        data = [bytes([height, part]) * (limits.BLOCK_BYTES_MAX // 4) for part in range(2)]
        block = header(height, parent, data)
        store.apply([*(body(item) for item in data), append(block, is_certified=height == limits.WINDOW_MAX)])
        parent = block.hash
    start = 1
    while start <= limits.WINDOW_MAX:
        reply = range_reply(store, Height(start))
        assert reply is not None
        assert len(encode(reply)) < limits.FRAME_BYTES_MAX
        assert reply.blocks[0].header.height == start
        assert reply.certificate.height == limits.WINDOW_MAX
        assert len(reply.blocks) + len(reply.tail) == limits.WINDOW_MAX - start + 1
        start += len(reply.blocks)
    assert range_reply(store, Height(start)) is None


def test_one_request_draws_each_batch_once_and_a_bounded_answer() -> None:
    """34 KB that name one batch a thousand times once drew a gigabyte."""
    world = busy_world()
    engine = world.nodes[0].engine
    assert engine is not None
    block = next(
        record
        for height in range(1, 20)
        if (record := world.nodes[0].ledger.block(Height(height))) and record.header.batches
    )
    request = BatchRequest(block.header.batches[:1] * limits.BLOCK_BATCHES_MAX)
    now = Now(world.now, WALL_START_MS + world.now)
    effects = engine.handle(FromPeer(world.nodes[1].id, encode(request)), now)
    pushes = [
        effect.transmission.body
        for effect in effects
        if isinstance(effect, Transmit) and isinstance(parse_message(effect.transmission.body), BatchPush)
    ]
    assert len(pushes) == 1
    assert ANSWER_BYTES_MAX <= limits.FRAME_BYTES_MAX


def test_a_flood_of_questions_is_answered_once_in_a_while() -> None:
    """Status and RangeRequest draw costly answers; after a few at the same moment the next one draws none (P23)."""
    world = busy_world()
    engine = world.nodes[0].engine
    assert engine is not None
    now = Now(world.now + 1_000, WALL_START_MS + world.now + 1_000)
    for question in (RangeRequest(Height(1)), Status(Epoch(0), View(0), True, Height(0))):
        sender = world.nodes[1].id
        asked = [engine.handle(FromPeer(sender, encode(question)), now) for _ in range(BURST + 1)]
        answered = [any(isinstance(effect, Transmit) for effect in effects) for effects in asked]
        assert answered == [*[True] * BURST, False]
        later = Now(now.monotonic_ms + ASK_MS, now.wall_ms + ASK_MS)
        once, again = (engine.handle(FromPeer(sender, encode(question)), later) for _ in range(2))
        assert any(isinstance(effect, Transmit) for effect in once)
        assert not any(isinstance(effect, Transmit) for effect in again)


@pytest.mark.attack("T27")
def test_a_flood_of_questions_would_draw_a_flood_of_answers(without: Without) -> None:
    """P23: a hundred Status messages in one millisecond, each worth a certificate and a NEW-VIEW."""
    world = busy_world()
    engine = world.nodes[0].engine
    assert engine is not None
    sender, question = world.nodes[1].id, encode(Status(Epoch(0), View(0), True, Height(0)))

    def answers(at_ms: int) -> int:
        now = Now(world.now + at_ms, WALL_START_MS + world.now + at_ms)
        asked = [engine.handle(FromPeer(sender, question), now) for _ in range(100)]
        return sum(any(isinstance(effect, Transmit) for effect in effects) for effects in asked)

    with without(Questions.may_ask, "if paid_ms > now"):
        assert answers(1_000) == 100
    assert answers(60_000) == BURST
