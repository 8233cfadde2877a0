"""Both state stores side by side against plain dicts, through any history of flushes, snapshots and restarts."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from p2pledger.chain.receipt import Executed
from p2pledger.engine.ports import StateFlush, StateSnapshot
from p2pledger.primitives.ids import Height
from p2pledger.storage.memory import MemoryStateStore
from p2pledger.storage.state_store import LmdbStateStore
from tests.interfaces.chains import CHAIN, outcome

KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=12)


class StateStores(RuleBasedStateMachine):
    """LMDB, memory and a dict are told the same."""

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.lmdb = LmdbStateStore(Path(self.folder.name), CHAIN)
        self.memory = MemoryStateStore()
        self.height = -1
        self.state: dict[bytes, bytes] = {}
        self.tree: dict[bytes, bytes] = {}
        self.receipts: dict[tuple[int, int], Executed] = {}
        self.open: list[tuple[list[StateSnapshot], dict[bytes, bytes], int]] = []

    @rule(writes=CHANGES, tree=CHANGES, heights=st.integers(1, 3), count=st.integers(0, 4))
    def flush(
        self, writes: dict[bytes, bytes | None], tree: dict[bytes, bytes | None], heights: int, count: int
    ) -> None:
        first, self.height = self.height + 1, self.height + heights
        receipts = [outcome(height, i) for height in range(first, self.height + 1) for i in range(count)]
        keys = [(1 + executed.receipt.index, executed.receipt.height) for executed in receipts]
        effects = [(Height(height), height.to_bytes(32, "big") * count) for height in range(first, self.height + 1)]
        for store in (self.lmdb, self.memory):
            store.flush(StateFlush(Height(self.height), writes, receipts, keys, tree, effects))
        for model, changes in ((self.state, writes), (self.tree, tree)):
            model.update({key: value for key, value in changes.items() if value is not None})
            for key in [key for key, value in changes.items() if value is None]:
                model.pop(key, None)
        self.receipts.update(zip(keys, receipts, strict=True))

    @rule()
    def restart(self) -> None:
        self.release()
        self.lmdb.close()
        self.lmdb = LmdbStateStore(Path(self.folder.name), CHAIN)
        self.memory = self.memory.reopened()

    @rule()
    def look(self) -> None:
        self.open.append(([self.lmdb.snapshot(), self.memory.snapshot()], dict(self.state), self.height))

    @rule()
    def release(self) -> None:
        for snapshots, _, _ in self.open:
            for snapshot in snapshots:
                snapshot.close()
        self.open.clear()

    @rule(prefix=st.binary(max_size=2), start=st.binary(max_size=2))
    def scan(self, prefix: bytes, start: bytes) -> None:
        for snapshot in self.now():
            wanted = [item for item in sorted(self.state.items()) if item[0].startswith(prefix)]
            assert list(snapshot.scan(prefix, start)) == [item for item in wanted if item[0] >= prefix + start]

    @invariant()
    def all_say_the_same(self) -> None:
        for snapshot in self.now():
            assert snapshot.height == max(self.height, 0)
            assert dict(snapshot.scan(b"")) == self.state
            assert {key: snapshot.tree(key) for key in self.tree} == self.tree
            assert {key: snapshot.receipt(*key) for key in self.receipts} == self.receipts
            for height in range(self.height + 2):
                wanted = [executed for executed in self.receipts.values() if executed.receipt.height == height]
                assert list(snapshot.receipts_at(Height(height))) == wanted
                assert snapshot.effects_leaves(Height(height)) == [height.to_bytes(32, "big")] * len(wanted)

    @invariant()
    def snapshots_stand_still(self) -> None:
        for snapshots, state, height in self.open:
            for snapshot in snapshots:
                assert (dict(snapshot.scan(b"")), snapshot.height) == (state, max(height, 0))

    def now(self) -> Iterator[StateSnapshot]:
        for store in (self.lmdb, self.memory):
            with store.snapshot() as snapshot:
                yield snapshot

    def teardown(self) -> None:
        if hasattr(self, "lmdb"):
            self.lmdb.close()
            self.folder.cleanup()


def test_stores_and_model_agree() -> None:
    """Whatever is flushed, both stores show exactly that, and old snapshots do not move."""
    run_state_machine_as_test(
        StateStores,
        settings=settings(
            max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
