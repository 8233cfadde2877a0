"""What contracts and queries see of the state: ordered keys and values, read only."""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeAlias

Writes: TypeAlias = Mapping[bytes, bytes | None]
"""Key to new value; None deletes."""


class StateView(Protocol):
    """A consistent snapshot of the state."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all keys that begin with `prefix`, from `prefix + start` on, ascending."""


class _Nothing:
    def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(())


NOTHING: StateView = _Nothing()
"""The state before the genesis: no keys at all."""
