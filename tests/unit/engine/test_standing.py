"""P3: what counts as junk of an origin, and what others could have brought about."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from p2pledger.chain.batch import Batch, JunkBatch, batch_id, check_batch, parse_batch, seal
from p2pledger.chain.receipt import executed
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.engine.dissemination import Dissemination
from p2pledger.engine.standing import DECIDED_REMEMBERED, GOOD_PER_STEP, Standing
from p2pledger.execution.execute import NOT_INDEXED, BlockEffects
from p2pledger.gossip import BatchPool
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, InvalidInput
from p2pledger.primitives.ids import BatchId, ChainId, Height, Millis, NodeId, Nonce
from p2pledger.sim.application import Put
from p2pledger.sim.founding import seeded_key
from p2pledger.sim.world import World
from tests.attack import Without

CHAIN = ChainId(bytes(32))
NOW = Millis(1_000_000_000)
DRIFT_MS = 10_000
ME, GREEDY, OTHER = (seeded_key("origin", number) for number in range(3))
ORIGIN = NodeId(GREEDY.public)
FULL = limits.POOL_BATCH_BYTES_MAX // 4


class Court:
    """A standing with blocks to judge."""

    def __init__(self) -> None:
        self.pool = BatchPool(origins=4)
        self.standing = Standing(self.pool, NodeId(ME.public), DRIFT_MS)
        self._nonce = 0

    def fresh(self, count: int = 3, expires_ms: int = NOW + 1_000) -> list[Transaction]:
        """Transactions that nobody has seen."""
        made = []
        for _ in range(count):
            self._nonce += 1
            key = seeded_key("sender", 0)
            made.append(parse(sign(CHAIN, key, Nonce(self._nonce), Millis(expires_ms), [Put(b"k", b"v")])))
        return made

    def orders(
        self,
        transactions: Sequence[Transaction],
        code: Code | None = Code.OK,
        origin: NodeId = ORIGIN,
        came_ms: int | None = NOW,
    ) -> int:
        """A block with one batch in which all end alike (None: decided before); the halvings afterwards."""
        batch = Batch(origin, 1, tuple(item.data for item in transactions), bytes(64))  # type: ignore[arg-type]
        uses_nonce = code not in {Code.E_UNKNOWN_SENDER, Code.E_NONCE}
        receipts = [] if code is None else [executed(Height(1), i, t.id, code, ()) for i, t in enumerate(transactions)]
        keys = [(1, t.body.nonce) if uses_nonce else NOT_INDEXED for t in transactions[: len(receipts)]]
        effects = BlockEffects(receipts, keys, {}, [], bytes(32), [])
        self.standing.judge(NOW, [(batch, transactions)], [came_ms], effects)
        return self.pool.halvings.get(origin, 0)


@pytest.fixture
def court() -> Court:
    return Court()


def test_junk_halves_the_share_down_to_one_batch(court: Court) -> None:
    """P23: never to nothing: an origin must be able to do better."""
    shares = []
    for _ in range(6):
        shares.append(court.pool.share(ORIGIN))
        court.orders(court.fresh(), Code.E_UNKNOWN_SENDER)
    assert shares == [FULL, FULL // 2, FULL // 4, FULL // 8, limits.BATCH_BYTES_MAX, limits.BATCH_BYTES_MAX]
    assert not court.pool.is_full(ORIGIN)
    assert court.pool.is_full(ORIGIN, coming=1)
    assert court.pool.share(NodeId(OTHER.public)) == FULL


def test_a_share_that_does_not_halve_evenly_ends_at_one_batch_too() -> None:
    """P23: whoever may send nothing can show nothing better."""
    pool = BatchPool(bytes_max=12 * limits.BATCH_BYTES_MAX, origins=4)
    shares = []
    for _ in range(4):
        shares.append(pool.share(ORIGIN))
        pool.halve(ORIGIN)
    assert shares == [3 * limits.BATCH_BYTES_MAX, 3 * limits.BATCH_BYTES_MAX // 2, *[limits.BATCH_BYTES_MAX] * 2]


def test_good_batches_restore_it_step_by_step(court: Court) -> None:
    """P23: so many for each step; junk in between starts the count again."""
    for _ in range(3):
        court.orders(court.fresh(), Code.E_UNKNOWN_SENDER)
    found = [court.orders(court.fresh()) for _ in range(GOOD_PER_STEP)]
    assert found == [3] * (GOOD_PER_STEP - 1) + [2]
    for _ in range(GOOD_PER_STEP - 1):
        court.orders(court.fresh())
    assert court.orders(court.fresh(), Code.E_UNKNOWN_SENDER) == 3
    for _ in range(4 * GOOD_PER_STEP):
        court.orders(court.fresh())
    assert court.pool.share(ORIGIN) == FULL
    assert not court.pool.halvings


@pytest.mark.parametrize("code", [Code.E_UNKNOWN_SENDER, Code.E_UNKNOWN_KIND, Code.E_TOO_LARGE, Code.E_ALONE])
def test_what_admission_never_lets_in_is_junk(court: Court, code: Code) -> None:
    assert court.orders(court.fresh(), code) == 1


@pytest.mark.parametrize("code", [Code.E_NO_CONSENT, Code.E_FORMAT, Code.E_NONCE, Code.E_SUSPENDED, Code.E_INTERNAL])
def test_what_a_client_can_bring_about_is_not(court: Court, code: Code) -> None:
    """P23: otherwise a client could take the room from the node that it sends to."""
    assert court.orders(court.fresh(), code) == 0


def test_a_batch_is_junk_when_most_of_it_is(court: Court) -> None:
    """Half is not most; neither good nor junk changes nothing."""
    court.orders(court.fresh(), Code.E_UNKNOWN_SENDER)
    batch = Batch(ORIGIN, 1, (), bytes(64))  # type: ignore[arg-type]
    for _ in range(2 * GOOD_PER_STEP):
        known, unknown = court.fresh(2), court.fresh(2)
        receipts = [executed(Height(1), i, t.id, Code.OK, ()) for i, t in enumerate(known)]
        receipts += [executed(Height(1), 2 + i, t.id, Code.E_UNKNOWN_SENDER, ()) for i, t in enumerate(unknown)]
        effects = BlockEffects(receipts, [(1, 1), (1, 2), NOT_INDEXED, NOT_INDEXED], {}, [], bytes(32), [])
        court.standing.judge(NOW, [(batch, [*known, *unknown])], [NOW], effects)
    assert court.pool.halvings == {ORIGIN: 1}


def test_a_transaction_that_went_through_another_origin_is_nobodys_junk(court: Court) -> None:
    """P23: a client may hand it to two nodes; both are correct."""
    twice = court.fresh()
    assert court.orders(twice, origin=NodeId(OTHER.public)) == 0
    assert court.orders(twice, None) == 0


def test_the_same_transaction_again_through_the_same_origin_is_junk(court: Court) -> None:
    """A correct node remembers what it has sealed until it is decided, and then the state does."""
    twice = court.fresh()
    assert court.orders(twice) == 0
    assert court.orders(twice, None) == 1


def test_one_transaction_many_times_in_a_batch_is_junk(court: Court) -> None:
    """One of them executes; the others only fill the block."""
    assert court.orders(court.fresh(1) * 5) == 1


def test_what_was_decided_long_ago_is_junk_whoever_brought_it_first(court: Court) -> None:
    """Old transactions of others are the cheapest filling."""
    old = court.fresh()
    court.orders(old, origin=NodeId(OTHER.public))
    lately = court.standing._decided
    lately.update({(None, number): ORIGIN for number in range(DECIDED_REMEMBERED)})  # type: ignore[misc]
    court.orders(court.fresh(4), origin=NodeId(OTHER.public))
    assert len(lately) <= DECIDED_REMEMBERED + len(old)
    assert court.orders(old, None) == 1


def test_expired_before_it_came_is_junk_and_expired_while_it_waited_is_not(court: Court) -> None:
    """Clocks may differ by the drift; how long a batch waits is the primary's doing."""
    assert court.orders(court.fresh(expires_ms=NOW - DRIFT_MS), Code.E_TX_EXPIRED, came_ms=NOW) == 0
    assert court.orders(court.fresh(expires_ms=NOW - DRIFT_MS - 1), Code.E_TX_EXPIRED, came_ms=NOW) == 1
    assert court.orders(court.fresh(expires_ms=NOW - 10 * DRIFT_MS), Code.E_TX_EXPIRED, came_ms=None) == 1


