"""One value, one spelling: whatever decodes encodes to the very same bytes, and msgpack is the witness."""

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pledger import messages
from p2pledger.chain.batch import Batch
from p2pledger.chain.block import Header, StateRoot
from p2pledger.chain.genesis import Card, Genesis, Parameters, SignedCard, SignedGenesis
from p2pledger.chain.receipt import Executed, Receipt, ReceiptProof
from p2pledger.chain.transaction import Body, Envelope
from p2pledger.consensus import journal
from p2pledger.consensus import messages as agreement
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence
from p2pledger.messages import PeerMessage, Status
from p2pledger.network import api
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import InvalidInput

LIMIT = 1 << 20


def _records(module: Any) -> list[type[Record]]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Record)]
    return [kind for kind in found if kind is not Record and kind.__module__ == module.__name__]


KINDS: list[type[Record]] = [
    *(Batch, Header, StateRoot, Card, Genesis, Parameters, SignedCard, SignedGenesis),
    *(Executed, Receipt, ReceiptProof, Body, Envelope, Anchor, ReceiptEvidence),
    *_records(journal),
    *_records(agreement),
    *_records(messages),
    *_records(api),
]


def plain(value: Any) -> Any:
    """The value as lists, numbers, bytes and text: what an independent encoder is given."""
    if isinstance(value, msgspec.Struct):
        fields = [plain(getattr(value, field)) for field in value.__struct_fields__]
        tag = value.__struct_config__.tag
        return fields if tag is None else [tag, *fields]
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}")
def test_every_record_survives_the_wire_and_msgpack_agrees(kind: type[Record]) -> None:
    """Encoding is what an independent MessagePack library writes for the same array; decoding gives the value back."""

    sample = _sample(kind)
    data = encode(sample)
    assert data == msgpack.packb(plain(sample), use_bin_type=True)
    assert decode(kind, data, LIMIT) == sample


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}")
@settings(deadline=None)
@given(st.data())
def test_no_mutation_has_a_second_spelling(kind: type[Record], data: st.DataObject) -> None:
    """Changed, cut or longer bytes are refused, or are the one spelling of another value."""
    raw = bytearray(encode(_sample(kind)))
    for _ in range(data.draw(st.integers(1, 3))):
        what = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        if what == "flip" and raw:
            raw[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del raw[at:]
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=4))
    try:
        value = decode(kind, bytes(raw), LIMIT)
    except InvalidInput:
        return
    assert encode(value) == bytes(raw)


def _sample(kind: type[Record]) -> Any:
    """A value of every field, found from the types themselves."""
    return msgspec.convert(_sample_of(msgspec.inspect.type_info(kind)), kind, builtin_types=(bytes,))


def _sample_of(info: Any) -> Any:
    match info:
        case msgspec.inspect.StructType():
            fields = [_sample_of(field.type) for field in info.fields]
            return fields if info.tag is None else [info.tag, *fields]
        case msgspec.inspect.IntType():
            return (
                max(info.ge or 0, 300 if info.le is None or info.le >= 300 else info.ge or 0) if info.lt is None else 1
            )
        case msgspec.inspect.BytesType():
            return b"\x07" * max(info.min_length or 0, 3 if info.max_length is None else min(3, info.max_length))
        case msgspec.inspect.StrType():
            return "text"
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.LiteralType():
            return info.values[0]
        case msgspec.inspect.UnionType():
            return _sample_of(info.types[0])
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return [_sample_of(info.item_type)] * max(1, info.min_length or 0)
        case msgspec.inspect.TupleType():
            return [_sample_of(item) for item in info.item_types]
        case msgspec.inspect.CustomType() | msgspec.inspect.AnyType():
            return None
        case _:
            raise AssertionError(f"no sample for {info}")


STATUS = encode(Status(0, 3, True, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("a wide integer", b"\x95\x03\x00\xcc\x03\xc3\x05"),
        ("a wider integer", b"\x95\x03\x00\xcd\x00\x03\xc3\x05"),
        ("a float for an integer", b"\x95\x03\x00\xcb\x40\x08\x00\x00\x00\x00\x00\x00\xc3\x05"),
        ("a boolean for an integer", b"\x95\x03\x00\xc3\xc3\x05"),
        ("an integer for a boolean", b"\x95\x03\x00\x03\x01\x05"),
        ("a negative integer", b"\x95\x03\x00\xff\xc3\x05"),
        ("a wide array", b"\xdc\x00\x05\x03\x00\x03\xc3\x05"),
        ("a map for an array", b"\x85\x03\x00\x03\xc3\x05"),
        ("a missing field", b"\x94\x03\x00\x03\xc3"),
        ("a field too many", b"\x96\x03\x00\x03\xc3\x05\x00"),
        ("trailing bytes", STATUS + b"\x00"),
        ("the same twice", STATUS * 2),
        ("text for a number", b"\x95\x03\x00\xa13\xc3\x05"),
        ("nil", b"\xc0"),
        ("nothing", b""),
        ("an unknown kind", b"\x92\x63\x00"),
        ("deep nesting", b"\x91" * 5_000),
        ("a length without content", b"\xc6\xff\xff\xff\xff"),
    ],
)
def test_other_spellings_are_refused(what: str, data: bytes) -> None:
    """The plain decoder of the field takes several of these for the same value; ours takes none."""
    assert decode(PeerMessage, STATUS, LIMIT) == Status(0, 3, True, 5)  # type: ignore[arg-type,comparison-overlap]
    with pytest.raises(InvalidInput):
        decode(PeerMessage, data, LIMIT)  # type: ignore[arg-type]


def test_a_lenient_decoder_accepts_two_spellings_of_one_value() -> None:
    """Why decoding ends with encoding again: without it, one value would have two hashes."""
    wide = b"\x95\x03\x00\xcc\x03\xc3\x05"
    assert msgspec.msgpack.decode(wide, type=PeerMessage) == msgspec.msgpack.decode(STATUS, type=PeerMessage)
    with pytest.raises(InvalidInput, match="not in its canonical spelling"):
        decode(PeerMessage, wide, LIMIT)  # type: ignore[arg-type]


def test_what_is_too_long_is_not_even_read() -> None:
    with pytest.raises(InvalidInput, match="longer than the limit of 6"):
        decode(PeerMessage, STATUS + b"x", 6)  # type: ignore[arg-type]
