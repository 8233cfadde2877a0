"""What every state store promises; LMDB's and the one in memory keep the same promises."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from p2pledger.chain.receipt import Executed
from p2pledger.engine.ports import StateFlush, StateStore
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import Height
from p2pledger.state.view import Writes
from p2pledger.storage.memory import MemoryStateStore
from p2pledger.storage.state_store import LmdbStateStore
from tests.interfaces.chains import CHAIN, outcome

Store: TypeAlias = LmdbStateStore | MemoryStateStore
Reopen: TypeAlias = Callable[[Store], Store]


@pytest.fixture(params=["lmdb", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Store:
    return LmdbStateStore(tmp_path, CHAIN) if kind == "lmdb" else MemoryStateStore()


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    def again(store: Store) -> Store:
        if isinstance(store, MemoryStateStore):
            return store.reopened()
        store.close()
        return LmdbStateStore(tmp_path, CHAIN)

    return again


def flush(
    height: int,
    writes: Writes | None = None,
    receipts: list[Executed] | None = None,
    keys: list[tuple[int, int]] | None = None,
    tree: Writes | None = None,
    effects: list[tuple[Height, bytes]] | None = None,
) -> StateFlush:
    return StateFlush(Height(height), writes or {}, receipts or [], keys or [], tree or {}, effects or [])


def test_a_new_store_waits_for_the_genesis(store: Store, reopen: Reopen) -> None:
    """Height 0 executed and nothing executed are told apart."""
    assert (store.height(), store.is_new) == (0, True)
    store.flush(flush(0, {b"k": b"genesis"}))
    assert (store.height(), store.is_new) == (0, False)
    store = reopen(store)
    assert (store.height(), store.is_new) == (0, False)
    with store.snapshot() as snapshot:
        assert (snapshot.height, snapshot.get(b"k")) == (0, b"genesis")


def test_a_flush_is_there_after_a_restart(store: Store, reopen: Reopen) -> None:
    """State, receipts, tree and effects belong to one height."""
    some, more = outcome(1, 0, [b"event"]), outcome(2, 0)
    store.flush(flush(0))
    store.flush(
        flush(
            2,
            {b"a/1": b"one", b"a/2": b"", b"b": b"bee"},
            [some, more],
            [(7, 1), (7, 2)],
            {b"nroot": b"r" * 32},
            [(Height(1), b"1" * 64), (Height(2), b"2" * 32)],
        )
    )
    store = reopen(store)
    with store.snapshot() as snapshot:
        assert snapshot.height == 2
        assert [snapshot.get(key) for key in (b"a/1", b"a/2", b"b", b"c", b"")] == [b"one", b"", b"bee", None, None]
        assert [snapshot.receipt(7, nonce) for nonce in (1, 2, 3)] == [some, more, None]
        assert [list(snapshot.receipts_at(Height(height))) for height in (1, 2, 3)] == [[some], [more], []]
        assert snapshot.tree(b"nroot") == b"r" * 32
        assert snapshot.tree(b"nosuch") is None
        assert [snapshot.effects_leaves(Height(height)) for height in (0, 1)] == [[], [b"1" * 32] * 2]


def test_scans_are_in_order_and_within_their_prefix(store: Store) -> None:
    """From prefix + start on, ascending."""
    keys = [b"a", b"a/", b"a/1", b"a/10", b"a/2", b"a/\xff", b"a/\xff\xff", b"b", b"\xff", b"\xff\xff"]
    store.flush(flush(0, {key: b"v" + key for key in reversed(keys)}))
    with store.snapshot() as snapshot:
        for prefix, start in (
            (b"", b""),
            (b"a/", b""),
            (b"a/", b"1"),
            (b"a/", b"15"),
            (b"a/\xff", b""),
            (b"\xff", b""),
        ):
            wanted = [(key, b"v" + key) for key in keys if key.startswith(prefix) and key >= prefix + start]
            assert list(snapshot.scan(prefix, start)) == wanted
        assert list(snapshot.scan(b"c")) == []


def test_deletions_are_flushed(store: Store) -> None:
    """None deletes, also what was never there."""
    store.flush(flush(0, {b"a": b"1", b"b": b"2"}, tree={b"t": b"x"}))
    store.flush(flush(1, {b"a": None, b"zz": None, b"b": b"3"}, tree={b"t": None, b"u": None}))
    with store.snapshot() as snapshot:
        assert list(snapshot.scan(b"")) == [(b"b", b"3")]
        assert snapshot.tree(b"t") is None


def test_a_snapshot_keeps_what_it_saw(store: Store) -> None:
    """Flushes go on while somebody reads."""
    store.flush(flush(0, {b"a": b"old", b"b": b"old"}))
    before = store.snapshot()
    walk = before.scan(b"")
    assert next(walk) == (b"a", b"old")
    store.flush(flush(1, {b"a": b"new", b"b": None, b"c": b"new"}, [outcome(1, 0)], [(1, 1)], {b"t": b"x"}))
    between = store.snapshot()
    store.flush(flush(2, {b"a": None}))
    assert list(walk) == [(b"b", b"old")]
    assert [before.height, before.get(b"a"), before.tree(b"t"), before.receipt(1, 1)] == [0, b"old", None, None]
    assert list(before.receipts_at(Height(1))) == []
    assert list(between.scan(b"")) == [(b"a", b"new"), (b"c", b"new")]
    before.close()
    between.close()
    with store.snapshot() as after:
        assert list(after.scan(b"")) == [(b"c", b"new")]


def test_a_closed_snapshot_answers_no_more(store: Store) -> None:
    """A request that outlives its snapshot is a defect, not an empty state; closing twice is none."""
    store.flush(flush(0, {b"a": b"1"}))
    snapshot = store.snapshot()
    snapshot.close()
    snapshot.close()
    with pytest.raises(StoreError):
        snapshot.get(b"a")


def test_receipts_come_in_the_order_of_their_block(store: Store) -> None:
    """Whatever the order in which they were handed over; and those of strangers are not indexed."""
    receipts = [outcome(1, index) for index in range(300)]
    keys = [(0, 0) if index % 3 == 0 else (index, 5) for index in range(300)]
    store.flush(flush(1, receipts=receipts[::-1], keys=keys[::-1]))
    with store.snapshot() as snapshot:
        assert list(snapshot.receipts_at(Height(1))) == receipts
        assert snapshot.receipt(0, 0) is None
        assert snapshot.receipt(299, 5) == receipts[299]


def test_the_first_receipt_of_a_nonce_stays(store: Store) -> None:
    """A duplicate leaves the first receipt as it is."""
    store.flush(flush(1, receipts=[outcome(1, 0), outcome(1, 1)], keys=[(1, 1), (1, 1)]))
    store.flush(flush(2, receipts=[outcome(2, 0)], keys=[(1, 1)]))
    with store.snapshot() as snapshot:
        assert snapshot.receipt(1, 1) == outcome(1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        flush(1),
        flush(0),
        flush(2, receipts=[outcome(2, 0)]),
        flush(2, receipts=[outcome(1, 0)], keys=[(1, 1)]),
        flush(2, receipts=[outcome(3, 0)], keys=[(1, 1)]),
        flush(2, receipts=[outcome(2, 0), outcome(2, 0)], keys=[(1, 1), (1, 2)]),
        flush(2, effects=[(Height(1), bytes(32))]),
        flush(2, effects=[(Height(2), bytes(33))]),
        flush(2, {b"": b"x"}),
    ],
    ids=["same", "back", "keys", "past", "ahead", "twice", "effects", "leaves", "empty"],
)
def test_a_flush_that_does_not_fit_is_refused(store: Store, wrong: StateFlush) -> None:
    """Executing a height twice would count it twice; nothing of such a flush is written."""
    store.flush(flush(1, {b"k": b"1"}))
    with pytest.raises(StoreError):
        store.flush(wrong)
    assert store.height() == 1
    store.flush(flush(2, {b"k": b"2"}))
    assert store.height() == 2


def test_both_satisfy_the_port(store: Store) -> None:
    """The type checker and this line agree."""
    port: StateStore = store
    assert port.height() == 0
