"""What contracts and queries see of the state: ordered keys and values, read only."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

Writes: TypeAlias = Mapping[bytes, bytes | None]
"""Key to new value; None deletes."""


class StateView(Protocol):
    """A consistent snapshot of the state."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all keys that begin with `prefix`, from `prefix + start` on, ascending."""


_UNREAD: Any = object()
REMEMBERED_MAX = 32_768
"""Keys, present or not; what is read again and again is far less: who acts, and for whom."""


class Remembering:
    """A view of what does not change, which remembers what was read: most keys of a block are those of the last one."""

    __slots__ = ("_read", "base")

    def __init__(self, base: StateView) -> None:
        self.base = base
        self._read: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value: bytes | None = self._read.get(key, _UNREAD)
        if value is _UNREAD:
            if len(self._read) >= REMEMBERED_MAX:
                self._read.clear()
            value = self._read[key] = self.base.get(key)
        return value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As the base has it."""
        return self.base.scan(prefix, start)


class _Nothing:
    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(())


NOTHING: StateView = _Nothing()
"""The state before the genesis: no keys at all."""
