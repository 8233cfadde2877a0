"""Frames are cut out of any stream of bytes, and bad lengths are refused before anything is kept for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.network.frame import PING, FrameDecoder, Tag, encode_frame
from p2pledger.primitives.errors import InvalidInput

LIMIT = 1000


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.lists(st.integers(1, 60)))
def test_what_was_framed_comes_out_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    """Decoding any cutting of a stream gives the bodies that were framed, in order."""
    stream = b"".join(encode_frame(body) + PING for body in bodies)
    decoder, found = FrameDecoder(LIMIT), []
    for cut in cuts:
        found += decoder.feed(stream[:cut])
        stream = stream[cut:]
    found += decoder.feed(stream)
    assert found == bodies
    assert decoder.frames == 2 * len(bodies)


def test_a_dripped_frame_is_complete_with_its_last_byte() -> None:
    """Byte by byte, nothing comes before the last one."""
    decoder, frame = FrameDecoder(LIMIT), encode_frame(b"prepare")
    assert [decoder.feed(frame[i : i + 1]) for i in range(len(frame))] == [[]] * (len(frame) - 1) + [[b"prepare"]]


@pytest.mark.parametrize("length", [0, LIMIT + 1, 2**31, 2**32 - 1])
def test_a_bad_length_is_refused_from_its_four_bytes(length: int) -> None:
    """T1: the refusal names the length, and comes without a byte of the body."""
    with pytest.raises(InvalidInput, match=str(length)):
        FrameDecoder(LIMIT).feed(length.to_bytes(4, "big"))


def test_an_oversized_frame_is_taken_where_the_limit_allows_it() -> None:
    """The limit is what refuses: the same bytes pass a decoder with a larger one."""
    frame = encode_frame(bytes(LIMIT))
    assert FrameDecoder(LIMIT + 1).feed(frame) == [bytes(LIMIT)]
    with pytest.raises(InvalidInput, match=f"{LIMIT + 1} bytes is longer than the limit of {LIMIT}"):
        FrameDecoder(LIMIT).feed(frame)


@pytest.mark.parametrize(
    "frame",
    [encode_frame(b""), encode_frame(b"x", Tag.PING), encode_frame(b"x", Tag.HELLO), b"\0\0\0\2\0x", b"\0\0\0\2\xffx"],
)
def test_a_frame_that_has_no_place_is_refused(frame: bytes) -> None:
    """Empty messages, pings with a body, a second hello and unknown tags are errors, not silence."""
    with pytest.raises(InvalidInput, match="has no place here"):
        FrameDecoder(LIMIT).feed(frame)


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    """Garbage never raises anything but InvalidInput."""
    try:
        bodies = FrameDecoder(LIMIT).feed(data)
    except InvalidInput:
        return
    assert all(bodies)
