"""Batches and relays under another's name, and floods: each gets through without the one rule against it."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain import batch as batches
from p2pledger.chain.batch import Batch, check_batch, parse_batch, seal
from p2pledger.chain.transaction import assemble, parse, sign
from p2pledger.engine.admission import Admission
from p2pledger.engine.dissemination import Dissemination
from p2pledger.engine.events import Now
from p2pledger.gossip import BatchPool, Router
from p2pledger.mempool import Mempool
from p2pledger.messages import Inquiry, Relay, parse_message
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import ChainId, Millis, NodeId, Nonce, Signature
from p2pledger.sim.application import Put
from p2pledger.sim.founding import WALL_START_MS, seeded_key
from p2pledger.sim.world import World
from tests.attack import Check, Without
from tests.unit.engine.test_pools import transaction
from tests.unit.engine.test_proposals import CONSORTIUM, FOUNDING, NOW, pooled
from tests.unit.engine.test_router import Graph, line


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except InvalidInput:
        return True
    return False


ORIGIN = CONSORTIUM.nodes[0]


def transaction_bytes(chain: ChainId = FOUNDING.chain, signatures: tuple[bytes, ...] = ()) -> bytes:
    data = sign(chain, CONSORTIUM.accounts[0], Nonce(1), Millis(NOW + 60_000), [Put(b"k", b"v")])
    if signatures:
        envelope = parse(data).envelope
        return assemble(envelope.body, envelope.operations, [Signature(one) for one in signatures])
    return data


def by_another_node() -> Batch:
    """Its sequence would be used up, and its own batches refused for ever after."""
    made = parse_batch(seal(FOUNDING.chain, seeded_key("liar"), 1, [transaction_bytes()]))
    return replace(made, origin=NodeId(ORIGIN.public))


def with_another_sequence() -> Batch:
    return replace(parse_batch(seal(FOUNDING.chain, ORIGIN, 1, [transaction_bytes()])), sequence=2)


def with_an_unsigned_transaction() -> Batch:
    return parse_batch(seal(FOUNDING.chain, ORIGIN, 1, [transaction_bytes(signatures=(bytes(64),))]))


def with_a_transaction_of_another_chain() -> Batch:
    return parse_batch(seal(FOUNDING.chain, ORIGIN, 1, [transaction_bytes(ChainId(bytes(32)))]))


@pytest.mark.attack("T42", "T17")
@pytest.mark.parametrize(
    ("check", "forged"),
    [
        (Check(batches.check_batch, "if not verify("), by_another_node),
        (Check(batches.check_batch, "if not verify("), with_another_sequence),
        (Check(batches.check_batch, "check_signatures("), with_an_unsigned_transaction),
        (Check(batches.check_batch, "if transaction.body.chain != chain"), with_a_transaction_of_another_chain),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_everything_in_a_batch_is_signed(without: Without, check: Check, forged: Callable[[], Batch]) -> None:
    batch = forged()
    with without(*check):
        assert len(check_batch(FOUNDING.chain, batch)) == 1
    assert is_refused(lambda: check_batch(FOUNDING.chain, batch))


@pytest.mark.attack("T42")
def test_a_batch_of_somebody_who_is_no_member_is_not_even_verified(without: Without) -> None:
    world = World(3)
    engine = world.nodes[0].engine
    assert engine is not None
    stranger = seal(engine.chain, seeded_key("stranger"), 1, [transaction_bytes(engine.chain)])
    held: Dissemination = engine._batches
    with without(Dissemination.on_push, "if batch.origin not in self.origins"):
        assert len(list(held.on_push(world.nodes[1].id, stranger))) == 1
    held.on_bad(batches.batch_id(stranger))
    assert is_refused(lambda: list(held.on_push(world.nodes[1].id, stranger)))


@pytest.fixture
def relayed() -> tuple[Graph, Relay]:
    """What the first of three nodes in a line says, as the second one gets it."""
    graph = Graph(3, line(3))
    relay = parse_message(graph.routers[0].broadcast(Inquiry(1))[0].body)
    assert isinstance(relay, Relay)
    return graph, relay


@pytest.mark.attack("T42")
@pytest.mark.parametrize("what", ["body", "serial", "origin", "destination"])
def test_only_what_its_origin_signed_is_carried_on(relayed: tuple[Graph, Relay], without: Without, what: str) -> None:
    graph, relay = relayed
    changes = {"body": relay.body + b"x", "serial": 99, "origin": graph.ids[2], "destination": graph.ids[2]}
    forged = replace(relay, **{what: changes[what]})

    def carried() -> bool:
        router = Router(relay_chain(graph), seeded_key("router", 1), graph.ids, serial=0)
        router.link_up(graph.ids[0])
        return not is_refused(lambda: router.on_relay(graph.ids[0], forged))

    with without(Router.on_relay, "if not verify("):
        assert carried()
    assert not carried()


def relay_chain(graph: Graph) -> ChainId:
    return graph.routers[0]._chain


@pytest.mark.attack("T42")
def test_nobody_relays_for_a_stranger(relayed: tuple[Graph, Relay], without: Without) -> None:
    """Anybody can make keys; without the list of members each would cost memory for its serials."""
    graph, _ = relayed
    stranger = Router(relay_chain(graph), seeded_key("stranger"), graph.ids, serial=0)
    stranger.link_up(graph.ids[1])
    forged = parse_message(stranger.broadcast(Inquiry(1))[0].body)
    assert isinstance(forged, Relay)
    with without(Router.on_relay, "if relay.origin not in self.members"):
        assert graph.routers[1].on_relay(graph.ids[0], forged)[0] is not None
    assert is_refused(lambda: graph.routers[1].on_relay(graph.ids[0], forged))


@pytest.mark.attack("T42")
def test_an_old_relay_is_not_carried_again(relayed: tuple[Graph, Relay], without: Without) -> None:
    """A replay would make every node an amplifier."""
    graph, relay = relayed
    router = graph.routers[1]
    assert router.on_relay(graph.ids[0], relay)[0] is not None
    with without(Router.on_relay, "relay.serial in seen"):
        inner, carried = router.on_relay(graph.ids[0], relay)
        assert inner is not None and carried
    assert router.on_relay(graph.ids[0], relay) == (None, [])


# Floods


@pytest.mark.attack("T14")
@pytest.mark.parametrize(
    ("check", "pool"),
    [
        (Check(Mempool.add, "if len(self._waiting) >= self._transactions_max or"), {"transactions_max": 5}),
        (Check(Mempool.add, "self._bytes + len(transaction.data) > self._bytes_max"), {"bytes_max": 1_000}),
    ],
    ids=["transactions", "bytes"],
)
def test_the_mempool_is_bounded(without: Without, check: Check, pool: dict[str, int]) -> None:
    def taken_in() -> int:
        mempool = Mempool(**pool)
        for nonce in range(1, 16):
            try:
                mempool.add(transaction(0, nonce), 0)
            except Rejected as refusal:
                assert refusal.code is Code.E_BUSY
                break
        return len(mempool)

    with without(*check):
        assert taken_in() == 15
    assert taken_in() <= 5


@pytest.mark.attack("T14")
def test_sealed_transactions_are_bounded_until_the_chain_has_decided(without: Without) -> None:
    def undecided() -> int:
        mempool = Mempool(transactions_max=1)
        for nonce in range(1, 51):
            try:
                mempool.add(transaction(0, nonce), 0)
            except Rejected:
                break
            mempool.take(1)
        return len(mempool._taken)

    with without(Mempool.add, "if len(self._taken) >= self._undecided_max"):
        assert undecided() == 50
    assert undecided() == 4


@pytest.mark.attack("T14")
def test_one_origin_does_not_fill_the_pool_of_batches(without: Without) -> None:
    """P23: beyond its share a batch is held only when a block names it."""

    def held() -> int:
        pool = BatchPool(bytes_max=2 * limits.BATCH_BYTES_MAX, origins=2)
        greedy = NodeId(CONSORTIUM.nodes[0].public)
        pool.bytes_of[greedy] = 2 * limits.BATCH_BYTES_MAX
        return sum(pool.add(pooled(0, number, number)) for number in range(1, 6))

    with without(BatchPool.add, "self.is_full(pooled.batch.origin) and (not is_wanted)"):
        assert held() == 5
    assert held() == 0


@pytest.mark.attack("T13")
def test_two_transactions_with_one_nonce_do_not_wait_together(without: Without) -> None:
    """F-11: one of them could only fail, and nobody could say which."""

    def attack() -> int:
        mempool = Mempool()
        mempool.add(transaction(0, 1), 0)
        try:
            mempool.add(transaction(0, 1, variant=1), 0)
        except Rejected as refusal:
            assert refusal.code is Code.E_NONCE
        return len(mempool)

    with without(Mempool.add, "if known is not None"):
        assert attack() == 2
    assert attack() == 1


@pytest.mark.attack("T14", "T15")
@pytest.mark.parametrize(
    ("check", "changes", "code"),
    [
        (Check(Admission.precheck, "if body.chain != self._chain"), {"chain": ChainId(bytes(32))}, Code.E_CHAIN),
        (Check(Admission.precheck, "if body.expires_ms < now.wall_ms"), {"expires_ms": 1}, Code.E_TX_EXPIRED),
        (Check(Admission.precheck, "if body.expires_ms > latest"), {"expires_ms": 2**50}, Code.E_TX_EXPIRED),
        (
            Check(Admission._check_stranger, "if not is_let_in"),
            {"sender": seeded_key("stranger")},
            Code.E_UNKNOWN_SENDER,
        ),
        (Check(Admission._check_nonce, "if sender.window.use("), {"nonce": Nonce(2_000)}, Code.E_NONCE),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "",
)
def test_what_cannot_succeed_is_not_ordered(
    without: Without, check: Check, changes: dict[str, Any], code: Code
) -> None:
    """Admission is for honest work; execution decides again, on every node alike."""
    world = World(3)
    world.run_until(100)
    engine = world.nodes[0].engine
    assert engine is not None
    given: dict[str, Any] = {
        "chain": engine.chain,
        "sender": world.consortium.accounts[0],
        "nonce": Nonce(1),
        "expires_ms": Millis(WALL_START_MS + 60_000),
        "operations": [Put(b"k", b"v")],
    }
    now = Now(world.now, WALL_START_MS + world.now)
    useless = parse(sign(**(given | changes)))
    with without(*check):
        engine.admission.precheck(useless, now)
    with pytest.raises(Rejected) as refused:
        engine.admission.precheck(useless, now)
    assert refused.value.code is code


def test_what_was_looked_at_before_a_block_is_looked_at_again_after_it() -> None:
    """Between the two looks at the door its nonce is used elsewhere."""
    world = World(3)
    world.run_until(100)
    engine = world.nodes[0].engine
    assert engine is not None
    expires_ms = Millis(WALL_START_MS + 60_000)
    doomed = parse(sign(engine.chain, world.consortium.accounts[0], Nonce(1), expires_ms, operations=[Put(b"k", b"v")]))
    engine.admission.preview(doomed, Now(world.now, WALL_START_MS + world.now))
    world.hand_over(1, doomed)
    world.run_until(2_000)
    now = Now(world.now, WALL_START_MS + world.now)
    assert engine.executor.receipt(1, 1) is not None
    with pytest.raises(Rejected) as refused:
        engine.admission.admit(doomed, now)
    assert refused.value.code is Code.E_NONCE
