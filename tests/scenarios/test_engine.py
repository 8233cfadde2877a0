"""P1, P3, P9, P16b, P24 where the engine decides: on real nodes of a small virtual world."""

from collections.abc import Iterator

import msgspec
import pytest

from p2pledger.chain.batch import check_batch, parse_batch, seal
from p2pledger.chain.transaction import assemble, parse, sign
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.journal import BlockRecord
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import EngineEffect, Now, Transmit
from p2pledger.engine.proposing import Proposing
from p2pledger.messages import BatchAnnounce, parse_message
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Epoch, Height, Millis, Nonce, Signature, View
from p2pledger.sim.application import Put
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.world import World
from tests.unit.engine.test_proposals import pooled


@pytest.fixture
def world() -> World:
    world = World(11)
    world.run_until(200)
    return world


def engine_of(world: World, index: int) -> Engine:
    engine = world.nodes[index].engine
    assert engine is not None
    return engine


def primary_of(world: World) -> int:
    return next(node.index for node in world.nodes if node.engine is not None and node.engine.replica.is_primary)


def test_a_primary_waits_for_its_own_execution_before_it_proposes(world: World) -> None:
    """P1: on top of a block whose executed height it has not reached, its own header would go back behind it."""
    index = primary_of(world)
    engine = engine_of(world, index)
    engine.pool.add(pooled(0, 1))
    engine._agenda.now = Now(world.now + 10_000, WALL_START_MS + world.now + 10_000)
    told: list[on.Event] = []

    def tell(event: on.Event) -> Iterator[EngineEffect]:
        told.append(event)
        return iter(())

    proposing = Proposing(
        engine.founding,
        engine.replica,
        engine.executor,
        engine._batches,
        engine._agenda,
        tell,
        engine._catchup.known_header,
    )
    last = engine.executor.last
    ahead = msgspec.structs.replace(last, height=Height(last.height + 1), parent=last.hash, executed_height=last.height)
    for executed, builds in ((last.height + 1, 0), (last.height, 1)):
        parent = msgspec.structs.replace(ahead, executed_height=Height(executed))
        proposing.ask_build(do.BuildProposal(Epoch(0), engine.replica.view, parent))
        assert list(proposing.build_due()) == []
        assert len(told) == builds


def test_a_batch_with_one_wrong_signature_is_refused_whole(world: World) -> None:
    """P3: every body and every signature in it, before the batch counts for anything."""
    chain, account = world.consortium.founding.chain, world.consortium.accounts[0]
    good = sign(chain, account, Nonce(1), Millis(WALL_START_MS + 60_000), [Put(b"k", b"v")])
    envelope = parse(sign(chain, account, Nonce(2), Millis(WALL_START_MS + 60_000), [Put(b"k", b"w")])).envelope
    forged = assemble(envelope.body, envelope.operations, [Signature(bytes(64))])
    assert len(check_batch(chain, parse_batch(seal(chain, world.consortium.nodes[0], 1, [good])))) == 1
    with pytest.raises(InvalidInput):
        check_batch(chain, parse_batch(seal(chain, world.consortium.nodes[0], 1, [good, forged])))


def test_who_leaves_a_view_announces_what_waits(world: World) -> None:
    """P9: the next primary must be able to order what the last one did not."""
    index = (primary_of(world) + 1) % world.n
    engine = engine_of(world, index)
    batch = pooled(0, 1)
    engine.pool.add(batch)
    effects = list(engine._tell(on.PrimaryUnfair(engine.replica.view)))
    sent = [parse_message(effect.transmission.body) for effect in effects if isinstance(effect, Transmit)]
    assert BatchAnnounce((batch.id,)) in sent


def test_the_bodies_of_a_journalled_block_survive_a_crash(world: World) -> None:
    """P16b: durable in the write that journals the block, so that what is prepared can always be served."""
    world.submit(0)
    index, header = -1, None
    while header is None:
        assert world.step()
        for node in world.nodes:
            open_blocks = [record.header for record in node.ledger.journal() if isinstance(record, BlockRecord)]
            named = [block for block in open_blocks if block.batches and block.height > node.ledger.tip()]
            if named:
                index, header = node.index, named[0]
    world.crash(index)
    assert all(world.nodes[index].ledger.body(batch) is not None for batch in header.batches)


def test_a_batch_that_is_passed_over_costs_the_primary_its_view(world: World) -> None:
    """P24: one that came later was ordered, and goes on being ordered; patience counts from when it came."""
    engine = engine_of(world, (primary_of(world) + 1) % world.n)
    passed, ordered = pooled(0, 1), pooled(1, 1)
    passed.held_since_ms, ordered.held_since_ms = 300, 400
    engine.pool.add(passed)
    engine.pool.add(ordered)
    engine._agenda.now = Now(9_000, WALL_START_MS + 9_000)
    block = msgspec.structs.replace(engine.executor.last, batches=(ordered.id,))
    engine._batches.ordered(block, [(ordered.batch, ordered.transactions)])
    assert engine._batches.oldest_neglected_ms() == 300
    assert engine._watch.complaint() == on.PrimaryUnfair(View(0))
    engine.pool.halve(passed.batch.origin)
    assert engine._batches.oldest_neglected_ms() == 9_000  # P23: nobody complains for who sends junk
