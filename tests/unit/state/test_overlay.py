"""Layers over a snapshot look like one state, whatever lies in which layer."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pledger.engine.ports import StateFlush
from p2pledger.primitives.ids import Height
from p2pledger.state.overlay import Draft, Overlay
from p2pledger.storage.memory import MemoryStateStore

KEYS = st.binary(min_size=1, max_size=2)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=2), max_size=30)


def store_with(state: dict[bytes, bytes]) -> MemoryStateStore:
    store = MemoryStateStore()
    store.flush(StateFlush(Height(0), state, (), (), {}, ()))
    return store


def test_a_change_hides_what_lies_below() -> None:
    """Active over frozen over base; a deletion hides, too."""
    store = store_with({b"a": b"0", b"b": b"0", b"c": b"0", b"d": b"0"})
    overlay = Overlay(store.snapshot())
    overlay.apply({b"b": b"1", b"c": b"1", b"e": b"1"})
    assert overlay.freeze() == {b"b": b"1", b"c": b"1", b"e": b"1"}
    overlay.apply({b"c": None, b"a": None, b"f": b"2"})
    assert [overlay.get(key) for key in (b"a", b"b", b"c", b"d", b"e")] == [None, b"1", None, b"0", b"1"]
    assert list(overlay.scan(b"")) == [(b"b", b"1"), (b"d", b"0"), (b"e", b"1"), (b"f", b"2")]
    assert (len(overlay), overlay.is_flushing) == (3, True)


def test_a_deleted_key_can_come_back() -> None:
    """In a later layer, over a deletion that is being flushed."""
    overlay = Overlay(store_with({b"a": b"0"}).snapshot())
    overlay.apply({b"a": None})
    overlay.freeze()
    assert list(overlay.scan(b"")) == []
    overlay.apply({b"a": b"2"})
    assert list(overlay.scan(b"")) == [(b"a", b"2")]


def test_an_iteration_does_not_see_later_changes() -> None:
    """The layers are read when the scan begins."""
    overlay = Overlay(store_with({b"b": b"0"}).snapshot())
    overlay.apply({b"a": b"1", b"c": b"1"})
    walk = overlay.scan(b"")
    assert next(walk) == (b"a", b"1")
    overlay.apply({b"c": b"2", b"d": b"2"})
    assert list(walk) == [(b"b", b"0"), (b"c", b"1")]


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.binary(max_size=2), max_size=20), st.lists(CHANGES, max_size=4), KEYS, KEYS)
def test_a_draft_shows_what_an_overlay_shows(
    state: dict[bytes, bytes], history: list[dict[bytes, bytes | None]], read: bytes, prefix: bytes
) -> None:
    """Whatever was read before a change, and whatever is changed back."""
    draft, overlay = Draft(store_with(state).snapshot()), Overlay(store_with(state).snapshot())
    for changes in history:
        draft.get(read)
        draft.apply(changes)
        overlay.apply(changes)
        for key in {*changes, *state, read}:
            assert draft.get(key) == overlay.get(key)
        assert list(draft.scan(prefix[:1])) == list(overlay.scan(prefix[:1]))
    assert draft.writes() == overlay.freeze()


def test_overlays_stand_on_overlays() -> None:
    """A transaction's changes over its block's: what fails is dropped whole."""
    block = Overlay(store_with({b"a": b"0"}).snapshot())
    block.apply({b"b": b"1"})
    attempt = Overlay(block)
    attempt.apply({b"a": None, b"c": b"2"})
    assert list(attempt.scan(b"")) == [(b"b", b"1"), (b"c", b"2")]
    assert list(block.scan(b"")) == [(b"a", b"0"), (b"b", b"1")]


class Overlays(RuleBasedStateMachine):
    """An executor's life: changes, a flush in the background, a renewed base."""

    @initialize(state=st.dictionaries(KEYS, st.binary(max_size=2), max_size=30))
    def start(self, state: dict[bytes, bytes]) -> None:
        self.model = dict(state)
        self.store = store_with(state)
        self.snapshot = self.store.snapshot()
        self.overlay = Overlay(self.snapshot)

    @rule(changes=CHANGES)
    def execute(self, changes: dict[bytes, bytes | None]) -> None:
        self.overlay.apply(changes)
        for key, value in changes.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @precondition(lambda self: not self.overlay.is_flushing)
    @rule()
    def flush(self) -> None:
        writes = self.overlay.freeze()
        self.store.flush(StateFlush(Height(self.store.height() + 1), writes, (), (), {}, ()))

    @precondition(lambda self: self.overlay.is_flushing)
    @rule()
    def flushed(self) -> None:
        renewed = self.store.snapshot()
        self.overlay.thaw(renewed)
        self.snapshot.close()
        self.snapshot = renewed

    @rule(prefix=st.binary(max_size=1), start=st.binary(max_size=1))
    def scan(self, prefix: bytes, start: bytes) -> None:
        wanted = [item for item in sorted(self.model.items()) if item[0].startswith(prefix)]
        assert list(self.overlay.scan(prefix, start)) == [item for item in wanted if item[0] >= prefix + start]

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.overlay.get(key) == self.model.get(key)

    @invariant()
    def it_is_one_state(self) -> None:
        assert list(self.overlay.scan(b"")) == sorted(self.model.items())


TestOverlays = Overlays.TestCase
TestOverlays.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
