"""The packet queue's arithmetic: messages as the kernel spells them, and packets that leave in order and in time."""

import random
import struct

import pytest

from bench.delay import Line, message, packet_ids

_HEAD = struct.Struct("=IHHIIBB")


def packet(identity: int) -> bytes:
    """What the kernel says of a packet: its head as the first attribute, and another attribute."""
    head = struct.pack("=HH", 11, 1) + struct.pack(">IHB", identity, 0x0800, 3) + b"\0"
    mark = struct.pack("=HH", 8, 3) + struct.pack(">I", 7)
    size = _HEAD.size + 2 + len(head) + len(mark)
    return _HEAD.pack(size, 0x300, 0, 0, 0, 2, 0) + struct.pack(">H", 0) + head + mark


def test_a_message_is_as_long_as_it_says_and_its_attributes_are_padded() -> None:
    """nlmsghdr, nfgenmsg, attributes on boundaries of four bytes."""
    data = message(0x302, 5, (2, b"12345"), (3, b"1234"))
    assert _HEAD.unpack_from(data)[:3] == (len(data), 0x302, 5)
    assert data[20:] == struct.pack("=HH", 9, 2) + b"12345\0\0\0" + struct.pack("=HH", 8, 3) + b"1234"


def test_all_packets_of_one_reading_are_found() -> None:
    """The kernel joins several messages; an acknowledgement between them is none."""
    acknowledgement = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, 0) + bytes(16)
    assert list(packet_ids(packet(7) + acknowledgement + packet(2**32 - 1))) == [7, 2**32 - 1]


def test_a_refusal_of_the_kernel_is_an_error() -> None:
    """Without root there is no queue."""
    with pytest.raises(OSError, match="refuses"):
        list(packet_ids(struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -1) + bytes(16)))


def test_packets_leave_in_order_and_none_before_its_time() -> None:
    """Jitter never lets one overtake another, because one verdict is for all up to a packet."""
    line = Line(0.02, 0.01, random.Random(5))
    for identity in range(100):
        line.take(identity, identity / 10_000)
    assert line.due(0.0199) is None
    moments = [line.due(step / 10_000) for step in range(200, 500)]
    gone = [one for one in moments if one is not None]
    assert gone == sorted(gone)
    assert gone[-1] == 99
    assert line.patience_s(0.0) is None


def test_the_patience_is_until_the_next_one() -> None:
    """And nothing when it is overdue."""
    line = Line(0.02, 0.0, random.Random(5))
    line.take(1, 1.0)
    assert line.patience_s(1.005) == pytest.approx(0.015)
    assert line.patience_s(2.0) == 0
