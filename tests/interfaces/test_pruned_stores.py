"""F-29: what every store promises about pruned batches and forgotten events; on LMDB and in memory alike."""

from pathlib import Path
from typing import TypeAlias

import pytest

from p2pledger.chain.batch import batch_id
from p2pledger.chain.pruned import PrunedBatch, PrunedTransaction
from p2pledger.engine.ports import Forgetting, PutPruned, StateFlush
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import Height, NodeId, Signature
from p2pledger.storage.ledger import LmdbLedgerStore
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from p2pledger.storage.state_store import LmdbStateStore
from tests.interfaces.chains import CHAIN, GENESIS, NODE, append, body, chain_of, commit_of, fill, outcome

Ledger: TypeAlias = LmdbLedgerStore | MemoryLedgerStore
State: TypeAlias = LmdbStateStore | MemoryStateStore
LEFT = PrunedBatch(
    NodeId(NODE), 1, bytes(32), Signature(bytes(64)), (PrunedTransaction((Signature(bytes(64)),), b"body", None),)
)
KEY = batch_id(b"body 0 of 1")


@pytest.fixture(params=["lmdb", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ledger(kind: str, tmp_path: Path) -> Ledger:
    return LmdbLedgerStore(tmp_path, CHAIN, NODE, GENESIS) if kind == "lmdb" else MemoryLedgerStore(CHAIN, GENESIS)


@pytest.fixture
def state(kind: str, tmp_path: Path) -> State:
    return LmdbStateStore(tmp_path, CHAIN) if kind == "lmdb" else MemoryStateStore()


def reopened(ledger: Ledger, folder: Path) -> Ledger:
    if isinstance(ledger, MemoryLedgerStore):
        return ledger.reopened()
    ledger.close()
    return LmdbLedgerStore(folder, CHAIN, NODE, GENESIS)


def test_what_is_left_takes_the_place_of_the_body(ledger: Ledger, tmp_path: Path) -> None:
    """Also after a restart; the neighbours stay whole, and putting it twice does no harm."""
    fill(ledger, 2)
    assert ledger.pruned(KEY) is None
    ledger.apply([PutPruned(KEY, LEFT)])
    ledger.apply([PutPruned(KEY, LEFT)])
    store = reopened(ledger, tmp_path)
    assert store.body(KEY) is None
    assert store.pruned(KEY) == LEFT
    assert store.has_body(KEY)
    assert store.body(batch_id(b"body 0 of 2")) == b"body 0 of 2"


def test_a_block_may_come_with_what_is_left_of_its_batches(ledger: Ledger) -> None:
    """As a snapshot brings it."""
    (first, _), (second, bodies) = chain_of(2)
    ledger.apply([PutPruned(KEY, LEFT), append(first)])
    ledger.apply(commit_of(second, bodies))
    assert ledger.tip() == 2
    assert ledger.pruned(KEY) == LEFT


def test_an_open_block_needs_its_bodies_whole(ledger: Ledger) -> None:
    """Nothing is pruned that may still have to be executed, and nothing that has lost nothing."""
    ledger.apply([body(b"body 0 of 1")])
    with pytest.raises(StoreError, match="of no committed block"):
        ledger.apply([PutPruned(KEY, LEFT)])
    kept = PrunedBatch(
        LEFT.origin, 1, bytes(32), LEFT.signature, (PrunedTransaction((Signature(bytes(64)),), b"body", b"\x90"),)
    )
    with pytest.raises(StoreError, match="nothing of batch"):
        ledger.apply([PutPruned(batch_id(b"other"), kept)])
    assert ledger.body(KEY) == b"body 0 of 1"


def flush(height: int, forgetting: Forgetting | None = None) -> StateFlush:
    some = [outcome(height, 0, [b"event"]), outcome(height, 1, [b"other"])] if height else []
    named = [(7, 2 * height), (7, 2 * height + 1)] if height else []
    return StateFlush(Height(height), {}, some, named, {}, (), forgetting)


def test_events_are_forgotten_and_receipts_stay(state: State) -> None:
    """By place; by nonce the same receipt; snapshots from before keep what they saw."""
    state.flush(flush(0))
    state.flush(flush(1))
    before = state.snapshot()
    state.flush(flush(2, Forgetting(1, Height(1), [(Height(1), 0)])))
    with state.snapshot() as snapshot:
        gone, stays = snapshot.receipts_at(Height(1))
        assert gone == outcome(1, 0, [b"event"]).pruned() and gone.is_whole and gone.known == ()
        assert stays == outcome(1, 1, [b"other"])
        assert snapshot.receipt(7, 2) == gone
        assert snapshot.forgotten() == (1, 1)
    assert before.receipt(7, 2) == outcome(1, 0, [b"event"])
    assert before.forgotten() == (0, 0)
    before.close()


def test_only_what_is_durable_can_be_forgotten(state: State) -> None:
    """What is above the store's height may be executed again, and comes back whole."""
    state.flush(flush(0))
    state.flush(flush(1))
    for wrong in (
        Forgetting(1, Height(2), []),
        Forgetting(1, Height(0), [(Height(1), 0)]),
        Forgetting(0, Height(1), []),
    ):
        with pytest.raises(StoreError, match=r"pruning . forgets"):
            state.flush(flush(2, wrong))
    with state.snapshot() as snapshot:
        assert snapshot.forgotten() == (0, 0)
