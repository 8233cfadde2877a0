"""Layers of changes above a snapshot: how blocks run without a write to disk for each of them.

The *active* layer takes the writes of each executed block. When it is to be flushed it is *frozen*: still seen by
readers, no longer changed, while a writer thread stores it. After that write is durable the overlay is *thawed*
onto a renewed snapshot, which contains the frozen layer. The overlay never closes a snapshot: who opened it, closes it.
"""

from collections.abc import Iterator
from typing import Any

from p2pledger.state.memory import Get, Memory, Remembering
from p2pledger.state.ordered import OrderedMap
from p2pledger.state.view import StateView, Writes

_ABSENT: Any = object()
"""Not in a layer; None in a layer hides what lies below."""


class Overlay(Remembering):
    """A StateView of `base` with changes on top, of which those of the active layer can grow."""

    __slots__ = ("_active", "_frozen", "base")

    def __init__(self, base: StateView) -> None:
        self.base = base
        self._active: OrderedMap[bytes | None] = OrderedMap()
        self._frozen: OrderedMap[bytes | None] | None = None
        super().__init__(Memory(self.read))

    def __len__(self) -> int:
        """Keys changed in the active layer: when to flush."""
        return len(self._active)

    @property
    def is_flushing(self) -> bool:
        """Whether a frozen layer waits for `thaw`."""
        return self._frozen is not None

    def apply(self, writes: Writes, memory: Memory | None = None) -> None:
        """Take these changes into the active layer.

        `memory`: that of the draft which made them, for it knows them already.
        """
        self._active.update(writes)
        if memory is None:
            self.memory.note(writes)
        else:
            memory.read_by(self.read)
            self.recall(memory)

    def lend(self) -> Memory:
        """The memory, for a draft; it comes back with the changes, or is lost."""
        memory = self.memory
        self.recall(Memory(self.read))
        return memory

    def freeze(self) -> Writes:
        """Close the active layer, open an empty one, and return what has to be flushed."""
        assert self._frozen is None, "the layer frozen before is not flushed yet"
        self._frozen, self._active = self._active, OrderedMap()
        return self._frozen.as_dict()

    def thaw(self, new_base: StateView) -> None:
        """Drop the frozen layer; `new_base` must contain it, durably."""
        assert self._frozen is not None, "nothing is frozen"
        self.base = new_base
        self._frozen = None

    def read(self, key: bytes) -> bytes | None:
        """The value as the layers have it."""
        value: bytes | None = self._active.values.get(key, _ABSENT)
        if value is _ABSENT and self._frozen is not None:
            value = self._frozen.values.get(key, _ABSENT)
        return self.base.get(key) if value is _ABSENT else value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As StateView has it.

        The layers are read when this is called, so changes applied during the iteration are not seen.
        """
        changes = self._active.range(prefix, start)
        if self._frozen is not None:
            older = self._frozen.range(prefix, start)
            if older:
                changes = sorted({**dict(older), **dict(changes)}.items())
        below = self.base.scan(prefix, start)
        return _merged(changes, below) if changes else below


class Draft(Remembering):
    """What one block makes of a view that does not change meanwhile: writes are seen at once, and can be taken back.

    An overlay's memory goes along, and back to it with the writes (`Overlay.apply`).
    """

    __slots__ = ("_base", "_below", "_undo", "_written")

    def __init__(self, base: StateView) -> None:
        self._written: OrderedMap[bytes | None] = OrderedMap()
        self._base = base
        self._undo: list[tuple[bytes, bytes | None]] | None = None
        """While an attempt lasts: keys, and what had been written there."""
        self._below: Get = base.get
        if isinstance(base, Overlay):
            memory, self._below = base.lend(), base.read
            memory.read_by(self._read)
        else:
            memory = Memory(self._read)
        super().__init__(memory)

    def _read(self, key: bytes) -> bytes | None:
        value: bytes | None = self._written.values.get(key, _ABSENT)
        return self._below(key) if value is _ABSENT else value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As `Overlay.scan`."""
        changes = self._written.range(prefix, start)
        below = self._base.scan(prefix, start)
        return _merged(changes, below) if changes else below

    def apply(self, writes: Writes) -> None:
        """Take these changes."""
        if self._undo is not None:
            written = self._written.values
            self._undo += [(key, written.get(key, _ABSENT)) for key in writes]
        self._written.values.update(writes)
        self.memory.note(writes)

    def attempt(self) -> None:
        """From here on changes may still be taken back; until `keep` or `revert`."""
        assert self._undo is None, "one attempt at a time"
        self._undo = []

    def keep(self) -> None:
        """The attempt was good."""
        self._undo = None

    def revert(self) -> None:
        """Take back what was changed since the attempt began."""
        undo, self._undo = self._undo, None
        assert undo is not None, "there is no attempt"
        for key, written in reversed(undo):
            if written is _ABSENT:
                self._written.discard(key)
            else:
                self._written.put(key, written)
        self.memory.drop(key for key, _ in undo)

    def writes(self) -> dict[bytes, bytes | None]:
        """All changes."""
        return self._written.as_dict()


def _merged(
    changes: list[tuple[bytes, bytes | None]], below: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """Two ascending sequences as one; at equal keys the change wins, and None hides."""
    entry = next(below, None)
    for key, value in changes:
        while entry is not None and entry[0] < key:
            yield entry
            entry = next(below, None)
        if entry is not None and entry[0] == key:
            entry = next(below, None)
        if value is not None:
            yield key, value
    if entry is not None:
        yield entry
        yield from below
