"""Mempool and batch pool against plain models."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.engine.engine import Engine
from p2pledger.engine.events import Now
from p2pledger.gossip import BatchPool
from p2pledger.mempool import Mempool
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import ChainId, Millis, Nonce
from p2pledger.sim.application import Put
from p2pledger.sim.founding import WALL_START_MS, seeded_key
from p2pledger.sim.world import World
from tests.unit.engine.test_proposals import pooled

KEYS = [seeded_key("sender", i) for i in range(2)]


def transaction(sender: int, nonce: int, variant: int = 0) -> Transaction:
    return parse(sign(ChainId(bytes(32)), KEYS[sender], Nonce(nonce), Millis(1), [Put(b"k", b"%d" % variant)]))


KNOWN = {(s, n, v): transaction(s, n, v) for s in range(2) for n in range(1, 5) for v in range(2)}


class MempoolModel(RuleBasedStateMachine):
    """Each (sender, nonce) is taken by one transaction from its arrival until the chain has decided it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Mempool(transactions_max=5)
        self.waiting: list[tuple[int, int, int]] = []
        self.taken: dict[tuple[int, int], int] = {}
        self.sealed: list[tuple[int, int, int]] = []

    @rule(key=st.sampled_from(sorted(KNOWN)))
    def arrives(self, key: tuple[int, int, int]) -> None:
        sender, nonce, variant = key
        known = self.taken.get((sender, nonce))
        try:
            taken = self.pool.add(KNOWN[key], 0)
        except Rejected as refused:
            expected = Code.E_NONCE if known is not None else Code.E_BUSY
            assert refused.code == expected
            assert known not in {None, variant} or len(self.waiting) >= 5
            return
        assert taken == (known is None)
        if taken:
            self.waiting.append(key)
            self.taken[sender, nonce] = variant

    @rule(count=st.integers(1, 3))
    def is_sealed(self, count: int) -> None:
        assert self.pool.take(count) == [KNOWN[key] for key in self.waiting[:count]]
        self.sealed += self.waiting[:count]
        del self.waiting[:count]

    @rule(data=st.data())
    def is_decided(self, data: Any) -> None:
        if self.sealed:
            sender, nonce, _ = self.sealed.pop(data.draw(st.integers(0, len(self.sealed) - 1)))
            self.pool.decided(KEYS[sender].public, Nonce(nonce))  # type: ignore[arg-type]
            self.taken.pop((sender, nonce), None)

    @rule()
    def batch_is_dead(self) -> None:
        self.pool.put_back([KNOWN[key] for key in self.sealed])
        self.waiting[:0] = self.sealed
        self.sealed.clear()

    @invariant()
    def the_same_wait(self) -> None:
        assert len(self.pool) == len(self.waiting)
        assert self.pool.bytes_waiting == sum(len(KNOWN[key].data) for key in self.waiting)


TestMempool = MempoolModel.TestCase


def test_a_full_share_takes_only_what_an_open_block_wants() -> None:
    """P3: a replica must be able to get the bodies of a proposal however full its pool is."""
    first, second = pooled(0, 1), pooled(0, 2)
    pool = BatchPool(origins=4)
    pool.bytes_of[first.batch.origin] = pool.bytes_max
    assert pool.is_full(first.batch.origin)
    assert not pool.add(first)
    assert pool.add(first, is_wanted=True)
    assert not pool.add(first, is_wanted=True)
    assert pool.add(second, is_wanted=True)
    assert (len(pool), pool.transactions, pool.bytes_held) == (2, 2, len(first.data) + len(second.data))
    assert pool.remove(first.id) == first
    assert pool.remove(first.id) is None
    assert (len(pool), pool.transactions, pool.bytes_held) == (1, 1, len(second.data))


def test_one_origin_cannot_keep_the_others_out() -> None:
    """P23: each origin has its share of the pool."""
    greedy, modest = pooled(0, 1), pooled(1, 1)
    pool = BatchPool(bytes_max=4 * limits.BATCH_BYTES_MAX, origins=2)
    pool.bytes_of[greedy.batch.origin] = 2 * limits.BATCH_BYTES_MAX
    assert not pool.add(greedy)
    assert pool.add(modest)


def test_batches_wait_in_the_order_in_which_they_came() -> None:
    pool = BatchPool()
    batches = [pooled(0, number, number) for number in (3, 1, 2)]
    for batch in batches:
        pool.add(batch)
    assert list(pool.batches.values()) == batches
    assert pool.oldest_ms() == 0


def test_two_transactions_with_one_nonce_do_not_wait_together() -> None:
    """F-11."""
    pool = Mempool()
    assert pool.add(KNOWN[0, 1, 0], 0)
    assert not pool.add(KNOWN[0, 1, 0], 0)
    with pytest.raises(Rejected, match="E_NONCE"):
        pool.add(KNOWN[0, 1, 1], 0)


def test_the_mempool_that_an_engine_is_given_is_the_one_it_uses() -> None:
    """An empty mempool is falsy; an engine once took its own instead, and the settings of a node had no effect."""
    world = World(1)
    node = world.nodes[0]
    small = Mempool(transactions_max=1)
    moment = Now(0, WALL_START_MS)
    founding = world.consortium.founding
    engine = Engine(founding, world.application, node.key, node.validator, node.ledger, node.state, moment, small)
    assert engine.admission.mempool is small
