"""Bytes made to hurt a decoder (T5 to T10): what decoders of the field do with them, and what ours does.

Where ours is protected by its schema and not by a rule of our own, the victim is a decoder without one.
"""

import sys

import msgpack
import msgspec
import pytest

from p2pledger.messages import PeerMessage, Status
from p2pledger.primitives import codec
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Epoch, Height, View
from tests.attack import Without

STATUS = Status(Epoch(0), View(3), True, Height(5))
LIMIT = 1 << 20


def parsed(data: bytes) -> PeerMessage:
    return decode(PeerMessage, data, LIMIT)  # type: ignore[arg-type]


def is_refused(data: bytes) -> bool:
    try:
        parsed(data)
    except InvalidInput:
        return True
    return False


@pytest.mark.attack("T5")
def test_deep_nesting(without: Without) -> None:
    """An error that nobody expects ends more than one session."""
    nested = b"\x91" * 100_000
    with without.setup("a schema to decode by"), pytest.raises(RecursionError):
        msgspec.msgpack.decode(nested)
    assert is_refused(nested)


@pytest.mark.attack("T6")
@pytest.mark.parametrize("claim", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_four_billion_elements_in_five_bytes(without: Without, claim: bytes) -> None:
    """A decoder of streams waits for them, and keeps what comes until then."""
    stream = msgpack.Unpacker(max_buffer_size=0, max_array_len=2**32 - 1, max_map_len=2**32 - 1, max_bin_len=2**32 - 1)
    with without.setup("frames: whole messages of a known length"), pytest.raises(msgpack.OutOfData):
        stream.feed(claim)
        stream.unpack()
    assert is_refused(claim)


@pytest.mark.attack("T7")
def test_a_megabyte_of_empty_maps(without: Without) -> None:
    """Each byte becomes an object of its own."""
    count = 100_000
    maps = b"\xdd" + count.to_bytes(4, "big") + b"\x80" * count
    with without.setup("a schema to decode by"):
        built = msgspec.msgpack.decode(maps)
        assert sys.getsizeof(built) + sum(map(sys.getsizeof, built)) > 50 * len(maps)
    assert is_refused(maps)


@pytest.mark.attack("T7")
def test_each_kind_has_a_largest_size(without: Without) -> None:
    data = encode(STATUS)
    with without(codec.decode, "if len(data) > bytes_max"):
        assert decode(Status, data, 4) == STATUS
    with pytest.raises(InvalidInput, match="longer than the limit of 4"):
        decode(Status, data, 4)


@pytest.mark.attack("T8")
@pytest.mark.parametrize(
    "other",
    [
        b"\x95\x03\x00\xcc\x03\xc3\x05",
        b"\x95\x03\x00\xcd\x00\x03\xc3\x05",
        b"\xdc\x00\x05\x03\x00\x03\xc3\x05",
        b"\x95\x03\x00\x03\xc3\xcf\x00\x00\x00\x00\x00\x00\x00\x05",
    ],
    ids=["a byte for three", "two bytes for three", "an array of five in three bytes", "eight bytes for five"],
)
def test_a_second_spelling_of_one_value(without: Without, other: bytes) -> None:
    """One value with two hashes would be two blocks, two votes, two transactions."""
    with without(codec.decode, "if _encoder.encode(value) != data"):
        assert parsed(other) == STATUS
    assert is_refused(other)


@pytest.mark.attack("T8")
def test_a_key_that_stands_there_twice(without: Without) -> None:
    """Who checks the first one and uses the last one is deceived; arrays have no keys."""
    twice = b"\x82\xa6height\x01\xa6height\x07"
    with without.setup("arrays in place of maps"):
        assert msgpack.unpackb(twice) == {"height": 7}
    assert is_refused(twice)


@pytest.mark.attack("T9")
@pytest.mark.parametrize(
    "other",
    [
        b"\x95\x03\x00\xcb\x40\x08\x00\x00\x00\x00\x00\x00\xc3\x05",
        b"\x95\x03\x00\xa13\xc3\x05",
        b"\x95\x03\x00\x03\x01\x05",
    ],
    ids=["3.0", "'3'", "1 for true"],
)
def test_another_type_that_means_the_same(without: Without, other: bytes) -> None:
    with without.setup("strict types"):
        assert msgspec.msgpack.decode(other, type=PeerMessage, strict=False) == STATUS
    assert is_refused(other)


@pytest.mark.attack("T10")
def test_bytes_behind_the_message(without: Without) -> None:
    """What one reader passes over, another one hashes."""
    trailing = encode(STATUS) + b"\0"
    stream = msgpack.Unpacker()
    stream.feed(trailing)
    with without.setup("a message that ends with its last byte"):
        assert stream.unpack() == [3, 0, 3, True, 5]
    assert is_refused(trailing)