def test_a_day_and_more_ahead_is_junk(court: Court) -> None:
    """Admission asks the same of its own clock."""
    edge = NOW + limits.EXPIRY_AHEAD_MS_MAX + DRIFT_MS
    assert court.orders(court.fresh(expires_ms=edge), Code.E_TX_EXPIRED) == 0
    assert court.orders(court.fresh(expires_ms=edge + 1), Code.E_TX_EXPIRED) == 1


def test_nobody_judges_itself(court: Court) -> None:
    """The others do."""
    assert court.orders(court.fresh(), Code.E_UNKNOWN_SENDER, origin=NodeId(ME.public)) == 0


def spoilt(transaction: Transaction) -> bytes:
    return transaction.data[:-1] + bytes([transaction.data[-1] ^ 1])


def test_only_the_signature_of_the_origin_makes_a_bad_batch_its_junk(court: Court) -> None:
    """P23: rejected input never consumes the quota of whom it names."""
    (good,) = court.fresh(1)
    with pytest.raises(JunkBatch) as convicted:
        check_batch(CHAIN, parse_batch(seal(CHAIN, GREEDY, 1, [spoilt(good)])))
    assert convicted.value.origin == ORIGIN
    with pytest.raises(JunkBatch):
        check_batch(CHAIN, parse_batch(seal(CHAIN, GREEDY, 1, [b"nothing that could be parsed"])))
    forged = parse_batch(seal(CHAIN, OTHER, 1, [spoilt(good)]))
    with pytest.raises(InvalidInput) as named:
        check_batch(CHAIN, Batch(ORIGIN, 1, forged.transactions, forged.signature))
    assert not isinstance(named.value, JunkBatch)


