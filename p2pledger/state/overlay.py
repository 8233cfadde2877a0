"""Layers of changes above a snapshot: how blocks run without a write to disk for each of them.

The *active* layer takes the writes of each executed block. When it is to be flushed it is *frozen*: still seen by
readers, no longer changed, while a writer thread stores it. After that write is durable the overlay is *thawed*
onto a renewed snapshot, which contains the frozen layer. The overlay never closes a snapshot: who opened it, closes it.
"""

from collections.abc import Iterator
from typing import Any

from p2pledger.state.ordered import OrderedMap
from p2pledger.state.view import StateView, Writes

_ABSENT: Any = object()
"""Not in a layer; None in a layer hides what lies below."""


class Overlay:
    """A StateView of `base` with changes on top, of which those of the active layer can grow."""

    __slots__ = ("_active", "_frozen", "base")

    def __init__(self, base: StateView) -> None:
        self.base = base
        self._active: OrderedMap[bytes | None] = OrderedMap()
        self._frozen: OrderedMap[bytes | None] | None = None

    def __len__(self) -> int:
        """Keys changed in the active layer: when to flush."""
        return len(self._active)

    @property
    def is_flushing(self) -> bool:
        """Whether a frozen layer waits for `thaw`."""
        return self._frozen is not None

    def apply(self, writes: Writes) -> None:
        """Take these changes into the active layer."""
        self._active.update(writes)

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

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value: bytes | None = self._active.values.get(key, _ABSENT)
        if value is _ABSENT and self._frozen is not None:
            value = self._frozen.values.get(key, _ABSENT)
        return self.base.get(key) if value is _ABSENT else value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all keys that begin with `prefix`, from `prefix + start` on, ascending.

        The layers are read when this is called, so changes applied during the iteration are not seen.
        """
        changes = self._active.range(prefix, start)
        if self._frozen is not None:
            older = self._frozen.range(prefix, start)
            if older:
                changes = sorted({**dict(older), **dict(changes)}.items())
        below = self.base.scan(prefix, start)
        return _merged(changes, below) if changes else below


class Draft:
    """What one block makes of a view that does not change meanwhile: reads are remembered, and writes are seen at once.

    A transaction reads some ten keys, most of which the ones before it have read: so one look decides.
    """

    __slots__ = ("_base", "_known", "_written")

    def __init__(self, base: StateView) -> None:
        self._base = base
        self._known: dict[bytes, bytes | None] = {}
        """Read or written."""
        self._written: OrderedMap[bytes | None] = OrderedMap()

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value: bytes | None = self._known.get(key, _ABSENT)
        if value is _ABSENT:
            value = self._known[key] = self._base.get(key)
        return value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As `Overlay.scan`."""
        changes = self._written.range(prefix, start)
        below = self._base.scan(prefix, start)
        return _merged(changes, below) if changes else below

    def apply(self, writes: Writes) -> None:
        """Take these changes."""
        self._known.update(writes)
        self._written.update(writes)

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
