"""How large a primary makes its blocks, how long it gathers, and how much is taken in ahead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.engine.proposing import Pace
from p2pledger.mempool import UNDECIDED_LEAST, Mempool
from p2pledger.primitives.errors import Code, Rejected
from p2pledger.primitives.ids import AccountKey, Height, Nonce
from p2pledger.primitives.limits import BLOCK_TRANSACTIONS_LEAST, BLOCK_TRANSACTIONS_TARGET
from tests.unit.engine.test_pools import transaction

TIME_MS = 500


def timed(pace: Pace, height: int, transactions: int, took_ms: int) -> int:
    pace.built(Height(height), transactions, 1_000)
    pace.executed(Height(height), 1_000 + took_ms)
    return pace.transactions


def test_blocks_that_take_too_long_get_smaller_and_grow_again() -> None:
    pace = Pace(TIME_MS)
    assert pace.transactions == BLOCK_TRANSACTIONS_TARGET
    assert timed(pace, 1, 1_000, TIME_MS + 1) == 500
    assert timed(pace, 2, 500, TIME_MS + 1) == 250
    assert timed(pace, 3, 250, TIME_MS) == 312
    assert timed(pace, 4, 100, 10) == 312, "a small block says nothing about large ones"


def test_blocks_that_are_under_way_together_are_timed_from_one_to_the_next() -> None:
    pace = Pace(TIME_MS)
    for height in (1, 2, 3):
        pace.built(Height(height), 1_000, 0)
    pace.executed(Height(1), TIME_MS)
    pace.executed(Height(3), 3 * TIME_MS)
    assert pace.transactions == BLOCK_TRANSACTIONS_TARGET
    pace.built(Height(4), 1_000, 10 * TIME_MS)
    pace.executed(Height(4), 11 * TIME_MS)
    assert pace.transactions == BLOCK_TRANSACTIONS_TARGET, "nothing was under way before it was built"


def test_a_block_that_was_lost_is_forgotten() -> None:
    pace = Pace(TIME_MS)
    pace.built(Height(5), 1_000, 0)
    pace.executed(Height(4), 10_000)
    assert pace.transactions == BLOCK_TRANSACTIONS_TARGET
    pace.forget()
    pace.executed(Height(6), 10_000)
    assert pace.transactions == BLOCK_TRANSACTIONS_TARGET


@given(blocks=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 3_000))))
def test_the_size_stays_within_its_bounds(blocks: list[tuple[int, int]]) -> None:
    pace = Pace(TIME_MS)
    for height, (transactions, took_ms) in enumerate(blocks, 1):
        timed(pace, height, transactions, took_ms)
        assert BLOCK_TRANSACTIONS_LEAST <= pace.transactions <= BLOCK_TRANSACTIONS_TARGET


def filled(pool: Mempool, count: int) -> None:
    for nonce in range(1, count + 1):
        pool.demand_room()
        pool.add(transaction(0, nonce), 0)


def test_as_much_is_taken_in_as_the_chain_decides_in_two_seconds() -> None:
    """P23: and no more, so that overload is turned away before it costs anything."""
    pool = Mempool()
    filled(pool, UNDECIDED_LEAST)
    with pytest.raises(Rejected) as refused:
        pool.demand_room()
    assert refused.value.code == Code.E_BUSY
    sender = AccountKey(transaction(0, 1).body.sender)
    for nonce in range(1, 901):
        pool.decided(sender, Nonce(nonce))
    pool.block_decided(600)  # 900 in 600 ms: 3,000 in two seconds
    for nonce in range(UNDECIDED_LEAST + 1, UNDECIDED_LEAST + 2_901):
        pool.demand_room()
        pool.add(transaction(0, nonce), 0)
    with pytest.raises(Rejected, match="3000 transactions are undecided"):
        pool.demand_room()


def test_a_slow_chain_leaves_the_least() -> None:
    pool = Mempool()
    filled(pool, 10)
    pool.decided(AccountKey(transaction(0, 1).body.sender), Nonce(1))
    pool.block_decided(60_000)
    for nonce in range(11, UNDECIDED_LEAST + 2):
        pool.demand_room()
        pool.add(transaction(0, nonce), 0)
    with pytest.raises(Rejected):
        pool.demand_room()


def test_who_sends_many_leaves_room_for_who_sends_one() -> None:
    """P23: a gateway's thousands do not keep an emergency out."""
    pool = Mempool()
    filled(pool, UNDECIDED_LEAST * 3 // 4)
    assert pool.bulk_room == 0
    pool.demand_room()
    assert pool.room == UNDECIDED_LEAST // 4
