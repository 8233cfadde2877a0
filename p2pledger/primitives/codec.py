"""One value, one spelling: canonical MessagePack of fixed-position arrays.

Decoding is schema first (nothing is built that the type does not ask for) and ends by encoding the
result again: bytes that differ in any way from what the encoder would have produced are refused, so that a
hash or a signature over bytes is a hash or a signature over the value.
"""

from typing import Any, TypeVar

import msgspec

from p2pledger.primitives.errors import InvalidInput

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The base of everything that is encoded: immutable, written as an array of its fields in order."""


_encoder = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`: a Record, or ints, bytes, str, bool, None and sequences of them."""
    return _encoder.encode(value)


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return decoder


def decode(kind: type[T], data: bytes, bytes_max: int) -> T:
    """The value of type `kind` whose canonical bytes are `data`.

    Raises InvalidInput for anything else: too long, malformed, of another type, with trailing bytes, or spelled
    in another way than `encode` spells it.
    """
    if len(data) > bytes_max:
        raise InvalidInput(f"{_name(kind)} of {len(data)} bytes is longer than the limit of {bytes_max}")
    try:
        value: T = _decoder(kind).decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"not a {_name(kind)}: {error}") from error
    if _encoder.encode(value) != data:
        raise InvalidInput(f"{_name(kind)} of {len(data)} bytes is not in its canonical spelling")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