def test_the_same_junk_counts_once(court: Court) -> None:
    """P23: whoever shows it again shows nothing new."""
    for _ in range(3):
        court.standing.convict(ORIGIN, BatchId(b"j" * 32))
    assert court.pool.halvings == {ORIGIN: 1}
    assert court.standing.is_known_junk(BatchId(b"j" * 32))


# In the engine


@pytest.fixture
def held() -> tuple[World, Dissemination]:
    world = World(5)
    engine = world.nodes[0].engine
    assert engine is not None
    return world, engine._batches


def sealed(world: World, sequence: int) -> bytes:
    chain = world.consortium.founding.chain
    key = world.consortium.accounts[1]
    transaction = sign(chain, key, Nonce(sequence), Millis(NOW), [Put(b"k", b"v")])
    return seal(chain, world.nodes[1].key, sequence, [transaction])


def test_in_penalty_one_batch_at_a_time_is_verified(held: tuple[World, Dissemination]) -> None:
    """The verifier's queue is part of the share."""
    world, batches = held
    origin = world.nodes[1].id
    assert [len(list(batches.on_push(origin, sealed(world, number)))) for number in (1, 2)] == [1, 1]
    for _ in range(9):
        batches.pool.halve(origin)
    assert list(batches.on_push(origin, sealed(world, 3))) == []
    for number in (1, 2):
        batches.on_bad(batch_id(sealed(world, number)))
    assert [len(list(batches.on_push(origin, sealed(world, number)))) for number in (4, 5)] == [1, 0]


def test_what_a_block_names_is_taken_from_anybody(held: tuple[World, Dissemination]) -> None:
    """A penalty is no rule of validity: others may have ordered it."""
    world, batches = held
    origin = world.nodes[1].id
    for _ in range(9):
        batches.pool.halve(origin)
    assert len(list(batches.on_push(origin, sealed(world, 1)))) == 1
    named = sealed(world, 2)
    list(batches.ask_for([batch_id(named)], [origin]))
    assert list(batches.on_push(origin, named)) == []  # announced only
    header = world.consortium.founding.header
    list(batches.ask_missing(replace(header, batches=(batch_id(named),))))
    assert len(list(batches.on_push(origin, named))) == 1


@pytest.mark.attack("T44")
def test_junk_that_was_convicted_is_not_verified_again(held: tuple[World, Dissemination], without: Without) -> None:
    """Its origin would otherwise buy a batch of verification with each frame, at the price of one halving."""
    world, batches = held
    origin, data = world.nodes[1].id, sealed(world, 1)
    batches.on_bad(batch_id(data), origin)

    def verified() -> int:
        asked = list(batches.on_push(origin, data))
        batches.on_bad(batch_id(data))
        return len(asked)

    with without(Dissemination.on_push, "if self.standing.is_known_junk(key)"):
        assert verified() == 1
    assert verified() == 0
