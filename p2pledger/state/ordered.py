"""A dict whose keys can be listed in order by prefix: what an overlay layer and the memory store are made of.

Most layers are written far more often than they are scanned, so order is made when a scan asks for it. A dict keeps its
keys in the order in which they came, so those that came since the last scan are its last ones. They are merged then:
Python's sort finds the two sorted runs and merges them in linear time.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

V = TypeVar("V")

_INSERT_MAX = 16
"""Up to this many new keys are inserted one by one; more are merged by one sort."""


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key above every key with this prefix; None where there is none (b"", b"\\xff...")."""
    kept = prefix.rstrip(b"\xff")
    if not kept:
        return None
    return kept[:-1] + bytes([kept[-1] + 1])


class OrderedMap(Generic[V]):
    """Keys to values, with ranges by prefix in ascending order."""

    __slots__ = ("_keys", "values")

    def __init__(self, values: Mapping[bytes, V] | None = None) -> None:
        self.values: dict[bytes, V] = dict(values or {})
        """To look into and to write into, which layers do all the time; what deletes goes through `discard`."""
        self._keys: list[bytes] = []
        """The first of them that came, in order."""

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, key: bytes) -> bool:
        return key in self.values

    def get(self, key: bytes) -> V | None:
        """The value, or None."""
        return self.values.get(key)

    def put(self, key: bytes, value: V) -> None:
        """Set a value."""
        self.values[key] = value

    def update(self, values: Mapping[bytes, V]) -> None:
        """Set many values."""
        self.values.update(values)

    def discard(self, key: bytes) -> None:
        """Remove a key if it is there."""
        if key in self.values:
            del self.values[key]
            self._keys = []

    def copy(self) -> "OrderedMap[V]":
        """An independent map with the same content."""
        other: OrderedMap[V] = OrderedMap(self.values)
        other._keys = self._keys.copy()
        return other

    def as_dict(self) -> dict[bytes, V]:
        """An independent dict with the same content, in the order of first writing."""
        return dict(self.values)

    def range(self, prefix: bytes, start: bytes = b"") -> list[tuple[bytes, V]]:
        """(key, value) of the keys that begin with `prefix`, from `prefix + start` on, ascending, as they are now."""
        keys = self._ordered()
        end = prefix_end(prefix)
        first = bisect_left(keys, prefix + start)
        last = len(keys) if end is None else bisect_left(keys, end)
        return [(key, self.values[key]) for key in keys[first:last]]

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, V]]:
        """As `range`, one by one; the map must not change meanwhile."""
        keys = self._ordered()
        for position in range(bisect_left(keys, prefix + start), len(keys)):
            key = keys[position]
            if not key.startswith(prefix):
                return
            yield key, self.values[key]

    def _ordered(self) -> list[bytes]:
        keys = self._keys
        fresh = list(islice(reversed(self.values), len(self.values) - len(keys)))
        if keys and len(fresh) <= _INSERT_MAX:
            for key in fresh:
                insort(keys, key)
        else:
            keys += fresh
            keys.sort()
        return keys
