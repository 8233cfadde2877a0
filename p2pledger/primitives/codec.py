"""One value, one spelling: canonical MessagePack of fixed-position arrays.

Decoding is schema first (nothing is built that the type does not ask for) and ends by encoding the
result again: bytes that differ in any way from what the encoder would have produced are refused, so that a
hash or a signature over bytes is a hash or a signature over the value.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from p2pledger.primitives.errors import InvalidInput

T = TypeVar("T")


class Value(msgspec.Struct, frozen=True, gc=False):
    """The base of immutable values that are made for each transaction: a frozen dataclass costs twenty times as much.

    The garbage collector need not look at them: what refers only to what was there before it is part of no cycle.
    """


class Record(Value, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The base of everything that is encoded: immutable, written as an array of its fields in order."""


_encoder = msgspec.msgpack.Encoder()


encode: Callable[[Any], bytes] = _encoder.encode
"""The canonical bytes of a value: a Record, or ints, bytes, str, bool, None and sequences of them."""


class Shape(Generic[T]):
    """A type that is no class, such as a union, under a name of its own: hashing the type each time would be slow."""

    __slots__ = ("kind",)

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __str__(self) -> str:
        return str(self.kind)


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind.kind if isinstance(kind, Shape) else kind)
    return decoder


def decode(kind: type[T] | Shape[T], data: bytes, bytes_max: int) -> T:
    """The value of type `kind` whose canonical bytes are `data`.

    Raises InvalidInput for anything else: too long, malformed, of another type, with trailing bytes, or spelled
    in another way than `encode` spells it.
    """
    if len(data) > bytes_max:
        raise InvalidInput(f"{_name(kind)} of {len(data)} bytes is longer than the limit of {bytes_max}")
    try:
        value: T = (_decoders.get(kind) or _decoder(kind)).decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not a {_name(kind)}: {error}") from error
    if _encoder.encode(value) != data:
        raise InvalidInput(f"{_name(kind)} of {len(data)} bytes is not in its canonical spelling")
    return value


REMEMBERED = 4_096
"""Values of `decode_again`, a few megabytes: the organisations and the people who act just now."""


@lru_cache(REMEMBERED)
def decode_again(kind: type[T] | Shape[T], data: bytes, bytes_max: int) -> T:
    """As `decode`, for what is read over and over: equal bytes give the very value that they gave before."""
    return decode(kind, data, bytes_max)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
