"""What a view remembers is what it would read and work out anew, whatever was written, taken back or flushed."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pledger.engine.ports import StateFlush
from p2pledger.primitives.ids import Height
from p2pledger.state import memory
from p2pledger.state.memory import remembered
from p2pledger.state.overlay import Draft, Overlay
from p2pledger.state.view import NOTHING, StateView
from p2pledger.storage.memory import MemoryStateStore

KEYS = st.sampled_from([bytes([first, second]) for first in b"ab" for second in b"12"] + [b"a", b"b"])
CHANGES = st.dictionaries(KEYS, st.none() | st.sampled_from([b"a1", b"a2", b"b1", b"b"]), max_size=4)


def pointed_at(key: bytes, state: StateView) -> tuple[bytes | None, ...]:
    """What a key says, and what stands at the key that it names."""
    first = state.get(key)
    return first, None if first is None else state.get(first)


def listed(prefix: bytes, state: StateView) -> tuple[tuple[bytes, bytes], ...]:
    """All below a prefix; what stands there may send the look elsewhere."""
    found = tuple(state.scan(prefix))
    return found + tuple(state.scan(found[0][1])) if found else found


remembered_pointed_at, remembered_listed = remembered(pointed_at), remembered(listed)


def test_what_is_known_is_not_asked_again() -> None:
    """Until something that was read is written; writing another key does not matter."""
    asked = []

    def length(key: bytes, state: StateView) -> int:
        asked.append(key)
        return len(state.get(key) or b"")

    of, state = remembered(length), Overlay(NOTHING)
    assert [of(b"a", state), of(b"a", state)] == [0, 0]
    state.apply({b"b": b"1"})
    assert (of(b"a", state), len(asked)) == (0, 1)
    state.apply({b"a": b"22"})
    assert (of(b"a", state), len(asked)) == (2, 2)


def test_a_view_without_a_memory_is_always_asked() -> None:
    """As snapshots are."""
    assert remembered_pointed_at(b"a", NOTHING) == (None, None)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound everything is forgotten, and read again."""
    monkeypatch.setattr(memory, "REMEMBERED_MAX", 10)
    state = Overlay(NOTHING)
    state.apply({b"a": b"a"})
    for number in range(25):
        state.get(b"%d" % number)
        remembered_pointed_at(b"%d" % number, state)
    assert len(state.memory.values) <= memory.REMEMBERED_MAX
    assert len(state.memory.derived) <= memory.REMEMBERED_MAX
    assert remembered_pointed_at(b"a", state) == (b"a", b"a")


class Memories(RuleBasedStateMachine):
    """An executor's life: blocks of changes, attempts within them, flushes; and a model, a plain dict."""

    @initialize(state=st.dictionaries(KEYS, st.sampled_from([b"a1", b"b2"]), max_size=6))
    def start(self, state: dict[bytes, bytes]) -> None:
        self.model: dict[bytes, bytes | None] = dict(state)
        self.store = MemoryStateStore()
        self.store.flush(StateFlush(Height(0), state, (), (), {}, ()))
        self.overlay = Overlay(self.store.snapshot())
        self.draft: Draft | None = None
        self.before: dict[bytes, bytes | None] | None = None

    @precondition(lambda self: self.draft is None)
    @rule()
    def begin_a_block(self) -> None:
        self.draft = Draft(self.overlay)

    @precondition(lambda self: self.draft is not None and self.before is None)
    @rule(is_kept=st.booleans())
    def end_the_block(self, is_kept: bool) -> None:
        assert self.draft is not None
        if is_kept:
            self.overlay.apply(self.draft.writes(), self.draft.memory)
        else:  # as when a node stops in the middle of it
            self.model = {key: self.overlay.get(key) for key in (b"a", b"b", b"a1", b"a2", b"b1", b"b2")}
        self.draft = None

    @precondition(lambda self: self.draft is not None and self.before is None)
    @rule()
    def attempt(self) -> None:
        assert self.draft is not None
        self.before = dict(self.model)
        self.draft.attempt()

    @precondition(lambda self: self.before is not None)
    @rule(is_good=st.booleans())
    def end_the_attempt(self, is_good: bool) -> None:
        assert self.draft is not None and self.before is not None
        if is_good:
            self.draft.keep()
        else:
            self.draft.revert()
            self.model = self.before
        self.before = None

    @rule(changes=CHANGES)
    def write(self, changes: dict[bytes, bytes | None]) -> None:
        (self.overlay if self.draft is None else self.draft).apply(changes)
        self.model.update(changes)

    @precondition(lambda self: self.draft is None and not self.overlay.is_flushing)
    @rule()
    def flush(self) -> None:
        writes = self.overlay.freeze()
        self.store.flush(StateFlush(Height(self.store.height() + 1), writes, (), (), {}, ()))

    @precondition(lambda self: self.draft is None and self.overlay.is_flushing)
    @rule()
    def flushed(self) -> None:
        self.overlay.thaw(self.store.snapshot())

    @precondition(lambda self: self.draft is None)
    @rule()
    def forget(self) -> None:
        self.overlay.memory.values.clear()

    @rule(key=KEYS)
    def look(self, key: bytes) -> None:
        plain = Overlay(NOTHING)
        plain.apply(self.model)
        view: StateView = self.overlay if self.draft is None else self.draft
        assert view.get(key) == plain.get(key)
        assert remembered_pointed_at(key, view) == pointed_at(key, plain)
        assert remembered_listed(key, view) == listed(key, plain)

    @invariant()
    def all_is_there(self) -> None:
        view: StateView = self.overlay if self.draft is None else self.draft
        assert dict(view.scan(b"")) == {key: value for key, value in self.model.items() if value is not None}


Memories.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestMemories = Memories.TestCase
