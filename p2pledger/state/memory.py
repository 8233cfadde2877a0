"""What was read of a state, and what was made of it: kept from block to block, and right whatever is written.

Most keys that a transaction reads are those of transactions before it: who acts, for whom, by which rules. A `Memory`
answers these with one look into a dict. It also keeps what a function made of the state (`remembered`), with every key
and prefix that it read on the way: when one of them is written, the result is forgotten. So a result from memory is
the one that the function would give now, as long as it depends on nothing but its argument and the state.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from p2pledger.state.view import StateView, Writes

A = TypeVar("A", bound=Hashable)
R = TypeVar("R")
Place = tuple[Callable[..., Any], Any]
"""A remembered function with its argument."""

_UNKNOWN: Any = object()
REMEMBERED_MAX = 65_536
"""Keys, and results: beyond so many all are forgotten. What is read again and again is far less."""


class Get(Protocol):
    """Looks up a key."""

    def __call__(self, key: bytes) -> bytes | None: ...


class _Values(dict[bytes, bytes | None]):
    """Keys to values; what is not there is read, and stays."""

    __slots__ = ("read",)

    def __init__(self, read: Get) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, key: bytes) -> bytes | None:
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        value = self[key] = self.read(key)
        return value


class Memory:
    """Belongs to one view at a time, which says what was written."""

    __slots__ = ("_depending", "_scanned", "derived", "get", "values")

    def __init__(self, read: Get) -> None:
        self.values = _Values(read)
        self.get = cast(Get, self.values.__getitem__)
        """One look, without a call of Python's where the key is known."""
        self.derived: dict[Place, Any] = {}
        self._depending: dict[bytes, set[Place]] = {}
        """By a key or a prefix that was read, what was made of it."""
        self._scanned: dict[int, set[int]] = {}
        """By the first byte of prefixes that were scanned, their lengths."""

    def read_by(self, read: Get) -> None:
        """From now on what is not known is read so; it must be the same state."""
        self.values.read = read

    def note(self, writes: Writes) -> None:
        """These were written."""
        self.values.update(writes)
        if not self._depending.keys().isdisjoint(writes):
            for key in writes:
                self._forget(key)
        scanned = self._scanned
        if scanned:
            for key in writes:
                if key[0] in scanned:
                    self._forget_lists(key)

    def drop(self, keys: Iterable[bytes]) -> None:
        """What is known of these is no longer so."""
        for key in keys:
            self.values.pop(key, None)
            self._forget(key)
            self._forget_lists(key)

    def _forget_lists(self, key: bytes) -> None:
        for length in self._scanned.get(key[0], ()):
            self._forget(key[:length])

    def _forget(self, read: bytes) -> None:
        for place in self._depending.pop(read, ()):
            self.derived.pop(place, None)

    def derive(self, place: Place, state: StateView) -> Any:
        """What a function makes of `state`, to be remembered."""
        if len(self.derived) >= REMEMBERED_MAX:
            self.derived.clear()
            self._depending.clear()
            self._scanned.clear()
        noting = _Noting(state)
        function, argument = place
        value = function(argument, noting)
        for read in noting.keys | noting.prefixes:
            self._depending.setdefault(read, set()).add(place)
        for prefix in noting.prefixes:
            self._scanned.setdefault(prefix[0], set()).add(len(prefix))
        self.derived[place] = value
        return value


class _Noting:
    """A view that notes what is read."""

    __slots__ = ("_state", "keys", "prefixes")

    def __init__(self, state: StateView) -> None:
        self._state = state
        self.keys: set[bytes] = set()
        self.prefixes: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        self.keys.add(key)
        return self._state.get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """As the state has it."""
        assert prefix, "what a function makes of the whole state is not remembered"
        self.prefixes.add(prefix)
        return self._state.scan(prefix, start)


class Remembering:
    """The base of views with a memory."""

    __slots__ = ("derived", "get", "memory")

    def __init__(self, memory: Memory) -> None:
        self.recall(memory)

    def recall(self, memory: Memory) -> None:
        """Take a memory over."""
        self.memory = memory
        self.get: Get = memory.get
        self.derived = memory.derived


def remembered(function: Callable[[A, StateView], R]) -> Callable[[A, StateView], R]:
    """`function(argument, state)`, asked again only when something that it read was written.

    The result must be immutable, and depend on nothing but the two. Functions that it calls remember nothing.
    """

    @wraps(function)
    def recalled(argument: A, state: StateView) -> R:
        if not isinstance(state, Remembering):
            return function(argument, state)
        place = (function, argument)
        value: R = state.derived.get(place, _UNKNOWN)
        return state.memory.derive(place, state) if value is _UNKNOWN else value

    return recalled
