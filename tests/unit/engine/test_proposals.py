"""Judging blocks (P3): each rule with the block that breaks it alone."""

import msgspec
import pytest

from p2pledger.chain.batch import Batch, batch_id, parse_batch, seal
from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.proposals import OriginWindows, Verdict, build, judge, select
from p2pledger.execution.windows import WINDOW, Window
from p2pledger.gossip import BatchPool, PooledBatch
from p2pledger.primitives.ids import Millis, NodeId, Nonce
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore

CONSORTIUM = found(4, Parameters())
FOUNDING = CONSORTIUM.founding
GENESIS = FOUNDING.header
NOW = WALL_START_MS


def pooled(origin: int, sequence: int, nonce: int = 1) -> PooledBatch:
    data = sign(FOUNDING.chain, CONSORTIUM.accounts[origin], Nonce(nonce), Millis(NOW + 60_000), [Put(b"k", b"v")])
    raw = seal(FOUNDING.chain, CONSORTIUM.nodes[origin], sequence, [data])
    return PooledBatch(batch_id(raw), parse_batch(raw), [parse(data)], raw, 0)


@pytest.fixture
def executor() -> Executor:
    state = MemoryStateStore()
    state.flush(genesis_flush(RegisterApplication(), FOUNDING))
    return Executor(FOUNDING, RegisterApplication(), MemoryLedgerStore(FOUNDING.chain, GENESIS.hash), state)


def windows(**used: Window) -> OriginWindows:
    return OriginWindows({NodeId(CONSORTIUM.nodes[int(name[1:])].public): window for name, window in used.items()})


def block(executor: Executor, *batches: PooledBatch) -> Header:
    pool = BatchPool()
    for batch in batches:
        pool.add(batch)
    return build(GENESIS, select(pool, windows()), executor, FOUNDING, NOW)


def bodies(*batches: PooledBatch) -> list[tuple[Batch, list[Transaction]]]:
    return [(batch.batch, batch.transactions) for batch in batches]


def verdict(header: Header, executor: Executor, *batches: PooledBatch, wall_ms: int = NOW) -> Verdict:
    return judge(header, GENESIS, bodies(*batches), windows(), executor, FOUNDING, wall_ms).verdict


def test_what_is_built_is_found_good(executor: Executor) -> None:
    first, second = pooled(0, 1), pooled(1, 1)
    assert verdict(block(executor, first, second), executor, first, second) is Verdict.GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"chain": bytes(32)},
        {"epoch": 1},
        {"height": 2},
        {"parent": bytes(32)},
        {"validators_hash": bytes(32)},
        {"next_validators_hash": bytes(32)},
        {"parameters_hash": bytes(32)},
        {"transaction_root": bytes(32)},
        {"unsettled": 0},
        {"unsettled": 2},
        {"executed_height": 1},
        {"effects_roots": (bytes(32),)},
        {"time_ms": GENESIS.time_ms},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_field_of_the_header_is_checked(executor: Executor, change: dict[str, object]) -> None:
    """P3: with everything else right."""
    batch = pooled(0, 1)
    header = msgspec.structs.replace(block(executor, batch), **change)
    assert verdict(header, executor, batch) is Verdict.BAD


def test_a_time_ahead_is_waited_for_and_a_time_behind_is_refused(executor: Executor) -> None:
    """P3: own clock ± drift; ahead is not wrong, only too early."""
    header, drift = block(executor), FOUNDING.parameters.drift_ms
    assert verdict(header, executor, wall_ms=NOW - drift) is Verdict.GOOD
    assert verdict(header, executor, wall_ms=NOW - drift - 1) is Verdict.WAIT
    assert verdict(header, executor, wall_ms=NOW + drift) is Verdict.GOOD
    assert verdict(header, executor, wall_ms=NOW + drift + 1) is Verdict.BAD


def test_no_batch_stands_twice_in_a_block_or_in_the_chain(executor: Executor) -> None:
    """P3: each sequence of an origin is used once, whatever its content."""
    batch, twin = pooled(0, 1), pooled(0, 1, nonce=2)
    header = block(executor, batch)
    doubled = msgspec.structs.replace(header, batches=(batch.id, twin.id))
    assert verdict(doubled, executor, batch, twin) is Verdict.BAD
    used = windows(n0=Window().use(1) or Window())
    assert judge(header, GENESIS, bodies(batch), used, executor, FOUNDING, NOW).verdict is Verdict.BAD


def test_a_batch_may_push_another_out_of_the_window_within_one_block(executor: Executor) -> None:
    """P3: sequences move on one by one, as execution uses them; judged by the start alone, every node would stop."""
    old, new = pooled(0, 2), pooled(0, 2 + WINDOW, nonce=2)
    start = Window(3, 2)  # 3 was used, 2 was not
    assert all(start.use(batch.batch.sequence) for batch in (old, new))
    moved = windows(n0=start)
    assert moved.use(new.batch)
    assert not moved.admits(old.batch)
    header = msgspec.structs.replace(block(executor, old), batches=(new.id, old.id))
    judgement = judge(header, GENESIS, bodies(new, old), windows(n0=start), executor, FOUNDING, NOW)
    assert judgement.verdict is Verdict.BAD
    assert "outside its window" in judgement.reason


def test_selection_leaves_out_what_may_not_be_ordered() -> None:
    """P1: a proposal is one that everybody finds good."""
    pool = BatchPool()
    old, new = pooled(0, 2), pooled(0, 2 + WINDOW, nonce=2)
    pool.add(new)
    pool.add(old)
    chosen = select(pool, windows(n0=Window(3, 2)))
    assert [batch.id for batch in chosen.batches] == [new.id]
