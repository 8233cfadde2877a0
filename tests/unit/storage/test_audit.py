"""A state store whose bytes were changed behind the node's back (T31)."""

from pathlib import Path

import pytest

from p2pledger.engine.ports import StateFlush
from p2pledger.primitives.errors import StoreError
from p2pledger.primitives.ids import Height
from p2pledger.state import tree
from p2pledger.storage.audit import audit_state
from p2pledger.storage.state_store import LmdbStateStore
from tests.interfaces.chains import CHAIN

STATE = {b"consent/%d" % number: b"value %d" % number for number in range(50)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data file of a store with a state and its tree."""
    store = LmdbStateStore(tmp_path, CHAIN)
    _, records = tree.update(lambda _: None, STATE)
    store.flush(StateFlush(Height(0), STATE, (), (), records, ()))
    store.close()
    return tmp_path / "data.mdb"


ROOT = tree.update(lambda _: None, STATE)[0]


def test_an_intact_state_passes(data: Path) -> None:
    """All of it is under the root; another root is not its own."""
    store = LmdbStateStore(data.parent, CHAIN)
    with store.snapshot() as snapshot:
        assert audit_state(snapshot, ROOT) == 50
        with pytest.raises(StoreError, match="has root"):
            audit_state(snapshot, bytes(32))


def test_a_changed_value_is_found(data: Path) -> None:
    """The store itself hands it out without a word; the audit names the key."""
    data.write_bytes(data.read_bytes().replace(b"value 17", b"value 71"))
    store = LmdbStateStore(data.parent, CHAIN)
    with store.snapshot() as snapshot:
        assert snapshot.get(b"consent/17") == b"value 71"
        with pytest.raises(StoreError, match=f"state key {b'consent/17'.hex()} is damaged"):
            audit_state(snapshot, ROOT)


@pytest.mark.parametrize(
    ("wrong", "why"), [({b"consent/17": None}, "has 49 keys, but its tree has 50"), ({b"x": b""}, "is damaged")]
)
def test_a_lost_or_added_row_is_found(data: Path, wrong: dict[bytes, bytes | None], why: str) -> None:
    """State that was written without its tree."""
    store = LmdbStateStore(data.parent, CHAIN)
    store.flush(StateFlush(Height(1), wrong, (), (), {}, ()))
    with store.snapshot() as snapshot, pytest.raises(StoreError, match=why):
        audit_state(snapshot, ROOT)


def test_a_changed_tree_is_found(data: Path) -> None:
    """A bucket that was bent to fit the value leads to another root."""
    store = LmdbStateStore(data.parent, CHAIN)
    with store.snapshot() as snapshot:
        _, bent = tree.update(snapshot.tree, {b"consent/17": b"value 71"})
    buckets = {key: value for key, value in bent.items() if key.startswith(b"b")}
    store.flush(StateFlush(Height(1), {b"consent/17": b"value 71"}, (), (), buckets, ()))
    with store.snapshot() as snapshot:
        assert tree.root(snapshot.tree) == ROOT
        with pytest.raises(StoreError, match="has root"):
            audit_state(snapshot, ROOT)
